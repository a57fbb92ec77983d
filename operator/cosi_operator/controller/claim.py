"""Reconciles BucketClaims: applies the steps of `plan/claim.py`."""

from datetime import datetime
from functools import partial
from typing import Any, assert_never

from cosi_operator.api.encode import bucket_body, set_claim, set_driver
from cosi_operator.api.view import (
    Bucket,
    BucketClaim,
    BucketClass,
    ClaimRef,
    Key,
)
from cosi_operator.clock import Clock
from cosi_operator.conditions import ignored_in
from cosi_operator.controller.activity import FirstSeen
from cosi_operator.controller.sidecar_leases import SidecarLeases
from cosi_operator.controller.watches import CLAIM, ControllerWatches
from cosi_operator.kube.errors import AlreadyExists, ApiError, ApiSilent, Conflict
from cosi_operator.kube.objects import Body, set_finalizers
from cosi_operator.kube.records import edit_record
from cosi_operator.outcome import Outcome, Reason, Success, Terminal
from cosi_operator.plan import claim as planning
from cosi_operator.plan import names, records
from cosi_operator.plan.claim_view import (
    ClaimView,
    fold,
    former_buckets,
    former_found_late,
    ignored_change,
)
from cosi_operator.plan.facts import (
    AccessDeleting,
    BucketIs,
    ClaimFact,
    ClaimIs,
    ClassIs,
    HolderIs,
)
from cosi_operator.plan.records import RecordEdit
from cosi_operator.plan.sidecar_wait import is_waiting_for_sidecar
from cosi_operator.plan.steps import (
    BindBucketObject,
    ClaimEffect,
    CreateBucketObject,
    DeleteAccess,
    DeleteBucketObject,
    EditFinalizers,
    ReadBucketObject,
    ReadClaim,
    ReadClass,
    ReadHolder,
    UpdateBucketObject,
)
from cosi_operator.reconcile import End, Steps
from cosi_operator.refusals import Refusals
from cosi_operator.report import Reporter
from cosi_operator.scrub import shown_name
from cosi_operator.status_patch import (
    CLAIM_READY_EVENT,
    IgnoredPatch,
    StatusReport,
    claim_ready_message,
    ready_of,
)


