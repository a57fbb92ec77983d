"""Sends traces over OTLP/HTTP. Off by default; OpenTelemetry is imported only if it is on.

Each run of a reconcile loop is a trace. Its root span is the run; the child spans are the run's
requests to the API server and driver calls. Requests outside a run (watches, the Lease, Events,
probes) are not traced. A span contains names, codes and times. It never contains a body, a
parameter or a driver's message, so it can't contain a credential.

The environment variables of the OpenTelemetry SDK configure headers, certificates, sampling and
batches (OTEL_EXPORTER_OTLP_HEADERS, OTEL_TRACES_SAMPLER and so on). Attribute names follow the
semantic conventions of OpenTelemetry; names that these lack start with `cosi.`.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Hashable

import anyio
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from cosi_operator.outcome import Call, Code, MadeBy, Outcome, Success
from cosi_operator.scrub import shown_message, shown_name


class Tracing:
    """Sends the spans of one process to a collector.

    Args:
        endpoint: the base URL of the collector; spans are sent to its path /v1/traces.
        service: the name of the process; OTEL_SERVICE_NAME overrides it.
        version: the version of the process.
        instance: identifies the process among its replicas.
    """

    def __init__(self, endpoint: str, *, service: str, version: str, instance: str) -> None:
        about = {
            "service.name": service,
            "service.version": version,
            "service.instance.id": instance,
        }
        self._provider = TracerProvider(
            resource=Resource(about).merge(OTELResourceDetector().detect()),
            shutdown_on_exit=False,  # would wait for a collector that is down; see `close`
        )
        # Log one line for a batch that was dropped, and none for each attempt.
        logging.getLogger("opentelemetry").setLevel(logging.ERROR)
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("cosi_operator", version)
        self._propagator = TraceContextTextMapPropagator()

    def traced[K: Hashable](
        self, controller: str, reconcile: Callable[[K], Awaitable[Outcome]]
    ) -> Callable[[K], Awaitable[Outcome]]:
        """Return `reconcile` with a span around each run."""

        async def run(key: K) -> Outcome:
            with self._tracer.start_as_current_span(
                f"reconcile {controller}",
                attributes=_safe({"cosi.controller": controller, "cosi.key": str(key)}),
                record_exception=False,  # its text may contain credentials
                set_status_on_exception=False,
            ) as span:
                try:
                    outcome = await reconcile(key)
                except Exception as error:
                    span.set_status(Status(StatusCode.ERROR, type(error).__name__))
                    raise
                _set_outcome(span, outcome)
                return outcome

        return run

    def called(self, call: Call, code: Code, made_by: MadeBy, seconds: float) -> None:
        """Record one driver call that has just ended."""
        self._ended(
            call.value,
            seconds,
            {
                "rpc.system": "grpc",
                "rpc.method": call.value,
                "rpc.grpc.status_code": code.value,
                "cosi.status.made_by": made_by.value,
            },
            failed=code is not Code.OK or made_by is not MadeBy.DRIVER,
        )

    def requested(self, verb: str, plural: str, status: int, seconds: float) -> None:
        """Record one request to the API server that has just ended; status 0 means no reply."""
        attributes: dict[str, AttributeValue] = {"cosi.verb": verb, "cosi.resource": plural}
        if status:
            attributes["http.response.status_code"] = status
        self._ended(f"{verb} {plural}", seconds, attributes, failed=not 200 <= status < 400)

    def headers(self) -> dict[str, str]:
        """Return the headers with which a driver can add its own spans to the current run."""
        found: dict[str, str] = {}
        self._propagator.inject(found)
        return found

    async def close(self, within_s: float) -> None:
        """Send the remaining spans; give up after `within_s`."""
        loop, sent = asyncio.get_running_loop(), anyio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # the loop is already closed
                loop.call_soon_threadsafe(sent.set)

        # In a daemon thread, because the shutdown can't be cancelled and must not delay the exit.
        threading.Thread(target=shut_down, daemon=True).start()
        with anyio.move_on_after(within_s):
            await sent.wait()

    def _ended(
        self, name: str, seconds: float, attributes: dict[str, AttributeValue], *, failed: bool
    ) -> None:
        if not trace.get_current_span().get_span_context().is_valid:
            return  # not within a run
        now_ns = time.time_ns()
        span = self._tracer.start_span(
            name,
            kind=SpanKind.CLIENT,
            attributes=_safe(attributes),
            start_time=now_ns - round(seconds * 1e9),
        )
        if failed:
            span.set_status(StatusCode.ERROR)
        span.end(now_ns)


def _safe(attributes: dict[str, AttributeValue]) -> dict[str, AttributeValue]:
    """Scrub all texts, in case an attribute contains text of a driver or tenant."""
    return {
        name: (shown_name(value) if name == "cosi.key" else shown_message(value))
        if isinstance(value, str)
        else value
        for name, value in attributes.items()
    }


def _set_outcome(span: Span, outcome: Outcome) -> None:
    attributes: dict[str, AttributeValue] = {"cosi.outcome": type(outcome).__name__}
    if not isinstance(outcome, Success):
        attributes["cosi.reason"] = outcome.reason.value
    span.set_attributes(_safe(attributes))
