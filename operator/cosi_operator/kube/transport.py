"""Sends requests over one pool of connections, and retries those that are safe to repeat.

Requests that are retried after a pause, until the deadline:

| request        | connection lost         | 429, or any status with Retry-After | 502, 503, 504 |
| -------------- | ----------------------- | ----------------------------------- | ------------- |
| get, list      | yes                     | yes                                 | yes           |
| update, delete | yes, maybe a Conflict   | yes                                 | yes           |
| create         | no, ApiSilent           | 429 and 503                         | no            |
| watch          | never: watch.py decides |                                     |               |

An update that is sent twice can't overwrite another change, because its resourceVersion matches
only once. After a Conflict the caller reads the object again. A delete is limited to one uid. A 401
renews the credentials once. aiohttp itself retries every request except a create once, without a
pause, because an idle connection from the pool may be closed.
"""

import random
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from urllib.parse import urlencode

import aiohttp
import anyio
from aiohttp.client import _RequestContextManager
from yarl import URL

from cosi_operator.api.view import Key, Resource, is_path_segment
from cosi_operator.clock import Clock
from cosi_operator.kube.auth import CredentialError
from cosi_operator.kube.deadline import within
from cosi_operator.kube.errors import (
    ApiError,
    ApiSilent,
    NotFound,
    ReplyTooLarge,
    ServerError,
    TooManyRequests,
    Unauthorized,
    error_of,
)
from cosi_operator.kube.kubeconfig import Connection
from cosi_operator.kube.rights import Rights, call_of
from cosi_operator.kube.slots import FairSlots
from cosi_operator.settings import Backoff

type OnRequest = Callable[[str, str, int, float], None]
"""Called after each attempt: verb, plural of the resource, HTTP status (0: none), seconds."""

CONNECT_DEADLINE_S = 10.0
# The server keeps idle connections for minutes, but many load balancers close them after 60 s.
KEEPALIVE_S = 50.0
# Each TLS connection takes 256 KiB (uvloop's read buffer), so one for each of 80 workers would take
# 20 MiB. An API server processes fewer than 16 requests of one client at the same time, so a higher
# limit would only move the waiting to the server. Requests for a Lease never wait.
REQUESTS_AT_ONCE = 16
ATTEMPTS = 5
BACKOFF = Backoff(base_s=0.1, cap_s=5.0, jitter=1.0)
GATEWAY_STATUSES = (502, 503, 504)
# etcd accepts at most 1.5 MiB for each object, so a line of a real API server is always shorter.
LINE_LIMIT_BYTES = 16 * 2**20

# TCP keep-alive: the first probe is sent after 30 s without data, then one every 10 s. After three
# without a reply, the connection is closed. Otherwise a watch to a failed node waits for minutes.
PROBES = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}

METHODS = {
    "get": "GET",
    "list": "GET",
    "watch": "GET",
    "create": "POST",
    "update": "PUT",
    "delete": "DELETE",
}


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `key.name` is "" for a collection. The repr omits the body.

    A reply that is longer than `reply_limit_bytes` raises ReplyTooLarge.
    """

    verb: str
    resource: Resource
    key: Key
    subresource: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = field(default=None, repr=False)
    reply_limit_bytes: int = 0  # of a successful reply; 0: LINE_LIMIT_BYTES
    compressed: bool = True  # the server may compress the reply

    @property
    def what(self) -> str:
        """A description of the request; it contains object names but no other values."""
        target = f"{self.resource.plural}/{self.subresource}".rstrip("/")
        return f"{self.verb} {target} {self.key}".rstrip(" /")

    def url(self, server: str) -> URL:
        """Return the request's URL; raise NotFound if no object can have this name."""
        needs_name = self.verb in ("get", "update", "delete")
        for segment, needed in ((self.key.namespace, False), (self.key.name, needs_name)):
            if (needed or segment) and not is_path_segment(segment):
                raise NotFound(404, "NotFound", f"{self.what}: not a valid name")
        path = self.resource.path(self.key.namespace, self.key.name, self.subresource)
        query = urlencode({name: value for name, value in self.query.items() if value})
        return URL(f"{server}{path}{'?' if query else ''}{query}", encoded=True)


