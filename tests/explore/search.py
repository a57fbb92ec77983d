"""Breadth-first search over the states of a scene, to its end within a bound.

From each state the schedule leads to one state of rest (`Machine.advance`). At every state on the
way, each move leads to another state, until the bound of moves is used up. States are compared by
`canonical.state_hash`. A schedule ends at rest or at a state that another schedule has passed. One
that returns to its own states would never settle, so it is a violation.
"""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.explore.canonical import state_hash
from tests.explore.edits import Move, begin, edits
from tests.explore.machine import Scene
from tests.explore.moves import faults, orders
from tests.explore.snapshots import Snapshot
from tests.model.pause import Point

# Steps of a schedule that does not end; the longest of a good world has some 40.
LONGEST = 120
SCHEDULE = Move("", lambda machine: machine.advance())


type Points = list[tuple[str, Point]]


@dataclass(frozen=True)
class Bound:
    """At most `moves` from outside; at most `amid` of them while something is still to do."""

    moves: int
    amid: int


@dataclass(frozen=True)
class Node:
    """A state, by the way to it: a move from its parent, then `steps` of the schedule."""

    parent: "Node | None"
    move: Move | None
    steps: int = 0
    moves: int = 0
    amid: int = 0

    def path(self) -> list[Move]:
        before = self.parent.path() if self.parent else []
        return [*before, *([self.move] if self.move else []), *[SCHEDULE] * self.steps]


@dataclass(frozen=True)
class Found:
    """A counterexample."""

    scene: Scene
    node: Node
    wrong: list[str]

    def moves(self) -> list[str]:
        return [move.words for move in self.node.path() if move is not SCHEDULE]

    def __str__(self) -> str:
        return "\n".join([f"scene {self.scene.name}:", *trace(self), *self.wrong])


@dataclass
class Result:
    scene: Scene
    bound: Bound
    states: int = 0
    transitions: int = 0
    rests: int = 0
    depth: int = 0
    seconds: float = 0.0
    complete: bool = True
    found: list[Found] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.scene.name}: states {self.states}, transitions {self.transitions},"
            f" depth {self.depth}, rests {self.rests}, {self.seconds:.1f} s CPU,"
            f" complete: {'yes' if self.complete else 'no'}"
        )


