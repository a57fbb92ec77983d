"""The command lines of etcd and kube-apiserver, the ports they listen on, and their files."""

from __future__ import annotations

import json
import random
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

from controlplane.audit import Audit, policy
from controlplane.certificates import Certificates

# Below Linux's range for outgoing connections (from 32768), so that no client takes a port while
# a restart leaves it free for a moment.
PORTS = range(20000, 32768)
SERVICES = "10.96.0.0/16"
FIRST_SERVICE = "10.96.0.1"
"""The address of the Service `kubernetes`, at which pods find the API server."""


@dataclass(frozen=True, slots=True)
class Ports:
    """TCP ports on 127.0.0.1."""

    etcd: int
    etcd_peer: int
    apiserver: int


def etcd_flags(directory: Path, ports: Ports) -> list[str]:
    """Return etcd's arguments; makes its data folder."""
    client, peer = (f"http://127.0.0.1:{port}" for port in (ports.etcd, ports.etcd_peer))
    return [
        # A new folder each time: data of an earlier start names other ports.
        f"--data-dir={tempfile.mkdtemp(prefix='etcd-', dir=directory)}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def apiserver_flags(
    directory: Path, ports: Ports, certificates: Certificates, admin_token: str
) -> list[str]:
    """Return the API server's arguments; writes the file that makes `admin_token` the admin's."""
    tokens = directory / "certificates" / "tokens.csv"
    write_secret(tokens, f'{admin_token},admin,admin,"system:masters"\n')
    return [
        f"--etcd-servers=http://127.0.0.1:{ports.etcd}",
        f"--secure-port={ports.apiserver}",
        f"--tls-cert-file={certificates.server}",
        f"--tls-private-key-file={certificates.server_key}",
        f"--token-auth-file={tokens}",
        f"--service-account-key-file={certificates.service_account_key}",
        f"--service-account-signing-key-file={certificates.service_account_key}",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--authorization-mode=RBAC",
        f"--service-cluster-ip-range={SERVICES}",
        "--profiling=false",
    ]


def loopback_flags() -> list[str]:
    """Return the API server's further arguments if nothing but this machine's clients reach it."""
    return [
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        # It would wait for accounts and tokens that only kube-controller-manager makes.
        "--disable-admission-plugins=ServiceAccount",
        # Endpoints may not name loopback; without this it fails to write its own, again and again.
        "--endpoint-reconciler-type=none",
    ]


def node_flags(address: str) -> list[str]:
    """Return the API server's further arguments if a node with pods reaches it at `address`."""
    return [
        "--bind-address=0.0.0.0",  # a node has a separate network namespace
        f"--advertise-address={address}",
        "--kubelet-preferred-address-types=InternalIP",  # logs and exec; no name is resolved here
        "--allow-privileged=true",
    ]


def audit_flags(directory: Path, log: Path, level: Audit) -> list[str]:
    """Return the API server's further arguments for an audit log; writes its policy."""
    file = directory / "audit-policy.json"
    file.write_text(json.dumps(policy(level)))
    return [
        f"--audit-policy-file={file}",
        f"--audit-log-path={log}",
        "--audit-log-maxsize=4096",  # MB; at the default of 100 a long benchmark would rotate it
    ]


def free_ports() -> Ports:
    """Return ports that nobody listens on now; somebody else may still take one before we do."""
    free: list[int] = []
    for port in random.sample(PORTS, k=100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        free.append(port)
        if len(free) == 3:
            return Ports(*free)
    raise OSError("found no 3 free ports on 127.0.0.1")


def write_secret(file: Path, text: str) -> None:
    """Replace `file` as a whole, readable by its owner only."""
    partial = file.with_name(file.name + ".partial")
    partial.touch(mode=0o600)
    partial.write_text(text)
    partial.replace(file)
