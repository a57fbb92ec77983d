"""What the channel makes of each thing that can come over the wire, frame by frame."""

import gzip
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from tests.support.scripteddriver import OK_HEADERS, Peer, Script, frame, framed, scripted_driver

from cosi_operator.driver.channel import DriverChannel
from cosi_operator.driver.errors import DriverError, DriverMalformed, DriverRefused, DriverSilent
from cosi_operator.driver.v1alpha1 import Driver
from cosi_operator.outcome import Call, Code, DriverStatus, MadeBy
from cosi_operator.rpc import cosi_pb2

CREATE = Call.CREATE_BUCKET
REPLY = cosi_pb2.DriverCreateBucketResponse(bucket_id="id-1").SerializeToString()
TIMEOUT_S = 20.0
DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 7, 8, 9


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    return tmp_path / "cosi.sock"


async def _status(channel: DriverChannel) -> DriverStatus:
    with pytest.raises(DriverError) as raised:
        await Driver(channel).create_bucket("b-1", {}, timeout_s=TIMEOUT_S)
    return raised.value.status


async def trailers_only(peer: Peer, stream_id: int) -> None:
    peer.status(stream_id, 14, "the backend is away")


async def headers_then_trailers(peer: Peer, stream_id: int) -> None:
    peer.http2.send_headers(stream_id, OK_HEADERS)
    await peer.flush()
    trailers = [("grpc-status", "14"), ("grpc-message", "the backend is away")]
    peer.http2.send_headers(stream_id, trailers, end_stream=True)


async def status_then_reset(peer: Peer, stream_id: int) -> None:
    peer.status(stream_id, 14, "the backend is away")
    await peer.flush()
    await peer.send(frame(RST_STREAM, stream_id, bytes(4)))  # h2 would not: the stream has ended


async def byte_by_byte(peer: Peer, stream_id: int) -> None:
    peer.status(stream_id, 14, "the backend is away")
    await peer.flush(piece_bytes=1)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(trailers_only, id="a lone header block, as Go sends it"),
        pytest.param(headers_then_trailers, id="headers first, then trailers"),
        pytest.param(status_then_reset, id="the status, then a reset of the stream"),
        pytest.param(byte_by_byte, id="the status in pieces of one byte"),
    ],
)
async def test_a_status_that_came_over_the_wire_is_the_drivers(
    socket_path: Path, script: Callable[[Peer, int], Awaitable[None]]
) -> None:
    async with scripted_driver(socket_path, script):
        status = await _status(DriverChannel(f"unix://{socket_path}"))
    assert status == DriverStatus(CREATE, Code.UNAVAILABLE, MadeBy.DRIVER, "the backend is away")


@pytest.mark.parametrize("code", [pytest.param(code, id=code.name) for code in Code if code])
async def test_a_status_and_then_the_end_of_the_connection_is_the_drivers_but_for_unavailable(
    socket_path: Path, code: Code
) -> None:
    """gRPC reports a lost connection as UNAVAILABLE, so that one counts as no answer."""

    async def status_then_close(peer: Peer, stream_id: int) -> None:
        peer.status(stream_id, code.value, "the backend is away")
        await peer.flush()
        await peer.stream.aclose()

    async with scripted_driver(socket_path, status_then_close):
        status = await _status(DriverChannel(f"unix://{socket_path}"))
    if code is Code.UNAVAILABLE:
        assert (status.code, status.made_by) == (Code.UNAVAILABLE, MadeBy.TRANSPORT)
        assert "away" not in status.message
    else:
        assert status == DriverStatus(CREATE, code, MadeBy.DRIVER, "the backend is away")


async def reset(peer: Peer, stream_id: int) -> None:
    peer.reset(stream_id, ErrorCodes.INTERNAL_ERROR)


async def headers_then_reset(peer: Peer, stream_id: int) -> None:
    peer.http2.send_headers(stream_id, OK_HEADERS)
    await peer.flush()
    peer.reset(stream_id, ErrorCodes.CANCEL)


async def close(peer: Peer, stream_id: int) -> None:
    await peer.stream.aclose()


async def half_a_reply_then_close(peer: Peer, stream_id: int) -> None:
    peer.http2.send_headers(stream_id, OK_HEADERS)
    peer.http2.send_data(stream_id, framed(REPLY)[:7])
    await peer.flush()
    await peer.stream.aclose()


async def no_status(peer: Peer, stream_id: int) -> None:
    peer.http2.send_headers(stream_id, OK_HEADERS, end_stream=True)


