"""Plans the controller's next step for one BucketClaim. Pure.

Dynamic: finalizer, Bucket object, status.bucketName. Static (`existingBucketName`): bind the named
Bucket, unless it is bound to another claim. Deletion: the Bucket object, then our finalizer. A
Bucket that an administrator created is deleted only when its own policy is Delete; with Retain it
is kept and stays bound until a person clears its spec.bucketClaim.

The Bucket of a claim is the Bucket whose record or spec names the claim's UID. The claim's own
status is ignored for this, because a tenant may write it and a restore copies it.
"""

from cosi_operator.api.encode import claim_patch
from cosi_operator.api.record import AccessRecord, ClaimIdentity
from cosi_operator.api.view import (
    Bucket,
    BucketAccess,
    BucketClaim,
    BucketClass,
    ClaimRef,
    DeletionPolicy,
    Key,
    ready_in,
    stamp,
)
from cosi_operator.outcome import Reason, Success, Terminal
from cosi_operator.plan import names, records
from cosi_operator.plan.bucket_view import first_of
from cosi_operator.plan.claim_view import ClaimView, wants_new
from cosi_operator.plan.sidecar_wait import (
    is_overwritten,
    is_reported,
    left_for_sidecar,
    patience_s,
    waiting_for_sidecar,
)
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
from cosi_operator.plan.verdicts import ended
from cosi_operator.scrub import shown_name


def plan(view: ClaimView) -> ClaimStep:
    """Return the next step."""
    claim, bucket = view.claim, view.bucket
    if claim is None:
        return Done(Success(), report=False)
    if claim.meta.deleting:
        return _plan_deletion(claim, view)
    if bucket is not None and records.is_bound_to(bucket, claim):
        return _plan_bound(claim, bucket, view)
    if claim.meta.oversized:
        return Done(
            Terminal(
                Reason.INVALID_OBJECT,
                "The spec of this BucketClaim is larger than 4 KiB, so it was not read."
                " Delete this BucketClaim and create a new one.",
            )
        )
    if bucket is None and claim.bucket_name == records.target_name(claim):
        return _unless_read(view, claim) or _lost(claim)
    if claim.existing_bucket_name:  # takes precedence over a class, as in the Go controller
        return _plan_static(claim, view)
    if not claim.class_name:
        return Done(
            Terminal(
                Reason.INVALID_SPEC,
                "spec.bucketClassName and spec.existingBucketName are both empty. Set"
                " bucketClassName for a new bucket, or existingBucketName for an existing one.",
            )
        )
    return _plan_dynamic(claim, view)


def _lost(claim: BucketClaim) -> Done:
    return Done(
        Terminal(
            Reason.BUCKET_LOST,
            f"Bucket {shown_name(claim.bucket_name)} of this claim no longer exists, and its data"
            " may be lost. To get a new bucket, delete this claim and create a new one.",
        )
    )


def _unless_read(view: ClaimView, claim: BucketClaim) -> ReadBucketObject | None:
    """A cache miss proves nothing, so read the Bucket first."""
    for name in (records.target_name(claim), claim.bucket_name):
        if name and names.is_object_name(name) and name not in view.read:
            return ReadBucketObject(Key("", name))
    return None


def _plan_static(claim: BucketClaim, view: ClaimView) -> ClaimStep:
    name, bucket = claim.existing_bucket_name, view.bucket
    if bucket is None:
        return Done(
            Terminal(
                Reason.BUCKET_NOT_FOUND,
                f"spec.existingBucketName names Bucket {name}, which does not exist. Create a new"
                " claim that names another Bucket, or ask your cluster administrator to create this"
                " Bucket.",
                waiting=True,
            )
        )
    if bucket.meta.deleting:
        return Done(Terminal(Reason.BEING_DELETED, f"Bucket {name} is being deleted."))
    if refusal := _held_by_another(claim, bucket, view) or _foreign_keys(claim, bucket, view):
        return refusal
    if not _is_reserved(claim, bucket) and (view.is_claimed or _was_made_for_another(bucket)):
        return _already_bound(claim, bucket)
    if names.CLAIM_FINALIZER not in claim.meta.finalizers:
        return EditFinalizers(claim.meta.key, add=(names.CLAIM_FINALIZER,))
    if view.unproven:
        return ReadClaim(claim.meta.key)
    return BindBucketObject(bucket.meta.key)


