"""Every series, on a separate registry, with the usual label values seeded with 0.

Seeding makes a graph exist before the first fault, so `rate()` sees the first fault. A series is
seeded only where it can change: driver calls are seeded by the process that calls a driver. Names
and labels are those of controller-runtime and client-go where these have such a series, so existing
dashboards fit. Seconds and bytes are in the names.
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

# The API server's verbs by the HTTP method that client-go's series names them by.
METHODS = {
    "get": "GET",
    "list": "GET",
    "watch": "GET",
    "create": "POST",
    "update": "PUT",
    "delete": "DELETE",
}
# The answers that an API server gives in daily life; others appear when they first happen.
HTTP_CODES = ("200", "201", "400", "401", "403", "404", "409", "410", "422", "429", "500", "503")
# client-go's label value for a request that got no answer.
NO_ANSWER = "<error>"
CALL_BUCKETS_S = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60)
RECONCILE_BUCKETS_S = (0.005, 0.025, 0.1, 0.5, 1, 5, 15, 30, 60, 120)
QUEUE_BUCKETS_S = (0.001, 0.01, 0.1, 1, 10, 60, 300)

# Each counter and histogram would have a second series with the time of its creation, which
# controller-runtime and client-go do not expose and no alert reads. The library's function has no
# annotations, so it is called by a name that has.
_disable_created_metrics: Callable[[], None] = disable_created_metrics
_disable_created_metrics()


class Result(enum.StrEnum):
    """How a run ended: controller-runtime's values, and `terminal`, which it counts as `error`.

    A run that ends with an object that waits for another object counts as `success`, or as
    `requeue_after` if the outcome names a time: so a Go controller would end it, and a share of
    failures computed from this series means the same for both. `terminal` therefore always means
    that a person has to change something.
    """

    SUCCESS = "success"
    REQUEUE = "requeue"  # with the key's own backoff
    REQUEUE_AFTER = "requeue_after"  # after a time that the outcome named
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
    STALLED = "stalled"  # nothing happens before something changes
    DELETING = "deleting"
    NEW = "new"  # nothing has been said about it yet


type ObjectCounts = Mapping[tuple[State, str], int]
"""How many objects are in a state for a reason ("" where the state says it all)."""


class _Objects(Collector):
    """Counts the objects of each kind when it is scraped."""

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
        yield gauge("workqueue_delayed", "Keys that wait for their time", lambda q: q.delayed)
        yield gauge(
            "workqueue_oldest_age_seconds",
            "How long the longest-waiting ready key waits",
            lambda q: q.oldest_age_s,
        )
        yield gauge(
            "workqueue_longest_running_processor_seconds",
            "How long the longest run has been running",
            lambda q: q.longest_run_s,
        )
        yield counter("workqueue_adds", "Keys that became ready", lambda q: q.adds)
        yield counter("workqueue_retries", "Looks asked for later", lambda q: q.retries)


class _DroppedLines(Collector):
    """Reads the number of dropped log lines at every scrape."""

    def __init__(self, read: Callable[[], int]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(
            "cosi_log_lines_dropped", "Log lines dropped because nobody read them in time"
        )
        family.add_metric((), self._read())
        yield family


class _MissingPermissions(Collector):
    """Reads the missing rights at every scrape, for instance `create buckets.example.com`."""

    def __init__(self, read: Callable[[], Iterable[str]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "cosi_missing_permissions",
            "1 for each verb that the API server refuses because a role lacks it",
            labels=("verb", "resource"),
        )
        for call in sorted(self._read()):
            verb, _, resource = call.partition(" ")
            family.add_metric((verb, resource), 1)
        yield family


class Metrics:
    """The series of one process. Make one and pass it around.

    Args:
        controllers: names of the reconcile loops, seeded in their series.
    """

    def __init__(self, *, controllers: Sequence[str] = ()) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._queues = _Queues()
        self.registry.register(self._queues)
        self._runs = Counter(
            "controller_runtime_reconcile",
            "Reconcile runs by how they ended",
            ("controller", "result"),
            registry=self.registry,
        )
        self._run_seconds = Histogram(
            "controller_runtime_reconcile_time_seconds",
            "Length of reconcile runs",
            ("controller",),
            buckets=RECONCILE_BUCKETS_S,
            registry=self.registry,
        )
        self._objects = _Objects()
        self.registry.register(self._objects)
        self._waits = Histogram(
            "workqueue_queue_duration_seconds",
            "How long a ready key waited for a worker",
            ("name",),
            buckets=QUEUE_BUCKETS_S,
            registry=self.registry,
        )
        self._build = Gauge(
            "cosi_build_info",
            "Always 1; the labels say which build this process runs",
            ("component", "version", "commit", "python_version"),
            registry=self.registry,
        )
        self._calls = Histogram(
            "cosi_sidecar_operations_seconds",
            "Driver calls by result; made_by says who made the code",
            ("call", "code", "made_by"),
            buckets=CALL_BUCKETS_S,
            registry=self.registry,
        )
        self._requests = Counter(
            "rest_client_requests",
            "Requests to the API server by answer",
            ("code", "method"),
            registry=self.registry,
        )
        self._driver = Gauge(
            "cosi_driver_up",
            "1 while the driver answers on its socket",
            ("driver",),
            registry=self.registry,
        )
        self._leads = Gauge(
            "leader_election_master_status",
            "1 while this process holds the Lease",
            ("name",),
            registry=self.registry,
        )
        self._seed(controllers)

    def built(self, component: str, *, version: str, commit: str) -> None:
        """Expose which build this process runs."""
        self._build.labels(component, version, commit, platform.python_version()).set(1)

    def seed_calls(self) -> None:
        """Expose the driver calls before the first one. Only for a process that calls a driver."""
        for call in Call:
            # DriverGetInfo is a probe: no alert reads its codes, so they are not seeded.
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
        """Count one key that a worker took."""
        self._waits.labels(queue).observe(seconds)

    def called(self, call: Call, code: Code, made_by: MadeBy, seconds: float) -> None:
        """Count one attempt of a driver call."""
        self._calls.labels(call.value, code.name, made_by.value).observe(seconds)

    def requested(self, verb: str, code: int | None) -> None:
        """Count one request to the API server; `code` is None if no answer came."""
        self._requests.labels(NO_ANSWER if code is None else str(code), METHODS[verb]).inc()

    def driver(self, name: str, *, up: bool) -> None:
        """Expose whether the driver answers."""
        self._driver.labels(name).set(1 if up else 0)

    def leads(self, lease: str, *, leading: bool) -> None:
        """Expose whether this process holds the Lease."""
        self._leads.labels(lease).set(1 if leading else 0)

    def expose(self) -> bytes:
        """All series in Prometheus' text format."""
        return generate_latest(self.registry)

    def _seed(self, controllers: Iterable[str]) -> None:
        for controller in controllers:
            self._run_seconds.labels(controller)
            self._waits.labels(controller)
            for result in Result:
                self._runs.labels(controller, result.value)
        for method in sorted(set(METHODS.values())):
            for http_code in (*HTTP_CODES, NO_ANSWER):
                self._requests.labels(http_code, method)
