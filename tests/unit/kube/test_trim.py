"""What is held of a huge object is bounded, and an ordinary one is held to the byte."""

import json
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.support.v1alpha1 import CALL

from cosi_operator.api.decode import decode_bucket_access, decode_bucket_claim
from cosi_operator.api.encode import annotate_status, with_plain_status, with_status
from cosi_operator.api.record import ID_LIMIT_BYTES
from cosi_operator.api.view import Condition, Key, Status
from cosi_operator.conditions import MESSAGE_LIMIT
from cosi_operator.kube.store import Store
from cosi_operator.kube.trim import (
    ANNOTATIONS_LIMIT_BYTES,
    FINALIZERS_LIMIT,
    OBJECT_LIMIT_BYTES,
    OVERSIZED,
    PARTIAL,
    TRIMMED_LIMIT_BYTES,
    bounded,
    is_oversized,
    is_partial,
)

type Json = dict[str, Any]

GIANT = 10**6
OURS = "cosi.objectstorage.k8s.io/bucketclaim-protection"


def noise(size: int, seed: int = 1) -> str:
    """What no compression makes small."""
    return random.Random(seed).randbytes(size // 2).hex()


def claim(**fields: Any) -> Json:
    metadata = {
        "name": "c",
        "namespace": "team",
        "uid": "u-1",
        "resourceVersion": "7",
        "generation": 2,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "finalizers": [OURS],
        "annotations": {"objectstorage.k8s.io/retry": "1"},
        **fields.pop("metadata", {}),
    }
    return {
        "apiVersion": "objectstorage.k8s.io/v1alpha1",
        "kind": "BucketClaim",
        "metadata": metadata,
        "spec": {"bucketClassName": "gold", "protocols": ["S3"]},
        "status": {"bucketReady": True, "bucketName": "b"},
        **fields,
    }


def encode(body: Json) -> bytes:
    return msgspec.json.encode(body)


def test_an_ordinary_object_is_held_unchanged() -> None:
    raw = encode(claim(metadata={"annotations": {"note": "x" * (OBJECT_LIMIT_BYTES - 1000)}}))
    assert bounded(raw) is raw


HUGE: dict[str, Json] = {
    "class name": {"spec": {"bucketClassName": noise(GIANT)}},
    "protocols": {"spec": {"protocols": [noise(100)] * 9000}},
    "our annotations": {
        "metadata": {"annotations": {f"{OURS}-{i}": noise(1000, i) for i in range(250)}}
    },
    "others' annotations": {"metadata": {"annotations": {"a": noise(200_000)}}},
    "labels": {"metadata": {"labels": {f"l{i}": noise(60, i) for i in range(9000)}}},
    "finalizers": {"metadata": {"finalizers": [f"x/{noise(60, i)}" for i in range(9000)]}},
    "owners": {"metadata": {"ownerReferences": [{"name": noise(200, i)} for i in range(4000)]}},
    "status": {"status": {"bucketName": noise(GIANT)}},
    "conditions": {"status": {"conditions": [{"message": noise(30_000, i)} for i in range(30)]}},
    "a field that no schema knows": {"junk": noise(GIANT)},
}


@pytest.mark.attack("a tenant's claims and accesses name things of 1 MB; both processes stay small")
@pytest.mark.parametrize("fields", HUGE.values(), ids=list(HUGE))
def test_the_bytes_that_are_held_of_an_object_are_bounded(fields: Json) -> None:
    store = Store(decode_bucket_claim, trim=bounded)
    for i in range(20):
        body = claim(**json.loads(json.dumps(fields)))
        body["metadata"] |= {"name": f"c-{i}", "uid": f"u-{i}"}
        raw = encode(body)
        assert len(raw) > OBJECT_LIMIT_BYTES
        store.upsert(raw)
    assert len(store.held_bytes()) == 20
    assert max(store.held_bytes().values()) < TRIMMED_LIMIT_BYTES
    held = store.get(Key("team", "c-3"))
    assert held is not None
    assert len(held.raw) < TRIMMED_LIMIT_BYTES
    assert held.view.meta.uid == "u-3"


def test_a_giant_spec_is_dropped_and_marked() -> None:
    kept = bounded(encode(claim(spec={"bucketClassName": "x" * GIANT})))
    view = decode_bucket_claim(kept)
    assert view.meta.oversized
    assert (view.class_name, view.bucket_name, view.ready) == ("", "b", True)
    assert view.meta.finalizers == (OURS,)
    assert view.meta.annotations == {"objectstorage.k8s.io/retry": "1"}
    body = json.loads(kept)
    assert is_partial(body)
    assert is_oversized(body)
    assert bounded(kept) == kept


def test_an_object_with_a_large_foreign_annotation_is_still_usable() -> None:
    body = claim(
        metadata={"annotations": {"note": "x" * 200_000, "objectstorage.k8s.io/retry": "1"}}
    )
    view = decode_bucket_claim(bounded(encode(body)))
    assert not view.meta.oversized
    assert (view.class_name, view.protocols, view.bucket_name) == ("gold", ("S3",), "b")
    assert view.meta.annotations == {"objectstorage.k8s.io/retry": "1"}
    assert is_partial(json.loads(bounded(encode(body))))


@pytest.mark.parametrize("char", ["x", '"', "\\", "\U0001f511"], ids=ascii)
@pytest.mark.parametrize("annotated", [False, True], ids=["status", "annotation"])
def test_our_own_status_of_an_object_that_others_made_huge_is_held(
    char: str, annotated: bool
) -> None:
    """Otherwise the driver would be asked again: the verdict that stands is in it."""
    message = char * MESSAGE_LIMIT
    now = "2026-01-01T00:00:00Z"
    conditions = tuple(
        Condition(kind, "False", "DriverInvalidArgument", message, 2, now)
        for kind in ("Ready", "Stalled", "SpecChangeIgnored")
    )
    call = replace(CALL, driver_instance="d" * 64, retry_token="t" * 300)
    account = "a" * ID_LIMIT_BYTES
    status = Status(conditions, 2, ready=False, account_id=account, last_call=call)
    body = claim(metadata={"annotations": {"note": noise(GIANT)}}, status={})
    body |= {"kind": "BucketAccess", "spec": {"bucketClaimName": "c"}}
    if annotated:
        body = with_plain_status(body, status)
        annotate_status(body, status)
    else:
        body = with_status(body, status)
    assert len(encode(body)) > GIANT
    found = decode_bucket_access(bounded(encode(body)))
    assert found.last_call == call
    assert found.account_id == account
    assert len(found.conditions) == len(conditions)
    assert all(c.message.startswith(char * 100) for c in found.conditions)


def test_our_finalizers_are_held_however_many_others_there_are() -> None:
    many = [f"example.com/{i}" for i in range(20_000)]
    view = decode_bucket_claim(bounded(encode(claim(metadata={"finalizers": [*many, OURS]}))))
    assert view.meta.finalizers[0] == OURS
    assert len(view.meta.finalizers) == FINALIZERS_LIMIT


@pytest.mark.parametrize(
    "metadata",
    [{"annotations": 1}, {"annotations": {"objectstorage.k8s.io/a": 1}}, {"finalizers": {}}],
)
def test_a_huge_object_of_odd_shape_is_bounded_too(metadata: Json) -> None:
    kept = bounded(encode(claim(metadata=metadata, spec={"bucketClassName": noise(GIANT)})))
    assert len(kept) < TRIMMED_LIMIT_BYTES


ANNOTATIONS = st.dictionaries(
    st.sampled_from(
        ["objectstorage.k8s.io/a", "cosi.objectstorage.k8s.io/b", "x", "example.com/y"]
    ),
    st.integers(0, 3 * ANNOTATIONS_LIMIT_BYTES).map(lambda size: "v" * size),
)


@given(ANNOTATIONS, st.integers(0, 100_000), st.integers(0, 100_000))
def test_any_object_is_bounded_and_bounding_again_changes_nothing(
    annotations: dict[str, str], spec: int, status: int
) -> None:
    body = claim(
        metadata={"annotations": annotations},
        spec={"bucketClassName": "s" * spec},
        status={"bucketName": "t" * status},
    )
    kept = bounded(encode(body))
    assert len(kept) < TRIMMED_LIMIT_BYTES
    assert bounded(kept) == kept
    found = json.loads(kept)
    assert (PARTIAL in found) == (len(encode(body)) > OBJECT_LIMIT_BYTES)
    assert PARTIAL in found or found == body
    if OVERSIZED not in found:
        assert found["spec"] == body["spec"]
