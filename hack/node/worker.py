"""One node of the cluster: containerd and kubelet, with separate names and folders."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

from controlplane import ApiError, ControlPlane, find
from controlplane.daemon import Daemon
from node import settings
from node.archives import write_pause
from node.needs import NodeError
from node.settings import Place

START_TIMEOUT_S = 90.0
CTR_TIMEOUT_S = 120.0
STOP_GRACE_S = 10.0


class Worker:
    """Starts and stops one node. Containers run on when its programs are stopped."""

    def __init__(self, place: Place, plane: ControlPlane) -> None:
        """Lay out files and command lines; nothing is started."""
        self.place = place
        self.name = place.name
        self._plane = plane
        place.directory.mkdir(parents=True, exist_ok=True)
        logs = plane.directory / "logs"
        flags = settings.kubelet_flags(place, plane.admin_kubeconfig)
        self.kubelet = Daemon(
            "kubelet", [str(find("kubelet")), *flags], logs / f"kubelet-{place.number}.log"
        )
        containerd = str(shutil.which("containerd"))
        self.containerd = Daemon(
            "containerd",
            [containerd, f"--config={settings.write_containerd(place)}"],
            logs / f"containerd-{place.number}.log",
        )

    def start(self) -> None:
        """Start both and wait until the API server says that the node is ready.

        Raises:
            StartError: a program ended, or the node wasn't ready in 90 s.
        """
        self.start_containerd()
        self.load(write_pause(self.place.directory / "pause.tar"))
        self.kubelet.start()
        self.until_ready()

    def stop(self) -> None:
        """Stop both; safe to repeat."""
        self.kubelet.stop(grace_s=STOP_GRACE_S)
        self.containerd.stop(grace_s=STOP_GRACE_S)

    def start_containerd(self) -> None:
        """Start containerd and wait until it answers; raises StartError."""
        self.containerd.start()
        self.containerd.wait_until(self._containerd_answers, timeout_s=START_TIMEOUT_S)

    def until_ready(self) -> None:
        """Wait until the API server says that the node is ready; raises StartError."""
        self.kubelet.wait_until(self._is_ready, timeout_s=START_TIMEOUT_S)

    def load(self, archive: Path) -> None:
        """Import an OCI archive, as `make image` writes it, so that pods can name its image.

        Raises:
            NodeError: containerd refused it.
        """
        self._images("import", str(archive))

    def tag(self, image: str, other: str) -> None:
        """Give an image that was loaded another name, as a new version of it.

        Raises:
            NodeError: there is no such image.
        """
        self._images("tag", "--force", image, other)

    def _images(self, *arguments: str) -> None:
        done = self._ctr("images", *arguments)
        if done.returncode != 0:
            raise NodeError(f"ctr images {' '.join(arguments)}: {done.stderr.strip()}")

    def _ctr(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ctr", f"--address={self.place.socket}", "--namespace=k8s.io", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=CTR_TIMEOUT_S,
        )

    def _containerd_answers(self) -> bool:
        return self.place.socket.exists() and self._ctr("version").returncode == 0

    def _is_ready(self) -> bool:
        try:
            found: dict[str, Any] = self._plane.api.call("GET", f"/api/v1/nodes/{self.name}")
        except (ApiError, OSError):
            return False
        keys = [taint["key"] for taint in found["spec"].get("taints", [])]
        conditions = found["status"].get("conditions", [])
        return "node.kubernetes.io/not-ready" not in keys and any(
            condition["type"] == "Ready" and condition["status"] == "True"
            for condition in conditions
        )
