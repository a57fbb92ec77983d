"""Restores, clones, GitOps and administrators: a copy is a new object, and nothing is lost."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from tests.attacks.test_tenants import granted, lives, write_status

from cosi_operator.api.record import RECORD_ANNOTATION
from cosi_operator.outcome import Call
from cosi_operator.plan import names
from testbed import Testbed, claim_body
from testbed.bed import DRIVER_NAME
from testbed.objects import Json, condition

NEW_BUCKET = "objectstorage.k8s.io/new-bucket"
PAGE = Path(__file__).parents[2] / "docs" / "backup-and-restore.md"


def run_page(bed: Testbed, heading: str, *, claim: str, bucket: str, uid: str = "") -> str:
    """Run the commands under one heading of the page as a shell does, with other names.

    Returns:
        What they print.
    """
    section = PAGE.read_text("utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line.strip() for line in section.splitlines() if line.startswith("    ")]
    assert lines
    script = "\n".join(lines).replace("photos -n shop", f"{claim} -n team")
    script = script.replace("secrets -n shop", "secrets -n team")
    script = script.replace("bucket-0123", bucket).replace("=UID", f"={uid}")
    folder = bed.plane.kubectl.parent
    environment = {
        "PATH": f"{folder}{os.pathsep}{os.defpath}",
        "KUBECONFIG": str(bed.plane.admin_kubeconfig),
        "HOME": str(bed.directory),  # kubectl keeps a cache there
    }
    return subprocess.run(
        ["bash", "-euc", script],
        env=environment,
        check=True,
        timeout=30,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


def copied(body: Json, namespace: str = "", *, name: str = "") -> tuple[Json, Json]:
    """What a restore creates, and the status that it writes afterwards; maybe another name."""
    meta = {**body["metadata"], "namespace": namespace}
    meta["name"] = name or meta["name"]
    fields = ("name", "namespace", "annotations", "finalizers", "labels")
    kept = {field: meta[field] for field in fields if meta.get(field)}
    return {"metadata": kept, "spec": body["spec"]}, body["status"]


@pytest.mark.attack("a restore drill with status is thrown away; production keeps its keys")
def test_throwing_a_drill_away(bed: Testbed, name: str) -> None:
    access = granted(bed, name)
    space = bed.make_namespace(f"{name}-drill")
    for plural in ("bucketclaims", "bucketaccesses"):
        body, status = copied(bed.get(plural, name), space)
        bed.create(plural, body, space)
        write_status(bed, plural, name, space, status)
    copy_uid = bed.get("bucketaccesses", name, space)["metadata"]["uid"]

    def has_its_own() -> bool:
        copy = bed.get("bucketaccesses", name, space)
        return copy_uid in copy["status"].get("accountID", "") and copy["status"]["accessGranted"]

    bed.until("the copy has an account of its own", has_its_own)
    assert bed.find("secrets", f"{name}-keys", space) is not None
    for plural in ("bucketaccesses", "bucketclaims"):
        bed.delete(plural, name, space)
    for plural in ("bucketaccesses", "bucketclaims"):
        bed.until_gone(plural, [name], namespace=space)
    assert lives(bed, access)
    assert condition(bed.get("bucketaccesses", name))["status"] == "True"
    backend = {bucket.bucket_id for bucket in bed.driver.buckets()}
    assert bed.bucket_of(name)["status"]["bucketID"] in backend


def restored(bed: Testbed, name: str) -> Json:
    """A claim with a new UID, whose Bucket with the data still stands: its name."""
    bed.make_classes(name, policy="Retain")
    bed.make_claims([name], class_name=name)
    bed.until_ready("bucketclaims", [name])
    bucket = bed.bucket_of(name)
    body, _ = copied(bed.get("bucketclaims", name), "team")
    # Removed by force, as when the cluster was lost: the Bucket has not been deleted.
    bed.processes["controller"].stop(grace_s=10)
    bed.edit("bucketclaims", name, lambda claim: claim["metadata"].pop("finalizers"))
    bed.delete("bucketclaims", name)
    bed.until_gone("bucketclaims", [name])
    body["metadata"].pop("finalizers", None)
    bed.create("bucketclaims", body)
    bed.start_process("controller")
    bed.until_leading("controller")
    return bucket


@pytest.mark.attack("a restored claim beside the Bucket with its data; no empty bucket is made")
def test_a_restored_claim_is_never_silently_empty(bed: Testbed, name: str) -> None:
    bucket = restored(bed, name)
    bed.until_reason("bucketclaims", name, "FormerBucketFound")
    claim = bed.get("bucketclaims", name)
    message = condition(claim)["message"]
    assert bucket["metadata"]["name"] in message
    patch = json.loads(message.split("--type merge -p '")[1].split("'")[0])
    assert patch["spec"]["bucketClaim"]["uid"] == claim["metadata"]["uid"]
    assert f"{NEW_BUCKET}={claim['metadata']['uid']}" in message

    run_page(
        bed,
        "After a restore: use the old bucket",
        claim=name,
        bucket=bucket["metadata"]["name"],
    )
    bed.until_ready("bucketclaims", [name])
    assert bed.get("bucketclaims", name)["status"]["bucketName"] == bucket["metadata"]["name"]


@pytest.mark.attack("a restored claim whose owner asks for a new bucket; it gets one")
def test_a_restored_claim_gets_a_new_bucket_on_demand(bed: Testbed, name: str) -> None:
    bucket = restored(bed, name)
    bed.until_reason("bucketclaims", name, "FormerBucketFound")
    run_page(bed, "After a restore: start with an empty bucket", claim=name, bucket="")
    bed.until_ready("bucketclaims", [name])
    assert bed.bucket_of(name)["metadata"]["name"] != bucket["metadata"]["name"]
    assert bed.find("buckets", bucket["metadata"]["name"]) is not None


@pytest.mark.attack("GitOps applies a static Bucket without its claim again; the claim keeps it")
def test_gitops_clears_the_binding(bed: Testbed, name: str) -> None:
    bed.make_classes(name)
    spec = {
        "bucketClaim": {},
        "bucketClassName": name,
        "driverName": DRIVER_NAME,
        "protocols": ["S3"],
        "existingBucketID": f"{name}-id",
        "deletionPolicy": "Retain",
    }
    bed.create("buckets", {"metadata": {"name": f"{name}-old"}, "spec": spec})
    bed.create(
        "bucketclaims",
        {
            "metadata": {"name": name},
            "spec": {"protocols": ["S3"], "existingBucketName": f"{name}-old"},
        },
    )
    bed.until_ready("bucketclaims", [name])
    uid = bed.get("bucketclaims", name)["metadata"]["uid"]
    space = bed.make_namespace(f"{name}-evil")
    thief = {
        "metadata": {"name": "x", "namespace": space},
        "spec": {"protocols": ["S3"], "existingBucketName": f"{name}-old"},
    }
    bed.create("bucketclaims", thief, space)
    for _ in range(3):
        bed.edit("buckets", f"{name}-old", lambda body: body["spec"].update(bucketClaim={}))
        bed.until(
            "the Bucket names its claim again",
            lambda: bed.get("buckets", f"{name}-old")["spec"]["bucketClaim"].get("uid") == uid,
        )
    bed.until_reason("bucketclaims", "x", "BucketAlreadyBound", namespace=space)
    bed.until_ready("bucketclaims", [name])


@pytest.mark.attack("kubectl delete bucket while a claim uses it; the data stays until forced")
def test_a_bucket_in_use(bed: Testbed, name: str) -> None:
    access = granted(bed, name)
    bucket = bed.bucket_of(name)
    bed.delete("buckets", bucket["metadata"]["name"])
    bed.until_reason("buckets", bucket["metadata"]["name"], "BucketInUse")
    bed.until_quiet()
    assert lives(bed, access)
    assert bucket["status"]["bucketID"] in {b.bucket_id for b in bed.driver.buckets()}
    run_page(bed, "Delete a bucket that a claim uses", claim="", bucket=bucket["metadata"]["name"])
    bed.until_gone("buckets", [bucket["metadata"]["name"]])
    assert not lives(bed, access)


@pytest.mark.attack("a Bucket copied under another name is thrown away; data and keys stay")
@pytest.mark.parametrize("forced", [False, True], ids=["deleted", "deleted by force"])
@pytest.mark.parametrize("with_status", [False, True], ids=["as applied", "with status"])
def test_a_copied_bucket(bed: Testbed, name: str, with_status: bool, forced: bool) -> None:
    access = granted(bed, name)
    body, status = copied(bed.bucket_of(name), name=f"{name}-copy")
    bed.create("buckets", body)
    if with_status:
        write_status(bed, "buckets", f"{name}-copy", "", status)
    bed.until_reason("buckets", f"{name}-copy", "WaitingForBucketClaim")
    since = len(bed.driver.journal())
    if forced:
        uid = bed.get("buckets", f"{name}-copy")["metadata"]["uid"]
        bed.annotate("buckets", f"{name}-copy", **{"force-delete": uid})
    bed.delete("buckets", f"{name}-copy")
    bed.until_gone("buckets", [f"{name}-copy"])
    bed.until_quiet()
    assert bed.driver.journal()[since:] == []
    assert lives(bed, access)
    assert status["bucketID"] in {found.bucket_id for found in bed.driver.buckets()}
    bed.until_ready("bucketaccesses", [name])


@pytest.mark.attack("the original of a copied Bucket is away for a while; the copy takes nothing")
def test_a_copy_never_takes_the_place(bed: Testbed, name: str) -> None:
    access = granted(bed, name)
    bucket = bed.bucket_of(name)
    body, _ = copied(bucket)
    bed.create("buckets", copied(bucket, name=f"{name}-copy")[0])
    bed.until_reason("buckets", f"{name}-copy", "WaitingForBucketClaim")
    # In this order: to a Bucket that is not being deleted, the sidecar adds its finalizer again.
    bed.delete("buckets", bucket["metadata"]["name"])
    bed.edit("buckets", bucket["metadata"]["name"], lambda b: b["metadata"].pop("finalizers"))
    bed.until_reason("bucketclaims", name, "BucketLost")
    bed.until_quiet()
    assert lives(bed, access)
    assert f"{name}-copy" not in {found.name for found in bed.driver.buckets()}
    bed.create("buckets", body)
    bed.until_ready("bucketclaims", [name])
    bed.until_ready("bucketaccesses", [name])
    assert lives(bed, access)
    bed.delete("buckets", f"{name}-copy")
    bed.until_gone("buckets", [f"{name}-copy"])
    assert lives(bed, access)


def share(bed: Testbed, name: str, bucket: str) -> str:
    """Claim a new static Bucket with the id of claim `name`'s Bucket; return the id."""
    bucket_id = str(bed.bucket_of(name)["status"]["bucketID"])
    spec = {
        "bucketClaim": {},
        "bucketClassName": name,
        "driverName": DRIVER_NAME,
        "protocols": ["S3"],
        "existingBucketID": bucket_id,
        "deletionPolicy": "Delete",
    }
    bed.create("buckets", {"metadata": {"name": bucket}, "spec": spec})
    bed.create("bucketclaims", claim_body(f"{name}-s", existing=bucket))
    return bucket_id


