"""The controller in a whole world: claims, what they wait for, and who may write what."""

import json

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

from cosi_operator.api.decode import decode_bucket_claim
from cosi_operator.api.resources import BUCKET_ACCESSES, BUCKET_CLAIMS, BUCKET_CLASSES, BUCKETS
from cosi_operator.api.view import Key
from cosi_operator.kube.errors import ApiSilent, Invalid
from cosi_operator.outcome import Call, Code

NAME = "bucket-bucketclaim-photos-1"


@pytest.fixture
def world() -> World:
    made = World()
    add_class(made)
    add_access_class(made)
    return made


def run(world: World) -> None:
    world.run_until_idle()
    assert world.check_settled() == []


def status(world: World) -> Json:
    found: Json = world.found(BUCKET_CLAIMS, "photos")["status"]
    return found


def test_a_claim_waits_for_its_class_and_goes_on_when_it_appears(world: World) -> None:
    add_claim(world, bucketClassName="later")
    run(world)
    assert world.ready(BUCKET_CLAIMS, "photos") == ("False", "BucketClassNotFound")
    assert world.api.list(BUCKETS) == []
    add_class(world, "later")
    run(world)
    assert world.ready(BUCKET_CLAIMS, "photos") == ("True", "Provisioned")


def test_a_claim_waits_for_the_bucket_that_it_names(world: World) -> None:
    add_claim(world, existingBucketName="old")
    run(world)
    assert world.ready(BUCKET_CLAIMS, "photos") == ("False", "BucketNotFound")
    add_static_bucket(world)
    run(world)
    assert world.ready(BUCKET_CLAIMS, "photos") == ("True", "Provisioned")
    assert world.backend.calls == []


def test_a_claim_that_cannot_be_understood_says_what_to_do_and_wakes_when_repaired(
    world: World,
) -> None:
    add_claim(world, bucketClassName="")
    run(world)
    assert world.ready(BUCKET_CLAIMS, "photos") == ("False", "InvalidSpec")
    world.user_edits(
        BUCKET_CLAIMS,
        "photos",
        lambda body: body.update(spec={"protocols": ["S3"], "bucketClassName": "gold"}),
    )
    run(world)
    assert world.ready(BUCKET_CLAIMS, "photos") == ("True", "Provisioned")


def test_existing_bucket_takes_precedence_over_a_class(world: World) -> None:
    add_claim(world, bucketClassName="gold", existingBucketName="old")
    run(world)
    assert world.ready(BUCKET_CLAIMS, "photos") == ("False", "BucketNotFound")
    add_static_bucket(world)
    run(world)
    assert world.ready(BUCKET_CLAIMS, "photos") == ("True", "Provisioned")
    assert status(world)["bucketName"] == "old"
    assert world.backend.calls == []
    world.user_edits(BUCKET_CLASSES, "gold", lambda body: body.update(parameters={"tier": "2"}))
    run(world)
    assert [c["type"] for c in status(world)["conditions"]] == ["Ready"]  # the class never counted
    told = [event for event in world.parts.told if event.reason == "BucketClassIgnored"]
    assert [(event.about.kind, event.type, event.message) for event in told] == [
        (
            "BucketClaim",
            "Normal",
            "spec.existingBucketName takes precedence over spec.bucketClassName, so the claim uses"
            " the existing Bucket old and not BucketClass gold.",
        )
    ]


def test_a_bucket_that_is_bound_to_another_claim_is_refused_and_taken_when_freed(
    world: World,
) -> None:
    add_static_bucket(world)
    add_claim(world, "first", existingBucketName="old")
    run(world)
    add_claim(world, existingBucketName="old")
    run(world)
    assert world.ready(BUCKET_CLAIMS, "photos") == ("False", "BucketAlreadyBound")
    assert world.ready(BUCKET_CLAIMS, "first") == ("True", "Provisioned")
    world.user_deletes(BUCKET_CLAIMS, "first")
    run(world)
    assert world.ready(BUCKET_CLAIMS, "photos") == ("False", "BucketAlreadyBound")
    world.user_edits(BUCKETS, "old", lambda body: body["spec"].update(bucketClaim={}))
    run(world)
    assert world.ready(BUCKET_CLAIMS, "photos") == ("True", "Provisioned")


def test_a_sidecar_that_is_faster_than_the_controllers_status_write_is_not_undone(
    world: World,
) -> None:
    seen: list[bool] = []

    def listen(resource: object, kind: str, body: Json) -> None:
        if resource is BUCKET_CLAIMS:
            seen.append((body.get("status") or {}).get("bucketReady", False))

    def at_point(running: Running, run: Run, point: Point) -> None:
        if point.verb == "update/status" and point.before:
            met.append(point)
            world.at_point = lambda running, run, point: None
            world.run_until_idle(only="sidecar")

    met: list[Point] = []
    world.run_until_idle()
    world.api.listeners.append(listen)
    world.at_point = at_point
    add_claim(world)
    world.run_until_idle(only="controller")  # it has waited for the sidecar long enough
    assert met
    run(world)
    assert status(world)["bucketReady"] is True
    assert sorted(seen) == seen  # once ready, it stays so


