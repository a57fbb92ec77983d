"""One text for all states that behave alike, and its hash.

The text holds whatever code can read: API objects, the driver's backend, each process's stores,
queues and memories, undelivered watch lines, and the notes of the checks. It is found by walking
the object graph, so new memory of a process counts without a change here. Renamed or rounded:

- resourceVersions, by rank;
- revisions of records and generations, by rank;
- the random ids of Grants, by their order in the text;
- the numbers in UIDs (the n-th object of this name), keys and minted accounts, by rank;
- times: the age or the time left, rounded (`age`, `left`);
- counts of failed attempts above `MANY`, and the numbers and times in messages;
- the order of API lists and of dicts, except where a queue keeps an order.
"""

import base64
import hashlib
import re
import types
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from datetime import datetime
from enum import Enum
from typing import Any

import msgspec
from tests.explore.machine import Machine
from tests.explore.snapshots import IMMUTABLE, PASSIVE, _slots
from tests.model.memory import Json
from tests.model.processes import _Kind
from tests.support.clock import FakeClock

from cosi_operator.fairness import FairLane, WorkersInUse
from cosi_operator.kube.store import Store
from cosi_operator.kube.watch import Reflector
from cosi_operator.workqueue import Pace

MANY = 8
AGES = (1, 5, 10, 30, 60, 130, 300, 600, 900, 1800, 3600)
# Attributes without a meaning for what a process does next.
IGNORED = {
    "_clock", "clock", "_random", "_rng", "rng", "metrics", "_metrics", "health", "settings",
    "outcomes", "_order", "_adds", "_retries", "_heap", "_sent", "_told", "_too_late", "_turns",
    "_api", "api", "reflector", "reflectors", "_on_taken", "parts", "_waiters", "name", "resource",
    "_kinds", "events", "_events", "policy", "_policy", "_backend", "driver", "_client", "client",
    "log", "_logged", "_run_ids", "_common",
}  # fmt: skip
# Frozen values, whose text shows all of them; and modules without state that a run reads.
VALUES = ("cosi_operator.api", "cosi_operator.outcome")
IDLE = (*(module for module in PASSIVE if module not in VALUES), "typing", "anyio", "asyncio")
STATELESS = (Reflector, Pace, FakeClock, WorkersInUse)
TIME = re.compile(r"(2026-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|\+00:00)")
MESSAGE = re.compile(r'("message":")((?:[^"\\]|\\.)*)"')
NUMBER = re.compile(r"\d+")
COUNTS = re.compile(r"(revision|eneration)(?=\\?[\"=]:?)\\?[\"=]:?(\d+)")
VERSION = re.compile(r'"resourceVersion":"(\d+)"|<#(\d+)#>')
GRANT = re.compile(r"grant\W{1,6}([0-9a-f]{8})\b")
KEY_NUMBER = re.compile(r"(KEY)(\d+)")


def state_hash(machine: Machine) -> bytes:
    return hashlib.blake2b(state_text(machine).encode(), digest_size=12).digest()


def state_text(machine: Machine) -> str:
    """The text of a state between two runs."""
    world = machine.world
    writer = _Writer(world.clock.monotonic(), world.clock.wall())
    for (plural, key), body in sorted(world.api.objects.items(), key=lambda item: str(item[0])):
        writer.put(f"{plural} {key} ", encode(_with_plain_data(body)))
    backend = world.backend
    writer.put("backend ", str(sorted(backend.buckets.items())))
    writer.put("accounts ", str(sorted(backend.accounts.items())))
    recorded = sorted(backend.recorded & set(backend.accounts))
    writer.put("answers ", str((backend.answers, recorded, machine.accounts_choice)))
    writer.put(
        "refused ", str(sorted(world.api.refused_secrets)), f"{world.up}{machine.has_lost_secret}"
    )
    for notes in (world.tampered, world.moved, world.unnamed, world.overwritten, machine.retained):
        writer.put(str(sorted(map(str, notes))))
    writer.put("told ", str(machine.told_left()), str(sorted(machine.backups.items())))
    for uid, body in sorted(machine.saved.items()):
        writer.put(uid, encode(body))
    for name, running in sorted(world.processes.items()):
        writer.put("\n== ", name, "\n")
        writer.write(running)
    return normalised("".join(writer.parts) + writer.tombstones(), _births(machine), writer.wall)


