"""`resources`, `decode` and `encode` as one module, for `hack/` and tests.

The package imports those three, so that only `api/`, `driver/` and `rpc/` name an API version.
"""

from cosi_operator.api.decode import (
    decode_bucket,
    decode_bucket_access,
    decode_bucket_access_class,
    decode_bucket_claim,
    decode_bucket_class,
)
from cosi_operator.api.encode import (
    CONDITIONS_LIMIT_BYTES,
    SHORT_MESSAGE,
    annotate_status,
    bucket_body,
    claim_reference,
    keeps_conditions,
    with_plain_status,
    with_status,
)
from cosi_operator.api.resources import (
    BUCKET_ACCESS_CLASSES,
    BUCKET_ACCESSES,
    BUCKET_CLAIMS,
    BUCKET_CLASSES,
    BUCKETS,
    GROUP,
    STATUS_ANNOTATION,
    VERSION,
)

__all__ = [
    "BUCKETS",
    "BUCKET_ACCESSES",
    "BUCKET_ACCESS_CLASSES",
    "BUCKET_CLAIMS",
    "BUCKET_CLASSES",
    "CONDITIONS_LIMIT_BYTES",
    "GROUP",
    "SHORT_MESSAGE",
    "STATUS_ANNOTATION",
    "VERSION",
    "annotate_status",
    "bucket_body",
    "claim_reference",
    "decode_bucket",
    "decode_bucket_access",
    "decode_bucket_access_class",
    "decode_bucket_claim",
    "decode_bucket_class",
    "keeps_conditions",
    "with_plain_status",
    "with_status",
]
