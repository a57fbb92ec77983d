"""Users, faults, a moody driver, time and crashes in any order: what must hold always, and at last.

Hypothesis makes the order: which process steps, which watch line comes, what is cut. `World` checks
each step (see its `violations`); this module adds what final means, and that in the end, with a
healed driver, everything converges, nothing is left behind, and the writes stop.

The default profile is the same on every run. `COSI_MODEL=long` looks further, at random, and prints
the blob that repeats a failing run; COSI_MODEL_EXAMPLES sets how many runs it makes.
"""

import os
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from tests.model.backend import Answer
from tests.model.memory import Json
from tests.model.processes import DRIVER
from tests.model.world import (
    World,
    add_access,
    add_access_class,
    add_claim,
    add_class,
    add_static_bucket,
)
from tests.support.measuring import search

from cosi_operator.api.core import SECRETS
from cosi_operator.api.resources import (
    BUCKET_ACCESS_CLASSES,
    BUCKET_ACCESSES,
    BUCKET_CLAIMS,
    BUCKET_CLASSES,
    BUCKETS,
)
from cosi_operator.api.view import Resource
from cosi_operator.classify import CONSERVATIVE
from cosi_operator.driver.errors import DriverSilent
from cosi_operator.kube.errors import ApiError, ApiSilent, Conflict, ServerError
from cosi_operator.outcome import Call, Code, Effect, MadeBy
from cosi_operator.plan import names

IS_LONG = os.environ.get("COSI_MODEL") == "long"
EXAMPLES = int(os.environ.get("COSI_MODEL_EXAMPLES", "5000" if IS_LONG else "200"))
PROFILE = settings(
    max_examples=EXAMPLES,
    stateful_step_count=60,
    derandomize=not IS_LONG,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)

CLAIMS, ACCESSES, CLASSES = ("c1", "c2"), ("a1", "a2", "a3"), ("gold", "silver")
CALLS = (Call.CREATE_BUCKET, Call.DELETE_BUCKET, Call.GRANT_ACCESS, Call.REVOKE_ACCESS)
PROCESSES = st.sampled_from(["controller", "sidecar"])
# Codes that would be a lie here: the fake backend knows what exists.
LIES = {Code.OK, Code.ALREADY_EXISTS, Code.NOT_FOUND}
MAX_RUNS = 3
HOUR_S = 3600.0


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    """Any honest answer: what says that nothing was done has not acted."""
    code = draw(st.sampled_from([c for c in Code if c not in LIES]))
    acts = CONSERVATIVE[code].effect is Effect.MAYBE and draw(st.booleans())
    return Answer(code, acts=acts)


