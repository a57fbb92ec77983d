"""The next step for a BucketClaim, as a table; each id states its row's rule."""

from dataclasses import replace as change
from datetime import timedelta

import pytest
from msgspec.structs import replace
from tests.support.views import (
    BOUND_CLAIM,
    BUCKET,
    CLAIM,
    CLASS,
    DRIVER,
    ENTRY,
    GOING_ACCESS,
    GOING_CLAIM,
    GRANTED,
    IDENTITY,
    NOW,
    OURS,
    READY,
    READY_CLAIM,
    RECORD,
    STAMP,
    meta,
    with_entries,
)

from cosi_operator.api.record import AccessRecord, BucketRecord, ClaimIdentity
from cosi_operator.api.view import (
    Bucket,
    BucketAccess,
    BucketClaim,
    BucketClass,
    ClaimRef,
    Condition,
    DeletionPolicy,
    Key,
)
from cosi_operator.outcome import Reason, Requeue, Success, Terminal
from cosi_operator.plan import names, records
from cosi_operator.plan.claim import plan
from cosi_operator.plan.claim_view import (
    ClaimView,
    fold,
    former_buckets,
    ignored_change,
)
from cosi_operator.plan.facts import AccessDeleting, BucketIs, ClaimFact, ClaimIs, ClassIs, HolderIs
from cosi_operator.plan.sidecar_wait import BUSY_LOOK_S, HEAL_AFTER_S
from cosi_operator.plan.steps import (
    BindBucketObject,
    ClaimStep,
    CreateBucketObject,
    DeleteAccess,
    DeleteBucketObject,
    Done,
    EditFinalizers,
    ReadBucketObject,
    ReadClaim,
    ReadClass,
    ReadHolder,
    UpdateBucketObject,
)

KEY = CLAIM.meta.key
NOTHING = Done(Success(), report=False)
LEFT_TO_SIDECAR = Done(
    Requeue(Reason.WAITING_FOR_BUCKET, "", after_s=HEAL_AFTER_S, quiet=True), report=False
)
KEEP = EditFinalizers(KEY, add=(names.CLAIM_FINALIZER,))
LET_GO = EditFinalizers(KEY, remove=(names.CLAIM_FINALIZER,))
KEPT = meta(CLAIM, finalizers=(names.CLAIM_FINALIZER,))
NAME = BUCKET.meta.name
TOLD_CLAIM = replace(BOUND_CLAIM, observed_generation=1)
STATIC = replace(CLAIM, class_name="", existing_bucket_name="old")
KEPT_STATIC = meta(STATIC, finalizers=(names.CLAIM_FINALIZER,))
OLD = Bucket(meta(BUCKET, name="old", uid="old-uid").meta, driver_name=DRIVER)
DYNAMIC = "bucket-0f8fad5b-d9cb-469f-a165-70867728950e"
KEPT_DYNAMIC = replace(KEPT_STATIC, existing_bucket_name=DYNAMIC)
NOBODYS = meta(OLD, name=DYNAMIC)
BOUND_OLD = replace(OLD, claim=BUCKET.claim)
READY_OLD = replace(
    BOUND_OLD,
    ready=True,
    bucket_id="old-1",
    record=BucketRecord(bucket="old-uid", driver=DRIVER, claim=IDENTITY),
)
THEIR_IDENTITY = ClaimIdentity("team", "other", "other-uid")
OTHERS = replace(OLD, claim=ClaimRef("team", "other", "other-uid"))
OTHERS_RECORDED = replace(
    OTHERS, record=BucketRecord(bucket="old-uid", driver=DRIVER, claim=THEIR_IDENTITY)
)
FOREIGN_KEYS = BucketRecord(
    bucket="old-uid", driver=DRIVER, accesses={"a-uid": AccessRecord(namespace="other", name="a")}
)
EARLIER = ClaimIdentity("team", "photos", "earlier-uid")
EARLIER_REF = ClaimRef("team", "photos", "earlier-uid")
ASKED = {names.NEW_BUCKET_ANNOTATION: "claim-uid"}
RESTORED = {names.NEW_BUCKET_ANNOTATION: "earlier-uid"}
FORMER = replace(
    meta(READY, name="bucket-earlier-uid", uid="former-uid"),
    claim=EARLIER_REF,
    record=replace(RECORD, bucket="former-uid", claim=EARLIER),
)
GOING_STATIC = replace(meta(KEPT_STATIC, deleting=True), bucket_name="old")
DELETE_OLD = DeleteBucketObject(Key("", "old"), "old-uid")
BIND_OLD = BindBucketObject(Key("", "old"))
NEW_CLASS = replace(CLASS, parameters={"tier": "silver"})
OTHER_DRIVER = replace(CLASS, driver_name="other.example.com")