async def http_error(peer: Peer, stream_id: int) -> None:
    peer.http2.send_headers(stream_id, [(":status", "503")], end_stream=True)


async def no_http2(peer: Peer, stream_id: int) -> None:
    await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def not_taken(peer: Peer, stream_id: int) -> None:
    await peer.go_away(0)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        pytest.param(reset, "INTERNAL_ERROR", id="a reset of the stream"),
        pytest.param(headers_then_reset, "CANCEL", id="a reset after the headers"),
        pytest.param(close, "closed the connection", id="the end of the connection"),
        pytest.param(half_a_reply_then_close, "closed the connection", id="half a reply"),
        pytest.param(no_status, "without a gRPC status", id="an answer without a status"),
        pytest.param(http_error, "503", id="an HTTP error that is not gRPC"),
        pytest.param(no_http2, "does not speak HTTP/2", id="something that is not HTTP/2"),
        pytest.param(not_taken, "did not take the call", id="a driver that stops before the call"),
    ],
)
async def test_without_a_status_on_the_wire_the_driver_was_silent(
    socket_path: Path, script: Callable[[Peer, int], Awaitable[None]], says: str
) -> None:
    async with scripted_driver(socket_path, script):
        status = await _status(DriverChannel(f"unix://{socket_path}"))
    assert (status.code, status.made_by) == (Code.UNAVAILABLE, MadeBy.TRANSPORT)
    assert says in status.message


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param(b"", "not the message", id="no message at all"),
        pytest.param(framed(REPLY)[:-1], "not the message", id="a message that is cut short"),
        pytest.param(
            framed(gzip.compress(REPLY), flags=1), "not the message", id="a compressed message"
        ),
        pytest.param(framed(b"\x0a\xff"), "not the message", id="bytes that do not parse"),
        pytest.param(framed(bytes(1001)), "larger than 1000 bytes", id="too many bytes"),
    ],
)
async def test_an_ok_with_an_unusable_reply_is_malformed(
    socket_path: Path, body: bytes, says: str
) -> None:
    async def script(peer: Peer, stream_id: int) -> None:
        peer.reply(stream_id, body)

    async with scripted_driver(socket_path, script):
        channel = DriverChannel(f"unix://{socket_path}", max_reply_bytes=1000)
        with pytest.raises(DriverMalformed, match=says) as raised:
            await Driver(channel).create_bucket("b-1", {}, timeout_s=TIMEOUT_S)
    assert raised.value.status.made_by is MadeBy.REPLY


async def test_a_second_message_is_not_read_so_the_call_has_no_answer(socket_path: Path) -> None:
    async def script(peer: Peer, stream_id: int) -> None:
        peer.reply(stream_id, framed(REPLY) * 2)

    async with scripted_driver(socket_path, script):
        driver = Driver(DriverChannel(f"unix://{socket_path}"))
        with pytest.raises(DriverSilent, match=r"no answer within 0\.3 s"):
            await driver.create_bucket("b-1", {}, timeout_s=0.3)


@pytest.mark.parametrize(
    ("sent", "code", "made_by"),
    [
        pytest.param(
            "17", Code.UNKNOWN, MadeBy.DRIVER, id="a number that is not a code -> UNKNOWN"
        ),
        pytest.param("what", Code.UNAVAILABLE, MadeBy.TRANSPORT, id="a word -> no answer"),
        pytest.param("", Code.UNAVAILABLE, MadeBy.TRANSPORT, id="nothing -> no answer"),
        pytest.param("-1", Code.UNAVAILABLE, MadeBy.TRANSPORT, id="below 0 -> no answer"),
        pytest.param("5", Code.NOT_FOUND, MadeBy.DRIVER, id="a code -> that code"),
    ],
)
async def test_odd_status_numbers(
    socket_path: Path, sent: str, code: Code, made_by: MadeBy
) -> None:
    async def script(peer: Peer, stream_id: int) -> None:
        peer.status(stream_id, sent)

    async with scripted_driver(socket_path, script):
        status = await _status(DriverChannel(f"unix://{socket_path}"))
    assert (status.code, status.made_by) == (code, made_by)


async def test_a_message_is_decoded_and_may_be_long(socket_path: Path) -> None:
    async def script(peer: Peer, stream_id: int) -> None:
        peer.status(stream_id, 13, "50%25 full%0A" + "x" * 100_000)

    async with scripted_driver(socket_path, script):
        status = await _status(DriverChannel(f"unix://{socket_path}"))
    assert status.message == "50% full\n" + "x" * 100_000


