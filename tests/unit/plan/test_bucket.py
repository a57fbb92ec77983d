"""The next step for a Bucket that is created, as a table; each id states its row's rule."""

from dataclasses import replace as change
from datetime import timedelta

import pytest
from msgspec.structs import replace
from tests.support.views import (
    AS_OF,
    AWAY,
    BACKING_OFF,
    BUCKET,
    CLAIM,
    DRIVER,
    ENTRY,
    FORMER,
    GOING,
    GOING_CLAIM,
    GRANTED,
    IDENTITY,
    NEW_RECORD,
    NOW,
    OURS,
    READY,
    READY_CLAIM,
    RECORD,
    RECORDED,
    STAMP,
    UNRECORDED,
    UP,
    judged,
    meta,
    with_context,
    with_entries,
)

from cosi_operator.api.record import AccessRecord, BucketRecord, ClaimIdentity
from cosi_operator.api.view import (
    Bucket,
    BucketAccess,
    ClaimRef,
    Condition,
    DeletionPolicy,
    Key,
)
from cosi_operator.outcome import (
    Call,
    Code,
    DriverStatus,
    Effect,
    MadeBy,
    Reason,
    Requeue,
    Success,
    Terminal,
)
from cosi_operator.plan import names
from cosi_operator.plan.bucket import plan
from cosi_operator.plan.bucket_view import (
    BucketView,
    fold,
    ignored_change,
    is_clean,
    last_create_left_nothing,
    retry_token,
)
from cosi_operator.plan.facts import (
    AccessDeleting,
    AccessesListed,
    BackendGone,
    BackendIs,
    BucketFact,
    BucketIs,
    CallFailed,
    ClaimIs,
)
from cosi_operator.plan.records import RecordEdit
from cosi_operator.plan.steps import (
    BucketStep,
    Context,
    CreateBackend,
    DeleteBackend,
    Done,
    EditBucket,
    ListAccesses,
    ReadBucketObject,
    ReadClaim,
)

KEY = BUCKET.meta.key
CLAIM_KEY = Key("team", "photos")
NOTHING = Done(Success(), report=False)
FINE = Done(Success())
CREATE = CreateBackend(KEY.name, {"tier": "gold"})
DELETE = DeleteBackend("id-7", {"tier": "gold"})
PROTECT = (names.BUCKET_FINALIZER,)
KEEP = EditBucket(KEY, add=PROTECT, record=RecordEdit(driver=DRIVER))
UNDO = EditBucket(KEY, remove=PROTECT, record=RecordEdit(driver=""))
STATIC = replace(
    BUCKET, existing_bucket_id="old-1", deletion_policy=DeletionPolicy.RETAIN, record=None
)
WAIT = Done(Requeue(Reason.DRIVER_UNREACHABLE, "", after_s=12.5, quiet=True), report=False)
REFUSED_CREATE = replace(OURS, last_call=judged(Call.CREATE_BUCKET))
UNSURE_CREATE = replace(
    OURS, last_call=judged(Call.CREATE_BUCKET, Code.UNKNOWN, effect=Effect.MAYBE)
)
# As a release without records left them.
OLD_REFUSED = replace(REFUSED_CREATE, record=None)
OLD_UNSURE = replace(UNSURE_CREATE, record=None)
OTHER = ClaimIdentity("team", "photos", "earlier-uid")
COPY = replace(
    READY, record=None, copied_record=replace(RECORD, bucket="original-uid", bucket_id="id-7")
)


def stored(
    call: Call,
    *,
    recheck_s: float | None = None,
    code: Code = Code.PERMISSION_DENIED,
    message: str = "told before",
) -> Done:
    """The end of a run in which a stored verdict still stands."""
    status = DriverStatus(call, code, MadeBy.DRIVER)
    verdict = Terminal(Reason.DRIVER_PERMISSION_DENIED, message, recheck_s=recheck_s, status=status)
    return Done(verdict, report=False)