def seen(
    claim: BucketClaim | None,
    bucket: Bucket | None = None,
    *,
    accesses: tuple[BucketAccess, ...] = (),
    **more: object,
) -> ClaimView:
    given: dict[str, object] = {"bucket_class": CLASS, "now": NOW, "deleting_since": NOW, **more}
    return ClaimView(claim=claim, bucket=bucket, accesses=accesses, **given)  # type: ignore[arg-type]  # a table's shorthand


def failing(claim: BucketClaim) -> BucketClaim:
    """Its deletion has failed, and the sidecar says so."""
    ready = Condition("Ready", "False", "DriverInternal", "in use", 1, STAMP)
    return replace(claim, conditions=(ready,))


def read(*found: str) -> frozenset[str]:
    """The Buckets that this run has read."""
    return frozenset(found)


@pytest.mark.parametrize(
    ("view", "step"),
    [
        pytest.param(seen(None), NOTHING, id="the claim is gone -> nothing to do"),
        pytest.param(seen(CLAIM), KEEP, id="new -> the finalizer before the Bucket"),
        pytest.param(seen(KEPT), CreateBucketObject(NAME), id="held -> its Bucket is created"),
        pytest.param(
            seen(KEPT, unproven=True),
            ReadClaim(KEY),
            id="the copy may be stale -> read before a Bucket is created",
        ),
        pytest.param(
            seen(TOLD_CLAIM, OURS), NOTHING, id="bound -> the sidecar writes the claim's status"
        ),
        pytest.param(seen(READY_CLAIM, READY), NOTHING, id="ready -> no request"),
        pytest.param(
            seen(meta(READY_CLAIM, finalizers=()), READY),
            KEEP,
            id="the finalizer was stripped -> put back",
        ),
        pytest.param(
            seen(READY_CLAIM, READY, bucket_class=None),
            NOTHING,
            id="the class is removed later -> nothing changes",
        ),
        pytest.param(
            seen(READY_CLAIM, READY, bucket_class=NEW_CLASS),
            NOTHING,
            id="the class is changed later -> a ready Bucket is not touched",
        ),
        pytest.param(
            seen(BOUND_CLAIM, OURS, bucket_class=NEW_CLASS),
            UpdateBucketObject(Key("", NAME), DRIVER, {"tier": "silver"}),
            id="a repaired class -> reaches a Bucket without a backend",
        ),
        pytest.param(
            seen(TOLD_CLAIM, OURS, bucket_class=OTHER_DRIVER),
            NOTHING,
            id="the class names another driver, a sidecar holds the Bucket -> no change",
        ),
        pytest.param(
            seen(BOUND_CLAIM, BUCKET, bucket_class=OTHER_DRIVER),
            UpdateBucketObject(Key("", NAME), "other.example.com", {"tier": "gold"}),
            id="the class names another driver, no sidecar holds the Bucket -> changed",
        ),
        pytest.param(
            seen(TOLD_CLAIM, meta(OURS, deleting=True), bucket_class=NEW_CLASS),
            NOTHING,
            id="the Bucket is being deleted -> not repaired",
        ),
        pytest.param(
            seen(READY_CLAIM),
            ReadBucketObject(Key("", NAME)),
            id="only the cache lacks the Bucket -> read before it counts as lost",
        ),
        pytest.param(
            seen(CLAIM, bucket_class=None),
            ReadClass(Key("", "gold")),
            id="the cache lacks the class -> read before it counts as missing",
        ),
        pytest.param(
            fold(seen(KEPT, bucket_class=None), ClassIs(CLASS)),
            CreateBucketObject(NAME),
            id="the class was read -> the Bucket is created",
        ),
        pytest.param(
            seen(meta(READY_CLAIM, oversized=True), READY),
            NOTHING,
            id="too large to be read, but bound -> goes on",
        ),
        pytest.param(
            seen(replace(KEPT, bucket_name="bucket-of-another-tenant")),
            CreateBucketObject(NAME),
            id="the status names another Bucket -> its own is created",
        ),
        pytest.param(
            seen(READY_CLAIM, replace(READY, claim=None)),
            BindBucketObject(Key("", NAME)),
            id="spec.bucketClaim was cleared, the record names the claim -> written again",
        ),
        pytest.param(
            seen(READY_CLAIM, replace(READY, claim=ClaimRef("team", "photos"))),
            BindBucketObject(Key("", NAME)),
            id="the UID was cleared -> written again",
        ),
        pytest.param(
            seen(READY_CLAIM, replace(READY, claim=EARLIER_REF)),
            BindBucketObject(Key("", NAME)),
            id="spec names an earlier claim -> the recorded claim is written again",
        ),
    ],
)
def test_dynamic(view: ClaimView, step: ClaimStep) -> None:
    assert plan(view) == step


