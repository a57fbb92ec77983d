"""The next step for a BucketClaim, as a table; each id is the rule that its row states."""

from dataclasses import replace as change
from datetime import timedelta

import pytest
from msgspec.structs import replace
from tests.support.views import (
    BOUND_CLAIM,
    BUCKET,
    CLAIM,
    CLASS,
    GOING_ACCESS,
    GOING_CLAIM,
    GRANTED,
    NOW,
    OURS,
    READY,
    READY_CLAIM,
    STAMP,
    meta,
)

from cosi_operator.api.view import Bucket, BucketAccess, BucketClaim, ClaimRef, DeletionPolicy, Key
from cosi_operator.outcome import Reason, Success, Terminal
from cosi_operator.plan import names
from cosi_operator.plan.claim import ClaimView, fold, plan, target_name
from cosi_operator.plan.steps import (
    AccessDeleting,
    AccessIs,
    BackendGone,
    BackendIs,
    BindBucketObject,
    BucketIs,
    ClaimIs,
    ClaimStep,
    CreateBucketObject,
    DeleteAccess,
    DeleteBucketObject,
    Done,
    EditFinalizers,
    Fact,
    Granted,
    ReadBucketObject,
    ReadClaim,
    Revoked,
    SecretAllowed,
    SecretIs,
    UpdateBucketObject,
)

KEY = CLAIM.meta.key
NOTHING = Done(Success(), report=False)
KEEP = EditFinalizers(KEY, add=(names.CLAIM_FINALIZER,))
LET_GO = EditFinalizers(KEY, remove=(names.CLAIM_FINALIZER,))
KEPT = meta(CLAIM, finalizers=(names.CLAIM_FINALIZER,))
NAME = BUCKET.meta.name
TOLD_CLAIM = replace(BOUND_CLAIM, observed_generation=1)
STATIC = replace(CLAIM, class_name="", existing_bucket_name="old")
KEPT_STATIC = meta(STATIC, finalizers=(names.CLAIM_FINALIZER,))
OLD = Bucket(meta(BUCKET, name="old", uid="old-uid").meta, driver_name=BUCKET.driver_name)
BOUND_OLD = replace(OLD, claim=BUCKET.claim)
READY_OLD = replace(BOUND_OLD, ready=True, bucket_id="old-1")
OTHERS = replace(OLD, claim=ClaimRef("team", "other", "other-uid"))
GOING_STATIC = replace(meta(KEPT_STATIC, deleting=True), bucket_name="old")
DELETE_OLD = DeleteBucketObject(Key("", "old"), "old-uid")
NEW_CLASS = replace(CLASS, parameters={"tier": "silver"})
OTHER_DRIVER = replace(CLASS, driver_name="other.example.com")


def seen(
    claim: BucketClaim | None,
    bucket: Bucket | None = None,
    *,
    accesses: tuple[BucketAccess, ...] = (),
    **more: object,
) -> ClaimView:
    given: dict[str, object] = {"bucket_class": CLASS, "now": NOW, **more}
    return ClaimView(claim=claim, bucket=bucket, accesses=accesses, **given)  # type: ignore[arg-type]  # a table's shorthand


@pytest.mark.parametrize(
    ("view", "step"),
    [
        pytest.param(seen(None), NOTHING, id="a claim that is gone needs nothing"),
        pytest.param(seen(CLAIM), KEEP, id="the finalizer goes on before the Bucket is made"),
        pytest.param(seen(KEPT), CreateBucketObject(NAME), id="then its Bucket is made"),
        pytest.param(
            seen(KEPT, unproven=True),
            ReadClaim(KEY),
            id="a copy that may be old is read before a Bucket is made",
        ),
        pytest.param(
            seen(TOLD_CLAIM, OURS), NOTHING, id="the sidecar tells a claim how its Bucket fares"
        ),
        pytest.param(seen(READY_CLAIM, READY), NOTHING, id="a ready claim costs nothing"),
        pytest.param(
            seen(meta(READY_CLAIM, finalizers=()), READY),
            KEEP,
            id="a finalizer that was lost is put back",
        ),
        pytest.param(
            seen(READY_CLAIM, READY, bucket_class=None),
            NOTHING,
            id="a class that is removed later changes nothing",
        ),
        pytest.param(
            seen(READY_CLAIM, READY, bucket_class=NEW_CLASS),
            NOTHING,
            id="a class that is changed later does not touch a Bucket that is ready",
        ),
        pytest.param(
            seen(BOUND_CLAIM, OURS, bucket_class=NEW_CLASS),
            UpdateBucketObject(Key("", NAME), BUCKET.driver_name, {"tier": "silver"}),
            id="a repaired class reaches a Bucket without a backend",
        ),
        pytest.param(
            seen(TOLD_CLAIM, OURS, bucket_class=OTHER_DRIVER),
            NOTHING,
            id="the driver of a Bucket that a sidecar has taken on does not change",
        ),
        pytest.param(
            seen(BOUND_CLAIM, BUCKET, bucket_class=OTHER_DRIVER),
            UpdateBucketObject(Key("", NAME), "other.example.com", {"tier": "gold"}),
            id="the driver may change while no sidecar has taken the Bucket on",
        ),
        pytest.param(
            seen(TOLD_CLAIM, meta(OURS, deleting=True), bucket_class=NEW_CLASS),
            NOTHING,
            id="a Bucket that is being deleted is not repaired",
        ),
        pytest.param(
            seen(READY_CLAIM),
            ReadBucketObject(Key("", NAME)),
            id="a Bucket that only the cache lacks is looked for before it counts as lost",
        ),
    ],
)
def test_dynamic(view: ClaimView, step: ClaimStep) -> None:
    assert plan(view) == step


