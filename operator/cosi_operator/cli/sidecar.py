"""Builds and joins the sidecar: its driver, what it watches, and which keys a change touches."""

from collections.abc import Iterator
from pathlib import Path

import anyio

from cosi_operator.api import v1alpha1
from cosi_operator.api.view import Bucket, BucketAccess, BucketAccessClass, BucketClaim, Key
from cosi_operator.classify import Policy, PolicyError
from cosi_operator.cli.census import census
from cosi_operator.cli.link import DriverLink
from cosi_operator.cli.process import Process, Watched, Work, process
from cosi_operator.driver.v1alpha1 import Driver
from cosi_operator.fairness import Groups
from cosi_operator.plan import names
from cosi_operator.policy_file import resolve_lane_scope, resolve_policy
from cosi_operator.reconcile import Dropped
from cosi_operator.report import Reporter, ready_of
from cosi_operator.settings import LaneScope, SidecarSettings
from cosi_operator.sidecar.access import AccessReconciler
from cosi_operator.sidecar.bucket import (
    ACCESSES_BY_CLAIM,
    BUCKETS_BY_CLAIM,
    BucketReconciler,
    Sidecar,
)
from cosi_operator.sidecar.calls import Attempts, DriverState
from cosi_operator.sidecar.lanes import PATIENCE_S, Lanes
from cosi_operator.sidecar.secrets import Secrets
from cosi_operator.workqueue import Pace, WorkQueue

COMPONENT = "cosi-sidecar"
# When a driver comes back, what waits for it goes on at this pace, so that it is not run over.
WAKES_PER_S = 50.0
# A run makes a handful of requests (30 s each at most), and at most two driver calls. A run of a
# BucketAccess may also wait for the turn of each call.
REQUESTS_S = 120.0


async def run_sidecar(settings: SidecarSettings) -> None:
    """Run until SIGTERM.

    Raises:
        PolicyError: the retry policy can't be read.
        LeaseLost, DriverRenamedError: the process has to start again.
    """
    policy_for_driver(settings, "any")  # a bad policy ends the start, not the first failed call
    async with process(settings, COMPONENT, ("bucket", "bucketaccess")) as parts:
        link = DriverLink(settings, parts)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(link.run)
            if state := await link.first_answer():
                await parts.lead(f"{state.name}/cosi", lambda: _work(settings, parts, link, state))
            tasks.cancel_scope.cancel()
        link.channel.close()


def policy_for_driver(settings: SidecarSettings, driver: str) -> Policy:
    """The retry policy in force for one driver: flags over the file over the default."""
    return resolve_policy(
        driver,
        profile=settings.retry_policy,
        overrides=settings.retry_overrides,
        file_text=_policy_file(settings),
        file_name=settings.retry_policy_file or "",
    )


def lane_scope_for_driver(settings: SidecarSettings, driver: str) -> LaneScope:
    """Which Grant and Revoke calls run one at a time: the flag over the file over the default."""
    return resolve_lane_scope(
        driver,
        given=settings.serialize_access_calls,
        file_text=_policy_file(settings),
        file_name=settings.retry_policy_file or "",
    )


def _policy_file(settings: SidecarSettings) -> str | None:
    path = Path(settings.retry_policy_file) if settings.retry_policy_file else None
    try:
        return path.read_text(encoding="utf-8") if path else None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise PolicyError(f"--retry-policy-file: {path} can't be read: {why}") from None


async def _work(
    settings: SidecarSettings, parts: Process, link: DriverLink, state: DriverState
) -> None:
    watched = Watched(parts)
    wakes = Pace(WAKES_PER_S)
    watches: SidecarWatches  # the queues ask it for the groups of a key, and it fills the queues
    watches = SidecarWatches(
        watched,
        parts.queue("bucket", lambda key: watches.groups_of_bucket(key), pace=wakes),
        parts.queue("bucketaccess", lambda key: watches.groups_of_access(key), pace=wakes),
        state.name,
    )
    sidecar = _sidecar(settings, parts, link.driver, state, watches)

    def is_ours(bucket: Bucket) -> bool:
        return names.same_driver(bucket.driver_name, state.name)

    parts.metrics.watch_objects("Bucket", census(watches.buckets, is_ours))
    parts.metrics.watch_objects("BucketAccess", census(watches.accesses, watches.is_ours))

    def on_return() -> None:
        sidecar.attempts.forget_all()
        watches.wake_unsettled()

    link.on_return = on_return
    bucket = BucketReconciler(sidecar)
    secrets = Secrets(parts.client, extra_keys=settings.secret_extra_keys)
    access = AccessReconciler(sidecar, watches.classes, secrets, watches.dropped_accesses)
    limit_s = REQUESTS_S + 2 * settings.timeouts.call_s
    await watched.follow(
        [
            Work("bucket", watches.buckets_queue, bucket.reconcile, limit_s),
            Work(
                "bucketaccess",
                watches.accesses_queue,
                sidecar.lanes.reconciling(access.reconcile),
                limit_s + 2 * PATIENCE_S,
            ),
        ]
    )