@pytest.mark.attack("two Buckets with one bucket id; deleting one keeps the data of the other")
@pytest.mark.parametrize("first", ["static", "dynamic"])
def test_two_buckets_with_one_id(bed: Testbed, name: str, first: str) -> None:
    granted(bed, name)
    bucket_id = share(bed, name, f"{name}-old")
    bed.until_ready("bucketclaims", [f"{name}-s"])
    bed.delete("bucketaccesses", name)
    bed.until_gone("bucketaccesses", [name])
    claims = [f"{name}-s", name] if first == "static" else [name, f"{name}-s"]
    bed.delete("bucketclaims", claims[0])
    bed.until_gone("bucketclaims", claims[:1])
    assert "has the same bucket id" in bed.until_event(claims[0], "BackendUnverified")
    assert bucket_id in {b.bucket_id for b in bed.driver.buckets()}
    bed.delete("bucketclaims", claims[1])
    bed.until_gone("bucketclaims", claims[1:])
    assert bucket_id not in {b.bucket_id for b in bed.driver.buckets()}


@pytest.mark.attack("a static Bucket is copied and its record is lost; the data stays")
def test_a_copied_static_bucket(bed: Testbed, name: str) -> None:
    access = granted(bed, name)
    source, copy = f"{name}-old", f"{name}-copy"
    share(bed, name, source)
    bed.make_accesses([f"{name}-s"], class_name=name)
    bed.until_ready("bucketaccesses", [f"{name}-s"])
    static = bed.get("bucketaccesses", f"{name}-s")

    bed.processes["sidecar"].stop(grace_s=10)
    body, status = copied(bed.get("buckets", source), name=copy)
    bed.create("buckets", body)
    write_status(bed, "buckets", copy, "", status)
    bed.edit("buckets", source, lambda b: b["metadata"]["annotations"].pop(RECORD_ANNOTATION))
    bed.annotate("buckets", copy, **{"force-delete": bed.get("buckets", copy)["metadata"]["uid"]})
    bed.delete("buckets", copy)
    since = len(bed.driver.journal(Call.DELETE_BUCKET))
    bed.start_process("sidecar")
    bed.until_leading("sidecar")
    bed.until_gone("buckets", [copy])
    bed.until_ready("bucketaccesses", [f"{name}-s"])
    assert len(bed.driver.journal(Call.DELETE_BUCKET)) == since
    assert lives(bed, static)
    assert lives(bed, access)


