"""What a sidecar watches, and which keys each change adds to the queues.

Secrets are not watched, because most drivers' roles allow neither list nor watch of Secrets. So a
change or deletion of a Secret wakes no access; the next run that needs the Secret reads it.
"""

from collections.abc import Hashable, Iterator
from dataclasses import replace

from cosi_operator.api.decode import (
    decode_bucket,
    decode_bucket_access,
    decode_bucket_access_class,
    decode_bucket_claim,
)
from cosi_operator.api.resources import (
    BUCKET_ACCESS_CLASSES,
    BUCKET_ACCESSES,
    BUCKET_CLAIMS,
    BUCKETS,
)
from cosi_operator.api.view import Bucket, BucketAccess, BucketAccessClass, BucketClaim, Key
from cosi_operator.fairness import Groups
from cosi_operator.kube.watches import Watching
from cosi_operator.plan import names, records
from cosi_operator.plan.bucket_view import given_up
from cosi_operator.sidecar.record_memory import RecordMemory
from cosi_operator.sidecar.records import (
    BUCKET_INDEXES,
    BY_ACCOUNT,
    BY_CLAIM,
    WITH_FINALIZER_BY_CLAIM,
    RecordLookup,
)
from cosi_operator.sidecar.secret_release import UnheldSecrets
from cosi_operator.status_patch import ready_of
from cosi_operator.workqueue import NewQueue, Pace, WorkQueue

# When the driver answers again, the objects that wait for it are retried at this rate.
WAKES_PER_S = 50.0


