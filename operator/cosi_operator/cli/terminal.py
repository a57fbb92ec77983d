"""The terminal: how wide it is, and colours for people who want them.

Texts are made without colours and coloured here at the end, so that no decision depends on them.
"""

import os
import re
import select
import shutil
from collections.abc import Mapping
from typing import TextIO

from cosi_operator.scrub import escaped

# Words that stand alone in a column, or after the subject of `cosi why`.
STYLES = {
    "red": r"(?<=  )(?:failed|missing|down|absent|terminal)\*?(?=  |$)|^error:",
    "yellow": r"(?<=  )(?:retrying|waiting|deleting|not yet|not visible|requeue)\*?(?=  |$)",
    "green": r"(?<=  )(?:ready|up|success)\*?(?=  |$)|(?<=: )ready$",
    "bold": r"^[A-Z][A-Z ]+$|<== this",
    "dim": r"^not seen: .*$",
}


def width_of(stream: TextIO) -> int | None:
    """Columns of the terminal; None when the stream is a file or a pipe, which have no width."""
    if not stream.isatty():
        return None
    return shutil.get_terminal_size().columns  # COLUMNS overrides it


def has_reader(stream: TextIO) -> bool:
    """False when the other end of the pipe is closed, as by `head` that has seen enough.

    A write would notice it too, but a watch writes only when something changes.
    """
    if not hasattr(select, "poll"):  # Windows
        return True
    try:
        waiting = select.poll()
        waiting.register(stream.fileno(), 0)
        return not waiting.poll(0)
    except (OSError, ValueError):  # a stream in memory, or a closed one
        return True


def has_colours(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether to colour: only on a terminal, unless NO_COLOR is set (https://no-color.org)."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def write(text: str, stream: TextIO, environ: Mapping[str, str] | None = None) -> None:
    r"""Print the text, coloured where that is wanted and rich is installed.

    A control character shows as `\x1b`, because a text can hold what a tenant or a caller wrote.
    """
    text = "\n".join(escaped(line, keep="\t") for line in text.split("\n"))
    if text and has_colours(stream, os.environ if environ is None else environ):
        text = coloured(text)
    stream.write(text)
    stream.flush()


def coloured(text: str) -> str:
    """The same text with colours; unchanged without rich."""
    try:
        from rich.style import Style
    except ImportError:
        return text
    for name, pattern in STYLES.items():
        style = Style.parse(name)

        def painted(found: re.Match[str], style: Style = style) -> str:
            return style.render(found[0])

        text = re.sub(pattern, painted, text, flags=re.MULTILINE)
    return text
