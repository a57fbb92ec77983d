"""The server of probes and metrics: few connections, none of them for long."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
import pytest
from tests.support.clock import FakeClock

from cosi_operator.app.health import (
    EXPOSITION_BURST_S,
    EXPOSITION_SHARE,
    STARTUP_HELD_LIMIT,
    STARTUP_HOLD_S,
    Exposition,
    Health,
    serve_health,
)
from cosi_operator.app.listener import CONNECTION_LIMIT, LIFETIME_S, Connection, Connections
from cosi_operator.metrics import Metrics
from cosi_operator.settings import ControllerSettings

CLIENT = "127.0.0.2"
OTHER_CLIENT = "127.0.0.3"


class Transport(asyncio.WriteTransport):
    """Closes its socket when aborted, as an event loop does."""

    def __init__(self, accepted: socket.socket) -> None:
        super().__init__()
        self._accepted = accepted

    def abort(self) -> None:
        self._accepted.close()


def connection(client: str, since_s: float) -> Connection:
    accepted = socket.socket()
    return Connection(accepted, Transport(accepted), client, since_s)


def clients(connections: Connections) -> list[tuple[str, float]]:
    assert all(known.is_open for known in connections)
    return [(known.client, known.since_s) for known in connections]


def close_all(*made: Connection) -> None:
    for one in made:
        one.accepted.close()


def test_one_too_many_closes_the_oldest_of_the_client_with_the_most() -> None:
    made = [
        connection(client, since_s)
        for since_s, client in enumerate(["probe", "flood", "flood", "other", "flood"])
    ]
    connections = Connections(limit=4)
    for one in made:
        connections.add(one)
    assert clients(connections) == [("probe", 0), ("flood", 2), ("other", 3), ("flood", 4)]
    close_all(*made)


def test_when_each_client_has_one_the_oldest_is_closed_and_never_the_new_one() -> None:
    made = [connection(client, since_s) for since_s, client in enumerate("abc")]
    connections = Connections(limit=2)
    for one in made:
        connections.add(one)
    assert clients(connections) == [("b", 1), ("c", 2)]
    close_all(*made)


def test_a_connection_that_has_ended_takes_no_place() -> None:
    made = [connection("a", since_s) for since_s in range(3)]
    connections = Connections(limit=2)
    for one in made:
        one.accepted.close() if one is made[0] else None
        connections.add(one)
    assert clients(connections) == [("a", 1), ("a", 2)]
    close_all(*made)


class Served:
    """The server, and connections to it."""

    def __init__(self, clock: FakeClock, port: int) -> None:
        self.clock = clock
        self.port = port

    async def connect(
        self, source: str = CLIENT
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, local_addr=(source, 0))

    async def get(self, path: str, source: str = OTHER_CLIENT) -> bytes:
        """The whole answer, up to the end of the connection."""
        reader, writer = await self.connect(source)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        with anyio.fail_after(5):
            answer = await reader.read()
        writer.close()
        return answer


@asynccontextmanager
async def served(clock: FakeClock, health: Health | None = None) -> AsyncIterator[Served]:
    """By default the process is ready."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = int(found.getsockname()[1])
    settings = ControllerSettings(
        kubeconfig=None, namespace="n", identity="i", metrics_address=f"127.0.0.1:{port}"
    )
    if health is None:
        health = Health()
        health.has("start")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve_health, settings, health, Metrics(), clock)
        server = Served(clock, port)
        with anyio.fail_after(5):
            while True:
                with suppress(ConnectionRefusedError):
                    await server.get("/healthz")
                    break
                await asyncio.sleep(0)
        yield server
        tasks.cancel_scope.cancel()


