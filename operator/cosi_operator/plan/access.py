"""What the sidecar does next for one BucketAccess. Pure.

Grant: a look at the Secret's name and a dry run, the intent (finalizer, driver, bucket id) by a
conditional write, the mark on the Bucket, DriverGrantBucketAccess, the Secret, status. Many
drivers mint new keys, some even a new account, each time: so a Grant is never repeated while a
Secret of ours holds credentials. Deletion: Revoke, the Secret if it is ours, the mark, the
finalizer.
"""

from dataclasses import dataclass, replace
from typing import assert_never

from cosi_operator.api.view import (
    AuthenticationType,
    Bucket,
    BucketAccess,
    BucketAccessClass,
    BucketClaim,
    Key,
)
from cosi_operator.outcome import Call, DriverStatus, MadeBy, Reason, Success, Terminal
from cosi_operator.plan import names
from cosi_operator.plan.steps import (
    AccessDeleting,
    AccessesListed,
    AccessIs,
    AccessStep,
    BackendGone,
    BackendIs,
    BucketIs,
    ClaimIs,
    Context,
    DeleteSecret,
    Done,
    DryRunSecret,
    EditBucketFinalizers,
    EditFinalizers,
    Fact,
    Grant,
    Granted,
    MarkPending,
    ReadAccessObject,
    ReadSecret,
    Revoke,
    Revoked,
    SecretAllowed,
    SecretIs,
    StoreSecret,
)
from cosi_operator.plan.verdicts import (
    backing_off,
    driver_away,
    refused_before_effect,
    standing,
)

# Secrets can't be watched with the rights that real drivers' charts give, so a name that someone
# else holds is looked at again this often (one GET).
SECRET_RECHECK_S = 30.0
UNKNOWN = AuthenticationType.UNKNOWN


@dataclass(frozen=True, slots=True)
class AccessView:
    """Everything one run may look at.

    `claim` and `bucket` are what the access leads to, by name; `shared` tells that another access
    still needs the mark on the Bucket. `clean`: when the run began, it was certain that no earlier
    Grant had left anything. `unproven`: nothing in this run has shown yet that `access` is not
    an old copy. `secret` is None until it was read. `granted` is a Grant whose credentials this
    process still holds.
    """

    access: BucketAccess | None
    access_class: BucketAccessClass | None
    claim: BucketClaim | None
    bucket: Bucket | None
    context: Context
    shared: bool = False
    clean: bool = False
    unproven: bool = False
    secret: SecretIs | None = None
    secret_allowed: bool = False
    secret_refused: str = ""
    granted: Granted | None = None
    revoked: bool = False
    unverified: bool = False

    @property
    def secret_key(self) -> Key:
        assert self.access is not None
        return Key(self.access.meta.namespace, self.access.secret_name)


def is_clean(access: BucketAccess | None) -> bool:
    """Whether no earlier run can have made an account: none could call, or none had effect."""
    if access is None or names.ACCESS_FINALIZER not in access.meta.finalizers:
        return True
    return refused_before_effect(access.last_call, Call.GRANT_ACCESS)


def retry_token(access: BucketAccess) -> str:
    return access.meta.annotations.get(names.RETRY_ANNOTATION, "")


def judged_on(access: BucketAccess, access_class: BucketAccessClass | None) -> str:
    """What besides its own spec a verdict on an access holds for: the retry annotation, the class.

    A Bucket holds a copy of its class; an access is granted with what its class says now.
    """
    made_for = f"{access_class.meta.uid}:{access_class.meta.generation}" if access_class else ""
    return f"{retry_token(access)}|{made_for}"


def driver_of(view: AccessView) -> str:
    """The driver that an access belongs to: its intent, else its class, else its Bucket."""
    if view.access is None:
        return ""
    if recorded := view.access.meta.annotations.get(names.DRIVER_ANNOTATION):
        return recorded
    if view.access_class:
        return view.access_class.driver_name
    if names.ACCESS_FINALIZER in view.access.meta.finalizers and view.bucket:
        return view.bucket.driver_name
    return ""


