"""Finds words that look like a key, in any encoding. Pure; takes time linear in the text's length.

A driver's message can contain a key without a name. A key is recognized by its form: capitals and
digits in unusual places, long hexadecimal numbers, or letter pairs that words do not have. Words
that a reader needs are not matched: names of Kubernetes objects, `bucket-<UID>`, CamelCase error
codes, hosts and paths.
"""

import itertools
import re
from collections.abc import Iterator

type Span = tuple[int, int]

# For each letter, the letters that usually follow it. They cover 98.5 % of the letter pairs in
# 30,000 words of documentation and code. All other pairs are odd: 30 of 100 pairs of random letters
# are odd, but only 1 of 400 words has two odd pairs, and almost no word has three.
_FOLLOWERS = {
    "a": "abcdefghijklmnoprstuvwxyz", "b": "abcdefgijlmnoprstuy", "c": "abcdefghiklmnoprstuvy",
    "d": "abcdefghijklmnoprstuvwy", "e": "abcdefghijklmnopqrstuvwxyz", "f": "abcdefgilmnoprstuy",
    "g": "acdefghilmnoprstu", "h": "acdeiklmnoprstuy", "i": "abcdefghijklmnoprstuvxz",
    "j": "acdeiosu", "k": "abcdefghilmnoprstuwy", "l": "abcdefghiklmnoprstuvy",
    "m": "abcdefgiklmnoprstuy", "n": "abcdefghijklmnoprstuvwyz", "o": "abcdefghijklmnoprstuvwxyz",
    "p": "abcdefghiklmnoprstuwy", "q": "lu", "r": "abcdefghiklmnoprstuvwy",
    "s": "abcdefghiklmnopqrstuvwyz", "t": "abcdefghiklmnoprstuvwxyz", "u": "abcdefgiklmnoprstvx",
    "v": "aceiorst", "w": "acdehilnorst", "x": "acdefhilmopstxy", "y": "abcdefilmnoprstuwy",
    "z": "aeioz",
}  # fmt: skip
_ODD_PAIR = re.compile(
    f"(?={'|'.join(f'{one}(?![{after}])[a-z]' for one, after in _FOLLOWERS.items())})"
)
_FIGURE_EDGE = re.compile(r"(?=[a-z][0-9]|[0-9][a-z])")
_ODD_PAIR_POINTS = 2
_ODD_ENOUGH = 6
# The length of the shortest access key of S3 (16 to 20). Most words are shorter.
KEY_LENGTH = 16
S3_SECRET_LENGTH = 40

_WHOLE_KEYS = (
    # URL-safe base64 with two digits or the length of an S3 secret. It is first, because it may
    # contain dashes, and the other patterns would then match only a part of it. Names of Kubernetes
    # objects have no capitals.
    re.compile(
        r"(?<![\w+/%-])(?=[\w-]*[A-Z])(?=[\w-]*[a-z])"
        r"(?:(?=(?:[A-Za-z_-]*\d){2})[\w-]{24,}|(?=[A-Za-z0-9]*[-_])[\w-]{40,})={0,2}(?![\w+/%-])",
        re.ASCII,
    ),
    # Long words with at least two digits, so that AmazonS3Exception does not match. Words of only
    # capitals or with the length of an S3 secret (the patterns below) need fewer digits.
    re.compile(
        r"(?<![\w+/%])(?=(?:[A-Za-z+/_%]*\d){2})(?=[a-z0-9+/_%]*[A-Z])[\w+/%]{16,}={0,2}",
        re.ASCII,
    ),
    re.compile(r"(?i)\b(?:0x[0-9a-f]{10,}|(?=[0-9a-f]*\d)[0-9a-f]{16,})\b"),
    re.compile(r"\b(?=[A-Z]*\d)[A-Z0-9]{16,}\b"),
    re.compile(
        r"(?<![A-Za-z0-9+/])(?=[a-z0-9+/]*[A-Z])(?=[A-Z0-9+/]*[a-z])[A-Za-z0-9+/]{40}"
        r"(?![A-Za-z0-9+/])"
    ),
    # Short base64, recognized by its padding.
    re.compile(
        r"(?<![\w+/=])(?=[a-z0-9+/]*[A-Z])(?=[A-Z0-9+/]*[a-z])(?=[A-Za-z]*[0-9+/])"
        r"[A-Za-z0-9+/]{10,}={1,2}(?![\w=])"
    ),
    # Bytes in the form of Go's %v: [119 74 97 108 114 88 85 116].
    re.compile(r"(?<=\[)\d{1,3}(?:[ ,] ?\d{1,3}){7,}(?=\])"),
)
# Prefixes of AWS's ids; in lower case only a prefix with which no English word starts.
_AWS_ID = re.compile(r"(?:A[KS]IA|A(?:ID|RO|GP|NP|NV|BI|CC|IP|PK)A|akia)[A-Za-z0-9]{12,}")
_UUID = re.compile(
    r"(?i)(?<![0-9a-f])[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(?![0-9a-f])"
)
_TIME = re.compile(
    r"(?<!\d)\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?)?(?!\d)"
)
# Common words with digits, and quantities. These are never parts of a key.
_KNOWN = re.compile(
    r"(?i)(?<![A-Za-z0-9])(?:k8s|v\d(?:(?:alpha|beta)\d+)?|s3|ec2|x509|http2|oauth2|h2|md5|sha\d+"
    r"|base64|utf8|ipv[46]|tls1|(?:\d+(?:[.,]\d+)*)?(?:[kmgtp]i?b?|b|[mun]?s)(?:/s)?"
    r"|\d+(?:[.,]\d+)*/s)(?![A-Za-z0-9])"
)
# An id with the most common AWS prefix, split into pieces; it must also contain a digit.
_SPLIT_AWS_ID = re.compile(
    r"(?<![A-Za-z0-9])(?:{0}(?:{1}[A-Z0-9]){{16}}|{2}(?:{1}[a-z0-9]){{16}})".format(
        *(r"[\s\-.,:;_|]{0,3}".join("AKIA"), r"[\s\-.,:;_|]{0,3}"),
        r"[\s\-.,:;_|]{0,3}".join("akia"),
    )
)
_TOKEN = re.compile(r"[A-Za-z0-9+/_~]+={0,2}")
_SEPARATORS = re.compile(r"""[\s\-:.,;|"']{1,4}""")
_CAMEL = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+|[+/_=~]")
# The name of a Pod contains random parts of 10 and 5 characters, so lower-case runs with dashes
# must be longer than that.
_DASHED_EQUAL_LENGTH = 20
_DASHED_LENGTH = 30


