"""Claims and accesses that vanish by force: who is told, and what the driver is sent."""

import subprocess

import pytest
from tests.attacks.test_bindings import accounts, revoked
from tests.attacks.test_tenants import granted, lives

from cosi_operator.api.record import RECORD_ANNOTATION
from cosi_operator.outcome import Call
from testbed import Testbed, claim_body
from testbed.objects import Json, condition


def strip(bed: Testbed, plural: str, name: str, space: str = "team") -> None:
    bed.edit(plural, name, lambda body: body["metadata"].pop("finalizers", None), space)


def lose_claim(bed: Testbed, name: str) -> None:
    """Remove a claim by force, with the controller away."""
    bed.processes["controller"].stop(grace_s=10)
    strip(bed, "bucketclaims", name)
    bed.delete("bucketclaims", name)
    bed.until_gone("bucketclaims", [name])
    bed.start_process("controller")
    bed.until_leading("controller")


def start_empty(bed: Testbed, name: str) -> None:
    """Create the claim again, with a new bucket, by the command in its condition."""
    bed.make_claims([name], class_name=name)
    message = bed.until_reason("bucketclaims", name, "FormerBucketFound")["message"]
    shell(bed, message[message.index("kubectl annotate") :])
    bed.until_ready("bucketclaims", [name])


def shell(bed: Testbed, command: str) -> str:
    """Run a printed kubectl command."""
    return bed.plane.run_kubectl(*_words(command))


def _words(command: str) -> list[str]:
    done = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {command}"], check=True, capture_output=True, text=True
    )
    return done.stdout.splitlines()[1:]


def record_of(bed: Testbed, bucket: str) -> str:
    return str(bed.get("buckets", bucket)["metadata"]["annotations"][RECORD_ANNOTATION])


@pytest.mark.attack("a claim is lost and created again; its access has keys of the old bucket")
def test_an_access_of_the_claim_before_says_so(bed: Testbed, name: str) -> None:
    granted(bed, name)
    old = bed.bucket_of(name)["metadata"]["name"]
    lose_claim(bed, name)
    start_empty(bed, name)
    assert bed.bucket_of(name)["metadata"]["name"] != old

    def told() -> Json:
        return condition(bed.get("bucketaccesses", name), "SpecChangeIgnored")

    bed.until("the access to say it", lambda: old in told().get("message", ""))


@pytest.mark.attack("a claim is lost and created again while its access waits for the driver")
def test_a_pending_access_of_the_claim_before_says_so(bed: Testbed, name: str) -> None:
    bed.make_classes(name, parameters={"case": name})
    bed.make_claims([name], class_name=name)
    bed.until_ready("bucketclaims", [name])
    bed.driver.set_rule(Call.GRANT_ACCESS, match={"parameters.case": name}, code="INTERNAL")
    bed.make_accesses([name], class_name=name)
    bed.until_reason("bucketaccesses", name, "DriverInternal")
    old = bed.bucket_of(name)["metadata"]["name"]
    lose_claim(bed, name)
    start_empty(bed, name)
    bed.driver.clear_rules()
    bed.annotate("bucketaccesses", name, retry="now")
    told = bed.until_reason("bucketaccesses", name, "BucketClaimNotFound")["message"]
    assert "earlier BucketClaim" in told
    assert old in told


@pytest.mark.attack("an access is removed by force and its Revoke is refused; its keys work")
def test_a_refused_revoke_of_a_removed_access_is_told(bed: Testbed, name: str) -> None:
    access = granted(bed, name)
    account = access["status"]["accountID"]
    refusal = {"code": "PERMISSION_DENIED", "message": f"words-{name}"}
    bed.driver.set_rule(Call.REVOKE_ACCESS, match={"account_id": account}, **refusal)
    strip(bed, "bucketaccesses", name)
    bed.delete("bucketaccesses", name)
    for told, namespace in ((bed.bucket_of(name)["metadata"]["name"], "default"), (name, "team")):
        message = bed.until_event(told, "FailedRevokeAccess", namespace=namespace)
        uid = access["metadata"]["uid"]
        assert message.startswith(f"BucketAccess team/{name} ({uid}) was removed by force. ")
        assert f"words-{name}" in message
    assert lives(bed, access)
    bed.delete("bucketclaims", name)
    waits = bed.until_reason("bucketclaims", name, "WaitingForBucketAccesses")["message"]
    assert waits.endswith(f"team/{name} (removed by force). The Events say why.")
    bed.driver.clear_rules()
    bed.restart("sidecar")
    bed.until_gone("bucketclaims", [name])
    assert account not in accounts(bed)


@pytest.mark.attack("an access is removed by force; its account can't be known")
@pytest.mark.parametrize("how", ["refused", "given up"])
def test_what_a_removed_access_leaves_is_told(bed: Testbed, name: str, how: str) -> None:
    bed.make_classes(name, parameters={"case": name})
    bed.make_claims([name], class_name=name)
    bed.until_ready("bucketclaims", [name])
    bucket = bed.bucket_of(name)["metadata"]["name"]
    match = {"parameters.case": name}
    bed.driver.set_rule(Call.GRANT_ACCESS, match=match, code="INTERNAL", act=True)
    bed.make_accesses([name], class_name=name)
    bed.until_reason("bucketaccesses", name, "DriverInternal")
    uid = bed.get("bucketaccesses", name)["metadata"]["uid"]
    if how == "refused":
        bed.driver.clear_rules()
        bed.driver.set_rule(Call.GRANT_ACCESS, match=match, code="PERMISSION_DENIED")
    bed.processes["sidecar"].stop(grace_s=10)
    strip(bed, "bucketaccesses", name)
    bed.delete("bucketaccesses", name)
    if how == "given up":
        bed.annotate("buckets", bucket, **{"give-up": uid})
    bed.start_process("sidecar")
    bed.until_leading("sidecar")
    bed.until("the entry to end", lambda: uid not in record_of(bed, bucket), timeout_s=60)
    assert uid in bed.until_event(bucket, "BackendUnverified", namespace="default")


