"""What wakes an object that was refused for good, and what does not.

In a testbed of its own, since drivers and sidecars are restarted here.
"""

import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.integration.cases import (
    DELETIONS,
    calls_of,
    misbehave,
    prepare,
    until_nothing_is_left,
    until_told,
)

from cosi_operator.outcome import Call
from testbed import Testbed, access_body, claim_body, condition, reasons

CREATE, DELETE = Call.CREATE_BUCKET, Call.DELETE_BUCKET
GRANT, REVOKE = Call.GRANT_ACCESS, Call.REVOKE_ACCESS
REFUSED = {"code": "INVALID_ARGUMENT", "message": "no (request id: {request_id})"}
TERMINAL = 16
STILL_S = 2.0  # how long nothing is watched to happen


@pytest.fixture(scope="module")
def own_bed() -> Iterator[Testbed]:
    with (
        tempfile.TemporaryDirectory(prefix="cosi-") as directory,
        Testbed.start(Path(directory)) as bed,
    ):
        yield bed
        assert bed.forbidden() == []


def refuse(bed: Testbed, name: str, call: Call = CREATE) -> None:
    """A case that was asked for once and refused for good."""
    misbehave(bed, name, call, **REFUSED)
    prepare(bed, {name: call})
    until_told(bed, {name: (call, "DriverInvalidArgument")})
    bed.until_quiet(0.5)
    assert len(calls_of(bed, name, call)) == 1


def stored(bed: Testbed, plural: str, name: str) -> dict[str, Any]:
    """The stored verdict of an object."""
    call: dict[str, Any] = bed.get(plural, name)["status"]["lastCall"]
    return call


@pytest.mark.parametrize(
    ("call", "plural"),
    [
        pytest.param(CREATE, "bucketclaims", id="on the claim, for its Bucket's create"),
        pytest.param(CREATE, "buckets", id="on the Bucket itself, for its create"),
        pytest.param(GRANT, "bucketaccesses", id="on the access, for its grant"),
        pytest.param(REVOKE, "bucketaccesses", id="on the access, for its revoke"),
        pytest.param(DELETE, "bucketclaims", id="on the claim, for its Bucket's deletion"),
    ],
)
def test_each_new_value_of_the_retry_annotation_is_one_try_and_is_recorded(
    bed: Testbed, name: str, call: Call, plural: str
) -> None:
    refuse(bed, name, call)
    judged = "bucketaccesses" if call in (GRANT, REVOKE) else "buckets"
    bucket = bed.bucket_of(name)["metadata"]["name"]
    names = {"buckets": bucket, "bucketclaims": name, "bucketaccesses": name}
    for tries, value in ((2, "one"), (3, "two")):
        bed.annotate(plural, names[plural], retry=value)
        bed.until("another call", lambda tries=tries: len(calls_of(bed, name, call)) == tries)  # type: ignore[misc]  # a lambda's default
        bed.until(
            "the value to be recorded",
            lambda value=value: value in stored(bed, judged, names[judged])["retryToken"],  # type: ignore[misc]  # a lambda's default
        )
    if plural == "bucketclaims":  # its owner may not read the Bucket
        bed.until(
            "the claim to show the value",
            lambda: bed.get(plural, name)["status"].get("observedRetry") == "two",
        )
    bed.annotate(plural, names[plural], retry="two", note="the same value, a write all the same")
    bed.until_quiet(0.5)
    assert len(calls_of(bed, name, call)) == 3
    bed.driver.clear_rules()
    bed.annotate(plural, names[plural], retry="three")
    if call in (GRANT, CREATE):
        bed.until_ready("bucketaccesses" if call is GRANT else "bucketclaims", [name])
    if call is not DELETE:
        bed.delete("bucketclaims", name)
    until_nothing_is_left(bed, [name])


def test_an_object_goes_on_when_what_it_waits_for_appears(bed: Testbed, name: str) -> None:
    late, early = f"{name}-late", f"{name}-early"
    bed.make_classes(early)
    existing = f"{name}-existing"
    bed.create("bucketclaims", claim_body(late, class_name=late))
    bed.create("bucketclaims", claim_body(existing, existing=existing))
    bed.create("bucketaccesses", access_body(late, class_name=late, claim=early))
    bed.create("bucketaccesses", access_body(early, class_name=early))
    for plural, waiting, reason in (
        ("bucketclaims", late, "BucketClassNotFound"),
        ("bucketclaims", existing, "BucketNotFound"),
        ("bucketaccesses", late, "BucketAccessClassNotFound"),
        ("bucketaccesses", early, "BucketClaimNotFound"),
    ):
        bed.until_reason(plural, waiting, reason)
        assert set(reasons(bed.get(plural, waiting))) == {"Ready", "Reconciling"}, waiting

    bed.make_classes(late)
    spec = {
        "bucketClaim": {},
        "bucketClassName": early,
        "driverName": bed.driver.name,
        "protocols": ["S3"],
        "existingBucketID": f"old-{name}",
        "deletionPolicy": "Retain",
    }
    bed.create("buckets", {"metadata": {"name": existing}, "spec": spec})
    bed.make_claims([early], class_name=early)
    bed.until_ready("bucketclaims", [late, early, existing])
    bed.until_ready("bucketaccesses", [late, early])
    bed.delete_all("bucketclaims", [late, early, existing])
    until_nothing_is_left(bed, [late, early])


