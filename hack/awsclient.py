"""boto3 clients as this repository makes them. boto3 has no types, so its border is kept here.

Every client has deadlines, makes one attempt per call, uses path-style addresses (a bucket's name
need not resolve as a host) and never goes through a proxy.
"""

from dataclasses import dataclass
from typing import Any

import boto3
import botocore.config

CONNECT_TIMEOUT_S = 3.0
READ_TIMEOUT_S = 10.0
MAX_CONNECTIONS = 16


@dataclass(frozen=True, slots=True)
class Account:
    """Where an S3 service with an IAM API is, and the key to use there."""

    endpoint: str
    """As in http://127.0.0.1:8333; both APIs answer there."""
    region: str
    access_key: str
    secret_key: str

    def __repr__(self) -> str:
        """Leave out the keys, so that no log or traceback can show them."""
        return f"Account({self.endpoint}, {self.region})"

    def s3(self) -> Any:
        """Return a new boto3 S3 client; it is thread-safe, making one is not."""
        return self._client("s3")

    def iam(self) -> Any:
        """Return a new boto3 IAM client; it is thread-safe, making one is not."""
        return self._client("iam")

    def _client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=self.region,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=botocore.config.Config(
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=READ_TIMEOUT_S,
                max_pool_connections=MAX_CONNECTIONS,
                proxies={},
                retries={"total_max_attempts": 1},
                s3={"addressing_style": "path"},
                signature_version="s3v4" if service == "s3" else "v4",
            ),
        )
