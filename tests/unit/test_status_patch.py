"""Status patches: from an outcome, a Bucket or a refusal to the fields of a status. Pure."""

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace as change

from cosi_operator.api.view import Bucket, BucketAccess, BucketClaim, ClaimRef, Condition
from cosi_operator.api.view import Meta as ObjectMeta
from cosi_operator.outcome import (
    Call,
    Code,
    DriverStatus,
    Effect,
    MadeBy,
    Outcome,
    Reason,
    Requeue,
    Success,
    Terminal,
)
from cosi_operator.status_patch import (
    IgnoredPatch,
    MirrorPatch,
    OutcomePatch,
    RefusalPatch,
    StatusReport,
    is_minor,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
AT, EARLIER = "2026-01-02T03:04:05Z", "2026-01-01T00:00:00Z"
BUCKET = Bucket(
    ObjectMeta("b-1", uid="bucket-uid", resource_version="7", generation=2),
    driver_name="d",
    claim=ClaimRef("team", "photos", "claim-uid"),
)
CLAIM = BucketClaim(ObjectMeta("photos", "team", "claim-uid", resource_version="9", generation=4))
REFUSED = DriverStatus(Call.CREATE_BUCKET, Code.INVALID_ARGUMENT, MadeBy.DRIVER, "no")
FINAL = Terminal(Reason.DRIVER_INVALID_ARGUMENT, "", status=REFUSED)
AGAIN = Requeue(Reason.DRIVER_INTERNAL, "", after_s=1.0, status=REFUSED, attempts=3)
READY = Condition("Ready", "True", "Provisioned", "It is ready.", 2, EARLIER)


def report(outcome: Outcome, *, must_store: bool = False, attempts: int = 1) -> StatusReport:
    return StatusReport(
        outcome=outcome,
        judged=BUCKET.meta,
        success=(Reason.PROVISIONED, "It is ready."),
        success_event="BucketCreated",
        failure_event="FailedCreateBucket",
        fields={"ready": isinstance(outcome, Success)},
        must_store=must_store,
        attempts=attempts,
        effect=Effect.NONE,
        driver_instance="one",
        retry_token="",
    )


def patch(told: StatusReport) -> OutcomePatch:
    return OutcomePatch(told, "Bucket", NOW, longest_pause_s=300.0)


@pytest.mark.parametrize(
    ("outcome", "conditions"),
    [
        pytest.param(Success(), {"Ready": "True"}, id="Success -> Ready"),
        pytest.param(AGAIN, {"Ready": "False", "Reconciling": "True"}, id="Requeue -> Reconciling"),
        pytest.param(FINAL, {"Ready": "False", "Stalled": "True"}, id="Terminal -> Stalled"),
    ],
)
def test_an_outcome_becomes_conditions_of_the_judged_generation(
    outcome: Outcome, conditions: dict[str, str]
) -> None:
    newer = change(BUCKET, meta=change(BUCKET.meta, generation=3))
    status = patch(report(outcome)).status_of(newer)
    assert {c.type: c.status for c in status.conditions} == conditions
    assert {c.observed_generation for c in status.conditions} == {2}
    assert {c.last_transition_time for c in status.conditions} == {AT}
    assert (status.observed_generation, status.ready) == (2, isinstance(outcome, Success))


def test_a_transition_time_stays_while_the_status_stays() -> None:
    status = patch(report(Success())).status_of(change(BUCKET, conditions=(READY,)))
    assert status.conditions == (READY,)


@pytest.mark.parametrize(
    ("must_store", "version"),
    [
        pytest.param(False, "7", id="nobody was asked -> only the version that the run read"),
        pytest.param(True, "", id="the driver has answered -> every version"),
    ],
)
def test_the_version_that_a_patch_is_for(must_store: bool, version: str) -> None:
    made = patch(report(FINAL, must_store=must_store))
    assert (made.uid, made.version) == ("bucket-uid", version)


def test_a_verdict_is_stored_with_what_it_judged_and_an_equal_one_keeps_its_time() -> None:
    stored = patch(report(FINAL)).status_of(BUCKET).last_call
    assert stored is not None
    assert (stored.generation, stored.driver_instance, stored.object_uid) == (
        2,
        "one",
        "bucket-uid",
    )
    earlier = change(stored, time=EARLIER)
    again = patch(report(FINAL, attempts=5)).status_of(change(BUCKET, last_call=earlier))
    assert again.last_call == earlier


def test_a_claim_stores_no_verdict() -> None:
    assert patch(report(FINAL)).status_of(CLAIM).last_call is None


def test_a_success_replaces_a_stored_failure_and_writes_no_verdict_without_one() -> None:
    failure = patch(report(FINAL)).status_of(BUCKET).last_call
    after = patch(report(Success())).status_of(change(BUCKET, last_call=failure)).last_call
    assert after is not None
    assert (after.outcome, after.code) == ("Success", "OK")
    assert patch(report(Success())).status_of(BUCKET).last_call is None


def test_the_message_names_the_object_that_its_reader_may_annotate() -> None:
    assert "bucketclaim photos -n team" in patch(report(FINAL)).message(BUCKET)
    assert "bucket b-1 " in patch(report(FINAL)).message(change(BUCKET, claim=None))
    access = BucketAccess(ObjectMeta("reader", "team", "access-uid"))
    of_access = OutcomePatch(report(FINAL), "BucketAccess", NOW, longest_pause_s=300.0)
    assert "bucketaccess reader -n team" in of_access.message(access)


def test_a_claim_mirrors_its_bucket_for_its_own_generation() -> None:
    bucket = change(BUCKET, conditions=(READY,), ready=True, bucket_id="id-1")
    status = MirrorPatch(bucket, "claim-uid", NOW).status_of(CLAIM)
    assert (status.ready, status.bucket_name, status.observed_generation) == (True, "b-1", 4)
    assert [c.observed_generation for c in status.conditions] == [4]
    without_id = change(bucket, bucket_id="")
    assert MirrorPatch(without_id, "claim-uid", NOW).status_of(CLAIM).ready is False


def test_an_ignored_change_is_written_only_beside_conditions() -> None:
    noted = IgnoredPatch("The class changed.", "claim-uid", NOW)
    assert noted.status_of(CLAIM) is None
    status = noted.status_of(change(CLAIM, conditions=(READY,), observed_generation=3))
    assert status is not None
    assert [c.type for c in status.conditions] == ["Ready", "SpecChangeIgnored"]
    assert status.observed_generation == 3, "as it was"


def test_a_refusal_is_written_for_the_generation_that_is_there() -> None:
    refusal = Terminal(Reason.MISSING_PERMISSION, "The operator lacks a permission.")
    status = RefusalPatch(refusal, "claim-uid", NOW).status_of(CLAIM)
    assert {c.type: c.status for c in status.conditions} == {"Ready": "False", "Stalled": "True"}
    assert {c.message for c in status.conditions} == {refusal.message}
    assert (status.observed_generation, status.ready) == (4, None)


@pytest.mark.parametrize(
    ("outcome", "attempts", "ready", "minor"),
    [
        pytest.param(Success(), 1, None, False, id="Success -> written"),
        pytest.param(FINAL, 3, None, False, id="Terminal -> written"),
        pytest.param(
            Requeue(Reason.CONFLICT, "", quiet=True), 1, None, True, id="quiet Requeue -> minor"
        ),
        pytest.param(AGAIN, 2, None, False, id="attempt 2 -> written"),
        pytest.param(AGAIN, 3, None, False, id="attempt 3, nothing stored -> written"),
        pytest.param(AGAIN, 3, "DriverInternal", True, id="attempt 3, same reason -> minor"),
        pytest.param(AGAIN, 3, "DriverUnknown", False, id="attempt 3, other reason -> written"),
    ],
)
def test_which_outcomes_are_worth_a_write(
    outcome: Outcome, attempts: int, ready: str | None, minor: bool
) -> None:
    conditions = (Condition("Ready", "False", ready),) if ready else ()
    before = change(BUCKET, conditions=conditions)
    assert is_minor(before, report(outcome, attempts=attempts)) is minor
