"""A `Clock` that moves only when a test says so.

Three ways to move it: `advance` jumps (and wakes whoever is due), `run` goes from deadline to
deadline and lets all tasks work in between, as real time would, and within `flying` each
deadline is reached as soon as it is set.

Example:
    clock = FakeClock()
    task_group.start_soon(clock.sleep, 30)
    await clock.wait_for_sleepers()
    clock.advance(30)
"""

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import anyio
import anyio.lowlevel

# Real seconds after which a wait in a test has failed; less than a test's own time limit, so that
# the failure says what was waited for.
PATIENCE_S = 20.0
# Enough turns of the event loop for any chain of wake-ups in a test without sockets.
SETTLE_TURNS = 100


class FakeClock:
    """Starts at 2026-01-01T00:00:00Z, 1000 s of monotonic time. Takes no real time."""

    def __init__(self, *, wall: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = wall
        self._elapsed_s = 0.0
        self._wall_skew = timedelta()
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._changed = asyncio.Event()

    def wall(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed_s) + self._wall_skew

    def monotonic(self) -> float:
        return 1000.0 + self._elapsed_s

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await anyio.lowlevel.checkpoint()
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (self.monotonic() + seconds, next(self._order), woken)
        heapq.heappush(self._sleepers, entry)
        self._notify()
        try:
            await woken
        finally:
            if entry in self._sleepers:  # cancelled
                self._sleepers.remove(entry)
                heapq.heapify(self._sleepers)
            self._notify()

    def advance(self, seconds: float) -> None:
        """Jump ahead and wake all who are due, in the order of their deadlines."""
        self._move_to(self.monotonic() + seconds)

    def skew_wall(self, seconds: float) -> None:
        """Set the time of day forward or back; monotonic time does not notice."""
        self._wall_skew += timedelta(seconds=seconds)

    async def run(self, seconds: float) -> None:
        """Let so many seconds pass, stopping at each deadline until all tasks have settled."""
        end = self.monotonic() + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            self._move_to(self._sleepers[0][0])
            await self.settle()
        self._move_to(end)
        await self.settle()

    @asynccontextmanager
    async def flying(self) -> AsyncIterator[None]:
        """Within this block nobody sleeps long: time jumps to each deadline as it is set."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._fly)
            yield
            tasks.cancel_scope.cancel()

    async def _fly(self) -> None:
        while True:
            await self._until(lambda: bool(self._sleepers))
            self._move_to(self._sleepers[0][0])
            await self.settle()

    async def settle(self) -> None:
        """Let every task run until it waits (only tasks that wait for tasks, not for sockets)."""
        for _ in range(SETTLE_TURNS):
            await asyncio.sleep(0)

    async def wait_for_sleepers(self, count: int = 1) -> None:
        """Return once at least `count` tasks are asleep; for tests with real sockets."""
        await self.wait_until(lambda: len(self._sleepers) >= count, f"{count} sleeper(s)")

    async def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Return once `condition` holds; it is looked at whenever a sleep begins or ends.

        Raises:
            AssertionError: not within PATIENCE_S; says `what` was waited for and who sleeps.
        """
        with anyio.move_on_after(PATIENCE_S) as patience:
            await self._until(condition)
        if patience.cancelled_caught:
            raise AssertionError(
                f"waited {PATIENCE_S:g} s for {what}; asleep for (s): {self.sleeping_for()}"
            )

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def sleeping_for(self) -> list[float]:
        """Seconds that each sleeper still has to wait, shortest first."""
        return sorted(deadline - self.monotonic() for deadline, _, _ in self._sleepers)

    def _move_to(self, target: float) -> None:
        self._elapsed_s = max(self._elapsed_s, target - 1000.0)
        # A tolerance, as 0.1 + 0.2 must reach a deadline of 0.3.
        while self._sleepers and self._sleepers[0][0] <= self.monotonic() + 1e-9:
            _, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)

    def _notify(self) -> None:
        self._changed.set()
