"""The Bucket's half of the sidecar in a whole world: what holds when things change meanwhile."""

import json
from collections.abc import Callable

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

from cosi_operator.api.record import ID_LIMIT_BYTES
from cosi_operator.api.resources import BUCKET_ACCESSES, BUCKET_CLAIMS, BUCKET_CLASSES, BUCKETS
from cosi_operator.api.view import Resource
from cosi_operator.outcome import Call, Code
from cosi_operator.plan import names

NAME = "bucket-bucketclaim-photos-1"
NO = Answer(Code.INVALID_ARGUMENT, acts=False)


@pytest.fixture
def world() -> World:
    made = World()
    add_class(made)
    add_access_class(made)
    return made


def during(world: World, verb: str, act: Callable[[], None]) -> None:
    """Do something once, while the first call or request of this name is under way."""

    def at_point(running: Running, run: Run, point: Point) -> None:
        if point.verb == verb and not point.before:
            world.at_point = lambda running, run, point: None
            act()
            for process in world.processes.values():
                process.deliver()

    world.at_point = at_point


def run(world: World) -> None:
    world.run_until_idle()
    assert world.check_settled() == []


def test_a_verdict_on_parameters_that_were_repaired_meanwhile_does_not_stand(world: World) -> None:
    world.backend.answers[Call.CREATE_BUCKET] = NO

    def repair() -> None:
        world.backend.answers.clear()
        world.user_edits(BUCKETS, NAME, lambda body: body["spec"].update(parameters={"tier": "2"}))
        world.user_edits(BUCKET_CLASSES, "gold", lambda body: body.update(parameters={"tier": "2"}))

    during(world, Call.CREATE_BUCKET, repair)
    add_claim(world)
    run(world)
    assert world.ready(BUCKETS, NAME) == ("True", "Provisioned")
    assert world.backend.count(Call.CREATE_BUCKET) == 2


def test_a_verdict_of_a_driver_that_was_replaced_meanwhile_does_not_stand(world: World) -> None:
    world.backend.answers[Call.CREATE_BUCKET] = NO

    def replace() -> None:
        world.backend.answers.clear()
        world.driver_comes()

    during(world, Call.CREATE_BUCKET, replace)
    add_claim(world)
    run(world)
    assert world.ready(BUCKETS, NAME) == ("True", "Provisioned")


def test_a_final_verdict_costs_one_call_over_restarts_of_both_processes(world: World) -> None:
    world.backend.answers[Call.CREATE_BUCKET] = NO
    add_claim(world)
    run(world)
    for _ in range(3):
        world.restart("controller")
        world.restart("sidecar")
        run(world)
    assert world.backend.count(Call.CREATE_BUCKET) == 1
    assert world.ready(BUCKET_CLAIMS, "photos") == ("False", "DriverInvalidArgument")


@pytest.mark.parametrize(
    "wake",
    [
        pytest.param(lambda w: w.user_retries(BUCKETS, NAME, "1"), id="the Bucket's annotation"),
        pytest.param(
            lambda w: w.user_retries(BUCKET_CLAIMS, "photos", "1"), id="the claim's annotation"
        ),
        pytest.param(
            lambda w: w.user_edits(
                BUCKET_CLASSES, "gold", lambda body: body.update(parameters={"tier": "2"})
            ),
            id="a class that is repaired",
        ),
        pytest.param(lambda w: w.driver_comes(), id="a new driver process"),
    ],
)
def test_what_wakes_a_final_verdict_wakes_it_once(
    world: World, wake: Callable[[World], None]
) -> None:
    world.backend.answers[Call.CREATE_BUCKET] = NO
    add_claim(world)
    run(world)
    wake(world)
    run(world)
    assert world.backend.count(Call.CREATE_BUCKET) == 2
    world.restart("sidecar")
    run(world)
    assert world.backend.count(Call.CREATE_BUCKET) == 2
    world.backend.answers.clear()
    world.user_retries(BUCKET_CLAIMS, "photos", "again")
    run(world)
    assert world.ready(BUCKET_CLAIMS, "photos") == ("True", "Provisioned")
    assert world.backend.count(Call.CREATE_BUCKET) == 3


def test_while_the_driver_is_away_there_are_no_calls_and_on_its_return_all_goes_on(
    world: World,
) -> None:
    world.driver_goes()
    for number in range(20):
        add_claim(world, f"c{number}", bucketClassName="gold")
    run(world)
    assert world.backend.calls == []
    assert world.ready(BUCKET_CLAIMS, "c7") == ("False", "WaitingForDriver")
    world.driver_comes(new=False)
    run(world)
    assert world.backend.count(Call.CREATE_BUCKET) == 20
    assert world.ready(BUCKET_CLAIMS, "c7") == ("True", "Provisioned")


