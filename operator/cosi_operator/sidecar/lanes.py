"""Runs DriverGrantBucketAccess and DriverRevokeBucketAccess in lanes: one call at a time in each.

`lane` decides the order. This module makes the calls, keeps runs waiting for their turn, and ends
runs that would wait too long. Only the driver call itself is in the lane, so the API requests of
other accesses continue in the meantime. The call's deadline starts with the call.

A run waits for at most `MAX_WAIT_S`, and only some of the workers may wait at a time. Any other run
ends (`Queued`), and its key is added to the work queue again when its turn is near. After
`TELL_AFTER_S` in the lane, the access reports that it waits for its turn.
"""

import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anyio

from cosi_operator.api.view import BucketAccess, Key
from cosi_operator.classify import Policy, Verdict
from cosi_operator.clock import Clock
from cosi_operator.outcome import (
    Call,
    Code,
    DriverStatus,
    Effect,
    MadeBy,
    Outcome,
    Reason,
    Requeue,
    Terminal,
)
from cosi_operator.settings import LaneScope
from cosi_operator.sidecar.calls import DriverState, Queued, Refused, Stopwatch, Unwanted, judged
from cosi_operator.sidecar.lane import Lane, TicketState, WaitingLimit

MAX_WAIT_S = 10.0
TELL_AFTER_S = 20.0
QUEUED = Terminal(
    Reason.WAITING_FOR_TURN,
    "The driver is called for one BucketAccess at a time, and the calls for other BucketAccesses"
    " run first. This BucketAccess continues automatically.",
    waiting=True,
)
NOT_SENT = DriverStatus(Call.GRANT_ACCESS, Code.UNAVAILABLE, MadeBy.TRANSPORT, "not sent yet")

type Reconcile = Callable[[Key], Awaitable[Outcome]]


class Lanes:
    """All lanes of one sidecar.

    Args:
        scope: one lane for the driver, one for each bucket, or no lanes.
        policy, driver: for classifying the results of calls.
        workers: of the BucketAccess queue; at most a quarter of them wait in lanes.
        invite: adds a key to that queue.
    """

    def __init__(
        self,
        scope: LaneScope,
        *,
        policy: Policy,
        driver: DriverState,
        workers: int,
        clock: Clock,
        invite: Callable[[Key], None],
    ) -> None:
        self._scope = scope
        self._policy = policy
        self._driver = driver
        self._clock = clock
        self._invite = invite
        # One class of one namespace occupies at most a third of the workers (`fairness.Shares`).
        # Half of these may wait, and half as many again may wait when invited, so that workers
        # remain for other accesses of that class and namespace.
        self._limit = WaitingLimit(max(0, (workers - 2) // 6))
        self._lanes: dict[str, Lane[Key]] = {}
        self._lane_of: dict[Key, str] = {}  # of each key with a ticket
        self._since: dict[Key, float] = {}  # monotonic seconds of the first request for a turn
        self._turns: dict[Key, anyio.Event] = {}  # of the runs that wait
        self._asked: set[Key] = set()  # keys whose current run has requested a turn

    @property
    def is_idle(self) -> bool:
        """Whether no key has a ticket."""
        return not (self._lanes or self._lane_of or self._since)

    def place(self, key: Key) -> TicketState | None:
        """The state of the key's ticket; None without a ticket."""
        name = self._lane_of.get(key)
        return None if name is None else self._lanes[name].place(key)

    def reconciling(self, reconcile: Reconcile) -> Callable[[Key], Coroutine[Any, Any, Outcome]]:
        """Wrap `reconcile`: remove the ticket of a run that ends without requesting a turn."""

        @functools.wraps(reconcile)
        async def run(key: Key) -> Outcome:
            self._asked.discard(key)
            try:
                return await reconcile(key)
            finally:
                if key not in self._asked:
                    self._leave(key)
                self._asked.discard(key)

        return run

    async def judged[R](
        self,
        access: BucketAccess,
        bucket_id: str,
        call: Callable[[], Awaitable[R]],
        watch: Stopwatch,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> R | Refused:
        """Make one call for this access in its turn; return a failure as a value.

        Args:
            watch: measures the call itself.
            is_wanted: called when the turn has come; False means that the driver is not called.
        Returns:
            The reply, or a `Refused`. `Queued`: the access has to wait longer for its turn, so the
            call was not made; the access is reconciled again when its turn is near. `Unwanted`: the
            call was not made and will not be.
        """
        key = access.meta.key
        name = bucket_id if self._scope is LaneScope.BUCKET else ""
        has_lane = self._scope is not LaneScope.NONE
        if has_lane and not await self._turn(key, name, access.class_name):
            return self._queued(key)
        exceeded = False
        try:
            if not is_wanted():
                return Unwanted(NOT_SENT, Verdict.REQUEUE, Reason.CONFLICT, Effect.NONE)
            reply = await judged(call(), policy=self._policy, driver=self._driver, watch=watch)
            exceeded = isinstance(reply, Refused) and reply.status.made_by is MadeBy.DEADLINE
            return reply
        finally:
            if has_lane:
                self._lanes[name].end(key, exceeded=exceeded)
                self._forget(key)

    async def _turn(self, key: Key, name: str, class_name: str) -> bool:
        """Wait for the turn of a key; False if the run has to end without a turn."""
        self._asked.add(key)
        if self._lane_of.get(key, name) != name:
            self._leave(key)
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(self._limit, start=self._start, invite=self._invite)
        self._lane_of[key] = name
        self._since.setdefault(key, self._clock.monotonic())
        if lane.ask(key, key.namespace, class_name) is TicketState.WAITING:
            await self._wait(key, lane)
        return lane.place(key) is TicketState.RUNNING

    async def _wait(self, key: Key, lane: Lane[Key]) -> None:
        """Wait until the key is RUNNING; after `MAX_WAIT_S` its ticket may be PARKED instead."""
        turn = self._turns[key] = anyio.Event()
        try:
            async with anyio.create_task_group() as group:

                async def patience() -> None:
                    await self._clock.sleep(MAX_WAIT_S)
                    group.cancel_scope.cancel()

                group.start_soon(patience)
                await turn.wait()
                group.cancel_scope.cancel()
        except BaseException:
            # If the turn started at the same moment, end it, so the next call can start.
            if lane.place(key) is TicketState.RUNNING:
                lane.end(key, exceeded=False)
            self._leave(key)
            raise
        finally:
            del self._turns[key]
        if lane.place(key) is TicketState.WAITING:
            lane.release_worker(key)

    def _start(self, key: Key) -> None:
        self._turns[key].set()

    def _queued(self, key: Key) -> Queued:
        left_s = self._since[key] + TELL_AFTER_S - self._clock.monotonic()
        outcome: Requeue | Terminal = QUEUED
        if left_s > 0:
            outcome = Requeue(QUEUED.reason, "", after_s=left_s, quiet=True)
        return Queued(NOT_SENT, Verdict.REQUEUE, QUEUED.reason, Effect.NONE, outcome)

    def _leave(self, key: Key) -> None:
        name = self._lane_of.get(key)
        if name is not None:
            self._lanes[name].leave(key)
            self._forget(key)

    def _forget(self, key: Key) -> None:
        """Remove the lane's data of a key whose ticket is removed."""
        name = self._lane_of.pop(key)
        del self._since[key]
        if not self._lanes[name]:
            del self._lanes[name]