async def test_the_deadline_is_ours_and_resets_the_stream(socket_path: Path) -> None:
    async def hang(peer: Peer, stream_id: int) -> None:
        assert "grpc-timeout" not in peer.headers[stream_id]
        assert peer.headers[stream_id][":authority"] == "localhost"

    async with scripted_driver(socket_path, hang) as driver:
        with pytest.raises(DriverSilent) as raised:
            await Driver(DriverChannel(f"unix://{socket_path}")).get_info(timeout_s=0.2)
        assert await driver.peers[0].resets.get() == 1
    status = raised.value.status
    assert (status.code, status.made_by) == (Code.DEADLINE_EXCEEDED, MadeBy.DEADLINE)


async def test_a_call_that_is_cancelled_resets_its_stream_and_stays_cancelled(
    socket_path: Path,
) -> None:
    begun = anyio.Event()

    async def hang(peer: Peer, stream_id: int) -> None:
        begun.set()

    async with scripted_driver(socket_path, hang) as driver:
        channel = DriverChannel(f"unix://{socket_path}")
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: Driver(channel).get_info(timeout_s=TIMEOUT_S))
                await begun.wait()
                scope.cancel()
        assert await driver.peers[0].resets.get() == 1


async def test_a_driver_that_stops_in_good_order_still_answers_what_it_began(
    socket_path: Path,
) -> None:
    async def stop_then_answer(peer: Peer, stream_id: int) -> None:
        await peer.go_away(stream_id)
        peer.reply(stream_id, framed(REPLY))

    async with scripted_driver(socket_path, stop_then_answer) as driver:
        channel = DriverChannel(f"unix://{socket_path}")
        for calls in (1, 2):
            lost = anyio.Event()
            channel.when_lost(lost.set)
            created = await Driver(channel).create_bucket("b-1", {}, timeout_s=TIMEOUT_S)
            assert created.bucket_id == "id-1"
            assert len(driver.peers) == calls, "the next call goes over a new connection"
            with anyio.fail_after(TIMEOUT_S):
                await lost.wait()  # until then, a call may still be sent, and is not taken


async def test_no_more_streams_are_opened_than_the_driver_allows(socket_path: Path) -> None:
    most = 0

    async def count(peer: Peer, stream_id: int) -> None:
        nonlocal most
        most = max(most, peer.http2.open_inbound_streams)
        await anyio.lowlevel.checkpoint()
        peer.reply(stream_id, framed(REPLY))

    limit = {SettingCodes.MAX_CONCURRENT_STREAMS: 2}
    async with scripted_driver(socket_path, count, settings=limit) as driver:
        channel = DriverChannel(f"unix://{socket_path}")
        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(_create, channel, f"b-{number}")
        assert len(driver.peers) == 1
        assert len(driver.peers[0].bodies) == 10
    assert most <= 2


async def _create(channel: DriverChannel, name: str) -> None:
    await Driver(channel).create_bucket(name, {}, timeout_s=TIMEOUT_S)


async def test_a_request_larger_than_the_drivers_window_arrives_whole(socket_path: Path) -> None:
    async def answer(peer: Peer, stream_id: int) -> None:
        peer.reply(stream_id, framed(REPLY))

    window = {SettingCodes.INITIAL_WINDOW_SIZE: 1000}
    parameters = {"policy": "x" * 300_000}
    async with scripted_driver(socket_path, answer, settings=window) as driver:
        channel = DriverChannel(f"unix://{socket_path}")
        await Driver(channel).create_bucket("b-1", parameters, timeout_s=TIMEOUT_S)
        sent = driver.peers[0].bodies[1]
    request = cosi_pb2.DriverCreateBucketRequest.FromString(sent[5:])
    assert request == cosi_pb2.DriverCreateBucketRequest(name="b-1", parameters=parameters)


async def test_an_early_refusal_ends_a_request_that_the_window_holds_back(
    socket_path: Path,
) -> None:
    async def never_complete(peer: Peer, stream_id: int) -> None:
        raise AssertionError("the request can't be complete")

    # No window at all for the body: only an answer can end the call.
    none = {SettingCodes.INITIAL_WINDOW_SIZE: 0}
    async with (
        scripted_driver(socket_path, never_complete, settings=none) as driver,
        anyio.create_task_group() as tasks,
    ):
        channel = DriverChannel(f"unix://{socket_path}")

        async def refused() -> None:
            with pytest.raises(DriverRefused, match="too large"):
                await Driver(channel).create_bucket("b-1", {}, timeout_s=TIMEOUT_S)

        tasks.start_soon(refused)
        while not (driver.peers and driver.peers[0].headers):
            await anyio.lowlevel.checkpoint()
        driver.peers[0].status(1, 3, "too large")
        await driver.peers[0].flush()