class ClaimReconciler:
    """Creates or binds the Bucket of a BucketClaim. The sidecar reports the Bucket's state."""

    def __init__(
        self,
        watches: ControllerWatches,
        reporter: Reporter,
        clock: Clock,
        leases: SidecarLeases,
    ) -> None:
        self._leases = leases
        self._watches = watches
        self._claims = watches.own_claims
        self._buckets = watches.own_buckets
        self._reporter = reporter
        self._clock = clock
        self._deleting = FirstSeen(clock)
        self._refusals = Refusals(reporter, clock)
        self._steps = Steps[ClaimView, ClaimEffect, ClaimFact](planning.plan, self._apply, fold)

    async def reconcile(self, key: Key) -> Outcome:
        """Reconcile one key. Safe to repeat at any time."""
        try:
            await self._delete_leaked(key)
            end = await self._steps.run(self._read(key))
            outcome = await self._report(end)
            return await self._refusals.settled(self._claims, key, outcome)
        except (ApiError, ApiSilent) as error:
            return await self._refusals.end(self._claims, key, error)

    async def _delete_leaked(self, key: Key) -> None:
        """Delete the Bucket of a claim that the API server removed despite our finalizer."""
        claim = await self._watches.vanished.find(self._claims, key)
        if claim is None:
            return
        if self._claims.get(key) is not None:  # restored; its status names the former Bucket
            self._watches.vanished.forget(key)
            return
        bucket = await self._buckets.refresh(Key("", names.bucket_name(claim.meta.uid)))
        bound = bucket is not None and records.is_bound_to(bucket, claim)
        if bucket is not None and bound and not bucket.meta.deleting:
            await self._buckets.delete(
                bucket.meta.key,
                uid=bucket.meta.uid,
                resource_version=bucket.meta.resource_version,
            )
        self._watches.vanished.forget(key)

    def _read(self, key: Key) -> ClaimView:
        claim = self._claims.get(key)
        bucket = bucket_class = None
        former: tuple[Bucket, ...] = ()
        if claim:
            found = self._buckets.store.by_index(CLAIM, key)
            naming = [cached.view for cached in found]
            bucket = records.bucket_of_claim(claim, naming)
            bucket = bucket or self._buckets.get(Key("", records.target_name(claim)))
            former = former_buckets(claim, naming)
            of_bucket = bucket if claim.existing_bucket_name else None
            class_name = of_bucket.class_name if of_bucket else claim.class_name
            bucket_class = self._watches.classes.get(Key("", class_name))
        return ClaimView(
            claim=claim,
            bucket_class=bucket_class,
            bucket=bucket,
            accesses=tuple(
                cached.view
                for cached in self._watches.accesses.store.by_index(CLAIM, key)
                if names.ACCESS_FINALIZER in cached.view.meta.finalizers
            ),
            now=self._clock.wall(),
            former=former,
            is_claimed=bucket is not None and self._is_claimed(claim, bucket),
            unproven=True,
            sidecar_wrote_at=self._watches.activity.of(_driver_of(bucket, bucket_class)),
            deleting_since=self._deleting_since(key, claim),
            waiting_reported=self._deleting.is_reported(key),
        )

    def _is_claimed(self, claim: BucketClaim | None, bucket: Bucket) -> bool:
        if claim is None or not claim.existing_bucket_name:
            return False
        found = self._claims.store.by_index("existing", bucket.meta.name)
        # One by one, because a tenant can create thousands; the owner is usually the first.
        others = (cached.view for cached in found if cached.view.meta.uid != claim.meta.uid)
        mine = _has(claim, bucket)  # of two such claims one is forged; the older takes precedence
        return any(
            _has(other, bucket) and not (mine and _precedes(claim, other)) for other in others
        )

    def _deleting_since(self, key: Key, claim: BucketClaim | None) -> datetime | None:
        if claim is None or not claim.meta.deleting:
            self._deleting.forget(key)
            return None
        return self._deleting.since(key, claim.meta.uid)

    async def _apply(self, view: ClaimView, step: ClaimEffect) -> ClaimFact:
        assert view.claim is not None
        self._claims.must_be(view.claim.meta.key, view.claim.meta.uid)
        match step:
            case EditFinalizers(key=key, add=add, remove=remove):
                return ClaimIs(
                    await self._claims.edit(
                        key,
                        view.claim.meta.uid,
                        lambda body: set_finalizers(body, add=add, remove=remove),
                    )
                )
            case ReadClaim(key=key):
                fresh = await self._claims.refresh(key)
                # A replaced or changed claim has been added to the queue again by its watch event.
                return ClaimIs(fresh if _is_same(fresh, view.claim) else None)
            case ReadBucketObject(key=key):
                return BucketIs(await self._buckets.refresh(key), key.name)
            case ReadClass(key=key):
                return ClassIs(await self._watches.classes.refresh(key))
            case ReadHolder(holder=holder):
                found = await self._claims.refresh(Key(holder.namespace, holder.name))
                return HolderIs(found is not None and records.identity_of(found) == holder)
            case CreateBucketObject(name=name):
                self._must_have_no_former(view)
                return BucketIs(await self._create(view, view.claim, name))
            case UpdateBucketObject(key=key):
                bucket = self._current(view.bucket)
                edit = partial(set_driver, name=step.driver_name, parameters=step.parameters)
                return BucketIs(await self._buckets.edit(key, bucket.meta.uid, edit))
            case BindBucketObject(key=key):
                bucket = self._current(view.bucket)
                return BucketIs(await self._bind(bucket, view.claim))
            case DeleteBucketObject(key=key, uid=uid):
                # Delete only the version that the plan read. Otherwise the API server could ignore
                # a finalizer that a sidecar adds at the same time, and a backend bucket would leak.
                seen = view.bucket.meta.resource_version if view.bucket else None
                return BucketIs(await self._buckets.delete(key, uid=uid, resource_version=seen))
            case DeleteAccess(key=key, uid=uid):
                await self._watches.accesses.delete(key, uid=uid)
                return AccessDeleting(key)
            case _:
                assert_never(step)

    async def _create(self, view: ClaimView, claim: BucketClaim, name: str) -> Bucket | None:
        assert view.bucket_class is not None
        body = bucket_body(
            name,
            claim=ClaimRef(claim.meta.namespace, claim.meta.name, claim.meta.uid),
            bucket_class=view.bucket_class,
            protocols=claim.protocols,
        )
        try:
            return await self._buckets.create(body)
        except AlreadyExists:  # from our own create whose reply was lost, or another writer's
            return await self._buckets.refresh(Key("", name))

    def _must_have_no_former(self, planned: ClaimView) -> None:
        """Check again, because the watch may deliver a Bucket late that was restored earlier.

        Raises:
            Conflict: the Buckets of an earlier claim with this name have changed; plan again.
        """
        claim = planned.claim
        assert claim is not None
        found = self._buckets.store.by_index(CLAIM, claim.meta.key)
        if former_buckets(claim, [cached.view for cached in found]) != planned.former:
            raise Conflict(409, "Conflict", f"a Bucket of {claim.meta.key} has changed")

    def _current(self, planned: Bucket | None) -> Bucket:
        """The version that the plan read: another claim may have bound the Bucket since.

        Raises:
            Conflict: the Bucket has changed; plan again.
        """
        assert planned is not None
        current = self._buckets.get(planned.meta.key)
        if current is None or current.meta.resource_version != planned.meta.resource_version:
            raise Conflict(409, "Conflict", f"Bucket {planned.meta.name} has changed")
        return current

    async def _bind(self, bucket: Bucket, claim: BucketClaim) -> Bucket | None:
        meta = bucket.meta
        bound = await self._buckets.edit(meta.key, meta.uid, lambda body: _bind(body, claim))
        if bound and claim.class_name:
            self._reporter.event(
                self._claims,
                claim,
                "Normal",
                "BucketClassIgnored",
                f"spec.existingBucketName takes precedence over spec.bucketClassName, so the claim"
                f" uses the existing Bucket {meta.name} and not BucketClass"
                f" {shown_name(claim.class_name)}.",
            )
        return bound

    async def _report(self, end: End[ClaimView]) -> Outcome:
        claim = end.view.claim
        if claim is None:
            return end.outcome
        if late := former_found_late(end.view):
            self._reporter.event(self._claims, claim, "Warning", Reason.FORMER_BUCKET.value, late)
        if not end.report:
            await self._report_ignored(end.view, claim)
            return end.outcome
        key, driver = claim.meta.key, _driver_of(end.view.bucket, None)
        outcome = await self._deleting.with_lease(key, end.outcome, driver, self._leases)
        report = _status_report(outcome, end.view, claim)
        await self._reporter.report(self._claims, key, report)
        if is_waiting_for_sidecar(outcome):
            # Emit the Event on the Bucket too, because administrators check the Bucket.
            if end.view.bucket and not end.view.waiting_reported:
                self._waiting_event(end.view.bucket, outcome)
            self._deleting.mark_reported(claim.meta.key)
        return end.outcome

    async def _report_ignored(self, view: ClaimView, claim: BucketClaim) -> None:
        """Report in the status of a ready claim which change of it or its class has no effect."""
        bucket = view.bucket
        if bucket is None or not (bucket.ready and claim.ready) or claim.meta.deleting:
            return
        if ready_of(claim) is None:  # the sidecar writes the first conditions
            return
        ignored = ignored_in(bucket.conditions) or ignored_change(claim, bucket, view.bucket_class)
        if ignored == ignored_in(claim.conditions):
            return

        patch = IgnoredPatch(ignored, claim.meta.uid, self._clock.wall())
        await self._reporter.write(self._claims, claim.meta.key, patch)

    def _waiting_event(self, bucket: Bucket, outcome: Terminal) -> None:
        message = f"{outcome.reason}: {outcome.message}"
        self._reporter.event(self._buckets, bucket, "Normal", outcome.reason.value, message)


