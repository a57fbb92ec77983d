"""Processes of containers, as the node sees them: to end one, and what memory one has used."""

import os
import re
import signal
from pathlib import Path

from node.needs import cgroup_roots


def find(argument: str) -> list[int]:
    """The processes that have this word in their command line, but for their supervisors."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            in_pod = b"/kubepods/" in (process / "cgroup").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if in_pod and argument.encode() in words:
            found.append(int(process.name))
    return sorted(found)


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    os.kill(pid, number)


def pod_of(pid: int) -> str:
    """The host name of a process, which is its Pod's name."""
    environment = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return next(
        (text.partition("=")[2] for text in environment if text.startswith("HOSTNAME=")), ""
    )


def peak_bytes(pid: int) -> int:
    """The most memory that the container of a process has used, its page cache included."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":  # cgroup v1
            (root,) = (root for root in cgroup_roots() if root.name == "memory")
            return int((root / path.lstrip("/") / "memory.max_usage_in_bytes").read_text())
        if controllers == "":
            file = cgroup_roots()[0] / path.lstrip("/") / "memory.peak"
            if file.exists():
                return int(file.read_text())
    raise LookupError(f"process {pid} is in no memory cgroup")


def peak_resident_bytes(pid: int) -> int:
    """The most memory that a process has had resident."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024
