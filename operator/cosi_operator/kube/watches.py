"""The kinds that a process watches: a store and a reflector for each."""

import random
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Protocol

import anyio
import structlog

from cosi_operator.api.view import Key, Resource
from cosi_operator.clock import Clock
from cosi_operator.kube.client import KubeClient
from cosi_operator.kube.objects import Objects
from cosi_operator.kube.store import Store
from cosi_operator.kube.trim import bounded, without_managed_fields
from cosi_operator.kube.watch import Change, Reflector

log = structlog.get_logger(__name__)

type Listener[T] = Callable[[Key, T | None, T | None], None]
"""Called with the key, the old object and the new object; either may be None."""

type Indexes[T] = Mapping[str, Callable[[T], Iterable[Hashable]]]


class Watching(Protocol):
    """Registers the kinds that `controller/watches.py` and `sidecar/watches.py` watch."""

    def add[T](
        self,
        resource: Resource,
        decode: Callable[[bytes], T],
        changed: Listener[T],
        indexes: Indexes[T] | None = None,
    ) -> Objects[T]: ...


class Watches:
    """Lists and watches every added kind. Start `run`, then await `until_synced`."""

    def __init__(self, client: KubeClient, *, clock: Clock, rng: random.Random) -> None:
        self._client = client
        self._clock = clock
        self._rng = rng
        self.reflectors: list[Reflector[Any]] = []

    def add[T](
        self,
        resource: Resource,
        decode: Callable[[bytes], T],
        changed: Listener[T],
        indexes: Indexes[T] | None = None,
    ) -> Objects[T]:
        """Watch one kind. `changed` is called for watch events and for own writes."""
        # Bound the size only of namespaced kinds, because tenants create them. Administrators
        # create the other kinds.
        trim = bounded if resource.namespaced else without_managed_fields
        store = Store(decode, indexes, trim)

        logged: dict[Key, str] = {}  # the error that was logged about each unreadable object

        def on_change(change: Change[T]) -> None:
            bad = store.broken(change.key)
            if bad is None:
                logged.pop(change.key, None)
            elif logged.get(change.key) != bad.error:
                logged[change.key] = bad.error
                log.warning(
                    "object_unreadable",
                    kind=resource.kind,
                    key=str(change.key),
                    error=bad.error,
                    remedy="repair or delete the object; other objects are not affected",
                )
            changed(change.key, change.old, change.new)

        self.reflectors.append(
            Reflector(
                self._client,
                resource,
                store,
                on_change=on_change,
                clock=self._clock,
                rng=self._rng,
            )
        )
        return Objects(self._client, resource, store, changed)

    async def run(self) -> None:
        """List and watch until cancelled."""
        async with anyio.create_task_group() as tasks:
            for reflector in self.reflectors:
                tasks.start_soon(reflector.run)

    async def until_synced(self) -> None:
        """Return when the first list of every kind is complete."""
        for reflector in self.reflectors:
            await reflector.synced.wait()
