"""Keys are taken in turn by namespace and class, and no group holds more than its share."""

import asyncio
import time
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.clock import FakeClock

from cosi_operator.fairness import FairLane, Groups, Shares, Sharing, WorkersInUse
from cosi_operator.settings import Backoff
from cosi_operator.workqueue import Pace, ShutDown, WorkQueue

WORKERS = 120
SHARES = Shares.of(WORKERS)


def groups_of(key: str) -> Groups:
    """The keys of these tests are written namespace/class/number."""
    namespace, class_name, _ = key.split("/")
    return Groups(namespace, class_name)


def make(
    shares: Shares | None = None, *, clock: FakeClock | None = None, pace: Pace | None = None
) -> WorkQueue[str]:
    return WorkQueue(
        clock=clock or FakeClock(),
        random=Random(0),
        backoff=Backoff(),
        pace=pace,
        sharing=Sharing(groups_of, shares or Shares()),
    )


def added(queue: WorkQueue[str], *lines: str, each: int = 1) -> None:
    for line in lines:
        for number in range(each):
            queue.add(f"{line}/{number}")


def take(queue: WorkQueue[str], count: int) -> list[str]:
    """Take so many keys, each ended at once."""
    taken = []
    for _ in range(count):
        key = queue.get_nowait()
        assert key is not None
        queue.done(key)
        taken.append(key)
    return taken


def hold_all(queue: WorkQueue[str]) -> list[str]:
    """Begin every key that may run now, as idle workers do, and end none."""
    held = []
    while (key := queue.get_nowait()) is not None:
        held.append(key)
    return held


# --- turns


def test_5000_keys_of_one_namespace_wait_and_the_neighbour_is_next() -> None:
    queue = make()
    added(queue, "hog/gold", each=5000)
    take(queue, 10)
    added(queue, "neighbour/gold")
    assert "neighbour/gold/0" in take(queue, 2)


def test_namespaces_take_turns_and_each_is_served_in_order() -> None:
    queue = make()
    added(queue, "a/gold", each=3)
    added(queue, "b/gold", each=2)
    added(queue, "c/gold")
    assert take(queue, 6) == [
        *("a/gold/0", "b/gold/0", "c/gold/0"),
        *("a/gold/1", "b/gold/1", "a/gold/2"),
    ]


def test_the_classes_of_a_namespace_take_turns() -> None:
    queue = make()
    added(queue, "a/gold", each=3)
    added(queue, "a/slow", each=2)
    assert take(queue, 5) == ["a/gold/0", "a/slow/0", "a/gold/1", "a/slow/1", "a/gold/2"]


def test_a_namespace_with_many_classes_has_no_more_turns_than_another() -> None:
    queue = make()
    added(queue, *(f"hog/class-{number}" for number in range(50)), each=10)
    added(queue, "neighbour/class-7", each=10)
    taken = [groups_of(key).namespace for key in take(queue, 20)]
    assert taken.count("neighbour") == 10


def test_a_namespace_that_returns_goes_last_so_that_none_is_starved_by_those_that_come_and_go() -> (
    None
):
    queue = make()
    added(queue, "waits/gold")
    for number in range(3):
        added(queue, f"new-{number}/gold")
    assert take(queue, 1) == ["waits/gold/0"]
    added(queue, "waits/gold", "new-3/gold")
    assert take(queue, 5) == [
        *("new-0/gold/0", "new-1/gold/0", "new-2/gold/0"),
        *("waits/gold/0", "new-3/gold/0"),
    ]


def test_the_paced_lane_takes_turns_too() -> None:
    clock = FakeClock()
    queue = make(clock=clock, pace=Pace(1.0))
    for number in range(5000):
        queue.add_paced(f"hog/gold/{number}")
    queue.add_paced("neighbour/gold/0")
    taken = []
    for _ in range(2):
        taken += take(queue, 1)
        assert queue.get_nowait() is None
        clock.advance(1.0)
    assert taken == ["hog/gold/0", "neighbour/gold/0"]


# --- shares


@pytest.mark.parametrize(
    ("workers", "class_name", "namespace", "line"),
    [
        pytest.param(120, 60, 50, 40, id="120 workers -> 60 class, 50 namespace, 40 line"),
        pytest.param(40, 20, 16, 13, id="40 workers -> 20, 16, 13"),
        pytest.param(12, 6, 5, 4, id="12 workers -> 6, 5, 4"),
        pytest.param(3, 1, 1, 1, id="3 workers -> 1, 1, 1"),
        pytest.param(1, 1, 1, 1, id="1 worker -> one key runs at a time"),
    ],
)
def test_shares(workers: int, class_name: int, namespace: int, line: int) -> None:
    assert Shares.of(workers) == Shares(class_name, namespace, line, workers)


