"""Reports outcomes to users as conditions and Events. The only writer of status.

The reporter skips a write that would change nothing. A cluster with upstream's CRDs silently drops
conditions. The reporter detects that from the reply, logs it once, and writes the same facts into
one annotation instead. Events do not depend on the CRDs.
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
    Meta,
    Status,
    stamp,
)
from cosi_operator.clock import Clock
from cosi_operator.kube.errors import Conflict
from cosi_operator.kube.events import EventRecorder, ObjectRef
from cosi_operator.kube.objects import STATUS_TRIES, Body, Objects
from cosi_operator.outcome import (
    Call,
    Code,
    DriverStatus,
    Effect,
    MadeBy,
    Outcome,
    Reason,
    Requeue,
    Success,
    Terminal,
)

log = structlog.get_logger(__name__)

# After this time, send fields again that the served schema dropped, because the CRDs may have been
# replaced in the meantime.
TRY_FIELDS_AGAIN_S = 60.0

type Level = Literal["Normal", "Warning"]
type Reported = Bucket | BucketAccess | BucketClaim


@dataclass(frozen=True, slots=True)
class StatusReport:
    """The result of one run for one object, for its status and its Events.

    `judged` is the object as the run read it; the result is valid for that uid and generation only.
    `success` is the reason and message of the Ready condition after a Success, `success_event` the
    Event reason then, and `failure_event` the Event reason otherwise. `fields` are the status
    fields of the kind. `call` is the driver call that creates the backend's side of the object.
    `must_store`: store the result even if another writer changed the object since the run read it,
    because the driver has answered and must not be called again only for that change.
    """

    outcome: Outcome
    judged: Meta
    success: tuple[Reason, str]
    success_event: str
    failure_event: str
    fields: dict[str, Any] = field(default_factory=dict)
    call: Call = Call.CREATE_BUCKET
    must_store: bool = False
    attempts: int = 0
    effect: Effect = Effect.MAYBE
    driver_instance: str = ""
    retry_token: str = ""
    ignored: str = ""


class Reporter:
    """Writes status and Events; shared by all reconcilers of a process."""

    def __init__(self, events: EventRecorder, clock: Clock, *, longest_pause_s: float) -> None:
        """`longest_pause_s`: the cap of the backoff, for the messages about a retry."""
        self._events = events
        self._longest_pause_s = longest_pause_s
        self._clock = clock
        # Plurals whose served schema drops our fields; monotonic seconds of the last such reply.
        self._drops: dict[str, float] = {}
        self._keeps: set[str] = set()  # plurals for which "keeps_conditions" was logged

    async def report[T: Reported](
        self, objects: Objects[T], key: Key, told: StatusReport
    ) -> T | None:
        """Write the status if it differs, and emit the Event for a change.

        Returns:
            The current object; None when it no longer exists.
        Raises:
            Conflict: the run used a copy that is not the current one; plan again.
            ApiError, ApiSilent: the status could not be written; repeat the run.
        """
        before = objects.get(key)
        if before is None or before.meta.uid != told.judged.uid:
            return None
        if _is_minor(before, told):
            return before
        now = self._clock.wall()

        def status(view: T) -> Status | None:
            if view.meta.uid != told.judged.uid:
                return None
            if not told.must_store and view.meta.resource_version != told.judged.resource_version:
                raise Conflict(409, "Conflict", f"{key} changed since the run read it")
            return self._status(view, objects, told, now)

        written = await self.write(objects, key, status)
        # Emit only if the status changed or the driver was called. No status is written for an
        # oversized object, so its Event is the only report.
        if written or _was_asked(told.outcome) or before.meta.oversized:
            self._emit(before, objects, told)
        return objects.get(key)

    async def write[T: Reported](
        self, objects: Objects[T], key: Key, make: Callable[[T], Status | None]
    ) -> bool:
        """Write a status. After a conflict, call `make` again with a fresh copy.

        Returns:
            Whether a write was needed. If `make` returns None, nothing is written.
        """
        plural = objects.resource.plural
        drops, tries = plural in self._drops, not self._is_dropped(plural)
        asked: list[Status] = []
        is_full = False

        def change(view: T, body: Body) -> Body:
            nonlocal is_full
            is_full = False
            status = make(view)
            if status is None:
                return body
            asked.append(status)
            if drops:
                plain = v1alpha1.with_plain_status(body, status)
                if not tries or plain == body:  # skip a request with only dropped fields
                    return plain
            is_full = True
            after = v1alpha1.with_status(body, status)
            return body if after.get("status") == (body.get("status") or {}) else after

        reply = await objects.edit_status(key, change)
        if is_full or not drops:
            if reply is None:
                return False
            if v1alpha1.keeps_conditions(reply, asked[-1]):
                self._note_keeps(plural)
                return True
            self._note_drops(plural)
        return bool(asked) and (await self._annotate(objects, key, asked[-1]) or reply is not None)

    def _is_dropped(self, plural: str) -> bool:
        """Whether the schema dropped our fields within the last `TRY_FIELDS_AGAIN_S`."""
        seen = self._drops.get(plural)
        return seen is not None and self._clock.monotonic() - seen < TRY_FIELDS_AGAIN_S

    def _note_keeps(self, plural: str) -> None:
        self._drops.pop(plural, None)
        if plural not in self._keeps:
            self._keeps.add(plural)
            log.info("served_schema_keeps_conditions", resource=plural)

    def _note_drops(self, plural: str) -> None:
        self._keeps.discard(plural)
        is_known = plural in self._drops
        self._drops[plural] = self._clock.monotonic()
        if is_known:
            return
        log.warning(
            "served_schema_drops_conditions",
            resource=plural,
            remedy="install this project's CRDs; until then, Events and annotation"
            f" {v1alpha1.STATUS_ANNOTATION} contain the same information",
        )

    async def _annotate[T: Reported](self, objects: Objects[T], key: Key, status: Status) -> bool:
        """Write the fields that the schema drops into the annotation; return whether it changed.

        The status itself is already written, so retry a conflict here instead of planning again.
        """
        for attempt in range(STATUS_TRIES):
            before = objects.get(key)
            try:
                after = await objects.edit(key, lambda body: v1alpha1.annotate_status(body, status))
            except Conflict:
                if attempt == STATUS_TRIES - 1:
                    raise
                continue
            if before is None or after is None:
                return False
            return before.meta.resource_version != after.meta.resource_version
        raise AssertionError("unreachable")

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
        """Emit one Event about an object in its namespace, unless the object no longer exists."""
        current = objects.get(view.meta.key)
        if current is None or current.meta.uid != view.meta.uid:
            return
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
        self, view: T, objects: Objects[T], told: StatusReport, now: datetime
    ) -> Status:
        generation = told.judged.generation
        wanted = conditions.from_outcome(
            told.outcome,
            generation=generation,
            success=told.success,
            message=self._message(view, objects, told),
            ignored=told.ignored,
        )
        return Status(
            conditions=conditions.merge(view.conditions, wanted, now),
            observed_generation=generation,
            last_call=_last_call(view, told, now),
            **told.fields,
        )

    def _message[T: Reported](self, view: T, objects: Objects[T], told: StatusReport) -> str:
        if isinstance(told.outcome, Success):
            return told.success[1]
        what = f"{objects.resource.kind.lower()} {view.meta.name}"
        if view.meta.namespace:
            what += f" -n {view.meta.namespace}"
        claim = view.claim if isinstance(view, Bucket) else None
        if claim and claim.name:  # the tenant may write the claim, not the Bucket
            what = f"bucketclaim {claim.name} -n {claim.namespace}"
        return conditions.failure_message(
            told.outcome,
            attempts=told.attempts,
            retry_what=what,
            advice=conditions.advice_on(told.outcome.reason, view),
            now=self._clock.wall(),
            longest_pause_s=self._longest_pause_s,
        )

    def _emit[T: Reported](self, before: T, objects: Objects[T], told: StatusReport) -> None:
        was = ready_of(before)
        outcome = told.outcome
        if isinstance(outcome, Success):
            if was is None or was.status != "True":
                self.event(objects, before, "Normal", told.success_event, told.success[1])
            return
        fingerprint = f"{outcome.reason}:{_fingerprint(outcome)}"
        level: Level = "Warning"
        reason = told.failure_event
        if outcome.reason in PLAIN_WAITS:
            level, reason = "Normal", outcome.reason.value
        message = f"{outcome.reason}: {self._message(before, objects, told)}"
        self.event(objects, before, level, reason, message, fingerprint=fingerprint)


# Reasons that are not failures: their Events have type Normal.
PLAIN_WAITS = (
    Reason.WAITING_FOR_BUCKET,
    Reason.WAITING_FOR_ACCESSES,
    Reason.WAITING_FOR_TURN,
    Reason.WAITING_FOR_SIDECAR,
    Reason.RELEASED,
    Reason.REVOKED,
)


def ready_of(view: Reported) -> Condition | None:
    return next((c for c in view.conditions if c.type == "Ready"), None)


def _fingerprint(outcome: Requeue | Terminal) -> str:
    return conditions.describe_failure(outcome.status) if outcome.status else outcome.message


def _last_call(view: Reported, told: StatusReport, now: datetime) -> LastCall | None:
    """The verdict to store; None (keep the stored one) when no driver call was judged."""
    if isinstance(view, BucketClaim):
        return None
    outcome = told.outcome
    if isinstance(outcome, Success):
        return _last_success(view, told, now)
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
        generation=told.judged.generation,
        driver_instance=told.driver_instance,
        retry_token=told.retry_token,
        time=stamp(now),
        object_uid=told.judged.uid,
    )
    # Keep the stored verdict if only the time differs: a recheck with the same result writes
    # nothing.
    if (
        view.last_call
        and with_fields(view.last_call, time="", attempts=0)
        == with_fields(call, time="", attempts=0)
        and isinstance(outcome, Terminal)
    ):
        return view.last_call
    return call


def _last_success(
    view: Bucket | BucketAccess, told: StatusReport, now: datetime
) -> LastCall | None:
    """The verdict after a Success: replaces a failure, or records the retry annotation.

    None without an earlier verdict and without a retry annotation, because then a write is not
    needed.
    """
    before = view.last_call
    if before is None and not told.retry_token:
        return None
    fresh = LastCall(
        call=told.call.value,
        code=Code.OK.name,
        made_by=MadeBy.DRIVER.value,
        outcome="Success",
        effect=Effect.MAYBE,
        reason=told.success[0].value,
        attempts=1,
        generation=told.judged.generation,
        driver_instance=told.driver_instance,
        retry_token=told.retry_token,
        time=stamp(now),
        object_uid=told.judged.uid,
    )
    said = before and (before.call, before.outcome, before.retry_token)
    return before if said == (fresh.call, fresh.outcome, fresh.retry_token) else fresh


def _was_asked(outcome: Outcome) -> bool:
    return not isinstance(outcome, Success) and outcome.status is not None


def _is_minor(before: Reported, told: StatusReport) -> bool:
    """Whether the outcome is not worth a write: a quiet one, or one more retry that failed."""
    outcome = told.outcome
    if not isinstance(outcome, Requeue) or conditions.is_worth_writing(told.attempts):
        return isinstance(outcome, Requeue) and outcome.quiet
    was = ready_of(before)
    return was is not None and was.status == "False" and was.reason == outcome.reason
