"""The load: objects made and deleted over several connections, and a watch that sees when.

It runs in the benchmark's own process and takes part of the machine; its CPU is in the results.
"""

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import msgspec
import uvloop
from msgspec import Struct

from controlplane import ControlPlane
from testbed import NAMESPACE, claim_body
from testbed.objects import path_of, typed

CONNECTIONS = 20
STALLED_S = 60.0
"""When none came so far for this long, those that are left are counted as missing."""


class _Status(Struct, rename="camel"):
    bucket_ready: bool = False


class _Meta(Struct, rename="camel"):
    name: str
    resource_version: str


class _Object(Struct):
    metadata: _Meta
    status: _Status | None = None


class _Line(Struct):
    type: str
    object: _Object


class _ListMeta(Struct, rename="camel"):
    resource_version: str


class _List(Struct):
    metadata: _ListMeta


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_list = msgspec.json.Decoder(_List).decode


@dataclass(slots=True)
class Timing:
    """When what happened, in seconds since the first request."""

    total_s: float = 0.0
    sent_s: float = 0.0
    """When the last request of the load was answered."""
    latencies_s: list[float] = field(default_factory=list)
    missing: int = 0
    """Objects that never came so far; then `total_s` ends when the last of the others did."""

    @property
    def per_s(self) -> float:
        """Objects that came so far, a second."""
        return round(len(self.latencies_s) / self.total_s, 1) if self.total_s else 0.0


class Load:
    """Sends as the administrator; one TLS session pool for all."""

    def __init__(self, plane: ControlPlane, session: aiohttp.ClientSession) -> None:
        self._plane = plane
        self._session = session

    async def claims(
        self,
        names: Sequence[str],
        class_name: str,
        *,
        connections: int = CONNECTIONS,
    ) -> Timing:
        """Make the claims and wait until each says that it is ready."""
        bodies = {n: typed("bucketclaims", claim_body(n, class_name=class_name)) for n in names}
        path = path_of("bucketclaims", NAMESPACE)

        async def make(name: str) -> None:
            await self.send("POST", path, bodies[name])

        def is_ready(line: _Line) -> bool:
            return line.object.status is not None and line.object.status.bucket_ready

        return await self._until(names, make, is_ready, connections)

    async def deletions(
        self,
        names: Sequence[str],
        *,
        connections: int = CONNECTIONS,
    ) -> Timing:
        """Delete the claims and wait until each is gone."""

        async def delete(name: str) -> None:
            await self.send("DELETE", path_of("bucketclaims", NAMESPACE, name))

        return await self._until(names, delete, lambda line: line.type == "DELETED", connections)

    async def send(
        self, method: str, path: str, body: object = None, kind: str = "application/json"
    ) -> bytes:
        """One request; a body that is not bytes becomes JSON.

        Raises:
            RuntimeError: it was refused.
        """
        data = body if body is None or isinstance(body, bytes) else json.dumps(body)
        headers = {"Content-Type": kind}
        async with self._session.request(method, path, data=data, headers=headers) as response:
            answer = await response.read()
            if response.status >= 400:
                raise RuntimeError(f"{method} {path}: {response.status} {answer[:300]!r}")
            return answer

    async def for_each[T](
        self,
        items: Iterable[T],
        do: Callable[[T], Awaitable[object]],
        connections: int = CONNECTIONS,
    ) -> None:
        """Run `do` over all items on so many connections."""
        rest = iter(items)
        async with asyncio.TaskGroup() as senders:
            for _ in range(connections):
                senders.create_task(_drain(rest, do))

    async def _until(
        self,
        names: Sequence[str],
        act: Callable[[str], Awaitable[object]],
        is_done: Callable[[_Line], bool],
        connections: int,
    ) -> Timing:
        timing, began, pending = Timing(), dict[str, float](), set(names)
        path = path_of("bucketclaims", NAMESPACE)
        version = _decode_list(await self.send("GET", f"{path}?limit=1")).metadata.resource_version

        async def timed(name: str) -> None:
            began[name] = time.perf_counter()
            await act(name)

        async def see() -> None:
            async with contextlib.aclosing(self._watch(path, version)) as lines:
                async for line in lines:
                    name = line.object.metadata.name
                    if name in pending and is_done(line):
                        pending.discard(name)
                        now = time.perf_counter()
                        timing.latencies_s.append(now - began[name])
                        timing.total_s = now - start
                        if not pending:
                            return
                        stalled.reschedule(loop.time() + STALLED_S)

        loop, start = asyncio.get_running_loop(), time.perf_counter()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STALLED_S) as stalled, asyncio.TaskGroup() as tasks:
                tasks.create_task(see())
                await self.for_each(names, timed, connections)
                timing.sent_s = time.perf_counter() - start
        timing.missing = len(pending)
        return timing

    async def _watch(self, path: str, version: str) -> AsyncGenerator[_Line]:
        """Lines without end. A busy API server ends a watch that it can't serve in time: go on."""
        while True:
            url = f"{path}?watch=1&resourceVersion={version}"
            async with self._session.get(url) as response:
                pending = b""
                try:
                    async for chunk in response.content.iter_any():
                        *complete, pending = (pending + chunk).split(b"\n")
                        for raw in complete:
                            line = _decode_line(raw)
                            version = line.object.metadata.resource_version
                            yield line
                finally:
                    # Nobody waits for TLS's goodbye: it would outlive the event loop.
                    if response.connection and response.connection.transport:
                        response.connection.transport.abort()


async def _drain[T](rest: Iterator[T], do: Callable[[T], Awaitable[object]]) -> None:
    for item in rest:
        await do(item)


@asynccontextmanager
async def connected(plane: ControlPlane) -> AsyncIterator[Load]:
    """A load with its connections."""
    tls = ssl.create_default_context(cafile=str(plane.ca_file))
    headers = {"Authorization": f"Bearer {plane.admin_token}"}
    async with aiohttp.ClientSession(
        plane.server_url,
        connector=aiohttp.TCPConnector(ssl=tls, limit=0),
        headers=headers,
        timeout=aiohttp.ClientTimeout(total=None),
        read_bufsize=1 << 20,
    ) as session:
        yield Load(plane, session)


def run[T](plane: ControlPlane, work: Callable[[Load], Awaitable[T]]) -> T:
    """Run a coroutine function with a load, from code that is not async."""

    async def main() -> T:
        async with connected(plane) as load:
            return await work(load)

    return uvloop.run(main())