def _with_plain_data(body: Json) -> Json:
    """A Secret with its values as text, so that keys and UIDs in them are renamed too."""
    data = body.get("data") or {}
    plain = {name: base64.b64decode(value).decode(errors="replace") for name, value in data.items()}
    return {**body, "data": plain} if data else body


def encode(body: Any) -> str:
    return msgspec.json.encode(body, order="sorted").decode()


def normalised(text: str, births: str, wall: datetime) -> str:
    """The text with ranks for numbers that only have to differ."""
    for rank, grant in enumerate(dict.fromkeys(GRANT.findall(text))):
        text = text.replace(grant, f"grant~{rank}")
    text = MESSAGE.sub(lambda m: m[1] + NUMBER.sub("#", m[2]) + '"', text)
    text = TIME.sub(lambda m: f"T{age(wall - datetime.fromisoformat(m[1] + '+00:00'))}", text)
    versions = {int(a or b) for a, b in VERSION.findall(text)}
    ranks = {number: rank for rank, number in enumerate(sorted(versions))}
    text = VERSION.sub(lambda m: f"v{ranks[int(m[1] or m[2])]}", text)
    text = _ranked(re.compile(births), text) if births else text
    text = _ranked(COUNTS, text)
    return _ranked(KEY_NUMBER, text)


def _ranked(pattern: re.Pattern[str], text: str) -> str:
    """Each number after the same prefix, by rank; a second number likewise under the first."""
    found = set(pattern.findall(text))
    numbers: dict[str, set[int]] = {}
    for match in found:
        numbers.setdefault(match[0], set()).add(int(match[1]))
        if len(match) > 2 and match[2]:
            numbers.setdefault(match[0] + match[1], set()).add(int(match[2]))
    ranks = {p: {n: r for r, n in enumerate(sorted(of))} for p, of in numbers.items()}

    def rename(m: re.Match[str]) -> str:
        first = f"{m[1]}~{ranks[m[1]][int(m[2])]}"
        if m.lastindex and m.lastindex > 2:
            return f"{first}~{ranks[m[1] + m[2]][int(m[3])]}"
        return first

    return pattern.sub(rename, text)


def _births(machine: Machine) -> str:
    """A pattern for the UIDs of every name that was ever used."""
    prefixes = machine.uid_prefixes()
    names = "|".join(map(re.escape, sorted(prefixes, key=len, reverse=True)))
    return rf"({names})(\d+)(?:-(\d+))?" if names else ""


def age(ago: Any) -> str:
    seconds = ago if isinstance(ago, float) else ago.total_seconds()
    if seconds < 0:
        return left(-seconds)
    return f"-{next((limit for limit in AGES if seconds <= limit), 'old')}"


def left(seconds: float) -> str:
    """The time until something is due: to 0.1 s if it is soon."""
    if seconds > 100:
        return f"+{round(seconds / 30) * 30}"
    return f"+{round(seconds)}" if seconds > 10 else f"+{seconds:.1f}"


