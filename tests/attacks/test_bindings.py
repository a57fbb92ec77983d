"""Who gets a static Bucket, and whose account a driver's id names, tried by a tenant."""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.attacks.test_copies import copied, run_page
from tests.attacks.test_tenants import granted, write_status

from cosi_operator.api.record import RECORD_ANNOTATION
from cosi_operator.outcome import Call
from cosi_operator.plan import names
from mockdriver.client import MockDriver
from testbed import Testbed, access_body, claim_body
from testbed.bed import DRIVER_NAME
from testbed.objects import Json, condition
from testbed.process import operator_process

SECOND_DRIVER = "second.example.com"


def static_bucket(name: str, *, bucket_id: str, class_name: str, claim: Json) -> Json:
    return {
        "apiVersion": "objectstorage.k8s.io/v1alpha1",
        "kind": "Bucket",
        "metadata": {"name": name},
        "spec": {
            "bucketClaim": claim,
            "bucketClassName": class_name,
            "driverName": DRIVER_NAME,
            "protocols": ["S3"],
            "existingBucketID": bucket_id,
            "deletionPolicy": "Retain",
        },
    }


def accounts(bed: Testbed) -> set[str]:
    return {account.account_id for account in bed.driver.accounts()}


def revoked(driver: MockDriver) -> list[str]:
    return [entry.fields["account_id"] for entry in driver.journal(Call.REVOKE_ACCESS)]


@pytest.mark.attack(
    "a static Bucket reserved for a namespace; a claim of another namespace names it"
)
def test_a_reservation_for_a_namespace_keeps_others_out(bed: Testbed, name: str) -> None:
    bed.make_classes(name)
    team, evil = bed.make_namespace(f"{name}-team"), bed.make_namespace(f"{name}-evil")
    bucket = f"{name}-old"
    reserved = {"namespace": team}
    bed.create("buckets", static_bucket(bucket, bucket_id="an-id", class_name=name, claim=reserved))
    bed.create("bucketclaims", claim_body("x", existing=bucket, namespace=evil), evil)
    bed.until_reason("bucketclaims", "x", "BucketAlreadyBound", evil)
    bed.create("bucketclaims", claim_body("mine", existing=bucket, namespace=team), team)
    bed.until_ready("bucketclaims", ["mine"], team)


def apply(bed: Testbed, bucket: Json) -> None:
    """As a GitOps controller does."""
    file = bed.directory / f"{bucket['metadata']['name']}.json"
    file.write_text(json.dumps(bucket))
    flags = ("--server-side", "--force-conflicts", "--field-manager=flux")
    bed.plane.run_kubectl("apply", *flags, "-f", str(file))


def release(bed: Testbed, bucket: Json) -> None:
    """As an administrator does, by the command in the condition."""
    name = bucket["metadata"]["name"]
    message = bed.until_reason("buckets", name, "Released")["message"]
    patch = message.split("-p ")[1].strip("'")
    bed.plane.run_kubectl("patch", "bucket", name, "--type", "merge", "-p", patch)


