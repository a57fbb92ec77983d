"""Runs any `reconcile(key)` on a work queue, with workers, time limits and draining.

This module does not depend on the kinds of objects. Only `settle` converts an outcome to a queue
operation. Only `Runner` handles unexpected exceptions, and counts and logs runs.
"""

import itertools
import traceback
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, assert_never

import anyio
import anyio.abc
import structlog

from cosi_operator.clock import Clock
from cosi_operator.conditions import describe_failure
from cosi_operator.kube.slots import NAMESPACE
from cosi_operator.metrics import Metrics, Result
from cosi_operator.outcome import Outcome, Reason, Requeue, Success, Terminal
from cosi_operator.workqueue import ShutDown, WorkQueue

# Frames of a traceback that are logged, the innermost last.
LOGGED_FRAMES = 5
# Maximum number of keys whose last logged line is remembered.
REMEMBERED_LINES = 8192


def settle[K: Hashable](queue: WorkQueue[K], key: K, outcome: Outcome) -> float | None:
    """Apply the outcome to the queue; return the seconds until the key's next run."""
    match outcome:
        case Requeue(after_s=delay):
            if delay is None:
                return queue.add_rate_limited(key)
            if delay == 0:
                return queue.add_again(key)
            queue.add_after(key, delay)
        case Success(recheck_s=delay) | Terminal(recheck_s=delay):
            queue.forget(key)  # the next failure starts with the shortest backoff
            if delay is not None:
                queue.add_after(key, delay)
        case _:
            assert_never(outcome)  # a fourth variant fails the type check here
    return delay


@dataclass(slots=True)
class _TimeLimit[K: Hashable]:
    """A running reconcile, whose `scope` is cancelled at `deadline` (monotonic seconds).

    As a context manager it is one of `runs`, and swallows the cancellation of its scope.
    """

    runs: "dict[K, _TimeLimit[K]]"
    key: K
    deadline: float
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    def __enter__(self) -> None:
        self.runs[self.key] = self
        self.scope.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        frames: TracebackType | None,
    ) -> bool:
        del self.runs[self.key]
        return self.scope.__exit__(kind, error, frames)