class Search:
    """One search.

    Args:
        limit_s: CPU seconds after which the search ends incomplete.
        most: counterexamples after which it ends incomplete.
    """

    def __init__(self, scene: Scene, bound: Bound, *, limit_s: float = 1e9, most: int = 1) -> None:
        self._machine = begin(scene)
        self._start = Snapshot(self._machine)
        self._end_s = time.process_time() + limit_s
        self._most = most
        self._seen: dict[bytes, list[tuple[int, int]]] = {}
        self._open: deque[Node] = deque()
        self._known: set[str] = set()
        self._bound = bound
        self.result = Result(scene, bound)

    def run(self) -> Result:
        began = time.process_time()
        state = state_hash(self._machine)
        self._is_new(state, 0, 0)
        self._follow(Node(None, None), state)
        while self._open and not self._is_over():
            node = self._open.popleft()
            self._start.restore()
            for move in node.path():
                move.act(self._machine)
            self._follow(node, state_hash(self._machine))
        self.result.complete = not self._open and not self._is_over()
        self.result.seconds = time.process_time() - began
        return self.result

    def _is_over(self) -> bool:
        return len(self.result.found) >= self._most or time.process_time() > self._end_s

    def _is_new(self, state: bytes, moves: int, amid: int) -> bool:
        """Whether this state was not reached yet with as few moves of both kinds."""
        ways = self._seen.setdefault(state, [])
        if not ways:
            self.result.states += 1
        if any(m <= moves and a <= amid for m, a in ways):
            return False
        ways[:] = [(m, a) for m, a in ways if m < moves or a < amid]
        ways.append((moves, amid))
        return True

    def _follow(self, node: Node, state: bytes) -> None:
        """Follow the schedule from `state` to rest or to a seen state; branch on the way.

        A snapshot costs as much as a step, so states that nothing returns to have none.
        """
        machine, mine = self._machine, {state}
        here: Snapshot | None = None
        while not self._is_over():
            branches = self._may_branch(node, at_rest=False)
            if here is None and (branches or not machine.has_any_work()):
                here = Snapshot(machine)
            moved = self._act(SCHEDULE)
            points = machine.points
            if not moved:
                assert here is not None, "only a world without work comes to rest"
                here.restore()
                self._at_rest(node, here)
                self._branch(node, here, [], at_rest=True)
                return
            before, here = here, None
            if branches and before is not None:
                here = Snapshot(machine)
                self._branch(node, before, points, at_rest=False)
                here.restore()
            node = Node(node.parent, node.move, node.steps + 1, node.moves, node.amid)
            self.result.transitions += 1
            self.result.depth = max(self.result.depth, len(node.path()))
            if self._is_wrong(node, machine.wrong_now()):
                return
            state = state_hash(machine)
            if state in mine or len(mine) > LONGEST:
                self._is_wrong(node, ["the work never ends, though nothing else happens"])
                return
            mine.add(state)
            if not self._is_new(state, node.moves, node.amid):
                return

    def _may_branch(self, node: Node, *, at_rest: bool) -> bool:
        return node.moves < self._bound.moves and node.amid + (not at_rest) <= self._bound.amid

    def _branch(self, node: Node, here: Snapshot, points: Points, *, at_rest: bool) -> None:
        if not self._may_branch(node, at_rest=at_rest):
            return
        amid = node.amid + (not at_rest)
        for move in self._moves(points):
            if self._is_over():
                return
            here.restore()
            self._try(Node(node, move, 0, node.moves + 1, amid))
        here.restore()

    def _moves(self, points: Points) -> Iterator[Move]:
        yield from edits(self._machine)
        yield from list(orders(self._machine))
        yield from faults(points, locks=self.result.scene.locks)

    def _try(self, child: Node) -> None:
        machine = self._machine
        assert child.move is not None
        self._act(child.move)
        self.result.transitions += 1
        if self._is_wrong(child, machine.wrong_now()):
            return
        state = state_hash(machine)
        if not self._is_new(state, child.moves, child.amid):
            return
        if child.moves < self._bound.moves:
            self._open.append(child)
        else:
            self._follow(child, state)

    def _act(self, move: Move) -> bool:
        """Apply a move; what it raises is a violation."""
        try:
            return bool(move.act(self._machine))
        except Exception as error:  # noqa: BLE001 - whatever a run raises
            self._machine.world.violations.append(f"{type(error).__name__}: {error}")
            return True

    def _at_rest(self, node: Node, here: Snapshot) -> None:
        """Nothing is left to do: check that all is right, and that all can be deleted."""
        self.result.rests += 1
        self._is_wrong(node, self._machine.wrong_at_rest())
        here.restore()

    def _is_wrong(self, node: Node, wrong: list[str]) -> bool:
        if wrong and not self._is_over():
            kind = wrong[0]
            if kind not in self._known:
                self._known.add(kind)
                self.result.found.append(Found(self.result.scene, node, wrong))
        return bool(wrong)


def trace(found: Found) -> Iterator[str]:
    """The way to the counterexample, in plain words: each move, and what was sent after it."""
    machine = begin(found.scene)
    for move in found.node.path():
        sent, calls = len(machine.world.sent), len(machine.world.backend.calls)
        move.act(machine)
        if move is not SCHEDULE:
            yield f"  * {move.words}"
        for request in machine.world.sent[sent:]:
            if request.is_write:
                yield f"      {request.process}: {request.verb} {request.plural} {request.name}"
        for call in machine.world.backend.calls[calls:]:
            yield f"      driver: {call.call} {call.name}"
