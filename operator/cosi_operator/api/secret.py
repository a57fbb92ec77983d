"""The JSON under the key `BucketInfo` of a Secret, as the Go sidecar writes it.

Pods of the Go pair parse it, so no fields are added. The dicts hold credentials: never log them.
Source: COSI v0.2.2, sidecar.
"""

from collections.abc import Mapping
from typing import Any

BUCKET_INFO = "BucketInfo"
# The parts of `spec` that hold the credentials. One of them is null.
CREDENTIAL_FIELDS = ("secretS3", "secretAzure")


def s3_secret(
    *, endpoint: str, region: str, access_key_id: str, access_secret_key: str
) -> dict[str, str]:
    return {
        "endpoint": endpoint,
        "region": region,
        "accessKeyID": access_key_id,
        "accessSecretKey": access_secret_key,
    }


def azure_secret(*, access_token: str, expiry: str | None) -> dict[str, str | None]:
    return {"accessToken": access_token, "expiryTimeStamp": expiry}


def bucket_info(
    name: str,
    *,
    bucket_name: str,
    authentication_type: str,
    protocols: tuple[str, ...],
    s3: Mapping[str, str] | None,
    azure: Mapping[str, str | None] | None,
) -> dict[str, Any]:
    """Return the whole JSON. `name`: identifies the access that the Secret belongs to."""
    return {
        "metadata": {"name": name, "creationTimestamp": None},
        "spec": {
            "bucketName": bucket_name,
            "authenticationType": authentication_type,
            "secretS3": s3,
            "secretAzure": azure,
            "protocols": list(protocols),
        },
    }
