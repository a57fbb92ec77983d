"""The input of one run's plan for a BucketClaim, and how facts change that input. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never

from msgspec.structs import replace as with_fields

from cosi_operator.api.view import Bucket, BucketAccess, BucketClaim, BucketClass, Key
from cosi_operator.plan import names, records
from cosi_operator.plan.facts import (
    AccessDeleting,
    BucketIs,
    ClaimFact,
    ClaimIs,
    ClassIs,
    HolderIs,
)
from cosi_operator.scrub import shown_name


@dataclass(frozen=True, slots=True)
class ClaimView:
    """The input of the plan for one run.

    Attributes:
        bucket: bound to the claim, or has the claim's target name (`records.target_name`).
        accesses: name this claim and have our finalizer.
        former: Buckets that name an earlier claim of this namespace and name.
        read: the names of Buckets that this run has read from the API server.
        holder_alive: whether the claim that the record of `bucket` names exists.
        is_claimed: another claim says in its status that it has `bucket`. A tenant may write
            that, so it only prevents that a Bucket whose record names no existing claim gets
            another claim: the record may be lost, or older than that claim.
        unproven: `claim` may still be a stale copy.
        sidecar_wrote_at: when the sidecar of the Bucket's driver last wrote the state of any
            object.
        deleting_since: when this process first saw the claim's deletionTimestamp.
        waiting_reported: the controller has since reported that the claim waits for the sidecar.
    """

    claim: BucketClaim | None
    bucket_class: BucketClass | None
    bucket: Bucket | None
    accesses: tuple[BucketAccess, ...]
    now: datetime
    former: tuple[Bucket, ...] = ()
    read: frozenset[str] = frozenset()
    class_read: bool = False
    holder_alive: bool | None = None
    is_claimed: bool = False
    unproven: bool = False
    sidecar_wrote_at: datetime | None = None
    deleting_since: datetime | None = None
    waiting_reported: bool = False


def former_buckets(claim: BucketClaim, buckets: Iterable[Bucket]) -> tuple[Bucket, ...]:
    """The Buckets that name an earlier claim of the same namespace and name, ordered by name."""
    wanted = (claim.meta.namespace, claim.meta.name)
    found = [
        bucket
        for bucket in buckets
        if not bucket.meta.deleting
        and not records.is_bound_to(bucket, claim)
        and any(
            named.uid not in ("", claim.meta.uid) and (named.namespace, named.name) == wanted
            for named in (records.bound_claim(bucket), records.spec_claim(bucket))
        )
    ]
    return tuple(sorted(found, key=lambda bucket: bucket.meta.name))


def wants_new(claim: BucketClaim) -> bool:
    """Whether a new bucket is requested although a former one exists.

    Compared with the UID, because a restore also restores the annotation of the earlier claim.
    """
    return claim.meta.annotations.get(names.NEW_BUCKET_ANNOTATION) == claim.meta.uid


def former_found_late(view: ClaimView) -> str:
    """A sentence about a former Bucket that was found after the new one; "" without one."""
    claim, bucket = view.claim, view.bucket
    if claim is None or bucket is None or not view.former or wants_new(claim):
        return ""
    if bucket.meta.name != names.bucket_name(claim.meta.uid) or claim.meta.deleting:
        return ""
    return (
        f"Bucket {view.former[0].meta.name} belongs to an earlier BucketClaim {claim.meta.key} that"
        " no longer exists, and may hold that claim's data. It was found after this BucketClaim"
        f" was given the new bucket {bucket.meta.name}. For the former bucket, delete this claim"
        " and create it again."
    )


def ignored_change(claim: BucketClaim, bucket: Bucket, bucket_class: BucketClass | None) -> str:
    """A sentence about a change of the claim or its class that the bucket ignores; "" without one.

    `bucket_class` is the class that the claim names.
    """
    if claim.existing_bucket_name not in ("", bucket.meta.name):
        return (
            "spec.existingBucketName was changed to"
            f" {shown_name(claim.existing_bucket_name)} and is ignored, because the claim is bound"
            f" to Bucket {bucket.meta.name}. Create a new"
            " BucketClaim instead."
        )
    if claim.existing_bucket_name or not claim.class_name:
        return ""
    if claim.class_name != bucket.class_name:
        return (
            f"spec.bucketClassName was changed to {shown_name(claim.class_name)} and is ignored,"
            f" because the bucket was created with BucketClass {shown_name(bucket.class_name)}."
        )
    if bucket_class is None or bucket_class.unknown_policy:
        return ""
    own = bucket.deletion_policy
    differs = {
        "driverName": not names.same_driver(records.driver_of(bucket), bucket_class.driver_name),
        "deletionPolicy": own is not bucket_class.deletion_policy,
        "parameters": dict(bucket.parameters) != dict(bucket_class.parameters),
    }
    fields = [field for field, is_other in differs.items() if is_other]
    if not fields:
        return ""
    policy = (
        f" The deletionPolicy of the bucket is {own.value}. To change it, ask your cluster"
        f" administrator to edit Bucket {bucket.meta.name}."
        if differs["deletionPolicy"]
        else ""
    )
    return (
        f"BucketClass {shown_name(bucket_class.meta.name)} differs from the bucket in"
        f" {', '.join(fields)}. A class is used only when a bucket is created, so the bucket keeps"
        f" its own values.{policy}"
    )


def fold(view: ClaimView, fact: ClaimFact) -> ClaimView:
    """Return the view with the fact from a step that succeeded."""
    match fact:
        case ClaimIs(claim=claim):
            return replace(view, claim=claim, unproven=False)
        case BucketIs(bucket=bucket, name=name):
            return replace(view, bucket=_better(view, bucket, name), read=view.read | {name})
        case ClassIs(bucket_class=bucket_class):
            return replace(view, bucket_class=bucket_class, class_read=True)
        case HolderIs(alive=alive):
            return replace(view, holder_alive=alive)
        case AccessDeleting(key=key):
            return replace(view, accesses=tuple(_deleting(a, key) for a in view.accesses))
        case _:
            assert_never(fact)


def _better(view: ClaimView, read: Bucket | None, name: str) -> Bucket | None:
    """The bound Bucket, of the Bucket that was read and the known Bucket.

    Without a name, `read` is the reply to a write of the known Bucket.
    """
    known = view.bucket
    if known is None or view.claim is None or name in ("", known.meta.name):
        return read
    if read is not None and records.is_bound_to(read, view.claim):
        return read
    return known


def _deleting(access: BucketAccess, key: Key) -> BucketAccess:
    if access.meta.key != key:
        return access
    return with_fields(access, meta=with_fields(access.meta, deleting=True))
