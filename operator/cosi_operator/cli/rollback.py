"""Which objects the Go pair v0.2.2 would mishandle after a rollback, and why. Pure.

Read in the source of v0.2.2. What matters: it trusts every status and spec, and no record; it
looks a claim up by `spec.bucketClaim`, a Bucket by the claim's status, and a Secret by the access's
spec, and retries indefinitely when one of them is missing; and it never checks that an id is there.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from cosi_operator.api.record import AccessRecord
from cosi_operator.api.view import Bucket, BucketAccess, BucketClaim, DeletionPolicy, Key
from cosi_operator.conditions import SPEC_CHANGE_IGNORED
from cosi_operator.plan import names
from cosi_operator.plan.records import spec_claim
from cosi_operator.scrub import shown_name
from cosi_operator.sdk.diagnosis import Reported, condition

WAIT = "Wait until it is ready, or delete it."
END = "Wait until it is deleted. To see what delays that, run: cosi why."
RENEW = "Delete this BucketAccess and create it again."


@dataclass(frozen=True, slots=True)
class Finding:
    """One object, the gravest reason, and what to do before the rollback."""

    kind: str
    namespace: str
    name: str
    why: str
    before: str


@dataclass(frozen=True, slots=True)
class Seen:
    """All objects of the cluster; `lost_secrets` are the missing ones that an access names."""

    buckets: Iterable[Bucket] = ()
    claims: Iterable[BucketClaim] = ()
    accesses: Iterable[BucketAccess] = ()
    lost_secrets: frozenset[Key] = frozenset()


@dataclass(frozen=True, slots=True)
class _Index:
    buckets: Mapping[str, Bucket]
    claims: Mapping[Key, BucketClaim]
    accesses: frozenset[str]  # their UIDs
    entries: Mapping[str, tuple[Bucket, AccessRecord]]  # by the UID of the access
    lost_secrets: frozenset[Key] = field(default_factory=frozenset)
    ids: Mapping[str, list[str]] = field(default_factory=dict)  # Buckets by the driver's id
    accounts: Mapping[str, list[str]] = field(default_factory=dict)  # accesses by account


def mishandled(seen: Seen) -> list[Finding]:
    """One finding for each object that has a reason, sorted by kind, namespace and name."""
    index = _Index(
        {bucket.meta.name: bucket for bucket in seen.buckets},
        {claim.meta.key: claim for claim in seen.claims},
        frozenset(access.meta.uid for access in seen.accesses),
        {
            uid: (bucket, entry)
            for bucket in seen.buckets
            if bucket.record
            for uid, entry in bucket.record.accesses.items()
        },
        seen.lost_secrets,
        _grouped((bucket.bucket_id, bucket.meta.name) for bucket in seen.buckets),
        _grouped((access.account_id, str(access.meta.key)) for access in seen.accesses),
    )
    found = [
        *(_finding(bucket, _of_bucket(bucket, index)) for bucket in seen.buckets),
        *(_finding(claim, _of_claim(claim, index)) for claim in seen.claims),
        *(_finding(access, _of_access(access, index)) for access in seen.accesses),
    ]
    there = [each for each in found if each is not None]
    return sorted(there, key=lambda each: (each.kind, each.namespace, each.name))


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The second values by the first, without those whose first value is empty."""
    found: dict[str, list[str]] = {}
    for first, second in pairs:
        if first:
            found.setdefault(first, []).append(second)
    return found


type _Reasons = Iterator[tuple[str, str]]  # why, and what to do before; the gravest first


def _finding(view: Reported, reasons: _Reasons) -> Finding | None:
    first = next(reasons, None)
    if first is None:
        return None
    return Finding(type(view).__name__, view.meta.namespace, view.meta.name, *first)


def _of_bucket(bucket: Bucket, index: _Index) -> _Reasons:
    record = bucket.record
    is_held = names.BUCKET_FINALIZER in bucket.meta.finalizers
    if is_held and not bucket.bucket_id:
        yield (
            "no status.bucketID: its deletion would send DriverDeleteBucket with an empty id",
            "Wait until it is ready, or delete its claim and wait until both are gone.",
        )
    if bucket.copied_record is not None:
        yield (
            "a copy of another Bucket: its deletion would delete the bucket of the original",
            "Bind it (docs/backup-and-restore.md), or delete it.",
        )
    if record and record.driver and not names.same_driver(record.driver, bucket.driver_name):
        yield (
            f"its driver is {shown_name(record.driver)}, spec.driverName is"
            f" {shown_name(bucket.driver_name)}: calls would go to that driver, or to none",
            "Set spec.driverName to the driver that holds the bucket.",
        )
    if record and record.bucket_id and bucket.bucket_id not in ("", record.bucket_id):
        yield (
            f"its id is {shown_name(record.bucket_id)}, status.bucketID is"
            f" {shown_name(bucket.bucket_id)}: calls would name the wrong bucket",
            "Wait until our sidecar has written the status again.",
        )
    others = [name for name in index.ids.get(bucket.bucket_id, ()) if name != bucket.meta.name]
    if others and bucket.deletion_policy is DeletionPolicy.DELETE:
        yield (
            f"Bucket {others[0]} has the same bucket id: the deletion of this Bucket would delete"
            " the data of both",
            "Set its deletionPolicy to Retain.",
        )
    yield from _keys_of(bucket, index)
    yield from _claim_of(bucket, index)
    if bucket.meta.deleting:
        yield "it is being deleted", END
    if not bucket.ready or not bucket.bucket_id:
        yield "not ready: the driver would be called indefinitely", "Wait, or delete its claim."
    if not is_held and bucket.deletion_policy is DeletionPolicy.DELETE:
        yield (
            "without bucket-protection: its deletion would leave the bucket on the backend",
            "Wait until our sidecar has added the finalizer.",
        )


