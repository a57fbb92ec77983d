"""The input of one run's plan for a BucketAccess, and how facts change that input. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import assert_never

from cosi_operator.api.record import NO_GRANT, AccessRecord
from cosi_operator.api.view import (
    AuthenticationType,
    Bucket,
    BucketAccess,
    BucketAccessClass,
    BucketClaim,
    Key,
)
from cosi_operator.plan import names, records
from cosi_operator.plan.bucket_view import is_given_up
from cosi_operator.plan.facts import (
    AccessFact,
    AccessIs,
    BucketIs,
    CallFailed,
    ClaimIs,
    Granted,
    NothingToRevoke,
    Revoked,
    SecretAllowed,
    SecretIs,
    SecretStored,
    UsedByOthers,
)
from cosi_operator.plan.steps import Context
from cosi_operator.scrub import shown_name

# After an unanswered DriverGrantBucketAccess, the next one waits for this many call timeouts,
# because the driver may still be executing the call, and each call may create a new account.
UNANSWERED_TIMEOUTS = 4
# Only so many characters of the rotate annotation are used.
ROTATE_TOKEN_LENGTH = 64


@dataclass(frozen=True, slots=True)
class AccessView:
    """The input of the plan for one run.

    Attributes:
        bucket: the Bucket whose record names this access, else the Bucket bound to its claim.
        vanished: that Bucket was removed by force; `bucket` is its last cached version.
        succeeded: the claim is now bound to another Bucket object.
        replacing: the Buckets that may have replaced a vanished one, by their name or claim.
        finished: this process has removed the entry of the deleted access; the finalizer is left.
        others_need_finalizer: another access needs the access finalizer on the Bucket.
        rivals: another access that could be taken over names the same account.
        remembered: the entry in the record of an earlier Bucket object of the same bucket.
        restoring: the Bucket's run will restore parts of the record that another writer removed.
        used_by_others: accounts that the record names for another live access too, so this run
            never revokes them.
        awaited: accounts of another access whose deletion revokes them.
        clean: when the run began, no earlier Grant can have left an account.
        unproven: `access` may still be a stale copy.
        bucket_proven: this run has read or written `bucket`.
        claim_proven: this run has read `claim`.
        may_release: our finalizer may be removed from a Secret that no access owns.
        granted: a Grant whose credentials are still in this process's memory.
        revoked: the accounts that no longer exist.
        judged: the access at the time of the call that `failed`.

    The fields from `nothing_to_revoke` on are set during the run, except `may_release`.
    """

    access: BucketAccess | None
    access_class: BucketAccessClass | None
    claim: BucketClaim | None
    bucket: Bucket | None
    context: Context
    vanished: bool = False
    succeeded: bool = False
    replacing: tuple[Bucket, ...] = ()
    finished: bool = False
    others_need_finalizer: bool = False
    rivals: bool = False
    remembered: AccessRecord | None = None
    restoring: bool = False
    used_by_others: frozenset[str] = frozenset()
    awaited: frozenset[str] = frozenset()
    clean: bool = False
    unproven: bool = False
    bucket_proven: bool = False
    claim_proven: bool = False
    granted: Granted | None = None
    revoked: frozenset[str] = frozenset()
    nothing_to_revoke: bool = False
    may_release: bool = True
    secrets: Mapping[str, SecretIs] = field(default_factory=dict)
    secret_allowed: bool = False
    secret_refused: str = ""
    stored: SecretStored | None = None
    failed: CallFailed | None = None
    judged: BucketAccess | None = None

    @property
    def entry(self) -> AccessRecord | None:
        """The entry of this access in the record."""
        return records.entry_of(self.bucket, self.access.meta.uid) if self.access else None

    @property
    def gave_up(self) -> bool:
        """Whether the give-up annotation of one of its Buckets has the UID of this access."""
        buckets = (self.bucket, *self.replacing)
        uid = self.access.meta.uid if self.access else ""
        return any(bucket is not None and is_given_up(bucket, uid) for bucket in buckets)

    @property
    def secret_key(self) -> Key:
        """The Secret of the entry, which keeps its name when the spec changes; else of the spec."""
        assert self.access is not None
        entry = self.entry
        name = (entry.secret if entry and entry.accounts else "") or self.access.secret_name
        return Key(self.access.meta.namespace, name)

    @property
    def secret(self) -> SecretIs | None:
        return self.secrets.get(self.secret_key.name)

    @property
    def unstored_grant(self) -> Granted | None:
        """The Grant whose credentials are not stored in the Secret yet."""
        granted = self.granted
        if granted is None or granted.account_id in self.revoked or self.is_superseded:
            return None
        return granted

    @property
    def is_superseded(self) -> bool:
        """Whether another process has granted the account again, so one of the keys may be dead."""
        granted, entry = self.granted, self.entry
        if granted is None or entry is None or granted.account_id not in entry.accounts:
            return False
        return bool(granted.grant) and entry.grant not in ("", granted.grant, granted.after)

    @property
    def has_other_keys(self) -> bool:
        """Whether the Secret, as far as it is known, has keys of another Grant than the last."""
        secret, entry = self.secret, self.entry
        if secret is None or not secret.ours or entry is None:
            return False
        if secret.other_keys or entry.grant == NO_GRANT:
            return True
        return bool(entry.grant and secret.grant) and entry.grant != secret.grant

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters of the class; none if the class is now one of another driver."""
        found = self.access_class
        if found is None or not names.same_driver(found.driver_name, self.context.driver.name):
            return {}
        return dict(found.parameters)


