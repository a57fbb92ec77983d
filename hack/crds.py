"""Drift check of deploy/crds/, both ways; `hack/verify-crds` runs it.

The CRDs are compared with the structs that decode the objects (api/v1alpha1_wire.py): each property
needs a field of the same name and type, and each field a property. They are also compared with
upstream's CRDs (tests/support/upstream_crds/): they may differ only in our additions to the status,
and in LIMITS, which every string has, so no other object that upstream accepts is refused.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from msgspec import inspect

from cosi_operator.api import v1alpha1_wire as wire

ROOT = Path(__file__).resolve().parents[1]
OURS = ROOT / "deploy" / "crds"
UPSTREAM = ROOT / "tests" / "support" / "upstream_crds"

ADDED = frozenset({"conditions", "observedGeneration", "observedRetry", "lastCall"})
"""Properties of a status that upstream's schema does not have."""

NOT_READ = frozenset(
    f"Bucket.spec.bucketClaim.{name}" for name in ("apiVersion", "fieldPath", "kind")
) | {"Bucket.spec.bucketClaim.resourceVersion"}
"""Fields of an ObjectReference that the operator ignores."""

NOT_SERVED = frozenset(
    {"BucketClaim.status.lastCall", "BucketClaim.$oversized", "BucketAccess.$oversized"}
)
"""No driver is called for a claim; the marks are our own (operator/cosi_operator/kube/trim.py)."""

LIMITS = frozenset(
    {"maxLength", "pattern", "maxItems", "maxProperties", "x-kubernetes-validations"}
)
"""Rules in which ours may be stricter; a value that was stored before stays (ratcheting)."""

ENUMS = frozenset({"BucketClass.deletionPolicy", "Bucket.spec.deletionPolicy"})
"""Enums without a fallback: any other value would leave a bucket on the backend, silently."""

type Schema = Mapping[str, Any]


def load(folder: Path) -> dict[str, Schema]:
    """The CRDs of a folder by kind."""
    found = (yaml.safe_load(path.read_text("utf-8")) for path in sorted(folder.glob("*.yaml")))
    return {crd["spec"]["names"]["kind"]: crd for crd in found}


def differences(ours: Mapping[str, Schema], upstream: Mapping[str, Schema]) -> list[str]:
    """One sentence for each difference; empty if there is none."""
    kinds = set(wire.BY_KIND)
    if set(ours) != kinds or set(upstream) != kinds:
        return [f"the kinds differ: {sorted(ours)}, {sorted(upstream)} and {sorted(kinds)}"]
    return [
        problem
        for kind, struct in wire.BY_KIND.items()
        for problem in (
            *_against_type(kind, _schema(ours[kind]), inspect.type_info(struct)),
            *_against_upstream(kind, ours[kind]["spec"], upstream[kind]["spec"]),
            *_unlimited(kind, _schema(ours[kind])),
        )
    ]


def _schema(crd: Schema) -> Schema:
    found: Schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def _against_type(path: str, schema: Schema, read: inspect.Type) -> Iterator[str]:
    read = _without_none(read)
    if path.endswith(".metadata"):
        return  # the API server's own, in no CRD
    if schema.get("type") != _type_name(read):
        yield f"{path}: the CRD says {schema.get('type')}, the struct {_type_name(read)}"
    elif isinstance(read, inspect.StructType):
        yield from _against_struct(path, schema, read)
    elif isinstance(read, inspect.VarTupleType | inspect.ListType):
        yield from _against_type(f"{path}[]", schema["items"], read.item_type)
    elif isinstance(read, inspect.DictType):
        yield from _against_type(f"{path}{{}}", schema["additionalProperties"], read.value_type)
    elif isinstance(read, inspect.EnumType) and (
        set(schema.get("enum", [])) != {member.value for member in read.cls}
    ):
        yield f"{path}: the enum of the CRD is not that of {read.cls.__name__}"


