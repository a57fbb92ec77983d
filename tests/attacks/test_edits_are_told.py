"""Edits that are not followed, and deletions that others hold up: the status says what is so."""

import pytest
from tests.attacks.test_bindings import static_bucket
from tests.attacks.test_copies import copied
from tests.attacks.test_removed_by_force import lose_claim, shell, strip
from tests.attacks.test_shared_buckets import backend_ids
from tests.attacks.test_tenants import granted, lives

from cosi_operator.outcome import Call
from testbed import Testbed, claim_body
from testbed.objects import Json, condition


@pytest.mark.attack("the Secret of an access is made immutable, then its keys are rotated")
@pytest.mark.parametrize("reply", ["new_account", "new_keys"])
def test_a_rotation_into_an_immutable_secret_calls_nobody(
    bed: Testbed, name: str, reply: str
) -> None:
    bed.make_classes(name, parameters={"case": name})
    bed.driver.set_rule(Call.GRANT_ACCESS, match={"parameters.case": name}, reply=reply)
    bed.make_claims([name], class_name=name)
    bed.make_accesses([name], class_name=name)
    bed.until_ready("bucketaccesses", [name])
    bed.edit("secrets", f"{name}-keys", lambda body: body.update(immutable=True))
    before = len(bed.driver.journal(Call.GRANT_ACCESS))
    bed.annotate("bucketaccesses", name, rotate="1")
    told = bed.until_reason("bucketaccesses", name, "SecretRefused")["message"]
    assert f"Secret team/{name}-keys is immutable" in told
    bed.until_quiet()
    assert len(bed.driver.journal(Call.GRANT_ACCESS)) == before
    assert bed.get("bucketaccesses", name)["status"]["accessGranted"]
    strip(bed, "secrets", f"{name}-keys")
    bed.delete("secrets", f"{name}-keys")
    bed.annotate("bucketaccesses", name, retry="1")
    bed.until_reason("bucketaccesses", name, "Granted")
    assert lives(bed, bed.get("bucketaccesses", name))


@pytest.mark.attack("existingBucketID of a static Bucket in use is changed")
def test_another_bucket_id_is_ignored_and_told(bed: Testbed, name: str) -> None:
    bed.make_classes(name)
    bucket = f"{name}-old"
    static = static_bucket(bucket, bucket_id=f"{name}-one", class_name=name, claim={})
    bed.create("buckets", static)
    bed.create("bucketclaims", claim_body(name, existing=bucket))
    bed.until_ready("bucketclaims", [name])
    bed.edit("buckets", bucket, lambda b: b["spec"].update(existingBucketID=f"{name}-two"))

    def told() -> str:
        found = condition(bed.get("buckets", bucket), "SpecChangeIgnored")
        return str(found.get("message", ""))

    bed.until("the Bucket to say it", lambda: f"changed to {name}-two and is ignored" in told())
    assert bed.get("buckets", bucket)["status"]["bucketID"] == f"{name}-one"


@pytest.mark.attack("a foreign finalizer keeps a deleted claim, or a deleted Bucket")
@pytest.mark.parametrize("plural", ["bucketclaims", "buckets"])
def test_what_a_foreign_finalizer_keeps_is_not_ready(bed: Testbed, name: str, plural: str) -> None:
    bed.make_classes(name)
    bed.make_claims([name], class_name=name)
    bed.until_ready("bucketclaims", [name])
    found = bed.bucket_of(name)
    held = name if plural == "bucketclaims" else found["metadata"]["name"]
    bed.edit(plural, held, lambda b: b["metadata"]["finalizers"].append("example.com/mine"))
    bed.delete("bucketclaims", name)
    bed.until("the bucket's end", lambda: found["status"]["bucketID"] not in backend_ids(bed))
    told = bed.until_reason(plural, held, "BeingDeleted")["message"]
    assert told.endswith("when its last finalizers are removed: example.com/mine.")
    assert not bed.get(plural, held)["status"]["bucketReady"]
    strip(bed, plural, held)