def is_clean(access: BucketAccess | None, bucket: Bucket | None) -> bool:
    """Whether no earlier run can have created an account, because an entry precedes each Grant."""
    return access is None or records.entry_of(bucket, access.meta.uid) is None


def retry_token(access: BucketAccess) -> str:
    return access.meta.annotations.get(names.RETRY_ANNOTATION, "")


def rotate_token(access: BucketAccess) -> str:
    """The start of the rotate annotation. The record stores it, so its length is limited."""
    return access.meta.annotations.get(names.ROTATE_ANNOTATION, "")[:ROTATE_TOKEN_LENGTH]


def judged_on(access: BucketAccess, access_class: BucketAccessClass | None) -> str:
    """The annotations and the class that a verdict on an access depends on, besides its spec.

    The class is included because an access is granted with the current class; a Bucket contains a
    copy of its class.
    """
    made_for = f"{access_class.meta.uid}:{access_class.meta.generation}" if access_class else ""
    token = retry_token(access)
    if rotate := rotate_token(access):
        token = f"{token}+{rotate}"
    return f"{token}|{made_for}"


def is_retry_seen(access: BucketAccess) -> bool:
    """Whether the last verdict used the present retry annotation, or none is set."""
    token, last = retry_token(access), access.last_call
    judged = last.retry_token if last else ""
    return not token or judged == token or judged.startswith((f"{token}|", f"{token}+"))


def authentication_of(access_class: BucketAccessClass | None) -> AuthenticationType:
    """The authentication type of a class, compared case-insensitively.

    The Go sidecar compares case-sensitively, so it sends KEY, which many published classes contain,
    as Unknown.
    """
    word = access_class.authentication_type.lower() if access_class else ""
    known = {kind.value.lower(): kind for kind in AuthenticationType if kind}
    return known.get(word, AuthenticationType.UNKNOWN)


def ignored_change(view: AccessView) -> str:
    """A sentence about a change of the spec that the record overrides; "" without one."""
    access, entry, bucket = view.access, view.entry, view.bucket
    if access is None or entry is None or not entry.accounts or bucket is None:
        return ""
    if entry.secret and entry.secret != access.secret_name:
        return (
            f"spec.credentialsSecretName was changed to {shown_name(access.secret_name)} and is"
            f" ignored, because Secret {entry.secret} holds the keys. Create a new BucketAccess"
            " instead."
        )
    if entry.class_name and entry.class_name != access.class_name:
        return (
            f"spec.bucketAccessClassName was changed to {shown_name(access.class_name)} and is"
            f" ignored, because the keys were granted with class {entry.class_name}. Create a new"
            " BucketAccess instead."
        )
    claim = records.bound_claim(bucket)
    if claim.name and access.claim_key != (claim.namespace, claim.name):
        return (
            f"spec.bucketClaimName names {shown_name(access.claim_name)} and is ignored, because"
            f" the keys are for the bucket that BucketClaim {claim.name} has. Create a new"
            " BucketAccess instead."
        )
    if is_of_earlier_claim(view):
        return (
            f"BucketClaim {shown_name(access.claim_name)} was created again, but the keys are for"
            f" Bucket {bucket.meta.name} of the earlier BucketClaim. For keys of the new bucket,"
            " create a new BucketAccess."
        )
    return ""


