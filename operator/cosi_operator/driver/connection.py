"""One connection to a driver's Unix socket, through grpc.aio.

The gRPC library reports its own statuses (driver killed, stream reset) in the same form as the
driver's statuses. They must be distinguished, because a status of the library is retried, and a
status of the driver is a verdict. A status counts as the driver's if

- its text is not one of the library's own texts (`local_status`), and
- for UNAVAILABLE, which the library also uses for a lost connection, the connection is still ready
  50 ms later and was ready without interruption.

One channel of the library is used for one connection, and is closed when the connection ends,
because the library would connect again, and would send a waiting call to the next listener. To
prevent that, the socket file is opened (O_PATH) and the library connects through that descriptor. A
driver that listens again has another file, which needs another `Connection`.

A call without an answer retires its connection, unless another call was answered meanwhile. The
reason: the library keeps a connection on which the driver sends an endless header block, or so many
frames that the library stops reading, and the next call must not wait on that connection.

The library does not get the deadline of a call, because its status at the deadline would look like
the driver's. The caller cancels the call, which resets the stream.
"""

import asyncio
import errno
import hashlib
import os
import socket
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Self

import anyio
import grpc
from google.protobuf.message import Message
from grpc import ChannelConnectivity, aio

from cosi_operator.driver.errors import DriverError, DriverMalformed, DriverRefused, DriverSilent
from cosi_operator.driver.local_status import NO_HTTP2, NOT_TAKEN, local_status
from cosi_operator.driver.methods import Method, Stubs
from cosi_operator.outcome import Call, Code, MadeBy

# If the driver was killed, its connection leaves the ready state within this time after an
# UNAVAILABLE. Without this wait, 2 of 507 local failures counted as the driver's; docs/adr/0013.
SETTLE_S = 0.05
# A driver's message may be a whole HTML page; the library's own limit is 8 KiB, and it rejects some
# headers before that. Larger ones end the call.
MAX_HEADER_BYTES = 2**20
LONGEST_MS = 2**31 - 1
# The caller's deadline ends an attempt to connect. The library gets this much more time and then
# closes the socket, because otherwise it keeps the socket of a silent listener even after `close`.
CONNECT_MARGIN_S = 1.0
_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),  # no connection is shared with another channel
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_metadata_size", MAX_HEADER_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_HEADER_BYTES),
    ("grpc.client_idle_timeout_ms", LONGEST_MS),
    # Compressed replies are neither requested nor decompressed; such a reply can't be parsed.
    ("grpc.compression_enabled_algorithms_bitset", 1),
    ("grpc.per_message_decompression", 0),
    ("grpc.default_authority", "localhost"),  # not our path, which some servers reject
    ("grpc.primary_user_agent", "cosi-operator"),
)


def _connect_limit_ms() -> int:
    """The library's time limit for connecting: the caller's remaining time and the margin."""
    left_s = anyio.current_effective_deadline() - anyio.current_time()
    return int(min((max(left_s, 0.0) + CONNECT_MARGIN_S) * 1000, LONGEST_MS))


class SocketIdentity(NamedTuple):
    """The identity of the socket file. It changes when the driver creates its socket again."""

    device: int
    inode: int
    changed_ns: int

    @classmethod
    def of(cls, found: os.stat_result) -> Self | None:
        """None if the file is not a socket."""
        if not stat.S_ISSOCK(found.st_mode):
            return None
        return cls(found.st_dev, found.st_ino, found.st_mtime_ns)

    def digest(self) -> str:
        """16 hex digits that name this socket, for annotations and logs."""
        return hashlib.sha256(repr(tuple(self)).encode()).hexdigest()[:16]