@pytest.mark.attack("an access is removed by force; its Revoke has the parameters of its class")
def test_the_revoke_of_a_removed_access_has_its_parameters(bed: Testbed, name: str) -> None:
    """Some drivers find their backend by them."""
    bed.make_classes(name, parameters={"endpoint": f"backend-of-{name}"})
    bed.make_claims([name], class_name=name)
    bed.make_accesses([name], class_name=name)
    bed.until_ready("bucketaccesses", [name])
    account = bed.get("bucketaccesses", name)["status"]["accountID"]
    strip(bed, "bucketaccesses", name)
    bed.delete("bucketaccesses", name)
    bed.until("the Revoke", lambda: account in revoked(bed.driver))
    sent = [e.fields for e in bed.driver.journal(Call.REVOKE_ACCESS)]
    (fields,) = [each for each in sent if each["account_id"] == account]
    assert f"backend-of-{name}" in str(fields)


@pytest.mark.attack("an older Bucket is applied after a rotation while the sidecar is away")
def test_an_account_that_an_older_record_lacks_is_told(bed: Testbed, name: str) -> None:
    bed.make_classes(name, parameters={"case": name})
    match = {"parameters.case": name}
    bed.driver.set_rule(Call.GRANT_ACCESS, match=match, reply="new_account")
    bed.make_claims([name], class_name=name)
    bed.make_accesses([name], class_name=name)
    bed.until_ready("bucketaccesses", [name])
    bucket = bed.bucket_of(name)["metadata"]["name"]
    older, first = record_of(bed, bucket), bed.get("bucketaccesses", name)["status"]["accountID"]
    bed.annotate("bucketaccesses", name, rotate="1")
    bed.until("the rotation", lambda: first not in accounts(bed))
    assert bed.until_event(name, "AccessRevoked") == "An earlier account was revoked."
    bed.until_quiet()
    second = bed.get("bucketaccesses", name)["status"]["accountID"]
    bed.processes["sidecar"].stop(grace_s=10)
    bed.edit(
        "buckets", bucket, lambda b: b["metadata"]["annotations"].update({RECORD_ANNOTATION: older})
    )
    bed.start_process("sidecar")
    bed.until_leading("sidecar")
    bed.until_quiet()
    bed.delete("bucketaccesses", name)
    bed.until_gone("bucketaccesses", [name])
    assert second in bed.until_event(name, "BackendUnverified")


@pytest.mark.attack("a driver says ALREADY_EXISTS to a Grant whose reply was lost")
def test_an_account_whose_id_was_never_returned_is_told(bed: Testbed, name: str) -> None:
    bed.make_classes(name, parameters={"case": name})
    bed.make_claims([name], class_name=name)
    bed.until_ready("bucketclaims", [name])
    match = {"parameters.case": name}
    bed.driver.set_rule(Call.GRANT_ACCESS, match=match, die="after")
    bed.make_accesses([name], class_name=name)
    bed.driver.wait_until_dead()
    bed.driver.run()
    bed.driver.set_rule(Call.GRANT_ACCESS, match=match, code="ALREADY_EXISTS")
    bed.until_reason("bucketaccesses", name, "DriverReturnedNoCredentials")
    access = bed.get("bucketaccesses", name)
    bed.delete("bucketaccesses", name)
    bed.until_gone("bucketaccesses", [name])
    assert lives(bed, access)
    assert access["metadata"]["uid"] in bed.until_event(name, "BackendUnverified")


@pytest.mark.attack("keys of the Go pair, whose claim is lost; another tenant gets the Bucket")
def test_former_keys_of_another_tenant_keep_the_bucket(bed: Testbed, name: str) -> None:
    granted(bed, name)
    evil, team = bed.make_namespace(f"{name}-evil"), bed.make_namespace(f"{name}-team")
    bucket = f"{name}-old"
    spec: Json = {
        "bucketClaim": {},
        "bucketClassName": name,
        "deletionPolicy": "Retain",
        "driverName": bed.driver.name,
        "existingBucketID": bed.bucket_of(name)["status"]["bucketID"],
        "protocols": ["S3"],
    }
    bed.create("buckets", {"metadata": {"name": bucket}, "spec": spec})
    bed.create("bucketclaims", claim_body("x", existing=bucket, namespace=evil), evil)
    bed.until_ready("bucketclaims", ["x"], evil)
    bed.make_accesses(["x"], class_name=name, namespace=evil)
    bed.until_ready("bucketaccesses", ["x"], evil)
    for role in ("sidecar", "controller"):
        bed.processes[role].stop(grace_s=10)
    # As after a rollback: docs/migrate.md, "Come back after a rollback".
    bed.edit("buckets", bucket, lambda b: b["metadata"]["annotations"].pop(RECORD_ANNOTATION))
    strip(bed, "bucketclaims", "x", evil)
    bed.delete("bucketclaims", "x", evil)
    for role in ("controller", "sidecar"):
        bed.start_process(role)
    bed.until_leading()
    message = bed.until_reason("buckets", bucket, "Released")["message"]
    assert f"because their keys work: {evil}/x" in message
    shell(bed, message[message.index("kubectl patch") :])
    bed.create("bucketclaims", claim_body("next", existing=bucket, namespace=team), team)
    bed.until_reason("bucketclaims", "next", "BucketAlreadyBound", team)