def test_a_retrying_bucket_writes_on_attempts_1_2_4_8_and_asks_ever_slower(world: World) -> None:
    world.backend.answers[Call.CREATE_BUCKET] = Answer(Code.INTERNAL, acts=False)
    add_claim(world)
    writes_at: dict[int, int] = {}
    for _ in range(2000):
        world.run_until_idle(limit_s=0.5)
        writes_at[world.backend.count(Call.CREATE_BUCKET)] = sum(
            sent.verb == "update/status" and sent.plural == "buckets" for sent in world.sent
        )
    calls = world.backend.count(Call.CREATE_BUCKET)
    assert 10 <= calls <= 14  # 1000 s: 1, 2, 4 ... 256 and 300 s apart, a fifth less at most
    assert [writes_at[n] for n in (1, 2, 4, 8)] == [1, 2, 3, 4]
    assert writes_at[calls] == 4
    world.backend.answers.clear()
    run(world)
    assert world.ready(BUCKET_CLAIMS, "photos") == ("True", "Provisioned")


def test_deleting_with_an_unknown_id_that_was_learned_asks_for_it_only_once(world: World) -> None:
    world.backend.answers = {Call.CREATE_BUCKET: Answer(Code.UNKNOWN, acts=True)}
    add_claim(world)
    run(world)
    world.backend.answers = {Call.DELETE_BUCKET: Answer(Code.INTERNAL, acts=False)}
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle(limit_s=120.0)
    assert world.backend.count(Call.DELETE_BUCKET) > 4
    assert world.backend.count(Call.CREATE_BUCKET) == 2
    world.backend.answers.clear()
    run(world)
    assert world.backend.buckets == {}
    assert world.api.list(BUCKETS) == []


def test_a_failing_deletion_is_looked_at_every_ten_minutes_and_ends_by_itself(world: World) -> None:
    add_claim(world)
    run(world)
    world.backend.answers[Call.DELETE_BUCKET] = Answer(Code.FAILED_PRECONDITION, acts=False)
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle(limit_s=1810.0)
    assert world.backend.count(Call.DELETE_BUCKET) == 4  # at once, and after 10, 20, 30 min
    assert world.ready(BUCKET_CLAIMS, "photos") == ("False", "DriverFailedPrecondition")
    world.backend.answers.clear()
    world.run_until_idle(limit_s=610.0)
    assert world.api.list(BUCKETS) == []
    assert world.api.list(BUCKET_CLAIMS) == []


def test_restarts_ask_no_sooner_than_the_recheck_that_is_due(world: World) -> None:
    names_ = [f"c{number}" for number in range(30)]
    for name in names_:
        add_claim(world, name, bucketClassName="gold")
    run(world)
    world.backend.answers[Call.DELETE_BUCKET] = Answer(Code.FAILED_PRECONDITION, acts=False)
    for name in names_:
        world.user_deletes(BUCKET_CLAIMS, name)
    world.run_until_idle(limit_s=1300.0)  # twice rechecked; what is stored is 20 minutes old
    calls = world.backend.count(Call.DELETE_BUCKET)
    world.restart("sidecar")
    world.run_until_idle(limit_s=10.0)
    assert world.backend.count(Call.DELETE_BUCKET) == calls
    world.run_until_idle(limit_s=600.0)
    assert world.backend.count(Call.DELETE_BUCKET) == calls + 30


def test_a_bucket_without_its_claim_goes_on_when_its_last_access_is_gone(world: World) -> None:
    add_claim(world)
    add_access(world)
    run(world)
    world.user_edits(BUCKET_CLAIMS, "photos", lambda body: body["metadata"].pop("finalizers"))
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.user_edits(  # so that the access's end does not touch the Bucket
        BUCKETS, NAME, lambda body: body["metadata"].update(finalizers=[names.BUCKET_FINALIZER])
    )
    world.user_deletes(BUCKETS, NAME)
    run(world)
    assert world.api.list(BUCKETS) == []
    assert (world.backend.buckets, world.backend.accounts) == ({}, {})