class _Writer:
    """Writes the state of a process."""

    def __init__(self, now: float, wall: datetime) -> None:
        self.parts: list[str] = []
        self.wall = wall
        self._now = now
        self._seen: set[int] = set()
        self._deleted: list[str] = []

    def put(self, *texts: str) -> None:
        self.parts += texts

    def tombstones(self) -> str:
        """The UIDs whose deletion a store remembers, if a copy of the object is still somewhere."""
        text = "".join(self.parts)
        return " ".join(sorted(uid for uid in self._deleted if uid in text))

    def write(self, found: Any) -> None:
        kind = type(found)
        if (how := _HOW.get(kind)) is None:
            how = _HOW[kind] = _how(kind)
        how(self, found)

    def atom(self, found: Any) -> None:
        text = str(found)
        if isinstance(found, str) and len(text) > 2 and text.isdigit():
            text = f"<#{text}#>"
        self.parts.append(text + ",")

    def integer(self, found: int) -> None:
        self.parts.append(f"{min(found, MANY)},")

    def decimal(self, found: float) -> None:
        is_time = 900.0 < found < 1e9
        text = age(self._now - found) if is_time else str(found)
        self.parts.append(text + ",")

    def moment(self, found: datetime) -> None:
        self.parts.append(age(self.wall - found) + ",")

    def struct(self, found: Any) -> None:
        self.parts.append(repr(found))

    def raw(self, found: bytes) -> None:
        self.parts.append(found.decode())

    def table(self, found: dict[Any, Any]) -> None:
        if not found:
            return
        items: Iterable[Any] = found.items()
        if not isinstance(found, OrderedDict):
            items = sorted(items, key=lambda item: str(item[0]))
        self.parts.append("{")
        for key, value in items:
            self.write(key)
            self.parts.append(":")
            self.write(value)
        self.parts.append("}")

    def sequence(self, found: Iterable[Any]) -> None:
        for item in found:
            self.write(item)

    def bag(self, found: Iterable[Any]) -> None:
        self.parts.append(str(sorted(map(str, found))))

    def method(self, found: Any) -> None:
        self.write(found.__self__)

    def function(self, found: Any) -> None:
        for cell in found.__closure__ or ():
            if not isinstance(cell.cell_contents, str | int | float):
                self.write(cell.cell_contents)

    def store(self, found: Store[Any]) -> None:
        if id(found) in self._seen:
            return
        self._seen.add(id(found))
        self._deleted += found._deleted_uids
        self.parts.append(f"\nstore <#{found._seen or 0}#>")
        for key in sorted(found._held, key=str):
            cached = found.get(key)
            self.parts.append(f"{key} {cached.raw.decode() if cached else found.broken(key)}\n")

    def watched(self, found: _Kind) -> None:
        if found.inbox:
            self.put(f"\ninbox {found.resource.plural} ")
            for what, body in found.inbox:
                self.put(what, encode(body))
        self.write(found.store)
        self.write(found.changed)

    def lane(self, found: FairLane[Any]) -> None:
        lines = [
            (found._namespaces[space].turn, line.turn, list(line.keys))
            for by_space in found._lines.values()
            for space, line in by_space.items()
        ]
        if lines:
            self.put("lane ", *(str(keys) for _, _, keys in sorted(lines)))

    def instance(self, found: Any) -> None:
        if id(found) in self._seen:
            return
        self._seen.add(id(found))
        for name in _NAMES[type(found)]:
            self._attribute(found, name)
        for name in getattr(found, "__dict__", ()):
            if name not in IGNORED:
                self._attribute(found, name)

    def _attribute(self, found: Any, name: str) -> None:
        value = getattr(found, name, None)
        if value is None or value == {} or value == []:
            return
        before = len(self.parts)
        self.parts.append(f"\n{name}=")
        self.write(value)
        if len(self.parts) == before + 1:
            self.parts.pop()


def _nothing(_writer: _Writer, _found: Any) -> None:
    """It holds no state."""


_HOW: dict[type, Callable[[_Writer, Any], None]] = {}
_NAMES: dict[type, tuple[str, ...]] = {}


def _how(kind: type) -> Callable[[_Writer, Any], None]:
    for base, how in (
        (bool | str | Enum, _Writer.atom),
        (int, _Writer.integer),
        (float, _Writer.decimal),
        (datetime, _Writer.moment),
        (bytes, _Writer.raw),
        (Store, _Writer.store),
        (_Kind, _Writer.watched),
        (FairLane, _Writer.lane),
        (msgspec.Struct, _Writer.struct),
        (dict | Counter, _Writer.table),
        (set | frozenset, _Writer.bag),
        (types.FunctionType, _Writer.function),
        (types.MethodType, _Writer.method),
        (STATELESS, _nothing),
    ):
        if issubclass(kind, base):
            return how
    if issubclass(kind, IMMUTABLE) or kind.__module__.startswith(VALUES):
        return _Writer.atom
    if kind.__module__.startswith(IDLE):
        return _nothing
    if issubclass(kind, list | tuple | deque):
        return _Writer.sequence
    _NAMES[kind] = tuple(name for name in _slots(kind) if name not in IGNORED)
    return _Writer.instance
