"""The content of a Secret: `BucketInfo` as the Go sidecar writes it, and keys for `envFrom`.

The other keys are names of environment variables: `COSI_*` as upstream's v1alpha2 names them, and
those that the SDKs and command line tools of AWS and Azure read. Their values are what the driver
returned, except that `AWS_*` always has a region and an endpoint with a scheme, because SDKs fail
without them. Source: upstream's main, client/apis/objectstorage/v1alpha2/protocols.go.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from cosi_operator.api import secret
from cosi_operator.api.secret import BUCKET_INFO
from cosi_operator.driver.credentials import AzureCredentials, S3Credentials
from cosi_operator.driver.v1alpha1 import Credentials
from cosi_operator.plan import names
from cosi_operator.plan.secret_values import aws_environment, azure_environment, split_sas

# All our keys besides BucketInfo. An update replaces or removes these keys and no others.
EXTRA_KEYS = frozenset(
    {
        "COSI_PROTOCOL",
        "COSI_BUCKET_NAME",
        "COSI_S3_BUCKET_ID",
        "COSI_S3_ENDPOINT",
        "COSI_S3_REGION",
        "COSI_S3_ACCESS_KEY_ID",
        "COSI_S3_ACCESS_SECRET_KEY",
        "AWS_ENDPOINT_URL",
        "AWS_DEFAULT_REGION",
        "AWS_REGION",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "COSI_AZURE_BUCKET_ID",
        "COSI_AZURE_STORAGE_ACCOUNT",
        "COSI_AZURE_ACCESS_TOKEN",
        "COSI_AZURE_EXPIRY_TIMESTAMP",
        "AZURE_STORAGE_ACCOUNT",
        "AZURE_STORAGE_SAS_TOKEN",
    }
)


@dataclass(frozen=True, slots=True)
class SecretContent:
    """The input for a Secret's content. The repr of `credentials` hides the values.

    `bucket_name` is the name of the Bucket object, `bucket_id` the driver's own id; they differ
    for static Buckets and for several drivers. `grant`: see `AccessRecord.grant`.
    """

    access_uid: str
    bucket_name: str
    bucket_id: str
    account_id: str
    authentication_type: str
    protocols: tuple[str, ...]
    credentials: Credentials
    grant: str = ""


def secret_data(content: SecretContent, *, extra_keys: bool) -> dict[str, str]:
    """The values by key, as text. Without `extra_keys` only `BucketInfo`, as in the Go pair."""
    info = msgspec.json.encode(bucket_info(content)).decode()
    return {BUCKET_INFO: info, **(_environment(content) if extra_keys else {})}


def bucket_info(content: SecretContent) -> dict[str, Any]:
    """The JSON under `BucketInfo`. It has the keys of both protocols; one of them is null."""
    s3, azure = content.credentials.s3, content.credentials.azure
    return secret.bucket_info(
        names.bucket_info_name(content.access_uid),
        bucket_name=content.bucket_name,
        authentication_type=content.authentication_type,
        protocols=content.protocols,
        s3=secret.s3_secret(
            endpoint=s3.endpoint,
            region=s3.region,
            access_key_id=s3.access_key_id,
            access_secret_key=s3.access_secret_key,
        )
        if s3
        else None,
        azure=secret.azure_secret(access_token=azure.access_token, expiry=azure.expiry)
        if azure
        else None,
    )


def _environment(content: SecretContent) -> Mapping[str, str]:
    """The keys besides BucketInfo. Values that are empty or contain a zero byte are omitted.

    A container whose environment contains a zero byte does not start.
    """
    values = {"COSI_BUCKET_NAME": content.bucket_name}
    if (s3 := content.credentials.s3) is not None:
        values |= _s3(s3, content.bucket_id)
    if (azure := content.credentials.azure) is not None:
        values |= _azure(azure, content.bucket_id)
    return {key: value for key, value in values.items() if value and "\0" not in value}


def _s3(s3: S3Credentials, bucket_id: str) -> dict[str, str]:
    cosi = {
        "COSI_PROTOCOL": "S3",
        "COSI_S3_BUCKET_ID": bucket_id,
        "COSI_S3_ENDPOINT": s3.endpoint,
        "COSI_S3_REGION": s3.region,
        "COSI_S3_ACCESS_KEY_ID": s3.access_key_id,
        "COSI_S3_ACCESS_SECRET_KEY": s3.access_secret_key,
    }
    return cosi | aws_environment(s3.endpoint, s3.region, s3.access_key_id, s3.access_secret_key)


def _azure(azure: AzureCredentials, bucket_id: str) -> dict[str, str]:
    account, _ = split_sas(azure.access_token)
    cosi = {
        "COSI_PROTOCOL": "Azure",
        "COSI_AZURE_BUCKET_ID": bucket_id,
        "COSI_AZURE_STORAGE_ACCOUNT": account,
        "COSI_AZURE_ACCESS_TOKEN": azure.access_token,
        "COSI_AZURE_EXPIRY_TIMESTAMP": azure.expiry or "",
    }
    return cosi | azure_environment(azure.access_token)
