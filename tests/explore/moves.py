"""Moves within the processes: runs in another order, and faults within a run.

A move that cuts a run makes that run and ends with it, so a state never holds half a run.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.explore.edits import Move
from tests.explore.machine import PROCESSES, Machine
from tests.model.backend import Answer
from tests.model.pause import Point
from tests.model.processes import Run, Running

from cosi_operator.driver.errors import DriverSilent
from cosi_operator.kube.errors import ApiSilent, Conflict
from cosi_operator.outcome import Call, Code, MadeBy

# --- other orders of work


def _run_without_news(name: str) -> Move:
    words = f"the {name} runs before its news"
    return Move(words, lambda machine: machine.work(name, deliver=False))


def _run_with_part_of_the_news(name: str, index: int, plural: str) -> Move:
    words = f"the {name} runs with no news but that of {plural}"
    return Move(words, lambda machine: _partial_news(machine, name, index))


def orders(machine: Machine) -> Iterator[Move]:
    """Runs that the schedule would not make now: late, or before their news."""
    world = machine.world
    for name in PROCESSES:
        running = world.processes[name]
        waiting = [index for index, kind in enumerate(running.kinds) if kind.inbox]
        if name == "sidecar" and machine.has_work("controller") and machine.has_work(name):
            yield Move("the sidecar is first", lambda m: m.work("sidecar"))
        if waiting and machine.is_due(running):
            yield _run_without_news(name)
        for index in waiting if len(waiting) > 1 else ():
            plural = running.kinds[index].resource.plural
            yield _run_with_part_of_the_news(name, index, plural)


def _partial_news(machine: Machine, name: str, index: int) -> None:
    kind = machine.world.processes[name].kinds[index]
    while kind.inbox:
        kind.deliver_one()
    machine.work(name, deliver=False)


# --- faults within a run


@dataclass(frozen=True)
class Fault:
    """What happens at the n-th point of the next run."""

    words: str
    act: Callable[[Machine, Running, Run, Point], Exception | None]


def _fails(error: Exception) -> Callable[..., Exception]:
    return lambda _machine, _running, _run, _point: error


def _crash(machine: Machine, running: Running, _run: Run, _point: Point) -> None:
    machine.world.restart(running.name)


def _slow(machine: Machine, _running: Running, _run: Run, _point: Point) -> None:
    machine.world._work(list(PROCESSES))


def _old_leader(machine: Machine, running: Running, run: Run, _point: Point) -> None:
    """A new leader does all work; then this run ends, in a process that has lost its lease."""
    world = machine.world
    world.api.listeners.remove(running._hear)
    world.start(running.name)
    world._work(list(PROCESSES))
    while running.step(run):
        pass
    world.backend.sidecar_killed()  # the old leader exits, whatever it had left to write


def _answer(answer: Answer) -> Callable[[Machine, Running, Run, Point], None]:
    def act(machine: Machine, _running: Running, _run: Run, point: Point) -> None:
        machine.world.backend.answers[Call(point.verb)] = answer

    return act


LOST = Fault("the request is lost", _fails(ApiSilent("gone")))
REPLY_LOST = Fault("the reply is lost", _fails(ApiSilent("gone")))
CONFLICT = Fault("the write conflicts", _fails(Conflict(409, "Conflict", "so it says")))
CRASH = Fault("the process crashes", _crash)
SLOW = Fault("all others work meanwhile", _slow)
OLD_LEADER = Fault("a new leader does all work, then the old one goes on", _old_leader)
ANSWERS = (
    ("is refused for good", Answer(Code.INVALID_ARGUMENT, acts=False)),
    ("is answered UNAVAILABLE, having acted", Answer(Code.UNAVAILABLE, acts=True)),
    ("is answered UNAVAILABLE, not having acted", Answer(Code.UNAVAILABLE, acts=False)),
)
BAD_GRANTS = (
    ("is answered without an id", Answer(empty_id=True)),
    ("is answered without credentials", Answer(no_credentials=True)),
)


def faults(points: list[tuple[str, Point]], *, locks: bool) -> Iterator[Move]:
    """Faults of the run that passed these points, in a state in which it is next.

    `locks`: whether the driver does. The calls of two leaders spoil its data otherwise, which a
    process can prevent for its own calls only.
    """
    runs = [name for name, _ in points]
    for index, (name, point) in enumerate(points):
        if name == runs[0]:
            for fault in _faults_at(point, is_write=_is_write(point)):
                if locks or not point.driver or fault is not OLD_LEADER:
                    yield _with_fault(index, point, fault)


def _with_fault(index: int, point: Point, fault: Fault) -> Move:
    return Move(f"{point}: {fault.words}", lambda machine: _faulty(machine, index, fault))


def _is_write(point: Point) -> bool:
    return point.driver or point.verb not in ("get", "list", "dry-run")


def _faults_at(point: Point, *, is_write: bool) -> Iterator[Fault]:
    if point.driver and point.before:
        yield Fault("is not sent", _silent(MadeBy.TRANSPORT))
        bad = BAD_GRANTS if point.verb == Call.GRANT_ACCESS.value else ()
        yield from (Fault(words, _answer(answer)) for words, answer in (*ANSWERS, *bad))
    elif point.driver:
        yield Fault("has no answer in time", _silent(MadeBy.DEADLINE))
    elif point.before:
        yield LOST
        if point.verb.startswith("update"):
            yield CONFLICT
    elif is_write:
        yield REPLY_LOST
    if is_write and (not point.before or point.driver):
        yield CRASH
    if is_write and (point.before or point.driver):
        yield from (SLOW, OLD_LEADER)


def _silent(made_by: MadeBy) -> Callable[[Machine, Running, Run, Point], Exception]:
    return lambda _m, _running, _run, point: DriverSilent(Call(point.verb), made_by, "gone")


def _faulty(machine: Machine, index: int, fault: Fault) -> None:
    """Make the step of the schedule, with the fault at this point of its first run."""
    world, passed = machine.world, 0

    def at_point(running: Running, run: Run, point: Point) -> Exception | None:
        nonlocal passed
        machine.note(running, run, point)
        passed += 1
        if passed - 1 != index:
            return None
        world.at_point = machine.note
        return fault.act(machine, running, run, point)

    world.at_point = at_point
    try:
        machine.advance()
    finally:
        world.at_point = machine.note
        world.backend.answers.clear()
