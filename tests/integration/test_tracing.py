"""Traces, as a collector gets them from the running processes."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from cosi_operator.outcome import Call
from mockdriver.backend import CANARY
from testbed import NAMESPACE, Testbed

# Quickly, so that no test has to wait for the SDK's five seconds.
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "100", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}


@dataclass(frozen=True)
class Seen:
    """One span, and the process it is from."""

    span: WireSpan
    service: str

    def __getitem__(self, name: str) -> str | int | None:
        return _values(self.span.attributes).get(name)


@dataclass
class Collector:
    """Takes OTLP/HTTP on a port of its own."""

    bodies: list[bytes] = field(default_factory=list)
    endpoint: str = ""

    def spans(self) -> list[Seen]:
        """All that have come so far."""
        return [
            Seen(span, str(_values(resource.resource.attributes)["service.name"]))
            for body in self.bodies
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def runs(self, controller: str, key: str) -> list[Seen]:
        """The runs of one object."""
        return [
            seen
            for seen in self.spans()
            if seen.span.name == f"reconcile {controller}" and seen["cosi.key"] == key
        ]

    def below(self, run: Seen) -> list[Seen]:
        """What a run did, in the order of time."""
        found = [seen for seen in self.spans() if seen.span.parent_span_id == run.span.span_id]
        return sorted(found, key=lambda seen: seen.span.start_time_unix_nano)


def _values(attributes: object) -> dict[str, str | int]:
    found: dict[str, str | int] = {}
    for pair in attributes:  # type: ignore[attr-defined] # a protobuf container
        assert isinstance(pair, KeyValue)
        value = pair.value
        found[pair.key] = value.string_value or value.int_value
    return found


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    found = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/traces"
            found.bodies.append(body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Not to the screen."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    found.endpoint = f"http://127.0.0.1:{server.server_port}"
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    with (
        TemporaryDirectory(prefix="cosi-") as directory,
        Testbed.start(Path(directory), operator=False) as found,
    ):
        yield found


@pytest.fixture(autouse=True)
def _ended(bed: Testbed) -> Iterator[None]:
    yield
    bed.stop_operator()
    assert bed.forbidden() == []


def start(bed: Testbed, endpoint: str) -> None:
    """By the flag and by the environment, one each."""
    bed.start_process("controller", f"--trace-endpoint={endpoint}", environment=SOON)
    bed.start_process("sidecar", environment={"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, **SOON})
    bed.until_leading()


def test_a_run_is_a_trace_of_what_it_did(bed: Testbed, collector: Collector) -> None:
    start(bed, collector.endpoint)
    bed.make_classes("gold", parameters={"tier": "confidential-tier"})
    bed.make_claims(["one"], class_name="gold")
    bed.make_accesses(["one"], class_name="gold")
    bed.until_ready("bucketaccesses", ["one"])
    bed.stop_operator()  # sends what is left

    bucket = str(bed.get("bucketclaims", "one")["status"]["bucketName"])
    created = {
        run.span.trace_id: run
        for run in collector.runs("bucket", bucket)
        if "DriverCreateBucket" in [seen.span.name for seen in collector.below(run)]
    }
    assert len(created) == 1
    run = next(iter(created.values()))
    assert (run["cosi.outcome"], run.service) == ("Success", "cosi-sidecar")
    told = [(seen.span.name, seen["http.response.status_code"]) for seen in collector.below(run)]
    # The first call on a new connection asks who answers, within the call that opened it.
    assert told.count(("DriverGetInfo", None)) <= 1
    assert [one for one in told if one != ("DriverGetInfo", None)] == [
        ("update buckets", 200),
        ("DriverCreateBucket", None),
        ("update buckets", 200),
        ("update bucketclaims", 200),
    ]
    for inner in collector.below(run):
        assert inner.span.trace_id == run.span.trace_id
        assert run.span.start_time_unix_nano <= inner.span.start_time_unix_nano
        assert inner.span.end_time_unix_nano <= run.span.end_time_unix_nano
    made = [
        seen
        for run in collector.runs("bucketclaim", f"{NAMESPACE}/one")
        for seen in collector.below(run)
    ]
    assert "create buckets" in [seen.span.name for seen in made]
    assert {seen.service for seen in made} == {"cosi-controller"}

    # The driver was told which run it works for.
    [call] = bed.driver.journal(Call.CREATE_BUCKET)
    _, trace_id, parent_id, _ = call.fields["traceparent"].split("-")
    assert (trace_id, parent_id) == (run.span.trace_id.hex(), run.span.span_id.hex())

    sent = b"".join(collector.bodies)
    for hidden in (CANARY, "confidential-tier"):
        assert hidden.encode() not in sent


def test_a_refused_call_is_an_error_and_its_run_says_why(
    bed: Testbed, collector: Collector
) -> None:
    bed.driver.set_rule(
        Call.CREATE_BUCKET, code="PERMISSION_DENIED", message="not for user mallory"
    )
    start(bed, collector.endpoint)
    bed.make_classes("closed")
    bed.make_claims(["two"], class_name="closed")
    bed.until_reason("bucketclaims", "two", "DriverPermissionDenied")
    bed.stop_operator()
    calls = [seen for seen in collector.spans() if seen["rpc.grpc.status_code"] == 7]
    assert len(calls) == 1
    assert calls[0].span.status.code == Status.STATUS_CODE_ERROR
    assert calls[0]["cosi.status.made_by"] == "driver"
    [run] = [s for s in collector.spans() if s.span.span_id == calls[0].span.parent_span_id]
    assert run["cosi.outcome"] == "Terminal"
    assert run["cosi.reason"] == "DriverPermissionDenied"
    assert b"mallory" not in b"".join(collector.bodies)


def test_a_collector_that_is_gone_holds_nothing_up(bed: Testbed) -> None:
    bed.driver.reset()
    start(bed, "http://127.0.0.1:9")  # nobody listens there
    bed.make_classes("silver")
    bed.make_claims(["three"], class_name="silver")
    bed.until_ready("bucketclaims", ["three"])
    bed.until(
        "a line that says so",
        lambda: all("export span" in bed.log_of(role) for role in ("controller", "sidecar")),
    )
    began = time.monotonic()
    bed.stop_operator()
    assert time.monotonic() - began < 10
    for role in ("controller", "sidecar"):
        assert '"event":"stopped"' in bed.log_of(role)
