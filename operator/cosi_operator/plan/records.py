"""Rules of a Bucket's record (`api/record.py`): how to read it, how an edit changes it. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from msgspec.structs import replace

from cosi_operator.api.record import (
    FORMER_LIMIT_BYTES,
    AccessRecord,
    BucketRecord,
    ClaimIdentity,
    Room,
    is_storable_id,
    room_in,
    with_access,
)
from cosi_operator.api.view import Bucket, BucketAccess, BucketClaim, Key
from cosi_operator.plan import names


@dataclass(frozen=True, slots=True)
class RecordEdit:
    """One change of a record; None leaves a field unchanged.

    The edit is applied to the current record in the API server, not to the copy in the plan's view,
    because runs of several accesses edit one record, and each run changes only the entry of its
    access. `start` is the initial record if none exists. `seen` is the entry that `entry` replaces.
    `restored` is the lost part of the record; nothing else is restored. `dropped` are the UIDs of
    accesses to remove from `former`.
    """

    start: BucketRecord | None = None
    driver: str | None = None
    bucket_id: str | None = None
    claim: ClaimIdentity | None = None
    access_uid: str = ""
    seen: AccessRecord | None = None
    entry: AccessRecord | None = None
    restored: BucketRecord | None = None
    dropped: tuple[str, ...] = ()

    def fits(self, record: BucketRecord | None) -> bool:
        """Whether the entry is unchanged since the plan read it; otherwise plan again.

        An entry never starts a record, because without claim and driver it could not be checked.
        """
        if self.access_uid and record is None:
            return False
        stored = record.accesses.get(self.access_uid) if record and self.access_uid else None
        return stored == self.seen

    def apply(self, record: BucketRecord | None, bucket_uid: str, name: str) -> BucketRecord:
        """The record of the Bucket with this UID and name after this edit."""
        after = record or self.start or BucketRecord()
        after = replace(after, bucket=bucket_uid, name=name)
        if self.driver is not None:
            after = replace(after, driver=self.driver)
        if self.bucket_id is not None:
            after = replace(after, bucket_id=self.bucket_id)
        if self.claim is not None:
            after = replace(after, claim=self.claim)
        if self.access_uid:
            after = with_access(after, self.access_uid, self.entry)
        if self.dropped:
            former = {u: account for u, account in after.former.items() if u not in self.dropped}
            after = replace(after, former=former)
        if self.restored:
            after = with_restored(after, self.restored)
        return replace(after, revision=after.revision + 1)


def lost_between(old: BucketRecord, new: BucketRecord) -> BucketRecord | None:
    """The parts of the old record that the new one lacks, as a record; None if it lacks nothing.

    Every edit of a sidecar or a controller raises the revision. So nothing is lost if the revision
    is higher; if it is lower, an older copy was applied, and the claim may be lost too. If it is
    equal, a person edited the record; an account that disappears can no longer be revoked.
    """
    if new.revision > old.revision:
        return None
    is_older = new.revision < old.revision
    moved = bool(old.bucket_id) and new.bucket_id != old.bucket_id
    given = bool(old.bucket_id) and new.driver != old.driver
    rebound = is_older and bool(old.claim.uid) and new.claim != old.claim
    lost = BucketRecord(
        driver=old.driver if given else "",
        bucket_id=old.bucket_id if moved else "",
        claim=old.claim if rebound else ClaimIdentity(),
        accesses={
            uid: replace(entry, accounts=missing or entry.accounts)
            for uid, entry in old.accesses.items()
            if (missing := _missing(entry, new.accesses.get(uid))) is not None
        },
        former={
            uid: account
            for uid, account in old.former.items()
            if is_older and uid not in new.former and uid not in new.accesses
        },
    )
    return replace(lost, revision=old.revision) if has_content(lost) else None


def has_content(record: BucketRecord) -> bool:
    """Whether a record has more than its revision."""
    return replace(record, revision=0) != BucketRecord()


def has_all_of(record: BucketRecord, lost: BucketRecord) -> bool:
    """Whether a record with a higher revision has what was lost, so another process restored it."""
    return record.revision > lost.revision and with_restored(record, lost) == record


def _missing(old: AccessRecord, new: AccessRecord | None) -> tuple[str, ...] | None:
    """The accounts that an entry lost; None when it lost none."""
    if new is None:
        return old.accounts
    return tuple(a for a in old.accounts if a not in new.accounts) or None


def with_restored(record: BucketRecord, lost: BucketRecord) -> BucketRecord:
    """The record with its lost parts restored.

    If an entry exists but lacks accounts, it is unknown which account's keys the Secret holds. So
    the restored entry requests a Grant, after which all accounts but the newest are revoked.
    """
    accesses = dict(record.accesses)
    for uid, entry in lost.accesses.items():
        if (now := accesses.get(uid)) is None:
            accesses[uid] = entry
        elif back := tuple(a for a in entry.accounts if a not in now.accounts):
            accounts = (*now.accounts, *back)
            accesses[uid] = replace(now, accounts=accounts, minted=accounts[-1])
    former = {uid: account for uid, account in lost.former.items() if uid not in accesses}
    return replace(
        record,
        revision=max(record.revision, lost.revision),
        driver=lost.driver or record.driver,
        bucket_id=lost.bucket_id or record.bucket_id,
        claim=lost.claim if lost.claim.uid else record.claim,
        accesses=accesses,
        former={**former, **record.former},
    )


def driver_of(bucket: Bucket) -> str:
    """The driver of the bucket: the recorded driver, even if the spec names another one now."""
    return (bucket.record.driver if bucket.record else "") or bucket.driver_name


def bucket_id_of(bucket: Bucket) -> str:
    """The driver's id of the bucket; "" when it is unknown.

    An id from a copied record is not used until the copy is bound.
    """
    recorded = bucket.record.bucket_id if bucket.record else ""
    return recorded or bucket.bucket_id


def ids_of(bucket: Bucket) -> set[str]:
    """The driver's id of the bucket; before it is stored, the id that the spec asks for."""
    return {bucket_id_of(bucket) or bucket.existing_bucket_id} - {""}