def keeping_alive(address: aiohttp.AddrInfoType) -> socket.socket:
    """Create a socket for `address` with TCP keep-alive."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family=family, type=kind, proto=protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in PROBES.items():
        if hasattr(socket, name):  # the options differ between systems
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made


def pause_before_retry(
    request: Request, failure: ApiError | ApiSilent, attempt: int, draw: float
) -> float | None:
    """Return the seconds to wait before the next attempt; None if there must be none.

    `attempt` counts from 1. `draw` is random in [0, 1). The module's docstring gives the rules.
    """
    creates = request.verb == "create"
    asked_s: float | None = None
    match failure:
        case ApiSilent():
            again = not creates
        case TooManyRequests(retry_after_s=asked_s):
            again = True
        case ServerError(retry_after_s=asked_s, status=status):
            if creates:
                # With 503 and Retry-After, the server states that it did not process the request.
                again = status == 503 and asked_s is not None
            else:
                again = status in GATEWAY_STATUSES or asked_s is not None
        case _:
            again = False
    if not again or attempt >= ATTEMPTS:
        return None
    backoff_s = BACKOFF.pause_s(attempt, draw)
    # The backoff's jitter spreads the retries of clients that received the same Retry-After.
    return backoff_s if asked_s is None else asked_s + backoff_s


class Transport:
    """Sends requests over one aiohttp session. Create it within a running event loop."""

    def __init__(
        self,
        connection: Connection,
        *,
        clock: Clock,
        user_agent: str,
        timeout_s: float,
        on_request: OnRequest | None,
    ) -> None:
        """`timeout_s` bounds a request, including all its attempts and pauses."""
        self._connection = connection
        self._clock = clock
        self._timeout_s = timeout_s
        self._on_request = on_request
        self.rights = Rights(clock)
        self._rng = random.Random()  # noqa: S311 - not for security, only for jitter
        self._slots = FairSlots(REQUESTS_AT_ONCE)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=connection.tls or True,
                limit=0,
                keepalive_timeout=KEEPALIVE_S,
                socket_factory=keeping_alive,
            ),
            headers={"Accept": "application/json", "User-Agent": user_agent},
            # Each request has its own deadline. A total timeout here would also end watches.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_DEADLINE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        await self._session.close()

    async def send(self, request: Request) -> bytes:
        """Send a request, retry it if the module's table permits, and return the reply's body.

        Raises:
            ApiError: the server refused the request. ApiSilent: there was no usable reply.
        """
        url = request.url(self._connection.server)
        started_s = self._clock.monotonic()
        attempt, renewed = 1, False
        while True:
            left_s = self._timeout_s - (self._clock.monotonic() - started_s)
            header = await self._authorization(request, left_s)
            left_s = self._timeout_s - (self._clock.monotonic() - started_s)
            try:
                return await self._attempt(request, url, header, left_s)
            except Unauthorized:
                if renewed or not self._connection.credentials.reject(header):
                    raise
                renewed = True
            except ReplyTooLarge:
                raise
            except (ApiError, ApiSilent) as failure:
                pause_s = pause_before_retry(request, failure, attempt, self._rng.random())
                if pause_s is None or self._clock.monotonic() - started_s + pause_s >= (
                    self._timeout_s
                ):
                    raise
                await self._clock.sleep(pause_s)
                attempt += 1

    @asynccontextmanager
    async def stream(
        self, request: Request, *, limit_s: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a watch and yield its lines. One attempt, and a second one after a 401.

        Raises (also while reading a line):
            ApiError: the server refused the watch.
            ApiSilent: the stream was cut or did not end within `limit_s`.
        """
        url = request.url(self._connection.server)
        header = await self._authorization(request, self._timeout_s)
        try:
            response = await self._open(request, url, header)
        except Unauthorized:
            if not self._connection.credentials.reject(header):
                raise
            header = await self._authorization(request, self._timeout_s)
            response = await self._open(request, url, header)
        lines = _lines(response, self._clock, limit_s, request.what)
        try:
            yield lines
        finally:
            response.close()  # close the connection, because unread data may follow
            await lines.aclose()

    async def _authorization(self, request: Request, left_s: float) -> str:
        try:
            with anyio.fail_after(left_s):
                return await self._connection.credentials.authorization()
        except CredentialError as error:
            raise Unauthorized(401, "NoCredentials", f"{request.what}: {error}") from None
        except TimeoutError:
            raise ApiSilent(f"{request.what}: reading the credentials timed out") from None

    async def _attempt(self, request: Request, url: URL, header: str, left_s: float) -> bytes:
        started_s = self._clock.monotonic()
        status = 0
        try:
            with anyio.fail_after(left_s):
                async with self._slot(request), self._start(request, url, header) as response:
                    body = await _read(response, request)
            status = response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _silent(request, error) from None
        finally:
            self._count(request, status, started_s)
        if 200 <= status < 300:
            self._note_right(request)
            return body
        raise self._refused(request, response, body)

    def _slot(self, request: Request) -> AbstractAsyncContextManager[None]:
        return nullcontext() if request.resource.plural == "leases" else self._slots

    async def _open(self, request: Request, url: URL, header: str) -> aiohttp.ClientResponse:
        started_s = self._clock.monotonic()
        status = 0
        try:
            with anyio.fail_after(self._timeout_s):
                response = await self._start(request, url, header)
                if response.status != 200:
                    async with response:
                        body = await response.read()
            status = response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _silent(request, error) from None
        finally:
            self._count(request, status, started_s)
        if status == 200:
            self._note_right(request)
            return response
        raise self._refused(request, response, body)

    def _start(self, request: Request, url: URL, header: str) -> _RequestContextManager:
        headers = {"Authorization": header} if header else {}
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        if not request.compressed:
            headers["Accept-Encoding"] = "identity"
        return self._session.request(
            METHODS[request.verb],
            url,
            data=request.body,
            headers=headers,
            allow_redirects=False,  # never send the token to another server
            server_hostname=self._connection.tls_server_name,
            proxy=self._connection.proxy,
        )

    def _note_right(self, request: Request, error: ApiError | None = None) -> None:
        call = call_of(request.verb, request.resource, request.subresource)
        self.rights.answered(call, request.key.namespace, error)

    def _refused(self, request: Request, response: aiohttp.ClientResponse, body: bytes) -> ApiError:
        error = _refusal(request, response, body)
        self._note_right(request, error)
        return error

    def _count(self, request: Request, status: int, started_s: float) -> None:
        if self._on_request is not None:
            elapsed_s = self._clock.monotonic() - started_s
            self._on_request(request.verb, request.resource.plural, status, elapsed_s)


