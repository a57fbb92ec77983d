"""The steps that a plan can return.

A plan returns ONE step. Applying it returns a fact (`plan/facts.py`), which is folded into the
view, and then the plan is called again. So each possible crash point is between two steps. Each
step is safe to repeat.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from cosi_operator.api.record import ClaimIdentity
from cosi_operator.api.view import AuthenticationType, Key
from cosi_operator.outcome import Outcome, Reason
from cosi_operator.plan.records import RecordEdit

# --- the input of a plan besides objects ----------------------------------------------------


@dataclass(frozen=True, slots=True)
class DriverView:
    """The driver of this sidecar. `instance` changes with every new driver process."""

    name: str
    instance: str = ""
    up: bool = True


@dataclass(frozen=True, slots=True)
class Pending:
    """This process's memory of earlier attempts; lost at a restart by design.

    `attempts` counts failed driver calls since the object last changed. `wait_s` is the rest of the
    backoff, or of the hold after a final verdict, and `reason` is the reason that started it.
    """

    attempts: int = 0
    wait_s: float = 0.0
    reason: Reason = Reason.DRIVER_UNREACHABLE


@dataclass(frozen=True, slots=True)
class Context:
    """Time and settings of one reconcile run.

    `started` is when this process began to reconcile; `now` is `started` and the monotonic seconds
    since, because the system clock may jump.
    """

    driver: DriverView
    now: datetime
    pending: Pending = Pending()
    recheck_s: float | None = None
    deletion_recheck_s: float | None = 600.0
    started: datetime | None = None
    call_timeout_s: float = 60.0


# --- steps ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Done:
    """The run is complete. `report` is False when the stored status already shows the outcome."""

    outcome: Outcome
    report: bool = True


@dataclass(frozen=True, slots=True)
class EditFinalizers:
    """Add and remove finalizers of a BucketClaim or a BucketAccess by one conditional PUT."""

    key: Key
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EditBucket:
    """Change the finalizers and the record of a Bucket by one conditional PUT.

    Attributes:
        given_up: a UID to remove from the give-up annotation; "" for none.
    """

    key: Key
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    record: RecordEdit | None = None
    given_up: str = ""


@dataclass(frozen=True, slots=True)
class CreateBackend:
    """DriverCreateBucket. With `resolving`, only to learn the id from an earlier call."""

    name: str
    parameters: Mapping[str, str]
    resolving: bool = False


@dataclass(frozen=True, slots=True)
class DeleteBackend:
    bucket_id: str
    context: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LeaveBackend:
    """End a deletion without knowing what the driver still holds, and report that as `message`."""

    message: str


@dataclass(frozen=True, slots=True)
class DeleteAccess:
    key: Key
    uid: str


@dataclass(frozen=True, slots=True)
class ReleaseClaim:
    """Remove our finalizer from the claim, because its bucket is deleted."""

    key: Key
    uid: str


@dataclass(frozen=True, slots=True)
class ReadAccessObject:
    """Read the access from the API server, because the cached copy may be stale."""

    key: Key


@dataclass(frozen=True, slots=True)
class ReadSecret:
    key: Key


@dataclass(frozen=True, slots=True)
class DryRunSecret:
    """Create the Secret as a dry run, before the driver creates keys for it."""

    key: Key


@dataclass(frozen=True, slots=True)
class Grant:
    bucket_id: str
    name: str
    authentication_type: AuthenticationType
    parameters: Mapping[str, str]
    resolving: bool = False


@dataclass(frozen=True, slots=True)
class StoreSecret:
    """Store the credentials of the last Grant: create the complete Secret.

    With `replace`, the Secret of this access exists already, and only its data changes.
    """

    key: Key
    replace: bool = False


@dataclass(frozen=True, slots=True)
class Revoke:
    bucket_id: str
    account_id: str
    context: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LeaveAccounts:
    """End a deletion without knowing which accounts are left, and report that as `message`."""

    message: str


@dataclass(frozen=True, slots=True)
class DeleteSecret:
    key: Key


@dataclass(frozen=True, slots=True)
class ReleaseSecret:
    """Remove our finalizer from a Secret that no live access owns. Its data is kept."""

    key: Key


@dataclass(frozen=True, slots=True)
class ReadBucketObject:
    """Read a Bucket from the API server, because the cache may be stale."""

    key: Key


@dataclass(frozen=True, slots=True)
class ListAccesses:
    """List the accesses of a namespace again, because the cache may lack some."""

    namespace: str


@dataclass(frozen=True, slots=True)
class ReadClaim:
    """Read a claim from the API server, because the cache may be stale."""

    key: Key


@dataclass(frozen=True, slots=True)
class ReadClass:
    """Read a BucketClass from the API server: many roles do not allow to watch classes."""

    key: Key


@dataclass(frozen=True, slots=True)
class ReadHolder:
    """Read whether the claim that a Bucket's record names still exists."""

    holder: ClaimIdentity


@dataclass(frozen=True, slots=True)
class CreateBucketObject:
    name: str


@dataclass(frozen=True, slots=True)
class UpdateBucketObject:
    """Copy driver and parameters of a changed class to a Bucket without a backend bucket."""

    key: Key
    driver_name: str
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class BindBucketObject:
    key: Key


@dataclass(frozen=True, slots=True)
class DeleteBucketObject:
    key: Key
    uid: str


type BucketEffect = (
    ReadBucketObject
    | EditBucket
    | CreateBackend
    | DeleteBackend
    | LeaveBackend
    | ListAccesses
    | DeleteAccess
    | ReadClaim
    | ReleaseClaim
)
type BucketStep = Done | BucketEffect
type SecretStep = ReadSecret | DryRunSecret | StoreSecret | DeleteSecret | ReleaseSecret
type AccessEffect = (
    ReadAccessObject
    | ReadClaim
    | ReadBucketObject
    | EditFinalizers
    | EditBucket
    | Grant
    | Revoke
    | LeaveAccounts
    | SecretStep
)
type AccessStep = Done | AccessEffect
type ClaimEffect = (
    EditFinalizers
    | ReadClaim
    | ReadClass
    | ReadHolder
    | ReadBucketObject
    | CreateBucketObject
    | UpdateBucketObject
    | BindBucketObject
    | DeleteBucketObject
    | DeleteAccess
)
type ClaimStep = Done | ClaimEffect
