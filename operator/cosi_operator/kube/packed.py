"""JSON of one kind kept small: compressed against an earlier object of the same kind.

Objects of a kind differ in names, UIDs and versions only, so an earlier one is an almost perfect
dictionary. Measured on a ready Bucket: 1003 bytes become about 110, in 5 us, and come back in 1 us;
zlib alone gives 435. docs/adr/0010 has the whole account.
"""

import zlib

from msgspec import Struct

# Raw deflate with a 4 KiB window: more would only cost memory for objects of 1 KiB.
WINDOW_BITS = -12
# A larger object (a huge annotation) is a poor example of its kind, and would be held for long.
DICTIONARY_LIMIT_BYTES = 4096
# An object that shrinks less than to this share is of another shape: the next dictionary.
POOR_SHARE = 0.4


class Packed(Struct, frozen=True, gc=False):
    """One text; `dictionary` is shared by all that were packed with it."""

    dictionary: bytes
    data: bytes

    def unpack(self) -> bytes:
        """The text as it was, byte by byte."""
        return zlib.decompressobj(WINDOW_BITS, self.dictionary).decompress(self.data)


class Packer:
    """Packs texts that are much alike. Remembers one of them at a time."""

    def __init__(self) -> None:
        self._dictionary = b""

    def pack(self, text: bytes) -> Packed:
        """Compress `text`; it may become the dictionary of those that follow."""
        packed = Packed(self._dictionary, _deflate(text, self._dictionary))
        # The first one always: it may shrink by its own repetitions, and so look well packed.
        is_poor = not self._dictionary or len(packed.data) > POOR_SHARE * len(text)
        if is_poor and len(text) <= DICTIONARY_LIMIT_BYTES:
            self._dictionary = text
        return packed


def _deflate(text: bytes, dictionary: bytes) -> bytes:
    deflate = zlib.compressobj(1, zlib.DEFLATED, WINDOW_BITS, 5, zdict=dictionary)
    return deflate.compress(text) + deflate.flush()
