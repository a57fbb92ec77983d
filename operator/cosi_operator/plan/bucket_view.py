"""The input of one run's plan for a Bucket, and how facts change that input. Pure."""

from dataclasses import dataclass, replace
from typing import assert_never

from msgspec.structs import replace as with_fields

from cosi_operator.api.record import BucketRecord, ClaimIdentity
from cosi_operator.api.view import Bucket, BucketAccess, BucketClaim, Key
from cosi_operator.outcome import Call
from cosi_operator.plan import names, records
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
from cosi_operator.plan.steps import Context, ListAccesses, ReadClaim
from cosi_operator.plan.verdicts import refused_before_effect
from cosi_operator.scrub import shown_name


@dataclass(frozen=True, slots=True)
class BucketView:
    """The input of the plan for one run.

    Attributes:
        claim: the claim that the Bucket is bound to, by UID; from the cache unless `claim_read`.
        accesses: granted on this Bucket or waiting to be taken over; from the cache unless
            `listed`.
        rival: the other Bucket that the claim in the spec belongs to, if `bucket` is a copy of it
            under another name.
        successor: a later claim of the recorded namespace and name that names the Bucket.
        sharer: another Bucket with the same bucket id, so the data is not this Bucket's alone.
        remembered: the record of this object before another writer removed the record.
        lost: the parts of the record that another writer removed.
        clean: when the run began, no earlier Create can have left a backend bucket.
        unproven: `bucket` may still be a stale copy.
        restored: this run has restored lost parts, so claim and accesses have to be read again.
        bucket_id, backend_gone, failed: set during the run.
        judged: the Bucket at the time of the call that `failed`.
    """

    bucket: Bucket | None
    claim: BucketClaim | None
    accesses: tuple[BucketAccess, ...]
    context: Context
    rival: Bucket | None = None
    successor: BucketClaim | None = None
    sharer: Bucket | None = None
    remembered: BucketRecord | None = None
    lost: BucketRecord | None = None
    clean: bool = False
    unproven: bool = False
    restored: bool = False
    listed: bool = False
    claim_read: bool = False
    bucket_id: str = ""
    already_existed: bool = False
    backend_gone: bool = False
    failed: CallFailed | None = None
    judged: Bucket | None = None


def is_clean(bucket: Bucket | None) -> bool:
    """Whether no earlier run can have created a backend bucket.

    Our finalizer precedes each Create. Without this check, a refusal would count as proof that the
    backend holds nothing, although an earlier call with an unknown result created a bucket.
    """
    if bucket is None or names.BUCKET_FINALIZER not in bucket.meta.finalizers:
        return True
    return last_create_left_nothing(bucket)


def last_create_left_nothing(bucket: Bucket) -> bool:
    """Whether an earlier version of this sidecar stored that its last Create left nothing.

    That version kept the finalizer of a refused Bucket, and removed the verdict before it called
    the driver again.
    """
    refused = refused_before_effect(bucket.last_call, Call.CREATE_BUCKET)
    return bucket.record is None and refused and not bucket.bucket_id


def retry_token(bucket: Bucket, claim: BucketClaim | None) -> str:
    """The retry annotations of a Bucket and of its claim, as one token."""
    own = bucket.meta.annotations.get(names.RETRY_ANNOTATION, "")
    claimed = claim_retry(claim) if claim else ""
    return f"{own}|{claimed}" if own or claimed else ""


def claim_retry(claim: BucketClaim) -> str:
    """The retry annotation of a claim."""
    return claim.meta.annotations.get(names.RETRY_ANNOTATION, "")


def is_given_up(bucket: Bucket, uid: str) -> bool:
    """Whether the give-up annotation of the Bucket has this UID (of the Bucket or an access)."""
    return bool(uid) and uid in [word.strip() for word in given_up(bucket).split(",")]


def given_up(bucket: Bucket) -> str:
    """The annotation with the UIDs, separated by commas."""
    return bucket.meta.annotations.get(names.GIVE_UP_ANNOTATION, "")


def without_given_up(given_up: str, uid: str) -> str:
    """The give-up annotation without one UID."""
    words = [word.strip() for word in given_up.split(",")]
    return ",".join(word for word in words if word and word != uid)


def is_forced(bucket: Bucket) -> bool:
    """Whether an administrator has asked to delete the Bucket although its claim uses it."""
    return bucket.meta.annotations.get(names.FORCE_DELETE_ANNOTATION) == bucket.meta.uid


def ignored_change(bucket: Bucket) -> str:
    """A sentence about a change of the spec that the record overrides; "" without one."""
    driver = records.driver_of(bucket)
    if not names.same_driver(driver, bucket.driver_name):
        return (
            f"spec.driverName was changed to {shown_name(bucket.driver_name)} and is ignored,"
            f" because the bucket belongs to driver {driver}. Change spec.driverName back."
        )
    if bucket.unknown_policy:
        return (
            f"spec.deletionPolicy is {shown_name(bucket.unknown_policy)!r} and is ignored, so the"
            " data is kept when the Bucket is deleted. Set it to Delete or Retain."
        )
    used, named = records.bucket_id_of(bucket), bucket.existing_bucket_id
    if bucket.ready and named and used and named != used:
        return (
            f"spec.existingBucketID was changed to {shown_name(named)} and is ignored, because this"
            f" Bucket was bound with bucket id {shown_name(used)}. For the other bucket, create"
            " another Bucket."
        )
    return ""


