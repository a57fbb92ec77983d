"""Whatever is cut at whatever point, everything ends as it would have without the fault.

For each scenario the run without a fault is recorded. Then, for every point at which a request or
a driver call is about to be made or has been made, the world is built anew and that one thing
happens there: the process is killed, or the request or its reply is lost. A killed process starts
with an empty memory. (Sieve's method: perturb an operator around each side effect.)
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.model.backend import Answer
from tests.model.memory import Json
from tests.model.pause import Point
from tests.model.processes import Run, Running
from tests.model.world import (
    World,
    add_access,
    add_access_class,
    add_claim,
    add_class,
    add_static_bucket,
)
from tests.support.measuring import measured_in_part

from cosi_operator.api.resources import BUCKET_ACCESSES, BUCKET_CLAIMS, BUCKET_CLASSES, BUCKETS
from cosi_operator.api.view import Resource
from cosi_operator.driver.errors import DriverSilent
from cosi_operator.kube.errors import ApiSilent
from cosi_operator.outcome import Call, Code, MadeBy
from cosi_operator.plan import names

FAULTS = ("killed", "lost")
# A crash or a lost reply costs one more call of the kind that was under way.
EXTRA_CALLS = 1


@dataclass(frozen=True)
class Scenario:
    """`prepare` runs to idle without faults; the faults meet what `act` sets going."""

    act: Callable[[World], None]
    prepare: Callable[[World], None] = field(default=lambda world: None)
    upstream: bool = False
    # The last word is a refusal. Without a fault it leaves no finalizer of ours; after a fault
    # nobody knows what an earlier call has made, so the finalizers may stay.
    refused: bool = False


def _classes(world: World) -> None:
    add_class(world)
    add_access_class(world)


def _provisioned(world: World) -> None:
    _classes(world)
    add_claim(world)


def _granted(world: World) -> None:
    _provisioned(world)
    add_access(world)


def _retained(world: World) -> None:
    add_class(world, policy="Retain")
    add_access_class(world)
    add_claim(world)
    add_access(world)


def _bound(world: World) -> None:
    add_static_bucket(world)
    add_access_class(world)
    add_claim(world, existingBucketName="old")
    add_access(world)


def _refused(world: World) -> None:
    world.backend.answers[Call.CREATE_BUCKET] = Answer(Code.INVALID_ARGUMENT, acts=False)
    _provisioned(world)


def _unsure(world: World) -> None:
    world.backend.answers[Call.CREATE_BUCKET] = Answer(Code.UNKNOWN, acts=True)
    _provisioned(world)


def _heal(world: World) -> None:
    world.backend.answers.clear()


def _repair(world: World) -> None:
    _heal(world)
    world.user_edits(BUCKET_CLASSES, "gold", lambda body: body["parameters"].update(tier="2"))


def _grant_refused(world: World) -> None:
    world.backend.answers[Call.GRANT_ACCESS] = Answer(Code.INVALID_ARGUMENT, acts=False)
    _granted(world)


def _grant_unsure(world: World) -> None:
    world.backend.answers[Call.GRANT_ACCESS] = Answer(Code.UNKNOWN, acts=True)
    _granted(world)


def _delete_claim(world: World) -> None:
    _heal(world)
    world.user_deletes(BUCKET_CLAIMS, "photos")


def _delete_access(world: World) -> None:
    _heal(world)
    world.user_deletes(BUCKET_ACCESSES, "reader")


def _retry(world: World) -> None:
    _heal(world)
    world.user_retries(BUCKET_ACCESSES, "reader", "1")


def _rotate(world: World) -> None:
    def annotate(body: Json) -> None:
        body["metadata"].setdefault("annotations", {})[names.ROTATE_ANNOTATION] = "1"

    world.user_edits(BUCKET_ACCESSES, "reader", annotate)


SCENARIOS = {
    "create": Scenario(_provisioned),
    "create and grant at once": Scenario(_granted),
    "create with upstream's CRDs": Scenario(_granted, upstream=True),
    "static bind": Scenario(
        lambda world: add_claim(world, existingBucketName="old"), add_static_bucket
    ),
    "static bind and grant": Scenario(_bound),
    "grant": Scenario(add_access, _provisioned),
    "rotate": Scenario(_rotate, _granted),
    "rotate with upstream's CRDs": Scenario(_rotate, _granted, upstream=True),
    "revoke": Scenario(_delete_access, _granted),
    "delete with policy Delete": Scenario(_delete_claim, _granted),
    "delete with policy Retain": Scenario(_delete_claim, _retained),
    "delete a static bind": Scenario(_delete_claim, _bound),
    "create refused for ever": Scenario(_refused, refused=True),
    "create refused, then deleted": Scenario(_delete_claim, _refused),
    "create refused, then repaired": Scenario(_repair, _refused),
    "create with an unknown end, then deleted": Scenario(_delete_claim, _unsure),
    "grant refused for ever": Scenario(_grant_refused, refused=True),
    "grant refused, then deleted": Scenario(_delete_access, _grant_refused),
    "grant refused, then retried": Scenario(_retry, _grant_refused),
    "grant with an unknown end, then deleted": Scenario(_delete_claim, _grant_unsure),
    "delete with upstream's CRDs": Scenario(_delete_claim, _granted, upstream=True),
}


@dataclass
class Pass:
    """One pass through a scenario, with at most one fault at the point number `at`."""

    world: World
    points: list[Point] = field(default_factory=list)


def _run(scenario: Scenario, fault: str = "", at: int = -1) -> Pass:
    world = World(upstream=scenario.upstream)
    scenario.prepare(world)
    world.run_until_idle()
    assert world.check_settled() == []
    done = Pass(world)

    def at_point(running: Running, run: Run, point: Point) -> Exception | None:
        done.points.append(point)
        if len(done.points) - 1 != at:
            return None
        if fault == "killed":
            world.restart(point.process)
            return None
        if point.driver:
            return DriverSilent(Call(point.verb), MadeBy.TRANSPORT, "connection lost")
        return ApiSilent(f"{point.verb} {point.what}")

    world.at_point = at_point
    world.backend.calls.clear()
    scenario.act(world)
    world.run_until_idle()
    world.at_point = lambda running, run, point: None
    return done


def _calls(world: World) -> Counter[Call]:
    return Counter(called.call for called in world.backend.calls)


HOLDS = {names.BUCKET_FINALIZER, names.BUCKET_ACCESS_FINALIZER, names.ACCESS_FINALIZER}


def _snapshot(world: World, scenario: Scenario) -> dict[str, Any]:
    seen = world.snapshot()
    if scenario.refused:
        for body in seen.values():
            if isinstance(body, dict) and "finalizers" in body:
                body["finalizers"] = [f for f in body["finalizers"] if f not in HOLDS]
    return seen


def _problems(
    world: World, scenario: Scenario, before: dict[str, Any], calls: Counter[Call]
) -> list[str]:
    """How a world with a fault differs from the one without."""
    found = world.check_settled()
    after = _snapshot(world, scenario)
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            found.append(f"{name}: {after.get(name)} instead of {before.get(name)}")
    for call, count in _calls(world).items():
        if count > calls[call] + EXTRA_CALLS:
            found.append(f"{call} was called {count} times instead of {calls[call]}")
    writes, made = world.writes(), len(world.backend.calls)
    world.clock.advance(3600.0)
    world.run_until_idle()
    if (world.writes(), len(world.backend.calls)) != (writes, made):
        found.append(f"it never rests: {world.sent[-1]}")
    version = world.api.version
    for process in ("controller", "sidecar"):
        world.restart(process)
    world.run_until_idle()
    if (world.api.version, len(world.backend.calls)) != (version, made):
        found.append(f"a restart is not quiet: {world.sent[-1]}")
    return found


@pytest.fixture(scope="module")
def totals(request: pytest.FixtureRequest) -> Iterator[Counter[str]]:
    """Counts the cases of all scenarios; the sum is told at the end."""
    counted: Counter[str] = Counter()
    yield counted
    terminal = request.config.pluginmanager.get_plugin("terminalreporter")
    if terminal:
        terminal.write_line(
            f" crash points: {counted['cases']} cases, {counted['survived']} survived"
        )


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_crash_point_and_every_lost_message_ends_as_without_the_fault(
    name: str, totals: Counter[str]
) -> None:
    scenario = SCENARIOS[name]
    plain = _run(scenario)
    before, calls = _snapshot(plain.world, scenario), _calls(plain.world)
    assert _problems(plain.world, scenario, before, calls) == []
    failed = []
    with measured_in_part(examples=15) as begin:
        for at, point in enumerate(plain.points):
            for fault in FAULTS:
                begin()
                world = _run(scenario, fault, at).world
                problems = _problems(world, scenario, before, calls)
                totals["cases"] += 1
                totals["survived"] += not problems
                if problems:
                    failed.append(f"{fault} at {at} ({point}): " + "; ".join(problems))
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize(
    ("scenario", "resource"),
    [
        pytest.param(SCENARIOS["create refused for ever"], BUCKETS, id="refused Create -> Bucket"),
        pytest.param(
            SCENARIOS["grant refused for ever"], BUCKET_ACCESSES, id="refused Grant -> access"
        ),
        pytest.param(SCENARIOS["grant refused for ever"], BUCKETS, id="refused Grant -> mark"),
    ],
)
def test_a_refusal_without_effect_leaves_no_finalizer(
    scenario: Scenario, resource: Resource
) -> None:
    """After a rollback, the Go sidecar sends an empty id for an object that has one."""
    (body,) = _run(scenario).world.api.list(resource)
    held = set(body["metadata"].get("finalizers") or ())
    wanted = {names.BUCKET_FINALIZER} if body.get("status", {}).get("bucketReady") else set()
    assert held & HOLDS == wanted
