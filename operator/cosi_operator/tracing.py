"""Traces over OTLP/HTTP. Off by default, and then nothing of OpenTelemetry is imported.

Each run of a reconcile loop is a trace: the run, and below it every request to the API server and
every driver call that it made. What no run asked for (watches, the Lease, Events, probes) is not
traced. A span holds names, codes and times, and never a body, a parameter or a driver's words, so
no credential can be in it.

Headers, certificates, sampling and batches are set by the SDK's own environment variables
(OTEL_EXPORTER_OTLP_HEADERS, OTEL_TRACES_SAMPLER and so on). Names: the semantic conventions of
OpenTelemetry where they have one, `cosi.` before the others.
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
    """Where the spans of one process go.

    Args:
        endpoint: base URL of the collector; spans are posted to /v1/traces below it.
        service: name of the process; OTEL_SERVICE_NAME overrides it.
        version: of the process.
        instance: the one process among its replicas.
    """

    def __init__(self, endpoint: str, *, service: str, version: str, instance: str) -> None:
        about = {
            "service.name": service,
            "service.version": version,
            "service.instance.id": instance,
        }
        self._provider = TracerProvider(
            resource=Resource(about).merge(OTELResourceDetector().detect()),
            shutdown_on_exit=False,  # it would wait for a collector that is gone; see `close`
        )
        # One line when a batch is given up, none for each try.
        logging.getLogger("opentelemetry").setLevel(logging.ERROR)
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("cosi_operator", version)
        self._propagator = TraceContextTextMapPropagator()

    def traced[K: Hashable](
        self, controller: str, reconcile: Callable[[K], Awaitable[Outcome]]
    ) -> Callable[[K], Awaitable[Outcome]]:
        """The same reconcile, with a span around each run."""

        async def run(key: K) -> Outcome:
            with self._tracer.start_as_current_span(
                f"reconcile {controller}",
                attributes=_safe({"cosi.controller": controller, "cosi.key": str(key)}),
                record_exception=False,  # its text may hold anything
                set_status_on_exception=False,
            ) as span:
                try:
                    outcome = await reconcile(key)
                except Exception as error:
                    span.set_status(Status(StatusCode.ERROR, type(error).__name__))
                    raise
                _tell(span, outcome)
                return outcome

        return run

    def called(self, call: Call, code: Code, made_by: MadeBy, seconds: float) -> None:
        """Note one driver call that has just ended."""
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
        """Note one request to the API server that has just ended; status 0 is no answer."""
        told: dict[str, AttributeValue] = {"cosi.verb": verb, "cosi.resource": plural}
        if status:
            told["http.response.status_code"] = status
        self._ended(f"{verb} {plural}", seconds, told, failed=not 200 <= status < 400)

    def headers(self) -> dict[str, str]:
        """The headers by which a driver adds its own spans to the run that calls it."""
        found: dict[str, str] = {}
        self._propagator.inject(found)
        return found

    async def close(self, within_s: float) -> None:
        """Send the remaining spans; give up after `within_s`."""
        loop, sent = asyncio.get_running_loop(), anyio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # too late: the loop is closed
                loop.call_soon_threadsafe(sent.set)

        # It can take long and can't be cancelled; the process does not wait for a daemon's end.
        threading.Thread(target=shut_down, daemon=True).start()
        with anyio.move_on_after(within_s):
            await sent.wait()

    def _ended(
        self, name: str, seconds: float, told: dict[str, AttributeValue], *, failed: bool
    ) -> None:
        if not trace.get_current_span().get_span_context().is_valid:
            return  # not within a run
        now_ns = time.time_ns()
        span = self._tracer.start_span(
            name,
            kind=SpanKind.CLIENT,
            attributes=_safe(told),
            start_time=now_ns - round(seconds * 1e9),
        )
        if failed:
            span.set_status(StatusCode.ERROR)
        span.end(now_ns)


def _safe(told: dict[str, AttributeValue]) -> dict[str, AttributeValue]:
    """A second line of defence: blank text of drivers and tenants, which spans do not contain."""
    return {
        name: (shown_name(value) if name == "cosi.key" else shown_message(value))
        if isinstance(value, str)
        else value
        for name, value in told.items()
    }


def _tell(span: Span, outcome: Outcome) -> None:
    told: dict[str, AttributeValue] = {"cosi.outcome": type(outcome).__name__}
    if not isinstance(outcome, Success):
        told["cosi.reason"] = outcome.reason.value
    span.set_attributes(_safe(told))
