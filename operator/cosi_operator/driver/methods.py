"""The five methods of the driver interface v1alpha1, called through the generated stubs."""

from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.message import Message
from grpc import aio

from cosi_operator.outcome import Call
from cosi_operator.rpc import cosi_pb2, cosi_pb2_grpc


class Stubs:
    """The generated stubs on one channel of the gRPC library."""

    def __init__(self, channel: aio.Channel) -> None:
        self.identity = cosi_pb2_grpc.IdentityStub(channel)
        self.provisioner = cosi_pb2_grpc.ProvisionerStub(channel)


@dataclass(frozen=True, slots=True)
class Method[Request: Message, Reply: Message]:
    """One method of the driver interface. `on` finds it in the stubs of a channel."""

    call: Call
    on: Callable[[Stubs], aio.UnaryUnaryMultiCallable[Request, Reply]]


GET_INFO: Method[cosi_pb2.DriverGetInfoRequest, cosi_pb2.DriverGetInfoResponse] = Method(
    Call.GET_INFO, lambda stubs: stubs.identity.DriverGetInfo
)
CREATE_BUCKET: Method[cosi_pb2.DriverCreateBucketRequest, cosi_pb2.DriverCreateBucketResponse] = (
    Method(Call.CREATE_BUCKET, lambda stubs: stubs.provisioner.DriverCreateBucket)
)
DELETE_BUCKET: Method[cosi_pb2.DriverDeleteBucketRequest, cosi_pb2.DriverDeleteBucketResponse] = (
    Method(Call.DELETE_BUCKET, lambda stubs: stubs.provisioner.DriverDeleteBucket)
)
GRANT_ACCESS: Method[
    cosi_pb2.DriverGrantBucketAccessRequest, cosi_pb2.DriverGrantBucketAccessResponse
] = Method(Call.GRANT_ACCESS, lambda stubs: stubs.provisioner.DriverGrantBucketAccess)
REVOKE_ACCESS: Method[
    cosi_pb2.DriverRevokeBucketAccessRequest, cosi_pb2.DriverRevokeBucketAccessResponse
] = Method(Call.REVOKE_ACCESS, lambda stubs: stubs.provisioner.DriverRevokeBucketAccess)