@pytest.mark.attack(
    "a class is created anew for another driver; its parameters stay away from ours"
)
@pytest.mark.parametrize("kind", ["bucketclasses", "bucketaccessclasses"])
def test_parameters_of_another_driver_are_sent_to_nobody(
    bed: Testbed, name: str, kind: str
) -> None:
    secret = f"secret-of-other-{name}"
    other: Json = {
        "metadata": {"name": name},
        "driverName": "other.example.com",
        "parameters": {"theirs": secret},
    }
    if kind == "bucketaccesses" or kind == "bucketaccessclasses":
        access = granted(bed, name)
        bed.delete(kind, name)
        bed.create(kind, {**other, "authenticationType": "Key"})
        bed.until_quiet()
        bed.delete("bucketaccesses", name)
        bed.until_gone("bucketaccesses", [name])
        assert not lives(bed, access)
    else:
        bed.make_classes(name, parameters={"case": name})
        bed.driver.set_rule(Call.CREATE_BUCKET, match={"parameters.case": name}, code="INTERNAL")
        bed.make_claims([name], class_name=name)
        bed.until_reason("bucketclaims", name, "DriverInternal")
        bed.delete(kind, name)
        bed.create(kind, {**other, "deletionPolicy": "Delete"})
        calls = len(bed.driver.journal(Call.CREATE_BUCKET))
        bed.annotate("bucketclaims", name, retry="1")
        bed.until("one more call", lambda: len(bed.driver.journal(Call.CREATE_BUCKET)) > calls)
    assert secret not in str([entry.fields for entry in bed.driver.journal()])


@pytest.mark.attack("a claim is restored with its new-bucket annotation; two former Buckets stand")
def test_the_commands_of_a_restored_claim_work(bed: Testbed, name: str) -> None:
    bed.make_classes(name)
    bed.make_claims([name], class_name=name)
    bed.until_ready("bucketclaims", [name])
    first = bed.bucket_of(name)["metadata"]["name"]
    uid = bed.get("bucketclaims", name)["metadata"]["uid"]
    bed.annotate("bucketclaims", name, **{"new-bucket": uid})
    body, _ = copied(bed.get("bucketclaims", name), "team")
    body["metadata"].pop("finalizers")
    lose_claim(bed, name)
    gone = {"namespace": "team", "name": name, "uid": f"gone-{name}"}
    second = static_bucket(f"{name}-old", bucket_id=f"{name}-id", class_name=name, claim=gone)
    bed.create("buckets", second)
    bed.until_reason("buckets", f"{name}-old", "Released")
    bed.create("bucketclaims", body)
    message = bed.until_reason("bucketclaims", name, "FormerBucketFound")["message"]
    assert first in message
    assert f"{name}-old" in message
    shell(bed, message[message.index("kubectl annotate") :])
    bed.until_ready("bucketclaims", [name])


@pytest.mark.attack("a released static Bucket, and a dynamic claim of its old name")
def test_the_patch_of_a_released_bucket_works(bed: Testbed, name: str) -> None:
    bed.make_classes(name)
    bucket = f"{name}-old"
    static = static_bucket(bucket, bucket_id=f"{name}-id", class_name=name, claim={})
    bed.create("buckets", static)
    bed.create("bucketclaims", claim_body(name, existing=bucket))
    bed.until_ready("bucketclaims", [name])
    bed.delete("bucketclaims", name)
    bed.until_gone("bucketclaims", [name])
    message = bed.until_reason("buckets", bucket, "Released")["message"]
    shell(bed, message[message.index("kubectl patch") :])
    bed.make_claims([name], class_name=name)
    message = bed.until_reason("bucketclaims", name, "FormerBucketFound")["message"]
    shell(bed, message[message.index("kubectl patch") : message.index("}}'") + 3])
    bed.until_ready("bucketclaims", [name])
    assert bed.get("bucketclaims", name)["status"]["bucketName"] == bucket


@pytest.mark.attack(
    "a Bucket is restored with its force-delete annotation, and waits for its access"
)
def test_the_commands_of_a_deleted_bucket_work(bed: Testbed, name: str) -> None:
    access = granted(bed, name)
    account = access["status"]["accountID"]
    bucket = bed.bucket_of(name)["metadata"]["name"]
    bed.annotate("buckets", bucket, **{"force-delete": "an-old-uid"})
    bed.driver.set_rule(Call.REVOKE_ACCESS, match={"account_id": account}, code="INTERNAL")
    bed.delete("buckets", bucket)
    message = bed.until_reason("buckets", bucket, "BucketInUse")["message"]
    shell(bed, message[message.index("kubectl annotate") :])
    message = bed.until_reason("buckets", bucket, "WaitingForBucketAccesses")["message"]
    assert account in shell(bed, message[message.index("kubectl describe") :])
    bed.driver.clear_rules()
    bed.annotate("bucketaccesses", name, retry="1")
    bed.until_gone("buckets", [bucket])
