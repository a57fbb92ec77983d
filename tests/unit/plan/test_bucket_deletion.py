"""The next step for a Bucket that is being deleted, as a table; each id states its row's rule."""

from dataclasses import replace as change

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
    GOING_ACCESS,
    GOING_CLAIM,
    GRANTED,
    IDENTITY,
    OURS,
    READY_CLAIM,
    READY_CONDITION,
    RECORD,
    UP,
    judged,
    meta,
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
from cosi_operator.plan.bucket_view import BucketView, fold
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
    DeleteAccess,
    DeleteBackend,
    Done,
    EditBucket,
    LeaveBackend,
    ListAccesses,
    ReadBucketObject,
    ReadClaim,
    ReleaseClaim,
)

KEY = BUCKET.meta.key
CLAIM_KEY = Key("team", "photos")
NOTHING = Done(Success(), report=False)
RESOLVE = CreateBackend(KEY.name, {"tier": "gold"}, resolving=True)
DELETE = DeleteBackend("id-7", {"tier": "gold"})
LET_GO = EditBucket(KEY, remove=(names.BUCKET_FINALIZER,), record=RecordEdit())
BOTH = (names.BUCKET_ACCESS_FINALIZER, names.BUCKET_FINALIZER)
LET_UNRECORDED_GO = EditBucket(KEY, remove=(names.BUCKET_FINALIZER,))
LET_BOTH_GO = EditBucket(KEY, remove=BOTH, record=RecordEdit())
RELEASE = ReleaseClaim(CLAIM_KEY, "claim-uid")
WAIT = Done(Requeue(Reason.DRIVER_UNREACHABLE, "", after_s=12.5, quiet=True), report=False)
DELETE_ACCESS = DeleteAccess(GRANTED.meta.key, "access-uid")

GOING_NEW = meta(OURS, deleting=True, generation=2)  # its id was never learned
RETAINED = replace(GOING, deletion_policy=DeletionPolicy.RETAIN)
GOING_MARKED = meta(GOING, finalizers=BOTH)
GOING_STATIC = replace(
    meta(GOING, name="old"),
    existing_bucket_id="old-1",
    bucket_id="old-1",
    deletion_policy=DeletionPolicy.RETAIN,
)
STATIC_DELETED = replace(GOING_STATIC, deletion_policy=DeletionPolicy.DELETE)
UNRECORDED = replace(GOING_MARKED, record=None)
STARTED = replace(GOING_MARKED, record=replace(RECORD, former=FORMER))
REFUSED = replace(GOING_NEW, record=None, last_call=judged(Call.CREATE_BUCKET))
UNSURE = replace(GOING_NEW, last_call=judged(Call.CREATE_BUCKET, Code.UNKNOWN, effect=Effect.MAYBE))
ENDED = (Condition("Ready", "False", "BeingDeleted"),)
COPY = replace(GOING, record=None, copied_record=replace(RECORD, bucket="original-uid"))


def seen(
    bucket: Bucket | None,
    context: Context = UP,
    *,
    accesses: tuple[BucketAccess, ...] = (),
    **more: object,
) -> BucketView:
    """The deletion of a Bucket whose claim is gone for sure."""
    given: dict[str, object] = {"claim": None, "claim_read": True, **more}
    return BucketView(bucket=bucket, accesses=accesses, context=context, **given)  # type: ignore[arg-type]  # a table's shorthand


def annotated(bucket: Bucket, name: str, value: str) -> Bucket:
    return meta(bucket, annotations={name: value})


def given_up(bucket: Bucket, value: str = "bucket-uid") -> Bucket:
    return annotated(bucket, names.GIVE_UP_ANNOTATION, value)


