"""Keys that wait, in an order in which no namespace and no class delays another. Pure.

**Round robin over namespaces.** While a namespace has a key that may run, no other namespace is
served twice. Within a namespace the same holds for its classes, and within a class of a namespace
the first key comes first. So a key waits for at most (keys before it in its namespace and class) x
(classes of its namespace) x (namespaces that wait) turns, however many keys the others have.

**Shares.** Turns bound a wait only if workers become free, and a driver call that hangs frees none
for minutes. So a class takes a worker only if as many are free afterwards as it then holds: alone
at most half of them, beside a class that holds half at most a quarter, and so on. A namespace holds
at most five twelfths, and one class within one namespace (a line) at most a third. Why these, and
why always:

- A limit that counts only runs that are already long does not help: of 40 calls that begin at once
  and hang, none is long when it begins, and together they hold every worker. A running call is not
  cancelled to make room, because its effect would be unknown. So the limit must hold before a run
  begins.
- A line gets less than its namespace, so that a tenant whose claims of one class hang can still use
  other classes. It gets less than its class too, so that other tenants of that class can go on.
- A namespace and a class that both hang hold eleven twelfths together, so a worker is left at once
  for a key of any other namespace and class.
- Several classes can hang at once. If each could hold half, two would hold every worker.
- The price is that a cluster with one tenant and one class uses a third of the workers. The default
  of `--workers` allows for it: docs/scaling.md has the figures.
"""

import itertools
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple


class Groups(NamedTuple):
    """The groups of a key. Keys of unknown origin share the group ""."""

    namespace: str = ""
    class_name: str = ""


@dataclass(frozen=True, slots=True)
class Shares:
    """The most workers that one class, one namespace, or one class in a namespace may hold.

    workers: how many there are; of these a class leaves as many free as it holds.
    """

    class_name: float = math.inf
    namespace: float = math.inf
    line: float = math.inf
    workers: float = math.inf

    @classmethod
    def of(cls, workers: int) -> "Shares":
        """The shares of so many workers. Fewer than 12 can't leave room in each case."""
        return cls(
            class_name=max(1, workers // 2),
            namespace=max(1, workers * 5 // 12),
            line=max(1, workers // 3),
            workers=workers,
        )


@dataclass(frozen=True, slots=True)
class Sharing[K]:
    """The rules by which the keys of a queue share its workers.

    groups_of: asked when a key becomes ready, so it must be quick.
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
        """Whether the class holds less than its share, and leaves as many workers as it takes."""
        held = self._classes[class_name]
        left = self._shares.workers - self._all - 1
        return held < self._shares.class_name and (held < left or not held)

    def is_crowded(self) -> bool:
        """Whether so few workers are free that some class may wait for any of them."""
        return 2 * self._all > self._shares.workers

    def may_run(self, groups: Groups) -> bool:
        """Whether a key of these groups may run now."""
        return not self.full(groups)

    def full(self, groups: Groups) -> int:
        """How many of the class, the namespace and the line hold their whole share."""
        return (
            (not self.class_may_run(groups.class_name))
            + (self._namespaces[groups.namespace] >= self._shares.namespace)
            + (self._lines[groups] >= self._shares.line)
        )

    def take(self, groups: Groups) -> None:
        """A worker begins with a key of these groups."""
        self._all += 1
        self._classes[groups.class_name] += 1
        self._namespaces[groups.namespace] += 1
        self._lines[groups] += 1

    def give_back(self, groups: Groups) -> None:
        """The worker has ended. Groups that hold nothing take no memory."""
        self._all -= 1
        _less(self._classes, groups.class_name)
        _less(self._namespaces, groups.namespace)
        _less(self._lines, groups)


def _less[G: Hashable](counter: Counter[G], group: G) -> None:
    counter[group] -= 1
    if not counter[group]:
        del counter[group]


@dataclass(slots=True)
class _Line[K]:
    """The waiting keys of one namespace and class, in order, with the time each became ready.

    turn: when the line was last served, or began.
    """

    turn: int
    keys: OrderedDict[K, float] = field(default_factory=OrderedDict)


@dataclass(slots=True)
class _Namespace:
    """A namespace that waits. turn: when it was last served, or began to wait."""

    turn: int
    classes: set[str] = field(default_factory=set)


class FairLane[K: Hashable]:
    """See the module.

    Adding and removing a key take constant time. Finding the next one takes time in proportion to
    the classes that wait, not to the keys or namespaces.
    """

    def __init__(self) -> None:
        self._turns = itertools.count()
        self._groups: dict[K, Groups] = {}  # of each key
        # By class, then namespace. First in a class is the namespace that was served longest ago,
        # or began to wait there first.
        self._lines: dict[str, OrderedDict[str, _Line[K]]] = {}
        self._namespaces: dict[str, _Namespace] = {}

    def __len__(self) -> int:
        """The number of keys."""
        return len(self._groups)

    def __contains__(self, key: object) -> bool:
        """Whether the key waits here."""
        return key in self._groups

    def times(self) -> Iterator[float]:
        """The time of each key, in any order."""
        for lines in self._lines.values():
            for line in lines.values():
                yield from line.keys.values()

    def blocked(self, held: WorkersInUse) -> int:
        """How many keys wait because their namespace or class holds its whole share."""
        return sum(
            len(line.keys)
            for class_name, lines in self._lines.items()
            for namespace, line in lines.items()
            if not held.may_run(Groups(namespace, class_name))
        )

    def add(self, key: K, since: float, groups: Groups) -> None:
        """Add a key that does not wait here yet. A namespace that begins to wait goes last."""
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
        """Remove a key; returns its time and groups.

        Raises:
            KeyError: it does not wait here.
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
        """The key whose turn it is among those that may run; None if there is none."""
        best: tuple[int, int] | None = None
        chosen: _Line[K] | None = None
        for class_name, lines in self._lines.items():
            if not held.class_may_run(class_name):
                continue
            for name, line in lines.items():
                # Only a few can hold their whole share, so that this ends soon.
                if held.may_run(Groups(name, class_name)):
                    turn = (self._namespaces[name].turn, line.turn)
                    if best is None or turn < best:
                        best, chosen = turn, line
                    break
        return next(iter(chosen.keys)) if chosen else None

    def take(self, key: K) -> tuple[float, Groups]:
        """Remove a key because its turn has come: its namespace and line go last."""
        groups = self._groups[key]
        lines = self._lines[groups.class_name]
        lines[groups.namespace].turn = next(self._turns)
        namespace = self._namespaces[groups.namespace]
        namespace.turn = next(self._turns)
        for class_name in namespace.classes:
            self._lines[class_name].move_to_end(groups.namespace)
        return self.remove(key)
