"""The cached objects of one kind. A read never returns an older copy than an earlier read.

A store has three sources: complete lists (`replace`), watch lines, and the replies to our own
writes (both by `upsert` and `remove`). Because of the replies, the next run sees what this process
wrote even if the watch is late. The three arrive in any order, so the store accepts a copy only if
it is newer than both:

- the resourceVersion of the held object;
- `seen`, the version up to which the list-watch has delivered every change. If a key is not held,
  its object did not exist at `seen`, so an older copy (a late reply) must not resurrect it.

resourceVersions are compared as numbers if both are decimal. That is documented for all API servers
since Kubernetes 1.35 (KEP-5504) and always true with etcd. Otherwise the latest call takes
precedence, except that a deleted object stays deleted.

Most objects do not change for hours, so each is held compressed and is decoded when it is read. The
READY_LIMIT objects that were decoded last stay decoded (docs/adr/0010). Reading any other object
takes 10 us.
"""

import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import msgspec
from msgspec import Struct

from cosi_operator.api.view import Key
from cosi_operator.kube.packed import Packed, Packer
from cosi_operator.kube.trim import without_managed_fields

# Objects that are also held decoded; more than the workers reconcile at the same time.
READY_LIMIT = 256
# UIDs of deleted objects to remember; more than are deleted while one reply is late.
TOMBSTONE_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class Cached[T]:
    """An object, decoded and as JSON for a PUT. A huge object is incomplete (`trim.is_partial`)."""

    view: T
    raw: bytes


@dataclass(frozen=True, slots=True)
class Broken:
    """An object that `decode` rejected; `error` gives the field and the cause."""

    key: Key
    raw: bytes
    error: str


class Identity(Struct, frozen=True, rename="camel"):
    """The metadata that ordering needs."""

    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""

    @property
    def key(self) -> Key:
        return Key(sys.intern(self.namespace), self.name)  # one string for each namespace


class _Index:
    """Maps a value to its keys, in the order in which the keys were added.

    Nearly every value has one key, so a single key is stored without a dict. A dict for each value
    would take a quarter of the memory of an object.
    """

    def __init__(self) -> None:
        self._keys: dict[Hashable, Key | dict[Key, None]] = {}

    def of(self, value: Hashable) -> tuple[Key, ...]:
        keys = self._keys.get(value, {})
        return tuple(keys) if isinstance(keys, dict) else (keys,)

    def add(self, value: Hashable, key: Key) -> None:
        keys = self._keys.setdefault(value, key)
        if isinstance(keys, dict):
            keys[key] = None
        elif keys != key:
            self._keys[value] = {keys: None, key: None}

    def remove(self, value: Hashable, key: Key) -> None:
        keys = self._keys[value]
        if isinstance(keys, dict) and len(keys) > 1:
            del keys[key]
        else:
            del self._keys[value]


class _Envelope(Struct):
    metadata: Identity


_envelope = msgspec.json.Decoder(_Envelope).decode


def identify(raw: bytes) -> Identity:
    """The identity of any object.

    Raises:
        msgspec.DecodeError: not a Kubernetes object.
    """
    return _envelope(raw).metadata


