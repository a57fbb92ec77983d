"""The verbs of the API server over kr8s: raw JSON in and out, for `cosi` and the SDK.

Requests go through `call_api` with `raise_for_status=False`: otherwise an API object that the SDK
did not make answers each 403 with three new logins and a new connection pool, which ends all other
requests. The errors are those of `kube/errors.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import kr8s.asyncio
import msgspec
from msgspec import Raw, Struct

from cosi_operator.api.view import Key, Resource, is_path_segment
from cosi_operator.clock import Clock, RealClock
from cosi_operator.kube.errors import NotFound, error_of
from cosi_operator.scrub import shown_name
from cosi_operator.scrub.hidden import Hidden
from cosi_operator.sdk.answer import answered, decoded
from cosi_operator.sdk.api_objects import AsyncApi

PAGE = 500
# A busy API server answers 429 or 503, and names the wait. client-go repeats such requests too.
BUSY = (429, 503)
BUSY_TRIES = 3
LONGEST_WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list. `continue_token` is "" on the last page."""

    items: tuple[bytes, ...] = field(repr=False)
    continue_token: str


class _ListMeta(Struct, rename={"continue_token": "continue"}):
    continue_token: str = ""


class _List(Hidden):
    metadata: _ListMeta
    items: list[Raw] | None = None


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    verb: str
    resource: Resource
    key: Key
    params: Mapping[str, str] | None = None
    body: bytes | None = field(default=None, repr=False)

    @property
    def words(self) -> str:
        """The request for messages; holds no value of an object."""
        what, key = f"{self.verb} {self.resource.plural}", self.key
        if key.name:
            return f"{what} {key}"
        return f"{what} in {key.namespace}" if key.namespace and self.resource.namespaced else what

    def check(self) -> None:
        """Raise NotFound if no object can have this name; a spec can name anything."""
        needs_name = self.verb != "list"
        for segment, needed in ((self.key.namespace, False), (self.key.name, needs_name)):
            if (needed or segment) and not is_path_segment(segment):
                what = f"{self.verb} {self.resource.plural} {shown_name(segment)}"
                raise NotFound(404, "NotFound", f"{what}: no object can have this name")


class _Meta(Struct):
    name: str
    namespace: str | None = None


class _Named(Struct):
    metadata: _Meta


_decode_list = msgspec.json.Decoder(_List).decode
_decode_named = msgspec.json.Decoder(_Named).decode


def _checked(raw: bytes) -> None:
    """Raise ValueError or RecursionError unless it is the JSON of an object with a name."""
    raw.decode()  # msgspec skips what it does not need, also what is not UTF-8
    _decode_named(raw)


class Client:
    """Reads and writes objects with one kr8s API object."""

    def __init__(self, api: kr8s.asyncio.Api, clock: Clock | None = None) -> None:
        self._api = api
        self._clock = clock or RealClock()

    @property
    def default_namespace(self) -> str:
        """The namespace of the kubeconfig's context, or of the service account."""
        return self._api.namespace

    async def get(self, resource: Resource, key: Key) -> bytes:
        """The object's JSON.

        Raises:
            ApiError: NotFound and the others of kube/errors.py. ApiSilent: no answer. So all verbs.
        """
        request = _Request("GET", "get", resource, key)
        body = await self._send(request)
        decoded(request.words, body, _checked)
        return body

    async def list(
        self,
        resource: Resource,
        *,
        namespace: str = "",
        continue_token: str = "",
        selectors: Mapping[str, str] | None = None,
    ) -> Page:
        """One page of the objects of a kind; an empty namespace means all namespaces."""
        params = {"limit": str(PAGE), **(selectors or {})}
        if continue_token:
            params["continue"] = continue_token
        request = _Request("GET", "list", resource, Key(namespace, ""), params)
        page = decoded(request.words, await self._send(request), _decode_list)
        items = tuple(bytes(item) for item in page.items or ())
        return Page(items, page.metadata.continue_token)

    async def update(self, resource: Resource, body: Mapping[str, Any]) -> bytes:
        """Replace the object, if it still has the resourceVersion of `body`; return the result.

        Raises:
            Conflict: the object has changed since.
        """
        metadata = body["metadata"]
        key = Key(metadata.get("namespace", ""), metadata["name"])
        request = _Request("PUT", "update", resource, key, body=msgspec.json.encode(body))
        return await self._send(request)

    async def _send(self, request: _Request) -> bytes:
        request.check()
        response = await self._respond(request)
        if response.status_code == httpx.codes.UNAUTHORIZED and not isinstance(self._api, AsyncApi):
            await answered(request.words, self._renew)
            response = await self._respond(request)
        for _ in range(BUSY_TRIES):
            if response.status_code not in BUSY or (wait_s := _retry_after_s(response)) is None:
                break
            await self._clock.sleep(min(wait_s, LONGEST_WAIT_S))
            response = await self._respond(request)
        if response.is_success:
            return response.content
        raise error_of(
            response.status_code,
            response.content,
            what=request.words,
            confidential=request.resource.kind == "Secret",
        )

    async def _respond(self, request: _Request) -> httpx.Response:
        resource, key = request.resource, request.key

        async def respond() -> httpx.Response:
            async with self._api.call_api(
                request.method,
                version=resource.api_version,
                namespace=key.namespace if resource.namespaced else None,
                url=f"{resource.plural}/{key.name}".rstrip("/"),
                raise_for_status=False,
                params=request.params,
                content=request.body,
            ) as response:
                return response

        return await answered(request.words, respond)

    async def _renew(self) -> None:
        """Log in again, and open new connections: httpx sends the headers of a session."""
        await self._api.auth.reauthenticate()
        await self._api._create_session()


def _retry_after_s(response: httpx.Response) -> float | None:
    try:
        return max(0.0, float(response.headers.get("Retry-After", "")))
    except ValueError:
        return None
