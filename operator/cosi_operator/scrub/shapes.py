"""Which words look like a key, whatever their encoding. Pure, and linear in the length of the text.

A driver's message can repeat a key without its name. What gives a key away is its shape: capitals
and figures in odd places, long hexadecimal, letter pairs that no word has. Words that a reader
needs stay: names of Kubernetes objects, `bucket-<UID>`, CamelCase error codes, hosts, paths.
"""

import itertools
import re
from collections.abc import Iterator

type Span = tuple[int, int]

# Followers of each letter that cover 98.5 % of the letter pairs in 30,000 words of documentation
# and code. Two random letters are no such pair in 30 of 100 cases; of the words, 1 in 400 has two
# such pairs, and nearly none has three.
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
# Shorter than every access key of S3 (16 to 20), longer than most words.
KEY_LENGTH = 16
S3_SECRET_LENGTH = 40

_WHOLE_KEYS = (
    # URL-safe base64 goes first and whole: a dash may stand anywhere in it, and what the others
    # leave of it would be pieces of a key. Two figures, or the size of an S3 secret. Names of
    # Kubernetes have no capitals.
    re.compile(
        r"(?<![\w+/%-])(?=[\w-]*[A-Z])(?=[\w-]*[a-z])"
        r"(?:(?=(?:[A-Za-z_-]*\d){2})[\w-]{24,}|(?=[A-Za-z0-9]*[-_])[\w-]{40,})={0,2}(?![\w+/%-])",
        re.ASCII,
    ),
    # Long random-looking words. Two figures at least, so that AmazonS3Exception stays; all
    # capitals, or the size of an S3 secret, need fewer.
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
    # Short base64 shows itself by its padding.
    re.compile(
        r"(?<![\w+/=])(?=[a-z0-9+/]*[A-Z])(?=[A-Z0-9+/]*[a-z])(?=[A-Za-z]*[0-9+/])"
        r"[A-Za-z0-9+/]{10,}={1,2}(?![\w=])"
    ),
    # Bytes as Go prints them with %v: [119 74 97 108 114 88 85 116].
    re.compile(r"(?<=\[)\d{1,3}(?:[ ,] ?\d{1,3}){7,}(?=\])"),
)
# Prefixes of AWS's ids; in lower case only where no English word begins so.
_AWS_ID = re.compile(r"(?:A[KS]IA|A(?:ID|RO|GP|NP|NV|BI|CC|IP|PK)A|akia)[A-Za-z0-9]{12,}")
_UUID = re.compile(
    r"(?i)(?<![0-9a-f])[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(?![0-9a-f])"
)
_TIME = re.compile(
    r"(?<!\d)\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?)?(?!\d)"
)
# Words with figures that everybody writes, and quantities: no pieces of a key.
_KNOWN = re.compile(
    r"(?i)(?<![A-Za-z0-9])(?:k8s|v\d(?:(?:alpha|beta)\d+)?|s3|ec2|x509|http2|oauth2|h2|md5|sha\d+"
    r"|base64|utf8|ipv[46]|tls1|(?:\d+(?:[.,]\d+)*)?(?:[kmgtp]i?b?|b|[mun]?s)(?:/s)?"
    r"|\d+(?:[.,]\d+)*/s)(?![A-Za-z0-9])"
)
# The best-known of them also in pieces; it needs a figure as well.
_SPLIT_AWS_ID = re.compile(
    r"(?<![A-Za-z0-9])(?:{0}(?:{1}[A-Z0-9]){{16}}|{2}(?:{1}[a-z0-9]){{16}})".format(
        *(r"[\s\-.,:;_|]{0,3}".join("AKIA"), r"[\s\-.,:;_|]{0,3}"),
        r"[\s\-.,:;_|]{0,3}".join("akia"),
    )
)
_TOKEN = re.compile(r"[A-Za-z0-9+/_~]+={0,2}")
_SEPARATORS = re.compile(r"""[\s\-:.,;|"']{1,4}""")
_CAMEL = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+|[+/_=~]")
# Within the name of a Pod, pieces of 10 and 5 random letters stand side by side.
_DASHED_EQUAL_LENGTH = 20
_DASHED_LENGTH = 30


# A sentence of words, CamelCase, names, small numbers and single acronyms, as most texts are.
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
    """Whether no key stands in `text`; quick, and right about most of what is ever scrubbed."""
    text = _UUID.sub("\ufffd", text)
    return _PLAIN.fullmatch(text) is not None and len(_ODD_PAIR.findall(text.lower())) < 2