def is_of_earlier_claim(view: AccessView) -> bool:
    """Whether the access has an entry in the record of a Bucket of an earlier claim."""
    if view.bucket is None or view.claim is None or view.entry is None:
        return False
    bound = records.bound_claim(view.bucket)
    is_same_name = (bound.namespace, bound.name) == view.claim.meta.key
    return is_same_name and bound.uid not in ("", view.claim.meta.uid)


def driver_of(view: AccessView) -> str:
    """The driver of an access: the driver of its Bucket once a Grant began, else of its class.

    Without a class, use the Bucket's driver too, because with the Go controller only the sidecar
    reports that the class is missing.
    """
    if view.access is None:
        return ""
    if view.finished:
        return view.context.driver.name
    has_finalizer = names.ACCESS_FINALIZER in view.access.meta.finalizers
    if view.bucket and (view.entry or has_finalizer or view.access_class is None):
        return records.driver_of(view.bucket)
    return view.access_class.driver_name if view.access_class else ""


def fold(view: AccessView, fact: AccessFact) -> AccessView:
    """Return the view with the fact from a step that succeeded."""
    match fact:
        case AccessIs(access=access):
            return replace(view, access=access, unproven=False)
        case ClaimIs(claim=claim):
            return replace(view, claim=claim, claim_proven=True)
        case BucketIs(bucket=bucket):
            known = view.bucket
            # A new Bucket of the same name has no entry of this access.
            gone = known is not None and (bucket is None or bucket.meta.uid != known.meta.uid)
            return replace(
                view,
                bucket=known if gone else bucket,
                vanished=view.vanished or gone,
                bucket_proven=True,
            )
        case SecretIs() | SecretStored() | SecretAllowed():
            return _with_secret(view, fact)
        case Granted(account_id=account_id, used_by_others=is_used):
            others = view.used_by_others | {account_id} if is_used else view.used_by_others
            return replace(
                view, granted=fact, revoked=view.revoked - {account_id}, used_by_others=others
            )
        case NothingToRevoke():
            return replace(view, nothing_to_revoke=True)
        case Revoked(account_id=account_id):
            return replace(view, revoked=view.revoked | {account_id})
        case UsedByOthers(account_id=account_id):
            return _with_used_by_others(view, account_id)
        case CallFailed():
            return replace(view, failed=fact, judged=view.access)
        case _:
            assert_never(fact)


def _with_secret(view: AccessView, fact: SecretIs | SecretStored | SecretAllowed) -> AccessView:
    match fact:
        case SecretIs():
            name = fact.name or view.secret_key.name
            granted = None if fact.other_keys else view.granted
            return replace(view, granted=granted, secrets={**view.secrets, name: fact})
        case SecretStored():
            stored = SecretIs(exists=True, ours=True, has_finalizer=True)
            return replace(
                view, stored=fact, secrets={**view.secrets, view.secret_key.name: stored}
            )
        case SecretAllowed(refused=refused):
            return replace(view, secret_allowed=not refused, secret_refused=refused)
        case _:
            assert_never(fact)


def _with_used_by_others(view: AccessView, account_id: str) -> AccessView:
    granted, access = view.granted, view.access
    is_new = granted is not None and granted.account_id == account_id
    # A deletion keeps the id, because otherwise it would repeat the Grant to learn the id.
    if is_new and access is not None and not access.meta.deleting:
        granted = None
    return replace(view, used_by_others=view.used_by_others | {account_id}, granted=granted)
