"""Start and stop a cluster of one node, or more: control plane, nodes, kube-proxy.

Only inside a `Sandbox`: the addresses, the bridge and the folders below /run and /var are fixed.
"""

import os
import subprocess
from pathlib import Path

from controlplane import ControlPlane, ensure, find
from controlplane.daemon import Daemon
from node import settings
from node.needs import NodeError, cgroup_roots
from node.sandbox import NAME_VARIABLE
from node.settings import Place
from node.worker import START_TIMEOUT_S, STOP_GRACE_S, Worker
from stoppable import Stoppable

PROGRAMS = (
    "etcd", "kube-apiserver", "kubectl", "kube-controller-manager", "kube-scheduler", "kubelet",
    "kube-proxy", "helm", "pause",
)  # fmt: skip


class Node(Stoppable):
    """One running node, and more after `add_worker`. Make it with `Node.start`.

    Leaving `with` stops the programs. Pods end with the sandbox.
    """

    def __init__(self, directory: Path, plane: ControlPlane, cgroup: str) -> None:
        """Lay out files and command lines; nothing is started."""
        self.plane = plane
        self.address = settings.FIRST_ADDRESS
        self._directory = directory
        self._cgroup = cgroup
        self.first = self._worker(1)
        self.workers = [self.first]
        place, kubeconfig = self.first.place, plane.admin_kubeconfig
        flags = {
            "kube-controller-manager": settings.controller_manager_flags(place, plane),
            "kube-scheduler": settings.scheduler_flags(kubeconfig),
            "kube-proxy": settings.proxy_flags(place, kubeconfig),
        }
        logs = plane.directory / "logs"
        self.others = [
            Daemon(name, [str(find(name)), *words], logs / f"{name}.log")
            for name, words in flags.items()
        ]

    @classmethod
    def start(cls, directory: Path) -> "Node":
        """Start a new, empty cluster of one node; return it when the node is ready for pods.

        Args:
            directory: made when missing; holds data, keys and `logs/`.
        Raises:
            BuildError: a program can't be built.
            NodeError: this is not a sandbox.
            StartError: a program ended, or wasn't ready in time.
        """
        cgroup = os.environ.get(NAME_VARIABLE)
        if not cgroup:
            raise NodeError("not in a sandbox: start with `python -m node COMMAND`")
        ensure(PROGRAMS)
        directory = directory.resolve()
        directory.mkdir(parents=True, exist_ok=True)
        _ip(f"link add {settings.BRIDGE} type bridge")
        _ip(f"link set {settings.BRIDGE} up")
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1\n")
        _ip(f"address add {settings.FIRST_ADDRESS}/24 dev {settings.BRIDGE}")
        plane = ControlPlane.start(directory, address=settings.FIRST_ADDRESS)
        node = cls(directory, plane, cgroup)
        try:
            for daemon in node.others:
                daemon.start()
            node.first.start()
            controllers = node.others[0]
            controllers.wait_until(node._has_account, timeout_s=START_TIMEOUT_S)
        except BaseException:
            node.stop()
            raise
        return node

    def add_worker(self) -> Worker:
        """Start one more node, with no image but that of the sandboxes; return it when ready.

        Raises:
            StartError: a program ended, or the node wasn't ready in time.
        """
        worker = self._worker(len(self.workers) + 1)
        _ip(f"address add {worker.place.address}/24 dev {settings.BRIDGE}")
        self.workers.append(worker)
        worker.start()
        return worker

    def stop(self) -> None:
        """Stop the programs; containers run until the sandbox ends."""
        for worker in self.workers:
            worker.stop()
        for daemon in self.others:
            daemon.stop(grace_s=STOP_GRACE_S)
        self.plane.stop()

    def load(self, archive: Path) -> None:
        """Import an OCI archive into every node; raises NodeError."""
        for worker in self.workers:
            worker.load(archive)

    def _worker(self, number: int) -> Worker:
        cgroup = f"{self._cgroup}/{settings.NAME.format(number=number)}"
        for root in cgroup_roots():
            (root / cgroup).mkdir(exist_ok=True)
        directory = self._directory / f"node-{number}"
        return Worker(Place(number, directory, cgroup), self.plane)

    def _has_account(self) -> bool:
        """Whether pods of the namespace `default` have their account, made by a controller."""
        listed = self.plane.api.call("GET", "/api/v1/namespaces/default/serviceaccounts")
        return any(found["metadata"]["name"] == "default" for found in listed["items"])


def _ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True)
