"""The next step for a Bucket, as a table; each id is the rule that its row states."""

from dataclasses import replace as change
from datetime import timedelta

import pytest
from msgspec.structs import replace
from tests.support.views import (
    AWAY,
    BACKING_OFF,
    BUCKET,
    CLAIM,
    GOING,
    GOING_ACCESS,
    GOING_CLAIM,
    GRANTED,
    NOW,
    OURS,
    READY,
    READY_CLAIM,
    REF,
    UP,
    judged,
    meta,
    with_context,
)

from cosi_operator.api.view import Bucket, BucketAccess, DeletionPolicy, Key
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
from cosi_operator.plan.bucket import BucketView, fold, plan, retry_token
from cosi_operator.plan.steps import (
    AccessDeleting,
    AccessIs,
    BackendGone,
    BackendIs,
    BucketIs,
    BucketStep,
    ClaimIs,
    Context,
    CreateBackend,
    DeleteAccess,
    DeleteBackend,
    Done,
    EditFinalizers,
    Fact,
    Granted,
    ListAccesses,
    MarkPending,
    ReadBucketObject,
    ReleaseClaim,
    Revoked,
    SecretAllowed,
    SecretIs,
)

KEY = BUCKET.meta.key
NOTHING = Done(Success(), report=False)
FINE = Done(Success())
CREATE = CreateBackend(KEY.name, {"tier": "gold"})
RESOLVE = CreateBackend(KEY.name, {"tier": "gold"}, resolving=True)
DELETE = DeleteBackend("id-7", {"tier": "gold"})
KEEP = EditFinalizers(KEY, add=(names.BUCKET_FINALIZER,))
LET_GO = EditFinalizers(KEY, remove=(names.BUCKET_FINALIZER,))
RELEASE = ReleaseClaim(Key("team", "photos"), "claim-uid")
GOING_NEW = meta(OURS, deleting=True, generation=2)
RETAINED = replace(GOING, deletion_policy=DeletionPolicy.RETAIN)
STATIC = replace(BUCKET, existing_bucket_id="old-1", deletion_policy=DeletionPolicy.RETAIN)
GOING_STATIC = replace(
    meta(STATIC, deleting=True, finalizers=(names.BUCKET_FINALIZER,)),
    bucket_id="old-1",
    ready=True,
)
WAIT = Done(Requeue(Reason.DRIVER_UNREACHABLE, "", after_s=12.5, quiet=True), report=False)
REFUSED_CREATE = replace(OURS, last_call=judged(Call.CREATE_BUCKET))
UNSURE_CREATE = replace(
    OURS, last_call=judged(Call.CREATE_BUCKET, Code.UNKNOWN, effect=Effect.MAYBE)
)


def seen(
    bucket: Bucket | None,
    context: Context = UP,
    *,
    accesses: tuple[BucketAccess, ...] = (),
    **more: object,
) -> BucketView:
    """A view with the claim that the Bucket names."""
    given: dict[str, object] = {"claim": READY_CLAIM, **more}
    return BucketView(bucket=bucket, accesses=accesses, context=context, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("view", "step"),
    [
        pytest.param(seen(None), NOTHING, id="a Bucket that is gone needs nothing"),
        pytest.param(
            seen(replace(BUCKET, driver_name="other.example.com")),
            NOTHING,
            id="another driver's Bucket is not touched, not even its status",
        ),
        pytest.param(
            seen(replace(GOING, driver_name="other.example.com")),
            NOTHING,
            id="another driver's finalizers stay",
        ),
        pytest.param(
            seen(replace(BUCKET, driver_name="S3.Example.COM")),
            KEEP,
            id="driver names are compared without regard to case",
        ),
        pytest.param(seen(BUCKET), KEEP, id="the finalizer goes on before the first driver call"),
        pytest.param(seen(OURS), CREATE, id="then the driver is asked for a bucket"),
        pytest.param(
            seen(OURS, unproven=True),
            ReadBucketObject(OURS.meta.key),
            id="a copy that may be old is read before the driver is asked",
        ),
        pytest.param(
            seen(OURS, bucket_id="id-7"), FINE, id="the driver's id is reported, and that is all"
        ),
        pytest.param(seen(READY), FINE, id="a ready Bucket costs no driver call"),
        pytest.param(
            seen(meta(READY, finalizers=())), KEEP, id="a finalizer that was lost is put back"
        ),
        pytest.param(
            seen(replace(READY, bucket_id="")),
            CREATE,
            id="ready without an id is not believed: Create tells the id",
        ),
        pytest.param(
            seen(replace(READY, ready=False)),
            CREATE,
            id="an id without ready is not believed: Create is safe to repeat",
        ),
        pytest.param(seen(STATIC), KEEP, id="static: protected like any other"),
        pytest.param(
            seen(meta(STATIC, finalizers=(names.BUCKET_FINALIZER,))),
            FINE,
            id="static: ready without a driver call",
        ),
        pytest.param(
            seen(meta(STATIC, finalizers=(names.BUCKET_FINALIZER,)), AWAY),
            FINE,
            id="static: ready even while the driver is away",
        ),
        pytest.param(
            seen(replace(OURS, claim=None), claim=None), CREATE, id="a Bucket without a claim"
        ),
    ],
)
def test_creation(view: BucketView, step: BucketStep) -> None:
    assert plan(view) == step


