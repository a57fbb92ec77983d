"""Failures that are not the driver's verdict: no answer, no driver, or a reply that can't be used.

In a testbed of its own, whose sidecar gives a call 2 s. What a fault leaves behind is looked at
too: no bucket and no account may stay on the backend once the objects are deleted.
"""

import itertools
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.integration.cases import (
    DELETIONS,
    FIELDS,
    calls_of,
    misbehave,
    plural_of,
    prepare,
    subject,
    until_nothing_is_left,
    until_told,
)

from cosi_operator.outcome import Call
from testbed import Testbed, access_body, condition, reasons

DEADLINE_S = 2.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One way in which one call goes wrong, and the reason that is shown."""

    name: str
    call: Call
    rule: dict[str, Any]
    reason: str
    words: str
    sentence: str

    @property
    def is_retried(self) -> bool:
        return self.reason == "DriverDeadlineExceeded"


def _faults() -> Iterator[Fault]:
    short = dict(zip(FIELDS, ("create", "delete", "grant", "revoke"), strict=True))
    for call, word in short.items():
        yield Fault(
            f"hang-{word}", call, {"hang": True, "act": True}, "DriverDeadlineExceeded",
            "the driver did not answer in time",
            f"{call} hangs, though it acted: tried again, slower each time",
        )  # fmt: skip
        for kind, words in (("malformed", "not the message"), ("oversize", "larger than")):
            yield Fault(
                f"{kind}-{word}", call, {"reply": kind}, "DriverMalformedReply", words,
                f"{call} gets a reply that is {kind}: final",
            )  # fmt: skip
    yield Fault(
        "no-id", Call.CREATE_BUCKET, {"reply": "empty_id"}, "DriverReturnedEmptyBucketID",
        "bucket_id is empty", "a new bucket without an id: final",
    )  # fmt: skip
    yield Fault(
        "no-account", Call.GRANT_ACCESS, {"reply": "empty_id"}, "DriverReturnedEmptyAccountID",
        "account_id is empty", "a new account without an id: final",
    )  # fmt: skip
    yield Fault(
        "no-keys", Call.GRANT_ACCESS, {"reply": "no_credentials"}, "DriverReturnedNoCredentials",
        "credentials for 0 protocols", "a new account without keys: final",
    )  # fmt: skip
    yield Fault(
        "half-keys", Call.GRANT_ACCESS, {"reply": "partial_credentials"},
        "DriverReturnedNoCredentials", "lack accessSecretKey",
        "a new account with half of its keys: final",
    )  # fmt: skip


FAULTS = list(_faults())
BY_SENTENCE = [pytest.param(fault, id=fault.sentence) for fault in FAULTS]


@pytest.fixture(scope="module")
def own_bed() -> Iterator[Testbed]:
    with (
        tempfile.TemporaryDirectory(prefix="cosi-") as directory,
        Testbed.start(
            Path(directory), sidecar_flags=[f"--driver-call-timeout={DEADLINE_S:g}s"]
        ) as bed,
    ):
        yield bed
        assert bed.forbidden() == []


@pytest.fixture(scope="module")
def faulty(own_bed: Testbed) -> dict[str, Any]:
    """All faults at once, as they stood when every one had been told; then all is deleted.

    Returns:
        Subject, calls, Warnings and the sidecar's log lines of each fault, by its name.
    """
    bed = own_bed
    for fault in FAULTS:
        misbehave(bed, fault.name, fault.call, **fault.rule)
    prepare(bed, {fault.name: fault.call for fault in FAULTS})
    until_told(bed, {fault.name: (fault.call, fault.reason) for fault in FAULTS})
    hanging = [fault for fault in FAULTS if fault.is_retried]
    bed.until(
        "a second attempt of what hangs",
        lambda: all(len(calls_of(bed, f.name, f.call)) > 1 for f in hanging),
    )
    log = [json.loads(line) for line in bed.log_of("sidecar").splitlines()]
    seen: dict[str, Any] = {
        fault.name: (
            subject(bed, fault.name, fault.call),
            calls_of(bed, fault.name, fault.call),
            [e for e in bed.events(fault.name) if e["type"] == "Warning"],
            [x for x in log if (x.get("call"), x.get("reason")) == (fault.call, fault.reason)],
        )
        for fault in FAULTS
    }
    bed.driver.clear_rules()
    for fault in FAULTS:
        if fault.call in DELETIONS and not fault.is_retried:
            bed.annotate(plural_of(fault.call), fault.name, retry="1")
    names = [fault.name for fault in FAULTS]
    bed.delete_all("bucketclaims", [f.name for f in FAULTS if f.call is not Call.DELETE_BUCKET])
    until_nothing_is_left(bed, names)
    return seen


@pytest.mark.timeout(200)  # the first one makes them all
@pytest.mark.parametrize("fault", BY_SENTENCE)
def test_what_is_no_verdict_is_told_as_what_it_is_and_leaves_nothing_behind(
    faulty: dict[str, Any], fault: Fault
) -> None:
    body, calls, warnings, log = faulty[fault.name]
    kind = "Reconciling" if fault.is_retried else "Stalled"
    assert reasons(body) == {"Ready": fault.reason, kind: fault.reason}
    message = condition(body)["message"]
    assert message.startswith(fault.call)
    assert fault.words in message
    assert ("retries automatically" in message) == fault.is_retried
    assert ("kubectl annotate" in message) == (not fault.is_retried)
    if fault.is_retried:
        # The sidecar's clock, exactly; the driver notes a call when it gets to it, up to 2 s late.
        assert all(line["elapsed_ms"] >= DEADLINE_S * 1000 for line in log)
        assert all(line["next_in_s"] >= 0.8 * 2**n for n, line in enumerate(log))
        gaps = [b.time_s - a.time_s for a, b in itertools.pairwise(calls)]
        assert len(log) >= len(gaps)
        assert all(gap >= 0.8 * 2**n for n, gap in enumerate(gaps)), gaps
    else:
        assert len(calls) == 1
    assert len(warnings) == 1
    assert warnings[0]["message"].startswith(f"{fault.reason}: {fault.call}")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", list(FIELDS))
def test_a_driver_killed_at_work_is_asked_again_by_its_successor_and_nothing_is_made_twice(
    own_bed: Testbed, name: str, call: Call, when: str
) -> None:
    bed = own_bed
    misbehave(bed, name, call, die=when)
    prepare(bed, {name: call})
    bed.driver.wait_until_dead()
    plural = plural_of(call)
    told = bed.until_reason(plural, name, "DriverUnreachable")
    assert told["message"].startswith(
        f"{call} failed because the connection to the driver ended before"
    )
    assert set(reasons(bed.get(plural, name))) == {"Ready", "Reconciling"}
    bed.driver.run()
    if call in DELETIONS:
        bed.until_gone(plural, [name])
    else:
        bed.until_ready(plural, [name])
        assert len([b for b in bed.driver.buckets() if b.parameters["case"] == name]) == 1
        assert len(bed.driver.accounts()) == (call is Call.GRANT_ACCESS)
    assert len(calls_of(bed, name, call)) == 1
    if call is not Call.DELETE_BUCKET:
        bed.delete("bucketclaims", name)
    until_nothing_is_left(bed, [name])


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param({"die": "after"}, id="the driver was killed after it had made the bucket"),
        pytest.param({"hang": True, "act": True}, id="the deadline passed, the bucket was made"),
    ],
)
def test_a_create_that_may_have_worked_is_asked_again_before_its_claim_is_deleted(
    own_bed: Testbed, name: str, rule: dict[str, Any]
) -> None:
    bed = own_bed
    misbehave(bed, name, Call.CREATE_BUCKET, **rule)
    prepare(bed, {name: Call.CREATE_BUCKET})
    if "die" in rule:
        bed.driver.wait_until_dead()
        bed.until_reason("bucketclaims", name, "DriverUnreachable")
    else:
        bed.until_reason("bucketclaims", name, "DriverDeadlineExceeded")
    bed.delete("bucketclaims", name)
    if "die" in rule:
        told = bed.until_reason("bucketclaims", name, "WaitingForDriver")
        assert "continues automatically when the driver answers." in told["message"]
        bed.driver.run()
    else:
        assert len([b for b in bed.driver.buckets() if b.parameters["case"] == name]) == 1
        bed.driver.clear_rules()
    until_nothing_is_left(bed, [name])
    order = [e.call for e in calls_of(bed, name)][-2:]
    assert order == [Call.CREATE_BUCKET, Call.DELETE_BUCKET]


def test_without_a_socket_objects_say_so_and_go_on_when_the_driver_is_there(
    own_bed: Testbed, name: str
) -> None:
    bed = own_bed
    served, waiting = f"{name}-served", f"{name}-waiting"
    prepare(bed, {served: Call.CREATE_BUCKET})
    bed.until_ready("bucketclaims", [served])
    bed.driver.stop()
    bed.driver.socket_path.unlink(missing_ok=True)
    bed.make_classes(waiting, parameters={"case": waiting})
    bed.make_claims([waiting], class_name=waiting)
    bed.create("bucketaccesses", access_body(served, class_name=served))
    for plural, object_name in (("bucketclaims", waiting), ("bucketaccesses", served)):
        told = bed.until_reason(plural, object_name, "WaitingForDriver")
        assert "does not answer on its socket" in told["message"]
        assert set(reasons(bed.get(plural, object_name))) == {"Ready", "Reconciling"}
    assert reasons(bed.get("bucketclaims", served)) == {"Ready": "Provisioned"}
    bed.driver.run()
    bed.until_ready("bucketclaims", [waiting])
    bed.until_ready("bucketaccesses", [served])
    bed.delete_all("bucketclaims", [served, waiting])
    until_nothing_is_left(bed, [served, waiting])
