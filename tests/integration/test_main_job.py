"""The main job on a real API server, under the chart's own roles, with a real driver process."""

import base64
import json
import time
from typing import Any

import pytest

from cosi_operator.outcome import Call
from testbed import NAMESPACE, Testbed, access_body, claim_body, condition, reasons

QUIET_S = 60.0
CLAIMS, REFUSED = 200, 100


def secret_text(bed: Testbed, secret: str) -> dict[str, str]:
    """The decoded values of a Secret of ours."""
    data = bed.get("secrets", secret)["data"]
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def test_a_claim_becomes_a_bucket_an_access_becomes_keys_and_both_go_without_a_trace(
    bed: Testbed, name: str
) -> None:
    bed.make_classes(name, parameters={"tier": "gold"})
    bed.make_claims([name], class_name=name)
    bed.make_accesses([name], class_name=name)
    bed.until_ready("bucketaccesses", [name])

    claim, bucket = bed.get("bucketclaims", name), bed.bucket_of(name)
    assert claim["status"]["bucketName"] == bucket["metadata"]["name"]
    assert bucket["status"]["bucketID"] == f"id-{bucket['metadata']['name']}"
    assert bucket["spec"]["parameters"] == {"tier": "gold"}
    access = bed.get("bucketaccesses", name)
    uid = access["metadata"]["uid"]
    assert access["status"]["accountID"] == f"acct-ba-{uid}"
    (account,) = [found for found in bed.driver.accounts() if found.name == f"ba-{uid}"]
    keys = secret_text(bed, f"{name}-keys")
    assert json.loads(keys.pop("BucketInfo")) == {
        "metadata": {"name": f"bc-{uid}", "creationTimestamp": None},
        "spec": {
            "bucketName": bucket["metadata"]["name"],
            "authenticationType": "Key",
            "secretS3": {
                "endpoint": "https://s3.example.com",
                "region": "us-east-1",
                "accessKeyID": account.access_key,
                "accessSecretKey": account.secret_key,
            },
            "secretAzure": None,
            "protocols": ["S3"],
        },
    }
    assert keys == {
        "COSI_PROTOCOL": "S3",
        "COSI_BUCKET_NAME": bucket["metadata"]["name"],
        "COSI_S3_BUCKET_ID": bucket["status"]["bucketID"],
        "COSI_S3_ENDPOINT": "https://s3.example.com",
        "COSI_S3_REGION": "us-east-1",
        "COSI_S3_ACCESS_KEY_ID": account.access_key,
        "COSI_S3_ACCESS_SECRET_KEY": account.secret_key,
        "AWS_ENDPOINT_URL": "https://s3.example.com",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": account.access_key,
        "AWS_SECRET_ACCESS_KEY": account.secret_key,
    }
    for body, reason in ((claim, "Provisioned"), (bucket, "Provisioned"), (access, "Granted")):
        assert reasons(body) == {"Ready": reason}
        assert condition(body)["observedGeneration"] == body["metadata"]["generation"]
    bed.until("the Events of both", lambda: {"BucketReady", "AccessGranted"} <= _reasons(bed, name))

    bed.delete("bucketaccesses", name)
    bed.until_gone("bucketaccesses", [name])
    assert bed.find("secrets", f"{name}-keys") is None
    bed.delete("bucketclaims", name)
    bed.until_gone("bucketclaims", [name])
    bed.until_gone("buckets", [bucket["metadata"]["name"]])
    assert not [b for b in bed.driver.buckets() if b.name == bucket["metadata"]["name"]]
    assert not [a for a in bed.driver.accounts() if a.name == f"ba-{uid}"]


def _reasons(bed: Testbed, name: str) -> set[str]:
    return {event["reason"] for event in bed.events(name)}