@pytest.mark.attack(
    "a tenant removes its claim by force; its keys stay, and another tenant gets the Bucket"
)
@pytest.mark.parametrize("free", [apply, release], ids=["by GitOps", "by the command"])
def test_a_bucket_with_keys_of_another_tenant_is_bound_to_nobody(
    bed: Testbed, name: str, free: Callable[[Testbed, Json], None]
) -> None:
    granted(bed, name)
    evil, team = bed.make_namespace(f"{name}-evil"), bed.make_namespace(f"{name}-team")
    bucket = static_bucket(
        f"{name}-old",
        bucket_id=bed.bucket_of(name)["status"]["bucketID"],
        class_name=name,
        claim={},
    )
    apply(bed, bucket)
    bed.create("bucketclaims", claim_body("x", existing=f"{name}-old", namespace=evil), evil)
    bed.until_ready("bucketclaims", ["x"], evil)
    bed.make_accesses(["x"], class_name=name, namespace=evil)
    bed.until_ready("bucketaccesses", ["x"], evil)
    account = bed.get("bucketaccesses", "x", evil)["status"]["accountID"]
    bed.processes["controller"].stop(grace_s=10)
    bed.edit("bucketclaims", "x", lambda body: body["metadata"].pop("finalizers"), evil)
    bed.delete("bucketclaims", "x", evil)
    bed.start_process("controller")
    bed.until_leading("controller")
    told = bed.until_reason("buckets", f"{name}-old", "Released")
    assert f"Delete its BucketAccesses first, because their keys work: {evil}/x." in told["message"]

    free(bed, bucket)
    bed.create("bucketclaims", claim_body("next", existing=f"{name}-old", namespace=team), team)
    told = bed.until_reason("bucketclaims", "next", "BucketAlreadyBound", team)
    bed.until_quiet()
    assert not bed.get("bucketclaims", "next", team)["status"].get("bucketReady")
    bed.delete("bucketaccesses", "x", evil)
    bed.until_gone("bucketaccesses", ["x"], evil)
    bed.until_ready("bucketclaims", ["next"], team)
    assert account not in accounts(bed)


@contextmanager
def second_driver(bed: Testbed) -> Iterator[MockDriver]:
    """Another driver with a sidecar of its own, in the same cluster."""
    with (
        tempfile.TemporaryDirectory(prefix="cosi-") as directory,
        MockDriver.start(Path(directory), name=SECOND_DRIVER) as driver,
    ):
        account = bed.accounts["sidecar"]
        process = operator_process(
            "sidecar",
            [f"--driver-addr={driver.address}"],
            kubeconfig=bed.plane.kubeconfig_for(*account),
            namespace=account[0],
            logs=Path(directory),
        )
        process.start()
        try:
            yield driver
        finally:
            process.stop(grace_s=10)


@pytest.mark.attack(
    "two drivers give two accounts the same id; each account is revoked by its driver"
)
def test_an_account_id_belongs_to_a_driver(bed: Testbed, name: str) -> None:
    one, two, account = f"{name}-one", f"{name}-two", f"{name}-user"
    bed.make_classes(one, parameters={"tier": one})
    bed.make_classes(two, driver=SECOND_DRIVER, parameters={"tier": two})
    with second_driver(bed) as other:
        drivers = {one: bed.driver, two: other}
        for each, driver in drivers.items():
            same = {"account_id": account}
            driver.set_rule(Call.GRANT_ACCESS, match={"parameters.tier": each}, reply_fields=same)
            bed.make_claims([each], class_name=each)
            bed.make_accesses([each], class_name=each)
            bed.until_ready("bucketaccesses", [each])
        for each, driver in drivers.items():
            bed.delete("bucketaccesses", each)
            bed.until_gone("bucketaccesses", [each])
            assert account in revoked(driver)
            assert not [e for e in bed.events(each) if e["reason"] == "AccountShared"]
        for each in drivers:
            bed.delete("bucketclaims", each)
        bed.until_gone("bucketclaims", [one, two])


@pytest.mark.attack(
    "an account forged for a Bucket that was never ready blocks a takeover from the Go pair"
)
def test_a_bucket_that_was_never_ready_has_no_accounts(bed: Testbed, name: str) -> None:
    account = granted(bed, name)["status"]["accountID"]
    bucket = bed.bucket_of(name)["metadata"]["name"]
    evil = bed.make_namespace(f"{name}-evil")
    bed.make_classes(f"{name}-none", driver="absent.example.com")
    bed.processes["sidecar"].stop(grace_s=10)
    bed.make_claims(["x"], class_name=f"{name}-none", namespace=evil)
    theirs = names.bucket_name(bed.get("bucketclaims", "x", evil)["metadata"]["uid"])
    bed.until("the Bucket of x", lambda: bed.find("buckets", theirs))
    bed.until_quiet()
    for each in (theirs, bucket):  # the Go controller writes no record
        bed.edit("buckets", each, lambda b: b["metadata"]["annotations"].pop(RECORD_ANNOTATION))
    body = access_body("x", class_name=f"{name}-none", namespace=evil)
    body["metadata"]["finalizers"] = [names.ACCESS_FINALIZER]
    bed.create("bucketaccesses", body, evil)
    forged = {"accessGranted": True, "accountID": account}
    write_status(bed, "bucketaccesses", "x", evil, forged)
    bed.start_process("sidecar")
    bed.until_leading("sidecar")
    bed.until(
        "the record",
        lambda: RECORD_ANNOTATION in bed.get("buckets", bucket)["metadata"].get("annotations", {}),
    )
    bed.until_quiet()
    told = condition(bed.get("bucketaccesses", name))
    assert told["reason"] == "Granted"
    bed.delete("bucketaccesses", name)
    bed.until_gone("bucketaccesses", [name])
    assert account not in accounts(bed)


