"""The record of a Bucket: which ids may be sent to its driver, and for which objects.

A tenant may write everything in its own namespace: specs, annotations, Secrets and often status. So
the record is an annotation of the Bucket, which is cluster-scoped. No other stored value determines
which account is revoked or which bucket is deleted (docs/adr/0012). The record is not a status
field, because upstream's CRDs drop unknown status fields.

Shape of the annotation `RECORD_ANNOTATION`, as JSON; absent means empty:

    revision  rises with each edit, so a copy with a lower number is older; a record that a sidecar
              starts begins with the time, in seconds since 1970
    bucket    UID of the Bucket that the record was written for; on any other object it is ignored
    name      name of that Bucket; on an object with another name the record is ignored
    driver    name of the driver, set before the first driver call
    bucketID  the driver's id of the bucket
    claim     {namespace, name, uid} of the BucketClaim that the Bucket is bound to
    accesses  UID of each BucketAccess -> its AccessRecord
    former    UID of each BucketAccess that was granted before the record was created -> the account
              in its status at that time; an entry of `accesses` replaces it
"""

import enum
from collections.abc import Mapping

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from cosi_operator.scrub import MAX_ID_BYTES

RECORD_ANNOTATION = "cosi.objectstorage.k8s.io/record"

# The API server stores at most 256 KiB of annotations for one object (apimachinery's
# TotalAnnotationSizeLimitB). The remainder is for the other annotations of a Bucket.
RECORD_LIMIT_BYTES = 224 * 1024
# The limit for `former`, so that the entries that replace it have room.
FORMER_LIMIT_BYTES = 64 * 1024
# The limit for the record during a key rotation. It is higher, so that the keys of a full record
# can be rotated.
ROTATION_LIMIT_BYTES = RECORD_LIMIT_BYTES + 16 * 1024
# Longer ids are refused, because every id must fit into the record.
ID_LIMIT_BYTES = MAX_ID_BYTES
# The most that one access adds: its key, the names of the class and the Secret, and two account ids
# of maximum length.
ENTRY_RESERVE_BYTES = 2 * ID_LIMIT_BYTES + 1536


NO_GRANT = "none"  # of `AccessRecord.grant`


class ClaimIdentity(Struct, frozen=True, omit_defaults=True):
    """Identifies one BucketClaim object. A later claim with the same name has another UID."""

    namespace: str = ""
    name: str = ""
    uid: str = ""


class AccessRecord(Struct, frozen=True, omit_defaults=True, rename="camel"):
    """The driver calls that were made for one BucketAccess, and the accounts that resulted.

    An entry is written before the first DriverGrantBucketAccess and removed after the last
    DriverRevokeBucketAccess, so an access without an entry has no account.

    - `class_name`: the class, whose parameters the Revoke needs after the access was deleted.
    - `accounts`: the driver's account ids, the newest last. Two during a key rotation, none while
      the result of a call is unknown.
    - `minted`: the newest account until the Secret is known to contain its keys; afterwards "", and
      the older accounts can be revoked.
    - `grant`: a random word for the last Grant, which an annotation of the Secret with its keys
      repeats. NO_GRANT: the accounts are being revoked, so no Secret has valid keys. "" if an
      earlier version wrote the entry.
    - `keys`: the result of the last rotation if it returned no new account. `same`: the driver
      returned the same keys. `added`: it returned other keys, so the old keys may still work.
    - `unanswered`: the number of calls without a reply; `since` and `last`: the first and the last
      time of these.
    """

    namespace: str
    name: str
    class_name: str = ""
    secret: str = ""
    accounts: tuple[str, ...] = ()
    minted: str = ""
    grant: str = ""
    rotated: str = ""
    renew_at: str = ""
    keys: str = ""
    unanswered: int = 0
    since: str = ""
    last: str = ""


class BucketRecord(Struct, frozen=True, omit_defaults=True):
    """The decoded record; the module's docstring describes the fields."""

    revision: int = 0
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
    """Decode the annotation; None if it is absent, empty or can't be decoded.

    Empty account ids, which only a person can have written, are dropped: they are never sent.
    """
    if not text:
        return None
    try:
        record = _without_empty_ids(_decoder.decode(text))
        return record if record != BucketRecord() else None
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None


def _without_empty_ids(record: BucketRecord) -> BucketRecord:
    entries = record.accesses.values()
    if all(all(entry.accounts) for entry in entries) and all(record.former.values()):
        return record
    accesses = {
        uid: replace(entry, accounts=tuple(filter(None, entry.accounts)))
        for uid, entry in record.accesses.items()
    }
    former = {uid: account for uid, account in record.former.items() if account}
    return replace(record, accesses=accesses, former=former)


def encode_record(record: BucketRecord) -> str:
    """Return the value of the annotation. Equal records have equal texts."""
    return _encoder.encode(record).decode()


class Room(enum.Enum):
    """Whether a record has room for one more account id of maximum length.

    LATER: not now, but probably after the pending calls. Space for an id of maximum length is
    reserved for each access without an account, and most ids are shorter.
    """

    NOW = "now"
    LATER = "later"
    NEVER = "never"


def room_in(record: BucketRecord, *, rotating: bool = False) -> Room:
    """Return the room in `record` for another access, or for a second account if `rotating`."""
    limit_bytes = ROTATION_LIMIT_BYTES if rotating else RECORD_LIMIT_BYTES
    left_bytes = limit_bytes - len(_encoder.encode(record)) - ENTRY_RESERVE_BYTES
    pending = sum(not entry.accounts for entry in record.accesses.values())
    if left_bytes < 0:
        return Room.NEVER
    return Room.NOW if pending * ENTRY_RESERVE_BYTES <= left_bytes else Room.LATER


def is_storable_id(text: str) -> bool:
    """Whether the record can hold an id that a driver returned. Its JSON adds two quotes."""
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
