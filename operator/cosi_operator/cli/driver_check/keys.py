"""Does S3 accept a key? boto3 is loaded only for `cosi driver check --s3` (the extra `check`)."""

import importlib.util
from collections.abc import Callable
from typing import Any, Protocol

import anyio

from cosi_operator.clock import Clock
from cosi_operator.driver.credentials import S3Credentials

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 10.0
# Services take a moment to know a new key, or to forget one.
SETTLE_S = 10.0
LOOK_EVERY_S = 0.5
OBJECT = "cosi-check"
NO_BUCKET = "NoSuchBucket"
DENIED = ("AccessDenied", "403", "Forbidden")


class KeyTrialError(Exception):
    """The key could not be tried at all; the text says why, without the key."""


class Keys(Protocol):
    """Tries keys."""

    async def answer(
        self, key: S3Credentials, buckets: tuple[str, ...], is_expected: Callable[[str], bool]
    ) -> str:
        """What S3 says to this key: "" accepted, else the name of its error.

        Args:
            buckets: names that the bucket may have; the first that exists counts.
            is_expected: another answer is asked for again, for `SETTLE_S` seconds.
        Raises:
            KeyTrialError: S3 could not be asked.
        """


def can_try_keys() -> bool:
    """Whether the library is installed."""
    return importlib.util.find_spec("boto3") is not None


class S3Keys:
    """Tries keys by reading the bucket's list, or by writing and removing one object."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def answer(
        self, key: S3Credentials, buckets: tuple[str, ...], is_expected: Callable[[str], bool]
    ) -> str:
        """See `Keys`."""
        give_up_at = self._clock.monotonic() + SETTLE_S
        while True:
            said = await anyio.to_thread.run_sync(_ask, key, buckets)
            if is_expected(said) or self._clock.monotonic() >= give_up_at:
                return said
            await self._clock.sleep(LOOK_EVERY_S)


def _ask(key: S3Credentials, buckets: tuple[str, ...]) -> str:
    from botocore.exceptions import BotoCoreError

    try:
        client = _client(key)
        said = NO_BUCKET
        for bucket in buckets:
            said = _use(client, bucket)
            if said != NO_BUCKET:
                break
    except (BotoCoreError, ValueError) as error:
        raise KeyTrialError(
            f"S3 at {key.endpoint} can't be asked: {type(error).__name__}"
        ) from None
    return said


def _use(client: Any, bucket: str) -> str:
    from botocore.exceptions import ClientError

    try:
        client.list_objects_v2(Bucket=bucket, MaxKeys=1)
    except ClientError as error:
        if _code(error) not in DENIED:
            return _code(error)
    else:
        return ""
    try:
        client.put_object(Bucket=bucket, Key=OBJECT, Body=b"")
        client.delete_object(Bucket=bucket, Key=OBJECT)
    except ClientError as error:
        return _code(error)
    return ""


def _code(error: Any) -> str:
    return str(error.response["Error"]["Code"])[:80]


def _client(key: S3Credentials) -> Any:
    import boto3
    import botocore.config

    return boto3.client(
        "s3",
        endpoint_url=key.endpoint,
        region_name=key.region or "us-east-1",
        aws_access_key_id=key.access_key_id,
        aws_secret_access_key=key.access_secret_key,
        config=botocore.config.Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            retries={"total_max_attempts": 1},
            s3={"addressing_style": "path"},
        ),
    )