@pytest.mark.parametrize(
    ("view", "step"),
    [
        pytest.param(
            seen(GOING), DELETE, id="policy Delete: the backend goes before the finalizer"
        ),
        pytest.param(
            seen(GOING, backend_gone=True), LET_GO, id="the finalizer goes when the backend is gone"
        ),
        pytest.param(seen(RETAINED), LET_GO, id="policy Retain: the driver is not asked"),
        pytest.param(
            seen(RETAINED, AWAY), LET_GO, id="policy Retain: not even a driver that is away"
        ),
        pytest.param(
            seen(GOING, claim=GOING_CLAIM, backend_gone=True),
            RELEASE,
            id="a claim that is deleted is released when its backend is gone",
        ),
        pytest.param(
            seen(RETAINED, claim=GOING_CLAIM), RELEASE, id="a claim is released with Retain, too"
        ),
        pytest.param(
            seen(GOING, claim=GOING_CLAIM),
            DELETE,
            id="a claim is not released while its backend is there",
        ),
        pytest.param(
            seen(GOING, claim=meta(GOING_CLAIM, finalizers=("a/b",)), backend_gone=True),
            LET_GO,
            id="a claim that was released is released once",
        ),
        pytest.param(
            seen(meta(GOING, finalizers=())), NOTHING, id="without a finalizer of ours: not ours"
        ),
        pytest.param(
            seen(meta(GOING, finalizers=("a/b",))), NOTHING, id="finalizers of others stay"
        ),
        pytest.param(
            seen(
                meta(GOING, finalizers=(names.BUCKET_FINALIZER, names.BUCKET_ACCESS_FINALIZER)),
            ),
            ListAccesses("team"),
            id="a mark without accesses: the list of them may be old",
        ),
        pytest.param(
            seen(
                meta(GOING, finalizers=(names.BUCKET_FINALIZER, names.BUCKET_ACCESS_FINALIZER)),
                backend_gone=True,
                listed=True,
            ),
            EditFinalizers(KEY, remove=(names.BUCKET_ACCESS_FINALIZER, names.BUCKET_FINALIZER)),
            id="a mark that no access needs any more goes too",
        ),
        pytest.param(
            seen(meta(GOING, finalizers=(names.BUCKET_ACCESS_FINALIZER,)), listed=True),
            EditFinalizers(KEY, remove=(names.BUCKET_ACCESS_FINALIZER,)),
            id="a mark alone: the bucket itself was never ours to delete",
        ),
        pytest.param(
            seen(GOING, accesses=(GRANTED,)),
            DeleteAccess(GRANTED.meta.key, "access-uid"),
            id="accesses go before the bucket",
        ),
        pytest.param(
            seen(RETAINED, accesses=(GRANTED,)),
            DeleteAccess(GRANTED.meta.key, "access-uid"),
            id="accesses go with Retain, too",
        ),
        pytest.param(seen(GOING_STATIC), LET_GO, id="static with Retain: the backend bucket stays"),
        pytest.param(
            seen(replace(GOING_STATIC, deletion_policy=DeletionPolicy.DELETE)),
            DeleteBackend("old-1", {"tier": "gold"}),
            id="static with Delete: the administrator asked for it",
        ),
        pytest.param(
            seen(replace(GOING_STATIC, deletion_policy=DeletionPolicy.DELETE), unproven=True),
            ReadBucketObject(GOING_STATIC.meta.key),
            id="static: a copy that may be old is read, its id may be someone else's by now",
        ),
        pytest.param(
            seen(replace(GOING_STATIC, deletion_policy=DeletionPolicy.DELETE, bucket_id="")),
            DeleteBackend("old-1", {"tier": "gold"}),
            id="static that never was reported: the id stands in the spec",
        ),
    ],
)
def test_deletion(view: BucketView, step: BucketStep) -> None:
    assert plan(view) == step