@pytest.mark.parametrize(
    ("view", "step"),
    [
        pytest.param(seen(STATIC, OLD), KEEP, id="the finalizer goes on before the binding"),
        pytest.param(
            seen(KEPT_STATIC, OLD), BindBucketObject(Key("", "old")), id="a free Bucket is bound"
        ),
        pytest.param(
            seen(KEPT_STATIC, OLD, unproven=True),
            ReadClaim(KEY),
            id="a copy that may be old is read before a Bucket is bound",
        ),
        pytest.param(
            seen(KEPT_STATIC, replace(OLD, claim=ClaimRef("team", "photos"))),
            BindBucketObject(Key("", "old")),
            id="a Bucket that is reserved for this claim's name is bound",
        ),
        pytest.param(
            seen(replace(KEPT_STATIC, bucket_name="old", ready=True), READY_OLD),
            NOTHING,
            id="bound is bound",
        ),
        pytest.param(
            seen(
                replace(KEPT_STATIC, bucket_name="old", ready=True),
                replace(READY_OLD, parameters={"other": "1"}),
            ),
            NOTHING,
            id="the parameters of an administrator's Bucket are not touched",
        ),
    ],
)
def test_static(view: ClaimView, step: ClaimStep) -> None:
    assert plan(view) == step


@pytest.mark.parametrize(
    ("view", "reason", "waiting", "words"),
    [
        pytest.param(
            seen(replace(CLAIM, class_name="")),
            Reason.INVALID_SPEC,
            False,
            "both empty",
            id="neither class nor Bucket",
        ),
        pytest.param(
            seen(replace(CLAIM, existing_bucket_name="old")),
            Reason.INVALID_SPEC,
            False,
            "both set",
            id="both",
        ),
        pytest.param(
            seen(CLAIM, bucket_class=None),
            Reason.CLASS_NOT_FOUND,
            True,
            "spec.bucketClassName names BucketClass gold",
            id="no such class",
        ),
        pytest.param(
            seen(STATIC), Reason.BUCKET_NOT_FOUND, True, "names Bucket old", id="no such Bucket"
        ),
        pytest.param(
            seen(STATIC, meta(OLD, deleting=True)),
            Reason.BEING_DELETED,
            False,
            "Bucket old is being deleted",
            id="that Bucket is being deleted",
        ),
        pytest.param(
            seen(STATIC, OTHERS),
            Reason.BUCKET_ALREADY_BOUND,
            False,
            "bound to another BucketClaim",
            id="that Bucket is another claim's",
        ),
        pytest.param(
            seen(STATIC, replace(OLD, claim=ClaimRef("team", "other"))),
            Reason.BUCKET_ALREADY_BOUND,
            False,
            "bound to another BucketClaim",
            id="that Bucket is reserved for another claim",
        ),
        pytest.param(
            seen(STATIC, replace(OLD, claim=ClaimRef("team", "photos", "old-claim-uid"))),
            Reason.BUCKET_ALREADY_BOUND,
            False,
            "bound to another BucketClaim",
            id="that Bucket was an earlier claim's of the same name",
        ),
        pytest.param(
            seen(CLAIM, replace(BUCKET, claim=None)),
            Reason.BUCKET_ALREADY_BOUND,
            False,
            "does not name this claim",
            id="a Bucket of the claim's name that is not its own is not adopted",
        ),
        pytest.param(
            seen(READY_CLAIM, bucket_read=True),
            Reason.BUCKET_LOST,
            False,
            "no longer exists",
            id="its Bucket is gone for sure",
        ),
        pytest.param(
            seen(KEPT, meta(OURS, created=STAMP), now=NOW + timedelta(seconds=5)),
            Reason.WAITING_FOR_BUCKET,
            True,
            "waits for the sidecar of driver s3.example.com",
            id="no sidecar has spoken in 5 s",
        ),
        pytest.param(
            seen(meta(replace(BOUND_CLAIM, observed_generation=1), generation=2), BUCKET),
            Reason.WAITING_FOR_BUCKET,
            True,
            "waits for the sidecar of driver s3.example.com",
            id="the claim was changed, and still no sidecar has spoken",
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
            seen(meta(GOING_CLAIM, finalizers=("a/b",)), READY),
            NOTHING,
            id="without our finalizer: not ours",
        ),
        pytest.param(
            seen(GOING_CLAIM),
            ReadBucketObject(Key("", NAME)),
            id="a claim is not let go on the cache's word that its Bucket is gone",
        ),
        pytest.param(
            seen(meta(KEPT, deleting=True)),
            ReadBucketObject(Key("", NAME)),
            id="a Bucket whose creation got no answer is looked for",
        ),
        pytest.param(
            seen(meta(KEPT_STATIC, deleting=True)),
            ReadBucketObject(Key("", "old")),
            id="so is one that was to be bound",
        ),
        pytest.param(seen(GOING_CLAIM, bucket_read=True), LET_GO, id="without a Bucket it can go"),
        pytest.param(
            seen(GOING_CLAIM, READY),
            DeleteBucketObject(Key("", NAME), "bucket-uid"),
            id="its Bucket goes first",
        ),
        pytest.param(
            seen(GOING_CLAIM, replace(READY, deletion_policy=DeletionPolicy.RETAIN)),
            DeleteBucketObject(Key("", NAME), "bucket-uid"),
            id="with Retain the Bucket object goes too: the sidecar keeps the data",
        ),
        pytest.param(
            seen(GOING_CLAIM, meta(READY, deleting=True)),
            NOTHING,
            id="while the Bucket goes, the sidecar speaks",
        ),
        pytest.param(
            seen(meta(KEPT, deleting=True), replace(BUCKET, claim=None)),
            LET_GO,
            id="a Bucket that is not bound to it is not deleted",
        ),
        pytest.param(
            seen(GOING_STATIC, OTHERS), LET_GO, id="another claim's Bucket is not deleted"
        ),
        pytest.param(
            seen(GOING_STATIC, BOUND_OLD), LET_GO, id="static with Retain: the Bucket stays bound"
        ),
        pytest.param(
            seen(GOING_STATIC, replace(BOUND_OLD, deletion_policy=DeletionPolicy.DELETE)),
            DELETE_OLD,
            id="static with Delete: the administrator asked for it",
        ),
        pytest.param(
            seen(GOING_STATIC, meta(BOUND_OLD, deleting=True)),
            NOTHING,
            id="static: a Bucket that goes anyway is waited for",
        ),
        pytest.param(
            seen(GOING_STATIC, BOUND_OLD, accesses=(GRANTED,)),
            DeleteAccess(GRANTED.meta.key, "access-uid"),
            id="static with Retain: accesses go before the claim",
        ),
    ],
)
def test_deletion(view: ClaimView, step: ClaimStep) -> None:
    assert plan(view) == step


