"""Several claims want one static Bucket: it has one owner at a time, whoever writes when."""

import pytest
from tests.attacks.test_bindings import accounts, revoked, static_bucket
from tests.attacks.test_removed_by_force import lose_claim, shell, strip
from tests.attacks.test_shared_buckets import ready_bucket_id
from tests.attacks.test_tenants import lives

from cosi_operator.outcome import Call
from testbed import Testbed, access_body, claim_body
from testbed.bulk import send_all
from testbed.objects import Json, condition, path_of, typed


@pytest.mark.attack("claims of many namespaces race for one static Bucket; the first keeps it")
def test_the_first_claim_that_binds_a_bucket_keeps_it(bed: Testbed, name: str) -> None:
    bucket_id = ready_bucket_id(bed, name)
    spaces = [bed.make_namespace(f"{name}-n{number}") for number in range(12)]
    for number in range(3):
        bucket = f"{name}-{number}"
        bed.create("buckets", static_bucket(bucket, bucket_id=bucket_id, class_name=name, claim={}))
        claims = {s: claim_body(bucket, existing=bucket, namespace=s) for s in spaces}
        send_all(
            bed.plane,
            [
                ("POST", path_of("bucketclaims", space), typed("bucketclaims", body))
                for space, body in claims.items()
            ],
        )
        bed.until(
            "each claim to say something",
            lambda b=bucket: all(condition(bed.get("bucketclaims", b, s)) for s in spaces),  # type: ignore[misc]  # a lambda's default
        )
        bed.until_quiet()
        ready = [s for s in spaces if bed.get("bucketclaims", bucket, s)["status"]["bucketReady"]]
        ever = [s for s in spaces if "BucketReady" in [e["reason"] for e in bed.events(bucket, s)]]
        assert len(ready) == 1
        assert ever in (ready, [])


@pytest.mark.attack(
    "kubectl replace removes claim and record of a static Bucket; its claim keeps it"
)
@pytest.mark.parametrize("sidecar", ["at work", "away"])
def test_a_replaced_bucket_stays_with_its_claim(bed: Testbed, name: str, sidecar: str) -> None:
    bucket_id = ready_bucket_id(bed, name)
    evil, bucket, owner = bed.make_namespace(f"{name}-evil"), f"{name}-old", f"{name}-v"
    manifest = static_bucket(bucket, bucket_id=bucket_id, class_name=name, claim={})
    bed.create("buckets", manifest)
    bed.create("bucketclaims", claim_body(owner, existing=bucket))
    bed.until_ready("bucketclaims", [owner])
    bed.make_accesses([owner], class_name=name)
    bed.until_ready("bucketaccesses", [owner])
    victim = bed.get("bucketaccesses", owner)
    thieves = [f"x{number}" for number in range(3)]
    for each in thieves:
        bed.create("bucketclaims", claim_body(each, existing=bucket, namespace=evil), evil)
        bed.create("bucketaccesses", access_body(each, class_name=name, namespace=evil), evil)
    bed.until_reason("bucketclaims", thieves[-1], "BucketAlreadyBound", evil)
    if sidecar == "away":
        bed.processes["sidecar"].stop(grace_s=10)

    def replaced(body: Json) -> None:
        body["spec"] = dict(manifest["spec"])
        body["metadata"].pop("annotations", None)
        body["metadata"].pop("finalizers", None)

    for _ in range(1 if sidecar == "away" else 4):
        bed.edit("buckets", bucket, replaced)
        bed.until("bound", lambda: bed.get("buckets", bucket)["spec"]["bucketClaim"].get("uid"))
        bed.until_quiet(0.5)
    if sidecar == "away":
        bed.start_process("sidecar")
        bed.until_leading("sidecar")
    bed.until_quiet()
    owned = bed.get("bucketclaims", owner)["metadata"]["uid"]
    assert bed.get("buckets", bucket)["spec"]["bucketClaim"]["uid"] == owned
    for each in thieves:
        assert not bed.get("bucketaccesses", each, evil).get("status", {}).get("accessGranted")
    assert lives(bed, victim)
    bed.until_ready("bucketclaims", [owner])


@pytest.mark.attack("a namespace is created again for another tenant; old keys reach its Bucket")
def test_a_bucket_with_keys_of_a_removed_access_is_bound_to_nobody(bed: Testbed, name: str) -> None:
    bucket_id, bucket, claim = ready_bucket_id(bed, f"{name}-d"), f"{name}-old", name
    bed.make_classes(name)
    bed.create("buckets", static_bucket(bucket, bucket_id=bucket_id, class_name=name, claim={}))
    bed.create("bucketclaims", claim_body(claim, existing=bucket))
    bed.until_ready("bucketclaims", [claim])
    bed.make_accesses([claim], class_name=name)
    bed.until_ready("bucketaccesses", [claim])
    account = bed.get("bucketaccesses", claim)["status"]["accountID"]
    refusal = {"code": "PERMISSION_DENIED"}
    bed.driver.set_rule(Call.REVOKE_ACCESS, match={"account_id": account}, **refusal)
    lose_claim(bed, claim)
    strip(bed, "bucketaccesses", claim)
    bed.delete("bucketaccesses", claim)
    bed.until("the Revoke to be refused", lambda: account in revoked(bed.driver))
    message = bed.until_reason("buckets", bucket, "Released")["message"]
    shell(bed, message[message.index("kubectl patch") :])
    bed.create("bucketclaims", claim_body("next", existing=bucket))
    bed.until_reason("bucketclaims", "next", "BucketAlreadyBound")
    bed.driver.clear_rules()
    bed.restart("sidecar")
    bed.until_ready("bucketclaims", ["next"])
    assert account not in accounts(bed)
