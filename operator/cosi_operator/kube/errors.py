# ruff: noqa: N818 - the names are the API's own reasons, as its users know them
"""What a request to the API server can end with, other than a reply.

    Exception
    ├── ApiError              the server answered with a status: it knows what it did
    │   ├── Unauthorized      401, after the credentials were read afresh once
    │   ├── Forbidden         403
    │   ├── NotFound          404
    │   ├── AlreadyExists     409, reason AlreadyExists (create)
    │   ├── Conflict          409, all others: reread, then decide again
    │   ├── Expired           410: the resourceVersion or continue token is too old
    │   ├── Invalid           400 or 422: repeating it can't help
    │   ├── TooManyRequests   429, after the client's own retries
    │   └── ServerError       5xx, after the client's own retries; a create may have happened
    ├── ApiSilent             no usable answer: a write may or may not have happened
    │   └── ReplyTooLarge     more than the caller wanted to hold; a list asks for smaller pages
    ├── KubeconfigError       (kubeconfig.py) the configuration can't be used
    └── LeaseLost             (lease.py) no longer the leader

Nothing here ever carries a request's body or a credential. The server quotes the values it
refuses, so of the refusal of a core Secret with data only status and reason are kept; of other
refusals its words are scrubbed and cut here, before anything else sees them. What the authorizer
says about a missing right is kept as it is.
"""

import re

import msgspec
from msgspec import Struct

from cosi_operator.scrub import shown_message, shown_name

# The longest wait that a server can ask for. One answer with `Retry-After: 3600`, from the API
# server or from a proxy before it, must not stop the operator for an hour.
RETRY_AFTER_CAP_S = 60.0


class ApiError(Exception):
    """The API server answered with a status that is not a success.

    `status` is the HTTP status (of an ERROR line of a watch: its code), `reason` and `message`
    come from the metav1.Status. `retry_after_s` is what the Retry-After header (of an ERROR line:
    the Status) asked for, at most RETRY_AFTER_CAP_S; the text says so if it asked for more.
    """

    def __init__(
        self, status: int, reason: str, message: str, *, retry_after_s: float | None = None
    ) -> None:
        super().__init__(status, reason, message)
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after_s = retry_after_s
        self._capped = ""
        if retry_after_s is not None and not retry_after_s <= RETRY_AFTER_CAP_S:
            self.retry_after_s = RETRY_AFTER_CAP_S
            self._capped = (
                f" (the server asked for a wait of {retry_after_s:g} s;"
                f" the operator waits at most {RETRY_AFTER_CAP_S:g} s)"
            )

    def __str__(self) -> str:
        return f"{self.status} {self.reason}: {self.message}{self._capped}"


class Unauthorized(ApiError):
    """401, and fresh credentials did not help or there are none."""


class Forbidden(ApiError):
    """403: a right is missing, or the namespace is being deleted."""


class NotFound(ApiError):
    """404."""


class AlreadyExists(ApiError):
    """409 of a create: the name is taken."""


class Conflict(ApiError):
    """409: the resourceVersion or uid is not the current one. Reread, then decide again."""


class Expired(ApiError):
    """410: that resourceVersion is compacted. List again."""


class Invalid(ApiError):
    """400 or 422: the server will refuse the same request again."""


class TooManyRequests(ApiError):
    """429, still, after the client's retries."""


class ServerError(ApiError):
    """5xx, still, after the client's retries. Of a create: it may have happened."""


class ApiSilent(Exception):
    """No answer: connection refused or lost, or the deadline passed.

    A write may or may not have happened; the next read tells.
    """


class ReplyTooLarge(ApiSilent):
    """The reply was longer than the request's limit and was not read to its end; never retried."""


class _Status(Struct):
    reason: str = ""
    message: str = ""
    code: int = 0


# The words of apiserver's ForbiddenMessage. No part of it can hold a value of an object.
DENIED = re.compile(
    r'User "(?P<user>[\w:.@/-]{1,300})" cannot (?P<verb>[a-z]{1,30}) '
    r'resource "(?P<resource>[\w./-]{1,200})" in API group "(?P<group>[\w.-]{0,200})"'
    r'(?: in the namespace "(?P<namespace>[\w.-]{1,63})"| at the cluster scope)'
)

_decode_status = msgspec.json.Decoder(_Status).decode

_BY_STATUS: dict[int, type[ApiError]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Expired,
    422: Invalid,
    429: TooManyRequests,
}


def error_of(
    status: int, body: bytes, *, what: str, confidential: bool, retry_after_s: float | None = None
) -> ApiError:
    """The error for a refused request.

    Args:
        status: HTTP status; 0 takes the code from the body (an ERROR line of a watch).
        body: a metav1.Status, or anything (a proxy's HTML page), which is then not quoted.
        what: the request in words, without values, e.g. "update secrets a/b".
        confidential: keep the server's message out (core Secrets with data), unless it says which
            right is missing.
        retry_after_s: what the Retry-After header said.
    """
    try:
        told = _decode_status(body)
    except msgspec.DecodeError:
        told = _Status()
    status = status or told.code
    if status == 409 and told.reason == "AlreadyExists":
        kind: type[ApiError] = AlreadyExists
    elif status >= 500:
        kind = ServerError
    else:
        kind = _BY_STATUS.get(status, ApiError)
    message = what
    denied = DENIED.search(told.message) if status == 403 else None
    if denied:
        message = f"{what}: {denied[0]}"
    elif told.message and not confidential:
        message = f"{what}: {shown_message(told.message)}"
    reason = shown_name(told.reason) or "Unknown"
    return kind(status, reason, message, retry_after_s=retry_after_s)
