"""How a driver call can fail.

DriverError             has `status`: the call, the code, who made it, the driver's message
├── DriverRefused       the driver's verdict: it sent a status other than OK
├── DriverSilent        no verdict: no listener, a lost connection, or our deadline passed
└── DriverMalformed     the driver answered OK, but its reply can't be used

After DriverSilent and DriverMalformed the call may still have changed the backend.
"""

from cosi_operator.outcome import Call, Code, DriverStatus, MadeBy


class DriverError(Exception):
    """A driver call without a usable reply. The text of the error never contains credentials."""

    def __init__(self, status: DriverStatus) -> None:
        super().__init__(status)
        self.status = status

    @property
    def call(self) -> Call:
        return self.status.call

    def __str__(self) -> str:
        status = self.status
        return f"{status.call}: {status.code.name} by {status.made_by}: {status.message}"


class DriverRefused(DriverError):  # noqa: N818 - says what happened
    """The driver answered with a status; made by DRIVER."""

    def __init__(self, call: Call, code: Code, message: str) -> None:
        super().__init__(DriverStatus(call, code, MadeBy.DRIVER, message))


class DriverSilent(DriverError):  # noqa: N818 - says what happened
    """The driver gave no verdict, so the call must be retried.

    Args:
        made_by: DEADLINE (our deadline passed; the code is DEADLINE_EXCEEDED) or TRANSPORT (no
            listener, or a lost connection or stream; the code is UNAVAILABLE).
    """

    def __init__(self, call: Call, made_by: MadeBy, message: str) -> None:
        late = made_by is MadeBy.DEADLINE
        code = Code.DEADLINE_EXCEEDED if late else Code.UNAVAILABLE
        super().__init__(DriverStatus(call, code, made_by, message))


class DriverMalformed(DriverError):  # noqa: N818 - says what happened
    """The driver answered OK with a reply that is empty, too large or not protobuf; made by REPLY.

    The code is OK, because the driver sent it.
    """

    def __init__(self, call: Call, message: str) -> None:
        super().__init__(DriverStatus(call, Code.OK, MadeBy.REPLY, message))