class SidecarWatches:
    """Stores and queues of a sidecar. A change adds its own key and the keys that wait for it."""

    def __init__(self, watching: Watching, new_queue: NewQueue[Key], driver_name: str) -> None:
        wakes = Pace(WAKES_PER_S)
        self.buckets_queue = new_queue("bucket", self.groups_of_bucket, pace=wakes)
        self.accesses_queue = new_queue("bucketaccess", self.groups_of_access, pace=wakes)
        self._driver_name = driver_name
        self.memory = RecordMemory()
        self.unheld = UnheldSecrets()
        self.buckets = watching.add(
            BUCKETS,
            decode_bucket,
            self._bucket_changed,
            BUCKET_INDEXES,
        )
        self.claims = watching.add(BUCKET_CLAIMS, decode_bucket_claim, self._claim_changed)
        self.classes = watching.add(
            BUCKET_ACCESS_CLASSES,
            decode_bucket_access_class,
            self._class_changed,
        )
        self.accesses = watching.add(
            BUCKET_ACCESSES,
            decode_bucket_access,
            self._access_changed,
            {
                "class": lambda access: (access.class_name,),
                BY_CLAIM: lambda access: (access.claim_key,) if access.claim_name else (),
                WITH_FINALIZER_BY_CLAIM: records.claim_if_finalizer,
                BY_ACCOUNT: lambda access: (access.account_id,) if access.account_id else (),
            },
        )
        self.lookup = RecordLookup(self.buckets, self.accesses, self.claims, self.memory)
        # For the runs of a Bucket and of an access: their own writes do not wake them again.
        self.own_buckets = replace(self.buckets, wrote=self._bucket_written)
        self.own_claims = replace(self.claims, wrote=self._claim_written)
        self.own_accesses = replace(self.accesses, wrote=self._access_written)

    def _bucket_changed(self, key: Key, old: Bucket | None, new: Bucket | None) -> None:
        if any(self.is_our_bucket(bucket) for bucket in (old, new) if bucket):
            self.buckets_queue.add(key)
        self._bucket_written(key, old, new)

    def _bucket_written(self, key: Key, old: Bucket | None, new: Bucket | None) -> None:
        """A change, which may be by the Bucket's own run."""
        seen = [bucket for bucket in (old, new) if bucket]
        if any(self.is_our_bucket(bucket) for bucket in seen):
            self.memory.note(old, new)
        if old is None or new is None or (old.record is None) != (new.record is None):
            for bucket in seen:  # it may have changed which of several Buckets a claim belongs to
                for claim in records.claims_of(bucket):
                    for cached in self.buckets.store.by_index(BY_CLAIM, claim):
                        if cached.view.meta.key != key:
                            self._touch_bucket(cached.view)
        if _access_facts(old) != _access_facts(new):
            for claim in {claim: None for bucket in seen for claim in records.claims_of(bucket)}:
                self._touch_accesses(claim)
            for bucket in seen:
                self._touch_recorded(bucket)
        self._touch_given_up(old, new)
        if old and new:  # add new entries only, because an access's own run writes most changes
            self._touch_added(old, new)

    def _touch_given_up(self, old: Bucket | None, new: Bucket | None) -> None:
        """Add the accesses of Buckets that vanished: the annotation may be for one of them."""
        if new and given_up(new) != (given_up(old) if old else ""):
            for _, entry in self.memory.vanished_entries():
                self.accesses_queue.add(Key(entry.namespace, entry.name))

    def _touch_recorded(self, bucket: Bucket) -> None:
        """Add recorded accesses, because those that no longer exist have to be revoked."""
        for entry in bucket.record.accesses.values() if bucket.record else ():
            self.accesses_queue.add(Key(entry.namespace, entry.name))

    def _touch_added(self, old: Bucket, new: Bucket) -> None:
        """Add accesses with a new entry that do not exist, from an older copy of the record."""
        before = old.record.accesses if old.record else {}
        for uid, entry in new.record.accesses.items() if new.record else ():
            if uid not in before and self.lookup.is_orphan(uid, entry):
                self.accesses_queue.add(Key(entry.namespace, entry.name))

    def _claim_changed(self, key: Key, old: BucketClaim | None, new: BucketClaim | None) -> None:
        claim = new or old
        if claim is None:
            return
        for cached in self.buckets.store.by_index(BY_CLAIM, key):
            self._touch_bucket(cached.view)
        name = names.bucket_name(claim.meta.uid)
        if self.memory.released_bucket(name):
            self.buckets_queue.add(Key("", name))
        self._touch_accesses(key)

    def _claim_written(self, key: Key, _old: BucketClaim | None, _new: BucketClaim | None) -> None:
        """A change by the run of the claim's Bucket."""
        self._touch_accesses(key)

    def _access_changed(self, key: Key, old: BucketAccess | None, new: BucketAccess | None) -> None:
        self.accesses_queue.add(key)
        self._access_written(key, old, new)

    def _access_written(
        self, _key: Key, old: BucketAccess | None, new: BucketAccess | None
    ) -> None:
        """A change, which may be by the access's own run."""
        classless = old is not None and self.classes.get(Key("", old.class_name)) is None
        if old is not None and (classless or self.is_our_access(old)):
            recorded = self.lookup.recorded_bucket(old.meta.uid) is not None
            self.unheld.note(old, new, classless=classless, recorded=recorded)
        if access := new or old:  # a Bucket waits for its last access even without its claim
            for cached in self.buckets.store.by_index(BY_CLAIM, access.claim_key):
                record = cached.view.record
                is_left = new is None and record is not None and access.meta.uid in record.former
                if cached.view.meta.deleting or is_left:
                    self._touch_bucket(cached.view)

    def _class_changed(
        self, key: Key, _old: BucketAccessClass | None, _new: BucketAccessClass | None
    ) -> None:
        for cached in self.accesses.store.by_index("class", key.name):
            self.accesses_queue.add(cached.view.meta.key)

    def _touch_bucket(self, bucket: Bucket) -> None:
        if self.is_our_bucket(bucket):
            self.buckets_queue.add(bucket.meta.key)

    def _touch_accesses(self, claim: Key) -> None:
        for cached in self.accesses.store.by_index(BY_CLAIM, claim):
            self.accesses_queue.add(cached.view.meta.key)

    def groups_of_bucket(self, key: Key) -> Groups:
        """The groups of a Bucket: the namespace of its claim, and its class."""
        bucket = self.buckets.get(key)
        if bucket is None:
            return Groups()
        return Groups(records.bound_claim(bucket).namespace, bucket.class_name)

    def groups_of_access(self, key: Key) -> Groups:
        """A class that does not exist is not a group, because a tenant may name many of them."""
        access = self.accesses.get(key)
        found = self.classes.get(Key("", access.class_name)) if access else None
        return Groups(key.namespace, found.meta.name if found else "")

    def is_our_bucket(self, bucket: Bucket) -> bool:
        """Whether a Bucket belongs to this driver."""
        return names.same_driver(records.driver_of(bucket), self._driver_name)

    def is_our_access(self, access: BucketAccess) -> bool:
        """Whether the class of an access names this driver."""
        found = self.classes.get(Key("", access.class_name))
        return found is not None and names.same_driver(found.driver_name, self._driver_name)

    def wake_unsettled(self) -> None:
        """When the driver answers again, retry the objects that wait for it, at a limited rate."""
        for queue, key in self._unsettled():
            queue.add_paced(key)

    def _unsettled(self) -> Iterator[tuple[WorkQueue[Key], Key]]:
        recorded = list(self.memory.vanished_entries())
        for key, bucket in self.buckets.store.items():
            if self.is_our_bucket(bucket.view):
                if _is_unsettled(bucket.view):
                    yield self.buckets_queue, key
                recorded += bucket.view.record.accesses.items() if bucket.view.record else ()
        for key, access in self.accesses.store.items():
            if _is_unsettled(access.view):
                yield self.accesses_queue, key
        for uid, entry in recorded:  # the keys of an access that no longer exists still work
            if self.lookup.is_orphan(uid, entry):
                yield self.accesses_queue, Key(entry.namespace, entry.name)


def _access_facts(bucket: Bucket | None) -> Hashable:
    """The facts of a Bucket that wake all its accesses. Most record changes affect only one."""
    if bucket is None:
        return None
    return (
        bucket.ready,
        bucket.meta.deleting,
        records.bucket_id_of(bucket),
        records.bound_claim(bucket),
        records.driver_of(bucket),
        bucket.record is None,
        bucket.copied_record is None,
        records.room_of(bucket),
        given_up(bucket),
    )


def _is_unsettled(view: Bucket | BucketAccess) -> bool:
    ready = ready_of(view)
    return view.meta.deleting or ready is None or ready.status != "True"
