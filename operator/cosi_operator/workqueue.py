"""The queue between changes and reconcilers. It contains keys and does not depend on Kubernetes.

The contract is that of client-go's workqueue: `add` requests a run of a key, `get` takes a key,
`done` ends its run, and `forget` only resets its count of failures. Only `get` waits; all rules are
in methods without an await.

Rule: **a key has at most one next run, at the earliest requested time**. Therefore:
- Two workers never hold one key, and no request is lost. A request during a run becomes the key's
  next run after `done`.
- `add_after` on a delayed key keeps the earlier time. On a key that is already due, it changes
  nothing.
- `add` ends a key's delay and drops the later time. client-go keeps the later time for an extra
  run. Here it is not needed, because a run reads the whole state and its own outcome requests the
  next run. So no recheck runs twice.
- `forget` leaves a scheduled run in place.

A key added by `add_paced` waits in a separate lane, from which one key is taken per turn of a
`Pace`. Unused turns expire, so a stall is not followed by a burst. When its turn comes, a paced key
runs before the other keys. It can't starve them, because turns are limited. A waiting paced key
holds no worker.

Both lanes are fair to the groups of the keys, and no group holds more workers than its share
(`fairness`). If the group of a due key holds its whole share, the key stays due, and `get` waits
until `done` of another key of that group.

Not guaranteed: an order between paced and other keys, and state that survives a restart.
"""

import heapq
import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from random import Random
from typing import Protocol

import anyio

from cosi_operator.clock import Clock
from cosi_operator.fairness import FairLane, Groups, Shares, Sharing, WorkersInUse
from cosi_operator.retry_counts import RetryCounts
from cosi_operator.settings import Backoff

# Superseded entries of the heap are removed when they outnumber the valid ones by this.
SWEEP_SLACK = 64


class ShutDown(Exception):  # noqa: N818 - client-go's name; not an error
    """Raised by `get` when the queue was shut down and is empty."""


@dataclass(frozen=True, slots=True)
class QueueStatistics:
    """A snapshot. `adds` and `retries` only increase, and count as client-go's series do.

    - depth: keys that are ready to be taken
    - blocked: ready keys whose group holds its whole share of the workers
    - processing: keys held by workers
    - delayed: keys whose time or turn has not come yet
    - oldest_age_s: the longest time that a ready key has waited
    - longest_run_s: the longest time that a worker has held its key
    - adds: requests that made a key due
    - retries: calls of `add_after`, `add_again` and `add_rate_limited`
    """

    depth: int
    blocked: int
    processing: int
    delayed: int
    oldest_age_s: float
    longest_run_s: float
    adds: int
    retries: int


@dataclass(slots=True)
class Pace:
    """Turns at least `1 / per_s` seconds apart. Queues can share one `Pace`.

    next_at: the time of the next turn (monotonic seconds).
    """

    per_s: float = math.inf
    next_at: float = 0.0

    def take(self, now: float) -> bool:
        """Take the next turn if it is due; return whether it was."""
        if now < self.next_at:
            return False
        self.next_at = now + 1 / self.per_s
        return True


class NewQueue[K: Hashable](Protocol):
    """Creates the queue of the given name, whose keys share the workers by their groups."""

    def __call__(
        self, name: str, groups_of: Callable[[K], Groups], *, pace: Pace | None = None
    ) -> "WorkQueue[K]": ...