def test_deletion_waits_for_accesses_and_names_them() -> None:
    failing = replace(
        GOING_ACCESS, conditions=(replace(READY.conditions[0], reason="DriverInternal"),)
    )
    others = tuple(meta(GOING_ACCESS, name=f"a{n}", uid=f"u{n}") for n in range(6))
    step = plan(seen(GOING, accesses=(failing, *others)))
    assert isinstance(step, Done)
    assert isinstance(step.outcome, Terminal)
    assert step.outcome.reason is Reason.WAITING_FOR_ACCESSES
    assert step.outcome.waiting
    assert "team/reader (DriverInternal), team/a0, " in step.outcome.message
    assert "and 2 more" in step.outcome.message


def test_an_access_to_another_bucket_neither_blocks_a_deletion_nor_is_deleted() -> None:
    # A retained Bucket keeps the name of its old claim; a new claim may have taken that name.
    others = meta(GRANTED, annotations={names.BUCKET_ID_ANNOTATION: "id-8"})
    assert plan(seen(GOING, accesses=(others,), claim=None)) == DELETE


def test_an_access_of_the_go_sidecar_has_no_recorded_bucket_and_counts() -> None:
    old = meta(GRANTED, annotations={})
    assert plan(seen(GOING, accesses=(old,))) == DeleteAccess(old.meta.key, old.meta.uid)


@pytest.mark.parametrize(
    ("view", "step"),
    [
        pytest.param(
            seen(GOING_NEW, unproven=True),
            ReadBucketObject(KEY),
            id="before a Create whose end is unknown is asked again, the copy is read",
        ),
        pytest.param(
            seen(GOING_NEW), RESOLVE, id="a Create whose end is unknown is asked again for the id"
        ),
        pytest.param(
            seen(meta(UNSURE_CREATE, deleting=True, generation=2)),
            RESOLVE,
            id="a failure that may have changed the backend is asked again",
        ),
        pytest.param(
            seen(
                meta(
                    replace(
                        UNSURE_CREATE,
                        last_call=judged(Call.CREATE_BUCKET, outcome="Pending"),
                    ),
                    deleting=True,
                )
            ),
            RESOLVE,
            id="a Create that was about to be made is asked again",
        ),
        pytest.param(
            seen(meta(REFUSED_CREATE, deleting=True, generation=2)),
            LET_GO,
            id="a Create that changed nothing leaves nothing to delete",
        ),
        pytest.param(
            seen(GOING_NEW, bucket_id="id-7"), DELETE, id="the id that was learned is deleted"
        ),
        pytest.param(
            seen(GOING_NEW, backend_gone=True, unverified=True),
            LET_GO,
            id="a driver that will not tell does not block the deletion for ever",
        ),
        pytest.param(
            seen(replace(GOING_NEW, deletion_policy=DeletionPolicy.RETAIN)),
            LET_GO,
            id="with Retain there is nothing to learn",
        ),
        pytest.param(seen(GOING_NEW, BACKING_OFF), WAIT, id="asking again keeps to its backoff"),
        pytest.param(
            seen(replace(GOING_NEW, last_call=judged(Call.DELETE_BUCKET, generation=2))),
            Done(
                Terminal(
                    Reason.DRIVER_PERMISSION_DENIED,
                    "",
                    recheck_s=600.0,
                    status=DriverStatus(Call.DELETE_BUCKET, Code.PERMISSION_DENIED, MadeBy.DRIVER),
                ),
                report=False,
            ),
            id="a final Delete stands, though the id that it was sent is not known any more",
        ),
    ],
)
def test_deletion_after_a_create_whose_end_is_not_known(view: BucketView, step: BucketStep) -> None:
    assert plan(view) == step


BUCKETS = [
    replace(
        meta(BUCKET, deleting=deleting, finalizers=finalizers),
        bucket_id=bucket_id,
        ready=ready,
        last_call=last_call,
        deletion_policy=policy,
    )
    for deleting in (False, True)
    for finalizers in ((), (names.BUCKET_FINALIZER,), (names.BUCKET_ACCESS_FINALIZER,))
    for bucket_id in ("", "id-7")
    for ready in (False, True)
    for last_call in (None, REFUSED_CREATE.last_call, UNSURE_CREATE.last_call)
    for policy in DeletionPolicy
]


