"""The objects that plan tests start from, each in the state that its name says.

A test changes what it is about with `msgspec.structs.replace` or with `meta`, `away`, `judged`.
"""

from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

from cosi_operator.api.record import AccessRecord, BucketRecord, ClaimIdentity
from cosi_operator.api.view import (
    Bucket,
    BucketAccess,
    BucketAccessClass,
    BucketClaim,
    BucketClass,
    ClaimRef,
    Condition,
    DeletionPolicy,
    LastCall,
    Meta,
)
from cosi_operator.outcome import Call, Code, Effect
from cosi_operator.plan import names
from cosi_operator.plan.steps import Context, DriverView, Pending

NOW = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)
AS_OF = int(NOW.timestamp())  # the first revision of a record that a sidecar starts
STAMP = "2026-05-06T07:08:09Z"
DRIVER = "s3.example.com"
UP = Context(driver=DriverView(DRIVER, instance="one"), now=NOW)

CLASS = BucketClass(Meta("gold", uid="class-uid"), driver_name=DRIVER, parameters={"tier": "gold"})
KEYS_CLASS = BucketAccessClass(
    Meta("keys", uid="keys-uid"),
    driver_name=DRIVER,
    authentication_type="Key",
    parameters={"role": "reader"},
)
CLAIM = BucketClaim(
    Meta("photos", "team", uid="claim-uid", generation=1), protocols=("S3",), class_name="gold"
)
REF = ClaimRef("team", "photos", "claim-uid")
IDENTITY = ClaimIdentity("team", "photos", "claim-uid")
NEW_RECORD = BucketRecord(claim=IDENTITY)  # as the controller creates it
RECORD = BucketRecord(bucket="bucket-uid", driver=DRIVER, claim=IDENTITY)
BUCKET = Bucket(
    Meta(names.bucket_name("claim-uid"), uid="bucket-uid", generation=1),
    driver_name=DRIVER,
    class_name="gold",
    claim=REF,
    deletion_policy=DeletionPolicy.DELETE,
    parameters={"tier": "gold"},
    protocols=("S3",),
    record=NEW_RECORD,
)
ACCESS = BucketAccess(
    Meta("reader", "team", uid="access-uid", generation=1, resource_version="1"),
    class_name="keys",
    claim_name="photos",
    secret_name="reader-keys",
)

READY_CONDITION = Condition("Ready", "True", "Provisioned", "fine", 1, "2026-05-06T07:00:00Z")


def meta[T: (BucketClaim, Bucket, BucketAccess, BucketClass)](thing: T, **changes: Any) -> T:
    """The same object with other metadata."""
    return replace(thing, meta=replace(thing.meta, **changes))


def with_context(**changes: Any) -> Context:
    """The context of a driver that is there, with changes; `up`, `instance` are the driver's."""
    driver = DriverView(DRIVER, instance=changes.pop("instance", "one"), up=changes.pop("up", True))
    return Context(**{"driver": driver, "now": NOW, **changes})


AWAY = with_context(up=False)
BACKING_OFF = with_context(pending=Pending(attempts=2, wait_s=12.5))


def judged(
    call: Call,
    code: Code = Code.PERMISSION_DENIED,
    *,
    outcome: str = "Terminal",
    effect: Effect = Effect.NONE,
    **changes: Any,
) -> LastCall:
    """A stored verdict, given now, on generation 1, by driver process "one"."""
    values = {
        "call": call.value,
        "code": code.name,
        "made_by": "driver",
        "outcome": outcome,
        "effect": effect,
        "reason": "DriverPermissionDenied",
        "attempts": 1,
        "generation": 1,
        "driver_instance": "one",
        "retry_token": "",
        "time": STAMP,
    }
    return LastCall(**{**values, **changes})


OURS = replace(meta(BUCKET, finalizers=(names.BUCKET_FINALIZER,)), record=RECORD)
READY = replace(
    OURS, bucket_id="id-7", ready=True, conditions=(READY_CONDITION,), observed_generation=1
)
GOING = meta(READY, deleting=True, generation=2)
BOUND_CLAIM = replace(
    meta(CLAIM, finalizers=(names.CLAIM_FINALIZER,)), bucket_name=BUCKET.meta.name
)
READY_CLAIM = replace(BOUND_CLAIM, ready=True)
GOING_CLAIM = meta(READY_CLAIM, deleting=True, generation=2)

ENTRY = AccessRecord(
    "team", "reader", class_name="keys", secret="reader-keys", accounts=("acct-7",)
)
PENDING_ENTRY = replace(ENTRY, accounts=())  # the result of the Grant is unknown


def with_entries(bucket: Bucket, **entries: AccessRecord) -> Bucket:
    """The Bucket with the driver's id and these entries in its record; "_" stands for "-"."""
    accesses = {uid.replace("_", "-"): entry for uid, entry in entries.items()}
    record = replace(bucket.record or RECORD, bucket_id="id-7", accesses=accesses)
    return replace(bucket, record=record)


MARKED = meta(READY, finalizers=(names.BUCKET_FINALIZER, names.BUCKET_ACCESS_FINALIZER))
BEGUN = with_entries(MARKED, access_uid=PENDING_ENTRY)
RECORDED = with_entries(MARKED, access_uid=ENTRY)
# From a release without records: the first run of the Bucket starts one.
UNRECORDED = replace(MARKED, record=None)
# The same after that run; the access that it lists can be taken over.
FORMER = {"access-uid": "acct-7"}
STARTED = replace(MARKED, record=replace(RECORD, former=FORMER))
BEFORE = "2026-05-06T07:08:08Z"

HELD = meta(ACCESS, finalizers=(names.ACCESS_FINALIZER,))
GRANTED = replace(HELD, granted=True, account_id="acct-7")
GOING_ACCESS = meta(GRANTED, deleting=True, generation=2)
OLD_ACCESS = meta(GRANTED, created=BEFORE)
