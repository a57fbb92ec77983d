"""What a tenant may write never decides what a driver is told about somebody else."""

import pytest

from controlplane.api import ApiError
from cosi_operator.api.record import RECORD_ANNOTATION, decode_record
from cosi_operator.outcome import Call
from testbed import Testbed, access_body, claim_body
from testbed.bed import DRIVER_NAME
from testbed.objects import Json, path_of

STATUS = "/status"


def granted(bed: Testbed, name: str, namespace: str = "team") -> Json:
    """A class, a claim and a granted access of one name."""
    if bed.find("bucketclasses", name) is None:
        bed.make_classes(name)
    bed.make_claims([name], class_name=name, namespace=namespace)
    bed.make_accesses([name], class_name=name, namespace=namespace)
    bed.until_ready("bucketaccesses", [name], namespace=namespace)
    return bed.get("bucketaccesses", name, namespace)


def write_status(bed: Testbed, plural: str, name: str, namespace: str, status: Json) -> None:
    """PUT /status, as a tenant with `resources: ["*"]` can."""

    while True:
        body = bed.get(plural, name, namespace)
        body["status"] = status
        try:
            bed.plane.api.call("PUT", path_of(plural, namespace, name) + STATUS, body)
            return
        except ApiError as error:
            if error.reason != "Conflict":
                raise


def account_of(access: Json) -> str:
    return f"ba-{access['metadata']['uid']}"


def lives(bed: Testbed, access: Json) -> bool:
    return any(found.name == account_of(access) for found in bed.driver.accounts())


@pytest.mark.attack("a forged Secret and annotations name a victim's account; it is not revoked")
def test_forged_secret_and_annotations(bed: Testbed, name: str) -> None:
    victim = granted(bed, name)
    space = bed.make_namespace(f"{name}-evil")
    forged = {
        "cosi.objectstorage.k8s.io/account-id": victim["status"]["accountID"],
        "cosi.objectstorage.k8s.io/driver": DRIVER_NAME,
        "cosi.objectstorage.k8s.io/bucket-id": bed.bucket_of(name)["status"]["bucketID"],
    }
    body = access_body("x", class_name=name, claim="x", secret="x-keys", namespace=space)
    body["metadata"]["annotations"] = forged
    access = bed.create("bucketaccesses", body, space)
    info = f'{{"metadata":{{"name":"bc-{access["metadata"]["uid"]}"}}}}'
    bed.create(
        "secrets",
        {"metadata": {"name": "x-keys", "annotations": forged}, "stringData": {"BucketInfo": info}},
        space,
    )
    bed.create("bucketclaims", claim_body("x", class_name=name, namespace=space), space)
    bed.until_ready("bucketaccesses", ["x"], namespace=space)
    bed.delete("bucketaccesses", "x", space)
    bed.until_gone("bucketaccesses", ["x"], namespace=space)
    assert lives(bed, victim)
    revoked = [e.fields["account_id"] for e in bed.driver.journal(Call.REVOKE_ACCESS)]
    assert victim["status"]["accountID"] not in revoked


@pytest.mark.attack("a forged status names a victim's account and Bucket; nothing of it is called")
def test_forged_status_of_access_and_claim(bed: Testbed, name: str) -> None:
    victim = granted(bed, name)
    bucket = bed.bucket_of(name)
    space = bed.make_namespace(f"{name}-evil")
    bed.create("bucketclaims", claim_body("x", class_name="absent", namespace=space), space)
    forged = {"bucketReady": True, "bucketName": bucket["metadata"]["name"]}
    write_status(bed, "bucketclaims", "x", space, forged)
    body = access_body("x", class_name=name, namespace=space)
    body["metadata"]["finalizers"] = ["cosi.objectstorage.k8s.io/bucketaccess-protection"]
    bed.create("bucketaccesses", body, space)
    stolen = {"accessGranted": True, "accountID": victim["status"]["accountID"]}
    write_status(bed, "bucketaccesses", "x", space, stolen)
    bed.until_quiet()
    bed.delete("bucketaccesses", "x", space)
    bed.until_gone("bucketaccesses", ["x"], namespace=space)
    bed.delete("bucketclaims", "x", space)
    bed.until_gone("bucketclaims", ["x"], namespace=space)
    assert lives(bed, victim)
    marks = bed.get("buckets", bucket["metadata"]["name"])["metadata"]["finalizers"]
    assert "cosi.objectstorage.k8s.io/bucketaccess-bucket-protection" in marks


@pytest.mark.attack("a reserved static Bucket without a UID; only the named claim binds it")
def test_a_reservation_is_no_binding(bed: Testbed, name: str) -> None:
    bed.make_classes(name)
    space = bed.make_namespace(f"{name}-evil")
    bed.create(
        "buckets",
        {
            "metadata": {"name": f"{name}-old"},
            "spec": {
                "bucketClaim": {"namespace": "team", "name": "later"},
                "bucketClassName": name,
                "driverName": DRIVER_NAME,
                "protocols": ["S3"],
                "existingBucketID": f"{name}-id",
                "deletionPolicy": "Retain",
            },
        },
    )
    bed.create("bucketclaims", claim_body("x", existing=f"{name}-old", namespace=space), space)
    bed.create("bucketaccesses", access_body("x", class_name=name, namespace=space), space)
    forged = {"bucketReady": True, "bucketName": f"{name}-old"}
    write_status(bed, "bucketclaims", "x", space, forged)
    bed.until_reason("bucketclaims", "x", "BucketAlreadyBound", namespace=space)
    bed.until_reason("bucketaccesses", "x", "WaitingForBucket", namespace=space)
    asked = [e.fields["bucket_id"] for e in bed.driver.journal(Call.GRANT_ACCESS)]
    assert f"{name}-id" not in asked


