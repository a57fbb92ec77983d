"""The measured defects of the Go pair that no other test names; docs/faults.md lists them all.

Real parts throughout: processes, API server, a driver on its socket.
"""

import re
import time
from pathlib import Path

from tests.faults.bed import CALL_TIMEOUT_S, FaultBed
from tests.faults.scenarios import Create, Scenario
from tests.faults.state import Case

from cosi_operator.outcome import Call
from mockdriver.backend import CANARY
from testbed import access_body, claim_body, condition

ROOT = Path(__file__).parents[2]
LONGER_THAN_A_BACKOFF_S = 3.0
BUCKET_FINALIZER = "cosi.objectstorage.k8s.io/bucket-protection"
NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def ready_claim(bed: FaultBed, name: str) -> None:
    Scenario.make_classes(Create(), bed, [Case(name)])
    bed.create("bucketclaims", claim_body(name, class_name=name))
    bed.until_ready("bucketclaims", [name], timeout_s=60)


def all_go(bed: FaultBed, name: str) -> None:
    bed.delete("bucketclaims", name)
    bed.until_empty()


def test_already_exists_on_a_grant_neither_ends_the_process_nor_loops(bed: FaultBed) -> None:
    name = "exists-grant"
    ready_claim(bed, name)
    pid = bed.processes["sidecar"].pid
    bed.driver.set_rule(
        Call.GRANT_ACCESS, match={"parameters.case": name}, code="ALREADY_EXISTS", times=1
    )
    bed.create("bucketaccesses", access_body(name, class_name=name))
    bed.until(
        "the access to say that it has no keys",
        lambda: condition(bed.get("bucketaccesses", name), "Stalled"),
    )
    time.sleep(LONGER_THAN_A_BACKOFF_S)  # the question itself: does it call again?
    assert [e.call for e in bed.calls_of(name)].count(Call.GRANT_ACCESS) == 1
    assert bed.processes["sidecar"].pid == pid
    assert bed.processes["sidecar"].is_running
    all_go(bed, name)


def test_already_exists_on_a_create_means_that_the_bucket_is_there(bed: FaultBed) -> None:
    name = "exists-create"
    Scenario.make_classes(Create(), bed, [Case(name)])
    bed.driver.set_rule(
        Call.CREATE_BUCKET, match={"parameters.case": name}, code="ALREADY_EXISTS", times=1
    )
    bed.create("bucketclaims", claim_body(name, class_name=name))
    bed.until(
        "the claim to be told of",
        lambda: condition(bed.get("bucketclaims", name)),
    )
    time.sleep(LONGER_THAN_A_BACKOFF_S)  # the question itself: does it call again?
    assert [e.call for e in bed.calls_of(name)] == [Call.CREATE_BUCKET]
    all_go(bed, name)


def test_a_sidecar_takes_no_finalizer_off_the_bucket_of_another_driver(bed: FaultBed) -> None:
    name = "foreign"
    spec = {
        "bucketClaim": {},
        "bucketClassName": name,
        "driverName": "another.objectstorage.k8s.io",
        "protocols": ["S3"],
        "deletionPolicy": "Delete",
    }
    bed.create(
        "buckets", {"metadata": {"name": name, "finalizers": [BUCKET_FINALIZER]}, "spec": spec}
    )
    bed.delete("buckets", name)
    ready_claim(bed, f"{name}-ours")  # by now the sidecar has seen the other one go by
    bed.revive("sidecar")
    ours = bed.get("bucketclaims", f"{name}-ours")["status"]["bucketName"]
    bed.delete("bucketclaims", f"{name}-ours")
    bed.until_gone("buckets", [ours])
    kept = bed.get("buckets", name)
    assert kept["metadata"]["finalizers"] == [BUCKET_FINALIZER]
    assert name not in {entry.fields.get("bucket_id") for entry in bed.driver.journal()}
    bed.edit("buckets", name, lambda body: body["metadata"].pop("finalizers"))
    bed.until_gone("buckets", [name])


