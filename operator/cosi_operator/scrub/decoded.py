r"""Decodes the escapes of a text, and maps each decoded character to its place in the original.

`%41`, `\u0041`, `\x41`, `\101` and `&#65;` all mean the letter A, so an escaped key is still
readable. The decoded text is only searched. What is found in it is replaced in the original.
"""

import re
from dataclasses import dataclass

_ESCAPE = re.compile(
    r"""(?x) %[0-9A-Fa-f]{2}
      | \\u\{[0-9A-Fa-f]{1,6}\} | \\u[0-9A-Fa-f]{4} | \\U[0-9A-Fa-f]{8} | \\x[0-9A-Fa-f]{2}
      | \\[0-7]{3} | \\["'/\\nrtbf]
      | &\#[0-9]{1,7}; | &\#[xX][0-9A-Fa-f]{1,6}; | &(?:amp|lt|gt|quot|apos);"""
)
_NAMED = {"n": "\n", "r": "\n", "t": "\t", "b": " ", "f": " "}
_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'"}
READ_LIMIT = 4096
"""Maximum number of characters of one text that are read. The rest is never displayed."""
# Decodes text that is escaped three times, such as JSON in JSON in a URL. A key that is escaped
# more often is not readable.
ROUNDS = 3
# This many escaped letters or digits in a row are replaced, because normal text does not escape
# them.
HIDING_ESCAPES = 4


@dataclass(frozen=True, slots=True)
class Decoded:
    """The decoded text; its character i is the decoded form of original[starts[i]:ends[i]]."""

    text: str
    starts: tuple[int, ...] | range
    ends: tuple[int, ...] | range
    hidden: tuple[tuple[int, int], ...] = ()  # runs of escaped letters, in the original

    def original(self, start: int, end: int) -> tuple[int, int]:
        """Return the span of the original from which text[start:end] (not empty) was decoded."""
        return self.starts[start], self.ends[end - 1]


def decode(text: str) -> Decoded:
    """Decode `text` at most ROUNDS times, and drop invisible characters."""
    view = Decoded(text, range(len(text)), range(1, len(text) + 1))
    for _ in range(ROUNDS):
        if not text.isascii() or not text.isprintable():
            view = _visible(view)
        if _ESCAPE.search(view.text) is None:
            return view
        view = _decode_once(view)
    return _visible(view)


def _decode_once(view: Decoded) -> Decoded:
    out: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    hidden = list(view.hidden)
    at = run_start = run = 0

    def close_run(end: int) -> None:
        if run >= HIDING_ESCAPES:
            hidden.append(view.original(run_start, end))

    for found in _ESCAPE.finditer(view.text):
        start, end = found.span()
        if start > at:
            close_run(at)
            run = 0
            out.append(view.text[at:start])
            starts += view.starts[at:start]
            ends += view.ends[at:start]
        char = _meaning(found.group())
        if char.isascii() and char.isalnum():
            run_start = run_start if run else start
            run += 1
        else:
            close_run(start)
            run = 0
        out.append(char)
        starts.append(view.starts[start])
        ends.append(view.ends[end - 1])
        at = end
    close_run(at)
    out.append(view.text[at:])
    starts += view.starts[at:]
    ends += view.ends[at:]
    return Decoded("".join(out), tuple(starts), tuple(ends), tuple(hidden))


def _meaning(escape: str) -> str:
    """Return the one character that an escape means."""
    if escape in _ENTITIES:
        return _ENTITIES[escape]
    if escape.startswith("&#"):
        digits = escape[2:-1]
        code = int(digits[1:], 16) if digits[0] in "xX" else int(digits)
    elif escape[0] == "%":
        code = int(escape[1:], 16)
    elif escape[1] in "uUx":
        code = int(escape[2:].strip("{}"), 16)
    elif len(escape) > 2:
        code = int(escape[1:], 8)
    else:
        return _NAMED.get(escape[1], escape[1])
    return chr(code) if code < 0x110000 else "?"


def _visible(view: Decoded) -> Decoded:
    """Drop invisible characters, and replace full-width characters by ASCII."""
    if view.text.isascii() and view.text.isprintable():
        return view
    kept = [i for i, char in enumerate(view.text) if char.isprintable() or char.isspace()]
    text = "".join(_plain(view.text[i]) for i in kept)
    return Decoded(
        text,
        tuple(view.starts[i] for i in kept),
        tuple(view.ends[i] for i in kept),
        view.hidden,
    )


def _plain(char: str) -> str:
    if "\uff01" <= char <= "\uff5e":
        return chr(ord(char) - 0xFEE0)
    return char
