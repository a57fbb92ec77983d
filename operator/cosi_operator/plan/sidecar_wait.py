"""How long the controller waits for a sidecar's report before it writes its own report. Pure.

Only the sidecar knows the state of an object, but without a sidecar the user would see no report.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import TypeGuard

from cosi_operator.api.view import Condition, age_s, ready_in
from cosi_operator.outcome import Outcome, Reason, Requeue, Terminal
from cosi_operator.plan.steps import Done

# The sidecar reports the Bucket's state on the claim with one complete write. If it has not done so
# after this time, the controller reports instead: there may be no sidecar, the sidecar may wait for
# its driver, or it is upstream's sidecar, which loses such writes. Waiting saves one of six writes
# and one of three Events for a claim, and avoids conflicts between the two writers (a fifth of the
# refused claims had one), as measured: docs/adr/0011.
HEAL_AFTER_S = 5.0
# A sidecar that wrote within that time is working, possibly on other objects first, so the
# controller waits longer. Without this, in a burst of 10,000 claims more than half of them took one
# more write and one more Event.
BUSY_HEAL_AFTER_S = 60.0
BUSY_LOOK_S = 20.0

# A condition with one of these reasons contains nothing about a deletion by the sidecar.
_BEFORE_DELETION = frozenset(
    (
        Reason.WAITING_FOR_SIDECAR,
        Reason.WAITING_FOR_BUCKET,
        Reason.WAITING_FOR_CLAIM,
        Reason.ACCESS_CLASS_NOT_FOUND,
    )
)
# Reasons that the controller itself writes to an access.
_BY_CONTROLLER = frozenset((Reason.WAITING_FOR_SIDECAR, Reason.ACCESS_CLASS_NOT_FOUND))


# Reasons about failed requests, which each process writes for itself.
_ABOUT_REQUESTS = frozenset((Reason.API_UNAVAILABLE, Reason.API_REFUSED, Reason.MISSING_PERMISSION))


def patience_s(now: datetime, wrote_at: datetime | None) -> float:
    """How long to wait for a sidecar that last wrote at `wrote_at` (None: has not written yet)."""
    at_work = wrote_at is not None and abs((now - wrote_at).total_seconds()) < HEAL_AFTER_S
    return BUSY_HEAL_AFTER_S if at_work else HEAL_AFTER_S


def left_for_sidecar(since: str, now: datetime, limit_s: float = HEAL_AFTER_S) -> Done | None:
    """End the run until `limit_s` after `since`; None if that time has passed.

    A `since` that is more than 5 s in the future comes from a wrong clock, so there is no wait.
    """
    left = limit_s - age_s(since, now)
    if not 0 < left <= limit_s + HEAL_AFTER_S:
        return None
    after_s = min(left, BUSY_LOOK_S)  # check earlier, because the sidecar may stop working
    return Done(Requeue(Reason.WAITING_FOR_BUCKET, "", after_s=after_s, quiet=True), report=False)


def is_reported(conditions: Iterable[Condition], *, deleting: bool) -> bool:
    """Whether a sidecar has written a condition about the present state of the object."""
    ready = ready_in(conditions)
    if ready is None or ready.reason in _ABOUT_REQUESTS:
        return False
    if not deleting:
        return ready.reason not in _BY_CONTROLLER
    return ready.status != "True" and ready.reason not in _BEFORE_DELETION


def is_overwritten(conditions: Iterable[Condition], *, reported: bool) -> bool:
    """Whether another writer replaced the condition that the object waits for the sidecar.

    Only a sidecar replaces it. If the controller wrote it again, both would write indefinitely.
    """
    return reported and not any(
        c.type == "Ready" and c.reason == Reason.WAITING_FOR_SIDECAR for c in conditions
    )


def is_by_controller(conditions: Iterable[Condition]) -> bool:
    """Whether the controller wrote the Ready condition of an access."""
    return any(c.type == "Ready" and c.reason in _BY_CONTROLLER for c in conditions)


def is_waiting_for_sidecar(outcome: Outcome) -> TypeGuard[Terminal]:
    return isinstance(outcome, Terminal) and outcome.reason is Reason.WAITING_FOR_SIDECAR


def waiting_for_sidecar(what: str, driver: str) -> Terminal:
    """The outcome for an action that is waiting for a sidecar; `what` is its start, a clause."""
    return Terminal(
        Reason.WAITING_FOR_SIDECAR,
        f"{what} by the sidecar of driver {driver}, which has not reported on it yet. If this"
        " lasts, ask your cluster administrator whether that driver is installed and running.",
        waiting=True,
    )
