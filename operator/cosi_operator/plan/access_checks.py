"""Checks before a Grant that need no driver call. Pure.

Each message names the field, the fix, and the person who can apply the fix.
"""

from cosi_operator.api.view import (
    AuthenticationType,
    Bucket,
    BucketAccess,
    BucketAccessClass,
    BucketClaim,
)
from cosi_operator.outcome import Reason, Terminal
from cosi_operator.plan import names, records
from cosi_operator.plan.access_view import AccessView, authentication_of, is_of_earlier_claim
from cosi_operator.scrub import shown_name

# How often (one GET) a Secret name that is in use is checked again. The roles in the charts of real
# drivers do not allow to watch Secrets.
SECRET_RECHECK_S = 30.0


OVERSIZED = Terminal(
    Reason.INVALID_OBJECT,
    "The spec of this BucketAccess is larger than 4 KiB, so it was not read."
    " Delete this BucketAccess and create a new one.",
)


def problem_of(access: BucketAccess, view: AccessView) -> Terminal | None:
    """The first problem that forbids a driver call; None when the driver may be called."""
    if access.meta.oversized:
        return OVERSIZED
    if view.access_class is None:
        return class_missing(access)
    if invalid := _invalid(access, view.access_class):
        return Terminal(Reason.INVALID_SPEC, invalid)
    if view.claim is None:
        return Terminal(
            Reason.CLAIM_NOT_FOUND,
            f"spec.bucketClaimName names BucketClaim {shown_name(str(access.claim_key))}, which"
            " does not exist. Create that BucketClaim, or create a new BucketAccess that names"
            " another one.",
            waiting=True,
        )
    return _bucket_problem(access, view.claim, view)


def class_missing(access: BucketAccess) -> Terminal:
    """One outcome for controller and sidecar, so neither overwrites the other's message."""
    return Terminal(
        Reason.ACCESS_CLASS_NOT_FOUND,
        f"spec.bucketAccessClassName names BucketAccessClass {shown_name(access.class_name)}, which"
        " does not exist. Create a new BucketAccess that names another class, or ask your cluster"
        " administrator to create this class.",
        waiting=True,
    )


def _bucket_problem(access: BucketAccess, claim: BucketClaim, view: AccessView) -> Terminal | None:
    bucket = view.bucket
    driver = view.access_class.driver_name if view.access_class else ""
    if claim.meta.deleting:
        return Terminal(
            Reason.BEING_DELETED,
            f"BucketClaim {shown_name(str(access.claim_key))} is being deleted, so no new access"
            " to it is granted.",
        )
    if bucket and not names.same_driver(records.driver_of(bucket), driver):
        return Terminal(
            Reason.DRIVER_MISMATCH,
            f"spec.bucketAccessClassName names a class of driver {driver}, but the bucket of"
            f" BucketClaim {shown_name(str(access.claim_key))} belongs to driver"
            f" {records.driver_of(bucket)}. Create a new BucketAccess that names a"
            " BucketAccessClass of that driver.",
        )
    if bucket and is_of_earlier_claim(view):
        return Terminal(
            Reason.CLAIM_NOT_FOUND,
            "This BucketAccess was begun for an earlier BucketClaim"
            f" {shown_name(str(access.claim_key))} with another UID, and may have keys of Bucket"
            f" {bucket.meta.name}. Delete this BucketAccess and create a new one.",
        )
    # Trust the record only, because a tenant may write the status of the claim.
    ready = bucket and bucket.ready and bucket.record and records.bucket_id_of(bucket)
    if bucket is None or not ready or not records.is_bound_to(bucket, claim):
        return Terminal(
            Reason.WAITING_FOR_BUCKET,
            f"BucketClaim {shown_name(str(access.claim_key))} is not ready yet. To see why, run:"
            f" kubectl describe bucketclaim {shown_name(access.claim_name)} -n"
            f" {access.meta.namespace}",
            waiting=True,
        )
    # A deleted Bucket waits for its claim, and until then the keys to it are renewed.
    if bucket.meta.deleting and not (view.entry and view.entry.accounts):
        return Terminal(Reason.BEING_DELETED, f"Bucket {bucket.meta.name} is being deleted.")
    return _protocol_problem(access, bucket)


def _protocol_problem(access: BucketAccess, bucket: Bucket) -> Terminal | None:
    spoken = [protocol.lower() for protocol in bucket.protocols]
    if not access.protocol or not spoken or access.protocol.lower() in spoken:
        return None
    return Terminal(
        Reason.INVALID_SPEC,
        f"spec.protocol is {shown_name(access.protocol)}, but the bucket of BucketClaim"
        f" {shown_name(str(access.claim_key))} supports {', '.join(bucket.protocols)}. Create a"
        " new BucketAccess with one of these protocols.",
    )


def _invalid(access: BucketAccess, access_class: BucketAccessClass) -> str:
    # A type that is neither Key nor IAM is sent as Unknown, as the Go sidecar does. Many drivers
    # ignore the type, and the others refuse it with their own message.
    is_iam = authentication_of(access_class) is AuthenticationType.IAM
    if is_iam and not access.service_account_name:
        return (
            f"BucketAccessClass {access_class.meta.name} has authenticationType IAM, which needs"
            " spec.serviceAccountName. Create a new BucketAccess with that field set."
        )
    if not access.secret_name:
        return "spec.credentialsSecretName is empty. Set it to a name for the Secret with the keys."
    if not names.is_object_name(access.secret_name):
        return (
            f"spec.credentialsSecretName {shown_name(access.secret_name)!r} is not a valid name of"
            " a Secret. In a new BucketAccess, use at most 253 lower case letters, digits, '-' and"
            " '.'."
        )
    return ""


def secret_problem(view: AccessView) -> Terminal | None:
    """Why the Secret can't be created: its name is in use, or the API server refuses it."""
    secret, key = view.secret, view.secret_key
    if secret is not None and secret.exists and not secret.ours:
        return Terminal(
            Reason.SECRET_NOT_OWNED,
            f"Secret {key}, which spec.credentialsSecretName names, exists and was not created for"
            " this BucketAccess, so it is not changed. Delete that Secret (the name is checked"
            f" again every {SECRET_RECHECK_S:.0f} s), or use another name in a new BucketAccess.",
            recheck_s=SECRET_RECHECK_S,
        )
    return _immutable(view) or _refused(view, "No access was granted.")


def rotation_problem(view: AccessView) -> Terminal | None:
    """Why the new keys of a rotation can't be stored in the Secret."""
    return _immutable(view) or _refused(view, "The Secret keeps the old keys.")


def _immutable(view: AccessView) -> Terminal | None:
    if view.secret is None or not view.secret.immutable:
        return None
    return Terminal(
        Reason.SECRET_REFUSED,
        f"Secret {view.secret_key} is immutable, so new keys can't be stored in it. For new keys,"
        " create a new BucketAccess with another spec.credentialsSecretName.",
        recheck_s=SECRET_RECHECK_S,
    )


def _refused(view: AccessView, effect: str) -> Terminal | None:
    if not view.secret_refused:
        return None
    return Terminal(
        Reason.SECRET_REFUSED,
        f"The API server refused to store Secret {view.secret_key}: {view.secret_refused} {effect}"
        " Correct this problem, or ask your cluster administrator to correct it. The operator"
        f" tries again every {SECRET_RECHECK_S:.0f} s.",
        recheck_s=SECRET_RECHECK_S,
    )