class Cluster(RuleBasedStateMachine):
    """The rules are what users, machines and the network do."""

    def __init__(self) -> None:
        super().__init__()
        self.retained: set[str] = set()

    @initialize(
        upstream=st.sampled_from([False, False, True]),
        recheck_s=st.sampled_from([None, None, 120.0]),
        answers_first=st.dictionaries(st.sampled_from(CALLS), answers(), max_size=2),
        worked=st.booleans(),
    )
    def begin(
        self,
        upstream: bool,
        recheck_s: float | None,
        answers_first: dict[Call, Answer],
        worked: bool,
    ) -> None:
        self.world = World(upstream=upstream, recheck_s=recheck_s)
        self.world.api.listeners.append(self._note_retained)
        add_class(self.world)
        add_class(self.world, "silver", policy="Retain")
        add_access_class(self.world)
        add_static_bucket(self.world)
        self.world.backend.answers |= answers_first
        self.create_claim("c1", "gold")
        self.create_access("a1", "c1", own_secret=True)
        if worked:
            self.world.run_until_idle(limit_s=30.0)

    def _note_retained(self, resource: Resource, kind: str, body: Json) -> None:
        if resource is BUCKETS and body["spec"]["deletionPolicy"] == "Retain":
            self.retained.add(body["metadata"]["name"])

    # --- users

    @rule(name=st.sampled_from(CLAIMS), leads_to=st.sampled_from([*CLASSES, "absent", "old", ""]))
    def create_claim(self, name: str, leads_to: str) -> None:
        if self.world.find(BUCKET_CLAIMS, name):
            return
        if leads_to == "old":
            add_claim(self.world, name, existingBucketName="old")
        else:
            add_claim(self.world, name, bucketClassName=leads_to)

    @rule(name=st.sampled_from(CLAIMS), leads_to=st.sampled_from(CLASSES))
    def edit_claim(self, name: str, leads_to: str) -> None:
        self._edit(BUCKET_CLAIMS, name, lambda b: b["spec"].update(bucketClassName=leads_to))

    @rule(name=st.sampled_from(ACCESSES), claim=st.sampled_from(CLAIMS), own_secret=st.booleans())
    def create_access(self, name: str, claim: str, own_secret: bool) -> None:
        if self.world.find(BUCKET_ACCESSES, name):
            return
        secret = f"{name}-secret" if own_secret else "common-secret"
        add_access(self.world, name, claim=claim, credentialsSecretName=secret)

    @rule(name=st.sampled_from(CLASSES), tier=st.sampled_from("123"), driver=st.booleans())
    def edit_class(self, name: str, tier: str, driver: bool) -> None:
        change = {"parameters": {"tier": tier}, "driverName": DRIVER if driver else "other"}
        self._edit(BUCKET_CLASSES, name, lambda b: b.update(change))

    @rule(there=st.booleans())
    def access_class_goes_or_comes(self, there: bool) -> None:
        if self.world.find(BUCKET_ACCESS_CLASSES, "keys"):
            if not there:
                self.world.user_deletes(BUCKET_ACCESS_CLASSES, "keys")
        elif there:
            add_access_class(self.world)

    @rule(name=st.sampled_from([*CLAIMS, *ACCESSES]))
    def delete(self, name: str) -> None:
        self.world.user_deletes(BUCKET_CLAIMS if name in CLAIMS else BUCKET_ACCESSES, name)

    @rule(index=st.integers(0, 2))
    def delete_bucket(self, index: int) -> None:
        buckets = [b["metadata"]["name"] for b in self.world.api.list(BUCKETS)]
        if index < len(buckets):
            self.world.user_deletes(BUCKETS, buckets[index])

    @rule(name=st.sampled_from([*CLAIMS, *ACCESSES]), token=st.sampled_from("123"))
    def ask_for_a_retry(self, name: str, token: str) -> None:
        resource = BUCKET_CLAIMS if name in CLAIMS else BUCKET_ACCESSES
        if self.world.find(resource, name):
            self.world.user_retries(resource, name, token)

    @rule(name=st.sampled_from(["a1-secret", "common-secret"]), theirs=st.booleans())
    def a_secret_is_removed_by_force_or_made_by_someone(self, name: str, theirs: bool) -> None:
        self._edit(SECRETS, name, lambda b: b["metadata"].pop("finalizers", None))
        self.world.user_deletes(SECRETS, name)
        if theirs and name not in self.world.api.refused_secrets:
            self.world.user_creates(SECRETS, name, stringData={"password": "theirs"})

    @rule(name=st.sampled_from([f"{a}-secret" for a in ACCESSES]), refused=st.booleans())
    def secrets_are_refused_or_not(self, name: str, refused: bool) -> None:
        secrets = self.world.api.refused_secrets
        (secrets.add if refused else secrets.discard)(name)

    def _edit(self, resource: Resource, name: str, edit: Callable[[Json], Any]) -> None:
        if self.world.find(resource, name):
            self.world.user_edits(resource, name, edit)

    # --- the driver

    @rule(call=st.sampled_from(CALLS), answer=answers())
    def driver_will_answer(self, call: Call, answer: Answer) -> None:
        self.world.backend.answers[call] = answer

    @rule(answer=st.sampled_from([Answer(empty_id=True), Answer(no_credentials=True)]))
    def driver_will_grant_badly(self, answer: Answer) -> None:
        self.world.backend.answers[Call.GRANT_ACCESS] = answer

    @rule()
    def driver_heals(self) -> None:
        self.world.backend.answers.clear()

    @rule(change=st.sampled_from(["goes", "comes", "is replaced"]))
    def driver_process(self, change: str) -> None:
        if change == "goes":
            self.world.driver_goes()
        else:
            self.world.driver_comes(new=change != "comes")

    # --- machines, network, time

    @rule(name=PROCESSES, index=st.integers(0, MAX_RUNS), steps=st.integers(1, 12))
    def step(self, name: str, index: int, steps: int) -> None:
        """Go on with a run that is under way, or take a new one."""
        running = self.world.processes[name]
        if index >= len(running.runs):
            if len(running.runs) == MAX_RUNS or running.take() is None:
                return
            index = len(running.runs) - 1
        run = running.runs[index]
        for _ in range(steps):
            if not running.step(run):
                return

    @rule(name=PROCESSES, steps=st.integers(1, 40))
    def work_a_while(self, name: str, steps: int) -> None:
        """The watches are up to date; run after run, until so many steps are made."""
        running = self.world.processes[name]
        while steps:
            running.deliver()
            run = running.runs[0] if running.runs else running.take()
            if run is None:
                return
            while steps and running.step(run):
                steps -= 1
            steps = max(0, steps - 1)

    @rule(name=PROCESSES, index=st.integers(0, MAX_RUNS - 1), kind=st.integers(0, 2))
    def a_message_is_lost(self, name: str, index: int, kind: int) -> None:
        running = self.world.processes[name]
        waiting = [run for run in running.runs if run.point is not None]
        if index >= len(waiting):
            return
        run = waiting[index]
        assert run.point is not None
        if run.point.driver:
            made_by = MadeBy.DEADLINE if kind else MadeBy.TRANSPORT
            running.step(run, DriverSilent(Call(run.point.verb), made_by, "gone"))
        else:
            faults: list[Exception] = [
                ApiSilent("gone"),
                ServerError(500, "InternalError", "etcd"),
                Conflict(409, "Conflict", "so it says"),
            ]
            running.step(run, faults[kind])

    @rule(index=st.integers(0, 2))
    def a_late_write_lands(self, index: int) -> None:
        """Its process was killed, or has given it up."""
        if index < len(self.world.parts.late):
            with suppress(ApiError):
                self.world.parts.late.pop(index)()

    @rule(name=PROCESSES, index=st.integers(0, 4), every=st.booleans())
    def watch_lines_come(self, name: str, index: int, every: bool) -> None:
        running = self.world.processes[name]
        if every:
            running.deliver()
        elif index < len(running.kinds) and running.kinds[index].inbox:
            running.kinds[index].deliver_one()

    @rule(name=PROCESSES)
    def kill(self, name: str) -> None:
        self.world.restart(name)

    @rule(seconds=st.sampled_from([0.5, 2.0, 10.0, 130.0, 700.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.clock.advance(seconds)

    @rule(seconds=st.sampled_from([1.0, 60.0]))
    def all_work(self, seconds: float) -> None:
        self._finish_runs()
        self.world.run_until_idle(limit_s=seconds)

    def _finish_runs(self) -> None:
        for running in self.world.processes.values():
            for run in list(running.runs):
                self.world.finish(running, run)

    # --- what must hold

    @invariant()
    def nothing_forbidden_happened(self) -> None:
        if hasattr(self, "world"):
            assert self.world.violations == []

    @precondition(lambda self: self.world.recheck_s is None)
    @rule()
    def final_means_no_calls_until_something_changes(self) -> None:
        self._finish_runs()
        self.world.run_until_idle(limit_s=2 * HOUR_S)
        final = self._final()
        before = Counter(called.name for called in self.world.backend.calls)
        self.world.restart("sidecar")
        self.world.run_until_idle(limit_s=HOUR_S)
        after = Counter(called.name for called in self.world.backend.calls)
        assert {
            name: after[name] - before[name] for name in final if after[name] > before[name]
        } == {}

    def _final(self) -> set[str]:
        """The driver's names of all that has a final verdict by a driver and is not deleted."""
        found = set()
        for resource in (BUCKETS, BUCKET_ACCESSES):
            for body in self.world.api.list(resource):
                call = (body.get("status") or {}).get("lastCall") or {}
                if body["metadata"].get("deletionTimestamp") or call.get("outcome") != "Terminal":
                    continue
                uid = body["metadata"]["uid"]
                name = body["metadata"]["name"]
                found.add(name if resource is BUCKETS else names.account_name(uid))
        return found

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        self._finish_runs()
        world.backend.answers.clear()
        world.api.refused_secrets.clear()
        world.driver_comes()
        self.access_class_goes_or_comes(there=True)
        for resource in (BUCKET_CLAIMS, BUCKET_ACCESSES):
            for body in world.api.list(resource):
                world.user_retries(resource, body["metadata"]["name"], "at last")
        self._rests()
        for resource in (BUCKET_CLAIMS, BUCKETS, BUCKET_ACCESSES):
            for body in world.api.list(resource):
                world.user_deletes(resource, body["metadata"]["name"])
        self._rests()
        self._nothing_is_left()

    def _rests(self) -> None:
        world = self.world
        world.run_until_idle()
        writes, calls = world.writes(), len(world.backend.calls)
        world.clock.advance(HOUR_S)
        world.run_until_idle()
        assert (world.writes(), len(world.backend.calls)) == (writes, calls), world.sent[-3:]
        problems = world.check_settled()
        assert not problems, problems

    def _nothing_is_left(self) -> None:
        world = self.world
        for resource in (BUCKET_CLAIMS, BUCKETS, BUCKET_ACCESSES):
            assert world.api.list(resource) == []
        secrets = [body for body in world.api.list(SECRETS) if "BucketInfo" in body["data"]]
        assert secrets == []
        # What nobody could know was told as an Event that names it.
        unknown = " ".join(e.message for e in world.parts.told if e.reason == "BackendUnverified")
        left = set(world.backend.buckets) - self.retained
        leaked = {name for name in left if name not in unknown}
        assert not leaked, leaked
        # docs/faults.md, "What is not promised": a driver that makes a new account each time. An
        # upgraded one that chooses accounts in another way is such a driver once.
        mints = world.backend.new_account_each_time or world.backend.is_upgraded
        leaked = {
            account_id
            for account_id, account in world.backend.accounts.items()
            if (account.learned or not mints)
            and account_id not in unknown
            and account.name not in unknown
        }
        assert not leaked, leaked


@pytest.mark.timeout(3600 if IS_LONG else 240)  # some 5 s of work; the machine may be busy
def test_whatever_happens_it_stays_within_its_promises_and_converges() -> None:
    random.seed(0)
    search(Cluster, PROFILE)
