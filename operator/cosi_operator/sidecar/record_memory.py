"""Remembers what other writers changed or removed in the records of Buckets, in this process only.

The sidecar restores the lost parts, and revokes the accesses of Buckets that vanished.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from msgspec.structs import replace

from cosi_operator.api.record import AccessRecord, BucketRecord
from cosi_operator.api.view import Bucket, Key
from cosi_operator.plan import names, records


@dataclass(slots=True)
class RecordMemory:
    """This process's memory of records that another writer changed or removed."""

    _removed: dict[str, BucketRecord] = field(default_factory=dict)  # by UID of the Bucket
    _lost: dict[str, BucketRecord] = field(default_factory=dict)  # by UID of the Bucket
    _vanished: dict[str, Bucket] = field(default_factory=dict)  # by UID of the access
    _released: dict[str, Bucket] = field(default_factory=dict)  # by name of the Bucket
    # UIDs of Buckets from which another writer has removed our finalizer.
    _without_finalizer: set[str] = field(default_factory=set)

    def note(self, old: Bucket | None, new: Bucket | None) -> None:
        """Process a change of a Bucket."""
        if new is not None and new.record is not None:
            self._removed.pop(new.meta.uid, None)
        if old is None or old.record is None:
            return
        self._note_finalizer(old.record, old, new)
        if new is None or new.meta.uid != old.meta.uid:
            self._removed.pop(old.meta.uid, None)
            record = old.record
            if lost := self._lost.pop(old.meta.uid, None):
                record = records.with_restored(record, lost)
            for uid in record.accesses:
                self._vanished[uid] = replace(old, record=record)
            if names.BUCKET_FINALIZER not in old.meta.finalizers:
                self._released[old.meta.name] = old
        elif new.record is None:
            self._removed[old.meta.uid] = old.record
        else:
            self._note_lost(new.meta.uid, old.record, new.record)

    def _note_finalizer(self, old: BucketRecord, before: Bucket, after: Bucket | None) -> None:
        """Note who removed our finalizer: only a sidecar raises the revision in the same write."""
        had = names.BUCKET_FINALIZER in before.meta.finalizers
        if after is None or after.meta.uid != before.meta.uid:
            if had:  # the Bucket kept the finalizer, so `take_without_finalizer` will not be called
                self._without_finalizer.discard(before.meta.uid)
            return
        revision = after.record.revision if after.record else old.revision
        if names.BUCKET_FINALIZER in after.meta.finalizers:
            self._without_finalizer.discard(after.meta.uid)
        elif had and revision <= old.revision:
            self._without_finalizer.add(after.meta.uid)

    def take_without_finalizer(self, bucket_uid: str) -> bool:
        """Whether our finalizer was removed by hand from a Bucket; the next call returns False."""
        was = bucket_uid in self._without_finalizer
        self._without_finalizer.discard(bucket_uid)
        return was

    def _note_lost(self, uid: str, old: BucketRecord, new: BucketRecord) -> None:
        """Remember the lost parts, because an older copy may have overwritten the record."""
        before = self._lost.get(uid)
        if before and records.has_all_of(new, before):
            del self._lost[uid]
            before = None
        if lost := records.lost_between(old, new):
            self._lost[uid] = records.with_restored(lost, before) if before else lost

    def lost_record(self, bucket: Bucket | None) -> BucketRecord | None:
        """The parts that another writer removed from the record of this object (by UID)."""
        return self._lost.get(bucket.meta.uid) if bucket else None

    def is_incomplete(self, bucket: Bucket | None, access_uid: str) -> bool:
        """Whether parts of this Bucket's record, or the entry of this access, are lost."""
        if bucket is not None and bucket.meta.uid in self._lost:
            return True
        return any(access_uid in lost.accesses for lost in self._lost.values())

    def lost_entries(self) -> Iterator[tuple[str, AccessRecord]]:
        for lost in self._lost.values():
            yield from lost.accesses.items()

    def forget_lost(self, bucket_uid: str) -> None:
        self._lost.pop(bucket_uid, None)

    def removed_record(self, bucket: Bucket | None) -> BucketRecord | None:
        """The record that another writer removed from this object (by UID)."""
        return self._removed.get(bucket.meta.uid) if bucket else None

    def vanished_bucket(self, access_uid: str) -> Bucket | None:
        """The last cached version of this access's Bucket, if that was removed by force."""
        return self._vanished.get(access_uid)

    def vanished_entries(self) -> Iterator[tuple[str, AccessRecord]]:
        for uid, bucket in self._vanished.items():
            if entry := records.entry_of(bucket, uid):
                yield uid, entry

    def vanished_accesses(self, key: Key) -> Iterator[tuple[str, AccessRecord, Bucket]]:
        for uid, bucket in list(self._vanished.items()):
            entry = records.entry_of(bucket, uid)
            if entry and (entry.namespace, entry.name) == key:
                yield uid, entry, bucket

    def forget_access(self, access_uid: str) -> None:
        self._vanished.pop(access_uid, None)

    def released_bucket(self, name: str) -> Bucket | None:
        """A Bucket that vanished without our finalizer, so its claim may still wait for it."""
        return self._released.get(name)

    def forget_released(self, name: str) -> None:
        self._released.pop(name, None)