def read_claim(bucket: Bucket) -> ReadClaim | None:
    """Read the bound claim from the API server, because a cache miss does not prove a deletion."""
    claim = records.bound_claim(bucket)
    return ReadClaim(Key(claim.namespace, claim.name)) if claim.uid else None


def known_id(bucket: Bucket, view: BucketView) -> str:
    """The driver's id of the bucket; "" when it is unknown."""
    stored = records.bucket_id_of(bucket) if bucket.ready or bucket.meta.deleting else ""
    return stored or view.bucket_id or bucket.existing_bucket_id


def record_edit(bucket: Bucket, view: BucketView) -> RecordEdit | None:
    """The edit that completes the record; None when the record is complete."""
    record, named = bucket.record, records.spec_claim(bucket)
    start = None if record else _first_record(bucket, view)
    now = record or start or BucketRecord()
    driver = None if now.driver else bucket.driver_name
    claim: ClaimIdentity | None = None
    if named.uid and (not now.claim.uid or _may_be_rebound(bucket, view)):
        claim = named if named != now.claim else None
    if record and record.bucket and driver is None and claim is None:
        return None
    return RecordEdit(start=start, driver=driver, claim=claim)


def is_rebound(bucket: Bucket) -> bool:
    """Whether spec.bucketClaim differs from the recorded claim.

    The spec takes effect only if the recorded claim no longer exists.
    """
    record, named = bucket.record, records.spec_claim(bucket)
    return bool(record and record.claim.uid and named.uid and named != record.claim)


def _may_be_rebound(bucket: Bucket, view: BucketView) -> bool:
    """Whether the claim in the spec may replace the recorded claim.

    A tenant must not get a bucket that another tenant's keys still reach.
    """
    named = records.spec_claim(bucket)
    if view.claim is not None or not is_rebound(bucket):
        return False
    return not records.has_keys_of_others(bucket, named.namespace, view.accesses)


def _first_record(bucket: Bucket, view: BucketView) -> BucketRecord:
    """The record for a Bucket without one: the removed record, else a new record.

    Accesses that were granted before are listed only in the first record, because a tenant may
    later write a status that claims an earlier Grant.
    """
    if view.remembered:
        return view.remembered
    # Higher than in any copy of an earlier record, which a backup may contain.
    revision = int(view.context.now.timestamp())
    if not records.may_have_former(bucket):
        return BucketRecord(revision)
    former = records.former_accesses(view.accesses, bucket.copied_record)
    return BucketRecord(revision, former=former)


def list_former(bucket: Bucket, view: BucketView) -> ListAccesses | None:
    """List the accesses before a record is started; None when no list is needed."""
    claim = records.bound_claim(bucket)
    if bucket.record or view.remembered or view.listed or not records.may_have_former(bucket):
        return None
    return ListAccesses(claim.namespace) if claim.uid else None


def first_of(texts: list[str], most: int) -> str:
    """The first texts and the number of the others, as one text for a message."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return f"{', '.join(texts[:most])}{more}"


def our_finalizers(bucket: Bucket) -> tuple[str, ...]:
    # The access finalizer is first, because it keeps the bucket until its accesses are deleted.
    both = (names.BUCKET_ACCESS_FINALIZER, names.BUCKET_FINALIZER)
    return tuple(name for name in both if name in bucket.meta.finalizers)


def fold(view: BucketView, fact: BucketFact) -> BucketView:
    """Return the view with the fact from a step that succeeded."""
    match fact:
        case BucketIs(bucket=bucket):
            restored = view.restored or view.lost is not None
            after = replace(view, bucket=bucket, unproven=False, lost=None, restored=restored)
            if bucket and view.bucket and _is_bound_anew(view.bucket, bucket):
                return replace(after, claim=None, claim_read=False)
            return after
        case ClaimIs(claim=claim):
            return replace(view, claim=_if_bound(view.bucket, claim), claim_read=True)
        case AccessesListed(accesses=accesses):
            return replace(view, accesses=accesses, listed=True)
        case AccessDeleting(key=key):
            return replace(
                view, accesses=tuple(_deleting(a, a.meta.key == key) for a in view.accesses)
            )
        case BackendIs(bucket_id=bucket_id, already_existed=existed):
            return replace(view, bucket_id=bucket_id, already_existed=existed)
        case BackendGone():
            return replace(view, backend_gone=True)
        case CallFailed():
            return replace(view, failed=fact, judged=view.bucket)
        case _:
            assert_never(fact)


def _is_bound_anew(before: Bucket, after: Bucket) -> bool:
    bound = records.bound_claim(before)
    return bool(bound.uid) and records.bound_claim(after) != bound


def _if_bound(bucket: Bucket | None, claim: BucketClaim | None) -> BucketClaim | None:
    if bucket is None or claim is None or not records.is_bound_to(bucket, claim):
        return None
    return claim


def _deleting(access: BucketAccess, yes: bool) -> BucketAccess:
    return with_fields(access, meta=with_fields(access.meta, deleting=True)) if yes else access
