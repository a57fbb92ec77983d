"""A real Kubernetes control plane on loopback, for the demo, the tests and the benchmarks.

    from controlplane import ControlPlane

    with ControlPlane.start(directory) as plane:
        plane.apply(Path("deploy/crds"))
        kubeconfig = plane.kubeconfig_for("team-a", "sidecar")

See README.md beside this file.
"""

from controlplane.api import Api, ApiError
from controlplane.audit import Audit, AuditEntry, AuditLog
from controlplane.build import BuildError, ensure, find
from controlplane.daemon import StartError
from controlplane.plane import Binaries, ControlPlane, KubectlError

__all__ = [
    "Api",
    "ApiError",
    "Audit",
    "AuditEntry",
    "AuditLog",
    "Binaries",
    "BuildError",
    "ControlPlane",
    "KubectlError",
    "StartError",
    "ensure",
    "find",
]
