"""Calls to the driver over its Unix socket, with a deadline and the origin of each status.

A status counts as the driver's only if its bytes came over the socket (`grpc-status` in the header
block that ended the stream); anything else counts as no answer. There is no reconnect backoff,
because connecting to a Unix socket succeeds or fails at once. So each call that finds no connection
makes one, and the first call after a driver's restart reaches the new driver. Callers have their
own backoffs.

Wire format: the gRPC project's "gRPC over HTTP2".
"""

import asyncio
import hashlib
import os
import stat
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

import anyio
from google.protobuf.message import DecodeError, Message

from cosi_operator.driver.errors import DriverError, DriverMalformed, DriverRefused, DriverSilent
from cosi_operator.driver.http2 import (
    PREFIX_BYTES,
    Answer,
    Connection,
    ConnectionLostError,
    ReplyTooLargeError,
    StreamResetError,
)
from cosi_operator.outcome import Call, Code, MadeBy

MAX_REPLY_BYTES = 4 * 1024 * 1024  # gRPC's own default

type OnCall = Callable[[Call, Code, MadeBy, float], None]
"""Called after each attempt with what came of it, and the seconds it took."""


@dataclass(frozen=True, slots=True)
class Method[Reply: Message]:
    """One call of the driver interface. `path`: /package.Service/Method."""

    call: Call
    path: str
    reply: type[Reply]


@dataclass(frozen=True, slots=True)
class IdentityCheck[Reply: Message]:
    """The first call on every new connection, and whether other calls may follow it.

    `refusal`: of its reply, why no other call may be made on this connection, "" if it may.
    `timeout_s`: seconds for the greeting, within the deadline of the call that needs it.
    """

    method: Method[Reply]
    request: Message
    refusal: Callable[[Reply], str]
    timeout_s: float


class SocketIdentity(NamedTuple):
    """The identity of the socket file; it changes when the driver listens again."""

    device: int
    inode: int
    changed_ns: int

    def digest(self) -> str:
        """16 hex digits that name this socket, for annotations and logs."""
        return hashlib.sha256(repr(tuple(self)).encode()).hexdigest()[:16]


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
        self._connected_to: SocketIdentity | None = None
        self._on_lost: Callable[[], None] = lambda: None
        self._greeting: IdentityCheck[Any] | None = None
        self._greeting_turn = anyio.Lock()
        self._greeted: Connection | None = None  # the connection whose greeting was accepted
        self._failed_greetings = 0

    def greet_with(self, greeting: IdentityCheck[Any]) -> None:
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
        if not stat.S_ISSOCK(found.st_mode):
            return None
        return SocketIdentity(found.st_dev, found.st_ino, found.st_mtime_ns)

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

    async def call[Reply: Message](
        self, method: Method[Reply], request: Message, *, timeout_s: float
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
        return await self._counted(method.call, self._call(method, request, timeout_s))

    async def _counted[Reply](self, call: Call, attempt: Awaitable[Reply]) -> Reply:
        """Report the end of an attempt to `on_call`; a cancelled attempt has none."""
        began_s = anyio.current_time()
        try:
            reply = await attempt
        except DriverError as error:
            elapsed_s = anyio.current_time() - began_s
            self._on_call(call, error.status.code, error.status.made_by, elapsed_s)
            raise
        self._on_call(call, Code.OK, MadeBy.DRIVER, anyio.current_time() - began_s)
        return reply

    async def _call[Reply: Message](
        self, method: Method[Reply], request: Message, timeout_s: float
    ) -> Reply:
        greeting = self._greeting
        is_greeting = greeting is not None and method == greeting.method
        try:
            with anyio.fail_after(timeout_s):
                if greeting is None or is_greeting:
                    connection = await self._usable_connection()
                else:
                    connection = await self._greeted_connection(method.call, greeting)
                reply = await self._ask(connection, method, request)
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

    async def _ask[Reply: Message](
        self, connection: Connection, method: Method[Reply], request: Message
    ) -> Reply:
        call = method.call
        try:
            answer = await connection.ask(
                [*_headers(method.path), *self._more_headers().items()],
                _framed(request.SerializeToString()),
                self._max_reply_bytes + PREFIX_BYTES,
            )
        except ReplyTooLargeError as error:
            raise DriverMalformed(
                call, f"the reply is larger than {self._max_reply_bytes} bytes"
            ) from error
        except (ConnectionLostError, StreamResetError) as error:
            raise DriverSilent(call, MadeBy.TRANSPORT, str(error)) from error
        _raise_for_status(call, answer)
        return _parsed(method, answer.body)

    async def _greeted_connection(self, call: Call, greeting: IdentityCheck[Any]) -> Connection:
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

    async def _greet(self, connection: Connection, greeting: IdentityCheck[Any]) -> str:
        """Call DriverGetInfo; return why no other call may follow, "" if it may."""
        method = greeting.method

        async def ask() -> Message:
            try:
                with anyio.fail_after(greeting.timeout_s):
                    return await self._ask(connection, method, greeting.request)
            except TimeoutError as error:
                late = f"no answer within {greeting.timeout_s:g} s"
                raise DriverSilent(method.call, MadeBy.DEADLINE, late) from error

        try:
            why = greeting.refusal(await self._counted(method.call, ask()))
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
                if found in (None, self._connected_to):
                    return current
                current.retire()
            _, connection = await asyncio.get_running_loop().create_unix_connection(
                lambda: Connection(self._on_lost), str(self.path)
            )
            self._connection, self._connected_to = connection, found
            return connection


def _headers(path: str) -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "cosi-operator"),
    ]


def _framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(PREFIX_BYTES - 1) + message


def _raise_for_status(call: Call, answer: Answer) -> None:
    sent = answer.trailers.get(b"grpc-status")
    if sent is None:
        raise DriverSilent(
            call,
            MadeBy.TRANSPORT,
            f"the answer (HTTP status {answer.http_status}) ended without a gRPC status",
        )
    code = _code(sent)
    if code is not Code.OK:
        message = unquote_to_bytes(answer.trailers.get(b"grpc-message", b""))
        raise DriverRefused(call, code, message.decode(errors="replace"))


def _code(sent: bytes) -> Code:
    """The code of a grpc-status; one that does not exist counts as UNKNOWN, as gRPC asks."""
    try:
        return Code(int(sent))
    except ValueError:
        return Code.UNKNOWN


def _parsed[Reply: Message](method: Method[Reply], body: bytes) -> Reply:
    length = int.from_bytes(body[1:PREFIX_BYTES])
    if len(body) < PREFIX_BYTES or len(body) != PREFIX_BYTES + length:
        raise DriverMalformed(method.call, "the reply is not one whole message")
    if body[0] != 0:
        raise DriverMalformed(method.call, "the reply is compressed, which was not asked for")
    try:
        return method.reply.FromString(body[PREFIX_BYTES:])
    except DecodeError:
        # Without the cause: what did not parse may hold credentials.
        raise DriverMalformed(method.call, "the reply is not the message it should be") from None
