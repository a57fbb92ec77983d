"""What applying a step yields: facts, which a plan's `fold` puts into its view. Pure."""

from dataclasses import dataclass

from cosi_operator.api.view import Bucket, BucketAccess, BucketClaim, BucketClass, Key
from cosi_operator.outcome import Code, Effect, Reason, Requeue, Terminal


@dataclass(frozen=True, slots=True)
class BucketIs:
    """The Bucket as the API server now has it; None: there is none. `name`: if it was read."""

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
    """Those that name the claim of a Bucket and hold our finalizer, as the API server has them."""

    accesses: tuple[BucketAccess, ...]


@dataclass(frozen=True, slots=True)
class BackendIs:
    """The driver has the bucket under this id ("" when its reply named none)."""

    bucket_id: str
    already_existed: bool = False


@dataclass(frozen=True, slots=True)
class BackendGone:
    """The backend holds nothing (more), or nobody is asked again whether it does."""


@dataclass(frozen=True, slots=True)
class Granted:
    """The account exists. `problem` says why its credentials can't be used; "" when they can."""

    account_id: str
    problem: str = ""
    code: Code = Code.OK  # what the driver answered; ALREADY_EXISTS brings no keys
    renew_at: str = ""  # RFC 3339; when keys with an expiry have to be renewed
    reason: Reason | None = None  # of the problem, when it is neither a missing id nor missing keys
    shared: bool = False  # the record names this account for another access too


@dataclass(frozen=True, slots=True)
class Revoked:
    """The account no longer exists; "" means every account that could exist."""

    account_id: str = ""


@dataclass(frozen=True, slots=True)
class SecretIs:
    """What stands under a Secret's name.

    `ours`: its content names this access. A tenant may write that content, so `ours` alone proves
    nothing about accounts. `held`: it carries our finalizer.
    """

    exists: bool
    ours: bool = False
    held: bool = False
    name: str = ""  # "" for the Secret that the plan works on


@dataclass(frozen=True, slots=True)
class SecretStored:
    """The Secret holds the credentials of the last Grant.

    `keys`: of a rotation for which the driver made no new account, see `AccessRecord`.
    """

    keys: str = ""


@dataclass(frozen=True, slots=True)
class SecretAllowed:
    """The API server would store the Secret; or `refused` says, without values, why not."""

    refused: str = ""


@dataclass(frozen=True, slots=True)
class HolderIs:
    """Whether the claim that a Bucket's record names exists."""

    alive: bool


@dataclass(frozen=True, slots=True)
class CallFailed:
    """A driver call that did not succeed, judged. `effect`: what it may have left behind."""

    outcome: Requeue | Terminal
    effect: Effect


type BucketFact = (
    BucketIs | ClaimIs | AccessDeleting | AccessesListed | BackendIs | BackendGone | CallFailed
)
type AccessFact = (
    BucketIs | AccessIs | Granted | Revoked | SecretIs | SecretStored | SecretAllowed | CallFailed
)
type ClaimFact = BucketIs | ClaimIs | ClassIs | HolderIs | AccessDeleting