@pytest.mark.parametrize(
    ("view", "step"),
    [
        pytest.param(seen(STATIC, OLD), KEEP, id="new -> the finalizer before the binding"),
        pytest.param(seen(KEPT_STATIC, OLD), BIND_OLD, id="a free Bucket -> bound"),
        pytest.param(
            seen(KEPT_STATIC, OLD, unproven=True),
            ReadClaim(KEY),
            id="the copy may be stale -> read before a Bucket is bound",
        ),
        pytest.param(
            seen(KEPT_STATIC, replace(OLD, claim=ClaimRef("team", "photos"))),
            BIND_OLD,
            id="reserved for this claim without a UID -> bound",
        ),
        pytest.param(
            seen(replace(KEPT_STATIC, bucket_name="old", ready=True), READY_OLD),
            NOTHING,
            id="bound -> nothing to do",
        ),
        pytest.param(
            seen(
                replace(KEPT_STATIC, bucket_name="old", ready=True),
                replace(READY_OLD, parameters={"other": "1"}),
            ),
            NOTHING,
            id="an administrator's parameters -> not touched",
        ),
        pytest.param(
            seen(replace(KEPT_STATIC, class_name="gold"), OLD),
            BIND_OLD,
            id="both a class and a Bucket are named -> the Bucket is bound",
        ),
        pytest.param(
            seen(replace(KEPT_STATIC, bucket_name="old"), replace(READY_OLD, claim=None)),
            BIND_OLD,
            id="spec.bucketClaim was cleared, the record names the claim -> written again",
        ),
        pytest.param(
            seen(KEPT_STATIC, OTHERS_RECORDED),
            ReadHolder(THEIR_IDENTITY),
            id="the record names another claim -> that claim is read",
        ),
        pytest.param(
            seen(KEPT_STATIC, replace(OTHERS_RECORDED, claim=None), holder_alive=False),
            BIND_OLD,
            id="the recorded claim is gone and spec was cleared -> bound",
        ),
        pytest.param(
            seen(
                KEPT_STATIC,
                replace(OTHERS_RECORDED, claim=ClaimRef("team", "photos")),
                holder_alive=False,
            ),
            BIND_OLD,
            id="the recorded claim is gone, reserved for this claim -> bound",
        ),
        pytest.param(
            seen(KEPT_STATIC, replace(OTHERS_RECORDED, claim=BUCKET.claim), holder_alive=False),
            BIND_OLD,
            id="the recorded claim is gone, an administrator bound this claim -> bound",
        ),
        pytest.param(
            seen(KEPT_DYNAMIC, replace(NOBODYS, claim=ClaimRef("team", "photos"))),
            BindBucketObject(Key("", DYNAMIC)),
            id="a dynamic Bucket that was reserved for this claim -> bound",
        ),
    ],
)
def test_static(view: ClaimView, step: ClaimStep) -> None:
    assert plan(view) == step


TAKEN = "bound to another BucketClaim"


