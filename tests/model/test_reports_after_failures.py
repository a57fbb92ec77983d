"""What the status and the Events say after a request or a driver call failed, and later."""

import pytest
from tests.model.backend import Answer
from tests.model.hostile import HostileWorld
from tests.model.memory import Json
from tests.model.pause import Point
from tests.model.processes import Run, Running
from tests.model.scenes import begin, bucket_of, key_works, remove_by_force
from tests.model.world import (
    NAMESPACE,
    add_access,
    add_claim,
)

from cosi_operator.api.core import SECRETS
from cosi_operator.api.resources import (
    BUCKET_ACCESSES,
    BUCKET_CLAIMS,
    BUCKETS,
)
from cosi_operator.api.view import Key, Resource
from cosi_operator.driver.errors import DriverSilent
from cosi_operator.kube.errors import ApiSilent, ServerError
from cosi_operator.outcome import Call, Code, MadeBy


@pytest.fixture
def world() -> HostileWorld:
    return begin()


FOREIGN = "example.com/backup"


def hold(world: HostileWorld, resource: Resource, name: str) -> None:
    key = Key(NAMESPACE if resource.namespaced else "", name)
    world.edit(resource, key, lambda b: b["metadata"].setdefault("finalizers", []).append(FOREIGN))


@pytest.mark.parametrize("fault", ["silent", "500 after commit"])
def test_an_access_without_keys_is_granted_when_the_driver_is_mended(
    world: HostileWorld, fault: str
) -> None:
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    world.backend.answers[Call.GRANT_ACCESS] = Answer(no_credentials=True)
    seen: list[str] = []

    def at_point(running: Running, _run: Run, point: Point) -> Exception | None:
        if point.verb == Call.GRANT_ACCESS and not point.before:
            seen.append("granted")
        elif seen == ["granted"] and point.verb == "update" and not point.before:
            seen.append("lost")
            return ApiSilent("slow") if fault == "silent" else ServerError(500, "x", "timed out")
        return None

    world.at_point = at_point
    add_access(world, "a1")
    world.run_until_idle(limit_s=60.0)
    assert seen[:2] == ["granted", "lost"]
    world.backend.answers.clear()
    calls = len(world.backend.calls)
    world.user_retries(BUCKET_ACCESSES, "a1", "1")
    world.run_until_idle(limit_s=3600.0)
    assert len(world.backend.calls) > calls, "the driver is never called again"
    assert world.ready(BUCKET_ACCESSES, "a1")[0] == "True"
    assert key_works(world, "a1")


@pytest.mark.parametrize("call", [Call.CREATE_BUCKET, Call.DELETE_BUCKET])
@pytest.mark.parametrize("code", [Code.PERMISSION_DENIED, Code.INTERNAL])
def test_events_are_not_repeated_while_the_claim_can_not_be_written(
    world: HostileWorld, call: Call, code: Code
) -> None:
    """A policy refuses writes of the claim's status; the driver was called once."""
    if call is Call.DELETE_BUCKET:
        add_claim(world)
        world.run_until_idle(limit_s=30.0)
    world.backend.answers[call] = Answer(code, acts=False)

    def at_point(running: Running, _run: Run, point: Point) -> Exception | None:
        is_mirror = point.verb == "update/status" and point.what.startswith("bucketclaims ")
        if running.name == "sidecar" and is_mirror and point.before:
            return ServerError(500, "x", "webhook")
        return None

    world.at_point = at_point
    if call is Call.DELETE_BUCKET:
        world.user_deletes(BUCKET_CLAIMS, "photos")
    else:
        add_claim(world)
    world.run_until_idle(limit_s=3600.0)
    calls = world.backend.count(call)
    events = [e for e in world.parts.told if e.about.kind == "Bucket" and "Failed" in e.reason]
    say = [e for e in events if call.value in e.message]
    assert len(say) <= calls + 5, (calls, len(say), len(events))


@pytest.mark.parametrize("code", [Code.INTERNAL, Code.PERMISSION_DENIED])
def test_a_refused_deletion_is_reported_again_after_the_api_server_recovered(
    world: HostileWorld, code: Code
) -> None:
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    bucket = bucket_of(world)
    world.backend.answers[Call.DELETE_BUCKET] = Answer(code, acts=False)
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle(limit_s=100.0)
    assert "Driver" in world.ready(BUCKETS, bucket)[1]

    def report_the_api_server(body: Json) -> None:
        for condition in body["status"]["conditions"]:
            condition.update(reason="APIServerUnavailable", message="no answer")

    calls = len(world.backend.calls)
    world.edit(BUCKETS, Key("", bucket), report_the_api_server)
    world.run_until_idle(limit_s=5.0)
    assert len(world.backend.calls) == calls
    assert "Driver" in world.ready(BUCKETS, bucket)[1]
    assert "Driver" in world.ready(BUCKET_CLAIMS, "photos")[1]


