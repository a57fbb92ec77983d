"""Orders waiting keys so that no namespace and no class delays another. Pure.

**Round robin over namespaces.** While a namespace has a key that may run, no other namespace is
served twice. The same applies to the classes within a namespace. Within one class of a namespace,
keys are served in order of arrival. So a key waits for at most (keys before it in its namespace and
class) x (classes of its namespace) x (waiting namespaces) turns, however many keys the other
namespaces have.

**Shares.** Round robin bounds a wait only if workers become free, and a hanging driver call does
not free its worker for minutes. So a class takes a worker only if afterwards at least as many
workers are free as the class holds. A single class holds at most half of the workers, a second
class at most a quarter, and so on. A namespace holds at most five twelfths, and one class within
one namespace (a line) at most a third. The reasons:

- The limit applies before a run starts. A limit on only the runs that are already long does not
  help: if 40 calls start together and hang, none is long when it starts, and together they hold
  every worker. A running call is not cancelled to free a worker, because its effect would be
  unknown.
- A line has a smaller share than its namespace, so that a tenant whose claims of one class hang can
  still use other classes. It has a smaller share than its class, so that other tenants can still
  use that class.
- A namespace and a class that both hang hold at most eleven twelfths together, so a worker is free
  for a key of any other namespace and class.
- Several classes can hang together. If each could hold half, two would hold every worker.
- The disadvantage is that a cluster with one tenant and one class uses only a third of the workers.
  The default of `--workers` allows for that (docs/scaling.md gives the figures).
"""

import itertools
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple


class Groups(NamedTuple):
    """The groups of a key. Keys without a known namespace or class share the group ""."""

    namespace: str = ""
    class_name: str = ""


