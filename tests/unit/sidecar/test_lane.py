"""The order of a lane: by example, and as a state machine that looks for lost wake-ups."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.support.measuring import search

from cosi_operator.sidecar.lane import Lane, TicketState, WaitingLimit

RUNNING, WAITING, PARKED, INVITED = (
    TicketState.RUNNING,
    TicketState.WAITING,
    TicketState.PARKED,
    TicketState.INVITED,
)


class World:
    """A lane with what it started and invited; keys are NAMESPACE/NAME, classes are given."""

    def __init__(self, limit: int = 4) -> None:
        self.limit = WaitingLimit(limit)
        self.started: list[str] = []
        self.invited: list[str] = []
        self.lane = Lane[str](self.limit, start=self.started.append, invite=self.invited.append)

    def ask(self, key: str, class_name: str = "gold") -> TicketState:
        if key in self.invited:
            self.invited.remove(key)
        place = self.lane.ask(key, key.partition("/")[0], class_name)
        if place is RUNNING:
            self.started.append(key)
        return place

    def end(self, *, exceeded: bool = False) -> None:
        self.lane.end(self.started[-1], exceeded=exceeded)

    def all_calls(self) -> list[str]:
        """Run all there is to its end; returns the calls in their order."""
        first = len(self.started) - (self.lane.place(self.started[-1]) is RUNNING)
        for _ in range(1000):
            while self.invited:
                self.ask(self.invited[0])
            if not len(self.lane):
                return self.started[first:]
            self.end()
        raise AssertionError("the lane does not come to an end")


def test_one_call_at_a_time_in_the_order_of_arrival() -> None:
    world = World()
    assert [world.ask(f"a/{n}") for n in range(4)] == [RUNNING, WAITING, WAITING, WAITING]
    assert world.all_calls() == ["a/0", "a/1", "a/2", "a/3"]


def test_namespaces_take_turns() -> None:
    world = World(limit=9)
    for key in ("a/0", "a/1", "a/2", "b/0", "c/0", "b/1"):
        world.ask(key)
    assert world.all_calls() == ["a/0", "b/0", "c/0", "a/1", "b/1", "a/2"]


def test_a_namespace_that_asks_again_and_again_is_behind_those_that_wait() -> None:
    world = World()
    world.ask("a/0")
    world.ask("b/0")
    world.end()
    world.ask("a/1")
    world.ask("b/1")
    assert world.all_calls() == ["b/0", "a/1", "b/1"]


def test_only_so_many_wait_and_the_others_are_invited_in_turns() -> None:
    world = World(limit=2)
    places = [world.ask(key) for key in ("a/0", "a/1", "a/2", "a/3", "a/4", "b/0")]
    assert places == [RUNNING, WAITING, WAITING, PARKED, PARKED, PARKED]
    assert world.invited == []
    world.end()
    assert (world.started[-1], world.invited) == ("a/1", ["b/0"])
    assert world.ask("b/0") is WAITING
    world.end()
    assert world.started[-1] == "b/0"


def test_without_seats_nobody_waits_and_the_next_is_invited() -> None:
    world = World(limit=0)
    assert [world.ask(key) for key in ("a/0", "a/1", "b/0")] == [RUNNING, PARKED, PARKED]
    world.end()
    assert (world.started, world.invited) == (["a/0"], ["b/0"])
    assert world.ask("b/0") is RUNNING


@pytest.mark.parametrize(
    ("key", "class_name"),
    [
        pytest.param("b/0", "silver", id="another namespace and class"),
        pytest.param("b/9", "silver", id="another namespace and class, last to arrive"),
    ],
)
def test_after_a_hang_another_tenant_is_first(key: str, class_name: str) -> None:
    world = World(limit=2)
    world.ask("a/0")
    for number in range(1, 5):
        world.ask(f"a/{number}")
        world.ask(f"c/{number}")  # another namespace, but the class that exceeded
    assert world.ask(key, class_name) is PARKED
    world.end(exceeded=True)
    assert world.started == ["a/0"], "the lane is kept free"
    assert key in world.invited
    assert world.ask("a/5") is not RUNNING, "also not for one that arrives now"
    assert world.ask(key, class_name) is RUNNING
    rest = world.all_calls()[1:]
    assert sorted(rest) == sorted([f"{space}/{n}" for space in "ac" for n in range(1, 5)] + ["a/5"])


def test_the_lane_is_not_kept_free_for_one_that_does_not_come() -> None:
    world = World(limit=2)
    world.ask("a/0")
    world.ask("a/1")
    world.ask("a/2")
    world.ask("b/0", "silver")
    world.end(exceeded=True)
    assert world.started == ["a/0"]
    world.lane.leave("b/0")
    assert world.started == ["a/0", "a/1"]


def test_the_lane_is_kept_free_only_for_so_long() -> None:
    world = World(limit=2)
    world.ask("a/0")
    world.ask("a/1")
    world.ask("a/2")
    world.ask("b/0", "silver")
    world.end(exceeded=True)
    assert world.started == ["a/0"]
    assert world.lane.release_worker("a/1") is RUNNING
    assert world.lane.release_worker("a/2") is PARKED
    world.lane.end("a/1", exceeded=False)
    assert world.ask("b/0", "silver") is RUNNING


def test_all_that_stood_there_at_the_hang_go_before_what_hung() -> None:
    world = World(limit=20)
    world.ask("a/0")
    for key in ("a/1", "b/0", "b/1", "b/2"):
        world.ask(key, "silver" if key[0] == "b" else "gold")
    world.end(exceeded=True)
    world.ask("b/3", "silver")  # came after it: takes turns with what exceeded
    assert world.all_calls() == ["b/0", "b/1", "b/2", "a/1", "b/3"]


def test_one_that_hangs_each_time_leaves_each_turn_to_the_others() -> None:
    world = World(limit=20)
    world.ask("a/0")
    for round_number in range(3):
        world.ask(f"a/{round_number + 1}")
        others = [f"b/{round_number}-{n}" for n in range(3)]
        for key in others:
            world.ask(key, "silver")
        world.end(exceeded=True)
        for key in others:
            assert world.started[-1] == key
            world.end()
        assert world.started[-1] == f"a/{round_number + 1}"


def test_who_waited_too_long_keeps_the_position_and_holds_no_worker() -> None:
    world = World()
    for key in ("a/0", "b/0", "a/1"):
        world.ask(key)
    assert world.lane.release_worker("b/0") is PARKED
    assert world.invited == [], "the lane is not short of runs"
    world.end()
    assert world.started[-1] == "a/1", "the lane does not idle"
    assert world.invited == ["b/0"]
    assert world.ask("b/0") is WAITING
    world.ask("a/2")
    world.end()
    assert world.started[-1] == "b/0"


def test_the_limit_is_shared_by_the_lanes_that_have_them_in_common() -> None:
    limit = WaitingLimit(1)
    lanes = [Lane[str](limit, start=lambda _: None, invite=lambda _: None) for _ in range(2)]
    assert [lane.ask("a/0", "a", "gold") for lane in lanes] == [RUNNING, RUNNING]
    assert [lane.ask("a/1", "a", "gold") for lane in lanes] == [WAITING, PARKED]
    lanes[0].end("a/0", exceeded=False)
    assert lanes[1].place("a/1") is PARKED
    lanes[1].end("a/0", exceeded=False)
    assert lanes[1].place("a/1") is INVITED


def test_wrong_uses_are_errors_and_change_nothing() -> None:
    world = World()
    world.ask("a/0")
    world.ask("a/1")
    for wrong in (
        lambda: world.ask("a/0"),
        lambda: world.ask("a/1"),
        lambda: world.lane.release_worker("a/0"),
        lambda: world.lane.end("a/1", exceeded=False),
        lambda: world.lane.leave("a/0"),
    ):
        with pytest.raises(ValueError, match="a/"):
            wrong()
    world.lane.leave("unknown")
    assert [world.lane.place(key) for key in ("a/0", "a/1")] == [RUNNING, WAITING]


NAMESPACES, CLASSES = "abc", ("gold", "silver")


class LaneMachine(RuleBasedStateMachine):
    """Any order of requests, ends, hangs, impatience and departures."""

    def __init__(self) -> None:
        super().__init__()
        self.lane = Lane[str](WaitingLimit(0), start=self.begin, invite=lambda _: None)
        self.limit = 0
        self.classes: dict[str, str] = {}  # of every key with a ticket
        self.running: str | None = None
        self.number = 0
        # Keys that stood in the lane at a hang and have to go before what exceeded with it.
        self.before: list[tuple[str, str, set[str]]] = []
        self.stood: set[str] = set()  # keys that stood in the lane at some hang
        # Of a waiting key: how often each other namespace had a turn since its own had one, or
        # since it waits; not counted while there are keys that a hang has put before others.
        self.passed: dict[str, dict[str, int]] = {}

    @precondition(lambda self: not self.classes)
    @rule(limit=st.integers(0, 3))
    def choose_the_seats(self, limit: int) -> None:
        self.limit = limit
        self.lane = Lane[str](WaitingLimit(limit), start=self.begin, invite=lambda _: None)

    def keys(self, *places: TicketState) -> list[str]:
        return [key for key in self.classes if self.lane.place(key) in places]

    def begin(self, key: str) -> None:
        assert self.running is None, "two at a time"
        self.running = key
        namespace, class_name = key[0], self.classes[key]
        for hung_namespace, hung_class, others in self.before:
            if namespace == hung_namespace or class_name == hung_class:
                assert not others, f"{key} begins before {others}"
        self.passed.pop(key, None)
        for waiting, turns in self.passed.items():
            if waiting[0] == namespace:
                turns.clear()
            else:
                turns[namespace] = turns.get(namespace, 0) + 1
                assert turns[namespace] <= 1, f"{namespace} goes again before {waiting}"
        self.served(key)

    def served(self, key: str) -> None:
        """It is no longer one that has to go before others."""
        for _, _, others in self.before:
            others.discard(key)
        self.before = [entry for entry in self.before if entry[2]]

    def forget(self, key: str) -> None:
        del self.classes[key]
        self.stood.discard(key)
        self.passed.pop(key, None)
        self.served(key)

    def ask_for(self, key: str) -> None:
        place = self.lane.ask(key, key[0], self.classes[key])
        if place is RUNNING:
            self.begin(key)
        elif place is WAITING and not self.stood:
            self.passed[key] = {}

    @rule(namespace=st.sampled_from(NAMESPACES), class_name=st.sampled_from(CLASSES))
    def arrive(self, namespace: str, class_name: str) -> None:
        self.number += 1
        key = f"{namespace}/{self.number}"
        self.classes[key] = class_name
        self.ask_for(key)

    @precondition(lambda self: self.keys(INVITED))
    @rule(data=st.data())
    def come_when_invited(self, data: st.DataObject) -> None:
        self.ask_for(data.draw(st.sampled_from(self.keys(INVITED))))

    @precondition(lambda self: self.keys(PARKED))
    @rule(data=st.data())
    def come_uninvited(self, data: st.DataObject) -> None:
        self.ask_for(data.draw(st.sampled_from(self.keys(PARKED))))

    @precondition(lambda self: self.running)
    @rule(exceeded=st.booleans())
    def end(self, *, exceeded: bool) -> None:
        assert self.running is not None
        key, self.running = self.running, None
        class_name = self.classes[key]
        self.forget(key)
        if exceeded:
            self.passed.clear()
            self.stood |= set(self.classes)
            moved = {k for k, c in self.classes.items() if k[0] == key[0] or c == class_name}
            for _, _, others in self.before:
                others -= moved
            self.before.append((key[0], class_name, set(self.classes) - moved))
            self.before = [entry for entry in self.before if entry[2]]
        self.lane.end(key, exceeded=exceeded)

    @precondition(lambda self: self.keys(WAITING))
    @rule(data=st.data())
    def release_worker(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self.keys(WAITING)))
        self.passed.pop(key, None)
        if self.lane.release_worker(key) is RUNNING:
            # The lane was kept free for others, who had their time to come.
            self.before = [entry for entry in self.before if not self.hung_with(entry, key)]
            self.begin(key)

    def hung_with(self, entry: tuple[str, str, set[str]], key: str) -> bool:
        return entry[0] == key[0] or entry[1] == self.classes[key]

    @precondition(lambda self: self.keys(WAITING, PARKED, INVITED))
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self.keys(WAITING, PARKED, INVITED)))
        self.forget(key)
        self.lane.leave(key)

    @invariant()
    def it_agrees_on_who_is_there(self) -> None:
        assert len(self.lane) == len(self.classes)
        assert self.keys(RUNNING) == ([self.running] if self.running else [])

    @invariant()
    def no_wake_up_is_lost(self) -> None:
        if self.running is None and self.classes:
            assert self.keys(INVITED), "nobody comes any more"

    @invariant()
    def workers_stay_free(self) -> None:
        assert len(self.keys(WAITING)) <= 1.5 * self.limit

    def teardown(self) -> None:
        """Whatever happened, all get their turn, each with one call."""
        for _ in range(3 * len(self.classes) + 1):
            for key in self.keys(INVITED):
                self.ask_for(key)
            if self.running is not None:
                self.end(exceeded=False)
        assert not self.classes


PROFILE = settings(
    max_examples=300,
    stateful_step_count=60,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)


def test_in_any_order_of_operations_each_gets_its_turn() -> None:
    search(LaneMachine, PROFILE)
