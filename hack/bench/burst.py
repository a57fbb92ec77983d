"""Simulates a burst of claims and of retries: the real work queues on a virtual clock."""

import heapq
import itertools
import random
from dataclasses import dataclass
from datetime import UTC, datetime

from cosi_operator.plan.sidecar_wait import BUSY_HEAL_AFTER_S
from cosi_operator.settings import Backoff
from cosi_operator.workqueue import WorkQueue

WORKERS = 40  # what one class of one namespace gets of the default of 120
SAMPLED = 97
RETRY_MINUTES = 30


class VirtualClock:
    """Time that goes from event to event."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def wall(self) -> datetime:
        return datetime.fromtimestamp(self.now_s, UTC)

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError("nothing waits here: the simulation moves the time")


@dataclass(slots=True)
class Stage:
    """One process: its queue, its workers, and what a run of it costs."""

    queue: WorkQueue[int]
    writes: int
    driver_s: float = 0.0
    busy: int = 0


class Burst:
    """Claims that come at once, through the queues of the controller and of the sidecars.

    Args:
        writes_per_s: what the API server takes from all together.
        driver_s: seconds that a driver needs for a call.
        workers: of each process.
        drivers: sidecars that share the work.
    """

    def __init__(self, *, writes_per_s: float, driver_s: float, workers: int, drivers: int) -> None:
        self.clock = VirtualClock()
        self.late = self.ready = self.deepest = 0
        self._writes_per_s = writes_per_s
        self._workers = workers
        self._controller = Stage(self._queue(), writes=2)
        self._sidecars = [Stage(self._queue(), writes=3, driver_s=driver_s) for _ in range(drivers)]
        self._server_free_s, self._order = 0.0, itertools.count()
        self._ends: list[tuple[float, int, Stage, int]] = []
        self._made: dict[int, float] = {}

    def _queue(self) -> WorkQueue[int]:
        return WorkQueue(clock=self.clock, random=random.Random(1), backoff=Backoff())

    def run(self, count: int) -> None:
        """Move the time until the last of `count` claims is ready."""
        for number in range(count):
            self._controller.queue.add(number)
        self._begin(self._controller)
        while self._ends:
            self.clock.now_s, _, stage, key = heapq.heappop(self._ends)
            stage.busy -= 1
            stage.queue.done(key)
            if stage is self._controller:
                self._hand_over(key)
            else:
                self.ready += 1
                self.late += self.clock.now_s - self._made[key] > BUSY_HEAL_AFTER_S
            self._begin(stage)

    def _begin(self, stage: Stage) -> None:
        """Every idle worker takes a key; its writes queue up at the API server."""
        while stage.busy < self._workers and (key := stage.queue.get_nowait()) is not None:
            stage.busy += 1
            free_s = max(self._server_free_s, self.clock.now_s)
            self._server_free_s = free_s + stage.writes / self._writes_per_s
            end = (self._server_free_s + stage.driver_s, next(self._order), stage, key)
            heapq.heappush(self._ends, end)

    def _hand_over(self, key: int) -> None:
        """The controller has made the Bucket, so its sidecar gets the key."""
        self._made[key] = self.clock.now_s
        sidecar = self._sidecars[key % len(self._sidecars)]
        sidecar.queue.add(key)
        if key % SAMPLED == 0:  # the queue counts its depth anew each time
            self.deepest = max(self.deepest, sidecar.queue.statistics().depth)
        self._begin(sidecar)


def burst(
    count: int,
    *,
    writes_per_s: float,
    driver_s: float = 0.05,
    workers: int = WORKERS,
    drivers: int = 1,
) -> dict[str, float]:
    """When the last of `count` claims that come at once is ready, by the real queues."""
    burst = Burst(writes_per_s=writes_per_s, driver_s=driver_s, workers=workers, drivers=drivers)
    burst.run(count)
    assert burst.ready == count
    return {
        "claims": count,
        "drivers": drivers,
        "workers": workers,
        "driver_s": driver_s,
        "seconds": round(burst.clock.now_s, 1),
        "claims_per_s": round(count / burst.clock.now_s, 1),
        "deepest_queue": burst.deepest,
        "told_to_wait": burst.late,
    }


def retries(count: int) -> dict[str, float]:
    """Driver calls a second, when a driver answers UNAVAILABLE to `count` claims, by minute."""
    clock = VirtualClock()
    queue: WorkQueue[int] = WorkQueue(clock=clock, random=random.Random(1), backoff=Backoff())
    for number in range(count):
        queue.add(number)
    calls = [0] * RETRY_MINUTES
    while clock.now_s < RETRY_MINUTES * 60:
        while (key := queue.get_nowait()) is not None:
            calls[int(clock.now_s // 60)] += 1
            queue.add_rate_limited(key)
            queue.done(key)
        clock.now_s += 0.25
    rates = [round(number / 60, 1) for number in calls]
    return {
        "claims": count,
        "minute 1": rates[0],
        "minute 2": rates[1],
        "minute 5": rates[4],
        "later, on average": round(sum(rates[10:]) / len(rates[10:]), 1),
        "later, at most": max(rates[10:]),
    }