def identity_of(claim: BucketClaim) -> ClaimIdentity:
    return ClaimIdentity(claim.meta.namespace, claim.meta.name, claim.meta.uid)


def spec_claim(bucket: Bucket) -> ClaimIdentity:
    """The claim that spec.bucketClaim names; without a UID only a reservation."""
    ref = bucket.claim
    return ClaimIdentity(ref.namespace, ref.name, ref.uid) if ref else ClaimIdentity()


def bound_claim(bucket: Bucket) -> ClaimIdentity:
    """The claim that a Bucket is bound to: the recorded claim, else a claim that spec names by UID.

    A reservation without a UID is not a binding, because anyone who creates a claim of that name
    would own the Bucket. The claim in the spec of a copy under another name is not a binding
    either.
    """
    if is_renamed_copy(bucket):
        return ClaimIdentity()
    recorded = bucket.record.claim if bucket.record else ClaimIdentity()
    if recorded.uid:
        return recorded
    named = spec_claim(bucket)
    return named if named.uid else ClaimIdentity()


def is_renamed_copy(bucket: Bucket) -> bool:
    """Whether a Bucket is a copy under a new name that still names the same claim."""
    copied = bucket.copied_record
    if copied is None or copied.name in ("", bucket.meta.name):
        return False
    return spec_claim(bucket) == copied.claim


def claims_of(bucket: Bucket) -> tuple[Key, ...]:
    """The keys of the claims that the record and the spec of a Bucket name."""
    named = (bound_claim(bucket), spec_claim(bucket))
    return tuple({Key(claim.namespace, claim.name): None for claim in named if claim.name})


def claim_if_finalizer(access: BucketAccess) -> tuple[Key, ...]:
    """The claim that an access names, if the access has our finalizer; else nothing.

    For an index: a tenant can create thousands of accesses that name one claim, and a lookup must
    not read those without our finalizer.
    """
    return (access.claim_key,) if names.ACCESS_FINALIZER in access.meta.finalizers else ()


def is_bound_to(bucket: Bucket, claim: BucketClaim) -> bool:
    return bound_claim(bucket) == identity_of(claim)


def precedes(other: Bucket, bucket: Bucket, claim: ClaimIdentity, target: str) -> bool:
    """Whether a claim belongs to the other Bucket and not to `bucket`, which has no record.

    The record of the other Bucket decides. Without one, the Bucket named `target` (the claim's
    target name) has precedence; if neither has that name, the older one.
    """
    if other.record is not None:
        return other.record.claim == claim
    if is_renamed_copy(other) or spec_claim(other) != claim:
        return False
    is_older = (other.meta.created, other.meta.uid) < (bucket.meta.created, bucket.meta.uid)
    return other.meta.name == target or is_older


def target_name(claim: BucketClaim) -> str:
    """The claim's target name: the name of the Bucket that it names or gets."""
    return claim.existing_bucket_name or names.bucket_name(claim.meta.uid)


def bucket_of_claim(claim: BucketClaim, buckets: Iterable[Bucket]) -> Bucket | None:
    """The Bucket that is bound to a claim.

    If several are bound, the Bucket created for the claim takes precedence, then a Bucket with a
    record, then the Bucket in the claim's status.
    """
    bound = [bucket for bucket in buckets if is_bound_to(bucket, claim)]
    own, stated = names.bucket_name(claim.meta.uid), claim.bucket_name
    return min(
        bound,
        key=lambda b: (b.meta.name != own, b.record is None, b.meta.name != stated, b.meta.name),
        default=None,
    )


