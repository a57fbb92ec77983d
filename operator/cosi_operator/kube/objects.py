"""One kind of object: read from its store, written by conditional PUT.

Every reply is folded into the store, so that the next run sees this process's own writes even if
the watch is late. No write is sent that changes nothing.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Struct

from cosi_operator.api.view import Key, Resource
from cosi_operator.kube.client import KubeClient
from cosi_operator.kube.errors import Conflict, NotFound
from cosi_operator.kube.kept import is_oversized, is_partial
from cosi_operator.kube.store import Store, identify

type Body = dict[str, Any]

# A status is computed again on a fresh copy after each conflict; more than this many in a row
# means that someone else writes without pause, and the key goes back to the queue.
STATUS_TRIES = 5


class _Kind(Struct):
    kind: str = ""


class _Going(Struct, rename="camel"):
    """The metadata that tells whether an object is gone by now."""

    resource_version: str = ""
    deletion_timestamp: str | None = None
    finalizers: list[str] | None = None


class _GoingObject(Struct):
    metadata: _Going


_decode_going = msgspec.json.Decoder(_GoingObject).decode


@dataclass(frozen=True, slots=True)
class Objects[T]:
    """Reads and writes of one kind.

    `changed(key, old, new)` hears of what our own writes did, as it hears of watch lines: the
    watch will bring nothing new about them, and other keys may wait for them. `wrote`, if it is
    set, hears instead of writes that leave an object. It is for the runs that plan with the reply,
    so that a write does not add the key of the run to the queue again.
    """

    client: KubeClient
    resource: Resource
    store: Store[T]
    changed: Callable[[Key, T | None, T | None], None]
    wrote: Callable[[Key, T | None, T | None], None] | None = None

    def get(self, key: Key) -> T | None:
        """The cached copy; no request."""
        cached = self.store.get(key)
        return cached.view if cached else None

    def body(self, key: Key) -> Body | None:
        """A private copy of the whole object, unknown fields included, ready for a PUT.

        Decoding it once more (3 us) is the cheapest way to another copy; deepcopy takes 16.
        """
        cached = self.store.get(key)
        if cached is None:
            return None
        body: Body = msgspec.json.decode(cached.raw)
        # Items of a list come without these two.
        body["apiVersion"] = self.resource.api_version
        body["kind"] = self.resource.kind
        return body

    async def edit(self, key: Key, change: Callable[[Body], None]) -> T | None:
        """PUT the object with `change` applied to the cached copy.

        Returns:
            The object as it now is; None when it is gone, also by this very write.
        Raises:
            Conflict: the cached copy was stale. It is fresh when this is raised; plan again.
        """
        before, after = self.body(key), self.body(key)
        if before is None or after is None:
            return None
        change(after)
        if after == before:
            return self.get(key)
        try:
            if is_partial(before):
                reply = await self._put_whole(before, lambda body: _changed(body, change))
            else:
                reply = await self.client.update(self.resource, after)
        except NotFound:
            self._forget(key, before)
            return None
        except Conflict:
            await self.refresh(key)
            raise
        return self._fold(key, reply, self.wrote)

    async def _put_whole(
        self, partial: Body, change: Callable[[Body], Body], *, subresource: str = ""
    ) -> bytes:
        """PUT an object of which only a part is held: read it whole, one object at a time.

        Raises:
            Conflict: the part was stale.
        """
        metadata = partial["metadata"]
        key = Key(metadata.get("namespace", ""), metadata["name"])
        async with self.client.huge_objects:
            raw = await self.client.get(self.resource, key)
            whole: Body = msgspec.json.decode(raw)
            if whole["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
                raise Conflict(409, "Conflict", f"{key} is not what it was")
            after = change(msgspec.json.decode(raw))
            if after == whole:  # what is not held of it says the same already
                return raw
            return await self.client.update(self.resource, after, subresource=subresource)

    async def edit_status(self, key: Key, change: Callable[[T, Body], Body]) -> Body | None:
        """PUT /status with `change(view, body)`; computed anew on a fresh copy after a conflict.

        Returns:
            The server's reply, which shows what its schema kept; None when the object is gone or
            nothing differs.
        Raises:
            Conflict: other writers won STATUS_TRIES times in a row.
        """
        for attempt in range(STATUS_TRIES):
            view, before, working_copy = self.get(key), self.body(key), self.body(key)
            if view is None or before is None or working_copy is None:
                return None
            if is_oversized(before):  # a status is not worth megabytes of writes: an Event tells it
                return None
            after = change(view, working_copy)
            if after == before:
                return None
            try:
                if is_partial(before):
                    reply = await self._put_whole(
                        before, functools.partial(change, view), subresource="status"
                    )
                else:
                    reply = await self.client.update(self.resource, after, subresource="status")
            except NotFound:
                self._forget(key, before)
                return None
            except Conflict:
                await self.refresh(key)
                if attempt == STATUS_TRIES - 1:
                    raise
                continue
            self._fold(key, reply, self.wrote)
            decoded: Body = msgspec.json.decode(reply)
            return decoded
        return None

    async def create(self, body: Body, *, namespace: str = "") -> T | None:
        """Create an object and fold it into the store."""
        reply = await self.client.create(self.resource, body, namespace=namespace)
        return self._fold(Key(namespace, body["metadata"]["name"]), reply, self.wrote)

    async def delete(self, key: Key, *, uid: str, resource_version: str | None = None) -> T | None:
        """Ask for the deletion of exactly this object; one that is gone already is fine.

        `resource_version` (None: any): only while nobody has written to it since.

        Returns:
            The object as it now is, from the reply; None when it is gone.
        """
        try:
            reply = await self.client.delete(
                self.resource, key, uid=uid, resource_version=resource_version
            )
        except NotFound:
            return await self.refresh(key)
        except Conflict:  # another object of the same name, or it has changed
            await self.refresh(key)
            raise
        if msgspec.json.decode(reply, type=_Kind).kind == self.resource.kind:
            return self._fold(key, reply, self.wrote)
        return await self.refresh(key)  # gone, it says: has it a successor?

    async def refresh(self, key: Key) -> T | None:
        """GET the object, into the store."""
        try:
            raw = await self.client.get(self.resource, key)
        except NotFound:
            if (body := self.body(key)) is not None:
                self._forget(key, body)
            return None
        return self._fold(key, raw)

    async def relist(self, namespace: str) -> None:
        """LIST the objects of a namespace, into the store; those that are gone stay in it."""
        token = ""
        while True:
            page = await self.client.list(self.resource, namespace=namespace, continue_token=token)
            for raw in page.items:
                self._fold(identify(raw).key, raw)
            if not (token := page.continue_token):
                return

    def _fold(
        self,
        key: Key,
        raw: bytes,
        listener: Callable[[Key, T | None, T | None], None] | None = None,
    ) -> T | None:
        meta = _decode_going(raw).metadata
        if meta.deletion_timestamp and not meta.finalizers:
            self._remove(key, meta.resource_version)
            return None
        if (difference := self.store.upsert(raw)) is not None:
            (listener or self.changed)(key, *difference)
        return self.get(key)

    def _forget(self, key: Key, body: Body) -> None:
        self._remove(key, body["metadata"].get("resourceVersion", ""))

    def _remove(self, key: Key, resource_version: str) -> None:
        if (old := self.store.remove(key, resource_version)) is not None:
            self.changed(key, old, None)


def _changed(body: Body, change: Callable[[Body], None]) -> Body:
    change(body)
    return body


def set_finalizers(body: Body, *, add: tuple[str, ...] = (), remove: tuple[str, ...] = ()) -> None:
    """Add and remove finalizers in place; those of others keep their order."""
    meta = body["metadata"]
    present: list[str] = meta.get("finalizers") or []
    wanted = [f for f in present if f not in remove] + [f for f in add if f not in present]
    if wanted:
        meta["finalizers"] = wanted
    else:
        meta.pop("finalizers", None)
