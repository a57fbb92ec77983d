"""A hostile driver's HTTP/2 frames cost one call, and neither memory nor the next call."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random, randrange

import anyio
import pytest
from tests.support.scripteddriver import Peer, frame, framed, scripted_driver

from cosi_operator.driver.channel import DriverChannel
from cosi_operator.driver.errors import DriverError
from cosi_operator.driver.v1alpha1 import Driver
from cosi_operator.outcome import Code, MadeBy
from cosi_operator.rpc import cosi_pb2

REPLY = framed(cosi_pb2.DriverCreateBucketResponse(bucket_id="id-1").SerializeToString())
TIMEOUT_S = 20.0
FLOODED_S = 3.0  # gRPC stops to read from a peer that floods it, so the deadline ends the call
FRAME_BYTES = 16384
SENT_BYTES = 64 * 2**20
MEMORY_LIMIT_BYTES = 8 * 2**20
DATA, HEADERS, RST_STREAM, SETTINGS, PING = 0x0, 0x1, 0x3, 0x4, 0x6
GOAWAY, WINDOW_UPDATE, CONTINUATION = 0x7, 0x8, 0x9

type Flood = Callable[[Peer, int], Awaitable[None]]


async def send(peer: Peer, once: bytes, repeated: bytes) -> None:
    """Send some bytes and then others again and again, until the other end hangs up."""
    batch = repeated * max(1, 2**20 // len(repeated))
    with anyio.move_on_after(TIMEOUT_S):
        try:
            await peer.send(once)
            for _ in range(SENT_BYTES // len(batch)):
                await peer.send(batch)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return
        await peer.stream.aclose()


async def long_continuations(peer: Peer, stream_id: int) -> None:
    # 0x00 0x01 x ...: a literal header field whose value never ends
    first = frame(HEADERS, stream_id, b"\x00\x01x\x7f\xff\xff\xff\x0f")
    await send(peer, first, frame(CONTINUATION, stream_id, b"a" * FRAME_BYTES))


async def empty_continuations(peer: Peer, stream_id: int) -> None:
    await send(peer, frame(HEADERS, stream_id), frame(CONTINUATION, stream_id))


async def one_byte_continuations(peer: Peer, stream_id: int) -> None:
    await send(peer, frame(HEADERS, stream_id), frame(CONTINUATION, stream_id, b"\x88"))


async def a_block_that_unpacks_to_much(peer: Peer, stream_id: int) -> None:
    """A header field of 4 KB, kept in the table, and then named by one byte, over and over."""
    kept = b"\x40\x01x" + b"\x7f\xc1\x1e" + b"a" * 4000
    block = kept + b"\xbe" * (FRAME_BYTES - len(kept))
    more = b"".join(frame(CONTINUATION, stream_id, b"\xbe" * FRAME_BYTES) for _ in range(20))
    end = frame(CONTINUATION, stream_id, b"\xbe", flags=0x4)
    await send(peer, frame(HEADERS, stream_id, block) + more + end, frame(PING, 0, bytes(8)))


async def pings_without_reading(peer: Peer, stream_id: int) -> None:
    await send(peer, b"", frame(PING, 0, bytes(8)))


async def settings_without_reading(peer: Peer, stream_id: int) -> None:
    await send(peer, b"", frame(SETTINGS, 0, b"\x00\x05\x00\x00\x40\x00"))


def start_of_peak() -> int:
    """Start to measure the peak of this process's resident memory; returns its size now."""
    Path("/proc/self/clear_refs").write_text("5")  # see proc(5)
    return peak_bytes()


