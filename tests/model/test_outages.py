"""Requests fail for a while: what is reported, who writes it, and what is called again."""

import pytest
from tests.model.backend import Answer
from tests.model.hostile import HostileWorld
from tests.model.memory import Json
from tests.model.pause import Point
from tests.model.processes import Run, Running
from tests.model.scenes import begin, bucket_of, remove_by_force, rotate
from tests.model.world import (
    NAMESPACE,
    add_access,
    add_claim,
)

from cosi_operator.api.resources import (
    BUCKET_ACCESS_CLASSES,
    BUCKET_ACCESSES,
    BUCKET_CLAIMS,
    BUCKETS,
)
from cosi_operator.api.view import Key, Resource
from cosi_operator.driver.errors import DriverSilent
from cosi_operator.kube.errors import ApiSilent, Conflict, ServerError
from cosi_operator.outcome import Call, Code, MadeBy
from cosi_operator.plan import names


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> HostileWorld:
    monkeypatch.setattr("tests.model.world.STEP_LIMIT", 3000)  # endless loops fail soon
    monkeypatch.setattr("tests.model.world.RUN_LIMIT", 500)
    return begin()


FOREIGN = "example.com/backup"


def hold(world: HostileWorld, resource: Resource, name: str) -> None:
    key = Key(NAMESPACE if resource.namespaced else "", name)
    world.edit(resource, key, lambda b: b["metadata"].setdefault("finalizers", []).append(FOREIGN))


@pytest.mark.parametrize("fault", ["409", "500 after commit", "silent after commit"])
def test_a_report_that_is_not_current_any_more_is_dropped(world: HostileWorld, fault: str) -> None:
    """One status write fails; then the class goes, so the access is nobody's."""
    done: list[str] = []

    def at_point(running: Running, _run: Run, point: Point) -> Exception | None:
        is_status = point.verb == "update/status" and point.what.startswith("bucketaccesses ")
        if running.name != "sidecar" or not is_status or done:
            return None
        if fault == "409" and point.before:
            done.append(fault)
            hold(world, BUCKET_ACCESSES, "a1")
        elif fault != "409" and not point.before:
            done.append(fault)
            world.user_deletes(BUCKET_ACCESS_CLASSES, "keys")
            return ApiSilent("slow") if "silent" in fault else ServerError(500, "x", "timed out")
        if done:
            world.user_deletes(BUCKET_ACCESS_CLASSES, "keys")
        return None

    world.at_point = at_point
    add_access(world, "a1")
    world.run_until_idle(limit_s=600.0)
    assert done
    assert world.ready(BUCKET_ACCESSES, "a1")[1] == "BucketAccessClassNotFound"


@pytest.mark.parametrize("code", [Code.INTERNAL, Code.PERMISSION_DENIED])
def test_a_refused_deletion_without_a_claim_is_reported_again_after_an_outage(
    world: HostileWorld, code: Code
) -> None:
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    bucket = bucket_of(world)
    remove_by_force(world, BUCKET_CLAIMS, Key(NAMESPACE, "photos"))
    world.backend.answers[Call.DELETE_BUCKET] = Answer(code, acts=False)
    world.user_deletes(BUCKETS, bucket)
    world.run_until_idle(limit_s=100.0)
    assert "Driver" in world.ready(BUCKETS, bucket)[1]

    def at_point(running: Running, _run: Run, point: Point) -> Exception | None:
        is_get = running.name == "sidecar" and point.before and point.verb == "get"
        return ServerError(500, "x", "etcd") if is_get else None

    world.at_point = at_point
    world.edit(
        BUCKETS, Key("", bucket), lambda b: b["metadata"].setdefault("labels", {}).update(x="1")
    )
    world.run_until_idle(limit_s=20.0)
    world.at_point = lambda *a: None
    world.run_until_idle(limit_s=60.0)
    assert world.ready(BUCKETS, bucket)[1] != "APIServerUnavailable"


@pytest.mark.parametrize("what", ["bucket", "access"])
@pytest.mark.parametrize("fault", ["409", "500", "silent", "500 for 15 s"])
def test_a_refusal_is_reported_although_the_write_before_the_report_failed(
    world: HostileWorld, what: str, fault: str
) -> None:
    call = Call.CREATE_BUCKET if what == "bucket" else Call.GRANT_ACCESS
    if what == "access":
        add_claim(world)
        world.run_until_idle(limit_s=30.0)
    world.backend.answers[call] = Answer(Code.INVALID_ARGUMENT, acts=False)
    seen: list[float] = []

    def at_point(running: Running, _run: Run, point: Point) -> Exception | None:
        now = world.clock.monotonic()
        if running.name != "sidecar" or not point.before or not world.backend.count(call):
            return None
        is_edit = point.verb == "update" and point.what.startswith("buckets ")
        if is_edit and (not seen or ("15 s" in fault and now - seen[0] < 15)):
            seen.append(now)
            if fault == "409":
                return Conflict(409, "x", "y")
            return ApiSilent("slow") if fault == "silent" else ServerError(500, "x", "etcd")
        return None

    world.at_point = at_point
    if what == "access":
        add_access(world, "a1")
    else:
        add_claim(world)
    world.run_until_idle(limit_s=3600.0)
    assert seen
    resource, name = (BUCKET_CLAIMS, "photos") if what == "bucket" else (BUCKET_ACCESSES, "a1")
    assert world.ready(resource, name)[1] == "DriverInvalidArgument"


