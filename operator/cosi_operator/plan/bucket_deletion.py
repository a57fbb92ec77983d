"""Plans the sidecar's next step for a Bucket that is being deleted. Pure.

Wait for the claim, then for the accesses, call DriverDeleteBucket (policy Delete), remove the
claim's finalizer, remove our finalizers. The Bucket object is kept until the driver has answered,
because some drivers read the object during the call.
"""

from cosi_operator.api.record import BucketRecord
from cosi_operator.api.view import Bucket, BucketAccess, DeletionPolicy, Key, ready_in
from cosi_operator.outcome import Call, Reason, Terminal
from cosi_operator.plan import names, records
from cosi_operator.plan.bucket_view import (
    BucketView,
    first_of,
    is_forced,
    is_given_up,
    known_id,
    last_create_left_nothing,
    list_former,
    our_finalizers,
    read_claim,
    record_edit,
    retry_token,
)
from cosi_operator.plan.records import RecordEdit
from cosi_operator.plan.steps import (
    BucketStep,
    CreateBackend,
    DeleteAccess,
    DeleteBackend,
    Done,
    EditBucket,
    LeaveBackend,
    ListAccesses,
    ReadBucketObject,
    ReleaseClaim,
)
from cosi_operator.plan.verdicts import driver_away, ended, valid_verdict
from cosi_operator.scrub import shown_name


def plan_deletion(bucket: Bucket, view: BucketView) -> BucketStep:
    """Return the next step of a deletion."""
    ours = our_finalizers(bucket)
    if not ours:
        return _ended(bucket)
    if view.rival:
        return _plan_deletion_of_copy(bucket, view.rival, view)
    if view.failed:
        return Done(view.failed.outcome)
    if not (bucket.record or bucket.copied_record or last_create_left_nothing(bucket)):
        former = list_former(bucket, view)
        return former or EditBucket(bucket.meta.key, record=record_edit(bucket, view))
    if halt := _wait_for_claim(bucket, view) or _plan_accesses(bucket, view):
        return halt
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
    # The empty edit raises the revision, so that no sidecar reports a removal by hand.
    return EditBucket(bucket.meta.key, remove=ours, record=RecordEdit() if bucket.record else None)


def _ended(bucket: Bucket) -> Done:
    words = "The sidecar has finished. The Bucket"
    return ended(bucket, Reason.BEING_DELETED, words, usable=bucket.ready)


def _plan_deletion_of_copy(bucket: Bucket, rival: Bucket, view: BucketView) -> BucketStep:
    """Delete only the copy object, because claim, accesses and backend belong to the rival."""
    if bucket.deletion_policy is DeletionPolicy.DELETE and not view.backend_gone:
        return LeaveBackend(
            f"Bucket {bucket.meta.name} is a copy of Bucket {rival.meta.name}, so the driver was"
            " not called and no data was deleted."
        )
    return EditBucket(bucket.meta.key, remove=our_finalizers(bucket))


def _wait_for_claim(bucket: Bucket, view: BucketView) -> BucketStep | None:
    """Wait while a claim uses the Bucket, as Kubernetes does for a PersistentVolume."""
    if is_forced(bucket):
        return None
    if view.claim and view.claim.meta.deleting:
        return None
    # The cache may be stale: it may lack the claim, or the claim's deletionTimestamp.
    if not view.claim_read and (read := read_claim(bucket)):
        return read
    claim = view.claim or view.successor
    if claim is None:
        return None
    return Done(
        Terminal(
            Reason.BUCKET_IN_USE,
            f"The bucket is deleted when BucketClaim {claim.meta.key} is deleted. To delete"
            " the bucket with its data now, a cluster administrator can run: kubectl annotate"
            f" --overwrite bucket {bucket.meta.name}"
            f" {names.FORCE_DELETE_ANNOTATION}={bucket.meta.uid}",
            waiting=True,
        )
    )


def _plan_accesses(bucket: Bucket, view: BucketView) -> BucketStep | None:
    """Delete the accesses and wait, because keys can't be revoked once the bucket is deleted."""
    for access in view.accesses:
        if not access.meta.deleting:
            return DeleteAccess(access.meta.key, access.meta.uid)
    record = bucket.record
    if view.accesses or (record and record.accesses):
        return Done(_waiting_for(view.accesses, record))
    # Only accesses from before the record can be missing from it.
    marked = names.BUCKET_ACCESS_FINALIZER in bucket.meta.finalizers
    claim = records.bound_claim(bucket)
    if marked and claim.name and record and record.former and not view.listed:
        return ListAccesses(claim.namespace)
    return None


def _plan_backend_deletion(bucket: Bucket, view: BucketView) -> BucketStep | None:
    if last_create_left_nothing(bucket):
        return None
    bucket_id = known_id(bucket, view)
    what = f"bucket {shown_name(bucket_id)}" if bucket_id else f"a bucket named {bucket.meta.name}"
    if is_given_up(bucket, bucket.meta.uid):
        return LeaveBackend(
            f"Bucket {bucket.meta.name} was deleted without calling the driver, because its"
            f" annotation {names.GIVE_UP_ANNOTATION} requests it. The backend may still hold"
            f" {what}."
        )
    if bucket.copied_record:
        return LeaveBackend(
            f"Bucket {bucket.meta.name} is a copy of another Bucket object and is not bound to a"
            f" claim, so the driver was not called to delete {what}."
        )
    if view.sharer:
        return LeaveBackend(
            f"Bucket {bucket.meta.name} was deleted without calling the driver, because Bucket"
            f" {view.sharer.meta.name} has the same bucket id. The backend keeps {what}."
        )
    token = retry_token(bucket, view.claim)
    halt = valid_verdict(bucket, Call.DELETE_BUCKET, view.context, token=token)
    if halt := halt or driver_away(view.context):
        return halt
    if view.unproven:
        # The copy may be stale: an administrator may have set policy Retain since, or the Bucket
        # may no longer exist and the driver may have reused its id.
        return ReadBucketObject(bucket.meta.key)
    if bucket_id:
        return DeleteBackend(bucket_id, bucket.parameters)
    # The id is unknown. Never send Delete without an id, because one real driver then deletes every
    # bucket. Create is idempotent, so call Create to learn the id.
    return CreateBackend(bucket.meta.name, bucket.parameters, resolving=True)


def _waiting_for(accesses: tuple[BucketAccess, ...], record: BucketRecord | None) -> Terminal:
    def story(access: BucketAccess) -> str:
        ready = ready_in(access.conditions)
        return f"{access.meta.key} ({ready.reason})" if ready else str(access.meta.key)

    found = {access.meta.uid for access in accesses}
    lost = [
        f"{Key(entry.namespace, entry.name)} (removed by force)"
        for uid, entry in (record.accesses.items() if record else ())
        if uid not in found
    ]
    stories = [story(access) for access in accesses] + lost
    why = "The Events say why."
    if accesses:
        first = accesses[0].meta
        why = f"To see why, run: kubectl describe bucketaccess {first.name} -n {first.namespace}"
    return Terminal(
        Reason.WAITING_FOR_ACCESSES,
        "The bucket is deleted when its accesses are revoked. Not revoked yet:"
        f" {first_of(stories, 5)}. {why}",
        waiting=True,
    )
