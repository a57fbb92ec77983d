"""Signals and a standard error stream that nobody reads: real processes and a real API server.

In each case the process exits with the right code, and the Lease is free at once.
"""

import fcntl
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.faults.bed import FLAGS, FaultBed
from tests.faults.scenarios import Create, Scenario
from tests.faults.state import Case

from cosi_operator.outcome import Call
from testbed import claim_body

PIPE_BYTES = 4096
EXIT_DEADLINE_S = 10.0
LONG_CALL_S = 20.0


@contextmanager
def instead_of(
    bed: FaultBed, role: str, *flags: str, stderr: int | None = None, shell: str = 'exec "$@"'
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process with another standard error stream; afterwards the bed's own one again."""
    daemon = bed.processes[role]
    daemon.stop(grace_s=EXIT_DEADLINE_S)
    process = subprocess.Popen(
        ["/bin/sh", "-c", shell, "sh", *daemon.command, *flags],
        env=daemon.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
    )
    try:
        bed.until(f"the new {role} to lead", lambda: holder(bed, role))
        yield process
    finally:
        process.kill()
        process.wait()
        if holder(bed, role):
            bed.drop_lease(role)
        bed.start_process(role, *FLAGS[role])


def holder(bed: FaultBed, role: str) -> str:
    found: str = bed.plane.api.call("GET", bed.lease_path(role))["spec"]["holderIdentity"]
    return found


def renewed_at(bed: FaultBed, role: str) -> str:
    found: str = bed.plane.api.call("GET", bed.lease_path(role))["spec"]["renewTime"]
    return found


def serve_one(bed: FaultBed, name: str) -> None:
    Scenario.make_classes(Create(), bed, [Case(name)])
    bed.create("bucketclaims", claim_body(name, class_name=name))
    bed.until_ready("bucketclaims", [name], timeout_s=60)


@pytest.mark.attack("SIGHUP: the process stops in order and frees the Lease, like SIGTERM")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_each_stop_signal_ends_the_process_in_order_and_frees_the_lease(
    bed: FaultBed, number: signal.Signals
) -> None:
    with instead_of(bed, "controller") as process:
        process.send_signal(number)
        assert process.wait(EXIT_DEADLINE_S) == 0
        assert holder(bed, "controller") == ""


def test_a_sighup_that_nohup_ignores_stays_ignored(bed: FaultBed) -> None:
    with instead_of(bed, "controller", shell='trap "" HUP; exec "$@"') as process:
        before = renewed_at(bed, "controller")
        process.send_signal(signal.SIGHUP)
        bed.until("the Lease to be renewed", lambda: renewed_at(bed, "controller") > before)
        assert process.poll() is None
        process.terminate()
        assert process.wait(EXIT_DEADLINE_S) == 0


@pytest.mark.attack("a second SIGTERM during a long drain: the Lease is still freed")
def test_the_second_sigterm_ends_the_drain_and_still_frees_the_lease(
    bed: FaultBed, tmp_path: Path
) -> None:
    name = "second-sigterm"
    log_file = tmp_path / "log"
    patient = f"--driver-call-timeout={LONG_CALL_S:.0f}s"
    with (
        log_file.open("wb") as log,
        instead_of(bed, "sidecar", patient, stderr=log.fileno()) as process,
    ):
        Scenario.make_classes(Create(), bed, [Case(name)])
        bed.driver.set_rule(
            Call.CREATE_BUCKET, match={"parameters.case": name}, delay_s=LONG_CALL_S, times=1
        )
        bed.create("bucketclaims", claim_body(name, class_name=name))
        bed.until("the driver to be called", lambda: bed.calls_of(name))
        process.terminate()
        bed.until("the first signal", lambda: b'"stopping"' in log_file.read_bytes())
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.0)  # the question itself: does it wait for the call?
        process.terminate()
        bed.until("the second signal", lambda: b'"stopping_now"' in log_file.read_bytes())
        assert process.wait(EXIT_DEADLINE_S) == 0
        assert holder(bed, "sidecar") == ""
        assert b"drain_timed_out" not in log_file.read_bytes()
    bed.driver.restart()
    bed.forget_rules()
    bed.until_ready("bucketclaims", [name], timeout_s=60)
    bed.delete("bucketclaims", name)
    bed.until_gone("bucketclaims", [name])


@pytest.mark.attack("standard error is a full pipe that nobody reads: the work goes on")
@pytest.mark.parametrize("role", ["controller", "sidecar"])
def test_a_full_stderr_pipe_neither_stops_the_work_nor_costs_the_lease(
    bed: FaultBed, role: str
) -> None:
    name = f"full-stderr-{role}"
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    os.write(writing, b"x" * PIPE_BYTES)  # full: the first line of the process finds no room
    try:
        with instead_of(bed, role, stderr=writing) as process:
            before = renewed_at(bed, role)
            serve_one(bed, name)
            bed.until("the Lease to be renewed", lambda: renewed_at(bed, role) > before)
            process.terminate()
            assert process.wait(EXIT_DEADLINE_S) == 0
            assert holder(bed, role) == ""
    finally:
        os.close(reading)
        os.close(writing)
    bed.delete("bucketclaims", name)
    bed.until_gone("bucketclaims", [name])


@pytest.mark.attack("standard error is closed, or its disk is full: exit code 0")
@pytest.mark.parametrize("shell", ['exec "$@" 2>&-', 'exec "$@" 2>/dev/full'])
def test_a_stderr_that_takes_nothing_changes_neither_the_work_nor_the_exit_code(
    bed: FaultBed, shell: str
) -> None:
    name = "no-stderr-" + ("closed" if "&" in shell else "full-disk")
    with instead_of(bed, "controller", shell=shell) as process:
        serve_one(bed, name)
        process.terminate()
        assert process.wait(EXIT_DEADLINE_S) == 0
        assert holder(bed, "controller") == ""
    bed.delete("bucketclaims", name)
    bed.until_gone("bucketclaims", [name])
