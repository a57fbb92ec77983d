"""Runs DriverGrantBucketAccess and DriverRevokeBucketAccess in lanes: one call at a time in each.

`lane` decides the order; this module makes the calls, lets runs wait for their turn, and ends the
runs that would wait too long. Only the driver call itself is in the lane, so the requests of other
accesses to the API server go on meanwhile. The call's deadline begins with the call.

A run waits for at most `MAX_WAIT_S`, and only some of the workers may wait at a time. Any other run
ends (`Queued`), and its key is put on the work queue again when its turn is near. After
`TELL_AFTER_S` in the queue the access says what it waits for.
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
from cosi_operator.sidecar.calls import DriverState, Queued, Refused, judged
from cosi_operator.sidecar.lane import Lane, TicketState, WaitingLimit

MAX_WAIT_S = 10.0
TELL_AFTER_S = 20.0
QUEUED = Terminal(
    Reason.WAITING_FOR_TURN,
    "The driver is called for one BucketAccess at a time, and the calls for other BucketAccesses"
    " come first. This BucketAccess continues automatically.",
    waiting=True,
)

type Reconcile = Callable[[Key], Awaitable[Outcome]]


class Lanes:
    """All lanes of one sidecar.

    Args:
        scope: what a lane is for: the driver, each bucket, or nothing at all.
        policy, driver: how the calls are judged.
        workers: of the BucketAccess queue; at most a quarter of them ever wait in lanes.
        invite: puts a key on that queue.
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
        # One class of one namespace holds at most a third of the workers (`fairness.Shares`). Of
        # these, half may wait and half as many again may be invited, so that others of it go on.
        self._seats = WaitingLimit(max(0, (workers - 2) // 6))
        self._lanes: dict[str, Lane[Key]] = {}
        self._lane_of: dict[Key, str] = {}  # of each key with a ticket
        self._since: dict[Key, float] = {}  # when it first asked; monotonic seconds
        self._turns: dict[Key, anyio.Event] = {}  # of the runs that wait
        self._asked: set[Key] = set()  # keys whose present run has asked for a turn

    @property
    def is_idle(self) -> bool:
        """Whether no key has a ticket."""
        return not (self._lanes or self._lane_of or self._since)

    def place(self, key: Key) -> TicketState | None:
        """Where the key's ticket stands; None without one."""
        name = self._lane_of.get(key)
        return None if name is None else self._lanes[name].place(key)

    def reconciling(self, reconcile: Reconcile) -> Callable[[Key], Coroutine[Any, Any, Outcome]]:
        """`reconcile`, with the ticket of a run that ends without asking for a turn given up."""

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
        self, access: BucketAccess, bucket_id: str, call: Coroutine[Any, Any, R]
    ) -> R | Refused:
        """Await one call for this access in its turn; a failure becomes a value.

        Returns:
            The reply, or why there is none. `Queued`: the turn has not come, and the call was
            not made; the access is reconciled again when it comes.
        """
        if self._scope is LaneScope.NONE:
            return await judged(call, policy=self._policy, driver=self._driver)
        key = access.meta.key
        name = bucket_id if self._scope is LaneScope.BUCKET else ""
        try:
            turn = await self._turn(key, name, access.class_name)
        except BaseException:
            call.close()
            raise
        if not turn:
            call.close()
            return self._queued(key)
        hung = False
        try:
            reply = await judged(call, policy=self._policy, driver=self._driver)
            hung = isinstance(reply, Refused) and reply.status.made_by is MadeBy.DEADLINE
        finally:
            self._lanes[name].end(key, hung=hung)
            self._forget(key)
        return reply

    async def _turn(self, key: Key, name: str, class_name: str) -> bool:
        """Wait for the turn of a key; False: not now."""
        self._asked.add(key)
        if self._lane_of.get(key, name) != name:
            self._leave(key)
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(self._seats, start=self._start, invite=self._invite)
        self._lane_of[key] = name
        self._since.setdefault(key, self._clock.monotonic())
        if lane.ask(key, key.namespace, class_name) is TicketState.WAITING:
            await self._wait(key, lane)
        return lane.place(key) is TicketState.RUNNING

    async def _wait(self, key: Key, lane: Lane[Key]) -> None:
        """Wait until the key is RUNNING; when that takes too long, it may be PARKED instead."""
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
            if (
                lane.place(key) is TicketState.RUNNING
            ):  # the turn came in the same moment: pass it on
                lane.end(key, hung=False)
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
        status = DriverStatus(Call.GRANT_ACCESS, Code.UNAVAILABLE, MadeBy.TRANSPORT, "not sent yet")
        return Queued(status, Verdict.REQUEUE, QUEUED.reason, Effect.NONE, outcome)

    def _leave(self, key: Key) -> None:
        name = self._lane_of.get(key)
        if name is not None:
            self._lanes[name].leave(key)
            self._forget(key)

    def _forget(self, key: Key) -> None:
        """The key has no ticket any more."""
        name = self._lane_of.pop(key)
        del self._since[key]
        if not self._lanes[name]:
            del self._lanes[name]