def test_a_bucket_that_is_only_reserved_for_a_claim_does_not_speak_for_it(world: World) -> None:
    add_static_bucket(world)
    world.user_edits(
        BUCKETS,
        "old",
        lambda body: body["spec"].update(bucketClaim={"namespace": "team", "name": "photos"}),
    )
    run(world)
    add_claim(world)
    run(world)
    assert world.found(BUCKET_CLAIMS, "photos")["status"]["bucketName"] == NAME


def test_a_foreign_drivers_bucket_is_left_alone(world: World) -> None:
    add_class(world, "silver", driverName="other.example.com")
    add_claim(world, bucketClassName="silver")
    run(world)
    assert world.backend.calls == []
    bucket = world.found(BUCKETS, NAME)
    assert "finalizers" not in bucket["metadata"]
    assert "status" not in bucket
    assert world.ready(BUCKET_CLAIMS, "photos") == ("False", "WaitingForBucket")


def test_the_memory_of_failures_goes_with_the_object(world: World) -> None:
    world.backend.answers[Call.CREATE_BUCKET] = Answer(Code.INTERNAL, acts=False)
    add_claim(world)
    world.run_until_idle(limit_s=60.0)
    attempts = world.processes["sidecar"].attempts
    assert attempts is not None
    assert len(attempts) == 1
    world.backend.answers.clear()
    world.user_deletes(BUCKET_CLAIMS, "photos")
    run(world)
    assert world.api.list(BUCKETS) == []
    assert len(attempts) == 0


def test_create_answers_internal_while_the_id_of_a_deleted_bucket_is_unknown_and_it_is_asked_on(
    world: World,
) -> None:
    """No number of failures ends the wait: the backend may hold the bucket."""
    world.backend.answers[Call.CREATE_BUCKET] = Answer(Code.INTERNAL, acts=True)
    add_claim(world)
    world.run_until_idle(limit_s=2.0)
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle(limit_s=24 * 3600.0)
    assert world.backend.count(Call.CREATE_BUCKET) > 24 * 3600 / 400
    assert world.ready(BUCKETS, NAME) == ("False", "DriverInternal")
    assert [e.reason for e in world.parts.told if e.reason == "BackendUnverified"] == []
    world.backend.answers.clear()
    run(world)
    assert world.api.list(BUCKETS) == []
    assert world.backend.buckets == {}


def test_events_say_each_failure_once_and_each_success(world: World) -> None:
    world.backend.answers[Call.CREATE_BUCKET] = NO
    add_claim(world)
    run(world)
    world.backend.answers.clear()
    world.user_retries(BUCKET_CLAIMS, "photos", "1")
    run(world)
    world.user_deletes(BUCKET_CLAIMS, "photos")
    run(world)
    seen = [(e.about.kind, e.type, e.reason) for e in world.parts.told]
    assert seen == [
        ("Bucket", "Warning", "FailedCreateBucket"),
        ("BucketClaim", "Warning", "FailedCreateBucket"),
        ("Bucket", "Normal", "BucketCreated"),
        ("BucketClaim", "Normal", "BucketReady"),
        ("Bucket", "Normal", "BucketDeleted"),
        ("BucketClaim", "Normal", "BucketDeleted"),
    ]


def test_waiting_for_accesses_is_no_warning(world: World) -> None:
    add_claim(world)
    add_access(world)
    run(world)
    world.user_deletes(BUCKET_CLAIMS, "photos")
    run(world)
    assert [e.reason for e in world.parts.told if e.type == "Warning"] == []
    assert any(e.reason == "WaitingForBucketAccesses" for e in world.parts.told)


def test_a_new_claim_of_the_same_name_is_another_claim(world: World) -> None:
    add_claim(world)
    run(world)
    world.user_deletes(BUCKET_CLAIMS, "photos")
    run(world)
    add_claim(world)
    run(world)
    assert list(world.backend.buckets) == ["bucket-bucketclaim-photos-2"]
    assert world.ready(BUCKET_CLAIMS, "photos") == ("True", "Provisioned")


def test_an_access_of_a_new_claim_is_not_taken_for_one_of_the_retained_bucket(
    world: World,
) -> None:
    add_static_bucket(world)
    add_claim(world, existingBucketName="old")
    add_access(world, "first")
    run(world)
    world.user_deletes(BUCKET_CLAIMS, "photos")
    run(world)
    add_claim(world)  # the same name; the static Bucket still names it, with the old UID
    add_access(world, "second")
    run(world)
    world.user_deletes(BUCKETS, "old")
    run(world)
    assert world.find(BUCKETS, "old") is None
    assert world.ready(BUCKET_ACCESSES, "second") == ("True", "Granted")
    assert world.backend.buckets["old"] == "id-of-old"


