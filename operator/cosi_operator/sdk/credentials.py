"""The credentials of a BucketAccess, in the form that each library wants."""

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import msgspec
from msgspec import Struct

from cosi_operator.plan.names import bucket_info_name
from cosi_operator.plan.secret_values import (
    DEFAULT_REGION,
    aws_environment,
    azure_environment,
    split_sas,
    with_scheme,
)
from cosi_operator.scrub import shown_name
from cosi_operator.scrub.hidden import Hidden
from cosi_operator.sdk.errors import CredentialsError


class _S3(Hidden, rename={"key_id": "accessKeyID", "secret_key": "accessSecretKey"}):
    endpoint: str = ""
    region: str = ""
    key_id: str = ""
    secret_key: str = ""


class _Azure(Hidden, rename={"token": "accessToken", "expiry": "expiryTimeStamp"}):
    token: str = ""
    expiry: str | None = None


class _Spec(Struct, rename={"bucket": "bucketName", "s3": "secretS3", "azure": "secretAzure"}):
    bucket: str = ""
    s3: _S3 | None = None
    azure: _Azure | None = None


class _BucketInfo(Struct):
    spec: _Spec


class _InfoMeta(Hidden):
    name: str


class _Named(Hidden):
    metadata: _InfoMeta


_decode_named = msgspec.json.Decoder(_Named).decode