class WorkQueue[K: Hashable]:
    """The queue that the module's docstring describes; for one event loop only.

    Args:
        clock: only its monotonic time and sleep are used.
        random: the source of the jitter.
        backoff: the backoff of `add_rate_limited`.
        pace: the turns of `add_paced`; by default, unlimited.
        sharing: how the keys share the workers; by default, in order of arrival.
        on_taken: called for each key that is taken, with the seconds that the key was ready.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        random: Random,
        backoff: Backoff,
        pace: Pace | None = None,
        sharing: Sharing[K] | None = None,
        on_taken: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._clock = clock
        self._counts: RetryCounts[K] = RetryCounts(backoff, random)
        self._pace = pace or Pace()
        sharing = sharing or Sharing(lambda _: Groups(), Shares())
        self._groups_of = sharing.groups_of
        self._held = WorkersInUse(sharing.shares)
        self._on_taken = on_taken
        # Due keys that no worker holds, with the time when they became due (monotonic s). A key is
        # in at most one of these two lanes, and then not in _processing.
        self._ready: FairLane[K] = FairLane()
        self._paced: FairLane[K] = FairLane()
        # Keys held by a worker; the value is the time of `get` and the groups of the key.
        self._processing: dict[K, tuple[float, Groups]] = {}
        # Held keys that are due again after `done`; a subset of _processing. True: `done` puts the
        # key into the paced lane.
        self._dirty: dict[K, bool] = {}
        # Keys that are not due yet; the value is the time. Never a ready or dirty key, but possibly
        # a held key.
        self._delayed: dict[K, float] = {}
        # (time, tie-breaker, key). Contains every entry of _delayed, and superseded entries, whose
        # time differs from the time in _delayed.
        self._heap: list[tuple[float, int, K]] = []
        self._order = itertools.count()
        # The events of the calls that wait in `get`, oldest first. An event is removed when it is
        # set.
        self._waiters: OrderedDict[anyio.Event, None] = OrderedDict()
        # The waiter that also waits for the next time or turn, until it returns from `_wait`.
        self._timekeeper: anyio.Event | None = None
        self._adds = 0
        self._retries = 0
        self._stopping = False

    def add(self, key: K) -> None:
        """Run the key as soon as possible, even if it is paced. Ignored after a shutdown."""
        if not self._stopping:
            self._delayed.pop(key, None)
            self._make_due(key, self._clock.monotonic(), paced=False)

    def add_paced(self, key: K) -> None:
        """Run the key at a turn of the pace, even if it is delayed. A due key stays due."""
        if not self._stopping:
            self._delayed.pop(key, None)
            self._make_due(key, self._clock.monotonic(), paced=True)

    def add_after(self, key: K, delay_s: float) -> None:
        """Run the key in `delay_s` seconds, unless an earlier run is scheduled."""
        if self._stopping:
            return
        self._retries += 1
        if delay_s <= 0:
            self.add(key)
            return
        due = self._clock.monotonic() + delay_s
        if self._is_due(key) or self._delayed.get(key, due + 1) <= due:
            return
        self._delayed[key] = due
        self._sweep()
        entry = (due, next(self._order), key)
        heapq.heappush(self._heap, entry)
        if self._heap[0] is entry:
            self._wake(self._timekeeper)

    def add_rate_limited(self, key: K) -> float:
        """Count a failure and run the key after its backoff; return the backoff in seconds.

        If an earlier run is scheduled, it stays scheduled, and the failure still counts.
        """
        delay_s = self._counts.failed(key)
        self.add_after(key, delay_s)
        return delay_s

    def add_again(self, key: K) -> float:
        """Run the key again, after some calls in a row with a backoff (`RetryCounts.repeated`).

        No failure is counted. Returns the pause in seconds.
        """
        delay_s = self._counts.repeated(key)
        self.add_after(key, delay_s)
        return delay_s

    def get_nowait(self) -> K | None:
        """Take the next key until `done`; return None if no due key may run."""
        self._promote()
        now = self._clock.monotonic()
        key = self._paced.next(self._held)
        if key is not None and self._pace.take(now):
            _, groups = self._paced.take(key)
            since = now
        else:
            key = self._ready.next(self._held)
            if key is None:
                return None
            since, groups = self._ready.take(key)
        self._held.take(groups)
        self._processing[key] = now, groups
        self._on_taken(now - since)
        return key

    async def get(self) -> K:
        """Wait for the next key and take it. Cancelling this loses no key.

        Raises:
            ShutDown: after `shut_down`, when no key is due and no running key is due again.
        """
        while (key := self.get_nowait()) is None:
            if self._stopping and not (self._dirty or self._ready):
                raise ShutDown
            await self._wait()
        return key

    def namespace(self, key: K) -> str:
        """The namespace of the groups of a held key.

        Raises:
            KeyError: no worker holds the key.
        """
        _, groups = self._processing[key]
        return groups.namespace

    def done(self, key: K) -> None:
        """End the run that `get` started. A run that was requested meanwhile becomes due.

        Raises:
            ValueError: no worker holds the key, so the caller has a bug.
        """
        held = self._processing.pop(key, None)
        if held is None:
            raise ValueError(f"done without get: {key}")
        _, groups = held
        full_groups = self._held.full(groups) + self._held.is_crowded()
        self._held.release(groups)
        paced = self._dirty.pop(key, None)
        if paced is not None:
            self._enqueue(key, self._clock.monotonic(), paced=paced)
        if full_groups:
            self._wake_for_room(full_groups)
        if self._stopping and not (self._dirty or self._ready):
            self._wake_all()

    def forget(self, key: K) -> None:
        """Reset the key's counts, so the next failure has the shortest backoff."""
        self._counts.forget(key)

    def failures(self, key: K) -> int:
        """Failures in a row, as counted by `add_rate_limited`."""
        return self._counts.failures(key)

    def shut_down(self) -> None:
        """Ignore new keys and drop delayed and paced keys. Due keys can still be taken."""
        self._promote()
        self._stopping = True
        self._delayed.clear()
        self._paced.clear()
        self._dirty = {key: paced for key, paced in self._dirty.items() if not paced}
        self._heap.clear()
        self._wake_all()

    def statistics(self) -> QueueStatistics:
        """Return the current numbers. Keys whose delay has ended count as due."""
        self._promote()
        now = self._clock.monotonic()
        return QueueStatistics(
            depth=len(self._ready),
            blocked=self._ready.blocked(self._held),
            processing=len(self._processing),
            delayed=len(self._delayed) + len(self._paced),
            oldest_age_s=now - min(self._ready.times(), default=now),
            longest_run_s=now - min((since for since, _ in self._processing.values()), default=now),
            adds=self._adds,
            retries=self._retries,
        )

    def _is_due(self, key: K) -> bool:
        return key in self._ready or key in self._paced or key in self._dirty

    def _make_due(self, key: K, since: float, *, paced: bool) -> None:
        """Make a key due that is not delayed: add it to its lane, or mark it dirty if held."""
        if not self._is_due(key):
            self._adds += 1
        if key in self._processing:
            self._dirty[key] = self._dirty.get(key, True) and paced
        elif key not in self._ready:
            if key in self._paced:
                if paced:
                    return
                self._paced.remove(key)
            self._enqueue(key, since, paced=paced)

    def _enqueue(self, key: K, since: float, *, paced: bool) -> None:
        groups = self._groups_of(key)
        (self._paced if paced else self._ready).add(key, since, groups)
        if self._held.may_run(groups):
            self._wake(self._timekeeper if paced else None)

    def _wake_for_room(self, groups: int) -> None:
        """Wake waiters after `groups` groups got below their share; a key of each may run now."""
        if self._paced:
            self._wake(self._timekeeper)
        for _ in range(min(groups, len(self._ready))):
            self._wake()

    def _promote(self) -> None:
        """Make the delayed keys due whose time has passed."""
        now = self._clock.monotonic()
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            if self._delayed.get(key) == due:
                del self._delayed[key]
                self._make_due(key, due, paced=False)

    def _sweep(self) -> None:
        """Remove superseded entries if they outnumber the delayed keys."""
        if len(self._heap) > 2 * len(self._delayed) + SWEEP_SLACK:
            self._heap = [entry for entry in self._heap if self._delayed.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)

    async def _wait(self) -> None:
        """Wait until a key may have become due; a wake-up can be spurious."""
        waiter = anyio.Event()
        self._waiters[waiter] = None
        try:
            next_at = self._next_at()
            if self._timekeeper is None and next_at < math.inf:
                self._timekeeper = waiter
                await self._wait_or_sleep(waiter, next_at - self._clock.monotonic())
            else:
                await waiter.wait()
        except BaseException:
            if waiter.is_set():  # a key became due for this waiter, so wake another one
                self._wake()
            raise
        finally:
            self._waiters.pop(waiter, None)
            if self._timekeeper is waiter:
                self._timekeeper = None
                self._wake()  # the next waiter becomes the timekeeper

    def _next_at(self) -> float:
        """The time when the next delay ends or the next turn comes; inf if no key needs it."""
        delay = self._heap[0][0] if self._heap else math.inf
        has_turn = self._paced.next(self._held) is not None
        return min(delay, self._pace.next_at) if has_turn else delay

    async def _wait_or_sleep(self, waiter: anyio.Event, seconds: float) -> None:
        async with anyio.create_task_group() as group:

            async def sleep() -> None:
                await self._clock.sleep(seconds)
                group.cancel_scope.cancel()

            group.start_soon(sleep)
            await waiter.wait()
            group.cancel_scope.cancel()

    def _wake(self, waiter: anyio.Event | None = None) -> None:
        """Wake `waiter`; if it is None, wake the waiter that has waited longest, if any."""
        if waiter is None and self._waiters:
            waiter = next(iter(self._waiters))
        if waiter is not None:
            self._waiters.pop(waiter, None)
            waiter.set()

    def _wake_all(self) -> None:
        while self._waiters:
            self._wake()
