"""Writes the JSON of objects of objectstorage.k8s.io: the bodies of PUTs and POSTs.

`decode.py` reads the same fields, and says which part of a status is ours.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from cosi_operator.api import view
from cosi_operator.api.decode import decode_own_status
from cosi_operator.api.record import RECORD_ANNOTATION, BucketRecord, ClaimIdentity, encode_record
from cosi_operator.api.resources import BUCKET_ACCESSES, BUCKET_CLAIMS, BUCKETS, STATUS_ANNOTATION
from cosi_operator.scrub import cut

# The conditions must fit into the part of a huge object that `kube/trim.py` holds. If they exceed
# the limit, for example because a driver's message needs many escapes, each message is cut to
# SHORT_MESSAGE characters.
CONDITIONS_LIMIT_BYTES = 6 * 1024
SHORT_MESSAGE = 300


class _StatusNames(NamedTuple):
    """The names of the status fields of one kind."""

    ready: str
    name: str  # the field of the status that holds `attribute` of view.Status
    attribute: str
    has_last_call: bool


_STATUS_NAMES = {
    BUCKET_CLAIMS.kind: _StatusNames("bucketReady", "bucketName", "bucket_name", False),
    BUCKETS.kind: _StatusNames("bucketReady", "bucketID", "bucket_id", True),
    BUCKET_ACCESSES.kind: _StatusNames("accessGranted", "accountID", "account_id", True),
}


# The status fields that upstream's CRDs have.
PLAIN_STATUS_FIELDS = tuple(
    dict.fromkeys(field for names in _STATUS_NAMES.values() for field in (names.ready, names.name))
)


def bucket_body(
    name: str,
    *,
    claim: view.ClaimRef,
    bucket_class: view.BucketClass,
    protocols: tuple[str, ...],
) -> dict[str, Any]:
    """Return the body that creates the Bucket of a claim, with the values of the claim's class.

    The body contains the record, so `former` (accesses older than the record) stays empty.
    """
    record = BucketRecord(name=name, claim=ClaimIdentity(claim.namespace, claim.name, claim.uid))
    spec: dict[str, Any] = {
        "bucketClaim": claim_reference(claim),
        "bucketClassName": bucket_class.meta.name,
        "driverName": bucket_class.driver_name,
        "deletionPolicy": bucket_class.deletion_policy.value,
        "protocols": list(protocols),
    }
    if bucket_class.parameters:
        spec["parameters"] = dict(bucket_class.parameters)
    return {
        "apiVersion": BUCKETS.api_version,
        "kind": BUCKETS.kind,
        "metadata": {"name": name, "annotations": {RECORD_ANNOTATION: encode_record(record)}},
        "spec": spec,
    }


def claim_reference(claim: view.ClaimRef) -> dict[str, str]:
    """Return the core/v1 ObjectReference for a Bucket's `spec.bucketClaim`."""
    return {
        "apiVersion": BUCKET_CLAIMS.api_version,
        "kind": BUCKET_CLAIMS.kind,
        "namespace": claim.namespace,
        "name": claim.name,
        "uid": claim.uid,
    }


def set_claim(body: dict[str, Any], claim: view.ClaimRef) -> None:
    """Bind a Bucket to a claim in its spec."""
    body["spec"]["bucketClaim"] = claim_reference(claim)


def set_driver(body: dict[str, Any], *, name: str, parameters: Mapping[str, str]) -> None:
    """Write the driver of a Bucket, and the parameters for it."""
    body["spec"]["driverName"] = name
    body["spec"]["parameters"] = dict(parameters)


def claim_patch(claim: view.ClaimRef | None) -> str:
    """Return the merge patch, for a message, that binds a Bucket to a claim; None frees it.

    A patch has to set every field, because `bucketClaim` may be empty or have other fields. The
    CRD requires `bucketClaim` itself.
    """
    if claim is None:
        fields: dict[str, str | None] = dict.fromkeys(
            ("namespace", "name", "uid", "kind", "apiVersion")
        )
    else:
        fields = {"namespace": claim.namespace, "name": claim.name, "uid": claim.uid}
    return json.dumps({"spec": {"bucketClaim": fields}}, separators=(",", ":"))