@dataclass(frozen=True, slots=True)
class Credentials:
    """Endpoint, region, bucket and keys. The repr shows no key.

    >>> from cosi_operator.sdk import Credentials
    >>> keys = Credentials("S3", "photos-1", "https://s3.example.com", "", "AKIAEXAMPLE", "wJalr")
    >>> keys
    Credentials(protocol='S3', bucket='photos-1', endpoint='https://s3.example.com', region='')

    `bucket` is the driver's name of the bucket, which requests need. `access_token` is set for
    Azure only, and the other keys for S3 only.
    """

    protocol: str
    bucket: str
    endpoint: str = ""
    region: str = ""
    access_key_id: str = field(default="", repr=False)
    access_secret_key: str = field(default="", repr=False)
    access_token: str = field(default="", repr=False)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """From the environment of a Pod that takes the Secret by `envFrom`.

        >>> from cosi_operator.sdk import Credentials
        >>> Credentials.from_environ({
        ...     "COSI_PROTOCOL": "S3", "COSI_S3_BUCKET_ID": "photos-1",
        ...     "COSI_S3_ENDPOINT": "https://s3.example.com", "COSI_S3_REGION": "eu-1",
        ...     "COSI_S3_ACCESS_KEY_ID": "AKIAEXAMPLE", "COSI_S3_ACCESS_SECRET_KEY": "wJalr",
        ... }).region
        'eu-1'

        Raises:
            CredentialsError: the environment holds no Secret of COSI, or not all of it.
        """
        if info := environ.get("BucketInfo"):
            return cls._from_values(info, environ)
        protocol = environ.get("COSI_PROTOCOL", "")
        if protocol not in ("S3", "Azure"):
            raise CredentialsError(
                "neither BucketInfo nor COSI_PROTOCOL is set; add the Secret of the BucketAccess to"
                " `envFrom` of the container"
            )
        return cls(
            protocol,
            environ.get(f"COSI_{protocol.upper()}_BUCKET_ID")
            or environ.get("COSI_BUCKET_NAME", ""),
            environ.get("COSI_S3_ENDPOINT", ""),
            environ.get("COSI_S3_REGION", ""),
            environ.get("COSI_S3_ACCESS_KEY_ID", ""),
            environ.get("COSI_S3_ACCESS_SECRET_KEY", ""),
            environ.get("COSI_AZURE_ACCESS_TOKEN", ""),
        )._complete("the environment")

    @classmethod
    def from_secret(cls, secret: Mapping[str, Any]) -> Self:
        """From a Secret as the API server returns it, with `data` in base64.

        Raises:
            CredentialsError: the sidecar did not write this Secret, or it was changed.
        """
        values = {}
        data = secret.get("data")
        for name, encoded in data.items() if isinstance(data, Mapping) else ():
            try:
                values[name] = base64.b64decode(encoded, validate=True).decode()
            except (binascii.Error, ValueError, TypeError):
                continue  # a key that somebody else added
        if "BucketInfo" not in values:
            raise CredentialsError("the Secret has no readable key BucketInfo")
        return cls._from_values(values["BucketInfo"], values)

    @classmethod
    def _from_values(cls, info: str, values: Mapping[str, str]) -> Self:
        try:
            spec = msgspec.json.decode(info, type=_BucketInfo).spec
        except (ValueError, RecursionError):
            spec = None
        # Outside of `except`: the context of this error could quote a value.
        if spec is None:
            raise CredentialsError("BucketInfo is not the JSON that the sidecar writes")
        if spec.s3 is not None:
            bucket = values.get("COSI_S3_BUCKET_ID") or spec.bucket
            s3 = spec.s3
            found = cls("S3", bucket, s3.endpoint, s3.region, s3.key_id, s3.secret_key)
            return found._complete("BucketInfo")
        if spec.azure is not None:
            bucket = values.get("COSI_AZURE_BUCKET_ID") or spec.bucket
            return cls("Azure", bucket, access_token=spec.azure.token)._complete("BucketInfo")
        raise CredentialsError("BucketInfo has credentials for neither S3 nor Azure")

    def _complete(self, where: str) -> Self:
        """Raise if a value is missing: libraries would take the keys of another account then."""
        needed = {"the bucket": self.bucket}
        if self.protocol == "S3":
            needed |= {"accessKeyID": self.access_key_id, "accessSecretKey": self.access_secret_key}
        else:
            needed |= {"accessToken": self.access_token}
        if missing := [name for name, value in needed.items() if not value]:
            raise CredentialsError(f"{where} lacks {' and '.join(missing)}")
        return self

    @property
    def endpoint_url(self) -> str:
        """The endpoint with a scheme, or "" if the driver named none, as for AWS itself."""
        return with_scheme(self.endpoint)

    def environ(self) -> dict[str, str]:
        """Variables that the SDKs and command lines of AWS and Azure read.

        >>> from cosi_operator.sdk import Credentials
        >>> keys = Credentials("S3", "photos-1", "s3.example.com", "", "AKIAEXAMPLE", "wJalr")
        >>> keys.environ()["AWS_ENDPOINT_URL"], keys.environ()["AWS_REGION"]
        ('https://s3.example.com', 'us-east-1')
        """
        if self.protocol == "Azure":
            found = azure_environment(self.access_token)
        else:
            found = aws_environment(
                self.endpoint, self.region, self.access_key_id, self.access_secret_key
            )
        return _without_empty(**found)

    def boto3_client(self, **options: Any) -> Any:
        """A client of boto3 for this bucket's service, with the bucket's name in the path.

        Args:
            options: for `boto3.client`; they override what is set here.
        Raises:
            CredentialsError: boto3 is not installed, or can't use the endpoint or the region, or
            the bucket is Azure's.
        """
        if self.protocol != "S3":
            raise CredentialsError(f"boto3 needs credentials for S3; these are for {self.protocol}")
        try:
            import boto3
            import botocore.config
            import botocore.exceptions
        except ImportError:
            raise CredentialsError(
                "boto3 is not installed; run: pip install 'cosi-operator[check]'"
            ) from None
        settings: dict[str, Any] = {
            "endpoint_url": self.endpoint_url or None,
            "region_name": self.region or DEFAULT_REGION,
            "aws_access_key_id": self.access_key_id,
            "aws_secret_access_key": self.access_secret_key,
            "config": botocore.config.Config(s3={"addressing_style": "path"}),
        }
        try:
            return boto3.client("s3", **{**settings, **options})
        except (ValueError, botocore.exceptions.BotoCoreError) as error:
            problem = type(error).__name__
        raise CredentialsError(
            f"boto3 can't use the endpoint {shown_name(self.endpoint_url)} in region"
            f" {shown_name(str(settings['region_name']))}, or an option ({problem})"
        )

    def storage_options(self, library: str = "fsspec") -> dict[str, Any]:
        """Options to open `s3://BUCKET/...` with fsspec, pandas, polars or obstore.

        >>> from cosi_operator.sdk import Credentials
        >>> keys = Credentials("S3", "photos-1", "http://10.0.0.7:8333", "", "AKIAEXAMPLE", "wJalr")
        >>> sorted(keys.storage_options("pandas"))
        ['client_kwargs', 'config_kwargs', 'key', 'secret']
        >>> keys.storage_options("polars")["aws_allow_http"]
        'true'

        Raises:
            CredentialsError: the name of the library is not known.
        """
        if library not in _OPTIONS:
            raise CredentialsError(
                f"no options for {library!r}; there are options for {', '.join(_OPTIONS)}"
            )
        return _OPTIONS[library](self)


