"""The way back to the Go pair v0.2.2: `cosi rollback-check` names what it would mishandle, and no
other object; the Go pair itself is played by a stand-in (`go_pair`).
"""

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.integration.cases import calls_of, misbehave
from tests.integration.go_pair import GoPair, Named
from tests.integration.test_cli import TENANT_ROLE, person

from cosi_operator.api.record import RECORD_ANNOTATION
from cosi_operator.outcome import Call
from cosi_operator.plan.names import ACCESS_FINALIZER, BUCKET_FINALIZER, SECRET_FINALIZER
from cosi_operator.rpc import cosi_pb2, cosi_pb2_grpc
from testbed import NAMESPACE, Testbed, access_body
from testbed.objects import path_of

ROOT = Path(__file__).resolve().parents[2]
TURNS = 3
WITH_ACCESS = ("good", "no-grant", "two-accounts", "no-secret", "driver")


@pytest.fixture
def own_bed() -> Iterator[Testbed]:
    with (
        tempfile.TemporaryDirectory(prefix="cosi-") as directory,
        Testbed.start(Path(directory)) as bed,
    ):
        yield bed
        assert bed.forbidden() == []


def prepare(bed: Testbed) -> None:
    """Claims in every state that lasts, each with a class of its name; then our pair ends."""
    misbehave(bed, "no-create", Call.CREATE_BUCKET, code="INVALID_ARGUMENT")
    misbehave(bed, "no-grant", Call.GRANT_ACCESS, code="INVALID_ARGUMENT")
    misbehave(bed, "not-empty", Call.DELETE_BUCKET, code="FAILED_PRECONDITION")
    misbehave(bed, "retried", Call.CREATE_BUCKET, code="INTERNAL")
    for name in (*WITH_ACCESS, "no-create", "not-empty", "retried"):
        bed.make_classes(name, parameters={"case": name})
        bed.make_claims([name], class_name=name)
    bed.create_all("bucketaccesses", [access_body(n, class_name=n) for n in WITH_ACCESS])
    bed.until_ready("bucketaccesses", set(WITH_ACCESS) - {"no-grant"})
    bed.until_reason("bucketaccesses", "no-grant", "DriverInvalidArgument")
    bed.until_reason("bucketclaims", "no-create", "DriverInvalidArgument")
    bed.until_ready("bucketclaims", ["not-empty", "no-grant"])
    bed.delete("bucketclaims", "not-empty")
    bed.until_reason("bucketclaims", "retried", "DriverInternal")
    bed.until("a refused deletion", lambda: calls_of(bed, "not-empty", Call.DELETE_BUCKET))


def break_what_ours_would_repair(bed: Testbed) -> None:
    """Our pair has ended: nothing that is done to these objects now is noticed."""
    uid = bed.get("bucketaccesses", "two-accounts")["metadata"]["uid"]
    bucket = bed.bucket_of("two-accounts")
    with grpc.insecure_channel(bed.driver.address) as channel:
        granted = cosi_pb2_grpc.ProvisionerStub(channel).DriverGrantBucketAccess(
            cosi_pb2.DriverGrantBucketAccessRequest(
                bucket_id=bucket["status"]["bucketID"], name="old-keys"
            )
        )

    def add_account(body: dict[str, Any]) -> None:
        record = json.loads(body["metadata"]["annotations"][RECORD_ANNOTATION])
        record["accesses"][uid]["accounts"].insert(0, granted.account_id)
        body["metadata"]["annotations"][RECORD_ANNOTATION] = json.dumps(record)

    bed.edit("buckets", bucket["metadata"]["name"], add_account)
    bed.delete("secrets", "no-secret-keys")
    bed.edit("secrets", "no-secret-keys", lambda body: body["metadata"].update(finalizers=[]))
    bed.edit(
        "buckets",
        bed.bucket_of("driver")["metadata"]["name"],
        lambda body: body["spec"].update(driverName="other.example.com"),
    )


