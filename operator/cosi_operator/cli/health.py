"""`/healthz`, `/readyz` and `/metrics`, served only where an address is set.

`/loglevel` too: GET shows the level, PUT with `debug`, `info`, `warning` or `error` changes it
while the process runs. Only from this host, which `kubectl port-forward` is: so the right to that
is the right to this.
"""

from dataclasses import dataclass, field

import anyio
import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from cosi_operator.logs import current_level, set_level
from cosi_operator.metrics import Metrics
from cosi_operator.settings import LogLevel, ProcessSettings

LOOPBACK = ("127.0.0.1", "::1")
LONGEST_LEVEL_BYTES = 16
log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Health:
    """Ready when nothing is left in `waiting_for`; each entry says in words what is awaited."""

    waiting_for: set[str] = field(default_factory=lambda: {"start"})

    def waits(self, what: str) -> None:
        self.waiting_for.add(what)

    def has(self, what: str) -> None:
        self.waiting_for.discard(what)


async def _show_level(_: web.Request) -> web.Response:
    return web.Response(text=f"{current_level().value}\n")


async def _change_level(request: web.Request) -> web.Response:
    if request.remote not in LOOPBACK:
        return web.Response(status=403, text="only from this host: use kubectl port-forward\n")
    word = (await request.content.read(LONGEST_LEVEL_BYTES)).decode(errors="replace").strip()
    if word not in set(LogLevel):
        allowed = ", ".join(LogLevel)
        return web.Response(status=400, text=f"no level {word!r}; allowed: {allowed}\n")
    set_level(LogLevel(word))
    log.info("log_level_changed", to=word)
    return web.Response(text=f"{word}\n")


async def serve_health(settings: ProcessSettings, health: Health, metrics: Metrics) -> None:
    """Serve until cancelled. One address may be given for probes, another for metrics."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        if health.waiting_for:
            waiting = ", ".join(sorted(health.waiting_for))
            return web.Response(status=503, text=f"waiting for {waiting}\n")
        return web.Response(text="ok\n")

    async def exposition(_: web.Request) -> web.Response:
        return web.Response(body=metrics.expose(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    probes = [
        web.get("/healthz", healthz),
        web.get("/readyz", readyz),
        web.get("/loglevel", _show_level),
        web.put("/loglevel", _change_level),
    ]
    routes = {
        settings.health_address: probes,
        settings.metrics_address: [*probes, web.get("/metrics", exposition)],
    }
    runners: list[web.AppRunner] = []
    try:
        for address, served in routes.items():
            if address is None:
                continue
            host, _, port = address.rpartition(":")
            app = web.Application()
            app.add_routes(served)
            runner = web.AppRunner(app, access_log=None)
            runners.append(runner)
            await runner.setup()
            await web.TCPSite(runner, host.strip("[]") or None, int(port)).start()
        await anyio.sleep_forever()
    finally:
        with anyio.CancelScope(shield=True):
            for runner in runners:
                await runner.cleanup()
