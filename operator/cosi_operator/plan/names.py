"""Names, finalizers and annotations that controller and sidecar share.

Source: COSI v0.2.2, sidecar and controller; the `cosi.` annotations belong to this project only.
"""

import re

from cosi_operator.api import resources

CLAIM_FINALIZER = "cosi.objectstorage.k8s.io/bucketclaim-protection"
BUCKET_FINALIZER = "cosi.objectstorage.k8s.io/bucket-protection"
ACCESS_FINALIZER = "cosi.objectstorage.k8s.io/bucketaccess-protection"
BUCKET_ACCESS_FINALIZER = "cosi.objectstorage.k8s.io/bucketaccess-bucket-protection"
SECRET_FINALIZER = "cosi.objectstorage.k8s.io/secret-protection"  # noqa: S105 - a finalizer

RETRY_ANNOTATION = resources.RETRY_ANNOTATION
# On our Secrets: the account of the credentials. For people only, because a tenant may write it.
ACCOUNT_ID_ANNOTATION = "cosi.objectstorage.k8s.io/account-id"
GRANT_ANNOTATION = "cosi.objectstorage.k8s.io/grant"

# On a BucketAccess: a new value rotates its keys.
ROTATE_ANNOTATION = "objectstorage.k8s.io/rotate"
# On a BucketClaim: create a new bucket although an older Bucket names this claim. The value is the
# UID of the claim.
NEW_BUCKET_ANNOTATION = "objectstorage.k8s.io/new-bucket"
# On a Bucket, so only an administrator can set the next two annotations. Delete the Bucket although
# its claim still exists. The value is the UID of the Bucket.
FORCE_DELETE_ANNOTATION = "objectstorage.k8s.io/force-delete"
# End a deletion without knowing what the backend still holds. The value is one or more UIDs of the
# Bucket or of its BucketAccesses, separated by commas.
GIVE_UP_ANNOTATION = "objectstorage.k8s.io/give-up"


# On our Leases, for `cosi drivers`: the version of the process that holds the Lease, and its retry
# policy. The Go sidecar keeps annotations, so the holder that wrote them is one of them.
HOLDER_ANNOTATION = "cosi.objectstorage.k8s.io/holder"
VERSION_ANNOTATION = "cosi.objectstorage.k8s.io/version"
POLICY_ANNOTATION = "cosi.objectstorage.k8s.io/retry-policy"


def bucket_name(claim_uid: str) -> str:
    """The name of the Bucket for a claim; also the idempotency key of DriverCreateBucket."""
    return f"bucket-{claim_uid}"


def is_dynamic(bucket_name: str) -> bool:
    """Whether a Bucket has a name as `bucket_name` makes them."""
    uuid = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    return re.fullmatch(f"bucket-{uuid}", bucket_name) is not None


def account_name(access_uid: str) -> str:
    """The idempotency key of DriverGrantBucketAccess."""
    return f"ba-{access_uid}"


def bucket_info_name(access_uid: str) -> str:
    """`metadata.name` inside the Secret's BucketInfo; identifies the owner of the Secret."""
    return f"bc-{access_uid}"


def lease_name(owner: str) -> str:
    """The name of a process's Lease: as upstream names it, so that both exclude each other.

    >>> lease_name("sample.objectstorage.k8s.io/cosi")
    'sample-objectstorage-k8s-io-cosi'
    >>> lease_name("Odd.")
    'odd-x'
    """
    name = re.sub(r"[^a-zA-Z0-9-]", "-", owner)
    return f"{name}X".lower() if name.endswith("-") else name.lower()


def same_driver(one: str, other: str) -> bool:
    """Compare driver names case-insensitively, as upstream does."""
    return one.lower() == other.lower()


def is_object_name(name: str) -> bool:
    """Whether the API server accepts this name for a Secret (RFC 1123 subdomain)."""
    label = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
    return len(name) <= 253 and re.fullmatch(rf"{label}(\.{label})*", name) is not None