def seen(
    bucket: Bucket | None,
    context: Context = UP,
    *,
    accesses: tuple[BucketAccess, ...] = (),
    **more: object,
) -> BucketView:
    """A view with the claim that the Bucket names."""
    given: dict[str, object] = {"claim": READY_CLAIM, **more}
    return BucketView(bucket=bucket, accesses=accesses, context=context, **given)  # type: ignore[arg-type]  # a table's shorthand


@pytest.mark.parametrize(
    ("view", "step"),
    [
        pytest.param(seen(None), NOTHING, id="the Bucket is gone -> nothing to do"),
        pytest.param(
            seen(replace(BUCKET, driver_name="other.example.com")),
            NOTHING,
            id="another driver's Bucket -> not touched, not even its status",
        ),
        pytest.param(
            seen(replace(GOING, driver_name="other.example.com", record=None)),
            NOTHING,
            id="another driver's Bucket is deleted -> its finalizers stay",
        ),
        pytest.param(
            seen(replace(READY, driver_name="other.example.com")),
            FINE,
            id="spec.driverName was changed -> the recorded driver's sidecar goes on",
        ),
        pytest.param(
            seen(replace(READY, record=replace(RECORD, driver="other.example.com"))),
            NOTHING,
            id="the record names another driver, the spec ours -> not touched",
        ),
        pytest.param(
            seen(replace(BUCKET, driver_name="S3.Example.COM")),
            change(KEEP, record=RecordEdit(driver="S3.Example.COM")),
            id="the driver's name in other letters -> ours",
        ),
        pytest.param(seen(BUCKET), KEEP, id="new -> finalizer and driver before the first call"),
        pytest.param(
            seen(replace(BUCKET, record=None)),
            change(
                KEEP, record=RecordEdit(start=BucketRecord(AS_OF), driver=DRIVER, claim=IDENTITY)
            ),
            id="new, by the Go controller -> a record that is as old as the Bucket",
        ),
        pytest.param(seen(OURS), CREATE, id="finalizer and record are stored -> Create"),
        pytest.param(
            seen(OURS, unproven=True),
            ReadBucketObject(KEY),
            id="the copy may be stale -> the Bucket is read before Create",
        ),
        pytest.param(seen(OURS, bucket_id="id-7"), FINE, id="the driver returned an id -> ready"),
        pytest.param(seen(READY), FINE, id="ready -> no driver call"),
        pytest.param(
            seen(meta(READY, finalizers=())),
            EditBucket(KEY, add=PROTECT, record=RecordEdit()),
            id="the finalizer was stripped -> put back",
        ),
        pytest.param(
            seen(replace(READY, bucket_id="")),
            CREATE,
            id="ready without an id -> Create returns the id",
        ),
        pytest.param(
            seen(replace(READY, ready=False)),
            CREATE,
            id="an id without ready -> Create, which is safe to repeat",
        ),
        pytest.param(
            seen(STATIC),
            change(
                KEEP, record=RecordEdit(start=BucketRecord(AS_OF), driver=DRIVER, claim=IDENTITY)
            ),
            id="static -> protected like any other",
        ),
        pytest.param(
            seen(replace(STATIC, claim=ClaimRef("team", "photos")), claim=None),
            change(KEEP, record=RecordEdit(start=BucketRecord(AS_OF), driver=DRIVER)),
            id="static and only reserved -> no claim is recorded",
        ),
        pytest.param(
            seen(replace(meta(STATIC, finalizers=PROTECT), record=RECORD)),
            FINE,
            id="static, stored -> ready without a driver call",
        ),
        pytest.param(
            seen(replace(meta(STATIC, finalizers=PROTECT), record=RECORD), AWAY),
            FINE,
            id="static, the driver is away -> ready",
        ),
        pytest.param(
            seen(STATIC, AWAY),
            change(
                KEEP, record=RecordEdit(start=BucketRecord(AS_OF), driver=DRIVER, claim=IDENTITY)
            ),
            id="static and new, the driver is away -> protected",
        ),
        pytest.param(
            seen(
                replace(OURS, claim=None, record=replace(RECORD, claim=ClaimIdentity())),
                claim=None,
            ),
            CREATE,
            id="no claim -> created all the same",
        ),
    ],
)
def test_creation(view: BucketView, step: BucketStep) -> None:
    assert plan(view) == step