@pytest.mark.parametrize(
    ("view", "reason", "waiting", "words"),
    [
        pytest.param(
            seen(meta(CLAIM, oversized=True)),
            Reason.INVALID_OBJECT,
            False,
            "larger than 4 KiB",
            id="too large to be read -> InvalidObject",
        ),
        pytest.param(
            seen(replace(CLAIM, class_name="")),
            Reason.INVALID_SPEC,
            False,
            "both empty",
            id="neither class nor Bucket -> InvalidSpec",
        ),
        pytest.param(
            seen(CLAIM, bucket_class=None, class_read=True),
            Reason.CLASS_NOT_FOUND,
            True,
            "spec.bucketClassName names BucketClass gold",
            id="no such class -> BucketClassNotFound",
        ),
        pytest.param(
            seen(replace(CLAIM, class_name="No/Name"), bucket_class=None),
            Reason.CLASS_NOT_FOUND,
            True,
            "spec.bucketClassName names BucketClass No/Name",
            id="a name that no class can have -> BucketClassNotFound without a read",
        ),
        pytest.param(
            seen(replace(CLAIM, class_name="No\x1b[2J\u202e/" + "x" * 5000), bucket_class=None),
            Reason.CLASS_NOT_FOUND,
            True,
            r"BucketClass No\x1b[2J\u202e/" + "x" * 239 + "…, which",
            id="a long name with control characters -> escaped and cut",
        ),
        pytest.param(
            seen(CLAIM, bucket_class=replace(CLASS, unknown_policy="delete")),
            Reason.INVALID_CLASS,
            True,
            "deletionPolicy of BucketClass gold is 'delete'",
            id="a deletionPolicy that does not exist -> InvalidClass before anything is created",
        ),
        pytest.param(
            seen(KEPT, bucket_class=replace(CLASS, unknown_policy="Keep")),
            Reason.INVALID_CLASS,
            True,
            "'Keep'. Ask your cluster administrator to set it to Delete or Retain.",
            id="a deletionPolicy that does not exist, held -> InvalidClass",
        ),
        pytest.param(
            seen(STATIC),
            Reason.BUCKET_NOT_FOUND,
            True,
            "names Bucket old",
            id="no such Bucket -> BucketNotFound",
        ),
        pytest.param(
            seen(STATIC, meta(OLD, deleting=True)),
            Reason.BEING_DELETED,
            False,
            "Bucket old is being deleted",
            id="that Bucket is being deleted -> BeingDeleted",
        ),
        pytest.param(
            seen(STATIC, OTHERS),
            Reason.BUCKET_ALREADY_BOUND,
            False,
            TAKEN,
            id="that Bucket is another claim's -> BucketAlreadyBound",
        ),
        pytest.param(
            seen(STATIC, replace(OTHERS_RECORDED, claim=BUCKET.claim), holder_alive=True),
            Reason.BUCKET_ALREADY_BOUND,
            False,
            f"Bucket old is bound to an earlier BucketClaim {KEY}",
            id="the recorded claim exists, spec names this claim -> BucketAlreadyBound",
        ),
        pytest.param(
            seen(STATIC, replace(OTHERS_RECORDED, claim=None), holder_alive=True),
            Reason.BUCKET_ALREADY_BOUND,
            False,
            TAKEN,
            id="the recorded claim exists, spec was cleared -> BucketAlreadyBound",
        ),
        pytest.param(
            seen(STATIC, OTHERS_RECORDED, holder_alive=False),
            Reason.BUCKET_ALREADY_BOUND,
            False,
            TAKEN,
            id="the recorded claim is gone, spec still names it -> BucketAlreadyBound",
        ),
        pytest.param(
            seen(STATIC, replace(OLD, claim=ClaimRef("team", "other"))),
            Reason.BUCKET_ALREADY_BOUND,
            False,
            "reserved for another BucketClaim",
            id="that Bucket is reserved for another claim -> BucketAlreadyBound",
        ),
        pytest.param(
            seen(STATIC, replace(OLD, claim=ClaimRef("other", "photos"))),
            Reason.BUCKET_ALREADY_BOUND,
            False,
            "reserved for another BucketClaim",
            id="reserved for that name in another namespace -> BucketAlreadyBound",
        ),
        pytest.param(
            seen(STATIC, replace(OLD, claim=ClaimRef("other", ""))),
            Reason.BUCKET_ALREADY_BOUND,
            False,
            "reserved for another BucketClaim",
            id="reserved for another namespace -> BucketAlreadyBound",
        ),
        pytest.param(
            seen(STATIC, replace(OLD, claim=None, record=None), is_claimed=True),
            Reason.BUCKET_ALREADY_BOUND,
            False,
            TAKEN,
            id="the record is lost, an older claim has it -> BucketAlreadyBound",
        ),
        pytest.param(
            seen(KEPT_DYNAMIC, NOBODYS),
            Reason.BUCKET_ALREADY_BOUND,
            False,
            TAKEN,
            id="a dynamic Bucket, neither spec nor record names its claim -> BucketAlreadyBound",
        ),
        pytest.param(
            seen(STATIC, replace(OLD, record=FOREIGN_KEYS)),
            Reason.BUCKET_ALREADY_BOUND,
            True,
            "still have keys of Bucket old",
            id="keys of another namespace -> BucketAlreadyBound, waits",
        ),
        pytest.param(
            seen(STATIC, replace(OLD, claim=EARLIER_REF)),
            Reason.BUCKET_ALREADY_BOUND,
            False,
            "ask your cluster administrator to run: kubectl patch bucket old --type merge -p"
            ' \'{"spec":{"bucketClaim":{"namespace":"team","name":"photos","uid":"claim-uid"}}}\'',
            id="it was an earlier claim's of the same name -> BucketAlreadyBound, says how to bind",
        ),
        pytest.param(
            seen(CLAIM, replace(BUCKET, claim=None, record=None)),
            Reason.BUCKET_ALREADY_BOUND,
            False,
            "does not name this claim",
            id="a Bucket of the claim's name that is not its own -> not adopted",
        ),
        pytest.param(
            seen(READY_CLAIM, read=read(NAME)),
            Reason.BUCKET_LOST,
            False,
            "no longer exists",
            id="its Bucket is gone for sure -> BucketLost",
        ),
        pytest.param(
            seen(KEPT, meta(OURS, created=STAMP), now=NOW + timedelta(seconds=5)),
            Reason.WAITING_FOR_BUCKET,
            True,
            "is waiting for the sidecar of driver s3.example.com",
            id="no sidecar has written in 5 s -> WaitingForBucket",
        ),
        pytest.param(
            seen(meta(replace(BOUND_CLAIM, observed_generation=1), generation=2), BUCKET),
            Reason.WAITING_FOR_BUCKET,
            True,
            "is waiting for the sidecar of driver s3.example.com",
            id="the claim was changed, no sidecar has written -> WaitingForBucket",
        ),
        pytest.param(
            seen(KEPT, former=(FORMER,)),
            Reason.FORMER_BUCKET,
            False,
            f"Bucket bucket-earlier-uid belongs to an earlier BucketClaim {KEY} that no longer"
            " exists",
            id="a Bucket of an earlier claim -> FormerBucketFound, nothing is created",
        ),
        pytest.param(
            seen(meta(CLAIM, annotations=RESTORED), former=(FORMER,)),
            Reason.FORMER_BUCKET,
            False,
            "so no new bucket was created",
            id="annotation new-bucket of another claim -> a restored word decides nothing",
        ),
        pytest.param(
            seen(CLAIM, former=(FORMER,), bucket_class=None),
            Reason.FORMER_BUCKET,
            False,
            "kubectl annotate --overwrite bucketclaim photos -n team"
            f" objectstorage.k8s.io/new-bucket={KEPT.meta.uid}",
            id="a Bucket of an earlier claim -> says how to get a new one",
        ),
        pytest.param(
            seen(CLAIM, former=(FORMER,)),
            Reason.FORMER_BUCKET,
            False,
            "ask your cluster administrator to run: kubectl patch bucket bucket-earlier-uid"
            ' --type merge -p \'{"spec":{"bucketClaim":{"namespace":"team","name":"photos",'
            '"uid":"claim-uid"}}}\'',
            id="a Bucket of an earlier claim -> says how to use it",
        ),
    ],
)
def test_what_stands_in_the_way_is_named_with_its_field(
    view: ClaimView, reason: Reason, waiting: bool, words: str
) -> None:
    step = plan(view)
    assert isinstance(step, Done)
    assert step.report
    assert isinstance(step.outcome, Terminal)
    assert (step.outcome.reason, step.outcome.waiting) == (reason, waiting)
    assert words in step.outcome.message


