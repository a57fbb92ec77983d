"""Packing: a text comes back byte by byte, and texts of one shape cost little after the first."""

import json
import uuid

from hypothesis import given
from hypothesis import strategies as st

from cosi_operator.kube.packed import DICTIONARY_LIMIT_BYTES, Packer


def bucket(number: int) -> bytes:
    uid = str(uuid.uuid5(uuid.NAMESPACE_OID, str(number)))
    metadata = {"name": f"bucket-{uid}", "uid": uid, "resourceVersion": str(1000 + number)}
    spec = {"driverName": "mock.objectstorage.k8s.io", "protocols": ["S3"], "parameters": {}}
    ready = {"type": "Ready", "status": "True", "reason": "Provisioned", "message": "It is ready."}
    status = {"bucketReady": True, "bucketID": uid, "conditions": [ready]}
    return json.dumps({"metadata": metadata, "spec": spec, "status": status}).encode()


@given(st.lists(st.binary(max_size=6000), max_size=12))
def test_a_packed_text_unpacks_unchanged_whatever_else_was_packed(
    texts: list[bytes],
) -> None:
    packer = Packer()
    packed = [packer.pack(text) for text in texts]
    assert [one.unpack() for one in packed] == texts


def test_objects_of_one_shape_take_a_quarter_once_one_of_them_was_seen() -> None:
    packer = Packer()
    packer.pack(bucket(0))
    packed = [packer.pack(bucket(number)) for number in range(1, 100)]
    assert max(len(one.data) for one in packed) < len(bucket(1)) / 4
    assert len({id(one.dictionary) for one in packed}) == 1


def test_an_odd_object_does_not_spoil_the_packing_of_those_after_it() -> None:
    packer = Packer()
    packer.pack(bucket(0))
    packer.pack(bytes(range(256)) * 2)  # nothing like a Bucket: becomes the dictionary
    packer.pack(bucket(1))  # fits badly, and takes its place
    assert len(packer.pack(bucket(2)).data) < len(bucket(2)) / 4


def test_a_huge_object_is_never_held_on_to_as_a_dictionary() -> None:
    packer = Packer()
    packer.pack(b"".join(uuid.uuid5(uuid.NAMESPACE_OID, str(n)).bytes for n in range(1000)))
    assert len(packer.pack(bucket(0)).dictionary) <= DICTIONARY_LIMIT_BYTES


def test_a_first_object_that_repeats_itself_is_a_dictionary_too() -> None:
    def repetitive(number: int) -> bytes:
        return bucket(number) * 3

    packer = Packer()
    packer.pack(repetitive(0))
    assert len(packer.pack(repetitive(1)).data) < len(bucket(1)) / 2
    assert packer.pack(repetitive(2)).dictionary