GRANTED_BEFORE = AccessRecord(namespace="team", name="app", accounts=(GRANTED.account_id,))
STARTS = RecordEdit(start=BucketRecord(AS_OF, former=FORMER), driver=DRIVER, claim=IDENTITY)
EMPTY = RecordEdit(start=BucketRecord(AS_OF), driver=DRIVER, claim=IDENTITY)


@pytest.mark.parametrize(
    ("view", "edit"),
    [
        pytest.param(
            seen(UNRECORDED, accesses=(GRANTED,), listed=True),
            STARTS,
            id="ready without a record -> lists what was granted",
        ),
        pytest.param(
            seen(replace(UNRECORDED, ready=False), accesses=(GRANTED,), listed=True),
            STARTS,
            id="has an id -> lists what was granted",
        ),
        pytest.param(
            seen(replace(UNRECORDED, ready=False), AWAY, accesses=(GRANTED,), listed=True),
            STARTS,
            id="has an id, the driver is away -> its accesses wait for the record all the same",
        ),
        pytest.param(
            seen(replace(UNRECORDED, ready=False, bucket_id=""), accesses=(GRANTED,), listed=True),
            EMPTY,
            id="was never ready, our finalizer came with its manifest -> lists nothing",
        ),
        pytest.param(
            seen(UNRECORDED, remembered=RECORDED.record),
            RecordEdit(start=RECORDED.record),
            id="the record was removed -> written again as it was",
        ),
        pytest.param(
            seen(replace(READY, record=replace(NEW_RECORD, bucket="bucket-uid"))),
            RecordEdit(driver=DRIVER),
            id="the record names no driver -> added",
        ),
        pytest.param(
            seen(replace(READY, record=replace(RECORD, bucket=""))),
            RecordEdit(),
            id="the record names no Bucket -> its UID is added",
        ),
        pytest.param(
            seen(replace(READY, record=replace(RECORD, claim=ClaimIdentity()))),
            RecordEdit(claim=IDENTITY),
            id="the record names no claim, the spec does -> recorded",
        ),
        pytest.param(
            seen(
                replace(COPY, copied_record=BucketRecord(accesses={"access-uid": GRANTED_BEFORE})),
                accesses=(GRANTED,),
                listed=True,
            ),
            STARTS,
            id="a copied record and a claim -> void, a new one lists the accounts that it named",
        ),
        pytest.param(
            seen(
                replace(COPY, copied_record=BucketRecord(accesses={"old-uid": GRANTED_BEFORE})),
                accesses=(GRANTED,),
                listed=True,
            ),
            EMPTY,
            id="a copied record names the account for another UID -> the account is not listed",
        ),
        pytest.param(
            seen(COPY, accesses=(GRANTED,), listed=True),
            EMPTY,
            id="a copied record that does not name the account -> the account is not listed",
        ),
    ],
)
def test_record_of_a_bucket_in_use(view: BucketView, edit: RecordEdit) -> None:
    assert view.bucket is not None
    missing = () if names.BUCKET_FINALIZER in view.bucket.meta.finalizers else PROTECT
    assert plan(view) == EditBucket(KEY, add=missing, record=edit)


def test_copied_id_counts_only_by_the_status_and_never_by_the_copied_record() -> None:
    unready = replace(COPY, ready=False, bucket_id="", record=replace(RECORD, former=FORMER))
    assert plan(seen(replace(unready, copied_record=None))) == CREATE


@pytest.mark.parametrize("bucket", [BUCKET, OURS], ids=["new", "begun"])
def test_no_bucket_is_created_for_a_claim_that_does_not_exist(bucket: Bucket) -> None:
    view = seen(bucket, claim=None)
    assert plan(view) == ReadClaim(CLAIM_KEY)
    assert plan(fold(view, ClaimIs(CLAIM))) == plan(seen(bucket))  # the cache was late
    step = plan(fold(view, ClaimIs(None)))
    assert isinstance(step, Done)
    assert isinstance(step.outcome, Terminal)
    assert (step.outcome.reason, step.outcome.waiting) == (Reason.WAITING_FOR_CLAIM, True)
    assert "does not exist, so no bucket is created" in step.outcome.message