@given(workers=st.integers(12, 1000))
def test_whatever_hangs_one_worker_is_free_for_all_other_keys(workers: int) -> None:
    shares = Shares.of(workers)
    assert shares.class_name <= workers / 2
    assert shares.line < shares.namespace < shares.class_name
    assert shares.namespace + shares.class_name < workers


def test_40_keys_that_hang_leave_room_for_another_class_and_another_namespace() -> None:
    queue = make(Shares.of(40))
    for number in range(40):
        queue.add(f"team-{number}/hangs/0")
    held = hold_all(queue)
    assert len(held) == 20
    added(queue, "team-0/gold", "other/gold", "other/hangs")
    assert hold_all(queue) == ["team-0/gold/0", "other/gold/0"]
    assert queue.statistics().blocked == 21
    queue.done(held[0])
    assert hold_all(queue) == []  # the two others count: as many stay free as the class holds
    queue.done(held[1])
    assert len(hold_all(queue)) == 1


@pytest.mark.parametrize("count", [2, 3, 6])
def test_several_classes_that_hang_leave_room_for_another(count: int) -> None:
    queue = make(SHARES)
    for number in range(count):  # one after the other, as a backend fails
        for team in range(WORKERS):
            queue.add(f"team-{team}/hangs-{number}/0")
        assert hold_all(queue)
    added(queue, "neighbour/gold")
    assert hold_all(queue) == ["neighbour/gold/0"]


def test_a_class_of_one_namespace_that_hangs_leaves_room_for_both() -> None:
    queue = make(SHARES)
    added(queue, "hog/hangs", each=5000)
    assert len(hold_all(queue)) == SHARES.line == 40
    added(queue, "neighbour/hangs", "hog/gold")
    assert sorted(hold_all(queue)) == ["hog/gold/0", "neighbour/hangs/0"]


def test_a_namespace_whose_calls_of_every_class_hang_leaves_room_for_others() -> None:
    queue = make(SHARES)
    added(queue, "hog/hangs", "hog/gold", "hog/slow", each=100)
    assert len(hold_all(queue)) == SHARES.namespace == 50
    added(queue, "neighbour/hangs", "neighbour/gold")
    assert hold_all(queue) == ["neighbour/hangs/0", "neighbour/gold/0"]


def test_a_paced_key_whose_group_holds_its_share_leaves_its_turn_to_the_next() -> None:
    queue = make(Shares(1, 1), pace=Pace(1.0))
    added(queue, "hog/gold")
    assert hold_all(queue) == ["hog/gold/0"]
    queue.add_paced("hog/gold/1")
    queue.add_paced("neighbour/slow/0")
    assert hold_all(queue) == ["neighbour/slow/0"]


async def test_a_blocked_paced_key_is_not_polled_and_runs_when_there_is_room() -> None:
    clock = FakeClock()
    queue = make(Shares(1, 1), clock=clock, pace=Pace(1.0))
    added(queue, "hog/gold")
    assert hold_all(queue) == ["hog/gold/0"]
    queue.add_paced("hog/gold/1")
    queue.add_after("late/slow/0", 300)
    getter = asyncio.create_task(queue.get())
    await clock.settle()
    assert clock.sleeping_for() == [300]
    queue.done("hog/gold/0")
    await clock.run(1.0)
    assert await getter == "hog/gold/1"


async def test_a_key_that_ends_makes_room_in_its_namespace_and_in_its_class() -> None:
    clock = FakeClock()
    queue = make(Shares(1, 1), clock=clock)
    added(queue, "a/gold")
    assert hold_all(queue) == ["a/gold/0"]
    added(queue, "a/slow", "b/gold")
    getters = [asyncio.create_task(queue.get()) for _ in range(2)]
    await clock.settle()
    assert not any(getter.done() for getter in getters)
    queue.done("a/gold/0")
    await clock.settle()
    assert {getter.result() for getter in getters} == {"a/slow/0", "b/gold/0"}