def test_a_claim_is_told_to_wait_later_while_its_sidecar_is_at_work_on_others(
    world: World,
) -> None:
    add_claim(world)
    world.run_until_idle(1.0)
    assert world.ready(BUCKET_CLAIMS, "photos") == ("True", "Provisioned")
    add_claim(world, "films")
    world.run_until_idle(10.0, only="controller")
    assert "status" not in world.found(BUCKET_CLAIMS, "films")
    world.run_until_idle(15.0, only="controller")  # it has been silent for long by now
    assert world.ready(BUCKET_CLAIMS, "films") == ("False", "WaitingForBucket")


def test_a_claim_whose_sidecar_was_never_heard_of_is_told_to_wait_after_5_s(world: World) -> None:
    add_claim(world)
    world.run_until_idle(4.0, only="controller")
    assert "status" not in world.found(BUCKET_CLAIMS, "photos")
    world.run_until_idle(2.0, only="controller")
    assert world.ready(BUCKET_CLAIMS, "photos") == ("False", "WaitingForBucket")


def test_a_bucket_that_is_gone_makes_its_claim_say_that_the_data_may_be_lost(world: World) -> None:
    add_claim(world)
    run(world)
    world.user_edits(BUCKETS, NAME, lambda body: body["metadata"].pop("finalizers"))
    world.user_deletes(BUCKETS, NAME)
    run(world)
    assert world.ready(BUCKET_CLAIMS, "photos") == ("False", "BucketLost")
    assert world.api.list(BUCKETS) == []
    world.user_deletes(BUCKET_CLAIMS, "photos")
    run(world)
    assert world.api.list(BUCKET_CLAIMS) == []


def test_a_claim_deleted_before_the_watch_brought_its_bucket_leaves_no_bucket(
    world: World,
) -> None:
    world.run_until_idle()

    controller = world.processes["controller"]
    buckets = next(kind for kind in controller.kinds if kind.resource is BUCKETS)

    def at_point(running: Running, run: Run, point: Point) -> Exception | None:
        buckets.inbox.clear()  # this watch brings nothing
        if point.verb == "create" and not point.before:
            world.at_point = lambda running, run, point: buckets.inbox.clear()
            world.user_deletes(BUCKET_CLAIMS, "photos")
            controller.deliver()
            return ApiSilent("lost")
        return None

    world.at_point = at_point
    add_claim(world)
    world.run_until_idle(only="controller")
    assert world.find(BUCKETS, NAME) is None
    run(world)
    assert world.api.list(BUCKET_CLAIMS) == []
    assert world.backend.calls == []


def test_a_bucket_that_a_sidecar_touches_meanwhile_is_not_deleted_unseen(world: World) -> None:
    """The API server decides on a DELETE from one read. A finalizer that is stored after it does
    not stop the deletion, and the sidecar's create would leave a bucket that nobody knows (seen
    on a real one under load). With the resourceVersion in the DELETE, that is a conflict."""
    deletes = []

    def at_point(running: Running, run: Run, point: Point) -> Exception | None:
        if point.verb == "delete" and point.what.startswith("buckets") and point.before:
            deletes.append(point)
            if len(deletes) == 1:
                world.user_edits(BUCKETS, NAME, lambda body: body["metadata"].update(labels={}))
        return None

    add_claim(world)
    world.run_until_idle(only="controller")
    world.at_point = at_point
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle(only="controller")
    assert len(deletes) == 2
    assert world.find(BUCKETS, NAME) is None
    assert world.api.list(BUCKET_CLAIMS) == []


def test_a_claim_that_the_server_dropped_with_our_finalizer_on_it_leaves_no_bucket(
    world: World,
) -> None:
    """kubernetes/kubernetes#77988: a DELETE that was decided before the finalizer was stored."""

    def at_point(running: Running, run: Run, point: Point) -> Exception | None:
        if point.verb == "create" and point.what.startswith("buckets") and not point.before:
            dropped = world.found(BUCKET_CLAIMS, "photos")
            key = Key(dropped["metadata"]["namespace"], "photos")
            world.api._remove(BUCKET_CLAIMS, key, dropped)
            world.at_point = lambda running, run, point: None
        return None

    world.at_point = at_point
    add_claim(world)
    run(world)
    assert world.api.list(BUCKETS) == []
    assert world.backend.buckets == {}


def test_a_claim_that_is_only_missing_from_an_old_list_keeps_its_bucket(world: World) -> None:
    add_claim(world)
    run(world)
    claims = next(k for k in world.processes["controller"].kinds if k.resource is BUCKET_CLAIMS)
    for key, old, new in claims.store.replace([], "1"):
        claims.changed(key, old, new)
    assert len(claims.store) == 0
    world.run_until_idle()
    assert "deletionTimestamp" not in world.found(BUCKETS, NAME)["metadata"]


def test_a_claim_whose_create_failed_can_be_deleted_without_another_call(world: World) -> None:
    world.backend.answers[Call.CREATE_BUCKET] = Answer(Code.INVALID_ARGUMENT, acts=False)
    add_claim(world)
    run(world)
    world.user_deletes(BUCKET_CLAIMS, "photos")
    run(world)
    assert world.api.list(BUCKET_CLAIMS) == []
    assert [called.call for called in world.backend.calls] == [Call.CREATE_BUCKET]


