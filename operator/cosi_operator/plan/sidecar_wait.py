"""How long the controller leaves an object to the sidecar of its driver before it reports. Pure.

The sidecar knows how an object fares. If there is none, the user would see nothing.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import TypeGuard

from cosi_operator.api.view import Condition
from cosi_operator.outcome import Outcome, Reason, Requeue, Terminal
from cosi_operator.plan.steps import Done
from cosi_operator.plan.verdicts import age_s

# The sidecar tells the claim of its Bucket, in one write that says all. If it has not after this
# time (there is none; it waits for its driver; upstream's loses such writes), the controller does.
# Measured: five writes for a claim instead of six, two Events instead of three, and no conflict
# of the two writers (a fifth of refused claims had one). docs/adr/0011.
HEAL_AFTER_S = 5.0
# One that was heard of within that time is at work, and others are before this object: it gets
# longer. In a burst of 10,000 more than half of the claims took one write and one Event more.
BUSY_HEAL_AFTER_S = 60.0
BUSY_LOOK_S = 20.0

# A condition with one of these reasons says nothing of what the sidecar does for a deletion.
_BEFORE_DELETION = frozenset(
    (
        Reason.WAITING_FOR_SIDECAR,
        Reason.WAITING_FOR_BUCKET,
        Reason.WAITING_FOR_CLAIM,
        Reason.ACCESS_CLASS_NOT_FOUND,
    )
)
# Reasons that the controller writes to an access itself.
_BY_CONTROLLER = frozenset((Reason.WAITING_FOR_SIDECAR, Reason.ACCESS_CLASS_NOT_FOUND))


def patience_s(now: datetime, heard: datetime | None) -> float:
    """How long a sidecar may take that was last heard of at that time (None: not yet)."""
    at_work = heard is not None and abs((now - heard).total_seconds()) < HEAL_AFTER_S
    return BUSY_HEAL_AFTER_S if at_work else HEAL_AFTER_S


def left_for_sidecar(since: str, now: datetime, limit_s: float = HEAL_AFTER_S) -> Done | None:
    """Look again when the sidecar has had its time, counted from `since`; None if it has.

    A time that lies ahead by more than 5 s is a clock that goes wrong, and is not waited for.
    """
    left = limit_s - age_s(since, now)
    if not 0 < left <= limit_s + HEAL_AFTER_S:
        return None
    after_s = min(left, BUSY_LOOK_S)  # it may stop being at work before that
    return Done(Requeue(Reason.WAITING_FOR_BUCKET, "", after_s=after_s, quiet=True), report=False)


def is_reported(conditions: Iterable[Condition], *, deleting: bool) -> bool:
    """Whether a sidecar has written a condition about what the object waits for now."""
    ready = next((c for c in conditions if c.type == "Ready"), None)
    if ready is None:
        return False
    if not deleting:
        return ready.reason not in _BY_CONTROLLER
    return ready.status != "True" and ready.reason not in _BEFORE_DELETION


def is_overwritten(conditions: Iterable[Condition], *, told: bool) -> bool:
    """Whether the object said that it waits for the sidecar, and somebody has replaced that.

    Only a sidecar does so. Said again, the two would write for ever.
    """
    return told and not any(
        c.type == "Ready" and c.reason == Reason.WAITING_FOR_SIDECAR for c in conditions
    )


def is_by_controller(conditions: Iterable[Condition]) -> bool:
    """Whether the controller wrote the Ready condition of an access."""
    return any(c.type == "Ready" and c.reason in _BY_CONTROLLER for c in conditions)


def is_waiting_for_sidecar(outcome: Outcome) -> TypeGuard[Terminal]:
    return isinstance(outcome, Terminal) and outcome.reason is Reason.WAITING_FOR_SIDECAR


def waiting_for_sidecar(what: str, driver: str) -> Terminal:
    """`what` has to be done by a sidecar that has done nothing about it so far."""
    return Terminal(
        Reason.WAITING_FOR_SIDECAR,
        f"{what} by the sidecar of driver {driver}, which has not reported yet. If this lasts, ask"
        " your cluster administrator whether that driver is installed and running.",
        waiting=True,
    )