async def test_one_reset_stream_leaves_its_neighbours_alone(socket_path: Path) -> None:
    async def reset_odd_one(peer: Peer, stream_id: int) -> None:
        if b"bad" in peer.bodies[stream_id]:
            peer.reset(stream_id, ErrorCodes.INTERNAL_ERROR)
        else:
            peer.reply(stream_id, framed(REPLY))

    async def refused(channel: DriverChannel) -> None:
        with pytest.raises(DriverSilent):
            await _create(channel, "bad")

    async with scripted_driver(socket_path, reset_odd_one) as driver:
        channel = DriverChannel(f"unix://{socket_path}")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(refused, channel)
            for number in range(5):
                tasks.start_soon(_create, channel, f"b-{number}")
        assert len(driver.peers) == 1


# --- each status that the gRPC library makes of frames, whatever its code


async def broken(peer: Peer, data: bytes) -> None:
    await peer.flush()
    await peer.send(data)


def reset_with(code: ErrorCodes) -> Script:
    async def script(peer: Peer, stream_id: int) -> None:
        peer.reset(stream_id, code)

    return script


def goaway_with(code: ErrorCodes) -> Script:
    async def script(peer: Peer, stream_id: int) -> None:
        last = stream_id.to_bytes(4)
        await broken(peer, frame(GOAWAY, 0, last + code.to_bytes(4) + b"grpc-status: 3"))
        await peer.stream.aclose()

    return script


def http_status(number: int) -> Script:
    async def script(peer: Peer, stream_id: int) -> None:
        peer.http2.send_headers(stream_id, [(":status", str(number))], end_stream=True)

    return script


def frames(make: Callable[[int], bytes]) -> Script:
    async def script(peer: Peer, stream_id: int) -> None:
        await broken(peer, make(stream_id))

    return script


async def data_without_trailers(peer: Peer, stream_id: int) -> None:
    peer.http2.send_headers(stream_id, OK_HEADERS)
    peer.http2.send_data(stream_id, framed(REPLY), end_stream=True)


async def trailers_without_a_status(peer: Peer, stream_id: int) -> None:
    peer.http2.send_headers(stream_id, OK_HEADERS)
    peer.http2.send_data(stream_id, framed(REPLY))
    peer.http2.send_headers(stream_id, [("a", "b")], end_stream=True)


def large_header(name: bytes) -> Callable[[int], bytes]:
    """An answer with a header field of more than 1 MiB; h2 would take minutes to pack it."""
    value = b"x" * 2**20
    # :status 200, then a literal field: 0x00, the length of its name, its name, and the length of
    # its value: 127 and the rest in groups of 7 bits.
    rest = len(value) - 127
    length = bytes([127, rest & 127 | 128, rest >> 7 & 127 | 128, rest >> 14])
    block = b"\x88\x00" + bytes([len(name)]) + name + length + value
    pieces = [block[at : at + 16384] for at in range(0, len(block), 16384)]

    def make(stream: int) -> bytes:
        kinds = [HEADERS, *[CONTINUATION] * (len(pieces) - 1)]
        sent = [frame(kind, stream, piece) for kind, piece in zip(kinds, pieces, strict=True)]
        return b"".join(sent) + frame(CONTINUATION, stream, b"", flags=4)

    return make


async def unheard_of_encoding(peer: Peer, stream_id: int) -> None:
    peer.http2.send_headers(stream_id, [*OK_HEADERS, ("grpc-encoding", "unheard-of")])
    peer.http2.send_data(stream_id, framed(REPLY, flags=1))
    peer.http2.send_headers(stream_id, [("grpc-status", "0")], end_stream=True)


async def two_statuses(peer: Peer, stream_id: int) -> None:
    headers = [*OK_HEADERS, ("grpc-status", "3"), ("grpc-status", "a")]
    peer.http2.send_headers(stream_id, headers, end_stream=True)


