"""Start, use and stop one control plane: etcd and kube-apiserver on free loopback ports.

Not promised: controllers (nothing collects garbage, a deleted namespace stays Terminating),
nodes, and that anything outlives `stop`. etcd serves plain HTTP on 127.0.0.1 and does not sync
to disk: right for tests, wrong for everything else.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlplane.api import Api, ApiError
from controlplane.audit import Audit, AuditLog
from controlplane.build import find
from controlplane.certificates import Certificates, make_certificates
from controlplane.daemon import Daemon, StartError
from controlplane.flags import (
    FIRST_SERVICE,
    apiserver_flags,
    audit_flags,
    etcd_flags,
    free_ports,
    loopback_flags,
    node_flags,
    write_secret,
)
from stoppable import Stoppable

START_TIMEOUT_S = 60.0
START_ATTEMPTS = 3
STOP_GRACE_S = 5.0
KUBECTL_TIMEOUT_S = 60.0
CRD_TIMEOUT_S = 30.0
PORT_TAKEN = "address already in use"


class KubectlError(Exception):
    """kubectl ended with an error; the message is its command and what it wrote to stderr."""

    def __init__(self, arguments: tuple[str, ...], code: int, stderr: str) -> None:
        """Keep the exit code and the whole text."""
        self.code = code
        self.stderr = stderr
        super().__init__(f"kubectl {' '.join(arguments)} (exit code {code}): {stderr.strip()}")


@dataclass(frozen=True, slots=True)
class Binaries:
    """Paths of the programs that a control plane consists of."""

    etcd: Path
    kube_apiserver: Path
    kubectl: Path

    @classmethod
    def find(cls) -> Binaries:
        """Take them from KUBEBUILDER_ASSETS, else from the cache.

        Raises:
            BuildError: one is missing; the message says what to run.
        """
        return cls(find("etcd"), find("kube-apiserver"), find("kubectl"))


class ControlPlane(Stoppable):
    """One running control plane. Make it with `ControlPlane.start`; leaving `with` stops it.

    `stop_*`, `start_*` and `restart_*` keep ports and data, so clients meet an outage and then
    the same cluster again.
    """

    def __init__(
        self,
        directory: Path,
        binaries: Binaries,
        certificates: Certificates,
        *,
        audit: Audit,
        address: str = "",
    ) -> None:
        """Lay out files and command lines, on ports that are free now; nothing is started."""
        self.directory = directory
        self.kubectl = binaries.kubectl
        self.ca_file = certificates.ca
        self.service_account_key = certificates.service_account_key
        self.admin_token = secrets.token_urlsafe(32)
        self.audit = AuditLog(directory / "logs" / "audit.jsonl")
        (directory / "logs").mkdir(exist_ok=True)
        (directory / "kubeconfigs").mkdir(exist_ok=True)
        ports = free_ports()
        self.server_url = f"https://127.0.0.1:{ports.apiserver}"
        self.admin_kubeconfig = self._write_kubeconfig("admin", {"token": self.admin_token})
        self.api = Api(self.server_url, self.ca_file, self.admin_token)
        self.etcd_url = f"http://127.0.0.1:{ports.etcd}"
        self._etcd = Daemon(
            "etcd",
            [str(binaries.etcd), *etcd_flags(directory, ports)],
            directory / "logs" / "etcd.log",
        )
        flags = apiserver_flags(directory, ports, certificates, self.admin_token)
        flags += node_flags(address) if address else loopback_flags()
        if audit is not Audit.NOTHING:
            flags += audit_flags(directory, self.audit.file, audit)
        self._apiserver = Daemon(
            "kube-apiserver",
            [str(binaries.kube_apiserver), *flags],
            directory / "logs" / "kube-apiserver.log",
        )

    @classmethod
    def start(
        cls,
        directory: Path,
        *,
        binaries: Binaries | None = None,
        audit: Audit = Audit.METADATA,
        address: str = "",
    ) -> ControlPlane:
        """Start a new, empty control plane and return it when it is ready, after 3 to 5 s.

        Args:
            directory: made when missing; holds data, keys, `logs/` and `kubeconfigs/`.
            binaries: which programs to run; by default those that are built.
            audit: what the API server writes into the log that `audit` reads.
            address: of this network namespace, at which a node's pods reach the API server; it then
                 serves on every address, and pods get their tokens. "" is loopback alone.
        Raises:
            BuildError: a program isn't built; the message says what to run.
            StartError: one ended or wasn't ready in time; everything started was ended again.
        """
        directory = directory.resolve()
        directory.mkdir(parents=True, exist_ok=True)
        binaries = binaries or Binaries.find()
        reached_at = (address, FIRST_SERVICE) if address else ()
        certificates = make_certificates(directory / "certificates", reached_at)
        for attempt in range(1, START_ATTEMPTS + 1):
            plane = cls(directory, binaries, certificates, audit=audit, address=address)
            try:
                plane.start_etcd()
                plane.start_apiserver()
            except BaseException as error:
                plane.stop()
                taken = isinstance(error, StartError) and PORT_TAKEN in error.log_tail
                if not taken or attempt == START_ATTEMPTS:
                    raise
            else:
                return plane
        raise AssertionError("the last attempt returns or raises")

    def stop(self) -> None:
        """End both programs; SIGKILL for one that needs longer than 5 s. Safe to repeat."""
        self.stop_apiserver()
        self.stop_etcd()

    def start_etcd(self) -> None:
        """Start etcd and wait until it is healthy; raises StartError."""
        self._etcd.start()
        self._etcd.wait_until(self._etcd_is_ready, timeout_s=START_TIMEOUT_S)

    def stop_etcd(self, *, grace_s: float = STOP_GRACE_S) -> None:
        """End etcd; `grace_s` 0 is a crash. The API server runs on and fails its requests."""
        self._etcd.stop(grace_s=grace_s)

    def restart_etcd(self, *, grace_s: float = 1.0) -> None:
        """End etcd and start it with the same data; returns when the API server serves again.

        While the API server runs, etcd waits for connections that never close, so the grace is
        used up.
        """
        self.stop_etcd(grace_s=grace_s)
        self.start_etcd()
        self.wait_until_serving()

    def start_apiserver(self) -> None:
        """Start the API server and wait until it serves; raises StartError."""
        self._apiserver.start()
        self.wait_until_serving()

    def wait_until_serving(self) -> None:
        """Wait until the running API server is ready and reads from etcd; raises StartError."""
        self._apiserver.wait_until(self._apiserver_is_ready, timeout_s=START_TIMEOUT_S)

    def stop_apiserver(self, *, grace_s: float = STOP_GRACE_S) -> None:
        """End the API server, which cuts every watch; `grace_s` 0 is a crash."""
        self._apiserver.stop(grace_s=grace_s)

    def restart_apiserver(self, *, grace_s: float = STOP_GRACE_S) -> None:
        """End the API server and start it on the same port; returns when it serves."""
        self.stop_apiserver(grace_s=grace_s)
        self.start_apiserver()

    @property
    def is_running(self) -> bool:
        """Whether both programs run; does not ask them."""
        return self._etcd.is_running and self._apiserver.is_running

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by program name, of those that run; for measuring them."""
        daemons = (self._etcd, self._apiserver)
        return {daemon.name: daemon.pid for daemon in daemons if daemon.pid is not None}

    def run_kubectl(self, *arguments: str, input: str | None = None) -> str:  # noqa: A002
        """Run kubectl as the admin and return what it wrote to standard output.

        Args:
            arguments: as on the command line, without the connection.
            input: text for its standard input, for `-f -`.
        Raises:
            KubectlError: it ended with an error; the message holds its stderr.
            subprocess.TimeoutExpired: it took more than 60 s.
        """
        done = subprocess.run(
            [str(self.kubectl), f"--kubeconfig={self.admin_kubeconfig}", *arguments],
            input=input or "",
            capture_output=True,
            text=True,
            timeout=KUBECTL_TIMEOUT_S,
            check=False,
            # The default cache goes by host and port, and another cluster may have had ours.
            env={**os.environ, "KUBECACHEDIR": str(self.directory / "kubectl-cache")},
        )
        if done.returncode != 0:
            raise KubectlError(arguments, done.returncode, done.stderr)
        return done.stdout

    def apply(self, source: Path | str) -> list[str]:
        """Apply manifests server-side; CRDs among them are served when this returns.

        Args:
            source: a file or folder (Path), or the text of manifests (str), YAML or JSON.
        Returns:
            What was applied, as in ["namespace/team-a"].
        Raises:
            KubectlError: something was refused.
            TimeoutError: a CRD was not served within 30 s.
        """
        apply = ["apply", "--server-side", "--force-conflicts", "--output=name"]
        if isinstance(source, Path):
            applied = self.run_kubectl(*apply, f"--filename={source}").split()
        else:
            applied = self.run_kubectl(*apply, "--filename=-", input=source).split()
        for target in applied:
            kind, _, name = target.partition("/")
            if kind == "customresourcedefinition.apiextensions.k8s.io":
                self._wait_for_crd(name)
        return applied

    def token_for(self, namespace: str, service_account: str, *, expiration_s: int = 3600) -> str:
        """Return a new token of a ServiceAccount; makes it and its namespace when missing.

        Args:
            namespace: of the account.
            service_account: its name.
            expiration_s: seconds the token is good for; the server refuses fewer than 600.
        """
        self._create("/api/v1/namespaces", namespace)
        accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        self._create(accounts, service_account)
        request = {"spec": {"expirationSeconds": expiration_s}}
        answer = self.api.call("POST", f"{accounts}/{service_account}/token", request)
        return str(answer["status"]["token"])

    def kubeconfig_for(
        self,
        namespace: str,
        service_account: str,
        *,
        expiration_s: int = 3600,
        token_file: bool = False,
    ) -> Path:
        """Write a kubeconfig whose user has one new token of a ServiceAccount and nothing else.

        Repeated for the same account it replaces the file (and the token file).

        Args:
            namespace: of the account, and the default one of the kubeconfig's context.
            service_account: its name; it and its namespace are made when missing.
            expiration_s: seconds the token is good for; the server refuses fewer than 600.
            token_file: put the token into a file beside it, same name with the suffix `.token`,
                that the kubeconfig names, so that a test can replace it.
        Returns:
            `directory/kubeconfigs/NAMESPACE.SERVICE_ACCOUNT.kubeconfig`.
        """
        token = self.token_for(namespace, service_account, expiration_s=expiration_s)
        name = f"{namespace}.{service_account}"
        user = {"token": token}
        if token_file:
            file = self.directory / "kubeconfigs" / f"{name}.token"
            write_secret(file, token)
            user = {"tokenFile": str(file)}
        return self._write_kubeconfig(name, user, namespace=namespace)

    def _write_kubeconfig(
        self, name: str, user: dict[str, str], *, namespace: str = "default"
    ) -> Path:
        ca = base64.b64encode(self.ca_file.read_bytes()).decode()
        cluster = {"server": self.server_url, "certificate-authority-data": ca}
        context = {"cluster": "controlplane", "user": name, "namespace": namespace}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "controlplane", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": name, "context": context}],
            "current-context": name,
        }
        file = self.directory / "kubeconfigs" / f"{name}.kubeconfig"
        write_secret(file, json.dumps(config, indent=2))  # JSON is YAML too
        return file

    def _create(self, collection: str, name: str) -> None:
        try:
            self.api.call("POST", collection, {"metadata": {"name": name}})
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise

    def _etcd_is_ready(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{self.etcd_url}/health", timeout=2) as response:
                return bool(json.load(response)["health"] == "true")
        except (OSError, ValueError):
            return False

    def _apiserver_is_ready(self) -> bool:
        try:
            self.api.call("GET", "/readyz")
            self.api.call("GET", "/api/v1/namespaces/default")  # made a moment after ready
        except (ApiError, OSError):
            return False
        return True

    def _wait_for_crd(self, name: str) -> None:
        """Wait until lists of each served version work, which Established alone does not say."""
        deadline = time.monotonic() + CRD_TIMEOUT_S
        while not self._crd_is_served(name):
            if time.monotonic() > deadline:
                raise TimeoutError(f"CRD {name} was not served in {CRD_TIMEOUT_S} s")
            time.sleep(0.05)

    def _crd_is_served(self, name: str) -> bool:
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
        crd: dict[str, Any] = self.api.call("GET", path)
        conditions = crd.get("status", {}).get("conditions") or []  # null at first
        if not any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
            return False
        spec = crd["spec"]
        versions = [version["name"] for version in spec["versions"] if version["served"]]
        try:
            for version in versions:
                plural = spec["names"]["plural"]
                # With a limit etcd would answer, before the watch cache can answer the others.
                self.api.call("GET", f"/apis/{spec['group']}/{version}/{plural}")
        except ApiError as error:
            if error.code in (404, 429, 503):  # not yet
                return False
            raise
        return True
