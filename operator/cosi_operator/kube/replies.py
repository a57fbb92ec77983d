"""Reads the replies of the API server, within limits, and turns failures into errors."""

from collections.abc import AsyncGenerator

import aiohttp

from cosi_operator.clock import Clock
from cosi_operator.kube.deadline import within
from cosi_operator.kube.errors import ApiError, ApiSilent, ReplyTooLarge, error_of
from cosi_operator.kube.request import LINE_LIMIT_BYTES, Request


async def read_body(response: aiohttp.ClientResponse, request: Request) -> bytes:
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


async def read_lines(
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


def refusal_of(request: Request, response: aiohttp.ClientResponse, body: bytes) -> ApiError:
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


def silence_of(request: Request, error: Exception) -> ApiSilent:
    return ApiSilent(f"{request.what}: {_cause(error)}")


def _cause(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientResponseError):
        # The error's text quotes the URL, and the URL of a proxy may contain a password.
        return f"{type(error).__name__}: {error.status} {error.message}"[:256]
    return f"{type(error).__name__}: {error}".rstrip(": ")[:256]
