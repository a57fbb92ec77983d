"""Reads and writes the records of Buckets by the rules of `plan/records.py`, with its indexes."""

from collections.abc import Container, Hashable, Iterable, Iterator
from dataclasses import dataclass

from msgspec.structs import replace

from cosi_operator.api.record import AccessRecord, BucketRecord
from cosi_operator.api.view import Bucket, BucketAccess, BucketClaim, DeletionPolicy, Key
from cosi_operator.kube.errors import Conflict
from cosi_operator.kube.objects import STATUS_TRIES, Body, Objects, set_finalizers
from cosi_operator.kube.records import EntryChangedError, edit_record
from cosi_operator.plan import names, records
from cosi_operator.plan.bucket_view import is_forced, without_given_up
from cosi_operator.plan.steps import EditBucket
from cosi_operator.sidecar.record_memory import RecordMemory

BY_CLAIM = "claim"  # Key of the claim that spec or record names
# Only of accesses with our finalizer, because a tenant can create thousands that name one claim.
WITH_FINALIZER_BY_CLAIM = "claim, with finalizer"
BY_ACCESS = "access"  # UID of each recorded access, and its Key
BY_ID = "id"  # the driver's id
BY_ACCOUNT = "account"  # each account in the record; for an access, the account in its status

BUCKET_INDEXES = {
    BY_CLAIM: records.claims_of,
    BY_ACCESS: lambda bucket: _accesses_of(bucket),
    BY_ID: records.ids_of,
    BY_ACCOUNT: lambda bucket: set(_accounts_of(bucket)),
}


def _entries(bucket: Bucket) -> dict[str, AccessRecord]:
    return dict(bucket.record.accesses) if bucket.record else {}


def _accounts_of(bucket: Bucket) -> Iterator[str]:
    if bucket.record:
        yield from bucket.record.former.values()
        for entry in bucket.record.accesses.values():
            yield from entry.accounts


def _accesses_of(bucket: Bucket) -> set[Hashable]:
    entries = _entries(bucket)
    former = bucket.record.former if bucket.record else {}
    return {*entries, *former, *(Key(entry.namespace, entry.name) for entry in entries.values())}


def _is_of_driver(bucket: Bucket, driver: str) -> bool:
    """True also for an unknown driver, so that a possible holder of an account is not missed."""
    return not driver or names.same_driver(records.driver_of(bucket), driver)


async def edit_bucket(buckets: Objects[Bucket], step: EditBucket, uid: str) -> Bucket | None:
    """PUT finalizers and record as one change.

    After a conflict, an edit of one access's entry is repeated with a fresh copy, because many
    accesses share one record, and no access changes the entry of another. A later Bucket with the
    same name, whose UID is not `uid`, is not changed.

    Raises:
        Conflict: plan again with the fresh copy.
    """
    is_of_access = step.record is not None and bool(step.record.access_uid)
    for attempt in range(STATUS_TRIES if is_of_access else 1):
        try:
            return await buckets.edit(step.key, uid, lambda body: _change(body, step))
        except EntryChangedError:
            raise Conflict(409, "Conflict", f"the record of {step.key} changed") from None
        except Conflict:
            if attempt == STATUS_TRIES - 1 or not is_of_access:
                raise
    raise AssertionError("unreachable")


def _change(body: Body, step: EditBucket) -> None:
    add, remove = step.add, step.remove
    if step.record is not None:
        after = edit_record(body, step.record)
        if after and after.accesses and step.record.access_uid:
            # Keep the access finalizer for the other accesses.
            remove = tuple(name for name in remove if name != names.BUCKET_ACCESS_FINALIZER)
    if body["metadata"].get("deletionTimestamp"):
        add = ()  # the API server rejects new finalizers during a deletion
    set_finalizers(body, add=add, remove=remove)
    if step.given_up:
        _remove_given_up(body, step.given_up)


def _remove_given_up(body: Body, uid: str) -> None:
    annotations = body["metadata"].get("annotations") or {}
    before = annotations.get(names.GIVE_UP_ANNOTATION, "")
    if after := without_given_up(before, uid):
        annotations[names.GIVE_UP_ANNOTATION] = after
    else:
        annotations.pop(names.GIVE_UP_ANNOTATION, None)


