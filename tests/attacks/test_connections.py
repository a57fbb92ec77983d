"""Whoever reaches the ports of probes and metrics can neither fill the process nor deafen it."""

import http.client
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from testbed import Testbed

CONNECTIONS = 10_000
OPEN_FILES = 1024
PROBE_EVERY = 250
PROBE_TIMEOUT_S = 2.0
# The issue saw 51 MB for 10,000 connections.
GROWTH_LIMIT_KIB = 8 * 1024
ATTACKER = "127.0.0.2"
KUBELET = "127.0.0.3"


@dataclass(frozen=True, slots=True)
class Process:
    """A process that serves probes at one port and metrics at another."""

    pid: int
    health: int
    metrics: int

    @property
    def memory_kib(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(ln.split()[1]) for ln in status.splitlines() if ln.startswith("VmRSS:"))

    @property
    def open_files(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def probe(self, port: int, path: str, source: str) -> int:
        """GET a page as the kubelet does; the HTTP status."""
        asked = http.client.HTTPConnection(
            "127.0.0.1", port, timeout=PROBE_TIMEOUT_S, source_address=(source, 0)
        )
        try:
            asked.request("GET", path)
            return asked.getresponse().status
        finally:
            asked.close()


def free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1]), int(two.getsockname()[1])


@contextmanager
def standby(bed: Testbed) -> Iterator[Process]:
    """A second controller that may open few files; it waits for the Lease, and is ready."""
    daemon = bed.processes["controller"]
    health, metrics = free_ports()
    flags = [
        f"--health-probe-bind-address=127.0.0.1:{health}",
        f"--metrics-bind-address=127.0.0.1:{metrics}",
    ]
    running = subprocess.Popen(
        ["/bin/sh", "-c", f'ulimit -n {OPEN_FILES}; exec "$@"', "sh", *daemon.command, *flags],
        env=daemon.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    process = Process(running.pid, health, metrics)

    def is_ready() -> bool:
        with suppress(OSError):
            return process.probe(health, "/readyz", KUBELET) == http.client.OK
        return False

    try:
        bed.until("the standby to be ready", is_ready)
        yield process
        assert running.poll() is None
        running.terminate()
        assert running.wait(10) == 0
    finally:
        running.kill()
        running.wait()


@pytest.mark.attack("10,000 idle connections and half headers at the ports of probes and metrics")
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "attacker",
    [
        pytest.param(ATTACKER, id="from another address than the probes"),
        pytest.param(KUBELET, id="from the address of the probes"),
    ],
)
@pytest.mark.parametrize(
    "sent", [pytest.param(b"", id="idle"), pytest.param(b"GET / HTTP/1.1\r\nHo", id="half headers")]
)
def test_many_connections_neither_fill_the_process_nor_stop_its_probes(
    bed: Testbed, attacker: str, sent: bytes
) -> None:
    with standby(bed) as process:
        process.probe(process.metrics, "/metrics", KUBELET)
        before_kib, before_files = process.memory_kib, process.open_files
        kept: list[socket.socket] = []
        try:
            for number in range(CONNECTIONS):
                port = (process.health, process.metrics)[number % 2]
                made = socket.create_connection(("127.0.0.1", port), 5, (attacker, 0))
                kept.append(made)
                if sent:
                    with suppress(OSError):  # closed by the server already
                        made.sendall(sent)
                if number % PROBE_EVERY == 0:
                    for path in ("/healthz", "/readyz"):
                        assert process.probe(process.health, path, KUBELET) == http.client.OK
                    assert process.open_files - before_files < OPEN_FILES // 4
            assert process.probe(process.metrics, "/metrics", KUBELET) == http.client.OK
            assert process.memory_kib - before_kib < GROWTH_LIMIT_KIB
        finally:
            for made in kept:
                made.close()