@dataclass(slots=True, kw_only=True)
class Runner[K: Hashable]:
    """A bounded number of workers on one queue.

    Args:
        name: the name of the reconcile loop in logs and metrics.
        reconcile: runs one key and returns its outcome; safe to cancel at every await.
        workers: the maximum number of runs at the same time.
        run_timeout_s: a run that takes longer is cancelled, counted as an error and requeued. Each
            wait within a run has its own, shorter deadline, so this limit is reached only after a
            defect.
        drain_s: the time for running reconciles to finish after `stop`.
        log: the logger, bound with the fields of the process.

    During a run, the log's context (structlog.contextvars) contains `controller`, `key` and
    `run_id`, so every line of the run has these fields.
    """

    name: str
    queue: WorkQueue[K]
    reconcile: Callable[[K], Awaitable[Outcome]]
    workers: int
    run_timeout_s: float
    drain_s: float
    clock: Clock
    metrics: Metrics
    log: structlog.typing.FilteringBoundLogger
    _runs: dict[K, _TimeLimit[K]] = field(default_factory=dict, init=False)
    _run_ids: Iterator[int] = field(default_factory=lambda: itertools.count(1), init=False)
    _stopping: bool = field(default=False, init=False)
    _started: int = field(default=0, init=False)  # workers
    _idle: int = field(default=0, init=False)  # workers that wait for a key
    _common: dict[str, Any] = field(default_factory=dict, init=False)  # of the log's context
    _logged: dict[K, int] = field(default_factory=dict, init=False)  # hash of the last line

    async def run(self, stop: anyio.Event) -> None:
        """Work until `stop` is set and the running reconciles have ended or timed out.

        After `stop`, no new run starts. Cancelling this cancels the running reconciles immediately.
        That loses no state, because all state is stored in the API server.
        """
        self.metrics.watch_queue(self.name, self.queue.statistics)
        self._common = structlog.contextvars.get_contextvars()
        async with anyio.create_task_group() as group:
            group.start_soon(self._expire_runs)
            group.start_soon(self._drain, stop, group.cancel_scope)
            async with anyio.create_task_group() as workers:
                self._start_worker(workers)
            group.cancel_scope.cancel()

    def _start_worker(self, workers: anyio.abc.TaskGroup) -> None:
        """Start another worker. A worker that takes a key while no worker is idle calls this.

        Workers start on demand, because an idle worker takes 6 KiB and most clusters need only a
        few.
        """
        self._started += 1
        self._idle += 1
        workers.start_soon(self._work, workers)

    async def _drain(self, stop: anyio.Event, everything: anyio.CancelScope) -> None:
        await stop.wait()
        self._stopping = True
        self.queue.shut_down()
        await self.clock.sleep(self.drain_s)
        self.log.warning(
            "drain_timed_out",
            controller=self.name,
            keys=sorted(str(key) for key in self._runs),
            drain_s=self.drain_s,
        )
        everything.cancel()

    async def _expire_runs(self) -> None:
        """Cancel the runs that exceed the time limit.

        All runs have the same limit, so a run that starts during a sleep expires after the sleep.
        """
        while True:
            now = self.clock.monotonic()
            next_deadline = now + self.run_timeout_s
            for run in self._runs.values():
                if run.deadline <= now:
                    run.scope.cancel()
                else:
                    next_deadline = min(next_deadline, run.deadline)
            await self.clock.sleep(next_deadline - now)

    async def _work(self, workers: anyio.abc.TaskGroup) -> None:
        while True:
            try:
                key = await self.queue.get()
            except ShutDown:
                return
            if self._stopping:
                self.queue.done(key)
                continue
            self._idle -= 1
            if not self._idle and self._started < self.workers:
                self._start_worker(workers)
            structlog.contextvars.clear_contextvars()
            structlog.contextvars.bind_contextvars(
                **self._common, controller=self.name, key=str(key), run_id=next(self._run_ids)
            )
            NAMESPACE.set(self.queue.namespace(key))  # for `FairSlots`
            await self.run_once(key)
            self._idle += 1

    async def run_once(self, key: K) -> Outcome:
        """Reconcile a key that was taken from the queue; settle, count and log its outcome.

        A worker calls this for each key. It raises nothing except cancellation, after which the key
        is due again.
        """
        began = self.clock.monotonic()
        settled = False
        try:
            outcome, error = await self._outcome(key, began)
            failures = self.queue.failures(key)
            next_in_s = settle(self.queue, key, outcome)
            settled = True
            elapsed_s = self.clock.monotonic() - began
            result = Result.ERROR if error else _result(outcome)
            self.metrics.reconciled(self.name, result, elapsed_s)
            fields: dict[str, Any] = {"elapsed_ms": round(elapsed_s * 1000), **error}
            if next_in_s is not None:
                fields["next_in_s"] = round(next_in_s, 3)
            self._log(key, outcome, fields, failures=failures)
            return outcome
        finally:
            if not settled:  # the run was cancelled, so the key needs another run
                self.queue.add(key)
            self.queue.done(key)

    async def _outcome(self, key: K, began: float) -> tuple[Outcome, dict[str, Any]]:
        """Run a key; return its outcome, and log fields about an unexpected error, else {}.

        Only the type and the place of an exception are logged, because its text may contain
        credentials.
        """
        try:
            with self.time_limit(key, began + self.run_timeout_s):
                return await self.reconcile(key), {}
        except Exception as error:  # noqa: BLE001 - the outermost caller of a run
            kind = _type_names(error)
            return (
                Requeue(Reason.INTERNAL_ERROR, f"unexpected {kind}; see the log"),
                {"error": kind, "at": _places(error)},
            )
        return (
            Requeue(Reason.INTERNAL_ERROR, f"not finished within {self.run_timeout_s:g} s"),
            {"error": "RunTimeout", "limit_s": self.run_timeout_s},
        )

    def time_limit(self, key: K, deadline: float) -> AbstractContextManager[None, bool]:
        """A context that cancels the run of `key` at `deadline` (monotonic seconds) and then ends.

        `tests/model` overrides this, because a cancel scope needs an event loop.
        """
        return _TimeLimit(self._runs, key, deadline)

    def _log(self, key: K, outcome: Outcome, fields: dict[str, Any], *, failures: int) -> None:
        """Log one line for each run. A final outcome that repeats is logged only at debug level."""
        match outcome:
            case Success():
                has_recovered = self._logged.pop(key, None) is not None or failures > 0
                write = self.log.info if has_recovered else self.log.debug
                write("reconcile_succeeded", outcome="success", **fields)
            case Requeue():
                fields = {"outcome": "requeue", **_failure_fields(outcome), **fields}
                if outcome.quiet:
                    self.log.debug("reconcile_requeued", **fields)
                    return
                self._is_news(key, outcome)
                write = self.log.error if "error" in fields else self.log.warning
                write("reconcile_requeued", attempt=outcome.attempts or failures + 1, **fields)
            case Terminal():
                write = self.log.info if outcome.waiting else self.log.warning
                if not self._is_news(key, outcome):
                    write = self.log.debug
                kind = "waiting" if outcome.waiting else "terminal"
                write("reconcile_stopped", outcome=kind, **_failure_fields(outcome), **fields)
            case _:
                assert_never(outcome)

    def _is_news(self, key: K, outcome: Requeue | Terminal) -> bool:
        """Whether the outcome differs from the one that was last logged for the key."""
        status = outcome.status
        # Compare the status and not the message, because the message of a stored verdict differs
        # from the message of the call.
        cause = (status.call, status.code, status.made_by) if status else outcome.message
        line = hash((type(outcome), outcome.reason, cause))
        if self._logged.get(key) == line:
            return False
        self._logged.pop(key, None)
        self._logged[key] = line
        if len(self._logged) > REMEMBERED_LINES:
            del self._logged[next(iter(self._logged))]
        return True


