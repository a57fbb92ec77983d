"""Credentials from a driver's reply: complete in one shape, or named as missing; never shown."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosi_operator.driver.credentials import (
    AzureCredentials,
    Credentials,
    S3Credentials,
    read_credentials,
    to_rfc3339,
)

SECRET = "very-secret-value"
S3 = {"accessKeyID": "AK", "accessSecretKey": SECRET, "endpoint": "https://s3", "region": "r"}


@pytest.mark.parametrize(
    ("protocol", "spell"),
    [
        pytest.param("s3", str, id="as the interface has it"),
        pytest.param("S3", str, id="the protocol in capitals"),
        pytest.param("s3", str.lower, id="all lower case"),
        pytest.param("s3", str.upper, id="all upper case"),
        pytest.param("s3", lambda key: key.replace("ID", "Id"), id="as the sample driver has it"),
    ],
)
def test_keys_count_without_regard_to_case(protocol: str, spell: type[str]) -> None:
    entries = {protocol: {spell(key): value for key, value in S3.items()}}
    assert read_credentials(entries) == Credentials(
        s3=S3Credentials("AK", SECRET, "https://s3", "r")
    )


def test_endpoint_and_region_may_be_missing_and_more_may_be_there() -> None:
    entries = {"s3": {"accessKeyID": "AK", "accessSecretKey": SECRET, "sessionToken": "x"}}
    assert read_credentials(entries) == Credentials(s3=S3Credentials("AK", SECRET))


def test_an_azure_token_with_and_without_its_end() -> None:
    azure = {"accessToken": SECRET, "expiryTs": "2026-01-02 15:04:05.9 +0200 CEST"}
    assert read_credentials({"azure": azure}) == Credentials(
        azure=AzureCredentials(SECRET, "2026-01-02T13:04:05Z")
    )
    assert read_credentials({"Azure": {"ACCESSTOKEN": SECRET}}) == Credentials(
        azure=AzureCredentials(SECRET, None)
    )


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        pytest.param({}, "the reply has credentials for 0 protocols instead of one", id="none"),
        pytest.param(
            {"s3": S3, "azure": {}},
            "the reply has credentials for 2 protocols instead of one",
            id="two",
        ),
        pytest.param(
            {"gcs": {"key": SECRET}},
            'credentials are keyed \'gcs\', which is neither "s3" nor "azure"',
            id="of another protocol",
        ),
        pytest.param(
            {"s3": {}}, "the S3 credentials lack accessKeyID and accessSecretKey", id="no keys"
        ),
        pytest.param(
            {"s3": {"accessKeyID": SECRET}},
            "the S3 credentials lack accessSecretKey",
            id="half of a pair",
        ),
        pytest.param(
            {"s3": {"accessKeyID": "", "accessSecretKey": SECRET}},
            "the S3 credentials lack accessKeyID",
            id="an empty value is a missing one",
        ),
        pytest.param(
            {"azure": {"expiryTs": SECRET}},
            "the Azure credentials lack accessToken",
            id="no Azure token",
        ),
    ],
)
def test_what_is_missing_is_named(entries: dict[str, dict[str, str]], sentence: str) -> None:
    assert read_credentials(entries) == sentence


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param({"s3": {**S3, "accessSecretKey": "k" * 1_500_000}}, id="a key"),
        pytest.param({"s3": {**S3, "region": "k" * 1_500_000}}, id="a region"),
        pytest.param({"s3": {**S3, "note": "k" * 1_500_000}}, id="a value that is not used"),
        pytest.param({"azure": {"accessToken": "k" * 1_500_000}}, id="a token"),
        pytest.param({"s3": {"accessKeyID": "\u00e9" * 750_000}}, id="two bytes a letter"),
    ],
)
def test_credentials_too_large_for_a_secret_are_refused_before_it_is_created(
    entries: dict[str, dict[str, str]],
) -> None:
    problem = read_credentials(entries)
    assert isinstance(problem, str)
    assert re.fullmatch(
        r"the credentials have 15\d{5} bytes, and a Secret has room for 102400 at most", problem
    )


# A value that could not be part of a sentence of ours by chance.
VALUES = st.text("0123456789", min_size=6, max_size=12).map(lambda digits: f"<{digits}>")
KEYS = st.sampled_from(["accessKeyID", "AccessKeyId", "accessSecretKey", "accessToken", "expiryTs"])


@given(
    entries=st.dictionaries(
        st.sampled_from(["s3", "azure", "gcs"]), st.dictionaries(KEYS, VALUES), max_size=2
    )
)
def test_no_value_is_ever_in_a_sentence_or_a_repr(entries: dict[str, dict[str, str]]) -> None:
    found = read_credentials(entries)
    shown = f"{found} {found!r}"
    for values in entries.values():
        for value in values.values():
            assert value not in shown


SAS = "sp=rl&sv=2024-08-04&sig=a%2Bb%3D"


@pytest.mark.parametrize(
    ("token", "end"),
    [
        pytest.param(f"https://acc.blob.core.windows.net/?se=2026-01-02T15%3A04%3A05Z&{SAS}",
                     "2026-01-02T15:04:05Z", id="the query of a URL"),
        pytest.param(f"{SAS}&se=2026-01-02T15:04Z", "2026-01-02T15:04:00Z", id="bare, to a minute"),
        pytest.param(f"?{SAS}&se=2026-01-02", "2026-01-02T00:00:00Z", id="a date"),
        pytest.param(f"{SAS}&se=2026-01-02T15%3A04%3A05.1234567Z", "2026-01-02T15:04:05Z",
                     id="parts of a second"),
        pytest.param(SAS, None, id="a SAS with a stored policy has no expiry"),
        pytest.param(f"{SAS}&se=soon", None, id="not a time"),
        pytest.param("a=b&se=2026-01-02", None, id="without a signature it is not a SAS"),
        pytest.param(SECRET, None, id="another token"),
        pytest.param(f"{SAS}&se=0001-01-01T00:00:00%2B02:00", None, id="before the first year"),
    ],
)  # fmt: skip
def test_the_expiry_that_a_sas_states_counts_if_the_driver_names_none(
    token: str, end: str | None
) -> None:
    found = read_credentials({"azure": {"accessToken": token}})
    assert isinstance(found, Credentials)
    assert found.azure is not None
    assert (found.azure.expiry, found.azure.ends_at) == (None, end)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("2026-01-02 15:04:05 +0000 UTC", "2026-01-02T15:04:05Z", id="Go, UTC"),
        pytest.param("2026-01-02 15:04:05.999999999 -0700 MST", "2026-01-02T22:04:05Z", id="Go"),
        pytest.param(
            "2026-01-02 15:04:05.1 +0000 UTC m=+0.1", "2026-01-02T15:04:05Z", id="Go, monotonic"
        ),
        pytest.param("2026-01-02T15:04:05Z", "2026-01-02T15:04:05Z", id="RFC 3339"),
        pytest.param("2026-01-02T15:04:05+01:30", "2026-01-02T13:34:05Z", id="RFC 3339, a zone"),
        pytest.param("", None, id="nothing"),
        pytest.param("tomorrow", None, id="a word"),
        pytest.param("2026-02-31 15:04:05 +0000 UTC", None, id="a day that does not exist"),
        pytest.param("2026-01-02 15:04:05 +9900 X", None, id="a zone that does not exist"),
        pytest.param("0001-01-01 00:00:00 +0200 X", None, id="before the first year"),
    ],
)
def test_times(text: str, expected: str | None) -> None:
    assert to_rfc3339(text) == expected