BROKEN_FRAMES = {
    "a header block that is not HPACK": lambda stream: frame(HEADERS, stream, b"\xff" * 7, 5),
    "a header field with index 0": lambda stream: frame(HEADERS, stream, b"\x80", 5),
    "DATA before HEADERS": lambda stream: frame(DATA, stream, framed(REPLY), 1),
    "CONTINUATION first": lambda stream: frame(CONTINUATION, stream, b"\x88", 4),
    "a reset of two bytes": lambda stream: frame(RST_STREAM, stream, b"ab"),
    "a setting out of range": lambda _: frame(SETTINGS, 0, b"\x00\x04\xff\xff\xff\xff"),
    "a window update of 0": lambda stream: frame(WINDOW_UPDATE, stream, bytes(4)),
    "a frame of 16 MiB": lambda stream: b"\xff\xff\xff" + frame(DATA, stream, bytes(9))[3:],
}


@pytest.mark.parametrize(
    "script",
    [
        *(pytest.param(reset_with(code), id=f"a reset with {code.name}") for code in ErrorCodes),
        *(pytest.param(goaway_with(code), id=f"GOAWAY with {code.name}") for code in ErrorCodes),
        *(
            pytest.param(http_status(number), id=f"HTTP status {number}")
            for number in (200, 204, 301, 400, 401, 403, 404, 429, 500, 502, 503, 504, 999)
        ),
        *(pytest.param(frames(make), id=name) for name, make in BROKEN_FRAMES.items()),
        pytest.param(data_without_trailers, id="a reply without trailers"),
        pytest.param(trailers_without_a_status, id="trailers without a status"),
        pytest.param(frames(large_header(b"grpc-message")), id="a message of more than 1 MiB"),
        pytest.param(frames(large_header(b"a")), id="a header of more than 1 MiB"),
        pytest.param(unheard_of_encoding, id="an unknown encoding"),
        pytest.param(two_statuses, id="a second status that is not a number"),
    ],
)
async def test_a_status_that_the_grpc_library_makes_is_not_the_drivers(
    socket_path: Path, script: Script
) -> None:
    answers = 0

    async def first_script_then_answer(peer: Peer, stream_id: int) -> None:
        nonlocal answers
        answers += 1
        if answers == 1:
            await script(peer, stream_id)
        else:
            peer.reply(stream_id, framed(REPLY))

    async with scripted_driver(socket_path, first_script_then_answer):
        channel = DriverChannel(f"unix://{socket_path}")
        status = await _status(channel)
        assert (status.code, status.made_by) == (Code.UNAVAILABLE, MadeBy.TRANSPORT)
        created = await Driver(channel).create_bucket("b-1", {}, timeout_s=TIMEOUT_S)
        assert created.bucket_id == "id-1", "the next call works"


def compressed(packed: bytes, encoding: str) -> Script:
    async def script(peer: Peer, stream_id: int) -> None:
        assert peer.headers[stream_id]["grpc-accept-encoding"] == "identity"
        peer.http2.send_headers(stream_id, [*OK_HEADERS, ("grpc-encoding", encoding)])
        body = framed(packed, flags=1)
        for at in range(0, len(body), 16384):
            peer.http2.send_data(stream_id, body[at : at + 16384])
        peer.http2.send_headers(stream_id, [("grpc-status", "0")], end_stream=True)

    return script


@pytest.mark.attack("the driver compresses 32 MiB of zeros into a small reply")
@pytest.mark.parametrize(
    "packed",
    [
        pytest.param(gzip.compress(REPLY), id="a reply"),
        pytest.param(gzip.compress(bytes(32 * 2**20)), id="32 MiB"),
    ],
)
async def test_a_compressed_reply_is_malformed_and_is_not_unpacked(
    socket_path: Path, packed: bytes
) -> None:
    async with scripted_driver(socket_path, compressed(packed, "gzip")):
        status = await _status(DriverChannel(f"unix://{socket_path}"))
    assert (status.code, status.made_by) == (Code.OK, MadeBy.REPLY)
    assert "larger" not in status.message


async def test_deflated_bytes_can_pass_for_a_message_but_without_its_fields(
    socket_path: Path,
) -> None:
    """The first byte of a deflated reply reads as a field that no message has."""
    async with scripted_driver(socket_path, compressed(zlib.compress(REPLY), "deflate")):
        driver = Driver(DriverChannel(f"unix://{socket_path}"))
        created = await driver.create_bucket("b-1", {}, timeout_s=TIMEOUT_S)
    assert created.bucket_id == "", "which the sidecar reports as a malformed reply"
