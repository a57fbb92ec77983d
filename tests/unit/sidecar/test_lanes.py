"""Driver calls in their turn: what runs at the same time, what waits, and what a wait costs."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from random import Random

import anyio
import pytest
from msgspec.structs import replace
from tests.support.clock import SETTLE_TURNS, FakeClock
from tests.support.views import ACCESS

from cosi_operator.api.view import BucketAccess, Key
from cosi_operator.classify import Policy, Verdict
from cosi_operator.driver.errors import DriverRefused, DriverSilent
from cosi_operator.outcome import Call, Code, Effect, MadeBy, Outcome, Reason, Requeue, Success
from cosi_operator.plan.facts import CallFailed
from cosi_operator.settings import Backoff, LaneScope
from cosi_operator.sidecar.calls import (
    Attempts,
    DriverRun,
    DriverState,
    Fingerprint,
    Queued,
    Refused,
    Stopwatch,
    Unwanted,
)
from cosi_operator.sidecar.lane import TicketState
from cosi_operator.sidecar.lanes import MAX_WAIT_S, QUEUED, TELL_AFTER_S, Lanes

WORKERS = 14  # two of them may wait


def access(namespace: str, name: str = "reader", *, class_name: str = "keys") -> BucketAccess:
    meta = replace(ACCESS.meta, namespace=namespace, name=name)
    return replace(ACCESS, meta=meta, class_name=class_name)


@dataclass
class World:
    """Lanes around a driver whose calls end when the test says so."""

    lanes: Lanes
    clock: FakeClock
    invited: list[Key]
    tasks: list[asyncio.Task[object]] = field(default_factory=list)
    open: dict[str, anyio.Event] = field(default_factory=dict)  # calls under way, oldest first
    began: list[str] = field(default_factory=list)
    ended: dict[str, object] = field(default_factory=dict)  # what each request for a turn gave
    fault: Exception | None = None

    async def call(self, who: str) -> str:
        self.began.append(who)
        event = self.open[who] = anyio.Event()
        try:
            await event.wait()
        finally:
            del self.open[who]
        if self.fault:
            raise self.fault
        return who

    async def grant(self, who: str, bucket: str = "b-1", class_name: str = "keys") -> None:
        namespace, _, name = who.partition("/")
        self.ended.pop(who, None)
        one = access(namespace, name, class_name=class_name)
        self.ended[who] = await self.lanes.judged(
            one, bucket, lambda: self.call(who), Stopwatch(self.clock)
        )

    async def start(self, *who: str, bucket: str = "b-1", class_name: str = "keys") -> None:
        for one in who:
            await self.run(self.grant(one, bucket, class_name))

    async def run(self, work: Coroutine[object, object, object]) -> asyncio.Task[object]:
        task = asyncio.create_task(work)
        self.tasks.append(task)
        await self.clock.settle()
        return task

    async def finish(self, who: str) -> None:
        self.open[who].set()
        await self.clock.settle()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def scope() -> LaneScope:
    return LaneScope.DRIVER


def world_of(scope: LaneScope, clock: FakeClock, *, workers: int = WORKERS) -> World:
    invited: list[Key] = []
    lanes = Lanes(
        scope,
        policy=Policy("conservative", ()),
        driver=DriverState("mock"),
        workers=workers,
        clock=clock,
        invite=invited.append,
    )
    return World(lanes, clock, invited)


@pytest.fixture
async def world(clock: FakeClock, scope: LaneScope) -> AsyncIterator[World]:
    world = world_of(scope, clock)
    yield world
    for task in world.tasks:
        task.cancel()
    await asyncio.gather(*world.tasks, return_exceptions=True)


async def test_one_call_at_a_time_by_default(world: World) -> None:
    await world.start("a/1", "b/1", "a/2")
    assert list(world.open) == ["a/1"]
    await world.finish("a/1")
    assert list(world.open) == ["b/1"]
    await world.finish("b/1")
    await world.finish("a/2")
    assert world.ended == {"a/1": "a/1", "b/1": "b/1", "a/2": "a/2"}


async def test_a_call_that_is_not_wanted_at_its_turn_is_not_made(world: World) -> None:
    wanted = True

    async def revoke() -> None:
        one = access("a", "2", class_name="keys")
        world.ended["a/2"] = await world.lanes.judged(
            one, "b-1", lambda: world.call("a/2"), Stopwatch(world.clock), lambda: wanted
        )

    await world.start("a/1")
    await world.run(revoke())
    wanted = False  # while the call of a/1 runs
    await world.finish("a/1")
    assert isinstance(world.ended["a/2"], Unwanted)
    await world.start("a/3")
    assert world.began == ["a/1", "a/3"]


@pytest.mark.parametrize("scope", [LaneScope.BUCKET])
async def test_with_bucket_only_the_calls_of_one_bucket_wait(world: World) -> None:
    await world.start("a/1", "a/2", bucket="b-1")
    await world.start("a/3", "a/4", bucket="b-2")
    assert list(world.open) == ["a/1", "a/3"]


@pytest.mark.parametrize("scope", [LaneScope.NONE])
async def test_with_none_all_run_at_once(world: World) -> None:
    keys = [f"a/{number}" for number in range(20)]
    await world.start(*keys)
    assert list(world.open) == keys


async def test_more_than_may_wait_are_queued_without_a_call(world: World) -> None:
    await world.start("a/1", "a/2", "a/3", "a/4")
    assert world.began == ["a/1"]
    queued = world.ended["a/4"]
    assert isinstance(queued, Queued)
    assert (queued.verdict, queued.effect) == (Verdict.REQUEUE, Effect.NONE)
    assert queued.outcome == Requeue(Reason.WAITING_FOR_TURN, "", after_s=TELL_AFTER_S, quiet=True)
    await world.finish("a/1")
    assert world.invited == []
    await world.finish("a/2")
    assert world.invited == [Key("a", "4")], "so few wait by now"
    await world.start("a/4")
    for who in ("a/3", "a/4"):
        await world.finish(who)
    assert world.ended["a/4"] == "a/4"


async def test_a_run_waits_only_so_long_and_its_call_is_not_made(world: World) -> None:
    await world.start("a/1", "a/2")
    await world.clock.run(MAX_WAIT_S)
    queued = world.ended["a/2"]
    assert isinstance(queued, Queued)
    assert queued.outcome == Requeue(
        Reason.WAITING_FOR_TURN, "", after_s=TELL_AFTER_S - MAX_WAIT_S, quiet=True
    )
    await world.finish("a/1")
    assert world.invited == [Key("a", "2")]
    assert world.began == ["a/1"]


async def test_what_waits_long_says_so(world: World) -> None:
    await world.start("a/1", "a/2", "a/3", "a/4")
    await world.clock.run(TELL_AFTER_S)
    await world.start("a/4")
    await world.clock.run(MAX_WAIT_S)
    queued = world.ended["a/4"]
    assert isinstance(queued, Queued)
    assert queued.outcome == QUEUED
    assert QUEUED.waiting
    assert QUEUED.recheck_s is None


async def test_queued_counts_no_attempt(world: World) -> None:
    await world.start("a/1", "a/2", "a/3", "a/4")
    queued = world.ended["a/4"]
    assert isinstance(queued, Queued)
    attempts = Attempts(Backoff(), world.clock, Random(1))
    made_on = Fingerprint("uid", 1, "driver-1", "")
    ended = DriverRun(attempts, Key("a", "4"), made_on, None).failure(queued)
    assert len(attempts) == 0
    assert ended == CallFailed(queued.outcome, Effect.NONE)


@pytest.mark.parametrize(
    ("fault", "first"),
    [
        pytest.param(
            DriverSilent(Call.GRANT_ACCESS, MadeBy.DEADLINE, "late"),
            "b/1",
            id="our deadline -> namespace and class go to the back",
        ),
        pytest.param(
            DriverSilent(Call.GRANT_ACCESS, MadeBy.TRANSPORT, "gone"),
            "c/1",
            id="a lost connection -> the order stays",
        ),
        pytest.param(
            DriverRefused(Call.GRANT_ACCESS, Code.DEADLINE_EXCEEDED, "late"),
            "c/1",
            id="a deadline of the driver's own -> the order stays",
        ),
    ],
)
async def test_after_a_hang_another_tenant_begins(
    world: World, fault: Exception, first: str
) -> None:
    await world.start("a/1", "c/1")  # the same class
    await world.start("b/1", class_name="other")
    world.fault = fault
    await world.finish("a/1")
    assert list(world.open) == [first]
    assert isinstance(world.ended["a/1"], Refused)


@pytest.mark.parametrize(
    "turn_comes", [pytest.param(False, id="while it waits"), pytest.param(True, id="in its turn")]
)
async def test_a_cancelled_run_leaves_the_lane_to_the_next(
    world: World, *, turn_comes: bool
) -> None:
    await world.start("a/1", "b/1", "c/1")
    if turn_comes:
        world.open["a/1"].set()
        for _ in range(SETTLE_TURNS):
            if world.lanes.place(Key("b", "1")) is TicketState.RUNNING:
                break  # the turn has come, but the run has not gone on yet
            await asyncio.sleep(0)
    world.tasks[1].cancel()
    await world.clock.settle()
    if not turn_comes:
        await world.finish("a/1")
    assert list(world.open) == ["c/1"]
    assert "b/1" not in world.began


async def test_a_call_that_is_cancelled_frees_the_lane(world: World) -> None:
    await world.start("a/1", "b/1")
    world.tasks[0].cancel()
    await world.clock.settle()
    assert list(world.open) == ["b/1"]


async def test_a_run_that_ends_without_asking_gives_its_place_up(world: World) -> None:
    asks = True

    async def reconcile(key: Key) -> Outcome:
        if asks:
            await world.grant(str(key))
        return Success()

    run = world.lanes.reconciling(reconcile)
    await world.start("a/1", "a/2", "a/3")
    await run(Key("a", "4"))
    await world.finish("a/1")
    await world.finish("a/2")
    assert world.invited == [Key("a", "4")]
    await world.run(run(Key("a", "4")))  # it asks again: it waits
    asks = False
    await run(Key("a", "9"))  # had no place: nothing happens
    for who in ("a/3", "a/4"):
        await world.finish(who)
    assert world.lanes.is_idle


async def test_an_invited_run_that_does_not_come_holds_nobody_up(world: World) -> None:
    async def gone(_key: Key) -> Outcome:
        return Success()

    await world.start("a/1", "a/2", "a/3", "a/4", "a/5")
    for who in ("a/1", "a/2", "a/3"):
        await world.finish(who)
    assert world.invited == [Key("a", "4")]
    await world.lanes.reconciling(gone)(Key("a", "4"))
    assert world.invited == [Key("a", "4"), Key("a", "5")]
    await world.start("a/5")
    assert list(world.open) == ["a/5"]
    await world.finish("a/5")
    assert world.lanes.is_idle


async def test_a_key_that_moves_to_another_bucket_leaves_its_old_lane(clock: FakeClock) -> None:
    world = world_of(LaneScope.BUCKET, clock, workers=1)
    await world.start("a/1", "a/2", bucket="b-1")
    await world.start("a/2", bucket="b-2")
    await world.finish("a/2")
    await world.finish("a/1")
    assert world.lanes.is_idle