async def _read(response: aiohttp.ClientResponse, request: Request) -> bytes:
    """Read the body; raise ReplyTooLarge, and stop reading, if it exceeds the request's limit."""
    limit = request.reply_limit_bytes or LINE_LIMIT_BYTES
    parts: list[bytes] = []
    length = 0
    while chunk := await response.content.readany():
        length += len(chunk)
        if length > limit:
            response.close()
            raise ReplyTooLarge(f"{request.what}: the reply is longer than {limit} bytes")
        parts.append(chunk)
    return b"".join(parts)


async def _lines(
    response: aiohttp.ClientResponse, clock: Clock, limit_s: float, what: str
) -> AsyncGenerator[bytes]:
    """Yield the lines of a watch, split only at byte 0x0A (JSON may contain U+0085 and U+2028)."""
    pending = bytearray()
    # The limit counts from the start, because a late line must not prolong a half-open watch.
    end_s = clock.monotonic() + limit_s
    while True:
        try:
            chunk = await within(clock, end_s - clock.monotonic(), response.content.readany)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ApiSilent(f"{what}: {_cause(error)}") from None
        if not chunk:
            break
        *complete, rest = chunk.split(b"\n")
        for line in complete:
            pending += line
            if pending:
                yield bytes(pending)
                pending.clear()
        pending += rest
        if len(pending) > LINE_LIMIT_BYTES:
            raise ApiSilent(f"{what}: a line is longer than {LINE_LIMIT_BYTES} bytes")
    if pending:
        raise ApiSilent(f"{what}: the stream ended within a line")


def _refusal(request: Request, response: aiohttp.ClientResponse, body: bytes) -> ApiError:
    resource = request.resource
    return error_of(
        response.status,
        body,
        what=request.what,
        confidential=resource.group == "" and resource.plural == "secrets" and _has_data(request),
        retry_after_s=_retry_after_s(response.headers.get("Retry-After")),
    )


def _has_data(request: Request) -> bool:
    """Whether the body may contain a credential. The body of a dry run contains only names."""
    return request.body is not None and "dryRun" not in request.query


def _retry_after_s(value: str | None) -> float | None:
    """Parse Retry-After in seconds. A date is ignored, because the API server never sends one."""
    if value is None or not (value.isascii() and value.isdigit()):
        return None
    return float(value)


def _silent(request: Request, error: Exception) -> ApiSilent:
    return ApiSilent(f"{request.what}: {_cause(error)}")


def _cause(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientResponseError):
        # The error's text quotes the URL, and the URL of a proxy may contain a password.
        return f"{type(error).__name__}: {error.status} {error.message}"[:256]
    return f"{type(error).__name__}: {error}".rstrip(": ")[:256]