def plan(view: AccessView) -> AccessStep:
    """Name the next step."""
    access = view.access
    if access is None or not names.same_driver(driver_of(view), view.context.driver.name):
        return Done(Success(), report=False)
    if access.meta.deleting:
        return _plan_deletion(access, view)
    if _settled(access):
        return Done(Success())
    problem = _problem(access, view)
    if problem:
        return Done(problem)
    assert view.bucket is not None  # _problem said so
    return _plan_grant(access, view.bucket, view)


def _settled(access: BucketAccess) -> bool:
    """Granted, and no retry annotation asks to look whether the Secret is still there."""
    held = access.granted and access.account_id and names.ACCESS_FINALIZER in access.meta.finalizers
    seen = access.last_call.retry_token.partition("|")[0] if access.last_call else ""
    return bool(held) and retry_token(access) in ("", seen)


def _problem(access: BucketAccess, view: AccessView) -> Terminal | None:
    """What stands in the way before any driver is asked; each names the field and the fix."""
    if view.access_class is None:
        return Terminal(
            Reason.ACCESS_CLASS_NOT_FOUND,
            f"spec.bucketAccessClassName names BucketAccessClass {access.class_name},"
            " which does not exist. Create it, or name another one in a new BucketAccess.",
            waiting=True,
        )
    if invalid := _invalid(access, view.access_class):
        return Terminal(Reason.INVALID_SPEC, invalid)
    claim, bucket = view.claim, view.bucket
    if claim is None:
        return Terminal(
            Reason.CLAIM_NOT_FOUND,
            f"spec.bucketClaimName names BucketClaim {access.claim_key}, which does not exist."
            " Create it, or name another one in a new BucketAccess.",
            waiting=True,
        )
    if claim.meta.deleting:
        return Terminal(
            Reason.BEING_DELETED,
            f"BucketClaim {access.claim_key} is being deleted, so no new access to it is granted.",
        )
    if bucket and bucket.claim and bucket.claim.uid not in ("", claim.meta.uid):
        return Terminal(
            Reason.BUCKET_ALREADY_BOUND,
            f"Bucket {bucket.meta.name} is bound to another BucketClaim than {access.claim_key}.",
        )
    if bucket and not names.same_driver(bucket.driver_name, view.context.driver.name):
        return Terminal(
            Reason.DRIVER_MISMATCH,
            f"spec.bucketAccessClassName names a class of driver {view.context.driver.name}, but"
            f" the bucket of BucketClaim {access.claim_key} belongs to driver {bucket.driver_name}."
            " Use a BucketAccessClass of that driver in a new BucketAccess.",
        )
    if bucket is None or not (claim.ready and bucket.ready and bucket.bucket_id):
        return Terminal(
            Reason.WAITING_FOR_BUCKET,
            f"BucketClaim {access.claim_key} is not ready yet;"
            " `kubectl describe bucketclaim` tells why.",
            waiting=True,
        )
    if bucket.meta.deleting:
        return Terminal(Reason.BEING_DELETED, f"Bucket {bucket.meta.name} is being deleted.")
    return None


def _invalid(access: BucketAccess, access_class: BucketAccessClass) -> str:
    kinds = [kind.value for kind in AuthenticationType if kind]
    if access_class.authentication_type not in kinds:
        return (
            f"authenticationType of BucketAccessClass {access_class.meta.name} is"
            f" {access_class.authentication_type!r}; set it to one of {', '.join(kinds)}."
        )
    if (
        access_class.authentication_type == AuthenticationType.IAM
        and not access.service_account_name
    ):
        return (
            f"BucketAccessClass {access_class.meta.name} has authenticationType IAM, which needs"
            " spec.serviceAccountName. Set it in a new BucketAccess."
        )
    if not access.secret_name:
        return "spec.credentialsSecretName is empty. Name the Secret that shall hold the keys."
    if not names.is_object_name(access.secret_name):
        return (
            f"spec.credentialsSecretName {access.secret_name!r} can't be the name of a Secret. Use"
            " lower case letters, digits, '-' and '.', at most 253, in a new BucketAccess."
        )
    return ""


