"""Plans the sidecar's next step for one Bucket. Pure.

Creation: finalizer and record, DriverCreateBucket, status. Deletion: see `plan/bucket_deletion.py`.
"""

from cosi_operator.api.encode import claim_patch
from cosi_operator.api.view import Bucket, Key
from cosi_operator.outcome import Call, Effect, Reason, Requeue, Success, Terminal
from cosi_operator.plan import names, records
from cosi_operator.plan.bucket_deletion import plan_deletion
from cosi_operator.plan.bucket_view import (
    BucketView,
    first_of,
    given_up,
    is_given_up,
    is_rebound,
    known_id,
    last_create_left_nothing,
    list_former,
    read_claim,
    record_edit,
    retry_token,
)
from cosi_operator.plan.facts import CallFailed
from cosi_operator.plan.records import RecordEdit
from cosi_operator.plan.steps import (
    BucketStep,
    CreateBackend,
    Done,
    EditBucket,
    ReadBucketObject,
)
from cosi_operator.plan.verdicts import driver_away, valid_verdict
from cosi_operator.scrub import shown_name


def plan(view: BucketView) -> BucketStep:
    """Return the next step."""
    bucket, driver = view.bucket, view.context.driver
    if bucket is None or not names.same_driver(records.driver_of(bucket), driver.name):
        return Done(Success(), report=False)
    if view.lost and bucket.record:
        return EditBucket(bucket.meta.key, record=RecordEdit(restored=view.lost))
    if view.restored:
        return Done(Requeue(Reason.CONFLICT, "", after_s=0.0, quiet=True), report=False)
    if given_up := _given_up(bucket, view):
        return EditBucket(bucket.meta.key, record=RecordEdit(dropped=given_up))
    if bucket.meta.deleting:
        return plan_deletion(bucket, view)
    return _second(bucket, view.rival) if view.rival else _plan_creation(bucket, view)


def _given_up(bucket: Bucket, view: BucketView) -> tuple[str, ...]:
    """The UIDs of removed accesses from before the record that an administrator has given up."""
    left = records.former_left(bucket, view.accesses)
    return tuple(uid for uid in left if is_given_up(bucket, uid))


def _second(bucket: Bucket, rival: Bucket) -> Done:
    claim = records.spec_claim(bucket)
    return Done(
        Terminal(
            Reason.WAITING_FOR_CLAIM,
            f"spec.bucketClaim names BucketClaim {claim.namespace}/{claim.name}, which belongs to"
            f" Bucket {rival.meta.name}, so the driver is not called for this copy. This Bucket can"
            f" be deleted; the data and keys of Bucket {rival.meta.name} are kept.",
            waiting=True,
        )
    )


def _plan_creation(bucket: Bucket, view: BucketView) -> BucketStep:
    if view.backend_gone:  # deleted in this run, so this is a new Bucket of the same name
        return Done(Requeue(Reason.CONFLICT, "", after_s=0.0, quiet=True), report=False)
    if view.failed:
        return _after_failure(bucket, view, view.failed)
    if bucket.copied_record and not view.claim:
        read = None if view.claim_read else read_claim(bucket)
        return read or _unbound_copy(bucket)
    known = known_id(bucket, view)
    if not known and (orphan := _orphan(bucket, view)):
        return orphan
    if not known and (halt := _halt(bucket, view)):
        return _release_refused(bucket) or _start_record(bucket, view) or halt
    if hold := _plan_hold(bucket, view):
        return hold
    if known:
        return _released(bucket, view) or Done(Success())
    if view.unproven:  # a Bucket created from a stale copy of a deleted Bucket would leak
        return ReadBucketObject(bucket.meta.key)
    return CreateBackend(bucket.meta.name, bucket.parameters)


def _orphan(bucket: Bucket, view: BucketView) -> BucketStep | None:
    """End the run if the claim no longer exists, because its bucket would never be used."""
    claim = records.bound_claim(bucket)
    if view.claim or not claim.uid:
        return None
    if not view.claim_read:
        return read_claim(bucket)
    return Done(
        Terminal(
            Reason.WAITING_FOR_CLAIM,
            f"BucketClaim {claim.namespace}/{claim.name} with UID {claim.uid}, which this Bucket"
            " names, does not exist, so no bucket is created. Delete this Bucket, or ask your"
            " cluster administrator to set spec.bucketClaim to an existing BucketClaim.",
            waiting=True,
        )
    )


