"""Replaces keys that this process has seen, in case a driver's message repeats them."""

import base64
import secrets
from collections import OrderedDict
from collections.abc import Iterable, Iterator

from cosi_operator.scrub.decoded import READ_LIMIT, decode

# Shorter values may be words like "admin", which would then be replaced in every message.
LEAST_LENGTH = 12
# Maximum number of owners. The two values of a Grant take about 1 KiB, so at most 1 MiB in all.
LIMIT = 1024
_MODULUS = 2**61 - 1
_MARK = "[redacted]"


class KnownSecrets:
    """Finds known secrets in texts. Only hashes of the secrets are held, only in memory.

    Only letters and digits are compared, ignoring case, so spaces, line breaks, dashes, escapes and
    case do not matter. The hexadecimal and base64 forms of each value are learned too. A text is
    hashed once, however many secrets are known, with a rolling hash over LEAST_LENGTH characters.
    Its base is random in each process.
    """

    def __init__(self) -> None:
        self._base = secrets.randbelow(_MODULUS - 2**32) + 2**32
        self._lead = pow(self._base, LEAST_LENGTH - 1, _MODULUS)
        self._by_owner: OrderedDict[str, tuple[tuple[int, int], ...]] = OrderedDict()
        self._lengths: dict[int, int] = {}  # hash of the first characters -> total length

    def __len__(self) -> int:
        """The number of owners."""
        return len(self._by_owner)

    def learn(self, owner: str, values: Iterable[str]) -> None:
        """Store the hashes of `values` until `forget(owner)`; evict the oldest owner above LIMIT.

        `owner` is an account id. Earlier values of the same owner are forgotten.
        """
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
        """Remove the values of `owner`. An unknown owner is ignored."""
        for beginning, _ in self._by_owner.pop(owner, ()):
            self._lengths.pop(beginning, None)

    def blank(self, text: str) -> str:
        """Return the first READ_LIMIT characters of `text`, with each known secret replaced.

        If no secret is known, the whole `text` is returned unchanged.
        """
        if not self._lengths:
            return text
        text = text[:READ_LIMIT]
        view = decode(text)
        kept = [i for i, char in enumerate(view.text) if char.isalnum()]
        squeezed = "".join(view.text[i] for i in kept).lower()
        if len(squeezed) != len(kept):  # some letters have a longer lower case; no key contains one
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
        """Yield the hash of each substring of LEAST_LENGTH characters."""
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
    for shift in range(3):  # base64 of a text that contains the value at any position
        encoded = base64.b64encode(b"\0" * shift + raw).decode().rstrip("=")
        # Omit the characters that depend on the bytes before and after the value.
        whole = len(raw) + shift
        yield encoded[(0, 2, 3)[shift] : (whole // 3) * 4]
