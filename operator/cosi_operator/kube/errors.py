# ruff: noqa: N818 - the names are the API's own reasons, as its users know them
"""The errors that a request to the API server can raise.

    Exception
    ├── ApiError              the server replied with an unsuccessful status
    │   ├── Unauthorized      401, after the credentials were read again once
    │   ├── Forbidden         403
    │   ├── NotFound          404
    │   ├── AlreadyExists     409, reason AlreadyExists (create)
    │   ├── Conflict          409, all others: read the object again, then plan again
    │   ├── Expired           410: the resourceVersion or continue token is too old
    │   ├── Invalid           400 or 422: the same request will fail again
    │   ├── TooManyRequests   429, after the client's own retries
    │   └── ServerError       5xx, after the client's own retries; a create may have happened
    ├── ApiSilent             no usable reply: a write may or may not have happened
    │   └── ReplyTooLarge     the reply exceeds the request's limit; a list requests smaller pages
    ├── KubeconfigError       (kubeconfig.py) the configuration can't be used
    └── LeaseLost             (lease.py) no longer the leader

An error never contains a request's body or a credential. The server's message can quote the values
that it rejects. So for a core Secret with data, an error has only the status and the reason. Every
other message is scrubbed and shortened here. The authorizer's message about a missing right is
quoted unchanged, because it can't contain a value of an object.
"""

import re

import msgspec
from msgspec import Struct

from cosi_operator.scrub import escaped, shown_message, shown_name

# The upper limit for Retry-After. One reply with `Retry-After: 3600`, from the API server or from a
# proxy in front of it, must not stop the operator for an hour.
RETRY_AFTER_CAP_S = 60.0


class ApiError(Exception):
    """The API server replied with an unsuccessful status.

    `status` is the HTTP status, or the code of a watch's ERROR line. `reason` and `message` come
    from the metav1.Status. `retry_after_s` comes from the Retry-After header, or from the Status of
    an ERROR line, and is at most RETRY_AFTER_CAP_S. If the server requested more, the error's text
    gives both values.
    """

    def __init__(
        self, status: int, reason: str, message: str, *, retry_after_s: float | None = None
    ) -> None:
        message = escaped(message)
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
    """401, and there are no newer credentials, or the server refused them too."""


class Forbidden(ApiError):
    """403: a right is missing, or the namespace is being deleted."""


class NotFound(ApiError):
    """404."""


class AlreadyExists(ApiError):
    """409 of a create: an object with this name exists."""


class Conflict(ApiError):
    """409: the resourceVersion or uid is not the current one. Read again, then plan again."""


class Expired(ApiError):
    """410: the resourceVersion or continue token is too old. List again."""


class Invalid(ApiError):
    """400 or 422: the server would refuse the same request again."""


class TooManyRequests(ApiError):
    """429, also after the client's retries."""


class ServerError(ApiError):
    """5xx, also after the client's retries. If it was a create, the object may exist."""


class ApiSilent(Exception):
    """No usable reply: the connection was refused or lost, or the deadline passed.

    A write may or may not have happened, so read the object before the next write.
    """

    def __init__(self, text: str = "") -> None:
        super().__init__(escaped(text))


class ReplyTooLarge(ApiSilent):
    """The reply exceeded the request's limit and was not read completely; never retried."""


class _Status(Struct):
    reason: str = ""
    message: str = ""
    code: int = 0


# The text of the API server's ForbiddenMessage. No part of it can contain a value of an object.
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
    """Return the error for a refused request.

    Args:
        status: HTTP status; 0 takes the code from the body (an ERROR line of a watch).
        body: a metav1.Status. Any other content (a proxy's HTML page) is not quoted.
        what: a description of the request without values, e.g. "update secrets a/b".
        confidential: omit the server's message (core Secrets with data), unless it names a missing
            right.
        retry_after_s: the seconds in the Retry-After header.
    """
    try:
        reply = _decode_status(body)
    except (ValueError, RecursionError):  # not JSON, not UTF-8, nested too deeply
        reply = _Status()
    status = status or reply.code
    if status == 409 and reply.reason == "AlreadyExists":
        kind: type[ApiError] = AlreadyExists
    elif status >= 500:
        kind = ServerError
    else:
        kind = _BY_STATUS.get(status, ApiError)
    message = what
    denied = DENIED.search(reply.message) if status == 403 else None
    if denied:
        message = f"{what}: {denied[0]}"
    elif reply.message and not confidential:
        message = f"{what}: {shown_message(reply.message)}"
    reason = shown_name(reply.reason) or "Unknown"
    return kind(status, reason, message, retry_after_s=retry_after_s)
