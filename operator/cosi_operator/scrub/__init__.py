r"""The one scrubber of foreign text: what drivers, backends and servers say, and what tenants name.

Three things are done to a text that somebody else wrote before a person sees it, in a log line, a
condition, an Event, a span or the output of `cosi`:

- `scrub` blanks credentials: values that are named (`password=...`, headers, URLs, PEM), and words
  that look like a key, also when they are encoded, in lower case or split into pieces.
- `shown_name` and `shown_message` write control characters, and those that turn the direction of
  text, as escapes (`\x1b`, `\u202e`), on one line, and cut what is too long.
- `KnownSecrets` blanks keys that this process has seen, to the letter.

All of it is pure, reads a bounded part of a text, and takes time that is linear in that. Ids and
parameters are never changed on their way to a driver; only what is shown is.

Not promised: a secret that looks like a word, in a text that does not name it.
"""

from collections.abc import Iterable
from itertools import chain

from cosi_operator.scrub.decoded import READ_LIMIT as READ_LIMIT
from cosi_operator.scrub.decoded import Decoded, decode
from cosi_operator.scrub.known import KnownSecrets as KnownSecrets
from cosi_operator.scrub.named import named_spans, names_nothing
from cosi_operator.scrub.shapes import Span, is_plain, key_spans

REDACTED = "[redacted]"
UNKNOWN_KEY = "<id>"
"""Stands for a word that looks like a key, and may be a mere request id."""

NAME_LIMIT = 256
"""Characters of a name that are shown: names of objects have at most 253."""
MESSAGE_LIMIT_BYTES = 1024
"""Bytes of a foreign message that are shown: as many as an Event takes."""

MAX_ID_BYTES = 2048
"""Longest id of a bucket or an account that is accepted from a driver or a person.

The longest ids that are documented are AWS's ARNs, of at most 2048 characters. A longer one is
refused, never cut: a cut id would name another bucket. `maxLength` in our CRDs is the same.
"""

# Invisible letters: they are printable by Unicode's categories, but take no ink.
_FILLERS = frozenset("\u115f\u1160\u2800\u3164\uffa0")
# A text whose every blanking reveals another key is no honest text.
_PASSES = 6


def scrub(text: str, *, limit: int = READ_LIMIT) -> str:
    """`text` without credentials; of a longer one the first `limit` characters, then "…"."""
    text = _head(text, limit)
    if names_nothing(text) and is_plain(text):
        return text
    for _ in range(_PASSES):
        after = _scrub_once(text)
        if after == text:
            return text
        text = after
    return REDACTED


def shown_name(text: str) -> str:
    """A name that somebody else chose, safe to print, at most NAME_LIMIT characters."""
    return cut(escaped(text[: NAME_LIMIT + 1]), NAME_LIMIT)


def shown_message(text: str) -> str:
    """What somebody else said: one line, no credentials, at most MESSAGE_LIMIT_BYTES."""
    return cut_bytes(one_line(scrub(text)), MESSAGE_LIMIT_BYTES)


def one_line(text: str) -> str:
    """White space as single blanks, and what else can't be seen as an escape."""
    if text.isascii() and text.isprintable() and "  " not in text:
        return text.strip()
    return escaped(" ".join(text.split()))


def escaped(text: str, *, keep: str = "") -> str:
    r"""Control, invisible and direction-turning characters as `\x1b` or `\u202e`.

    `keep`: characters that stay, a line break for instance.
    """
    if text.isprintable() and not _FILLERS.intersection(text):
        return text
    return "".join(
        char if (char.isprintable() and char not in _FILLERS) or char in keep else _escape(char)
        for char in text
    )


def cut(text: str, limit: int) -> str:
    """At most `limit` characters, with an ellipsis where something was cut."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def cut_bytes(text: str, limit: int) -> str:
    """At most `limit` bytes of UTF-8, never half a character, with an ellipsis if cut."""
    encoded = text.encode(errors="replace")
    if len(encoded) <= limit:
        return encoded.decode()
    return encoded[: limit - 3].decode(errors="ignore") + "…"


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode()


def _head(text: str, limit: int) -> str:
    """The first part; a word that the cut goes through is left out, as it may be half a key."""
    if len(text) <= limit:
        return text
    head = text[:limit]
    words = head.rsplit(maxsplit=1)
    if len(words) > 1 and not head[-1].isspace():
        head = words[0]
    return head.rstrip() + " …"


def _scrub_once(text: str) -> str:
    found = [(span, REDACTED) for span in named_spans(text)]
    found += [(span, UNKNOWN_KEY) for span in key_spans(text)]
    view = decode(text)
    if view.text is not text:
        found += _in_original(view, named_spans(view.text), REDACTED)
        found += _in_original(view, key_spans(view.text), UNKNOWN_KEY)
        found += [(span, UNKNOWN_KEY) for span in view.hidden]
    return _blanked(text, found)


def _in_original(view: Decoded, spans: Iterable[Span], mark: str) -> list[tuple[Span, str]]:
    return [(view.original(*span), mark) for span in spans if span[0] < span[1]]


def _blanked(text: str, found: list[tuple[Span, str]]) -> str:
    """`text` with each span replaced by its mark; overlapping ones by one mark."""
    parts: list[str] = []
    at, mark = 0, ""
    end = -1
    for (start, stop), kind in sorted(found):
        if start >= stop:
            continue
        if start < end or (start == end and mark):  # goes on
            end = max(end, stop)
            if kind == REDACTED and mark != REDACTED:
                mark = parts[-1] = REDACTED
            continue
        if mark:
            at = end
        parts.append(text[at:start])
        parts.append(kind)
        mark, end = kind, stop
    return "".join(chain(parts, [text[end if mark else 0 :]]))
