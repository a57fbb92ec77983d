"""Our CRDs on a real API server: what can't be changed, what is too long, what was there before.

Objects are stored under upstream's CRDs first; then ours are applied, as an upgrade does it.
"""

import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from controlplane import ApiError, ControlPlane
from cosi_operator.scrub import MAX_ID_BYTES
from testbed.objects import path_of, typed

ROOT = Path(__file__).resolve().parents[2]
UPSTREAM_CRDS = ROOT / "tests" / "support" / "upstream_crds"
OUR_CRDS = ROOT / "deploy" / "crds"
SCHEMA_DEADLINE_S = 20.0
SPACE = "default"

type Json = dict[str, Any]
type Change = Callable[[Json], object]

CLAIM: Json = {
    "metadata": {"name": "claim", "finalizers": ["example.com/kept"]},
    "spec": {"protocols": ["S3"], "bucketClassName": "gold", "existingBucketName": ""},
}
ACCESS: Json = {
    "metadata": {"name": "access", "finalizers": ["example.com/kept"]},
    "spec": {
        "bucketClaimName": "claim",
        "bucketAccessClassName": "keys",
        "credentialsSecretName": "secret",
        "protocol": "S3",
        "serviceAccountName": "",
    },
}
# Each of these breaks a limit that upstream's CRDs do not have.
OLD: dict[str, tuple[str, Json]] = {
    "a claim of a class with an odd name": (
        "bucketclaims",
        {"metadata": {"name": "old-1"}, "spec": {"protocols": ["S3"], "bucketClassName": "Gold_1"}},
    ),
    "a claim with a huge name and many protocols": (
        "bucketclaims",
        {
            "metadata": {"name": "old-2"},
            "spec": {"protocols": ["S3\x07" * 50] * 20, "existingBucketName": "x" * 100_000},
        },
    ),
    "an access with a huge claim name": (
        "bucketaccesses",
        {
            "metadata": {"name": "old-3"},
            "spec": {**ACCESS["spec"], "bucketClaimName": "X" * 100_000},
        },
    ),
    "a Bucket with another deletionPolicy and a long id": (
        "buckets",
        {
            "metadata": {"name": "old-4"},
            "spec": {
                "bucketClaim": {"name": "C" * 300}, "bucketClassName": "Gold_1",
                "protocols": ["S3"], "driverName": "", "deletionPolicy": "delete",
                "existingBucketID": "i" * 5000,
                "parameters": {"ca": "p" * 20_000},
            },
        },
    ),
    "a class with deletionPolicy in lower case": (
        "bucketclasses",
        {"metadata": {"name": "old-5"}, "driverName": "d.example.com", "deletionPolicy": "delete"},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Upstream's CRDs with odd objects in them, then ours."""
    with ControlPlane.start(tmp_path_factory.mktemp("plane")) as plane:
        plane.apply(UPSTREAM_CRDS)
        for plural, body in OLD.values():
            create(plane, plural, body)
        plane.run_kubectl("apply", "-f", str(OUR_CRDS))
        deadline = time.monotonic() + SCHEMA_DEADLINE_S
        while (error := refusal(plane, "bucketclasses", LOWER_CASE)) is None:
            assert time.monotonic() < deadline, "the new schemas are not served"
            plane.api.call("DELETE", path_of("bucketclasses", SPACE, "lower"))
            time.sleep(0.1)
        assert "422" in error
        assert "deletionPolicy" in error
        yield plane


LOWER_CASE: Json = {
    "metadata": {"name": "lower"},
    "driverName": "d.example.com",
    "deletionPolicy": "delete",
}


def create(plane: ControlPlane, plural: str, body: Json) -> Json:
    made: Json = plane.api.call("POST", path_of(plural, SPACE), typed(plural, deepcopy(body)))
    return made


def refusal(plane: ControlPlane, plural: str, body: Json) -> str | None:
    """Why the object is not created; None if it is."""
    try:
        create(plane, plural, body)
    except ApiError as error:
        return str(error)
    return None


def put(plane: ControlPlane, plural: str, name: str, change: Change, *, sub: str = "") -> Json:
    path = path_of(plural, SPACE, name)
    body = plane.api.call("GET", path)
    change(body)
    reply: Json = plane.api.call("PUT", f"{path}/{sub}".rstrip("/"), body)
    return reply


def set_in_spec(name: str, value: Any) -> Change:
    return lambda body: body["spec"].update({name: value})


def remove_from_spec(name: str) -> Change:
    return lambda body: body["spec"].pop(name)


@pytest.fixture
def objects(plane: ControlPlane) -> Iterator[ControlPlane]:
    """One claim and one access, gone afterwards."""
    create(plane, "bucketclaims", CLAIM)
    create(plane, "bucketaccesses", ACCESS)
    yield plane
    for plural, name in (("bucketclaims", "claim"), ("bucketaccesses", "access")):
        plane.api.call("DELETE", path_of(plural, SPACE, name))
        put(plane, plural, name, lambda body: body["metadata"].pop("finalizers"))


ACCESS_NAME = "bucketaccesses", "access"
EDITS = [
    ("bucketclaims", "claim", "protocols", set_in_spec("protocols", ["S3", "GCS"])),
    ("bucketclaims", "claim", "bucketClassName", set_in_spec("bucketClassName", "silver")),
    ("bucketclaims", "claim", "bucketClassName", set_in_spec("bucketClassName", "")),
    ("bucketclaims", "claim", "bucketClassName", remove_from_spec("bucketClassName")),
    ("bucketclaims", "claim", "existingBucketName", set_in_spec("existingBucketName", "b")),
    ("bucketaccesses", "access", "bucketClaimName", set_in_spec("bucketClaimName", "other")),
    (*ACCESS_NAME, "bucketAccessClassName", set_in_spec("bucketAccessClassName", "x")),
    (*ACCESS_NAME, "credentialsSecretName", set_in_spec("credentialsSecretName", "x")),
    ("bucketaccesses", "access", "protocol", set_in_spec("protocol", "Azure")),
    ("bucketaccesses", "access", "protocol", remove_from_spec("protocol")),
    ("bucketaccesses", "access", "serviceAccountName", set_in_spec("serviceAccountName", "sa")),
    ("bucketclaims", "claim", "spec", lambda body: body.pop("spec")),
    ("bucketaccesses", "access", "spec", lambda body: body.pop("spec")),
]  # fmt: skip


@pytest.mark.attack("spec of a claim or an access is edited after the grant")
@pytest.mark.parametrize(("plural", "name", "field", "change"), EDITS)
def test_no_field_of_a_spec_can_be_changed(
    objects: ControlPlane, plural: str, name: str, field: str, change: Change
) -> None:
    with pytest.raises(ApiError) as refused:
        put(objects, plural, name, change)
    assert refused.value.code == 422
    assert f"{field} can't be" in str(refused.value)
    kind = {"bucketclaims": "BucketClaim", "bucketaccesses": "BucketAccess"}[plural]
    fix = f"create a new {kind}" if field != "spec" else f"delete the {kind}"
    assert fix in str(refused.value)


@pytest.mark.parametrize(
    ("plural", "name", "change"),
    [
        ("bucketclaims", "claim", remove_from_spec("existingBucketName")),
        ("bucketaccesses", "access", remove_from_spec("serviceAccountName")),
        ("bucketclaims", "claim", lambda body: body["metadata"].pop("finalizers")),
        ("bucketclaims", "claim", lambda body: None),
        ("bucketaccesses", "access", lambda body: body["metadata"].update(labels={"a": "b"})),
    ],
    ids=["Go drops an empty name", "Go drops an empty account", "finalizers", "nothing", "labels"],
)
def test_a_put_that_changes_nothing_is_accepted(
    objects: ControlPlane, plural: str, name: str, change: Change
) -> None:
    put(objects, plural, name, change)
    if name == "claim":
        put(objects, plural, name, set_in_spec("existingBucketName", ""))
    put(objects, plural, name, lambda body: body["metadata"].update(finalizers=["example.com/x"]))


def test_classes_and_buckets_can_be_repaired(plane: ControlPlane) -> None:
    body = {"metadata": {"name": "gold"}, "driverName": "d.example.com"}
    create(plane, "bucketclasses", {**body, "deletionPolicy": "Retain"})
    create(plane, "bucketaccessclasses", {**body, "authenticationType": "Key"})
    spec = {"bucketClaim": {}, "bucketClassName": "gold", "driverName": "d", "protocols": ["S3"]}
    create(plane, "buckets", {"metadata": {"name": "b"}, "spec": spec})
    put(plane, "bucketclasses", "gold", lambda body: body.update(deletionPolicy="Delete"))
    put(plane, "bucketaccessclasses", "gold", lambda body: body.update(driverName="e"))
    put(plane, "buckets", "b", set_in_spec("bucketClaim", {"name": "c", "namespace": SPACE}))
    put(plane, "buckets", "b", set_in_spec("deletionPolicy", "Delete"))


@pytest.mark.parametrize(
    ("plural", "body", "words"),
    [
        pytest.param("bucketclasses", LOWER_CASE, ('"Retain", "Delete"',), id="class policy"),
        pytest.param("buckets", OLD["a Bucket with another deletionPolicy and a long id"][1],
                     ("deletionPolicy", "existingBucketID", "driverName", "bucketClaim.name"),
                     id="Bucket"),
        pytest.param("bucketclaims", OLD["a claim of a class with an odd name"][1],
                     ("bucketClassName",), id="class name"),
        pytest.param("bucketclaims", OLD["a claim with a huge name and many protocols"][1],
                     ("protocols", "existingBucketName"), id="huge"),
        pytest.param("bucketaccesses", OLD["an access with a huge claim name"][1],
                     ("bucketClaimName",), id="claim name"),
        pytest.param("bucketclaims",
                     {**CLAIM, "spec": {"protocols": ["S3"], "bucketClassName": "go\x1b[2Jld"}},
                     ("bucketClassName",), id="control characters"),
    ],
)  # fmt: skip
def test_what_breaks_a_limit_is_refused_by_its_path(
    plane: ControlPlane, plural: str, body: Json, words: tuple[str, ...]
) -> None:
    new = {**body, "metadata": {"name": "new"}}
    refused = refusal(plane, plural, new)
    assert refused is not None
    for word in words:
        assert word in refused


STATUS: dict[str, Json] = {
    "bucketclaims": {"bucketReady": True, "bucketName": "bucket-1"},
    "bucketaccesses": {"accessGranted": True, "accountID": "a" * MAX_ID_BYTES},
    "buckets": {"bucketReady": True, "bucketID": "i" * MAX_ID_BYTES},
}


@pytest.mark.parametrize(("plural", "old"), OLD.values(), ids=list(OLD))
def test_an_object_that_was_stored_before_stays_usable(
    plane: ControlPlane, plural: str, old: Json
) -> None:
    name = old["metadata"]["name"]
    finalizers = ["example.com/kept"]
    put(plane, plural, name, lambda body: body["metadata"].update(finalizers=finalizers))
    put(plane, plural, name, lambda body: body["metadata"].update(annotations={"a": "b"}))
    if plural in STATUS:
        reply = put(
            plane, plural, name, lambda body: body.update(status=STATUS[plural]), sub="status"
        )
        assert reply["status"] == STATUS[plural]
    body = put(plane, plural, name, lambda body: body["metadata"].pop("finalizers"))
    wanted = typed(plural, old)
    assert body.get("spec") == wanted.get("spec")
    assert body.get("deletionPolicy") == wanted.get("deletionPolicy")


def test_the_longest_id_fits_and_a_longer_one_does_not(plane: ControlPlane) -> None:
    spec = {"bucketClaim": {}, "bucketClassName": "gold", "driverName": "d", "protocols": ["S3"]}
    body = {"metadata": {"name": "long"}, "spec": {**spec, "existingBucketID": "i" * MAX_ID_BYTES}}
    create(plane, "buckets", body)
    body["metadata"] = {"name": "longer"}
    body["spec"] = {**spec, "existingBucketID": "i" * (MAX_ID_BYTES + 1)}
    assert "existingBucketID" in (refusal(plane, "buckets", body) or "")