@pytest.mark.attack("a Bucket is removed by force and applied again from a backup; all goes on")
@pytest.mark.parametrize("annotated", [True, False], ids=["with annotations", "without"])
def test_a_bucket_from_a_backup(bed: Testbed, name: str, annotated: bool) -> None:
    access = granted(bed, name)
    bucket = bed.bucket_of(name)
    body, _ = copied(bucket)
    if not annotated:
        del body["metadata"]["annotations"]
    for role in ("sidecar", "controller"):
        bed.processes[role].stop(grace_s=10)
    bed.edit("buckets", bucket["metadata"]["name"], lambda b: b["metadata"].pop("finalizers"))
    bed.delete("buckets", bucket["metadata"]["name"])
    bed.until_gone("buckets", [bucket["metadata"]["name"]])
    bed.create("buckets", body)
    for role in ("controller", "sidecar"):
        bed.start_process(role)
    bed.until_leading()
    bed.until_quiet()
    bed.until_ready("bucketclaims", [name])
    bed.until_ready("bucketaccesses", [name])
    assert lives(bed, access)
    bed.delete("bucketclaims", name)
    bed.until_gone("bucketaccesses", [name])
    bed.until_gone("bucketclaims", [name])
    assert not lives(bed, access)
    assert bucket["status"]["bucketID"] not in {b.bucket_id for b in bed.driver.buckets()}


