"""Every sink of foreign text, with every encoding of a key: log, condition, Event, span, `cosi`."""

import io
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
import structlog
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.support.encodings import ACCESS_KEYS, SECRET_KEYS, around, encodings, leaks

from cosi_operator import conditions
from cosi_operator.api.view import BucketClaim, Condition, Meta
from cosi_operator.cli.render import not_ready, status
from cosi_operator.kube.errors import error_of
from cosi_operator.logs import configure
from cosi_operator.outcome import Call, Code, DriverStatus, MadeBy, Outcome, Reason, Terminal
from cosi_operator.settings import LogFormat, LogLevel
from cosi_operator.tracing import Tracing

KEY, SECRET = ACCESS_KEYS[0], SECRET_KEYS[1]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
type Sink = Callable[[str], str]


def log_line(words: str) -> str:
    stream = io.StringIO()
    log = configure(level=LogLevel.INFO, log_format=LogFormat.JSON, stream=stream)
    log.warning("reconcile_stopped", message=words, given={words: [words]})
    logging.getLogger("grpc").error("it said %s", words)
    return "\n".join(str(json.loads(line)) for line in stream.getvalue().splitlines())


def condition(words: str) -> str:
    refused = DriverStatus(Call.CREATE_BUCKET, Code.UNKNOWN, MadeBy.DRIVER, words)
    outcome = Terminal(Reason.DRIVER_UNKNOWN, "", status=refused)
    return conditions.failure_message(
        outcome, attempts=1, retry_what="bucket b", advice="", now=NOW, longest_pause_s=300.0
    )


def server_refusal(words: str) -> str:
    body = json.dumps({"reason": "Forbidden", "message": words}).encode()
    return str(error_of(403, body, what="create buckets b", confidential=False))


async def span(words: str, monkeypatch: pytest.MonkeyPatch) -> str:
    spans = InMemorySpanExporter()
    # The usual processor sends from a thread of its own.
    monkeypatch.setattr(
        "cosi_operator.tracing.BatchSpanProcessor", lambda _: SimpleSpanProcessor(spans)
    )
    tracing = Tracing("http://127.0.0.1:1", service="s", version="1", instance="i")

    async def run(_: str) -> Outcome:
        tracing.requested("get", words, 200, 0.1)
        return Terminal(Reason.DRIVER_UNKNOWN, words)

    await tracing.traced("buckets", run)("team/photos")
    return str([dict(span.attributes or {}) for span in spans.get_finished_spans()])


@pytest.fixture(autouse=True)
def _restore_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    structlog.reset_defaults()


@pytest.mark.attack("a driver repeats a key, encoded, in lower case or in pieces; nobody reads it")
@pytest.mark.parametrize("sink", [log_line, condition, server_refusal])
def test_no_sink_shows_a_key(sink: Sink) -> None:
    for key in (KEY, SECRET):
        for name, spelling in encodings(key):
            shown = sink(f"cannot use {spelling} for it")
            assert "cannot use" in shown
            assert not leaks(shown, key), (name, shown)
            assert not leaks(shown, spelling), (name, shown)
    for name, text in around(KEY, SECRET):
        assert not leaks(sink(text), SECRET), name


@pytest.mark.attack("a driver repeats a key, encoded, in lower case or in pieces; nobody reads it")
async def test_no_span_shows_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, spelling in encodings(SECRET):
        shown = await span(f"cannot use {spelling} for it", monkeypatch)
        assert "cosi.key" in shown
        assert not leaks(shown, SECRET), (name, shown)
        assert not leaks(shown, spelling), (name, shown)


@pytest.mark.attack("control and direction-turning characters in names and messages are escapes")
@pytest.mark.parametrize("sink", [log_line, condition, server_refusal])
def test_no_sink_shows_control_characters(sink: Sink) -> None:
    shown = sink("gold\x1b]0;owned\x07\u202edlog\x9b1m")
    assert shown.replace("\n", "").isprintable()
    assert "\\x1b" in shown


@pytest.mark.attack("control and direction-turning characters in names and messages are escapes")
def test_our_own_sentences_with_a_tenants_name_in_them_are_escaped_too() -> None:
    outcome = Terminal(Reason.INVALID_SPEC, "BucketClass go\x1b[2Jld\u202e does not exist.")
    shown = conditions.failure_message(
        outcome, attempts=1, retry_what="bucketclaim c", advice="", now=NOW, longest_pause_s=300.0
    )
    assert shown == r"BucketClass go\x1b[2Jld\u202e does not exist."
    stored = Condition("Ready", "False", "X", "go\x1b[2Jld\u202e", 1, "")
    claim = BucketClaim(Meta("c", "ns"), conditions=(stored,))
    table = status(not_ready([claim]), 1, "here", NOW)
    assert r"go\x1b[2Jld\u202e" in table
    assert table.replace("\n", "").isprintable()
