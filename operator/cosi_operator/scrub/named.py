r"""Finds credentials with a name: `password=...`, headers, URLs with a password, PEM, JWT. Pure.

Every pattern takes linear time, because no repetition can match a character in two ways.
"""

import re
from collections.abc import Iterator

from cosi_operator.scrub.shapes import Span, is_odd

# A mark is not a value, so scrubbing a text twice has the same result as scrubbing it once.
_NOT_BLANKED = r"(?!\[redacted\]|<id>)"
_STRONG = r"""
    pass(?:word|wd|phrase) | (?<![A-Za-z])pwd | api[ _-]?key
  | (?:access|secret|account|private|shared|encryption|client|master|admin|root|storage)[ _-]?key
  | secret[ _-]?access[ _-]?key | access[ _-]?secret(?:[ _-]?key)?
  | client[ _-]?secret | security[ _-]?token | session[ _-]?token | access[ _-]?token
  | refresh[ _-]?token | id[ _-]?token | sas[ _-]?token | bearer[ _-]?token
  | connection[ _-]?string | (?<![A-Za-z])sig"""
# These names also occur without a credential: in sentences ("token: expired") and in quotas
# ("secrets=4").
_WEAK = r"""
    access[ _-]?key[ _-]?id | secrets? | token | credentials? | signature
  | (?<![A-Za-z])auth | (?<![A-Za-z])cookie"""
_SEPARATOR = r"""(?P<sep>\\{0,3}["']?\s{0,3}(?:=>|:=|[:=>])\s{0,3})"""
_VALUE = r"""
    (?: "(?P<double>(?:[^"\\]|\\.)*+)
      | '(?P<single>(?:[^'\\]|\\.)*+)
      | \\{1,3}["'](?P<escaped>[^"'\\]++)
      | (?P<bare>[^\s"'\\,;&}\])<>]++) )"""
_PAIR = re.compile(
    rf"(?ixs) (?: (?P<weak>{_WEAK}) | (?P<strong>{_STRONG}) )"
    rf" (?:[_-]?(?:id|value|data|string|s3|azure))? \d{{0,2}} {_SEPARATOR} {_NOT_BLANKED} {_VALUE}"
)
# Flags of a command line, such as --secret-key hunter2.
_FLAG = re.compile(
    rf"(?ix) (?<![\w-])--?[a-z-]*(?:{_STRONG}|secret|token)\s++{_NOT_BLANKED}"
    r"""(?P<value>(?!-)[^\s"',;]++)"""
)
_PAIR_PARTS = ("double", "single", "escaped", "bare")
_HEADER = re.compile(r"""(?i)\b(?:proxy-)?authorization["']?\s{0,3}[:=]\s{0,3}["']?""")
_SCHEME = re.compile(
    r"(?i)\b(?P<one>bearer|basic|negotiate)\s{1,3}(?P<token>[^\s\"',;:]{6,})"
    r"|\b(?:aws4-hmac-sha256|aws4-ecdsa-p256-sha256|digest(?=\s{1,3}\w+=)|sharedkey(?:lite)?|goog4-rsa-sha256)"
    r"\s{1,3}(?P<rest>(?=[^\s\"',]{8})[^\"'\n]++)"
    r"|\baws\s{1,3}(?P<pair>[A-Z0-9]{8,}:[^\s\"',;]++)"
)
_LINE_REST = re.compile(r"[^\"'\n]*")
_USER_INFO = re.compile(r"://(?P<pair>[^\s/@:\"'<>]{0,256}:[^\s@\"'<>]{1,512})@")
_PEM = re.compile(r"(?s)-----BEGIN [A-Z0-9 ]{1,64}-----(?P<body>.*?)(?:-----END|\Z)")
_JWT = re.compile(r"\beyJ[\w-]{8,}(?:\.[\w-]*){1,4}")
_SIGNS = re.compile(
    r"(?i)pass|pwd|key|secret|token|sig|auth|cred|cookie|connection|bearer|basic|negotiate|aws"
    r"|hmac|digest|goog|shared"
)
_WORD = re.compile(r"[A-Za-z]{1,20}")


def names_nothing(text: str) -> bool:
    """Whether `text` can't contain a named credential; a fast check."""
    return _SIGNS.search(text) is None and "://" not in text and "--" not in text


def named_spans(text: str) -> Iterator[Span]:
    """Yield the spans of the values of named credentials in `text`. Spans may overlap."""
    for sign, pattern, group in (
        ("-----BEGIN", _PEM, "body"),
        ("eyJ", _JWT, 0),
        ("://", _USER_INFO, "pair"),
        ("-", _FLAG, "value"),
    ):
        if sign in text:  # most texts contain none of these
            for found in pattern.finditer(text):
                yield found.span(group)
    if _SIGNS.search(text) is None:
        return
    for found in _PAIR.finditer(text):
        group = next(name for name in _PAIR_PARTS if found[name] is not None)
        if found["strong"] or not _is_sentence(found["sep"], found[group]):
            yield found.span(group)
    yield from _header_spans(text)


def _header_spans(text: str) -> Iterator[Span]:
    for found in _SCHEME.finditer(text):
        if found["one"] is None:
            yield found.span("rest" if found["rest"] is not None else "pair")
        elif not _WORD.fullmatch(found["token"]) or is_odd(found["token"]):
            yield found.span("token")  # but not in "basic authentication"
    done = 0
    for found in _HEADER.finditer(text):
        start = found.end()
        if start < done or _SCHEME.match(text, start):
            continue
        rest = _LINE_REST.match(text, start)
        if rest and not rest.group().startswith("[redacted]"):
            done = rest.end()
            yield rest.span()


def _is_sentence(separator: str, value: str) -> bool:
    """Whether a pair is ordinary text, as `token: expired` or `secrets=4`, not `token=hunter2`."""
    if value.isdigit() and len(value) < 6:
        return True
    return separator.endswith(" ") and "=" not in separator and bool(_WORD.fullmatch(value))
