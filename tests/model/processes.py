"""The controller and the sidecar as the composition roots build them, stepped by hand.

Queues, runners, reflectors, listeners, reconcilers and reporter are the real ones. In place of the
sockets there are `MemoryApi` and `FakeDriver`. `Running` takes keys from the queues in place of the
workers, steps `Runner.run_once` from point to point, and delivers each list and each watch line to
its reflector.

There is no event loop, because a test chooses every interleaving, and `tests/explore` saves and
restores whole worlds, which the suspended tasks of a loop would not survive. Not covered here are
therefore the number of workers, the time limit of a run and the drain (`tests/unit/test_runtime.py`
with the real event loop and a fake clock; `tests/unit/test_workqueue.py` for waiting workers), and
runs that wait for their turn in a lane (`tests/unit/sidecar/test_lanes.py`).
"""

import random
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import anyio
from msgspec.json import encode
from tests.model.backend import Backend, FakeDriver
from tests.model.memory import Json, MemoryApi
from tests.model.pause import Point, pause
from tests.support.clock import FakeClock

from cosi_operator.api.core import SECRETS
from cosi_operator.api.view import Key, Resource
from cosi_operator.app.controller import build as build_controller
from cosi_operator.app.health import Health
from cosi_operator.app.process import Process, Work
from cosi_operator.app.sidecar import build as build_sidecar
from cosi_operator.kube.client import KubeClient, ListPage
from cosi_operator.kube.errors import ApiSilent, ServerError
from cosi_operator.kube.events import EventRecorder, EventType, ObjectRef
from cosi_operator.kube.objects import Objects
from cosi_operator.kube.store import Store
from cosi_operator.kube.watch import Reflector
from cosi_operator.kube.watch_state import Page, Progress
from cosi_operator.kube.watches import Indexes, Listener, Watches
from cosi_operator.metrics import Metrics
from cosi_operator.outcome import Outcome
from cosi_operator.runtime import Runner
from cosi_operator.settings import ControllerSettings, SidecarSettings
from cosi_operator.sidecar.calls import Attempts, DriverState

DRIVER = "s3.example.com"
METRICS = Metrics()


@dataclass(frozen=True)
class Sent:
    """One request of a process."""

    process: str
    verb: str
    plural: str
    name: str

    @property
    def is_write(self) -> bool:
        return self.verb not in ("get", "list", "dry-run")


class MemoryClient(KubeClient):
    """The client of one process; each request stops before and after its effect."""

    def __init__(
        self,
        api: MemoryApi,
        process: str,
        sent: list[Sent],
        late: list[Callable[[], Json]] | None = None,
    ) -> None:
        self._api = api
        self._process = process
        self._sent = sent
        self._late = [] if late is None else late

    async def _send(
        self, verb: str, resource: Resource, key: Key, act: Callable[[], Json]
    ) -> bytes:
        what = f"{resource.plural} {key}"
        sent = Sent(self._process, verb, resource.plural, str(key))
        self._sent.append(sent)
        try:
            await pause(Point(self._process, verb, what, before=True))
        except (ApiSilent, ServerError, GeneratorExit):  # nobody waits; the request is on its way
            if sent.is_write:
                self._late.append(act)
            raise
        reply = encode(act())  # as bytes at once: what comes later must not show in it
        await pause(Point(self._process, verb, what, before=False))
        return reply

    async def get(self, resource: Resource, key: Key) -> bytes:
        return await self._send("get", resource, key, lambda: self._api.get(resource, key))

    async def list(  # type: ignore[override]  # one page is all
        self, resource: Resource, *, namespace: str = "", continue_token: str = ""
    ) -> ListPage:
        found: list[Json] = []

        def act() -> Json:
            found.extend(self._api.list(resource))
            return {}

        await self._send("list", resource, Key(namespace, ""), act)
        items = [body for body in found if body["metadata"].get("namespace", "") == namespace]
        return ListPage(tuple(encode(body) for body in items), str(self._api.version), "")

    async def create(
        self,
        resource: Resource,
        body: Mapping[str, Any],
        *,
        namespace: str = "",
        dry_run: bool = False,
    ) -> bytes:
        key = Key(namespace, body["metadata"]["name"])
        return await self._send(
            "dry-run" if dry_run else "create",
            resource,
            key,
            lambda: self._api.create(resource, dict(body), dry_run=dry_run),
        )

    async def update(
        self, resource: Resource, body: Mapping[str, Any], *, subresource: str = ""
    ) -> bytes:
        meta = body["metadata"]
        assert meta["resourceVersion"], "a blind overwrite"
        return await self._send(
            f"update{'/' if subresource else ''}{subresource}",
            resource,
            Key(meta.get("namespace", ""), meta["name"]),
            lambda: self._api.update(resource, dict(body), subresource=subresource),
        )

    async def delete(
        self, resource: Resource, key: Key, *, uid: str, resource_version: str | None = None
    ) -> bytes:
        assert uid, "might hit a successor"
        return await self._send(
            "delete",
            resource,
            key,
            lambda: self._api.delete(resource, key, uid=uid, resource_version=resource_version),
        )