def test_no_state_of_a_bucket_makes_a_delete_without_an_id_or_a_call_without_a_finalizer() -> None:
    for bucket in BUCKETS:
        for gone in (False, True):
            step = plan(seen(bucket, backend_gone=gone))
            if isinstance(step, DeleteBackend):
                assert step.bucket_id
                assert bucket.meta.deleting
                assert bucket.deletion_policy is DeletionPolicy.DELETE
            if isinstance(step, DeleteBackend | CreateBackend | MarkPending):
                assert names.BUCKET_FINALIZER in bucket.meta.finalizers
                assert not gone


def stored(call: Call, *, recheck_s: float | None = None) -> Done:
    """The end of a run in which a stored verdict still stands."""
    status = DriverStatus(call, Code.PERMISSION_DENIED, MadeBy.DRIVER)
    verdict = Terminal(
        Reason.DRIVER_PERMISSION_DENIED, "told before", recheck_s=recheck_s, status=status
    )
    return Done(verdict, report=False)


TOLD = (replace(READY.conditions[0], status="False", message="told before"),)
STANDING = replace(REFUSED_CREATE, conditions=TOLD)
AGAIN = MarkPending(Call.CREATE_BUCKET)
CLAIM_ASKS = meta(READY_CLAIM, annotations={names.RETRY_ANNOTATION: "1"})


def asked(bucket: Bucket, token: str = "1") -> Bucket:
    return meta(bucket, annotations={names.RETRY_ANNOTATION: token})


@pytest.mark.parametrize(
    ("view", "step"),
    [
        pytest.param(
            seen(STANDING),
            stored(Call.CREATE_BUCKET),
            id="a final verdict stands: no call, no write, over restarts",
        ),
        pytest.param(
            seen(meta(STANDING, finalizers=())),
            stored(Call.CREATE_BUCKET),
            id="a final verdict stands before the finalizer is looked at",
        ),
        pytest.param(
            seen(STANDING, AWAY),
            stored(Call.CREATE_BUCKET),
            id="a final verdict stands while the driver is away",
        ),
        pytest.param(seen(meta(STANDING, generation=2)), AGAIN, id="a change of the spec wakes it"),
        pytest.param(seen(asked(STANDING)), AGAIN, id="the retry annotation wakes it"),
        pytest.param(
            seen(STANDING, claim=CLAIM_ASKS), AGAIN, id="the claim's retry annotation wakes it"
        ),
        pytest.param(
            seen(asked(replace(STANDING, last_call=judged(Call.CREATE_BUCKET, retry_token="1|")))),
            stored(Call.CREATE_BUCKET),
            id="a retry annotation wakes it once",
        ),
        pytest.param(
            seen(
                asked(
                    replace(STANDING, last_call=judged(Call.CREATE_BUCKET, retry_token="1|")), "2"
                )
            ),
            AGAIN,
            id="any new value of the annotation wakes it again",
        ),
        pytest.param(
            seen(STANDING, with_context(instance="two")),
            AGAIN,
            id="a new driver process wakes it",
        ),
        pytest.param(
            seen(STANDING, with_context(recheck_s=60.0, now=NOW + timedelta(seconds=59))),
            stored(Call.CREATE_BUCKET, recheck_s=1.0),
            id="before its recheck it stands, and says how long",
        ),
        pytest.param(
            seen(STANDING, with_context(recheck_s=60.0, now=NOW + timedelta(seconds=60))),
            AGAIN,
            id="when its recheck is due it is asked again",
        ),
        pytest.param(
            seen(STANDING, with_context(recheck_s=None, now=NOW + timedelta(days=900))),
            stored(Call.CREATE_BUCKET),
            id="without a recheck it stands for ever",
        ),
        pytest.param(
            seen(
                replace(STANDING, last_call=judged(Call.CREATE_BUCKET, time="yesterday")),
                with_context(recheck_s=60.0),
            ),
            AGAIN,
            id="a time that can't be read never holds a recheck up",
        ),
        pytest.param(
            seen(replace(STANDING, last_call=judged(Call.CREATE_BUCKET, outcome="Requeue"))),
            CREATE,
            id="a verdict that was not final does not stand after a restart",
        ),
        pytest.param(
            seen(replace(UNSURE_CREATE), with_context(instance="two")),
            CREATE,
            id="a verdict that denied nothing needs no mark before the next call",
        ),
        pytest.param(
            seen(
                replace(GOING, last_call=judged(Call.DELETE_BUCKET, generation=2), conditions=TOLD)
            ),
            stored(Call.DELETE_BUCKET, recheck_s=600.0),
            id="a final Delete stands until its own recheck",
        ),
        pytest.param(
            seen(
                replace(GOING, last_call=judged(Call.DELETE_BUCKET, generation=2)),
                with_context(now=NOW + timedelta(seconds=601)),
            ),
            DELETE,
            id="a Delete is asked again when its recheck is due: the bucket may be empty by now",
        ),
        pytest.param(
            seen(replace(GOING, last_call=judged(Call.CREATE_BUCKET, generation=2))),
            DELETE,
            id="a verdict on another call does not stand in the way",
        ),
        pytest.param(seen(OURS, BACKING_OFF), WAIT, id="a running backoff is waited out"),
        pytest.param(seen(BUCKET, BACKING_OFF), WAIT, id="a backoff before the finalizer, too"),
        pytest.param(seen(READY, BACKING_OFF), FINE, id="a ready Bucket has nothing to wait for"),
        pytest.param(seen(GOING, BACKING_OFF), WAIT, id="a Delete keeps to its backoff"),
    ],
)
def test_a_verdict_stands_until_something_changes(view: BucketView, step: BucketStep) -> None:
    assert plan(view) == step


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(seen(BUCKET, AWAY), id="new"),
        pytest.param(seen(OURS, AWAY), id="waiting for its id"),
        pytest.param(seen(GOING, AWAY), id="being deleted"),
        pytest.param(seen(GOING_NEW, AWAY), id="being deleted, id unknown"),
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
        pytest.param("", "", "", id="none"),
        pytest.param("1", "", "1|", id="the Bucket's"),
        pytest.param("", "1", "|1", id="the claim's is another token than the Bucket's"),
        pytest.param("1", "2", "1|2", id="both count"),
    ],
)
def test_retry_annotations_of_bucket_and_claim(own: str, claimed: str, token: str) -> None:
    bucket = asked(BUCKET, own) if own else BUCKET
    claim = meta(CLAIM, annotations={names.RETRY_ANNOTATION: claimed}) if claimed else CLAIM
    assert retry_token(bucket, claim) == token
    assert retry_token(BUCKET, None) == ""