def _plan_grant(access: BucketAccess, bucket: Bucket, view: AccessView) -> AccessStep:
    token = judged_on(access, view.access_class)
    verdict = standing(access, Call.GRANT_ACCESS, view.context, token=token)
    if verdict and not view.granted:  # with credentials in hand only the Secret is missing
        return verdict
    if view.secret is None:
        return ReadSecret(view.secret_key)
    if view.secret.exists or view.secret_refused or view.granted:
        return _plan_secret(access, bucket, view.secret, view)
    if away := driver_away(view.context):
        return away
    if not view.secret_allowed:
        return DryRunSecret(view.secret_key)
    return _plan_mint(access, bucket, view)


def _plan_secret(
    access: BucketAccess, bucket: Bucket, secret: SecretIs, view: AccessView
) -> AccessStep:
    """The Secret's name is taken or refused, or there are credentials to store in it."""
    if secret.ours:
        # The crash came between the Secret and the status. Ours has its finalizers by then; the Go
        # sidecar's come after the Secret, and without them a deletion would leave keys that work.
        return _plan_hold(access, bucket, view) or Done(Success())
    granted = view.granted
    if granted and granted.problem:
        reply = DriverStatus(Call.GRANT_ACCESS, granted.code, MadeBy.REPLY, granted.problem)
        reason = Reason.NO_CREDENTIALS if granted.account_id else Reason.EMPTY_ACCOUNT_ID
        return Done(Terminal(reason, "", status=reply))
    if granted and (secret.exists or view.secret_refused):
        # The name was taken after the dry run: no key may stay that no Secret holds.
        return Revoke(bucket.bucket_id, granted.account_id, _parameters(view))
    if granted:
        return StoreSecret(view.secret_key, granted.account_id, bucket.bucket_id)
    if secret.exists:
        return Done(
            Terminal(
                Reason.SECRET_NOT_OWNED,
                f"spec.credentialsSecretName: Secret {view.secret_key} exists and was not made for"
                " this BucketAccess, so it is not touched. Delete or rename that Secret (this goes"
                f" on by itself within {SECRET_RECHECK_S:.0f} s), or use another name in a new"
                " BucketAccess.",
                recheck_s=SECRET_RECHECK_S,
            )
        )
    return Done(
        Terminal(
            Reason.SECRET_REFUSED,
            f"The API server would not store Secret {view.secret_key}: {view.secret_refused}"
            " No access was granted. Repair what it names; this is looked at again"
            f" every {SECRET_RECHECK_S:.0f} s.",
            recheck_s=SECRET_RECHECK_S,
        )
    )


def _plan_hold(access: BucketAccess, bucket: Bucket, view: AccessView) -> AccessStep | None:
    """The intent on the access, then the mark on the Bucket; None when both are there."""
    intent = {
        names.DRIVER_ANNOTATION: view.context.driver.name,
        names.BUCKET_ID_ANNOTATION: bucket.bucket_id,
    }
    recorded = all(access.meta.annotations.get(k) == v for k, v in intent.items())
    if names.ACCESS_FINALIZER not in access.meta.finalizers or not recorded:
        return EditFinalizers(access.meta.key, add=(names.ACCESS_FINALIZER,), annotations=intent)
    if names.BUCKET_ACCESS_FINALIZER not in bucket.meta.finalizers:
        return EditBucketFinalizers(bucket.meta.key, add=(names.BUCKET_ACCESS_FINALIZER,))
    return None


def _plan_mint(access: BucketAccess, bucket: Bucket, view: AccessView) -> AccessStep:
    """Intent, mark, Grant: all that can fail without the driver has been looked at by now."""
    if hold := _plan_hold(access, bucket, view):
        return hold
    if access.account_id and not view.revoked:
        # An account whose keys no Secret holds (the Secret was removed, or there were no keys):
        # it goes before another one is made, or its keys would work for ever.
        token = judged_on(access, view.access_class)
        return standing(access, Call.REVOKE_ACCESS, view.context, token=token) or Revoke(
            bucket.bucket_id, access.account_id, _parameters(view)
        )
    if refused_before_effect(access.last_call, Call.GRANT_ACCESS):
        return MarkPending(Call.GRANT_ACCESS)
    if view.unproven:  # an old list may show an access that is long gone: nobody would revoke this
        return ReadAccessObject(access.meta.key)
    return _grant(access, bucket.bucket_id, view, resolving=False)