async def is_closed(reader: asyncio.StreamReader) -> bool:
    """Whether the server closes the connection; waits for it in real time, up to 5 s."""
    with anyio.move_on_after(5), suppress(ConnectionResetError):
        return await reader.read() == b""
    return True


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/no-such-path"])
async def test_a_connection_ends_with_the_first_answer(path: str) -> None:
    async with served(FakeClock()) as server:
        assert b"\r\nConnection: close\r\n" in await server.get(path)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing is sent"),
        pytest.param(b"GET /healthz HTTP/1.1\r\nHost: x", id="half a header is sent"),
        pytest.param(
            b"PUT /loglevel HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nde",
            id="half a body is sent",
        ),
    ],
)
async def test_a_connection_without_a_whole_request_is_closed_after_its_time(sent: bytes) -> None:
    clock = FakeClock()
    async with served(clock) as server:
        reader, writer = await server.connect()
        writer.write(sent)
        await server.get("/healthz")  # so that the server has seen the first connection
        await clock.run(LIFETIME_S - 1)
        with pytest.raises(TimeoutError), anyio.fail_after(0.1):
            await reader.read()
        await clock.run(2)
        assert await is_closed(reader)
        writer.close()


async def test_many_idle_connections_are_closed_and_another_client_is_answered() -> None:
    async with served(FakeClock()) as server:
        kept = [await server.connect() for _ in range(3 * CONNECTION_LIMIT)]
        for _ in range(10):
            assert b"200 OK" in await server.get("/healthz")
        closed = 0
        for reader, writer in kept[: 2 * CONNECTION_LIMIT]:
            closed += await is_closed(reader)
            writer.close()
        assert closed == 2 * CONNECTION_LIMIT
        for _, writer in kept[2 * CONNECTION_LIMIT :]:
            writer.close()


class SlowMetrics(Metrics):
    """Takes 100 ms for each text."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.made = 0
        self._clock = clock

    def expose(self) -> bytes:
        self._clock.advance(0.1)
        self.made += 1
        return str(self.made).encode()


async def test_each_of_a_few_requests_gets_fresh_metrics_and_a_flood_does_not() -> None:
    clock = FakeClock()
    metrics = SlowMetrics(clock)
    exposition = Exposition(metrics, clock)
    asked_s, started_s = 60, clock.monotonic()
    assert [exposition.text() for _ in range(3)] == [b"1", b"2", b"3"]
    while clock.monotonic() - started_s < asked_s:
        exposition.text()
        clock.advance(0.001)
    assert metrics.made * 0.1 <= EXPOSITION_BURST_S + 0.1 + EXPOSITION_SHARE * asked_s
    assert metrics.made * 0.1 >= EXPOSITION_SHARE * asked_s
    clock.advance(EXPOSITION_BURST_S / EXPOSITION_SHARE)
    made = metrics.made
    exposition.text()
    assert metrics.made == made + 1


@asynccontextmanager
async def held(server: Served, count: int = 1) -> AsyncIterator[list[bytes]]:
    """Requests for /startupz that the server holds; yields the list that their answers go to."""
    answers: list[bytes] = []

    async def ask() -> None:
        answers.append(await server.get("/startupz"))

    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(ask)
        await server.clock.wait_for_sleepers(count + 1)  # one more closes old connections
        assert answers == []
        yield answers


async def test_a_startup_probe_is_answered_when_the_process_is_ready_for_the_first_time() -> None:
    health = Health()
    health.waits("the driver")
    async with served(FakeClock(), health) as server:
        async with held(server) as answers:
            health.has("start")
            await server.clock.run(1)
            assert answers == [], "it still waits for the driver"
            health.has("the driver")
            await server.clock.run(1)
        assert b"200 OK" in answers[0]
        health.waits("the driver")
        assert b"503" in await server.get("/readyz")
        assert b"200 OK" in await server.get("/startupz"), "a driver that restarts is no start"


async def test_a_startup_probe_never_fails_because_the_driver_is_late() -> None:
    async with served(FakeClock(), Health()) as server:
        async with held(server) as answers:
            await server.clock.run(STARTUP_HOLD_S + 1)
        assert b"200 OK" in answers[0]
        assert STARTUP_HOLD_S + 1 < LIFETIME_S


async def test_one_startup_probe_too_many_is_answered_at_once() -> None:
    health = Health()
    async with served(FakeClock(), health) as server, held(server, STARTUP_HELD_LIMIT) as answers:
        assert b"200 OK" in await server.get("/startupz")
        assert answers == []
        health.has("start")
        await server.clock.run(1)
