"""The Bucket's half of the sidecar in a whole world: what holds when things change meanwhile."""

from collections.abc import Callable

import pytest
from tests.model.backend import Answer
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

from cosi_operator.api.v1alpha1 import BUCKET_ACCESSES, BUCKET_CLAIMS, BUCKET_CLASSES, BUCKETS
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
    world.user_deletes(BUCKET_CLAIMS, "photos")
    run(world)
    assert world.api.list(BUCKETS) == []
    attempts = world.processes["sidecar"].attempts
    assert attempts is not None
    assert len(attempts) == 0


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
