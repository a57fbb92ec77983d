"""What a process in a Pod does not load: memory and start are promised without it."""

import subprocess
import sys

import pytest

from testbed.process import ROOT

HEAVY = frozenset({"grpc", "google.protobuf", "kr8s", "httpx", "opentelemetry", "requests"})
FOR_DRIVERS = frozenset({"grpc", "google.protobuf"})


@pytest.mark.parametrize(
    ("process", "heavy"),
    [
        pytest.param("controller", HEAVY, id="controller"),
        pytest.param("sidecar", HEAVY - FOR_DRIVERS, id="sidecar, which calls a driver"),
    ],
)
def test_what_a_pod_needs_not_is_not_loaded(process: str, heavy: frozenset[str]) -> None:
    script = f"import sys, cosi_operator.app.{process}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(ROOT / "operator")},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert f"cosi_operator.app.{process}" in loaded
    assert loaded.isdisjoint(heavy)
