"""The base of everything that runs until it is stopped: leaving `with` stops it."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Stoppable(ABC):
    """A context manager whose object runs already when `with` begins."""

    @abstractmethod
    def stop(self) -> None:
        """End it. Safe to repeat."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