@pytest.mark.attack("a stripped finalizer; the account is revoked and the Secret deleted anyway")
def test_a_stripped_finalizer(bed: Testbed, name: str) -> None:
    access = granted(bed, name)
    bed.edit("bucketaccesses", name, lambda body: body["metadata"].pop("finalizers"))
    bed.delete("bucketaccesses", name)
    bed.until("the account is revoked", lambda: not lives(bed, access))
    bed.until("the Secret is gone", lambda: bed.find("secrets", f"{name}-keys") is None)
    bed.delete("bucketclaims", name)
    bed.until_gone("bucketclaims", [name])


@pytest.mark.attack("a finalizer is stripped while the driver is away; its return ends the keys")
def test_a_stripped_finalizer_while_the_driver_is_away(bed: Testbed, name: str) -> None:
    access = granted(bed, name)
    bed.driver.kill()
    bed.delete("bucketaccesses", name)
    bed.until_reason("bucketaccesses", name, "WaitingForDriver")
    bed.edit("bucketaccesses", name, lambda body: body["metadata"].pop("finalizers"))
    bed.until_gone("bucketaccesses", [name])
    bed.until_quiet()
    bed.driver.run()
    bed.until("the account is revoked", lambda: not lives(bed, access))
    bed.until("the Secret is gone", lambda: bed.find("secrets", f"{name}-keys") is None)


@pytest.mark.attack("a finalizer is stripped and Revoke is refused; an administrator ends it")
def test_a_stripped_finalizer_and_a_refused_revoke(bed: Testbed, name: str) -> None:
    access = granted(bed, name)
    bucket = bed.bucket_of(name)["metadata"]["name"]
    match = {"account_id": access["status"]["accountID"]}
    bed.driver.set_rule(Call.REVOKE_ACCESS, match=match, code="PERMISSION_DENIED")
    bed.edit("bucketaccesses", name, lambda body: body["metadata"].pop("finalizers"))
    bed.delete("bucketaccesses", name)
    bed.until("the Revoke is refused", lambda: bed.driver.journal(Call.REVOKE_ACCESS))
    bed.until_quiet()
    assert name in recorded_names(bed, bucket)
    give_up = f"objectstorage.k8s.io/give-up={access['metadata']['uid']}"
    bed.plane.run_kubectl("annotate", "bucket", bucket, give_up)
    bed.until("the record is empty", lambda: not recorded_names(bed, bucket))


def recorded_names(bed: Testbed, bucket: str) -> set[str]:
    """The names of the accesses in the record of a Bucket."""
    annotations = bed.get("buckets", bucket)["metadata"]["annotations"]
    record = decode_record(annotations[RECORD_ANNOTATION])
    assert record is not None
    return {entry.name for entry in record.accesses.values()}


@pytest.mark.attack("100 new values of the retry annotation; one call in 5 s")
def test_retries_are_rationed(bed: Testbed, name: str) -> None:
    bed.make_classes(name, parameters={"case": name})
    match = {"parameters.case": name}
    bed.driver.set_rule(Call.CREATE_BUCKET, match=match, code="INVALID_ARGUMENT")
    bed.make_claims([name], class_name=name)
    bed.until_reason("bucketclaims", name, "DriverInvalidArgument")
    for number in range(100):
        bed.annotate("bucketclaims", name, retry=str(number))
    bed.until_quiet()
    bucket = bed.bucket_of(name)["metadata"]["name"]
    asked = [e for e in bed.driver.journal(Call.CREATE_BUCKET) if e.fields["name"] == bucket]
    seconds = max(e.time_s for e in asked) - min(e.time_s for e in asked)
    assert len(asked) <= 2 + seconds / 5


@pytest.mark.attack("retry and rotate of an access change 60 times; one Grant in 5 s")
def test_retries_and_rotations_together_are_rationed(bed: Testbed, name: str) -> None:
    granted(bed, name)
    bed.until_quiet()
    uid = bed.get("bucketaccesses", name)["metadata"]["uid"]
    for number in range(60):
        bed.annotate("bucketaccesses", name, retry=str(number), rotate=str(number))

    def is_done() -> bool:
        bucket = bed.bucket_of(name)
        record = decode_record(bucket["metadata"]["annotations"][RECORD_ANNOTATION])
        return record is not None and record.accesses[uid].rotated == "59"

    bed.until("the last value is followed", is_done)
    bed.until_quiet()
    asked = [e for e in bed.driver.journal(Call.GRANT_ACCESS) if uid in str(e.fields["name"])]
    seconds = max(e.time_s for e in asked) - min(e.time_s for e in asked)
    assert len(asked) <= 3 + seconds / 5  # the first granted the access
    assert lives(bed, bed.get("bucketaccesses", name))
