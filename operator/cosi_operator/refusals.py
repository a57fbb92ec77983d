"""Reports requests that the API server does not carry out, and decides when they are retried.

The API server refuses a request because the operator lacks a permission (403 of the authorizer), or
because of admission, quota or validation (403, 400, 422). An administrator has to correct the
cause, and no watch event shows when that is done. So the request is retried after 1 s, 2 s, 4 s and
so on, and then every 30 s.

A refusal is written into the object's conditions and emitted as an Event; if the API server refuses
the status write too, the Event is the only report. The first 403 is not reported, because an API
server that has just started answers 403 until it has loaded its roles.

A request that fails in another way (500, 429, a conflict, no answer) is retried with growing
pauses. If the runs for one object fail for longer than `PATIENCE_S`, that is reported in the same
way, and the pauses no longer grow; for example, an admission webhook that is not running makes
every such write fail with 500.
"""

import contextlib
from dataclasses import dataclass, field
from typing import Any

from cosi_operator.api.view import Condition, Key, stamp
from cosi_operator.clock import Clock
from cosi_operator.kube.errors import ApiError, ApiSilent, Forbidden, Invalid
from cosi_operator.kube.objects import Objects
from cosi_operator.kube.rights import missing_right
from cosi_operator.outcome import Outcome, Reason, Requeue, Success, Terminal
from cosi_operator.reconcile import outcome_of
from cosi_operator.report import Reporter
from cosi_operator.settings import Backoff
from cosi_operator.status_patch import RefusalPatch, Reported, ready_of

RECHECK_S = 30.0
PATIENCE_S = 10.0
# A wait for the run of another object, of which there may be thousands after an upgrade.
LONG_WAIT_S = 60.0
BACKOFF = Backoff(base_s=1.0, cap_s=RECHECK_S, jitter=0.0)
CAPACITY = 4096


@dataclass(slots=True)
class _Row:
    """Consecutive refusals, or other failures, for one object."""

    count: int = 0
    at_s: float = 0.0
    message: str = ""
    since: str = ""


