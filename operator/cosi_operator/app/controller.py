"""Builds and joins the controller: what it watches, and which keys a change touches."""

from collections.abc import Iterable

from cosi_operator.api import v1alpha1
from cosi_operator.api.view import (
    Bucket,
    BucketAccess,
    BucketAccessClass,
    BucketClaim,
    BucketClass,
    Key,
)
from cosi_operator.app.object_count import object_counter
from cosi_operator.app.process import Process, Watched, Work, process
from cosi_operator.controller.access import UnreportedAccessReconciler
from cosi_operator.controller.activity import SidecarActivity
from cosi_operator.controller.claim import (
    ACCESSES_BY_CLAIM,
    BUCKETS_BY_CLAIM,
    ClaimReconciler,
    Controller,
)
from cosi_operator.fairness import Groups
from cosi_operator.kube.store import Cached
from cosi_operator.plan import records
from cosi_operator.report import Reporter
from cosi_operator.settings import ControllerSettings

LEASE_OWNER = "leader-lock/cosi-controller-manager"
COMPONENT = "cosi-controller"
RUN_TIMEOUT_S = 120.0  # requests have 30 s each; a run has a handful
# A sidecar frees the claim in the run that ends its Bucket; the news of both come in any order.
FREED_WITHIN_S = 1.0


async def run_controller(settings: ControllerSettings) -> None:
    """Run until SIGTERM."""
    async with process(settings, COMPONENT, ("bucketclaim", "bucketaccess")) as parts:
        await parts.lead(LEASE_OWNER, lambda: _work(parts))


async def _work(parts: Process) -> None:  # noqa: C901 - wiring: each part is a line or two
    watched = Watched(parts)
    claims_queue = parts.queue("bucketclaim", lambda key: groups_of_claim(key))
    accesses_queue = parts.queue("bucketaccess", lambda key: Groups(key.namespace))

    def groups_of_claim(key: Key) -> Groups:
        """A class that does not exist is no group, because a tenant may name any number of them."""
        claim = claims.get(key)
        found = classes.get(Key("", claim.class_name)) if claim else None
        return Groups(key.namespace, found.meta.name if found else "")

    def touch_claims(found: Iterable[Cached[BucketClaim]]) -> None:
        for cached in found:
            claims_queue.add(cached.view.meta.key)

    def claim_changed(key: Key, old: BucketClaim | None, new: BucketClaim | None) -> None:
        claim.vanished.look(old, new)
        claims_queue.add(key)

    def bucket_changed(key: Key, old: Bucket | None, new: Bucket | None) -> None:
        activity.look_at_bucket(old, new)
        for bucket in (old, new):
            for named in records.claims_of(bucket) if bucket else ():
                if new:
                    claims_queue.add(named)
                else:
                    claims_queue.add_after(named, FREED_WITHIN_S)
        touch_claims(claims.store.by_index("existing", key.name))

    def class_changed(key: Key, _old: BucketClass | None, _new: BucketClass | None) -> None:
        touch_claims(claims.store.by_index("class", key.name))

    def access_changed(key: Key, old: BucketAccess | None, new: BucketAccess | None) -> None:
        unreported.look(old, new)
        accesses_queue.add(key)
        for access in (old, new):
            claim = claims.get(access.claim_key) if access else None
            if claim and claim.meta.deleting:
                claims_queue.add(claim.meta.key)

    def access_class_changed(
        key: Key, _old: BucketAccessClass | None, _new: BucketAccessClass | None
    ) -> None:
        for cached in accesses.store.by_index("class", key.name):
            accesses_queue.add(cached.view.meta.key)

    claims = watched.add(
        v1alpha1.BUCKET_CLAIMS,
        v1alpha1.decode_bucket_claim,
        claim_changed,
        {
            "class": lambda claim: (claim.class_name,),
            "existing": lambda claim: (
                (claim.existing_bucket_name,) if claim.existing_bucket_name else ()
            ),
        },
    )
    buckets = watched.add(
        v1alpha1.BUCKETS,
        v1alpha1.decode_bucket,
        bucket_changed,
        {BUCKETS_BY_CLAIM: records.claims_of},
    )
    classes = watched.add(v1alpha1.BUCKET_CLASSES, v1alpha1.decode_bucket_class, class_changed)
    accesses = watched.add(
        v1alpha1.BUCKET_ACCESSES,
        v1alpha1.decode_bucket_access,
        access_changed,
        {
            "class": lambda access: (access.class_name,),
            ACCESSES_BY_CLAIM: records.claim_of_held,
        },
    )
    access_classes = watched.add(
        v1alpha1.BUCKET_ACCESS_CLASSES, v1alpha1.decode_bucket_access_class, access_class_changed
    )
    parts.metrics.watch_objects("BucketClaim", object_counter(claims))
    reporter = Reporter(parts.events, parts.clock, longest_pause_s=parts.settings.backoff.cap_s)
    activity = SidecarActivity(parts.clock)
    shared = Controller(claims, buckets, classes, accesses, reporter, parts.clock)
    claim = ClaimReconciler(shared, activity)
    unreported = UnreportedAccessReconciler(shared, access_classes, activity)
    await watched.follow(
        [
            Work("bucketclaim", claims_queue, claim.reconcile, RUN_TIMEOUT_S),
            Work("bucketaccess", accesses_queue, unreported.reconcile, RUN_TIMEOUT_S),
        ]
    )
