"""What stands in the way of a Grant before any driver is called. Pure.

Each text names the field, the fix, and who can do it.
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
from cosi_operator.plan.access_view import AccessView, authentication_of
from cosi_operator.scrub import shown_name

# Secrets can't be watched with the rights that real drivers' charts give, so a name that someone
# else holds is looked at again this often (one GET).
SECRET_RECHECK_S = 30.0


OVERSIZED = Terminal(
    Reason.INVALID_OBJECT,
    "The spec of this BucketAccess is larger than 4 KiB, so it was not read."
    " Delete it and create a new BucketAccess.",
)


def problem_of(access: BucketAccess, view: AccessView) -> Terminal | None:
    """The first reason why the driver is not called; None when it may be."""
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
            " does not exist."
            " Create it, or name another one in a new BucketAccess.",
            waiting=True,
        )
    return _bucket_problem(access, view.claim, view)


def class_missing(access: BucketAccess) -> Terminal:
    """What controller and sidecar both write, so that neither replaces the words of the other."""
    return Terminal(
        Reason.ACCESS_CLASS_NOT_FOUND,
        f"spec.bucketAccessClassName names BucketAccessClass {shown_name(access.class_name)}, which"
        " does not exist. Name another class in a new BucketAccess, or ask your cluster"
        " administrator to create it.",
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
            f" {records.driver_of(bucket)}."
            " Use a BucketAccessClass of that driver in a new BucketAccess.",
        )
    # The record decides; a tenant may write the status of the claim.
    ready = bucket and bucket.ready and records.bucket_id_of(bucket)
    if bucket is None or not ready or not records.is_bound_to(bucket, claim):
        return Terminal(
            Reason.WAITING_FOR_BUCKET,
            f"BucketClaim {shown_name(str(access.claim_key))} is not ready yet. To see why, run:"
            " kubectl describe"
            f" bucketclaim {shown_name(access.claim_name)} -n {access.meta.namespace}",
            waiting=True,
        )
    if bucket.meta.deleting:
        return Terminal(Reason.BEING_DELETED, f"Bucket {bucket.meta.name} is being deleted.")
    return _protocol_problem(access, bucket)


def _protocol_problem(access: BucketAccess, bucket: Bucket) -> Terminal | None:
    spoken = [protocol.lower() for protocol in bucket.protocols]
    if not access.protocol or not spoken or access.protocol.lower() in spoken:
        return None
    return Terminal(
        Reason.INVALID_SPEC,
        f"spec.protocol is {shown_name(access.protocol)}, but the bucket of BucketClaim"
        f" {shown_name(str(access.claim_key))}"
        f" has {', '.join(bucket.protocols)}. Name one of these in a new BucketAccess.",
    )


def _invalid(access: BucketAccess, access_class: BucketAccessClass) -> str:
    # A word that is neither Key nor IAM is sent as Unknown, as the Go sidecar does: many drivers
    # do not look at it, and those that do refuse it in their own words.
    is_iam = authentication_of(access_class) is AuthenticationType.IAM
    if is_iam and not access.service_account_name:
        return (
            f"BucketAccessClass {access_class.meta.name} has authenticationType IAM, which needs"
            " spec.serviceAccountName. Set it in a new BucketAccess."
        )
    if not access.secret_name:
        return "spec.credentialsSecretName is empty. Name the Secret for the keys."
    if not names.is_object_name(access.secret_name):
        return (
            f"spec.credentialsSecretName {shown_name(access.secret_name)!r} can't be the name of"
            " a Secret. Use"
            " lower case letters, digits, '-' and '.', at most 253, in a new BucketAccess."
        )
    return ""


def secret_problem(view: AccessView) -> Terminal | None:
    """Why the Secret can't be created, if the API server or its owner does not allow it."""
    secret, key = view.secret, view.secret_key
    if secret is not None and secret.exists and not secret.ours:
        return Terminal(
            Reason.SECRET_NOT_OWNED,
            f"spec.credentialsSecretName: Secret {key} exists and was not made for this"
            " BucketAccess, so it is not touched. Delete or rename that Secret (checked again every"
            f" {SECRET_RECHECK_S:.0f} s), or use another name in a new BucketAccess.",
            recheck_s=SECRET_RECHECK_S,
        )
    if view.secret_refused:
        return Terminal(
            Reason.SECRET_REFUSED,
            f"The API server would not store Secret {key}: {view.secret_refused} No access was"
            " granted. Correct what the API server names; the Secret is tried again every"
            f" {SECRET_RECHECK_S:.0f} s.",
            recheck_s=SECRET_RECHECK_S,
        )
    return None
