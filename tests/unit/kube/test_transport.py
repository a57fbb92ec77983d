"""Connections: dead ones are noticed in time, and no message shows what is secret."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from aiohttp import AddrInfoType
from tests.support.apiserver import client_of, serving
from tests.support.clock import FakeClock

from cosi_operator.api.core import SECRETS
from cosi_operator.api.view import Key, Resource
from cosi_operator.kube.auth import FixedToken
from cosi_operator.kube.client import KubeClient
from cosi_operator.kube.errors import ApiSilent
from cosi_operator.kube.kubeconfig import Connection
from cosi_operator.kube.request import Request
from cosi_operator.kube.transport import keeping_alive

BUCKETS = Resource("objectstorage.k8s.io", "v1alpha1", "buckets", "Bucket", namespaced=False)
SECRET = "very-secret-value"


async def test_late_data_does_not_prolong_a_watch_beyond_its_limit() -> None:
    clock = FakeClock()
    async with (
        serving() as server,
        client_of(server, clock) as client,
        client.watch(BUCKETS, resource_version="100", timeout_s=300) as lines,
        anyio.create_task_group() as tasks,
    ):
        ended = anyio.Event()
        seen: list[bytes] = []

        async def read() -> None:
            seen.append(await anext(lines))
            with pytest.raises(ApiSilent, match="not finished within"):
                await anext(lines)
            ended.set()

        tasks.start_soon(read)
        watcher = await server.watcher()
        await clock.wait_until(lambda: clock.sleeping_for() == [305.0], "the limit of the watch")
        clock.advance(299)
        watcher.line("ADDED", {"metadata": {"name": "late"}})
        # Half-open from here on. The limit is the same point in time as before.
        await clock.wait_until(
            lambda: len(seen) == 1 and clock.sleeping_for() == [6.0], "the rest of the limit"
        )
        clock.advance(6)
        with anyio.fail_after(20):
            await ended.wait()


def test_the_kernel_detects_a_dead_connection_within_a_minute() -> None:
    """A node that vanished, or a balancer that forgot us, says nothing; only probes tell."""
    address = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", 1))
    with contextlib.closing(keeping_alive(address)) as made:
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        idle_s, every_s, count = (
            made.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        assert idle_s + every_s * count <= 60


async def test_connections_are_made_that_way(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []

    def spy(address: AddrInfoType) -> socket.socket:
        made.append(address[4])
        return keeping_alive(address)

    monkeypatch.setattr("cosi_operator.kube.transport.keeping_alive", spy)
    async with serving() as server, client_of(server, FakeClock()) as client:
        await client.list(BUCKETS)
    assert len(made) == 1


class Slow:
    """Credentials that take longer than any request may."""

    async def authorization(self) -> str:
        await anyio.sleep_forever()
        return ""

    def reject(self, authorization: str) -> bool:
        return False


async def test_slow_credentials_count_against_the_requests_deadline() -> None:
    async with serving() as server:
        clock = FakeClock()
        async with client_of(server, clock, credentials=Slow(), timeout_s=0.05) as client:
            with pytest.raises(ApiSilent, match="reading the credentials timed out"):
                await client.list(BUCKETS)
    assert server.seen == []


@asynccontextmanager
async def proxy_that_says(answer: bytes) -> AsyncIterator[str]:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    listener = await asyncio.start_server(converse, "127.0.0.1", 0)
    async with listener:
        host, port = listener.sockets[0].getsockname()
        yield f"http://me:{SECRET}@{host}:{port}"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 407 Login\r\nContent-Length: 0\r\n\r\n", id="a refusal"),
        pytest.param(b"nonsense\r\n\r\n", id="nonsense"),
        pytest.param(b"", id="nothing"),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_the_password_of_a_proxy_is_not_in_the_error(answer: bytes, scheme: str) -> None:
    async with proxy_that_says(answer) as proxy, contextlib.AsyncExitStack() as stack:
        connection = Connection(
            f"{scheme}://server.example:1", "default", FixedToken("t"), proxy=proxy
        )
        client = await stack.enter_async_context(
            KubeClient(connection, clock=FakeClock(), user_agent="test/1")
        )
        with pytest.raises(Exception) as raised:  # noqa: PT011 - whichever: none may show it
            await client.create(SECRETS, {"metadata": {"name": "x"}}, namespace="team")
        assert SECRET not in f"{raised.value} {raised.value!r}"
        assert SECRET not in repr(connection)


def test_the_description_of_a_request_does_not_contain_the_body() -> None:
    request = Request("create", SECRETS, Key("team", ""), body=SECRET.encode())
    assert SECRET not in f"{request} {request!r} {request.what}"
