"""The parts that both processes share: client, leader election, health, signals, draining.

One task group owns every task. SIGTERM, SIGINT or SIGHUP sets `stop`. Then the workers finish their
current keys, the Events are sent and the Lease is released, all within the grace period. A second
signal sets `hurry`. Then the running reconciles are cancelled, the Lease is released, and the
process exits.
"""

import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import anyio
import structlog

from cosi_operator.api.view import Key
from cosi_operator.app.health import Health, serve_health
from cosi_operator.app.malloc_trim import trim_regularly
from cosi_operator.clock import Clock, RealClock
from cosi_operator.fairness import Groups, Shares, Sharing
from cosi_operator.flags import package_commit, package_version
from cosi_operator.kube.client import KubeClient
from cosi_operator.kube.events import EventRecorder
from cosi_operator.kube.lease import LeaderElection
from cosi_operator.kube.request import METHODS
from cosi_operator.kube.watches import Watches
from cosi_operator.log_sink import dropped_lines
from cosi_operator.logs import current_level
from cosi_operator.metrics import Metrics
from cosi_operator.outcome import Call, Code, MadeBy, Outcome
from cosi_operator.plan.names import (
    HOLDER_ANNOTATION,
    POLICY_ANNOTATION,
    VERSION_ANNOTATION,
    lease_name,
)
from cosi_operator.runtime import Runner
from cosi_operator.settings import LogLevel, ProcessSettings
from cosi_operator.workqueue import Pace, WorkQueue

if TYPE_CHECKING:
    from cosi_operator.tracing import Tracing

log = structlog.get_logger(__name__)

# Parts of the grace period that are reserved for the steps after the last run.
EVENT_DRAIN_S = 3.0
TRACE_DRAIN_S = 1.0
RELEASE_S = 2.0  # to release the Lease

# What /readyz says that the process waits for.
API_SERVER = "the API server"
LEASE = "the Lease"


@dataclass(frozen=True, slots=True)
class Process:
    """The shared parts of a process, from which its queues and runners are built."""

    settings: ProcessSettings
    component: str
    client: KubeClient
    events: EventRecorder
    clock: Clock
    rng: random.Random
    metrics: Metrics
    health: Health
    stop: anyio.Event
    hurry: anyio.Event
    tracing: "Tracing | None"

    def queue(
        self, name: str, groups_of: Callable[[Key], Groups], *, pace: Pace | None = None
    ) -> WorkQueue[Key]:
        """Create a queue whose keys share the workers by the groups that `groups_of` returns."""
        return WorkQueue(
            clock=self.clock,
            random=self.rng,
            backoff=self.settings.backoff,
            pace=pace,
            sharing=Sharing(groups_of, Shares.of(self.settings.workers)),
            on_taken=lambda seconds: self.metrics.waited(name, seconds),
        )

    def runner(self, work: "Work") -> Runner[Key]:
        settings, reconcile = self.settings, work.reconcile
        afterwards_s = EVENT_DRAIN_S + RELEASE_S
        if self.tracing is not None:
            reconcile = self.tracing.traced(work.name, reconcile)
            afterwards_s += TRACE_DRAIN_S
        return Runner(
            name=work.name,
            queue=work.queue,
            reconcile=reconcile,
            workers=settings.workers,
            run_timeout_s=work.run_timeout_s,
            drain_s=max(0.0, settings.stop_grace_s - afterwards_s),
            clock=self.clock,
            metrics=self.metrics,
            log=log,
        )

    def called(self, call: Call, code: Code, made_by: MadeBy, seconds: float) -> None:
        """Count and trace one attempt of a driver call."""
        self.metrics.called(call, code, made_by, seconds)
        if current_level() is LogLevel.DEBUG:
            ms = round(seconds * 1000)
            log.debug("driver_call", call=call, code=code.name, made_by=made_by, elapsed_ms=ms)
        if self.tracing is not None:
            self.tracing.called(call, code, made_by, seconds)

    def watches(self) -> Watches:
        return Watches(self.client, clock=self.clock, rng=self.rng)

    async def follow(self, watches: Watches, works: Sequence["Work"]) -> None:
        """Watch, start the workers when every store is complete, and drain on `stop`."""
        async with anyio.create_task_group() as watching:
            watching.start_soon(watches.run)
            self.health.waits(API_SERVER)
            await unless(self.stop, watches.until_synced)
            if not self.stop.is_set():
                self.health.has(API_SERVER)
                async with anyio.create_task_group() as working:
                    for work in works:
                        working.start_soon(self.runner(work).run, self.stop)
            watching.cancel_scope.cancel()

    async def lead(
        self, owner: str, work: Callable[[], Awaitable[None]], *, policy: str = ""
    ) -> None:
        """Run `work` while holding the Lease of `owner`; returns when it ends or on `stop`.

        The Lease shows the version and the retry `policy` to `cosi drivers`.

        Raises:
            LeaseLost: another process may lead now, so this process must exit.
        """
        if not self.settings.leader_elect:
            self.health.has("start")
            await unless(self.hurry, work)
            return
        name = lease_name(owner)
        election = LeaderElection(
            self.client,
            Key(self.settings.namespace, name),
            identity=self.settings.identity,
            clock=self.clock,
            rng=self.rng,
            durations=self.settings.lease,
        )
        election.notes = {
            HOLDER_ANNOTATION: self.settings.identity,
            VERSION_ANNOTATION: package_version(),
            **({POLICY_ANNOTATION: policy} if policy else {}),
        }
        # A standby is ready, because it can take over. A leader is ready when it has all objects.
        election.on_standby = lambda: self.health.has(LEASE)
        self.health.waits(LEASE)
        self.health.has("start")
        leading = False
        self.metrics.leads(name, leading=False)  # a standby exposes 0, so a sum of 0 is visible

        async def led() -> None:
            nonlocal leading
            leading = True
            self.health.waits(API_SERVER)
            self.health.has(LEASE)
            self.metrics.leads(name, leading=True)
            self.events.emit(  # the same reason and message as client-go
                election.lease(),
                type="Normal",
                reason="LeaderElection",
                message=f"{self.settings.identity} became leader",
            )
            await unless(self.hurry, work)

        async with anyio.create_task_group() as either:

            async def give_up() -> None:
                await self.stop.wait()
                if not leading:
                    either.cancel_scope.cancel()

            either.start_soon(give_up)
            await election.run(led)
            either.cancel_scope.cancel()


