"""A hook of mkdocs: code blocks copy as commands, without prompts and output (see mkdocs.yml).

The theme's copy button takes the attribute `data-copy` of a block, if it has one.
"""

import re
from html import escape, unescape

_BLOCK = re.compile(
    r'<div class="highlight">(?P<head>(?:<span[^>]*></span>)*<pre>.*?<code[^>]*>)'
    r"(?P<code>.*?)</code>",
    re.DOTALL,
)
_TAG = re.compile(r"<[^>]+>")
_HEREDOC = re.compile(r"<<-?\s*['\"]?(\w+)")


def on_page_content(html: str, **_: object) -> str:
    """Give each block with prompts the text to copy."""
    return _BLOCK.sub(_with_copy, html)


def _with_copy(block: re.Match[str]) -> str:
    commands = commands_of(unescape(_TAG.sub("", block["code"])))
    if not commands:
        return block[0]
    copy = escape(commands).replace("\n", "&#10;")
    return f'<div class="highlight" data-copy="{copy}">{block["head"]}{block["code"]}</code>'


def commands_of(text: str) -> str:
    """The commands of a shell or Python session; "" if the text has no prompt.

    A command goes on in the next line after a backslash, and in the text of a heredoc up to its
    end. Every other line without a prompt is output.
    """
    taken: list[str] = []
    marker, is_continued = "", False
    for line in text.splitlines():
        if marker or is_continued:
            taken.append(line)
            if line == marker:
                marker = ""
        elif line.startswith(("$ ", ">>> ", "... ")):
            taken.append(line.partition(" ")[2])
            if line.startswith("$ ") and (heredoc := _HEREDOC.search(line)):
                marker = heredoc[1]
        elif line == "...":  # an empty line that ends a block in a Python session
            taken.append("")
        else:
            continue
        is_continued = not marker and taken[-1].endswith("\\")
    return "\n".join(taken)
