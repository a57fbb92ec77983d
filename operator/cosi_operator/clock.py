"""The only module that reads the system clock. All other code gets a `Clock` or a time."""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

import anyio


class Clock(Protocol):
    """The time of day, a monotonic time, and sleep. Tests pass a clock that they advance."""

    def wall(self) -> datetime:
        """The time of day in UTC; for timestamps, never for intervals."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never decreases. For intervals and deadlines."""

    async def sleep(self, seconds: float) -> None:
        """Wait; cancellable. Returns immediately if `seconds` is 0 or negative."""


class RealClock:
    """The machine's clock."""

    def wall(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(max(0.0, seconds))  # anyio rejects negative values


class SteadyTime:
    """The time of day at this object's creation plus the monotonic seconds since then.

    For waits that start at a stored time of day, because the system clock may be changed during a
    wait.
    """

    def __init__(self, clock: Clock) -> None:
        self.started = clock.wall()
        self._clock = clock
        self._started_s = clock.monotonic()

    def now(self) -> datetime:
        return self.started + timedelta(seconds=self._clock.monotonic() - self._started_s)