def test_copied_bucket_without_a_claim_calls_no_driver() -> None:
    view = seen(COPY, claim=None)
    assert plan(view) == ReadClaim(CLAIM_KEY)
    view = fold(view, ClaimIs(None))
    step = plan(view)
    assert isinstance(step, Done)
    assert isinstance(step.outcome, Terminal)
    assert (step.outcome.reason, step.outcome.waiting) == (Reason.WAITING_FOR_CLAIM, True)
    assert "copied or restored from another Bucket object" in step.outcome.message
    unbound = plan(seen(replace(COPY, claim=None), claim=None))
    assert unbound == step


def test_copied_bucket_whose_claim_only_the_cache_lacks_is_used() -> None:
    view = fold(seen(COPY, claim=None), ClaimIs(READY_CLAIM))
    assert plan(view) == ListAccesses("team")
    view = fold(view, AccessesListed(()))
    assert plan(view) == EditBucket(KEY, record=EMPTY)


REBOUND = replace(READY, record=replace(RECORD, claim=OTHER))  # spec names READY_CLAIM


@pytest.mark.parametrize(
    ("bucket", "found", "step"),
    [
        pytest.param(
            REBOUND,
            None,
            EditBucket(KEY, record=RecordEdit(claim=IDENTITY)),
            id="the recorded claim is gone -> the spec's claim is recorded",
        ),
        pytest.param(
            REBOUND, meta(READY_CLAIM, uid="earlier-uid"), FINE, id="it exists -> it stays recorded"
        ),
        pytest.param(
            REBOUND,
            meta(GOING_CLAIM, uid="earlier-uid"),
            FINE,
            id="it is being deleted -> it stays recorded",
        ),
        pytest.param(
            REBOUND,
            READY_CLAIM,
            EditBucket(KEY, record=RecordEdit(claim=IDENTITY)),
            id="another claim has its name -> it is gone, the spec's claim is recorded",
        ),
    ],
)
def test_bucket_that_spec_binds_to_another_claim(
    bucket: Bucket, found: object, step: BucketStep
) -> None:
    view = seen(bucket, claim=None)
    assert plan(view) == ReadClaim(CLAIM_KEY)
    assert plan(fold(view, ClaimIs(found))) == step  # type: ignore[arg-type]  # a claim or None


def released(bucket: Bucket) -> str:
    """The message of a Bucket whose recorded claim no longer exists."""
    view = seen(bucket, claim=None)
    assert plan(view) == ReadClaim(CLAIM_KEY)
    step = plan(fold(view, ClaimIs(None)))
    assert isinstance(step, Done)
    assert isinstance(step.outcome, Terminal)
    assert (step.outcome.reason, step.outcome.waiting) == (Reason.RELEASED, True)
    return step.outcome.message


@pytest.mark.parametrize(
    ("claim", "who"),
    [
        pytest.param(None, "Any BucketClaim", id="spec was cleared -> free"),
        pytest.param(
            ClaimRef("team", "photos"),
            "BucketClaim team/photos",
            id="spec names the claim without a UID -> reserved",
        ),
        pytest.param(
            ClaimRef("other", "theirs"),
            "BucketClaim other/theirs",
            id="spec reserves another claim -> reserved",
        ),
    ],
)
def test_spec_without_a_uid_changes_no_binding(claim: ClaimRef | None, who: str) -> None:
    message = released(replace(READY, claim=claim))
    assert message.endswith(f" {who} can use it with existingBucketName: {READY.meta.name}.")


def test_a_bucket_with_keys_of_another_namespace_is_not_bound_to_another_claim() -> None:
    entry = AccessRecord(namespace="theirs", name="web")
    message = released(with_entries(REBOUND, gone=entry))
    assert "Delete its BucketAccesses first, because their keys work: theirs/web." in message
    removed = with_entries(REBOUND, gone=replace(entry, namespace="team"))
    assert "because their keys work: team/web." in released(removed)
    ours = with_entries(REBOUND, access_uid=replace(entry, namespace="team"))
    view = fold(seen(ours, claim=None, accesses=(GRANTED,)), ClaimIs(None))
    assert plan(view) == EditBucket(KEY, record=RecordEdit(claim=IDENTITY))


