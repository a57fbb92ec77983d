"""Credentials: each library gets the names that it reads, and no text shows a key."""

import base64
import dataclasses
import json
import pickle
from typing import Any

import pytest
from tests.unit.sdk.conftest import KEY_ID, SECRET_KEY, bucket_info

from cosi_operator.sdk import Credentials, CredentialsError

SAS = "https://photos.blob.core.windows.net/?sv=1&sig=SECRETSIGNATURE"


def secret(info: object, **values: str) -> dict[str, Any]:
    texts = {"BucketInfo": info if isinstance(info, str) else json.dumps(info), **values}
    return {
        "data": {name: base64.b64encode(text.encode()).decode() for name, text in texts.items()}
    }


S3 = Credentials.from_secret(secret(bucket_info(), COSI_S3_BUCKET_ID="photos-1"))
AZURE = Credentials.from_secret(
    secret(bucket_info(secretS3=None, secretAzure={"accessToken": SAS, "expiryTimeStamp": None}))
)


def test_the_drivers_name_of_the_bucket_overrides_the_name_of_the_object() -> None:
    assert (S3.bucket, S3.region, S3.access_secret_key) == ("photos-1", "eu-1", SECRET_KEY)
    assert Credentials.from_secret(secret(bucket_info())).bucket == "bucket-1"


def test_the_environment_of_a_pod_gives_the_same_as_the_secret() -> None:
    with_info = {"BucketInfo": json.dumps(bucket_info()), "COSI_S3_BUCKET_ID": "photos-1"}
    without = {
        "COSI_PROTOCOL": "S3",
        "COSI_S3_BUCKET_ID": "photos-1",
        "COSI_S3_ENDPOINT": "https://s3.example.com",
        "COSI_S3_REGION": "eu-1",
        "COSI_S3_ACCESS_KEY_ID": KEY_ID,
        "COSI_S3_ACCESS_SECRET_KEY": SECRET_KEY,
    }
    assert Credentials.from_environ(with_info) == Credentials.from_environ(without) == S3


@pytest.mark.parametrize(
    ("library", "expected"),
    [
        pytest.param(
            "pandas",
            {
                "key": KEY_ID,
                "secret": SECRET_KEY,
                "client_kwargs": {
                    "endpoint_url": "https://s3.example.com", "region_name": "eu-1",
                },
                "config_kwargs": {"s3": {"addressing_style": "path"}},
            },
            id="pandas -> s3fs",
        ),
        pytest.param(
            "polars",
            {
                "aws_endpoint_url": "https://s3.example.com",
                "aws_region": "eu-1",
                "aws_access_key_id": KEY_ID,
                "aws_secret_access_key": SECRET_KEY,
                "aws_virtual_hosted_style_request": "false",
                "aws_allow_http": "false",
            },
            id="polars -> object_store",
        ),
        pytest.param(
            "obstore",
            {
                "endpoint": "https://s3.example.com",
                "region": "eu-1",
                "access_key_id": KEY_ID,
                "secret_access_key": SECRET_KEY,
                "virtual_hosted_style_request": False,
                "client_options": {"allow_http": False},
            },
            id="obstore -> S3Store",
        ),
    ],
)  # fmt: skip
def test_each_library_gets_the_names_that_it_reads(library: str, expected: object) -> None:
    assert S3.storage_options(library) == expected


def test_azure_has_an_account_and_a_token() -> None:
    assert AZURE.environ() == {
        "AZURE_STORAGE_ACCOUNT": "photos",
        "AZURE_STORAGE_SAS_TOKEN": "sv=1&sig=SECRETSIGNATURE",
    }
    assert AZURE.storage_options() == {
        "account_name": "photos", "sas_token": "sv=1&sig=SECRETSIGNATURE",
    }  # fmt: skip
    assert AZURE.storage_options("polars")["azure_storage_account_name"] == "photos"
    assert AZURE.storage_options("obstore")["account_name"] == "photos"
    with pytest.raises(CredentialsError, match="these are for Azure"):
        AZURE.boto3_client()


def test_a_client_of_boto3_uses_the_endpoint_the_region_and_paths() -> None:
    client = S3.boto3_client()
    assert client.meta.endpoint_url == "https://s3.example.com"
    assert client.meta.region_name == "eu-1"
    url = client.generate_presigned_url("get_object", Params={"Bucket": S3.bucket, "Key": "k"})
    assert url.startswith("https://s3.example.com/photos-1/k?")
    assert S3.boto3_client(region_name="other").meta.region_name == "other"


def test_without_an_endpoint_each_library_uses_the_one_of_aws() -> None:
    keys = dataclasses.replace(S3, endpoint="")
    assert keys.boto3_client().meta.endpoint_url == "https://s3.eu-1.amazonaws.com"
    assert "AWS_ENDPOINT_URL" not in keys.environ()
    assert keys.storage_options()["client_kwargs"] == {"region_name": "eu-1"}
    assert "aws_endpoint_url" not in keys.storage_options("polars")
    assert "endpoint" not in keys.storage_options("obstore")


@pytest.mark.parametrize("credentials", [S3, AZURE], ids=["S3", "Azure"])
def test_no_text_shows_a_key(credentials: Credentials) -> None:
    for text in (repr(credentials), str(credentials), f"{credentials}"):
        assert not any(key in text for key in (KEY_ID, SECRET_KEY, "SECRETSIGNATURE"))
    assert pickle.loads(pickle.dumps(credentials)) == credentials


@pytest.mark.parametrize(
    ("found", "told"),
    [
        pytest.param({}, "no readable key BucketInfo", id="an empty Secret"),
        pytest.param({"data": {"BucketInfo": "%%%"}}, "no readable key BucketInfo", id="no base64"),
        pytest.param(secret("{" + SECRET_KEY), "is not the JSON", id="no JSON"),
        pytest.param(
            secret({"spec": {"secretS3": {"accessSecretKey": [SECRET_KEY]}}}),
            "is not the JSON",
            id="another shape",
        ),
        pytest.param(secret({"spec": {}}), "neither S3 nor Azure", id="no protocol"),
        pytest.param(
            secret({"spec": {"bucketName": "b", "secretS3": {"accessKeyID": KEY_ID}}}),
            "BucketInfo lacks accessSecretKey$",
            id="half of the keys",
        ),
        pytest.param(
            secret({"spec": {"secretAzure": {}}}),
            "BucketInfo lacks the bucket and accessToken$",
            id="no token",
        ),
    ],
)
def test_a_secret_that_cant_be_used_is_refused_without_a_value(
    found: dict[str, Any], told: str
) -> None:
    with pytest.raises(CredentialsError, match=told) as raised:
        Credentials.from_secret(found)
    assert SECRET_KEY not in str(raised.value)
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


def test_an_environment_without_the_secret_says_what_to_do() -> None:
    with pytest.raises(CredentialsError, match="envFrom"):
        Credentials.from_environ({"PATH": "/bin"})
    with pytest.raises(CredentialsError, match="the environment lacks accessKeyID and access"):
        Credentials.from_environ({"COSI_PROTOCOL": "S3", "COSI_S3_BUCKET_ID": "photos-1"})


def test_an_unknown_library_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(CredentialsError, match="fsspec, pandas, polars, obstore"):
        S3.storage_options("dask")
