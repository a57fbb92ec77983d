"""Converts objects of objectstorage.k8s.io/v1alpha1 between JSON and the records of `view`.

Only this module and `v1alpha1_wire.py` use the field names of the API.

Reading: each `decode_*` function converts the JSON of one object to a record. A field that is
absent or null gets the record's default if upstream's schema allows that. A field of a wrong type
raises `msgspec.ValidationError`, whose text gives the path of the field.

Our part of a status is `conditions`, `observedGeneration`, `observedRetry` and `lastCall`.
Upstream's CRDs do not have these fields and drop them. There the annotation `STATUS_ANNOTATION` has
the same JSON. As soon as the status itself has any of these fields, the annotation is ignored, so
an old one is harmless after a change of CRDs. An annotation that can't be read is written again,
and never makes the object unreadable.

Source of the field names and of what is optional: the CRDs of COSI v0.2.2.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw, ValidationError

from cosi_operator.api import v1alpha1_wire as wire
from cosi_operator.api import view
from cosi_operator.api.record import (
    RECORD_ANNOTATION,
    BucketRecord,
    ClaimIdentity,
    decode_record,
    encode_record,
)
from cosi_operator.api.view import Resource
from cosi_operator.scrub import cut

GROUP = "objectstorage.k8s.io"
VERSION = "v1alpha1"

BUCKET_CLASSES = Resource(GROUP, VERSION, "bucketclasses", "BucketClass", namespaced=False)
BUCKET_ACCESS_CLASSES = Resource(
    GROUP, VERSION, "bucketaccessclasses", "BucketAccessClass", namespaced=False
)
BUCKET_CLAIMS = Resource(GROUP, VERSION, "bucketclaims", "BucketClaim", namespaced=True)
BUCKETS = Resource(GROUP, VERSION, "buckets", "Bucket", namespaced=False)
BUCKET_ACCESSES = Resource(GROUP, VERSION, "bucketaccesses", "BucketAccess", namespaced=True)

STATUS_ANNOTATION = "cosi.objectstorage.k8s.io/status"
"""Contains our own status fields as JSON if the served schema drops them."""
# The conditions must fit into the part of a huge object that `kube/kept.py` holds. If they exceed
# the limit, for example because a driver's message needs many escapes, each message is cut to
# SHORT_MESSAGE characters.
CONDITIONS_LIMIT_BYTES = 6 * 1024
SHORT_MESSAGE = 300


# Reading


class _Own(NamedTuple):
    conditions: tuple[view.Condition, ...] = ()
    observed_generation: int = 0
    last_call: view.LastCall | None = None


_class_decoder = msgspec.json.Decoder(wire.BucketClass)
_access_class_decoder = msgspec.json.Decoder(wire.BucketAccessClass)
_claim_decoder = msgspec.json.Decoder(wire.BucketClaim)
_bucket_decoder = msgspec.json.Decoder(wire.Bucket)
_access_decoder = msgspec.json.Decoder(wire.BucketAccess)
_own_decoder = msgspec.json.Decoder(wire.Own)
_conditions_decoder = msgspec.json.Decoder(list[wire.Condition] | None)
_generation_decoder = msgspec.json.Decoder(int | None)
_last_call_decoder = msgspec.json.Decoder(wire.LastCall | None)


def decode_bucket_class(raw: bytes | Raw) -> view.BucketClass:
    """Decode a BucketClass.

    Any deletionPolicy other than "Delete" becomes Retain, so that an unknown value never deletes
    data. `unknown_policy` is a deletionPolicy that is neither "Delete" nor "Retain".

    Raises:
        msgspec.ValidationError: a field has a wrong type; the text gives its path.
    """
    found = _decode(_class_decoder, raw)
    return view.BucketClass(
        meta=found.metadata.to_view(),
        driver_name=found.driver_name or "",
        deletion_policy=_deletion_policy(found.deletion_policy),
        parameters=found.parameters or {},
        unknown_policy=_unknown_policy(found.deletion_policy),
    )


def decode_bucket_access_class(raw: bytes | Raw) -> view.BucketAccessClass:
    """Decode a BucketAccessClass. An unknown authenticationType is kept.

    Raises:
        msgspec.ValidationError: a field has a wrong type; the text gives its path.
    """
    found = _decode(_access_class_decoder, raw)
    return view.BucketAccessClass(
        meta=found.metadata.to_view(),
        driver_name=found.driver_name or "",
        authentication_type=found.authentication_type or "",
        parameters=found.parameters or {},
    )


def decode_bucket_claim(raw: bytes | Raw) -> view.BucketClaim:
    """Decode a BucketClaim. An oversized one has only metadata (`meta.oversized`).

    Raises:
        msgspec.ValidationError: a field has a wrong type; the text gives its path.
    """
    found = _decode(_claim_decoder, raw)
    meta = found.metadata.to_view(oversized=found.oversized)
    spec = found.spec or wire.ClaimSpec()
    status = found.status or wire.ClaimStatus()
    own = _own(status, meta)
    return view.BucketClaim(
        meta=meta,
        protocols=spec.protocols or (),
        class_name=spec.bucket_class_name or "",
        existing_bucket_name=spec.existing_bucket_name or "",
        bucket_name=status.bucket_name or "",
        ready=status.bucket_ready or False,
        conditions=own.conditions,
        observed_generation=own.observed_generation,
    )


def decode_bucket(raw: bytes | Raw) -> view.Bucket:
    """Decode a Bucket. An empty claim reference, as in a manual Bucket, becomes None.

    Any deletionPolicy other than "Delete" becomes Retain, so that an unknown value never deletes
    data.

    Raises:
        msgspec.ValidationError: a field has a wrong type; the text gives its path.
    """
    found = _decode(_bucket_decoder, raw)
    meta = found.metadata.to_view()
    spec = found.spec or wire.BucketSpec()
    status = found.status or wire.BucketStatus()
    own = _own(status, meta)
    record = decode_record(meta.annotations.get(RECORD_ANNOTATION))
    is_own = record is None or (record.bucket in ("", meta.uid) and record.name in ("", meta.name))
    return view.Bucket(
        meta=meta,
        driver_name=spec.driver_name or "",
        class_name=spec.bucket_class_name or "",
        claim=spec.bucket_claim.to_view() if spec.bucket_claim else None,
        deletion_policy=_deletion_policy(spec.deletion_policy),
        unknown_policy=_unknown_policy(spec.deletion_policy),
        existing_bucket_id=spec.existing_bucket_id or "",
        parameters=spec.parameters or {},
        protocols=spec.protocols or (),
        bucket_id=status.bucket_id or "",
        ready=status.bucket_ready or False,
        conditions=own.conditions,
        observed_generation=own.observed_generation,
        last_call=own.last_call,
        record=record if is_own else None,
        copied_record=None if is_own else record,
    )


def decode_bucket_access(raw: bytes | Raw) -> view.BucketAccess:
    """Decode a BucketAccess. An oversized one has only metadata (`meta.oversized`).

    Raises:
        msgspec.ValidationError: a field has a wrong type; the text gives its path.
    """
    found = _decode(_access_decoder, raw)
    meta = found.metadata.to_view(oversized=found.oversized)
    spec = found.spec or wire.AccessSpec()
    status = found.status or wire.AccessStatus()
    own = _own(status, meta)
    return view.BucketAccess(
        meta=meta,
        class_name=spec.bucket_access_class_name or "",
        claim_name=spec.bucket_claim_name or "",
        secret_name=spec.credentials_secret_name or "",
        protocol=spec.protocol or "",
        service_account_name=spec.service_account_name or "",
        account_id=status.account_id or "",
        granted=status.access_granted or False,
        conditions=own.conditions,
        observed_generation=own.observed_generation,
        last_call=own.last_call,
    )


def _decode[W: wire.Wire](decoder: msgspec.json.Decoder[W], raw: bytes | Raw) -> W:
    try:
        return decoder.decode(raw)
    except ValidationError:
        raise
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ValidationError(f"not valid JSON: {error}") from error


def _deletion_policy(text: str | None) -> view.DeletionPolicy:
    if text == view.DeletionPolicy.DELETE.value:
        return view.DeletionPolicy.DELETE
    return view.DeletionPolicy.RETAIN


def _unknown_policy(text: str | None) -> str:
    return text if text and text not in view.DeletionPolicy else ""


def _own(status: wire.Status, meta: view.Meta) -> _Own:
    """Our own fields: from the status if it has any of them, else from the annotation."""
    raws = (status.conditions, status.observed_generation, status.last_call)
    if any(bytes(raw) not in (b"", b"null") for raw in raws):
        conditions = _lenient(_conditions_decoder, status.conditions)
        generation = _lenient(_generation_decoder, status.observed_generation)
        last_call = _lenient(_last_call_decoder, status.last_call)
    elif text := meta.annotations.get(STATUS_ANNOTATION):
        own = _lenient(_own_decoder, text) or wire.Own()
        conditions, generation, last_call = (
            own.conditions,
            own.observed_generation,
            own.last_call,
        )
    else:
        return _Own()
    return _Own(
        conditions=tuple(condition.to_view() for condition in conditions or ()),
        observed_generation=generation or 0,
        last_call=_own_verdict(last_call, meta),
    )


def _own_verdict(call: wire.LastCall | None, meta: view.Meta) -> view.LastCall | None:
    """The stored verdict; None if it was copied from another object, for example by a restore."""
    if call is None or call.object_uid not in ("", meta.uid):
        return None
    return call.to_view()


def _lenient[W](decoder: msgspec.json.Decoder[W], raw: Raw | str) -> W | None:
    """Decode `raw`; None if it is invalid, because an invalid status is only rewritten."""
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None


# Writing


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
    before = _lenient(_own_decoder, annotations.get(STATUS_ANNOTATION) or "{}") or wire.Own()
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
