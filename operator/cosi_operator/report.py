"""Reports outcomes to users as conditions and Events. The only writer of status.

`status_patch.py` decides what is written. The reporter skips a write that would change nothing. A
cluster with upstream's CRDs silently drops conditions. The reporter detects that from the reply,
logs it once, and writes the same facts into one annotation instead. Events do not depend on the
CRDs.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, Protocol

import structlog

from cosi_operator import conditions
from cosi_operator.api import encode
from cosi_operator.api.resources import STATUS_ANNOTATION
from cosi_operator.api.view import Key, Meta, Status
from cosi_operator.clock import Clock
from cosi_operator.kube.errors import Conflict
from cosi_operator.kube.events import EventRecorder, ObjectRef
from cosi_operator.kube.objects import STATUS_TRIES, Body, Objects
from cosi_operator.kube.trim import is_oversized
from cosi_operator.outcome import Outcome, Reason, Requeue, Success, Terminal
from cosi_operator.status_patch import (
    OutcomePatch,
    Reported,
    StatusPatch,
    StatusReport,
    is_minor,
    ready_of,
)

log = structlog.get_logger(__name__)

# After this time, send fields again that the served schema dropped, because the CRDs may have been
# replaced in the meantime.
TRY_FIELDS_AGAIN_S = 60.0

type Level = Literal["Normal", "Warning"]


class StatusForm(Protocol):
    """A function that returns the whole object with a status: with our own fields, or without."""

    def __call__(self, raw: Mapping[str, Any], status: Status) -> Body: ...


# Reasons that are not failures: their Events have type Normal.
PLAIN_WAITS = (
    Reason.WAITING_FOR_BUCKET,
    Reason.WAITING_FOR_ACCESSES,
    Reason.WAITING_FOR_TURN,
    Reason.WAITING_FOR_SIDECAR,
    Reason.RELEASED,
    Reason.REVOKED,
)


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
        self, objects: Objects[T], key: Key, report: StatusReport, *, again: bool = False
    ) -> T | None:
        """Write the status if it differs, and emit the Event for a change.

        Args:
            again: an earlier attempt may have emitted the Event, so only a write emits it.
        Returns:
            The current object; None when it no longer exists.
        Raises:
            Conflict: the run used a copy that is not the current one; plan again.
            ApiError, ApiSilent: the status could not be written; repeat the run.
        """
        before = objects.get(key)
        if before is None or before.meta.uid != report.judged.uid:
            return None
        if is_minor(before, report):
            return before
        patch = OutcomePatch(
            report, objects.resource.kind, self._clock.wall(), self._longest_pause_s
        )
        written = await self.write(objects, key, patch)
        # Emit only if the status changed or the driver was called. No status is written for an
        # oversized object, so its Event is the only report.
        was_asked = _was_asked(report.outcome) and not again
        if written or was_asked or before.meta.oversized:
            self._emit(before, objects, patch)
        return objects.get(key)

    async def write[T: Reported](
        self, objects: Objects[T], key: Key, patch: StatusPatch[T]
    ) -> bool:
        """Write a status. After a conflict, apply the patch to a fresh copy.

        Returns:
            Whether a write was needed.
        Raises:
            Conflict: the object is not the version that the patch is for, or STATUS_TRIES attempts
                in a row conflicted with other writers.
        """
        for attempt in range(STATUS_TRIES):
            current, body = objects.get(key), objects.body(key)
            if current is None or body is None or is_oversized(body):
                return False  # the Event reports an oversized object: a status rewrites megabytes
            if current.meta.uid != patch.uid:
                return False
            if patch.version not in ("", current.meta.resource_version):
                raise Conflict(409, "Conflict", f"{key} changed since the run read it")
            status = patch.status_of(current)
            if status is None:
                return False
            form = self._form(objects.resource.plural, body, status)
            try:
                reply = await objects.put_status(key, body, partial(form, status=status))
            except Conflict:
                if attempt == STATUS_TRIES - 1:
                    raise
                continue
            if form is encode.with_status:
                return await self._after_full_write(objects, current.meta, status, reply)
            return await self._annotate(objects, current.meta, status) or reply is not None
        raise AssertionError("unreachable")

    def _form(self, plural: str, body: Body, status: Status) -> StatusForm:
        """With our own fields, unless the schema drops them and nothing else would be written."""
        if plural in self._drops:
            plain = encode.with_plain_status(body, status)
            if self._is_dropped(plural) or plain == body:
                return encode.with_plain_status
        return encode.with_status

    async def _after_full_write[T: Reported](
        self, objects: Objects[T], meta: Meta, status: Status, reply: Body | None
    ) -> bool:
        """Find out from the reply whether the served schema kept our own fields."""
        if reply is None:
            return False
        if encode.keeps_conditions(reply, status):
            self._note_keeps(objects.resource.plural)
        else:
            self._note_drops(objects.resource.plural)
            await self._annotate(objects, meta, status)
        return True

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
            f" {STATUS_ANNOTATION} contain the same information",
        )

    async def _annotate[T: Reported](self, objects: Objects[T], meta: Meta, status: Status) -> bool:
        """Write the fields that the schema drops into the annotation; return whether it changed.

        The status itself is already written, so retry a conflict here instead of planning again.
        """
        for attempt in range(STATUS_TRIES):
            before = objects.get(meta.key)
            try:
                after = await objects.edit(
                    meta.key, meta.uid, lambda body: encode.annotate_status(body, status)
                )
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
        self.event_about_gone(objects, view, level, reason, message, fingerprint=fingerprint)

    def event_about_gone(
        self,
        objects: Objects[Any],
        view: Reported,
        level: Level,
        reason: str,
        message: str,
        *,
        fingerprint: str = "",
    ) -> None:
        """Emit one Event about an object that may no longer exist; its namespace has to."""
        self._events.emit(
            _about(objects, view),
            type=level,
            reason=reason,
            message=message,
            fingerprint=fingerprint or message,
        )

    async def deliver(
        self, objects: Objects[Any], view: Reported, reason: str, message: str
    ) -> bool:
        """Store a Warning about an object before anything else is done.

        Returns:
            Whether it is stored.
        Raises:
            ApiSilent, ServerError, TooManyRequests: it may not be stored. Repeat it.
        """
        about = _about(objects, view)
        return await self._events.deliver(about, type="Warning", reason=reason, message=message)

    def _emit[T: Reported](self, before: T, objects: Objects[T], patch: OutcomePatch) -> None:
        report, was = patch.report, ready_of(before)
        outcome = report.outcome
        if isinstance(outcome, Success):
            if was is None or was.status != "True":
                self.event(objects, before, "Normal", report.success_event, report.success[1])
            return
        fingerprint = f"{outcome.reason}:{_fingerprint(outcome)}"
        level, reason = event_of(outcome, report.failure_event)
        message = f"{outcome.reason}: {patch.message(before)}"
        self.event(objects, before, level, reason, message, fingerprint=fingerprint)


def _about(objects: Objects[Any], view: Reported) -> ObjectRef:
    return ObjectRef(
        api_version=objects.resource.api_version,
        kind=objects.resource.kind,
        namespace=view.meta.namespace,
        name=view.meta.name,
        uid=view.meta.uid,
        resource_version=view.meta.resource_version,
    )


def event_of(outcome: Requeue | Terminal, failure_event: str) -> tuple[Level, str]:
    """The type and the reason of the Event about an outcome."""
    if outcome.reason in PLAIN_WAITS:
        return "Normal", outcome.reason.value
    return "Warning", failure_event


def _fingerprint(outcome: Requeue | Terminal) -> str:
    return conditions.describe_failure(outcome.status) if outcome.status else outcome.message


def _was_asked(outcome: Outcome) -> bool:
    return not isinstance(outcome, Success) and outcome.status is not None
