"""Serves `/healthz`, `/readyz`, `/startupz`, `/loglevel` and `/metrics`, if their address is set.

GET /startupz answers when the process is ready for the first time, at the latest after
`STARTUP_HOLD_S`, and never fails. A kubelet emits a Warning Event for each probe that fails, so a
startup probe with this path keeps the first seconds of an ordinary start free of them.

GET /loglevel returns the log level. PUT with `debug`, `info`, `warning` or `error` changes it while
the process runs. PUT is accepted only from this host, so a user needs the right to `kubectl
port-forward`, whose connections come from this host.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio
import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from cosi_operator.app.listener import listen
from cosi_operator.clock import Clock
from cosi_operator.logs import current_level, set_level
from cosi_operator.metrics import Metrics
from cosi_operator.settings import LogLevel, ProcessSettings

LOOPBACK = ("127.0.0.1", "::1")
LONGEST_LEVEL_BYTES = 16
EXPOSITION_SHARE = 0.05
EXPOSITION_BURST_S = 0.5
STARTUP_HOLD_S = 8.0
"""Below LIFETIME_S of a connection, and below the timeoutSeconds of the charts' startup probe."""
STARTUP_HELD_LIMIT = 4
"""How many requests for /startupz are held at the same time; one more is answered at once."""
STARTUP_POLL_S = 0.1
log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Health:
    """The process is ready when `waiting_for` is empty. Each entry names one missing part."""

    waiting_for: set[str] = field(default_factory=lambda: {"start"})
    was_ready: bool = False

    def waits(self, what: str) -> None:
        self.waiting_for.add(what)

    def has(self, what: str) -> None:
        self.waiting_for.discard(what)
        self.was_ready = self.was_ready or not self.waiting_for


class Startup:
    """Holds requests until the process is ready for the first time, or for `STARTUP_HOLD_S`."""

    def __init__(self, health: Health, clock: Clock) -> None:
        self._health = health
        self._clock = clock
        self._held = 0

    async def answer(self, _: web.Request) -> web.Response:
        if self._held < STARTUP_HELD_LIMIT:
            self._held += 1
            try:
                await self._wait()
            finally:
                self._held -= 1
        return web.Response(text="ok\n")

    async def _wait(self) -> None:
        until_s = self._clock.monotonic() + STARTUP_HOLD_S
        while not self._health.was_ready and self._clock.monotonic() < until_s:
            await self._clock.sleep(STARTUP_POLL_S)


async def _show_level(_: web.Request) -> web.Response:
    return web.Response(text=f"{current_level().value}\n")


async def _change_level(request: web.Request) -> web.Response:
    if request.remote not in LOOPBACK:
        return web.Response(status=403, text="only from this host: use kubectl port-forward\n")
    word = (await request.content.read(LONGEST_LEVEL_BYTES)).decode(errors="replace").strip()
    if word not in set(LogLevel):
        allowed = ", ".join(LogLevel)
        return web.Response(status=400, text=f"unknown level {word!r}; allowed: {allowed}\n")
    set_level(LogLevel(word))
    log.info("log_level_changed", to=word)
    return web.Response(text=f"{word}\n")


class Exposition:
    """The metrics as text, rendered for each request unless requests are too frequent.

    Any client that can connect to the port can send a thousand requests a second, and rendering
    blocks the event loop. So rendering may take at most `EXPOSITION_SHARE` of the time plus
    `EXPOSITION_BURST_S`. Above that, the previous text is returned again.
    """

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._metrics = metrics
        self._clock = clock
        self._text = b""
        self._taken_s = 0.0  # rendering time, reduced by EXPOSITION_SHARE of the elapsed time
        self._counted_at_s = clock.monotonic()

    def text(self) -> bytes:
        began_s = self._clock.monotonic()
        repaid_s = (began_s - self._counted_at_s) * EXPOSITION_SHARE
        self._taken_s = max(0.0, self._taken_s - repaid_s)
        self._counted_at_s = began_s
        if self._taken_s < EXPOSITION_BURST_S or not self._text:
            self._text = self._metrics.expose()
            self._taken_s += self._clock.monotonic() - began_s
        return self._text


@web.middleware
async def _one_request(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Close the connection after the first response, because an idle one counts for the limit."""
    try:
        response = await handler(request)
    except web.HTTPException as refusal:
        refusal.force_close()
        raise
    response.force_close()
    return response


async def serve_health(
    settings: ProcessSettings, health: Health, metrics: Metrics, clock: Clock
) -> None:
    """Serve until cancelled; probes and metrics may have separate addresses."""
    exposition = Exposition(metrics, clock)

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        if health.waiting_for:
            waiting = ", ".join(sorted(health.waiting_for))
            return web.Response(status=503, text=f"waiting for {waiting}\n")
        return web.Response(text="ok\n")

    async def expose(_: web.Request) -> web.Response:
        return web.Response(body=exposition.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    probes = [
        web.get("/healthz", healthz),
        web.get("/readyz", readyz),
        web.get("/startupz", Startup(health, clock).answer),
        web.get("/loglevel", _show_level),
        web.put("/loglevel", _change_level),
    ]
    routes = {
        settings.health_address: probes,
        settings.metrics_address: [*probes, web.get("/metrics", expose)],
    }
    runners: list[web.AppRunner] = []
    try:
        async with anyio.create_task_group() as tasks:
            for address, served in routes.items():
                if address is None:
                    continue
                app = web.Application(middlewares=[_one_request])
                app.add_routes(served)
                runner = web.AppRunner(app, access_log=None)
                runners.append(runner)
                await runner.setup()
                if runner.server is not None:  # always set after setup()
                    tasks.start_soon(listen, address, runner.server, clock)
            await anyio.sleep_forever()
    finally:
        with anyio.CancelScope(shield=True):
            for runner in runners:
                await runner.cleanup()
