"""Decodes the JSON of objects of objectstorage.k8s.io into the values of `view`.

Each `decode_*` function converts one object. A field that is absent or null gets its default if
upstream's schema allows that. A field of a wrong type raises `msgspec.ValidationError`, whose text
gives the path of the field.

Our part of a status is `conditions`, `observedGeneration`, `observedRetry` and `lastCall`.
Upstream's CRDs do not have these fields and drop them. There the annotation `STATUS_ANNOTATION` has
the same JSON. As soon as the status itself has any of these fields, the annotation is ignored, so
an old one is harmless after a change of CRDs. An annotation that can't be read is written again,
and never makes the object unreadable.

`encode.py` writes the fields. Source of the field names and of what is optional: the CRDs of COSI
v0.2.2.
"""

from typing import NamedTuple

import msgspec
from msgspec import Raw, ValidationError

from cosi_operator.api import v1alpha1_wire as wire
from cosi_operator.api import view
from cosi_operator.api.record import RECORD_ANNOTATION, decode_record
from cosi_operator.api.resources import STATUS_ANNOTATION


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
        own = decode_own_status(text)
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


def decode_own_status(text: str | None) -> wire.Own:
    """Decode the annotation; without any field if it is absent or invalid."""
    return _lenient(_own_decoder, text or "{}") or wire.Own()


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