@pytest.mark.parametrize(
    ("view", "step"),
    [
        pytest.param(seen(GOING), DELETE, id="policy Delete -> the backend before the finalizer"),
        pytest.param(
            seen(GOING, backend_gone=True), LET_GO, id="the backend is gone -> the finalizer goes"
        ),
        pytest.param(seen(RETAINED), LET_GO, id="policy Retain -> the driver is not asked"),
        pytest.param(seen(RETAINED, AWAY), LET_GO, id="Retain, the driver is away -> not asked"),
        pytest.param(
            seen(GOING, claim=GOING_CLAIM, backend_gone=True),
            RELEASE,
            id="the backend is gone, the claim is being deleted -> the claim is released",
        ),
        pytest.param(
            seen(RETAINED, claim=GOING_CLAIM), RELEASE, id="Retain -> the claim is released, too"
        ),
        pytest.param(
            seen(GOING, claim=GOING_CLAIM),
            DELETE,
            id="the backend is there -> the claim is not released yet",
        ),
        pytest.param(
            seen(GOING, claim=meta(GOING_CLAIM, finalizers=("a/b",)), backend_gone=True),
            LET_GO,
            id="the claim was released -> the Bucket's finalizer goes",
        ),
        pytest.param(
            seen(meta(GOING, finalizers=())), NOTHING, id="no finalizer of ours -> not ours"
        ),
        pytest.param(
            seen(meta(replace(GOING, ready=False, conditions=ENDED), finalizers=("a/b",))),
            NOTHING,
            id="finalizers of others, and told -> they stay",
        ),
        pytest.param(
            seen(GOING_MARKED, backend_gone=True),
            LET_BOTH_GO,
            id="a mark that no access needs -> goes too",
        ),
        pytest.param(
            seen(STARTED), ListAccesses("team"), id="mark, former accesses -> listed again"
        ),
        pytest.param(
            seen(replace(STARTED, claim=None)),
            ListAccesses("team"),
            id="spec.bucketClaim was cleared -> the recorded claim's namespace is listed",
        ),
        pytest.param(seen(STARTED, listed=True), DELETE, id="listed, none found -> Delete"),
        pytest.param(
            seen(GOING_MARKED), DELETE, id="mark, record as old as the Bucket -> no list is needed"
        ),
        pytest.param(
            seen(meta(GOING, finalizers=(names.BUCKET_ACCESS_FINALIZER,))),
            EditBucket(KEY, remove=(names.BUCKET_ACCESS_FINALIZER,), record=RecordEdit()),
            id="the mark alone -> the bucket was never ours to delete",
        ),
        pytest.param(
            seen(GOING, accesses=(GRANTED,)), DELETE_ACCESS, id="accesses -> deleted first"
        ),
        pytest.param(
            seen(RETAINED, accesses=(GRANTED,)), DELETE_ACCESS, id="Retain -> accesses go, too"
        ),
        pytest.param(
            seen(GOING_STATIC),
            change(LET_GO, key=Key("", "old")),
            id="static with Retain -> the backend bucket stays",
        ),
        pytest.param(
            seen(STATIC_DELETED),
            change(DELETE, bucket_id="old-1"),
            id="static with Delete -> the administrator asked for it",
        ),
        pytest.param(
            seen(STATIC_DELETED, unproven=True),
            ReadBucketObject(Key("", "old")),
            id="static, the copy may be stale -> read, its id may be another's by now",
        ),
        pytest.param(
            seen(GOING, unproven=True),
            ReadBucketObject(GOING.meta.key),
            id="made for its claim, the copy may be stale -> read, its policy may be Retain by now",
        ),
        pytest.param(
            seen(replace(STATIC_DELETED, bucket_id="")),
            change(DELETE, bucket_id="old-1"),
            id="static, never reported -> the id of the spec",
        ),
        pytest.param(
            seen(replace(GOING, record=replace(RECORD, bucket_id="id-9"), bucket_id="forged")),
            change(DELETE, bucket_id="id-9"),
            id="record and status differ -> the recorded id",
        ),
        pytest.param(
            seen(replace(GOING, driver_name="other.example.com")),
            DELETE,
            id="spec.driverName was changed -> the recorded driver deletes",
        ),
    ],
)
def test_deletion(view: BucketView, step: BucketStep) -> None:
    assert plan(view) == step


STARTS = RecordEdit(start=BucketRecord(AS_OF, former=FORMER), driver=DRIVER, claim=IDENTITY)