def lose_and_restore(bed: Testbed, spaces: dict[str, str]) -> dict[str, Json]:
    """A disaster: the objects come back with new UIDs, Buckets with annotations, no status.

    Returns:
        The status that each access had, by name.
    """
    restored: list[tuple[str, Json, str]] = []
    had = {name: bed.get("bucketaccesses", name, space)["status"] for name, space in spaces.items()}
    for role in ("sidecar", "controller"):
        bed.processes[role].stop(grace_s=10)
    for name, space in spaces.items():
        bucket = bed.bucket_of(name, space)
        restored.append(("buckets", copied(bucket)[0], ""))
        restored += [
            (plural, copied(bed.get(plural, name, space), space)[0], space)
            for plural in ("bucketclaims", "bucketaccesses")
        ]
        for plural, lost, where in (
            ("bucketaccesses", name, space),
            ("bucketclaims", name, space),
            ("buckets", bucket["metadata"]["name"], ""),
            ("secrets", f"{name}-keys", space),
        ):
            bed.edit(plural, lost, lambda body: body["metadata"].pop("finalizers", None), where)
            bed.delete(plural, lost, where)
    for plural, body, space in restored:
        bed.create(plural, body, space)
    return had


def bind(bed: Testbed, name: str, bucket: str, namespace: str = "team") -> None:
    """As an administrator does."""
    uid = bed.get("bucketclaims", name, namespace)["metadata"]["uid"]
    patch = json.dumps({"spec": {"bucketClaim": {"uid": uid}}})
    bed.plane.run_kubectl("patch", "bucket", bucket, "--type", "merge", "-p", patch)


@pytest.mark.attack("after a restore, a tenant's status names the account of another tenant")
@pytest.mark.parametrize("tenant_first", [True, False], ids=["tenant first", "victim first"])
def test_a_forged_status_decides_nothing_after_a_restore(
    bed: Testbed, name: str, tenant_first: bool
) -> None:
    account = granted(bed, name)["status"]["accountID"]
    evil, theirs = bed.make_namespace(f"{name}-evil"), f"{name}x"
    bed.make_classes(theirs)
    bed.make_claims([theirs], class_name=theirs, namespace=evil)
    bed.make_accesses([theirs], class_name=theirs, namespace=evil)
    bed.until_ready("bucketaccesses", [theirs], evil)
    spaces = {theirs: evil, name: "team"}
    buckets = {each: bed.bucket_of(each, spaces[each])["metadata"]["name"] for each in spaces}
    before = len(revoked(bed.driver))
    lose_and_restore(bed, spaces)
    forged = {"accessGranted": True, "accountID": account}
    write_status(bed, "bucketaccesses", theirs, evil, forged)
    for role in ("controller", "sidecar"):
        bed.start_process(role)
    bed.until_leading()
    for each in spaces if tenant_first else reversed(spaces):
        space = spaces[each]
        bed.until_reason("bucketclaims", each, "FormerBucketFound", space)
        bind(bed, each, buckets[each], space)
        bed.until_ready("bucketclaims", [each], space)
        bed.until_quiet()
    bed.delete("bucketaccesses", theirs, evil)
    bed.until_gone("bucketaccesses", [theirs], evil)
    assert account not in revoked(bed.driver)[before:]