def _released(bucket: Bucket, view: BucketView) -> BucketStep | None:
    """A Bucket stays bound to a claim that no longer exists until a person changes that.

    The claim of a static Bucket was deleted, or the finalizer of a claim was removed by force.
    """
    bound = records.bound_claim(bucket)
    if not bound.uid:
        return None
    was_released = any(c.reason == Reason.RELEASED for c in bucket.conditions)
    if not view.claim_read and (was_released or view.claim is None):
        return read_claim(bucket)  # the cache may be stale in both cases
    if view.claim:
        return None
    return Done(
        Terminal(
            Reason.RELEASED,
            f"BucketClaim {bound.namespace}/{bound.name}, which used this bucket, no longer exists,"
            f" and the bucket is kept.{_still_granted(bucket, view)} {_how_to_use_again(bucket)}",
            waiting=True,
        )
    )


def _how_to_use_again(bucket: Bucket) -> str:
    name, named = bucket.meta.name, records.spec_claim(bucket)
    if not named.uid:
        who = f"BucketClaim {named.namespace}/{named.name}" if named.name else "Any BucketClaim"
        return f"{who} can use it with existingBucketName: {name}."
    return (
        "To let another BucketClaim use the bucket, run:"
        f" kubectl patch bucket {name} --type merge -p '{claim_patch(None)}'"
    )


def _still_granted(bucket: Bucket, view: BucketView) -> str:
    record = bucket.record
    if record is None:
        return ""
    found = {str(Key(entry.namespace, entry.name)) for entry in record.accesses.values()}
    found |= {str(a.meta.key) for a in view.accesses if a.meta.uid in record.former}
    text = ""
    if found:
        shown = first_of(sorted(found), 3)
        text = f" Delete its BucketAccesses first, because their keys work: {shown}."
    if left := records.former_left(bucket, view.accesses):
        accounts = first_of([shown_name(account) for account in sorted(left.values())], 3)
        given = ",".join([*filter(None, [given_up(bucket)]), *sorted(left)])
        text += (
            " Keys from before this operator may work too, and their BucketAccesses no longer"
            f" exist. Revoke account {accounts} with the tools of your storage, then run: kubectl"
            f" annotate --overwrite bucket {bucket.meta.name} {names.GIVE_UP_ANNOTATION}={given}"
        )
    return text


def _halt(bucket: Bucket, view: BucketView) -> Done | None:
    token = retry_token(bucket, view.claim)
    verdict = valid_verdict(bucket, Call.CREATE_BUCKET, view.context, token=token)
    return verdict or driver_away(view.context)


def _start_record(bucket: Bucket, view: BucketView) -> BucketStep | None:
    """Start the record even if the driver can't be called, because accesses may wait for it."""
    if bucket.record or bucket.copied_record or not records.may_have_former(bucket):
        return None
    former = list_former(bucket, view)
    return former or EditBucket(bucket.meta.key, record=record_edit(bucket, view))


def _unbound_copy(bucket: Bucket) -> Done:
    return Done(
        Terminal(
            Reason.WAITING_FOR_CLAIM,
            f"Bucket {bucket.meta.name} was copied or restored from another Bucket object and is"
            " not bound to an existing BucketClaim, so the driver is not called. To use the bucket,"
            " ask your cluster administrator to set spec.bucketClaim to an existing BucketClaim.",
            waiting=True,
        )
    )


def _plan_hold(bucket: Bucket, view: BucketView) -> BucketStep | None:
    """Store finalizer and record before any driver call; None when both are stored."""
    if is_rebound(bucket) and view.claim is None and not view.claim_read:
        return read_claim(bucket)
    if former := list_former(bucket, view):
        return former
    add = () if names.BUCKET_FINALIZER in bucket.meta.finalizers else (names.BUCKET_FINALIZER,)
    edit = record_edit(bucket, view)
    if not add and edit is None:
        return None
    return EditBucket(bucket.meta.key, add=add, record=edit or RecordEdit())


def _after_failure(bucket: Bucket, view: BucketView, failed: CallFailed) -> BucketStep:
    """Remove our finalizer after a Create that certainly left nothing on the backend.

    Otherwise, after a rollback to the Go sidecar, the Go sidecar would call DriverDeleteBucket with
    an empty id, because it does so for a Bucket that has the finalizer and no id.
    """
    if failed.effect is Effect.NONE and view.clean and (undo := _undo_hold(bucket)):
        return undo
    return Done(failed.outcome)


def _release_refused(bucket: Bucket) -> EditBucket | None:
    """Do the same for a refusal that an earlier version of this sidecar stored."""
    return _undo_hold(bucket) if last_create_left_nothing(bucket) else None


def _undo_hold(bucket: Bucket) -> EditBucket | None:
    if names.BUCKET_FINALIZER not in bucket.meta.finalizers:
        return None
    return EditBucket(
        bucket.meta.key, remove=(names.BUCKET_FINALIZER,), record=RecordEdit(driver="")
    )