def _keys_of(bucket: Bucket, index: _Index) -> _Reasons:
    recorded = bucket.record.accesses if bucket.record else {}
    gone = recorded.keys() - index.accesses
    if gone:
        yield (
            f"its record holds keys of {len(gone)} deleted accesses, which the Go sidecar would not"
            " revoke",
            "Wait until our sidecar has revoked them.",
        )


def _claim_of(bucket: Bucket, index: _Index) -> _Reasons:
    named = spec_claim(bucket)
    recorded = bucket.record.claim if bucket.record else None
    key = Key(named.namespace, named.name)
    if recorded and recorded.uid and key != (recorded.namespace, recorded.name):
        yield (
            f"spec.bucketClaim does not name {shown_name(f'{recorded.namespace}/{recorded.name}')},"
            " to which it is bound: that claim could not be deleted",
            "Wait until our controller has written spec.bucketClaim again.",
        )
    elif not named.name and names.BUCKET_ACCESS_FINALIZER in bucket.meta.finalizers:
        yield (
            "accesses and no spec.bucketClaim: its deletion would crash the sidecar",
            "Delete its accesses.",
        )
    elif named.name and key not in index.claims:
        yield (
            f"its claim {shown_name(str(key))} is not there: its deletion would never end",
            "Delete this Bucket, or clear spec.bucketClaim.",
        )


def _of_claim(claim: BucketClaim, index: _Index) -> _Reasons:
    bucket = index.buckets.get(claim.bucket_name)
    is_held = names.CLAIM_FINALIZER in claim.meta.finalizers
    if bucket is not None:
        named = spec_claim(bucket)
        if (named.namespace, named.name) != claim.meta.key or named.uid not in (
            "",
            claim.meta.uid,
        ):
            yield (
                f"status.bucketName is {shown_name(claim.bucket_name)}, which is bound to another"
                " claim: the deletion of this claim would delete that Bucket",
                "Delete this claim.",
            )
    if claim.meta.deleting:
        yield "it is being deleted: its Bucket might never be deleted", END
    if not claim.ready or not claim.bucket_name:
        yield "not ready: retried indefinitely, and perhaps impossible to delete", WAIT
    elif bucket is None:
        yield (
            f"its Bucket {shown_name(claim.bucket_name)} is gone: its deletion would never end",
            "Delete this claim.",
        )
    if not is_held:
        yield (
            "without bucketclaim-protection: its deletion would leave its Bucket",
            "Wait until our controller has added the finalizer.",
        )


def _of_access(access: BucketAccess, index: _Index) -> _Reasons:
    claim = index.claims.get(access.claim_key)
    bucket = index.buckets.get(claim.bucket_name) if claim else None
    is_held = names.ACCESS_FINALIZER in access.meta.finalizers
    if is_held and (not access.account_id or (bucket and not bucket.bucket_id)):
        yield (
            "granted in part: its deletion would send DriverRevokeBucketAccess with an empty id",
            "Wait until it is ready, or delete it and wait until it is gone.",
        )
    others = [
        key for key in index.accounts.get(access.account_id, ()) if key != str(access.meta.key)
    ]
    if others:
        yield (
            f"BucketAccess {others[0]} has the same account: the deletion of one would end the keys"
            " of both",
            RENEW,
        )
    yield from _of_entry(access, bucket, index)
    told = condition(access, SPEC_CHANGE_IGNORED)
    if told is not None and told.status == "True":
        yield "its spec was changed after the grant, and the Go sidecar would use it", RENEW
    if access.meta.deleting:
        yield "it is being deleted", END
    if not access.granted or not access.account_id:
        yield "not granted: the driver would be called indefinitely", WAIT
        return
    missing = (
        ("BucketClaim", access.claim_name, claim is None),
        ("Bucket", claim.bucket_name if claim else "", bucket is None),
        (
            "Secret",
            access.secret_name,
            Key(access.meta.namespace, access.secret_name) in index.lost_secrets,
        ),
    )
    for kind, name, is_gone in missing:
        if is_gone:
            yield f"its {kind} {shown_name(name)} is gone: its deletion would never end", RENEW
    if not is_held:
        yield (
            "without bucketaccess-protection: its deletion would leave its keys",
            "Wait until our sidecar has added the finalizer.",
        )


def _of_entry(access: BucketAccess, bucket: Bucket | None, index: _Index) -> _Reasons:
    held = index.entries.get(access.meta.uid)
    if held is None:
        if access.account_id and bucket is not None and bucket.record is not None:
            yield (
                "its account is in no record, so a tenant may have written it:"
                " its deletion would revoke that account",
                RENEW,
            )
        return
    owner, entry = held
    if bucket is not None and owner.meta.name != bucket.meta.name:
        yield (
            f"its keys are for Bucket {shown_name(owner.meta.name)}, its claim names"
            f" {shown_name(bucket.meta.name)}: its deletion would name the wrong bucket",
            RENEW,
        )
    if len(entry.accounts) > 1:
        yield (
            f"{len(entry.accounts)} accounts are recorded: all but one would keep their keys",
            "Wait until our sidecar has revoked the old keys.",
        )
    if not entry.accounts:
        yield "a grant was asked for and not answered: it may leave keys", WAIT
    elif access.account_id and access.account_id not in entry.accounts:
        yield (
            f"its account is {shown_name(entry.accounts[-1])}, status.accountID is"
            f" {shown_name(access.account_id)}: its deletion would revoke the wrong account",
            "Wait until our sidecar has written the status again.",
        )
    if entry.secret and entry.secret != access.secret_name:
        yield (
            f"its Secret is {shown_name(entry.secret)}, its spec names"
            f" {shown_name(access.secret_name)}: its deletion would delete that Secret",
            RENEW,
        )