@pytest.mark.parametrize(
    ("view", "step"),
    [
        pytest.param(
            seen(UNRECORDED), ListAccesses("team"), id="no record -> the accesses are listed first"
        ),
        pytest.param(
            seen(UNRECORDED, accesses=(GRANTED,), listed=True),
            EditBucket(KEY, record=STARTS),
            id="listed -> the record is started with what was granted before",
        ),
        pytest.param(
            seen(UNRECORDED, claim=READY_CLAIM, accesses=(GRANTED,), listed=True),
            EditBucket(KEY, record=STARTS),
            id="no record, in use -> started first",
        ),
        pytest.param(
            seen(UNRECORDED, remembered=replace(RECORD, accesses={"access-uid": ENTRY})),
            EditBucket(
                KEY, record=RecordEdit(start=replace(RECORD, accesses={"access-uid": ENTRY}))
            ),
            id="the record was removed -> written again as it was",
        ),
        pytest.param(
            seen(REFUSED), LET_UNRECORDED_GO, id="refused by an earlier release -> needs no record"
        ),
    ],
)
def test_record_during_a_deletion(view: BucketView, step: BucketStep) -> None:
    assert plan(view) == step


SECOND = replace(
    GOING,
    meta=replace(GOING.meta, name="copy", uid="copy-uid"),
    record=None,
    copied_record=RECORD,
)
SECOND_GOES = EditBucket(Key("", "copy"), remove=(names.BUCKET_FINALIZER,))


@pytest.mark.parametrize(
    "bucket",
    [
        pytest.param(SECOND, id="with the annotations"),
        pytest.param(replace(SECOND, copied_record=None), id="without the annotations"),
        pytest.param(
            annotated(SECOND, names.FORCE_DELETE_ANNOTATION, "copy-uid"), id="deleted by force"
        ),
    ],
)
def test_copy_of_a_bucket_in_use_goes_alone(bucket: Bucket) -> None:
    view = seen(bucket, rival=BUCKET, accesses=(GRANTED,))
    left = plan(view)
    assert isinstance(left, LeaveBackend)
    assert "is a copy of Bucket" in left.message
    assert plan(fold(view, BackendGone())) == SECOND_GOES
    kept = replace(bucket, deletion_policy=DeletionPolicy.RETAIN)
    assert plan(seen(kept, rival=BUCKET)) == SECOND_GOES


FORCED = annotated(GOING, names.FORCE_DELETE_ANNOTATION, "bucket-uid")


@pytest.mark.parametrize(
    ("view", "step"),
    [
        pytest.param(
            seen(GOING, claim_read=False),
            ReadClaim(CLAIM_KEY),
            id="the cache has no claim -> it is read",
        ),
        pytest.param(
            seen(replace(GOING, claim=None), claim_read=False),
            ReadClaim(CLAIM_KEY),
            id="spec.bucketClaim was cleared -> the recorded claim is read",
        ),
        pytest.param(
            seen(replace(GOING, claim=ClaimRef("a", "b", "c")), claim_read=False),
            ReadClaim(CLAIM_KEY),
            id="spec names another claim -> the recorded claim is read",
        ),
        pytest.param(seen(GOING, claim=GOING_CLAIM), DELETE, id="the claim is going -> Delete"),
        pytest.param(
            seen(FORCED, claim=READY_CLAIM), DELETE, id="forced for this UID -> Delete in use"
        ),
        pytest.param(
            seen(FORCED, claim=READY_CLAIM, claim_read=False),
            DELETE,
            id="forced -> the claim is not read",
        ),
        pytest.param(
            seen(
                replace(
                    GOING,
                    claim=ClaimRef("team", "photos"),
                    record=replace(RECORD, claim=ClaimIdentity()),
                ),
                claim_read=False,
            ),
            DELETE,
            id="reserved without a UID -> in nobody's use",
        ),
    ],
)
def test_bucket_waits_for_its_claim(view: BucketView, step: BucketStep) -> None:
    assert plan(view) == step


