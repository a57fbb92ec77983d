"""Names, finalizers and annotations that both halves of COSI v1alpha1 know.

Source: COSI v0.2.2, sidecar and controller; the `cosi.` annotations are ours alone.
"""

import re

CLAIM_FINALIZER = "cosi.objectstorage.k8s.io/bucketclaim-protection"
BUCKET_FINALIZER = "cosi.objectstorage.k8s.io/bucket-protection"
ACCESS_FINALIZER = "cosi.objectstorage.k8s.io/bucketaccess-protection"
BUCKET_ACCESS_FINALIZER = "cosi.objectstorage.k8s.io/bucketaccess-bucket-protection"
SECRET_FINALIZER = "cosi.objectstorage.k8s.io/secret-protection"  # noqa: S105 - a finalizer

RETRY_ANNOTATION = "objectstorage.k8s.io/retry"
# On our Secrets: whose credentials they are. For people to read; a tenant may write it.
ACCOUNT_ID_ANNOTATION = "cosi.objectstorage.k8s.io/account-id"

# On a BucketAccess: a new value renews its keys.
ROTATE_ANNOTATION = "objectstorage.k8s.io/rotate"
# On a BucketClaim: create a new bucket although an older Bucket names this claim. The value is the
# UID of the claim.
NEW_BUCKET_ANNOTATION = "objectstorage.k8s.io/new-bucket"
# On a Bucket, so only an administrator can set them. The value is the UID of the Bucket: delete it
# although its claim is in use.
FORCE_DELETE_ANNOTATION = "objectstorage.k8s.io/force-delete"
# The value is one or more UIDs, of the Bucket or of its BucketAccesses, separated by commas: end
# their deletion without knowing what the driver still holds.
GIVE_UP_ANNOTATION = "objectstorage.k8s.io/give-up"


def bucket_name(claim_uid: str) -> str:
    """The Bucket made for a claim; also the idempotency key of DriverCreateBucket."""
    return f"bucket-{claim_uid}"


def account_name(access_uid: str) -> str:
    """The idempotency key of DriverGrantBucketAccess."""
    return f"ba-{access_uid}"


def bucket_info_name(access_uid: str) -> str:
    """`metadata.name` inside the Secret's BucketInfo; it tells whose Secret it is."""
    return f"bc-{access_uid}"


def same_driver(one: str, other: str) -> bool:
    """Driver names are compared without regard to case, as upstream does."""
    return one.lower() == other.lower()


def is_object_name(name: str) -> bool:
    """Whether the API server takes it as the name of a Secret (RFC 1123 subdomain)."""
    label = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
    return len(name) <= 253 and re.fullmatch(rf"{label}(\.{label})*", name) is not None