def entry_of(bucket: Bucket | None, access_uid: str) -> AccessRecord | None:
    if bucket is None or bucket.record is None:
        return None
    return bucket.record.accesses.get(access_uid)


def has_keys_of_others(bucket: Bucket, namespace: str, accesses: Iterable[BucketAccess]) -> bool:
    """Whether keys of BucketAccesses that a new claim must not share the bucket with may work.

    These are the recorded ones of another namespace, and those that no longer exist, because the
    namespace may have been created again for another tenant.

    Args:
        accesses: the existing ones. Those that were granted before the record are in the namespace
            of the recorded claim.
    """
    record = bucket.record
    if record is None:
        return False
    if record.former and record.claim.namespace not in ("", namespace):
        return True
    existing = {access.meta.uid for access in accesses}
    if record.former.keys() - existing:
        return True
    return any(
        entry.namespace != namespace or uid not in existing
        for uid, entry in record.accesses.items()
    )


def former_left(bucket: Bucket, accesses: Iterable[BucketAccess]) -> dict[str, str]:
    """The accounts from before the record whose accesses no longer exist, by UID of the access.

    Their names are unknown, so no access reconciler revokes them.
    """
    record = bucket.record
    if record is None:
        return {}
    existing = {access.meta.uid for access in accesses}
    return {uid: account for uid, account in record.former.items() if uid not in existing}


def room_of(bucket: Bucket, *, rotating: bool = False) -> Room:
    """Whether the record of a Bucket has room for one more access, or for a second account."""
    return Room.NOW if bucket.record is None else room_in(bucket.record, rotating=rotating)


def is_former(bucket: Bucket, access: BucketAccess) -> bool:
    """Whether an access was granted before the record was started, and may be taken over.

    The record lists these accesses and their accounts since its first write, so a status that is
    written later has no effect.
    """
    record, uid = bucket.record, access.meta.uid
    if record is None or uid in record.accesses:
        return False
    return bool(access.account_id) and record.former.get(uid) == access.account_id


def may_have_former(bucket: Bucket) -> bool:
    """Whether an access to a Bucket without a record can have been granted.

    That is so if the Bucket was ready, or if it was created from a copy and has the same backend
    bucket because of its name or its `existingBucketID`. A copy under another name has another
    backend bucket.
    """
    if bucket.ready or bucket.bucket_id:
        return True
    copied = bucket.copied_record
    if copied is None:
        return False
    return bool(bucket.existing_bucket_id) or copied.name in ("", bucket.meta.name)


def could_be_former(access: BucketAccess, copied: BucketRecord | None) -> bool:
    """Whether the status of an access shows a Grant, for the list in a new record.

    Args:
        copied: the record of the Bucket of which this Bucket is a copy. It has to name the account
            for the UID of this access. A restored access has another UID: the account may still
            belong to the original, for instance in another cluster.
    """
    account = access.account_id
    if names.ACCESS_FINALIZER not in access.meta.finalizers or not is_storable_id(account):
        return False
    return bool(account) and (copied is None or account in _accounts_of(copied, access.meta.uid))


def _accounts_of(record: BucketRecord, access_uid: str) -> tuple[str, ...]:
    """The accounts that a record names for the access with this UID."""
    entry = record.accesses.get(access_uid)
    if entry is not None:
        return entry.accounts
    former = record.former.get(access_uid)
    return (former,) if former else ()


def accounts_left(copied: BucketRecord, started: BucketRecord) -> dict[str, str]:
    """The accounts that a copied record names and the new record does not take over.

    Returns:
        Account -> the BucketAccess that it was made for, as namespace/name, or as UID if the
        copied record does not have the name.
    """
    taken = set(started.former.values())
    found = {account: uid for uid, account in copied.former.items()}
    for entry in copied.accesses.values():
        found |= dict.fromkeys(entry.accounts, f"{entry.namespace}/{entry.name}")
    return {account: access for account, access in found.items() if account not in taken}


def former_accesses(
    accesses: Iterable[BucketAccess], copied: BucketRecord | None
) -> dict[str, str]:
    """The list for a new record, by UID; the oldest accesses if not all of them fit."""
    former: dict[str, str] = {}
    left_bytes = FORMER_LIMIT_BYTES
    for access in sorted(accesses, key=lambda a: (a.meta.created, a.meta.uid)):
        left_bytes -= len(access.meta.uid) + 2 * len(access.account_id.encode()) + 8
        if could_be_former(access, copied) and left_bytes >= 0:
            former[access.meta.uid] = access.account_id
    return former
