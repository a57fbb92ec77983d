"""Every series is there from the start, under the names that existing dashboards know."""

import platform
from dataclasses import dataclass

import pytest

from cosi_operator.kube import request
from cosi_operator.metrics import METHODS, Metrics, Result, State
from cosi_operator.outcome import Call, Code, MadeBy


@dataclass(frozen=True)
class Numbers:
    depth: int = 3
    processing: int = 2
    delayed: int = 1
    oldest_age_s: float = 7.5
    longest_run_s: float = 0.5
    adds: int = 10
    retries: int = 4


@pytest.mark.parametrize(
    ("series", "labels"),
    [
        ("controller_runtime_reconcile_total", {"controller": "bucket", "result": "terminal"}),
        ("controller_runtime_reconcile_time_seconds_count", {"controller": "bucket"}),
        (
            "cosi_sidecar_operations_seconds_count",
            {
                "call": "DriverGrantBucketAccess",
                "code": "ALREADY_EXISTS",
                "made_by": "driver",
            },
        ),
        (
            "cosi_sidecar_operations_seconds_count",
            {"call": "DriverCreateBucket", "code": "DEADLINE_EXCEEDED", "made_by": "deadline"},
        ),
        ("rest_client_requests_total", {"code": "409", "method": "PUT"}),
        ("rest_client_requests_total", {"code": "<error>", "method": "GET"}),
    ],
)
def test_a_series_is_0_before_anything_happens(series: str, labels: dict[str, str]) -> None:
    metrics = Metrics(controllers=["bucket"])
    metrics.seed_calls()
    assert metrics.registry.get_sample_value(series, labels) == 0


def test_a_process_that_calls_no_driver_exposes_no_driver_calls() -> None:
    metrics = Metrics(controllers=["bucketclaim"])
    samples = [line for line in metrics.expose().decode().splitlines() if line[0] != "#"]
    assert [line for line in samples if line.startswith("cosi_sidecar_operations")] == []
    assert [line for line in samples if line.startswith("cosi_driver_up")] == []


def test_the_build_is_shown() -> None:
    metrics = Metrics()
    metrics.built("cosi-sidecar", version="1.2.3", commit="0123abc")
    labels = {
        "component": "cosi-sidecar",
        "version": "1.2.3",
        "commit": "0123abc",
        "python_version": platform.python_version(),
    }
    assert metrics.registry.get_sample_value("cosi_build_info", labels) == 1


def test_no_created_series_are_exposed() -> None:
    metrics = Metrics(controllers=["bucket"])
    metrics.seed_calls()
    assert "_created" not in metrics.expose().decode()


def test_what_happens_is_counted() -> None:
    metrics = Metrics()
    metrics.reconciled("bucket", Result.ERROR, 0.2)
    metrics.called(Call.CREATE_BUCKET, Code.OK, MadeBy.DRIVER, 2.0)
    metrics.requested("PUT", 409)
    metrics.requested("PUT", None)
    metrics.leads("d-cosi", leading=True)
    value = metrics.registry.get_sample_value
    assert (
        value("controller_runtime_reconcile_total", {"controller": "bucket", "result": "error"})
        == 1
    )
    ok = {"call": "DriverCreateBucket", "code": "OK", "made_by": "driver"}
    assert value("cosi_sidecar_operations_seconds_sum", ok) == 2
    assert value("rest_client_requests_total", {"code": "409", "method": "PUT"}) == 1
    assert value("rest_client_requests_total", {"code": "<error>", "method": "PUT"}) == 1
    assert value("leader_election_master_status", {"name": "d-cosi"}) == 1
    metrics.leads("d-cosi", leading=False)
    assert value("leader_election_master_status", {"name": "d-cosi"}) == 0


def test_objects_are_counted_when_they_are_scraped_and_every_state_is_there() -> None:
    metrics = Metrics()
    metrics.watch_objects("Bucket", lambda: {(State.STALLED, "DriverInternal"): 2})
    lines = metrics.expose().decode().splitlines()
    assert 'cosi_objects{kind="Bucket",reason="DriverInternal",state="stalled"} 2.0' in lines
    assert 'cosi_objects{kind="Bucket",reason="",state="ready"} 0.0' in lines


def test_whether_the_driver_answers_is_shown() -> None:
    metrics = Metrics()
    metrics.driver("d.example.com", up=True)
    metrics.driver("d.example.com", up=False)
    labels = {"driver": "d.example.com"}
    assert metrics.registry.get_sample_value("cosi_driver_up", labels) == 0


def test_a_queue_is_read_when_it_is_scraped() -> None:
    metrics = Metrics()
    metrics.watch_queue("bucket", lambda: Numbers())
    metrics.watch_queue("access", lambda: Numbers(depth=0))
    text = metrics.expose().decode()
    for line in (
        'workqueue_depth{name="bucket"} 3.0',
        'workqueue_depth{name="access"} 0.0',
        'workqueue_processing{name="bucket"} 2.0',
        'workqueue_delayed{name="bucket"} 1.0',
        'workqueue_oldest_age_seconds{name="bucket"} 7.5',
        'workqueue_longest_running_processor_seconds{name="bucket"} 0.5',
        'workqueue_adds_total{name="bucket"} 10.0',
        'workqueue_retries_total{name="bucket"} 4.0',
    ):
        assert line in text.splitlines()


def test_lost_log_lines_are_read_when_they_are_scraped() -> None:
    metrics = Metrics()
    dropped = 3
    metrics.watch_dropped_lines(lambda: dropped)
    assert metrics.registry.get_sample_value("cosi_log_lines_dropped_total") == 3
    dropped = 5
    assert metrics.registry.get_sample_value("cosi_log_lines_dropped_total") == 5


def test_two_processes_in_one_test_share_nothing() -> None:
    first, second = Metrics(controllers=["bucket"]), Metrics(controllers=["bucket"])
    first.reconciled("bucket", Result.SUCCESS, 1)
    labels = {"controller": "bucket", "result": "success"}
    assert second.registry.get_sample_value("controller_runtime_reconcile_total", labels) == 0


def test_the_methods_of_every_request_are_seeded() -> None:
    assert sorted(set(request.METHODS.values())) == list(METHODS)