@pytest.mark.attack(
    "a restore without status; the old Bucket's record names the accounts to revoke"
)
def test_the_record_of_a_restored_bucket_names_the_old_accounts(bed: Testbed, name: str) -> None:
    """The page prints the record before it binds the Bucket, which starts a new record."""
    account = granted(bed, name)["status"]["accountID"]
    bucket = bed.bucket_of(name)["metadata"]["name"]
    lose_and_restore(bed, {name: "team"})
    for role in ("controller", "sidecar"):
        bed.start_process(role)
    bed.until_leading()
    bed.until_reason("bucketclaims", name, "FormerBucketFound")
    printed = run_page(bed, "After a restore: use the old bucket", claim=name, bucket=bucket)
    assert account in printed
    told = bed.until_event(bucket, "BackendUnverified", namespace="default")
    assert f"{account} (team/{name})" in told
    bed.until_ready("bucketaccesses", [name])
    bed.until_quiet()
    assert account in accounts(bed)
    assert account not in revoked(bed.driver)


@pytest.mark.attack(
    "a drill on the same storage, with Buckets and status, is thrown away; the keys stay"
)
def test_a_drill_with_buckets_and_status_revokes_nothing(bed: Testbed, name: str) -> None:
    """Nothing in the drill's cluster shows whether the first cluster still uses the accounts."""
    account = granted(bed, name)["status"]["accountID"]
    bucket = bed.bucket_of(name)["metadata"]["name"]
    had = lose_and_restore(bed, {name: "team"})
    write_status(bed, "bucketaccesses", name, "team", had[name])
    for role in ("controller", "sidecar"):
        bed.start_process(role)
    bed.until_leading()
    bed.until_reason("bucketclaims", name, "FormerBucketFound")
    bind(bed, name, bucket)

    def has_its_own() -> bool:
        status = bed.get("bucketaccesses", name)["status"]
        return bool(status.get("accessGranted")) and status.get("accountID") not in (None, account)

    bed.until("the restored access has an account of its own", has_its_own)
    bed.delete("bucketaccesses", name)
    bed.until_gone("bucketaccesses", [name])
    assert account in accounts(bed)
    assert account not in revoked(bed.driver)


@pytest.mark.attack(
    "a tenant removes its claim by force; its keys stay, and its bucket is bound to another tenant"
)
def test_a_dynamic_bucket_with_keys_of_another_tenant_is_bound_to_nobody(
    bed: Testbed, name: str
) -> None:
    account = granted(bed, name)["status"]["accountID"]
    bucket = bed.bucket_of(name)["metadata"]["name"]
    other = bed.make_namespace(f"{name}-other")
    bed.processes["controller"].stop(grace_s=10)
    bed.edit("bucketclaims", name, lambda body: body["metadata"].pop("finalizers"))
    bed.delete("bucketclaims", name)
    bed.start_process("controller")
    bed.until_leading("controller")
    told = bed.until_reason("buckets", bucket, "Released")
    assert f"because their keys work: team/{name}." in told["message"]

    bed.create("bucketclaims", claim_body("next", existing=bucket, namespace=other), other)
    uid = bed.get("bucketclaims", "next", other)["metadata"]["uid"]
    patch = json.dumps({"spec": {"bucketClaim": {"namespace": other, "name": "next", "uid": uid}}})
    bed.plane.run_kubectl("patch", "bucket", bucket, "--type", "merge", "-p", patch)
    bed.until_reason("bucketclaims", "next", "BucketAlreadyBound", other)
    bed.until_quiet()
    assert not bed.get("bucketclaims", "next", other)["status"].get("bucketReady")
    bed.delete("bucketaccesses", name)
    bed.until_gone("bucketaccesses", [name])
    bed.until_ready("bucketclaims", ["next"], other)
    assert account not in accounts(bed)
    assert condition(bed.get("buckets", bucket))["status"] == "True"
