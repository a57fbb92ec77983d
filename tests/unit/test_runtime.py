"""The runner: an outcome becomes one queue operation, one count and one line of log."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random
from typing import Any, NoReturn, cast

import anyio
import pytest
import structlog
from tests.support.clock import FakeClock

from cosi_operator import runtime
from cosi_operator.conditions import describe_failure
from cosi_operator.metrics import Metrics
from cosi_operator.outcome import (
    Call,
    Code,
    DriverStatus,
    MadeBy,
    Outcome,
    Reason,
    Requeue,
    Success,
    Terminal,
)
from cosi_operator.retry_counts import REPEATS_AT_ONCE
from cosi_operator.runtime import Runner, settle
from cosi_operator.settings import Backoff
from cosi_operator.workqueue import WorkQueue

REFUSED = DriverStatus(Call.CREATE_BUCKET, Code.INVALID_ARGUMENT, MadeBy.DRIVER)


class World:
    """A runner on a fake clock, with a reconcile that the test writes."""

    def __init__(self, reconcile: Callable[[str], Awaitable[Outcome]], *, workers: int = 2) -> None:
        self.clock = FakeClock()
        self.queue: WorkQueue[str] = WorkQueue(
            clock=self.clock, random=Random(0), backoff=Backoff(jitter=0)
        )
        self.metrics = Metrics(controllers=["bucket"])
        self.lines: list[MutableMapping[str, Any]] = []
        self.stop = anyio.Event()
        self.runner = Runner(
            name="bucket",
            queue=self.queue,
            reconcile=reconcile,
            workers=workers,
            run_timeout_s=120,
            drain_s=20,
            clock=self.clock,
            metrics=self.metrics,
            log=self._log(),
        )

    def _log(self) -> structlog.typing.FilteringBoundLogger:
        def keep(_: object, level: str, event: MutableMapping[str, Any]) -> NoReturn:
            self.lines.append({"level": level, **event})
            raise structlog.DropEvent

        return cast(
            "structlog.typing.FilteringBoundLogger",
            structlog.wrap_logger(
                None,
                processors=[structlog.contextvars.merge_contextvars, keep],
                wrapper_class=structlog.make_filtering_bound_logger("debug"),
            ),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(self.runner.run(self.stop))
        try:
            await self.clock.settle()
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def count(self, result: str) -> float:
        return self.sample("controller_runtime_reconcile_total", result=result)

    def sample(self, series: str, **labels: str) -> float:
        value = self.metrics.registry.get_sample_value(series, {"controller": "bucket", **labels})
        assert value is not None
        return value


def replies(*outcomes: Outcome) -> Callable[[str], Awaitable[Outcome]]:
    """A reconcile that gives these outcomes one after the other."""
    rest = list(outcomes)

    async def reconcile(key: str) -> Outcome:
        return rest.pop(0)

    return reconcile


@pytest.mark.parametrize(
    ("outcome", "next_in_s", "failures"),
    [
        pytest.param(Success(), None, 0, id="success ends the key's story"),
        pytest.param(Success(recheck_s=600), 600, 0, id="success can ask for a later look"),
        pytest.param(Requeue(Reason.CONFLICT, ""), 4, 3, id="requeue uses the key's own backoff"),
        pytest.param(
            Requeue(Reason.CONFLICT, "", after_s=7), 7, 2, id="requeue can name its own time"
        ),
        pytest.param(Terminal(Reason.INVALID_SPEC, ""), None, 0, id="terminal is not tried again"),
        pytest.param(
            Terminal(Reason.INVALID_SPEC, "", recheck_s=3600),
            3600,
            0,
            id="terminal forgets the failures, and can ask for a slow look",
        ),
    ],
)
def test_settle(outcome: Outcome, next_in_s: float | None, failures: int) -> None:
    clock = FakeClock()
    queue: WorkQueue[str] = WorkQueue(clock=clock, random=Random(0), backoff=Backoff(jitter=0))
    queue.add_rate_limited("a")
    queue.add_rate_limited("a")
    clock.advance(2)
    assert queue.get_nowait() == "a"
    assert settle(queue, "a", outcome) == next_in_s
    queue.done("a")
    assert queue.failures("a") == failures
    assert queue.statistics().delayed == (next_in_s is not None)
    if next_in_s is not None:
        clock.advance(next_in_s)
        assert queue.get_nowait() == "a"


def test_conflicts_in_a_row_are_repeated_at_once_and_then_more_and_more_slowly() -> None:
    """After etcd was restored, reads can be older than writes; 550 requests were sent in 4 s."""
    clock = FakeClock()
    queue: WorkQueue[str] = WorkQueue(clock=clock, random=Random(0), backoff=Backoff(jitter=0))
    conflict = Requeue(Reason.CONFLICT, "", after_s=0.0, quiet=True)

    def runs_in(seconds: float) -> int:
        runs, end = 0, clock.monotonic() + seconds
        while clock.monotonic() < end:
            if queue.get_nowait() is None:
                clock.advance(0.01)
                continue
            runs += 1
            settle(queue, "a", conflict)
            queue.done("a")
        return runs

    queue.add("a")
    assert REPEATS_AT_ONCE < runs_in(0.01) <= REPEATS_AT_ONCE + 1
    assert 4 <= runs_in(4) <= 8
    assert queue.failures("a") == 0
    clock.advance(2)
    assert queue.get_nowait() == "a"
    settle(queue, "a", Success())
    queue.done("a")
    queue.add("a")
    assert queue.get_nowait() == "a"
    assert settle(queue, "a", conflict) == 0


@pytest.mark.parametrize(
    ("outcome", "line", "result"),
    [
        pytest.param(
            Success(),
            {"level": "debug", "event": "reconcile_succeeded", "outcome": "success"},
            "success",
            id="success with nothing done is for debugging",
        ),
        pytest.param(
            Success(recheck_s=600),
            {
                "level": "debug",
                "event": "reconcile_succeeded",
                "outcome": "success",
                "next_in_s": 600,
            },
            "success",
            id="a recheck -> the line has its delay",
        ),
        pytest.param(
            Requeue(Reason.DRIVER_UNREACHABLE, "no socket"),
            {
                "level": "warning",
                "event": "reconcile_requeued",
                "outcome": "requeue",
                "reason": "DriverUnreachable",
                "message": "no socket",
                "attempt": 1,
                "next_in_s": 1,
            },
            "requeue",
            id="a requeue -> the line has the attempt and the delay of the next",
        ),
        pytest.param(
            Requeue(Reason.CONFLICT, "stale", after_s=0.5, quiet=True),
            {
                "level": "debug",
                "event": "reconcile_requeued",
                "outcome": "requeue",
                "reason": "Conflict",
                "message": "stale",
                "next_in_s": 0.5,
            },
            "requeue_after",
            id="the machinery's own business is for debugging",
        ),
        pytest.param(
            Terminal(Reason.DRIVER_INVALID_ARGUMENT, "bad name", status=REFUSED),
            {
                "level": "warning",
                "event": "reconcile_stopped",
                "outcome": "terminal",
                "reason": "DriverInvalidArgument",
                "message": f"{describe_failure(REFUSED)} bad name",
                "call": "DriverCreateBucket",
                "code": "INVALID_ARGUMENT",
                "made_by": "driver",
            },
            "terminal",
            id="a verdict -> the line has its origin",
        ),
        pytest.param(
            Terminal(Reason.WAITING_FOR_BUCKET, "not ready", waiting=True),
            {
                "level": "info",
                "event": "reconcile_stopped",
                "outcome": "waiting",
                "reason": "WaitingForBucket",
                "message": "not ready",
            },
            "success",
            id="waits for another object -> no warning, and counted as success",
        ),
        pytest.param(
            Terminal(Reason.WAITING_FOR_BUCKET, "not ready", waiting=True, recheck_s=5),
            {
                "level": "info",
                "event": "reconcile_stopped",
                "outcome": "waiting",
                "reason": "WaitingForBucket",
                "message": "not ready",
                "next_in_s": 5,
            },
            "requeue_after",
            id="waits and names a time -> counted as requeue_after",
        ),
    ],
)
async def test_each_run_is_one_line_and_one_count(
    outcome: Outcome, line: dict[str, Any], result: str
) -> None:
    world = World(replies(outcome))
    async with world.running():
        world.queue.add("a")
        await world.clock.settle()
    common = {"controller": "bucket", "key": "a", "run_id": 1, "elapsed_ms": 0}
    assert world.lines == [{**common, **line}]
    assert world.count(result) == 1
    assert world.sample("controller_runtime_reconcile_time_seconds_count") == 1


async def test_a_success_after_a_failure_or_a_wait_is_logged_at_info() -> None:
    world = World(replies(Success(), Success()), workers=1)
    world.queue.add_rate_limited("healed")
    async with world.running():
        world.queue.add("old")
        await world.clock.run(1)
    told = [(line["key"], line["level"]) for line in world.lines]
    assert told == [("old", "debug"), ("healed", "info")]


async def test_an_unchanged_final_outcome_is_logged_once() -> None:
    waits = Terminal(Reason.WAITING_FOR_BUCKET, "not ready", waiting=True)
    refused = Terminal(Reason.DRIVER_INVALID_ARGUMENT, "", status=REFUSED)
    # What is read from the status later has the words of the condition, and no driver's message.
    stored = replace(REFUSED, message="")
    stands = Terminal(Reason.DRIVER_INVALID_ARGUMENT, "DriverCreateBucket failed", status=stored)
    world = World(replies(waits, waits, refused, stands, Success(), waits), workers=1)
    async with world.running():
        for _ in range(6):
            world.queue.add("a")
            await world.clock.settle()
    assert [(line["outcome"], line["level"]) for line in world.lines] == [
        ("waiting", "info"),
        ("waiting", "debug"),
        ("terminal", "warning"),
        ("terminal", "debug"),
        ("success", "info"),
        ("waiting", "info"),
    ]


async def test_a_failure_is_logged_with_its_own_count_of_attempts() -> None:
    failed = Requeue(Reason.DRIVER_INTERNAL, "", after_s=8.0, status=REFUSED, attempts=4)
    world = World(replies(failed))
    async with world.running():
        world.queue.add("a")
        await world.clock.settle()
    (line,) = world.lines
    assert (line["attempt"], line["next_in_s"]) == (4, 8.0)
    assert line["message"] == describe_failure(REFUSED)


async def test_what_was_logged_is_forgotten_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "REMEMBERED_LINES", 2)
    waits = Terminal(Reason.WAITING_FOR_BUCKET, "not ready", waiting=True)
    world = World(replies(*[waits] * 4), workers=1)
    async with world.running():
        for key in ("a", "b", "c", "a"):
            world.queue.add(key)
            await world.clock.settle()
    assert [line["level"] for line in world.lines] == ["info"] * 4


async def test_the_log_context_of_the_process_stays() -> None:
    with structlog.contextvars.bound_contextvars(driver="d.example.org"):
        world = World(replies(Success(), Success()), workers=1)
        async with world.running():
            world.queue.add("a")
            world.queue.add("b")
            await world.clock.settle()
    assert [line["driver"] for line in world.lines] == ["d.example.org"] * 2


def _raise_secret() -> NoReturn:
    raise RuntimeError("accessSecretKey=hunter2")


async def test_an_unexpected_exception_is_counted_logged_without_its_text_and_retried() -> None:
    async def reconcile(key: str) -> Outcome:
        _raise_secret()

    world = World(reconcile)
    async with world.running():
        world.queue.add("a")
        await world.clock.run(3)
    assert world.count("error") == 3  # at 0, 1 and 3 s
    first = world.lines[0]
    assert (first["level"], first["event"]) == ("error", "reconcile_requeued")
    assert (first["error"], first["reason"]) == ("RuntimeError", "InternalError")
    assert first["at"][-1].endswith("_raise_secret")
    assert "hunter2" not in repr(world.lines)
    assert [line["next_in_s"] for line in world.lines] == [1, 2, 4]


async def test_a_group_of_exceptions_is_logged_with_the_types_of_its_members() -> None:
    async def reconcile(key: str) -> Outcome:
        raise ExceptionGroup("", [KeyError(), ExceptionGroup("", [ValueError(), KeyError()])])

    world = World(reconcile)
    async with world.running():
        world.queue.add("a")
        await world.clock.settle()
    assert world.lines[0]["error"] == "KeyError, ValueError"


async def test_a_run_without_end_is_cut_off_and_retried() -> None:
    began: list[float] = []

    async def reconcile(key: str) -> Outcome:
        began.append(world.clock.monotonic())
        await world.clock.sleep(10_000 if len(began) == 1 else 60)
        return Success()

    world = World(reconcile)
    async with world.running():
        await world.clock.run(50)  # the deadline counts from the run's own begin
        world.queue.add("a")
        await world.clock.run(300)
    assert [when - began[0] for when in began] == [0, 121]
    assert [line["event"] for line in world.lines] == ["reconcile_requeued", "reconcile_succeeded"]
    assert (world.lines[0]["error"], world.lines[0]["limit_s"]) == ("RunTimeout", 120)
    assert (world.count("error"), world.count("success")) == (1, 1)


async def test_workers_are_started_on_demand_each_with_a_separate_log_context() -> None:
    gate = asyncio.Event()

    async def reconcile(key: str) -> Outcome:
        assert structlog.contextvars.get_contextvars()["key"] == key
        if key.startswith("slow"):
            await gate.wait()
        return Success()

    before = len(asyncio.all_tasks())
    world = World(reconcile, workers=3)
    async with world.running():
        idle = len(asyncio.all_tasks())
        for key in ("a", "b", "c"):  # one after the other: one worker in work, and one idle
            world.queue.add(key)
            await world.clock.settle()
        assert len(asyncio.all_tasks()) == idle + 1
        for key in ("slow-1", "slow-2", "slow-3", "slow-4"):
            world.queue.add(key)
        await world.clock.settle()
        assert len(asyncio.all_tasks()) == idle + 2
        assert world.queue.statistics().processing == 3
        gate.set()
        await world.clock.settle()
        world.queue.add("d")
        await world.clock.settle()
    assert len(asyncio.all_tasks()) == before
    assert world.count("success") == len(world.lines) == 8
    assert len({line["run_id"] for line in world.lines}) == 8


async def test_never_more_runs_than_workers_and_never_two_of_one_key() -> None:
    running: list[str] = []
    most = 0

    async def reconcile(key: str) -> Outcome:
        nonlocal most
        assert key not in running
        running.append(key)
        most = max(most, len(running))
        world.queue.add(key) if len(world.lines) < 20 else None
        await world.clock.sleep(1)
        running.remove(key)
        return Success()

    world = World(reconcile, workers=3)
    async with world.running():
        for key in "abcdefgh":
            world.queue.add(key)
        await world.clock.run(60)
        assert world.queue.statistics().depth == 0
    assert most == 3
    assert world.count("error") == 0


class TestStopping:
    """Asked to stop, the runner begins nothing and lets the running ones finish, for a while."""

    async def test_running_reconciles_finish_and_no_other_begins(self) -> None:
        world, begun, ended = slow_world(takes_s=15)
        async with world.running() as task:
            for key in "abcd":
                world.queue.add(key)
            await world.clock.run(1)
            world.queue.add("a")
            world.stop.set()
            await world.clock.run(13)
            assert not task.done()
            await world.clock.run(1)
            await task
        assert (begun, ended) == (["a", "b"], ["a", "b"])

    async def test_who_does_not_finish_is_cancelled_and_named(self) -> None:
        world, begun, ended = slow_world(takes_s=100)
        async with world.running() as task:
            for key in "abcd":
                world.queue.add(key)
            await world.clock.settle()
            world.stop.set()
            await world.clock.run(20)
            await task
        assert (begun, ended) == (["a", "b"], [])
        assert world.lines == [
            {
                "level": "warning",
                "event": "drain_timed_out",
                "controller": "bucket",
                "keys": ["a", "b"],
                "drain_s": 20,
            }
        ]

    async def test_idle_workers_end_at_once(self) -> None:
        world, begun, _ = slow_world(takes_s=1)
        async with world.running() as task:
            world.queue.add_after("late", 5)
            world.stop.set()
            await world.clock.settle()
            assert task.done()
        assert begun == []

    async def test_a_cancelled_runner_hands_its_keys_back(self) -> None:
        world, _, ended = slow_world(takes_s=100)
        async with world.running() as task:
            world.queue.add("a")
            await world.clock.settle()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert ended == []
        seen = world.queue.statistics()
        assert (seen.depth, seen.processing) == (1, 0)


def slow_world(*, takes_s: float) -> tuple[World, list[str], list[str]]:
    begun: list[str] = []
    ended: list[str] = []

    async def reconcile(key: str) -> Outcome:
        begun.append(key)
        await world.clock.sleep(takes_s)
        ended.append(key)
        return Success()

    world = World(reconcile)
    return world, begun, ended
