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

# A served schema that drops our fields may be replaced while this process runs.
TRY_FIELDS_AGAIN_S = 60.0

type Level = Literal["Normal", "Warning"]
type Reported = Bucket | BucketAccess | BucketClaim


@dataclass(frozen=True, slots=True)
class StatusReport:
    """What one run found out about one object, ready to be told.

    `judged` is the object as the run saw it: what it decided holds for that uid and generation
    only. `success` is the Ready condition when all is well; `failure_event` the Event reason
    otherwise. `fields` are the status fields of the kind. `call` is the driver call that the
    object is made by. `must_store`: the driver has spoken, and is not to be asked again only
    because someone else wrote the object meanwhile.
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
        """`longest_pause_s`: the cap of the backoff, which a message about a retry names."""
        self._events = events
        self._longest_pause_s = longest_pause_s
        self._clock = clock
        # Plurals whose served schema drops our fields, and when that was last seen (monotonic s).
        self._drops: dict[str, float] = {}
        self._keeps: set[str] = set()  # those of which it was said that they are kept

    async def report[T: Reported](
        self, objects: Objects[T], key: Key, told: StatusReport
    ) -> T | None:
        """Write what differs, and emit the Event that goes with a change.

        Returns:
            The object as it now stands; None when it is gone.
        Raises:
            Conflict: it was decided on a copy that is not the current one; decide again.
            ApiError, ApiSilent: the status could not be written; the run has to be repeated.
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
                raise Conflict(409, "Conflict", f"{key} changed since it was looked at")
            return self._status(view, objects, told, now)

        written = await self.write(objects, key, status)
        # What was told before, and not by a driver that was just asked, is no news.
        # Of an object that is too large for us no status is written: the Event alone tells it.
        if written or _was_asked(told.outcome) or before.meta.oversized:
            self._emit(before, objects, told)
        return objects.get(key)

    async def write[T: Reported](
        self, objects: Objects[T], key: Key, make: Callable[[T], Status | None]
    ) -> bool:
        """Write a status; `make` is asked again on a fresh copy after a conflict.

        Returns:
            Whether anything had to be written. None from `make` writes nothing.
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
                if not tries or plain == body:  # what is dropped alone is not worth a request
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
        """Whether our fields are not worth sending. They are tried again after a minute."""
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
            remedy="install this project's CRDs; until then Events and the annotation"
            f" {v1alpha1.STATUS_ANNOTATION} tell the same",
        )

    async def _annotate[T: Reported](self, objects: Objects[T], key: Key, status: Status) -> bool:
        """Put what the schema has no room for into the annotation; whether that was news.

        The status itself is written by now, so a conflict is no reason to decide again.
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
        """Emit one Event about an object, in its namespace; none about one that is gone."""
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


# Nothing is wrong, it only takes its time: no Warning.
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
    """The verdict to store; None (leave what stands) when no driver call was judged."""
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
    # The time alone is no reason to write: a recheck that ends the same changes nothing.
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
    """What replaces a failure that is over, or records a retry annotation that was followed."""
    before = view.last_call
    if before is None and not told.retry_token:
        return None  # nothing was ever wrong: no need to write more
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
    """A further attempt of the same failing call that is not worth a write."""
    outcome = told.outcome
    if not isinstance(outcome, Requeue) or conditions.is_worth_writing(told.attempts):
        return isinstance(outcome, Requeue) and outcome.quiet
    was = ready_of(before)
    return was is not None and was.status == "False" and was.reason == outcome.reason
