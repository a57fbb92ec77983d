"""The steps a plan can name, and the facts that applying them yields.

A plan names ONE step; its reply (a fact) is folded into the view and the plan is asked again, so
every crash point is a gap between two steps. Each step is safe to repeat.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from cosi_operator.api.view import AuthenticationType, Bucket, BucketAccess, BucketClaim, Key
from cosi_operator.outcome import Call, Code, Effect, Outcome, Reason

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


# --- steps ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing left to do now. `report` is False when what is stored already says it."""

    outcome: Outcome
    report: bool = True


@dataclass(frozen=True, slots=True)
class EditFinalizers:
    """Add and remove finalizers (and annotations, on a BucketAccess) by one conditional PUT."""

    key: Key
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MarkPending:
    """Take back a stored "nothing happened" before the driver is asked again.

    Without it a crash after that call would leave a verdict that denies what exists.
    """

    call: Call


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
class DeleteAccess:
    key: Key
    uid: str


@dataclass(frozen=True, slots=True)
class ReleaseClaim:
    """Take our finalizer off the claim, whose backend is gone."""

    key: Key
    uid: str


@dataclass(frozen=True, slots=True)
class EditBucketFinalizers:
    """The access's mark on its Bucket, added before Grant and removed with the last access."""

    key: Key
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


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
    """Create the Secret, complete, from the credentials that the last Grant returned."""

    key: Key
    account_id: str
    bucket_id: str


@dataclass(frozen=True, slots=True)
class Revoke:
    bucket_id: str
    account_id: str
    context: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class DeleteSecret:
    key: Key


@dataclass(frozen=True, slots=True)
class ReadBucketObject:
    """Make sure that a Bucket which is not in the cache is not there: its watch may be late."""

    key: Key


@dataclass(frozen=True, slots=True)
class ListAccesses:
    """Look for the accesses that the mark on a Bucket tells of: the cache's list may be old."""

    namespace: str


@dataclass(frozen=True, slots=True)
class ReadClaim:
    """Make sure that a claim is still there: the list it was in may be old."""

    key: Key


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


# --- facts ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BucketIs:
    """The Bucket as the API server now has it; None: it is gone."""

    bucket: Bucket | None


@dataclass(frozen=True, slots=True)
class ClaimIs:
    claim: BucketClaim | None


@dataclass(frozen=True, slots=True)
class AccessIs:
    access: BucketAccess | None


@dataclass(frozen=True, slots=True)
class AccessDeleting:
    key: Key


@dataclass(frozen=True, slots=True)
class AccessesListed:
    """Those that name the claim of a Bucket and hold our finalizer, as the API server has them."""

    accesses: tuple[BucketAccess, ...]


@dataclass(frozen=True, slots=True)
class BackendIs:
    """The driver has the bucket under this id ("" when its reply named none)."""

    bucket_id: str
    already_existed: bool = False


@dataclass(frozen=True, slots=True)
class BackendGone:
    """The backend holds nothing (more). `unverified` when the driver would not say."""

    unverified: bool = False


@dataclass(frozen=True, slots=True)
class Granted:
    """The account exists. `problem` says why its credentials can't be used; "" when they can."""

    account_id: str
    problem: str = ""
    code: Code = Code.OK  # what the driver answered; ALREADY_EXISTS brings no keys


@dataclass(frozen=True, slots=True)
class Revoked:
    unverified: bool = False


@dataclass(frozen=True, slots=True)
class SecretIs:
    """What stands under the Secret's name.

    `exists` with `ours` False means it belongs to someone else and must not be touched. `held`:
    the Secret carries our finalizer.
    """

    exists: bool
    ours: bool = False
    account_id: str = ""
    held: bool = False


@dataclass(frozen=True, slots=True)
class SecretAllowed:
    """The API server would store the Secret; or `refused` says, without values, why not."""

    refused: str = ""


type Fact = (
    BucketIs
    | ClaimIs
    | AccessIs
    | AccessDeleting
    | AccessesListed
    | BackendIs
    | BackendGone
    | Granted
    | Revoked
    | SecretIs
    | SecretAllowed
)

FACTS = (
    BucketIs,
    ClaimIs,
    AccessIs,
    AccessDeleting,
    AccessesListed,
    BackendIs,
    BackendGone,
    Granted,
    Revoked,
    SecretIs,
    SecretAllowed,
)

type BucketStep = (
    Done
    | ReadBucketObject
    | EditFinalizers
    | MarkPending
    | CreateBackend
    | DeleteBackend
    | ListAccesses
    | DeleteAccess
    | ReleaseClaim
)
type AccessStep = (
    Done
    | ReadAccessObject
    | EditFinalizers
    | EditBucketFinalizers
    | MarkPending
    | ReadSecret
    | DryRunSecret
    | Grant
    | StoreSecret
    | Revoke
    | DeleteSecret
)
type ClaimStep = (
    Done
    | EditFinalizers
    | ReadClaim
    | ReadBucketObject
    | CreateBucketObject
    | UpdateBucketObject
    | BindBucketObject
    | DeleteBucketObject
    | DeleteAccess
)


@dataclass(frozen=True, slots=True)
class Failed:
    """A driver call that did not succeed, judged. It ends the run; `report` stores it."""

    outcome: Outcome
    effect: Effect
