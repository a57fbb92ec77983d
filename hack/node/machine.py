"""Start and stop the parts of one node: control plane, containerd, kubelet, kube-proxy.

Only inside a `Sandbox`: the addresses, the bridge and the folders below /run and /var are fixed.
"""

import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from controlplane import ApiError, ControlPlane, ensure
from controlplane.build import find
from controlplane.daemon import Daemon, StartError
from node import settings
from node.archives import write_pause
from node.needs import NodeError
from node.sandbox import NAME_VARIABLE

PROGRAMS = (
    "etcd", "kube-apiserver", "kubectl", "kube-controller-manager", "kube-scheduler", "kubelet",
    "kube-proxy", "helm", "pause",
)  # fmt: skip
START_TIMEOUT_S = 90.0
LOAD_TIMEOUT_S = 120.0
STOP_GRACE_S = 10.0


class Node:
    """One running node. Make it with `Node.start`; leaving `with` stops it.

    Pods end with the sandbox, not with the node: as on any machine, kubelet and containerd can be
    stopped and started while containers run on.
    """

    def __init__(self, directory: Path, plane: ControlPlane, cgroup: str) -> None:
        """Lay out files and command lines; nothing is started."""
        self.plane = plane
        self.address = settings.ADDRESS
        self.name = settings.NAME
        self.logs = plane.directory / "logs"
        kubeconfig = plane.admin_kubeconfig

        def daemon(name: str, program: Path | str, flags: list[str]) -> Daemon:
            return Daemon(name, [str(program), *flags], self.logs / f"{name}.log")

        def built(name: str, flags: list[str]) -> Daemon:
            return daemon(name, find(name), flags)

        config = settings.write_containerd(directory)
        self.containerd = daemon("containerd", _on_path("containerd"), [f"--config={config}"])
        flags = settings.kubelet_flags(directory, kubeconfig, cgroup)
        self.kubelet = built("kubelet", flags)
        self.others = [
            built("kube-controller-manager", settings.controller_manager_flags(directory, plane)),
            built("kube-scheduler", settings.scheduler_flags(kubeconfig)),
            built("kube-proxy", settings.proxy_flags(kubeconfig)),
        ]

    @classmethod
    def start(cls, directory: Path) -> "Node":
        """Start a new, empty cluster of one node; return it when the node is ready for pods.

        Args:
            directory: made when missing; holds data, keys and `logs/`.
        Raises:
            BuildError: a program can't be built.
            NodeError: this is no sandbox.
            StartError: a program ended, or wasn't ready in time.
        """
        cgroup = os.environ.get(NAME_VARIABLE)
        if not cgroup:
            raise NodeError("not in a sandbox: start with `python -m node COMMAND`")
        ensure(PROGRAMS)
        directory = directory.resolve()
        directory.mkdir(parents=True, exist_ok=True)
        _make_bridge()
        plane = ControlPlane.start(directory, address=settings.ADDRESS)
        node = cls(directory, plane, cgroup)
        try:
            node.start_containerd()
            for daemon in node.others:
                daemon.start()
            node.kubelet.start()
            node.load(write_pause(directory / "pause.tar"))
            node.kubelet.wait_until(node._is_ready, timeout_s=START_TIMEOUT_S)
        except BaseException:
            node.stop()
            raise
        return node

    def __enter__(self) -> Self:
        """Return itself; it runs already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it."""
        self.stop()

    def stop(self) -> None:
        """Stop the programs; containers run until the sandbox ends."""
        for daemon in (self.kubelet, *self.others, self.containerd):
            daemon.stop(grace_s=STOP_GRACE_S)
        self.plane.stop()

    def start_containerd(self) -> None:
        """Start containerd and wait until it answers; raises StartError."""
        self.containerd.start()
        self.containerd.wait_until(_containerd_answers, timeout_s=START_TIMEOUT_S)

    def load(self, archive: Path) -> None:
        """Import an OCI archive, as `make image` writes it, so that pods can name its image.

        Raises:
            NodeError: containerd refused it.
        """
        done = _ctr("images", "import", str(archive), timeout_s=LOAD_TIMEOUT_S)
        if done.returncode != 0:
            raise NodeError(f"containerd can't import {archive}: {done.stderr.strip()}")

    def tag(self, image: str, other: str) -> None:
        """Give an image that was loaded another name, as a new version of it.

        Raises:
            NodeError: there is no such image.
        """
        done = _ctr("images", "tag", "--force", image, other, timeout_s=LOAD_TIMEOUT_S)
        if done.returncode != 0:
            raise NodeError(f"containerd can't tag {image}: {done.stderr.strip()}")

    def until_ready(self) -> None:
        """Wait until the API server says that the node is ready; raises StartError."""
        self.kubelet.wait_until(self._is_ready, timeout_s=START_TIMEOUT_S)

    def _is_ready(self) -> bool:
        """Ready for pods: the node is, and its namespace has the account that pods run under."""
        for daemon in (*self.others, self.containerd):
            if not daemon.is_running:
                raise StartError(f"{daemon.name} ended", daemon.log_file)
        try:
            found: dict[str, Any] = self.plane.api.call("GET", f"/api/v1/nodes/{self.name}")
            self.plane.api.call("GET", "/api/v1/namespaces/default/serviceaccounts/default")
        except (ApiError, OSError):
            return False
        conditions = found["status"].get("conditions", [])
        is_tainted = any(
            taint["key"].startswith("node.kubernetes.io/not-ready")
            for taint in found["spec"].get("taints", [])
        )
        return not is_tainted and any(
            condition["type"] == "Ready" and condition["status"] == "True"
            for condition in conditions
        )


def _on_path(program: str) -> str:
    return subprocess.run(
        ["sh", "-c", f"command -v {program}"], capture_output=True, text=True, check=True
    ).stdout.strip()


def _make_bridge() -> None:
    """A bridge with the node's address, because the kubelet refuses that of loopback."""
    for arguments in (
        f"link add {settings.BRIDGE} type bridge",
        f"address add {settings.ADDRESS}/24 dev {settings.BRIDGE}",
        f"link set {settings.BRIDGE} up",
    ):
        subprocess.run(["ip", *arguments.split()], check=True)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1\n")


def _ctr(*arguments: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ctr", f"--address={settings.SOCKET}", "--namespace=k8s.io", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )


def _containerd_answers() -> bool:
    if not Path(settings.SOCKET).exists():
        return False
    return _ctr("version", timeout_s=LOAD_TIMEOUT_S).returncode == 0