def _held_by_another(claim: BucketClaim, bucket: Bucket, view: ClaimView) -> ClaimStep | None:
    """A Bucket belongs to the recorded claim while that claim exists, whatever the spec names."""
    holder = bucket.record.claim if bucket.record else ClaimIdentity()
    if holder.uid and holder != records.identity_of(claim):
        if view.holder_alive is None:
            return ReadHolder(holder)
        if view.holder_alive:
            return _already_bound(claim, bucket)
    named = records.spec_claim(bucket)
    if named == records.identity_of(claim):
        return None  # an administrator bound it to this claim after the recorded claim was deleted
    is_other_namespace = named.namespace not in ("", claim.meta.namespace)
    if named.uid or is_other_namespace or (named.name and not _is_reserved(claim, bucket)):
        return _already_bound(claim, bucket)
    return None


def _was_made_for_another(bucket: Bucket) -> bool:
    """Whether a dynamic Bucket has lost the name of its claim, in its spec and in its record."""
    return names.is_dynamic(bucket.meta.name) and not records.bound_claim(bucket).uid


def _is_reserved(claim: BucketClaim, bucket: Bucket) -> bool:
    """Whether an administrator has reserved the Bucket for this namespace and name."""
    named = records.spec_claim(bucket)
    return (named.namespace, named.name) == claim.meta.key


def _foreign_keys(claim: BucketClaim, bucket: Bucket, view: ClaimView) -> Done | None:
    """A tenant must not get a bucket that another tenant's keys still reach."""
    if not records.has_keys_of_others(bucket, claim.meta.namespace, view.accesses):
        return None
    return Done(
        Terminal(
            Reason.BUCKET_ALREADY_BOUND,
            "BucketAccesses in another namespace, or of an earlier BucketClaim, still have keys of"
            f" Bucket {bucket.meta.name}. Ask your cluster administrator to delete them, or create"
            " a new claim that names another Bucket.",
            waiting=True,
        )
    )


def _already_bound(claim: BucketClaim, bucket: Bucket) -> Done:
    named = records.spec_claim(bucket)
    is_bound = records.bound_claim(bucket).uid or not (named.namespace or named.name)
    text = (
        f"Bucket {bucket.meta.name}, which spec.existingBucketName names, is"
        f" {'bound to' if is_bound else 'reserved for'} another BucketClaim. Create a new claim"
        " that names another Bucket."
    )
    if (named.namespace, named.name) == claim.meta.key:
        text = (
            f"Bucket {bucket.meta.name} is bound to an earlier BucketClaim {claim.meta.key} with"
            f" another UID. {_how_to_bind(claim, bucket)}"
        )
    return Done(Terminal(Reason.BUCKET_ALREADY_BOUND, text))


def _how_to_bind(claim: BucketClaim, bucket: Bucket) -> str:
    # All three fields, because spec.bucketClaim may be empty.
    meta = claim.meta
    patch = claim_patch(ClaimRef(meta.namespace, meta.name, meta.uid))
    return (
        "To use that bucket for this claim, ask your cluster administrator to run: kubectl patch"
        f" bucket {bucket.meta.name} --type merge -p '{patch}'"
    )