BROKEN_RECORDS = [
    pytest.param(None, id="removed"),
    pytest.param("", id="empty"),
    pytest.param("{}", id="an empty record"),
    pytest.param("{", id="cut off"),
    pytest.param('{"bucket":"0000","driver":"other.example.com"}', id="of another Bucket"),
]


@pytest.mark.attack("a Bucket's record is lost or broken; it is told, and the keys are revoked")
@pytest.mark.parametrize("record", BROKEN_RECORDS)
@pytest.mark.parametrize("sidecar", ["at work", "restarted"])
def test_a_broken_record(bed: Testbed, name: str, record: str | None, sidecar: str) -> None:
    access = granted(bed, name)
    bucket = bed.bucket_of(name)
    if sidecar == "restarted":  # what it remembers is lost too
        bed.processes["sidecar"].stop(grace_s=10)

    def break_it(body: Json) -> None:
        annotations = body["metadata"]["annotations"]
        del annotations[RECORD_ANNOTATION]
        if record is not None:
            annotations[RECORD_ANNOTATION] = record

    bed.edit("buckets", bucket["metadata"]["name"], break_it)
    if sidecar == "restarted":
        bed.start_process("sidecar")
        bed.until_leading("sidecar")
    bed.until_event(bucket["metadata"]["name"], "RecordLost", namespace="default")
    bed.until_ready("bucketaccesses", [name])
    bed.delete("bucketaccesses", name)
    bed.until_gone("bucketaccesses", [name])
    assert not lives(bed, access)
    bed.delete("bucketclaims", name)
    bed.until_gone("bucketclaims", [name])
    assert bucket["status"]["bucketID"] not in {b.bucket_id for b in bed.driver.buckets()}


@pytest.mark.attack("a driver that never ends a deletion; a person ends it, and it is told")
def test_giving_up(bed: Testbed, name: str) -> None:
    bed.make_classes(name)
    bed.make_claims([name], class_name=name)
    bed.until_ready("bucketclaims", [name])
    bucket = bed.bucket_of(name)
    bed.driver.set_rule(
        Call.DELETE_BUCKET, match={"bucket_id": bucket["status"]["bucketID"]}, code="INTERNAL"
    )
    bed.delete("bucketclaims", name)
    bed.until_reason("bucketclaims", name, "DriverInternal")
    run_page(
        bed,
        "End a deletion that the driver never finishes",
        claim="",
        bucket=bucket["metadata"]["name"],
        uid=bucket["metadata"]["uid"],
    )
    bed.until_gone("bucketclaims", [name])
    assert bucket["status"]["bucketID"] in bed.until_event(name, "BackendUnverified")


