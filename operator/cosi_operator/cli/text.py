"""Plain text for a terminal: aligned tables, filled paragraphs, nothing that can drive it. Pure."""

import textwrap
from collections.abc import Sequence

from cosi_operator.scrub import cut, one_line

WIDTH = 100
# More than the longest condition message that we write.
TEXT_LIMIT = 2048


def clean(text: str) -> str:
    r"""One line; a control character shows as `\x1b`: a tenant's text must not move a cursor.

    At most TEXT_LIMIT characters, since any of it may be a tenant's.
    """
    return cut(one_line(text[: TEXT_LIMIT + 1]), TEXT_LIMIT)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, two blanks apart; the last one is not padded."""
    cells = [tuple(header), *(tuple(clean(cell) or "-" for cell in row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in cells
    )
    return "".join(f"{line.rstrip()}\n" for line in lines)


def paragraph(text: str, indent: str) -> str:
    """Fill a text to the width of a terminal; every line begins with `indent`."""
    return textwrap.fill(
        clean(text),
        WIDTH,
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
