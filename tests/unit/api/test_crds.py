"""deploy/crds/ fits the structs that read the objects and upstream's schema; a drift is found."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

import crds

OURS = crds.load(crds.OURS)
UPSTREAM = crds.load(crds.UPSTREAM)


def schema(found: dict[str, Any], kind: str, *path: str) -> Any:
    """The schema of a property, by the names that lead to it."""
    at = found[kind]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for name in path:
        at = at["properties"][name]
    return at


def without_texts(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_texts(of) for name, of in value.items() if name != "description"}
    return value


def texts(at: Any, path: str) -> list[str]:
    """The paths below `at` of what `kubectl explain` could not explain."""
    missing = [] if at.get("description") or path.endswith(".metadata") else [path]
    for name, of in at.get("properties", {}).items():
        missing += texts(of, f"{path}.{name}")
    for name, of in at.get("items", {}).get("properties", {}).items():
        missing += texts(of, f"{path}[].{name}")
    return missing


def test_the_crds_fit_the_structs_and_upstream() -> None:
    assert crds.differences(OURS, UPSTREAM) == []


def drop_a_property(found: dict[str, Any]) -> None:
    del schema(found, "BucketAccess", "spec")["properties"]["protocol"]


def add_a_property(found: dict[str, Any]) -> None:
    schema(found, "BucketClaim", "spec")["properties"]["quota"] = {"type": "string"}


def change_a_type(found: dict[str, Any]) -> None:
    schema(found, "Bucket", "status", "lastCall", "attempts")["type"] = "string"


def change_an_item(found: dict[str, Any]) -> None:
    schema(found, "Bucket", "spec", "protocols")["items"] = {"type": "integer"}


def change_a_map(found: dict[str, Any]) -> None:
    schema(found, "Bucket", "spec", "parameters")["additionalProperties"] = {"type": "integer"}


def add_an_enum(found: dict[str, Any]) -> None:
    schema(found, "BucketAccess", "spec", "protocol")["enum"] = ["S3", "Azure"]


def drop_a_limit(found: dict[str, Any]) -> None:
    del schema(found, "Bucket", "spec", "bucketClaim", "name")["maxLength"]


def drop_the_limit_of_a_map(found: dict[str, Any]) -> None:
    del schema(found, "BucketClass", "parameters")["additionalProperties"]["maxLength"]


def change_an_enum(found: dict[str, Any]) -> None:
    schema(found, "Bucket", "status", "lastCall", "effect")["enum"] = ["none"]


def need_more(found: dict[str, Any]) -> None:
    schema(found, "BucketClaim", "spec")["required"].append("bucketClassName")


def need_less_of_a_call(found: dict[str, Any]) -> None:
    schema(found, "BucketAccess", "status", "lastCall")["required"].remove("effect")


def change_the_scope(found: dict[str, Any]) -> None:
    found["Bucket"]["spec"]["scope"] = "Namespaced"


def rename_the_plural(found: dict[str, Any]) -> None:
    found["Bucket"]["spec"]["names"]["plural"] = "pails"


def drop_the_subresource(found: dict[str, Any]) -> None:
    del found["Bucket"]["spec"]["versions"][0]["subresources"]


def drop_a_kind(found: dict[str, Any]) -> None:
    del found["BucketClass"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param(drop_a_property, "BucketAccess.spec.protocol is read, but not", id="dropped"),
        pytest.param(add_a_property, "BucketClaim.spec.quota is in the CRD, but not", id="added"),
        pytest.param(change_a_type, "Bucket.status.lastCall.attempts: the CRD says", id="type"),
        pytest.param(change_an_item, "Bucket.spec.protocols[]: the CRD says", id="item type"),
        pytest.param(change_a_map, "Bucket.spec.parameters{}: the CRD says", id="map type"),
        pytest.param(add_an_enum, "BucketAccess.spec.protocol: enum is", id="stricter"),
        pytest.param(drop_a_limit, "Bucket.spec.bucketClaim.name: a string", id="no limit"),
        pytest.param(drop_the_limit_of_a_map, "BucketClass.parameters{}: a string", id="of a map"),
        pytest.param(change_an_enum, "Bucket.status.lastCall.effect: the enum", id="our enum"),
        pytest.param(need_more, "BucketClaim.spec: required is", id="required"),
        pytest.param(need_less_of_a_call, "BucketAccess.status.lastCall: the struct", id="needed"),
        pytest.param(change_the_scope, "Bucket: scope is not upstream's", id="scope"),
        pytest.param(rename_the_plural, "Bucket: names.plural is not upstream's", id="plural"),
        pytest.param(drop_the_subresource, "Bucket: subresources of the version", id="status"),
        pytest.param(drop_a_kind, "the kinds differ", id="a kind is missing"),
    ],
)
def test_a_drift_is_told_by_its_path(change: Callable[[dict[str, Any]], None], told: str) -> None:
    found = deepcopy(OURS)
    change(found)
    assert [problem for problem in crds.differences(found, UPSTREAM) if problem.startswith(told)]


@pytest.mark.parametrize("kind", sorted(OURS))
def test_kubectl_explain_has_a_text_for_every_field(kind: str) -> None:
    assert texts(schema(OURS, kind), kind) == []


@pytest.mark.parametrize("kind", ["Bucket", "BucketAccess", "BucketClaim"])
@pytest.mark.parametrize("name", ["conditions", "observedGeneration", "lastCall"])
def test_our_part_of_the_status_is_the_same_in_every_kind(kind: str, name: str) -> None:
    if (kind, name) == ("BucketClaim", "lastCall"):
        assert name not in schema(OURS, kind, "status")["properties"]
        return
    mine = schema(OURS, kind, "status", name)
    assert without_texts(mine) == without_texts(schema(OURS, "Bucket", "status", name))


@pytest.mark.parametrize("kind", ["Bucket", "BucketAccess", "BucketClaim"])
def test_no_required_list_asks_for_our_part_of_the_status(kind: str) -> None:
    required = schema(OURS, kind, "status").get("required", [])
    assert not set(required) & crds.ADDED


@pytest.mark.parametrize("kind", sorted(OURS))
def test_a_protected_group_needs_the_approval_annotation(kind: str) -> None:
    for found in (OURS, UPSTREAM):
        assert "api-approved.kubernetes.io" in found[kind]["metadata"]["annotations"]