def test_a_bucket_that_the_server_refuses_is_told_on_the_claim(world: World) -> None:
    def at_point(running: Running, run: Run, point: Point) -> Exception | None:
        if point.verb == "create" and point.what.startswith("buckets") and point.before:
            return Invalid(422, "Invalid", "spec.protocols: too many")
        return None

    world.at_point = at_point
    add_claim(world)
    run(world)
    assert world.ready(BUCKET_CLAIMS, "photos") == ("False", "APIServerRefused")


@pytest.mark.parametrize("upstream", [False, True], ids=["our CRDs", "upstream's CRDs"])
def test_a_class_that_is_edited_later_is_said_to_be_ignored_until_it_is_put_back(
    upstream: bool,
) -> None:
    world = World(upstream=upstream)
    add_class(world)
    add_claim(world)
    world.run_until_idle()

    def ignored() -> list[str]:
        view = decode_bucket_claim(json.dumps(world.found(BUCKET_CLAIMS, "photos")).encode())
        return [c.message for c in view.conditions if c.type == "SpecChangeIgnored"]

    def set_tier(tier: str) -> None:
        world.user_edits(
            BUCKET_CLASSES, "gold", lambda body: body.update(parameters={"tier": tier})
        )
        world.run_until_idle()
        assert world.check_settled() == []

    set_tier("2")
    assert "BucketClass gold differs from the bucket in parameters." in ignored()[0]
    writes = world.writes()
    world.user_edits(BUCKETS, NAME, lambda body: body["metadata"].update(labels={"a": "b"}))
    world.run_until_idle()
    assert world.writes() == writes
    world.restart("sidecar")
    world.restart("controller")
    world.run_until_idle()
    assert len(ignored()) == 1
    set_tier("1")
    assert ignored() == []
    assert status(world)["bucketReady"]


def test_a_class_that_is_repaired_reaches_the_bucket_that_has_no_backend_yet(world: World) -> None:
    world.backend.answers[Call.CREATE_BUCKET] = Answer(Code.INVALID_ARGUMENT, acts=False)
    add_claim(world)
    run(world)
    world.backend.answers.clear()
    world.user_edits(BUCKET_CLASSES, "gold", lambda body: body.update(parameters={"tier": "9"}))
    run(world)
    assert world.found(BUCKETS, NAME)["spec"]["parameters"] == {"tier": "9"}
    assert world.ready(BUCKET_CLAIMS, "photos") == ("True", "Provisioned")


def test_a_change_of_the_class_does_not_touch_a_bucket_that_is_ready(world: World) -> None:
    add_claim(world)
    run(world)
    version = world.found(BUCKETS, NAME)["metadata"]["resourceVersion"]
    world.user_edits(BUCKET_CLASSES, "gold", lambda body: body.update(parameters={"tier": "9"}))
    run(world)
    assert world.found(BUCKETS, NAME)["metadata"]["resourceVersion"] == version


def test_a_retained_static_bucket_stays_with_its_data_and_a_failing_revoke_stops_no_writes(
    world: World,
) -> None:
    add_static_bucket(world)
    add_claim(world, existingBucketName="old")
    add_access(world)
    run(world)
    world.backend.answers[Call.REVOKE_ACCESS] = Answer(Code.PERMISSION_DENIED, acts=False)
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle(limit_s=300.0)
    assert world.ready(BUCKET_CLAIMS, "photos") == ("False", "WaitingForBucketAccesses")
    writes = world.writes()
    world.run_until_idle(limit_s=120.0)
    assert world.writes() == writes
    world.backend.answers.clear()
    world.run_until_idle(limit_s=1200.0)
    assert world.api.list(BUCKET_CLAIMS) == []
    assert world.api.list(BUCKET_ACCESSES) == []
    assert world.backend.buckets == {"old": "id-of-old"}


def test_a_restart_with_a_thousand_refused_and_waiting_claims_is_silent(world: World) -> None:
    world.backend.answers[Call.CREATE_BUCKET] = Answer(Code.INVALID_ARGUMENT, acts=False)
    for number in range(250):
        add_claim(world, f"refused{number}", bucketClassName="gold")
        add_claim(world, f"classless{number}", bucketClassName="later")
        add_claim(world, f"unclear{number}", bucketClassName="")
        add_access(world, f"access{number}", claim=f"refused{number}")
    run(world)
    before, events = len(world.sent), len(world.parts.told)
    assert world.backend.count(Call.CREATE_BUCKET) == 250
    for process in ("controller", "sidecar"):
        world.restart(process)
    run(world)
    assert world.backend.count(Call.CREATE_BUCKET) == 250
    # A claim whose class the cache lacks reads it once; nothing else is sent.
    sent = world.sent[before:]
    assert {(request.verb, request.plural, request.name) for request in sent} == {
        ("get", "bucketclasses", "later")
    }
    assert len(sent) == 250
    assert len(world.parts.told) == events
