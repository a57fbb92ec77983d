"""Reports on BucketAccesses without a sidecar: applies the steps of `plan/unreported_access.py`."""

from cosi_operator.api.view import Key
from cosi_operator.clock import Clock
from cosi_operator.controller.activity import FirstSeen
from cosi_operator.controller.sidecar_leases import SidecarLeases
from cosi_operator.controller.watches import ControllerWatches
from cosi_operator.kube.errors import ApiError, ApiSilent
from cosi_operator.kube.objects import set_finalizers
from cosi_operator.outcome import Call, Outcome, Reason
from cosi_operator.plan import unreported_access as planning
from cosi_operator.plan.facts import AccessIs
from cosi_operator.plan.sidecar_wait import is_waiting_for_sidecar
from cosi_operator.plan.steps import EditFinalizers
from cosi_operator.plan.unreported_access import UnreportedView, driver_of, fold
from cosi_operator.reconcile import End, Steps
from cosi_operator.refusals import Refusals
from cosi_operator.report import Reporter
from cosi_operator.status_patch import StatusReport


class UnreportedAccessReconciler:
    """Reports on a BucketAccess only while no sidecar reports on it."""

    def __init__(
        self,
        watches: ControllerWatches,
        reporter: Reporter,
        clock: Clock,
        leases: SidecarLeases,
    ) -> None:
        self._leases = leases
        self._watches = watches
        self._accesses = watches.accesses
        self._reporter = reporter
        self._clock = clock
        self._first_seen = FirstSeen(clock)
        self._refusals = Refusals(reporter, clock)
        self._steps = Steps[UnreportedView, EditFinalizers, AccessIs](
            planning.plan, self._apply, fold
        )

    async def reconcile(self, key: Key) -> Outcome:
        """Reconcile one key. Safe to repeat at any time."""
        try:
            end = await self._steps.run(self._read(key))
            outcome = await self._report(key, end)
            return await self._refusals.settled(self._accesses, key, outcome)
        except (ApiError, ApiSilent) as error:
            return await self._refusals.end(self._accesses, key, error)

    def _read(self, key: Key) -> UnreportedView:
        access, now = self._accesses.get(key), self._clock.wall()
        access_class = self._watches.class_of(access) if access else None
        bucket = self._watches.bucket_of(access) if access and access.meta.deleting else None
        driver = driver_of(bucket, access_class)
        if access is None or planning.is_settled(access, driver):
            self._first_seen.forget(key)
            return UnreportedView(access, access_class, bucket, now, now)
        # Without a driver, each write of a sidecar restarts the wait.
        written = () if driver else access.conditions
        return UnreportedView(
            access=access,
            access_class=access_class,
            bucket=bucket,
            now=now,
            since=self._first_seen.since(key, (access.meta.uid, access.meta.deleting, written)),
            wrote_at=self._watches.activity.of(driver),
            reported=self._first_seen.is_reported(key),
        )

    async def _apply(self, view: UnreportedView, step: EditFinalizers) -> AccessIs:
        assert view.access is not None
        self._reporter.event(
            self._accesses,
            view.access,
            "Warning",
            Reason.BACKEND_UNVERIFIED.value,
            planning.released_message(view.access),
        )
        return AccessIs(
            await self._accesses.edit(
                step.key,
                view.access.meta.uid,
                lambda body: set_finalizers(body, remove=step.remove),
            )
        )

    async def _report(self, key: Key, end: End[UnreportedView]) -> Outcome:
        access = end.view.access
        if access is not None and end.report:
            driver = driver_of(end.view.bucket, end.view.access_class)
            outcome = await self._first_seen.with_lease(key, end.outcome, driver, self._leases)
            report = StatusReport(
                outcome=outcome,
                judged=access.meta,
                success=(Reason.GRANTED, ""),
                success_event="",
                failure_event="FailedGrantAccess",
                # The keys of an access that is being deleted work until they are revoked.
                fields={} if access.meta.deleting else {"ready": False},
                call=Call.GRANT_ACCESS,
            )
            await self._reporter.report(self._accesses, key, report)
            if is_waiting_for_sidecar(end.outcome):
                self._first_seen.mark_reported(key)
        return end.outcome
