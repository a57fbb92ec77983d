"""From what boto3 raises to the gRPC status that the driver answers with. Pure."""

import grpc
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 - of boto3, no subclass of Python's own
    HTTPClientError,
    ParamValidationError,
)

# Error codes of S3 and IAM, from the lists in their API references. What is not named here, and
# isn't a 5xx that says "later", is INTERNAL.
_BY_ERROR_CODE = {
    "NoSuchBucket": grpc.StatusCode.NOT_FOUND,
    "NoSuchEntity": grpc.StatusCode.NOT_FOUND,
    "404": grpc.StatusCode.NOT_FOUND,  # the answer to a HEAD has no body to name its error
    "BucketAlreadyExists": grpc.StatusCode.ALREADY_EXISTS,
    "BucketNotEmpty": grpc.StatusCode.FAILED_PRECONDITION,
    "InvalidArgument": grpc.StatusCode.INVALID_ARGUMENT,
    "InvalidBucketName": grpc.StatusCode.INVALID_ARGUMENT,
    "InvalidInput": grpc.StatusCode.INVALID_ARGUMENT,
    "ValidationError": grpc.StatusCode.INVALID_ARGUMENT,
    "AccessDenied": grpc.StatusCode.PERMISSION_DENIED,
    "InvalidAccessKeyId": grpc.StatusCode.UNAUTHENTICATED,
    "SignatureDoesNotMatch": grpc.StatusCode.UNAUTHENTICATED,
    "LimitExceeded": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "TooManyBuckets": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "OperationAborted": grpc.StatusCode.ABORTED,
    "ServiceUnavailable": grpc.StatusCode.UNAVAILABLE,
    "SlowDown": grpc.StatusCode.UNAVAILABLE,
}


class RefusedError(Exception):
    """The driver itself refuses a call; `code` and the message are the answer."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        """Keep the answer."""
        self.code = code
        super().__init__(message)


def error_code(error: ClientError) -> str:
    """Return S3's or IAM's own name of an error, as in NoSuchBucket."""
    return str(error.response["Error"]["Code"])


def verdict(error: BotoCoreError | ClientError | RefusedError) -> tuple[grpc.StatusCode, str]:
    """Return the status to answer with, in the backend's own words.

    A lost connection is UNAVAILABLE even if the request got through: every call can be repeated.
    """
    match error:
        case RefusedError():
            return error.code, str(error)
        case ClientError():
            name = error_code(error)
            words = " ".join(str(error.response["Error"].get("Message", "")).split())
            bucket = error.response["Error"].get("BucketName")
            about = f" (bucket {bucket})" if bucket else ""
            code = _BY_ERROR_CODE.get(name, grpc.StatusCode.INTERNAL)
            return code, f"{name}: {words}{about}"
        case ParamValidationError():
            return grpc.StatusCode.INVALID_ARGUMENT, " ".join(str(error).split())
        case ConnectionError() | HTTPClientError():  # refused, cut or timed out
            return grpc.StatusCode.UNAVAILABLE, " ".join(str(error).split())
        case _:
            return grpc.StatusCode.INTERNAL, " ".join(str(error).split())
