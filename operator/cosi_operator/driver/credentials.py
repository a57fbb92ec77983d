"""The reply of a driver's Grant, in one neutral form whose repr shows no secret.

Source of the shape: the v1alpha1 interface gives a map with one entry, `s3` or `azure`, and in it
accessKeyID, accessSecretKey, endpoint, region, or accessToken, expiryTs. Drivers differ in how they
write the case (`accessKeyId`), so keys are compared case-insensitively.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import parse_qsl

# Go's time.Time.String(): "2026-01-02 15:04:05.999999999 -0700 MST", sometimes followed by
# " m=+0.1". RFC 3339 is accepted too; it differs only by T and Z.
_GO_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.\d+)? ?(?:Z|([+-])(\d\d):?(\d\d))(?: .*)?"
)


# All values together. The Secret holds them in JSON, where a character can take six bytes, and up
# to three times as plain keys; nine times 100 KiB is less than the API server's limit of 1 MiB for
# a Secret. Linux accepts no environment variable of 128 KiB either. Real keys have 20 to 2,000
# bytes.
CREDENTIALS_LIMIT_BYTES = 100 * 1024


@dataclass(frozen=True, slots=True)
class S3Credentials:
    access_key_id: str = field(repr=False)
    access_secret_key: str = field(repr=False)
    endpoint: str = ""
    region: str = ""


@dataclass(frozen=True, slots=True)
class AzureCredentials:
    """`expiry`: RFC 3339, or None if the driver gave none that can be read."""

    access_token: str = field(repr=False)
    expiry: str | None = None

    @property
    def ends_at(self) -> str | None:
        """`expiry`, or else the expiry that the SAS token itself states (`se`)."""
        return self.expiry or sas_expiry(self.access_token)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Exactly one of both is set."""

    s3: S3Credentials | None = None
    azure: AzureCredentials | None = None


def read_credentials(entries: Mapping[str, Mapping[str, str]]) -> Credentials | str:
    """Complete credentials, or a sentence that names what is missing (never a value).

    Args:
        entries: secret values by key, by protocol.
    """
    if len(entries) != 1:
        return f"the reply has credentials for {len(entries)} protocols instead of one"
    [(protocol, values)] = entries.items()
    secrets = {key.lower(): value for key, value in values.items()}
    # Values under unknown keys count too, because a driver that returns that much is faulty.
    size_bytes = sum(len(value.encode()) for value in secrets.values())
    if size_bytes > CREDENTIALS_LIMIT_BYTES:
        return (
            f"the credentials have {size_bytes} bytes, and a Secret has room for"
            f" {CREDENTIALS_LIMIT_BYTES} at most"
        )
    match protocol.lower():
        case "s3":
            return _s3(secrets)
        case "azure":
            return _azure(secrets)
        case _:
            return f'credentials are keyed {protocol[:32]!r}, which is neither "s3" nor "azure"'


def _s3(secrets: Mapping[str, str]) -> Credentials | str:
    wanted = ("accessKeyID", "accessSecretKey")
    if missing := [key for key in wanted if not secrets.get(key.lower())]:
        return f"the S3 credentials lack {' and '.join(missing)}"
    return Credentials(
        s3=S3Credentials(
            access_key_id=secrets["accesskeyid"],
            access_secret_key=secrets["accesssecretkey"],
            endpoint=secrets.get("endpoint", ""),
            region=secrets.get("region", ""),
        )
    )


def _azure(secrets: Mapping[str, str]) -> Credentials | str:
    token = secrets.get("accesstoken")
    if not token:
        return "the Azure credentials lack accessToken"
    return Credentials(azure=AzureCredentials(token, to_rfc3339(secrets.get("expiryts", ""))))


def sas_expiry(token: str) -> str | None:
    """The signed expiry of a SAS, bare or as the query of a URL, as RFC 3339; None if it has none.

    Microsoft's driver returns such a URL and no expiryTs. Without `sig` the token is not a SAS.
    Source: Azure Storage, "Create a service SAS": UTC, as a date, to the minute or to the second.
    """
    query = dict(parse_qsl(token.partition("?")[2] or token))
    if "sig" not in query:
        return None
    try:
        end = datetime.fromisoformat(query.get("se", ""))
        end = end.replace(tzinfo=end.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return end.strftime("%Y-%m-%dT%H:%M:%SZ")


def to_rfc3339(go_time: str) -> str | None:
    """`2026-01-02 15:04:05.9 +0200 CEST` as `2026-01-02T13:04:05Z`; None if it is not a time."""
    found = _GO_TIME.fullmatch(go_time.strip())
    if found is None:
        return None
    day, clock, sign, hours, minutes = found.groups()
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    try:
        zone = timezone(-offset if sign == "-" else offset)
        local = datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=zone)
        return local.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError):  # the 31st of February, or a zone of 99 hours
        return None
