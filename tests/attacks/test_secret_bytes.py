"""A tenant may write any bytes into a Secret of its namespace; they decide nothing."""

import base64
from collections.abc import Callable

import pytest

from testbed import Testbed
from testbed.objects import Json

OURS = b'"metadata":{"name":"bc-UID"}'  # UID: the access's own

ODD = [
    pytest.param(b'{"metadata":{"name":"\xff"}}', id="a name that is not UTF-8"),
    pytest.param(b"\xff\xfe{" + OURS + b"}", id="a byte order mark"),
    pytest.param(b"[" * 100_000, id="100,000 brackets"),
    pytest.param(
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"," + OURS + b"}", id="a deep field"
    ),
    pytest.param(b"9" * 500_000, id="a huge number"),
    pytest.param(b'{"metadata":{"name":["bc-UID"]}}', id="a list as the name"),
    pytest.param(b"{" + OURS + b',"metadata":null}', id="a key twice"),
    pytest.param(b"", id="empty"),
]


def filled(content: bytes, access: Json) -> str:
    uid = access["metadata"]["uid"].encode()
    return base64.b64encode(content.replace(b"UID", uid)).decode()


def writes(data: Json) -> Callable[[Json], None]:
    return lambda body: body.update(data=data)


@pytest.mark.attack("odd bytes in BucketInfo of a granted access's Secret; revoked, and released")
@pytest.mark.parametrize("content", ODD)
def test_whatever_is_in_the_secret_deleting_the_access_revokes_its_account(
    bed: Testbed, name: str, content: bytes
) -> None:
    bed.make_classes(name)
    bed.make_claims([name], class_name=name)
    bed.make_accesses([name], class_name=name)
    bed.until_ready("bucketaccesses", [name])
    access = bed.get("bucketaccesses", name)
    account = f"ba-{access['metadata']['uid']}"
    assert [found for found in bed.driver.accounts() if found.name == account]
    data = {"BucketInfo": filled(content, access), "note": "eA=="}
    bed.edit("secrets", f"{name}-keys", writes(data))

    bed.delete("bucketaccesses", name)
    bed.until_gone("bucketaccesses", [name])
    assert not [found for found in bed.driver.accounts() if found.name == account]
    left = bed.get("secrets", f"{name}-keys")
    assert left["data"] == data
    assert not left["metadata"].get("finalizers")  # nothing of ours keeps the namespace


@pytest.mark.attack("odd bytes under the name that an access wants; nothing is granted or touched")
@pytest.mark.parametrize("content", ODD)
def test_a_secret_with_odd_bytes_under_the_wanted_name_is_somebody_elses(
    bed: Testbed, name: str, content: bytes
) -> None:
    bed.make_classes(name)
    bed.make_claims([name], class_name=name)
    secret = {"metadata": {"name": f"{name}-keys"}, "data": {"BucketInfo": ""}}
    before = bed.create("secrets", secret)
    bed.make_accesses([name], class_name=name)
    bed.until_reason("bucketaccesses", name, "SecretNotOwned")
    access = bed.get("bucketaccesses", name)
    bed.edit("secrets", f"{name}-keys", writes({"BucketInfo": filled(content, access)}))
    bed.annotate("bucketaccesses", name, retry="now")
    bed.until_quiet()
    bed.until_reason("bucketaccesses", name, "SecretNotOwned")
    account = f"ba-{access['metadata']['uid']}"
    assert not [found for found in bed.driver.accounts() if found.name == account]

    bed.delete("bucketaccesses", name)
    bed.until_gone("bucketaccesses", [name])
    left = bed.get("secrets", f"{name}-keys")
    assert left["metadata"]["uid"] == before["metadata"]["uid"]
    assert left["data"] == {"BucketInfo": filled(content, access)}
    assert not left["metadata"].get("finalizers")
