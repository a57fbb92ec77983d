r"""Scrubs texts from drivers, backends, API servers and tenants before a user can see them.

A log line, a condition, an Event, a span and the output of `cosi` contain such a text only after:

- `scrub`: replaces credentials. These are values with a name (`password=...`, headers, URLs, PEM)
  and words that look like a key, even if they are encoded, in lower case or split into pieces.
- `shown_name` and `shown_message`: write the text on one line, with control characters and
  characters that change the direction of text as escapes (`\x1b`, `\u202e`), and shorten it.
- `KnownSecrets`: replaces keys that this process has seen.

The functions are pure, read a bounded part of a text, and take linear time. They apply only to
displayed texts. Ids and parameters are passed to a driver unchanged.

Not guaranteed: a secret that looks like an ordinary word is not found if the text does not name it.
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
"""Replaces a word that looks like a key but may be only a request id."""

NAME_LIMIT = 256
"""Maximum number of characters of a displayed name. Object names have at most 253."""
MESSAGE_LIMIT_BYTES = 1024
"""Maximum size of a displayed message; the API server's limit for the message of an Event."""

MAX_ID_BYTES = 2048
"""Maximum size of a bucket id or account id, from a driver or a user.

The longest documented ids are AWS's ARNs, of at most 2048 characters. A longer id is refused and
never shortened, because a shortened id could name another bucket. `maxLength` in our CRDs is the
same.
"""

# Characters that Unicode's categories count as printable but that are invisible.
_FILLERS = frozenset("\u115f\u1160\u2800\u3164\uffa0")
# After this many passes that each found another credential, the whole text is replaced.
_PASSES = 6


def scrub(text: str, *, limit: int = READ_LIMIT) -> str:
    """Return at most the first `limit` characters of `text` without credentials."""
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
    """Return a name of foreign origin, safe to print, with at most NAME_LIMIT characters."""
    return cut(escaped(text[: NAME_LIMIT + 1]), NAME_LIMIT)


def shown_message(text: str) -> str:
    """Return a foreign message on one line without credentials, of at most MESSAGE_LIMIT_BYTES."""
    return cut_bytes(one_line(scrub(text)), MESSAGE_LIMIT_BYTES)


def one_line(text: str) -> str:
    """Replace white space by single spaces and other invisible characters by escapes."""
    if text.isascii() and text.isprintable() and "  " not in text:
        return text.strip()
    return escaped(" ".join(text.split()))


def escaped(text: str, *, keep: str = "") -> str:
    r"""Replace control, invisible and direction-changing characters by `\x1b` or `\u202e`.

    `keep`: characters that are not replaced, for example a line break.
    """
    if text.isprintable() and not _FILLERS.intersection(text):
        return text
    return "".join(
        char if (char.isprintable() and char not in _FILLERS) or char in keep else _escape(char)
        for char in text
    )


def cut(text: str, limit: int) -> str:
    """Shorten to at most `limit` characters; a shortened text ends in an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def cut_bytes(text: str, limit: int) -> str:
    """Shorten to at most `limit` bytes of UTF-8; a shortened text ends in an ellipsis.

    A character is never split.
    """
    encoded = text.encode(errors="replace")
    if len(encoded) <= limit:
        return encoded.decode()
    return encoded[: limit - 3].decode(errors="ignore") + "…"


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode()


def _head(text: str, limit: int) -> str:
    """Return the first part. A word that would be split is omitted, because it may be a key."""
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
    """Replace each span of `text` by its mark. Overlapping spans get one mark."""
    parts: list[str] = []
    at, mark = 0, ""
    end = -1
    for (start, stop), kind in sorted(found):
        if start >= stop:
            continue
        if start < end or (start == end and mark):  # continues the span
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