# A text of only words, CamelCase, names, small numbers and single acronyms. Most texts match.
_PLAIN = re.compile(
    r"""(?x) [ ,.;:'()"/\n]*+
    (?: (?: (?:[A-Z][a-z]{2,15}+|[a-z]{3,15}+) (?:[A-Z][a-z]{2,15}+){0,3}+
          | (?:[Ii][nfst]|[Aa][nst]|[Bb][ey]|[Oo][fnr]|[Nn]o|[Ss]o|[Tt]o|[Uu]p|[Dd]o|id|io)
          | [a-z]{3,15}+ (?:[-_](?:[a-z]{2,15}+|\d{1,5}+|\ufffd))*+
          | [A-Z]{2,15}+ (?![ ,.;:'()"/\n]++[A-Z]{2})
          | [aAI] | \d{1,5}+ | k8s | [sS]3 | v\d(?:(?:alpha|beta)\d)? | \ufffd )
        (?:[ ,.;:'()"/\n]++ | \Z) )*+"""
)


def is_plain(text: str) -> bool:
    """Whether `text` certainly contains no key; a fast check that is True for most texts."""
    text = _UUID.sub("\ufffd", text)
    return _PLAIN.fullmatch(text) is not None and len(_ODD_PAIR.findall(text.lower())) < 2


def key_spans(text: str) -> Iterator[Span]:
    """Yield the spans of `text` that look like a key, whole or in pieces. Spans may overlap."""
    for pattern in (*_WHOLE_KEYS, _AWS_ID):
        for found in pattern.finditer(text):
            yield found.span()
    for found in _SPLIT_AWS_ID.finditer(text):
        if any(map(str.isdigit, found.group())):
            yield found.span()
    text = _without_names(text)
    tokens = [found.span() for found in _TOKEN.finditer(text)]
    for start, end in tokens:
        if end - start >= KEY_LENGTH and is_odd(text[start:end]):
            yield start, end
    yield from _halves(text, tokens)
    yield from _runs(text, tokens)


def _halves(text: str, tokens: list[Span]) -> Iterator[Span]:
    """Yield the spans of S3 secret keys in two pieces of which one already looks like a key."""
    for one, two in itertools.pairwise(tokens):
        joined = text[slice(*one)] + text[slice(*two)]
        if len(joined) == S3_SECRET_LENGTH and _gap(text, one, two):
            parts = [text[start:end] for start, end in (one, two)]
            odd = any(len(part) >= KEY_LENGTH and is_odd(part) for part in parts)
            if odd and _looks_like_key(joined):
                yield one[0], two[1]


def _without_names(text: str) -> str:
    """Replace UUIDs, times and quantities by text of the same length that matches no key."""
    for pattern in (_UUID, _TIME):
        text = pattern.sub(lambda found: " " * len(found.group()), text)
    return _KNOWN.sub(lambda found: re.sub("[0-9/]", "e", found.group().lower()), text)


def is_odd(word: str) -> bool:
    """Whether the letter pairs and digits of `word` are too unusual for a name or a sentence."""
    return _oddness(word.lower()) >= _ODD_ENOUGH


def _oddness(word: str) -> int:
    return _ODD_PAIR_POINTS * len(_ODD_PAIR.findall(word)) + len(_FIGURE_EDGE.findall(word))


