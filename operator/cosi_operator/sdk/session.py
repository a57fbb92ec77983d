"""The HTTP session of the SDK: every request has a deadline, and every answer a size."""

import re
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import httpx
import msgspec
from msgspec import Struct

from cosi_operator.scrub.hidden import Hidden
from cosi_operator.sdk.answer import REQUEST_TIMEOUT_S, AnswerTooLarge, BadAnswer, unreadable

BODY_LIMIT_BYTES = 64 << 20
REDIRECTS = 5
ENCODINGS = ("", "identity", "gzip")
# Objects and lists. What lists the kinds of a group has no metadata.
OBJECTS = re.compile(r".*/apis/objectstorage\.k8s\.io/[^/]+/.")
_OF_TRANSFER = ("content-encoding", "content-length", "transfer-encoding")


class _Status(Struct):
    """The answer to a DELETE; any JSON object."""


class _Meta(Struct):
    name: str | None = None
    namespace: str | None = None


class _Answer(Hidden):
    """What objects, lists and tables have in common."""

    metadata: _Meta


_decode_status = msgspec.json.Decoder(_Status).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode


class Session(httpx.AsyncClient):
    """Answers that are streamed (watches, logs) have no deadline and no limit, unless refused."""

    def __init__(self, **options: Any) -> None:
        """As httpx.AsyncClient."""
        super().__init__(**options)
        self._running = 0
        self._streams: list[httpx.Response] = []
        self._is_retired = False

    async def retire(self) -> None:
        """Close it once no request is under way; for a stream, this has to be called again."""
        self._is_retired = True
        if not self._running and all(response.is_closed for response in self._streams):
            await self.aclose()

    async def send(
        self, request: httpx.Request, *, stream: bool = False, **options: Any
    ) -> httpx.Response:
        """Send a request, and read the answer.

        Raises:
            httpx.ReadTimeout: the answer was not complete in time, however often some of it came.
            BadAnswer: it is too large, or not what an API server sends.
        """
        if stream:
            self._streams = [each for each in self._streams if not each.is_closed]
            streamed = await super().send(request, stream=True, **options)
            if not streamed.is_error:
                self._streams.append(streamed)
                return streamed
            return await self._in_time(request, lambda: _read_refusal(streamed))
        response = await self._in_time(
            request, lambda: self._read(request, **{**options, "follow_redirects": False})
        )
        if response.is_success and OBJECTS.match(request.url.path):
            _check(response.content, is_delete=request.method == "DELETE")
        return response

    async def _in_time(
        self, request: httpx.Request, read: Callable[[], Awaitable[httpx.Response]]
    ) -> httpx.Response:
        response = None
        self._running += 1
        try:
            with anyio.move_on_after(_time_for(request)):
                response = await read()
        finally:
            self._running -= 1
            if self._is_retired:
                with anyio.CancelScope(shield=True):
                    await self.retire()
        if response is None:
            raise httpx.ReadTimeout("the answer was not complete in time")
        return response

    async def _read(self, request: httpx.Request, **options: Any) -> httpx.Response:
        for _ in range(1 + REDIRECTS):
            response = await super().send(request, stream=True, **options)
            try:
                # A redirected write would be sent as a GET, or to a login page.
                if response.next_request is None or request.method != "GET":
                    return await _complete(response)
                request = response.next_request
            finally:
                await response.aclose()
        raise BadAnswer(f"more than {REDIRECTS} redirects")


def _time_for(request: httpx.Request) -> float:
    """The seconds for a request: REQUEST_TIMEOUT_S, or more if the caller of kr8s asks for more."""
    asked = request.extensions.get("timeout", {}).get("read")
    return max(REQUEST_TIMEOUT_S, asked or 0.0)


def _check(body: bytes, *, is_delete: bool) -> None:
    try:
        body.decode()  # msgspec skips what it does not need, also what is not UTF-8
        (_decode_status if is_delete else _decode_answer)(body)
    except (ValueError, RecursionError) as error:
        problem = unreadable(error)
    else:
        return
    raise BadAnswer(problem)


async def _read_refusal(response: httpx.Response) -> httpx.Response:
    try:
        return await _complete(response)
    finally:
        await response.aclose()


async def _complete(response: httpx.Response) -> httpx.Response:
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ENCODINGS:  # others can be a thousand times larger after each read
        raise BadAnswer("the answer has a Content-Encoding that was not asked for")
    parts, size = [], 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > BODY_LIMIT_BYTES:
            raise AnswerTooLarge(
                f"the answer is larger than {BODY_LIMIT_BYTES >> 20} MiB; ask for less, for"
                " instance for one namespace, or for the objects with a label"
            )
        parts.append(part)
    headers = [
        each for each in response.headers.raw if each[0].lower().decode() not in _OF_TRANSFER
    ]
    return httpx.Response(
        response.status_code, headers=headers, content=b"".join(parts), request=response.request
    )
