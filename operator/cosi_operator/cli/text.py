"""Plain text for a terminal: aligned tables, filled paragraphs, nothing that can drive it. Pure."""

import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from cosi_operator.scrub import cut, one_line

WIDTH = 100
SHORTEST_CELL = 16  # a shorter cut text says nothing
# More than the longest condition message that we write.
TEXT_LIMIT = 2048


def clean(text: str) -> str:
    r"""One line; a control character shows as `\x1b`: a tenant's text must not move a cursor.

    At most TEXT_LIMIT characters, since any of it may be a tenant's.
    """
    return cut(one_line(text[: TEXT_LIMIT + 1]), TEXT_LIMIT)


@dataclass(frozen=True, slots=True)
class Layout:
    """How to lay out. `width`: columns of the terminal, or None for as many as needed.

    `is_wide` adds columns and never cuts.
    """

    width: int | None = None
    is_wide: bool = False


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    layout: Layout | None = None,
    *,
    optional: Sequence[str] = (),
) -> str:
    """Columns as wide as their widest cell, two blanks apart; the last one is not padded.

    On a terminal the last column is cut where the line would wrap, unless that leaves too little.

    Args:
        optional: columns that a terminal leaves out where the lines would wrap, the first one
            first.
    """
    cells = [tuple(header), *(tuple(clean(cell) or "-" for cell in row) for row in rows)]
    widths = _widths(cells)
    if layout is not None and layout.width is not None and not layout.is_wide:
        for name in optional:
            if _room(layout.width, widths) >= min(widths[-1], SHORTEST_CELL):
                break
            at = cells[0].index(name)
            cells = [(*row[:at], *row[at + 1 :]) for row in cells]
            widths = _widths(cells)
        widths[-1] = min(widths[-1], max(_room(layout.width, widths), SHORTEST_CELL))
    lines = (
        "  ".join(_padded(cell, width) for cell, width in zip(row, widths, strict=True))
        for row in cells
    )
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _widths(cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(columns, column)) for column in zip(*cells, strict=True)]


def _room(width: int, widths: Sequence[int]) -> int:
    """What the other columns leave for the last one."""
    return width - sum(widths[:-1]) - 2 * (len(widths) - 1)


def _padded(cell: str, width: int) -> str:
    cell = cut(cell, width)
    while columns(cell) > width:  # East Asian characters
        cell = cut(cell, len(cell) - 1)
    return cell + " " * (width - columns(cell))


def columns(text: str) -> int:
    """How many columns of a terminal the text takes: East Asian characters take two."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )


def paragraph(text: str, indent: str, layout: Layout | None = None) -> str:
    """Fill a text to the width of the terminal; every line begins with `indent`."""
    width = (layout.width if layout else None) or WIDTH
    return textwrap.fill(
        clean(text),
        max(width, len(indent) + SHORTEST_CELL),
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def age(seconds: float) -> str:
    """How long ago, as kubectl writes it: 5s, 3m, 7h, 2d."""
    for unit_s, letter in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= unit_s:
            return f"{int(seconds // unit_s)}{letter}"
    return f"{max(0, int(seconds))}s"
