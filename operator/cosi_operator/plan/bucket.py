"""What the sidecar does next for one Bucket. Pure.

Creation: finalizer, DriverCreateBucket, status. Deletion: accesses, DriverDeleteBucket (policy
Delete), the claim's finalizer, our finalizers. The Bucket object stays until the driver has
answered, because some drivers read it during the call.
"""

from dataclasses import dataclass, replace
from typing import assert_never

from msgspec.structs import replace as with_fields

from cosi_operator.api.view import Bucket, BucketAccess, BucketClaim, DeletionPolicy
from cosi_operator.outcome import Call, Reason, Requeue, Success, Terminal
from cosi_operator.plan import names
from cosi_operator.plan.steps import (
    AccessDeleting,
    AccessesListed,
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
from cosi_operator.plan.verdicts import driver_away, refused_before_effect, standing


@dataclass(frozen=True, slots=True)
class BucketView:
    """Everything one run may look at.

    `claim` is the bound claim, only when its UID is the one that the Bucket names; `accesses` are
    those that name this claim and hold our finalizer, from the cache unless `listed`. `clean`: when
    the run began, it was certain that no earlier Create had left anything. `unproven`: nothing in
    this run has shown yet that `bucket` is not an old copy. `bucket_id`, `backend_gone` and
    `unverified` are learned during the run.
    """

    bucket: Bucket | None
    claim: BucketClaim | None
    accesses: tuple[BucketAccess, ...]
    context: Context
    clean: bool = False
    unproven: bool = False
    listed: bool = False
    bucket_id: str = ""
    already_existed: bool = False
    backend_gone: bool = False
    unverified: bool = False


def is_clean(bucket: Bucket | None) -> bool:
    """Whether no earlier run can have made a backend bucket: none could call, or none had effect.

    Without this, a refusal would deny what an earlier call with an unknown end has made.
    """
    if bucket is None or names.BUCKET_FINALIZER not in bucket.meta.finalizers:
        return True
    return refused_before_effect(bucket.last_call, Call.CREATE_BUCKET)


def retry_token(bucket: Bucket, claim: BucketClaim | None) -> str:
    """The retry annotations that count for a Bucket: its own, and that of its claim's owner."""
    own = bucket.meta.annotations.get(names.RETRY_ANNOTATION, "")
    claimed = claim.meta.annotations.get(names.RETRY_ANNOTATION, "") if claim else ""
    return f"{own}|{claimed}" if own or claimed else ""


def plan(view: BucketView) -> BucketStep:
    """Name the next step."""
    bucket = view.bucket
    if bucket is None or not names.same_driver(bucket.driver_name, view.context.driver.name):
        return Done(Success(), report=False)
    if bucket.meta.deleting:
        return _plan_deletion(bucket, view)
    if view.backend_gone:  # deleted in this run, so this is a successor of the same name
        return Done(Requeue(Reason.CONFLICT, "", after_s=0.0, quiet=True), report=False)
    known = (bucket.ready and bucket.bucket_id) or view.bucket_id or bucket.existing_bucket_id
    if not known and (halt := _halt(bucket, view)):
        return halt
    if names.BUCKET_FINALIZER not in bucket.meta.finalizers:
        return EditFinalizers(bucket.meta.key, add=(names.BUCKET_FINALIZER,))
    if known:
        return Done(Success())
    if refused_before_effect(bucket.last_call, Call.CREATE_BUCKET):
        return MarkPending(Call.CREATE_BUCKET)
    if view.unproven:  # an old list may show a Bucket that is long gone: nobody would delete this
        return ReadBucketObject(bucket.meta.key)
    return CreateBackend(bucket.meta.name, bucket.parameters)


def _halt(bucket: Bucket, view: BucketView) -> Done | None:
    token = retry_token(bucket, view.claim)
    verdict = standing(bucket, Call.CREATE_BUCKET, view.context, token=token)
    return verdict or driver_away(view.context)


def _plan_deletion(bucket: Bucket, view: BucketView) -> BucketStep:
    # The marks of accesses first: they protect the bucket from going before them.
    both = (names.BUCKET_ACCESS_FINALIZER, names.BUCKET_FINALIZER)
    ours = tuple(name for name in both if name in bucket.meta.finalizers)
    if not ours:
        return Done(Success(), report=False)
    accesses = tuple(access for access in view.accesses if _leads_here(access, bucket, view))
    for access in accesses:
        if not access.meta.deleting:
            return DeleteAccess(access.meta.key, access.meta.uid)
    if accesses:
        return Done(_waiting_for(accesses))
    # The mark goes with the last access. Without its bucket no key of an access can be revoked.
    claim_ref = bucket.claim
    marked = names.BUCKET_ACCESS_FINALIZER in ours
    if marked and claim_ref and claim_ref.name and not view.listed:
        return ListAccesses(claim_ref.namespace)
    if (
        bucket.deletion_policy is DeletionPolicy.DELETE
        and names.BUCKET_FINALIZER in ours
        and not view.backend_gone
        and (step := _plan_backend_deletion(bucket, view))
    ):
        return step
    claim = view.claim
    if claim and claim.meta.deleting and names.CLAIM_FINALIZER in claim.meta.finalizers:
        return ReleaseClaim(claim.meta.key, claim.meta.uid)
    return EditFinalizers(bucket.meta.key, remove=ours)


def known_id(bucket: Bucket, view: BucketView) -> str:
    """The driver's id of a bucket that is to be deleted; "" when it was never learned."""
    return bucket.bucket_id or view.bucket_id or bucket.existing_bucket_id


def _leads_here(access: BucketAccess, bucket: Bucket, view: BucketView) -> bool:
    """Whether an access that names our claim was granted on this Bucket, not on another one.

    A retained Bucket keeps the name of its old claim, which a new claim may have taken. The intent
    of a Grant names the bucket; accesses of the Go sidecar have none, and count.
    """
    recorded = access.meta.annotations.get(names.BUCKET_ID_ANNOTATION, "")
    return recorded in ("", known_id(bucket, view))


def _plan_backend_deletion(bucket: Bucket, view: BucketView) -> BucketStep | None:
    if refused_before_effect(bucket.last_call, Call.CREATE_BUCKET) and not known_id(bucket, view):
        return None
    token = retry_token(bucket, view.claim)
    halt = standing(bucket, Call.DELETE_BUCKET, view.context, token=token)
    if halt := halt or driver_away(view.context):
        return halt
    bucket_id = known_id(bucket, view)
    if view.unproven and not (bucket_id and _is_ours_alone(bucket)):
        # An old list may show what is long gone, and its id may have been given away again.
        return ReadBucketObject(bucket.meta.key)
    if bucket_id:
        return DeleteBackend(bucket_id, bucket.parameters)
    # The id was never learned, and Delete without an id is never sent: on one real driver it
    # removes every bucket. Create is idempotent, so asking again tells what there is to delete.
    return CreateBackend(bucket.meta.name, bucket.parameters, resolving=True)


def _is_ours_alone(bucket: Bucket) -> bool:
    """Whether the backend bucket was made for this very object, under a name never used again."""
    claim = bucket.claim
    named = claim is not None and bucket.meta.name == names.bucket_name(claim.uid)
    return named and not bucket.existing_bucket_id


def _waiting_for(accesses: tuple[BucketAccess, ...]) -> Terminal:
    def story(access: BucketAccess) -> str:
        ready = next((c for c in access.conditions if c.type == "Ready"), None)
        return f"{access.meta.key} ({ready.reason})" if ready else str(access.meta.key)

    shown = ", ".join(story(a) for a in accesses[:5])
    more = f" and {len(accesses) - 5} more" if len(accesses) > 5 else ""
    return Terminal(
        Reason.WAITING_FOR_ACCESSES,
        f"The bucket is deleted when its accesses are revoked; still there: {shown}{more}."
        " `kubectl describe bucketaccess` tells why.",
        waiting=True,
    )


def fold(view: BucketView, fact: Fact) -> BucketView:
    """The view after a step succeeded."""
    match fact:
        case BucketIs(bucket=bucket):
            return replace(view, bucket=bucket, unproven=False)
        case ClaimIs(claim=claim):
            return replace(view, claim=claim)
        case AccessesListed(accesses=accesses):
            return replace(view, accesses=accesses, listed=True)
        case AccessDeleting(key=key):
            return replace(
                view, accesses=tuple(_deleting(a, a.meta.key == key) for a in view.accesses)
            )
        case BackendIs(bucket_id=bucket_id, already_existed=existed):
            return replace(view, bucket_id=bucket_id, already_existed=existed)
        case BackendGone(unverified=unverified):
            return replace(view, backend_gone=True, unverified=unverified)
        case AccessIs() | Granted() | Revoked() | SecretIs() | SecretAllowed():
            raise AssertionError(f"no step of a Bucket yields {fact}")
        case _:
            assert_never(fact)


def _deleting(access: BucketAccess, yes: bool) -> BucketAccess:
    return with_fields(access, meta=with_fields(access.meta, deleting=True)) if yes else access