def test_ignored_change_of_the_driver_is_named() -> None:
    changed = replace(READY, driver_name="other.example.com")
    assert ignored_change(READY) == ""
    assert ignored_change(replace(READY, driver_name=DRIVER.upper())) == ""
    assert ignored_change(changed) == (
        "spec.driverName was changed to other.example.com and is ignored, because the bucket"
        " belongs to driver s3.example.com. Change spec.driverName back."
    )


def refused(effect: Effect = Effect.NONE) -> CallFailed:
    status = DriverStatus(Call.CREATE_BUCKET, Code.PERMISSION_DENIED, MadeBy.DRIVER)
    return CallFailed(Terminal(Reason.DRIVER_PERMISSION_DENIED, "", status=status), effect)


@pytest.mark.parametrize(
    ("view", "step"),
    [
        pytest.param(
            seen(OURS, clean=True, failed=refused()),
            UNDO,
            id="first Create refused without effect -> our finalizer and driver are removed",
        ),
        pytest.param(
            seen(BUCKET, clean=True, failed=refused()),
            Done(refused().outcome),
            id="nothing of ours is left -> reported",
        ),
        pytest.param(
            seen(OURS, failed=refused()),
            Done(refused().outcome),
            id="refused after a Create of unknown result -> the finalizer stays",
        ),
        pytest.param(
            seen(OURS, clean=True, failed=refused(Effect.MAYBE)),
            Done(refused(Effect.MAYBE).outcome),
            id="failed with an unknown effect -> the finalizer stays",
        ),
        pytest.param(
            seen(OLD_REFUSED),
            UNDO,
            id="refused without effect by an earlier release -> its finalizer is removed",
        ),
        pytest.param(
            seen(OLD_UNSURE),
            stored(Call.CREATE_BUCKET, code=Code.UNKNOWN, message=""),
            id="final with an unknown effect, by an earlier release -> the finalizer stays",
        ),
        pytest.param(
            seen(READY, backend_gone=True),
            Done(Requeue(Reason.CONFLICT, "", after_s=0.0, quiet=True), report=False),
            id="deleted in this run, and a successor has the name -> another run",
        ),
    ],
)
def test_failed_create(view: BucketView, step: BucketStep) -> None:
    assert plan(view) == step


def test_first_create_refused_without_effect_leaves_nothing() -> None:
    view = seen(BUCKET, clean=is_clean(BUCKET))
    assert plan(view) == KEEP
    view = fold(view, BucketIs(OURS))
    assert plan(view) == CREATE
    view = fold(view, refused())
    assert plan(view) == UNDO
    view = fold(view, BucketIs(replace(BUCKET, record=replace(RECORD, driver=""))))
    assert plan(view) == Done(refused().outcome)


@pytest.mark.parametrize(
    ("bucket", "clean"),
    [
        pytest.param(None, True, id="no Bucket -> clean"),
        pytest.param(BUCKET, True, id="no finalizer of ours -> clean, it precedes every Create"),
        pytest.param(OURS, False, id="our finalizer -> not clean"),
        pytest.param(REFUSED_CREATE, False, id="a record and a refusal -> not clean"),
        pytest.param(OLD_REFUSED, True, id="a refusal that an earlier release stored -> clean"),
        pytest.param(OLD_UNSURE, False, id="an unknown effect by an earlier release -> not clean"),
        pytest.param(
            replace(OLD_REFUSED, bucket_id="id-7"), False, id="a refusal, but an id -> not clean"
        ),
    ],
)
def test_what_is_known_of_earlier_creates(bucket: Bucket | None, clean: bool) -> None:
    assert is_clean(bucket) is clean
    if bucket is not None and names.BUCKET_FINALIZER in bucket.meta.finalizers:
        assert last_create_left_nothing(bucket) is clean