@pytest.mark.parametrize("fault", ["409", "500", "silent"])
def test_an_unanswered_grant_is_reported_although_its_note_could_not_be_stored(
    world: HostileWorld, fault: str
) -> None:
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    seen: list[str] = []

    def at_point(running: Running, _run: Run, point: Point) -> Exception | None:
        if point.verb == Call.GRANT_ACCESS and point.before:
            seen.append("grant")
            return DriverSilent(Call.GRANT_ACCESS, MadeBy.DEADLINE, "slow")
        is_edit = point.verb == "update" and point.what.startswith("buckets ")
        if seen == ["grant"] and is_edit and point.before:
            seen.append(fault)
            if fault == "409":
                return Conflict(409, "x", "y")
            return ApiSilent("slow") if fault == "silent" else ServerError(500, "x", "etcd")
        return None

    world.at_point = at_point
    add_access(world, "a1")
    world.run_until_idle(limit_s=100.0)
    assert fault in seen
    bucket = world.found(BUCKETS, bucket_of(world))["metadata"]["annotations"]
    assert (
        world.ready(BUCKET_ACCESSES, "a1")[1] == "DriverDeadlineExceeded"
        or "Deadline" in world.ready(BUCKET_ACCESSES, "a1")[1]
    )
    assert "unanswered" in str(bucket)


def test_a_rotation_whose_entry_can_not_be_stored_grants_once(
    world: HostileWorld,
) -> None:
    """An admission webhook for Buckets does not answer for an hour."""
    add_claim(world)
    add_access(world, "a1")
    world.run_until_idle(limit_s=30.0)
    before = world.backend.count(Call.GRANT_ACCESS)

    def at_point(running: Running, _run: Run, point: Point) -> Exception | None:
        is_edit = point.before and point.verb == "update" and point.what.startswith("buckets ")
        return ServerError(500, "x", "webhook") if is_edit else None

    world.at_point = at_point
    rotate(world, "a1")
    world.run_until_idle(limit_s=3600.0)
    assert world.backend.count(Call.GRANT_ACCESS) - before <= 2


@pytest.mark.parametrize("when", ["new"])
@pytest.mark.parametrize("fault", ["500", "silent"])
def test_controller_and_sidecar_do_not_overwrite_each_other_during_an_outage(
    world: HostileWorld, when: str, fault: str
) -> None:
    if when == "deleted":
        add_claim(world)
        world.run_until_idle(limit_s=30.0)

    def at_point(running: Running, _run: Run, point: Point) -> Exception | None:
        is_edit = (
            point.before
            and point.verb in ("update", "delete")
            and point.what.startswith("buckets ")
        )
        if is_edit:
            return ServerError(500, "x", "webhook") if fault == "500" else ApiSilent("slow")
        return None

    world.at_point = at_point
    if when == "new":
        add_claim(world)
        world.run_until_idle(limit_s=20.0)
    else:
        world.user_deletes(BUCKETS, bucket_of(world))
        world.run_until_idle(limit_s=3.0)
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle(limit_s=60.0)
    before = len([s for s in world.sent if s.verb == "update/status"])
    events = len(world.parts.told)
    world.run_until_idle(limit_s=3600.0)
    writes = len([s for s in world.sent if s.verb == "update/status"]) - before
    assert writes <= 10
    assert len(world.parts.told) - events <= 20
    world.parts.late.clear()
    world.at_point = lambda *a: None
    world.run_until_idle(limit_s=600.0)
    assert world.find(BUCKET_CLAIMS, "photos") is None


def test_a_forced_deletion_that_was_refused_is_reported_again(
    world: HostileWorld,
) -> None:
    """Refused; the force annotation is taken off and set again."""
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    bucket = bucket_of(world)
    uid = world.found(BUCKETS, bucket)["metadata"]["uid"]
    world.backend.answers[Call.DELETE_BUCKET] = Answer(Code.PERMISSION_DENIED, acts=False)

    def force(on: bool) -> None:
        def edit(body: Json) -> None:
            notes = body["metadata"].setdefault("annotations", {})
            notes.pop(names.FORCE_DELETE_ANNOTATION, None)
            if on:
                notes[names.FORCE_DELETE_ANNOTATION] = uid

        world.edit(BUCKETS, Key("", bucket), edit)

    world.user_deletes(BUCKETS, bucket)
    world.run_until_idle(limit_s=5.0)
    for on in (True, False, True):
        force(on)
        world.run_until_idle(limit_s=30.0)
    assert world.ready(BUCKETS, bucket)[1] == "DriverPermissionDenied"


def test_an_outage_and_a_missing_class_are_not_reported_in_turn(
    world: HostileWorld,
) -> None:
    """A Bucket webhook is dead; an access is replaced by force, and its class is deleted."""
    add_claim(world)
    add_access(world, "a1")
    world.run_until_idle(limit_s=30.0)

    def at_point(running: Running, _run: Run, point: Point) -> Exception | None:
        is_edit = point.before and point.verb == "update" and point.what.startswith("buckets ")
        return ServerError(500, "x", "webhook") if is_edit else None

    world.at_point = at_point
    remove_by_force(world, BUCKET_ACCESSES, Key(NAMESPACE, "a1"))
    world.user_deletes(BUCKET_ACCESS_CLASSES, "keys")
    add_access(world, "a1")
    before = len([s for s in world.sent if s.verb == "update/status"])
    world.run_until_idle(limit_s=120.0)
    assert len([s for s in world.sent if s.verb == "update/status"]) - before <= 12