def _plan_dynamic(claim: BucketClaim, view: ClaimView) -> ClaimStep:
    if view.bucket is not None:  # not bound to this claim, although its name contains the UID
        return Done(
            Terminal(
                Reason.BUCKET_ALREADY_BOUND,
                f"Bucket {view.bucket.meta.name} exists and does not name this claim in"
                " spec.bucketClaim, so it is not used. Delete this claim and create a new one.",
            )
        )
    if view.former and not wants_new(claim):
        return _former_found(claim, view.former)
    if view.bucket_class is None:
        if not view.class_read and names.is_object_name(claim.class_name):
            return ReadClass(Key("", claim.class_name))
        return Done(
            Terminal(
                Reason.CLASS_NOT_FOUND,
                f"spec.bucketClassName names BucketClass {shown_name(claim.class_name)}, which"
                " does not exist. Create a new claim that names another class, or ask your cluster"
                " administrator to create this class.",
                waiting=True,
            )
        )
    if view.bucket_class.unknown_policy:
        return Done(
            Terminal(
                Reason.INVALID_CLASS,
                f"deletionPolicy of BucketClass {shown_name(claim.class_name)} is"
                f" {shown_name(view.bucket_class.unknown_policy)!r}. Ask your cluster"
                " administrator to set it to Delete or Retain.",
                waiting=True,
            )
        )
    if names.CLAIM_FINALIZER not in claim.meta.finalizers:
        return EditFinalizers(claim.meta.key, add=(names.CLAIM_FINALIZER,))
    if view.unproven:  # a Bucket created from a stale claim would leak
        return ReadClaim(claim.meta.key)
    return CreateBucketObject(names.bucket_name(claim.meta.uid))


def _former_found(claim: BucketClaim, former: tuple[Bucket, ...]) -> Done:
    """Refuse a new bucket, so that a restored claim does not silently get an empty bucket."""
    bucket = former[0]
    others = [other.meta.name for other in former[1:]]
    also = f" So may Bucket {first_of(others, 3)}." if others else ""
    return Done(
        Terminal(
            Reason.FORMER_BUCKET,
            f"Bucket {bucket.meta.name} belongs to an earlier BucketClaim {claim.meta.key} that no"
            " longer exists, and may hold that claim's data, so no new bucket was created."
            f"{also} {_how_to_bind(claim, bucket)} For a new, empty bucket, run: kubectl annotate"
            f" --overwrite bucketclaim {claim.meta.name} -n {claim.meta.namespace}"
            f" {names.NEW_BUCKET_ANNOTATION}={claim.meta.uid}",
        )
    )


def _plan_bound(claim: BucketClaim, bucket: Bucket, view: ClaimView) -> ClaimStep:
    if names.CLAIM_FINALIZER not in claim.meta.finalizers:
        return EditFinalizers(claim.meta.key, add=(names.CLAIM_FINALIZER,))
    if records.spec_claim(bucket) != records.identity_of(claim):
        # The Bucket was applied again from a manifest without its claim.
        return BindBucketObject(bucket.meta.key)
    if repaired := _repaired(claim, bucket, view.bucket_class) or _completed(bucket, view):
        return repaired
    # None of our sidecars has reported on this generation (the driver may have been changed).
    silent = not bucket.ready and bucket.observed_generation != bucket.meta.generation
    if claim.bucket_name != bucket.meta.name or (
        silent and claim.observed_generation != claim.meta.generation
    ):
        patience = patience_s(view.now, view.sidecar_wrote_at)
        if left := left_for_sidecar(bucket.meta.created, view.now, patience):
            return left
        waiting = Terminal(
            Reason.WAITING_FOR_BUCKET,
            f"Bucket {bucket.meta.name} is waiting for the sidecar of driver"
            f" {records.driver_of(bucket)}.",
            waiting=True,
        )
        return Done(waiting)
    if bucket.ready and bucket.bucket_id and not claim.ready:
        ready = ready_in(bucket.conditions)
        since = ready.last_transition_time if ready else ""
        return left_for_sidecar(since, view.now) or Done(Success())
    return Done(Success(), report=False)  # the sidecar reports the Bucket's state on the claim


