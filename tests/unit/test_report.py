"""From outcomes to conditions and Events: what is written, what is not, and when."""

import json

import pytest
import structlog
from msgspec.structs import replace
from tests.model.backend import Answer
from tests.model.memory import Json
from tests.model.world import (
    World,
    add_access,
    add_access_class,
    add_claim,
    add_class,
    record_of,
)

from cosi_operator.api.core import SECRETS
from cosi_operator.api.record import RECORD_ANNOTATION
from cosi_operator.api.resources import BUCKET_ACCESSES, BUCKET_CLAIMS, BUCKETS, STATUS_ANNOTATION
from cosi_operator.api.view import Resource
from cosi_operator.outcome import Call, Code

NAME = "bucket-bucketclaim-photos-1"
KINDS = (BUCKETS, BUCKET_CLAIMS, BUCKET_ACCESSES)


def made(*, upstream: bool = False, recheck_s: float | None = None) -> World:
    world = World(upstream=upstream, recheck_s=recheck_s)
    add_class(world)
    add_access_class(world)
    return world


def run(world: World) -> None:
    world.run_until_idle(limit_s=3600.0)
    assert world.check_settled() == []


def ready_of(body: Json) -> Json:
    if own := body["metadata"].get("annotations", {}).get(STATUS_ANNOTATION):
        conditions = json.loads(own)["conditions"]
    else:
        conditions = body["status"]["conditions"]
    found: Json = next(c for c in conditions if c["type"] == "Ready")
    return found


def test_a_message_that_differs_in_its_request_id_makes_no_second_event_and_no_write() -> None:
    world = made(recheck_s=60.0)
    world.backend.answers[Call.CREATE_BUCKET] = Answer(Code.UNKNOWN, acts=False)
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    writes, series = world.writes(), {told.series for told in world.parts.told}
    world.run_until_idle(limit_s=600.0)
    assert world.backend.count(Call.CREATE_BUCKET) > 5
    assert world.writes() == writes
    assert {told.series for told in world.parts.told} == series
    assert "request id: <id>" in ready_of(world.found(BUCKETS, NAME))["message"]


def test_a_retry_that_fails_as_before_leaves_an_event_on_the_claim() -> None:
    """Its owner may not read the Bucket, and nothing else on the claim changes."""
    world = made()
    world.backend.answers[Call.CREATE_BUCKET] = Answer(Code.INVALID_ARGUMENT, acts=False)
    add_claim(world)
    run(world)
    world.user_retries(BUCKET_CLAIMS, "photos", "again")
    run(world)
    first, second = [e for e in world.parts.told if e.about.kind == "BucketClaim"]
    assert "Retried because of objectstorage.k8s.io/retry=again." in second.message
    assert first.type == second.type == "Warning"
    assert world.found(BUCKET_CLAIMS, "photos")["status"]["observedRetry"] == "again"
    world.user_retries(BUCKET_CLAIMS, "photos", "later")
    world.driver_goes()
    run(world)
    assert world.found(BUCKET_CLAIMS, "photos")["status"]["observedRetry"] == "again"


def test_the_event_of_a_claim_whose_bucket_is_retried_shows_the_latest_attempt() -> None:
    """One Event whose count grows: that of attempt 1 is not left as the last word."""
    world = made()
    world.backend.answers[Call.CREATE_BUCKET] = Answer(Code.INTERNAL, acts=False)
    add_claim(world)
    world.run_until_idle(limit_s=100.0)
    told = [e for e in world.parts.told if e.about.kind == "BucketClaim"]
    attempts = [int(e.message.partition("Attempt ")[2].partition(" ")[0]) for e in told]
    assert attempts[:3] == [1, 2, 4]
    assert len({e.series for e in told}) == 1
    assert told[-1].message.endswith(ready_of(world.found(BUCKET_CLAIMS, "photos"))["message"])


def test_another_code_is_another_event_and_another_reason() -> None:
    world = made()
    world.backend.answers[Call.CREATE_BUCKET] = Answer(Code.INVALID_ARGUMENT, acts=False)
    add_claim(world)
    run(world)
    world.backend.answers[Call.CREATE_BUCKET] = Answer(Code.PERMISSION_DENIED, acts=False)
    world.user_retries(BUCKET_CLAIMS, "photos", "1")
    run(world)
    told = [e.message for e in world.parts.told if e.about.kind == "BucketClaim"]
    assert [message.partition(":")[0] for message in told] == [
        "DriverInvalidArgument",
        "DriverPermissionDenied",
    ]
    assert world.ready(BUCKET_CLAIMS, "photos") == ("False", "DriverPermissionDenied")