def _result(outcome: Outcome) -> Result:
    match outcome:
        case Success():
            return Result.SUCCESS
        case Requeue():
            return Result.REQUEUE if outcome.after_s is None else Result.REQUEUE_AFTER
        case Terminal():
            if not outcome.waiting:
                return Result.TERMINAL
            return Result.SUCCESS if outcome.recheck_s is None else Result.REQUEUE_AFTER
        case _:
            assert_never(outcome)


def _failure_fields(outcome: Requeue | Terminal) -> dict[str, Any]:
    """The log fields that describe an outcome that is not a Success."""
    fields: dict[str, Any] = {"reason": outcome.reason.value}
    message = outcome.message
    if (status := outcome.status) is not None:
        # The message of a stored verdict already starts with the call and its failure.
        is_stored = message.startswith(f"{status.call}")
        if not is_stored:
            message = f"{describe_failure(status)} {message}".strip()
        fields |= {"call": status.call.value, "code": status.code.name}
        fields["made_by"] = status.made_by.value
    if message:  # a wait that is not reported has none
        fields["message"] = message
    return fields


def leaves(error: BaseException) -> list[BaseException]:
    """Return the exceptions within nested groups; for a single exception, only that one."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in leaves(part)]
    return [error]


def _type_names(error: BaseException) -> str:
    return ", ".join(sorted({type(leaf).__name__ for leaf in leaves(error)}))


def _places(error: BaseException) -> list[str]:
    """The innermost frames of the first exception, as "file:line function", innermost last."""
    frames = traceback.extract_tb(leaves(error)[0].__traceback__)[-LOGGED_FRAMES:]
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
