"""The operator's processes, started from the source tree under their own ServiceAccounts."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

import warm
from controlplane.daemon import Daemon

ROOT = Path(__file__).resolve().parents[2]


def service_account(role: Path) -> tuple[str, str]:
    """Return namespace and name of the one ServiceAccount in a manifest.

    Raises:
        ValueError: it has none, or several.
    """
    accounts = [
        (str(found["metadata"]["namespace"]), str(found["metadata"]["name"]))
        for found in yaml.safe_load_all(role.read_text())
        if found and found["kind"] == "ServiceAccount"
    ]
    if len(accounts) != 1:
        raise ValueError(f"{role} has {len(accounts)} ServiceAccounts, not one")
    return accounts[0]


def operator_process(
    role: str,
    arguments: Sequence[str],
    *,
    kubeconfig: Path,
    namespace: str,
    logs: Path,
    environment: Mapping[str, str] | None = None,
) -> Daemon:
    """Describe one of the operator's processes, not started.

    Args:
        role: controller or sidecar.
        arguments: further flags.
        kubeconfig: of the process's service account.
        namespace: where its Lease goes.
        logs: the folder for its log, `cosi-ROLE.log`.
        environment: what it gets besides what it needs to start.
    """
    command = [sys.executable, "-m", "cosi_operator", role, f"--kubeconfig={kubeconfig}"]
    make = warm.WarmDaemon if warm.is_asked_for(environment) else Daemon
    return make(
        f"cosi-{role}",
        [*command, *arguments],
        logs / f"cosi-{role}.log",
        env={
            "PATH": os.environ.get("PATH", os.defpath),
            "PYTHONPATH": str(ROOT / "operator"),
            "POD_NAMESPACE": namespace,
            **(environment or {}),
        },
        cwd=logs,
    )
