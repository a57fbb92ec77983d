"""Calls to the driver over its Unix socket, with a deadline and the origin of each status.

Each call without a usable connection opens one, without a backoff, because connecting to a Unix
socket succeeds or fails immediately. So the first call after a restart of the driver reaches the
new driver. The callers have backoffs.

`connection` decides whether the driver sent a status.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from google.protobuf.message import Message

from cosi_operator.driver.connection import Connection, SocketIdentity
from cosi_operator.driver.errors import DriverError, DriverSilent
from cosi_operator.driver.methods import Method
from cosi_operator.outcome import Call, Code, MadeBy

MAX_REPLY_BYTES = 4 * 1024 * 1024  # gRPC's own default

type OnCall = Callable[[Call, Code, MadeBy, float], None]
"""Called after each attempt with its call, its code, who made the code, and its seconds."""


@dataclass(frozen=True, slots=True)
class IdentityCheck[Request: Message, Reply: Message]:
    """The first call on each new connection. Its reply decides whether other calls may follow.

    `refusal`: returns the reason why no other call may follow a reply; "" if other calls may.
    `timeout_s`: the time limit of the check, within the deadline of the call that needs it.
    """

    method: Method[Request, Reply]
    request: Request
    refusal: Callable[[Reply], str]
    timeout_s: float


class DriverChannel:
    """Sends all calls over one connection, and replaces it when the driver replaces its socket.

    Args:
        address: `unix:///path` or `unix:path`.
        max_reply_bytes: a longer reply is DriverMalformed.
        on_call: called after each attempt.
        headers: returns more headers for the next call, by lower-case name (gRPC's metadata).
    """

    def __init__(
        self,
        address: str,
        *,
        max_reply_bytes: int = MAX_REPLY_BYTES,
        on_call: OnCall = lambda *_: None,
        headers: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        scheme, _, path = address.partition(":")
        if scheme != "unix" or not path:
            raise ValueError(f"not the address of a Unix socket: {address!r}")
        self.path = Path(path.removeprefix("//"))
        self._max_reply_bytes = max_reply_bytes
        self._on_call = on_call
        self._more_headers = headers
        self._connecting = anyio.Lock()
        self._connection: Connection | None = None
        self._on_lost: Callable[[], None] = lambda: None
        self._check: IdentityCheck[Any, Any] | None = None
        self._check_turn = anyio.Lock()
        self._checked: Connection | None = None  # the connection whose check was accepted
        self._failed_checks = 0

    def check_identity_with(self, check: IdentityCheck[Any, Any]) -> None:
        """Make `check` the first call on each connection, including the present one.

        A call whose connection fails the check is not sent and raises DriverSilent. The method of
        the check itself can always be called, because its reply identifies the driver.
        """
        self._check = check
        self._checked = None

    def when_lost(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever a connection has ended, for any reason."""
        self._on_lost = callback

    def socket_identity(self) -> SocketIdentity | None:
        """The present socket file, or None if it does not exist or is not a socket."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return SocketIdentity.of(found)

    def foreign_owner(self) -> int | None:
        """The user who owns the socket, if that is neither root nor this process's own user."""
        try:
            owner = self.path.stat().st_uid
        except OSError:
            return None
        return None if owner in (0, os.geteuid()) else owner

    def close(self) -> None:
        """Close the connection; running calls end with DriverSilent."""
        if self._connection is not None:
            self._connection.close()

    async def call[Request: Message, Reply: Message](
        self, method: Method[Request, Reply], request: Request, *, timeout_s: float
    ) -> Reply:
        """Make one call, once.

        The deadline is not sent to the driver, because a driver that exceeds it would answer with
        its own status, which would race with our deadline and look like a verdict. At our deadline
        the stream is reset, so the driver notices that nothing waits for its answer.

        Args:
            timeout_s: the time limit of this attempt, including the connection.
        Raises:
            DriverRefused: the driver sent a status.
            DriverSilent: no verdict.
            DriverMalformed: OK, but the reply is missing, too large or not protobuf.
        """
        check = self._check
        is_check = check is not None and method is check.method
        with self._reported(method.call):
            try:
                with anyio.fail_after(timeout_s):
                    if check is None or is_check:
                        connection = await self._usable_connection()
                    else:
                        connection = await self._checked_connection(method.call, check)
                    reply = await connection.ask(method, request, self._more_headers())
            except TimeoutError as error:
                raise DriverSilent(
                    method.call, MadeBy.DEADLINE, f"no answer within {timeout_s:g} s"
                ) from error
            except OSError as error:
                raise DriverSilent(
                    method.call,
                    MadeBy.TRANSPORT,
                    f"can't connect to {self.path}: {error.strerror or error}",
                ) from error
            if check is not None and is_check:
                self._judge_identity(connection, check.refusal(reply))
            return reply

    @contextmanager
    def _reported(self, call: Call) -> Iterator[None]:
        """Report the end of an attempt to `on_call`; a cancelled attempt has none."""
        began_s = anyio.current_time()
        try:
            yield
        except DriverError as error:
            elapsed_s = anyio.current_time() - began_s
            self._on_call(call, error.status.code, error.status.made_by, elapsed_s)
            raise
        self._on_call(call, Code.OK, MadeBy.DRIVER, anyio.current_time() - began_s)

    async def _checked_connection(self, call: Call, check: IdentityCheck[Any, Any]) -> Connection:
        """A connection on which `call` may be sent.

        Raises:
            DriverSilent: the check failed. Calls that waited for the same check fail too,
                because otherwise each of them would wait for another check.
        """
        failures_before = self._failed_checks
        async with self._check_turn:
            connection = await self._usable_connection()
            if connection is self._checked:
                return connection
            why = "it failed for another call"
            if self._failed_checks == failures_before:
                why = await self._check_identity(connection, check)
            if why:
                first = f"{check.method.call} comes first on a new connection"
                raise DriverSilent(call, MadeBy.TRANSPORT, f"not sent, because {first}: {why}")
            return connection

    async def _check_identity(self, connection: Connection, check: IdentityCheck[Any, Any]) -> str:
        """Call DriverGetInfo; return why no other call may follow, "" if it may."""
        method = check.method

        async def ask() -> Message:
            try:
                with anyio.fail_after(check.timeout_s):
                    return await connection.ask(method, check.request, self._more_headers())
            except TimeoutError as error:
                late = f"no answer within {check.timeout_s:g} s"
                raise DriverSilent(method.call, MadeBy.DEADLINE, late) from error

        try:
            with self._reported(method.call):
                reply = await ask()
            why = check.refusal(reply)
        except DriverError as error:
            why = f"{error.status.code.name}: {error.status.message}"
        self._judge_identity(connection, why)
        return why

    def _judge_identity(self, connection: Connection, why: str) -> None:
        if not why:
            self._checked = connection
            return
        self._failed_checks += 1
        self._checked = None
        connection.retire()

    async def _usable_connection(self) -> Connection:
        async with self._connecting:
            found = self.socket_identity()
            current = self._connection
            if current is not None and current.is_usable:
                # Without a file the driver may be stopping gracefully, and still answers.
                if found in (None, current.identity):
                    return current
                current.retire()
            self._connection = await Connection.open(
                self.path, max_reply_bytes=self._max_reply_bytes, on_lost=self._on_lost
            )
            return self._connection