TOLD = (
    replace(
        READY.conditions[0],
        status="False",
        reason=Reason.DRIVER_PERMISSION_DENIED.value,
        message="told before",
    ),
)
STANDING = replace(REFUSED_CREATE, conditions=TOLD)
AGAIN = CREATE
CLAIM_ASKS = meta(READY_CLAIM, annotations={names.RETRY_ANNOTATION: "1"})


def asked(bucket: Bucket, token: str = "1") -> Bucket:
    return meta(bucket, annotations={names.RETRY_ANNOTATION: token})


@pytest.mark.parametrize(
    ("view", "step"),
    [
        pytest.param(
            seen(STANDING),
            stored(Call.CREATE_BUCKET),
            id="a final verdict -> stands over restarts, no call and no write",
        ),
        pytest.param(
            seen(meta(STANDING, finalizers=())),
            stored(Call.CREATE_BUCKET),
            id="a final verdict, no finalizer -> stands",
        ),
        pytest.param(
            seen(STANDING, AWAY),
            stored(Call.CREATE_BUCKET),
            id="a final verdict, the driver is away -> stands",
        ),
        pytest.param(seen(meta(STANDING, generation=2)), AGAIN, id="spec changed -> asked again"),
        pytest.param(seen(asked(STANDING)), AGAIN, id="a retry annotation -> asked again"),
        pytest.param(
            seen(STANDING, claim=CLAIM_ASKS),
            AGAIN,
            id="the claim has one -> asked again",
        ),
        pytest.param(
            seen(asked(replace(STANDING, last_call=judged(Call.CREATE_BUCKET, retry_token="1|")))),
            stored(Call.CREATE_BUCKET),
            id="a retry annotation that was followed -> stands",
        ),
        pytest.param(
            seen(
                asked(
                    replace(STANDING, last_call=judged(Call.CREATE_BUCKET, retry_token="1|")), "2"
                )
            ),
            AGAIN,
            id="a new value of the annotation -> asked again",
        ),
        pytest.param(
            seen(STANDING, with_context(instance="two")),
            AGAIN,
            id="a new driver process -> asked again",
        ),
        pytest.param(
            seen(STANDING, with_context(recheck_s=60.0, now=NOW + timedelta(seconds=59))),
            stored(Call.CREATE_BUCKET, recheck_s=1.0),
            id="a second before its recheck -> stands for a second",
        ),
        pytest.param(
            seen(STANDING, with_context(recheck_s=60.0, now=NOW + timedelta(seconds=60))),
            AGAIN,
            id="its recheck is due -> asked again",
        ),
        pytest.param(
            seen(STANDING, with_context(recheck_s=None, now=NOW + timedelta(days=900))),
            stored(Call.CREATE_BUCKET),
            id="no recheck is set -> stands indefinitely",
        ),
        pytest.param(
            seen(
                replace(STANDING, last_call=judged(Call.CREATE_BUCKET, time="yesterday")),
                with_context(recheck_s=60.0),
            ),
            AGAIN,
            id="its time can't be read -> asked again",
        ),
        pytest.param(
            seen(replace(STANDING, last_call=judged(Call.CREATE_BUCKET, outcome="Requeue"))),
            CREATE,
            id="a verdict that was not final, after a restart -> asked again",
        ),
        pytest.param(
            seen(replace(UNSURE_CREATE), with_context(instance="two")),
            CREATE,
            id="a verdict with an unknown effect, a new driver process -> asked again",
        ),
        pytest.param(
            seen(
                replace(GOING, last_call=judged(Call.DELETE_BUCKET, generation=2), conditions=TOLD),
                claim=GOING_CLAIM,
            ),
            stored(Call.DELETE_BUCKET, recheck_s=600.0),
            id="a final Delete -> stands until its own recheck",
        ),
        pytest.param(
            seen(
                replace(GOING, last_call=judged(Call.DELETE_BUCKET, generation=2)),
                with_context(now=NOW + timedelta(seconds=601)),
                claim=GOING_CLAIM,
            ),
            DELETE,
            id="the recheck of a Delete is due -> asked again, the bucket may be empty by now",
        ),
        pytest.param(
            seen(
                replace(GOING, last_call=judged(Call.CREATE_BUCKET, generation=2)),
                claim=GOING_CLAIM,
            ),
            DELETE,
            id="a verdict on another call -> Delete",
        ),
        pytest.param(seen(OURS, BACKING_OFF), WAIT, id="a backoff -> waits"),
        pytest.param(seen(BUCKET, BACKING_OFF), WAIT, id="a backoff before the finalizer -> waits"),
        pytest.param(seen(READY, BACKING_OFF), FINE, id="a ready Bucket -> does not wait"),
        pytest.param(seen(GOING, BACKING_OFF, claim=GOING_CLAIM), WAIT, id="a Delete -> waits"),
    ],
)
def test_a_verdict_stands_until_something_changes(view: BucketView, step: BucketStep) -> None:
    assert plan(view) == step


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(seen(BUCKET, AWAY), id="new -> waits"),
        pytest.param(seen(OURS, AWAY), id="its id is not known -> waits"),
        pytest.param(seen(GOING, AWAY, claim=GOING_CLAIM), id="being deleted -> waits"),
        pytest.param(
            seen(meta(OURS, deleting=True, generation=2), AWAY, claim=GOING_CLAIM),
            id="being deleted, its id is not known -> waits",
        ),
    ],
)
def test_while_the_driver_is_away_nothing_is_called_and_the_object_says_so(
    view: BucketView,
) -> None:
    step = plan(view)
    assert isinstance(step, Done)
    assert step.report
    assert isinstance(step.outcome, Terminal)
    assert step.outcome.reason is Reason.WAITING_FOR_DRIVER
    assert step.outcome.waiting
    assert "s3.example.com" in step.outcome.message


