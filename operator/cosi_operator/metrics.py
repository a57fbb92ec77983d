"""Defines every metric, on a separate registry, with the common label values seeded with 0.

A seeded series exists before the first failure, so `rate()` includes the first failure. Only the
process that can change a series seeds it: the sidecar seeds the driver calls. If controller-runtime
or client-go has an equivalent series, its name and labels are used, so that existing dashboards
work. Units are in the names.
"""

import enum
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cosi_operator.outcome import Call, Code, MadeBy

# The label values of client-go's series, for requests that the operator sends.
METHODS = ("DELETE", "GET", "POST", "PUT")
# The common statuses of an API server. Others are added when they first occur.
HTTP_CODES = ("200", "201", "400", "401", "403", "404", "409", "410", "422", "429", "500", "503")
# client-go's label value for a request without a reply.
NO_ANSWER = "<error>"
CALL_BUCKETS_S = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60)
RECONCILE_BUCKETS_S = (0.005, 0.025, 0.1, 0.5, 1, 5, 15, 30, 60, 120)
QUEUE_BUCKETS_S = (0.001, 0.01, 0.1, 1, 10, 60, 300)

# By default, each counter and histogram has a second series with its time of creation. This is
# disabled, because controller-runtime and client-go do not have it and no alert uses it. The
# library's function has no annotations, so a name with annotations refers to it.
_disable_created_metrics: Callable[[], None] = disable_created_metrics
_disable_created_metrics()


class Result(enum.StrEnum):
    """The result of a run: controller-runtime's values, and `terminal`.

    controller-runtime counts a terminal error as `error`. A run whose object waits for another
    object counts as `success`, or as `requeue_after` if the outcome has a time. A Go controller
    counts such a run in the same way, so error ratios from this series are comparable. So
    `terminal` always means that a user or administrator has to change something.
    """

    SUCCESS = "success"
    REQUEUE = "requeue"  # with the key's own backoff
    REQUEUE_AFTER = "requeue_after"  # after the time in the outcome
    TERMINAL = "terminal"
    ERROR = "error"  # an unexpected exception, or the run's time limit


class QueueNumbers(Protocol):
    """The statistics of a queue; `workqueue.QueueStatistics` has these fields."""

    @property
    def depth(self) -> int: ...
    @property
    def processing(self) -> int: ...
    @property
    def delayed(self) -> int: ...
    @property
    def oldest_age_s(self) -> float: ...
    @property
    def longest_run_s(self) -> float: ...
    @property
    def adds(self) -> int: ...
    @property
    def retries(self) -> int: ...


class State(enum.StrEnum):
    """The state of an object, from its conditions."""

    READY = "ready"
    RECONCILING = "reconciling"  # waits or is retried automatically
    STALLED = "stalled"  # not retried until something changes
    DELETING = "deleting"
    NEW = "new"  # has no Ready condition yet


type ObjectCounts = Mapping[tuple[State, str], int]
"""The number of objects by state and reason ("" if the state is sufficient)."""


class _Objects(Collector):
    """Counts the objects of each kind at every scrape."""

    def __init__(self) -> None:
        self._read: dict[str, Callable[[], ObjectCounts]] = {}

    def watch(self, kind: str, read: Callable[[], ObjectCounts]) -> None:
        self._read[kind] = read

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "cosi_objects", "Objects by state and reason", labels=("kind", "state", "reason")
        )
        for kind, read in self._read.items():
            counts = {(state, ""): 0 for state in State} | dict(read())
            for (state, reason), count in counts.items():
                family.add_metric((kind, state.value, reason), count)
        yield family


class _Queues(Collector):
    """Reads each queue at every scrape, so queues do not depend on metrics."""

    def __init__(self) -> None:
        self._read: dict[str, Callable[[], QueueNumbers]] = {}

    def watch(self, name: str, read: Callable[[], QueueNumbers]) -> None:
        self._read[name] = read

    def collect(self) -> Iterator[Metric]:
        now = {name: read() for name, read in self._read.items()}

        def gauge(series: str, text: str, value: Callable[[QueueNumbers], float]) -> Metric:
            family = GaugeMetricFamily(series, text, labels=("name",))
            for name, numbers in now.items():
                family.add_metric((name,), value(numbers))
            return family

        def counter(series: str, text: str, value: Callable[[QueueNumbers], float]) -> Metric:
            family = CounterMetricFamily(series, text, labels=("name",))
            for name, numbers in now.items():
                family.add_metric((name,), value(numbers))
            return family

        yield gauge("workqueue_depth", "Keys ready to be reconciled", lambda q: q.depth)
        yield gauge("workqueue_processing", "Keys being reconciled", lambda q: q.processing)
        yield gauge(
            "workqueue_delayed", "Keys whose time or turn has not come", lambda q: q.delayed
        )
        yield gauge(
            "workqueue_oldest_age_seconds",
            "The longest time that a ready key has waited",
            lambda q: q.oldest_age_s,
        )
        yield gauge(
            "workqueue_longest_running_processor_seconds",
            "The longest time that a current run has taken",
            lambda q: q.longest_run_s,
        )
        yield counter("workqueue_adds", "Keys that became ready", lambda q: q.adds)
        yield counter("workqueue_retries", "Runs requested for a later time", lambda q: q.retries)