@pytest.mark.parametrize(
    "bucket",
    [
        pytest.param(GOING, id="no annotation -> BucketInUse"),
        pytest.param(RETAINED, id="policy Retain -> BucketInUse"),
        pytest.param(GOING_NEW, id="no id yet -> BucketInUse"),
        pytest.param(
            annotated(GOING, names.FORCE_DELETE_ANNOTATION, "true"), id="true -> BucketInUse"
        ),
        pytest.param(
            annotated(GOING, names.FORCE_DELETE_ANNOTATION, "claim-uid"),
            id="another UID -> BucketInUse",
        ),
        pytest.param(
            annotated(GOING, names.FORCE_DELETE_ANNOTATION, ""), id="empty -> BucketInUse"
        ),
        pytest.param(given_up(GOING), id="given up -> BucketInUse, that is no force-delete"),
    ],
)
def test_bucket_in_use_is_not_deleted_and_says_how(bucket: Bucket) -> None:
    step = plan(seen(bucket, claim=READY_CLAIM, accesses=(GRANTED,)))
    assert isinstance(step, Done)
    assert isinstance(step.outcome, Terminal)
    assert (step.outcome.reason, step.outcome.waiting) == (Reason.BUCKET_IN_USE, True)
    assert step.outcome.message == (
        "The bucket is deleted when BucketClaim team/photos is deleted. To delete the bucket with"
        " its data now, a cluster administrator can run: kubectl annotate --overwrite bucket"
        " bucket-claim-uid objectstorage.k8s.io/force-delete=bucket-uid"
    )


def test_a_bucket_that_foreign_finalizers_keep_is_not_ready() -> None:
    step = plan(seen(meta(GOING, finalizers=("a/b",))))
    assert isinstance(step, Done)
    assert isinstance(step.outcome, Terminal)
    assert (step.outcome.reason, step.outcome.waiting) == (Reason.BEING_DELETED, True)
    assert step.outcome.message.endswith("when its last finalizers are removed: a/b.")


def test_claim_that_only_the_cache_lacks_keeps_its_bucket() -> None:
    view = fold(seen(GOING, claim_read=False), ClaimIs(READY_CLAIM))
    step = plan(view)
    assert isinstance(step, Done)
    assert isinstance(step.outcome, Terminal)
    assert step.outcome.reason is Reason.BUCKET_IN_USE


def test_later_claim_of_the_same_name_does_not_keep_the_bucket() -> None:
    later = meta(READY_CLAIM, uid="later-uid")
    assert plan(fold(seen(GOING, claim_read=False), ClaimIs(later))) == DELETE


OTHER_ENTRY = AccessRecord("team", "writer", secret="writer-keys", accounts=("acct-8",))


@pytest.mark.parametrize(
    ("view", "words"),
    [
        pytest.param(
            seen(with_entries(GOING, access_uid=ENTRY), accesses=(GOING_ACCESS,)),
            "Not revoked yet: team/reader. To see",
            id="an access is being deleted -> waits for it",
        ),
        pytest.param(
            seen(with_entries(GOING, access_uid=ENTRY)),
            "Not revoked yet: team/reader (removed by force). The Events say why.",
            id="an entry without an access -> waits for it",
        ),
        pytest.param(
            seen(
                with_entries(RETAINED, access_uid=ENTRY, other=OTHER_ENTRY),
                accesses=(GOING_ACCESS,),
            ),
            "Not revoked yet: team/reader, team/writer (removed by force). To see why,"
            " run: kubectl describe bucketaccess reader -n team",
            id="both, with Retain -> waits for both",
        ),
        pytest.param(
            seen(given_up(with_entries(GOING, access_uid=ENTRY))),
            "Not revoked yet: team/reader (removed by force). The Events say why.",
            id="given up on the Bucket alone -> its accesses are still revoked",
        ),
        pytest.param(
            seen(with_entries(FORCED, access_uid=ENTRY), claim=READY_CLAIM),
            "Not revoked yet: team/reader (removed by force). The Events say why.",
            id="forced -> its accesses are still revoked",
        ),
        pytest.param(
            seen(GOING, accesses=(GOING_ACCESS,)),
            "Not revoked yet: team/reader. To see",
            id="an access that is not recorded yet -> waits for it",
        ),
    ],
)
def test_deletion_waits_for_accesses(view: BucketView, words: str) -> None:
    step = plan(view)
    assert isinstance(step, Done)
    assert isinstance(step.outcome, Terminal)
    assert (step.outcome.reason, step.outcome.waiting) == (Reason.WAITING_FOR_ACCESSES, True)
    assert words in step.outcome.message


