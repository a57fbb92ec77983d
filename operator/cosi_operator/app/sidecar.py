"""Builds and joins the sidecar: its driver, what it watches, and which keys a change touches."""

from collections.abc import Hashable, Iterator
from pathlib import Path

import anyio
import structlog

from cosi_operator.api import v1alpha1
from cosi_operator.api.view import Bucket, BucketAccess, BucketAccessClass, BucketClaim, Key
from cosi_operator.app.driver_link import DriverLink
from cosi_operator.app.object_count import object_counter
from cosi_operator.app.process import Process, Watched, Work, process
from cosi_operator.classify import Policy, PolicyError
from cosi_operator.driver.v1alpha1 import Driver
from cosi_operator.fairness import Groups
from cosi_operator.plan import names, records
from cosi_operator.policy_file import resolve_lane_scope, resolve_policy
from cosi_operator.report import Reporter, ready_of
from cosi_operator.settings import LaneScope, SidecarSettings
from cosi_operator.sidecar.access import AccessReconciler
from cosi_operator.sidecar.bucket import BucketReconciler
from cosi_operator.sidecar.calls import Attempts, DriverState
from cosi_operator.sidecar.lanes import PATIENCE_S, Lanes
from cosi_operator.sidecar.records import (
    BUCKET_INDEXES,
    BY_ACCOUNT,
    BY_CLAIM,
    HELD_BY_CLAIM,
    RecordLookup,
    RecordMemory,
)
from cosi_operator.sidecar.secret_release import UnheldSecrets
from cosi_operator.sidecar.secrets import Secrets
from cosi_operator.sidecar.shared import Sidecar
from cosi_operator.workqueue import Pace, WorkQueue

log = structlog.get_logger(__name__)

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

    parts.metrics.watch_objects("Bucket", object_counter(watches.buckets, watches.is_our_bucket))
    parts.metrics.watch_objects(
        "BucketAccess", object_counter(watches.accesses, watches.is_our_access)
    )

    def on_return() -> None:
        sidecar.attempts.forget_all()
        watches.wake_unsettled()

    link.on_return = on_return
    bucket = BucketReconciler(sidecar)
    secrets = Secrets(parts.client, extra_keys=settings.secret_extra_keys)
    access = AccessReconciler(sidecar, watches.classes, secrets)
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
    lane_scope = lane_scope_for_driver(settings, state.name)
    log.info(
        "policy",
        driver=state.name,
        profile=policy.profile,
        overrides=[override.spelled() for override in policy.overrides],
        serialize_access_calls=lane_scope,
    )
    return Sidecar(
        buckets=watches.buckets,
        claims=watches.claims,
        accesses=watches.accesses,
        driver=driver,
        state=state,
        policy=policy,
        attempts=Attempts(settings.backoff, parts.clock, parts.rng),
        lanes=Lanes(
            lane_scope,
            policy=policy,
            driver=state,
            workers=settings.workers,
            clock=parts.clock,
            invite=watches.accesses_queue.add,
        ),
        reporter=Reporter(parts.events, parts.clock, longest_pause_s=settings.backoff.cap_s),
        lookup=watches.lookup,
        unheld=watches.unheld,
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
        self.buckets = watched.add(
            v1alpha1.BUCKETS,
            v1alpha1.decode_bucket,
            self._bucket_changed,
            BUCKET_INDEXES,
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
                BY_CLAIM: lambda access: (access.claim_key,) if access.claim_name else (),
                HELD_BY_CLAIM: records.claim_of_held,
                BY_ACCOUNT: lambda access: (access.account_id,) if access.account_id else (),
            },
        )
        self.memory = RecordMemory()
        self.unheld = UnheldSecrets()
        self.lookup = RecordLookup(self.buckets, self.accesses, self.claims, self.memory)

    def _bucket_changed(self, key: Key, old: Bucket | None, new: Bucket | None) -> None:
        seen = [bucket for bucket in (old, new) if bucket]
        if any(self.is_our_bucket(bucket) for bucket in seen):
            self.memory.note(old, new)
            self.buckets_queue.add(key)
        if old is None or new is None or (old.record is None) != (new.record is None):
            for bucket in seen:  # which of several Buckets a claim belongs to
                for claim in records.claims_of(bucket):
                    for cached in self.buckets.store.by_index(BY_CLAIM, claim):
                        self._touch_bucket(cached.view)
        if _access_facts(old) != _access_facts(new):
            for claim in {claim: None for bucket in seen for claim in records.claims_of(bucket)}:
                self._touch_accesses(claim)
        for bucket in seen if old is None or new is None else ():
            self._touch_recorded(bucket)
        if old and new:  # most entries are written by the run of their access
            self._touch_added(old, new)

    def _touch_recorded(self, bucket: Bucket) -> None:
        """Recorded accesses that no longer exist still have to be revoked."""
        for entry in bucket.record.accesses.values() if bucket.record else ():
            self.accesses_queue.add(Key(entry.namespace, entry.name))

    def _touch_added(self, old: Bucket, new: Bucket) -> None:
        """An older copy of the record can bring back entries of accesses that are gone."""
        before = old.record.accesses if old.record else {}
        for uid, entry in new.record.accesses.items() if new.record else ():
            key = Key(entry.namespace, entry.name)
            access = self.accesses.get(key) if uid not in before else None
            if uid not in before and (access is None or access.meta.uid != uid):
                self.accesses_queue.add(key)

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

    def _access_changed(self, key: Key, old: BucketAccess | None, new: BucketAccess | None) -> None:
        classless = old is not None and self.classes.get(Key("", old.class_name)) is None
        if old is not None and (classless or self.is_our_access(old)):
            self.unheld.note(old, new, classless=classless)
        self.accesses_queue.add(key)
        if access := new or old:  # also without its claim: a Bucket waits for its last access
            for cached in self.buckets.store.by_index(BY_CLAIM, access.claim_key):
                if cached.view.meta.deleting:
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
        """A Bucket belongs to the namespace of its claim."""
        bucket = self.buckets.get(key)
        if bucket is None:
            return Groups()
        return Groups(records.bound_claim(bucket).namespace, bucket.class_name)

    def groups_of_access(self, key: Key) -> Groups:
        """A class that does not exist is no group, because a tenant may name any number of them."""
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
        """The driver is back: what waits goes on, in turns."""
        for queue, key in self._unsettled():
            queue.add_paced(key)

    def _unsettled(self) -> Iterator[tuple[WorkQueue[Key], Key]]:
        for key, bucket in self.buckets.store.items():
            if self.is_our_bucket(bucket.view) and _is_unsettled(bucket.view):
                yield self.buckets_queue, key
        for key, access in self.accesses.store.items():
            if _is_unsettled(access.view):
                yield self.accesses_queue, key


def _access_facts(bucket: Bucket | None) -> Hashable:
    """What of a Bucket its accesses wait for: most changes of a record concern one access only."""
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
        bucket.meta.annotations.get(names.GIVE_UP_ANNOTATION),
    )


def _is_unsettled(view: Bucket | BucketAccess) -> bool:
    ready = ready_of(view)
    return view.meta.deleting or ready is None or ready.status != "True"
