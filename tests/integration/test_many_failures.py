"""Many failures at once: none is repeated, and none is retried faster than its backoff.

One scenario with one quiet minute for all tests, in its own testbed: EACH claims wait for a driver
that does not run. When the driver starts, it refuses them for good and answers INTERNAL to EACH
other claims. `make test` takes 150 of each, more than the sidecar has workers;
`make faults-full` takes 1000.
"""

import re
import socket
import tempfile
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.faults.table import FULL

from controlplane.audit import AuditEntry
from cosi_operator.outcome import Call
from mockdriver.journal import Entry
from mockdriver.rules import Rule
from testbed import NAMESPACE, Testbed, condition

EACH = 1000 if FULL else 150
SETTLE_S, WINDOW_S, AWAY_S = 180.0, 60.0, 3.0
FIRST_WAIT_S = 0.8  # of the backoff: 1 s, less all of its jitter
WAKES_PER_S = 50.0  # the pace at which objects go on when a driver returns

pytestmark = pytest.mark.timeout(500)  # the first test makes the scenario


@dataclass(slots=True)
class Seen:
    """What was seen; `owners` gives the claim of each Bucket and each claim."""

    owners: dict[str, str] = field(default_factory=dict)
    window_calls: list[Entry] = field(default_factory=list)
    window_writes: list[AuditEntry] = field(default_factory=list)
    calls: list[Entry] = field(default_factory=list)  # since the start
    warnings: Counter[str] = field(default_factory=Counter)  # about the failure, by object
    away_runs: float = 0.0
    away_writes: list[AuditEntry] = field(default_factory=list)

    def owner(self, write: AuditEntry) -> str:
        """The claim that a write is about; an Event is named after its object."""
        name = re.sub(r"\.[0-9a-f]+$", "", write.name) if write.resource == "events" else write.name
        return self.owners.get(name, f"{write.verb} {write.uri}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _runs(port: int) -> float:
    """How many reconcile runs the sidecar has begun since its start, from its metrics."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith("controller_runtime_reconcile_total{")
    )


@pytest.fixture(scope="module")
def seen() -> Iterator[Seen]:
    port = _free_port()
    with (
        tempfile.TemporaryDirectory(prefix="cosi-") as directory,
        Testbed.start(
            Path(directory), sidecar_flags=[f"--metrics-bind-address=127.0.0.1:{port}"]
        ) as bed,
    ):
        yield _play(bed, port)
        assert bed.forbidden() == []


def _play(bed: Testbed, port: int) -> Seen:
    seen = Seen()
    for kind in ("refused", "broken"):
        bed.make_classes(kind, parameters={"case": kind})
    bed.driver.kill()
    bed.driver.socket_path.unlink()
    _make(bed, "refused", "WaitingForDriver")
    bed.until_quiet()
    runs, mark = _runs(port), bed.plane.audit.mark()
    time.sleep(AWAY_S)  # the measurement itself
    seen.away_runs, seen.away_writes = _runs(port) - runs, bed.writes(since=mark)

    bed.driver.start_with(
        _rule("refused", "INVALID_ARGUMENT"),
        _rule("broken", "INTERNAL"),
    )
    bed.driver.run()
    _make(bed, "broken", "DriverInternal")
    _until_told(bed, "refused", "DriverInvalidArgument")
    for bucket in bed.all_of("buckets"):
        claim = bucket["spec"]["bucketClaim"]["name"]
        seen.owners |= {bucket["metadata"]["name"]: claim, claim: claim}
    _until_events_are_out(bed)
    mark, known = bed.plane.audit.mark(), bed.driver.journal()[-1].number
    time.sleep(WINDOW_S)  # the measurement itself
    seen.window_writes = bed.writes(since=mark)
    seen.calls = bed.driver.journal(Call.CREATE_BUCKET)
    seen.window_calls = [entry for entry in seen.calls if entry.number > known]
    seen.warnings = Counter(
        event["involvedObject"]["name"] for event in _told_events(bed) if event["type"] == "Warning"
    )
    return seen


def _rule(kind: str, code: str) -> Rule:
    return Rule(
        call=Call.CREATE_BUCKET,
        match={"parameters.case": kind},
        code=code,
        message="no (request id: {request_id})",
    )


def _make(bed: Testbed, kind: str, reason: str) -> None:
    bed.make_claims([f"{kind}-{n}" for n in range(EACH)], class_name=kind)
    _until_told(bed, kind, reason)


def _until_told(bed: Testbed, kind: str, reason: str) -> None:
    def are_told() -> bool:
        time.sleep(2)  # to list 2000 objects costs the server more than the operator does
        try:
            claims = bed.all_of("bucketclaims")
        except TimeoutError:  # a busy machine
            return False
        ours = [claim for claim in claims if claim["spec"]["bucketClassName"] == kind]
        return all(condition(claim).get("reason") == reason for claim in ours)

    bed.until(f"all {kind} claims to tell {reason}", are_told, timeout_s=SETTLE_S)


def _told_events(bed: Testbed) -> list[dict[str, Any]]:
    """The Events about what the driver said: those of the Buckets too, in `default`."""
    return [
        event
        for space in (NAMESPACE, "default")
        for event in bed.all_of("events", space)
        if event["message"].startswith(("DriverInvalidArgument:", "DriverInternal:"))
    ]


def _until_events_are_out(bed: Testbed) -> None:
    """They are sent one by one, so those of a thousand failures take some seconds."""

    def are_out() -> bool:
        time.sleep(2)  # as above
        try:
            told = {event["involvedObject"]["uid"] for event in _told_events(bed)}
        except TimeoutError:
            return False
        return len(told) == 4 * EACH  # claim and Bucket, of both kinds

    bed.until("an Event about each failure", are_out, timeout_s=SETTLE_S)


def test_of_many_refused_claims_none_is_asked_or_written_about_again_in_60_s(seen: Seen) -> None:
    assert [e for e in seen.window_calls if e.fields["parameters.case"] == "refused"] == []
    others = [seen.owner(w) for w in seen.window_writes if "broken" not in seen.owner(w)]
    assert others == []  # neither about the refused ones nor about anything else


def test_each_of_them_was_asked_for_by_its_own_name_and_the_refused_once(seen: Seen) -> None:
    asked: dict[str, int] = defaultdict(int)
    for entry in seen.calls:
        asked[seen.owners[entry.fields["name"]]] += 1
    assert len(asked) == 2 * EACH
    assert {n for name, n in asked.items() if "refused" in name} == {1}


def test_many_internal_claims_are_never_retried_faster_than_the_stated_backoff(seen: Seen) -> None:
    times: dict[str, list[float]] = defaultdict(list)
    for entry in seen.calls:
        if entry.fields["parameters.case"] == "broken":
            times[entry.fields["name"]].append(entry.time_s)
    assert len(times) == EACH
    for calls in times.values():
        gaps = [later - earlier for earlier, later in pairwise(calls)]
        assert all(gap >= FIRST_WAIT_S * 2**n for n, gap in enumerate(gaps)), gaps
    # And it does go on: after a minute and more, six calls or so each (0, 1, 3, 7, 15, 31 s).
    assert min(len(calls) for calls in times.values()) >= 4


def test_many_internal_claims_are_written_about_at_a_doubling_number_of_attempts_only(
    seen: Seen,
) -> None:
    attempts: dict[str, int] = defaultdict(int)
    for entry in seen.calls:
        attempts[seen.owners[entry.fields["name"]]] += 1
    written: dict[str, int] = defaultdict(int)
    for write in seen.window_writes:
        written[seen.owner(write)] += 1
    # Each told attempt is a status of the Bucket, one of the claim, and the count of an Event.
    worst = max(written.values(), default=0)
    told = max(attempts.values()).bit_length()
    assert worst <= 3 * told


def test_each_object_has_one_warning_about_its_failure_whatever_the_request_id(seen: Seen) -> None:
    assert seen.warnings == dict.fromkeys(seen.owners, 1)


def test_while_the_socket_is_gone_nothing_is_tried_for_any_object(seen: Seen) -> None:
    assert seen.away_runs == 0
    assert [f"{w.verb} {w.uri}" for w in seen.away_writes] == []


def test_when_the_driver_returns_the_objects_go_on_at_a_steady_pace(seen: Seen) -> None:
    times = [e.time_s for e in seen.calls if e.fields["parameters.case"] == "refused"]
    per_second = Counter(int(time_s - times[0]) for time_s in times)
    assert max(per_second.values()) <= 1.5 * WAKES_PER_S, per_second
    assert times[-1] - times[0] >= 0.9 * EACH / WAKES_PER_S
