"""The only module that touches the clock; everything else is given a `Clock` or a time."""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

import anyio


class Clock(Protocol):
    """The time of day, a monotonic time, and sleep. Tests pass a clock that they advance."""

    def wall(self) -> datetime:
        """The time of day in UTC: for people and for timestamps, never for intervals."""

    def monotonic(self) -> float:
        """Seconds since some start, never backwards: for intervals and deadlines."""

    async def sleep(self, seconds: float) -> None:
        """Wait; cancellable. Returns at once for 0 or less, as for a deadline that has passed."""


class RealClock:
    """The machine's clock."""

    def wall(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(max(0.0, seconds))  # anyio refuses what is below 0


class SteadyTime:
    """The time of day at this object's creation, moved on by monotonic seconds only.

    For waits that begin at a stored time of day, because the system clock may be set forward or
    back while a wait runs.
    """

    def __init__(self, clock: Clock) -> None:
        self.started = clock.wall()
        self._clock = clock
        self._started_s = clock.monotonic()

    def now(self) -> datetime:
        return self.started + timedelta(seconds=self._clock.monotonic() - self._started_s)
