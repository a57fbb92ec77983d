"""Detects whether the driver answers, which driver it is, and whether its process changed.

`Presence` has two states:

- Down: it checks the socket file twice a second, and calls DriverGetInfo on a new file immediately.
  A driver that does not answer is called again after 1 s, doubling up to 5 s.
- Up: it checks the socket file once a second. It calls DriverGetInfo again when the file changed,
  the connection was lost or a call got no answer: immediately, but at most once a second, because
  some drivers close each connection after an answer.

Between these checks, the channel calls DriverGetInfo on each new connection before any other call
(`DriverChannel.check_identity_with`).

The socket file represents the driver's process. So the instance stays the same while only the
sidecar restarts, and changes when the driver creates its socket again.
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
    """The driver's name and process.

    `name`: as the driver returns it; compare it without regard to case.
    `instance`: 16 hex digits made from the socket file, which differ after a restart.
    """

    name: str
    instance: str


class Presence:
    """Watches one driver.

    Args:
        get_info_timeout_s: the time limit of one DriverGetInfo.
        on_up: called with each new identity: after the first answer, a restart or a new name.
        on_down: called when a driver that was up can't be reached.
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
        self._unanswered = False  # a call got no answer since the last DriverGetInfo
        self._next_check_at = 0.0  # the earliest DriverGetInfo after an unanswered call
        self._waiting: anyio.CancelScope | None = None
        self._asked: SocketIdentity | None = None  # the socket that was asked last
        self._ask_again_at = 0.0  # while down, on the clock's monotonic time
        self._failures = 0
        self._logged = ""  # the last logged reason for being down
        channel.when_lost(self.note_silent)

    def note_silent(self) -> None:
        """After a call without an answer, check the driver at once if it was up."""
        self._unanswered = True
        if self._waiting is not None and self._must_look_now():
            self._waiting.cancel()

    def _must_look_now(self) -> bool:
        is_up = self.current is not None
        return is_up and self._unanswered and self._clock.monotonic() >= self._next_check_at

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
            return self._unanswered
        return self._clock.monotonic() >= self._ask_again_at

    async def _ask(self, socket: SocketIdentity) -> None:
        is_same = socket == self._asked
        self._asked = socket
        if self._unanswered:
            self._next_check_at = self._clock.monotonic() + UP_LOOK_S
        self._unanswered = False
        try:
            name = await self._driver.get_info(timeout_s=self._timeout_s)
        except DriverError as error:
            if isinstance(error, DriverRefused) and is_same and self.current is not None:
                return  # the driver answers, and its name is known
            self._down(str(error))
            self._failures += 1
            self._ask_again_at = self._clock.monotonic() + BACKOFF.pause_s(self._failures)
            return
        self._failures = 0
        self._up(DriverIdentity(name, socket.digest()))

    def _up(self, identity: DriverIdentity) -> None:
        before, self.current = self.current, identity
        self._logged = ""
        if identity == before:
            return
        log.info("driver_up", driver=identity.name, driver_instance=identity.instance)
        if (owner := self._channel.foreign_owner()) is not None:
            # Usual where driver and sidecar run as different users of one Pod; docs/security.md.
            log.warning("driver_socket_of_another_user", owner_uid=owner)
        self._on_up(identity)

    def _down(self, why: str) -> None:
        if why != self._logged:
            log.warning("driver_down", why=why, socket=str(self._channel.path))
            self._logged = why
        if self.current is not None:
            self.current = None
            self._on_down()
