"""Facts: the results of applied steps, which a plan's `fold` adds to its view. Pure."""

from dataclasses import dataclass

from cosi_operator.api.view import Bucket, BucketAccess, BucketClaim, BucketClass, Key
from cosi_operator.outcome import Code, Effect, Reason, Requeue, Terminal


@dataclass(frozen=True, slots=True)
class BucketIs:
    """The Bucket in the API server; None if it does not exist. `name` is set after a read only."""

    bucket: Bucket | None
    name: str = ""


@dataclass(frozen=True, slots=True)
class ClaimIs:
    claim: BucketClaim | None


@dataclass(frozen=True, slots=True)
class ClassIs:
    bucket_class: BucketClass | None


@dataclass(frozen=True, slots=True)
class AccessIs:
    access: BucketAccess | None


@dataclass(frozen=True, slots=True)
class AccessDeleting:
    key: Key


@dataclass(frozen=True, slots=True)
class AccessesListed:
    """The accesses in the API server that name the claim of a Bucket and have our finalizer."""

    accesses: tuple[BucketAccess, ...]


@dataclass(frozen=True, slots=True)
class BackendIs:
    """The bucket exists on the backend with this id ("" when the driver's reply had no id)."""

    bucket_id: str
    already_existed: bool = False


@dataclass(frozen=True, slots=True)
class BackendGone:
    """The bucket no longer exists on the backend, or the driver is not called again to check."""


@dataclass(frozen=True, slots=True)
class Granted:
    """The account exists. `problem`: why its credentials can't be used; "" when they can."""

    account_id: str
    problem: str = ""
    code: Code = Code.OK  # of the driver's reply; ALREADY_EXISTS has no keys
    renew_at: str = ""  # RFC 3339; when keys with an expiry have to be renewed
    reason: Reason | None = None  # of a problem that is neither a missing id nor missing keys
    used_by_others: bool = False  # the record names this account for another access too
    grant: str = ""  # the word for this Grant, see `AccessRecord.grant`
    after: str = ""  # the word in the record when this Grant was made


@dataclass(frozen=True, slots=True)
class Revoked:
    """The account no longer exists."""

    account_id: str


@dataclass(frozen=True, slots=True)
class NothingToRevoke:
    """No account of the access is left to revoke.

    None can exist, or the driver is not called any more, and an Event names what may be left.
    """


@dataclass(frozen=True, slots=True)
class UsedByOthers:
    """The account was not revoked, because another access has it too."""

    account_id: str


@dataclass(frozen=True, slots=True)
class SecretIs:
    """The state of the Secret with a name.

    `ours`: its content names this access. A tenant may write that content, so `ours` proves nothing
    about accounts. `has_finalizer`: it has ours. `immutable`: its data can't be changed.
    `account`, `grant`: the account and the word (see `AccessRecord.grant`) that its annotations
    name, which a tenant may write too. `other_keys`: it is ours and exists already, but not with
    the keys that were to be stored.
    """

    exists: bool
    ours: bool = False
    has_finalizer: bool = False
    immutable: bool = False
    account: str = ""
    grant: str = ""
    name: str = ""  # "" for the Secret that the plan works on
    other_keys: bool = False


@dataclass(frozen=True, slots=True)
class SecretStored:
    """The Secret holds the credentials of the last Grant.

    `keys`: set after a rotation for which the driver created no new account; see `AccessRecord`.
    """

    keys: str = ""


@dataclass(frozen=True, slots=True)
class SecretAllowed:
    """The API server accepts the Secret; otherwise `refused` is the reason, without values."""

    refused: str = ""


@dataclass(frozen=True, slots=True)
class HolderIs:
    """Whether the claim that a Bucket's record names exists."""

    alive: bool


@dataclass(frozen=True, slots=True)
class CallFailed:
    """A driver call that failed, with its outcome. `effect`: whether it may have had an effect."""

    outcome: Requeue | Terminal
    effect: Effect


type BucketFact = (
    BucketIs | ClaimIs | AccessDeleting | AccessesListed | BackendIs | BackendGone | CallFailed
)
type AccessFact = (
    BucketIs
    | ClaimIs
    | AccessIs
    | Granted
    | Revoked
    | NothingToRevoke
    | UsedByOthers
    | SecretIs
    | SecretStored
    | SecretAllowed
    | CallFailed
)
type ClaimFact = BucketIs | ClaimIs | ClassIs | HolderIs | AccessDeleting
