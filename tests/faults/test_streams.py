"""Watches and lists that break, one kind of object at a time, while a claim and an access live
through everything: made, granted, revoked, deleted."""

import itertools
from collections.abc import Callable

import pytest
from tests.faults.bed import FaultBed
from tests.faults.engine import Engine
from tests.faults.fault import Fault, How
from tests.faults.requests import Asked
from tests.faults.scenarios import Create, DeleteGranted, Grant, Scenario
from tests.faults.state import Case, Snapshot
from tests.faults.table import TABLE, full_tier

from cosi_operator.outcome import Call
from testbed import access_body, claim_body

WATCHED = {
    "controller": (
        "bucketclaims",
        "buckets",
        "bucketclasses",
        "bucketaccesses",
        "bucketaccessclasses",
    ),
    "sidecar": ("buckets", "bucketclaims", "bucketaccessclasses", "bucketaccesses"),
}
KINDS = [(role, plural) for role, plurals in WATCHED.items() for plural in plurals]


def watch_of(role: str, plural: str) -> Callable[[Asked], bool]:
    return lambda asked: (asked.role, asked.verb, asked.plural) == (role, "watch", plural)


def live_and_go(bed: FaultBed, name: str) -> None:
    """Class, claim, access, and all of it gone again without a trace."""
    case = Case(name)
    Scenario.make_classes(Create(), bed, [case])
    bed.create("bucketclaims", claim_body(name, class_name=name))
    bed.create("bucketaccesses", access_body(name, class_name=name))
    bed.until_ready("bucketaccesses", [name], timeout_s=60)
    case.learn("bucketclaims", bed.get("bucketclaims", name))
    case.learn("bucketaccesses", bed.get("bucketaccesses", name))
    bed.delete("bucketclaims", name)
    bed.until_gone("bucketclaims", [name], timeout_s=60)
    bed.until_gone("buckets", [case.bucket], timeout_s=60)
    bed.until_gone("bucketaccesses", [name], timeout_s=60)
    left = case.state(Snapshot.take(bed))
    assert not any(left.values()), left
    calls = [entry.call for entry in bed.calls_of(name)]
    assert len(calls) == len(set(calls)) == 4  # create, grant, revoke, delete: once each


def meet(bed: FaultBed, faults: list[Fault], name: str) -> None:
    """Change an object of each kind until its watch is open and its fault is met.

    A watch that was being opened again when the only change of its kind came saw that in a list.
    """
    Scenario.make_classes(Create(), bed, [Case(name)])
    bed.create("bucketclaims", claim_body(name, class_name=name))
    bed.create("bucketaccesses", access_body(name, class_name=name))
    bed.until_ready("bucketaccesses", [name], timeout_s=60)
    bucket = bed.bucket_of(name)["metadata"]["name"]
    times = itertools.count()

    def all_met() -> bool:
        unmet = {kind for (_, kind), f in zip(KINDS, faults, strict=True) if not f.hits}
        for plural in unmet:
            named = bucket if plural == "buckets" else name
            bed.annotate(plural, named, **{"example.com/changed": str(next(times))})
        return not unmet

    bed.until("each watch has met its fault", all_met, timeout_s=60)
    bed.delete("bucketclaims", name)
    bed.until_gone("bucketaccesses", [name], timeout_s=60)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", [How.CUT_MID_LINE, How.GONE])
def test_nothing_is_missed_when_every_watch_breaks_at_its_next_line(
    bed: FaultBed, how: How
) -> None:
    faults = [bed.proxy.arm(Fault(how, watch_of(role, plural), times=2)) for role, plural in KINDS]
    name = f"broken-{how.name.lower().replace('_', '-')}"
    live_and_go(bed, name)
    meet(bed, faults, f"{name}-later")
    for (role, plural), fault in zip(KINDS, faults, strict=True):
        TABLE.add(f"{role} watches {plural}", how.value, met=fault.hits > 0, survived=True)
    assert all(fault.hits for fault in faults)


@pytest.mark.timeout(300)
def test_what_a_silent_watch_kept_back_is_made_up_for_when_it_ends(bed: FaultBed) -> None:
    """A half-open connection; its own end (5 to 10 minutes and 5 s) is a test with a fake clock in
    tests/unit/kube/test_reflector.py, here the network ends it."""
    name = "silent"
    case = Case(name)
    Scenario.make_classes(Create(), bed, [case])
    faults = [bed.proxy.arm(Fault(How.SILENT, watch_of(*kind), times=9)) for kind in KINDS]
    bed.create("bucketclaims", claim_body(name, class_name=name))
    assert faults[0].fired.wait(30)  # the controller's watch of claims has swallowed it
    assert bed.get("bucketclaims", name).get("status") is None
    for fault in faults:
        bed.proxy.lift(fault)
        TABLE.add("all watches", fault.how.value, met=True, survived=True)
    bed.until_ready("bucketclaims", [name], timeout_s=60)
    bed.delete("bucketclaims", name)
    bed.until_gone("bucketclaims", [name], timeout_s=60)


