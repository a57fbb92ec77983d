"""The five calls of the driver interface v1alpha1, in neutral records.

Every call takes `timeout_s`, the time limit of this one attempt including the connection, and
raises `DriverError` (see `errors`). No call is repeated here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from google.protobuf.message import Message

from cosi_operator.api.view import AuthenticationType
from cosi_operator.driver import methods
from cosi_operator.driver.channel import DriverChannel, IdentityCheck
from cosi_operator.driver.credentials import Credentials as Credentials
from cosi_operator.driver.credentials import read_credentials
from cosi_operator.driver.errors import DriverMalformed, DriverRefused
from cosi_operator.driver.methods import Method
from cosi_operator.outcome import Call
from cosi_operator.plan import names
from cosi_operator.rpc import cosi_pb2
from cosi_operator.scrub import KnownSecrets

# Of the entries of a Grant's reply.
_NO_SECRETS = frozenset({"endpoint", "region", "expiryts"})

_AUTHENTICATION_TYPES = {
    AuthenticationType.UNKNOWN: cosi_pb2.UnknownAuthenticationType,
    AuthenticationType.KEY: cosi_pb2.Key,
    AuthenticationType.IAM: cosi_pb2.IAM,
}


@dataclass(frozen=True, slots=True)
class CreatedBucket:
    """`bucket_id` is the driver's name for the bucket; "" if the driver returned none."""

    bucket_id: str


@dataclass(frozen=True, slots=True)
class GrantRequest:
    """`name`: the name of the new account, made from the UID of the access."""

    bucket_id: str
    name: str
    authentication_type: AuthenticationType
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GrantedAccess:
    """`account_id` is "" if the driver returned none.

    `credentials` are complete or None; then `problem` says what is missing.
    """

    account_id: str
    credentials: Credentials | None
    problem: str = ""


class Driver:
    """The driver at the other end of a channel.

    Errors contain the driver's message without the keys that it granted to this process.
    """

    def __init__(self, channel: DriverChannel) -> None:
        self._channel = channel
        self._known = KnownSecrets()

    def serve_only(self, name: str, *, timeout_s: float) -> None:
        """From now on, call only the driver of this name.

        DriverGetInfo is then the first call on each new connection, within `timeout_s` seconds. Any
        other call to a driver of another name is not sent and raises DriverSilent.
        """

        def refusal(reply: cosi_pb2.DriverGetInfoResponse) -> str:
            if names.same_driver(reply.name, name):
                return ""
            return f"the driver there is named {reply.name!r}, not {name!r}"

        request = cosi_pb2.DriverGetInfoRequest()
        self._channel.check_identity_with(
            IdentityCheck(methods.GET_INFO, request, refusal, timeout_s)
        )

    async def get_info(self, *, timeout_s: float) -> str:
        """The driver's name, never "".

        Raises:
            DriverMalformed: also for an empty name.
        Source: v1alpha1 interface, DriverGetInfo.
        """
        request = cosi_pb2.DriverGetInfoRequest()
        reply = await self._call(methods.GET_INFO, request, timeout_s=timeout_s)
        if not reply.name:
            raise DriverMalformed(Call.GET_INFO, "the driver's name is empty")
        return reply.name

    async def create_bucket(
        self, name: str, parameters: Mapping[str, str], *, timeout_s: float
    ) -> CreatedBucket:
        """Create a bucket; safe to repeat with the same name, which is the idempotency key.

        Raises:
            ValueError: `name` is empty; nothing was sent.
        Source: v1alpha1 interface, DriverCreateBucket.
        """
        _require(name=name)
        request = cosi_pb2.DriverCreateBucketRequest(name=name, parameters=parameters)
        reply = await self._call(methods.CREATE_BUCKET, request, timeout_s=timeout_s)
        return CreatedBucket(reply.bucket_id)

    async def delete_bucket(
        self, bucket_id: str, context: Mapping[str, str], *, timeout_s: float
    ) -> None:
        """Delete the bucket and its content.

        Raises:
            ValueError: `bucket_id` is empty; nothing was sent. One known driver deletes all its
                buckets if the id is empty.
        Source: v1alpha1 interface, DriverDeleteBucket.
        """
        _require(bucket_id=bucket_id)
        request = cosi_pb2.DriverDeleteBucketRequest(bucket_id=bucket_id, delete_context=context)
        await self._call(methods.DELETE_BUCKET, request, timeout_s=timeout_s)

    async def grant_access(self, request: GrantRequest, *, timeout_s: float) -> GrantedAccess:
        """Create an account with access to a bucket. Often **not** safe to repeat, because some
        drivers create new keys, or even another account, each time.

        Raises:
            ValueError: the bucket's id or the name is empty; nothing was sent.
        Source: v1alpha1 interface, DriverGrantBucketAccess.
        """
        _require(bucket_id=request.bucket_id, name=request.name)
        message = cosi_pb2.DriverGrantBucketAccessRequest(
            bucket_id=request.bucket_id,
            name=request.name,
            authentication_type=_AUTHENTICATION_TYPES[request.authentication_type],
            parameters=request.parameters,
        )
        reply = await self._call(methods.GRANT_ACCESS, message, timeout_s=timeout_s)
        found = read_credentials(
            {protocol: details.secrets for protocol, details in reply.credentials.items()}
        )
        self._known.learn(
            reply.account_id,
            (
                value
                for details in reply.credentials.values()
                for key, value in details.secrets.items()
                if key.lower() not in _NO_SECRETS
            ),
        )
        if isinstance(found, str):
            return GrantedAccess(reply.account_id, None, found)
        return GrantedAccess(reply.account_id, found)

    async def revoke_access(
        self, bucket_id: str, account_id: str, context: Mapping[str, str], *, timeout_s: float
    ) -> None:
        """Revoke the account's access.

        Raises:
            ValueError: an id is empty; nothing was sent.
        Source: v1alpha1 interface, DriverRevokeBucketAccess.
        """
        _require(bucket_id=bucket_id, account_id=account_id)
        request = cosi_pb2.DriverRevokeBucketAccessRequest(
            bucket_id=bucket_id, account_id=account_id, revoke_access_context=context
        )
        await self._call(methods.REVOKE_ACCESS, request, timeout_s=timeout_s)
        self._known.forget(account_id)

    async def _call[Request: Message, Reply: Message](
        self, method: Method[Request, Reply], request: Request, *, timeout_s: float
    ) -> Reply:
        try:
            return await self._channel.call(method, request, timeout_s=timeout_s)
        except DriverRefused as refused:
            message = self._known.blank(refused.status.message)
            raise DriverRefused(refused.call, refused.status.code, message) from None


def _require(**ids: str) -> None:
    for field_name, value in ids.items():
        if not value:
            raise ValueError(f"{field_name} is empty; the driver is not called with that")