def _looks_like_key(joined: str) -> bool:
    """Whether pieces that were joined look like a key, by the rules for whole words."""
    if len(joined) < KEY_LENGTH:
        return False
    whole = any(
        found.end() - found.start() >= KEY_LENGTH
        for pattern in (*_WHOLE_KEYS, _AWS_ID)
        if (found := pattern.search(joined))
    )
    return whole or is_odd(joined)


def _is_strange(token: str) -> bool:
    """Whether a piece is not a word, a name with a number, or CamelCase."""
    pieces = _CAMEL.findall(token)
    if len(pieces) > 1 and len(token) < 3.0 * len(pieces):
        return True
    has_digit = any(map(str.isdigit, token))
    if has_digit and len(pieces) > 2 and not token.islower():  # NN7EXAMPLE
        return True
    return _oddness(token.lower()) >= _ODD_PAIR_POINTS + (len(token) > KEY_LENGTH)


def _may_continue(token: str, *, on_new_line: bool) -> bool:
    """Whether a piece that could be a word may continue a key: MDEN, 4040.

    On the next line, a word with inner capitals may too: RfiCYEXAMPLEKEY.
    """
    has_inner_capital = token[1:].lower() != token[1:]
    return token.isupper() or token.isdigit() or (on_new_line and has_inner_capital)


def _runs(text: str, tokens: list[Span]) -> Iterator[Span]:
    """Yield the spans of keys that are split by spaces, line breaks, dashes, commas or quotes."""
    first = 0
    while first < len(tokens):
        last = _end_of_equal_run(text, tokens, first)
        if last > first and _is_split_key(text, tokens[first : last + 1]):
            yield tokens[first][0], tokens[last][1]
            first = last + 1
        else:  # continue at the end of the run, so that each token is examined at most twice
            first = max(last, first + 1)
    yield from _strange_runs(text, tokens)


def _end_of_equal_run(text: str, tokens: list[Span], first: int) -> int:
    """Return the index of the last token of a run of equal length with one separator.

    The last token may be shorter.
    """
    start, end = tokens[first]
    size = end - start
    if size >= KEY_LENGTH:
        return first
    gap, at = "", first
    while at + 1 < len(tokens):
        between = _gap(text, tokens[at], tokens[at + 1])
        length = tokens[at + 1][1] - tokens[at + 1][0]
        if not between or (gap and between != gap) or length > size:
            break
        gap, at = between, at + 1
        if length < size:
            return at if at - first > 1 else first
    return at


def _is_split_key(text: str, run: list[Span]) -> bool:
    words = [text[start:end] for start, end in run]
    joined = "".join(words)
    if _is_dns_like(text, run, joined) and len(joined) < _DASHED_EQUAL_LENGTH:
        return False
    has_evidence = len(words[0]) <= 2 or any(map(_is_strange, words))
    return has_evidence and not joined.isdigit() and _looks_like_key(joined)


def _is_dns_like(text: str, run: list[Span], joined: str) -> bool:
    """Whether a run could be the name of an object or a host: lower case with dashes or dots."""
    return joined == joined.lower() and text[run[0][1] : run[1][0]] in {"-", ".", "_"}


def _strange_runs(text: str, tokens: list[Span]) -> Iterator[Span]:
    """Yield the spans of adjacent pieces of any length of which at least one is not a word."""
    run: list[Span] = []
    for token in tokens:
        on_new_line = bool(run) and "\n" in text[run[-1][1] : token[0]]
        fits = _fits(text[token[0] : token[1]], on_new_line=on_new_line)
        if run and (not fits or not _gap(text, run[-1], token)):
            yield from _judged(text, run)
            run = []
            fits = _fits(text[token[0] : token[1]], on_new_line=False)
        if fits:
            run.append(token)
    yield from _judged(text, run)


def _fits(word: str, *, on_new_line: bool) -> bool:
    return _may_continue(word, on_new_line=on_new_line) or _is_strange(word)


def _judged(text: str, run: list[Span]) -> Iterator[Span]:
    if len(run) < 2:
        return
    words = [text[start:end] for start, end in run]
    # Pieces on one line need two strange ones, because an error code may be next to a word. If the
    # pieces are on several lines, one is sufficient, because keys are often wrapped.
    needed = 1 if "\n" in text[run[0][1] : run[-1][0]] else 2
    if sum(map(_is_strange, words)) < needed:
        return
    joined = "".join(words)
    if _is_dns_like(text, run, joined) and len(joined) < _DASHED_LENGTH:
        return
    if _looks_like_key(joined):
        yield run[0][0], run[-1][1]


def _gap(text: str, one: Span, two: Span) -> str:
    """Return the separator of two pieces; "" if it is too long. White space becomes " "."""
    between = text[one[1] : two[0]]
    if not _SEPARATORS.fullmatch(between):
        return ""
    return " " if between.isspace() else between