@dataclass(frozen=True, slots=True)
class Work:
    """One queue and the reconciler of its keys; a run is cancelled after `run_timeout_s`."""

    name: str
    queue: WorkQueue[Key]
    reconcile: Callable[[Key], Awaitable[Outcome]]
    run_timeout_s: float


async def unless(event: anyio.Event, work: Callable[[], Awaitable[None]]) -> None:
    """Run `work`, and cancel it as soon as `event` is set."""
    async with anyio.create_task_group() as either:

        async def cancel() -> None:
            await event.wait()
            either.cancel_scope.cancel()

        either.start_soon(cancel)
        await work()
        either.cancel_scope.cancel()


def _stop_signals() -> list[signal.Signals]:
    """The signals that stop the process, except those that the parent ignores (nohup, `&`)."""
    stopping = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    return [
        number
        for number in stopping
        if number is signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN
    ]


async def _stop_on_signal(stop: anyio.Event, hurry: anyio.Event) -> None:
    numbers = _stop_signals()
    try:
        # Receive signals until the end. Otherwise a second signal would kill the process before it
        # releases the Lease.
        with anyio.open_signal_receiver(*numbers) as signals:
            async for number in signals:
                name = signal.Signals(number).name
                if not stop.is_set():
                    log.info("stopping", signal=name)
                    stop.set()
                elif not hurry.is_set():
                    log.warning("stopping_now", signal=name)
                    hurry.set()
    finally:
        for number in numbers:  # the rest takes milliseconds and sets the exit code
            signal.signal(number, signal.SIG_IGN)


def _tracing(settings: ProcessSettings, component: str) -> "Tracing | None":
    if settings.trace_endpoint is None:
        return None
    from cosi_operator.tracing import Tracing  # imported only if it is used

    return Tracing(
        settings.trace_endpoint,
        service=component,
        version=package_version(),
        instance=settings.identity,
    )


@asynccontextmanager
async def process(
    settings: ProcessSettings, component: str, controllers: Sequence[str]
) -> AsyncIterator[Process]:
    """Start all parts except the leader election. On exit, drain and end all tasks.

    Args:
        settings: the settings of this process.
        component: the name of this process in Events and in the user agent.
        controllers: the names of its reconcile loops.
    """
    clock, rng = RealClock(), random.Random()  # noqa: S311 - jitter, not a secret
    metrics, health = Metrics(controllers=controllers), Health()
    metrics.built(component, version=package_version(), commit=package_commit())
    metrics.watch_dropped_lines(dropped_lines)
    stop, hurry = anyio.Event(), anyio.Event()
    tracing = _tracing(settings, component)
    agent = f"{component}/{package_version()}"
    async with (
        await KubeClient.connect(
            settings.kubeconfig,
            clock=clock,
            user_agent=agent,
            on_request=partial(_note_request, metrics, tracing),
        ) as client,
        anyio.create_task_group() as tasks,
    ):
        metrics.watch_missing_permissions(client.rights.missing)
        events = EventRecorder(client, component=component, instance=settings.identity, clock=clock)
        tasks.start_soon(events.run)
        tasks.start_soon(trim_regularly, clock)
        tasks.start_soon(_stop_on_signal, stop, hurry)
        tasks.start_soon(serve_health, settings, health, metrics, clock)
        yield Process(
            settings=settings,
            component=component,
            client=client,
            events=events,
            clock=clock,
            rng=rng,
            metrics=metrics,
            health=health,
            stop=stop,
            hurry=hurry,
            tracing=tracing,
        )
        await unless(hurry, partial(_drain, events, tracing))
        tasks.cancel_scope.cancel()


def _note_request(
    metrics: Metrics, tracing: "Tracing | None", verb: str, plural: str, status: int, seconds: float
) -> None:
    metrics.requested(METHODS[verb], status or None)
    if current_level() is LogLevel.DEBUG:
        ms = round(seconds * 1000)
        log.debug("request", verb=verb, resource=plural, status=status, elapsed_ms=ms)
    if tracing is not None:
        tracing.requested(verb, plural, status, seconds)


async def _drain(events: EventRecorder, tracing: "Tracing | None") -> None:
    await events.drain(EVENT_DRAIN_S)
    if tracing is not None:
        await tracing.close(TRACE_DRAIN_S)