def test_deletion_names_five_accesses_and_counts_the_rest() -> None:
    failing = replace(GOING_ACCESS, conditions=(replace(READY_CONDITION, reason="DriverInternal"),))
    others = tuple(meta(GOING_ACCESS, name=f"a{n}", uid=f"u{n}") for n in range(6))
    step = plan(seen(GOING, accesses=(failing, *others)))
    assert isinstance(step, Done)
    assert isinstance(step.outcome, Terminal)
    assert "team/reader (DriverInternal), team/a0, " in step.outcome.message
    assert "and 2 more" in step.outcome.message


def test_access_that_the_reader_of_the_view_did_not_find_blocks_nothing() -> None:
    """Accesses of another Bucket are not in the view: the record selects them."""
    assert plan(seen(GOING, accesses=())) == DELETE


@pytest.mark.parametrize(
    ("view", "step"),
    [
        pytest.param(
            seen(GOING_NEW, unproven=True),
            ReadBucketObject(KEY),
            id="the copy may be stale -> read before Create is asked again",
        ),
        pytest.param(seen(GOING_NEW), RESOLVE, id="its id is unknown -> Create is asked again"),
        pytest.param(seen(UNSURE), RESOLVE, id="the Create had an unknown effect -> asked again"),
        pytest.param(
            seen(replace(UNSURE, last_call=judged(Call.CREATE_BUCKET, outcome="Pending"))),
            RESOLVE,
            id="a Create of an earlier release was about to be made -> asked again",
        ),
        pytest.param(
            seen(replace(GOING_NEW, last_call=judged(Call.CREATE_BUCKET))),
            RESOLVE,
            id="a stored refusal beside a record -> proves nothing, asked again",
        ),
        pytest.param(
            seen(REFUSED),
            LET_UNRECORDED_GO,
            id="refused without effect by an earlier release -> nothing",
        ),
        pytest.param(seen(GOING_NEW, bucket_id="id-7"), DELETE, id="the id was learned -> Delete"),
        pytest.param(
            seen(GOING_NEW, backend_gone=True),
            LET_GO,
            id="the driver refuses to tell -> the deletion ends",
        ),
        pytest.param(
            seen(replace(GOING_NEW, deletion_policy=DeletionPolicy.RETAIN)),
            LET_GO,
            id="Retain -> nothing to learn",
        ),
        pytest.param(seen(GOING_NEW, BACKING_OFF), WAIT, id="a backoff -> waits"),
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
            id="a final Delete whose id is no longer known -> stands",
        ),
    ],
)
def test_deletion_after_a_create_whose_end_is_not_known(view: BucketView, step: BucketStep) -> None:
    assert plan(view) == step


@pytest.mark.parametrize(
    ("view", "message"),
    [
        pytest.param(
            seen(given_up(GOING)),
            "The backend may still hold bucket id-7.",
            id="given up -> no call",
        ),
        pytest.param(
            seen(given_up(GOING, "access-uid, bucket-uid"), AWAY),
            "The backend may still hold bucket id-7.",
            id="given up among others, the driver is away -> no call",
        ),
        pytest.param(
            seen(given_up(GOING_NEW), BACKING_OFF),
            "The backend may still hold a bucket named bucket-claim-uid.",
            id="given up, its id is unknown -> no call",
        ),
        pytest.param(
            seen(COPY),
            "so the driver was not called to delete bucket id-7.",
            id="a copied record -> no call",
        ),
        pytest.param(
            seen(replace(COPY, bucket_id="", existing_bucket_id="old-1")),
            "so the driver was not called to delete bucket old-1.",
            id="a copied record, static -> no call",
        ),
    ],
)
def test_deletion_without_asking_the_driver(view: BucketView, message: str) -> None:
    step = plan(view)
    assert isinstance(step, LeaveBackend)
    assert step.message.endswith(message)
    is_copy = view.bucket is not None and view.bucket.copied_record is not None
    end = LET_UNRECORDED_GO if is_copy else LET_GO
    assert plan(fold(view, BackendGone())) == end