@pytest.mark.attack("a claim was deleted by mistake; its Bucket is told to keep the data in time")
def test_keeping_the_data(bed: Testbed, name: str) -> None:
    access = granted(bed, name)
    bucket = bed.bucket_of(name)
    account = access["status"]["accountID"]
    bed.driver.set_rule(Call.REVOKE_ACCESS, match={"account_id": account}, code="INTERNAL")
    bed.delete("bucketclaims", name)
    bed.until_reason("buckets", bucket["metadata"]["name"], "WaitingForBucketAccesses")
    run_page(
        bed,
        "Keep the data of a bucket that is being deleted",
        claim="",
        bucket=bucket["metadata"]["name"],
    )
    bed.driver.clear_rules()
    bed.until_gone("bucketclaims", [name])
    assert bucket["status"]["bucketID"] in {b.bucket_id for b in bed.driver.buckets()}
    assert not lives(bed, access)


@pytest.mark.attack("a restored access has our finalizer and no driver; it can be deleted")
def test_a_copied_finalizer(bed: Testbed, name: str) -> None:
    spec = {
        "bucketAccessClassName": f"{name}-gone",
        "bucketClaimName": name,
        "credentialsSecretName": f"{name}-keys",
        "protocol": "S3",
    }
    metadata = {"name": name, "finalizers": [names.ACCESS_FINALIZER]}
    bed.create("bucketaccesses", {"metadata": metadata, "spec": spec})
    bed.delete("bucketaccesses", name)
    bed.until_gone("bucketaccesses", [name])
    assert names.ACCESS_FINALIZER in bed.until_event(name, "BackendUnverified")


def restored_secret(bed: Testbed, name: str) -> None:
    """A Secret with our finalizer and the keys of an access whose UID is gone."""
    info = json.dumps({"metadata": {"name": "bc-0000"}, "spec": {}})
    metadata = {"name": name, "finalizers": [names.SECRET_FINALIZER]}
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata}
    bed.create("secrets", {**body, "stringData": {"BucketInfo": info}})


@pytest.mark.attack("a restored Secret has our finalizer; it keeps no namespace from being deleted")
def test_a_restored_secret(bed: Testbed, name: str) -> None:
    restored_secret(bed, f"{name}-keys")
    bed.make_classes(name)
    bed.make_claims([name], class_name=name)
    bed.make_accesses([name], class_name=name)
    bed.until_reason("bucketaccesses", name, "SecretNotOwned")
    assert "finalizers" not in bed.get("secrets", f"{name}-keys")["metadata"]
    bed.delete("secrets", f"{name}-keys")
    bed.until_gone("secrets", [f"{name}-keys"])


@pytest.mark.attack("a restored Secret that no access names; a person frees it with two commands")
def test_a_secret_that_nobody_names(bed: Testbed, name: str) -> None:
    restored_secret(bed, name)
    bed.delete("secrets", name)
    listed = run_page(bed, "A namespace stays Terminating", claim=name, bucket="")
    assert name in listed.splitlines()
    bed.until_gone("secrets", [name])


@pytest.mark.attack("driverName of a ready Bucket is changed; no other driver gets its id")
def test_the_recorded_driver_wins(bed: Testbed, name: str) -> None:
    granted(bed, name)
    bucket = bed.bucket_of(name)["metadata"]["name"]
    bed.edit("buckets", bucket, lambda body: body["spec"].update(driverName="other.example.com"))
    bed.until(
        "the Bucket says that the change is ignored",
        lambda: condition(bed.get("buckets", bucket), "SpecChangeIgnored"),
    )
    bed.delete("bucketclaims", name)
    bed.until_gone("bucketclaims", [name])
    assert bucket not in {found.name for found in bed.driver.buckets()}


@pytest.mark.attack("a refused claim after a rollback; nothing makes the Go pair send an empty id")
def test_a_refusal_leaves_nothing_for_the_go_pair(bed: Testbed, name: str) -> None:
    bed.make_classes(name, parameters={"case": name})
    match = {"parameters.case": name}
    bed.driver.set_rule(Call.CREATE_BUCKET, match=match, code="INVALID_ARGUMENT")
    bed.make_claims([name], class_name=name)
    bed.until_reason("bucketclaims", name, "DriverInvalidArgument")
    bed.until_quiet()
    bucket = bed.bucket_of(name)
    # v0.2.2 sends DriverDeleteBucket(status.bucketID) for a Bucket with this finalizer.
    assert not bucket["metadata"].get("finalizers")
    bed.delete("bucketclaims", name)
    bed.until_gone("bucketclaims", [name])
    assert bed.find("buckets", bucket["metadata"]["name"]) is None
