"""Records the demo as a terminal shows it: docs/demo.svg. Run it with hack/update-recording.

The demo runs in its own terminal, and what it wrote is drawn line by line, colours included.
Names made from UIDs stay as they were in that run.
"""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = 100
LINE_PX, CHARACTER_PX, MARGIN_PX = 18, 8.43, 16
FIRST, LAST = "7. ", "12. "
"""The steps that are shown: from the claim to the refusal."""
STYLES = {
    "1": "font-weight:bold",
    "2": "opacity:0.6",
    "31": "fill:#ff6b68",
    "32": "fill:#5fd787",
    "36": "fill:#5fd7ff",
}
_ESCAPE = re.compile(r"\x1b\[([\d;]*)m")


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


def shown(text: str) -> list[str]:
    """The lines of the steps that are shown."""
    lines = text.splitlines()
    plain = [_ESCAPE.sub("", line) for line in lines]
    start = next(n for n, line in enumerate(plain) if line.startswith(FIRST))
    end = next(n for n, line in enumerate(plain) if line.startswith(LAST))
    return lines[start : end - 1]


def draw(lines: list[str]) -> str:
    """An SVG of a dark terminal with these lines, long ones cut."""
    width = round(2 * MARGIN_PX + COLUMNS * CHARACTER_PX)
    height = 2 * MARGIN_PX + LINE_PX * len(lines)
    rows = [
        f'<text x="{MARGIN_PX}" y="{MARGIN_PX + LINE_PX * (n + 1) - 5}" xml:space="preserve">'
        f"{''.join(_spans(line))}</text>"
        for n, line in enumerate(lines)
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
            ' font-family="ui-monospace, Menlo, Consolas, monospace" font-size="14">',
            f'<rect width="{width}" height="{height}" rx="8" fill="#1e1e2e"/>',
            '<g fill="#d8dee9">',
            *rows,
            "</g>",
            "</svg>\n",
        ]
    )


def _spans(line: str) -> Iterator[str]:
    style, left = "", COLUMNS
    for position, part in enumerate(_ESCAPE.split(line)):
        if position % 2:  # what stood in the escape
            style = ";".join(STYLES[code] for code in part.split(";") if code in STYLES)
            continue
        text = part if len(part) <= left else f"{part[: max(0, left - 1)]}…"
        left -= len(text)
        if text:
            yield f'<tspan style="{style}">{escape(text)}</tspan>' if style else escape(text)


if __name__ == "__main__":
    (ROOT / "docs" / "demo.svg").write_text(draw(shown(record())), encoding="utf-8")