@pytest.mark.parametrize("upstream", [False, True], ids=["our CRDs", "upstream's CRDs"])
def test_the_transition_time_moves_with_the_status_only(upstream: bool) -> None:
    world = made(upstream=upstream)
    world.backend.answers[Call.CREATE_BUCKET] = Answer(Code.INTERNAL, acts=False)
    add_claim(world)
    world.run_until_idle(limit_s=0.5)
    first = ready_of(world.found(BUCKETS, NAME))
    world.run_until_idle(limit_s=100.0)
    later = ready_of(world.found(BUCKETS, NAME))
    assert later["message"] != first["message"]
    assert later["lastTransitionTime"] == first["lastTransitionTime"]
    world.backend.answers.clear()
    run(world)
    last = ready_of(world.found(BUCKETS, NAME))
    assert last["status"] == "True"
    assert last["lastTransitionTime"] > first["lastTransitionTime"]


def test_every_success_is_one_normal_event_and_a_restart_emits_none() -> None:
    world = made()
    add_claim(world)
    add_access(world)
    run(world)
    world.user_retries(BUCKET_ACCESSES, "reader", "1")
    run(world)
    for process in ("controller", "sidecar"):
        world.restart(process)
    run(world)
    assert [(e.about.kind, e.type, e.reason) for e in world.parts.told] == [
        ("Bucket", "Normal", "BucketCreated"),
        ("BucketClaim", "Normal", "BucketReady"),
        ("BucketAccess", "Normal", "AccessGranted"),
    ]


def test_upstreams_crds_are_detected_logged_once_and_the_annotation_has_the_same_content() -> None:
    with structlog.testing.capture_logs() as logs:
        world, ours = made(upstream=True), made()
        for each in (world, ours):
            each.backend.answers[Call.GRANT_ACCESS] = Answer(Code.INVALID_ARGUMENT, acts=False)
            add_claim(each)
            add_access(each)
            add_claim(each, "second", bucketClassName="gold")
            run(each)
    said = [log["resource"] for log in logs if log["event"] == "served_schema_drops_conditions"]
    assert sorted(said) == ["bucketaccesses", "bucketclaims", "buckets"]
    kept = [log["resource"] for log in logs if log["event"] == "served_schema_keeps_conditions"]
    assert sorted(kept) == ["bucketaccesses", "bucketclaims", "buckets"], "of the other world"
    for resource, name in ((BUCKETS, NAME), (BUCKET_CLAIMS, "photos"), (BUCKET_ACCESSES, "reader")):
        body = world.found(resource, name)
        assert "conditions" not in body["status"]
        theirs, own = dict(ready_of(body)), dict(ready_of(ours.found(resource, name)))
        for condition in (theirs, own):
            del condition["lastTransitionTime"]
        assert theirs == own
    assert [e.series for e in world.parts.told] == [e.series for e in ours.parts.told]


def test_a_final_verdict_is_stored_with_upstreams_crds_too() -> None:
    world = made(upstream=True)
    world.backend.answers[Call.CREATE_BUCKET] = Answer(Code.INVALID_ARGUMENT, acts=False)
    add_claim(world)
    run(world)
    version = world.api.version
    for process in ("controller", "sidecar"):
        world.restart(process)
    run(world)
    assert world.backend.count(Call.CREATE_BUCKET) == 1
    assert world.api.version == version
    world.backend.answers.clear()
    world.user_retries(BUCKET_CLAIMS, "photos", "1")
    run(world)
    assert ready_of(world.found(BUCKET_CLAIMS, "photos"))["status"] == "True"


def test_a_key_appears_only_in_its_secret() -> None:
    world = made()
    add_claim(world)
    add_access(world)
    with structlog.testing.capture_logs() as logs:
        run(world)
        world.user_deletes(BUCKET_ACCESSES, "reader")
        run(world)
    assert world.api.list(SECRETS) == []
    everything = json.dumps([world.api.list(kind) for kind in KINDS]) + repr(world.parts.told)
    assert "s3cret-" not in everything + repr(logs)
    assert "KEY1" not in everything + repr(logs)


def test_a_waiting_object_is_reported_once_however_often_it_is_reconciled() -> None:
    world = made()
    add_claim(world, bucketClassName="later")
    run(world)
    writes, told = world.writes(), len(world.parts.told)
    for label in "abc":
        body = json.loads(json.dumps(world.found(BUCKET_CLAIMS, "photos")))
        body["metadata"]["labels"] = {"touched": label}
        world.api.update(BUCKET_CLAIMS, body)
        run(world)
    assert world.writes() == writes
    assert len(world.parts.told) == told


