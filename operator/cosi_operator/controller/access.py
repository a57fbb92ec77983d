"""Reports on BucketAccesses without a sidecar: the doing half of `plan/unreported_access.py`."""

from cosi_operator.api.view import Bucket, BucketAccess, BucketAccessClass, Key
from cosi_operator.controller.activity import FirstSeen, SidecarActivity
from cosi_operator.controller.claim import BUCKETS_BY_CLAIM, Controller
from cosi_operator.kube.errors import ApiError, ApiSilent
from cosi_operator.kube.objects import Objects, set_finalizers
from cosi_operator.outcome import Call, Outcome, Reason
from cosi_operator.plan import records
from cosi_operator.plan import unreported_access as planning
from cosi_operator.plan.facts import AccessIs
from cosi_operator.plan.sidecar_wait import is_waiting_for_sidecar
from cosi_operator.plan.steps import Done, EditFinalizers
from cosi_operator.plan.unreported_access import UnreportedView, driver_of, fold
from cosi_operator.reconcile import End, run_steps
from cosi_operator.refusals import Refusals
from cosi_operator.report import Told


class UnreportedAccessReconciler:
    """Speaks only while no sidecar does."""

    def __init__(
        self,
        controller: Controller,
        classes: Objects[BucketAccessClass],
        activity: SidecarActivity,
    ) -> None:
        self._c = controller
        self._classes = classes
        self._activity = activity
        self._first_seen = FirstSeen(controller.clock)
        self._refusals = Refusals(controller.reporter, controller.clock)

    async def reconcile(self, key: Key) -> Outcome:
        """One run for one key. Safe to repeat at any time."""
        try:
            end = await run_steps(self._read(key), plan=planning.plan, apply=self._apply, fold=fold)
            return await self._report(key, end)
        except (ApiError, ApiSilent) as error:
            return await self._refusals.end(self._c.accesses, key, error)

    def look(self, old: BucketAccess | None, new: BucketAccess | None) -> None:
        """Take notice of a change: it may show that a sidecar is at work."""
        if old is not None and (new is None or old.conditions != new.conditions):
            self._activity.look_at_access(old, new, self._driver(new or old))

    def _class(self, access: BucketAccess) -> BucketAccessClass | None:
        return self._classes.get(Key("", access.class_name))

    def _bucket(self, access: BucketAccess) -> Bucket | None:
        """The Bucket whose record names the access, else any that names its claim."""
        named = [
            cached.view
            for cached in self._c.buckets.store.by_index(BUCKETS_BY_CLAIM, access.claim_key)
        ]
        recorded = (b for b in named if records.entry_of(b, access.meta.uid))
        return next(recorded, named[0] if named else None)

    def _driver(self, access: BucketAccess) -> str:
        """Its class is looked at first, because finding its Bucket takes longer."""
        access_class = self._class(access)
        return access_class.driver_name if access_class else driver_of(self._bucket(access), None)

    def _read(self, key: Key) -> UnreportedView:
        access, now = self._c.accesses.get(key), self._c.clock.wall()
        if access is None or planning.is_settled(access):
            self._first_seen.forget(key)
            return UnreportedView(access, None, None, now, now)
        access_class = self._class(access)
        bucket = self._bucket(access) if access.meta.deleting else None
        return UnreportedView(
            access=access,
            access_class=access_class,
            bucket=bucket,
            now=now,
            since=self._first_seen.since(key, (access.meta.uid, access.meta.deleting)),
            heard=self._activity.of(driver_of(bucket, access_class)),
            told=self._first_seen.is_told(key),
        )

    async def _apply(self, view: UnreportedView, step: Done | EditFinalizers) -> AccessIs:
        assert isinstance(step, EditFinalizers)
        assert view.access is not None
        self._c.reporter.event(
            self._c.accesses,
            view.access,
            "Warning",
            Reason.BACKEND_UNVERIFIED.value,
            planning.released_message(view.access),
        )
        return AccessIs(
            await self._c.accesses.edit(
                step.key, lambda body: set_finalizers(body, remove=step.remove)
            )
        )

    async def _report(self, key: Key, end: End[UnreportedView]) -> Outcome:
        access = end.view.access
        if access is not None and end.report:
            told = Told(
                outcome=end.outcome,
                judged=access.meta,
                success=(Reason.GRANTED, ""),
                success_event="",
                failure_event="FailedGrantAccess",
                # Until it is revoked, the keys of an access that is being deleted work.
                fields={} if access.meta.deleting else {"ready": False},
                call=Call.GRANT_ACCESS,
            )
            await self._c.reporter.tell(self._c.accesses, key, told)
            if is_waiting_for_sidecar(end.outcome):
                self._first_seen.tell(key)
        return end.outcome
