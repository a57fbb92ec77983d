"""What the classes of both flavours have in common: names of the five kinds, and fields. Pure."""

from typing import Any

import msgspec

from cosi_operator.api import v1alpha1
from cosi_operator.api.view import Resource
from cosi_operator.sdk.diagnosis import is_ready
from cosi_operator.sdk.work import Kind


def is_ready_now(kind: Kind, raw: Any) -> bool:
    """Whether the object, as it was read last, is ready."""
    return is_ready(kind.decode(msgspec.json.encode(dict(raw))))


def field(raw: Any, *path: str) -> str:
    """A text in the object, or "" while it is not set."""
    for name in path:
        raw = raw.get(name) if isinstance(raw, dict) else None
    return raw if isinstance(raw, str) else ""


class ClaimNames:
    """Names of BucketClaim, as kr8s wants them."""

    resource: Resource = v1alpha1.BUCKET_CLAIMS
    version = v1alpha1.BUCKET_CLAIMS.api_version
    endpoint = plural = v1alpha1.BUCKET_CLAIMS.plural
    kind = v1alpha1.BUCKET_CLAIMS.kind
    singular = "bucketclaim"
    namespaced = True


class AccessNames:
    """Names of BucketAccess, as kr8s wants them."""

    resource: Resource = v1alpha1.BUCKET_ACCESSES
    version = v1alpha1.BUCKET_ACCESSES.api_version
    endpoint = plural = v1alpha1.BUCKET_ACCESSES.plural
    kind = v1alpha1.BUCKET_ACCESSES.kind
    singular = "bucketaccess"
    namespaced = True


class BucketNames:
    """Names of Bucket, as kr8s wants them."""

    resource: Resource = v1alpha1.BUCKETS
    version = v1alpha1.BUCKETS.api_version
    endpoint = plural = v1alpha1.BUCKETS.plural
    kind = v1alpha1.BUCKETS.kind
    singular = "bucket"
    namespaced = False


class BucketClassNames:
    """Names of BucketClass, as kr8s wants them."""

    resource: Resource = v1alpha1.BUCKET_CLASSES
    version = v1alpha1.BUCKET_CLASSES.api_version
    endpoint = plural = v1alpha1.BUCKET_CLASSES.plural
    kind = v1alpha1.BUCKET_CLASSES.kind
    singular = "bucketclass"
    namespaced = False


class AccessClassNames:
    """Names of BucketAccessClass, as kr8s wants them."""

    resource: Resource = v1alpha1.BUCKET_ACCESS_CLASSES
    version = v1alpha1.BUCKET_ACCESS_CLASSES.api_version
    endpoint = plural = v1alpha1.BUCKET_ACCESS_CLASSES.plural
    kind = v1alpha1.BUCKET_ACCESS_CLASSES.kind
    singular = "bucketaccessclass"
    namespaced = False