def test_a_refused_access_is_asked_for_again_when_its_claim_was_created_again(
    world: HostileWorld,
) -> None:
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    world.backend.answers[Call.GRANT_ACCESS] = Answer(Code.INVALID_ARGUMENT, acts=False)
    add_access(world, "a1")
    world.run_until_idle(limit_s=30.0)
    assert world.ready(BUCKET_ACCESSES, "a1")[1] == "DriverInvalidArgument"
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle(limit_s=30.0)
    assert world.ready(BUCKET_ACCESSES, "a1")[1] == "BucketClaimNotFound"
    add_claim(world)
    world.run_until_idle(limit_s=600.0)
    assert world.backend.count(Call.GRANT_ACCESS) == 2
    assert world.ready(BUCKET_ACCESSES, "a1")[1] == "DriverInvalidArgument"


@pytest.mark.parametrize("what", ["access", "bucket"])
def test_a_late_report_does_not_say_ready_after_the_deletion(
    world: HostileWorld, what: str
) -> None:
    resource = BUCKET_ACCESSES if what == "access" else BUCKETS
    name = "a1"
    add_claim(world)
    if what == "access":
        world.run_until_idle(limit_s=30.0)
    done: list[str] = []

    def at_point(running: Running, _run: Run, point: Point) -> Exception | None:
        nonlocal name
        is_status = point.verb == "update/status" and point.what.startswith(resource.plural + " ")
        worked = world.backend.accounts if what == "access" else world.backend.buckets
        if running.name == "sidecar" and is_status and point.before and worked and not done:
            done.append("500")
            if what == "bucket":
                name = bucket_of(world)
            hold(world, resource, name)
            world.user_deletes(resource, name)
            if what == "bucket":
                world.user_deletes(BUCKET_CLAIMS, "photos")
            return ServerError(500, "x", "etcd")
        return None

    world.at_point = at_point
    if what == "access":
        add_access(world, "a1")
    reasons: list[tuple[str, str]] = []

    def note(res: Resource, _kind: str, body: Json) -> None:
        if res is resource and body["metadata"].get("deletionTimestamp"):
            found = [
                c
                for c in (body.get("status") or {}).get("conditions") or ()
                if c["type"] == "Ready"
            ]
            reasons.extend((c["status"], c["reason"]) for c in found)

    world.api.listeners.append(note)
    world.run_until_idle(limit_s=600.0)
    assert done
    assert ("True", "Granted") not in reasons
    assert ("True", "Provisioned") not in reasons


def test_an_access_whose_secret_was_deleted_before_its_report_gets_another(
    world: HostileWorld,
) -> None:
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    done: list[str] = []

    def at_point(running: Running, _run: Run, point: Point) -> Exception | None:
        is_status = point.verb == "update/status" and point.what.startswith("bucketaccesses ")
        if (
            running.name == "sidecar"
            and is_status
            and point.before
            and world.backend.accounts
            and not done
        ):
            done.append("500")
            remove_by_force(world, SECRETS, Key(NAMESPACE, "a1-secret"))
            return ServerError(500, "x", "etcd")
        return None

    world.at_point = at_point
    add_access(world, "a1")
    world.run_until_idle(limit_s=7200.0)
    assert done
    assert world.ready(BUCKET_ACCESSES, "a1")[0] == "True"
    assert key_works(world, "a1")


@pytest.mark.parametrize("fault", ["409", "500"])
def test_waiting_for_driver_is_not_said_when_it_answers(world: HostileWorld, fault: str) -> None:
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    done: list[str] = []

    def at_point(running: Running, _run: Run, point: Point) -> Exception | None:
        if point.verb == Call.GRANT_ACCESS and point.before and not done:
            done.append("silent")
            return DriverSilent(Call.GRANT_ACCESS, MadeBy.DEADLINE, "slow")
        is_status = point.verb == "update/status" and point.what.startswith("bucketaccesses ")
        if done == ["silent"] and is_status and point.before and not world.up:
            done.append(fault)
            world.driver_comes(new=False)
            if fault == "409":
                hold(world, BUCKET_ACCESSES, "a1")
                return None
            return ServerError(500, "x", "etcd")
        return None

    world.at_point = at_point
    add_access(world, "a1")
    world.run_until_idle(limit_s=1.0)
    world.driver_goes()
    world.edit(
        BUCKET_ACCESSES,
        Key(NAMESPACE, "a1"),
        lambda b: (
            b["metadata"].setdefault("annotations", {}).update({"objectstorage.k8s.io/retry": "7"})
        ),
    )
    world.run_until_idle(limit_s=30.0)
    assert len(done) == 2
    assert world.ready(BUCKET_ACCESSES, "a1")[1] != "WaitingForDriver"