def test_what_a_stored_verdict_can_no_longer_tell_is_left_out() -> None:
    odd = replace(judged(Call.CREATE_BUCKET), made_by="", reason="OfLongAgo")
    step = plan(seen(replace(OURS, last_call=replace(odd, code="NO_SUCH_CODE"))))
    assert step == Done(Terminal(Reason.INTERNAL_ERROR, ""), report=False)


@pytest.mark.parametrize(
    ("own", "claimed", "token"),
    [
        pytest.param("", "", "", id="none -> no token"),
        pytest.param("1", "", "1|", id="the Bucket's -> counts"),
        pytest.param("", "1", "|1", id="the claim's -> another token than the Bucket's"),
        pytest.param("1", "2", "1|2", id="both -> both count"),
    ],
)
def test_retry_annotations_of_bucket_and_claim(own: str, claimed: str, token: str) -> None:
    bucket = asked(BUCKET, own) if own else BUCKET
    claim = meta(CLAIM, annotations={names.RETRY_ANNOTATION: claimed}) if claimed else CLAIM
    assert retry_token(bucket, claim) == token
    assert retry_token(BUCKET, None) == ""


VIEW = seen(GOING, accesses=(GRANTED, meta(GRANTED, name="b", uid="b")), unproven=True)


@pytest.mark.parametrize(
    ("fact", "expected"),
    [
        pytest.param(
            BucketIs(OURS), change(VIEW, bucket=OURS, unproven=False), id="BucketIs -> proven"
        ),
        pytest.param(
            ClaimIs(None), change(VIEW, claim=None, claim_read=True), id="ClaimIs none -> gone"
        ),
        pytest.param(
            ClaimIs(GOING_CLAIM),
            change(VIEW, claim=GOING_CLAIM, claim_read=True),
            id="ClaimIs the bound claim -> that claim",
        ),
        pytest.param(
            ClaimIs(meta(GOING_CLAIM, uid="later-uid")),
            change(VIEW, claim=None, claim_read=True),
            id="ClaimIs another claim of that name -> gone",
        ),
        pytest.param(
            AccessesListed((GRANTED,)),
            change(VIEW, accesses=(GRANTED,), listed=True),
            id="AccessesListed -> these, no longer from the cache",
        ),
        pytest.param(
            AccessDeleting(GRANTED.meta.key),
            change(
                VIEW,
                accesses=(meta(GRANTED, deleting=True), meta(GRANTED, name="b", uid="b")),
            ),
            id="AccessDeleting -> that one is being deleted",
        ),
        pytest.param(BackendIs("id-9"), change(VIEW, bucket_id="id-9"), id="BackendIs -> its id"),
        pytest.param(
            BackendIs("n", already_existed=True),
            change(VIEW, bucket_id="n", already_existed=True),
            id="BackendIs that existed -> its id is but the name",
        ),
        pytest.param(
            BackendGone(),
            change(VIEW, backend_gone=True),
            id="BackendGone -> gone, as far as is known",
        ),
        pytest.param(
            refused(),
            change(VIEW, failed=refused(), judged=GOING),
            id="CallFailed -> failed, for the Bucket as it was",
        ),
    ],
)
def test_a_fact_is_folded_into_the_view(fact: BucketFact, expected: BucketView) -> None:
    assert fold(VIEW, fact) == expected


