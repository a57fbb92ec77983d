"""Two processes that both think they lead, for a moment; and a token that is replaced."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.faults.bed import FLAGS, FaultBed
from tests.faults.fault import Fault, How
from tests.faults.scenarios import Create, Scenario
from tests.faults.state import Case, Snapshot
from tests.faults.table import TABLE, full_tier

from cosi_operator.outcome import Call
from testbed import access_body, claim_body

LEASE_S = 15.0
CLAIMS = 20


def classes(bed: FaultBed, names: list[str]) -> None:
    Scenario.make_classes(Create(), bed, [Case(name) for name in names])


@contextmanager
def second(bed: FaultBed, role: str) -> Iterator[str]:
    """A standby of a process."""
    name = f"{role}-2"
    bed.start_process(name, *FLAGS[role])
    try:
        yield name
    finally:
        bed.processes.pop(name).stop(grace_s=10.0)


def holder(bed: FaultBed, role: str) -> str:
    lease = bed.plane.api.call("GET", bed.lease_path(role))
    return str(lease["spec"].get("holderIdentity") or "")


@pytest.mark.timeout(240)
@pytest.mark.parametrize("role", ["sidecar", pytest.param("controller", marks=full_tier)])
def test_a_leader_that_slept_past_its_lease_makes_nothing_twice_and_steps_down(
    bed: FaultBed, role: str
) -> None:
    """SIGSTOP in the middle of work is the worst case: requests are under way when it wakes."""
    names = [f"two-{role}-{number}" for number in range(CLAIMS)]
    classes(bed, names)
    old = bed.processes[role]
    with second(bed, role) as standby:
        first = holder(bed, role)
        assert first
        bed.create_all("bucketclaims", [claim_body(name, class_name=name) for name in names])
        bed.create_all("bucketaccesses", [access_body(name, class_name=name) for name in names])
        pid = old.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        stopped_s = time.monotonic()
        try:
            bed.until("the standby to lead", lambda: holder(bed, role) != first, timeout_s=60)
            # Counted from its last renewal, which was up to 2 s before it was stopped.
            assert time.monotonic() - stopped_s > LEASE_S - 4
            bed.until_ready("bucketaccesses", names, timeout_s=60)
            keys = {name: bed.get("secrets", f"{name}-keys")["data"] for name in names}
        finally:
            os.kill(pid, signal.SIGCONT)
        bed.until("the old leader to end", lambda: not old.is_running, timeout_s=30)
        second_holder = holder(bed, role)
        bed.until_quiet(1.0)
        assert holder(bed, role) == second_holder != first  # no fight
        assert {name: bed.get("secrets", f"{name}-keys")["data"] for name in names} == keys
        check_once(bed, names)
        bed.delete_all("bucketclaims", names)
        bed.until_gone("bucketclaims", names, timeout_s=60)
        bed.until_gone("bucketaccesses", names, timeout_s=60)
        assert bed.processes[standby].is_running
    bed.revive(role)
    bed.until_empty()
    TABLE.add("two leaders", f"the {role} is stopped past its Lease", met=True, survived=True)


def check_once(bed: FaultBed, names: list[str]) -> None:
    """Each claim has one Bucket, one backend bucket and one account; the Secret has its keys."""
    seen = Snapshot.take(bed)
    for name in names:
        case = Case(name)
        case.learn("bucketclaims", seen.claims[name])
        case.learn("bucketaccesses", seen.accesses[name])
        state = case.state(seen)
        assert len(state["buckets on the backend"]) == 1
        assert [a["keys"] for a in state["accounts on the backend"]] == ["in the Secret"]
        bound = [b for b in seen.buckets.values() if b["spec"]["bucketClaim"]["name"] == name]
        assert len(bound) == 1
        calls = [entry.call for entry in bed.calls_of(name)]
        # A call under way at the stop may be made again by the new leader.
        assert calls.count(Call.CREATE_BUCKET) <= 2
        assert calls.count(Call.GRANT_ACCESS) <= 2


@pytest.mark.timeout(120)
def test_a_rotated_token_is_taken_up_without_a_restart(bed: FaultBed) -> None:
    """A token is read from its file again within a minute, and at once after a 401; the old one
    is revoked here by the proxy, which refuses it."""
    name = "rotated"
    classes(bed, [name])
    before = {role: process.pid for role, process in bed.processes.items()}
    tokens = {role: bed.token_of(role) for role in ("controller", "sidecar")}
    for role in tokens:
        bed.rotate_token(role)
    assert {role: bed.token_of(role) for role in tokens} != tokens
    old = {f"Bearer {token}" for token in tokens.values()}
    refusals = bed.proxy.arm(
        Fault(How.UNAUTHORIZED, lambda asked: asked.authorization in old, times=1e9)
    )
    bed.create("bucketclaims", claim_body(name, class_name=name))
    bed.until_ready("bucketclaims", [name], timeout_s=60)
    assert refusals.hits >= 2  # each process tried its old token once or more
    assert {role: process.pid for role, process in bed.processes.items()} == before
    bed.proxy.lift(refusals)
    bed.delete("bucketclaims", name)
    bed.until_gone("bucketclaims", [name], timeout_s=60)
    TABLE.add("a claim", "the token is replaced and the old one refused", met=True, survived=True)