def peak_bytes() -> int:
    """The peak since the measurement began, of Python and of the libraries below it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


@asynccontextmanager
async def flooding(path: Path, flood: Flood) -> AsyncIterator[None]:
    """A driver that floods at the first call, and answers the others."""
    flooded = False

    async def script(peer: Peer, stream_id: int) -> None:
        nonlocal flooded
        if flooded:
            peer.reply(stream_id, REPLY)
            return
        flooded = True
        await flood(peer, stream_id)

    async with scripted_driver(path, script):
        yield


@pytest.mark.attack("the driver floods its socket with HTTP/2 frames, CONTINUATION and others")
@pytest.mark.parametrize(
    "flood",
    [
        pytest.param(long_continuations, id="CONTINUATION frames of 16 KiB"),
        pytest.param(empty_continuations, id="empty CONTINUATION frames"),
        pytest.param(one_byte_continuations, id="CONTINUATION frames of one byte"),
        pytest.param(a_block_that_unpacks_to_much, id="a header block that unpacks to gigabytes"),
        pytest.param(pings_without_reading, id="PING frames, answers not read"),
        pytest.param(settings_without_reading, id="SETTINGS frames, answers not read"),
    ],
)
async def test_a_flood_of_frames_costs_the_call_and_not_the_process(
    tmp_path: Path, flood: Flood
) -> None:
    path = tmp_path / "cosi.sock"
    async with flooding(path, flood):
        driver = Driver(DriverChannel(f"unix://{path}"))
        before = start_of_peak()
        with pytest.raises(DriverError) as raised:
            await driver.create_bucket("b-1", {}, timeout_s=FLOODED_S)
        assert raised.value.status.made_by in (MadeBy.TRANSPORT, MadeBy.DEADLINE), "no verdict"
        assert peak_bytes() - before < MEMORY_LIMIT_BYTES
        created = await driver.create_bucket("b-1", {}, timeout_s=TIMEOUT_S)
        assert created.bucket_id == "id-1"


RANDOM_CALLS = 400
OK_BLOCK = b"\x88\x5f\x10application/grpc"  # HPACK: :status 200, content-type


class RandomDriver:
    """Answers each connection with some frames: sound ones, broken ones and plain noise.

    It sends no other grpc-status than 0 and some that are not a code.
    """

    def __init__(self, random: Random) -> None:
        self._random = random

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            writer.write(frame(SETTINGS, 0))
            await reader.read(4096)
            for _ in range(self._random.randrange(1, 9)):
                writer.write(self._piece(self._random.choice((1, 1, 1, 3))))
                await writer.drain()
            await anyio.sleep(self._random.choice((0, 0.02)))
        writer.close()

    def _piece(self, stream: int) -> bytes:
        random, noise = self._random, self._random.randbytes
        number = random.choice((0, 1, 2, 7, 11, 13, 14, 255, 2**31 - 1, 2**32 - 1)).to_bytes(4)
        status = b"\x00\x0bgrpc-status" + random.choice((b"\x010", b"\x02-1", b"\x01x", b"\x0299"))
        return random.choice(
            (
                noise(random.randrange(60)),
                frame(random.randrange(12), random.choice((0, stream)), noise(20), noise(1)[0]),
                frame(HEADERS, stream, OK_BLOCK, flags=4),
                frame(HEADERS, stream, OK_BLOCK + noise(20), flags=random.choice((0, 1, 4, 5))),
                frame(HEADERS, stream, OK_BLOCK + status, flags=5),
                frame(CONTINUATION, stream, noise(20), flags=random.choice((0, 4))),
                frame(DATA, stream, REPLY[: random.randrange(len(REPLY) + 1)]),
                frame(RST_STREAM, stream, number),
                frame(SETTINGS, 0, random.randrange(10).to_bytes(2) + number),
                frame(GOAWAY, 0, stream.to_bytes(4) + number + noise(9)),
                frame(WINDOW_UPDATE, random.choice((0, stream)), number),
            )
        )


@pytest.mark.attack("the driver answers with frames at random")
async def test_random_frames_neither_end_the_process_nor_pass_for_a_status(tmp_path: Path) -> None:
    seed = randrange(2**32)
    print("seed", seed)
    path = tmp_path / "cosi.sock"
    server = await asyncio.start_unix_server(RandomDriver(Random(seed)).serve, path)
    channel = DriverChannel(f"unix://{path}")
    async with server:
        for _ in range(RANDOM_CALLS):
            try:
                await Driver(channel).create_bucket("b-1", {}, timeout_s=0.5)
            except DriverError as error:
                status = error.status
                assert status.made_by is not MadeBy.DRIVER or status.code is Code.UNKNOWN, status
        channel.close()
        path.unlink()
    async with scripted_driver(path, answer):
        created = await Driver(channel).create_bucket("b-1", {}, timeout_s=TIMEOUT_S)
    assert created.bucket_id == "id-1"


async def answer(peer: Peer, stream_id: int) -> None:
    peer.reply(stream_id, REPLY)