def test_a_driver_that_never_answers_is_asked_again_after_the_deadline(bed: FaultBed) -> None:
    name = "deadline"
    Scenario.make_classes(Create(), bed, [Case(name)])
    bed.driver.set_rule(Call.CREATE_BUCKET, match={"parameters.case": name}, hang=True, times=1)
    started_s = time.monotonic()
    bed.create("bucketclaims", claim_body(name, class_name=name))
    bed.until_ready("bucketclaims", [name], timeout_s=60)
    assert time.monotonic() - started_s >= CALL_TIMEOUT_S
    assert [e.call for e in bed.calls_of(name)] == [Call.CREATE_BUCKET] * 2
    all_go(bed, name)


def test_a_retry_asks_for_what_the_object_says_now(bed: FaultBed) -> None:
    """The class is repaired while the first call is under way; the second has the new value."""
    name = "stale-retry"
    Scenario.make_classes(Create(), bed, [Case(name)])
    rule = {"parameters.case": name}
    bed.driver.set_rule(Call.CREATE_BUCKET, match=rule, code="INTERNAL", times=1, delay_s=1.0)
    bed.create("bucketclaims", claim_body(name, class_name=name))
    bed.until("the first call", lambda: bed.calls_of(name))
    # Class parameters are immutable upstream, so a class is repaired by making it anew.
    repaired = bed.get("bucketclasses", name)
    bed.delete("bucketclasses", name)
    repaired["parameters"]["tier"] = "gold"
    repaired["metadata"] = {"name": name}
    bed.create("bucketclasses", repaired)
    bed.until_ready("bucketclaims", [name], timeout_s=60)
    assert bed.calls_of(name)[-1].fields.get("parameters.tier") == "gold"
    assert bed.driver.buckets()[0].parameters == {"case": name, "tier": "gold"}
    all_go(bed, name)


def test_a_secret_that_was_removed_by_hand_does_not_block_the_deletion(bed: FaultBed) -> None:
    name = "by-hand"
    ready_claim(bed, name)
    bed.create("bucketaccesses", access_body(name, class_name=name))
    bed.until_ready("bucketaccesses", [name], timeout_s=60)
    bed.edit("secrets", f"{name}-keys", lambda body: body["metadata"].pop("finalizers"))
    bed.delete("secrets", f"{name}-keys")
    bed.delete("bucketaccesses", name)
    bed.until_gone("bucketaccesses", [name])
    assert [e.call for e in bed.calls_of(name)][-1] == Call.REVOKE_ACCESS
    all_go(bed, name)


def test_what_is_made_again_under_the_same_name_is_served_again(bed: FaultBed) -> None:
    """Within a second, so that the old object's keys are still fresh in every cache."""
    name = "again"
    ready_claim(bed, name)
    bed.create("bucketaccesses", access_body(name, class_name=name))
    bed.until_ready("bucketaccesses", [name], timeout_s=60)
    first = bed.get("secrets", f"{name}-keys")["data"]
    bed.delete("bucketaccesses", name)
    bed.until_gone("bucketaccesses", [name])
    bed.create("bucketaccesses", access_body(name, class_name=name))
    bed.until_ready("bucketaccesses", [name], timeout_s=60)
    assert bed.get("secrets", f"{name}-keys")["data"] != first
    all_go(bed, name)

    bed.create("bucketclaims", claim_body(name, class_name=name))
    bed.until_ready("bucketclaims", [name], timeout_s=60)
    all_go(bed, name)


def test_a_key_that_leaked_would_be_found(bed: FaultBed) -> None:
    name = "leaking"
    body = claim_body(name, class_name="none")
    body["metadata"]["annotations"] = {"note": f"{CANARY}1234"}
    bed.create("bucketclaims", body)
    assert bed.leaks() == [f"bucketclaims {name}"]
    bed.delete("bucketclaims", name)
    bed.until_empty()


def test_the_tests_that_the_documentation_names_are_there() -> None:
    named = NAMED_TEST.findall((ROOT / "docs" / "faults.md").read_text())
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not (ROOT / file).exists() or f"def {test}(" not in (ROOT / file).read_text()
    ]
    assert len(named) > 20
    assert missing == []
