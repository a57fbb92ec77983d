"""The system clock is set forward or back: final verdicts are still rechecked once an interval."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.model.backend import Answer
from tests.model.world import World, add_claim, add_class
from tests.support.clock import FakeClock

from cosi_operator.api.resources import BUCKET_CLAIMS, BUCKETS
from cosi_operator.clock import SteadyTime
from cosi_operator.outcome import Call, Code
from cosi_operator.plan.steps import Context, DriverView, Pending
from cosi_operator.plan.verdicts import recheck_left_s

RECHECK_S = 300.0
HOUR_S = 3600.0
# The world's time moves in steps of up to a minute, so that a recheck comes up to so much later.
LATE_S = 64.0
JUMPS = [
    pytest.param(-HOUR_S, id="one hour back"),
    pytest.param(HOUR_S, id="one hour forward"),
    pytest.param(-30 * 24 * HOUR_S, id="a month back"),
    pytest.param(30 * 24 * HOUR_S, id="a month forward"),
    pytest.param(-RECHECK_S, id="one interval back"),
]
REFUSED = Answer(Code.INVALID_ARGUMENT, acts=False)


def refused() -> World:
    """A world whose driver has refused a claim, once."""
    world = World(recheck_s=RECHECK_S)
    add_class(world)
    world.backend.answers[Call.CREATE_BUCKET] = REFUSED
    add_claim(world)
    world.run_until_idle(limit_s=100.0)
    assert world.backend.count(Call.CREATE_BUCKET) == 1
    return world


def rechecks(world: World, seconds: float) -> int:
    """How often the driver is asked again within so many seconds."""
    before = world.backend.count(Call.CREATE_BUCKET)
    world.run_until_idle(limit_s=seconds)
    return world.backend.count(Call.CREATE_BUCKET) - before


def check_pace(world: World) -> None:
    """Ten intervals: never more than one recheck an interval, and none is missing."""
    seconds = 10 * RECHECK_S
    assert seconds // (RECHECK_S + LATE_S) <= rechecks(world, seconds) <= 11


@pytest.mark.parametrize("jump_s", JUMPS)
def test_the_clock_jumps_and_returns_while_a_recheck_is_due_and_the_rechecks_go_on(
    jump_s: float,
) -> None:
    world = refused()
    world.clock.skew_wall(jump_s)
    check_pace(world)
    world.clock.skew_wall(-jump_s)
    check_pace(world)


@pytest.mark.parametrize("jump_s", JUMPS)
def test_the_clock_jumps_and_the_object_is_looked_at_and_the_rechecks_go_on(jump_s: float) -> None:
    world = refused()
    world.clock.skew_wall(jump_s)
    world.user_edits(BUCKETS, "bucket-bucketclaim-photos-1", _label)
    assert rechecks(world, 10) == 0
    check_pace(world)


def _label(body: dict[str, dict[str, object]]) -> None:
    body["metadata"]["labels"] = {"looked": "at"}


@pytest.mark.parametrize("jump_s", JUMPS)
def test_the_clock_jumps_before_a_restart_and_the_first_recheck_comes_within_one_interval(
    jump_s: float,
) -> None:
    world = refused()
    world.clock.skew_wall(jump_s)
    world.restart("sidecar")
    assert rechecks(world, RECHECK_S + LATE_S) == 1
    world.clock.skew_wall(-jump_s)
    check_pace(world)


@pytest.mark.parametrize("jump_s", JUMPS)
def test_the_clock_was_wrong_when_the_verdict_was_stored_and_the_rechecks_go_on(
    jump_s: float,
) -> None:
    world = World(recheck_s=RECHECK_S)
    add_class(world)
    world.backend.answers[Call.CREATE_BUCKET] = REFUSED
    world.clock.skew_wall(jump_s)
    add_claim(world)
    world.run_until_idle(limit_s=100.0)
    world.clock.skew_wall(-jump_s)
    check_pace(world)
    world.restart("sidecar")
    assert rechecks(world, RECHECK_S + LATE_S) == 1


def test_a_driver_that_returns_does_not_end_the_wait_for_a_recheck() -> None:
    world = refused()
    world.driver_goes()
    world.driver_comes(new=False)
    assert rechecks(world, 100) == 0
    assert world.ready(BUCKET_CLAIMS, "photos") == ("False", "DriverInvalidArgument")
    check_pace(world)


# --- in numbers


NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECONDS = st.floats(-1e9, 1e9)


def left_s(*, stored: datetime, started: datetime, elapsed_s: float, held_s: float | None) -> float:
    pending = Pending() if held_s is None else Pending(1, held_s)
    context = Context(
        DriverView("s3.example.com"),
        now=started + timedelta(seconds=elapsed_s),
        started=started,
        pending=pending,
    )
    return recheck_left_s(stored.isoformat(), RECHECK_S, context)


@given(stored_s=SECONDS, started_s=SECONDS)
def test_whatever_the_clocks_said_a_stored_verdict_is_due_once_within_one_interval(
    stored_s: float, started_s: float
) -> None:
    stored, started = (NOW + timedelta(seconds=s) for s in (stored_s, started_s))
    left = left_s(stored=stored, started=started, elapsed_s=0, held_s=None)
    assert 0 < left <= RECHECK_S
    assert left_s(stored=stored, started=started, elapsed_s=left - 1, held_s=None) > 0
    assert left_s(stored=stored, started=started, elapsed_s=left + 1, held_s=None) <= 0


@given(stored_s=SECONDS, held_s=st.floats(0, RECHECK_S))
def test_a_verdict_of_this_process_waits_for_its_hold_alone(stored_s: float, held_s: float) -> None:
    stored = NOW + timedelta(seconds=stored_s)
    assert left_s(stored=stored, started=NOW, elapsed_s=7, held_s=held_s) == held_s


@pytest.mark.parametrize("jump_s", JUMPS)
def test_steady_time_moves_with_monotonic_time_alone(jump_s: float) -> None:
    clock = FakeClock()
    steady = SteadyTime(clock)
    clock.advance(5)
    clock.skew_wall(jump_s)
    clock.advance(5)
    assert steady.now() == steady.started + timedelta(seconds=10)
    assert clock.wall() == steady.now() + timedelta(seconds=jump_s)
