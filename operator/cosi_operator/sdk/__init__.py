"""Buckets and keys from Python: classes of kr8s for the five kinds of COSI.

    from cosi_operator.sdk import BucketAccess, BucketClaim

    BucketClaim.get("photos").wait_ready(timeout=60)
    keys = BucketAccess.get("photos-keys").credentials()
    keys.boto3_client().upload_file("cat.jpg", keys.bucket, "cat.jpg")

To install, run: pip install 'cosi-operator[cli]'. The same classes for asyncio are in
`cosi_operator.sdk.asyncio`. kr8s is loaded when a class is first used, so a program in a Pod that
only calls `Credentials.from_environ(os.environ)` works without it.
"""

import importlib
from typing import TYPE_CHECKING, Any

from cosi_operator.sdk.credentials import Credentials
from cosi_operator.sdk.errors import (
    ApiError,
    ApiSilent,
    CredentialsError,
    Forbidden,
    KubeconfigError,
    NotReadyError,
    SdkError,
    StalledError,
)
from cosi_operator.sdk.explanation import Explanation

if TYPE_CHECKING:
    from cosi_operator.sdk.objects import (
        Bucket,
        BucketAccess,
        BucketAccessClass,
        BucketClaim,
        BucketClass,
        api,
    )

__all__ = [
    "ApiError",
    "ApiSilent",
    "Bucket",
    "BucketAccess",
    "BucketAccessClass",
    "BucketClaim",
    "BucketClass",
    "Credentials",
    "CredentialsError",
    "Explanation",
    "Forbidden",
    "KubeconfigError",
    "NotReadyError",
    "SdkError",
    "StalledError",
    "api",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        objects = importlib.import_module("cosi_operator.sdk.objects")
    except ModuleNotFoundError as error:
        if (missing := error.name or "").partition(".")[0] not in ("kr8s", "httpx"):
            raise
    else:
        return getattr(objects, name)
    words = f"{name} needs {missing}; run: pip install 'cosi-operator[cli]'"
    raise ModuleNotFoundError(words, name=missing)