@pytest.mark.parametrize(
    ("view", "step"),
    [
        pytest.param(
            seen(meta(KEPT, annotations=ASKED), former=(FORMER,)),
            CreateBucketObject(NAME),
            id="annotation new-bucket with the UID -> a new Bucket",
        ),
        pytest.param(
            seen(TOLD_CLAIM, OURS, former=(FORMER,)),
            NOTHING,
            id="a Bucket of its own -> the former one does not matter",
        ),
        pytest.param(
            seen(KEPT_STATIC, OLD, former=(FORMER,)),
            BIND_OLD,
            id="an existing Bucket is named -> the former one does not matter",
        ),
        pytest.param(
            seen(meta(KEPT, deleting=True), former=(FORMER,), read=read(NAME)),
            LET_GO,
            id="the claim is being deleted -> the former one does not hold it",
        ),
    ],
)
def test_former_bucket_does_not_matter(view: ClaimView, step: ClaimStep) -> None:
    assert plan(view) == step


@pytest.mark.parametrize(
    ("bucket", "is_former"),
    [
        pytest.param(FORMER, True, id="spec and record name an earlier claim -> former"),
        pytest.param(replace(FORMER, record=None), True, id="only spec names it -> former"),
        pytest.param(replace(FORMER, claim=None), True, id="only the record names it -> former"),
        pytest.param(
            replace(FORMER, claim=ClaimRef("team", "photos"), record=None),
            False,
            id="a reservation without a UID -> not former",
        ),
        pytest.param(meta(FORMER, deleting=True), False, id="being deleted -> not former"),
        pytest.param(READY, False, id="bound to this claim -> not former"),
        pytest.param(
            replace(READY, claim=EARLIER_REF),
            False,
            id="recorded for this claim, spec names an earlier one -> not former",
        ),
        pytest.param(
            replace(FORMER, claim=BUCKET.claim),
            True,
            id="spec names this claim, the record an earlier one -> former until it is recorded",
        ),
        pytest.param(OTHERS, False, id="another name -> not former"),
        pytest.param(
            replace(FORMER, claim=ClaimRef("other", "photos", "x"), record=None),
            False,
            id="another namespace -> not former",
        ),
        pytest.param(
            replace(FORMER, claim=None, record=None, copied_record=FORMER.record),
            False,
            id="only a copied record names it -> not former",
        ),
    ],
)
def test_which_buckets_are_former(bucket: Bucket, is_former: bool) -> None:
    assert former_buckets(CLAIM, [bucket]) == ((bucket,) if is_former else ())


