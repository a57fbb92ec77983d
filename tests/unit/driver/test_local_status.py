"""Which texts of a status are the gRPC library's own; what a driver says is none of them."""

import pytest

from cosi_operator.driver.local_status import LocalStatus, local_status
from cosi_operator.outcome import MadeBy

BROKEN_PIPE = "sendmsg: Broken pipe (32)"


@pytest.mark.parametrize(
    ("details", "made_by", "words"),
    [
        pytest.param(
            f"Stream removed (Transport closed (Delayed close due to in-progress write"
            f" ({BROKEN_PIPE}) ({BROKEN_PIPE})))",
            MadeBy.TRANSPORT,
            "the driver closed the connection",
            id="reason in three wrappers -> that reason",
        ),
        pytest.param(
            "Stream removed (Transport closed (Failed parsing HTTP/2 (Unexpected CONTINUATION)))",
            MadeBy.TRANSPORT,
            "the driver's socket does not speak HTTP/2, or uses padded frames, which gRPC's library"
            " does not read",
            id="broken frame -> no HTTP/2",
        ),
        pytest.param(
            "Stream removed (something new (s3cret))",
            MadeBy.TRANSPORT,
            "gRPC ended the call before the driver answered",
            id="unknown reason in a wrapper -> no answer, without its bytes",
        ),
        pytest.param(
            "Stream removed (RST_STREAM (Received RST_STREAM with error code 99))",
            MadeBy.TRANSPORT,
            "the driver reset the stream: 99",
            id="reset with an unknown code -> its number",
        ),
        pytest.param(
            "Stream removed (GOAWAY received; Error code: 0; Debug Text: s3cret)",
            MadeBy.TRANSPORT,
            "the driver is stopping and did not take the call",
            id="GOAWAY -> not taken, without its text",
        ),
        pytest.param(
            "unix:/proc/self/fd/13: subchannel lost all connections",
            MadeBy.TRANSPORT,
            "the driver closed the connection",
            id="text with our address -> no answer",
        ),
        pytest.param(
            "failed to connect to all addresses; last error: UNAVAILABLE: unix:/proc/self/fd/7: x",
            MadeBy.TRANSPORT,
            "the driver closed the connection",
            id="call that made the library connect again -> no answer",
        ),
        pytest.param(
            "CLIENT: Received message larger than max (9 vs. 8)",
            MadeBy.REPLY,
            "the reply is larger than 8 bytes",
            id="large reply -> its limit",
        ),
    ],
)
def test_the_librarys_texts_are_recognized(details: str, made_by: MadeBy, words: str) -> None:
    assert local_status(details) == LocalStatus(made_by, words)


@pytest.mark.parametrize(
    "details",
    [
        "",
        "the backend is away",
        "rpc error: code = Unavailable desc = No status received",
        "stream removed (by an administrator)",
        "backend: Stream removed (Socket closed)",
        "No status received from the backend",
        "connect: no such host",
    ],
)
def test_a_drivers_text_is_not_the_librarys(details: str) -> None:
    assert local_status(details) is None
