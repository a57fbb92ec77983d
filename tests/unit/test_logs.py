"""Logs have one shape, whoever writes them, and hold no credentials."""

import io
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
import structlog

from cosi_operator.logs import MAX_ITEMS, TEXT_LIMIT, configure, current_level, set_level
from cosi_operator.outcome import Reason
from cosi_operator.scrub import scrub
from cosi_operator.settings import LogFormat, LogLevel


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@dataclass(frozen=True)
class Credentials:
    key: str


class Pair(NamedTuple):
    name: str
    access_token: str


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def written(**fields: Any) -> dict[str, Any]:
    stream = io.StringIO()
    configure(level=LogLevel.INFO, log_format=LogFormat.JSON, stream=stream).info(
        "it_happened", **fields
    )
    (line,) = lines(stream)
    assert datetime.fromisoformat(line.pop("timestamp")).tzinfo == UTC
    return line


def test_a_line_is_one_json_object_with_its_fields() -> None:
    assert written(key="ns/b", attempt=4, retry_in_s=1.5, reason=Reason.CONFLICT, code=None) == {
        "level": "info",
        "event": "it_happened",
        "key": "ns/b",
        "attempt": 4,
        "retry_in_s": 1.5,
        "reason": "Conflict",
        "code": None,
    }


def test_the_context_of_the_run_is_in_every_line() -> None:
    with structlog.contextvars.bound_contextvars(key="ns/b"):
        assert written()["key"] == "ns/b"


@pytest.mark.parametrize(
    "name",
    [
        "accessSecretKey", "accessKeyID", "accessKeyId", "access_key_id", "accessToken", "token",
        "authorization", "Authorization", "Proxy-Authorization", "secrets", "credentials",
        "password", "secretAccessKey", "stringData", "client-key-data",
    ],
)  # fmt: skip
@pytest.mark.parametrize("wrap", ["bare", "in a map", "in a list", "in a text", "in a named tuple"])
def test_a_credential_is_never_written(name: str, wrap: str) -> None:
    fields: dict[str, dict[str, object]] = {
        "bare": {name: "hunter2"},
        "in a map": {"spec": {"secretS3": {name: "hunter2", "region": "eu"}}},
        "in a list": {"items": [{name: ["hunter2"]}]},
        "in a text": {"headers": {name: b"hunter2"}},
        "in a named tuple": {"pair": Pair("n", "hunter2")},
    }
    assert "hunter2" not in json.dumps(written(**fields[wrap]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"accessSecretKey":"hunter2","x":1}', '{"accessSecretKey":"[redacted]","x":1}'),
        (r"{\"accessKeyID\":\"hunter2\"}", r"{\"accessKeyID\":\"[redacted]\"}"),
        ("secret_access_key = hunter2, try again", "secret_access_key = [redacted], try again"),
        ("https://h/?token=hunter2&a=b", "https://h/?token=[redacted]&a=b"),
        ("Authorization: Bearer hunter2hunter2", "Authorization: Bearer [redacted]"),
        (
            "AWS4-HMAC-SHA256 Credential=AKIA/2026, Signature=ab",
            "AWS4-HMAC-SHA256 [redacted]",
        ),
        ("the token has expired", "the token has expired"),
        ("bucket bc-1 not found", "bucket bc-1 not found"),
    ],
)
def test_a_credential_in_a_text_is_blanked(text: str, expected: str) -> None:
    assert scrub(text) == expected


def test_other_objects_are_named_and_not_shown() -> None:
    line = written(
        given=Credentials("hunter2"),
        error=ValueError("hunter2"),
        body=b"hunter2",
        when=datetime(2026, 1, 1, tzinfo=UTC),
        names={"only"},
    )
    assert (line["given"], line["error"], line["body"]) == (
        "<Credentials>",
        "<ValueError>",
        "<bytes>",
    )
    assert (line["when"], line["names"]) == ("2026-01-01T00:00:00+00:00", ["only"])


@pytest.mark.parametrize("name", ["key", "error"])
def test_a_huge_text_is_cut_before_it_is_read(name: str) -> None:
    written_text = written(**{name: "0123456789abcdef" * 65536})[name]
    assert len(written_text) <= TEXT_LIMIT + 2


def test_a_long_list_or_map_is_shortened_with_a_count_of_the_rest() -> None:
    many = [str(i) for i in range(MAX_ITEMS + 5)]
    line = written(keys=many, given=dict.fromkeys(many, 1))
    assert line["keys"] == [*many[:MAX_ITEMS], "5 more"]
    assert len(line["given"]) == MAX_ITEMS + 1
    assert line["given"]["..."] == "5 more"