@pytest.mark.parametrize("value", ["", "true", "access-uid", "bucket", "bucket-uid-2"])
def test_give_up_annotation_without_this_uid_ends_nothing(value: str) -> None:
    assert plan(seen(given_up(GOING, value))) == DELETE


def test_failed_delete_is_reported_and_changes_nothing() -> None:
    status = DriverStatus(Call.DELETE_BUCKET, Code.PERMISSION_DENIED, MadeBy.DRIVER)
    failed = CallFailed(Terminal(Reason.DRIVER_PERMISSION_DENIED, "", status=status), Effect.NONE)
    assert plan(seen(GOING, clean=True, failed=failed)) == Done(failed.outcome)


BUCKETS = [
    replace(
        meta(BUCKET, deleting=deleting, finalizers=finalizers),
        bucket_id=bucket_id,
        ready=ready,
        last_call=last_call,
        deletion_policy=policy,
        record=record,
        copied_record=copied,
    )
    for deleting in (False, True)
    for finalizers in ((), (names.BUCKET_FINALIZER,), (names.BUCKET_ACCESS_FINALIZER,))
    for bucket_id in ("", "id-7")
    for ready in (False, True)
    for last_call in (None, REFUSED.last_call, UNSURE.last_call)
    for policy in DeletionPolicy
    for record, copied in (
        (None, None),
        (RECORD, None),
        (replace(RECORD, bucket_id="id-7"), None),
        (None, replace(RECORD, bucket="original-uid", bucket_id="id-7")),
    )
]


def test_no_state_of_a_bucket_makes_a_delete_without_an_id_or_a_call_without_a_finalizer() -> None:
    calls = 0
    for bucket in BUCKETS:
        for gone in (False, True):
            for claim in (None, CLAIM, GOING_CLAIM):
                step = plan(seen(bucket, backend_gone=gone, claim=claim))
                if isinstance(step, DeleteBackend):
                    assert step.bucket_id == "id-7"
                    assert bucket.meta.deleting
                    assert claim is None or claim.meta.deleting
                    assert bucket.deletion_policy is DeletionPolicy.DELETE
                if isinstance(step, DeleteBackend | CreateBackend):
                    assert names.BUCKET_FINALIZER in bucket.meta.finalizers
                    assert bucket.record is not None
                    assert not gone
                    calls += 1
    assert calls


def test_deletion_in_order() -> None:
    view = seen(meta(UNRECORDED, annotations={}), accesses=(GRANTED,), claim_read=False)
    steps: list[tuple[BucketStep, BucketFact]] = [
        (ListAccesses("team"), AccessesListed((GRANTED,))),
        (EditBucket(KEY, record=STARTS), BucketIs(STARTED)),
        (ReadClaim(CLAIM_KEY), ClaimIs(GOING_CLAIM)),
        (DELETE_ACCESS, AccessDeleting(GRANTED.meta.key)),
    ]
    for step, fact in steps:
        assert plan(view) == step
        view = fold(view, fact)
    waiting = plan(view)
    assert isinstance(waiting, Done)
    # The next run, when the access is gone.
    view = seen(STARTED, claim=GOING_CLAIM)
    steps = [
        (ListAccesses("team"), AccessesListed(())),
        (DELETE, BackendGone()),
        (RELEASE, ClaimIs(None)),
        (LET_BOTH_GO, BucketIs(None)),
    ]
    for step, fact in steps:
        assert plan(view) == step
        view = fold(view, fact)
    assert plan(view) == NOTHING


def test_id_that_is_learned_during_the_deletion_is_deleted() -> None:
    view = seen(GOING_NEW)
    assert plan(view) == RESOLVE
    view = fold(view, BackendIs("id-7"))
    assert plan(view) == DELETE
