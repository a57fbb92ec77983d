"""What a node can leave behind on the machine, before and after.

A snapshot holds only names that a run could have changed. Other work on the same machine changes
links and mounts too, so those that come and go there are compared by what is in them.
"""

import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from node.needs import cgroup_roots

FOLDERS = (
    "/etc/cni",
    "/etc/containerd",
    "/opt/cni",
    "/run/containerd",
    "/run/netns",
    "/run/xtables.lock",
    "/usr/libexec/kubernetes",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
)
"""Where kubelet, containerd and CNI plugins write unless they are kept from it."""
NAMESPACES = ("mnt", "net", "pid")


@dataclass(frozen=True, slots=True)
class Traces:
    """Everything of a node that can be seen from outside, as sorted texts."""

    mounts: frozenset[str]
    cgroups: frozenset[str]
    links: frozenset[str]
    processes: frozenset[str]
    files: frozenset[str]
    kernel: frozenset[str]

    def left_since(self, before: "Traces") -> list[str]:
        """Return what is there now and was not before, one line each, named by its kind."""
        return [
            f"{field.name}: {found}"
            for field in fields(self)
            for found in sorted(getattr(self, field.name) - getattr(before, field.name))
        ]


def look(name: str, folder: Path, settings: Iterable[Path]) -> Traces:
    """Take a snapshot.

    Args:
        name: of the sandbox; its cgroups are called so, and its processes carry it.
        folder: of the sandbox.
        settings: kernel settings whose values must stay.
    """
    return Traces(
        mounts=frozenset(_mounts(folder)),
        cgroups=frozenset(_cgroups(name)),
        links=frozenset(_links()),
        processes=frozenset(_processes(name)),
        files=frozenset(_files(folder)),
        kernel=frozenset(f"{path}: {path.read_text().strip()}" for path in settings),
    )


def _mounts(folder: Path) -> Iterable[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place = line.split()[4]
        if place.startswith((str(folder), "/run", "/var")):
            yield place


def _cgroups(name: str) -> Iterable[str]:
    for root in cgroup_roots():
        yield from map(str, root.glob(name))
        yield from map(str, root.glob("kubepods*"))
        yield from map(str, root.glob("k8s.io*"))


def _links() -> Iterable[str]:
    listed = subprocess.run(
        ["ip", "-oneline", "link"], capture_output=True, text=True, check=True
    ).stdout
    return [line.split(": ")[1] for line in listed.splitlines()]


def _processes(name: str) -> Iterable[str]:
    """Processes in a cgroup of the sandbox, or with its name in their environment."""
    mark = name.encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "cgroup").read_bytes() or mark in _environment(process):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8")
                if int(process.name) != os.getpid():
                    yield f"{process.name} {command[:120]}"
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has ended


def _environment(process: Path) -> bytes:
    return (process / "environ").read_bytes()


def _files(folder: Path) -> Iterable[str]:
    for path in (folder, *map(Path, FOLDERS)):
        if path.is_dir():
            yield from (str(found) for found in [path, *path.iterdir()])
        elif path.exists():
            yield str(path)
