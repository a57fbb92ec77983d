"""Upstream's CRDs, which silently drop conditions: everything works, and failures are told by
Events and one annotation instead.

Stored there, too: a verdict that stands is not asked for again, also after a restart.
"""

import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.cases import calls_of, misbehave, prepare, until_nothing_is_left

import warm
from cosi_operator.outcome import Call
from testbed import NAMESPACE, Testbed, access_body, claim_body
from testbed.objects import path_of

CRDS = Path(__file__).parents[1] / "support" / "upstream_crds"
STATUS = "cosi.objectstorage.k8s.io/status"
DROP = "served_schema_drops_conditions"
STILL_S = 2.0


@pytest.fixture(scope="module")
def own_bed() -> Iterator[Testbed]:
    with (
        tempfile.TemporaryDirectory(prefix="cosi-") as directory,
        Testbed.start(Path(directory), crds=CRDS) as bed,
    ):
        yield bed
        assert bed.forbidden() == []


def annotated(body: dict[str, Any] | None) -> dict[str, Any]:
    """Our part of the status, as the annotation has it; {} without one."""
    text = ((body or {}).get("metadata", {}).get("annotations") or {}).get(STATUS, "{}")
    found: dict[str, Any] = json.loads(text)
    return found


def ready(body: dict[str, Any] | None) -> dict[str, Any]:
    """The Ready condition in the annotation; {} without one."""
    conditions = annotated(body).get("conditions", [])
    return next((c for c in conditions if c["type"] == "Ready"), {})


def versions(bed: Testbed, claims: Iterable[str]) -> dict[str, str]:
    """The resource versions of all that belongs to these claims."""
    found = [bed.bucket_of(claim) for claim in claims]
    found += [*bed.all_of("bucketclaims"), *bed.all_of("bucketaccesses")]
    return {item["metadata"]["uid"]: item["metadata"]["resourceVersion"] for item in found}


def drops(bed: Testbed) -> list[tuple[str, str]]:
    """Which process said of which kind that conditions are dropped."""
    return sorted(
        (role, json.loads(line)["resource"])
        for role in bed.processes
        for line in bed.log_of(role).splitlines()
        if DROP in line
    )


def test_the_main_job_works_and_the_drop_is_said_once_for_each_kind(
    own_bed: Testbed, name: str
) -> None:
    bed = own_bed
    names = [f"{name}-{n}" for n in range(5)]
    bed.make_classes(name)
    bed.make_claims(names, class_name=name)
    bed.make_accesses(names, class_name=name)
    bed.until_ready("bucketclaims", names)
    bed.until_ready("bucketaccesses", names)
    bed.until(
        "the annotations",
        lambda: all(ready(bed.get("bucketaccesses", n)).get("reason") == "Granted" for n in names),
    )
    claim, bucket = bed.get("bucketclaims", names[0]), bed.bucket_of(names[0])
    assert claim["status"] == {"bucketReady": True, "bucketName": bucket["metadata"]["name"]}
    assert ready(bucket)["reason"] == "Provisioned"
    assert [e["reason"] for e in bed.events(names[0]) if e["type"] == "Warning"] == []
    bed.until(
        "the Events of success",
        lambda: {"BucketReady", "AccessGranted"} <= {e["reason"] for e in bed.events(names[0])},
    )
    bed.delete_all("bucketclaims", names)
    until_nothing_is_left(bed, names)
    said = drops(bed)
    assert len(said) == len(set(said))
    assert {kind for _, kind in said} == {"buckets", "bucketaccesses", "bucketclaims"}


def test_bad_names_which_our_crds_would_refuse_are_told_and_an_edit_wakes_the_object(
    own_bed: Testbed, name: str
) -> None:
    bed = own_bed
    bed.make_classes(name)
    bed.create("bucketclaims", claim_body(name))
    bed.until(
        "the claim to say InvalidSpec",
        lambda: ready(bed.get("bucketclaims", name)).get("reason") == "InvalidSpec",
    )
    bed.edit("bucketclaims", name, lambda body: body["spec"].update(bucketClassName=name))
    bed.until_ready("bucketclaims", [name])
    bed.create("bucketaccesses", access_body(name, class_name=name, secret="Team/Keys"))
    bed.until(
        "the access to say InvalidSpec",
        lambda: ready(bed.get("bucketaccesses", name)).get("reason") == "InvalidSpec",
    )
    told = ready(bed.get("bucketaccesses", name))["message"]
    assert "spec.credentialsSecretName" in told
    assert "Team/Keys" in told
    assert "lower case" in told
    bed.edit("bucketaccesses", name, lambda body: body["spec"].update(credentialsSecretName="k"))
    bed.until_ready("bucketaccesses", [name])


def test_a_secret_name_that_is_a_path_reaches_no_secret(own_bed: Testbed, name: str) -> None:
    bed = own_bed
    victim = bed.make_namespace(f"{name}-victim")
    body = {"metadata": {"name": name}, "stringData": {"k": "v"}}
    before = bed.create("secrets", body, victim)
    bed.make_classes(name)
    bed.make_claims([name], class_name=name)
    odd = [f"../../{victim}/secrets/{name}", f"{victim}/{name}", f"{name}%2f..", ".."]
    accesses = {f"{name}-{number}": secret for number, secret in enumerate(odd)}
    for access, secret in accesses.items():
        bed.create(
            "bucketaccesses", access_body(access, class_name=name, claim=name, secret=secret)
        )
    bed.until(
        "all accesses to say InvalidSpec",
        lambda: all(
            ready(bed.get("bucketaccesses", access)).get("reason") == "InvalidSpec"
            for access in accesses
        ),
    )
    bed.delete_all("bucketaccesses", accesses)
    bed.until_gone("bucketaccesses", accesses)
    assert bed.get("secrets", name, victim) == before


