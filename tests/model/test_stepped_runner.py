"""The model steps runs of the real runner, so errors and logs of a run are the real ones."""

import pytest
import structlog
from tests.model.backend import Answer
from tests.model.pause import Point
from tests.model.processes import Run, Running
from tests.model.world import World, add_claim, add_class

from cosi_operator.outcome import Call, Code


def test_an_unexpected_exception_reaches_the_test_and_the_key_stays_in_the_queue() -> None:
    def at_point(running: Running, _run: Run, _point: Point) -> Exception | None:
        return KeyError("a defect") if running.name == "controller" else None

    world = World(at_point=at_point)
    add_class(world)
    add_claim(world)
    with pytest.raises(KeyError, match="a defect"):
        world.run_until_idle()
    world.at_point = lambda *_: None
    world.run_until_idle()
    assert len(world.backend.buckets) == 1


def test_a_refused_call_is_logged_by_the_runner() -> None:
    world = World()
    world.backend.answers[Call.CREATE_BUCKET] = Answer(Code.INVALID_ARGUMENT, acts=False)
    add_class(world)
    add_claim(world)
    with structlog.testing.capture_logs() as lines:
        world.run_until_idle()
    stopped = [line for line in lines if line["event"] == "reconcile_stopped"]
    assert ("terminal", "INVALID_ARGUMENT") in [(s["outcome"], s.get("code")) for s in stopped]
