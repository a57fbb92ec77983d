"""Writing v1alpha1: a new Bucket, and a status in both of its places."""

import json
from copy import deepcopy

import pytest
from msgspec.structs import replace as with_fields
from tests.support.v1alpha1 import (
    BUCKET,
    CALL,
    READY,
    STATUS,
    Json,
    decode,
    whole,
)

from cosi_operator.api import view
from cosi_operator.api.encode import (
    annotate_status,
    bucket_body,
    keeps_conditions,
    with_plain_status,
    with_status,
)
from cosi_operator.api.record import (
    RECORD_ANNOTATION,
    BucketRecord,
    ClaimIdentity,
    encode_record,
)
from cosi_operator.api.resources import STATUS_ANNOTATION


def test_a_new_bucket_has_what_its_class_says() -> None:
    bucket_class = view.BucketClass(
        view.Meta(name="gold"), "d.example", view.DeletionPolicy.DELETE, {"tier": "1"}
    )
    claim = view.ClaimRef("team", "mine", "c-1")
    body = bucket_body("bucket-c-1", claim=claim, bucket_class=bucket_class, protocols=("S3",))
    record = BucketRecord(name="bucket-c-1", claim=ClaimIdentity("team", "mine", "c-1"))
    annotations = {RECORD_ANNOTATION: encode_record(record)}
    assert body["metadata"] == {"name": "bucket-c-1", "annotations": annotations}
    assert decode(body) == view.Bucket(
        meta=view.Meta(name="bucket-c-1", annotations=annotations),
        driver_name="d.example",
        class_name="gold",
        claim=claim,
        deletion_policy=view.DeletionPolicy.DELETE,
        parameters={"tier": "1"},
        protocols=("S3",),
        record=record,
    )
    assert body["apiVersion"] == "objectstorage.k8s.io/v1alpha1"
    assert body["spec"]["bucketClaim"] == {
        "apiVersion": "objectstorage.k8s.io/v1alpha1",
        "kind": "BucketClaim",
        "namespace": "team",
        "name": "mine",
        "uid": "c-1",
    }


def test_a_new_bucket_without_parameters_has_no_such_field() -> None:
    body = bucket_body(
        "b",
        claim=view.ClaimRef("n", "c", "u"),
        bucket_class=view.BucketClass(view.Meta(name="gold"), "d"),
        protocols=(),
    )
    assert "parameters" not in body["spec"]
    assert body["spec"]["protocols"] == []
    assert body["spec"]["deletionPolicy"] == "Retain"


@pytest.mark.parametrize(
    ("kind", "status", "plain"),
    [
        (
            "BucketClaim",
            view.Status((), 1, ready=True, bucket_name="b"),
            {"bucketReady": True, "bucketName": "b"},
        ),
        (
            "Bucket",
            view.Status((), 1, ready=False, bucket_id="i"),
            {"bucketReady": False, "bucketID": "i"},
        ),
        (
            "BucketAccess",
            view.Status((), 1, ready=True, account_id="a"),
            {"accessGranted": True, "accountID": "a"},
        ),
        ("BucketClaim", view.Status((), 1), {"bucketReady": False}),
        ("BucketAccess", view.Status((), 1), {"accessGranted": False}),
    ],
)
def test_each_kind_has_its_own_names(kind: str, status: view.Status, plain: Json) -> None:
    body = whole(kind)
    own = {"conditions": [], "observedGeneration": 1}
    assert with_plain_status(body, status)["status"] == plain
    assert with_status(body, status)["status"] == plain | own


def test_what_a_status_does_not_name_stays() -> None:
    body = deepcopy(BUCKET)
    body["status"]["someone"] = {"else": 1}
    after = with_status(body, view.Status((READY,), 3))
    assert after["status"]["bucketID"] == "id-1"
    assert after["status"]["bucketReady"] is True
    assert after["status"]["someone"] == {"else": 1}
    assert {**after, "status": body["status"]} == body
    assert "conditions" not in body["status"], "the object given is left as it was"


def test_an_empty_string_removes_the_field() -> None:
    after = with_status(BUCKET, view.Status((), 3, bucket_id=""))
    assert "bucketID" not in after["status"]


def test_a_claim_has_no_last_call() -> None:
    assert "lastCall" not in with_status(whole("BucketClaim"), STATUS)["status"]


def test_only_a_claim_has_an_observed_retry() -> None:
    status = view.Status((READY,), 3, observed_retry="1")
    after = with_status(whole("BucketClaim"), status)["status"]
    assert after["observedRetry"] == "1"
    assert "observedRetry" not in with_status(BUCKET, status)["status"]


