"""Reading v1alpha1: what becomes of each field, and what is refused."""

import msgspec
import pytest
from tests.support.v1alpha1 import (
    BUCKET,
    DECODERS,
    NULL_META,
    NULL_SPEC,
    NULL_STATUS,
    READY,
    STATUS,
    WITH_STATUS,
    Json,
    annotated,
    decode,
    encode,
    whole,
)

from cosi_operator.api import view
from cosi_operator.api.decode import decode_bucket
from cosi_operator.api.encode import annotate_status, with_status
from cosi_operator.api.resources import BUCKET_ACCESSES, BUCKETS

META = view.Meta(
    name="bucket-1",
    uid="u-1",
    resource_version="42",
    generation=3,
    deleting=True,
    finalizers=("cosi.objectstorage.k8s.io/bucket-protection",),
    annotations={"a": "b"},
)


def test_resources_say_where_a_kind_is_served() -> None:
    assert BUCKETS.path(name="b", subresource="status") == (
        "/apis/objectstorage.k8s.io/v1alpha1/buckets/b/status"
    )
    assert BUCKET_ACCESSES.path("ns", "a") == (
        "/apis/objectstorage.k8s.io/v1alpha1/namespaces/ns/bucketaccesses/a"
    )


def test_a_bucket_is_read_in_full() -> None:
    assert decode(BUCKET) == view.Bucket(
        meta=META,
        driver_name="sample.objectstorage.k8s.io",
        class_name="gold",
        claim=view.ClaimRef("team", "mine", "c-1"),
        deletion_policy=view.DeletionPolicy.DELETE,
        existing_bucket_id="old",
        parameters={"tier": "1"},
        protocols=("S3", "GCS"),
        bucket_id="id-1",
        ready=True,
    )


def test_a_claim_is_read_in_full() -> None:
    claim = whole(
        "BucketClaim",
        metadata={"name": "mine", "namespace": "team"},
        spec={"protocols": ["S3"], "bucketClassName": "gold", "existingBucketName": "b"},
        status={"bucketReady": True, "bucketName": "bucket-1"},
    )
    assert decode(claim) == view.BucketClaim(
        meta=view.Meta(name="mine", namespace="team"),
        protocols=("S3",),
        class_name="gold",
        existing_bucket_name="b",
        bucket_name="bucket-1",
        ready=True,
    )


def test_an_access_is_read_in_full() -> None:
    access = whole(
        "BucketAccess",
        metadata={"name": "mine", "namespace": "team"},
        spec={
            "bucketAccessClassName": "keys",
            "bucketClaimName": "claim",
            "credentialsSecretName": "secret",
            "protocol": "S3",
            "serviceAccountName": "app",
        },
        status={"accessGranted": True, "accountID": "acc"},
    )
    assert decode(access) == view.BucketAccess(
        meta=view.Meta(name="mine", namespace="team"),
        class_name="keys",
        claim_name="claim",
        secret_name="secret",
        protocol="S3",
        service_account_name="app",
        account_id="acc",
        granted=True,
    )


def test_the_classes_are_read_in_full() -> None:
    bucket_class = whole(
        "BucketClass", driverName="d", deletionPolicy="Delete", parameters={"a": "b"}
    )
    assert decode(bucket_class) == view.BucketClass(
        view.Meta(name="one"), "d", view.DeletionPolicy.DELETE, {"a": "b"}
    )
    access_class = whole(
        "BucketAccessClass", driverName="d", authenticationType="IAM", parameters={"a": "b"}
    )
    assert decode(access_class) == view.BucketAccessClass(
        view.Meta(name="one"), "d", "IAM", {"a": "b"}
    )


NULLS: Json = dict.fromkeys(
    ["spec", "status", "driverName", "deletionPolicy", "authenticationType", "parameters"]
)


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="absent"),
        pytest.param(NULLS, id="null"),
        pytest.param({"spec": {}, "status": {}}, id="empty"),
        pytest.param({"spec": NULL_SPEC, "status": NULL_STATUS}, id="full of nulls"),
        pytest.param({"metadata": {"name": "one", **NULL_META}}, id="metadata full of nulls"),
    ],
)
def test_what_is_not_there_becomes_the_default(kind: str, fields: Json) -> None:
    assert decode(whole(kind, **fields)) == getattr(view, kind)(view.Meta(name="one"))


@pytest.mark.parametrize("policy", ["Retain", "delete", "DELETE", "Delete ", "Remove", "", None])
def test_only_the_word_delete_deletes(policy: str | None) -> None:
    bucket = whole("Bucket", spec={"deletionPolicy": policy})
    bucket_class = whole("BucketClass", deletionPolicy=policy)
    assert decode(bucket).deletion_policy is view.DeletionPolicy.RETAIN
    assert decode(bucket_class).deletion_policy is view.DeletionPolicy.RETAIN


def test_a_long_retry_annotation_is_read_as_its_digest() -> None:
    def token(value: str) -> str:
        notes = {"objectstorage.k8s.io/retry": value}
        found = decode(whole("BucketClaim", metadata={"name": "c", "annotations": notes}))
        return str(found.meta.annotations["objectstorage.k8s.io/retry"])

    assert token("x" * 256) == "x" * 256
    assert token("x" * 257).startswith("sha256:")
    assert len(token("x" * 200_000)) == len("sha256:") + 64
    assert token("x" * 257) != token("x" * 258)


