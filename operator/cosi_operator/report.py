"""From an outcome to what a user sees: conditions and Events. The only writer of status.

Nothing is written when nothing differs. A cluster with upstream's CRDs silently drops conditions:
that is noticed from the reply, said once in the log, and the same facts then go into one
annotation; Events are the same on both.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import structlog
from msgspec.structs import replace as with_fields

from cosi_operator import conditions
from cosi_operator.api import v1alpha1
from cosi_operator.api.view import (
    Bucket,
    BucketAccess,
    BucketClaim,
    Condition,
    Key,
    LastCall,
    Status,
)
from cosi_operator.clock import Clock
from cosi_operator.kube.events import EventRecorder, ObjectRef
from cosi_operator.kube.objects import Body, Objects
from cosi_operator.outcome import DriverStatus, Effect, Outcome, Reason, Requeue, Success, Terminal

log = structlog.get_logger(__name__)

type Level = Literal["Normal", "Warning"]
type Reported = Bucket | BucketAccess | BucketClaim


@dataclass(frozen=True, slots=True)
class Told:
    """What one run found out about one object, ready to be told.

    `success` is the Ready condition when all is well; `failure_event` the Event reason otherwise.
    `fields` are the status fields of the kind. `tries` describes the driver call, if one was made.
    """

    outcome: Outcome
    success: tuple[Reason, str]
    success_event: str
    failure_event: str
    fields: dict[str, Any] = field(default_factory=dict)
    attempts: int = 0
    effect: Effect = Effect.MAYBE
    driver_instance: str = ""
    retry_token: str = ""


class Reporter:
    """Writes status and Events; shared by all reconcilers of a process."""

    def __init__(self, events: EventRecorder, clock: Clock) -> None:
        self._events = events
        self._clock = clock
        self._drops: set[str] = set()  # plurals whose served schema drops our fields

    async def tell[T: Reported](self, objects: Objects[T], key: Key, told: Told) -> T | None:
        """Write what differs, and emit the Event that goes with a change.

        Returns:
            The object as it now stands; None when it is gone.
        Raises:
            ApiError, ApiSilent: the status could not be written; the run has to be repeated.
        """
        before = objects.get(key)
        if before is None:
            return None
        if _is_minor(before, told):
            return before
        now = self._clock.wall()
        await self.write(objects, key, lambda view: self._status(view, objects, told, now))
        self._emit(before, objects, told)
        return objects.get(key)

    async def write[T: Reported](
        self, objects: Objects[T], key: Key, make: Callable[[T], Status]
    ) -> bool:
        """Write a status; `make` is asked again on a fresh copy after a conflict.

        Returns:
            Whether anything had to be written.
        """
        plural = objects.resource.plural
        asked: list[Status] = []

        def change(view: T, body: Body) -> Body:
            status = make(view)
            asked.append(status)
            stored = body.get("status") or {}
            if plural in self._drops:
                status = with_fields(status, conditions=view.conditions)
                return v1alpha1.with_plain_status(body, status)
            after = v1alpha1.with_status(body, status)
            return body if after.get("status") == stored else after

        if plural not in self._drops:
            reply = await objects.edit_status(key, change)
            if reply is None:
                return False
            if v1alpha1.keeps_conditions(reply, asked[-1]):
                return True
            self._drops.add(plural)
            log.warning(
                "served_schema_drops_conditions",
                resource=plural,
                remedy="install this project's CRDs; until then Events and the annotation"
                f" {v1alpha1.STATUS_ANNOTATION} tell the same",
            )
        else:
            await objects.edit_status(key, change)
        view = objects.get(key)
        if view is None:
            return False
        status = make(view)
        await objects.edit(key, lambda body: v1alpha1.annotate_status(body, status))
        return True

    async def mark_pending[T: Bucket | BucketAccess](self, objects: Objects[T], key: Key) -> None:
        """Store that the next driver call may have an effect, before it is made."""

        def pending(view: T) -> Status:
            assert view.last_call is not None
            call = with_fields(view.last_call, outcome="Pending", effect=Effect.MAYBE)
            return Status(view.conditions, view.observed_generation, last_call=call)

        await self.write(objects, key, pending)

    def event(
        self,
        objects: Objects[Any],
        view: Reported,
        level: Level,
        reason: str,
        message: str,
        *,
        fingerprint: str = "",
    ) -> None:
        """Emit one Event about an object, in its namespace."""
        about = ObjectRef(
            api_version=objects.resource.api_version,
            kind=objects.resource.kind,
            namespace=view.meta.namespace,
            name=view.meta.name,
            uid=view.meta.uid,
            resource_version=view.meta.resource_version,
        )
        self._events.emit(
            about, type=level, reason=reason, message=message, fingerprint=fingerprint or message
        )

    def _status[T: Reported](
        self, view: T, objects: Objects[T], told: Told, now: datetime
    ) -> Status:
        generation = view.meta.generation
        wanted = conditions.from_outcome(
            told.outcome,
            generation=generation,
            success=told.success,
            message=_message(view, objects, told),
        )
        return Status(
            conditions=conditions.merge(view.conditions, wanted, now),
            observed_generation=generation,
            last_call=_last_call(view, told, now),
            **told.fields,
        )

    def _emit[T: Reported](self, before: T, objects: Objects[T], told: Told) -> None:
        was = ready_of(before)
        outcome = told.outcome
        if isinstance(outcome, Success):
            if was is None or was.status != "True":
                self.event(objects, before, "Normal", told.success_event, told.success[1])
            return
        fingerprint = f"{outcome.reason}:{_fingerprint(outcome)}"
        level: Level = "Warning"
        reason = told.failure_event
        if outcome.reason is Reason.WAITING_FOR_BUCKET:
            level, reason = "Normal", outcome.reason.value
        message = f"{outcome.reason}: {_message(before, objects, told)}"
        self.event(objects, before, level, reason, message, fingerprint=fingerprint)


def ready_of(view: Reported) -> Condition | None:
    return next((c for c in view.conditions if c.type == "Ready"), None)


def _fingerprint(outcome: Requeue | Terminal) -> str:
    return conditions.describe_failure(outcome.status) if outcome.status else outcome.message


def _message[T: Reported](view: T, objects: Objects[T], told: Told) -> str:
    if isinstance(told.outcome, Success):
        return told.success[1]
    what = f"{objects.resource.kind.lower()} {view.meta.name}"
    if view.meta.namespace:
        what += f" -n {view.meta.namespace}"
    claim = view.claim if isinstance(view, Bucket) else None
    if claim and claim.name:  # the tenant may write the claim, not the Bucket
        what = f"bucketclaim {claim.name} -n {claim.namespace}"
    return conditions.failure_message(told.outcome, attempts=told.attempts, retry_what=what)


def _last_call(view: Reported, told: Told, now: datetime) -> LastCall | None:
    """The verdict to store; None (leave what stands) when no driver call was judged."""
    if isinstance(view, BucketClaim):
        return None
    outcome = told.outcome
    if isinstance(outcome, Success):
        if view.last_call is None:
            return None  # nothing was ever wrong: no need to write more
        return with_fields(view.last_call, outcome="Success", retry_token=told.retry_token)
    status: DriverStatus | None = outcome.status
    if status is None:
        return None
    call = LastCall(
        call=status.call.value,
        code=status.code.name,
        made_by=status.made_by.value,
        outcome=type(outcome).__name__,
        effect=told.effect,
        reason=outcome.reason.value,
        attempts=told.attempts,
        generation=view.meta.generation,
        driver_instance=told.driver_instance,
        retry_token=told.retry_token,
        time=now.isoformat(timespec="seconds").replace("+00:00", "Z"),
    )
    # The time alone is no reason to write: a recheck that ends the same changes nothing.
    if (
        view.last_call
        and with_fields(view.last_call, time="", attempts=0)
        == with_fields(call, time="", attempts=0)
        and isinstance(outcome, Terminal)
    ):
        return view.last_call
    return call


def _is_minor(before: Reported, told: Told) -> bool:
    """A further attempt of the same failing call that is not worth a write."""
    outcome = told.outcome
    if not isinstance(outcome, Requeue) or conditions.is_worth_writing(told.attempts):
        return isinstance(outcome, Requeue) and outcome.quiet
    was = ready_of(before)
    return was is not None and was.status == "False" and was.reason == outcome.reason