@pytest.mark.attack("control and direction-turning characters in names and messages are escapes")
def test_control_characters_of_a_class_name_never_reach_a_terminal(
    own_bed: Testbed, name: str
) -> None:
    bed = own_bed
    bed.make_claims([name], class_name="go\x1b]0;owned\x07ld\u202e\u200b")
    bed.until("an Event", lambda: bed.events(name))
    bed.until("the annotation", lambda: ready(bed.get("bucketclaims", name)))
    events = [event["message"] for event in bed.events(name)]
    for message in [*events, ready(bed.get("bucketclaims", name))["message"]]:
        assert r"go\x1b]0;owned\x07ld\u202e\u200b" in message
        assert message.isprintable()


def test_failures_are_told_by_events_and_the_annotation_and_are_not_repeated(
    own_bed: Testbed, name: str
) -> None:
    bed = own_bed
    cases = {f"{name}-{n}": call for n, call in enumerate((Call.CREATE_BUCKET, Call.GRANT_ACCESS))}
    for case, call in cases.items():
        misbehave(bed, case, call, code="INVALID_ARGUMENT", message="no (request id: {request_id})")
    prepare(bed, cases)
    claim, access = cases
    bed.until(
        "both to be told",
        lambda: (
            ready(bed.get("bucketclaims", claim)).get("reason")
            == ready(bed.get("bucketaccesses", access)).get("reason")
            == "DriverInvalidArgument"
        ),
    )
    bed.until_quiet()
    for plural, case, reason in (
        ("bucketclaims", claim, "FailedCreateBucket"),
        ("bucketaccesses", access, "FailedGrantAccess"),
    ):
        body = bed.get(plural, case)
        (event,) = [e for e in bed.events(case) if e["type"] == "Warning"]
        assert event["reason"] == reason
        assert event["message"] == f"DriverInvalidArgument: {ready(body)['message']}"
        assert "kubectl annotate --overwrite" in event["message"]
        assert "conditions" not in body.get("status", {})
        shown = {c["type"] for c in annotated(body)["conditions"]}
        assert shown == {"Ready", "Stalled"}

    before = versions(bed, cases)
    for grace_s in (10.0, 0.0):
        bed.restart("sidecar", grace_s=grace_s)
    bed.restart("controller")
    time.sleep(STILL_S)  # the measurement itself
    assert [len(calls_of(bed, case, call)) for case, call in cases.items()] == [1, 1]
    # A new process offers conditions once, to see whether the CRDs are still upstream's; the server
    # drops them, so nothing is stored.
    assert versions(bed, cases) == before

    bed.driver.clear_rules()
    bed.annotate("bucketclaims", claim, retry="1")
    bed.annotate("bucketaccesses", access, retry="1")
    bed.until_ready("bucketclaims", [claim])
    bed.until_ready("bucketaccesses", [access])
    bed.delete_all("bucketclaims", cases)
    until_nothing_is_left(bed, cases)


def test_a_retry_goes_on_with_a_backoff_and_ends_in_ready(own_bed: Testbed, name: str) -> None:
    bed = own_bed
    misbehave(bed, name, Call.CREATE_BUCKET, code="INTERNAL", message="down", times=2)
    prepare(bed, {name: Call.CREATE_BUCKET})
    bed.until_ready("bucketclaims", [name])
    bed.until(
        "the annotation", lambda: ready(bed.get("bucketclaims", name)).get("status") == "True"
    )
    assert len(calls_of(bed, name)) == 3
    bed.delete("bucketclaims", name)
    until_nothing_is_left(bed, [name])


@pytest.mark.attack("upstream's CRDs let a tenant name things that break cosi for everyone")
def test_names_that_no_object_can_have_hide_nothing(own_bed: Testbed, name: str) -> None:
    bed = own_bed
    bed.make_classes(name)
    bed.make_claims([name], class_name=name)
    bed.make_accesses([name], class_name=name)
    bed.until_ready("bucketaccesses", [name])
    odd, long = f"{name}-odd", "a" * 70_000
    bed.create("bucketclaims", claim_body(odd, class_name=long))
    bed.create("bucketaccesses", access_body(odd, class_name=long, claim=long, secret=long))
    granted = bed.get("bucketaccesses", odd) | {"status": {"accessGranted": True, "accountID": "x"}}
    bed.plane.api.call("PUT", f"{path_of('bucketaccesses', NAMESPACE, odd)}/status", granted)
    expected = {
        ("status", "-A"): (1, "SecretMissing"),
        ("status", "-n", NAMESPACE, "-o", "wide"): (1, "No Secret can have the name aaa"),
        ("why", odd, "-n", NAMESPACE): (1, "No BucketClass can have this name."),
        ("why", f"ba/{odd}", "-n", NAMESPACE): (1, "No BucketClaim can have this name."),
        ("why", name, "-n", NAMESPACE): (0, ": ready"),
        ("rollback-check",): (1, odd),
        ("retry", f"ba/{odd}", "-n", NAMESPACE): (0, "will be tried again"),
    }
    for words, (code, part) in expected.items():
        done = warm.run_cosi(
            [*words, f"--kubeconfig={bed.plane.admin_kubeconfig}"], environment={}, timeout_s=30
        )
        assert (done.returncode, done.stderr) == (code, ""), words
        assert part in done.stdout
        assert len(done.stdout) < 20_000
    bed.delete("bucketaccesses", odd)
    bed.delete_all("bucketclaims", [name, odd])
    until_nothing_is_left(bed, [name, odd])