@dataclass(frozen=True, slots=True)
class Holders:
    """The other accesses with one account.

    `live`: an access that is not being deleted has it. `ending`: an access that is deleted before
    this one has it.
    """

    live: bool = False
    ending: bool = False

    def __or__(self, other: "Holders") -> "Holders":
        return Holders(self.live or other.live, self.ending or other.ending)


@dataclass(frozen=True, slots=True)
class RecordLookup:
    """Finds Buckets, claims and accesses in the cache by the records that name them."""

    buckets: Objects[Bucket]
    accesses: Objects[BucketAccess]
    claims: Objects[BucketClaim]
    memory: RecordMemory

    def bucket_of_claim(self, claim: BucketClaim) -> Bucket | None:
        found = self.buckets.store.by_index(BY_CLAIM, claim.meta.key)
        return records.bucket_of_claim(claim, (cached.view for cached in found))

    def claim_of_bucket(self, bucket: Bucket | None) -> BucketClaim | None:
        """The claim that the Bucket is bound to, compared by UID."""
        bound = records.bound_claim(bucket) if bucket else None
        if bound is None or not bound.uid:
            return None
        claim = self.claims.get(Key(bound.namespace, bound.name))
        return claim if claim and records.identity_of(claim) == bound else None

    def successor_of(self, bucket: Bucket | None) -> BucketClaim | None:
        """A later claim of the recorded namespace and name whose status names the Bucket.

        The record may be an older copy, and the bucket the later claim's. A tenant can write this,
        so it only delays a deletion.
        """
        bound = records.bound_claim(bucket) if bucket else None
        if bucket is None or bound is None or not bound.uid:
            return None
        claim = self.claims.get(Key(bound.namespace, bound.name))
        if claim is None or records.identity_of(claim) == bound or claim.meta.deleting:
            return None
        return claim if claim.bucket_name == bucket.meta.name else None

    def rival_of(self, bucket: Bucket | None) -> Bucket | None:
        """For a Bucket without a record: the other Bucket that its claim is bound to.

        The Bucket is then a copy under another name. Its spec was copied too, so the claim in the
        spec does not prove who owns the data.
        """
        if bucket is None or bucket.record or self.memory.removed_record(bucket):
            return None
        claim = records.spec_claim(bucket)
        if not claim.uid:
            return None
        key = Key(claim.namespace, claim.name)
        current = self.claims.get(key)
        target = names.bucket_name(claim.uid)
        if current is not None and current.meta.uid == claim.uid:
            target = records.target_name(current)
        if bucket.meta.name == target:
            return None
        for cached in self.buckets.store.by_index(BY_CLAIM, key):
            other = cached.view
            is_other = other.meta.uid != bucket.meta.uid
            if is_other and records.precedes(other, bucket, claim, target):
                return other
        return None

    def others_with_id(self, bucket: Bucket, bucket_id: str) -> Iterator[Bucket]:
        """The other Buckets of the Bucket's driver with this bucket id."""
        driver = records.driver_of(bucket)
        for cached in self.buckets.store.by_index(BY_ID, bucket_id):
            other = cached.view
            is_other = other.meta.uid != bucket.meta.uid
            if is_other and names.same_driver(records.driver_of(other), driver):
                yield other

    def sharer_of(self, bucket: Bucket) -> Bucket | None:
        """Another Bucket with the same bucket id, whose data a Delete of this one would remove.

        Copies that have no right to the id do not count. Of two Buckets that are being deleted, one
        has to delete the data; the UIDs decide which, unless one still waits, or keeps the data.
        """
        bucket_id = records.bucket_id_of(bucket) or bucket.existing_bucket_id
        for other in self.others_with_id(bucket, bucket_id):
            is_mine_to_delete = self._will_delete(other) and bucket.meta.uid < other.meta.uid
            is_copy = records.is_renamed_copy(other) or self.rival_of(other) is not None
            if not is_mine_to_delete and not is_copy:
                return other
        return None

    def _will_delete(self, bucket: Bucket) -> bool:
        """Whether the deletion of a Bucket deletes its data now, and not after other objects."""
        is_empty = bucket.record is None or not bucket.record.accesses
        deletes = bucket.meta.deleting and bucket.deletion_policy is DeletionPolicy.DELETE
        return deletes and is_empty and not self._is_in_use(bucket)

    def _is_in_use(self, bucket: Bucket) -> bool:
        """Whether the deletion of a Bucket waits for its claim."""
        claim = self.claim_of_bucket(bucket)
        return claim is not None and not claim.meta.deleting and not is_forced(bucket)

    def lost_record(self, bucket: Bucket | None) -> BucketRecord | None:
        """The lost parts of a Bucket's record, without the entries of accesses that were deleted.

        An entry without an account also disappears when its access is deleted, and a process whose
        first list was stale sees that late. Restoring that entry would call the driver again.
        """
        lost = self.memory.lost_record(bucket)
        if bucket is None or lost is None:
            return None
        left = {
            uid: e for uid, e in lost.accesses.items() if e.accounts or self._has_finalizer(uid, e)
        }
        lost = replace(lost, accesses=left)
        if records.has_content(lost):
            return lost
        self.memory.forget_lost(bucket.meta.uid)
        return None

    def _has_finalizer(self, uid: str, entry: AccessRecord) -> bool:
        access = self.accesses.get(Key(entry.namespace, entry.name))
        if access is None or access.meta.uid != uid:
            return False
        return names.ACCESS_FINALIZER in access.meta.finalizers

    def recorded_bucket(self, access_uid: str) -> Bucket | None:
        """The Bucket whose record names this access."""
        found = self.buckets.store.by_index(BY_ACCESS, access_uid)
        return next((cached.view for cached in found), None)

    def accesses_of(self, bucket: Bucket | None) -> Iterator[BucketAccess]:
        """The accesses that have to be revoked before the bucket is deleted.

        For a Bucket without a record, the accesses that its first record has to list.
        """
        if bucket is None:
            return
        for uid, entry in _entries(bucket).items():
            access = self.accesses.get(Key(entry.namespace, entry.name))
            if access and access.meta.uid == uid:
                yield access
        if bucket.record is None and not records.may_have_former(bucket):
            return
        claim = records.bound_claim(bucket)
        for access in self._naming(Key(claim.namespace, claim.name)):
            if bucket.record is None:
                listed = records.could_be_former(access, bucket.copied_record) and self._may_be_of(
                    access, bucket
                )
            else:
                listed = records.is_former(bucket, access)
            if listed and self._is_of(access, claim.uid):
                yield access

    def _may_be_of(self, access: BucketAccess, bucket: Bucket) -> bool:
        """False if another record names the access, or it was granted on a vanished Bucket."""
        uid = access.meta.uid
        gone = self.memory.vanished_bucket(uid)
        if gone is not None and records.bucket_id_of(gone) != records.bucket_id_of(bucket):
            return False
        return self.recorded_bucket(uid) is None

    def _naming(self, claim: Key) -> Iterable[BucketAccess]:
        for cached in self.accesses.store.by_index(WITH_FINALIZER_BY_CLAIM, claim):
            yield cached.view

    def _is_of(self, access: BucketAccess, claim_uid: str) -> bool:
        claim = self.claims.get(access.claim_key)
        return claim is None or claim.meta.uid == claim_uid

    def others_need_finalizer(self, access: BucketAccess | None) -> bool:
        """Whether another access, which the record may lack, needs the access finalizer."""
        if access is None:
            return False
        return any(other.meta.uid != access.meta.uid for other in self._naming(access.claim_key))

    def has_rival(self, access: BucketAccess | None) -> bool:
        """Whether a record or another access names the account in this access's status."""
        if access is None or not access.account_id:
            return False
        uid, account, driver = access.meta.uid, access.account_id, self._driver_of(access)
        if any(other != uid for other, _ in self._entries_with(account, driver)):
            return True
        for bucket in self._with_account(account, driver):
            former = bucket.record.former if bucket.record else {}
            if account in former.values() and uid not in former:
                return True  # listed with another Bucket
        return any(
            cached.view.meta.uid != uid and self._may_be_taken_over(cached.view, driver)
            for cached in self.accesses.store.by_index(BY_ACCOUNT, account)
        )

    def _with_account(self, account: str, driver: str) -> Iterator[Bucket]:
        """The Buckets of a driver whose records name the account.

        Two drivers may use the same id for two accounts.
        """
        for cached in self.buckets.store.by_index(BY_ACCOUNT, account):
            if _is_of_driver(cached.view, driver):
                yield cached.view

    def _driver_of(self, access: BucketAccess) -> str:
        """The driver of the access's Bucket, "" if that Bucket is not known."""
        uid = access.meta.uid
        claim = self.claims.get(access.claim_key)
        bucket = (
            self.recorded_bucket(uid)
            or self.memory.vanished_bucket(uid)
            or (self.bucket_of_claim(claim) if claim else None)
        )
        return records.driver_of(bucket) if bucket else ""

    def holders(self, access: BucketAccess, account: str, leaving: Container[str] = ()) -> Holders:
        """The other accesses for which a record, present or remembered, names the account.

        `leaving`: the UIDs of accesses whose entries are just losing it.
        """
        found = Holders()
        for uid, entry in self._entries_with(account, self._driver_of(access)):
            if uid not in leaving:
                found |= self.holder(access, uid, Key(entry.namespace, entry.name))
        is_former_live = any(
            not other.meta.deleting and other.meta.uid != access.meta.uid
            for other in self._former_with(account, self._driver_of(access))
        )
        return Holders(live=is_former_live) | found

    def holder(self, access: BucketAccess, uid: str, key: Key) -> Holders:
        """The part that the other access with this UID and key has in `holders`."""
        if uid == access.meta.uid:
            return Holders()
        other = self.accesses.get(key)
        if other and other.meta.uid == uid and not other.meta.deleting:
            return Holders(live=True)
        # Of two accesses that are being deleted, both must use the same order; any works.
        return Holders(ending=uid < access.meta.uid)

    def _entries_with(self, account: str, driver: str) -> Iterator[tuple[str, AccessRecord]]:
        entries = [
            *(item for b in self._with_account(account, driver) for item in _entries(b).items()),
            *self.memory.lost_entries(),
            *self.memory.vanished_entries(),
        ]
        return ((uid, entry) for uid, entry in entries if account and account in entry.accounts)

    def _former_with(self, account: str, driver: str) -> Iterator[BucketAccess]:
        """The existing accesses that a record lists with this account from before it.

        And the accesses of the Bucket's claim that the record lacks and whose status names it: the
        record may be older than their entries. Others can't forge that, only the claim's namespace.
        """
        for bucket in self._with_account(account, driver):
            former = bucket.record.former if bucket.record else {}
            claim = records.bound_claim(bucket)
            by_status = self.accesses.store.by_index(BY_ACCOUNT, account)
            found = [*(cached.view for cached in by_status)]
            found += self._naming(Key(claim.namespace, claim.name))
            for other in found:
                is_lost = (
                    other.claim_key == (claim.namespace, claim.name)
                    and other.account_id == account
                    and records.entry_of(bucket, other.meta.uid) is None
                )
                if is_lost or former.get(other.meta.uid) == account:
                    yield other

    def _may_be_taken_over(self, access: BucketAccess, driver: str) -> bool:
        """Whether the access may have been granted by the Go sidecar of this driver."""
        claim = self.claims.get(access.claim_key)
        bucket = self.bucket_of_claim(claim) if claim else None
        if bucket is None or not _is_of_driver(bucket, driver):
            return False
        if bucket.record is None:
            return records.may_have_former(bucket)
        return records.is_former(bucket, access)

    def orphans(self, key: Key) -> Iterator[tuple[str, AccessRecord, Bucket]]:
        """Recorded accesses of this key, except the access that has the key now."""
        found = [cached.view for cached in self.buckets.store.by_index(BY_ACCESS, key)]
        for bucket in found:
            for uid, entry in _entries(bucket).items():
                if (entry.namespace, entry.name) == key and self.is_orphan(uid, entry):
                    yield uid, entry, bucket
        for uid, entry, bucket in self.memory.vanished_accesses(key):
            if self.is_orphan(uid, entry):
                yield uid, entry, bucket

    def is_orphan(self, uid: str, entry: AccessRecord) -> bool:
        """Whether a recorded access no longer exists."""
        live = self.accesses.get(Key(entry.namespace, entry.name))
        return live is None or live.meta.uid != uid
