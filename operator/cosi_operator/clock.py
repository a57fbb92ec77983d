"""The only module that touches the clock; everything else is given a `Clock` or a time."""

import time
from datetime import UTC, datetime
from typing import Protocol

import anyio


class Clock(Protocol):
    """Three ways to meet time. Tests pass one that moves by hand."""

    def wall(self) -> datetime:
        """The time of day in UTC: for people and for timestamps, never for intervals."""

    def monotonic(self) -> float:
        """Seconds since some start, never backwards: for intervals and deadlines."""

    async def sleep(self, seconds: float) -> None:
        """Wait; cancellable. 0 or less, a deadline that has just passed, is no wait."""


class RealClock:
    """The machine's clock."""

    def wall(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(max(0.0, seconds))  # anyio refuses what is below 0