def _repaired(
    claim: BucketClaim, bucket: Bucket, bucket_class: BucketClass | None
) -> UpdateBucketObject | None:
    """Copy a changed class to a Bucket that has no backend bucket yet.

    The driver may change only while the Bucket has no sidecar's finalizer; later, a class of
    another driver is ignored. The conditional write fails if a sidecar has added its finalizer in
    the meantime.
    """
    if bucket_class is None or claim.existing_bucket_name or bucket.ready or bucket.bucket_id:
        return None
    if bucket.meta.deleting:
        return None
    driver_name = bucket_class.driver_name
    if bucket.meta.finalizers and not names.same_driver(driver_name, bucket.driver_name):
        return None  # the parameters are for another driver
    if (
        dict(bucket.parameters) == dict(bucket_class.parameters)
        and driver_name == bucket.driver_name
    ):
        return None
    return UpdateBucketObject(bucket.meta.key, driver_name, dict(bucket_class.parameters))


def _completed(bucket: Bucket, view: ClaimView) -> ReadClass | UpdateBucketObject | None:
    """Copy the parameters of its class to a static Bucket without parameters.

    In the Go pair the sidecar does this. Here the controller does, so our sidecar's role does not
    need to allow reading classes.
    """
    if not bucket.existing_bucket_id or bucket.parameters or not bucket.class_name:
        return None
    if bucket.meta.deleting:
        return None
    found = view.bucket_class
    if found is None or found.meta.name != bucket.class_name:
        if view.class_read or not names.is_object_name(bucket.class_name):
            return None
        return ReadClass(Key("", bucket.class_name))
    if not found.parameters:
        return None
    return UpdateBucketObject(bucket.meta.key, bucket.driver_name, dict(found.parameters))


def _plan_deletion(claim: BucketClaim, view: ClaimView) -> ClaimStep:
    if names.CLAIM_FINALIZER not in claim.meta.finalizers:
        return _ended(claim)
    free = EditFinalizers(claim.meta.key, remove=(names.CLAIM_FINALIZER,))
    bucket = view.bucket
    if bucket is None or not records.is_bound_to(bucket, claim):
        # Read first: without the finalizer on the claim, a Bucket created for the claim would leak.
        return _unless_read(view, claim) or free
    ours = bucket.meta.name == names.bucket_name(claim.meta.uid)
    if ours or bucket.deletion_policy is DeletionPolicy.DELETE or bucket.meta.deleting:
        if not bucket.meta.deleting:
            return DeleteBucketObject(bucket.meta.key, bucket.meta.uid)
        return _await_sidecar(claim, bucket, view)
    for access in view.accesses:
        if not access.meta.deleting:
            return DeleteAccess(access.meta.key, access.meta.uid)
    entries = bucket.record.accesses.values() if bucket.record else ()
    left = [*view.accesses, *entries]
    if left:
        names_left = {_key_of(item): None for item in left}
        waiting = ", ".join(str(key) for key in list(names_left)[:5])
        return Done(
            Terminal(
                Reason.WAITING_FOR_ACCESSES,
                f"The claim is deleted when its accesses are revoked. Not revoked yet: {waiting}.",
                waiting=True,
            )
        )
    return free


def _ended(claim: BucketClaim) -> Done:
    words = "The operator has finished. The BucketClaim"
    return ended(claim, Reason.BEING_DELETED, words, usable=claim.ready)


def _await_sidecar(claim: BucketClaim, bucket: Bucket, view: ClaimView) -> Done:
    """Wait for the sidecar, which also reports on the claim; after a time limit, report instead."""
    reported = view.waiting_reported
    if is_reported(claim.conditions, deleting=True) or is_overwritten(
        claim.conditions, reported=reported
    ):
        return Done(Success(), report=False)
    if view.deleting_since is not None:
        since, patience = stamp(view.deleting_since), patience_s(view.now, view.sidecar_wrote_at)
        if left := left_for_sidecar(since, view.now, patience):
            return left
    what = f"Bucket {bucket.meta.name} is waiting to be deleted"
    return Done(waiting_for_sidecar(what, shown_name(records.driver_of(bucket))))


def _key_of(item: BucketAccess | AccessRecord) -> Key:
    return item.meta.key if isinstance(item, BucketAccess) else Key(item.namespace, item.name)