def named(tree: Any) -> set[Named]:
    return {(row["kind"], row["name"]) for row in tree["mishandled"]}


def mishandled_by(go: GoPair) -> set[Named]:
    """What the stand-in can't make ready, can't delete, or leaves on the backend."""
    bed = go.bed
    seen: set[Named] = set()
    for _ in range(TURNS):
        go.turn()
    seen |= go.failed
    accesses = {f"ba-{a['metadata']['uid']}": a for a in bed.all_of("bucketaccesses")}
    seen |= {
        ("BucketClaim", claim["metadata"]["name"])
        for claim in bed.all_of("bucketclaims")
        if not claim.get("status", {}).get("bucketReady")
        or "deletionTimestamp" in claim["metadata"]
    }
    for plural in ("bucketaccesses", "bucketclaims"):
        bed.delete_all(plural, [body["metadata"]["name"] for body in bed.all_of(plural)])
        for _ in range(TURNS):
            left = go.turn()
        seen |= {each for each in left if plural == "bucketclaims" or each[0] == "BucketAccess"}
    seen |= {("Bucket", bucket.name) for bucket in bed.driver.buckets()}
    for account in bed.driver.accounts():
        owner = accesses.get(account.name)
        seen.add(("BucketAccess", owner["metadata"]["name"] if owner else account.name))
    return seen


def empty_ids(bed: Testbed) -> list[object]:
    return [
        entry
        for entry in bed.driver.journal()
        if "" in (entry.fields.get("bucket_id"), entry.fields.get("account_id"))
    ]


def test_rollback_check_names_exactly_what_the_go_pair_mishandles(
    own_bed: Testbed, tmp_path: Path
) -> None:
    bed = own_bed
    admin = person(bed, tmp_path, bed.plane.admin_kubeconfig)
    prepare(bed)
    danger = bed.bucket_of("retried")
    assert BUCKET_FINALIZER in danger["metadata"]["finalizers"]
    rows = {r["name"]: r for r in admin.cosi("rollback-check", "-o", "json").tree["mishandled"]}
    assert "with an empty id" in rows[danger["metadata"]["name"]]["why"]
    # As that row says: delete its claim and wait until both are gone.
    misbehave(bed, "retried", Call.CREATE_BUCKET)
    bed.delete("bucketclaims", "retried")
    bed.until_gone("bucketclaims", ["retried"])
    bed.stop_operator()
    break_what_ours_would_repair(bed)

    ran = admin.cosi("rollback-check", "-o", "json")
    assert ran.code == 1
    buckets = {
        n: bed.bucket_of(n)["metadata"]["name"] for n in ("no-create", "not-empty", "driver")
    }
    expected = {
        *(("BucketClaim", name) for name in ("no-create", "not-empty")),
        *(("Bucket", name) for name in buckets.values()),
        *(("BucketAccess", name) for name in ("no-grant", "two-accounts", "no-secret")),
    }
    assert named(ran.tree) == expected
    found = mishandled_by(GoPair(bed))
    assert {
        ("BucketAccess", "two-accounts") if e[1] == "old-keys" else e for e in found
    } == expected
    assert empty_ids(bed) == []


def test_without_its_advice_the_go_pair_sends_an_empty_id(own_bed: Testbed) -> None:
    """That the stand-in has the fault: else the test above could not fail."""
    bed = own_bed
    misbehave(bed, "retried", Call.CREATE_BUCKET, code="INTERNAL")
    bed.make_classes("retried", parameters={"case": "retried"})
    bed.make_claims(["retried"], class_name="retried")
    bed.until_reason("bucketclaims", "retried", "DriverInternal")
    bed.stop_operator()
    go = GoPair(bed)
    bed.delete("bucketclaims", "retried")
    for _ in range(TURNS):
        go.turn()
    assert empty_ids(bed)