def test_a_changed_spec_of_the_bucket_or_a_changed_class_is_another_request(
    bed: Testbed, name: str
) -> None:
    by_class, by_spec, access = f"{name}-class", f"{name}-spec", f"{name}-access"
    for case in (by_class, by_spec):
        misbehave(bed, case, CREATE, **REFUSED, times=1)
    misbehave(bed, access, GRANT, **REFUSED, times=1)
    prepare(bed, {by_class: CREATE, by_spec: CREATE, access: GRANT})
    until_told(
        bed,
        {
            by_class: (CREATE, "DriverInvalidArgument"),
            by_spec: (CREATE, "DriverInvalidArgument"),
            access: (GRANT, "DriverInvalidArgument"),
        },
    )
    repaired = {"parameters": {"case": by_class, "tier": "gold"}}
    bed.edit("bucketclasses", by_class, lambda body: body.update(repaired))
    bucket = bed.bucket_of(by_spec)["metadata"]["name"]
    bed.edit("buckets", bucket, lambda body: body["spec"].update(protocols=["S3", "GCS"]))
    better = {"parameters": {"case": access, "role": "reader"}}
    bed.edit("bucketaccessclasses", access, lambda body: body.update(better))
    bed.until_ready("bucketclaims", [by_class, by_spec])
    bed.until_ready("bucketaccesses", [access])
    assert calls_of(bed, access, GRANT)[-1].fields["parameters.role"] == "reader"
    bed.delete_all("bucketclaims", [by_class, by_spec, access])
    until_nothing_is_left(bed, [by_class, by_spec, access])


def test_a_restart_asks_nothing_again_and_writes_nothing_but_a_new_driver_is_asked_once(
    own_bed: Testbed, name: str
) -> None:
    bed = own_bed
    cases = {f"{name}-{n}": CREATE if n % 2 else GRANT for n in range(TERMINAL)}
    for case, call in cases.items():
        misbehave(bed, case, call, **REFUSED)
    prepare(bed, cases)
    until_told(bed, {case: (call, "DriverInvalidArgument") for case, call in cases.items()})
    bed.until_quiet()
    asked, written = len(bed.driver.journal()), bed.plane.audit.mark()
    bed.restart("sidecar")
    bed.restart("controller", grace_s=0)  # as a crash
    time.sleep(STILL_S)  # the measurement itself
    bed.restart("sidecar", grace_s=0)
    time.sleep(STILL_S)
    repeated = [e for e in bed.driver.journal()[asked:] if e.call is not Call.GET_INFO]
    assert [f"{e.call} {e.fields}" for e in repeated] == []
    # Three new leaders say so on their Lease, and nothing else is written.
    leaders = ["create /api/v1/namespaces/container-object-storage-system/events"] * 3
    assert [f"{e.verb} {e.uri}" for e in bed.writes(since=written)] == leaders

    bed.driver.restart()
    for case, call in cases.items():
        misbehave(bed, case, call, **REFUSED)
    bed.until(
        "the new driver to be asked",
        lambda: all(calls_of(bed, case, call) for case, call in cases.items()),
    )
    bed.until_quiet()
    assert [len(calls_of(bed, case, call)) for case, call in cases.items()] == [1] * TERMINAL

    bed.processes["sidecar"].stop(grace_s=10)
    bed.driver.restart()  # unseen by any sidecar: this driver, too, is new
    bed.start_process("sidecar")
    bed.until_ready("bucketclaims", cases)
    bed.until_ready("bucketaccesses", [case for case, call in cases.items() if call is GRANT])
    bed.delete_all("bucketclaims", cases)
    until_nothing_is_left(bed, cases)


def test_the_recheck_intervals_look_again_by_themselves_and_tell_nothing_twice(
    own_bed: Testbed, name: str
) -> None:
    bed = own_bed
    flags = ("--terminal-recheck-interval=1s", "--deletion-recheck-interval=2s")
    bed.restart("sidecar", *flags)
    cases = {f"{name}-{n}": call for n, call in enumerate((CREATE, GRANT, DELETE, REVOKE))}
    for case, call in cases.items():
        code = "FAILED_PRECONDITION" if call in DELETIONS else "UNKNOWN"
        misbehave(bed, case, call, code=code, message="not empty (request id: {request_id})")
    prepare(bed, cases)
    until_told(
        bed,
        {
            case: (call, "DriverFailedPrecondition" if call in DELETIONS else "DriverUnknown")
            for case, call in cases.items()
        },
    )
    told = condition(bed.get("bucketclaims", f"{name}-2"))
    assert "The call is repeated every 2 s" in told["message"]
    bed.until_quiet(0.5)
    mark = bed.plane.audit.mark()
    known = {case: len(calls_of(bed, case, call)) for case, call in cases.items()}
    bed.until(
        "two more calls of each",
        lambda: all(len(calls_of(bed, c, call)) >= known[c] + 2 for c, call in cases.items()),
    )
    # The request id in the driver's words was another one each time.
    assert [w.uri for w in bed.writes(since=mark) if w.resource != "events"] == []
    for case, call in cases.items():
        times = [entry.time_s for entry in calls_of(bed, case, call)]
        wait_s = 2.0 if call in DELETIONS else 1.0
        assert all(later - earlier >= wait_s for earlier, later in pairwise(times))
        warnings = [e for e in bed.events(case) if e["type"] == "Warning"]
        assert len(warnings) == 1
    bed.driver.clear_rules()  # the user has emptied the bucket
    bed.until_gone("bucketclaims", [f"{name}-2"])
    bed.until_gone("bucketaccesses", [f"{name}-3"])
    bed.until_ready("bucketclaims", [f"{name}-0"])
    bed.until_ready("bucketaccesses", [f"{name}-1"])
    bed.delete_all("bucketclaims", [f"{name}-0", f"{name}-1", f"{name}-3"])
    until_nothing_is_left(bed, cases)
    bed.restart("sidecar")
