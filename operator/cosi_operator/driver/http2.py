"""One HTTP/2 connection to a Unix socket, as far as unary gRPC needs it.

Why not grpc.aio: it reports a status that its own transport made up (driver killed, stream reset,
deadline) in the same shape as one that the driver sent; no field tells them apart, and for us they
are opposites: the first is always tried again, the second is the driver's verdict. Here a status
comes from the driver's header block or there is none. Framing, header compression and flow control
are the h2 library's.

Errors (all but ReplyTooLargeError: no verdict from the other end):
    ConnectionLostError    the connection broke or was closed before the answer was complete
    StreamResetError       the other end reset this stream; the connection lives
    ReplyTooLargeError     the reply is longer than allowed
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

import anyio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError

FRAME_HEADER_BYTES = 9
MAX_FRAME_BYTES = 16384  # what a peer may send as long as we do not announce more (RFC 9113, 4.2)
DATA = 0x00
GOAWAY = 0x07
# Frames that carry no bytes of a reply, since the last complete answer. An honest driver sends a
# handful for a call, and a ping now and then; each costs us 20 us and an acknowledgement in memory.
IDLE_FRAMES_LIMIT = 10_000
PREFIX_BYTES = 5  # of a gRPC message: one byte of flags, four of length
# Stream ids end at 2**31; a connection that comes near is replaced in time.
LAST_STREAM_ID = 2**31 - 2**20
NOT_TAKEN = "the driver is stopping and did not take the call"
CLOSED_BY_US = "the connection was closed on our side"


class ConnectionLostError(Exception):
    """The connection broke; the text says how."""


class StreamResetError(Exception):
    """The other end reset the stream; the text names the HTTP/2 error code."""


class ReplyTooLargeError(Exception):
    """The reply is larger than the caller takes."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer. The header block that ended it is what the other end really sent.

    `trailers`: of the last block, which is also the first in a "trailers-only" answer. `body` is
    hidden from repr, as it can hold credentials.
    """

    http_status: str
    trailers: dict[bytes, bytes]
    body: bytes = field(repr=False)


@dataclass(slots=True)
class _Stream:
    answered: asyncio.Future[Answer]
    max_body_bytes: int
    http_status: str = ""
    trailers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray, repr=False)

    def fail(self, error: Exception) -> None:
        if not self.answered.done():
            self.answered.set_exception(error)
            self.answered.exception()  # seen, should the caller have left meanwhile


class _Http2(H2Connection):
    # A driver's message may be a whole HTML page; h2 would end the connection over 64 KiB.
    DEFAULT_MAX_HEADER_LIST_SIZE = 2**20
    # h2 remembers how each of the last 65,536 streams ended, 100 bytes each: 6 MiB after so many
    # calls. It needs to know of those that a late frame may still be for.
    MAX_CLOSED_STREAMS = 2**13


class Connection(asyncio.Protocol):
    """An HTTP/2 client connection; make it with `loop.create_unix_connection`.

    Args:
        on_lost: called once, when the connection is gone for whatever reason.
    """

    def __init__(self, on_lost: Callable[[], None]) -> None:
        self._on_lost = on_lost
        config = H2Configuration(client_side=True, validate_inbound_headers=False)
        self._http2 = _Http2(config)
        self._streams: dict[int, _Stream] = {}
        self._transport: asyncio.Transport | None = None
        self._unread = bytearray()
        self._idle_frames = 0
        self._room = anyio.Event()  # the peer allowed more bytes or streams
        self._lost = ""  # why, once it is lost
        self._retired = False
        self._is_greeted = False  # the peer's SETTINGS have come, and with them its limits

    @property
    def is_usable(self) -> bool:
        """Whether new calls may start on this connection."""
        return not (self._lost or self._retired)

    def retire(self) -> None:
        """Start no more calls here; close once those under way have ended."""
        self._retired = True
        if not self._streams:
            self._close(CLOSED_BY_US)

    def close(self) -> None:
        """Close now; calls under way end with ConnectionLostError."""
        self._close(CLOSED_BY_US)

    async def ask(self, headers: list[tuple[str, str]], body: bytes, max_body_bytes: int) -> Answer:
        """Send one request and wait for the complete answer.

        The caller sets the deadline by cancelling; the stream is then reset, which tells the
        other end to stop.

        Raises:
            ConnectionLostError, StreamResetError, ReplyTooLargeError: see the module.
        """
        await self._wait_until(lambda: not self.is_usable or self._has_stream_left())
        if not self.is_usable:
            raise ConnectionLostError(self._lost or NOT_TAKEN)
        stream_id = self._http2.get_next_available_stream_id()
        if stream_id > LAST_STREAM_ID:
            self._retired = True
        answered = asyncio.get_running_loop().create_future()
        stream = self._streams[stream_id] = _Stream(answered, max_body_bytes)
        try:
            self._http2.send_headers(stream_id, headers)
            await self._send_body(stream_id, stream, body)
            return await stream.answered
        finally:
            self._forget(stream_id)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # No isinstance: uvloop's transports are none of asyncio's classes.
        transport = cast("asyncio.Transport", transport)
        self._transport = transport
        self._http2.initiate_connection()
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._unread += data
        try:
            for frame in self._frames():
                if frame[3] == GOAWAY:
                    self._go_away(int.from_bytes(frame[9:13]) & 0x7FFFFFFF)
                    continue
                for event in self._http2.receive_data(frame):
                    self._take(event)
        except ProtocolError as error:
            self._flush()  # tells the other end why
            self._close(f"the driver's socket does not speak HTTP/2: {error}")
            return
        self._flush()
        self._wake()  # there may be room now, or an answer
        if self._retired and not self._streams:
            self._close("the driver said that it closes the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        self._close(f"the connection broke: {exc}" if exc else "the driver closed the connection")
        self._on_lost()

    def _frames(self) -> Iterator[bytes]:
        """Remove complete frames from the received bytes.

        They are told apart here because h2 drops a connection's open streams at GOAWAY, while
        a driver that stops in good order sends it first and then answers what it has begun.
        """
        while len(self._unread) >= FRAME_HEADER_BYTES:
            length = int.from_bytes(self._unread[:3])
            if length > MAX_FRAME_BYTES:
                raise ProtocolError(f"a frame of {length} bytes")
            end = FRAME_HEADER_BYTES + length
            if len(self._unread) < end:
                return
            frame = bytes(self._unread[:end])
            del self._unread[:end]
            if frame[3] != DATA or not length:
                self._idle_frames += 1
            if self._idle_frames > IDLE_FRAMES_LIMIT:
                raise ProtocolError(f"{self._idle_frames} frames without an answer")
            yield frame

    def _go_away(self, last_stream_id: int) -> None:
        self._retired = True
        for stream_id, stream in self._streams.items():
            if stream_id > last_stream_id:
                stream.fail(ConnectionLostError(NOT_TAKEN))

    def _take(self, event: Event) -> None:
        match event:
            case RemoteSettingsChanged():
                self._is_greeted = True
                return
            case DataReceived():
                self._take_data(event)
                return
            case _:
                pass
        stream = self._streams.get(getattr(event, "stream_id", 0) or 0)
        if stream is None:
            return  # an answer that nobody waits for any more
        match event:
            case ResponseReceived(headers=headers) | TrailersReceived(headers=headers):
                stream.trailers = {bytes(name): bytes(value) for name, value in headers}
                if isinstance(event, ResponseReceived):
                    stream.http_status = stream.trailers.get(b":status", b"").decode(
                        errors="replace"
                    )
            case StreamEnded():
                self._idle_frames = 0
                if not stream.answered.done():
                    answer = Answer(stream.http_status, stream.trailers, bytes(stream.body))
                    stream.answered.set_result(answer)
            case StreamReset(error_code=code):
                name = code.name if isinstance(code, ErrorCodes) else str(code)
                stream.fail(StreamResetError(f"the driver reset the stream: {name}"))
            case _:
                pass  # pings, acknowledgements: h2 has answered them

    def _take_data(self, event: DataReceived) -> None:
        stream_id = event.stream_id or 0
        self._http2.acknowledge_received_data(event.flow_controlled_length or 0, stream_id)
        stream = self._streams.get(stream_id)
        if stream is None or stream.answered.done():
            return
        stream.body += event.data or b""
        if len(stream.body) > stream.max_body_bytes:
            stream.body.clear()
            stream.fail(ReplyTooLargeError())

    async def _send_body(self, stream_id: int, stream: _Stream, body: bytes) -> None:
        """Send the data as the peer's window allows; stop if the answer has already arrived."""
        rest = memoryview(body)
        while rest and not stream.answered.done():
            window = self._http2.local_flow_control_window(stream_id)
            size = min(window, self._http2.max_outbound_frame_size, len(rest))
            if size > 0:
                self._http2.send_data(stream_id, bytes(rest[:size]), end_stream=size == len(rest))
                rest = rest[size:]
                continue
            self._flush()
            await self._wait_until(
                lambda: (
                    stream.answered.done() or self._http2.local_flow_control_window(stream_id) > 0
                )
            )
        self._flush()

    def _has_stream_left(self) -> bool:
        limit = self._http2.remote_settings.max_concurrent_streams
        return self._is_greeted and self._http2.open_outbound_streams < limit

    async def _wait_until(self, holds: Callable[[], bool]) -> None:
        """Wait until the peer allows more, or until the connection ends."""
        while not holds():
            await self._room.wait()

    def _forget(self, stream_id: int) -> None:
        del self._streams[stream_id]
        if self._lost:
            return
        with contextlib.suppress(ProtocolError):  # it has ended already, the usual case
            self._http2.reset_stream(stream_id, ErrorCodes.CANCEL)
        self._flush()
        self._wake()
        if self._retired and not self._streams:
            self._close(CLOSED_BY_US)

    def _wake(self) -> None:
        self._room.set()
        self._room = anyio.Event()

    def _flush(self) -> None:
        pending = self._http2.data_to_send()
        if pending and self._transport is not None and not self._transport.is_closing():
            self._transport.write(pending)

    def _close(self, why: str) -> None:
        if self._lost:
            return
        self._lost = why
        for stream in self._streams.values():
            stream.fail(ConnectionLostError(why))
        self._room.set()
        if self._transport is not None:
            self._transport.close()
