"""Decides whether a stored verdict is still valid, so the driver is not called again. Pure."""

import math

from cosi_operator.api.view import (
    Bucket,
    BucketAccess,
    BucketClaim,
    Condition,
    LastCall,
    age_s,
    ready_in,
)
from cosi_operator.outcome import (
    Call,
    Code,
    DriverStatus,
    Effect,
    MadeBy,
    Reason,
    Requeue,
    Success,
    Terminal,
)
from cosi_operator.plan.steps import Context, Done
from cosi_operator.scrub import shown_name

# If the object waited for something else after the verdict, such as its claim, the verdict is void.
_VOIDING = frozenset(
    (
        Reason.BEING_DELETED,
        Reason.BUCKET_LOST,
        Reason.CLAIM_NOT_FOUND,
        Reason.WAITING_FOR_BUCKET,
        Reason.WAITING_FOR_CLAIM,
    )
)


def valid_verdict(
    stored: Bucket | BucketAccess, call: Call, context: Context, *, token: str
) -> Done | None:
    """The end of the run if the verdict on `call` is still valid, else None.

    A Terminal verdict is valid until the spec, the driver process or the retry annotation changes,
    or a recheck is due. A backoff that has not expired ends the run too.
    """
    last = stored.last_call
    if last is not None and last.outcome == "Terminal" and last.call == call:
        recheck = context.deletion_recheck_s if stored.meta.deleting else context.recheck_s
        left = None if recheck is None else recheck_left_s(last.time, recheck, context)
        same = (
            last.generation == stored.meta.generation
            and last.driver_instance == context.driver.instance
            and last.retry_token == token
        )
        if same and (left is None or left > 0):
            return _standing(stored, last, recheck_s=left) or backing_off(context)
    return backing_off(context)


def _standing(
    stored: Bucket | BucketAccess, last: LastCall, *, recheck_s: float | None
) -> Done | None:
    """The stored verdict; None if something that the object waited for has changed since."""
    ready = ready_in(stored.conditions)
    verdict = _stored(stored.conditions, last, recheck_s=recheck_s)
    # The controller may know better than this process that the class does not exist.
    is_kept = ready is None or ready.reason in (verdict.reason, Reason.ACCESS_CLASS_NOT_FOUND)
    if ready is None or is_kept or ready.status == "True":
        return Done(verdict, report=False)
    if ready.reason in _VOIDING and not stored.meta.deleting:
        return None
    # Another problem was reported since, which has gone, and the driver's words with it.
    words = f"{last.call} failed with {last.code}, and the call is not repeated yet."
    return Done(Terminal(verdict.reason, words, recheck_s=recheck_s))


def recheck_left_s(time: str, recheck_s: float, context: Context) -> float:
    """Seconds until the next recheck of a verdict with this time; 0 or less if it is due.

    A verdict that this process received is valid for one interval of monotonic time. An older
    verdict keeps its offset within the interval, so that overdue rechecks are not all made at once
    after a restart. Its stored time can be many intervals old, because rechecks with the same
    result write nothing. The recheck is due within one interval even if the system clock was wrong
    when the time was stored or when this process started.
    """
    if context.pending.attempts:
        return context.pending.wait_s
    if context.started is None:
        return recheck_s - age_s(time, context.now)
    before = age_s(time, context.started)
    if math.isinf(before):
        return 0.0
    return recheck_s - before % recheck_s - (context.now - context.started).total_seconds()


def backing_off(context: Context) -> Done | None:
    """End the run while the backoff of an earlier failed call has not expired."""
    pending = context.pending
    if pending.wait_s <= 0:
        return None
    if math.isinf(pending.wait_s):  # a final verdict without a recheck
        return Done(Terminal(pending.reason, ""), report=False)
    return Done(Requeue(pending.reason, "", after_s=pending.wait_s, quiet=True), report=False)


def _stored(
    conditions: tuple[Condition, ...], last: LastCall, *, recheck_s: float | None
) -> Terminal:
    ready = ready_in(conditions)
    message = ready.message if ready else ""
    status = None
    if last.call in set(Call) and last.code in Code.__members__:
        made_by = MadeBy(last.made_by) if last.made_by in set(MadeBy) else MadeBy.DRIVER
        status = DriverStatus(Call(last.call), Code[last.code], made_by)
    reason = Reason(last.reason) if last.reason in set(Reason) else Reason.INTERNAL_ERROR
    return Terminal(reason, message, recheck_s=recheck_s, status=status)


def refused_before_effect(last: LastCall | None, call: Call) -> bool:
    """Whether the stored verdict proves that `call` left nothing on the backend."""
    return (
        last is not None
        and last.call == call
        and last.outcome == "Terminal"
        and last.effect is Effect.NONE
    )


def ended(
    view: Bucket | BucketAccess | BucketClaim, reason: Reason, words: str, *, usable: bool
) -> Done:
    """The end of a deletion that is complete on our side; other finalizers may keep the object.

    Args:
        reason: of the condition Ready, once it is reported.
        words: a sentence about what is complete, and the start of the sentence about finalizers.
        usable: whether the status still says that the object can be used.
    """
    is_reported = all(c.type != "Ready" or c.reason == reason for c in view.conditions)
    if not view.meta.finalizers or (is_reported and not usable):
        return Done(Success(), report=False)
    others = ", ".join(shown_name(name) for name in view.meta.finalizers)
    message = f"{words} is deleted when its last finalizers are removed: {others}."
    return Done(Terminal(reason, message, waiting=True))


def driver_away(context: Context) -> Done | None:
    """End the run while the driver does not answer; one probe waits for it, not each object."""
    if context.driver.up:
        return None
    return Done(
        Terminal(
            Reason.WAITING_FOR_DRIVER,
            f"Driver {context.driver.name} does not answer on its socket. The operator continues"
            " automatically when the driver answers.",
            waiting=True,
        )
    )