@pytest.mark.parametrize(
    ("policy", "unknown"),
    [
        *((policy, policy) for policy in ("delete", "DELETE", "Delete ", "Remove")),
        *((policy, "") for policy in ("Delete", "Retain", "", None)),
    ],
)
def test_a_policy_that_is_no_known_word_is_kept_as_written(
    policy: str | None, unknown: str
) -> None:
    found = decode(whole("BucketClass", deletionPolicy=policy))
    assert found.unknown_policy == unknown


@pytest.mark.parametrize(
    ("ref", "claim"),
    [
        pytest.param({}, None, id="empty: no claim"),
        pytest.param({"kind": "BucketClaim"}, None, id="no more than a kind: no claim"),
        pytest.param({"namespace": "n"}, view.ClaimRef("n"), id="kept for a namespace"),
        pytest.param({"namespace": "n", "name": "c"}, view.ClaimRef("n", "c"), id="no uid yet"),
        pytest.param({"uid": "u"}, view.ClaimRef(uid="u"), id="a uid alone still binds"),
    ],
)
def test_a_claim_reference_may_be_incomplete(ref: Json, claim: view.ClaimRef | None) -> None:
    assert decode(whole("Bucket", spec={"bucketClaim": ref})).claim == claim


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (whole("Bucket", spec={"driverName": 1}), "$.spec.driverName"),
        (whole("Bucket", spec={"deletionPolicy": True}), "$.spec.deletionPolicy"),
        (whole("Bucket", spec={"existingBucketID": []}), "$.spec.existingBucketID"),
        (whole("Bucket", spec={"parameters": {"a": 1}}), "$.spec.parameters[...]"),
        (whole("Bucket", spec={"bucketClaim": {"uid": 1}}), "$.spec.bucketClaim.uid"),
        (whole("Bucket", status={"bucketID": 7}), "$.status.bucketID"),
        (whole("BucketClaim", spec={"protocols": ["S3", 1]}), "$.spec.protocols[1]"),
        (whole("BucketClaim", status={"bucketReady": "true"}), "$.status.bucketReady"),
        (whole("BucketAccess", spec="x"), "$.spec"),
        (whole("BucketAccess", status={"accountID": {}}), "$.status.accountID"),
        (whole("BucketClass", driverName=[]), "$.driverName"),
        (whole("BucketAccessClass", parameters="x"), "$.parameters"),
        (whole("Bucket", metadata={}), "$.metadata"),
        (whole("Bucket", metadata={"name": "b", "generation": "1"}), "$.metadata.generation"),
    ],
)
def test_a_wrong_type_is_refused_with_its_path(body: Json, path: str) -> None:
    with pytest.raises(msgspec.ValidationError) as error:
        decode(body)
    assert f"`{path}`" in str(error.value)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b'{"metadata":{"name":"a"', id="cut off"),
        pytest.param(b'{"metadata":{"name":"\xff"}}', id="not UTF-8"),
        pytest.param(b'{"x":' + b"[" * 50_000 + b"]" * 50_000 + b"}", id="nested too deep"),
    ],
)
def test_what_is_no_json_is_refused_in_the_same_way(raw: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_bucket(raw)


def test_an_item_of_a_list_is_read_without_a_copy() -> None:
    (item,) = msgspec.json.decode(encode({"items": [BUCKET]}), type=dict[str, list[msgspec.Raw]])[
        "items"
    ]
    assert decode_bucket(item) == decode(BUCKET)


@pytest.mark.parametrize("kind", WITH_STATUS)
@pytest.mark.parametrize(
    "own",
    [
        pytest.param({"conditions": "x"}, id="conditions are no list"),
        pytest.param({"conditions": [{"type": 1}]}, id="a condition of another shape"),
        pytest.param({"observedGeneration": "x"}, id="the generation is no number"),
        pytest.param({"lastCall": []}, id="the last call is no object"),
        pytest.param({"lastCall": {"call": "DriverCreateBucket"}}, id="half a last call"),
    ],
)
def test_a_broken_part_of_ours_is_as_if_it_were_not_there(kind: str, own: Json) -> None:
    found = decode(whole(kind, status=own))
    assert found == getattr(view, kind)(view.Meta(name="one"))


def test_a_last_call_with_an_unknown_effect_is_not_trusted() -> None:
    body = with_status(BUCKET, STATUS)
    body["status"]["lastCall"]["effect"] = "some"
    found = decode(body)
    assert found.last_call is None
    assert found.conditions == (READY,)


@pytest.mark.parametrize("kind", WITH_STATUS)
@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("{", id="no JSON"),
        pytest.param("[]", id="no object"),
        pytest.param('{"conditions":3}', id="of another shape"),
        pytest.param('{"conditions":' + "[" * 50_000, id="nested too deep"),
    ],
)
def test_a_broken_annotation_is_as_if_it_were_not_there(kind: str, text: str) -> None:
    found = decode(annotated(kind, text))
    assert (found.conditions, found.observed_generation) == ((), 0)


@pytest.mark.parametrize("kind", WITH_STATUS)
def test_the_status_wins_over_the_annotation_as_a_whole(kind: str) -> None:
    old = annotated(kind, "")
    annotate_status(old, STATUS)
    old["status"] = {"observedGeneration": 9}
    found = decode(old)
    assert (found.conditions, found.observed_generation) == ((), 9)
    assert getattr(found, "last_call", None) is None
