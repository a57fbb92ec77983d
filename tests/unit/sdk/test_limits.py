"""Each request has a total time and each answer a size, whatever a server does."""

import asyncio
import gzip
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio.from_thread
import pytest
import yaml
from tests.support.sdk import OpenApis

from cosi_operator import cli, sdk
from cosi_operator.sdk import answer, connect, objects, session
from cosi_operator.sdk import asyncio as async_sdk

TIMEOUT_S = 0.5
type Say = Callable[[asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
VERSION = json.dumps({"gitVersion": "v1.34.0"}).encode()


async def nothing(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def drip(writer: asyncio.StreamWriter) -> None:
    """Each read brings something, so that a timeout of one read never comes."""
    writer.write(HEAD + b"Content-Length: 100000\r\n\r\n{")
    await drip_more(writer)


async def drip_header(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"X-Slow: ")
    await drip_more(writer)


async def drip_more(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(TIMEOUT_S / 10)


async def huge(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        await writer.drain()


async def bomb(writer: asyncio.StreamWriter) -> None:
    body = gzip.compress(b" " * (4 << 20))
    writer.write(HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


async def unasked(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"Content-Encoding: br\r\nContent-Length: 1\r\n\r\n\x00")


async def redirect(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n")


async def good(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(VERSION) + VERSION)


async def echo(writer: asyncio.StreamWriter) -> None:
    """As a server of another protocol that repeats what it was sent."""
    writer.write(b"500 you sent: Authorization: Bearer t-canary\r\n\r\n")


SLOW: dict[str, tuple[Say, str]] = {
    "nothing": (nothing, "no answer within"),
    "a body that drips": (drip, "no answer within"),
    "a header that drips": (drip_header, "no answer within"),
    "a body without an end": (huge, "the answer is larger than"),
    "a gzip bomb": (bomb, "the answer is larger than"),
    "an encoding that was not asked for": (unasked, "Content-Encoding"),
    "no HTTP": (echo, r"illegal status line$"),
    "redirects without an end": (redirect, "redirects"),
}


@asynccontextmanager
async def speaking(first: Say, later: Say) -> AsyncIterator[int]:
    """The port of a server that answers /version with `first`, and all else with `later`."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await (first if b" /version" in head else later)(writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(objects, "_apis", {})
    monkeypatch.setattr(session, "BODY_LIMIT_BYTES", 1 << 20)
    apis = OpenApis(monkeypatch)
    yield
    apis.close()


@pytest.fixture(params=["at login", "later"])
def since(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def address(
    request: pytest.FixtureRequest, since: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """What the server's error says; KUBECONFIG leads to it."""
    say, said = SLOW[request.param]
    if said == "no answer within":
        for module in (answer, connect, session):
            monkeypatch.setattr(module, "REQUEST_TIMEOUT_S", TIMEOUT_S)
    first = say if since == "at login" else good
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(speaking(first, say)) as port,
    ):
        config = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
        }
        (tmp_path / "config").write_text(yaml.safe_dump(config))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
        yield said


@pytest.mark.parametrize("address", SLOW, indirect=True)
def test_the_synchronous_classes_end(address: str) -> None:
    with pytest.raises(sdk.ApiSilent, match=address):
        sdk.BucketClaim.get("photos")
    with pytest.raises(sdk.ApiSilent, match=address):
        list(sdk.BucketClaim.list())


@pytest.mark.parametrize("address", SLOW, indirect=True)
async def test_the_asynchronous_classes_end(address: str) -> None:
    with pytest.raises(sdk.ApiSilent, match=address):
        await async_sdk.BucketClaim.get("photos")
    with pytest.raises(sdk.ApiSilent, match=address):
        [each async for each in async_sdk.BucketClaim.list()]


@pytest.mark.parametrize("address", SLOW, indirect=True)
def test_cosi_ends(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: no answer from the API server: ")
    assert re.search(address, printed, re.MULTILINE)
    assert printed.count("\n") == 1
