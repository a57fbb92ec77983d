"""What the controller does next for one BucketClaim. Pure.

Dynamic: finalizer, Bucket object, status.bucketName. Static (`existingBucketName`): bind the named
Bucket, unless it is bound to another claim. Deletion: the Bucket object, then our finalizer. A
Bucket that an administrator made is deleted only when its own policy is Delete; with Retain it
stays, still bound, until a person clears its spec.bucketClaim.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never

from msgspec.structs import replace as with_fields

from cosi_operator.api.view import (
    Bucket,
    BucketAccess,
    BucketClaim,
    BucketClass,
    DeletionPolicy,
    Key,
)
from cosi_operator.outcome import Reason, Requeue, Success, Terminal
from cosi_operator.plan import names
from cosi_operator.plan.steps import (
    AccessDeleting,
    AccessesListed,
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
from cosi_operator.plan.verdicts import age_s

# The sidecar tells the claim of its Bucket, in one write that says all. If it has not after this
# time (there is none; it waits for its driver; upstream's loses such writes), the controller does.
# Measured: five writes for a claim instead of six, two Events instead of three, and no conflict
# of the two writers (a fifth of refused claims had one). docs/adr/0011.
HEAL_AFTER_S = 5.0
# One that was heard of within that time is at work, and others are before this claim: it gets
# longer. In a burst of 10,000 more than half of the claims took one write and one Event more.
BUSY_HEAL_AFTER_S = 60.0
BUSY_LOOK_S = 20.0


@dataclass(frozen=True, slots=True)
class ClaimView:
    """Everything one run may look at.

    `bucket` is the one that the claim leads to, from the cache unless `bucket_read`; `accesses`
    are those that name this claim and hold our finalizer. `unproven`: nothing in this run has
    shown yet that `claim` is not an old copy. `sidecar_heard`: when the sidecar of the Bucket's
    driver last told how any Bucket fares.
    """

    claim: BucketClaim | None
    bucket_class: BucketClass | None
    bucket: Bucket | None
    accesses: tuple[BucketAccess, ...]
    now: datetime
    bucket_read: bool = False
    unproven: bool = False
    sidecar_heard: datetime | None = None


def target_name(claim: BucketClaim) -> str:
    """The Bucket that a claim leads to."""
    return claim.existing_bucket_name or names.bucket_name(claim.meta.uid)


def plan(view: ClaimView) -> ClaimStep:
    """Name the next step."""
    claim = view.claim
    if claim is None:
        return Done(Success(), report=False)
    if claim.meta.deleting:
        return _plan_deletion(claim, view)
    if claim.bucket_name and view.bucket is None:
        return _unless_read(view, claim) or Done(
            Terminal(
                Reason.BUCKET_LOST,
                f"Bucket {claim.bucket_name} of this claim no longer exists. Its data may be gone;"
                " delete this claim, and create a new one for a new bucket.",
            )
        )
    if view.bucket is None or not _is_bound(view.bucket, claim):
        if bool(claim.class_name) == bool(claim.existing_bucket_name):
            return Done(Terminal(Reason.INVALID_SPEC, _both_or_neither(claim)))
        if claim.existing_bucket_name:
            return _plan_static(claim, view)
        return _plan_dynamic(claim, view)
    return _plan_bound(claim, view.bucket, view)


def _unless_read(view: ClaimView, claim: BucketClaim) -> ReadBucketObject | None:
    """Nothing is final about a Bucket that only the cache lacks."""
    if view.bucket_read:
        return None
    return ReadBucketObject(Key("", claim.bucket_name or target_name(claim)))


def _both_or_neither(claim: BucketClaim) -> str:
    if claim.class_name:
        return (
            "spec.bucketClassName and spec.existingBucketName are both set. Keep one: the class"
            " for a new bucket, the existing name for one that is there."
        )
    return (
        "spec.bucketClassName and spec.existingBucketName are both empty. Set bucketClassName for"
        " a new bucket, or existingBucketName for one that is there."
    )


def _is_bound(bucket: Bucket, claim: BucketClaim) -> bool:
    return bucket.claim is not None and bucket.claim.uid == claim.meta.uid


def _plan_static(claim: BucketClaim, view: ClaimView) -> ClaimStep:
    name, bucket = claim.existing_bucket_name, view.bucket
    if bucket is None:
        return Done(
            Terminal(
                Reason.BUCKET_NOT_FOUND,
                f"spec.existingBucketName names Bucket {name}, which does not exist."
                " Create that Bucket, or delete this claim and name another one.",
                waiting=True,
            )
        )
    if bucket.meta.deleting:
        return Done(Terminal(Reason.BEING_DELETED, f"Bucket {name} is being deleted."))
    reserved = bucket.claim
    if reserved and (reserved.uid or reserved.key != claim.meta.key):
        return Done(
            Terminal(
                Reason.BUCKET_ALREADY_BOUND,
                f"spec.existingBucketName: Bucket {name} is bound to another BucketClaim. Name"
                " another Bucket, or ask an administrator to clear spec.bucketClaim of that one.",
            )
        )
    if names.CLAIM_FINALIZER not in claim.meta.finalizers:
        return EditFinalizers(claim.meta.key, add=(names.CLAIM_FINALIZER,))
    if view.unproven:
        return ReadClaim(claim.meta.key)
    return BindBucketObject(bucket.meta.key)


def _plan_dynamic(claim: BucketClaim, view: ClaimView) -> ClaimStep:
    if view.bucket is not None:  # not bound to this claim, though the name is made from its UID
        return Done(
            Terminal(
                Reason.BUCKET_ALREADY_BOUND,
                f"Bucket {view.bucket.meta.name} exists and does not name this claim in"
                " spec.bucketClaim, so it is not touched. Delete this claim and create a new one.",
            )
        )
    if view.bucket_class is None:
        return Done(
            Terminal(
                Reason.CLASS_NOT_FOUND,
                f"spec.bucketClassName names BucketClass {claim.class_name}, which does not exist."
                " Create that BucketClass, or delete this claim and name another one.",
                waiting=True,
            )
        )
    if names.CLAIM_FINALIZER not in claim.meta.finalizers:
        return EditFinalizers(claim.meta.key, add=(names.CLAIM_FINALIZER,))
    if view.unproven:  # an old list may show a claim that is long gone: nobody would delete this
        return ReadClaim(claim.meta.key)
    return CreateBucketObject(names.bucket_name(claim.meta.uid))


def _plan_bound(claim: BucketClaim, bucket: Bucket, view: ClaimView) -> ClaimStep:
    if names.CLAIM_FINALIZER not in claim.meta.finalizers:
        return EditFinalizers(claim.meta.key, add=(names.CLAIM_FINALIZER,))
    if repaired := _repaired(claim, bucket, view.bucket_class):
        return repaired
    # No sidecar of ours has spoken of the Bucket as it now is (its driver may have been changed).
    silent = not bucket.ready and bucket.observed_generation != bucket.meta.generation
    if not claim.bucket_name or (silent and claim.observed_generation != claim.meta.generation):
        patience_s = BUSY_HEAL_AFTER_S if _is_at_work(view) else HEAL_AFTER_S
        if left := _left_for_sidecar(bucket.meta.created, view.now, patience_s):
            return left
        waiting = Terminal(
            Reason.WAITING_FOR_BUCKET,
            f"Bucket {bucket.meta.name} waits for the sidecar of driver {bucket.driver_name}.",
            waiting=True,
        )
        return Done(waiting)
    if bucket.ready and bucket.bucket_id and not claim.ready:
        since = next((c.last_transition_time for c in bucket.conditions if c.type == "Ready"), "")
        return _left_for_sidecar(since, view.now) or Done(Success())
    return Done(Success(), report=False)  # the sidecar tells the claim how its Bucket fares


def _is_at_work(view: ClaimView) -> bool:
    heard = view.sidecar_heard
    return heard is not None and abs((view.now - heard).total_seconds()) < HEAL_AFTER_S


def _left_for_sidecar(since: str, now: datetime, patience_s: float = HEAL_AFTER_S) -> Done | None:
    """Look again when the sidecar has had its time, counted from `since`; None if it has.

    A time that lies ahead by more than 5 s is a clock that goes wrong, and is not waited for.
    """
    left = patience_s - age_s(since, now)
    if not 0 < left <= patience_s + HEAL_AFTER_S:
        return None
    after_s = min(left, BUSY_LOOK_S)  # it may stop being at work before that
    return Done(Requeue(Reason.WAITING_FOR_BUCKET, "", after_s=after_s, quiet=True), report=False)


def _repaired(
    claim: BucketClaim, bucket: Bucket, bucket_class: BucketClass | None
) -> UpdateBucketObject | None:
    """Carry a changed class over to a Bucket that has no backend yet.

    The driver may change only while no sidecar has put its finalizer on the Bucket; the
    conditional write proves it.
    """
    if bucket_class is None or claim.existing_bucket_name or bucket.ready or bucket.bucket_id:
        return None
    if bucket.meta.deleting:
        return None
    driver_name = bucket_class.driver_name if not bucket.meta.finalizers else bucket.driver_name
    if (
        dict(bucket.parameters) == dict(bucket_class.parameters)
        and driver_name == bucket.driver_name
    ):
        return None
    return UpdateBucketObject(bucket.meta.key, driver_name, dict(bucket_class.parameters))


def _plan_deletion(claim: BucketClaim, view: ClaimView) -> ClaimStep:
    if names.CLAIM_FINALIZER not in claim.meta.finalizers:
        return Done(Success(), report=False)
    free = EditFinalizers(claim.meta.key, remove=(names.CLAIM_FINALIZER,))
    bucket = view.bucket
    if bucket is None:  # freed too early, a Bucket made for this claim would stay for ever
        return _unless_read(view, claim) or free
    if not _is_bound(bucket, claim):
        return free
    ours = bucket.meta.name == names.bucket_name(claim.meta.uid)
    if ours or bucket.deletion_policy is DeletionPolicy.DELETE or bucket.meta.deleting:
        if not bucket.meta.deleting:
            return DeleteBucketObject(bucket.meta.key, bucket.meta.uid)
        return Done(Success(), report=False)  # the sidecar goes on, and reports on the claim too
    for access in view.accesses:
        if not access.meta.deleting:
            return DeleteAccess(access.meta.key, access.meta.uid)
    if view.accesses:
        waiting = ", ".join(str(access.meta.key) for access in view.accesses[:5])
        return Done(
            Terminal(
                Reason.WAITING_FOR_ACCESSES,
                f"Deleted when its accesses are revoked; still there: {waiting}.",
                waiting=True,
            )
        )
    return free


def fold(view: ClaimView, fact: Fact) -> ClaimView:
    """The view after a step succeeded."""
    match fact:
        case ClaimIs(claim=claim):
            return replace(view, claim=claim, unproven=False)
        case BucketIs(bucket=bucket):
            return replace(view, bucket=bucket, bucket_read=True)
        case AccessDeleting(key=key):
            return replace(view, accesses=tuple(_deleting(a, key) for a in view.accesses))
        case AccessIs() | BackendIs() | BackendGone() | Granted() | Revoked() | SecretIs():
            raise AssertionError(f"no step of a BucketClaim yields {fact}")
        case SecretAllowed() | AccessesListed():
            raise AssertionError(f"no step of a BucketClaim yields {fact}")
        case _:
            assert_never(fact)


def _deleting(access: BucketAccess, key: Key) -> BucketAccess:
    if access.meta.key != key:
        return access
    return with_fields(access, meta=with_fields(access.meta, deleting=True))
