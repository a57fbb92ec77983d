"""Processes of containers, as the node sees them: to end one, and what memory one has used."""

import os
import re
import signal
from pathlib import Path


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


def peak_resident_bytes(pid: int) -> int:
    """The most memory that a process has had resident."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024