async def test_keys_beyond_a_share_are_taken_after_shut_down_too() -> None:
    clock = FakeClock()
    queue = make(Shares(1, 1), clock=clock)
    added(queue, "hog/gold", each=2)
    assert hold_all(queue) == ["hog/gold/0"]
    getters = [asyncio.create_task(queue.get()) for _ in range(2)]
    queue.shut_down()
    await clock.settle()
    assert not any(getter.done() for getter in getters)
    queue.done("hog/gold/0")
    await clock.settle()
    assert getters[0].result() == "hog/gold/1"
    assert not getters[1].done()
    queue.done("hog/gold/1")
    await clock.settle()
    assert isinstance(getters[1].exception(), ShutDown)


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "pace", "delay", "done", "get", "cancel", "time"]),
        st.integers(0, 11),
    ),
    max_size=60,
)
SOME_KEYS = [f"{n}/{c}/{i}" for n in ("x", "y") for c in ("p", "q", "r") for i in (0, 1)]


@settings(max_examples=150, deadline=None)
@given(operations=OPERATIONS)
def test_no_worker_sleeps_while_a_key_may_run(operations: list[tuple[str, int]]) -> None:
    asyncio.run(_no_worker_sleeps(operations))


class Workers:
    """Tasks that wait in `get`, and the keys that they took and hold."""

    COUNT = 5

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.queue = make(Shares(3, 2, 1, self.COUNT), clock=self.clock, pace=Pace(1.0))
        self.waiting: list[asyncio.Task[str]] = []
        self.held: list[str] = []

    async def do(self, kind: str, number: int) -> None:
        key = SOME_KEYS[number]
        match kind:
            case "add":
                self.queue.add(key)
            case "pace":
                self.queue.add_paced(key)
            case "delay":
                self.queue.add_after(key, number)
            case "done" if self.held:
                self.queue.done(self.held.pop(number % len(self.held)))
            case "get":
                self.waiting.append(asyncio.create_task(self.queue.get()))
            case "cancel" if self.waiting:
                self.waiting[number % len(self.waiting)].cancel()
            case "time":
                await self.clock.run(number / 4)
            case _:
                pass  # there is nothing to end or to cancel
        await self.settle()

    async def settle(self) -> None:
        await self.clock.settle()
        self.held += [t.result() for t in self.waiting if t.done() and not t.cancelled()]
        self.waiting = [task for task in self.waiting if not task.done()]

    async def finish(self) -> None:
        """End what is held, and let time pass, for as long as the waiting workers get keys."""
        before = len(self.waiting) + 1
        while len(self.waiting) < before:
            before = len(self.waiting)
            while self.held:
                self.queue.done(self.held.pop())
            await self.clock.run(30.0)
            await self.settle()


async def _no_worker_sleeps(operations: list[tuple[str, int]]) -> None:
    workers = Workers()
    for kind, number in operations:
        await workers.do(kind, number)
        seen = workers.queue.statistics()
        assert not workers.waiting or seen.depth == seen.blocked, "a worker sleeps, a key may run"
    await workers.finish()
    if workers.waiting:
        seen = workers.queue.statistics()
        assert seen.depth == seen.delayed == 0, "a worker sleeps through a turn or a delay"
    for task in workers.waiting:
        task.cancel()
    await asyncio.gather(*workers.waiting, return_exceptions=True)


# --- cost


def test_the_cost_of_a_turn_does_not_grow_with_keys_and_namespaces_that_can_not_run() -> None:
    """100 times as many namespaces wait for a class that holds its share; 10 times is noise."""

    def cost_s(namespaces: int) -> float:
        lane, held = FairLane[str](), WorkersInUse(Shares(5, 5))
        for number in range(namespaces):
            lane.add(f"{number}", 0.0, Groups(f"n-{number}", "full"))
        for _ in range(5):
            held.take(Groups("", "full"))
        lane.add("may run", 0.0, Groups("n-0", "free"))
        best = 1.0
        for _ in range(5):
            began = time.perf_counter()
            for _ in range(200):
                assert lane.next(held) == "may run"
                lane.take("may run")
                lane.add("may run", 0.0, Groups("n-0", "free"))
            best = min(best, time.perf_counter() - began)
        return best

    assert cost_s(20_000) < 10 * cost_s(200)


def test_what_has_left_a_lane_takes_no_memory() -> None:
    lane, held = FairLane[str](), WorkersInUse(Shares())
    for number in range(100):
        groups = Groups(f"n-{number}", f"c-{number % 7}")
        lane.add(f"{number}", 0.0, groups)
        held.take(groups)
    while (key := lane.next(held)) is not None:
        held.release(lane.take(key)[1])
    assert not any(vars(lane)[name] for name in ("_groups", "_lines", "_namespaces"))
    assert not any(vars(held)[name] for name in ("_classes", "_namespaces", "_lines"))
