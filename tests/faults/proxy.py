"""A proxy between the operator's processes and the API server that breaks what it is told to.

It ends TLS with the API server's own certificate and speaks HTTP/1.1 on both sides. Each role
(controller, sidecar, a second sidecar) has a port of its own, so that every request has a sender.

Example:
    fault = proxy.arm(Fault(How.LOSE_REPLY, lambda a: a.label == "sidecar update buckets/status"))
    ...
    assert fault.fired.wait(10)
"""

import asyncio
import json
import ssl
import threading
from collections.abc import Coroutine
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp import web
from tests.faults.fault import OF_STREAMS, REFUSALS, Fault, How
from tests.faults.requests import Asked, CaseBook, parse

from controlplane import ControlPlane

START_S = 10.0
KEPT_HEADERS = ("Content-Type", "Retry-After")
RETRY_AFTER_S = 1


class Proxy:
    """Runs in a thread of its own while it is entered (`with`); methods are for other threads."""

    def __init__(self, plane: ControlPlane) -> None:
        """Nothing is started yet."""
        self.log: list[Asked] = []
        self.cases = CaseBook()
        self._plane = plane
        self._faults: list[Fault] = []
        self._first_lists: dict[str, bytes] = {}
        self._ports: dict[str, int] = {}
        self._runners: list[web.ServerRunner] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._upstream: aiohttp.ClientSession | None = None

    def __enter__(self) -> Self:
        """Start it."""
        self._thread.start()
        self._call(self._start())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Lift all faults and end it."""
        self.clear()
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_S)
        self._loop.close()

    def listen(self, role: str) -> str:
        """The URL for one role; the first call for a role opens its port."""
        if role not in self._ports:
            self._ports[role] = self._call(self._open(role))
        return f"https://127.0.0.1:{self._ports[role]}"

    def arm(self, fault: Fault) -> Fault:
        """Put a fault in force; the newest that fits a request hits it."""
        self._faults.insert(0, fault)
        return fault

    def lift(self, fault: Fault) -> None:
        """End a fault; requests that it holds are cut off."""
        fault.times = 0
        if fault in self._faults:
            self._faults.remove(fault)
        self._loop.call_soon_threadsafe(fault.lifted.set)

    def clear(self) -> None:
        """End all faults."""
        for fault in list(self._faults):
            self.lift(fault)

    def mark(self) -> int:
        """A position in `log`."""
        return len(self.log)

    def effects(self, *, since: int = 0, case: str | None = None) -> list[Asked]:
        """What was asked that lasts, in order of arrival."""
        return [
            asked
            for asked in self.log[since:]
            if asked.is_effect and (case is None or asked.case == case)
        ]

    # --- in its own thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _call[T](self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(START_S)

    async def _start(self) -> None:
        trust = ssl.create_default_context(cafile=str(self._plane.ca_file))
        self._upstream = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=trust, limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=START_S),
        )

    async def _open(self, role: str) -> int:
        folder = self._plane.directory / "certificates"
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(folder / "apiserver.crt", folder / "apiserver.key")

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            return await self._answer(role, request)

        # A client that is killed takes its requests along, as with a real load balancer.
        server = web.Server(answer, handler_cancellation=True, access_log=None)
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        self._runners.append(runner)
        port: int = runner.addresses[0][1]
        return port

    async def _stop(self) -> None:
        for runner in self._runners:
            await runner.cleanup()
        assert self._upstream is not None
        await self._upstream.close()
        await asyncio.sleep(0.05)  # TLS connections close in the background

    async def _answer(self, role: str, request: web.BaseRequest) -> web.StreamResponse:
        asked = parse(role, request.method, request.path, request.query)
        asked.authorization = request.headers.get("Authorization", "")
        body = await request.read()
        self.cases.fill(asked, json.loads(body) if body else None)
        self.log.append(asked)
        if asked.verb == "watch":
            return await self._stream(request, asked)
        fault = next((f for f in self._faults if f.how not in OF_STREAMS and f.takes(asked)), None)
        if fault is None:
            return await self._forward(request, asked, body)
        try:
            return await self._break(fault, request, asked, body)
        finally:
            fault.over.set()

    async def _break(
        self, fault: Fault, request: web.BaseRequest, asked: Asked, body: bytes
    ) -> web.StreamResponse:
        if fault.how in REFUSALS:
            return _refusal(fault)
        match fault.how:
            case How.CRASH_BEFORE:
                fault.strike()
            case How.CRASH_AFTER:
                await self._forward(request, asked, body)
                fault.strike()
            case How.LOSE_REPLY:
                await self._forward(request, asked, body)
            case How.DELAY:
                await asyncio.sleep(fault.seconds)
                return await self._forward(request, asked, body)
            case How.HALF_OPEN:
                await fault.lifted.wait()
            case How.STALE if stale := self._first_lists.get(asked.plural):
                return web.Response(body=stale, content_type="application/json")
            case _:  # DROP_REQUEST
                pass
        return _cut(request)

    async def _forward(
        self, request: web.BaseRequest, asked: Asked, body: bytes
    ) -> web.StreamResponse:
        assert self._upstream is not None
        try:
            async with self._upstream.request(
                request.method,
                self._plane.server_url + request.raw_path,
                data=body or None,
                headers=_headers(request),
            ) as answer:
                content = await answer.read()
        except aiohttp.ClientError:  # the API server is away
            return _cut(request)
        asked.code = answer.status
        if asked.verb == "list":
            self._first_lists.setdefault(asked.plural, content)
        headers = {name: answer.headers[name] for name in KEPT_HEADERS if name in answer.headers}
        return web.Response(status=answer.status, body=content, headers=headers)

    async def _stream(self, request: web.BaseRequest, asked: Asked) -> web.StreamResponse:
        assert self._upstream is not None
        fault = next((f for f in self._faults if f.how in REFUSALS and f.takes(asked)), None)
        if fault is not None:
            return _refusal(fault)
        try:
            async with self._upstream.get(
                self._plane.server_url + request.raw_path, headers=_headers(request)
            ) as answer:
                asked.code = answer.status
                response = web.StreamResponse(status=answer.status)
                response.content_type = answer.content_type
                await response.prepare(request)
                async for line in answer.content:
                    if not await self._pass_on(response, request, asked, line):
                        return response
                await response.write_eof()
                return response
        except (aiohttp.ClientError, ConnectionError):
            return _cut(request)

    async def _pass_on(
        self, response: web.StreamResponse, request: web.BaseRequest, asked: Asked, line: bytes
    ) -> bool:
        """Send one line of a watch on, or break the watch there; False ends it."""
        fault = next((f for f in self._faults if f.how in OF_STREAMS and f.takes(asked)), None)
        match fault:
            case None:
                await response.write(line)
                return True
            case Fault(how=How.CUT_MID_LINE):
                await response.write(line[: len(line) // 2])
            case Fault(how=How.GONE):
                status = _status(HTTPStatus.GONE, "Expired")
                await response.write(
                    json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"
                )
                await response.write_eof()
                return False
            case _:
                await fault.lifted.wait()
        _cut(request)
        return False


def _headers(request: web.BaseRequest) -> dict[str, str]:
    kept = ("Authorization", "Content-Type", "User-Agent", "Accept")
    return {name: request.headers[name] for name in kept if name in request.headers}


def _cut(request: web.BaseRequest) -> web.StreamResponse:
    """Lose the connection; what is returned goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _refusal(fault: Fault) -> web.Response:
    status, reason = REFUSALS[fault.how]
    asked_s = int(fault.seconds) or RETRY_AFTER_S
    headers = {"Retry-After": str(asked_s)} if fault.how is How.TOO_MANY else {}
    return web.json_response(_status(status, reason), status=status, headers=headers)


def _status(status: HTTPStatus, reason: str) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": reason,
        "message": "made up by the proxy of the fault tests",
        "code": status.value,
    }