def test_former_buckets_are_ordered_by_name() -> None:
    other = meta(FORMER, name="a")
    assert former_buckets(CLAIM, [FORMER, READY, other]) == (other, FORMER)


def test_forged_status_does_not_lead_to_another_tenants_bucket() -> None:
    forged = replace(meta(KEPT, deleting=True), bucket_name="old")
    view = seen(forged)
    assert plan(view) == ReadBucketObject(Key("", NAME))
    view = fold(view, BucketIs(None, NAME))
    assert plan(view) == ReadBucketObject(Key("", "old"))
    view = fold(view, BucketIs(OTHERS_RECORDED, "old"))
    assert plan(view) == LET_GO


def test_forged_status_with_a_name_that_no_bucket_can_have_is_not_read() -> None:
    forged = replace(meta(KEPT, deleting=True), bucket_name="../claims")
    assert plan(seen(forged, read=read(NAME))) == LET_GO


@pytest.mark.parametrize(
    ("view", "step"),
    [
        pytest.param(
            seen(meta(replace(GOING_CLAIM, ready=False), finalizers=("a/b",)), READY),
            NOTHING,
            id="no finalizer of ours -> not ours",
        ),
        pytest.param(
            seen(GOING_CLAIM),
            ReadBucketObject(Key("", NAME)),
            id="only the cache lacks its Bucket -> read before the claim is let go",
        ),
        pytest.param(
            seen(meta(KEPT, deleting=True)),
            ReadBucketObject(Key("", NAME)),
            id="no status: its creation got no answer -> the Bucket is read",
        ),
        pytest.param(
            seen(meta(KEPT_STATIC, deleting=True)),
            ReadBucketObject(Key("", "old")),
            id="static: its binding got no answer -> the Bucket is read",
        ),
        pytest.param(
            seen(GOING_CLAIM, read=read(NAME)), LET_GO, id="no Bucket -> the finalizer goes"
        ),
        pytest.param(
            seen(GOING_CLAIM, READY),
            DeleteBucketObject(Key("", NAME), "bucket-uid"),
            id="its Bucket -> deleted first",
        ),
        pytest.param(
            seen(GOING_CLAIM, replace(READY, deletion_policy=DeletionPolicy.RETAIN)),
            DeleteBucketObject(Key("", NAME), "bucket-uid"),
            id="policy Retain -> the Bucket object goes too, the sidecar keeps the data",
        ),
        pytest.param(
            seen(GOING_CLAIM, meta(READY, deleting=True)),
            LEFT_TO_SIDECAR,
            id="the Bucket is being deleted -> left to the sidecar at first",
        ),
        pytest.param(
            seen(
                GOING_CLAIM,
                meta(READY, deleting=True),
                now=NOW + timedelta(minutes=5),
                waiting_reported=True,
            ),
            NOTHING,
            id="a sidecar has replaced what the controller said -> not said again",
        ),
        pytest.param(
            seen(failing(GOING_CLAIM), meta(READY, deleting=True)),
            NOTHING,
            id="the sidecar has reported why it is not deleted -> nothing to do",
        ),
        pytest.param(
            seen(
                GOING_CLAIM,
                meta(READY, deleting=True),
                now=NOW + timedelta(seconds=HEAL_AFTER_S + 1),
                sidecar_wrote_at=NOW + timedelta(seconds=HEAL_AFTER_S),
            ),
            Done(
                Requeue(Reason.WAITING_FOR_BUCKET, "", after_s=BUSY_LOOK_S, quiet=True),
                report=False,
            ),
            id="the sidecar is at work on others -> it gets longer",
        ),
        pytest.param(
            seen(
                meta(KEPT, deleting=True), replace(BUCKET, claim=None, record=None), read=read(NAME)
            ),
            LET_GO,
            id="a Bucket that is not bound to it -> not deleted",
        ),
        pytest.param(
            seen(GOING_STATIC, OTHERS, read=read("old")),
            LET_GO,
            id="another claim's Bucket -> not deleted",
        ),
        pytest.param(
            seen(GOING_STATIC, BOUND_OLD), LET_GO, id="static with Retain -> the Bucket stays bound"
        ),
        pytest.param(
            seen(GOING_STATIC, replace(BOUND_OLD, deletion_policy=DeletionPolicy.DELETE)),
            DELETE_OLD,
            id="static with Delete -> the administrator asked for it",
        ),
        pytest.param(
            seen(GOING_STATIC, meta(BOUND_OLD, deleting=True)),
            LEFT_TO_SIDECAR,
            id="static, the Bucket is being deleted -> waited for",
        ),
        pytest.param(
            seen(GOING_STATIC, BOUND_OLD, accesses=(GRANTED,)),
            DeleteAccess(GRANTED.meta.key, "access-uid"),
            id="static with Retain -> accesses go before the claim",
        ),
        pytest.param(
            seen(GOING_CLAIM, replace(READY, claim=None)),
            DeleteBucketObject(Key("", NAME), "bucket-uid"),
            id="spec.bucketClaim was cleared -> the recorded Bucket is deleted",
        ),
        pytest.param(
            seen(GOING_CLAIM, replace(READY, record=replace(RECORD, claim=EARLIER))),
            ReadBucketObject(Key("", NAME)),
            id="only spec names the claim, the record another -> read, not deleted",
        ),
        pytest.param(
            seen(
                GOING_CLAIM, replace(READY, record=replace(RECORD, claim=EARLIER)), read=read(NAME)
            ),
            LET_GO,
            id="the record names another claim for sure -> not deleted",
        ),
    ],
)
def test_deletion(view: ClaimView, step: ClaimStep) -> None:
    assert plan(view) == step


