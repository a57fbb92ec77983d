"""What a Secret holds: `BucketInfo` as the Go sidecar writes it, and keys that `envFrom` takes."""

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosi_operator.api.secret import BUCKET_INFO
from cosi_operator.driver.credentials import (
    CREDENTIALS_LIMIT_BYTES,
    AzureCredentials,
    Credentials,
    S3Credentials,
    read_credentials,
)
from cosi_operator.sidecar.secret_content import (
    EXTRA_KEYS,
    SecretContent,
    bucket_info,
    secret_data,
)

S3 = S3Credentials("AKIA", "s3cret", "https://s3.example.com", "eu")
CONTENT = SecretContent(
    access_uid="uid-1",
    bucket_name="bucket-uid-0",
    bucket_id="id-7",
    account_id="acct-7",
    authentication_type="Key",
    protocols=("S3",),
    credentials=Credentials(s3=S3),
)


def extra(content: SecretContent) -> dict[str, str]:
    data = secret_data(content, extra_keys=True)
    assert json.loads(data.pop(BUCKET_INFO)) == bucket_info(content)
    return data


def extra_s3(s3: S3Credentials) -> dict[str, str]:
    return extra(replace(CONTENT, credentials=Credentials(s3=s3)))


def extra_azure(token: str, expiry: str | None = None) -> dict[str, str]:
    return extra(replace(CONTENT, credentials=Credentials(azure=AzureCredentials(token, expiry))))


def test_s3_keys_in_the_shape_that_pods_of_the_go_pair_read() -> None:
    """Go's sidecar v0.2.2 writes the name of the Bucket object, not the driver's id."""
    assert secret_data(CONTENT, extra_keys=False) == {
        "BucketInfo": '{"metadata":{"name":"bc-uid-1","creationTimestamp":null},'
        '"spec":{"bucketName":"bucket-uid-0","authenticationType":"Key",'
        '"secretS3":{"endpoint":"https://s3.example.com","region":"eu","accessKeyID":"AKIA",'
        '"accessSecretKey":"s3cret"},"secretAzure":null,"protocols":["S3"]}}'
    }


def test_azure_keys_in_the_shape_that_pods_of_the_go_pair_read() -> None:
    azure = Credentials(azure=AzureCredentials("t0ken", "2026-01-02T03:04:05Z"))
    content = replace(CONTENT, credentials=azure, authentication_type="IAM", protocols=("",))
    assert secret_data(content, extra_keys=False) == {
        "BucketInfo": '{"metadata":{"name":"bc-uid-1","creationTimestamp":null},'
        '"spec":{"bucketName":"bucket-uid-0","authenticationType":"IAM","secretS3":null,'
        '"secretAzure":{"accessToken":"t0ken","expiryTimeStamp":"2026-01-02T03:04:05Z"},'
        '"protocols":[""]}}'
    }


def test_s3_keys_for_env_from() -> None:
    assert extra(CONTENT) == {
        "COSI_PROTOCOL": "S3",
        "COSI_BUCKET_NAME": "bucket-uid-0",
        "COSI_S3_BUCKET_ID": "id-7",
        "COSI_S3_ENDPOINT": "https://s3.example.com",
        "COSI_S3_REGION": "eu",
        "COSI_S3_ACCESS_KEY_ID": "AKIA",
        "COSI_S3_ACCESS_SECRET_KEY": "s3cret",
        "AWS_ENDPOINT_URL": "https://s3.example.com",
        "AWS_DEFAULT_REGION": "eu",
        "AWS_REGION": "eu",
        "AWS_ACCESS_KEY_ID": "AKIA",
        "AWS_SECRET_ACCESS_KEY": "s3cret",
    }


def test_without_a_region_sdks_get_the_usual_one_and_cosi_keys_say_what_the_driver_said() -> None:
    keys = extra_s3(replace(S3, region=""))
    assert (keys["AWS_REGION"], keys["AWS_DEFAULT_REGION"]) == ("us-east-1", "us-east-1")
    assert "COSI_S3_REGION" not in keys


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        pytest.param("s3.example.com", "https://s3.example.com", id="a host -> https"),
        pytest.param("10.0.0.1:9000", "https://10.0.0.1:9000", id="an IP and a port -> https"),
        pytest.param("http://s3.example.com", "http://s3.example.com", id="http -> as it is"),
        pytest.param("", None, id="none -> AWS itself"),
    ],
)
def test_the_endpoint_of_an_sdk_has_a_scheme(endpoint: str, url: str | None) -> None:
    keys = extra_s3(replace(S3, endpoint=endpoint))
    assert keys.get("AWS_ENDPOINT_URL") == url
    assert keys.get("COSI_S3_ENDPOINT") == (endpoint or None)


SAS = "sv=2024-01-01&sp=rw&sig=abc%2Fdef%3D"