class Store[T]:
    """The objects of one kind by key. Not async, so no reader sees a partial change.

    Args:
        decode: converts raw JSON to a view; raises msgspec.ValidationError if it can't.
        indexes: by index name, a function from a view to the values that find it.
        trim: reduces raw JSON to the part that is held (`trim.bounded` for objects of tenants).
    """

    def __init__(
        self,
        decode: Callable[[bytes], T],
        indexes: Mapping[str, Callable[[T], Iterable[Hashable]]] | None = None,
        trim: Callable[[bytes], bytes] = without_managed_fields,
    ) -> None:
        self.trim = trim
        self._decode = decode
        self._index_values = dict(indexes or {})
        self._indexes = {name: _Index() for name in self._index_values}
        self._held: dict[Key, Packed] = {}
        self._errors: dict[Key, str] = {}  # of the objects that `decode` rejected
        self._ready: OrderedDict[Key, Cached[T]] = OrderedDict()
        self._packer = Packer()
        self._deleted_uids: OrderedDict[str, None] = OrderedDict()
        self._seen = ""

    def __len__(self) -> int:
        """The number of objects held, broken ones included."""
        return len(self._held)

    def keys(self) -> Iterator[Key]:
        """All keys, broken objects included; a copy, so the store may change meanwhile."""
        return iter(list(self._held))

    def held_bytes(self) -> dict[Key, int]:
        """The compressed size of each object in bytes; for tests and measurements."""
        return {key: len(held.data) for key, held in self._held.items()}

    def items(self) -> Iterator[tuple[Key, Cached[T]]]:
        """All objects that could be decoded; the store may change during the iteration."""
        for key in list(self._held):
            if (cached := self.get(key)) is not None:
                yield key, cached

    def get(self, key: Key) -> Cached[T] | None:
        """The object; None if it is not held or could not be decoded."""
        if (ready := self._ready.get(key)) is not None:
            return ready
        held = self._held.get(key)
        if held is None or key in self._errors:
            return None
        raw = held.unpack()
        return self._keep_ready(key, Cached(self._decode(raw), raw))

    def broken(self, key: Key) -> Broken | None:
        """The object if it could not be decoded; otherwise None."""
        error = self._errors.get(key)
        return Broken(key, self._held[key].unpack(), error) if error else None

    def by_index(self, name: str, value: Hashable) -> Iterator[Cached[T]]:
        """The objects that the index function `name` put under `value`."""
        for key in self._indexes[name].of(value):
            if (cached := self.get(key)) is not None:
                yield cached

    def upsert(self, raw: bytes) -> tuple[T | None, T | None] | None:
        """Store an object from a watch line or from the reply to a write.

        Returns:
            The views before and after (None: absent or broken), or None if this copy is not newer
            than the held one.
        Raises:
            msgspec.DecodeError: `raw` is not a Kubernetes object.
        """
        identity = identify(raw)
        held = self._identity(identity.key)
        if not self._is_news(identity, held):
            return None
        if held is None and not _is_newer(identity.resource_version, self._seen):
            return None
        return self._put(identity, held, raw)

    def remove(self, key: Key, resource_version: str) -> T | None:
        """Remove an object that was deleted at `resource_version`; ignored if a newer copy is held.

        Returns:
            The view that was removed, or None.
        """
        held = self._identity(key)
        if held is None or is_proven_newer(held.resource_version, resource_version):
            return None
        return self._drop(key, held.uid)

    def advance(self, resource_version: str) -> None:
        """Record that all changes up to this version have arrived (a watch line, a bookmark)."""
        if _is_newer(resource_version, self._seen):
            self._seen = resource_version

    def replace(
        self, raws: Iterable[bytes], resource_version: str
    ) -> Iterator[tuple[Key, T | None, T | None]]:
        """Replace the content by a complete list; keep our writes that are newer than the list.

        A list that is older than `seen` means that the server's data was restored from a backup, so
        the list then replaces every held object. So does a copy that is older than ours in a list
        that is not older: the restore has raised the version of the data.

        Returns:
            An iterator over the objects that changed: key, old view and new view. The store is
            complete before the iteration. A new view is decoded during the iteration, because in
            the first list of a large cluster every object is new (100,000 of each kind: 289 MiB
            instead of 420).
        """
        restored = is_proven_newer(self._seen, resource_version)
        differences: list[tuple[Key, T | None]] = []
        listed: set[Key] = set()
        for raw in raws:
            identity = identify(raw)
            key = identity.key
            listed.add(key)
            held = self._identity(key)
            if restored or self._is_listed(identity, held, resource_version):
                old, _ = self._put(identity, held, raw)
                differences.append((key, old))
        for key in [key for key in self._held if key not in listed]:
            held = self._identity(key)
            assert held is not None
            if restored or not is_proven_newer(held.resource_version, resource_version):
                differences.append((key, self._drop(key, held.uid)))
        # The list may also come from a cache that lags. In both cases a UID that was deleted may
        # exist again.
        if restored:
            self._deleted_uids.clear()
        self._seen = resource_version
        return ((key, old, self._view(key)) for key, old in differences)

    def _view(self, key: Key) -> T | None:
        cached = self.get(key)
        return cached.view if cached else None

    def _identity(self, key: Key) -> Identity | None:
        """The identity of a held object.

        It is decoded from the object, because a separate copy takes as much memory as the object.
        """
        held = self._held.get(key)
        return identify(held.unpack()) if held else None

    def _is_news(self, identity: Identity, held: Identity | None) -> bool:
        if identity.uid in self._deleted_uids:
            return False
        return held is None or _is_newer(identity.resource_version, held.resource_version)

    def _is_listed(self, identity: Identity, held: Identity | None, version: str) -> bool:
        """Whether a copy from a complete list of this version replaces the held one."""
        if self._is_news(identity, held):
            return True
        if held is None or identity.uid in self._deleted_uids:
            return False
        differs = identity.resource_version != held.resource_version
        return differs and not is_proven_newer(held.resource_version, version)

    def _put(
        self, identity: Identity, held: Identity | None, raw: bytes
    ) -> tuple[T | None, T | None]:
        key = identity.key
        raw = self.trim(raw)
        old = self.get(key)
        self._unindex(key, old)
        self._ready.pop(key, None)
        if held is not None and held.uid != identity.uid:
            self._remember_deletion(held.uid)
        self._errors.pop(key, None)
        self._held[key] = self._packer.pack(raw)
        new = None
        try:
            new = self._decode(raw)
        except msgspec.DecodeError as refused:  # ValidationError is one
            self._errors[key] = str(refused) or "not readable"
        else:
            self._keep_ready(key, Cached(new, raw))
            for name, values in self._index_values.items():
                for value in values(new):
                    self._indexes[name].add(value, key)
        return (old.view if old else None), new

    def _keep_ready(self, key: Key, cached: Cached[T]) -> Cached[T]:
        self._ready[key] = cached
        if len(self._ready) > READY_LIMIT:
            self._ready.popitem(last=False)
        return cached

    def _drop(self, key: Key, uid: str) -> T | None:
        old = self.get(key)
        self._unindex(key, old)
        self._ready.pop(key, None)
        self._errors.pop(key, None)
        del self._held[key]
        self._remember_deletion(uid)
        return old.view if old else None

    def _unindex(self, key: Key, cached: Cached[T] | None) -> None:
        if cached is None:
            return
        for name, values in self._index_values.items():
            for value in values(cached.view):
                self._indexes[name].remove(value, key)

    def _remember_deletion(self, uid: str) -> None:
        """Remember a deletion, because an object with this UID never exists again."""
        if uid:
            self._deleted_uids[uid] = None
            if len(self._deleted_uids) > TOMBSTONE_LIMIT:
                self._deleted_uids.popitem(last=False)


def _is_decimal(version: str) -> bool:
    return version.isascii() and version.isdigit()


def _is_newer(version: str, than: str) -> bool:
    """Whether `version` is newer. Different versions that can't be compared count as newer."""
    if _is_decimal(version) and _is_decimal(than):
        return int(version) > int(than)
    return version != than


def is_proven_newer(version: str, than: str) -> bool:
    """Whether both versions can be compared and `version` is newer."""
    return _is_decimal(version) and _is_decimal(than) and int(version) > int(than)
