"""The HTTP session of the SDK: every request has a deadline, and every answer a size."""

from collections.abc import Mapping
from typing import Any

import anyio
import httpx
import msgspec
from msgspec import Struct

from cosi_operator.sdk.answer import REQUEST_TIMEOUT_S, BadAnswer, unreadable

BODY_LIMIT_BYTES = 64 << 20
REDIRECTS = 5
ENCODINGS = ("", "identity", "gzip")
COSI = "/apis/objectstorage.k8s.io/"
_OF_TRANSFER = ("content-encoding", "content-length", "transfer-encoding")


class _Status(Struct):
    """The answer to a DELETE; any JSON object."""


class _Answer(Struct):
    """What objects, lists and tables have in common."""

    metadata: Mapping[str, Any]


_decode_status = msgspec.json.Decoder(_Status).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode


class Session(httpx.AsyncClient):
    """Answers that are streamed (watches, logs) have no deadline and no limit."""

    async def send(
        self, request: httpx.Request, *, stream: bool = False, **options: Any
    ) -> httpx.Response:
        """Send a request, and read the answer.

        Raises:
            httpx.ReadTimeout: the answer was not complete in time, however often some of it came.
            BadAnswer: it is too large, or not what an API server sends.
        """
        if stream:
            return await super().send(request, stream=True, **options)
        response = None
        with anyio.move_on_after(REQUEST_TIMEOUT_S):
            response = await self._read(request, **{**options, "follow_redirects": False})
        if response is None:
            raise httpx.ReadTimeout("the answer was not complete in time")
        if response.is_success and response.url.path.startswith(COSI):
            _check(response.content, is_delete=request.method == "DELETE")
        return response

    async def _read(self, request: httpx.Request, **options: Any) -> httpx.Response:
        for _ in range(1 + REDIRECTS):
            response = await super().send(request, stream=True, **options)
            try:
                if response.next_request is None:
                    return await _complete(response)
                request = response.next_request
            finally:
                await response.aclose()
        raise BadAnswer(f"more than {REDIRECTS} redirects")


def _check(body: bytes, *, is_delete: bool) -> None:
    try:
        body.decode()  # msgspec skips what it does not need, also what is not UTF-8
        (_decode_status if is_delete else _decode_answer)(body)
    except (ValueError, RecursionError) as error:
        raise BadAnswer(unreadable(error)) from None


async def _complete(response: httpx.Response) -> httpx.Response:
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ENCODINGS:  # others can be a thousand times larger after each read
        raise BadAnswer("the answer has a Content-Encoding that was not asked for")
    parts, size = [], 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > BODY_LIMIT_BYTES:
            raise BadAnswer(f"the answer is larger than {BODY_LIMIT_BYTES >> 20} MiB")
        parts.append(part)
    headers = [
        each for each in response.headers.raw if each[0].lower().decode() not in _OF_TRANSFER
    ]
    return httpx.Response(
        response.status_code, headers=headers, content=b"".join(parts), request=response.request
    )
