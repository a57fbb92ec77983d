"""What a reconcile run ends with, and the words it is told in.

`Success`, `Requeue` and `Terminal` are the only three ends. One such value serves the queue
(`runtime.settle`), the conditions and Events (`report`), the metrics and the log, so nothing has
to guess later what happened. The module knows neither gRPC nor Kubernetes.
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
    """Who made a status: only the driver's own is a verdict."""

    DRIVER = "driver"
    TRANSPORT = "transport"  # socket gone, driver killed mid-call
    DEADLINE = "deadline"  # our own deadline passed
    REPLY = "reply"  # the driver said OK, but its reply can't be used


class Effect(enum.StrEnum):
    """May a call that failed have changed the backend all the same?"""

    NONE = "none"
    MAYBE = "maybe"


class Reason(enum.StrEnum):
    """Condition and Event reasons. They are part of the API: never rename one.

    The five of upstream's Events keep upstream's names.
    """

    # Ready
    PROVISIONED = "Provisioned"
    GRANTED = "Granted"
    REVOKED = "Revoked"

    # waiting: nothing is wrong yet, something else has to happen first
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

    # the object, or what it names, has to be changed by a person
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
    """The last word about one driver call; what `cosi why` and the status field show.

    `message` is the driver's text as it came: strip and cut it before it is shown.
    """

    call: Call
    code: Code
    made_by: MadeBy
    message: str = ""


@dataclass(frozen=True, slots=True)
class Success:
    """The desired state holds. `recheck_s`: look again after so many seconds, if given."""

    recheck_s: float | None = None


@dataclass(frozen=True, slots=True)
class Requeue:
    """Try again by itself: after `after_s` seconds, or with the key's own backoff if None.

    A `quiet` one (a conflict, a stale copy) is the machinery's own business: no condition, no
    Event. `attempts` counts the calls that failed in a row, this one included.
    """

    reason: Reason
    message: str
    after_s: float | None = None
    status: DriverStatus | None = None
    quiet: bool = False
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Terminal:
    """Not tried again until something changes (docs/policies: what wakes it).

    `waiting` tells "something else has to happen first" (Reconciling) from "a person has to
    change something" (Stalled). `recheck_s` is the slow, opt-in look.
    """

    reason: Reason
    message: str
    waiting: bool = False
    recheck_s: float | None = None
    status: DriverStatus | None = None


type Outcome = Success | Requeue | Terminal
