"""Keys that this process has seen, so that a driver can't repeat them in any spelling."""

import base64
import secrets
from collections import OrderedDict
from collections.abc import Iterable, Iterator

from cosi_operator.scrub.decoded import READ_LIMIT, decode

# Shorter values are words like "admin", which would blank every message that has the word.
LEAST_LENGTH = 12
# A Grant's two values take about 1 KiB here, so this is 1 MiB at most.
LIMIT = 1024
_MODULUS = 2**61 - 1
_MARK = "[redacted]"


class KnownSecrets:
    """Recognises secrets of which it holds hashes only, in memory only.

    Compared are letters and figures alone, without case: so a spelling with blanks, line breaks,
    dashes, percent or other escapes, or in lower case, is the same. Hexadecimal and base64 are
    learned beside the value. A text is hashed once, however many secrets are known: a rolling hash
    over LEAST_LENGTH characters, of a base that is random for each process.
    """

    def __init__(self) -> None:
        self._base = secrets.randbelow(_MODULUS - 2**32) + 2**32
        self._lead = pow(self._base, LEAST_LENGTH - 1, _MODULUS)
        self._by_owner: OrderedDict[str, tuple[tuple[int, int], ...]] = OrderedDict()
        self._lengths: dict[int, int] = {}  # hash of the beginning -> characters in all

    def __len__(self) -> int:
        """The number of owners."""
        return len(self._by_owner)

    def learn(self, owner: str, values: Iterable[str]) -> None:
        """Remember `values` until `owner` (an account) is forgotten, or LIMIT others came."""
        self.forget(owner)
        found: dict[int, int] = {}
        for value in values:
            for spelling in _spellings(value):
                squeezed = _squeezed(spelling)
                if len(squeezed) >= LEAST_LENGTH:
                    found[next(self._hashes(squeezed))] = len(squeezed)
        self._by_owner[owner] = tuple(found.items())
        self._lengths |= found
        if len(self._by_owner) > LIMIT:
            self.forget(next(iter(self._by_owner)))

    def forget(self, owner: str) -> None:
        """Forget what was learned of `owner`; nothing happens if it is unknown."""
        for beginning, _ in self._by_owner.pop(owner, ()):
            self._lengths.pop(beginning, None)

    def blank(self, text: str) -> str:
        """`text` without any secret that is known; the first READ_LIMIT characters of it."""
        if not self._lengths:
            return text
        text = text[:READ_LIMIT]
        view = decode(text)
        kept = [i for i, char in enumerate(view.text) if char.isalnum()]
        squeezed = "".join(view.text[i] for i in kept).lower()
        if len(squeezed) != len(kept):  # letters whose lower case is longer; no key has one
            squeezed = "".join(view.text[i].lower()[:1] for i in kept)
        parts: list[str] = []
        at = done = 0
        for i, beginning in enumerate(self._hashes(squeezed)):
            length = self._lengths.get(beginning)
            if length is None or i < done:
                continue
            done = min(i + length, len(kept))
            start, end = view.original(kept[i], kept[done - 1] + 1)
            parts += [text[at : max(at, start)], _MARK]
            at = max(at, end)
        return "".join([*parts, text[at:]])

    def _hashes(self, squeezed: str) -> Iterator[int]:
        """Of each LEAST_LENGTH characters that follow one another."""
        value = 0
        for i, char in enumerate(squeezed):
            if i >= LEAST_LENGTH:
                value -= ord(squeezed[i - LEAST_LENGTH]) * self._lead
            value = (value * self._base + ord(char)) % _MODULUS
            if i >= LEAST_LENGTH - 1:
                yield value


def _squeezed(text: str) -> str:
    return "".join(char for char in text if char.isalnum()).lower()


def _spellings(value: str) -> Iterator[str]:
    yield value
    raw = value.encode(errors="replace")
    yield raw.hex()
    for shift in range(3):  # base64 of a text that the value stands in
        encoded = base64.b64encode(b"\0" * shift + raw).decode().rstrip("=")
        # What depends on the neighbours is left out.
        whole = len(raw) + shift
        yield encoded[(0, 2, 3)[shift] : (whole // 3) * 4]
