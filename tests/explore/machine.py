"""A hostile small world that is driven one step at a time, without hypothesis.

`Machine` has the moves and the teardown of `tests.model.test_hostile`. Its processes follow one
schedule: the controller works before the sidecar, with all watch lines delivered, and time passes
only while neither has anything to do. Any other order is a move (`edits`, `moves`).
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests import invariants
from tests.model.backend import Called
from tests.model.hostile import HostileWorld
from tests.model.memory import Json
from tests.model.pause import Point
from tests.model.processes import Run, Running
from tests.model.test_hostile import Hostile
from tests.model.world import (
    add_access,
    add_access_class,
    add_claim,
    add_class,
    add_static_bucket,
    record_of,
)

from cosi_operator.api.resources import BUCKET_ACCESSES, BUCKET_CLAIMS, BUCKETS

PROCESSES = ("controller", "sidecar")
# Longer than every wait after which a process would do something by itself; rechecks of failed
# deletions (10 minutes) come twice in it.
CALM_S = 1300.0
# Every object has to say within this time what it waits for.
SPEAK_S = 60.0
JUMPS = 400  # of the clock, within CALM_S


class Steady(random.Random):
    """No jitter, so a state has one future."""

    def random(self) -> float:
        return 0.5


@dataclass(frozen=True)
class Scene:
    """Where an exploration begins.

    claim: the Bucket's origin: "gold", "silver" (Retain), "old" (static) or "" (no claim).
    accesses: how many exist. ready: all work is done before the first move.
    prelude: the words of moves that were made before the search begins; each is worked off before
        the next one.
    """

    name: str
    claim: str = "gold"
    accesses: int = 1
    ready: bool = True
    destroyer: str = "none"
    accounts: str = "one each"
    locks: bool = True
    upstream: bool = False
    prelude: tuple[str, ...] = ()


class SmallWorld(HostileWorld):
    """The hostile world, with what only a search to the end asks of a Delete."""

    def _deleting(self, called: Called) -> None:
        if called.bucket_id not in self.backend.buckets.values():
            return  # a call that an earlier leader had sent, and that has nothing left to delete
        super()._deleting(called)
        for bucket in self._of_id(called.bucket_id):
            record = record_of(bucket)
            for entry in record.accesses.values() if record else ():
                if left := set(entry.accounts) & set(self.backend.accounts):
                    self.violations.append(f"{called.call} before the accounts {left} are revoked")


class Machine(Hostile):
    """The world of a scene, and what can happen in it."""

    def __init__(self, scene: Scene) -> None:  # no rules: hypothesis does not run it
        self.retained: set[str] = set()
        self.destroyer = scene.destroyer
        self.is_upgraded = False
        self.backups: dict[str, str] = {}
        self.saved: dict[str, Json] = {}
        self.points: list[tuple[str, Point]] = []  # of the last run
        # Secrets are not watched, so nobody notices this until the access runs again.
        self.has_lost_secret = False
        self.world = world = SmallWorld(upstream=scene.upstream)
        world.parts.rng = Steady()
        for name in PROCESSES:
            world.restart(name)
        world.at_point = self.note
        self._choose_accounts(scene.accounts)
        world.backend.locks = scene.locks
        world.api.listeners.append(self._note_retained)
        add_class(world)
        add_class(world, "silver", policy="Retain")
        add_access_class(world)
        add_static_bucket(world)
        if scene.claim == "old":
            add_claim(world, "c1", existingBucketName="old")
        elif scene.claim:
            add_claim(world, "c1", bucketClassName=scene.claim)
        for number in range(1, scene.accesses + 1):
            add_access(world, f"a{number}", claim="c1")
        if scene.ready:
            world.run_until_idle(limit_s=30.0)

    # --- what a state is made of besides the world

    @property
    def accounts_choice(self) -> tuple[bool, ...]:
        backend = self.world.backend
        flags = (backend.new_account_each_time, backend.one_account_for_a_bucket)
        return (*flags, backend.is_upgraded, backend.locks)

    def told_left(self) -> list[str]:
        """What is on the backend and was told to be left there."""
        told = " ".join(e.message for e in self.world.parts.told if e.reason == "BackendUnverified")
        backend = self.world.backend
        found = {*backend.buckets, *backend.accounts} | {a.name for a in backend.accounts.values()}
        return sorted(name for name in found if name in told)

    def uid_prefixes(self) -> list[str]:
        kinds = {"bucketclaims": "bucketclaim", "bucketaccesses": "bucketaccess"}
        kinds |= {"secrets": "secret", "buckets": "bucket"}
        found = []
        for plural, key in self.world.api._born:
            if plural in kinds and not key.name.startswith("bucket-"):
                space = "" if key.namespace in ("", "team") else f"{key.namespace}-"
                found.append(f"{kinds[plural]}-{space}{key.name}-")
        return found

    # --- moves that need a note

    def a_secret_is_removed_by_force_or_made_by_someone(self, name: str, theirs: bool) -> None:
        self.has_lost_secret = True
        super().a_secret_is_removed_by_force_or_made_by_someone(name, theirs)

    # --- the schedule

    def note(self, running: Running, _run: Run, point: Point) -> None:
        self.points.append((running.name, point))

    def has_work(self, name: str) -> bool:
        running = self.world.processes[name]
        return any(kind.inbox for kind in running.kinds) or self.is_due(running)

    def has_any_work(self) -> bool:
        return any(map(self.has_work, PROCESSES))

    def is_due(self, running: Running) -> bool:
        return any(runner.queue.statistics().depth for runner in running.runners)

    def work(self, name: str, *, deliver: bool = True) -> bool:
        """Deliver the watch lines of a process and make its next run; False if it has none."""
        running = self.world.processes[name]
        if deliver:
            running.deliver()
        if (run := running.take()) is None:
            return False
        self.world.finish(running, run)
        return True

    def advance(self) -> bool:
        """The next step of the schedule; False if the world is at rest."""
        self.points = []
        for name in PROCESSES:
            if self.has_work(name):
                self.work(name)
                return True
        return self._time_passes()

    def effects(self) -> tuple[int, int, int]:
        world = self.world
        return (world.writes(), len(world.backend.calls), len(world.parts.told))

    def _time_passes(self) -> bool:
        """Jump from deadline to deadline until something happens; False if nothing does."""
        world, before = self.world, self.effects()
        end = world.clock.monotonic() + CALM_S
        silent = self._silent()
        for _ in range(JUMPS):
            left = [due - world.clock.monotonic() for due in self._deadlines()]
            wait = min((s for s in left if s > 0), default=CALM_S)
            if world.clock.monotonic() + wait > end:
                return False
            world.clock.advance(wait)
            for name in PROCESSES:
                while self.has_work(name):
                    self.work(name)
            if self.effects() != before:
                if CALM_S - (end - world.clock.monotonic()) > SPEAK_S:
                    world.violations += [f"{who} said nothing for a minute" for who in silent]
                return True
        raise AssertionError("deadlines never end")

    def _deadlines(self) -> Iterator[float]:
        for running in self.world.processes.values():
            for runner in running.runners:
                yield from runner.queue._delayed.values()

    def _silent(self) -> list[str]:
        """Objects of ours without a condition, while all that could write one is up."""
        world = self.world
        if not world.up or world.upstream:
            return []
        return [
            f"{body['kind']} {body['metadata']['name']}"
            for resource in (BUCKET_CLAIMS, BUCKETS, BUCKET_ACCESSES)
            for body in world.api.list(resource)
            if world._driver_of(body) == "s3.example.com"
            and any("settled" in v for v in invariants.status_violations(body, settled=True))
        ]

    # --- what must hold

    def wrong_now(self) -> list[str]:
        return list(self.world.violations)

    def wrong_at_rest(self) -> list[str]:
        """What is wrong in a world at rest: now, after an hour, and when all is deleted."""
        wrong = [] if self.has_lost_secret else self._problem(self._rests)
        return wrong or self._problem(self.teardown)

    def _problem(self, check: Callable[[], Any]) -> list[str]:
        try:
            check()
        except AssertionError as error:
            return [f"{error}".split("\nassert", 1)[0] or "an assertion"]
        return []
