"""Tells a BucketAccess that its class does not exist: no sidecar knows then whose it is."""

from cosi_operator.api.view import BucketAccess, BucketAccessClass, Key
from cosi_operator.kube.errors import ApiError, ApiSilent
from cosi_operator.kube.objects import Objects
from cosi_operator.outcome import Call, Outcome, Reason, Success, Terminal
from cosi_operator.plan import names
from cosi_operator.plan.access_checks import OVERSIZED
from cosi_operator.reconcile import outcome_of
from cosi_operator.report import Reporter, Told
from cosi_operator.scrub import shown_name


class OrphanAccessReconciler:
    """Speaks only while the class is missing; once it is there, the driver's sidecar does."""

    def __init__(
        self,
        accesses: Objects[BucketAccess],
        classes: Objects[BucketAccessClass],
        reporter: Reporter,
    ) -> None:
        self._accesses = accesses
        self._classes = classes
        self._reporter = reporter

    async def reconcile(self, key: Key) -> Outcome:
        """One run for one key. Safe to repeat at any time."""
        access = self._accesses.get(key)
        if access is None or access.granted or access.meta.deleting or _has_sidecar(access):
            return Success()
        if self._classes.get(Key("", access.class_name)) is not None:
            return Success()
        # Of an oversized access nobody can know the class, so no sidecar takes it on.
        problem = OVERSIZED if access.meta.oversized else _missing(access.class_name)
        told = Told(
            outcome=problem,
            judged=access.meta,
            success=(Reason.GRANTED, ""),
            success_event="",
            failure_event="FailedGrantAccess",
            fields={"ready": False},
            call=Call.GRANT_ACCESS,
        )
        try:
            await self._reporter.tell(self._accesses, key, told)
        except (ApiError, ApiSilent) as error:
            return outcome_of(error)
        return problem


def _missing(class_name: str) -> Terminal:
    return Terminal(
        Reason.ACCESS_CLASS_NOT_FOUND,
        f"spec.bucketAccessClassName names BucketAccessClass {shown_name(class_name)},"
        " which does not exist. Create it, or name another one in a new BucketAccess.",
        waiting=True,
    )


def _has_sidecar(access: BucketAccess) -> bool:
    """Whether a driver's sidecar has taken it on: it knows its own accesses without the class."""
    return names.ACCESS_FINALIZER in access.meta.finalizers
