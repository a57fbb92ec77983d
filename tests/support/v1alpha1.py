"""Whole v1alpha1 objects for tests, and their decoders by kind."""

import json
from collections.abc import Callable
from typing import Any

from cosi_operator.api import view
from cosi_operator.api.decode import (
    decode_bucket,
    decode_bucket_access,
    decode_bucket_access_class,
    decode_bucket_claim,
    decode_bucket_class,
)
from cosi_operator.api.resources import STATUS_ANNOTATION
from cosi_operator.outcome import Effect

type Json = dict[str, Any]
type Decode = Callable[[bytes], Any]

DECODERS: dict[str, Decode] = {
    "BucketClass": decode_bucket_class,
    "BucketAccessClass": decode_bucket_access_class,
    "BucketClaim": decode_bucket_claim,
    "Bucket": decode_bucket,
    "BucketAccess": decode_bucket_access,
}
WITH_STATUS = ["BucketClaim", "Bucket", "BucketAccess"]

READY = view.Condition("Ready", "True", "Provisioned", "All is well.", 3, "2026-01-02T03:04:05Z")
CALL = view.LastCall(
    call="DriverCreateBucket",
    code="INVALID_ARGUMENT",
    made_by="driver",
    outcome="Terminal",
    effect=Effect.NONE,
    reason="DriverInvalidArgument",
    attempts=2,
    generation=3,
    driver_instance="d-1",
    retry_token="",
    time="2026-01-02T03:04:05Z",
)
STATUS = view.Status((READY,), 3, ready=True, last_call=CALL)


def encode(body: Json) -> bytes:
    return json.dumps(body).encode()


def decode(body: Json) -> Any:
    return DECODERS[body["kind"]](encode(body))


def whole(kind: str, **fields: Any) -> Json:
    return {"apiVersion": "objectstorage.k8s.io/v1alpha1", "kind": kind} | {
        "metadata": {"name": "one"},
        **fields,
    }


BUCKET = whole(
    "Bucket",
    metadata={
        "name": "bucket-1",
        "uid": "u-1",
        "resourceVersion": "42",
        "generation": 3,
        "deletionTimestamp": "2026-01-02T03:04:05Z",
        "finalizers": ["cosi.objectstorage.k8s.io/bucket-protection"],
        "annotations": {"a": "b"},
        "labels": {"kept": "yes"},
        "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
    },
    spec={
        "driverName": "sample.objectstorage.k8s.io",
        "bucketClassName": "gold",
        "bucketClaim": {"kind": "BucketClaim", "namespace": "team", "name": "mine", "uid": "c-1"},
        "protocols": ["S3", "GCS"],
        "parameters": {"tier": "1"},
        "deletionPolicy": "Delete",
        "existingBucketID": "old",
    },
    status={"bucketReady": True, "bucketID": "id-1"},
)


def annotated(kind: str, text: str, status: Json | None = None) -> Json:
    annotations = {STATUS_ANNOTATION: text}
    return whole(kind, metadata={"name": "one", "annotations": annotations}, status=status)


NULL_SPEC: Json = dict.fromkeys(
    [
        *("protocols", "bucketClassName", "existingBucketName", "driverName", "bucketClaim"),
        *("parameters", "deletionPolicy", "existingBucketID", "bucketAccessClassName"),
        *("bucketClaimName", "credentialsSecretName", "protocol", "serviceAccountName"),
    ]
)
NULL_STATUS: Json = dict.fromkeys(
    [
        *("bucketReady", "bucketName", "bucketID", "accessGranted", "accountID"),
        *("conditions", "observedGeneration", "lastCall"),
    ]
)
NULL_META: Json = dict.fromkeys(
    [
        *("namespace", "uid", "resourceVersion", "generation", "deletionTimestamp"),
        *("finalizers", "annotations"),
    ]
)
