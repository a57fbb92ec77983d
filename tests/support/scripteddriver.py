"""A driver whose every HTTP/2 frame a test chooses; what no gRPC server library lets one do.

Example:
    async def reset(peer: Peer, stream_id: int) -> None:
        peer.reset(stream_id, ErrorCodes.INTERNAL_ERROR)

    async with scripted_driver(path, reset) as driver:
        ...  # each request is answered by `reset`
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from anyio.abc import SocketStream
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

GOAWAY = 0x7
OK_HEADERS = [(":status", "200"), ("content-type", "application/grpc")]

type Script = Callable[[Peer, int], Awaitable[None]]


def framed(message: bytes, *, flags: int = 0) -> bytes:
    """A gRPC message with its five bytes in front."""
    return bytes([flags]) + len(message).to_bytes(4) + message


def frame(kind: int, stream_id: int, payload: bytes = b"", flags: int = 0) -> bytes:
    """Any HTTP/2 frame, also one that h2 would refuse to send."""
    head = len(payload).to_bytes(3) + bytes([kind, flags]) + stream_id.to_bytes(4)
    return head + payload


@dataclass(slots=True)
class Peer:
    """One connection, seen from the driver."""

    stream: SocketStream
    http2: H2Connection
    headers: dict[int, dict[str, str]] = field(default_factory=dict)  # of each request
    bodies: dict[int, bytes] = field(default_factory=dict)
    resets: asyncio.Queue[int] = field(default_factory=asyncio.Queue)  # streams the caller left
    _sending: anyio.Lock = field(default_factory=anyio.Lock)

    async def send(self, data: bytes) -> None:
        """Send bytes of the test's own making, after what is being sent."""
        async with self._sending:
            await self.stream.send(data)

    async def flush(self, *, piece_bytes: int | None = None) -> None:
        """Send what is pending, if wanted in pieces of so many bytes."""
        pending = self.http2.data_to_send()
        size = piece_bytes or len(pending) or 1
        for start in range(0, len(pending), size):
            await self.send(pending[start : start + size])
            await anyio.lowlevel.checkpoint()

    def status(self, stream_id: int, code: object, message: str = "") -> None:
        """A lone header block, as servers send an immediate error ("trailers-only")."""
        trailers = [("grpc-status", str(code)), ("grpc-message", message)]
        self.http2.send_headers(stream_id, OK_HEADERS + trailers, end_stream=True)

    def reply(self, stream_id: int, body: bytes, *, code: object = 0) -> None:
        """Headers, body, trailers: a whole answer."""
        self.http2.send_headers(stream_id, OK_HEADERS)
        self.http2.send_data(stream_id, body)
        self.http2.send_headers(stream_id, [("grpc-status", str(code))], end_stream=True)

    def reset(self, stream_id: int, code: ErrorCodes) -> None:
        self.http2.reset_stream(stream_id, code)

    async def go_away(self, last_stream_id: int) -> None:
        """Announce the end; h2 would refuse to go on after its own, so these bytes are ours."""
        await self.flush()
        await self.send(frame(GOAWAY, 0, last_stream_id.to_bytes(4) + bytes(4)))


@dataclass(slots=True)
class ScriptedDriver:
    peers: list[Peer] = field(default_factory=list)


@asynccontextmanager
async def scripted_driver(
    path: Path, script: Script, *, settings: dict[SettingCodes, int] | None = None
) -> AsyncIterator[ScriptedDriver]:
    """Serve on the socket; each complete request runs the script in a task of its own."""
    driver = ScriptedDriver()
    listener = await anyio.create_unix_listener(path)

    async def converse(stream: SocketStream) -> None:
        http2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        http2.local_settings = Settings(client=False, initial_values=settings or {})
        peer = Peer(stream, http2)
        driver.peers.append(peer)
        http2.initiate_connection()
        async with stream, anyio.create_task_group() as scripts:
            await peer.flush()
            # The script hung up, or the other end did; h2 takes nothing after its GOAWAY.
            with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError, ProtocolError):
                async for data in stream:
                    for stream_id in _requests(peer, data):
                        scripts.start_soon(_play, script, peer, stream_id)
                    await peer.flush()

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, converse)
        try:
            yield driver
        finally:
            tasks.cancel_scope.cancel()


async def _play(script: Script, peer: Peer, stream_id: int) -> None:
    with suppress(anyio.BrokenResourceError):  # the other end hung up, as it may on bad frames
        await script(peer, stream_id)
        await peer.flush()


def _requests(peer: Peer, data: bytes) -> list[int]:
    """The streams whose request is now complete."""
    complete = []
    for event in peer.http2.receive_data(data):
        match event:
            case RequestReceived(stream_id=int(stream_id), headers=headers):
                peer.headers[stream_id] = {str(name): str(value) for name, value in headers}
                peer.bodies[stream_id] = b""
            case DataReceived(stream_id=int(stream_id)):
                peer.bodies[stream_id] += event.data or b""
                peer.http2.acknowledge_received_data(event.flow_controlled_length or 0, stream_id)
            case StreamEnded(stream_id=int(stream_id)):
                complete.append(stream_id)
            case StreamReset(stream_id=int(stream_id)):
                peer.resets.put_nowait(stream_id)
            case _:
                pass
    return complete