@dataclass(slots=True)
class Refusals:
    """Counts and reports the refusals for each object of one kind."""

    reporter: Reporter
    clock: Clock
    _rows: dict[Key, _Row] = field(default_factory=dict)
    _failing: dict[Key, _Row] = field(default_factory=dict)
    _events: dict[Key, tuple[str, float]] = field(default_factory=dict)
    _written: dict[Key, float] = field(default_factory=dict)

    async def end[T: Reported](
        self, objects: Objects[T], key: Key, error: ApiError | ApiSilent
    ) -> Outcome:
        """Report a refusal on the object, and return the outcome of the run."""
        outcome = self.outcome(key, error)
        await self.report(objects, key, outcome)
        return outcome

    def outcome(self, key: Key, error: ApiError | ApiSilent) -> Outcome:
        """The outcome for a failed request: Terminal for a refusal that is not the first 403."""
        if not isinstance(error, Forbidden | Invalid):
            return self._failing_outcome(key, error)
        reason, message = _reason_and_message(error)
        row = self._row(key, message)
        pause_s = BACKOFF.pause_s(row.count)
        if isinstance(error, Invalid):
            return Terminal(reason, message, recheck_s=RECHECK_S)
        if row.count == 1:
            return Requeue(reason, message, after_s=pause_s, quiet=True)
        return Terminal(reason, message, recheck_s=pause_s)

    async def settled[T: Reported](
        self, objects: Objects[T], key: Key, outcome: Outcome
    ) -> Outcome:
        """The outcome of a run without failed requests.

        A quiet outcome with a message is a short wait, for example for the run of another object;
        it is reported only if it lasts.
        """
        if not isinstance(outcome, Requeue) or not outcome.quiet or not outcome.message:
            self._failing.pop(key, None)
            return outcome
        if self.clock.monotonic() - self._failing_row(key).at_s < LONG_WAIT_S:
            return outcome
        lasting = Terminal(outcome.reason, outcome.message, waiting=True, recheck_s=RECHECK_S)
        await self.report(objects, key, lasting)
        return lasting

    def _failing_row(self, key: Key) -> _Row:
        """Since when the runs for this object have not succeeded."""
        row = self._failing.pop(key, None)
        row = row or _Row(at_s=self.clock.monotonic(), since=stamp(self.clock.wall()))
        _remember(self._failing, key, row)
        return row

    def _failing_outcome(self, key: Key, error: ApiError | ApiSilent) -> Outcome:
        """A quiet retry, until the runs for this object have failed for too long."""
        outcome, row = outcome_of(error), self._failing_row(key)
        is_long = self.clock.monotonic() - row.at_s >= PATIENCE_S
        if not is_long or not isinstance(outcome, Requeue):
            return outcome
        # The message stays the same, so that the status is written once.
        row.message = row.message or (
            f"Requests to the API server have failed since {row.since}. The last"
            f" error was: {str(error).rstrip('.')}. They are repeated every {RECHECK_S:.0f} s or"
            " earlier. If this lasts, ask your cluster administrator to look for the cause in the"
            " API server, for example an admission webhook that does not answer."
        )
        after_s = RECHECK_S if outcome.after_s is None else outcome.after_s
        return Requeue(Reason.API_UNAVAILABLE, row.message, after_s=after_s)

    def _row(self, key: Key, message: str) -> _Row:
        now_s = self.clock.monotonic()
        row = self._rows.pop(key, None)
        # Start a new count: a request succeeded in between, or another request is refused now.
        if row is None or now_s - row.at_s > 2 * RECHECK_S or row.message != message:
            row = _Row(message=message)
        row.count, row.at_s = row.count + 1, now_s
        _remember(self._rows, key, row)
        return row

    async def report[T: Reported](self, objects: Objects[T], key: Key, outcome: Outcome) -> None:
        """Write an outcome that is not quiet into the object's conditions, and emit an Event."""
        view = objects.get(key)
        if view is None or isinstance(outcome, Success) or _is_quiet(outcome):
            return
        ready = ready_of(view)
        # A bucket that works stays ready, unless this is about its deletion.
        is_blank = ready is None or ready.status != "True" or view.meta.deleting
        if is_blank and not self._is_reported(ready, key, outcome) and self._may_write(key):
            with contextlib.suppress(ApiError, ApiSilent):  # the Event reports the refusal
                patch = RefusalPatch(outcome, view.meta.uid, self.clock.wall())
                await self.reporter.write(objects, key, patch)
        self._emit(objects, view, outcome)

    def _is_reported(self, ready: Condition | None, key: Key, outcome: Requeue | Terminal) -> bool:
        """Whether the condition says already that requests fail.

        Controller and sidecar can both fail for one claim, and each write of one starts a run of
        the other. So neither replaces the words of the other.
        """
        mine, _ = self._events.get(key, ("", 0.0))
        is_same = ready is not None and (ready.status, ready.reason) == ("False", outcome.reason)
        is_known = mine in ("", outcome.message)
        return is_same and is_known and outcome.reason is Reason.API_UNAVAILABLE

    def _may_write(self, key: Key) -> bool:
        """Whether the last write for this object was long ago.

        The other process may replace it at once, by a report that only it can make.
        """
        now_s = self.clock.monotonic()
        at_s = self._written.pop(key, None)
        if at_s is not None and now_s - at_s < RECHECK_S - 1.0:
            _remember(self._written, key, at_s)
            return False
        _remember(self._written, key, now_s)
        return True

    def _emit(self, objects: Objects[Any], view: Reported, outcome: Requeue | Terminal) -> None:
        """Emit an Event, but only one while the same refusal is repeated."""
        now_s = self.clock.monotonic()
        message, at_s = self._events.pop(view.meta.key, ("", 0.0))
        if message != outcome.message or now_s - at_s > 2 * RECHECK_S:
            self.reporter.event(objects, view, "Warning", outcome.reason.value, outcome.message)
        _remember(self._events, view.meta.key, (outcome.message, now_s))


def _remember[V](values: dict[Key, V], key: Key, value: V) -> None:
    """Store a value under a key that is not in the dict; the oldest gives way at the limit."""
    if len(values) >= CAPACITY:
        values.pop(next(iter(values)))
    values[key] = value


def _is_quiet(outcome: Requeue | Terminal) -> bool:
    return isinstance(outcome, Requeue) and outcome.quiet


def _reason_and_message(error: ApiError) -> tuple[Reason, str]:
    again = f"The request is repeated every {RECHECK_S:.0f} s."
    if right := missing_right(error):
        text = f"The operator lacks a permission: {right.words}."
        ask = "Ask your cluster administrator to grant this permission."
        return Reason.MISSING_PERMISSION, f"{text} {ask} {again}"
    return Reason.API_REFUSED, f"The API server refused the request: {error.message} {again}"
