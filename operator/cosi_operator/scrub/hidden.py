"""Structs whose fields can be credentials."""

from msgspec import Struct


class Hidden(Struct):
    """The repr shows no value."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"