def test_a_name_that_looks_like_a_key_stays_where_we_print_names() -> None:
    name = "x7k2m9q4w8z1n5b3c6v0"
    line = written(key=f"team/{name}", error=f"{name} is refused")
    assert line["key"] == f"team/{name}"
    assert line["error"] == "<id> is refused"


def test_a_value_that_holds_itself_is_cut() -> None:
    loop: dict[str, object] = {}
    loop["again"] = loop
    assert "..." in json.dumps(written(loop=loop))


def test_what_can_not_be_seen_is_written_as_an_escape() -> None:
    text = "a\nb\u2028\udcff\x1b[2J\u202e"
    assert written(text=text)["text"] == r"a\nb\u2028\udcff\x1b[2J\u202e"
    assert written(key=text)["key"] == r"a\nb\u2028\udcff\x1b[2J\u202e"
    assert written(given={text: 1})["given"] == {r"a\nb\u2028\udcff\x1b[2J\u202e": 1}


@pytest.mark.parametrize(
    ("level", "events"),
    [
        (LogLevel.DEBUG, ["d", "i", "w"]),
        (LogLevel.INFO, ["i", "w"]),
        (LogLevel.WARNING, ["w"]),
        (LogLevel.ERROR, []),
    ],
)
def test_the_level_decides_what_is_written(level: LogLevel, events: list[str]) -> None:
    stream = io.StringIO()
    log = configure(level=level, log_format=LogFormat.JSON, stream=stream)
    log.debug("d")
    log.info("i")
    log.warning("w")
    assert [line["event"] for line in lines(stream)] == events


def test_other_libraries_write_in_the_same_shape_from_warnings_on() -> None:
    stream = io.StringIO()
    configure(level=LogLevel.DEBUG, log_format=LogFormat.JSON, stream=stream)
    logging.getLogger("aiohttp.client").warning("lost %s", "accessToken=hunter2")
    logging.getLogger("grpc").info("not told")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    first, second = lines(stream)
    del first["timestamp"]
    assert first == {
        "level": "warning",
        "event": "lost accessToken=[redacted]",
        "logger": "aiohttp.client",
    }
    assert (second["logger"], second["level"]) == ("py.warnings", "warning")


@pytest.mark.parametrize("log_format", [LogFormat.JSON, LogFormat.HUMAN])
def test_a_traceback_is_scrubbed_too(log_format: LogFormat) -> None:
    stream = io.StringIO()
    log = configure(level=LogLevel.INFO, log_format=log_format, stream=stream)
    try:
        raise ValueError("password=hunter2")
    except ValueError:
        log.exception("it_failed")
        logging.getLogger("asyncio").exception("never retrieved")
    assert stream.getvalue().count("ValueError: password=[redacted]") == 2
    assert "hunter2" not in stream.getvalue().replace('ValueError("password=hunter2")', "")


@pytest.mark.parametrize(
    ("log_format", "stream", "human"),
    [
        pytest.param(LogFormat.AUTO, Terminal(), True, id="auto on a terminal is for people"),
        pytest.param(LogFormat.AUTO, io.StringIO(), False, id="auto on a pipe is JSON"),
        pytest.param(LogFormat.HUMAN, io.StringIO(), True, id="human on a pipe is human"),
        pytest.param(LogFormat.JSON, Terminal(), False, id="JSON on a terminal is JSON"),
    ],
)
def test_the_format(log_format: LogFormat, stream: io.StringIO, human: bool) -> None:
    configure(level=LogLevel.INFO, log_format=log_format, stream=stream).info("it_happened", a=1)
    text = stream.getvalue()
    assert "it_happened" in text
    assert text.endswith("\n")
    assert text.startswith("{") is not human
    assert ("\x1b[" in text) is (human and stream.isatty())


def test_a_changed_level_applies_to_loggers_that_are_already_bound() -> None:
    stream = io.StringIO()
    log = configure(level=LogLevel.INFO, log_format=LogFormat.JSON, stream=stream).bind(part="a")
    log.debug("unheard")
    set_level(LogLevel.DEBUG)
    assert current_level() is LogLevel.DEBUG
    log.debug("heard")
    set_level(LogLevel.ERROR)
    log.warning("too quiet")
    assert [line["event"] for line in lines(stream)] == ["heard"]
