"""Saves and restores everything that can change in a world, in place.

A snapshot walks the object graph from a root (attributes, slots, containers, closures, bound
methods) and keeps a shallow copy of the content of each mutable object. `restore` writes the
contents back into the same objects, so references between them stay valid. The walk finds objects
that nobody listed, so new memory in a process is saved without a change here.

Not saved: values of immutable types, the bodies of API objects (`MemoryApi` replaces them and never
changes them), metrics, logs, and counters that only break ties.
"""

import itertools
import random
import threading
import types
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

import msgspec
from tests.explore.machine import Machine
from tests.model.backend import Called
from tests.model.memory import MemoryApi
from tests.model.processes import EmittedEvent, Sent, _Kind
from tests.model.world import World

from cosi_operator.kube.packed import Packed
from cosi_operator.kube.store import Cached

IMMUTABLE = (
    type(None),
    bool,
    int,
    float,
    str,
    bytes,
    Enum,
    type,
    types.ModuleType,
    types.BuiltinFunctionType,
    types.GenericAlias,
    datetime,
    timedelta,
    itertools.count,
    random.Random,
    msgspec.Struct,
    type(threading.Lock()),
    Sent,
    Called,
    EmittedEvent,
    Cached,
    Packed,
)
# Modules whose objects hold no state that a reconcile reads.
PASSIVE = (
    "prometheus_client",
    "structlog",
    "hypothesis",
    "logging",
    "zlib",
    "cosi_operator.metrics",
    "cosi_operator.settings",
    "cosi_operator.api",
    "cosi_operator.outcome",
    "cosi_operator.classify",
)
# Containers of immutable bodies: their own content is saved, and nothing below it.
SHALLOW = {
    MemoryApi: ("objects", "_born"),
    _Kind: ("inbox",),
    World: ("_before",),
    Machine: ("saved", "backups"),
}

type Restore = Callable[[], None]


class Snapshot:
    """The content of everything mutable that `root` reaches."""

    def __init__(self, root: object) -> None:
        self._dicts: list[tuple[dict[Any, Any], dict[Any, Any]]] = []
        self._lists: list[tuple[list[Any], list[Any]]] = []
        self._others: list[tuple[Any, Any]] = []  # sets and deques
        self._slots: list[tuple[object, str, Any]] = []
        self._cells: list[tuple[types.CellType, Any]] = []
        self._walk(root)

    def restore(self) -> None:
        """Write all contents back."""
        for held, content in self._dicts:
            held.clear()
            held.update(content)
        for listed, items in self._lists:
            listed[:] = items
        for other, items in self._others:
            other.clear()
            (other.extend if isinstance(other, deque) else other.update)(items)
        for owner, name, value in self._slots:
            object.__setattr__(owner, name, value)
        for cell, value in self._cells:
            cell.cell_contents = value

    def _walk(self, root: object) -> None:
        seen: set[int] = set()
        todo: list[Any] = [root]
        while todo:
            found = todo.pop()
            kind = type(found)
            if (how := _HOW.get(kind)) is None:
                how = _HOW[kind] = _how(kind)
            if how is _skip or id(found) in seen:
                continue
            seen.add(id(found))
            how(self, found, todo, seen)

    def _dict(self, found: Any, todo: list[Any], _seen: set[int]) -> None:
        self._dicts.append((found, found.copy()))
        todo.extend(found.values())

    def _list(self, found: Any, todo: list[Any], _seen: set[int]) -> None:
        self._lists.append((found, found[:]))
        todo.extend(found)

    def _other(self, found: Any, todo: list[Any], _seen: set[int]) -> None:
        self._others.append((found, list(found)))
        todo.extend(found)

    def _frozen(self, found: Any, todo: list[Any], _seen: set[int]) -> None:
        todo.extend(found)

    def _function(self, found: Any, todo: list[Any], seen: set[int]) -> None:
        todo.extend(found.__defaults__ or ())
        for cell in found.__closure__ or ():
            if id(cell) not in seen:
                seen.add(id(cell))
                self._cells.append((cell, cell.cell_contents))
                todo.append(cell.cell_contents)

    def _method(self, found: Any, todo: list[Any], _seen: set[int]) -> None:
        todo += (found.__self__, found.__func__)

    def _instance(self, found: Any, todo: list[Any], seen: set[int]) -> None:
        kind = type(found)
        for name in _SHALLOW_OF[kind]:
            container = getattr(found, name)
            seen.add(id(container))
            if isinstance(container, dict):
                self._dicts.append((container, container.copy()))
            else:
                self._others.append((container, list(container)))
        for name in _SLOTS_OF[kind]:
            value = getattr(found, name, None)
            self._slots.append((found, name, value))
            todo.append(value)
        if (attributes := getattr(found, "__dict__", None)) is not None:
            self._dicts.append((attributes, attributes.copy()))
            todo.extend(attributes.values())


type _How = Callable[[Snapshot, Any, list[Any], set[int]], None]


def _skip(_snapshot: Snapshot, _found: Any, _todo: list[Any], _seen: set[int]) -> None:
    """Nothing in it can change."""


_HOW: dict[type, _How] = {}
_SLOTS_OF: dict[type, tuple[str, ...]] = {}
_SHALLOW_OF: dict[type, tuple[str, ...]] = {}


def _how(kind: type) -> _How:
    """How objects of this type are saved."""
    if issubclass(kind, IMMUTABLE) or kind.__module__.startswith(PASSIVE):
        return _skip
    for base, how in (
        (dict, Snapshot._dict),
        (list, Snapshot._list),
        (set | deque, Snapshot._other),
        (tuple | frozenset, Snapshot._frozen),
        (types.FunctionType, Snapshot._function),
        (types.MethodType, Snapshot._method),
    ):
        if issubclass(kind, base):
            return how
    _SLOTS_OF[kind] = tuple(_slots(kind))
    _SHALLOW_OF[kind] = tuple(n for base in kind.__mro__ for n in SHALLOW.get(base, ()))
    return Snapshot._instance


def _slots(kind: type) -> Iterator[str]:
    for base in kind.__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__"):
                yield name