def test_a_refusal_now_does_not_deny_what_an_earlier_create_may_have_made(world: World) -> None:
    world.backend.answers[Call.CREATE_BUCKET] = Answer(Code.INTERNAL, acts=True)
    add_claim(world)
    world.run_until_idle(limit_s=5.0)
    world.backend.answers[Call.CREATE_BUCKET] = Answer(Code.UNAUTHENTICATED, acts=False)
    world.user_deletes(BUCKET_CLAIMS, "photos")
    run(world)
    assert world.api.list(BUCKETS) == []
    told = [(e.about.kind, e.message) for e in world.parts.told if e.reason == "BackendUnverified"]
    assert [kind for kind, _ in told] == ["Bucket", "BucketClaim"]
    assert all(NAME in message for _, message in told)


def test_a_stored_refusal_does_not_deny_what_an_earlier_create_may_have_made(world: World) -> None:
    world.backend.answers[Call.CREATE_BUCKET] = Answer(Code.UNKNOWN, acts=True)
    add_claim(world)
    run(world)
    world.backend.answers[Call.CREATE_BUCKET] = Answer(Code.UNAUTHENTICATED, acts=False)
    world.user_retries(BUCKET_CLAIMS, "photos", "1")
    run(world)
    assert world.ready(BUCKET_CLAIMS, "photos") == ("False", "DriverUnauthenticated")
    world.backend.answers.clear()
    world.user_deletes(BUCKET_CLAIMS, "photos")
    run(world)
    assert world.backend.buckets == {}


# --- ids that two Buckets would share


def add_two(world: World) -> tuple[str, str]:
    """Two claims whose Buckets the driver gives one id; their Buckets' names."""
    world.backend.answers[Call.CREATE_BUCKET] = Answer(id="id-of-both")
    add_claim(world, "a", bucketClassName="gold")
    add_claim(world, "b", bucketClassName="gold")
    world.run_until_idle(only="controller")
    return "bucket-bucketclaim-a-1", "bucket-bucketclaim-b-1"


def held_up(world: World, verb: str, *, before: bool) -> None:
    """Let the other runs of the sidecar go to their end, while the first waits at this point."""

    def at_point(running: Running, run: Run, point: Point) -> None:
        if point.verb == verb and point.before == before:
            world.at_point = lambda running, run, point: None
            while (other := running.take()) is not None:
                world.finish(running, other)

    world.at_point = at_point


@pytest.mark.parametrize(
    ("verb", "before"),
    [
        pytest.param("update/status", True, id="the first id is returned and not stored yet"),
        pytest.param(Call.CREATE_BUCKET, False, id="the first call is under way"),
    ],
)
def test_two_creates_return_one_id_at_the_same_time_and_one_of_them_is_refused(
    world: World, verb: str, before: bool
) -> None:
    both = add_two(world)
    held_up(world, verb, before=before)
    world.run_until_idle()
    found = sorted(world.ready(BUCKETS, name) for name in both)
    assert found == [("False", "DriverReturnedForeignBucketID"), ("True", "Provisioned")]
    ids = [(world.found(BUCKETS, name).get("status") or {}).get("bucketID") for name in both]
    assert sorted(ids, key=str) == [None, "id-of-both"]


def test_a_create_returns_the_id_of_another_bucket_and_neither_its_claim_nor_its_deletion_gets_it(
    world: World,
) -> None:
    first, second = add_two(world)
    run(world)
    assert world.ready(BUCKET_CLAIMS, "a") == ("True", "Provisioned")
    assert world.ready(BUCKET_CLAIMS, "b") == ("False", "DriverReturnedForeignBucketID")
    assert world.backend.count(Call.CREATE_BUCKET) == 2
    world.user_deletes(BUCKET_CLAIMS, "b")
    run(world)
    assert world.find(BUCKETS, second) is None
    assert world.backend.count(Call.DELETE_BUCKET) == 0
    told = [e for e in world.parts.told if e.reason == "BackendUnverified"]
    assert [e.about.kind for e in told] == ["Bucket", "BucketClaim"]
    assert all(second in e.message for e in told)
    assert world.ready(BUCKETS, first) == ("True", "Provisioned")


def test_the_other_bucket_is_gone_and_a_retry_may_use_its_id(world: World) -> None:
    add_two(world)
    run(world)
    world.user_deletes(BUCKET_CLAIMS, "a")
    run(world)
    world.user_retries(BUCKET_CLAIMS, "b", "1")
    run(world)
    assert world.ready(BUCKET_CLAIMS, "b") == ("True", "Provisioned")