class _DroppedLines(Collector):
    """Reads the number of dropped log lines at every scrape."""

    def __init__(self, read: Callable[[], int]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(
            "cosi_log_lines_dropped", "Log lines dropped because stderr was blocked"
        )
        family.add_metric((), self._read())
        yield family


class _MissingPermissions(Collector):
    """Reads the missing rights at every scrape, for example `create buckets.example.com`."""

    def __init__(self, read: Callable[[], Iterable[str]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "cosi_missing_permissions",
            "1 for each verb and resource that the API server refuses because a role lacks it",
            labels=("verb", "resource"),
        )
        for call in sorted(self._read()):
            verb, _, resource = call.partition(" ")
            family.add_metric((verb, resource), 1)
        yield family


class Metrics:
    """The metrics of one process, created once.

    Args:
        controllers: the names of the reconcile loops, which are seeded.
    """

    def __init__(self, *, controllers: Sequence[str] = ()) -> None:
        self.registry = CollectorRegistry()
        self._queues, self._objects = _Queues(), _Objects()
        ProcessCollector(registry=self.registry)
        self.registry.register(self._queues)
        self._runs = self._counter(
            "controller_runtime_reconcile", "Reconcile runs by result", "controller", "result"
        )
        self._run_seconds = self._histogram(
            "controller_runtime_reconcile_time_seconds",
            "Duration of reconcile runs",
            ("controller",),
            RECONCILE_BUCKETS_S,
        )
        self.registry.register(self._objects)
        self._waits = self._histogram(
            "workqueue_queue_duration_seconds",
            "Time that a ready key waited for a worker",
            ("name",),
            QUEUE_BUCKETS_S,
        )
        self._build = self._gauge(
            "cosi_build_info",
            "Always 1; the labels identify the build of this process",
            *("component", "version", "commit", "python_version"),
        )
        self._calls = self._histogram(
            "cosi_sidecar_operations_seconds",
            "Driver calls by result; made_by is the origin of the code",
            ("call", "code", "made_by"),
            CALL_BUCKETS_S,
        )
        self._requests = self._counter(
            "rest_client_requests", "Requests to the API server by status", "code", "method"
        )
        self._driver = self._gauge(
            "cosi_driver_up", "1 while the driver answers on its socket", "driver"
        )
        self._leads = self._gauge(
            "leader_election_master_status", "1 while this process holds the Lease", "name"
        )
        self._seed(controllers)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, labels: Sequence[str], buckets: Sequence[float]
    ) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    def built(self, component: str, *, version: str, commit: str) -> None:
        """Expose the build of this process."""
        self._build.labels(component, version, commit, platform.python_version()).set(1)

    def seed_calls(self) -> None:
        """Seed the series of driver calls. Only for a process that calls a driver."""
        for call in Call:
            # DriverGetInfo is a probe whose failure codes no alert uses, so they are not seeded.
            for code in Code if call is not Call.GET_INFO else (Code.OK,):
                self._calls.labels(call.value, code.name, MadeBy.DRIVER.value)
            self._calls.labels(call.value, Code.UNAVAILABLE.name, MadeBy.TRANSPORT.value)
            self._calls.labels(call.value, Code.DEADLINE_EXCEEDED.name, MadeBy.DEADLINE.value)
            self._calls.labels(call.value, Code.OK.name, MadeBy.REPLY.value)

    def watch_queue(self, name: str, read: Callable[[], QueueNumbers]) -> None:
        """Expose a queue; `read` is called at every scrape."""
        self._queues.watch(name, read)

    def watch_dropped_lines(self, read: Callable[[], int]) -> None:
        """Expose the number of dropped log lines; `read` is called at every scrape."""
        self.registry.register(_DroppedLines(read))

    def watch_missing_permissions(self, read: Callable[[], Iterable[str]]) -> None:
        """Expose the missing rights; `read` is called at every scrape."""
        self.registry.register(_MissingPermissions(read))

    def reconciled(self, controller: str, result: Result, seconds: float) -> None:
        """Count one run that ended."""
        self._runs.labels(controller, result.value).inc()
        self._run_seconds.labels(controller).observe(seconds)

    def watch_objects(self, kind: str, read: Callable[[], ObjectCounts]) -> None:
        """Expose the objects of a kind; `read` counts them at every scrape."""
        self._objects.watch(kind, read)

    def waited(self, queue: str, seconds: float) -> None:
        """Count one key that a worker took, and the seconds that it was ready."""
        self._waits.labels(queue).observe(seconds)

    def called(self, call: Call, code: Code, made_by: MadeBy, seconds: float) -> None:
        """Count one attempt of a driver call."""
        self._calls.labels(call.value, code.name, made_by.value).observe(seconds)

    def requested(self, method: str, code: int | None) -> None:
        """Count one request to the API server; `code` is None if there was no reply."""
        self._requests.labels(NO_ANSWER if code is None else str(code), method).inc()

    def driver(self, name: str, *, up: bool) -> None:
        """Expose whether the driver answers."""
        self._driver.labels(name).set(1 if up else 0)

    def leads(self, lease: str, *, leading: bool) -> None:
        """Expose whether this process holds the Lease."""
        self._leads.labels(lease).set(1 if leading else 0)

    def expose(self) -> bytes:
        """Return all series in the text format of Prometheus."""
        return generate_latest(self.registry)

    def _seed(self, controllers: Iterable[str]) -> None:
        for controller in controllers:
            self._run_seconds.labels(controller)
            self._waits.labels(controller)
            for result in Result:
                self._runs.labels(controller, result.value)
        for method in METHODS:
            for http_code in (*HTTP_CODES, NO_ANSWER):
                self._requests.labels(http_code, method)
