"""Changes the record in the body of a Bucket, for a PUT of the whole object (`api/record.py`)."""

from cosi_operator.api.record import (
    RECORD_ANNOTATION,
    BucketRecord,
    decode_record,
    encode_record,
)
from cosi_operator.kube.objects import Body
from cosi_operator.plan.records import RecordEdit


class EntryChangedError(Exception):
    """The entry of the access has changed since the plan read it, so plan again."""


def edit_record(body: Body, edit: RecordEdit, *, start: bool = True) -> BucketRecord | None:
    """Apply an edit to the record in `body`, and return the record after the edit.

    Args:
        start: whether to create the record if the Bucket has none. If False and the Bucket has
            none, nothing is changed and None is returned.
    Raises:
        EntryChangedError: the entry has changed; `body` was not modified.
    """
    meta = body["metadata"]
    annotations = dict(meta.get("annotations") or {})
    record = decode_record(annotations.get(RECORD_ANNOTATION))
    if record is not None and record.bucket not in ("", meta["uid"]):
        record = None  # copied from another Bucket
    if record is None and not start:
        return None
    if not edit.fits(record):
        raise EntryChangedError
    after = edit.apply(record, meta["uid"], meta["name"])
    annotations[RECORD_ANNOTATION] = encode_record(after)
    meta["annotations"] = annotations
    return after