def test_deleting_the_claim_first_revokes_its_accesses_first(bed: Testbed, name: str) -> None:
    bed.make_classes(name)
    bed.make_claims([name], class_name=name)
    bed.make_accesses([name], class_name=name)
    bed.until_ready("bucketaccesses", [name])
    bucket = bed.bucket_of(name)["metadata"]["name"]
    uid = bed.get("bucketaccesses", name)["metadata"]["uid"]
    bed.delete("bucketclaims", name)
    bed.until_gone("bucketclaims", [name])
    bed.until_gone("buckets", [bucket])
    bed.until_gone("bucketaccesses", [name])
    order = [
        entry.call
        for entry in bed.driver.journal()
        if entry.fields.get("bucket_id") == f"id-{bucket}"
        and entry.call in (Call.REVOKE_ACCESS, Call.DELETE_BUCKET)
    ]
    assert order == [Call.REVOKE_ACCESS, Call.DELETE_BUCKET]
    assert bed.find("secrets", f"{name}-keys") is None
    assert not [a for a in bed.driver.accounts() if a.name == f"ba-{uid}"]


def test_extra_keys_that_were_turned_off_come_with_a_rotation_and_not_before(
    bed: Testbed, name: str
) -> None:
    bed.restart("sidecar", "--secret-extra-keys=false")
    bed.make_classes(name)
    bed.make_claims([name], class_name=name)
    bed.make_accesses([name], class_name=name)
    bed.until_ready("bucketaccesses", [name])
    stored = bed.get("secrets", f"{name}-keys")
    assert set(stored["data"]) == {"BucketInfo"}

    bed.restart("sidecar")
    bed.annotate("bucketaccesses", name, note="wakes it up")
    bed.until_quiet()
    assert bed.get("secrets", f"{name}-keys") == stored
    bed.annotate("bucketaccesses", name, rotate="1")
    bed.until(
        "the extra keys", lambda: "AWS_ACCESS_KEY_ID" in bed.get("secrets", f"{name}-keys")["data"]
    )
    bed.delete("bucketclaims", name)
    bed.until_gone("bucketclaims", [name])


def test_with_the_policy_retain_the_backend_keeps_the_bucket(bed: Testbed, name: str) -> None:
    bed.make_classes(name, policy="Retain")
    bed.make_claims([name], class_name=name)
    bed.until_ready("bucketclaims", [name])
    bucket = bed.bucket_of(name)["metadata"]["name"]
    bed.delete("bucketclaims", name)
    bed.until_gone("bucketclaims", [name])
    bed.until_gone("buckets", [bucket])
    assert [b.bucket_id for b in bed.driver.buckets() if b.name == bucket] == [f"id-{bucket}"]
    assert not [e for e in bed.driver.journal(Call.DELETE_BUCKET) if bucket in str(e.fields)]


def test_an_existing_bucket_is_bound_without_a_create_and_to_one_claim_only(
    bed: Testbed, name: str
) -> None:
    bed.make_classes(name)
    spec = {
        "bucketClaim": {},
        "bucketClassName": name,
        "driverName": bed.driver.name,
        "protocols": ["S3"],
        "existingBucketID": f"old-{name}",
        "deletionPolicy": "Retain",
    }
    bed.create("buckets", {"metadata": {"name": name}, "spec": spec})
    bed.create("bucketclaims", claim_body(name, existing=name))
    bed.until_ready("bucketclaims", [name])
    assert bed.get("buckets", name)["status"]["bucketID"] == f"old-{name}"
    assert name not in str(bed.driver.journal(Call.CREATE_BUCKET))

    bed.create("bucketclaims", claim_body(f"{name}-thief", existing=name))
    told = bed.until_reason("bucketclaims", f"{name}-thief", "BucketAlreadyBound")
    assert "spec.existingBucketName" in told["message"]
    assert bed.get("buckets", name)["spec"]["bucketClaim"]["name"] == name

    bed.delete("bucketclaims", f"{name}-thief")
    bed.delete("bucketclaims", name)
    bed.until_gone("bucketclaims", [name, f"{name}-thief"])
    kept = bed.get("buckets", name)
    assert "deletionTimestamp" not in kept["metadata"]
    assert name not in str(bed.driver.journal(Call.DELETE_BUCKET))


