"""The record of a Bucket: which ids may be sent to its driver, and for whom.

A tenant may write everything in its own namespace: specs, annotations, Secrets and often status.
The record is therefore an annotation of the Bucket, which is cluster-scoped, and nothing else that
is stored decides which account is revoked or which bucket is deleted (docs/adr/0012). An annotation
and not a status field, because upstream's CRDs drop unknown status fields.

Shape of the annotation `RECORD_ANNOTATION`, as JSON; absent means empty:

    bucket    UID of the Bucket that the record was written for; a copy on another object is void
    name      its name: under another one, the object is a copy and leads to another bucket
    driver    name of the driver, set before the first driver call
    bucketID  the driver's id of the bucket
    claim     {namespace, name, uid} of the BucketClaim that the Bucket is bound to
    accesses  UID of each BucketAccess -> its AccessRecord
    former    UID of each BucketAccess that was granted before there was a record -> the account in
              its status when the record was started; an entry of `accesses` replaces it
"""

import enum
from collections.abc import Mapping

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from cosi_operator.scrub import MAX_ID_BYTES

RECORD_ANNOTATION = "cosi.objectstorage.k8s.io/record"

# The API server stores at most 256 KiB of annotations for one object (apimachinery's
# TotalAnnotationSizeLimitB); the other annotations of a Bucket get the rest.
RECORD_LIMIT_BYTES = 224 * 1024
# Former accesses get so many bytes at most, so that there is room for their entries.
FORMER_LIMIT_BYTES = 64 * 1024
# So many bytes the record may have while keys are rotated, so that a full one can rotate too.
ROTATION_LIMIT_BYTES = RECORD_LIMIT_BYTES + 16 * 1024
# Longer ids are refused: every id has to fit into the record, whatever the driver returns.
ID_LIMIT_BYTES = MAX_ID_BYTES
# What one more access may add: its key, the names of class and Secret, and two accounts of full
# length.
ENTRY_RESERVE_BYTES = 2 * ID_LIMIT_BYTES + 1536


class ClaimIdentity(Struct, frozen=True, omit_defaults=True):
    """One BucketClaim object: a later claim of the same name has another UID."""

    namespace: str = ""
    name: str = ""
    uid: str = ""


class AccessRecord(Struct, frozen=True, omit_defaults=True, rename="camel"):
    """What the driver was asked to make for one BucketAccess.

    An entry is written before the first DriverGrantBucketAccess and removed after the last
    DriverRevokeBucketAccess, so an access without an entry has no account. `class_name` is its
    class, for the parameters of the Revoke of an access that no longer exists. `accounts` are the
    driver's ids, the newest last: two while keys are rotated, none while the result of a call is
    unknown. `minted` is the newest account until the Secret is known to hold its keys; then the
    older accounts can be revoked. `keys` is what the last rotation has brought without a new
    account: `same` keys, or `added` ones, so that the old ones may still work. `unanswered` counts
    calls that got no answer, `since` and `last` are their times.
    """

    namespace: str
    name: str
    class_name: str = ""
    secret: str = ""
    accounts: tuple[str, ...] = ()
    minted: str = ""
    rotated: str = ""
    renew_at: str = ""
    keys: str = ""
    unanswered: int = 0
    since: str = ""
    last: str = ""


class BucketRecord(Struct, frozen=True, omit_defaults=True):
    """See the module."""

    bucket: str = ""
    name: str = ""
    driver: str = ""
    bucket_id: str = field(default="", name="bucketID")
    claim: ClaimIdentity = ClaimIdentity()
    accesses: Mapping[str, AccessRecord] = field(default_factory=dict)
    former: Mapping[str, str] = field(default_factory=dict)


_decoder = msgspec.json.Decoder(BucketRecord)
_encoder = msgspec.json.Encoder(order="deterministic")


def decode_record(text: str | None) -> BucketRecord | None:
    """The record, or None when there is none, when it is empty or when it can't be read."""
    if not text:
        return None
    try:
        record = _decoder.decode(text)
        return record if record != BucketRecord() else None
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None


def encode_record(record: BucketRecord) -> str:
    """The value of the annotation; equal records give equal texts."""
    return _encoder.encode(record).decode()


class Room(enum.Enum):
    """Whether a record has room for one more account, whatever id the driver returns for it.

    LATER: when the calls for accesses without an account have ended. The longest possible id is
    kept free for each of these, and most of them will have a shorter one.
    """

    NOW = "now"
    LATER = "later"
    NEVER = "never"


def room_in(record: BucketRecord, *, rotating: bool = False) -> Room:
    """`rotating`: for the second account of an access, else for an access."""
    limit_bytes = ROTATION_LIMIT_BYTES if rotating else RECORD_LIMIT_BYTES
    left_bytes = limit_bytes - len(_encoder.encode(record)) - ENTRY_RESERVE_BYTES
    pending = sum(not entry.accounts for entry in record.accesses.values())
    if left_bytes < 0:
        return Room.NEVER
    return Room.NOW if pending * ENTRY_RESERVE_BYTES <= left_bytes else Room.LATER


def is_storable_id(text: str) -> bool:
    """Whether the record can hold an id that a driver returned: as JSON, quotes take two bytes."""
    try:
        return len(_encoder.encode(text)) <= ID_LIMIT_BYTES + 2
    except UnicodeEncodeError:
        return False


def with_access(record: BucketRecord, uid: str, entry: AccessRecord | None) -> BucketRecord:
    """The record with this entry; None removes it."""
    accesses = {key: value for key, value in record.accesses.items() if key != uid}
    if entry is not None:
        accesses[uid] = entry
    former = {key: value for key, value in record.former.items() if key != uid}
    return replace(record, accesses=accesses, former=former)
