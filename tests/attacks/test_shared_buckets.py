"""Several Buckets lead to one bucket on the backend: its data goes only with the last of them."""

import pytest
from tests.attacks.test_bindings import static_bucket
from tests.attacks.test_copies import copied

from testbed import Testbed, claim_body
from testbed.objects import condition


def backend_ids(bed: Testbed) -> set[str]:
    return {bucket.bucket_id for bucket in bed.driver.buckets()}


def ready_bucket_id(bed: Testbed, name: str) -> str:
    """The id of the bucket of a new claim."""
    bed.make_classes(name)
    bed.make_claims([name], class_name=name)
    bed.until_ready("bucketclaims", [name])
    return str(bed.bucket_of(name)["status"]["bucketID"])


@pytest.mark.attack("a Bucket waits for its live claim; another Bucket with its id is deleted")
def test_a_bucket_that_waits_for_its_claim_keeps_the_data(bed: Testbed, name: str) -> None:
    bed.make_classes(name)
    for number in range(4):  # which of the two UIDs is the smaller one is chance
        one, two = f"{name}-{number}", f"{name}-{number}-s"
        bed.make_claims([one], class_name=name)
        bed.until_ready("bucketclaims", [one])
        bucket_id = bed.bucket_of(one)["status"]["bucketID"]
        shared = static_bucket(two, bucket_id=bucket_id, class_name=name, claim={})
        shared["spec"]["deletionPolicy"] = "Delete"
        bed.create("buckets", shared)
        bed.create("bucketclaims", claim_body(two, existing=two))
        bed.until_ready("bucketclaims", [two])
        bed.delete("buckets", two)
        bed.until_reason("buckets", two, "BucketInUse")
        bed.delete("bucketclaims", one)
        bed.until_gone("bucketclaims", [one])
        bed.until_quiet()
        assert condition(bed.get("buckets", two))["reason"] == "BucketInUse"
        assert bucket_id in backend_ids(bed)


@pytest.mark.attack("a static Bucket with another's id is made while the sidecar is away")
def test_a_bucket_that_was_never_ready_keeps_the_data(bed: Testbed, name: str) -> None:
    bucket_id = ready_bucket_id(bed, name)
    static = f"{name}-s"
    bed.processes["sidecar"].stop(grace_s=10)
    bed.create("buckets", static_bucket(static, bucket_id=bucket_id, class_name=name, claim={}))
    bed.create("bucketclaims", claim_body(static, existing=static))
    bed.until("bound", lambda: bed.get("buckets", static)["spec"]["bucketClaim"].get("uid"))
    bed.delete("bucketclaims", name)
    bed.start_process("sidecar")
    bed.until_leading("sidecar")
    bed.until_gone("bucketclaims", [name])
    bed.until_ready("bucketclaims", [static])
    bed.until_quiet()
    assert bucket_id in backend_ids(bed)


@pytest.mark.attack("a static Bucket is copied for a later claim; the original is deleted")
def test_a_copy_that_waits_for_a_claim_keeps_the_data(bed: Testbed, name: str) -> None:
    bucket_id = ready_bucket_id(bed, f"{name}-d")
    dynamic = bed.bucket_of(f"{name}-d")["metadata"]["name"]
    bed.edit("buckets", dynamic, lambda b: b["spec"].update(deletionPolicy="Retain"))
    bed.delete("bucketclaims", f"{name}-d")
    bed.until_gone("bucketclaims", [f"{name}-d"])
    told = bed.until_event(dynamic, "BucketRetained", namespace="default")
    assert told == f"The bucket {bucket_id} was kept, because deletionPolicy is Retain."
    old = static_bucket(f"{name}-old", bucket_id=bucket_id, class_name=name, claim={})
    old["spec"]["deletionPolicy"] = "Delete"
    bed.create("buckets", old)
    bed.create("bucketclaims", claim_body(name, existing=f"{name}-old"))
    bed.until_ready("bucketclaims", [name])
    body, _ = copied(bed.get("buckets", f"{name}-old"), name=f"{name}-new")
    body["spec"] = {**body["spec"], "bucketClaim": {}, "deletionPolicy": "Retain"}
    body["metadata"].pop("finalizers", None)
    bed.create("buckets", body)
    bed.until_reason("buckets", f"{name}-new", "WaitingForBucketClaim")
    bed.delete("bucketclaims", name)
    bed.until_gone("bucketclaims", [name])
    bed.until_quiet()
    assert bucket_id in backend_ids(bed)
