"""What the controller watches, and which keys each change adds to the queues."""

from collections.abc import Iterable
from dataclasses import replace

from cosi_operator.api.decode import (
    decode_bucket,
    decode_bucket_access,
    decode_bucket_access_class,
    decode_bucket_claim,
    decode_bucket_class,
)
from cosi_operator.api.resources import (
    BUCKET_ACCESS_CLASSES,
    BUCKET_ACCESSES,
    BUCKET_CLAIMS,
    BUCKET_CLASSES,
    BUCKETS,
)
from cosi_operator.api.view import (
    Bucket,
    BucketAccess,
    BucketAccessClass,
    BucketClaim,
    BucketClass,
    Key,
)
from cosi_operator.clock import Clock
from cosi_operator.controller.activity import SidecarActivity
from cosi_operator.fairness import Groups
from cosi_operator.kube.store import Cached
from cosi_operator.kube.watches import Watching
from cosi_operator.plan import names, records
from cosi_operator.plan.unreported_access import driver_of
from cosi_operator.reconcile import VanishedObjects
from cosi_operator.workqueue import NewQueue

# After a Bucket disappears, wait this long before its claim is reconciled, because a
# sidecar releases the claim in the run that ends the Bucket, and the watch events of both arrive in
# any order.
FREED_WITHIN_S = 1.0
CLAIM = "claim"
"""Index of accesses that hold our finalizer, and of Buckets: the Key of the claim they name."""


class ControllerWatches:
    """Stores and queues of the controller. A change adds its own key and those that wait for it."""

    def __init__(self, watching: Watching, new_queue: NewQueue[Key], clock: Clock) -> None:
        self.claims_queue = new_queue("bucketclaim", self.groups_of_claim)
        self.accesses_queue = new_queue("bucketaccess", lambda key: Groups(key.namespace))
        self.vanished = VanishedObjects[BucketClaim](names.CLAIM_FINALIZER)
        self.activity = SidecarActivity(clock)
        self.claims = watching.add(
            BUCKET_CLAIMS,
            decode_bucket_claim,
            self._claim_changed,
            {
                "class": lambda claim: (claim.class_name,),
                "existing": lambda claim: (
                    (claim.existing_bucket_name,) if claim.existing_bucket_name else ()
                ),
            },
        )
        self.buckets = watching.add(
            BUCKETS,
            decode_bucket,
            self._bucket_changed,
            {CLAIM: records.claims_of},
        )
        self.classes = watching.add(BUCKET_CLASSES, decode_bucket_class, self._class_changed)
        self.accesses = watching.add(
            BUCKET_ACCESSES,
            decode_bucket_access,
            self._access_changed,
            {"class": lambda access: (access.class_name,), CLAIM: records.claim_if_finalizer},
        )
        self.access_classes = watching.add(
            BUCKET_ACCESS_CLASSES,
            decode_bucket_access_class,
            self._access_class_changed,
        )
        # For the runs of a claim: their own writes do not wake them again.
        self.own_claims = replace(self.claims, wrote=self._claim_written)
        self.own_buckets = replace(self.buckets, wrote=self._bucket_written)

    def groups_of_claim(self, key: Key) -> Groups:
        """A class that does not exist is not a group, because a tenant may name many of them."""
        claim = self.claims.get(key)
        found = self.classes.get(Key("", claim.class_name)) if claim else None
        return Groups(key.namespace, found.meta.name if found else "")

    def class_of(self, access: BucketAccess) -> BucketAccessClass | None:
        return self.access_classes.get(Key("", access.class_name))

    def bucket_of(self, access: BucketAccess) -> Bucket | None:
        """The Bucket whose record names the access, else any that names its claim."""
        named = [cached.view for cached in self.buckets.store.by_index(CLAIM, access.claim_key)]
        recorded = (b for b in named if records.entry_of(b, access.meta.uid))
        return next(recorded, named[0] if named else None)

    def _driver_of(self, access: BucketAccess) -> str:
        """The driver of the access's class, else of its Bucket, which takes longer to find."""
        access_class = self.class_of(access)
        return access_class.driver_name if access_class else driver_of(self.bucket_of(access), None)

    def _touch_claims(self, found: Iterable[Cached[BucketClaim]]) -> None:
        for cached in found:
            self.claims_queue.add(cached.view.meta.key)

    def _claim_changed(self, key: Key, old: BucketClaim | None, new: BucketClaim | None) -> None:
        self._claim_written(key, old, new)
        self.claims_queue.add(key)

    def _claim_written(self, _key: Key, old: BucketClaim | None, new: BucketClaim | None) -> None:
        """A change, which may be by the claim's own run."""
        self.vanished.observe(old, new)

    def _bucket_changed(self, key: Key, old: Bucket | None, new: Bucket | None) -> None:
        self.activity.observe_bucket(old, new)
        for bucket in (old, new):
            for named in records.claims_of(bucket) if bucket else ():
                if new:
                    self.claims_queue.add(named)
                else:
                    self.claims_queue.add_after(named, FREED_WITHIN_S)
        self._touch_claims(self.claims.store.by_index("existing", key.name))
        if old and not new:  # nothing may name the driver of its accesses any more
            for named in records.claims_of(old):
                for cached in self.accesses.store.by_index(CLAIM, named):
                    self.accesses_queue.add(cached.view.meta.key)

    def _bucket_written(self, key: Key, old: Bucket | None, new: Bucket | None) -> None:
        """A change by the run of the claim that the Bucket names."""
        self.activity.observe_bucket(old, new)
        named = records.claims_of(new) if new else ()
        self._touch_claims(
            cached
            for cached in self.claims.store.by_index("existing", key.name)
            if cached.view.meta.key not in named
        )

    def _class_changed(self, key: Key, _old: BucketClass | None, _new: BucketClass | None) -> None:
        self._touch_claims(self.claims.store.by_index("class", key.name))

    def _access_changed(self, key: Key, old: BucketAccess | None, new: BucketAccess | None) -> None:
        if old is not None and (new is None or old.conditions != new.conditions):
            self.activity.observe_access(old, new, self._driver_of(new or old))
        self.accesses_queue.add(key)
        for access in (old, new):
            claim = self.claims.get(access.claim_key) if access else None
            if claim and claim.meta.deleting:
                self.claims_queue.add(claim.meta.key)

    def _access_class_changed(
        self, key: Key, _old: BucketAccessClass | None, _new: BucketAccessClass | None
    ) -> None:
        for cached in self.accesses.store.by_index("class", key.name):
            self.accesses_queue.add(cached.view.meta.key)
