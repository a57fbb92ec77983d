"""What a machine needs to run a node, and what this one lacks of it."""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from image.tools import ImageError, need

CNI_PLUGINS = Path("/usr/lib/cni")
CGROUPS = Path("/sys/fs/cgroup")
DEBIAN = {
    "containerd": "containerd",
    "containerd-shim-runc-v2": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "iptables-restore": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "mount": "mount",
    "setpriv": "util-linux",
    "unshare": "util-linux",
}
"""Program -> the Debian package that has it."""
PLUGINS = ("bridge", "host-local", "loopback", "portmap")
TRY_S = 20.0

# In new namespaces, all of which end with the shell: what a node and its pods are made of.
_TRIAL = """
ip link set lo up &&
ip link add trial type bridge &&
ip address add 10.88.0.1/24 dev trial &&
ip link add left type veth peer name right &&
mount -t tmpfs tmpfs /run &&
mkdir /run/upper /run/work &&
mount -t overlay overlay -o lowerdir=/var,upperdir=/run/upper,workdir=/run/work /var &&
iptables --table nat --list
"""


class NodeError(Exception):
    """A node can't run here; the message says what is missing, for a person to read."""


def missing() -> list[str]:
    """Return what this machine lacks, one sentence each; empty if a node can run.

    On Debian, as root, a missing package is installed first.
    """
    if sys.platform != "linux":
        return [f"a node runs on Linux only, and this is {sys.platform}"]
    if os.geteuid() != 0:
        return ["a node needs root, for network, mounts and cgroups: run the command as root"]
    found = [*_programs(), *_cgroups()]
    return found or _trial()


def _programs() -> list[str]:
    found = []
    for program, package in DEBIAN.items():
        try:
            need(program, package=package)
        except ImageError as error:
            found.append(str(error))
    if not _has_plugins():
        with contextlib.suppress(ImageError):  # no program has that name: only the files count
            need("cni-plugins-of-debian", package="containernetworking-plugins")
    if not _has_plugins():
        found.append(
            f"{CNI_PLUGINS} lacks one of {', '.join(PLUGINS)}: install the package "
            "containernetworking-plugins"
        )
    return found


def _has_plugins() -> bool:
    return all((CNI_PLUGINS / name).exists() for name in PLUGINS)


def _cgroups() -> list[str]:
    if cgroup_roots():
        return []
    return [f"no writable cgroup hierarchy with memory and cpu is mounted below {CGROUPS}"]


def cgroup_roots() -> list[Path]:
    """The roots of the cgroup hierarchies: one with cgroup v2, one for each controller with v1."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    roots = [path.parent for path in sorted(CGROUPS.glob("*/cgroup.procs"))]
    names = {root.name for root in roots}
    has_all = {"memory", "pids"} <= names and any("cpu" in name.split(",") for name in names)
    return roots if has_all and os.access(CGROUPS / "memory", os.W_OK) else []


def _trial() -> list[str]:
    unshare = shutil.which("unshare") or "unshare"
    command = [unshare, "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    try:
        done = subprocess.run(
            [*command, "sh", "-c", _TRIAL],
            capture_output=True,
            text=True,
            check=False,
            timeout=TRY_S,
        )
    except subprocess.TimeoutExpired:
        return [f"a trial of namespaces, bridge, overlay and iptables did not end in {TRY_S} s"]
    if done.returncode != 0:
        return [
            "a trial of namespaces, bridge, overlay and iptables failed: "
            f"{(done.stderr or done.stdout).strip() or f'exit code {done.returncode}'}"
        ]
    return []