@dataclass(frozen=True)
class EmittedEvent:
    """An Event as it was emitted."""

    about: ObjectRef
    type: str
    reason: str
    message: str
    fingerprint: str

    @property
    def series(self) -> tuple[str, ...]:
        """What is one Event on the server (per process), its count aside."""
        return (self.about.kind, self.about.uid, self.type, self.reason, self.fingerprint)


class MemoryEvents(EventRecorder):
    """Keeps what is emitted, and what of it is about an object that its process knows is gone."""

    def __init__(self, told: list[EmittedEvent], too_late: list[EmittedEvent]) -> None:
        self._told = told
        self._too_late = too_late
        self.kinds: Sequence[_Kind] = ()

    def emit(
        self,
        about: ObjectRef,
        *,
        type: EventType,  # noqa: A002 - the field's name in the API
        reason: str,
        message: str,
        fingerprint: str = "",
    ) -> None:
        told = EmittedEvent(about, type, reason, message, fingerprint or message)
        self._told.append(told)
        key = Key(about.namespace, about.name)
        held = [kind.store.get(key) for kind in self.kinds if kind.resource.kind == about.kind]
        if about.uid not in [cached.view.meta.uid for cached in held if cached]:
            self._too_late.append(told)

    async def deliver(
        self,
        about: ObjectRef,
        *,
        type: EventType,  # noqa: A002 - the field's name in the API
        reason: str,
        message: str,
    ) -> bool:
        self.emit(about, type=type, reason=reason, message=message)
        return True


@dataclass
class _Kind:
    """One watched kind: its reflector, and the lines that the watch has still to bring."""

    resource: Resource
    store: Store[Any]
    changed: Listener[Any]
    reflector: Reflector[Any]
    inbox: deque[tuple[str, Json]] = field(default_factory=deque)
    version: str = ""

    def relist(self, api: MemoryApi) -> None:
        self.inbox.clear()
        self.version = str(api.version)
        items = tuple(encode(body) for body in api.list(self.resource))
        found = self.reflector.take_page(ListPage(items, self.version, ""))
        assert isinstance(found, Page), found

    def deliver_one(self) -> None:
        kind, body = self.inbox.popleft()
        line = encode({"type": kind, "object": body})
        found = self.reflector.take_line(line, self.version)
        assert isinstance(found, Progress), found
        self.version = found.version


@dataclass(frozen=True, slots=True)
class _Unlimited:
    """Notes what the reconciler raised, and limits nothing."""

    unexpected: list[Exception]

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _kind: object, error: BaseException | None, _frames: object
    ) -> Literal[False]:
        if isinstance(error, Exception):
            self.unexpected.append(error)
        return False


@dataclass(slots=True, kw_only=True)
class SteppedRunner(Runner[Key]):
    """A runner without a time limit, because a cancel scope needs an event loop.

    unexpected: what a reconciler raised. The runner requeues the key after it, as in production,
        and the model reports it.
    """

    unexpected: list[Exception] = field(default_factory=list)

    @classmethod
    def of(cls, runner: Runner[Key]) -> "SteppedRunner":
        """The same runner, stepped by hand."""
        return cls(**{f.name: getattr(runner, f.name) for f in fields(runner) if f.init})

    def time_limit(self, key: Key, deadline: float) -> AbstractContextManager[None, bool]:
        return _Unlimited(self.unexpected)


@dataclass
class Run:
    """One reconcile run that waits at `point`."""

    runner: SteppedRunner
    key: Key
    coroutine: Coroutine[Any, Any, Outcome]
    point: Point | None = None