class Connection:
    """A connection of the gRPC library; create it with `open`.

    A separate task connects, watches the state and closes the connection. The task ends when the
    connection is lost and the last call has ended, when `close` is called, or with the event loop.
    """

    def __init__(self, path: Path, max_reply_bytes: int, on_lost: Callable[[], None]) -> None:
        self._descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        self.identity = SocketIdentity.of(os.fstat(self._descriptor))
        self._path = f"/proc/self/fd/{self._descriptor}"
        options = (
            *_OPTIONS,
            ("grpc.max_receive_message_length", max_reply_bytes),
            ("grpc.min_reconnect_backoff_ms", _connect_limit_ms()),
        )
        self._channel = aio.insecure_channel(f"unix:{self._path}", options=options)
        self._stubs = Stubs(self._channel)
        self._on_lost = on_lost
        self._calls = 0  # running
        self._answers = 0
        self._retired = False
        self._opened = anyio.Event()  # or failed
        self._lost = anyio.Event()  # not ready any more
        self._failure: OSError | None = None
        self._life = asyncio.create_task(self._live(), name="driver connection")

    @classmethod
    async def open(cls, path: Path, *, max_reply_bytes: int, on_lost: Callable[[], None]) -> Self:
        """Connect. The caller sets the deadline by cancelling.

        Args:
            max_reply_bytes: a longer reply is DriverMalformed.
            on_lost: called once, when an established connection is lost for any reason.
        Raises:
            OSError: the socket has no listener, or the listener does not use HTTP/2.
        """
        connection = cls(path, max_reply_bytes, on_lost)
        try:
            await connection._opened.wait()
        except BaseException:
            connection.close()
            raise
        if connection._failure is not None:
            raise connection._failure
        return connection

    @property
    def is_usable(self) -> bool:
        """Whether new calls may start on this connection."""
        return not self._retired and self._is_ready()

    def retire(self) -> None:
        """Start no more calls on this connection; close it when the running calls have ended."""
        self._retired = True
        if not self._calls:
            self.close()

    def close(self) -> None:
        """Close the connection soon; running calls end with DriverSilent."""
        self._retired = True
        self._life.cancel()

    async def ask[Request: Message, Reply: Message](
        self, method: Method[Request, Reply], request: Request, headers: Mapping[str, str]
    ) -> Reply:
        """Send one call. The caller sets the deadline by cancelling, which resets the stream.

        Raises:
            DriverRefused, DriverSilent, DriverMalformed: see `errors`.
        """
        if not self._is_ready():
            raise DriverSilent(method.call, MadeBy.TRANSPORT, NOT_TAKEN)
        call = method.on(self._stubs)(request, metadata=tuple(headers.items()))
        self._calls += 1
        answers_before, answered = self._answers, False
        try:
            # Do not `await call` first: if `close` ended the call, that raises CancelledError in a
            # task that was not cancelled.
            code = await call.code()
            if code is not grpc.StatusCode.OK:
                error = await self._error(method.call, code, await call.details() or "")
                answered = not isinstance(error, DriverSilent)
                raise error
            reply: Reply | None = await call
            answered = True
        finally:
            call.cancel()  # does nothing if the call has ended
            self._calls -= 1
            self._answers += answered
            self._retired |= self._answers == answers_before
            if self._retired and not self._calls:
                self.close()
        if reply is None:  # the library's value for a reply that is missing or can't be parsed
            raise DriverMalformed(method.call, "the reply is not the message it should be")
        return reply

    async def _error(self, call: Call, code: grpc.StatusCode, details: str) -> DriverError:
        """The error for a status other than OK."""
        local = local_status(details)
        if local is None and code is grpc.StatusCode.UNAVAILABLE and not await self._stays_ready():
            why = "the connection ended with the answer UNAVAILABLE, which may not be the driver's"
            return DriverSilent(call, MadeBy.TRANSPORT, why)
        if local is None:
            return DriverRefused(call, Code(code.value[0]), details)
        if local.made_by is MadeBy.REPLY:
            return DriverMalformed(call, local.words)
        return DriverSilent(call, MadeBy.TRANSPORT, local.words)

    async def _stays_ready(self) -> bool:
        with anyio.move_on_after(SETTLE_S):
            await self._lost.wait()
        return self._is_ready()

    def _is_ready(self) -> bool:
        """Whether the connection is ready and has been ready since it was established."""
        return not self._lost.is_set() and self._channel.get_state() is ChannelConnectivity.READY

    async def _live(self) -> None:
        """Connect, watch until the connection is lost, wait for the last call, close."""
        was_ready = False
        try:
            await self._connect()
            was_ready = True
            self._opened.set()  # the waiting task runs after this watch has started
            await self._channel.wait_for_state_change(ChannelConnectivity.READY)
            self._lost.set()
            self._retired = True
            if self._calls:
                await anyio.sleep_forever()  # the last call closes
        except OSError as error:
            self._failure = error
        finally:
            self._retired = True
            self._lost.set()
            self._opened.set()
            await self._channel.close()
            os.close(self._descriptor)
            if was_ready:
                self._on_lost()

    async def _connect(self) -> None:
        state = self._channel.get_state(try_to_connect=True)
        await self._channel.wait_for_state_change(state)
        while (state := self._channel.get_state()) is not ChannelConnectivity.READY:
            if state is not ChannelConnectivity.CONNECTING:
                raise self._refusal()
            await self._channel.wait_for_state_change(state)

    def _refusal(self) -> OSError:
        """Why the connection failed, without the library's text, which contains our path."""
        with socket.socket(socket.AF_UNIX) as tried:
            tried.setblocking(False)
            try:
                tried.connect(self._path)
            except OSError as error:
                return error
        return OSError(errno.EPROTO, NO_HTTP2)
