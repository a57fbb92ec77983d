"""Everything that runs during the demo, and how the steps reach it."""

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kr8s

from awsclient import Account
from controlplane import ControlPlane
from controlplane.daemon import Daemon
from cosi_operator import sdk
from demo.screen import CheckError, Screen
from refdriver import RefDriver
from seaweed import SeaweedFS
from testbed.process import ROOT

MANIFESTS = Path("hack/demo/manifests")
NAMESPACE = "shop"

STOP_GRACE_S = 8.0
POLL_S = 0.1


LOGS = ("cosi-*.log", "driver/*.log", "seaweedfs/*.log", "controlplane/logs/*.log")


def log_files(directory: Path) -> list[Path]:
    """Return the log of each process below the demo's folder, the operator's first."""
    return [file for pattern in LOGS for file in sorted(directory.glob(pattern))]


@dataclass(slots=True)
class World:
    """What was started; the fields are in the order of starting."""

    screen: Screen
    directory: Path
    plane: ControlPlane
    storage: SeaweedFS
    driver: RefDriver
    operator: list[Daemon]
    users: list[str]
    """The API server's names of the operator's two service accounts."""
    minted: list[Account] = field(default_factory=list)
    """The keys that a Secret held, oldest first."""

    def kubectl(self, *arguments: str, show: bool = True) -> str:
        """Run kubectl as the administrator, on the screen with its output; return the output.

        Raises:
            KubectlError: it ended with an error.
        """
        self.screen.command(shlex.join(["kubectl", *arguments]))
        output = self.plane.run_kubectl(*arguments)
        if show:
            self.screen.output(output)
        return output

    def apply(self, manifest: str) -> None:
        """Apply one of the demo's manifests, on the screen."""
        self.screen.command(f"kubectl apply -f {MANIFESTS / manifest}")
        self.screen.output(self.plane.run_kubectl("apply", "-f", str(ROOT / MANIFESTS / manifest)))

    def api(self) -> kr8s.Api:
        """The API server for the SDK, with the administrator's rights."""
        return sdk.api(str(self.plane.admin_kubeconfig))

    def get(self, path: str) -> Any:
        """Return what the API server answers to a GET as the administrator, off the screen."""
        return self.plane.api.call("GET", path)


def eventually(what: str, holds: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
    """Wait until `holds` says so.

    Raises:
        CheckError: it did not within `timeout_s` seconds; names `what` was waited for.
    """
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise CheckError(f"waited {timeout_s:.0f} s without success for: {what}")
        time.sleep(POLL_S)