def test_an_id_that_a_deletion_learned_is_free_when_the_deletion_is_done(world: World) -> None:
    """The id was returned and never stored, so no cached Bucket can show that it is free."""
    world.backend.answers[Call.CREATE_BUCKET] = Answer(Code.UNKNOWN, acts=True, id="id-7")
    add_claim(world)
    run(world)
    world.backend.answers[Call.CREATE_BUCKET] = Answer(id="id-7")
    world.user_deletes(BUCKET_CLAIMS, "photos")
    run(world)
    assert world.backend.buckets == {}
    add_claim(world, "other", bucketClassName="gold")
    run(world)
    assert world.ready(BUCKET_CLAIMS, "other") == ("True", "Provisioned")


def test_an_id_that_is_too_long_for_the_record_is_refused_and_never_stored(world: World) -> None:
    world.backend.answers[Call.CREATE_BUCKET] = Answer(id="x" * (ID_LIMIT_BYTES + 1))
    add_claim(world)
    run(world)
    assert world.ready(BUCKET_CLAIMS, "photos") == ("False", "DriverMalformedReply")
    assert "xxx" not in json.dumps(world.api.list(BUCKETS))
    world.backend.answers[Call.CREATE_BUCKET] = Answer(id="x" * ID_LIMIT_BYTES)
    world.backend.buckets.clear()
    world.user_retries(BUCKET_CLAIMS, "photos", "1")
    run(world)
    assert world.ready(BUCKET_CLAIMS, "photos") == ("True", "Provisioned")


# --- a Bucket that vanishes without our finalizer, beside the Go controller, which waits for us


def refused(world: World) -> None:
    """The driver refused the Bucket without effect, so it carries no finalizer of ours."""
    world.backend.answers[Call.CREATE_BUCKET] = NO
    add_claim(world)
    run(world)
    assert "finalizers" not in world.found(BUCKETS, NAME)["metadata"]
    world.processes["controller"].end()


@pytest.mark.parametrize(
    "order",
    [
        pytest.param((BUCKET_CLAIMS, BUCKETS), id="the claim is deleted first"),
        pytest.param((BUCKETS, BUCKET_CLAIMS), id="the Bucket is gone first"),
    ],
)
def test_a_refused_bucket_is_gone_and_its_deleted_claim_is_released(
    world: World, order: tuple[Resource, Resource]
) -> None:
    refused(world)
    for resource in order:
        world.user_deletes(resource, NAME if resource is BUCKETS else "photos")
        world.run_until_idle(only="sidecar")
    assert world.api.list(BUCKETS) == []
    assert world.api.list(BUCKET_CLAIMS) == []


def test_a_refused_bucket_is_gone_and_a_claim_that_nobody_deletes_keeps_its_finalizer(
    world: World,
) -> None:
    refused(world)
    world.user_deletes(BUCKETS, NAME)
    world.run_until_idle(only="sidecar")
    assert names.CLAIM_FINALIZER in world.found(BUCKET_CLAIMS, "photos")["metadata"]["finalizers"]


def test_the_watch_only_lost_sight_of_the_bucket_and_the_claim_is_not_released(
    world: World,
) -> None:
    """The API server still has it: only its own word that the Bucket is gone counts."""
    refused(world)
    world.user_deletes(BUCKET_CLAIMS, "photos")
    sidecar = world.processes["sidecar"]
    sidecar.deliver()
    kind = next(k for k in sidecar.kinds if k.resource is BUCKETS)
    for key, old, new in list(kind.store.replace([], "1")):
        kind.changed(key, old, new)
    world.run_until_idle(only="sidecar")
    assert world.find(BUCKETS, NAME)
    assert world.find(BUCKET_CLAIMS, "photos")


def test_a_bucket_with_our_finalizer_is_removed_by_force_and_its_claim_is_not_released(
    world: World,
) -> None:
    add_claim(world)
    run(world)
    world.processes["controller"].end()
    world.user_edits(BUCKETS, NAME, lambda body: body["metadata"].pop("finalizers"))
    world.user_deletes(BUCKETS, NAME)
    world.run_until_idle(only="sidecar")
    assert world.find(BUCKET_CLAIMS, "photos")


# --- an administrator ends a deletion whose driver never comes back


