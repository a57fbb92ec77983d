"""Records the demo as an animation of a terminal: docs/demo.svg. Run it with hack/update-recording.

The demo runs in its own terminal. The lines of the steps from the claim to the refusal then appear
one after another, at a pace at which they can be read, and the animation starts again. The last
picture shows the refused claim whole; programs that do not animate show that picture only. Names
made from UIDs stay as they were in that run.
"""

import os
import pty
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COLUMNS, ROWS = 110, 72
LINE_PX, CHARACTER_PX, MARGIN_PX, FONT_PX = 16, 7.83, 14, 13
FIRST, LAST = "7. ", "12. "
"""The steps that are shown: from the claim to the refusal."""
LIMIT_S = 40.0
LAST_PICTURE_S = 9.0
STYLES = {
    "1": "font-weight:bold",
    "2": "opacity:0.6",
    "31": "fill:#ff6b68",
    "32": "fill:#5fd787",
    "36": "fill:#5fd7ff",
}
_ESCAPE = re.compile(r"\x1b\[([\d;]*)m")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the terminal, the CSS of its text, and how long it is the last one."""

    text: str
    style: str = ""
    seconds: float = 0.0


def record() -> str:
    """Run the demo in a terminal; what it wrote.

    Raises:
        SystemExit: the demo failed.
    """
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "demo"]
    with subprocess.Popen(command, stdout=slave, stderr=slave, close_fds=True) as process:
        os.close(slave)
        chunks = list(_read(master))
    if process.returncode != 0:
        sys.exit(f"the demo ended with {process.returncode}")
    return b"".join(chunks).decode().replace("\r\n", "\n")


def _read(master: int) -> Iterator[bytes]:
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:  # the other end is closed
            return
        if not chunk:
            return
        yield chunk


def shown(text: str) -> list[Line]:
    """The lines of the steps that are shown, long ones wrapped, with the time that each needs."""
    lines = text.splitlines()
    plain = [_ESCAPE.sub("", line) for line in lines]
    start = next(n for n, line in enumerate(plain) if line.startswith(FIRST))
    end = next(n for n, line in enumerate(plain) if line.startswith(LAST))
    found = [part for line in lines[start : end - 1] for part in _wrapped(line)]
    pace = min(1.0, (LIMIT_S - LAST_PICTURE_S) / sum(line.seconds for line in found))
    return [Line(line.text, line.style, line.seconds * pace) for line in found]


def _wrapped(line: str) -> Iterator[Line]:
    codes = [code for part in _ESCAPE.findall(line) for code in part.split(";")]
    style = ";".join(STYLES[code] for code in codes if code in STYLES)
    text = _ESCAPE.sub("", line)
    indent = " " * (len(text) - len(text.lstrip()) + 2)
    parts = textwrap.wrap(
        text, COLUMNS, subsequent_indent=indent, drop_whitespace=True, replace_whitespace=False
    )
    for part in parts or [""]:
        yield Line(part, style, _seconds(text) / max(1, len(parts)))


def _seconds(text: str) -> float:
    """How long a line is read: a title, a command and a check longer than the output."""
    if text[:1].isdigit():
        return 0.9
    if text.startswith("   $ "):
        return 1.0
    if text.startswith("   ✓ "):
        return 0.4
    if text.startswith("   Watching "):
        return 1.5
    return 0.07 if text.startswith("     ") else 0.4


def pictures(lines: Sequence[Line]) -> Iterator[tuple[float, int]]:
    """Each moment at which a line appears, and how many lines are there from then on."""
    moment = 0.0
    for count, line in enumerate(lines, 1):
        yield moment, count
        moment += line.seconds


def length_s(lines: Sequence[Line]) -> float:
    """The length of the whole animation."""
    return sum(line.seconds for line in lines) + LAST_PICTURE_S


def visible(lines: Sequence[Line], count: int) -> Sequence[Line]:
    """What the terminal shows when `count` lines have appeared."""
    return lines[max(0, count - ROWS) : count]


def draw(lines: Sequence[Line]) -> str:
    """An SVG of a dark terminal in which the lines appear, and which scrolls when it is full.

    All lines are there from the start. A cover below the last one hides the others, and moves
    down. A program that does not animate uses the attributes `transform`: the last picture.
    """
    width = round(2 * MARGIN_PX + COLUMNS * CHARACTER_PX)
    height = 2 * MARGIN_PX + LINE_PX * ROWS
    last = len(lines)
    rows = [
        f'<text x="{MARGIN_PX}" y="{MARGIN_PX + LINE_PX * (n + 1) - 4}"'
        f"{f' style={chr(34)}{line.style}{chr(34)}' if line.style else ''}"
        f' xml:space="preserve">{escape(line.text)}</text>'
        for n, line in enumerate(lines)
        if line.text
    ]
    whole_s, moments = length_s(lines), list(pictures(lines))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
            f' font-family="ui-monospace, Menlo, Consolas, monospace" font-size="{FONT_PX}">',
            "<style>",
            f"#lines{{animation:scroll {whole_s:.2f}s step-end infinite}}",
            f"#cover{{animation:cover {whole_s:.2f}s step-end infinite}}",
            "@media (prefers-reduced-motion:reduce){#lines,#cover{animation:none}}",
            _keyframes("scroll", [(at, _scroll_px(count)) for at, count in moments], whole_s),
            _keyframes("cover", [(at, _cover_px(count)) for at, count in moments], whole_s),
            "</style>",
            f'<rect width="{width}" height="{height}" rx="8" fill="#1e1e2e"/>',
            '<clipPath id="screen">'
            f'<rect y="{MARGIN_PX}" width="{width}" height="{height - 2 * MARGIN_PX}"/></clipPath>',
            '<g clip-path="url(#screen)">',
            f'<g id="lines" transform="translate(0 {_scroll_px(last)})" fill="#d8dee9">',
            *rows,
            f'<rect id="cover" transform="translate(0 {_cover_px(last)})" width="{width}"'
            f' height="{LINE_PX * last}" fill="#1e1e2e"/>',
            "</g></g>",
            "</svg>\n",
        ]
    )


def _scroll_px(count: int) -> int:
    return -LINE_PX * max(0, count - ROWS)


def _cover_px(count: int) -> int:
    return MARGIN_PX + LINE_PX * count


def _keyframes(name: str, moments: Sequence[tuple[float, int]], whole_s: float) -> str:
    """Each value is valid until the next one; a value that stays is written once."""
    written: list[str] = []
    before: int | None = None
    for at, value in moments:
        if value != before:
            written.append(f"{100 * at / whole_s:.3f}%{{transform:translateY({value}px)}}")
            before = value
    return f"@keyframes {name}{{{''.join(written)}}}"


if __name__ == "__main__":
    (ROOT / "docs" / "demo.svg").write_text(draw(shown(record())), encoding="utf-8")
