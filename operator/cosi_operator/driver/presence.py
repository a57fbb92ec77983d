"""Detects whether the driver answers, which driver it is, and whether its process changed.

A loop with two states. Down: the socket file is looked at twice a second, and a new one is asked
for its name at once; one that does not answer is asked again after 1 s, doubling up to 5 s. Up: the
socket file is looked at once a second, and the driver is asked again when the file has changed, the
connection was lost, or a call brought no answer; at once, but not more than once a second, as some
close each connection after its answer. Between looks the channel asks each new connection itself
for the name, before any other call (`DriverChannel.greet_with`).

What is seen of the driver's process is its socket file, so the instance stays the same while only
the sidecar restarts, and changes when the driver listens anew.
"""

from collections.abc import Callable
from dataclasses import dataclass

import anyio
import structlog

from cosi_operator.clock import Clock
from cosi_operator.driver.channel import DriverChannel
from cosi_operator.driver.connection import SocketIdentity
from cosi_operator.driver.errors import DriverError, DriverRefused
from cosi_operator.driver.v1alpha1 import Driver
from cosi_operator.settings import Backoff

DOWN_LOOK_S = 0.5
UP_LOOK_S = 1.0
BACKOFF = Backoff(base_s=1.0, cap_s=5.0, jitter=0.0)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DriverIdentity:
    """`name` as the driver gives it (compare without regard to case); `instance` names its
    process as seen from outside: 16 hex digits, another one after a restart."""

    name: str
    instance: str


class Presence:
    """Watches one driver.

    Args:
        get_info_timeout_s: seconds for one DriverGetInfo.
        on_up: called with each new identity: first contact, restart, other name.
        on_down: called when a driver that was up can't be reached any more.
    """

    def __init__(
        self,
        channel: DriverChannel,
        *,
        clock: Clock,
        get_info_timeout_s: float,
        on_up: Callable[[DriverIdentity], None],
        on_down: Callable[[], None],
    ) -> None:
        self.current: DriverIdentity | None = None
        self._channel = channel
        self._driver = Driver(channel)
        self._clock = clock
        self._timeout_s = get_info_timeout_s
        self._on_up = on_up
        self._on_down = on_down
        self._doubted = False
        self._trusted_until = 0.0  # a doubt was cleared just now: the next one can wait
        self._waiting: anyio.CancelScope | None = None
        self._asked: SocketIdentity | None = None  # the socket that was asked last
        self._ask_again_at = 0.0  # while down, on the clock's monotonic time
        self._failures = 0
        self._told = ""  # what the log said last about being down
        channel.when_lost(self.note_silent)

    def note_silent(self) -> None:
        """After a call without an answer, check the driver at once if it was up."""
        self._doubted = True
        if self._waiting is not None and self._must_look_now():
            self._waiting.cancel()

    def _must_look_now(self) -> bool:
        is_up = self.current is not None
        return is_up and self._doubted and self._clock.monotonic() >= self._trusted_until

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await self._look()
            await self._wait(DOWN_LOOK_S if self.current is None else UP_LOOK_S)

    async def _wait(self, seconds: float) -> None:
        if self._must_look_now():
            return
        with anyio.CancelScope() as self._waiting:
            await self._clock.sleep(seconds)
        self._waiting = None

    async def _look(self) -> None:
        socket = self._channel.socket_identity()
        if socket is None:
            self._asked = None
            self._down("there is no socket")
        elif self._is_worth_asking(socket):
            await self._ask(socket)

    def _is_worth_asking(self, socket: SocketIdentity) -> bool:
        if socket != self._asked:
            self._failures = 0
            return True
        if self.current is not None:
            return self._doubted
        return self._clock.monotonic() >= self._ask_again_at

    async def _ask(self, socket: SocketIdentity) -> None:
        is_same = socket == self._asked
        self._asked = socket
        if self._doubted:
            self._trusted_until = self._clock.monotonic() + UP_LOOK_S
        self._doubted = False
        try:
            name = await self._driver.get_info(timeout_s=self._timeout_s)
        except DriverError as error:
            if isinstance(error, DriverRefused) and is_same and self.current is not None:
                return  # it answers, so it is there, and its name is known
            self._down(str(error))
            self._failures += 1
            self._ask_again_at = self._clock.monotonic() + BACKOFF.pause_s(self._failures)
            return
        self._failures = 0
        self._up(DriverIdentity(name, socket.digest()))

    def _up(self, identity: DriverIdentity) -> None:
        before, self.current = self.current, identity
        self._told = ""
        if identity == before:
            return
        log.info("driver_up", driver=identity.name, driver_instance=identity.instance)
        if (owner := self._channel.foreign_owner()) is not None:
            # Usual where driver and sidecar run as different users of one Pod; docs/security.md.
            log.warning("driver_socket_of_another_user", owner_uid=owner)
        self._on_up(identity)

    def _down(self, why: str) -> None:
        if why != self._told:
            log.warning("driver_down", why=why, socket=str(self._channel.path))
            self._told = why
        if self.current is not None:
            self.current = None
            self._on_down()