def give_up(world: World, *uids: str) -> None:
    def annotate(body: Json) -> None:
        body["metadata"]["annotations"][names.GIVE_UP_ANNOTATION] = ", ".join(uids)

    world.user_edits(BUCKETS, NAME, annotate)


def test_the_driver_is_gone_for_good_and_give_up_ends_each_deletion_that_it_names(
    world: World,
) -> None:
    add_claim(world)
    add_access(world)
    run(world)
    bucket_uid = world.found(BUCKETS, NAME)["metadata"]["uid"]
    access_uid = world.found(BUCKET_ACCESSES, "reader")["metadata"]["uid"]
    world.driver_goes()
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle(limit_s=3600.0)
    give_up(world, "another-uid")
    world.run_until_idle(limit_s=3600.0)
    assert world.find(BUCKET_ACCESSES, "reader")
    calls = len(world.backend.calls)
    give_up(world, access_uid)
    world.run_until_idle(limit_s=3600.0)
    assert world.find(BUCKET_ACCESSES, "reader") is None
    assert world.find(BUCKETS, NAME)
    give_up(world, access_uid, bucket_uid)
    run(world)
    assert world.api.list(BUCKETS) == world.api.list(BUCKET_CLAIMS) == []
    assert len(world.backend.calls) == calls
    told = [(e.about.kind, e.message) for e in world.parts.told if e.reason == "BackendUnverified"]
    kinds = [kind for kind, _ in told]
    assert kinds == ["BucketAccess", "Bucket", "Bucket", "BucketClaim"]
    assert "acct-of-ba-bucketaccess-reader-1" in told[0][1]
    assert f"id-of-{NAME}" in told[1][1]


def test_a_bucket_in_use_is_deleted_and_waits_for_its_claim_unless_it_is_forced(
    world: World,
) -> None:
    add_claim(world)
    add_access(world)
    run(world)
    uid = world.found(BUCKETS, NAME)["metadata"]["uid"]
    world.user_deletes(BUCKETS, NAME)
    run(world)
    assert world.ready(BUCKETS, NAME) == ("False", "BucketInUse")
    assert world.backend.count(Call.REVOKE_ACCESS) == 0
    assert world.found(BUCKET_CLAIMS, "photos")["status"]["bucketReady"] is True

    def force(value: str) -> None:
        def annotate(body: Json) -> None:
            body["metadata"]["annotations"][names.FORCE_DELETE_ANNOTATION] = value

        world.user_edits(BUCKETS, NAME, annotate)

    force("true")
    run(world)
    assert world.find(BUCKETS, NAME)
    force(uid)
    world.run_until_idle()
    assert world.find(BUCKETS, NAME) is None
    assert (world.backend.buckets, world.backend.accounts) == ({}, {})


@pytest.mark.parametrize("policy", ["Delete", "Retain"])
def test_an_administrator_keeps_the_data_of_a_bucket_whose_deletion_waits_for_an_access(
    world: World, policy: str
) -> None:
    """Another claim in its spec saves nothing: the object is on its way out; its policy decides."""
    add_claim(world)
    add_claim(world, "other")
    add_access(world)
    world.run_until_idle()
    world.backend.answers[Call.REVOKE_ACCESS] = Answer(Code.INTERNAL, acts=False)
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle(limit_s=10.0)
    uid = world.found(BUCKET_CLAIMS, "other")["metadata"]["uid"]

    def edit(bucket: Json) -> None:
        bucket["spec"]["bucketClaim"].update(name="other", uid=uid)
        bucket["spec"]["deletionPolicy"] = policy

    world.user_edits(BUCKETS, NAME, edit)
    world.backend.answers.clear()
    world.run_until_idle()
    assert world.find(BUCKETS, NAME) is None
    assert world.find(BUCKET_CLAIMS, "photos") is None
    assert (NAME in world.backend.buckets) == (policy == "Retain")


@pytest.mark.parametrize("when", ["in the call", "after it"])
def test_a_retry_annotation_during_a_refused_call_is_not_swallowed_by_its_verdict(
    world: World, when: str
) -> None:
    world.backend.answers[Call.CREATE_BUCKET] = NO

    def retry() -> None:
        world.backend.answers.clear()
        world.user_retries(BUCKETS, NAME, "1")

    during(world, Call.CREATE_BUCKET if when == "in the call" else "update/status", retry)
    add_claim(world)
    run(world)
    assert world.ready(BUCKETS, NAME) == ("True", "Provisioned")
    assert world.backend.count(Call.CREATE_BUCKET) == 2
