"""Bounds the memory that one object takes: drops the parts of a huge object that no decision needs.

A tenant can create thousands of claims and accesses of 1.5 MiB each (etcd's limit) on a cluster
whose CRDs have no `maxLength`. Of an object that is larger than OBJECT_LIMIT_BYTES, only these
parts are held: the metadata that the operator reads, our own annotations, the spec (unless the spec
itself is huge), and the ids in the status. Two marks show this:

- PARTIAL: parts are missing. A PUT needs the whole object, so it is read again for a PUT.
- OVERSIZED: the spec is missing too.

Only this module can set the marks, because the API server prunes fields that no schema contains.
"""

from typing import Any

import msgspec
from msgspec import Raw

from cosi_operator.api.encode import PLAIN_STATUS_FIELDS
from cosi_operator.api.resources import GROUP

OBJECT_LIMIT_BYTES = 8 * 1024
SPEC_LIMIT_BYTES = 4 * 1024
STATUS_LIMIT_BYTES = 9 * 1024
# Of all our own annotations together. The largest holds the status fields that upstream's CRDs
# lack; `api/encode.py` keeps it below this limit.
ANNOTATIONS_LIMIT_BYTES = 10 * 1024
FINALIZERS_LIMIT = 32
TRIMMED_LIMIT_BYTES = 40 * 1024
"""The most that one object takes, whatever it contains; tests/unit/kube/test_trim.py measures."""

PARTIAL = "$partial"
OVERSIZED = "$oversized"
_OUR_DOMAIN = f"{GROUP}/"
_PLAIN_METADATA = (
    *("name", "namespace", "uid", "resourceVersion", "generation"),
    *("creationTimestamp", "deletionTimestamp"),
)
_FIELD_LIMIT_BYTES = 2500

_members = msgspec.json.Decoder(dict[str, Raw]).decode
_texts = msgspec.json.Decoder(list[str]).decode
_encode = msgspec.json.Encoder().encode


def without_managed_fields(raw: bytes) -> bytes:
    """Drop metadata.managedFields, often half of an object; copy the rest byte by byte.

    A PUT without managedFields is safe, because the API server then keeps the stored ones.
    """
    if b'"managedFields"' not in raw:
        return raw
    members = _members(raw)
    metadata = _members(members["metadata"])
    if metadata.pop("managedFields", None) is None:
        return raw
    members["metadata"] = Raw(_encode(metadata))
    return _encode(members)


def bounded(raw: bytes) -> bytes:
    """Return the object without managedFields; of a huge object, only the parts that are held.

    Raises:
        msgspec.DecodeError: `raw` is not a Kubernetes object.
    """
    raw = without_managed_fields(raw)
    if len(raw) <= OBJECT_LIMIT_BYTES:
        return raw
    members = _members(raw)
    trimmed: dict[str, Any] = {
        name: members[name] for name in ("apiVersion", "kind") if name in members
    }
    trimmed["metadata"] = _metadata(_members(members["metadata"]))
    trimmed[PARTIAL] = True
    spec = members.get("spec")
    if OVERSIZED in members or (spec is not None and len(bytes(spec)) > SPEC_LIMIT_BYTES):
        trimmed[OVERSIZED] = True
    elif spec is not None:
        trimmed["spec"] = spec
    if "status" in members:
        trimmed["status"] = _status(members["status"])
    return _encode(trimmed)


def is_partial(body: dict[str, Any]) -> bool:
    """Whether a decoded object lacks parts, so that a PUT of it would delete them."""
    return PARTIAL in body


def is_oversized(body: dict[str, Any]) -> bool:
    """Whether the spec of a decoded object is missing because it was too large."""
    return OVERSIZED in body


def _metadata(members: dict[str, Raw]) -> dict[str, Any]:
    trimmed: dict[str, Any] = {name: members[name] for name in _PLAIN_METADATA if name in members}
    if finalizers := _lenient_texts(members.get("finalizers")):
        ours = [name for name in finalizers if _OUR_DOMAIN in name]
        others = [name for name in finalizers if _OUR_DOMAIN not in name]
        trimmed["finalizers"] = [*ours[:FINALIZERS_LIMIT], *others[: FINALIZERS_LIMIT - len(ours)]]
    if annotations := _lenient_members(members.get("annotations")):
        annotated: dict[str, Raw] = {}
        room = ANNOTATIONS_LIMIT_BYTES
        for name in sorted(name for name in annotations if _OUR_DOMAIN in name):
            room -= len(name) + len(bytes(annotations[name]))
            if room < 0:
                break
            annotated[name] = annotations[name]
        if annotated:
            trimmed["annotations"] = annotated
    return trimmed


def _status(status: Raw) -> Any:
    if len(bytes(status)) <= STATUS_LIMIT_BYTES:
        return status
    members = _lenient_members(status)
    return {
        name: members[name]
        for name in PLAIN_STATUS_FIELDS
        if name in members and len(bytes(members[name])) <= _FIELD_LIMIT_BYTES
    }


def _lenient_members(raw: Raw | None) -> dict[str, Raw]:
    try:
        return _members(raw) if raw is not None else {}
    except msgspec.ValidationError:
        return {}


def _lenient_texts(raw: Raw | None) -> list[str]:
    try:
        return _texts(raw) if raw is not None else []
    except msgspec.ValidationError:
        return []
