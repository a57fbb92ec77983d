"""The verbs of the API server: raw JSON in and out, and no patch.

Drivers' roles often lack `patch`, so every write is a PUT with a resourceVersion, or a create,
or a delete with a uid. kr8s is not used here: it is 7 to 20 times slower than aiohttp, and it
answers a 403 by closing the connections of everyone else. Deadlines and what is tried again:
transport.py; errors: errors.py.
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
from cosi_operator.kube.rights import Rights
from cosi_operator.kube.transport import OnRequest, Request, Transport

REQUEST_DEADLINE_S = 30.0
# A watch that goes on after its own end is half-open: the other side is gone.
IDLE_MARGIN_S = 5.0
# 500 objects of ours take 1 MiB, but tenants can make each as large as etcd takes, 1.5 MiB. So
# pages begin small and grow while they stay small, and a page that is too large is asked for in
# parts.
PAGE_LIMIT_BYTES = 4 * 2**20
FIRST_PAGE = 125
PAGE_GROWTH = 4


@dataclass(frozen=True, slots=True)
class ListPage:
    """One page of a list. Each item is its JSON, where apiVersion and kind may be missing.

    `continue_token` is "" on the last page; `resource_version` is the same on all of them.
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
    """One pool of connections to one API server. Close it, or use it as a context manager."""

    def __init__(
        self,
        connection: Connection,
        *,
        clock: Clock,
        user_agent: str,
        timeout_s: float = REQUEST_DEADLINE_S,
        on_request: OnRequest | None = None,
    ) -> None:
        """Call it within a running event loop; `connect` is the usual way.

        `timeout_s` bounds each request with all its attempts and pauses.
        """
        # Whole objects that are much larger than what is held of them: one at a time.
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
        """Read the configuration (see kubeconfig.py). Sends nothing yet.

        Raises:
            KubeconfigError: it is missing or can't be used.
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
        """Close all connections. First end the tasks that use them."""
        await self._transport.close()

    @property
    def default_namespace(self) -> str:
        """Of the kubeconfig's context or the service account, else "default"."""
        return self._connection.namespace

    @property
    def rights(self) -> Rights:
        """Which rights this client lacks, as far as it was refused."""
        return self._transport.rights

    async def get(self, resource: Resource, key: Key) -> bytes:
        """The object's JSON.

        Raises:
            ApiError: NotFound and the others of errors.py. ApiSilent: no answer. So all verbs.
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
        """Create, and give what was stored. After ApiSilent or ServerError it may exist.

        `dry_run`: the server checks everything (rights, admission, quota) and stores nothing.
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
        """Replace the object (or one subresource), and give what was stored.

        It is sent again after a lost connection, so a Conflict may be due to our own first try.

        Raises:
            ValueError: `body` has no metadata.resourceVersion: it would overwrite blindly.
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
        """Ask for the deletion of exactly the object with `uid` (and `resource_version`).

        Returns:
            The object as it now is, while finalizers hold it; a Status when it is gone.
        Raises:
            ValueError: no uid: it might hit a successor of the same name.
            NotFound: it is gone. Conflict: another object has the name, or it changed.
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
        resource_version: str = "",
    ) -> ListPage:
        """One page. Without `resource_version` nothing newer exists when the reply is made.

        Raises:
            Expired: the continue token is too old; start again.
        """
        body = await self._page(resource, namespace, limit, continue_token, resource_version)
        try:
            page = _decode_list(body)
        except msgspec.DecodeError as error:
            raise ApiSilent(f"list {resource.plural}: {error}") from None
        return ListPage(
            # Copies: a Raw would keep the whole page alive.
            tuple(bytes(item) for item in page.items or ()),
            page.metadata.version,
            page.metadata.continue_token,
        )

    async def _page(
        self, resource: Resource, namespace: str, limit: int, token: str, version: str
    ) -> bytes:
        """A page that is not longer than PAGE_LIMIT_BYTES, unless one object alone is."""
        at_once = min(limit, self._page_limits.get(resource, FIRST_PAGE))
        while True:
            query = {"limit": str(at_once), "continue": token, "resourceVersion": version}
            request = Request(
                "list",
                resource,
                Key(namespace, ""),
                query=query,
                reply_limit_bytes=PAGE_LIMIT_BYTES if at_once > 1 else 0,
                # To compress giants takes the server longer than to send them.
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
        """Open a watch with bookmarks; its lines come as raw JSON, without the newline.

        The iterator ends when the server ends the watch properly (after `timeout_s`).

        Raises:
            ApiError: it was refused. ApiSilent: cut, maybe within a line, or without an end
            after `timeout_s` + 5 s. Entering raises them, and so do the lines.
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