@pytest.mark.parametrize("claim", [GOING_CLAIM, GOING_STATIC], ids=["dynamic", "static"])
def test_a_deletion_without_a_sidecar_names_the_driver_it_waits_for(claim: BucketClaim) -> None:
    bucket = READY if claim is GOING_CLAIM else BOUND_OLD
    later = NOW + timedelta(seconds=HEAL_AFTER_S)
    step = plan(seen(claim, meta(bucket, deleting=True), now=later))
    assert isinstance(step, Done)
    assert isinstance(step.outcome, Terminal)
    assert step.outcome.reason is Reason.WAITING_FOR_SIDECAR
    assert step.outcome.waiting
    assert DRIVER in step.outcome.message


@pytest.mark.parametrize(
    ("bucket", "accesses", "words"),
    [
        pytest.param(
            BOUND_OLD,
            (GOING_ACCESS,),
            "Not revoked yet: team/reader.",
            id="an access is being deleted -> named",
        ),
        pytest.param(
            with_entries(READY_OLD, access_uid=ENTRY),
            (),
            "Not revoked yet: team/reader.",
            id="an entry without an access -> named",
        ),
        pytest.param(
            with_entries(READY_OLD, access_uid=ENTRY, other=replace(ENTRY, name="writer")),
            (GOING_ACCESS,),
            "Not revoked yet: team/reader, team/writer.",
            id="both -> each is named once",
        ),
    ],
)
def test_a_static_claim_waits_for_its_accesses_and_names_them(
    bucket: Bucket, accesses: tuple[BucketAccess, ...], words: str
) -> None:
    step = plan(seen(GOING_STATIC, bucket, accesses=accesses))
    assert isinstance(step, Done)
    assert isinstance(step.outcome, Terminal)
    assert (step.outcome.reason, step.outcome.waiting) == (Reason.WAITING_FOR_ACCESSES, True)
    assert step.outcome.message.endswith(words)


def test_where_a_claim_leads() -> None:
    assert records.target_name(CLAIM) == "bucket-claim-uid"
    assert records.target_name(STATIC) == "old"
    assert records.target_name(replace(CLAIM, existing_bucket_name="old")) == "old"


VIEW = seen(GOING_CLAIM, READY, accesses=(GRANTED, meta(GRANTED, name="b", uid="b")), unproven=True)


@pytest.mark.parametrize(
    ("fact", "expected"),
    [
        pytest.param(
            ClaimIs(None), change(VIEW, claim=None, unproven=False), id="ClaimIs none -> gone"
        ),
        pytest.param(
            BucketIs(None, NAME),
            change(VIEW, bucket=None, read=read(NAME)),
            id="BucketIs none under its name -> gone for sure",
        ),
        pytest.param(
            BucketIs(None),
            change(VIEW, bucket=None, read=read("")),
            id="BucketIs none after a write -> the Bucket was removed at once",
        ),
        pytest.param(
            BucketIs(meta(READY, deleting=True)),
            change(VIEW, bucket=meta(READY, deleting=True), read=read("")),
            id="BucketIs after a write -> the Bucket as it now is",
        ),
        pytest.param(
            BucketIs(None, "old"),
            change(VIEW, read=read("old")),
            id="BucketIs none under another name -> the bound Bucket stays",
        ),
        pytest.param(
            BucketIs(OTHERS, "old"),
            change(VIEW, read=read("old")),
            id="BucketIs another that is not bound -> the bound Bucket stays",
        ),
        pytest.param(
            BucketIs(READY_OLD, "old"),
            change(VIEW, bucket=READY_OLD, read=read("old")),
            id="BucketIs another that is bound -> that Bucket",
        ),
        pytest.param(
            ClassIs(None),
            change(VIEW, bucket_class=None, class_read=True),
            id="ClassIs none -> read",
        ),
        pytest.param(
            HolderIs(alive=True), change(VIEW, holder_alive=True), id="HolderIs alive -> alive"
        ),
        pytest.param(
            AccessDeleting(GRANTED.meta.key),
            change(VIEW, accesses=(meta(GRANTED, deleting=True), meta(GRANTED, name="b", uid="b"))),
            id="AccessDeleting -> that one is being deleted",
        ),
    ],
)
def test_a_fact_is_folded_into_the_view(fact: ClaimFact, expected: ClaimView) -> None:
    assert fold(VIEW, fact) == expected


