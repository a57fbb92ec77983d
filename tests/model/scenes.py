"""Moves and views that several tests of `HostileWorld` share."""

import json
from collections.abc import Callable, Coroutine
from typing import Any

from tests.model.hostile import HostileWorld
from tests.model.memory import Json, copy
from tests.model.pause import Point
from tests.model.processes import Run, Running
from tests.model.world import NAMESPACE, add_access_class, add_class, keys_in

from cosi_operator.api.core import SECRETS
from cosi_operator.api.record import RECORD_ANNOTATION
from cosi_operator.api.resources import BUCKET_ACCESSES, BUCKET_CLAIMS, BUCKETS
from cosi_operator.api.view import Key, Resource
from cosi_operator.kube.errors import ApiSilent
from cosi_operator.outcome import Call
from cosi_operator.plan import names

BOTH = ("controller", "sidecar")


def begin() -> HostileWorld:
    world = HostileWorld()
    add_class(world)
    add_class(world, "silver", policy="Retain")
    add_access_class(world)
    world.run_until_idle(limit_s=5.0)
    return world


# --- what is seen


def ready_of(world: HostileWorld, resource: Resource, key: Key) -> Json:
    """The Ready condition."""
    body = world.api.get(resource, key)
    found: list[Json] = body["status"]["conditions"]
    return next(condition for condition in found if condition["type"] == "Ready")


def told(world: HostileWorld, reason: str) -> str:
    """The messages of all Events with this reason."""
    return " ".join(e.message for e in world.parts.told if e.reason == reason)


def untold_accounts(world: HostileWorld) -> set[str]:
    """Live accounts that no Warning names."""
    text = told(world, "BackendUnverified")
    return {account for account in world.backend.accounts if account not in text}


def bucket_of(world: HostileWorld, claim: str = "photos") -> str:
    """The name of a claim's dynamic Bucket."""
    return names.bucket_name(world.found(BUCKET_CLAIMS, claim)["metadata"]["uid"])


def key_works(world: HostileWorld, access: str) -> bool:
    secret = world.api.find(SECRETS, Key(NAMESPACE, f"{access}-secret"))
    return secret is not None and keys_in(secret) in world.backend.live_keys()


# --- what administrators and tenants do


def rotate(world: HostileWorld, access: str, token: str = "1") -> None:
    def annotate(body: Json) -> None:
        body["metadata"].setdefault("annotations", {})[names.ROTATE_ANNOTATION] = token

    world.edit(BUCKET_ACCESSES, Key(NAMESPACE, access), annotate)


def remove_by_force(world: HostileWorld, resource: Resource, key: Key) -> None:
    world.edit(resource, key, lambda body: body["metadata"].pop("finalizers", None))
    if world.api.find(resource, key):
        world.api.delete(resource, key)


def edit_record(
    world: HostileWorld, bucket: str, change: Callable[[dict[str, Any]], object]
) -> None:
    """A person edits the JSON of a record."""

    def edit(body: Json) -> None:
        record = json.loads(body["metadata"]["annotations"][RECORD_ANNOTATION])
        change(record)
        body["metadata"]["annotations"][RECORD_ANNOTATION] = json.dumps(record)

    world.edit(BUCKETS, Key("", bucket), edit)


def remove_record(world: HostileWorld, bucket: str) -> None:
    """As the Go pair leaves a Bucket."""
    world.edit(
        BUCKETS,
        Key("", bucket),
        lambda body: body["metadata"]["annotations"].pop(RECORD_ANNOTATION),
    )


def apply_older(world: HostileWorld, older: Json) -> None:
    """As `kubectl apply --force-conflicts` or Velero's update policy writes a saved Bucket."""

    def write(body: Json) -> None:
        body["metadata"]["annotations"] = copy(older["metadata"]["annotations"])
        body["spec"] = copy(older["spec"])

    world.edit(BUCKETS, Key("", older["metadata"]["name"]), write)


# --- processes


def stop_both(world: HostileWorld) -> None:
    for process in ("sidecar", "controller"):
        world.processes[process].end()


def start_both(world: HostileWorld) -> None:
    for process in BOTH:
        world.start(process)


def grants_whose_writes_are_lost(world: HostileWorld) -> list[Key]:
    """From now on the API server is away for each access after its Grant; the list grows."""
    granted: list[Key] = []

    def at_point(_running: Running, run: Run, point: Point) -> Exception | None:
        if point.driver and not point.before and point.verb == Call.GRANT_ACCESS.value:
            granted.append(run.key)
        elif run.key in granted and point.before and point.verb in ("update", "create"):
            return ApiSilent("away")
        return None

    world.at_point = at_point
    return granted


def begin_run(
    world: HostileWorld, process: str, work_name: str, key: Key
) -> Coroutine[Any, Any, object]:
    """A run of this key, beside its queue, as another worker makes it."""
    runner = next(r for r in world.processes[process].runners if r.name == work_name)
    run = runner.reconcile(key)
    assert isinstance(run, Coroutine)
    return run


def end_run(run: Coroutine[Any, Any, object]) -> None:
    while advance(run):
        pass


def advance(run: Coroutine[Any, Any, object]) -> bool:
    """Go on to the next point; False when the run has ended."""
    try:
        run.send(None)
    except StopIteration:
        return False
    return True
