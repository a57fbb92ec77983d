"""Plans the controller's next step for a BucketAccess without a sidecar's report. Pure.

The sidecar of a driver handles the accesses whose class, or whose Bucket, names that driver. No
sidecar handles an access without a class, or an access whose driver is not installed.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from cosi_operator.api.view import Bucket, BucketAccess, BucketAccessClass, stamp
from cosi_operator.outcome import Reason, Success, Terminal
from cosi_operator.plan import names, records
from cosi_operator.plan.access_checks import OVERSIZED, class_missing
from cosi_operator.plan.facts import AccessIs
from cosi_operator.plan.sidecar_wait import (
    is_overwritten,
    is_reported,
    left_for_sidecar,
    patience_s,
    waiting_for_sidecar,
)
from cosi_operator.plan.steps import Done, EditFinalizers
from cosi_operator.scrub import shown_name

# A sidecar that has the Bucket in memory may still handle an access that reported this long ago. It
# revokes the account from memory even after the access is released.
UNNAMED_WAIT_S = 900.0


@dataclass(frozen=True, slots=True)
class UnreportedView:
    """The input of the plan for one run.

    Attributes:
        bucket: a Bucket that names the claim of this access.
        since: when this process first saw the access in its present state (new, or being deleted).
        wrote_at: when the sidecar of the access's driver last wrote the state of any object.
        reported: since `since`, the controller has reported that the access waits for the sidecar.
    """

    access: BucketAccess | None
    access_class: BucketAccessClass | None
    bucket: Bucket | None
    now: datetime
    since: datetime
    wrote_at: datetime | None = None
    reported: bool = False


def driver_of(bucket: Bucket | None, access_class: BucketAccessClass | None) -> str:
    """The driver whose sidecar has to act; "" when there is none."""
    if bucket is not None:
        return records.driver_of(bucket)
    return access_class.driver_name if access_class else ""


def is_settled(access: BucketAccess, driver: str) -> bool:
    """Whether the access needs no report, or the sidecar of the driver handles and reports it.

    Without a driver, no sidecar handles a deletion, even if a sidecar has reported before.
    """
    has_finalizer = names.ACCESS_FINALIZER in access.meta.finalizers
    if access.meta.deleting:
        is_handled = driver and is_reported(access.conditions, deleting=True)
        return not has_finalizer or bool(is_handled)
    return (
        access.granted or has_finalizer
    )  # a sidecar finds the accesses that it holds without the class


def plan(view: UnreportedView) -> Done | EditFinalizers:
    """Return the next step."""
    access = view.access
    if access is None or is_settled(access, driver_of(view.bucket, view.access_class)):
        return Done(Success(), report=False)
    if is_overwritten(access.conditions, reported=view.reported):
        return Done(Success(), report=False)
    if access.meta.deleting:
        return _plan_deletion(access, view)
    if access.meta.oversized:  # its class was not read, so no sidecar handles it
        return Done(OVERSIZED)
    if view.access_class is None:
        return Done(class_missing(access))
    if is_reported(access.conditions, deleting=False):
        return Done(Success(), report=False)
    if wait := _left(view):
        return wait
    driver = view.access_class.driver_name
    return Done(waiting_for_sidecar("Access is waiting to be granted", shown_name(driver)))


def _plan_deletion(access: BucketAccess, view: UnreportedView) -> Done | EditFinalizers:
    driver = driver_of(view.bucket, view.access_class)
    if not driver and is_reported(access.conditions, deleting=True):
        # A sidecar that still has the Bucket in memory may be revoking the keys.
        wait = left_for_sidecar(stamp(view.since), view.now, UNNAMED_WAIT_S)
    else:
        wait = _left(view)
    if wait:
        return wait
    if driver:
        return Done(waiting_for_sidecar("Access is waiting to be revoked", shown_name(driver)))
    if access.meta.oversized:  # its claim and class were not read, and it may have been granted
        return Done(
            Terminal(
                Reason.INVALID_OBJECT,
                "The spec of this BucketAccess is larger than 4 KiB, so it was not read. Its keys"
                " are revoked by the sidecar that granted them. If this lasts and no record of a"
                f" Bucket names UID {access.meta.uid}, ask your cluster administrator to remove"
                f" finalizer {names.ACCESS_FINALIZER}.",
                waiting=True,
            )
        )
    # The access was copied with our finalizer (a restore, a clone), which no sidecar will remove.
    return EditFinalizers(access.meta.key, remove=(names.ACCESS_FINALIZER,))


def _left(view: UnreportedView) -> Done | None:
    return left_for_sidecar(stamp(view.since), view.now, patience_s(view.now, view.wrote_at))


def released_message(access: BucketAccess) -> str:
    """The message of the Warning about a copy whose finalizer was removed."""
    account = (
        f" This did not revoke account {shown_name(access.account_id)}, which its status names."
        if access.account_id
        else ""
    )
    return (
        f"Finalizer {names.ACCESS_FINALIZER} was removed, because neither a class nor a Bucket"
        f" names the driver of this BucketAccess.{account}"
    )


def fold(view: UnreportedView, fact: AccessIs) -> UnreportedView:
    """Return the view with the fact from a step that succeeded."""
    return replace(view, access=fact.access)
