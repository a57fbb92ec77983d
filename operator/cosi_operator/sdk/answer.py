"""Turns whatever the HTTP library or kr8s raises into the errors that the SDK documents.

No text, argument or context of these errors is that of a library: those can quote a credential, or
what a server or a plugin wrote.
"""

import json
import os
import re
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing

import httpx
import kr8s
import msgspec

from cosi_operator.kube.errors import ApiError, ApiSilent, ReplyTooLarge, error_of
from cosi_operator.kube.kubeconfig_merge import KubeconfigError
from cosi_operator.scrub import scrub

REQUEST_TIMEOUT_S = 30.0
DOCUMENTED = (ApiError, ApiSilent, KubeconfigError, kr8s.NotFoundError)
# What a wrong argument of a caller can raise too, before kr8s sends the request.
_AMBIGUOUS = (TypeError, AttributeError, LookupError, ValueError, AssertionError)
# What follows is what the server wrote, quoted by h11 and by httpx.
_QUOTED = re.compile(r": bytearray\(| in location header: ")
_NO_JSON = (json.JSONDecodeError, UnicodeDecodeError, RecursionError, msgspec.DecodeError)


class BadAnswer(ApiSilent, httpx.TransportError):
    """The server sent something that no API server sends. The text quotes nothing of it.

    As an ApiSilent, it is documented where methods of kr8s raise it without the SDK in between.
    """


class AnswerTooLarge(BadAnswer, ReplyTooLarge):
    """The answer is larger than a program should hold."""


async def answered[T](
    what: str, call: Callable[[], Awaitable[T]], *, confidential: bool = False, ours: bool = True
) -> T:
    """Send the request that `what` names.

    Args:
        what: for messages; without values of an object.
        call: sends it, and returns its result.
        confidential: the server's message is not quoted.
        ours: `call` has no arguments of the SDK's caller, so each of its errors is the server's.
    Raises:
        ApiError, ApiSilent: the server refused, or gave no usable answer. KubeconfigError,
        kr8s.NotFoundError: as `call`.
    """
    try:
        return await call()
    except Exception as error:
        failure = failure_of(error, what, confidential=confidential, ours=ours)
        if failure is None:
            raise
    raise without_context(failure)  # outside of `except`, which would add the library's error


async def each_answered[T](what: str, found: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """The same for a generator of kr8s."""
    async with aclosing(found):
        while (item := await answered(what, lambda: anext(found, None), ours=False)) is not None:
            yield item


def failure_of(
    error: Exception, what: str, *, confidential: bool = False, ours: bool = True
) -> Exception | None:
    """The documented error for this one; None if it can be a fault of the caller."""
    if isinstance(error, BadAnswer):
        kind = ReplyTooLarge if isinstance(error, AnswerTooLarge) else ApiSilent
        return kind(f"{what}: {error}")
    if isinstance(error, DOCUMENTED):
        return error
    if (response := _response_of(error)) is not None:
        try:
            body = response.content
        except httpx.StreamError:  # of a watch
            body = b""
        return error_of(response.status_code, body, what=what, confidential=confidential)
    if not ours and isinstance(error, _AMBIGUOUS) and not isinstance(error, _NO_JSON):
        return None
    return ApiSilent(f"{what}: {cause_of(error)}")


def without_context[E: BaseException](error: E) -> E:
    """The error without those that it was raised for."""
    error.__cause__ = error.__context__ = None
    return error


def decoded[R, T](what: str, raw: R, decode: Callable[[R], T]) -> T:
    """Decode an answer, or what an object of kr8s holds of one.

    Raises:
        ApiSilent: it has another shape.
    """
    try:
        return decode(raw)
    except (ValueError, RecursionError, OverflowError) as error:  # OverflowError: a long number
        words = unreadable(error)
    raise ApiSilent(f"{what}: {words}")


def unreadable(error: Exception) -> str:
    """Why a JSON text can't be used; quotes nothing of it."""
    match error:
        case msgspec.ValidationError():  # names the field and the type
            return f"not readable: {error}"
        case RecursionError():
            return "not readable: it is nested too deeply"
        case _:
            return "the answer is not JSON"


def cause_of(error: BaseException) -> str:
    """Why there is no answer, in the words of the operating system or of TLS; no header."""
    match error:
        case TimeoutError() | kr8s.APITimeoutError() | httpx.TimeoutException():
            return f"no answer within {REQUEST_TIMEOUT_S:g} s"
        case httpx.ProxyError():  # its text is what the proxy wrote
            return _refusal_of_proxy(str(error))
        case httpx.LocalProtocolError():  # its text quotes the header
            return "a credential has characters that no HTTP header can hold"
        case kr8s.ServerError():
            return "no response"
        case json.JSONDecodeError() | UnicodeDecodeError() | RecursionError():
            return unreadable(error)
        case _:
            return _cause_in(error)


def _cause_in(error: BaseException) -> str:
    inner = error  # the words of the libraries are vague: "All connection attempts failed"
    for inner in _chain(error):  # noqa: B007 - the last one
        pass
    while isinstance(inner, ExceptionGroup):  # one for each address of the server
        inner = inner.exceptions[0]
    if isinstance(inner, ConnectionError) and inner.errno:
        return os.strerror(inner.errno)  # the error's own text is one of asyncio
    if isinstance(inner, OSError) and not isinstance(inner, ssl.SSLError) and inner.strerror:
        return inner.strerror
    if isinstance(error, httpx.HTTPError | ssl.SSLError):
        said = _QUOTED.split(str(error))[0]
        return scrub(said) or type(error).__name__
    return type(error).__name__


def _refusal_of_proxy(said: str) -> str:
    code = said.partition(" ")[0]
    if not (code.isascii() and code.isdigit() and len(code) == 3):
        return "the proxy refused the connection"
    return f"the proxy refused the connection with status {code}"


def _response_of(error: BaseException) -> httpx.Response | None:
    """The server's refusal, which kr8s can fail to read."""
    for each in _chain(error):
        if isinstance(each, httpx.HTTPStatusError | kr8s.ServerError) and each.response is not None:
            return each.response
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    inner: BaseException | None = error
    while inner is not None and id(inner) not in seen:
        seen.add(id(inner))
        yield inner
        inner = inner.__cause__ or inner.__context__