def test_from_new_to_ready_is_two_steps_and_one_call() -> None:
    view = seen(BUCKET)
    assert plan(view) == KEEP
    view = fold(view, BucketIs(OURS))
    assert plan(view) == CREATE
    view = fold(view, BackendIs("id-7"))
    assert plan(view) == FINE


def test_what_the_server_just_said_of_a_bucket_is_no_old_copy() -> None:
    assert plan(fold(seen(OURS, unproven=True), BucketIs(OURS))) == CREATE


def test_id_of_the_record_wins_over_the_status_for_a_deletion() -> None:
    forged = with_entries(replace(GOING, bucket_id="forged"), gone=ENTRY)
    record = replace(forged.record or RECORD, accesses={})
    view = seen(replace(forged, record=record), claim=GOING_CLAIM)
    assert plan(view) == DELETE


def test_a_static_bucket_whose_claim_is_gone_is_released_and_says_how_to_free_it() -> None:
    stored = replace(meta(STATIC, finalizers=PROTECT), record=RECORD)
    view = seen(stored, claim=None)
    assert plan(view) == ReadClaim(CLAIM.meta.key)
    assert plan(fold(view, ClaimIs(CLAIM))) == FINE  # the cache was late
    step = plan(fold(view, ClaimIs(None)))
    assert isinstance(step, Done)
    assert isinstance(step.outcome, Terminal)
    assert step.outcome.reason is Reason.RELEASED
    assert f"kubectl patch bucket {STATIC.meta.name} --type merge" in step.outcome.message
    assert "BucketAccess" not in step.outcome.message


def test_a_released_bucket_names_the_accesses_that_still_have_keys() -> None:
    entries = {f"u-{n}": AccessRecord(namespace="ns", name=f"a{n}") for n in range(5)}
    record = replace(RECORD, accesses=entries)
    stored = replace(meta(STATIC, finalizers=PROTECT), record=record)
    step = plan(fold(seen(stored, claim=None), ClaimIs(None)))
    assert isinstance(step, Done)
    assert isinstance(step.outcome, Terminal)
    assert "because their keys work: ns/a0, ns/a1, ns/a2 and 2 more." in step.outcome.message


def test_a_released_bucket_is_ready_again_only_after_its_claim_was_read() -> None:
    """A list that is old can show the claim that is gone."""
    told = (Condition("Ready", "False", "Released", "", 1, STAMP),)
    view = seen(replace(meta(STATIC, finalizers=PROTECT), record=RECORD, conditions=told))
    assert plan(view) == ReadClaim(CLAIM.meta.key)
    assert plan(fold(view, ClaimIs(CLAIM))) == FINE


def test_a_dynamic_bucket_whose_claim_was_removed_by_force_is_released() -> None:
    assert f"kubectl patch bucket {READY.meta.name} --type merge" in released(READY)


def test_a_static_bucket_that_was_never_bound_is_not_released() -> None:
    free = replace(
        meta(STATIC, finalizers=PROTECT), claim=None, record=BucketRecord(bucket="b", driver=DRIVER)
    )
    assert plan(seen(free, claim=None)) == FINE
