"""List-watch: keeps a store equal to the server's objects, however a watch ends.

`watch_state.step` returns the next state. `Reflector` performs the state's request, stores the
objects that arrive, and passes the result to `step`.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

import anyio
import msgspec
import structlog
from msgspec import Raw, Struct

from cosi_operator.api.view import Key, Resource
from cosi_operator.clock import Clock
from cosi_operator.kube.client import KubeClient, ListPage
from cosi_operator.kube.errors import ApiError, ApiSilent, error_of
from cosi_operator.kube.packed import Packed, Packer
from cosi_operator.kube.store import Store, identify, is_proven_newer
from cosi_operator.kube.watch_state import (
    Ended,
    Happening,
    Listing,
    Page,
    PauseEnded,
    Pausing,
    Progress,
    Refused,
    Silent,
    State,
    Unreadable,
    Watching,
    step,
)

log = structlog.get_logger(__name__)

PAGE_LIMIT = 500


@dataclass(frozen=True, slots=True)
class Change[T]:
    """A change of an object: new (`old` is None), changed, or deleted (`new` is None).

    Both are None if the object can't be decoded, or if such an object was deleted. `Store.broken`
    returns the object in the first case and None in the second.
    """

    key: Key
    old: T | None
    new: T | None


class _Line(Struct):
    type: str
    object: Raw


class _Version(Struct, rename="camel"):
    resource_version: str


class _Bookmark(Struct):
    metadata: _Version


class _RetryDetails(Struct, rename="camel"):
    retry_after_seconds: float | None = None


class _StatusLine(Struct):
    code: int = 0
    details: _RetryDetails | None = None


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_bookmark = msgspec.json.Decoder(_Bookmark).decode
_decode_status = msgspec.json.Decoder(_StatusLine).decode


class Reflector[T]:
    """Fills one store and reports each change while `run` runs.

    `synced` is set after the first complete list. A list or line that does not change the store,
    such as the watch event of our own write, is not reported.
    """

    def __init__(  # noqa: PLR0913 - all six are required
        self,
        client: KubeClient,
        resource: Resource,
        store: Store[T],
        *,
        on_change: Callable[[Change[T]], None],
        clock: Clock,
        rng: random.Random,
        namespace: str = "",
    ) -> None:
        """`on_change` runs in the event loop and must be fast; `namespace` "" means all."""
        self.synced = anyio.Event()
        self._client = client
        self._resource = resource
        self._store = store
        self._on_change = on_change
        self._clock = clock
        self._rng = rng
        self._namespace = namespace
        # Pages are compressed on arrival, because all of them are held until the last page
        # arrives. As plain JSON, the list of a large cluster would determine the peak memory.
        self._pages: list[Packed] = []
        self._packer = Packer()
        self._logged: tuple[str, int] | None = None  # verb and status of the last logged failure
        self._log = log.bind(resource=resource.plural, group=resource.group)

    async def run(self) -> None:
        """List and watch until cancelled."""
        state: State = Listing(self._clock.monotonic())
        while True:
            match state:
                case Pausing(delay_s=delay_s):
                    await self._clock.sleep(delay_s)
                    state = self._step(state, PauseEnded())
                case Listing():
                    state = self._step(state, await self._list(state))
                case Watching():
                    state = await self._watch(state)
                case _:
                    assert_never(state)

    def _step(self, state: State, happening: Happening) -> State:
        return step(state, happening, self._clock.monotonic(), self._rng.random())

    async def _list(self, state: Listing) -> Happening:
        try:
            page = await self._client.list(
                self._resource,
                namespace=self._namespace,
                limit=PAGE_LIMIT,
                continue_token=state.token,
            )
        except ApiSilent as error:
            return self._silent("list", error)
        except ApiError as error:
            return self._refused("list", error)
        if not state.token:
            self._pages = []
        return self.take_page(page)

    def take_page(self, page: ListPage) -> Happening:
        """Collect one page of a list; the last page replaces the content of the store."""
        try:
            self._pages += [self._packer.pack(self._store.trim(i)) for i in page.items]
            if not page.continue_token:
                self._replace(page.resource_version)
        except msgspec.DecodeError as error:
            return self._unreadable("list", str(error))
        return Page(page.resource_version, page.continue_token)

    def _replace(self, version: str) -> None:
        pages, self._pages = self._pages, []
        for key, old, new in self._store.replace((page.unpack() for page in pages), version):
            self._report(key, old, new)
        self.synced.set()
        if self._logged is not None and self._logged[0] == "list":
            self._log.info("list_recovered")
            self._logged = None

    async def _watch(self, state: Watching) -> State:
        """Read one stream until the state changes."""
        current = state
        try:
            async with self._client.watch(
                self._resource,
                namespace=self._namespace,
                resource_version=state.version,
                timeout_s=state.timeout_s,
            ) as lines:
                if self._logged is not None:
                    self._log.info("watch_recovered")
                    self._logged = None
                async for line in lines:
                    then = self._step(current, self.take_line(line, current.version))
                    if not isinstance(then, Watching):
                        return then
                    current = then
            happening: Happening = Ended()
        except ApiSilent as error:
            happening = self._silent("watch", error)
        except ApiError as error:
            happening = self._refused("watch", error)
        return self._step(current, happening)

    def take_line(self, raw: bytes, known: str) -> Happening:
        """Decode and store one line; `known` is the version that the watch had reached before."""
        try:
            line = _decode_line(raw)
            match line.type:
                case "ADDED" | "MODIFIED" | "DELETED":
                    version = self._fold(line.type, bytes(line.object))
                case "BOOKMARK":
                    version = _decode_bookmark(line.object).metadata.resource_version
                case "ERROR":
                    return self._error_line(bytes(line.object))
                case other:
                    return self._unreadable("watch", f"a line has the type {other[:40]}")
        except msgspec.DecodeError as error:
            return self._unreadable("watch", str(error))
        if is_proven_newer(known, version):
            # The server's data was restored from a backup while the watch was open.
            return self._unreadable(
                "watch", f"the resourceVersion went back from {known} to {version}"
            )
        self._store.advance(version)
        return Progress(version)

    def _fold(self, kind: str, raw: bytes) -> str:
        identity = identify(raw)
        key, version = identity.key, identity.resource_version
        if kind == "DELETED":
            was_held = self._store.get(key) is not None or self._store.broken(key) is not None
            old = self._store.remove(key, version)
            if was_held and self._store.get(key) is None:
                self._report(key, old, None)
        elif (views := self._store.upsert(raw)) is not None:
            self._report(key, *views)
        return version

    def _report(self, key: Key, old: T | None, new: T | None) -> None:
        broken = self._store.broken(key)
        if broken is not None:
            old = None
        self._on_change(Change(key, old, new))

    def _error_line(self, raw: bytes) -> Happening:
        status = _decode_status(raw)
        refused = error_of(
            0,
            raw,
            what=f"watch {self._resource.plural}",
            confidential=False,
            retry_after_s=status.details.retry_after_seconds if status.details else None,
        )
        return self._refused("watch", refused)

    # Each kind of failure is logged once, until it is resolved or another kind occurs.

    def _refused(self, verb: str, error: ApiError) -> Refused:
        if error.status == 410:
            self._log.debug("list_again", error=str(error))
        elif self._is_new((verb, error.status)):
            if error.status == 403:
                self._log.error(
                    f"{verb}_forbidden",
                    remedy=f"grant {verb!r} on {self._resource.plural!r}"
                    f" of API group {self._resource.group!r}",
                    meanwhile="listing every 60 s" if verb == "watch" else "retrying",
                    error=str(error),
                )
            else:
                self._log.warning(f"{verb}_refused", status=error.status, error=str(error))
        return Refused(error.status, error.retry_after_s)

    def _silent(self, verb: str, error: ApiSilent) -> Silent:
        if verb == "watch":  # debug only, because load balancers often close streams
            self._log.debug("watch_lost", error=str(error))
        elif self._is_new((verb, 0)):
            self._log.warning("list_failed", error=str(error))
        return Silent()

    def _unreadable(self, verb: str, error: str) -> Unreadable:
        if self._is_new((verb, 1)):
            self._log.warning(f"{verb}_unreadable", error=error)
        return Unreadable()

    def _is_new(self, failure: tuple[str, int]) -> bool:
        is_new, self._logged = self._logged != failure, failure
        return is_new
