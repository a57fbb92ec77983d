"""The gRPC side: checks a request, has the backend do it, records and answers."""

import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from botocore.exceptions import BotoCoreError, ClientError

from cosi_operator.rpc import cosi_pb2 as pb
from cosi_operator.rpc import cosi_pb2_grpc as pb_grpc
from refdriver import record
from refdriver.backend import Backend
from refdriver.record import CallRecord
from refdriver.verdict import RefusedError, verdict

WORKERS = 8
"""Calls in progress at a time; boto3 blocks, so each takes a thread."""

MAX_WAITING = 256
"""Calls in progress or waiting; one more is answered RESOURCE_EXHAUSTED."""

NAME_PREFIX = "namePrefix"
"""The one BucketClass parameter: text that goes in front of each bucket's name."""


def build_server(
    socket: Path, name: str, backend: Backend, account: tuple[str, str]
) -> grpc.Server:
    """Return a server on a Unix socket, not started; an old socket there is replaced.

    Args:
        socket: the path to listen at.
        name: the driver's name.
        backend: does the work.
        account: endpoint and region to tell in credentials.
    """
    server = grpc.server(ThreadPoolExecutor(WORKERS), maximum_concurrent_rpcs=MAX_WAITING)
    pb_grpc.add_IdentityServicer_to_server(_Identity(name), server)
    pb_grpc.add_ProvisionerServicer_to_server(_Provisioner(backend, *account), server)
    server.add_insecure_port(f"unix://{socket}")
    return server


class _Identity(pb_grpc.IdentityServicer):
    def __init__(self, name: str) -> None:
        self._name = name

    def DriverGetInfo(  # noqa: N802 - gRPC finds methods by the proto's names, here and below
        self,
        request: pb.DriverGetInfoRequest,  # noqa: ARG002
        context: grpc.ServicerContext,
    ) -> pb.DriverGetInfoResponse:
        reply = pb.DriverGetInfoResponse(name=self._name)
        return _answer("DriverGetInfo", self._name, context, lambda: reply)


class _Provisioner(pb_grpc.ProvisionerServicer):
    def __init__(self, backend: Backend, endpoint: str, region: str) -> None:
        self._backend = backend
        self._endpoint = endpoint
        self._region = region

    def DriverCreateBucket(  # noqa: N802
        self, request: pb.DriverCreateBucketRequest, context: grpc.ServicerContext
    ) -> pb.DriverCreateBucketResponse:
        def create() -> pb.DriverCreateBucketResponse:
            _require("name", request.name)
            _allow_parameters(request.parameters, {NAME_PREFIX})
            bucket = request.parameters.get(NAME_PREFIX, "") + request.name
            self._backend.create_bucket(bucket)
            s3 = pb.S3(region=self._region, signature_version=pb.S3V4)
            return pb.DriverCreateBucketResponse(bucket_id=bucket, bucket_info=pb.Protocol(s3=s3))

        return _answer("DriverCreateBucket", request.name, context, create)

    def DriverDeleteBucket(  # noqa: N802
        self, request: pb.DriverDeleteBucketRequest, context: grpc.ServicerContext
    ) -> pb.DriverDeleteBucketResponse:
        def delete() -> pb.DriverDeleteBucketResponse:
            _require("bucket_id", request.bucket_id)
            self._backend.delete_bucket(request.bucket_id)
            return pb.DriverDeleteBucketResponse()

        return _answer("DriverDeleteBucket", request.bucket_id, context, delete)

    def DriverGrantBucketAccess(  # noqa: N802
        self, request: pb.DriverGrantBucketAccessRequest, context: grpc.ServicerContext
    ) -> pb.DriverGrantBucketAccessResponse:
        def grant() -> pb.DriverGrantBucketAccessResponse:
            _require("bucket_id", request.bucket_id)
            _require("name", request.name)
            _allow_parameters(request.parameters, set())
            if request.authentication_type != pb.Key:
                raise _invalid("authentication_type: this driver makes keys only")
            key = self._backend.grant(request.bucket_id, request.name)
            secrets = {
                "accessKeyID": key.access_key,
                "accessSecretKey": key.secret_key,
                "endpoint": self._endpoint,
                "region": self._region,
            }
            return pb.DriverGrantBucketAccessResponse(
                account_id=request.name, credentials={"s3": pb.CredentialDetails(secrets=secrets)}
            )

        subject = f"{request.bucket_id} {request.name}"
        return _answer("DriverGrantBucketAccess", subject, context, grant)

    def DriverRevokeBucketAccess(  # noqa: N802
        self, request: pb.DriverRevokeBucketAccessRequest, context: grpc.ServicerContext
    ) -> pb.DriverRevokeBucketAccessResponse:
        def revoke() -> pb.DriverRevokeBucketAccessResponse:
            _require("account_id", request.account_id)
            self._backend.revoke(request.bucket_id, request.account_id)
            return pb.DriverRevokeBucketAccessResponse()

        subject = f"{request.bucket_id} {request.account_id}"
        return _answer("DriverRevokeBucketAccess", subject, context, revoke)


def _answer[Reply](
    call: str, subject: str, context: grpc.ServicerContext, work: Callable[[], Reply]
) -> Reply:
    """Do the work, write one record, and return the reply or end the call with a status."""
    started = time.monotonic()
    code, message = grpc.StatusCode.OK, ""
    reply: Reply | None = None
    try:
        reply = work()
    except (BotoCoreError, ClientError, RefusedError) as error:
        code, message = verdict(error)
    elapsed_ms = round((time.monotonic() - started) * 1000)
    record.write(CallRecord(call, subject, code.name, message, elapsed_ms))
    if reply is None:
        context.abort(code, message)
    return reply


def _require(field: str, value: str) -> None:
    if not value:
        raise _invalid(f"{field} is empty")


def _allow_parameters(given: Mapping[str, str], known: Collection[str]) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise _invalid(f"unknown parameter: {', '.join(unknown)}")


def _invalid(message: str) -> RefusedError:
    return RefusedError(grpc.StatusCode.INVALID_ARGUMENT, message)