@pytest.mark.parametrize(
    ("token", "account", "sas"),
    [
        pytest.param(f"https://acct.blob.core.windows.net/?{SAS}", "acct", SAS, id="an account"),
        pytest.param(f"https://acct.blob.core.windows.net/c?{SAS}", "acct", SAS, id="a container"),
        pytest.param(f"https://acct.blob.core.chinacloudapi.cn/?{SAS}", "acct", SAS, id="China"),
        pytest.param(f"http://127.0.0.1:10000/dev/c?{SAS}", "dev", SAS, id="an emulator"),
        pytest.param(f"http://localhost:10000/dev?{SAS}", "dev", SAS, id="an emulator by name"),
        pytest.param(f"https://blobs.example.com/c?{SAS}", None, SAS, id="a custom domain"),
        pytest.param(SAS, None, SAS, id="a SAS alone"),
        pytest.param(f"?{SAS}", None, SAS, id="a SAS with its question mark"),
        pytest.param("eyJhbGciOi.J9", None, None, id="some other token"),
        pytest.param("https://[::1/?sig=x", None, None, id="a broken URL"),
    ],
)
def test_azure_keys_for_env_from(token: str, account: str | None, sas: str | None) -> None:
    found = extra_azure(token, "2026-01-02T03:04:05Z")
    wanted = {
        "COSI_PROTOCOL": "Azure",
        "COSI_BUCKET_NAME": "bucket-uid-0",
        "COSI_AZURE_BUCKET_ID": "id-7",
        "COSI_AZURE_STORAGE_ACCOUNT": account,
        "COSI_AZURE_ACCESS_TOKEN": token,
        "COSI_AZURE_EXPIRY_TIMESTAMP": "2026-01-02T03:04:05Z",
        "AZURE_STORAGE_ACCOUNT": account,
        "AZURE_STORAGE_SAS_TOKEN": sas,
    }
    assert found == {key: value for key, value in wanted.items() if value is not None}
    assert "COSI_AZURE_EXPIRY_TIMESTAMP" not in extra_azure(token)


def test_a_value_that_would_stop_a_container_from_starting_is_left_out() -> None:
    keys = extra_s3(replace(S3, access_key_id="AK\0IA"))
    assert {"COSI_S3_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID"}.isdisjoint(keys)
    assert keys["AWS_SECRET_ACCESS_KEY"] == "s3cret"


TEXT = st.text(st.characters(codec="utf-8"), max_size=40)


@given(texts=st.tuples(TEXT, TEXT, TEXT, TEXT, TEXT), azure=st.booleans())
def test_whatever_a_driver_returns_the_keys_are_ours_and_environment_variables(
    texts: tuple[str, str, str, str, str], azure: bool
) -> None:
    bucket_id, *values = texts
    credentials = (
        Credentials(azure=AzureCredentials(values[0], values[1]))
        if azure
        else Credentials(s3=S3Credentials(*values))
    )
    data = secret_data(
        replace(CONTENT, bucket_id=bucket_id, credentials=credentials), extra_keys=True
    )
    assert set(data) <= {BUCKET_INFO, *EXTRA_KEYS}
    for key, value in data.items():
        assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key)  # Kubernetes skips any other name
        assert value
        assert "\0" not in value


# The API server's limit for all values of a Secret, MaxSecretSize in its API.
MAX_SECRET_BYTES = 1024 * 1024


@pytest.mark.parametrize(
    "letter",
    [
        pytest.param("x", id="plain"),
        pytest.param("\x01", id="escaped to six bytes"),
        pytest.param("\U0001f511", id="four bytes"),
    ],
)
@pytest.mark.parametrize("protocol", ["s3", "azure"])
def test_the_longest_credentials_that_are_accepted_fit_into_a_secret(
    protocol: str, letter: str
) -> None:
    room = CREDENTIALS_LIMIT_BYTES // len(letter.encode())
    long = {
        "s3": {"accessKeyID": letter, "accessSecretKey": letter * (room - 1)},
        "azure": {"accessToken": letter * room},
    }[protocol]
    found = read_credentials({protocol: long})
    assert isinstance(found, Credentials)
    content = replace(CONTENT, bucket_id="i" * 64 * 1024, credentials=found)
    size = sum(len(value.encode()) for value in secret_data(content, extra_keys=True).values())
    assert size < MAX_SECRET_BYTES
    longer = read_credentials({protocol: {**long, "region": letter}})
    assert longer == (
        f"the credentials have {CREDENTIALS_LIMIT_BYTES + len(letter.encode())} bytes, and a Secret"
        " has room for 102400 at most"
    )


def test_what_a_secret_is_made_from_never_shows_its_keys() -> None:
    assert "s3cret" not in repr(CONTENT)
    assert "AKIA" not in repr(CONTENT)
