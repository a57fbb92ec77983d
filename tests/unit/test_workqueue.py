"""The work queue keeps client-go's contract: a key is never lost and never held twice."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from tests.support.clock import FakeClock
from tests.support.measuring import search

from cosi_operator.fairness import Groups, Shares, Sharing
from cosi_operator.retry_counts import REPEAT_BACKOFF, REPEATS_AT_ONCE
from cosi_operator.settings import Backoff
from cosi_operator.workqueue import (
    SWEEP_SLACK,
    Pace,
    ShutDown,
    WorkQueue,
)


class FixedRandom(Random):
    """Always the same number, to see both ends of the jitter."""

    def __init__(self, value: float) -> None:
        super().__init__(0)
        self._value = value

    def random(self) -> float:
        return self._value


TURN_S = 4.0


def make(
    clock: FakeClock,
    *,
    jitter: float = 0.0,
    backoff: Backoff | None = None,
    pace: Pace | None = None,
) -> WorkQueue[str]:
    return WorkQueue(
        clock=clock,
        random=FixedRandom(jitter),
        backoff=backoff or Backoff(),
        pace=pace or Pace(1 / TURN_S),
    )


def take_all(queue: WorkQueue[str]) -> list[str]:
    """Take and end every key that is due now."""
    taken = []
    while (key := queue.get_nowait()) is not None:
        taken.append(key)
        queue.done(key)
    return taken


type Script = Callable[[WorkQueue[str], FakeClock], None]


def held(queue: WorkQueue[str]) -> None:
    queue.add("a")
    assert queue.get_nowait() == "a"


def twice(queue: WorkQueue[str], clock: FakeClock) -> None:
    queue.add("a")
    queue.add("b")
    queue.add("a")


def add_while_held(queue: WorkQueue[str], clock: FakeClock) -> None:
    held(queue)
    queue.add("a")
    queue.add("a")
    assert queue.get_nowait() is None
    queue.done("a")


def nothing_while_held(queue: WorkQueue[str], clock: FakeClock) -> None:
    held(queue)
    queue.done("a")


def delay_merges_to_earlier(queue: WorkQueue[str], clock: FakeClock) -> None:
    queue.add_after("a", 5)
    queue.add_after("a", 60)
    clock.advance(5)
    assert take_all(queue) == ["a"]
    clock.advance(600)


def delay_moves_earlier(queue: WorkQueue[str], clock: FakeClock) -> None:
    queue.add_after("a", 60)
    queue.add_after("a", 5)
    clock.advance(5)
    assert take_all(queue) == ["a"]
    clock.advance(600)


def add_overtakes_delay(queue: WorkQueue[str], clock: FakeClock) -> None:
    queue.add_after("a", 5)
    queue.add("a")
    assert take_all(queue) == ["a"]
    clock.advance(600)


def delay_again_after_overtaking(queue: WorkQueue[str], clock: FakeClock) -> None:
    queue.add_after("a", 5)
    queue.add("a")
    assert queue.get_nowait() == "a"
    queue.add_after("a", 30)
    queue.done("a")
    clock.advance(29)
    assert take_all(queue) == []
    clock.advance(1)


def delay_on_a_ready_key(queue: WorkQueue[str], clock: FakeClock) -> None:
    queue.add("a")
    queue.add_after("a", 5)
    assert take_all(queue) == ["a"]
    clock.advance(600)


def delay_on_a_dirty_key(queue: WorkQueue[str], clock: FakeClock) -> None:
    held(queue)
    queue.add("a")
    queue.add_rate_limited("a")
    queue.done("a")
    assert take_all(queue) == ["a"]
    clock.advance(600)


def delay_passes_while_held(queue: WorkQueue[str], clock: FakeClock) -> None:
    held(queue)
    queue.add_after("a", 5)
    clock.advance(10)
    assert queue.get_nowait() is None
    queue.done("a")


def no_delay(queue: WorkQueue[str], clock: FakeClock) -> None:
    queue.add_after("b", 0)
    queue.add_after("a", -1)


def order_of_delays(queue: WorkQueue[str], clock: FakeClock) -> None:
    queue.add_after("b", 20)
    queue.add_after("a", 10)
    clock.advance(20)


def forget_keeps_the_delay(queue: WorkQueue[str], clock: FakeClock) -> None:
    queue.add_rate_limited("a")
    queue.forget("a")
    clock.advance(2)


def a_change_lifts_a_paced_key(queue: WorkQueue[str], clock: FakeClock) -> None:
    for key in "abc":
        queue.add_paced(key)
    queue.add("c")
    assert take_all(queue) == ["a", "c"]
    clock.advance(TURN_S)


def a_pace_does_not_lower_a_change(queue: WorkQueue[str], clock: FakeClock) -> None:
    queue.add("b")
    queue.add("a")
    queue.add_paced("a")
    queue.add_paced("b")


def dirty_remembers_the_fresh_change(queue: WorkQueue[str], clock: FakeClock) -> None:
    held(queue)
    queue.add_paced("b")
    queue.add_paced("a")
    queue.add("a")
    queue.add_paced("a")
    queue.done("a")


def dirty_waits_for_its_turn(queue: WorkQueue[str], clock: FakeClock) -> None:
    held(queue)
    queue.add_paced("b")
    queue.add_paced("a")
    queue.done("a")
    assert take_all(queue) == ["b"]
    clock.advance(TURN_S)


def a_pace_takes_out_of_the_delay(queue: WorkQueue[str], clock: FakeClock) -> None:
    queue.add_after("a", 300)
    queue.add_paced("a")


def a_delay_on_a_paced_key(queue: WorkQueue[str], clock: FakeClock) -> None:
    queue.add_paced("a")
    queue.add_paced("b")
    assert take_all(queue) == ["a"]
    queue.add_after("b", TURN_S / 2)
    clock.advance(TURN_S / 2)


def shut_down_drops_the_paced(queue: WorkQueue[str], clock: FakeClock) -> None:
    held(queue)
    queue.add_paced("a")
    queue.add_paced("b")
    queue.shut_down()
    queue.done("a")
    queue.add_paced("c")
    clock.advance(600)


def shut_down_keeps_what_is_due(queue: WorkQueue[str], clock: FakeClock) -> None:
    queue.add("a")
    queue.add_after("b", 5)
    queue.shut_down()
    queue.add("c")
    queue.add_after("d", 0)
    queue.add_rate_limited("e")
    clock.advance(600)


@pytest.mark.parametrize(
    ("script", "due"),
    [
        pytest.param(twice, ["a", "b"], id="added twice -> handed out once, in its first place"),
        pytest.param(add_while_held, ["a"], id="added during its run -> runs once more after done"),
        pytest.param(nothing_while_held, [], id="no request while held -> no further run"),
        pytest.param(delay_merges_to_earlier, [], id="a later delay -> the earlier one stays"),
        pytest.param(delay_moves_earlier, [], id="an earlier delay -> replaces the later one"),
        pytest.param(add_overtakes_delay, [], id="added during its delay -> runs now"),
        pytest.param(
            delay_again_after_overtaking, ["a"], id="a delay set by the later run -> stays"
        ),
        pytest.param(delay_on_a_ready_key, [], id="a delay on a ready key -> no second run"),
        pytest.param(delay_on_a_dirty_key, [], id="added during its backoff -> runs now"),
        pytest.param(
            delay_passes_while_held, ["a"], id="a delay ends while held -> run again after done"
        ),
        pytest.param(no_delay, ["b", "a"], id="a delay of zero or less -> runs now"),
        pytest.param(
            order_of_delays, ["a", "b"], id="several delays -> in the order of their times"
        ),
        pytest.param(forget_keeps_the_delay, ["a"], id="forget -> leaves a delayed run in place"),
        pytest.param(
            a_change_lifts_a_paced_key,
            ["b"],
            id="a change of a paced key -> runs before the paced ones",
        ),
        pytest.param(
            a_pace_does_not_lower_a_change,
            ["b", "a"],
            id="a change that is due -> does not wait for its turn",
        ),
        pytest.param(
            dirty_remembers_the_fresh_change,
            ["b", "a"],
            id="a change during its run -> runs before the paced ones",
        ),
        pytest.param(
            dirty_waits_for_its_turn, ["a"], id="paced during its run -> waits for its turn"
        ),
        pytest.param(
            a_pace_takes_out_of_the_delay, ["a"], id="paced during its delay -> runs at its turn"
        ),
        pytest.param(a_delay_on_a_paced_key, [], id="a delay on a paced key -> changes nothing"),
        pytest.param(shut_down_drops_the_paced, [], id="shut down -> drops the paced keys"),
        pytest.param(
            shut_down_keeps_what_is_due,
            ["a"],
            id="shut down -> hands out what is due, accepts no more",
        ),
    ],
)
def test_the_rules_of_the_queue(script: Script, due: list[str]) -> None:
    clock = FakeClock()
    queue = make(clock)
    script(queue, clock)
    assert take_all(queue) == due


def test_a_stall_is_not_made_up_for_and_changes_do_not_wait() -> None:
    clock = FakeClock()
    queue = make(clock)
    for number in range(100):
        queue.add_paced(f"paced-{number:02}")
    assert take_all(queue) == ["paced-00"]
    clock.advance(20 * TURN_S)  # nobody took a turn
    queue.add("change")
    assert take_all(queue) == ["paced-01", "change"]
    clock.advance(0.9 * TURN_S)
    assert take_all(queue) == []
    clock.advance(0.1 * TURN_S)
    assert take_all(queue) == ["paced-02"]


def test_queues_that_share_a_pace_share_its_turns() -> None:
    clock, pace = FakeClock(), Pace(1 / TURN_S)
    queues = [make(clock, pace=pace), make(clock, pace=pace)]
    for queue in queues:
        queue.add_paced("a")
    assert [take_all(queue) for queue in queues] == [["a"], []]
    clock.advance(TURN_S)
    assert [take_all(queue) for queue in queues] == [[], ["a"]]


@pytest.mark.parametrize(
    ("jitter", "expected"),
    [
        pytest.param(0.0, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300 / 1.1], id="no jitter drawn"),
        pytest.param(1.0, [1.1, 2.2, 4.4, 8.8, 17.6, 35.2, 70.4, 140.8, 281.6, 300], id="most"),
    ],
)
def test_backoff_doubles_up_to_its_cap(jitter: float, expected: list[float]) -> None:
    queue = make(FakeClock(), jitter=jitter)
    assert [queue.add_rate_limited("a") for _ in expected] == pytest.approx(expected)
    assert queue.failures("a") == len(expected)


def test_backoff_is_per_key_and_forgotten() -> None:
    queue = make(FakeClock())
    queue.add_rate_limited("a")
    queue.add_rate_limited("a")
    assert queue.add_rate_limited("b") == 1
    queue.forget("a")
    assert queue.failures("a") == 0
    assert queue.add_rate_limited("a") == 1


def test_a_thousand_failures_overflow_nothing() -> None:
    queue = make(FakeClock(), jitter=0.999)
    delays = [queue.add_rate_limited("a") for _ in range(1500)]
    assert max(delays) <= 300


def test_done_without_get_is_refused() -> None:
    with pytest.raises(ValueError, match="done without get: a"):
        make(FakeClock()).done("a")


def test_statistics_tell_what_is_where() -> None:
    clock = FakeClock()
    queue = make(clock)
    held(queue)
    clock.advance(10)
    queue.add("b")
    queue.add_paced("c")
    queue.add_after("d", 5)
    queue.add_after("e", 60)
    clock.advance(7)
    seen = queue.statistics()
    assert (seen.depth, seen.processing, seen.delayed) == (2, 1, 2)
    assert (seen.oldest_age_s, seen.longest_run_s) == (7, 17)
    assert (seen.adds, seen.retries) == (4, 2)


def test_superseded_delays_do_not_pile_up() -> None:
    queue = make(FakeClock())
    for delay_s in range(10_000, 0, -1):
        queue.add_after("a", delay_s)
    assert len(queue._heap) <= SWEEP_SLACK + 3


# --- the asynchronous shell ---------------------------------------------------------------


class Getters:
    """Tasks that wait in `get`; what they took, in order."""

    def __init__(self, queue: WorkQueue[str], clock: FakeClock) -> None:
        self.queue = queue
        self.clock = clock
        self.taken: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def start(self, count: int) -> None:
        self.tasks += [asyncio.create_task(self._get()) for _ in range(count)]
        await self.clock.settle()

    async def _get(self) -> None:
        self.taken.append(await self.queue.get())


@pytest.fixture
async def getters() -> AsyncIterator[Getters]:
    clock = FakeClock()
    made = Getters(make(clock), clock)
    yield made
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)


async def test_get_waits_for_an_add(getters: Getters) -> None:
    await getters.start(1)
    getters.queue.add("a")
    await getters.clock.settle()
    assert getters.taken == ["a"]


async def test_each_key_wakes_one_getter(getters: Getters) -> None:
    await getters.start(5)
    for key in "abc":
        getters.queue.add(key)
    await getters.clock.settle()
    assert getters.taken == ["a", "b", "c"]
    assert sum(task.done() for task in getters.tasks) == 3


async def test_get_waits_for_a_delay_and_not_longer(getters: Getters) -> None:
    await getters.start(3)
    getters.queue.add_after("a", 30)
    await getters.clock.run(29.9)
    assert getters.taken == []
    await getters.clock.run(0.1)
    assert getters.taken == ["a"]


async def test_get_waits_for_a_turn_and_not_longer(getters: Getters) -> None:
    getters.queue.add_after("late", 300)
    await getters.start(3)
    for key in "abc":
        getters.queue.add_paced(key)
    await getters.clock.settle()
    assert getters.taken == ["a"]
    await getters.clock.run(0.9 * TURN_S)
    assert getters.taken == ["a"]
    await getters.clock.run(0.1 * TURN_S)
    assert getters.taken == ["a", "b"]
    await getters.clock.run(TURN_S)
    assert getters.taken == ["a", "b", "c"]


async def test_an_earlier_delay_shortens_the_wait(getters: Getters) -> None:
    getters.queue.add_after("late", 300)
    await getters.start(2)
    getters.queue.add_after("soon", 3)
    await getters.clock.run(3)
    assert getters.taken == ["soon"]


async def test_someone_else_watches_the_time_when_the_first_leaves(getters: Getters) -> None:
    getters.queue.add_after("late", 300)
    await getters.start(3)
    getters.tasks[0].cancel()
    getters.queue.add("now")
    await getters.clock.run(300)
    assert getters.taken == ["now", "late"]


async def test_only_one_getter_watches_the_time(getters: Getters) -> None:
    getters.queue.add_after("a", 300)
    await getters.start(40)
    assert getters.clock.sleeping_for() == [300]


async def test_a_cancelled_getter_passes_its_wakeup_on(getters: Getters) -> None:
    await getters.start(2)
    getters.queue.add("a")  # wakes the first, which never comes to take it
    getters.tasks[0].cancel()
    await getters.clock.settle()
    assert getters.taken == ["a"]


async def test_keys_due_at_once_reach_all_getters(getters: Getters) -> None:
    await getters.start(3)
    for key in "abc":
        getters.queue.add_after(key, 10)
    await getters.clock.run(10)
    assert getters.taken == ["a", "b", "c"]


async def test_shut_down_ends_every_getter(getters: Getters) -> None:
    getters.queue.add_after("late", 300)
    await getters.start(3)
    getters.queue.shut_down()
    results = await asyncio.gather(*getters.tasks, return_exceptions=True)
    assert [type(result) for result in results] == [ShutDown] * 3


async def test_shut_down_waits_for_what_was_asked_before(getters: Getters) -> None:
    held(getters.queue)
    getters.queue.add("a")
    await getters.start(2)
    getters.queue.shut_down()
    await getters.clock.settle()
    assert not any(task.done() for task in getters.tasks)
    getters.queue.done("a")
    await getters.clock.settle()
    assert getters.taken == ["a"]
    getters.queue.done("a")
    results = await asyncio.gather(*getters.tasks, return_exceptions=True)
    assert [type(result) for result in results if result] == [ShutDown]


# --- any order of operations --------------------------------------------------------------

# Each key's namespace and class.
GROUPS = {
    "a": Groups("x", "p"),
    "b": Groups("x", "p"),
    "c": Groups("x", "q"),
    "d": Groups("y", "p"),
    "e": Groups("y", "q"),
    "f": Groups("z", "p"),
    "g": Groups("x", "r"),
    "h": Groups("w", "p"),
}
SHARES = Shares(class_name=3, namespace=2, line=1)
KEYS = st.sampled_from(sorted(GROUPS))
DELAYS_S = st.integers(min_value=0, max_value=20)


@dataclass
class Passed:
    """What was served while a line waited."""

    namespaces: set[str] = field(default_factory=set)
    classes: set[str] = field(default_factory=set)


class QueueModel(RuleBasedStateMachine):
    """Against a model that says, per key, when its next run is due; hypothesis prints a blob.

    `passed` holds, for each lane (paced or not) and line (namespace and class) with a key that may
    run, what was served meanwhile: none twice, because in between it was this line's turn.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.wanted: dict[str, float] = {}  # the next run of each key: its time
        self.paced: set[str] = set()  # those of them that wait for a turn
        self.next_turn_s = 0.0
        self.held: set[str] = set()
        self.failed: dict[str, int] = {}
        self.repeated: dict[str, int] = {}
        self.stopped = False
        self.passed: dict[tuple[bool, Groups], Passed] = {}

    @initialize(seed=st.integers(0, 2**32))
    def start(self, seed: int) -> None:
        self.backoff = Backoff(base_s=1, cap_s=30)
        self.queue: WorkQueue[str] = WorkQueue(
            clock=self.clock,
            random=Random(seed),
            backoff=self.backoff,
            pace=Pace(1 / TURN_S),
            sharing=Sharing(GROUPS.__getitem__, SHARES),
        )

    def now(self) -> float:
        return self.clock.monotonic()

    def due(self) -> set[str]:
        now = self.now()
        return {key for key, when in self.wanted.items() if when <= now} - self.paced

    def want(self, key: str, when: float) -> None:
        if self.stopped or (key in self.paced and when > self.now()):
            return
        self.paced.discard(key)
        self.wanted[key] = min(when, self.wanted.get(key, when))

    @rule(key=KEYS)
    def add(self, key: str) -> None:
        self.queue.add(key)
        self.want(key, self.now())

    @rule(key=KEYS)
    def add_paced(self, key: str) -> None:
        self.queue.add_paced(key)
        if not self.stopped and key not in self.due():
            self.paced.add(key)
            self.wanted[key] = self.now()

    @rule(key=KEYS, delay_s=DELAYS_S)
    def add_after(self, key: str, delay_s: int) -> None:
        self.queue.add_after(key, delay_s)
        self.want(key, self.now() + delay_s)

    @rule(key=KEYS)
    def add_rate_limited(self, key: str) -> None:
        failures = self.failed.get(key, 0)
        delay_s = self.queue.add_rate_limited(key)
        doubled = self.backoff.base_s * 2**failures
        assert min(doubled, self.backoff.cap_s / 1.1) <= delay_s
        assert delay_s <= min(doubled * 1.1, self.backoff.cap_s)
        self.failed[key] = failures + 1
        self.repeated.pop(key, None)
        self.want(key, self.now() + delay_s)

    @rule(key=KEYS)
    def add_again(self, key: str) -> None:
        more = self.repeated[key] = self.repeated.get(key, -REPEATS_AT_ONCE) + 1
        delay_s = self.queue.add_again(key)
        assert (delay_s > 0) == (more > 0)
        assert delay_s <= REPEAT_BACKOFF.cap_s
        self.want(key, self.now() + delay_s)

    @rule(key=KEYS)
    def forget(self, key: str) -> None:
        self.queue.forget(key)
        self.failed.pop(key, None)
        self.repeated.pop(key, None)

    @rule(seconds=DELAYS_S)
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)

    def may_run(self, key: str) -> bool:
        """Whether its namespace, its class and its line each hold less than their share."""
        mine, held = GROUPS[key], [GROUPS[other] for other in self.held]
        return (
            sum(other.namespace == mine.namespace for other in held) < SHARES.namespace
            and sum(other.class_name == mine.class_name for other in held) < SHARES.class_name
            and held.count(mine) < SHARES.line
        )

    def runnable(self, keys: set[str]) -> set[str]:
        return {key for key in keys - self.held if self.may_run(key)}

    @rule()
    def get(self) -> None:
        key = self.queue.get_nowait()
        has_turn = bool(self.runnable(self.paced)) and self.now() >= self.next_turn_s
        lane = self.runnable(self.paced if has_turn else self.due())
        if key is None:
            assert not lane, "a key that may run was not handed out"
            return
        assert key not in self.held, "held twice"
        assert key in lane, "handed out before its time, or beyond its share"
        self.check_turns(GROUPS[key], lane, paced=has_turn)
        if has_turn:
            self.next_turn_s = self.now() + TURN_S
        self.paced.discard(key)
        self.held.add(key)
        del self.wanted[key]

    def check_turns(self, taken: Groups, lane: set[str], *, paced: bool) -> None:
        """While a line has a key that may run, no other namespace and no other line runs twice."""
        for line in {GROUPS[key] for key in lane}:
            passed = self.passed.setdefault((paced, line), Passed())
            if line.namespace != taken.namespace:
                assert taken.namespace not in passed.namespaces, f"{line} had no turn"
                passed.namespaces.add(taken.namespace)
            else:
                passed.namespaces.clear()
                assert taken == line or taken.class_name not in passed.classes, f"{line} no turn"
                passed.classes.add(taken.class_name)
            if line == taken:
                passed.classes.clear()

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.held)))
        self.queue.done(key)
        self.held.discard(key)

    @rule(chance=st.integers(0, 9))
    def shut_down(self, chance: int) -> None:
        if chance == 0:
            due = self.due()
            self.queue.shut_down()
            self.stopped = True
            self.wanted = {key: when for key, when in self.wanted.items() if key in due}
            self.paced.clear()

    @invariant()
    def turns_count_while_a_line_may_run(self) -> None:
        if not hasattr(self, "queue"):
            return
        lines = {
            (paced, GROUPS[key])
            for paced, keys in ((False, self.due()), (True, self.paced))
            for key in self.runnable(keys)
        }
        self.passed = {line: passed for line, passed in self.passed.items() if line in lines}

    @invariant()
    def no_group_holds_more_than_its_share(self) -> None:
        held = [GROUPS[key] for key in self.held]
        for group in held:
            assert sum(g.namespace == group.namespace for g in held) <= SHARES.namespace
            assert sum(g.class_name == group.class_name for g in held) <= SHARES.class_name
            assert held.count(group) <= SHARES.line

    @invariant()
    def the_numbers_agree(self) -> None:
        if not hasattr(self, "queue"):
            return
        seen = self.queue.statistics()
        assert seen.processing == len(self.held)
        waiting = self.due() - self.held
        assert seen.depth == len(waiting)
        assert seen.blocked == len(waiting) - len(self.runnable(waiting))
        assert seen.delayed == len(self.wanted.keys() - self.due() - (self.paced & self.held))
        assert all(self.queue.failures(key) == self.failed.get(key, 0) for key in GROUPS)

    def teardown(self) -> None:
        """Whatever was asked for and not dropped is handed out in the end."""
        if not hasattr(self, "queue"):
            return
        for key in self.held:
            self.queue.done(key)
        self.clock.advance(1000)
        taken = []
        for _ in GROUPS:
            taken += take_all(self.queue)
            self.clock.advance(TURN_S)
        assert sorted(taken) == sorted(self.wanted)
        assert self.queue.statistics().delayed == 0


PROFILE = settings(
    max_examples=200,
    stateful_step_count=60,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)


def test_in_any_order_of_operations_no_key_is_lost() -> None:
    search(QueueModel, PROFILE)


def test_on_taken_gets_the_seconds_that_each_key_was_ready() -> None:
    clock, waits = FakeClock(), list[float]()
    queue = WorkQueue[str](
        clock=clock, random=FixedRandom(0), backoff=Backoff(), on_taken=waits.append
    )
    queue.add("a")
    queue.add_after("b", 2)
    clock.advance(5)
    assert [queue.get_nowait(), queue.get_nowait(), queue.get_nowait()] == ["a", "b", None]
    assert waits == [5, 3]
