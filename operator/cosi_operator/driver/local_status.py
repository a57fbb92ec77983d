"""Recognizes the statuses that the gRPC library made on this side.

The library reports such a status in the same shape as one that the driver sent: a code and a text.
Only the text distinguishes them, so this module holds the texts that grpcio 1.83 has for a call
without a deadline, without retries, without credentials and on one connection. They were read in
its source (chttp2_transport.cc, http_client_filter.cc, compression_filter.cc, filter_stack_call.cc,
client_channel_filter.cc, pick_first.cc, aio/_call.py), so pyproject.toml allows no other minor
version of grpcio. tests/unit/driver plays the frames that lead to them.

A driver that sends one of these texts itself loses its verdict: the call is repeated. The opposite
error, a local failure that is stored as the driver's verdict, would be final. UNAVAILABLE is also
checked in another way, see `connection`.
"""

import re
from dataclasses import dataclass

from cosi_operator.outcome import MadeBy

CLOSED_HERE = "the connection was closed on our side"
CLOSED_BY_DRIVER = "the driver closed the connection"
NOT_TAKEN = "the driver is stopping and did not take the call"
NO_HTTP2 = "the driver's socket does not speak HTTP/2"
BAD_FRAMES = f"{NO_HTTP2}, or uses padded frames, which gRPC's library does not read"
COMPRESSED = "the reply is compressed, which was not asked for"

# RFC 9113, section 7; the position is the code.
_RESETS = (
    *("NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT"),
    *("STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR"),
    *("CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED"),
)


@dataclass(frozen=True, slots=True)
class LocalStatus:
    """What a status of the library means.

    `made_by`: TRANSPORT, or REPLY if the driver answered with something that can't be used.
    `words`: ours, so they hold no bytes of the driver.
    """

    made_by: MadeBy
    words: str


# The transport wraps the reason why it ended a call, often more than once.
_WRAPPERS = re.compile(
    r"(?:(?:Stream removed|Transport closed|Delayed close due to in-progress write) \()+"
)

# The first that matches at the start of the text decides; {} takes the group.
_MEANINGS = tuple(
    (re.compile(pattern), made_by, words)
    for pattern, made_by, words in (
        (
            r"CLIENT: Received message larger than max \(\d+ vs\. (\d+)\)",
            MadeBy.REPLY,
            "the reply is larger than {} bytes",
        ),
        (r"Compression algorithm '[^']*' is disabled\.\)*\Z", MadeBy.REPLY, COMPRESSED),
        (
            r"Received http2 header with status: (\d+)\Z",
            MadeBy.TRANSPORT,
            "the answer (HTTP status {}) ended without a gRPC status",
        ),
        (r"No status received\Z", MadeBy.TRANSPORT, "the answer ended without a gRPC status"),
        (r"Locally cancelled by application!\Z", MadeBy.TRANSPORT, CLOSED_HERE),
        (r"Cancelled upon garbage collection!\Z", MadeBy.TRANSPORT, CLOSED_HERE),
    )
)
_WRAPPED = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"RST_STREAM \(Received RST_STREAM with error code (\d+)\)", "reset"),
        (r"GOAWAY received", NOT_TAKEN),
        (r"(?:Socket closed|recvmsg:|sendmsg:|Endpoint read failed)", CLOSED_BY_DRIVER),
        (r"(?:Failed parsing HTTP/2|Too many )", BAD_FRAMES),
        (
            r"Data frame with END_STREAM flag received",
            "the answer ended without a gRPC status",
        ),
        (r"Error parsing 'grpc-status' metadata", "the gRPC status in the answer is not a number"),
        (r"(?:Error parsing|Duplicate) '", "the answer has a header that gRPC can't read"),
        (r"received metadata size exceeds", "the headers of the answer are too large"),
    )
)
# Others that end a call before or outside the transport. All of them mean: no answer.
_OTHERS = re.compile(
    r"(?:unix:/proc/self/fd/\d+: )?"
    r"(?:Stream removed|Pending writes failed due to stream closure|Transport (?:closed|destroyed)"
    r"|Channel (?:shutdown|Destroyed)|lame client channel|failed to connect to all addresses"
    r"|connections to all backends failing|empty address list|LB picker queued call"
    r"|Illegal status code from |error constructing dynamic filter stack|no valid service config"
    r"|picker is null -- shouldn't happen|subchannel lost all connections|Call creation failed"
    r"|Internal error from Core\Z|RPC cancelled for unknown reason\.\Z)"
)


def local_status(details: str) -> LocalStatus | None:
    """What a status with this text means if the library made it; None if the driver sent it."""
    wrapped = _WRAPPERS.match(details)
    inner = details[wrapped.end() :] if wrapped else details
    for pattern, made_by, words in _MEANINGS:
        if found := pattern.match(inner):
            return LocalStatus(made_by, words.format(*found.groups()))
    if wrapped:
        return LocalStatus(MadeBy.TRANSPORT, _transport_words(inner))
    if _OTHERS.match(details):
        return LocalStatus(MadeBy.TRANSPORT, CLOSED_BY_DRIVER)
    return None


def _transport_words(reason: str) -> str:
    for pattern, words in _WRAPPED:
        if found := pattern.match(reason):
            return _reset(int(found[1])) if found.groups() else words
    return "gRPC ended the call before the driver answered"


def _reset(code: int) -> str:
    name = _RESETS[code] if code < len(_RESETS) else str(code)
    return f"the driver reset the stream: {name}"