def test_bucket_without_a_finalizer_is_deleted_once() -> None:
    view = seen(GOING_CLAIM, BUCKET)
    assert plan(view) == DeleteBucketObject(Key("", NAME), "bucket-uid")
    view = fold(view, BucketIs(None))
    assert plan(view) == ReadBucketObject(Key("", NAME))
    view = fold(view, BucketIs(None, NAME))
    assert plan(view) == LET_GO


KEPT_BOUND = meta(
    replace(STATIC, ready=True, bucket_name="old"), finalizers=(names.CLAIM_FINALIZER,)
)
BARE_OLD = replace(
    BOUND_OLD,
    existing_bucket_id="id-7",
    bucket_id="id-7",
    ready=True,
    class_name="gold",
    parameters={},
)


@pytest.mark.parametrize(
    ("view", "step"),
    [
        pytest.param(
            seen(KEPT_BOUND, BARE_OLD),
            UpdateBucketObject(BARE_OLD.meta.key, DRIVER, dict(CLASS.parameters)),
            id="a static Bucket without parameters -> those of its class, as from the Go sidecar",
        ),
        pytest.param(
            seen(KEPT_BOUND, BARE_OLD, bucket_class=None),
            ReadClass(Key("", "gold")),
            id="its class is not in the cache -> read",
        ),
        pytest.param(
            seen(KEPT_BOUND, BARE_OLD, bucket_class=None, class_read=True),
            NOTHING,
            id="its class does not exist -> stays as it is",
        ),
        pytest.param(
            seen(KEPT_BOUND, replace(BARE_OLD, parameters={"tier": "own"})),
            NOTHING,
            id="it has parameters of its own -> they stay",
        ),
        pytest.param(
            seen(KEPT_BOUND, replace(BARE_OLD, class_name="")),
            NOTHING,
            id="it names no class -> stays as it is",
        ),
    ],
)
def test_parameters_of_a_static_bucket(view: ClaimView, step: ClaimStep) -> None:
    assert plan(view) == step


DELETES = replace(CLASS, deletion_policy=DeletionPolicy.DELETE)  # as READY was made


@pytest.mark.parametrize(
    ("claim", "bucket_class", "words"),
    [
        pytest.param(CLAIM, DELETES, (), id="the class is as it was -> nothing"),
        pytest.param(CLAIM, None, (), id="the class is gone -> nothing"),
        pytest.param(
            CLAIM,
            replace(DELETES, unknown_policy="delete"),
            (),
            id="the class can't be used -> its claims say so, not those that have a bucket",
        ),
        pytest.param(
            replace(STATIC, existing_bucket_name=NAME),
            replace(DELETES, parameters={}),
            (),
            id="an existing bucket has no class",
        ),
        pytest.param(
            STATIC,
            DELETES,
            (
                "existingBucketName was changed to old and is ignored, because the claim is bound"
                f" to Bucket {NAME}.",
            ),
            id="another existing bucket -> named",
        ),
        pytest.param(
            CLAIM,
            replace(DELETES, driver_name=DRIVER.upper()),
            (),
            id="the driver in other letters -> the same driver",
        ),
        pytest.param(
            CLAIM,
            replace(DELETES, driver_name="other", parameters={"tier": "s3cr3t"}),
            ("differs from the bucket in driverName, parameters.",),
            id="driver and parameters -> named, without their values",
        ),
        pytest.param(
            CLAIM,
            replace(DELETES, deletion_policy=DeletionPolicy.RETAIN),
            (
                "in deletionPolicy.",
                "The deletionPolicy of the bucket is Delete.",
                f"edit Bucket {NAME}.",
            ),
            id="deletionPolicy -> what becomes of the data is said",
        ),
        pytest.param(
            replace(CLAIM, class_name="silver"),
            None,
            ("spec.bucketClassName was changed to silver and is ignored", "BucketClass gold."),
            id="the claim names another class",
        ),
    ],
)
def test_which_change_is_said_to_be_ignored(
    claim: BucketClaim, bucket_class: BucketClass | None, words: tuple[str, ...]
) -> None:
    text = ignored_change(claim, READY, bucket_class)
    assert all(word in text for word in words)
    assert bool(text) == bool(words)
    assert "s3cr3t" not in text