def _sidecar(
    settings: SidecarSettings,
    parts: Process,
    driver: Driver,
    state: DriverState,
    watches: "SidecarWatches",
) -> Sidecar:
    policy = policy_for_driver(settings, state.name)
    return Sidecar(
        buckets=watches.buckets,
        claims=watches.claims,
        accesses=watches.accesses,
        driver=driver,
        state=state,
        policy=policy,
        attempts=Attempts(settings.backoff, parts.clock, parts.rng),
        lanes=Lanes(
            lane_scope_for_driver(settings, state.name),
            policy=policy,
            driver=state,
            workers=settings.workers,
            clock=parts.clock,
            invite=watches.accesses_queue.add,
        ),
        reporter=Reporter(parts.events, parts.clock),
        clock=parts.clock,
        call_timeout_s=settings.timeouts.call_s,
        recheck_s=settings.terminal_recheck_s,
        deletion_recheck_s=settings.deletion_recheck_s,
    )


class SidecarWatches:
    """What the sidecar watches. Each change touches its own key and those that wait for it."""

    def __init__(
        self,
        watched: Watched,
        buckets_queue: WorkQueue[Key],
        accesses_queue: WorkQueue[Key],
        driver_name: str,
    ) -> None:
        self.buckets_queue = buckets_queue
        self.accesses_queue = accesses_queue
        self._driver_name = driver_name
        self.dropped_accesses = Dropped[BucketAccess](names.ACCESS_FINALIZER)
        self.buckets = watched.add(
            v1alpha1.BUCKETS,
            v1alpha1.decode_bucket,
            self._bucket_changed,
            {BUCKETS_BY_CLAIM: lambda bucket: (bucket.claim.key,) if bucket.claim else ()},
        )
        self.claims = watched.add(
            v1alpha1.BUCKET_CLAIMS, v1alpha1.decode_bucket_claim, self._claim_changed
        )
        self.classes = watched.add(
            v1alpha1.BUCKET_ACCESS_CLASSES,
            v1alpha1.decode_bucket_access_class,
            self._class_changed,
        )
        self.accesses = watched.add(
            v1alpha1.BUCKET_ACCESSES,
            v1alpha1.decode_bucket_access,
            self._access_changed,
            {
                "class": lambda access: (access.class_name,),
                ACCESSES_BY_CLAIM: lambda access: (access.claim_key,),
            },
        )

    def _bucket_changed(self, key: Key, old: Bucket | None, new: Bucket | None) -> None:
        bucket = new or old
        if bucket is None:
            return
        if names.same_driver(bucket.driver_name, self._driver_name):
            self.buckets_queue.add(key)
        if bucket.claim and bucket.claim.name:
            self._touch_accesses(bucket.claim.key)

    def _claim_changed(self, key: Key, old: BucketClaim | None, new: BucketClaim | None) -> None:
        claim = new or old
        if claim is None:
            return
        name = claim.bucket_name or claim.existing_bucket_name or names.bucket_name(claim.meta.uid)
        self._touch_bucket(name)
        self._touch_accesses(key)

    def _access_changed(self, key: Key, old: BucketAccess | None, new: BucketAccess | None) -> None:
        self.dropped_accesses.look(old, new)
        self.accesses_queue.add(key)
        if access := new or old:  # also without its claim: a Bucket waits for its last access
            for cached in self.buckets.store.by_index(BUCKETS_BY_CLAIM, access.claim_key):
                self._touch_bucket(cached.view.meta.name, only_deleting=True)

    def _class_changed(
        self, key: Key, _old: BucketAccessClass | None, _new: BucketAccessClass | None
    ) -> None:
        for cached in self.accesses.store.by_index("class", key.name):
            self.accesses_queue.add(cached.view.meta.key)

    def _touch_bucket(self, name: str, *, only_deleting: bool = False) -> None:
        bucket = self.buckets.get(Key("", name))
        if bucket is None or not names.same_driver(bucket.driver_name, self._driver_name):
            return
        if bucket.meta.deleting or not only_deleting:
            self.buckets_queue.add(bucket.meta.key)

    def _touch_accesses(self, claim: Key) -> None:
        for cached in self.accesses.store.by_index(ACCESSES_BY_CLAIM, claim):
            self.accesses_queue.add(cached.view.meta.key)

    def groups_of_bucket(self, key: Key) -> Groups:
        """A Bucket belongs to the namespace of its claim."""
        bucket = self.buckets.get(key)
        if bucket is None:
            return Groups()
        return Groups(bucket.claim.namespace if bucket.claim else "", bucket.class_name)

    def groups_of_access(self, key: Key) -> Groups:
        """A class that does not exist is no group, because a tenant may name any number of them."""
        access = self.accesses.get(key)
        found = self.classes.get(Key("", access.class_name)) if access else None
        return Groups(key.namespace, found.meta.name if found else "")

    def is_ours(self, access: BucketAccess) -> bool:
        """Whether the class of an access names this driver."""
        found = self.classes.get(Key("", access.class_name))
        return found is not None and names.same_driver(found.driver_name, self._driver_name)

    def wake_unsettled(self) -> None:
        """The driver is back: what waits goes on, in turns."""
        for queue, key in self._unsettled():
            queue.add_paced(key)

    def _unsettled(self) -> Iterator[tuple[WorkQueue[Key], Key]]:
        for key, bucket in self.buckets.store.items():
            ours = names.same_driver(bucket.view.driver_name, self._driver_name)
            if ours and _is_unsettled(bucket.view):
                yield self.buckets_queue, key
        for key, access in self.accesses.store.items():
            if _is_unsettled(access.view):
                yield self.accesses_queue, key


def _is_unsettled(view: Bucket | BucketAccess) -> bool:
    ready = ready_of(view)
    return view.meta.deleting or ready is None or ready.status != "True"
