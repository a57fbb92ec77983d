"""The queue between changes and reconcilers; knows keys, not Kubernetes.

The contract is that of client-go's workqueue: `add` requests a run of a key, `get` takes a key,
`done` ends its run, and `forget` only stops counting its failures. All rules are in methods without
an await; only `get` waits.

Rule: **a key has at most one next run, at the earliest requested time**. Therefore:
- Two workers never hold one key, and no request is lost: a request during a run becomes the key's
  next run after `done`.
- `add_after` on a delayed key keeps the earlier time. On a key that is due already, it changes
  nothing.
- `add` ends a key's delay. The later time is dropped, whereas client-go keeps it for an extra run:
  a run reads the whole state, and its own outcome requests the next run. So no recheck runs twice.
- `forget` leaves a scheduled run in place.

A key added by `add_paced` waits in a separate lane, from which one key is taken per turn of a
`Pace`. Unused turns are not saved up, so a stall is not followed by a burst. When its turn comes, a
paced key runs before the others, which it can't starve; until then it holds no worker.

Both lanes are fair to the groups of the keys, and no group holds more workers than its share
(`fairness`). If the group of a due key holds its whole share, the key stays due, and `get` waits
until `done` of another key of that group.

Not promised: an order between paced and other keys, and state that survives a restart.
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
from cosi_operator.settings import Backoff

# Superseded entries of the heap are swept when they outnumber the live ones by this.
SWEEP_SLACK = 64


class ShutDown(Exception):  # noqa: N818 - client-go's word; it is an end, not an error
    """Raised by `get` when the queue was shut down and is empty."""


@dataclass(frozen=True, slots=True)
class QueueStatistics:
    """A snapshot. `adds` and `retries` only grow and count what client-go's series count.

    depth: keys ready to be taken. blocked: those of them whose group holds its whole share of the
    workers. processing: keys held by workers. delayed: keys whose time or turn has not come.
    oldest_age_s: how long the longest-waiting ready key waits. longest_run_s: how long the
    longest-held key is held. adds: wishes that made a key due. retries: calls of `add_after` and
    `add_rate_limited`.
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

    next_at: when the next turn may be taken (monotonic seconds).
    """

    per_s: float = math.inf
    next_at: float = 0.0

    def take(self, now: float) -> bool:
        """Take the next turn if it is due."""
        if now < self.next_at:
            return False
        self.next_at = now + 1 / self.per_s
        return True


class NewQueue[K: Hashable](Protocol):
    """Makes the queue of the given name whose keys share the workers by their groups."""

    def __call__(
        self, name: str, groups_of: Callable[[K], Groups], *, pace: Pace | None = None
    ) -> "WorkQueue[K]": ...


class WorkQueue[K: Hashable]:
    """See the module. Belongs to one event loop; the methods without await never block.

    Args:
        clock: only its monotonic time and sleep are used.
        random: the source of the jitter.
        backoff: for `add_rate_limited`.
        pace: for `add_paced`; without one, every turn has come.
        sharing: how the keys share the workers; by default, first come, first served.
        on_taken: told of each key that is taken, how many seconds it was ready before.
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
        self._random = random
        self._backoff = backoff
        self._pace = pace or Pace()
        sharing = sharing or Sharing(lambda _: Groups(), Shares())
        self._groups_of = sharing.groups_of
        self._held = WorkersInUse(sharing.shares)
        self._on_taken = on_taken
        # Due and held by nobody, since a time (monotonic s). A key is in at most one of these two
        # lanes, and then not in _processing.
        self._ready: FairLane[K] = FairLane()
        self._paced: FairLane[K] = FairLane()
        # Held by a worker; the value is the time of `get`, and the groups that the key counts for.
        self._processing: dict[K, tuple[float, Groups]] = {}
        # Due again while held: ready as soon as it is done. Always a subset of _processing.
        # True: it waits for the paced lane.
        self._dirty: dict[K, bool] = {}
        # Not due yet; the value is the time. Never a ready or dirty key; maybe one that is held.
        self._delayed: dict[K, float] = {}
        # (time, tie-breaker, key). Holds every entry of _delayed, and superseded ones, which
        # are known by a time that differs from _delayed's.
        self._heap: list[tuple[float, int, K]] = []
        self._order = itertools.count()
        # Failures in a row, never 0.
        self._failures: dict[K, int] = {}
        # Those who wait in `get`, oldest first; each is set once, when taken out.
        self._waiters: OrderedDict[anyio.Event, None] = OrderedDict()
        # The one waiter that also watches the time, until it returns from `_wait`.
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
        """Run the key in its turn, even if it is delayed. A due key stays due."""
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
        """Count a failure and run the key after its backoff; return the backoff's seconds.

        An earlier look that is already wanted stays, and the failure still counts.
        """
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay_s = self._backoff.pause_s(failures, self._random.random())
        self.add_after(key, delay_s)
        return delay_s

    def get_nowait(self) -> K | None:
        """Take the next key, until `done`; None when no due key may run."""
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
            ShutDown: after `shut_down`, once nothing is due (also not after a run that goes on).
        """
        while (key := self.get_nowait()) is None:
            if self._stopping and not (self._dirty or self._ready):
                raise ShutDown
            await self._wait()
        return key

    def namespace(self, key: K) -> str:
        """The namespace that a held key counts for.

        Raises:
            KeyError: nobody holds the key.
        """
        _, groups = self._processing[key]
        return groups.namespace

    def done(self, key: K) -> None:
        """End the run that `get` began. A run that was requested meanwhile becomes due.

        Raises:
            ValueError: nobody holds the key; the caller has a bug.
        """
        held = self._processing.pop(key, None)
        if held is None:
            raise ValueError(f"done without get: {key}")
        _, groups = held
        full_groups = self._held.full(groups) + self._held.is_crowded()
        self._held.give_back(groups)
        paced = self._dirty.pop(key, None)
        if paced is not None:
            self._enqueue(key, self._clock.monotonic(), paced=paced)
        if full_groups:
            self._wake_for_room(full_groups)
        if self._stopping and not (self._dirty or self._ready):
            self._wake_all()

    def forget(self, key: K) -> None:
        """Stop counting the key's failures: the next one starts with the shortest backoff."""
        self._failures.pop(key, None)

    def failures(self, key: K) -> int:
        """Failures in a row, as counted by `add_rate_limited`."""
        return self._failures.get(key, 0)

    def shut_down(self) -> None:
        """Accept no more keys and drop delayed and paced keys; due keys can still be taken."""
        self._promote()
        self._stopping = True
        self._delayed.clear()
        self._paced.clear()
        self._dirty = {key: paced for key, paced in self._dirty.items() if not paced}
        self._heap.clear()
        self._wake_all()

    def statistics(self) -> QueueStatistics:
        """A snapshot of now; delays that have ended count as due."""
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
        """Make a key that is not delayed due: in its lane, or dirty while it is held."""
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
        """So many groups may hold less than their share again: a key of each may run now."""
        if self._paced:
            self._wake(self._timekeeper)
        for _ in range(min(groups, len(self._ready))):
            self._wake()

    def _promote(self) -> None:
        """Make the delayed keys due whose time has come."""
        now = self._clock.monotonic()
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            if self._delayed.get(key) == due:
                del self._delayed[key]
                self._make_due(key, due, paced=False)

    def _sweep(self) -> None:
        """Keep the heap's size in proportion to the delayed keys."""
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
            if waiter.is_set():  # this wake-up was meant for a key: pass it on
                self._wake()
            raise
        finally:
            self._waiters.pop(waiter, None)
            if self._timekeeper is waiter:
                self._timekeeper = None
                self._wake()  # who wakes finds nothing due, and watches the time from now on

    def _next_at(self) -> float:
        """When the next delay passes or a paced key's turn comes; inf if nothing waits for them."""
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
        """Wake this waiter, or the one that waits longest, if there is one."""
        if waiter is None and self._waiters:
            waiter = next(iter(self._waiters))
        if waiter is not None:
            self._waiters.pop(waiter, None)
            waiter.set()

    def _wake_all(self) -> None:
        while self._waiters:
            self._wake()
