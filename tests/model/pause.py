"""Points at which a reconcile run can be held, cut or failed: around each request and call.

A run is stepped by hand (`coroutine.send`), without an event loop, so every interleaving of two
processes and every crash point can be chosen, and is the same each time.
"""

from collections.abc import Generator
from dataclasses import dataclass
from types import coroutine


@dataclass(frozen=True)
class Point:
    """A run waits here. `before` the effect happens, or after it, with the reply on its way."""

    process: str
    verb: str
    what: str
    before: bool
    driver: bool = False

    def __str__(self) -> str:
        return f"{self.process} {'before' if self.before else 'after'} {self.verb} {self.what}"


@coroutine
def pause(point: Point) -> Generator[Point, None, None]:
    """Wait at a point until the scheduler goes on, or raises a fault here."""
    yield point