class Running:
    """One process: what it watches, its queues, and the runs that are under way."""

    def __init__(self, name: str, api: MemoryApi, process: Process) -> None:
        self.name = name
        self._api = api
        self._client = process.client
        self.kinds: list[_Kind] = []
        self.watches = _MemoryWatches(process, self.kinds)
        assert isinstance(process.events, MemoryEvents)
        process.events.kinds = self.kinds
        self.runners: list[SteppedRunner] = []
        self.runs: list[Run] = []
        self.outcomes: list[tuple[str, Key, Outcome]] = []
        self.returned: Callable[[], None] = lambda: None
        self.state = DriverState("")
        self.attempts: Attempts | None = None

    def begin(self, process: Process, works: Sequence[Work]) -> None:
        """The first complete lists are there: work may begin."""
        self.runners = [SteppedRunner.of(process.runner(work)) for work in works]
        for kind in self.kinds:
            kind.relist(self._api)
        self._api.listeners.append(self._hear)

    def end(self) -> None:
        """Killed: memory is gone, what was under way ends where it stands."""
        self._api.listeners.remove(self._hear)
        for run in self.runs:
            run.coroutine.close()
        self.runs.clear()

    def _hear(self, resource: Resource, kind: str, body: Json) -> None:
        for watched in self.kinds:
            if watched.resource is resource:
                watched.inbox.append((kind, body))

    def deliver(self) -> bool:
        """Bring all that the watches still hold; whether there was anything."""
        waiting = [kind for kind in self.kinds if kind.inbox]
        for kind in waiting:
            while kind.inbox:
                kind.deliver_one()
        return bool(waiting)

    def take(self) -> Run | None:
        """Begin the next run whose key is due; it has not done anything yet."""
        for runner in self.runners:
            if (key := runner.queue.get_nowait()) is not None:
                run = Run(runner, key, runner.run_once(key))
                self.runs.append(run)
                return run
        return None

    def step(self, run: Run, fault: Exception | None = None) -> bool:
        """Go on to the next point; False when the run has ended. `fault` is raised in it."""
        try:
            run.point = run.coroutine.throw(fault) if fault else run.coroutine.send(None)
        except StopIteration as end:
            self.runs.remove(run)
            outcome: Outcome = end.value
            self.outcomes.append((run.runner.name, run.key, outcome))
            if run.runner.unexpected:
                raise run.runner.unexpected.pop() from None
            return False
        assert isinstance(run.point, Point), f"it waits for something else: {run.point!r}"
        return True

    def is_delayed(self) -> bool:
        return any(runner.queue.statistics().delayed for runner in self.runners)


class _MemoryWatches(Watches):
    """The real reflectors, whose lists and lines are delivered by hand."""

    def __init__(self, process: Process, kinds: list[_Kind]) -> None:
        super().__init__(process.client, clock=process.clock, rng=process.rng)
        self._kinds = kinds

    def add[T](
        self,
        resource: Resource,
        decode: Callable[[bytes], T],
        changed: Listener[T],
        indexes: Indexes[T] | None = None,
    ) -> Objects[T]:
        objects = super().add(resource, decode, changed, indexes)
        self._kinds.append(_Kind(resource, objects.store, changed, self.reflectors[-1]))
        return objects


@dataclass
class Parts:
    """What processes are started with; it outlives them.

    `late`: writes that failed, or whose process was killed, before they took effect. Such a request
    may still reach the API server.
    """

    api: MemoryApi
    backend: Backend
    clock: FakeClock
    rng: random.Random
    sent: list[Sent] = field(default_factory=list)
    told: list[EmittedEvent] = field(default_factory=list)
    told_too_late: list[EmittedEvent] = field(default_factory=list)
    late: list[Callable[[], Json]] = field(default_factory=list)
    recheck_s: float | None = None
    deletion_recheck_s: float | None = 600.0
    overrides: tuple[str, ...] = ()


def start_controller(parts: Parts) -> Running:
    settings = ControllerSettings(kubeconfig=None, namespace="cosi", identity="c")
    process = _process(parts, "controller", settings)
    running = Running("controller", parts.api, process)
    running.begin(process, build_controller(process, running.watches))
    return running


def start_sidecar(parts: Parts, *, instance: str = "d-1", up: bool = True) -> Running:
    settings = SidecarSettings(
        kubeconfig=None,
        namespace="cosi",
        identity="s",
        terminal_recheck_s=parts.recheck_s,
        deletion_recheck_s=parts.deletion_recheck_s,
        retry_overrides=parts.overrides,
        workers=1,  # no run may wait for its turn, for there is no event loop: it ends instead
    )
    process = _process(parts, "sidecar", settings)
    running = Running("sidecar", parts.api, process)
    running.state = DriverState(DRIVER, instance, up)
    driver: Any = FakeDriver(parts.backend, "sidecar")
    built = build_sidecar(settings, process, running.watches, driver, running.state)
    running.attempts = built.attempts
    running.returned = built.on_return
    running.begin(process, built.works)
    return running


def _process(parts: Parts, name: str, settings: ControllerSettings | SidecarSettings) -> Process:
    return Process(
        settings=settings,
        component=name,
        client=MemoryClient(parts.api, name, parts.sent, parts.late),
        events=MemoryEvents(parts.told, parts.told_too_late),
        clock=parts.clock,
        rng=parts.rng,
        metrics=METRICS,
        health=Health(),
        stop=anyio.Event(),
        hurry=anyio.Event(),
        tracing=None,
    )


assert SECRETS  # the Secrets are reached by requests alone, never watched