def is_made_for(secret: Mapping[str, Any], access_uid: str) -> bool:
    """Whether the Secret, as the API server returns it, holds keys of the access with this UID.

    The UID in BucketInfo decides, as in the sidecar. The Go sidecar writes it too.
    """
    try:
        info = base64.b64decode(secret["data"]["BucketInfo"], validate=True)
        name = _decode_named(info).metadata.name
    except (ValueError, LookupError, TypeError, RecursionError, msgspec.DecodeError):
        return False
    return name == bucket_info_name(access_uid)


def _without_empty(**values: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}


def _fsspec(keys: Credentials) -> dict[str, Any]:
    """For s3fs and adlfs, which fsspec and pandas use."""
    if keys.protocol == "Azure":
        account, token = split_sas(keys.access_token)
        return {"account_name": account, "sas_token": token}
    return {
        "key": keys.access_key_id,
        "secret": keys.access_secret_key,
        "client_kwargs": _without_empty(endpoint_url=keys.endpoint_url)
        | {"region_name": keys.region or DEFAULT_REGION},
        "config_kwargs": {"s3": {"addressing_style": "path"}},
    }


def _polars(keys: Credentials) -> dict[str, Any]:
    """For the Rust crate object_store; all values are text."""
    if keys.protocol == "Azure":
        account, token = split_sas(keys.access_token)
        return {"azure_storage_account_name": account, "azure_storage_sas_key": token}
    return _without_empty(aws_endpoint_url=keys.endpoint_url) | {
        "aws_region": keys.region or DEFAULT_REGION,
        "aws_access_key_id": keys.access_key_id,
        "aws_secret_access_key": keys.access_secret_key,
        "aws_virtual_hosted_style_request": "false",
        "aws_allow_http": "true" if _is_plain(keys) else "false",
    }


def _obstore(keys: Credentials) -> dict[str, Any]:
    """Keyword arguments of `obstore.store.S3Store` and `AzureStore`."""
    if keys.protocol == "Azure":
        account, token = split_sas(keys.access_token)
        return {"account_name": account, "sas_key": token}
    return _without_empty(endpoint=keys.endpoint_url) | {
        "region": keys.region or DEFAULT_REGION,
        "access_key_id": keys.access_key_id,
        "secret_access_key": keys.access_secret_key,
        "virtual_hosted_style_request": False,
        "client_options": {"allow_http": _is_plain(keys)},
    }


def _is_plain(keys: Credentials) -> bool:
    return keys.endpoint_url.startswith("http://")


_OPTIONS: dict[str, Callable[[Credentials], dict[str, Any]]] = {
    "fsspec": _fsspec,
    "pandas": _fsspec,
    "polars": _polars,
    "obstore": _obstore,
}
