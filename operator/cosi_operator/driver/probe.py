"""Calls that only `cosi driver check` makes: with empty fields, and with a check of spelling.

The operator itself goes through `v1alpha1.Driver`, which refuses to send an empty id. This
module refuses nothing, so the caller decides what may be sent to which driver.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cosi_operator.api.view import AuthenticationType
from cosi_operator.driver import methods
from cosi_operator.driver.channel import DriverChannel
from cosi_operator.driver.credentials import Credentials, read_credentials
from cosi_operator.driver.v1alpha1 import Driver
from cosi_operator.rpc import cosi_pb2

_TYPES = {
    AuthenticationType.UNKNOWN: cosi_pb2.UnknownAuthenticationType,
    AuthenticationType.KEY: cosi_pb2.Key,
    AuthenticationType.IAM: cosi_pb2.IAM,
}
_PUBLIC = frozenset({"endpoint", "region", "expiryts"})  # of a credential's fields


@dataclass(frozen=True, slots=True)
class GrantReply:
    """What a Grant replied.

    `keys`: the names of the secret values, by protocol, as the driver spells them. `values` are
    the secret values, to search for elsewhere; the repr hides them.
    """

    account_id: str
    keys: Mapping[str, tuple[str, ...]]
    credentials: Credentials | None
    problem: str
    values: tuple[str, ...] = field(default=(), repr=False)


class Probe:
    """The calls of one driver, sent as they are given; each raises DriverError as `Driver` does."""

    def __init__(self, channel: DriverChannel) -> None:
        self._channel = channel

    def serve_only(self, name: str, *, timeout_s: float) -> None:
        """Make no other call than DriverGetInfo to a driver of another name from now on."""
        Driver(self._channel).serve_only(name, timeout_s=timeout_s)

    async def get_info(self, *, timeout_s: float) -> str:
        """The driver's name, as the driver spells it."""
        request = cosi_pb2.DriverGetInfoRequest()
        reply = await self._channel.call(methods.GET_INFO, request, timeout_s=timeout_s)
        return reply.name

    async def create_bucket(
        self, name: str, parameters: Mapping[str, str], *, timeout_s: float
    ) -> str:
        """The bucket's id, "" if the driver gave none."""
        request = cosi_pb2.DriverCreateBucketRequest(name=name, parameters=parameters)
        reply = await self._channel.call(methods.CREATE_BUCKET, request, timeout_s=timeout_s)
        return reply.bucket_id

    async def delete_bucket(
        self, bucket_id: str, context: Mapping[str, str], *, timeout_s: float
    ) -> None:
        """Delete a bucket. **An empty id may remove every bucket of the driver.**"""
        request = cosi_pb2.DriverDeleteBucketRequest(bucket_id=bucket_id, delete_context=context)
        await self._channel.call(methods.DELETE_BUCKET, request, timeout_s=timeout_s)

    async def grant_access(
        self,
        bucket_id: str,
        name: str,
        kind: AuthenticationType,
        parameters: Mapping[str, str],
        *,
        timeout_s: float,
    ) -> GrantReply:
        """Grant access, and record the reply."""
        request = cosi_pb2.DriverGrantBucketAccessRequest(
            bucket_id=bucket_id,
            name=name,
            authentication_type=_TYPES[kind],
            parameters=parameters,
        )
        reply = await self._channel.call(methods.GRANT_ACCESS, request, timeout_s=timeout_s)
        entries = {protocol: dict(found.secrets) for protocol, found in reply.credentials.items()}
        read = read_credentials(entries)
        return GrantReply(
            account_id=reply.account_id,
            keys={protocol: tuple(sorted(values)) for protocol, values in entries.items()},
            credentials=None if isinstance(read, str) else read,
            problem=read if isinstance(read, str) else "",
            values=tuple(
                value
                for values in entries.values()
                for key, value in values.items()
                if value and key.lower() not in _PUBLIC
            ),
        )

    async def revoke_access(
        self, bucket_id: str, account_id: str, context: Mapping[str, str], *, timeout_s: float
    ) -> None:
        """Revoke access. **An empty id may affect more than one account.**"""
        request = cosi_pb2.DriverRevokeBucketAccessRequest(
            bucket_id=bucket_id, account_id=account_id, revoke_access_context=context
        )
        await self._channel.call(methods.REVOKE_ACCESS, request, timeout_s=timeout_s)