def test_a_static_claim_waits_for_its_accesses_and_names_them() -> None:
    step = plan(seen(GOING_STATIC, BOUND_OLD, accesses=(GOING_ACCESS,)))
    assert isinstance(step, Done)
    assert isinstance(step.outcome, Terminal)
    assert (step.outcome.reason, step.outcome.waiting) == (Reason.WAITING_FOR_ACCESSES, True)
    assert "team/reader" in step.outcome.message


def test_where_a_claim_leads() -> None:
    assert target_name(CLAIM) == "bucket-claim-uid"
    assert target_name(STATIC) == "old"


VIEW = seen(GOING_CLAIM, READY, accesses=(GRANTED, meta(GRANTED, name="b", uid="b")), unproven=True)


@pytest.mark.parametrize(
    ("fact", "expected"),
    [
        pytest.param(
            ClaimIs(None), change(VIEW, claim=None, unproven=False), id="a claim that is gone"
        ),
        pytest.param(
            BucketIs(None),
            change(VIEW, bucket=None, bucket_read=True),
            id="what the server says of a Bucket is no longer the cache's word",
        ),
        pytest.param(
            AccessDeleting(GRANTED.meta.key),
            change(VIEW, accesses=(meta(GRANTED, deleting=True), meta(GRANTED, name="b", uid="b"))),
            id="an access that is now being deleted",
        ),
    ],
)
def test_a_fact_is_folded_into_the_view(fact: Fact, expected: ClaimView) -> None:
    assert fold(VIEW, fact) == expected


@pytest.mark.parametrize(
    "fact",
    [
        *(AccessIs(None), BackendIs("a"), BackendGone(), Granted("a")),
        *(Revoked(), SecretIs(exists=False), SecretAllowed()),
    ],
    ids=lambda fact: type(fact).__name__,
)
def test_a_fact_of_another_kind_is_a_bug(fact: Fact) -> None:
    with pytest.raises(AssertionError, match="no step of a BucketClaim"):
        fold(VIEW, fact)
