"""Start a container of a pod spec as a kubelet would, with our Python in the place of the image.

What the spec says is taken as it stands: command, args, env with fieldRef and $(NAME), mounts,
service account, namespace. The image's part is its entry points alone: /controller, and /sidecar
where the spec has no command. Two ways to give the process its files:

- `mounted`: a mount namespace of its own, where each volume is at its mountPath, and the account's
  token, CA and namespace where a kubelet puts them. It finds the API server by
  KUBERNETES_SERVICE_HOST, as in a cluster.
- otherwise paths in args and env are rewritten to where the volumes are, and KUBECONFIG names the
  account's token.
"""

import functools
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from chart_outputs import Object
from controlplane import ControlPlane
from controlplane.daemon import Daemon

ROOT = Path(__file__).resolve().parents[2]
ACCOUNT_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
ROLES = {"/controller": "controller", "/sidecar": "sidecar"}
# A private tmpfs holds what is written; over each folder that gets a mount lies an overlay, since
# nothing can be mounted where no folder is, and the machine's own files stay as they are.
SCRIPT = """
set -e
mount -t tmpfs tmpfs "$1"; scratch=$1; shift
while [ "$1" != -- ]; do
    from=$1 at=$2 top=/$(echo "$2" | cut -d/ -f2); shift 2
    if ! [ -d "$scratch$top" ]; then
        mkdir -p "$scratch$top/upper" "$scratch$top/work"
        mount -t overlay overlay \
            -o "lowerdir=$top,upperdir=$scratch$top/upper,workdir=$scratch$top/work" "$top"
    fi
    mkdir -p "$at"
    mount --bind "$from" "$at"
done
shift
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod: its spec, whose it is, and the folders behind its emptyDirs and configMaps."""

    plane: ControlPlane
    directory: Path
    namespace: str
    spec: Object
    volumes: Mapping[str, Path] = field(default_factory=dict)

    @property
    def account(self) -> str:
        return str(self.spec["serviceAccountName"])

    @property
    def user(self) -> str:
        """What the API server calls the account."""
        return f"system:serviceaccount:{self.namespace}:{self.account}"

    def start(self, container: str, *, mounted: bool) -> Daemon:
        """Start one container of it; the caller stops it."""
        (spec,) = (found for found in self.spec["containers"] if found["name"] == container)
        mounts = {mount["mountPath"]: self._folder(mount["name"]) for mount in self._mounts(spec)}
        command = self._command(spec)
        env = {**self._env(spec), "PYTHONPATH": str(ROOT / "operator")}
        if mounted:
            command = [*unshared(), str(scratch(self.directory)), *self._binds(mounts), *command]
            server = urlsplit(self.plane.server_url)
            env["KUBERNETES_SERVICE_HOST"] = str(server.hostname)
            env["KUBERNETES_SERVICE_PORT"] = str(server.port)
        else:
            command = [moved(word, mounts) for word in command]
            env = {name: moved(text, mounts) for name, text in env.items()}
            env.setdefault("POD_NAMESPACE", self.namespace)  # else it is in the account's folder
            env["KUBECONFIG"] = str(self.plane.kubeconfig_for(self.namespace, self.account))
        env["PATH"] = os.environ.get("PATH", os.defpath)
        log = self.directory / f"{container}.log"
        daemon = Daemon(container, command, log, env=env, cwd=self.directory)
        daemon.start()
        return daemon

    def _folder(self, volume: str) -> Path:
        (found,) = (one for one in self.spec["volumes"] if one["name"] == volume)
        if volume not in self.volumes:
            raise LookupError(f"no folder was given for volume {found}")
        return self.volumes[volume]

    @staticmethod
    def _mounts(spec: Object) -> Sequence[Object]:
        return spec.get("volumeMounts") or ()

    def _command(self, spec: Object) -> list[str]:
        entry = spec.get("command") or ["/sidecar"]
        arguments = [*entry[1:], *(spec.get("args") or [])]
        return [
            sys.executable,
            "-m",
            "cosi_operator",
            ROLES[entry[0]],
            *self._expanded(arguments, spec),
        ]

    def _expanded(self, words: Sequence[str], spec: Object) -> list[str]:
        env = self._env(spec)
        return [re.sub(r"\$\((\w+)\)", lambda found: env[found[1]], word) for word in words]

    def _env(self, spec: Object) -> dict[str, str]:
        fields = {
            "metadata.namespace": self.namespace,
            "metadata.name": "pod-0",
            "spec.nodeName": "node-0",
            "status.podIP": "127.0.0.1",
        }
        return {
            one["name"]: one["value"]
            if "value" in one
            else fields[one["valueFrom"]["fieldRef"]["fieldPath"]]
            for one in spec.get("env") or ()
        }

    def _binds(self, mounts: Mapping[str, Path]) -> list[str]:
        account = self.directory / "account"
        account.mkdir(exist_ok=True)
        token = self.plane.token_for(self.namespace, self.account)
        (account / "token").write_text(token)
        (account / "namespace").write_text(self.namespace)
        shutil.copy(self.plane.ca_file, account / "ca.crt")
        # The real place of /var/run, which is a link on most machines: no mount crosses it.
        at = os.path.realpath("/var/run") + ACCOUNT_MOUNT.removeprefix("/var/run")
        words = [str(account), at]
        for path, folder in mounts.items():
            words += [str(folder), path]
        return [*words, "--"]


def scratch(directory: Path) -> Path:
    found = directory / "scratch"
    found.mkdir(exist_ok=True)
    return found


def unshared() -> list[str]:
    """The words that start SCRIPT in a mount namespace; root needs no user namespace for it."""
    how = ["--mount"] if os.geteuid() == 0 else ["--mount", "--map-root-user"]
    return [str(shutil.which("unshare")), *how, "sh", "-c", SCRIPT, "sh"]


@functools.cache
def can_mount(directory: Path) -> bool:
    """Whether this machine lets us have a mount namespace with an overlay in it."""
    if shutil.which("unshare") is None:
        return False
    words = [*unshared(), str(scratch(directory)), str(directory), "/var/lib/cosi", "--", "true"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def moved(word: str, mounts: Mapping[str, Path]) -> str:
    """A word of a command line with mount paths replaced by where the volumes really are."""
    for path, folder in mounts.items():
        word = re.sub(rf"{re.escape(path)}(?=/|$)", str(folder), word)
    return word


def pod_of(found: Object) -> Any:
    """The pod spec of a Deployment."""
    return found["spec"]["template"]["spec"]


def free_ports(count: int) -> list[int]:
    """Ports that are free now, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