VIEW = seen(GOING, accesses=(GRANTED, meta(GRANTED, name="b", uid="b")))


@pytest.mark.parametrize(
    ("fact", "expected"),
    [
        pytest.param(BucketIs(OURS), change(VIEW, bucket=OURS), id="a Bucket as it now is"),
        pytest.param(ClaimIs(None), change(VIEW, claim=None), id="a claim that is gone"),
        pytest.param(
            AccessDeleting(GRANTED.meta.key),
            change(
                VIEW,
                accesses=(meta(GRANTED, deleting=True), meta(GRANTED, name="b", uid="b")),
            ),
            id="an access that is now being deleted",
        ),
        pytest.param(BackendIs("id-9"), change(VIEW, bucket_id="id-9"), id="an id"),
        pytest.param(
            BackendIs("n", already_existed=True),
            change(VIEW, bucket_id="n", already_existed=True),
            id="an id that is but the name",
        ),
        pytest.param(
            BackendGone(unverified=True),
            change(VIEW, backend_gone=True, unverified=True),
            id="a backend that is gone, as far as is known",
        ),
    ],
)
def test_a_fact_is_folded_into_the_view(fact: Fact, expected: BucketView) -> None:
    assert fold(VIEW, fact) == expected


@pytest.mark.parametrize(
    "fact",
    [AccessIs(None), Granted("a"), Revoked(), SecretIs(exists=False), SecretAllowed()],
    ids=lambda fact: type(fact).__name__,
)
def test_a_fact_of_another_kind_is_a_bug(fact: Fact) -> None:
    with pytest.raises(AssertionError, match="no step of a Bucket"):
        fold(VIEW, fact)


def test_from_new_to_ready_is_two_steps_and_one_call() -> None:
    view = seen(BUCKET)
    assert plan(view) == KEEP
    view = fold(view, BucketIs(OURS))
    assert plan(view) == CREATE
    view = fold(view, BackendIs("id-7"))
    assert plan(view) == FINE


def test_an_unbound_bucket_is_deleted_with_its_accesses_looked_up_by_nobody() -> None:
    lonely = replace(GOING, claim=REF)
    assert plan(seen(lonely, claim=None)) == DELETE


def test_what_the_server_just_said_of_a_bucket_is_no_old_copy() -> None:
    assert plan(fold(seen(OURS, unproven=True), BucketIs(OURS))) == CREATE