@pytest.mark.timeout(240)  # it watches for a minute that nothing happens
def test_200_claims_at_once_are_ready_and_100_refused_are_left_in_peace(
    bed: Testbed, name: str
) -> None:
    """Issue 3's two numbers, with one quiet minute for both."""
    good = [f"{name}-{number}" for number in range(CLAIMS)]
    bad = [f"{name}-bad-{number}" for number in range(REFUSED)]
    bed.make_classes(name, parameters={"case": name})
    bed.make_classes(f"{name}-bad", parameters={"case": f"{name}-bad"})
    bed.driver.set_rule(
        Call.CREATE_BUCKET,
        match={"parameters.case": f"{name}-bad"},
        code="INVALID_ARGUMENT",
        message="InvalidBucketName (request id: {request_id})",
    )
    mark = bed.plane.audit.mark()
    bed.make_claims(good, class_name=name)
    bed.make_claims(bad, class_name=f"{name}-bad")
    bed.until_ready("bucketclaims", good, timeout_s=60)
    bed.until(
        "all refusals to be told",
        lambda: (
            sum(
                condition(claim, "Stalled").get("reason") == "DriverInvalidArgument"
                for claim in bed.all_of("bucketclaims")
                if claim["metadata"]["name"] in set(bad)
            )
            == REFUSED
        ),
    )
    ours = {claim["status"]["bucketName"] for claim in _claims(bed, {*good, *bad})}
    assert all(
        bucket["status"]["bucketReady"] is (bucket["spec"]["bucketClassName"] == name)
        for bucket in bed.all_of("buckets")
        if bucket["metadata"]["name"] in ours
    )
    bed.until_quiet()
    quiet = bed.plane.audit.mark()
    time.sleep(QUIET_S)  # the measurement itself
    assert [f"{e.verb} {e.uri}" for e in bed.writes(since=quiet)] == []
    calls = [e.fields["name"] for e in bed.driver.journal(Call.CREATE_BUCKET)]
    assert sorted(call for call in calls if call in ours) == sorted(ours)  # one for each
    assert bed.driver.counts()["DriverCreateBucket"]["INVALID_ARGUMENT"] >= REFUSED
    unresolved = [e for e in bed.requests(since=mark) if e.code == 409]
    settled = {c["metadata"]["name"] for c in _claims(bed, set(good)) if c["status"]["bucketReady"]}
    assert settled == set(good), f"{len(unresolved)} conflicts"

    bed.delete_all("bucketclaims", [*good, *bad])
    bed.until_gone("bucketclaims", [*good, *bad], timeout_s=60)
    bed.until_gone("buckets", ours, timeout_s=60)
    assert not [b for b in bed.driver.buckets() if b.name in ours]


def _claims(bed: Testbed, names: set[str]) -> list[dict[str, Any]]:
    return [c for c in bed.all_of("bucketclaims") if c["metadata"]["name"] in names]


def test_several_accesses_share_a_bucket_and_go_one_by_one(bed: Testbed, name: str) -> None:
    bed.make_classes(name)
    bed.make_claims([name], class_name=name)
    both = [f"{name}-a", f"{name}-b"]
    for access in both:
        bed.create("bucketaccesses", access_body(access, class_name=name, claim=name), NAMESPACE)
    bed.until_ready("bucketaccesses", both)
    mark = "cosi.objectstorage.k8s.io/bucketaccess-bucket-protection"
    bed.delete("bucketaccesses", both[0])
    bed.until_gone("bucketaccesses", both[:1])
    assert mark in bed.bucket_of(name)["metadata"]["finalizers"]
    assert bed.find("secrets", f"{both[1]}-keys") is not None
    bed.delete("bucketaccesses", both[1])
    bed.until_gone("bucketaccesses", both[1:])
    bed.until("the mark to go", lambda: mark not in bed.bucket_of(name)["metadata"]["finalizers"])
