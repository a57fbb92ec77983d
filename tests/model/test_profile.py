"""What the most common jobs cost: runs, requests, driver calls, and frames down to a driver call.

`pytest -s tests/model/test_profile.py` prints them. More of any of these has to be on purpose.
"""

from collections.abc import Callable
from types import CoroutineType
from typing import Any

import pytest
from tests.model.backend import Answer
from tests.model.pause import Point
from tests.model.processes import Run, Running
from tests.model.world import World, add_access, add_access_class, add_claim, add_class

from cosi_operator.api.v1alpha1 import BUCKET_ACCESSES, BUCKET_CLAIMS
from cosi_operator.outcome import Call, Code


def a_claim_becomes_ready(world: World) -> None:
    add_claim(world)


def a_create_is_refused(world: World) -> None:
    world.backend.answers[Call.CREATE_BUCKET] = Answer(Code.INVALID_ARGUMENT, acts=False)
    add_claim(world)


def an_access_is_granted(world: World) -> None:
    add_claim(world)
    world.run_until_idle()
    count_from_here(world)
    add_access(world, "reader")


def an_access_is_deleted(world: World) -> None:
    an_access_is_granted(world)
    world.run_until_idle()
    count_from_here(world)
    world.user_deletes(BUCKET_ACCESSES, "reader")


def a_claim_is_deleted(world: World) -> None:
    add_claim(world)
    world.run_until_idle()
    count_from_here(world)
    world.user_deletes(BUCKET_CLAIMS, "photos")


def count_from_here(world: World) -> None:
    world.parts.sent.clear()
    world.backend.calls.clear()
    for running in world.processes.values():
        running.outcomes.clear()


def depth(coroutine: Any) -> int:
    """Frames from the worker to the point at which the run waits."""
    frames = 0
    while isinstance(coroutine, CoroutineType):
        frames, coroutine = frames + 1, coroutine.cr_await
    return frames


@pytest.mark.parametrize(
    ("job", "runs", "requests", "calls", "frames"),
    [
        pytest.param(a_claim_becomes_ready, 3, 5, 1, 8, id="claim ready"),
        pytest.param(a_create_is_refused, 3, 6, 1, 8, id="create refused"),
        pytest.param(an_access_is_granted, 5, 7, 1, 12, id="access granted"),
        pytest.param(an_access_is_deleted, 6, 6, 1, 12, id="access deleted"),
        pytest.param(a_claim_is_deleted, 4, 3, 1, 8, id="claim deleted"),
    ],
)
def test_what_a_job_costs(
    job: Callable[[World], None], runs: int, requests: int, calls: int, frames: int
) -> None:
    depths = [0]

    def at_point(_running: Running, run: Run, point: Point) -> None:
        if point.driver:
            depths.append(depth(run.coroutine))

    world = World(at_point=at_point)
    add_class(world)
    add_access_class(world)
    world.run_until_idle()
    count_from_here(world)
    job(world)
    world.run_until_idle(limit_s=1.0)
    found = (
        sum(len(running.outcomes) for running in world.processes.values()),
        len(world.parts.sent),
        len(world.backend.calls),
        max(depths),
    )
    print(job.__name__, *found)
    assert found == (runs, requests, calls, frames)
