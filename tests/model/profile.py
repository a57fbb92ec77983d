"""Measures what the most common jobs cost: runs, requests, driver calls, and frames.

Prints the table of docs/architecture.md:

    PYTHONPATH=operator:hack:. .venv/bin/python -m tests.model.profile
"""

from collections.abc import Callable
from types import CoroutineType
from typing import Any, NamedTuple

import structlog
from tests.model.backend import Answer
from tests.model.pause import Point
from tests.model.processes import Run, Running
from tests.model.world import World, add_access, add_access_class, add_claim, add_class

from cosi_operator.api.resources import BUCKET_ACCESSES, BUCKET_CLAIMS
from cosi_operator.outcome import Call, Code

# `Runner.run_once` and `Runner._outcome`, between a worker and the reconciler.
RUNNER_FRAMES = 2

type Job = Callable[[World], None]


class Cost(NamedTuple):
    """`runs` of both processes, their `requests`, driver `calls`, and the deepest stack of one.

    `frames`: from the reconciler to the driver call.
    """

    runs: int
    requests: int
    calls: int
    frames: int


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
    """Frames from the reconciler to the point at which the run waits."""
    frames = -RUNNER_FRAMES
    while isinstance(coroutine, CoroutineType):
        frames, coroutine = frames + 1, coroutine.cr_await
    return frames


JOBS: dict[str, Job] = {
    "a claim becomes ready": a_claim_becomes_ready,
    "a Create is refused": a_create_is_refused,
    "an access is granted": an_access_is_granted,
    "an access is deleted": an_access_is_deleted,
    "a claim is deleted": a_claim_is_deleted,
}
# Measured in the same way at the parent of 88d821a.
BEFORE = {
    "a claim becomes ready": Cost(5, 5, 1, 8),
    "a Create is refused": Cost(5, 6, 1, 8),
    "an access is granted": Cost(6, 7, 1, 12),
    "an access is deleted": Cost(6, 6, 1, 12),
    "a claim is deleted": Cost(5, 3, 1, 8),
}


def measure(job: Job) -> Cost:
    """Run one job until nothing is left to do."""
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
    return Cost(
        runs=sum(len(running.outcomes) for running in world.processes.values()),
        requests=len(world.parts.sent),
        calls=len(world.backend.calls),
        frames=max(depths),
    )


def table() -> str:
    """The costs as Markdown; those of before the changes of issue 15 in parentheses."""
    lines = ["| job | runs | requests | driver calls | frames |", "|---|---|---|---|---|"]
    for name, job in JOBS.items():
        pairs = zip(measure(job), BEFORE[name], strict=True)
        lines.append(f"| {name} | {' | '.join(f'{now} ({was})' for now, was in pairs)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    with structlog.testing.capture_logs():
        text = table()
    print(text)
