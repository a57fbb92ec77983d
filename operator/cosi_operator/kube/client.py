"""The Kubernetes API client: one method for each verb, with raw JSON in and out, without patch.

Drivers' roles often lack `patch`, so every write is a PUT with a resourceVersion, a create, or a
delete with a uid. This module does not use kr8s, because kr8s is 7 to 20 times slower than aiohttp
and closes the connections of all other requests after a 403. transport.py defines the deadlines and
the retries, errors.py the errors.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import msgspec
from msgspec import Raw, Struct

from cosi_operator.api.view import Key, Resource
from cosi_operator.clock import Clock
from cosi_operator.kube.errors import ApiSilent, ReplyTooLarge
from cosi_operator.kube.kubeconfig import Connection, Sources, load
from cosi_operator.kube.request import Request
from cosi_operator.kube.rights import Rights
from cosi_operator.kube.transport import OnRequest, Transport

REQUEST_DEADLINE_S = 30.0
# A watch that is still open this long after its server-side timeout is half-open.
IDLE_MARGIN_S = 5.0
# 500 typical COSI objects take 1 MiB, but tenants can create objects of up to 1.5 MiB (etcd's
# limit). So the first page has few items, the next pages have more while the replies stay small,
# and a page that is too large is requested again with fewer items.
PAGE_LIMIT_BYTES = 4 * 2**20
FIRST_PAGE = 125
PAGE_GROWTH = 4


@dataclass(frozen=True, slots=True)
class ListPage:
    """One page of a list. Each item is JSON, possibly without apiVersion and kind.

    `continue_token` is "" on the last page. `resource_version` is the same on all pages.
    """

    items: tuple[bytes, ...]
    resource_version: str
    continue_token: str


class _ListMeta(Struct, rename={"continue_token": "continue", "version": "resourceVersion"}):
    version: str = ""
    continue_token: str = ""


class _List(Struct):
    metadata: _ListMeta
    items: list[Raw] | None = None


_decode_list = msgspec.json.Decoder(_List).decode
_encode = msgspec.json.Encoder().encode


class KubeClient:
    """A pool of connections to one API server. Close it, or use it as a context manager."""

    def __init__(
        self,
        connection: Connection,
        *,
        clock: Clock,
        user_agent: str,
        timeout_s: float = REQUEST_DEADLINE_S,
        on_request: OnRequest | None = None,
    ) -> None:
        """Call within a running event loop. To read the configuration too, call `connect`.

        `timeout_s` bounds each request, including all its attempts and pauses.
        """
        # Limits memory: only one whole huge object (`trim.is_partial`) is read at a time.
        self.huge_objects = asyncio.Semaphore(1)
        self._page_limits: dict[Resource, int] = {}
        self._connection = connection
        self._transport = Transport(
            connection,
            clock=clock,
            user_agent=user_agent,
            timeout_s=timeout_s,
            on_request=on_request,
        )

    @classmethod
    async def connect(
        cls,
        kubeconfig: str | None = None,
        *,
        clock: Clock,
        user_agent: str,
        on_request: OnRequest | None = None,
    ) -> Self:
        """Create a client from the configuration (see kubeconfig.py). Sends no request.

        Raises:
            KubeconfigError: the configuration is missing or can't be used.
        """
        connection = await load(Sources(kubeconfig, os.environ), clock)
        return cls(connection, clock=clock, user_agent=user_agent, on_request=on_request)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections. The tasks that use them must have ended."""
        await self._transport.close()

    @property
    def default_namespace(self) -> str:
        """The namespace of the kubeconfig's context or of the service account, else "default"."""
        return self._connection.namespace

    @property
    def rights(self) -> Rights:
        """The rights that this client lacks, according to the refusals so far."""
        return self._transport.rights

    async def get(self, resource: Resource, key: Key) -> bytes:
        """Return the object's JSON.

        Raises:
            ApiError: NotFound or another refusal (errors.py); all verbs raise these.
            ApiSilent: there was no usable reply; all verbs raise this.
        """
        return await self._transport.send(Request("get", resource, key))

    async def create(
        self,
        resource: Resource,
        body: Mapping[str, Any],
        *,
        namespace: str = "",
        dry_run: bool = False,
    ) -> bytes:
        """Create an object; return the stored JSON. After ApiSilent or ServerError it may exist.

        `dry_run`: the server checks the request (rights, admission, quota) and stores nothing.
        """
        return await self._transport.send(
            Request(
                "create",
                resource,
                Key(namespace, ""),
                query={"dryRun": "All"} if dry_run else {},
                body=_encode(body),
            )
        )

    async def update(
        self, resource: Resource, body: Mapping[str, Any], *, subresource: str = ""
    ) -> bytes:
        """Replace the object (or one subresource); return the stored JSON.

        The request is retried after a lost connection, so its own first attempt may have caused a
        Conflict.

        Raises:
            ValueError: `body` has no metadata.resourceVersion, so it would overwrite any changes.
        """
        metadata = body.get("metadata") or {}
        if not metadata.get("resourceVersion"):
            raise ValueError(f"update of {resource.plural} without a resourceVersion")
        key = Key(metadata.get("namespace", ""), metadata.get("name", ""))
        return await self._transport.send(
            Request("update", resource, key, subresource=subresource, body=_encode(body))
        )

    async def delete(
        self, resource: Resource, key: Key, *, uid: str, resource_version: str | None = None
    ) -> bytes:
        """Delete the object only if it has this `uid` (and `resource_version`).

        Returns:
            The current object while it has finalizers; a Status when it no longer exists.
        Raises:
            ValueError: `uid` is empty, so a later object with the same name could be deleted.
            NotFound: the object no longer exists.
            Conflict: another object has the name, or the object has changed.
        """
        if not uid:
            raise ValueError(f"delete of {resource.plural} {key} without a uid")
        preconditions = {"uid": uid}
        if resource_version is not None:
            preconditions["resourceVersion"] = resource_version
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": preconditions,
            "propagationPolicy": "Background",
        }
        return await self._transport.send(Request("delete", resource, key, body=_encode(options)))

    async def list(
        self,
        resource: Resource,
        *,
        namespace: str = "",
        limit: int = 500,
        continue_token: str = "",
    ) -> ListPage:
        """Return one page of the most recent list.

        Raises:
            Expired: the continue token is too old; list again from the first page.
        """
        body = await self._page(resource, namespace, limit, continue_token)
        try:
            page = _decode_list(body)
        except msgspec.DecodeError as error:
            raise ApiSilent(f"list {resource.plural}: {error}") from None
        return ListPage(
            # Copy each item, because a Raw would keep the whole page in memory.
            tuple(bytes(item) for item in page.items or ()),
            page.metadata.version,
            page.metadata.continue_token,
        )

    async def _page(self, resource: Resource, namespace: str, limit: int, token: str) -> bytes:
        """Return a page of at most PAGE_LIMIT_BYTES, or one with a single larger object."""
        at_once = min(limit, self._page_limits.get(resource, FIRST_PAGE))
        while True:
            query = {"limit": str(at_once), "continue": token}
            request = Request(
                "list",
                resource,
                Key(namespace, ""),
                query=query,
                reply_limit_bytes=PAGE_LIMIT_BYTES if at_once > 1 else 0,
                # Not compressed when objects are huge, because that takes longer than sending.
                compressed=at_once >= min(limit, FIRST_PAGE),
            )
            try:
                body = await self._transport.send(request)
            except ReplyTooLarge:
                at_once = max(1, at_once // PAGE_GROWTH)
                continue
            room = max(1, PAGE_LIMIT_BYTES // (len(body) + 1))
            self._page_limits[resource] = min(limit, at_once * min(room, PAGE_GROWTH))
            return body

    def watch(
        self,
        resource: Resource,
        *,
        namespace: str = "",
        resource_version: str,
        timeout_s: float,
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Open a watch with bookmarks; yields its lines as raw JSON, without the newline.

        The iterator ends when the server ends the watch properly (after `timeout_s`).

        Raises:
            ApiError: the server refused the watch.
            ApiSilent: the stream was cut, maybe within a line, or did not end within `timeout_s`
                + 5 s. Entering the context and reading a line raise both.
        """
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(max(1, int(timeout_s))),
        }
        return self._transport.stream(
            Request("watch", resource, Key(namespace, ""), query=query),
            limit_s=timeout_s + IDLE_MARGIN_S,
        )
