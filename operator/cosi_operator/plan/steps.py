"""The steps that a plan can name.

A plan names ONE step. Applying it yields a fact (`plan/facts.py`), which is folded into the view,
and the plan is asked again, so every crash point is a gap between two steps. Each step is safe to
repeat.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from cosi_operator.api.record import ClaimIdentity
from cosi_operator.api.view import AuthenticationType, Key
from cosi_operator.outcome import Outcome, Reason
from cosi_operator.plan.records import RecordEdit

# --- what a plan is given besides objects ---------------------------------------------------


@dataclass(frozen=True, slots=True)
class DriverView:
    """The driver next to this sidecar. `instance` changes with every new driver process."""

    name: str
    instance: str = ""
    up: bool = True


@dataclass(frozen=True, slots=True)
class Pending:
    """What this process remembers of earlier tries; lost at a restart, by design.

    `attempts` counts failed driver calls since the object last changed; `wait_s` is how long the
    backoff, or the hold after a final verdict, still lasts, with the reason it was started for.
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
    """Nothing left to do now. `report` is False when what is stored already says it."""

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
    """Change the finalizers and the record of a Bucket by one conditional PUT."""

    key: Key
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    record: RecordEdit | None = None


@dataclass(frozen=True, slots=True)
class CreateBackend:
    """DriverCreateBucket. With `resolving`, only to learn what an earlier call left behind."""

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
    """Take our finalizer off the claim, whose backend is gone."""

    key: Key
    uid: str


@dataclass(frozen=True, slots=True)
class ReadAccessObject:
    """Look whether the access is still what the copy says."""

    key: Key


@dataclass(frozen=True, slots=True)
class ReadSecret:
    key: Key


@dataclass(frozen=True, slots=True)
class DryRunSecret:
    """Ask the API server whether the Secret could be created, before a key is minted for it."""

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
    """Store the credentials that the last Grant returned: create the Secret, complete.

    With `replace`, the Secret exists and is made for this access: only its data changes.
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
    """End a deletion without knowing which accounts the driver still holds; `message` says so."""

    message: str


@dataclass(frozen=True, slots=True)
class DeleteSecret:
    key: Key


@dataclass(frozen=True, slots=True)
class ReleaseSecret:
    """Take our finalizer off a Secret that no live access owns. Its data stays."""

    key: Key


@dataclass(frozen=True, slots=True)
class ReadBucketObject:
    """Make sure that a Bucket which is not in the cache is not there: its watch may be late."""

    key: Key


@dataclass(frozen=True, slots=True)
class ListAccesses:
    """List the accesses of a namespace anew, because the cache may lack some."""

    namespace: str


@dataclass(frozen=True, slots=True)
class ReadClaim:
    """Read a claim from the API server, because the cache may be behind."""

    key: Key


@dataclass(frozen=True, slots=True)
class ReadClass:
    """Read a BucketClass from the API server: many roles have no watch on classes."""

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
    """Bring a Bucket that has no backend yet up to its repaired class."""

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


type BucketStep = (
    Done
    | ReadBucketObject
    | EditBucket
    | CreateBackend
    | DeleteBackend
    | LeaveBackend
    | ListAccesses
    | DeleteAccess
    | ReadClaim
    | ReleaseClaim
)
type SecretStep = ReadSecret | DryRunSecret | StoreSecret | DeleteSecret | ReleaseSecret
type AccessStep = (
    Done
    | ReadAccessObject
    | ReadBucketObject
    | EditFinalizers
    | EditBucket
    | Grant
    | Revoke
    | LeaveAccounts
    | SecretStep
)
type ClaimStep = (
    Done
    | EditFinalizers
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