@dataclass(frozen=True, slots=True)
class Shares:
    """The maximum number of workers for one class, one namespace, or one class in a namespace.

    workers: the total. A class leaves as many of these free as it holds.
    """

    class_name: float = math.inf
    namespace: float = math.inf
    line: float = math.inf
    workers: float = math.inf

    @classmethod
    def of(cls, workers: int) -> "Shares":
        """The shares for a number of workers. Below 12, not every guarantee is possible."""
        return cls(
            class_name=max(1, workers // 2),
            namespace=max(1, workers * 5 // 12),
            line=max(1, workers // 3),
            workers=workers,
        )


@dataclass(frozen=True, slots=True)
class Sharing[K]:
    """The rules by which the keys of a queue share its workers.

    groups_of: called whenever a key becomes ready, so it must be fast.
    """

    groups_of: Callable[[K], Groups]
    shares: Shares


class WorkersInUse:
    """Counts the workers that each group holds."""

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self._all = 0
        self._classes: Counter[str] = Counter()
        self._namespaces: Counter[str] = Counter()
        self._lines: Counter[Groups] = Counter()

    def class_may_run(self, class_name: str) -> bool:
        """Whether the class may take one more worker without exceeding its share."""
        held = self._classes[class_name]
        left = self._shares.workers - self._all - 1
        return held < self._shares.class_name and (held < left or not held)

    def is_crowded(self) -> bool:
        """Whether so few workers are free that any free worker may let a class run."""
        return 2 * self._all > self._shares.workers

    def may_run(self, groups: Groups) -> bool:
        """Whether a key of these groups may run now."""
        return not self.full(groups)

    def full(self, groups: Groups) -> int:
        """How many of these hold their whole share: the class, the namespace, the line."""
        return (
            (not self.class_may_run(groups.class_name))
            + (self._namespaces[groups.namespace] >= self._shares.namespace)
            + (self._lines[groups] >= self._shares.line)
        )

    def take(self, groups: Groups) -> None:
        """Count one worker that starts a key of these groups."""
        self._all += 1
        self._classes[groups.class_name] += 1
        self._namespaces[groups.namespace] += 1
        self._lines[groups] += 1

    def release(self, groups: Groups) -> None:
        """Uncount one worker that ended. A group without workers takes no memory."""
        self._all -= 1
        _decrement(self._classes, groups.class_name)
        _decrement(self._namespaces, groups.namespace)
        _decrement(self._lines, groups)


def _decrement[G: Hashable](counter: Counter[G], group: G) -> None:
    counter[group] -= 1
    if not counter[group]:
        del counter[group]


@dataclass(slots=True)
class _Line[K]:
    """The waiting keys of one namespace and class, in order, with the time each became ready.

    turn: the number of the turn when the line was last served or created.
    """

    turn: int
    keys: OrderedDict[K, float] = field(default_factory=OrderedDict)


@dataclass(slots=True)
class _Namespace:
    """A waiting namespace. turn: the number of the turn when it was last served or added."""

    turn: int
    classes: set[str] = field(default_factory=set)


class FairLane[K: Hashable]:
    """Waiting keys in the order that the module's docstring describes.

    Adding and removing a key take constant time. Finding the next key takes time proportional to
    the number of waiting classes, not of keys or namespaces.
    """

    def __init__(self) -> None:
        self._turns = itertools.count()
        self._groups: dict[K, Groups] = {}
        # By class, then by namespace. The first namespace of a class is the one that was served
        # longest ago or, if none was served, added first.
        self._lines: dict[str, OrderedDict[str, _Line[K]]] = {}
        self._namespaces: dict[str, _Namespace] = {}

    def __len__(self) -> int:
        """The number of keys."""
        return len(self._groups)

    def __contains__(self, key: object) -> bool:
        """Whether the key is in this lane."""
        return key in self._groups

    def times(self) -> Iterator[float]:
        """The time of each key, in any order."""
        for lines in self._lines.values():
            for line in lines.values():
                yield from line.keys.values()

    def blocked(self, held: WorkersInUse) -> int:
        """The number of keys that wait because their namespace or class holds its whole share."""
        return sum(
            len(line.keys)
            for class_name, lines in self._lines.items()
            for namespace, line in lines.items()
            if not held.may_run(Groups(namespace, class_name))
        )

    def add(self, key: K, since: float, groups: Groups) -> None:
        """Add a key that is not in this lane. A namespace without waiting keys is added last."""
        namespace = self._namespaces.get(groups.namespace)
        if namespace is None:
            namespace = self._namespaces[groups.namespace] = _Namespace(next(self._turns))
        lines = self._lines.setdefault(groups.class_name, OrderedDict())
        line = lines.get(groups.namespace)
        if line is None:
            line = lines[groups.namespace] = _Line(next(self._turns))
            namespace.classes.add(groups.class_name)
        line.keys[key] = since
        self._groups[key] = groups

    def remove(self, key: K) -> tuple[float, Groups]:
        """Remove a key; return its time and groups.

        Raises:
            KeyError: the key is not in this lane.
        """
        groups = self._groups.pop(key)
        lines = self._lines[groups.class_name]
        line = lines[groups.namespace]
        since = line.keys.pop(key)
        if not line.keys:
            del lines[groups.namespace]
            if not lines:
                del self._lines[groups.class_name]
            namespace = self._namespaces[groups.namespace]
            namespace.classes.discard(groups.class_name)
            if not namespace.classes:
                del self._namespaces[groups.namespace]
        return since, groups

    def clear(self) -> None:
        """Remove every key."""
        self._groups.clear()
        self._lines.clear()
        self._namespaces.clear()

    def next(self, held: WorkersInUse) -> K | None:
        """Return the next key that may run; None if no key may run."""
        best: tuple[int, int] | None = None
        chosen: _Line[K] | None = None
        for class_name, lines in self._lines.items():
            if not held.class_may_run(class_name):
                continue
            for name, line in lines.items():
                # Only a few namespaces can hold their whole share, so this loop is short.
                if held.may_run(Groups(name, class_name)):
                    turn = (self._namespaces[name].turn, line.turn)
                    if best is None or turn < best:
                        best, chosen = turn, line
                    break
        return next(iter(chosen.keys)) if chosen else None

    def take(self, key: K) -> tuple[float, Groups]:
        """Remove a key that is served next; its namespace and line move to the end."""
        groups = self._groups[key]
        lines = self._lines[groups.class_name]
        lines[groups.namespace].turn = next(self._turns)
        namespace = self._namespaces[groups.namespace]
        namespace.turn = next(self._turns)
        for class_name in namespace.classes:
            self._lines[class_name].move_to_end(groups.namespace)
        return self.remove(key)
