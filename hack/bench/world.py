"""What is measured: a control plane, a driver, and a pair of controller and sidecar."""

import contextlib
import os
import shlex
import socket
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench.procs import cpu_s, memory_mib
from controlplane import Audit
from controlplane.daemon import Daemon
from testbed import Testbed
from testbed.process import ROOT, operator_process

ROLES = ("controller", "sidecar")
STARTED_WITHIN_S = 60.0
LOOK_S = 0.005
FIFO_WORKERS = 40  # what one queue for all had


@dataclass(frozen=True, slots=True)
class Pair:
    """Who is measured: ours, or the commands of another pair.

    In a command, {kubeconfig} and {driver} are filled in; KUBECONFIG, POD_NAMESPACE and DRIVER_ADDR
    are in its environment too. Ours may be of another commit: `tree` has its sources and `.venv`.
    """

    name: str
    controller: str = ""
    sidecar: str = ""
    tree: Path = ROOT

    @property
    def is_ours(self) -> bool:
        return not self.controller


OURS = Pair("ours")


class World:
    """One control plane with everything beside it; `start` and `stop` are for the pair alone."""

    def __init__(self, bed: Testbed, pair: Pair) -> None:
        self.bed = bed
        self.pair = pair
        self.fifo = False  # ours with one queue for all, first come, first served
        self._probes = dict(zip(ROLES, _free_ports(len(ROLES)), strict=True))
        self._flags: dict[str, list[str]] = {role: [] for role in ROLES}
        if not pair.is_ours:
            for namespace, account in bed.accounts.values():
                bed.plane.apply(_ADMIN.format(namespace=namespace, account=account))

    def start(self) -> float:
        """Start both processes; returns the seconds until both hold their Lease and are ready."""
        began = time.monotonic()
        for role in ROLES:
            daemon = self._ours(role) if self.pair.is_ours else self._peer(role)
            daemon.start()
            self.bed.processes[role] = daemon
        deadline = began + STARTED_WITHIN_S
        while not all(self._is_ready(role) for role in ROLES):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.pair.name} was not ready in {STARTED_WITHIN_S} s")
            time.sleep(LOOK_S)
        return round(time.monotonic() - began, 3)

    def stop(self) -> None:
        """End both in good order."""
        self.bed.stop_operator()

    def pids(self) -> dict[str, int]:
        """Of all that run, by name."""
        found = {name: daemon.pid for name, daemon in self.bed.processes.items()}
        found |= {**self.bed.plane.pids, "driver": self.bed.driver.pid, "load": os.getpid()}
        return {name: pid for name, pid in found.items() if pid is not None}

    def memory(self) -> dict[str, dict[str, float]]:
        """Of the pair, in MiB."""
        pids = self.pids()
        return {role: memory_mib(pids[role]) for role in ROLES if role in pids}

    def until_idle(
        self, *, share: float = 0.05, quiet_s: float = 2.0, deadline_s: float = 120.0
    ) -> float:
        """Seconds from now until the pair uses less than `share` of a core, and goes on so."""
        began = last_busy = time.monotonic()
        step_s = 0.25
        used = self._pair_cpu_s()
        while time.monotonic() - last_busy < quiet_s:
            if time.monotonic() - began > deadline_s:
                return deadline_s
            time.sleep(step_s)
            now = self._pair_cpu_s()
            if now - used > share * step_s:
                last_busy = time.monotonic()
            used = now
        return round(last_busy - began, 2)

    def idle_cpu_percent(self, seconds: float) -> dict[str, float]:
        """CPU of each process of the pair while nothing happens, in percent of one core."""
        pids = self.pids()
        before = {role: cpu_s(pids[role]) for role in ROLES}
        time.sleep(seconds)  # the question itself
        return {
            role: round((cpu_s(pids[role]) - before[role]) / seconds * 100, 2) for role in ROLES
        }

    def _pair_cpu_s(self) -> float:
        pids = self.pids()
        return sum(cpu_s(pids[role]) for role in ROLES)

    def _ours(self, role: str) -> Daemon:
        flags = list(self._flags[role])
        flags.append(f"--health-probe-bind-address=127.0.0.1:{self._probes[role]}")
        if role == "sidecar":
            flags.append(f"--driver-addr={self.bed.driver.address}")
        if self.fifo:
            flags.append(f"--workers={FIFO_WORKERS}")
        server = urlsplit(self.bed.plane.server_url)
        daemon = operator_process(
            role,
            flags,
            kubeconfig=Path("none"),
            namespace=self.bed.accounts[role][0],
            logs=self.bed.directory,
            environment={
                "COSI_BENCH_ACCOUNT": str(self._account_folder(role)),
                "COSI_BENCH_FIFO": "yes" if self.fifo else "",
                "KUBERNETES_SERVICE_HOST": str(server.hostname),
                "KUBERNETES_SERVICE_PORT": str(server.port),
                "PYTHONPATH": f"{self.pair.tree / 'operator'}:{self.pair.tree / 'hack'}",
            },
        )
        python, *rest = daemon.command
        at = rest.index(role)
        if self.pair.tree != ROOT:
            python = str(self.pair.tree / ".venv" / "bin" / "python")
        command = [python, "-m", "bench.pod", role, *rest[at + 2 :]]  # without --kubeconfig
        return Daemon(
            daemon.name, command, daemon.log_file, env=daemon._env, cwd=self.bed.directory
        )

    def _peer(self, role: str) -> Daemon:
        template = self.pair.controller if role == "controller" else self.pair.sidecar
        account = self.bed.accounts[role]
        kubeconfig = self.bed.plane.kubeconfig_for(*account)
        address = self.bed.driver.address
        command = shlex.split(template.format(kubeconfig=kubeconfig, driver=address))
        return Daemon(
            f"{self.pair.name}-{role}",
            command,
            self.bed.directory / f"peer-{role}.log",
            env={
                "KUBECONFIG": str(kubeconfig),
                "POD_NAMESPACE": account[0],
                "DRIVER_ADDR": address,
            },
            cwd=self.bed.directory,
        )

    def _account_folder(self, role: str) -> Path:
        namespace, account = self.bed.accounts[role]
        folder = self.bed.directory / f"account-{role}"
        folder.mkdir(exist_ok=True)
        (folder / "token").write_text(self.bed.plane.token_for(namespace, account))
        (folder / "namespace").write_text(namespace)
        (folder / "ca.crt").write_bytes(self.bed.plane.ca_file.read_bytes())
        return folder

    def _is_ready(self, role: str) -> bool:
        if self.pair.is_ours:
            url = f"http://127.0.0.1:{self._probes[role]}/readyz"
            try:
                with urllib.request.urlopen(url, timeout=1):
                    pass
            except OSError:
                return False
        return self.bed._is_held(role)


_ADMIN = """
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: "bench-{account}"}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}}
subjects: [{{kind: ServiceAccount, namespace: "{namespace}", name: "{account}"}}]
"""


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for found in sockets:
            found.bind(("127.0.0.1", 0))
        return [int(found.getsockname()[1]) for found in sockets]


@contextmanager
def world(pair: Pair, *, audit: Audit = Audit.NOTHING) -> Iterator[World]:
    """A fresh control plane and driver, with classes; the pair is not started."""
    with (
        tempfile.TemporaryDirectory(prefix="cb-") as directory,
        Testbed.start(Path(directory), audit=audit, operator=False) as bed,
    ):
        bed.make_classes("gold")
        yield World(bed, pair)