def with_status(raw: Mapping[str, Any], status: view.Status) -> dict[str, Any]:
    """Return a copy of the whole object `raw` for PUT /status, with our own status fields.

    Fields of `status` that are None and unknown fields are unchanged. An empty string removes the
    field, as upstream does. The required boolean is always set.

    Raises:
        ValueError: the kind of `raw` has no status.
    """
    plain = with_plain_status(raw, status)
    plain["status"] |= _own_json(_status_names(raw), status)
    return plain


def with_plain_status(raw: Mapping[str, Any], status: view.Status) -> dict[str, Any]:
    """Like `with_status`, but only with the fields that upstream's CRDs have."""
    names = _status_names(raw)
    stored = raw.get("status")
    after: dict[str, Any] = dict(stored) if isinstance(stored, Mapping) else {}
    if status.ready is not None:
        after[names.ready] = status.ready
    elif not isinstance(after.get(names.ready), bool):
        after[names.ready] = False
    value: str | None = getattr(status, names.attribute)
    if value:
        after[names.name] = value
    elif value is not None:
        after.pop(names.name, None)
    return {**raw, "status": after}


def annotate_status(raw: dict[str, Any], status: view.Status) -> None:
    """Write our own status fields into the annotation of `raw`, for a PUT of the object itself.

    If `status` has no last call or no retry, the value in the annotation is unchanged.
    """
    own = _own_json(_status_names(raw), status)
    metadata = raw["metadata"]
    annotations = dict(metadata.get("annotations") or {})
    before = decode_own_status(annotations.get(STATUS_ANNOTATION))
    if "lastCall" not in own and before.last_call:
        own["lastCall"] = _last_call_json(before.last_call.to_view())
    if "observedRetry" not in own and before.observed_retry:
        own["observedRetry"] = before.observed_retry
    annotations[STATUS_ANNOTATION] = msgspec.json.encode(own).decode()
    metadata["annotations"] = annotations


def keeps_conditions(reply: Mapping[str, Any], status: view.Status) -> bool:
    """Whether the served schema kept our own fields; `reply` is the reply to a PUT of `status`.

    A schema keeps or drops a field for every object, so the result applies to the whole kind.
    """
    kept = reply.get("status")
    if not isinstance(kept, Mapping):
        return False
    wanted = _own_json(_status_names(reply), status)
    if "objectUID" not in (kept.get("lastCall") or {}):
        # Our CRDs of an earlier release lack only this field.
        wanted.get("lastCall", {}).pop("objectUID", None)
    if "observedRetry" not in kept:
        wanted.pop("observedRetry", None)  # our CRDs of an earlier release lack this field too
    return all(kept.get(name) == value for name, value in wanted.items())


def _status_names(raw: Mapping[str, Any]) -> _StatusNames:
    names = _STATUS_NAMES.get(raw.get("kind", ""))
    if names is None:
        raise ValueError(f"kind {raw.get('kind')!r} has no status")
    return names


def _own_json(names: _StatusNames, status: view.Status) -> dict[str, Any]:
    written = [_condition_json(condition) for condition in status.conditions]
    # Measured as the string in an annotation, because that form is the longest.
    if len(msgspec.json.encode(msgspec.json.encode(written).decode())) > CONDITIONS_LIMIT_BYTES:
        written = [{**c, "message": cut(c["message"], SHORT_MESSAGE)} for c in written]
    own: dict[str, Any] = {
        "conditions": written,
        "observedGeneration": status.observed_generation,
    }
    if names.has_last_call and status.last_call is not None:
        own["lastCall"] = _last_call_json(status.last_call)
    if not names.has_last_call and status.observed_retry:
        own["observedRetry"] = status.observed_retry
    return own


def _condition_json(condition: view.Condition) -> dict[str, Any]:
    return {
        "type": condition.type,
        "status": condition.status,
        "observedGeneration": condition.observed_generation,
        "lastTransitionTime": condition.last_transition_time,
        "reason": condition.reason,
        "message": condition.message,
    }


def _last_call_json(call: view.LastCall) -> dict[str, Any]:
    uid = {"objectUID": call.object_uid} if call.object_uid else {}
    return {
        "call": call.call,
        "code": call.code,
        "madeBy": call.made_by,
        "outcome": call.outcome,
        "effect": call.effect.value,
        "reason": call.reason,
        "attempts": call.attempts,
        "observedGeneration": call.generation,
        "driverInstance": call.driver_instance,
        "retryToken": call.retry_token,
        "time": call.time,
        **uid,
    }