def test_the_annotation_keeps_an_observed_retry_that_is_not_named() -> None:
    body = whole("BucketClaim")
    annotate_status(body, view.Status((), 3, observed_retry="1"))
    annotate_status(body, view.Status((), 4))
    own = json.loads(body["metadata"]["annotations"][STATUS_ANNOTATION])
    assert (own["observedRetry"], own["observedGeneration"]) == ("1", 4)


def test_the_crds_of_an_earlier_release_keep_conditions_without_the_observed_retry() -> None:
    status = view.Status((READY,), 3, observed_retry="1")
    reply = with_status(whole("BucketClaim"), status)
    del reply["status"]["observedRetry"]
    assert keeps_conditions(reply, status)


def test_a_kind_without_a_status_is_refused() -> None:
    with pytest.raises(ValueError, match="kind 'BucketClass' has no status"):
        with_status(whole("BucketClass"), STATUS)


def test_the_annotation_leaves_all_others_and_the_status() -> None:
    body = deepcopy(BUCKET)
    annotate_status(body, STATUS)
    annotations = body["metadata"]["annotations"]
    assert json.loads(annotations.pop(STATUS_ANNOTATION))["observedGeneration"] == 3
    assert body == BUCKET


def test_the_annotation_keeps_a_last_call_that_is_not_named() -> None:
    body = deepcopy(BUCKET)
    annotate_status(body, STATUS)
    annotate_status(body, view.Status((), 4))
    found = decode(body)
    assert found.last_call == CALL
    assert (found.conditions, found.observed_generation) == ((), 4)


def test_an_annotation_that_says_the_same_is_the_same_text() -> None:
    body = deepcopy(BUCKET)
    annotate_status(body, STATUS)
    before = deepcopy(body)
    annotate_status(body, STATUS)
    assert body == before
    annotate_status(body, view.Status((READY,), 3))
    assert body == before


def test_a_reply_with_all_of_it_shows_that_the_schema_keeps_it() -> None:
    assert keeps_conditions(with_status(BUCKET, STATUS), STATUS)


@pytest.mark.parametrize(
    "lost",
    [
        pytest.param(["conditions", "observedGeneration", "lastCall"], id="upstream's CRDs"),
        pytest.param(["lastCall"], id="CRDs that know conditions alone"),
    ],
)
def test_a_reply_without_a_field_shows_that_the_schema_drops_it(lost: list[str]) -> None:
    reply = with_status(BUCKET, STATUS)
    for name in lost:
        del reply["status"][name]
    assert not keeps_conditions(reply, STATUS)


def test_the_uid_of_a_last_call_is_written_and_read() -> None:
    call = with_fields(CALL, object_uid="u-1")
    body = with_status(BUCKET, with_fields(STATUS, last_call=call))
    assert body["status"]["lastCall"]["objectUID"] == "u-1"
    assert decode(body).last_call == call


def test_the_annotation_keeps_the_uid_of_a_last_call() -> None:
    call = with_fields(CALL, object_uid="u-1")
    body = deepcopy(BUCKET)
    annotate_status(body, with_fields(STATUS, last_call=call))
    annotate_status(body, view.Status((), 4))
    assert decode(body).last_call == call


@pytest.mark.parametrize(
    ("uid", "counts"),
    [
        pytest.param("u-1", True, id="this object's UID -> counts"),
        pytest.param("", True, id="no UID, of an earlier release -> counts"),
        pytest.param("u-2", False, id="another object's UID, copied by a restore -> void"),
    ],
)
def test_verdict_on_another_object_is_void(uid: str, counts: bool) -> None:
    call = with_fields(CALL, object_uid=uid)
    status = with_fields(STATUS, last_call=call)
    in_status = decode(with_status(BUCKET, status))
    in_annotation = deepcopy(BUCKET)
    annotate_status(in_annotation, status)
    for found in (in_status, decode(in_annotation)):
        assert found.last_call == (call if counts else None)
        assert found.conditions == STATUS.conditions


def test_crds_of_an_earlier_release_that_drop_only_the_uid_still_keep_conditions() -> None:
    status = with_fields(STATUS, last_call=with_fields(CALL, object_uid="u-1"))
    reply = with_status(BUCKET, status)
    del reply["status"]["lastCall"]["objectUID"]
    assert keeps_conditions(reply, status)
    del reply["status"]["lastCall"]["driverInstance"]
    assert not keeps_conditions(reply, status)


def test_a_reply_whose_schema_cuts_a_part_of_a_field_drops_it() -> None:
    reply = with_status(BUCKET, STATUS)
    del reply["status"]["lastCall"]["driverInstance"]
    assert not keeps_conditions(reply, STATUS)


def test_a_reply_without_a_status_drops_it() -> None:
    assert not keeps_conditions(whole("Bucket"), STATUS)
