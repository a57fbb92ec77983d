"""The sidecar's link to its driver: waits for the driver, and wakes objects when it returns."""

from collections.abc import Callable

import anyio
import structlog

from cosi_operator.app.process import Process, unless
from cosi_operator.driver.channel import DriverChannel
from cosi_operator.driver.presence import DriverIdentity, Presence
from cosi_operator.driver.v1alpha1 import Driver
from cosi_operator.plan import names
from cosi_operator.settings import SidecarSettings
from cosi_operator.sidecar.calls import DriverState

WAITS = "the driver"

log = structlog.get_logger(__name__)


class DriverRenamedError(Exception):
    """Another driver answers on the socket, but the Lease and all filters name the first driver.

    The text names both drivers.
    """


class DriverLink:
    """Connects the process to one driver. `state` is None until the driver's first answer."""

    def __init__(self, settings: SidecarSettings, parts: Process) -> None:
        self._parts = parts
        self._get_info_s = settings.timeouts.get_info_s
        parts.metrics.seed_calls()
        self.channel = DriverChannel(
            settings.driver_address,
            on_call=parts.called,
            headers=parts.tracing.headers if parts.tracing else dict,
        )
        self.driver = Driver(self.channel)
        self._presence = Presence(
            self.channel,
            clock=parts.clock,
            get_info_timeout_s=settings.timeouts.get_info_s,
            on_up=self._on_up,
            on_down=self._on_down,
        )
        self.state: DriverState | None = None
        self.on_return: Callable[[], None] = lambda: None
        self._appeared = anyio.Event()
        self._renamed = anyio.Event()
        self._renamed_to = ""

    async def run(self) -> None:
        """Watch whether the driver is up, until cancelled.

        Raises:
            DriverRenamedError: the process has to be restarted to serve the new name.
        """
        self._parts.health.waits(WAITS)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._presence.run)
            await self._renamed.wait()
            raise DriverRenamedError(self._renamed_to)

    async def first_answer(self) -> DriverState | None:
        """Wait for the driver's first answer; return None if `stop` is set first."""
        await unless(self._parts.stop, self._appeared.wait)
        return self.state

    def _on_up(self, identity: DriverIdentity) -> None:
        self._parts.health.has(WAITS)
        self._parts.metrics.driver(identity.name, up=True)
        state = self.state
        if state is None:
            self.state = DriverState(
                identity.name, identity.instance, note_silent=self._presence.note_silent
            )
            # From now on, the driver's name is checked on each new connection before any call.
            self.driver.serve_only(identity.name, timeout_s=self._get_info_s)
            self._appeared.set()
        elif names.same_driver(state.name, identity.name):
            state.instance, state.up = identity.instance, True
            self.on_return()
        else:
            log.error("driver_renamed", driver=state.name, renamed_to=identity.name)
            self._renamed_to = (
                f"driver {identity.name!r} answers on the socket of driver {state.name!r};"
                " only DriverGetInfo was called; restarting to serve the new driver"
            )
            self._renamed.set()

    def _on_down(self) -> None:
        self._parts.health.waits(WAITS)
        if self.state:
            self.state.up = False
            self._parts.metrics.driver(self.state.name, up=False)
