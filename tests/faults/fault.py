"""What can be done to a request on its way to the API server."""

import asyncio
import enum
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus

from tests.faults.requests import Asked


class How(enum.Enum):
    """What happens to a request that a fault hits."""

    CRASH_BEFORE = "the sender is killed before the request takes effect"
    CRASH_AFTER = "the sender is killed after the request took effect, before the reply"
    LOSE_REPLY = "the request takes effect, then the connection is lost"
    DROP_REQUEST = "the connection is lost before the request takes effect"
    DELAY = "the request waits, then takes effect"
    CONFLICT = "409, nothing happened"
    TOO_MANY = "429 with Retry-After, nothing happened"
    BROKEN = "500, nothing happened"
    AWAY = "503, nothing happened"
    UNAUTHORIZED = "401, nothing happened"
    FORBIDDEN = "403, nothing happened"
    HALF_OPEN = "accepted and never answered, until lifted"
    CUT_MID_LINE = "a watch is cut in the middle of a line"
    GONE = "a watch sends an ERROR line with code 410"
    SILENT = "a watch says nothing more, until lifted"
    STALE = "a list is answered as it was the first time"


REFUSALS = {
    How.CONFLICT: (HTTPStatus.CONFLICT, "Conflict"),
    How.TOO_MANY: (HTTPStatus.TOO_MANY_REQUESTS, "TooManyRequests"),
    How.BROKEN: (HTTPStatus.INTERNAL_SERVER_ERROR, "InternalError"),
    How.AWAY: (HTTPStatus.SERVICE_UNAVAILABLE, "ServiceUnavailable"),
    How.UNAUTHORIZED: (HTTPStatus.UNAUTHORIZED, "Unauthorized"),
    How.FORBIDDEN: (HTTPStatus.FORBIDDEN, "Forbidden"),
}
OF_STREAMS = (How.CUT_MID_LINE, How.GONE, How.SILENT)


@dataclass(eq=False, slots=True)
class Fault:
    """One misbehaviour: of the requests that `wanted` picks it passes `skip`, then hits `times`.

    `strike` runs in the proxy's thread at the moment of a crash and has to kill the sender.
    `seconds` is how long DELAY waits, and what TOO_MANY's Retry-After asks for. `fired` is set at
    the first hit, `over` when it has done what it does: only then may a killed process be started
    again, or the successor would be struck.
    """

    how: How
    wanted: Callable[[Asked], bool]
    skip: int = 0
    times: float = 1
    seconds: float = 0.0
    strike: Callable[[], None] = lambda: None
    hits: int = 0
    fired: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    lifted: asyncio.Event = field(default_factory=asyncio.Event)

    def takes(self, asked: Asked) -> bool:
        """Whether it hits this request; counts."""
        if self.times <= 0 or not self.wanted(asked):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        self.hits += 1
        self.fired.set()
        return True
