"""The kinds of objectstorage.k8s.io, their API paths, and the annotations that `api/` reads."""

from cosi_operator.api.view import Resource

GROUP = "objectstorage.k8s.io"
VERSION = "v1alpha1"

BUCKET_CLASSES = Resource(GROUP, VERSION, "bucketclasses", "BucketClass", namespaced=False)
BUCKET_ACCESS_CLASSES = Resource(
    GROUP, VERSION, "bucketaccessclasses", "BucketAccessClass", namespaced=False
)
BUCKET_CLAIMS = Resource(GROUP, VERSION, "bucketclaims", "BucketClaim", namespaced=True)
BUCKETS = Resource(GROUP, VERSION, "buckets", "Bucket", namespaced=False)
BUCKET_ACCESSES = Resource(GROUP, VERSION, "bucketaccesses", "BucketAccess", namespaced=True)

STATUS_ANNOTATION = f"cosi.{GROUP}/status"
"""Contains our own status fields as JSON if the served schema drops them."""
RETRY_ANNOTATION = f"{GROUP}/retry"
"""A new value retries a failed driver call."""
