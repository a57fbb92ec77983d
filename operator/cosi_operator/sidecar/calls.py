"""Makes one driver call, classifies its result, and remembers failed calls.

A failed call does not raise an exception beyond this module. Its status is classified, and the
outcome passes the status on to the conditions, the Events and the queue.
"""

import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from cosi_operator.api.view import Key
from cosi_operator.classify import Policy, Verdict, classify
from cosi_operator.clock import Clock
from cosi_operator.driver.errors import DriverError, DriverSilent
from cosi_operator.outcome import (
    Call,
    Code,
    DriverStatus,
    Effect,
    Outcome,
    Reason,
    Requeue,
    Terminal,
)
from cosi_operator.plan.facts import CallFailed
from cosi_operator.plan.steps import DriverView, Pending
from cosi_operator.settings import Backoff

log = structlog.get_logger(__name__)

# The shortest time between two driver calls for one object that changes of its annotations or spec
# cause, because a tenant may change both without a limit.
EARLY_RETRY_S = 5.0
# When so many call times are stored, those older than `EARLY_RETRY_S` are removed.
CALL_TIMES_KEPT = 1024


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The inputs of an attempt. When they change, the memory of earlier attempts is invalid."""

    uid: str
    generation: int
    driver_instance: str
    retry_token: str
    deleting: bool = False


@dataclass(slots=True)
class _Memory:
    made_on: Fingerprint
    attempts: int = 0
    until: float = 0.0
    reason: Reason = Reason.DRIVER_UNREACHABLE
    final: bool = False


class Attempts:
    """Failed attempts and active backoffs per object, only in the memory of this process."""

    def __init__(self, backoff: Backoff, clock: Clock, rng: random.Random) -> None:
        self._backoff = backoff
        self._clock = clock
        self._rng = rng
        self._memory: dict[Key, _Memory] = {}
        # The time of the last driver call for an object, separately for creation and deletion.
        self._called: dict[tuple[Key, bool], float] = {}

    def __len__(self) -> int:
        """The number of objects with stored attempts."""
        return len(self._memory)

    def pending(self, key: Key, made_on: Fingerprint) -> Pending:
        """The stored attempts of this object in its present form."""
        memory = self._memory.get(key)
        if memory is None or memory.made_on != made_on:
            return Pending(0, self._too_early_s(key, made_on))
        left = memory.until - self._clock.monotonic()
        return Pending(memory.attempts, max(0.0, left), memory.reason)

    def called(self, key: Key, made_on: Fingerprint) -> None:
        """Store the time of a driver call for this object."""
        now = self._clock.monotonic()
        if len(self._called) >= CALL_TIMES_KEPT:
            self._called = {k: at for k, at in self._called.items() if now - at < EARLY_RETRY_S}
        self._called[key, made_on.deleting] = now

    def _too_early_s(self, key: Key, made_on: Fingerprint) -> float:
        at = self._called.get((key, made_on.deleting))
        return 0.0 if at is None else max(0.0, at + EARLY_RETRY_S - self._clock.monotonic())

    def failed(self, key: Key, made_on: Fingerprint, reason: Reason) -> tuple[int, float]:
        """Count a failed call; return the attempts so far and the seconds until the next one."""
        memory = self._memory.get(key)
        if memory is None or memory.made_on != made_on:
            memory = self._memory[key] = _Memory(made_on)
        memory.attempts += 1
        memory.reason, memory.final = reason, False
        delay = self._backoff.pause_s(memory.attempts, self._rng.random())
        memory.until = self._clock.monotonic() + delay
        return memory.attempts, delay

    def hold(self, key: Key, made_on: Fingerprint, reason: Reason, seconds: float) -> None:
        """Forbid calls for this object for so many seconds, after a final verdict."""
        until = self._clock.monotonic() + seconds
        self._memory[key] = _Memory(made_on, 1, until, reason, final=True)

    def forget(self, key: Key) -> None:
        self._memory.pop(key, None)

    def forget_final(self, key: Key) -> None:
        """Forget a verdict without a recheck."""
        memory = self._memory.get(key)
        if memory and memory.final and math.isinf(memory.until):
            del self._memory[key]

    def forget_all(self) -> None:
        """End every backoff, because an unreachable driver may be its cause. Keep the holds."""
        self._memory = {key: memory for key, memory in self._memory.items() if memory.final}
        self._called.clear()


@dataclass(slots=True)
class DriverState:
    """The present state of the driver; written by `driver/presence`, read by every run."""

    name: str
    instance: str = ""
    up: bool = True
    note_silent: Callable[[], None] = field(default=lambda: None)

    def view(self) -> DriverView:
        return DriverView(self.name, self.instance, self.up)


@dataclass(frozen=True, slots=True)
class Refused:
    """A call without a usable reply, with its verdict by the policy."""

    status: DriverStatus
    verdict: Verdict
    reason: Reason
    effect: Effect


@dataclass(frozen=True, slots=True)
class Queued(Refused):
    """A call that was not made, because other calls run first. `outcome` ends the run.

    Code that handles only `Refused` treats this as a call that never reached the driver.
    """

    outcome: Requeue | Terminal


@dataclass(frozen=True, slots=True)
class Unwanted(Refused):
    """A call that was not made, because it was no longer needed when its turn came."""


@dataclass(slots=True)
class Stopwatch:
    """The time that one driver call took, without the time that it waited in its lane."""

    clock: Clock
    elapsed_s: float = 0.0


def log_change(event: str, call: Call, reply: object, watch: Stopwatch, **ids: str) -> None:
    """Log one change of the backend, as one line."""
    code = reply.status.code if isinstance(reply, Refused) else Code.OK
    call_ms = round(watch.elapsed_s * 1000)
    log.info(event, **ids, call=call.value, code=code.name, call_ms=call_ms)


async def judged[R](
    call: Awaitable[R], *, policy: Policy, driver: DriverState, watch: Stopwatch
) -> R | Refused:
    """Await one driver call, and measure it; return a failure as a value."""
    began = watch.clock.monotonic()
    try:
        return await call
    except DriverError as error:
        if isinstance(error, DriverSilent):
            driver.note_silent()
        judgement = classify(policy, error.status)
        return Refused(error.status, judgement.verdict, judgement.reason, judgement.effect)
    finally:
        watch.elapsed_s = watch.clock.monotonic() - began


@dataclass(frozen=True, slots=True)
class DriverRun:
    """The key and the inputs under which the driver calls of one run are counted.

    A run makes this from its view at each use, because the run may have read a newer copy of the
    object, and the next run looks for the attempt under the generation of that copy.

    `recheck_s`: how long a final verdict forbids the next call; None forbids it indefinitely.
    """

    attempts: Attempts
    key: Key
    made_on: Fingerprint
    recheck_s: float | None

    def pending(self) -> Pending:
        """The stored attempts of earlier runs with the same inputs."""
        return self.attempts.pending(self.key, self.made_on)

    def called(self) -> None:
        """Store the time of a driver call."""
        self.attempts.called(self.key, self.made_on)

    def failure(self, refused: Refused) -> CallFailed:
        """The fact for a failed driver call; counts the attempt for the backoff."""
        if isinstance(refused, Queued):  # the call was not sent, so it does not count
            return CallFailed(refused.outcome, refused.effect)
        reason, status = refused.reason, refused.status
        if refused.verdict is Verdict.REQUEUE:
            count, delay = self.attempts.failed(self.key, self.made_on, reason)
            again = Requeue(reason, "", after_s=delay, status=status, attempts=count)
            return CallFailed(again, refused.effect)
        verdict = Terminal(reason, "", recheck_s=self.recheck_s, status=status)
        return CallFailed(self.final(verdict), refused.effect)

    def final(self, outcome: Terminal) -> Terminal:
        """Store a final verdict: it ends the backoff, and forbids calls until its recheck, if any.

        The verdict on a deletion is also kept in memory, because a tenant may write the stored one.
        """
        if outcome.recheck_s is not None:
            self.attempts.hold(self.key, self.made_on, outcome.reason, outcome.recheck_s)
        elif self.made_on.deleting:
            self.attempts.hold(self.key, self.made_on, outcome.reason, math.inf)
        else:
            self.attempts.forget(self.key)
        return outcome

    def not_stored(self, outcome: Outcome) -> None:
        """Keep a final verdict in memory, because the status could not be written."""
        if isinstance(outcome, Terminal) and outcome.status and outcome.recheck_s is None:
            self.attempts.hold(self.key, self.made_on, outcome.reason, math.inf)

    def stored(self) -> None:
        """Forget a final verdict that the status contains, unless a tenant may remove it there."""
        if not self.made_on.deleting:
            self.attempts.forget_final(self.key)