def _against_struct(path: str, schema: Schema, read: inspect.StructType) -> Iterator[str]:
    served = schema["properties"]
    fields = {f.encode_name: f for f in read.fields}
    for name in sorted(fields.keys() - served.keys()):
        if f"{path}.{name}" not in NOT_SERVED:
            yield f"{path}.{name} is read, but not in the CRD"
    at_the_top = {"apiVersion", "kind"} if "." not in path else set()
    for name in sorted(served.keys() - fields.keys() - at_the_top):
        if f"{path}.{name}" not in NOT_READ:
            yield f"{path}.{name} is in the CRD, but not read"
    for name in sorted(served.keys() & fields.keys()):
        # Our fields are decoded as raw JSON first; wire.Own has their types.
        known = OWN[name] if issubclass(read.cls, wire.Status) and name in OWN else fields[name]
        yield from _against_type(f"{path}.{name}", served[name], known.type)
    if read.cls in (wire.Condition, wire.LastCall):
        needed = sorted(f.encode_name for f in read.fields if f.required)
        if sorted(schema.get("required", [])) != needed:
            yield f"{path}: the struct needs {', '.join(needed)}; the CRD asks for others"


def _without_none(read: inspect.Type) -> inspect.Type:
    if isinstance(read, inspect.UnionType):
        (read,) = (t for t in read.types if not isinstance(t, inspect.NoneType))
    return read


def _type_name(read: inspect.Type) -> str:
    match read:
        case inspect.StrType() | inspect.EnumType():
            return "string"
        case inspect.IntType():
            return "integer"
        case inspect.BoolType():
            return "boolean"
        case inspect.VarTupleType() | inspect.ListType():
            return "array"
        case inspect.DictType() | inspect.StructType():
            return "object"
        case _:
            raise TypeError(f"no CRD type is known for {read}")


def _own_fields() -> dict[str, inspect.Field]:
    read = inspect.type_info(wire.Own)
    assert isinstance(read, inspect.StructType)
    return {f.encode_name: f for f in read.fields}


OWN = _own_fields()


def _against_upstream(kind: str, ours: Schema, upstream: Schema) -> Iterator[str]:
    for name in ("kind", "listKind", "plural", "singular"):
        if ours["names"][name] != upstream["names"][name]:
            yield f"{kind}: names.{name} is not upstream's"
    for name in ("group", "scope"):
        if ours[name] != upstream[name]:
            yield f"{kind}: {name} is not upstream's"
    (our_version,), (their_version,) = ours["versions"], upstream["versions"]
    for name in ("name", "served", "storage", "subresources"):
        if our_version.get(name) != their_version.get(name):
            yield f"{kind}: {name} of the version is not upstream's"
    mine = our_version["schema"]["openAPIV3Schema"]
    yield from _against_schema(kind, mine, their_version["schema"]["openAPIV3Schema"])


def _against_schema(path: str, ours: Schema, upstream: Schema) -> Iterator[str]:
    """Every rule but the texts has to be the same, or some object might be refused here only."""
    ours = {name: rule for name, rule in ours.items() if name not in LIMITS}
    if path in ENUMS:
        ours.pop("enum", None)
    nested = {"description", "properties", "items", "additionalProperties"}
    for rule in sorted((ours.keys() | upstream.keys()) - nested):
        if _unordered(ours.get(rule)) != _unordered(upstream.get(rule)):
            yield f"{path}: {rule} is {ours.get(rule)!r} here, {upstream.get(rule)!r} upstream"
    mine, theirs = dict(ours.get("properties", {})), upstream.get("properties", {})
    if path.endswith(".status"):
        mine = {name: schema for name, schema in mine.items() if name not in ADDED}
    for name in sorted(mine.keys() ^ theirs.keys()):
        yield f"{path}.{name} is {'here' if name in mine else 'upstream'} only"
    for name in sorted(mine.keys() & theirs.keys()):
        yield from _against_schema(f"{path}.{name}", mine[name], theirs[name])
    if "items" in ours or "items" in upstream:
        yield from _against_schema(f"{path}[]", ours.get("items", {}), upstream.get("items", {}))
    more = "additionalProperties"
    if more in ours or more in upstream:
        yield from _against_schema(f"{path}{{}}", ours.get(more, {}), upstream.get(more, {}))


def _unlimited(path: str, schema: Schema) -> Iterator[str]:
    """Strings without a limit, with which a tenant could exhaust the memory of a reader."""
    if schema.get("type") == "string" and not schema.keys() & {"maxLength", "enum"}:
        yield f"{path}: a string without maxLength"
    for name, inner in schema.get("properties", {}).items():
        if "." in path or name not in ("apiVersion", "kind", "metadata"):
            yield from _unlimited(f"{path}.{name}", inner)
    for nested, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if nested in schema:
            yield from _unlimited(f"{path}{mark}", schema[nested])


def _unordered(rule: object) -> object:
    return sorted(rule) if isinstance(rule, list) else rule


def main() -> int:
    problems = differences(load(OURS), load(UPSTREAM))
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
