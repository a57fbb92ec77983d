"""Calls to the driver over its Unix socket, with a deadline and the origin of each status.

There is no reconnect backoff, because connecting to a Unix socket succeeds or fails at once. So
each call that finds no connection makes one, and the first call after a driver's restart reaches
the new driver. Callers have their own backoffs.

Whether a status is the driver's own is decided in `connection`.
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
"""Called after each attempt with what came of it, and the seconds it took."""


@dataclass(frozen=True, slots=True)
class IdentityCheck[Request: Message, Reply: Message]:
    """The first call on every new connection, and whether other calls may follow it.

    `refusal`: of its reply, why no other call may be made on this connection, "" if it may.
    `timeout_s`: seconds for the greeting, within the deadline of the call that needs it.
    """

    method: Method[Request, Reply]
    request: Request
    refusal: Callable[[Reply], str]
    timeout_s: float


class DriverChannel:
    """All calls go over one connection, which is replaced when the driver's socket is.

    Args:
        address: `unix:///path` or `unix:path`.
        max_reply_bytes: a longer reply is DriverMalformed.
        on_call: told of every attempt.
        headers: more of them for the next call, by name in lower case (gRPC's metadata).
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
        self._greeting: IdentityCheck[Any, Any] | None = None
        self._greeting_turn = anyio.Lock()
        self._greeted: Connection | None = None  # the connection whose greeting was accepted
        self._failed_greetings = 0

    def greet_with(self, greeting: IdentityCheck[Any, Any]) -> None:
        """Make `greeting` the first call on every connection, and ask on the present one too.

        A call whose connection fails the greeting is not sent and raises DriverSilent. The
        greeting's own method can always be called, because its reply tells who is there.
        """
        self._greeting = greeting
        self._greeted = None

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
        """Close the connection; calls under way end with DriverSilent."""
        if self._connection is not None:
            self._connection.close()

    async def call[Request: Message, Reply: Message](
        self, method: Method[Request, Reply], request: Request, *, timeout_s: float
    ) -> Reply:
        """Make one call, once.

        The deadline is ours alone: it is not sent along, because a driver that runs into it
        answers with a status that it made itself, which would race with ours and pass for a
        verdict. A driver notices that we gave up because the stream is reset.

        Args:
            timeout_s: seconds for this attempt, connecting included.
        Raises:
            DriverRefused: the driver sent a status.
            DriverSilent: no verdict.
            DriverMalformed: OK, but the reply is missing, too large or no protobuf.
        """
        with self._reported(method.call):
            return await self._call(method, request, timeout_s)

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

    async def _call[Request: Message, Reply: Message](
        self, method: Method[Request, Reply], request: Request, timeout_s: float
    ) -> Reply:
        greeting = self._greeting
        is_greeting = greeting is not None and method is greeting.method
        try:
            with anyio.fail_after(timeout_s):
                if greeting is None or is_greeting:
                    connection = await self._usable_connection()
                else:
                    connection = await self._greeted_connection(method.call, greeting)
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
        if greeting is not None and is_greeting:
            self._judge_greeting(connection, greeting.refusal(reply))
        return reply

    async def _greeted_connection(
        self, call: Call, greeting: IdentityCheck[Any, Any]
    ) -> Connection:
        """A connection on which `call` may be sent.

        Raises:
            DriverSilent: the greeting failed. Calls that waited for the same greeting fail with
                it, because each of them would otherwise wait for another one.
        """
        failures_before = self._failed_greetings
        async with self._greeting_turn:
            connection = await self._usable_connection()
            if connection is self._greeted:
                return connection
            why = "it failed for another call"
            if self._failed_greetings == failures_before:
                why = await self._greet(connection, greeting)
            if why:
                first = f"{greeting.method.call} comes first on a new connection"
                raise DriverSilent(call, MadeBy.TRANSPORT, f"not sent, because {first}: {why}")
            return connection

    async def _greet(self, connection: Connection, greeting: IdentityCheck[Any, Any]) -> str:
        """Call DriverGetInfo; return why no other call may follow, "" if it may."""
        method = greeting.method

        async def ask() -> Message:
            try:
                with anyio.fail_after(greeting.timeout_s):
                    return await connection.ask(method, greeting.request, self._more_headers())
            except TimeoutError as error:
                late = f"no answer within {greeting.timeout_s:g} s"
                raise DriverSilent(method.call, MadeBy.DEADLINE, late) from error

        try:
            with self._reported(method.call):
                reply = await ask()
            why = greeting.refusal(reply)
        except DriverError as error:
            why = f"{error.status.code.name}: {error.status.message}"
        self._judge_greeting(connection, why)
        return why

    def _judge_greeting(self, connection: Connection, why: str) -> None:
        if not why:
            self._greeted = connection
            return
        self._failed_greetings += 1
        self._greeted = None
        connection.retire()

    async def _usable_connection(self) -> Connection:
        async with self._connecting:
            found = self.socket_identity()
            current = self._connection
            if current is not None and current.is_usable:
                # No file: the driver may be stopping in good order, and still answers.
                if found in (None, current.identity):
                    return current
                current.retire()
            self._connection = await Connection.open(
                self.path, max_reply_bytes=self._max_reply_bytes, on_lost=self._on_lost
            )
            return self._connection