def told_of(body: Json, kind: str) -> str:
    """The message of the condition of this type; "" when there is none."""
    found = [c["message"] for c in body["status"]["conditions"] if c["type"] == kind]
    assert len(found) <= 1
    return found[0] if found else ""


@pytest.mark.parametrize(
    ("resource", "name", "field", "value", "message"),
    [
        pytest.param(
            BUCKETS,
            NAME,
            "driverName",
            "other.example.com",
            "spec.driverName was changed to other.example.com and is ignored, because the bucket"
            " belongs to driver s3.example.com. Change spec.driverName back.",
            id="Bucket: another driver -> ignored",
        ),
        pytest.param(
            BUCKET_ACCESSES,
            "reader",
            "credentialsSecretName",
            "other",
            "spec.credentialsSecretName was changed to other and is ignored, because Secret"
            " reader-secret holds the keys. Create a new BucketAccess instead.",
            id="BucketAccess: another Secret -> ignored",
        ),
        pytest.param(
            BUCKET_ACCESSES,
            "reader",
            "bucketClaimName",
            "other",
            "spec.bucketClaimName names other and is ignored, because the keys are for"
            " the bucket that BucketClaim photos has. Create a new BucketAccess instead.",
            id="BucketAccess: another claim -> ignored",
        ),
    ],
)
def test_a_change_of_the_spec_that_the_record_overrides_is_reported_until_it_is_undone(
    resource: Resource, name: str, field: str, value: str, message: str
) -> None:
    world = made()
    add_claim(world)
    add_access(world)
    run(world)
    assert told_of(world.found(resource, name), "SpecChangeIgnored") == ""
    calls = len(world.backend.calls)
    before = world.found(resource, name)["spec"][field]
    world.user_edits(resource, name, lambda body: body["spec"].update({field: value}))
    run(world)
    assert told_of(world.found(resource, name), "SpecChangeIgnored") == message
    assert ready_of(world.found(resource, name))["status"] == "True"
    world.user_edits(resource, name, lambda body: body["spec"].update({field: before}))
    run(world)
    assert told_of(world.found(resource, name), "SpecChangeIgnored") == ""
    assert len(world.backend.calls) == calls


def test_a_replace_removes_the_record_and_it_is_written_again_with_a_warning() -> None:
    world = made()
    add_claim(world)
    add_access(world)
    run(world)
    before = record_of(world.found(BUCKETS, NAME))
    assert before is not None
    world.user_edits(BUCKETS, NAME, lambda body: body["metadata"].pop("annotations"))
    run(world)
    written = replace(before, revision=before.revision + 1)
    assert record_of(world.found(BUCKETS, NAME)) == written
    told = [e for e in world.parts.told if e.reason == "RecordLost"]
    assert [(e.about.kind, e.type) for e in told] == [("Bucket", "Warning")]
    assert told[0].message.startswith(f"Annotation {RECORD_ANNOTATION} was removed")
    world.user_deletes(BUCKET_CLAIMS, "photos")
    run(world)
    assert (world.backend.buckets, world.backend.accounts) == ({}, {})


def test_the_removal_of_the_record_while_the_sidecar_is_down_is_reported() -> None:
    """A record that this process never saw is started anew, and the access is taken over."""
    world = made()
    add_claim(world)
    add_access(world)
    run(world)
    world.clock.advance(60.0)
    world.processes["sidecar"].end()
    world.user_edits(BUCKETS, NAME, lambda body: body["metadata"].pop("annotations"))
    world.start("sidecar")
    run(world)
    told = [e for e in world.parts.told if e.reason == "RecordLost"]
    assert [(e.about.kind, e.type) for e in told] == [("Bucket", "Warning")]
    assert told[0].message.startswith(f"Annotation {RECORD_ANNOTATION} was lost, and the sidecar")
    world.user_deletes(BUCKET_CLAIMS, "photos")
    run(world)
    assert (world.backend.buckets, world.backend.accounts) == ({}, {})


def test_conditions_are_written_after_our_crds_have_replaced_upstreams() -> None:
    world = World(upstream=True)
    add_class(world)
    add_claim(world)
    run(world)
    assert "conditions" not in world.found(BUCKET_CLAIMS, "photos")["status"]
    world.api.upstream = False  # an administrator has installed our CRDs
    world.clock.advance(60)
    add_claim(world, "later")
    run(world)
    for resource, name in ((BUCKET_CLAIMS, "later"), (BUCKETS, "bucket-bucketclaim-later-1")):
        assert world.found(resource, name)["status"]["conditions"]