def granted_by_go(bed: Testbed, name: str) -> str:
    """All that v0.2.2 writes for an access of its own; the driver's id of the account."""
    bed.create("bucketaccesses", access_body(name, class_name="good", claim="good"), NAMESPACE)
    bucket = bed.bucket_of("good")
    access = bed.get("bucketaccesses", name)
    with grpc.insecure_channel(bed.driver.address) as channel:
        account = (
            cosi_pb2_grpc.ProvisionerStub(channel)
            .DriverGrantBucketAccess(
                cosi_pb2.DriverGrantBucketAccessRequest(
                    bucket_id=bucket["status"]["bucketID"],
                    name=f"ba-{access['metadata']['uid']}",
                )
            )
            .account_id
        )
    info = {"metadata": {"name": f"bc-{access['metadata']['uid']}"}, "spec": {}}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": f"{name}-keys", "finalizers": [SECRET_FINALIZER]},
        "stringData": {"BucketInfo": json.dumps(info)},
    }
    bed.create("secrets", secret, NAMESPACE)
    bed.edit("bucketaccesses", name, lambda b: b["metadata"].update(finalizers=[ACCESS_FINALIZER]))
    status = {"accessGranted": True, "accountID": account}
    body = {**bed.get("bucketaccesses", name), "status": status}
    bed.plane.api.call("PUT", f"{path_of('bucketaccesses', NAMESPACE, name)}/status", body)
    return str(account)


@pytest.mark.parametrize("removed", [True, False], ids=["records removed", "records kept"])
def test_what_the_go_pair_granted_in_between_is_taken_over_when_ours_comes_back(
    own_bed: Testbed, removed: bool
) -> None:
    bed = own_bed
    bed.make_classes("good")
    bed.make_claims(["good"], class_name="good")
    bed.make_accesses(["good"], class_name="good")
    bed.until_ready("bucketaccesses", ["good"])
    bed.stop_operator()
    account = granted_by_go(bed, "between")
    if removed:
        page = (ROOT / "docs" / "migrate.md").read_text("utf-8")
        (command,) = re.findall(r"(?m)^\$ kubectl (annotate buckets .*)$", page)
        bed.plane.run_kubectl(*command.split())
    for role in ("controller", "sidecar"):
        bed.start_process(role)
        bed.until_leading(role)

    def is_recorded() -> bool:
        kept = bed.bucket_of("good")["metadata"].get("annotations", {}).get(RECORD_ANNOTATION)
        entries = json.loads(kept).get("accesses", {}).values() if kept else ()
        return any(entry["name"] == "between" and entry.get("accounts") for entry in entries)

    bed.until("the access to be recorded", is_recorded)
    bed.until_quiet()
    made = len(bed.driver.journal(Call.GRANT_ACCESS))
    warnings = [e["message"] for e in bed.events("between") if e["type"] == "Warning"]
    assert made == (2 if removed else 3)
    assert [account in text for text in warnings] == ([] if removed else [True])
    bed.delete_all("bucketaccesses", ["good", "between"])
    bed.until_gone("bucketaccesses", ["good", "between"])
    assert bed.driver.accounts() == []


def test_who_may_run_it_and_what_it_says_when_all_is_well(own_bed: Testbed, tmp_path: Path) -> None:
    bed = own_bed
    admin = person(bed, tmp_path, bed.plane.admin_kubeconfig)
    bed.make_classes("good")
    bed.make_claims(["good"], class_name="good")
    bed.make_accesses(["good"], class_name="good")
    bed.until_ready("bucketaccesses", ["good"])
    fine = admin.kubectl_cosi("rollback-check")
    assert (fine.code, fine.note) == (0, "")
    assert fine.out == "The Go pair v0.2.2 can take over: it would mishandle no object.\n"
    bed.plane.apply(TENANT_ROLE.replace("NAMESPACE", NAMESPACE))
    tenant = person(bed, tmp_path, bed.plane.kubeconfig_for(NAMESPACE, "tenant"))
    refused = tenant.cosi("rollback-check")
    assert (refused.code, refused.out) == (2, "")
    assert "ask an administrator of the cluster" in refused.note
