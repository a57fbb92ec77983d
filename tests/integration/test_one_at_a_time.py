"""Drivers that edit a shared document without a lock: which setting keeps every change.

Each edit is held between its reading and its writing until all that come at once have come, so the
order is the same in every run.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cosi_operator.outcome import Call
from testbed import Testbed, access_body
from testbed.objects import condition

ACCESSES = 8
GRANT, REVOKE = Call.GRANT_ACCESS, Call.REVOKE_ACCESS


@pytest.fixture(scope="module")
def own_bed() -> Iterator[Testbed]:
    with (
        tempfile.TemporaryDirectory(prefix="cosi-") as directory,
        Testbed.start(Path(directory)) as bed,
    ):
        yield bed
        assert bed.forbidden() == []


# The default is a case of its own, without the flag.
CASES = [
    pytest.param("", "bucket", ACCESSES, 1, id="default, a document for each bucket -> all kept"),
    pytest.param("", "driver", ACCESSES, 1, id="default, one document -> all kept"),
    pytest.param("bucket", "bucket", ACCESSES, 2, id="bucket, a document for each -> all kept"),
    pytest.param("bucket", "driver", None, 2, id="bucket, one document -> changes are lost"),
    pytest.param("none", "bucket", 2, ACCESSES, id="none, a document for each -> changes are lost"),
    pytest.param("none", "driver", 1, ACCESSES, id="none, one document -> changes are lost"),
]


@pytest.mark.parametrize(("setting", "document", "kept", "at_once"), CASES)
def test_grants_and_revokes_of_a_driver_that_edits_a_document(
    own_bed: Testbed, name: str, setting: str, document: str, kept: int | None, at_once: int
) -> None:
    bed = own_bed
    bed.restart("sidecar", *([f"--serialize-access-calls={setting}"] if setting else []))
    bed.driver.clear_rules()
    bed.make_classes(name)
    claims = [f"{name}-0", f"{name}-1"]
    bed.make_claims(claims, class_name=name)
    bed.until_ready("bucketclaims", claims)
    for call in (GRANT, REVOKE):
        bed.driver.set_rule(call, edit=document)
    accesses = [f"{name}-a{number}" for number in range(ACCESSES)]
    bodies = [
        access_body(access, class_name=name, claim=claims[number % 2])
        for number, access in enumerate(accesses)
    ]

    def release_once_all_came() -> None:
        bed.until("the calls that come at once", lambda: bed.driver.held_edits() == at_once)
        bed.until_quiet()
        assert bed.driver.held_edits() == at_once
        bed.driver.release_edits()

    bed.driver.hold_edits()
    bed.create_all("bucketaccesses", bodies)
    release_once_all_came()
    bed.until_ready("bucketaccesses", accesses)
    if (
        kept is None
    ):  # the two documents that were read first decide; the last writer is one of them
        assert len(bed.driver.accounts()) < ACCESSES
    else:
        assert len(bed.driver.accounts()) == kept, "Granted, but the key was lost"

    if kept == ACCESSES:
        bed.driver.hold_edits()
        bed.delete_all("bucketaccesses", accesses)
        release_once_all_came()
        bed.until_gone("bucketaccesses", accesses)
        assert bed.driver.accounts() == [], "a key works after its revocation"
    bed.delete_all("bucketaccesses", accesses if kept != ACCESSES else [])
    bed.delete_all("bucketclaims", claims)
    bed.until_gone("bucketclaims", claims)
    bed.driver.reset()


def test_without_a_lane_keys_work_after_their_revocation(own_bed: Testbed, name: str) -> None:
    bed = own_bed
    bed.restart("sidecar", "--serialize-access-calls=none")
    bed.driver.clear_rules()
    bed.make_classes(name)
    bed.make_claims([name], class_name=name)
    accesses = [f"{name}-a{number}" for number in range(ACCESSES)]
    bodies = [access_body(access, class_name=name, claim=name) for access in accesses]
    bed.create_all("bucketaccesses", bodies)
    bed.until_ready("bucketaccesses", accesses)
    bed.driver.set_rule(REVOKE, edit="bucket")
    bed.driver.hold_edits()
    bed.delete_all("bucketaccesses", accesses)
    bed.until("all at once", lambda: bed.driver.held_edits() == ACCESSES)
    bed.driver.release_edits()
    bed.until_gone("bucketaccesses", accesses)
    assert len(bed.driver.accounts()) == ACCESSES - 1
    bed.delete("bucketclaims", name)
    bed.until_gone("bucketclaims", [name])
    bed.driver.reset()


def test_a_tenant_whose_calls_hang_delays_another_by_one_call(own_bed: Testbed, name: str) -> None:
    """60 accesses of one class hang; one of another tenant begins after one deadline."""
    bed = own_bed
    bed.restart("sidecar", "--driver-call-timeout=3s")
    bed.driver.reset()
    slow, other = f"{name}-slow", f"{name}-other"
    for case in (slow, other):
        bed.make_classes(case, parameters={"case": case})
    space = bed.make_namespace(other)
    bed.make_claims([slow], class_name=slow)
    bed.make_claims([other], class_name=other, namespace=space)
    bed.until_ready("bucketclaims", [slow])
    bed.until_ready("bucketclaims", [other], space)
    bed.driver.set_rule(GRANT, match={"parameters.case": slow}, hang=True)
    accesses = [f"{slow}-{number}" for number in range(60)]
    bed.create_all(
        "bucketaccesses", [access_body(one, class_name=slow, claim=slow) for one in accesses]
    )
    bed.until("a call that hangs", lambda: bed.driver.journal(GRANT) != [])
    bed.create(
        "bucketaccesses", access_body(other, class_name=other, namespace=space), namespace=space
    )
    bed.until_ready("bucketaccesses", [other], space)
    calls = [entry.fields["parameters.case"] for entry in bed.driver.journal(GRANT)]
    assert calls.count(slow) <= calls.index(other) + 1
    assert calls.index(other) <= 2, "more than the call under way and one that had begun meanwhile"

    def those_that_were_never_called_say_so() -> bool:
        called = {entry.fields["name"] for entry in bed.driver.journal(GRANT)}
        found = [
            body for body in bed.all_of("bucketaccesses") if body["metadata"]["name"] in accesses
        ]
        never = [body for body in found if f"ba-{body['metadata']['uid']}" not in called]
        return bool(never) and all(
            condition(body).get("reason") == "WaitingForTurn" for body in never
        )

    bed.until("the queue is told", those_that_were_never_called_say_so, timeout_s=60)
    bed.driver.clear_rules()
    bed.until_ready("bucketaccesses", accesses, timeout_s=60)