def _is_same(fresh: BucketClaim | None, seen: BucketClaim) -> bool:
    if fresh is None or fresh.meta.deleting:
        return False
    return (fresh.meta.uid, fresh.meta.generation) == (seen.meta.uid, seen.meta.generation)


def _status_report(outcome: Outcome, view: ClaimView, claim: BucketClaim) -> StatusReport:
    bucket = view.bucket
    keep = claim.ready and is_waiting_for_sidecar(outcome)  # nothing is deleted yet
    fields: dict[str, Any] = {"ready": isinstance(outcome, Success) or keep}
    if bucket and records.is_bound_to(bucket, claim):
        fields["bucket_name"] = bucket.meta.name
    elif claim.bucket_name and claim.bucket_name != records.target_name(claim):
        fields["bucket_name"] = ""  # copied from another claim, or forged
    name = bucket.meta.name if bucket else ""
    return StatusReport(
        outcome=outcome,
        judged=claim.meta,
        success=(Reason.PROVISIONED, claim_ready_message(name)),
        success_event=CLAIM_READY_EVENT,
        failure_event="FailedCreateBucket",
        fields=fields,
    )


def _bind(body: Body, claim: BucketClaim) -> None:
    """Bind the Bucket in its spec, and in its record if one exists; the sidecar starts a record."""
    meta = claim.meta
    set_claim(body, ClaimRef(meta.namespace, meta.name, meta.uid))
    edit_record(body, RecordEdit(claim=records.identity_of(claim)), start=False)


def _driver_of(bucket: Bucket | None, bucket_class: BucketClass | None) -> str:
    if bucket is not None:
        return records.driver_of(bucket)
    return bucket_class.driver_name if bucket_class else ""


def _has(claim: BucketClaim, bucket: Bucket) -> bool:
    """Whether the status of a claim says that the claim has the Bucket."""
    return claim.ready and claim.bucket_name == bucket.meta.name and not claim.meta.deleting


def _precedes(other: BucketClaim, claim: BucketClaim) -> bool:
    return (other.meta.created, other.meta.uid) < (claim.meta.created, claim.meta.uid)