def key_spans(text: str) -> Iterator[Span]:
    """Where in `text` a key seems to stand, whole or in pieces. Spans may overlap."""
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
    """A secret key of S3 that was cut once, when one part alone already looks like a key."""
    for one, two in itertools.pairwise(tokens):
        joined = text[slice(*one)] + text[slice(*two)]
        if len(joined) == S3_SECRET_LENGTH and _gap(text, one, two):
            parts = [text[start:end] for start, end in (one, two)]
            odd = any(len(part) >= KEY_LENGTH and is_odd(part) for part in parts)
            if odd and _looks_like_key(joined):
                yield one[0], two[1]


def _without_names(text: str) -> str:
    """The same length, where UUIDs, times and quantities are no pieces of a key any more."""
    for pattern in (_UUID, _TIME):
        text = pattern.sub(lambda found: " " * len(found.group()), text)
    return _KNOWN.sub(lambda found: re.sub("[0-9/]", "e", found.group().lower()), text)


def is_odd(word: str) -> bool:
    """Whether no name and no sentence has such a word: by its letter pairs, and by its figures."""
    return _oddness(word.lower()) >= _ODD_ENOUGH


def _oddness(word: str) -> int:
    return _ODD_PAIR_POINTS * len(_ODD_PAIR.findall(word)) + len(_FIGURE_EDGE.findall(word))


def _looks_like_key(joined: str) -> bool:
    """The same judgement on pieces that were put together again."""
    if len(joined) < KEY_LENGTH:
        return False
    whole = any(
        found.end() - found.start() >= KEY_LENGTH
        for pattern in (*_WHOLE_KEYS, _AWS_ID)
        if (found := pattern.search(joined))
    )
    return whole or is_odd(joined)


def _is_strange(token: str) -> bool:
    """A piece that is no word, no name with a number, and no CamelCase."""
    pieces = _CAMEL.findall(token)
    if len(pieces) > 1 and len(token) < 3.0 * len(pieces):
        return True
    has_digit = any(map(str.isdigit, token))
    if has_digit and len(pieces) > 2 and not token.islower():  # NN7EXAMPLE
        return True
    return _oddness(token.lower()) >= _ODD_PAIR_POINTS + (len(token) > KEY_LENGTH)


def _may_continue(token: str, *, on_new_line: bool) -> bool:
    """Also a piece that could be a word: MDEN, 4040; on the next line also RfiCYEXAMPLEKEY."""
    has_inner_capital = token[1:].lower() != token[1:]
    return token.isupper() or token.isdigit() or (on_new_line and has_inner_capital)


def _runs(text: str, tokens: list[Span]) -> Iterator[Span]:
    """Keys that were split: by spaces, line breaks, dashes, commas or quotes."""
    first = 0
    while first < len(tokens):
        last = _end_of_equal_run(text, tokens, first)
        if last > first and _is_split_key(text, tokens[first : last + 1]):
            yield tokens[first][0], tokens[last][1]
            first = last + 1
        else:  # begin again within the run only at its end: each token is looked at twice at most
            first = max(last, first + 1)
    yield from _strange_runs(text, tokens)


def _end_of_equal_run(text: str, tokens: list[Span], first: int) -> int:
    """The last token of a run of equally long ones with one separator; the last may be shorter."""
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
    """Lower case with dashes or dots: it could be the name of an object or a host."""
    return joined == joined.lower() and text[run[0][1] : run[1][0]] in {"-", ".", "_"}


def _strange_runs(text: str, tokens: list[Span]) -> Iterator[Span]:
    """Pieces of any length, one after the other, of which at least one is no word."""
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
    # An error code may stand beside a key in a line, but a line that ends in a key goes on with it.
    needed = 1 if "\n" in text[run[0][1] : run[-1][0]] else 2
    if sum(map(_is_strange, words)) < needed:
        return
    joined = "".join(words)
    if _is_dns_like(text, run, joined) and len(joined) < _DASHED_LENGTH:
        return
    if _looks_like_key(joined):
        yield run[0][0], run[-1][1]


def _gap(text: str, one: Span, two: Span) -> str:
    """What separates two pieces, all white space being alike; "" if too much does."""
    between = text[one[1] : two[0]]
    if not _SEPARATORS.fullmatch(between):
        return ""
    return " " if between.isspace() else between