@full_tier  # the wait of 60 s; on the wire with a fake clock: tests/unit/kube/test_reflector.py
@pytest.mark.timeout(300)
def test_a_watch_that_is_told_to_wait_for_an_hour_is_opened_again_after_a_minute(
    bed: FaultBed,
) -> None:
    name = "hour"
    wanted = watch_of("sidecar", "buckets")
    bed.proxy.arm(Fault(How.CUT_MID_LINE, wanted))  # so that the watch is opened again
    refused = bed.proxy.arm(Fault(How.TOO_MANY, wanted, seconds=3600))
    Scenario.make_classes(Create(), bed, [Case(name)])
    bed.create("bucketclaims", claim_body(name, class_name=name))
    assert refused.fired.wait(30)
    bed.until_ready("bucketclaims", [name], timeout_s=90)
    TABLE.add("sidecar watches buckets", "429 with Retry-After: 3600", met=True, survived=True)
    assert "asked for a wait of 3600 s; the operator waits at most 60 s" in bed.log_of("sidecar")
    bed.delete("bucketclaims", name)
    bed.until_gone("bucketclaims", [name], timeout_s=60)


@full_tier  # its deadline of 30 s
@pytest.mark.timeout(300)
def test_a_request_that_is_never_answered_holds_up_nobody_else(bed: FaultBed) -> None:
    stuck, other = "stuck", "not-stuck"
    cases = [Case(stuck), Case(other)]
    Scenario.make_classes(Create(), bed, cases)
    fault = bed.proxy.arm(Fault(How.HALF_OPEN, lambda a: a.is_effect and a.case == stuck))
    bed.create("bucketclaims", claim_body(stuck, class_name=stuck))
    assert fault.fired.wait(30)
    bed.create("bucketclaims", claim_body(other, class_name=other))
    bed.until_ready("bucketclaims", [other], timeout_s=60)
    assert not bed.get("bucketclaims", stuck).get("status", {}).get("bucketReady")
    # Its deadline of 30 s ends the wait; nobody lifts the fault.
    bed.until_ready("bucketclaims", [stuck], timeout_s=90)
    bed.delete_all("bucketclaims", [stuck, other])
    bed.until_gone("bucketclaims", [stuck, other], timeout_s=60)
    TABLE.add("one request", How.HALF_OPEN.value, met=True, survived=True)


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(Create(), id="create"),
        pytest.param(Grant(), id="grant", marks=full_tier),
        pytest.param(DeleteGranted(), id="delete with an access", marks=full_tier),
    ],
)
def test_a_process_that_starts_from_a_stale_list_does_no_harm(
    bed: FaultBed, scenario: Scenario
) -> None:
    """One kind at a time is as it was when the bed began: empty, or long ago."""
    engine = Engine(bed)
    for result in engine.run_stale(scenario, KINDS):
        TABLE.add(result.scenario, result.way, met=result.met, survived=not result.problems)
        assert result.problems == [], str(result)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("role", "plural"), KINDS)
def test_a_stale_list_in_the_middle_of_life_makes_nobody_delete_or_make_anything(
    bed: FaultBed, role: str, plural: str
) -> None:
    """The watch ends with 410 and the list that follows is as it was when the bed began: empty.
    So all that there is seems to be gone, for a moment."""
    name = f"stale-{role}-{plural}"
    case = Case(name)
    Scenario.make_classes(Create(), bed, [case])
    bed.create("bucketclaims", claim_body(name, class_name=name))
    bed.create("bucketaccesses", access_body(name, class_name=name))
    bed.until_ready("bucketaccesses", [name], timeout_s=60)
    case.learn("bucketclaims", bed.get("bucketclaims", name))
    case.learn("bucketaccesses", bed.get("bucketaccesses", name))
    before = case.state(Snapshot.take(bed))
    stale = bed.proxy.arm(
        Fault(How.STALE, lambda a: (a.role, a.verb, a.plural) == (role, "list", plural))
    )
    gone = bed.proxy.arm(Fault(How.GONE, watch_of(role, plural)))
    # Another claim and access with their classes, so that each kind has a line to break at.
    other = f"{name}-other"
    Scenario.make_classes(Create(), bed, [Case(other)])
    bed.create("bucketclaims", claim_body(other, class_name=other))
    bed.create("bucketaccesses", access_body(other, class_name=other))
    assert gone.fired.wait(30)
    assert stale.fired.wait(30)
    bed.until_ready("bucketaccesses", [other], timeout_s=60)
    bed.until("the state to be as before", lambda: case.state(Snapshot.take(bed)) == before)
    assert [entry.call for entry in bed.calls_of(name)] == [Call.CREATE_BUCKET, Call.GRANT_ACCESS]
    made = {bed.get("bucketclaims", n)["status"]["bucketName"] for n in (name, other)}
    ids = {found.bucket_id for found in bed.driver.buckets() if found.name in made}
    assert len(ids) == 2
    bed.delete_all("bucketclaims", [name, other])
    bed.until_gone("bucketclaims", [name, other], timeout_s=60)
    bed.until_gone("bucketaccesses", [name, other], timeout_s=60)
    bed.until(
        "the backend to hold nothing of them",
        lambda: ids.isdisjoint(found.bucket_id for found in bed.driver.buckets()),
        timeout_s=60,
    )
    assert ids.isdisjoint(account.bucket_id for account in bed.driver.accounts())
    TABLE.add(f"{role} lists {plural}", f"410, then {How.STALE.value}", met=True, survived=True)


@pytest.mark.timeout(120)
def test_a_cluster_that_takes_no_events_is_served_all_the_same(bed: FaultBed) -> None:
    fault = bed.proxy.arm(Fault(How.BROKEN, lambda a: a.plural == "events", times=1e9))
    live_and_go(bed, "no-events")
    bed.proxy.lift(fault)
    TABLE.add("all Events", How.BROKEN.value, met=fault.hits > 0, survived=True)
    assert fault.hits