def _grant(
    access: BucketAccess, bucket_id: str, view: AccessView, *, resolving: bool
) -> AccessStep:
    kind = view.access_class.authentication_type if view.access_class else ""
    return Grant(
        bucket_id=bucket_id,
        name=names.account_name(access.meta.uid),
        authentication_type=AuthenticationType(kind)
        if kind in set(AuthenticationType)
        else UNKNOWN,
        parameters=_parameters(view),
        resolving=resolving,
    )


def _parameters(view: AccessView) -> dict[str, str]:
    return dict(view.access_class.parameters) if view.access_class else {}


def _plan_deletion(access: BucketAccess, view: AccessView) -> AccessStep:
    if names.ACCESS_FINALIZER not in access.meta.finalizers:
        return Done(Success(), report=False)
    if view.secret is None and access.secret_name:
        return ReadSecret(view.secret_key)
    if not view.revoked and (step := _plan_revoke(access, view)):
        return step
    if view.secret is not None and view.secret.exists and view.secret.ours:
        return DeleteSecret(view.secret_key)
    bucket = view.bucket
    if bucket and names.BUCKET_ACCESS_FINALIZER in bucket.meta.finalizers and not view.shared:
        return EditBucketFinalizers(bucket.meta.key, remove=(names.BUCKET_ACCESS_FINALIZER,))
    return EditFinalizers(access.meta.key, remove=(names.ACCESS_FINALIZER,))


def _plan_revoke(access: BucketAccess, view: AccessView) -> AccessStep | None:
    # Not from the recorded intent: a tenant may write annotations, and must not be able to point
    # a Revoke at someone else's bucket. The mark keeps the Bucket until this access is gone.
    bucket = view.bucket
    bucket_id = bucket.bucket_id if bucket else ""
    if bucket is None or not bucket_id:
        return None  # the Bucket was removed by force: there is nothing the driver could be asked
    if not names.same_driver(bucket.driver_name, view.context.driver.name):
        # Only a forged annotation leads here: the id is another driver's, and may be anyone's here.
        return None
    account_id = access.account_id
    if not account_id and view.granted:
        account_id = view.granted.account_id
    if not account_id and view.secret and view.secret.ours:
        # Keys are there, so an account is; the Go sidecar's Secrets do not say which.
        account_id = view.secret.account_id or names.account_name(access.meta.uid)
    if account_id:
        token = judged_on(access, view.access_class)
        return (
            standing(access, Call.REVOKE_ACCESS, view.context, token=token)
            or driver_away(view.context)
            or Revoke(bucket_id, account_id, _parameters(view))
        )
    if refused_before_effect(access.last_call, Call.GRANT_ACCESS):
        return None
    if names.BUCKET_ACCESS_FINALIZER not in bucket.meta.finalizers:
        return None  # the mark precedes every Grant: none was made, or all is revoked already
    # An earlier Grant may have made an account whose id was never learned: ask again to learn it.
    if halt := backing_off(view.context) or driver_away(view.context):
        return halt
    if view.unproven:
        return ReadAccessObject(access.meta.key)
    return _grant(access, bucket_id, view, resolving=True)


def fold(view: AccessView, fact: Fact) -> AccessView:
    """The view after a step succeeded."""
    match fact:
        case AccessIs(access=access):
            return replace(view, access=access, unproven=False)
        case BucketIs(bucket=bucket):
            return replace(view, bucket=bucket)
        case SecretIs():
            return replace(view, secret=fact)
        case SecretAllowed(refused=refused):
            return replace(view, secret_allowed=not refused, secret_refused=refused)
        case Granted():
            return replace(view, granted=fact)
        case Revoked(unverified=unverified):
            return replace(view, revoked=True, granted=None, unverified=unverified)
        case ClaimIs() | AccessDeleting() | AccessesListed() | BackendIs() | BackendGone():
            raise AssertionError(f"no step of a BucketAccess yields {fact}")
        case _:
            assert_never(fact)
