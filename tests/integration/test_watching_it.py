"""Metrics, probes and the log level of the running processes."""

import json
import re
import socket
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.chart.promtool import promtool

from controlplane import ensure
from cosi_operator.outcome import Call
from testbed import Testbed


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class Watched:
    """A testbed whose processes serve metrics and probes."""

    def __init__(self, bed: Testbed, ports: dict[str, int]) -> None:
        self.bed = bed
        self._ports = ports

    def ask(self, role: str, path: str, *, put: str | None = None) -> tuple[int, str]:
        """GET, or PUT a text; the HTTP status and the body."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._ports[role]}{path}",
            data=None if put is None else put.encode(),
            method="GET" if put is None else "PUT",
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def sample(self, role: str, series: str) -> float | None:
        """The value of one series, written as in the exposition; None if it is not there."""
        lines = self.ask(role, "/metrics")[1].splitlines()
        found = [line for line in lines if line.startswith(f"{series} ")]
        return float(found[0].rpartition(" ")[2]) if found else None

    def until_sample(self, role: str, series: str, value: float) -> None:
        """Wait until a series has the value.

        `/metrics` returns its last text again when making the texts took too much time, which
        happens early on a loaded machine.
        """
        self.bed.until(f"{series} to be {value}", lambda: self.sample(role, series) == value)


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    ports = {"controller": free_port(), "sidecar": free_port()}
    flags = {role: f"--metrics-bind-address=127.0.0.1:{port}" for role, port in ports.items()}
    with (
        tempfile.TemporaryDirectory(prefix="cosi-") as directory,
        Testbed.start(
            Path(directory),
            controller_flags=[flags["controller"]],
            sidecar_flags=[flags["sidecar"]],
        ) as bed,
    ):
        yield Watched(bed, ports)


def test_what_happened_stands_in_the_series(watched: Watched) -> None:
    bed = watched.bed
    bed.make_classes("good")
    bed.make_classes("bad", parameters={"case": "bad"})
    bed.driver.set_rule(
        Call.CREATE_BUCKET, match={"parameters.case": "bad"}, code="PERMISSION_DENIED"
    )
    bed.make_claims(["one", "two"], class_name="good")
    bed.make_claims(["three"], class_name="bad")
    bed.make_accesses(["one"], class_name="good")
    bed.until_ready("bucketaccesses", ["one"])
    bed.until_ready("bucketclaims", ["two"])
    bed.until_reason("bucketclaims", "three", "DriverPermissionDenied")
    bed.until_quiet(0.5)

    def create(code: str) -> str:
        labels = f'call="DriverCreateBucket",code="{code}",made_by="driver"'
        return f"cosi_sidecar_operations_seconds_count{{{labels}}}"

    watched.until_sample("sidecar", create("OK"), 2)
    watched.until_sample("sidecar", create("PERMISSION_DENIED"), 1)
    for role, kind, state, reason, count in (
        ("sidecar", "Bucket", "ready", "", 2),
        ("sidecar", "Bucket", "stalled", "DriverPermissionDenied", 1),
        ("sidecar", "BucketAccess", "ready", "", 1),
        ("sidecar", "BucketAccess", "stalled", "", 0),
        ("controller", "BucketClaim", "ready", "", 2),
        ("controller", "BucketClaim", "stalled", "DriverPermissionDenied", 1),
    ):
        series = f'cosi_objects{{kind="{kind}",reason="{reason}",state="{state}"}}'
        watched.until_sample(role, series, count)
    watched.until_sample("sidecar", f'cosi_driver_up{{driver="{bed.driver.name}"}}', 1)
    for role, lease in (
        ("sidecar", "mock-objectstorage-k8s-io-cosi"),
        ("controller", "leader-lock-cosi-controller-manager"),
    ):
        watched.until_sample(role, f'leader_election_master_status{{name="{lease}"}}', 1)
    assert (
        watched.sample("sidecar", 'rest_client_requests_total{code="200",method="PUT"}') or 0
    ) > 0
    waits = 'workqueue_queue_duration_seconds_count{name="bucket"}'
    assert (watched.sample("sidecar", waits) or 0) >= 3


@pytest.mark.parametrize("role", ["controller", "sidecar"])
def test_a_process_that_becomes_the_leader_says_so_on_its_lease(
    watched: Watched, role: str
) -> None:
    lease = watched.bed.lease_path(role)
    *_, namespace, _, name = lease.split("/")
    identity = watched.bed.plane.api.call("GET", lease)["spec"]["holderIdentity"]
    assert watched.bed.until_event(name, "LeaderElection", namespace=namespace) == (
        f"{identity} became leader"
    )


@pytest.mark.timeout(900)  # the first run builds promtool, unless `make test` has
@pytest.mark.parametrize("role", ["controller", "sidecar"])
def test_promtool_finds_no_fault_in_the_exposition(watched: Watched, role: str) -> None:
    ensure(["promtool"])
    exposition = watched.ask(role, "/metrics")[1]
    assert promtool("check", "metrics", stdin=exposition) == ""


def test_each_process_exposes_its_build_and_only_what_it_does(watched: Watched) -> None:
    series: dict[str, set[str]] = {}
    for role in ("controller", "sidecar"):
        lines = watched.ask(role, "/metrics")[1].splitlines()
        series[role] = {re.split(r"[{ ]", line)[0] for line in lines if not line.startswith("#")}
        (build,) = (line for line in lines if line.startswith("cosi_build_info{"))
        assert f'component="cosi-{role}"' in build
        assert 'version=""' not in build
    driver = {
        name for name in series["sidecar"] if name.startswith(("cosi_sidecar", "cosi_driver"))
    }
    assert driver == {
        "cosi_driver_up",
        *(f"cosi_sidecar_operations_seconds_{part}" for part in ("bucket", "count", "sum")),
    }
    assert driver & series["controller"] == set()
    # Each code starts at 0, because an alert does not see how far a new series has counted already.
    never = 'call="DriverRevokeBucketAccess",code="DATA_LOSS",made_by="driver"'
    assert watched.sample("sidecar", f"cosi_sidecar_operations_seconds_count{{{never}}}") == 0


def test_the_sidecar_is_not_ready_while_its_driver_is_gone(watched: Watched) -> None:
    bed = watched.bed
    assert watched.ask("sidecar", "/readyz") == (200, "ok\n")
    bed.driver.stop()
    bed.until("not ready", lambda: watched.ask("sidecar", "/readyz")[0] == 503)
    assert watched.ask("sidecar", "/readyz")[1] == "waiting for the driver\n"
    assert watched.ask("sidecar", "/healthz") == (200, "ok\n")
    series = f'cosi_driver_up{{driver="{bed.driver.name}"}}'
    watched.until_sample("sidecar", series, 0)
    bed.driver.run()
    bed.until("ready again", lambda: watched.ask("sidecar", "/readyz")[0] == 200)
    watched.until_sample("sidecar", series, 1)


@pytest.mark.parametrize(
    ("role", "events"),
    [
        pytest.param("controller", {"request"}, id="controller -> each request"),
        pytest.param("sidecar", {"request", "driver_call"}, id="sidecar -> each call too"),
    ],
)
def test_the_log_level_is_changed_while_it_runs(
    watched: Watched, role: str, events: set[str]
) -> None:
    bed = watched.bed

    def debug_events() -> set[str]:
        lines = [json.loads(line) for line in bed.log_of(role).splitlines()]
        return {line["event"] for line in lines if line["level"] == "debug"}

    assert watched.ask(role, "/loglevel") == (200, "info\n")
    assert debug_events() == set()
    assert watched.ask(role, "/loglevel", put="debug") == (200, "debug\n")
    bed.make_classes(f"louder-{role}")
    bed.make_claims([f"louder-{role}"], class_name=f"louder-{role}")
    bed.until_ready("bucketclaims", [f"louder-{role}"])
    bed.until("debugging lines", lambda: events <= debug_events())
    assert watched.ask(role, "/loglevel", put="loud")[0] == 400
    assert watched.ask(role, "/loglevel", put="info") == (200, "info\n")
