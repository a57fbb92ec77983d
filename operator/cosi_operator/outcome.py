"""The outcome of a reconcile run, and the reasons and codes that it contains.

A run ends with `Success`, `Requeue` or `Terminal`. The queue (`runtime.settle`), the conditions and
Events (`report`), the metrics and the log all read this one value, so none of them has to derive
the result again. This module depends on neither gRPC nor Kubernetes.
"""

import enum
from dataclasses import dataclass


class Code(enum.IntEnum):
    """The 17 status codes of gRPC, with their wire numbers.

    Source: the gRPC project's status code documentation.
    """

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class Call(enum.StrEnum):
    """The five calls of the COSI driver interface, by their names in the proto file."""

    GET_INFO = "DriverGetInfo"
    CREATE_BUCKET = "DriverCreateBucket"
    DELETE_BUCKET = "DriverDeleteBucket"
    GRANT_ACCESS = "DriverGrantBucketAccess"
    REVOKE_ACCESS = "DriverRevokeBucketAccess"


class MadeBy(enum.StrEnum):
    """The origin of a status. Only a status that the driver sent is a verdict."""

    DRIVER = "driver"
    TRANSPORT = "transport"  # the socket was closed, or the driver was killed during the call
    DEADLINE = "deadline"  # our own deadline passed
    REPLY = "reply"  # the driver answered OK, but its reply can't be used


class Effect(enum.StrEnum):
    """Whether a failed call may have changed the backend."""

    NONE = "none"
    MAYBE = "maybe"


class Reason(enum.StrEnum):
    """Condition and Event reasons. They are part of the API: never rename one.

    The five reasons that upstream's Events have too keep upstream's names.
    """

    # Ready
    PROVISIONED = "Provisioned"
    GRANTED = "Granted"
    REVOKED = "Revoked"

    # waiting: not a failure, but another change has to happen first
    WAITING_FOR_BUCKET = "WaitingForBucket"
    WAITING_FOR_CLAIM = "WaitingForBucketClaim"
    WAITING_FOR_DRIVER = "WaitingForDriver"
    WAITING_FOR_SIDECAR = "WaitingForSidecar"
    WAITING_FOR_ACCESSES = "WaitingForBucketAccesses"
    WAITING_FOR_TURN = "WaitingForTurn"
    CLASS_NOT_FOUND = "BucketClassNotFound"
    ACCESS_CLASS_NOT_FOUND = "BucketAccessClassNotFound"
    CLAIM_NOT_FOUND = "BucketClaimNotFound"
    BUCKET_NOT_FOUND = "BucketNotFound"

    # a person has to change the object, or another object that it names
    INVALID_SPEC = "InvalidSpec"
    INVALID_OBJECT = "InvalidObject"
    RELEASED = "Released"
    BUCKET_ALREADY_BOUND = "BucketAlreadyBound"
    BUCKET_LOST = "BucketLost"
    BUCKET_IN_USE = "BucketInUse"
    FORMER_BUCKET = "FormerBucketFound"
    ACCOUNT_CONTESTED = "AccountContested"
    RECORD_FULL = "TooManyBucketAccesses"
    INVALID_CLASS = "InvalidClass"
    BEING_DELETED = "BeingDeleted"
    DRIVER_MISMATCH = "DriverMismatch"
    SECRET_NOT_OWNED = "SecretNotOwned"  # noqa: S105 - a reason, not a password
    SECRET_REFUSED = "SecretRefused"  # noqa: S105
    BACKEND_UNVERIFIED = "BackendUnverified"

    # the driver
    DRIVER_UNREACHABLE = "DriverUnreachable"
    DRIVER_DEADLINE = "DriverDeadlineExceeded"
    DRIVER_MALFORMED_REPLY = "DriverMalformedReply"
    EMPTY_BUCKET_ID = "DriverReturnedEmptyBucketID"
    FOREIGN_BUCKET_ID = "DriverReturnedForeignBucketID"
    EMPTY_ACCOUNT_ID = "DriverReturnedEmptyAccountID"
    NO_CREDENTIALS = "DriverReturnedNoCredentials"
    DRIVER_CANCELLED = "DriverCancelled"
    DRIVER_UNKNOWN = "DriverUnknown"
    DRIVER_INVALID_ARGUMENT = "DriverInvalidArgument"
    DRIVER_SENT_DEADLINE = "DriverSentDeadlineExceeded"
    DRIVER_NOT_FOUND = "DriverNotFound"
    DRIVER_ALREADY_EXISTS = "DriverAlreadyExists"
    DRIVER_PERMISSION_DENIED = "DriverPermissionDenied"
    DRIVER_RESOURCE_EXHAUSTED = "DriverResourceExhausted"
    DRIVER_FAILED_PRECONDITION = "DriverFailedPrecondition"
    DRIVER_ABORTED = "DriverAborted"
    DRIVER_OUT_OF_RANGE = "DriverOutOfRange"
    DRIVER_UNIMPLEMENTED = "DriverUnimplemented"
    DRIVER_INTERNAL = "DriverInternal"
    DRIVER_UNAVAILABLE = "DriverUnavailable"
    DRIVER_DATA_LOSS = "DriverDataLoss"
    DRIVER_UNAUTHENTICATED = "DriverUnauthenticated"

    # the API server
    CONFLICT = "Conflict"
    API_UNAVAILABLE = "APIServerUnavailable"
    API_REFUSED = "APIServerRefused"
    MISSING_PERMISSION = "MissingPermission"
    STEP_LIMIT = "StepLimit"
    INTERNAL_ERROR = "InternalError"


@dataclass(frozen=True, slots=True)
class DriverStatus:
    """The result of one driver call, as `cosi why` and the status field show it.

    `message` is the driver's unchanged text: strip and cut it before it is shown.
    """

    call: Call
    code: Code
    made_by: MadeBy
    message: str = ""


@dataclass(frozen=True, slots=True)
class Success:
    """The desired state is reached. `recheck_s`: reconcile again after so many seconds, if set."""

    recheck_s: float | None = None


@dataclass(frozen=True, slots=True)
class Requeue:
    """Retry automatically: after `after_s` seconds, or with the key's own backoff if None.

    0 is at once, but with a growing pause if it is repeated in a row (`WorkQueue.add_again`).

    A `quiet` requeue (a conflict, a stale copy) is internal, so it writes no condition and emits no
    Event. `attempts` counts the consecutive failed calls, including this one.
    """

    reason: Reason
    message: str
    after_s: float | None = None
    status: DriverStatus | None = None
    quiet: bool = False
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Terminal:
    """Not retried until a relevant change wakes the key (docs/policies.md lists these changes).

    `waiting` means that another change has to happen first (Reconciling); otherwise a person has to
    change something (Stalled). `recheck_s`: reconcile again after so many seconds, if set.
    """

    reason: Reason
    message: str
    waiting: bool = False
    recheck_s: float | None = None
    status: DriverStatus | None = None


type Outcome = Success | Requeue | Terminal
