"""A process that has imported the operator's modules and forks the operator's processes.

`testbed.warm` starts it as `python -m testbed.forks`. Its standard input is a Unix socket. Each
message there is a request, in JSON, with one end of a socket pair: the fork's process id is written
to it, and later, when that process has ended, its exit code as in subprocess.Popen. This process
ends when its standard input is closed, and the kernel then kills what it has forked.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
from types import FrameType
from typing import Any

REQUEST_BYTES = 256 * 1024
PR_SET_PDEATHSIG = 1
ROLES = ("controller", "sidecar")
_libc = ctypes.CDLL(None)


def next_fork(requests: socket.socket) -> dict[str, Any]:
    """Fork at each request; returns in the forks only, the request."""
    reports: dict[int, socket.socket] = {}

    def reap(_number: int, _frame: FrameType | None) -> None:
        for pid in list(reports):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                with reports.pop(pid) as report:
                    tell(report, os.waitstatus_to_exitcode(status))

    signal.signal(signal.SIGCHLD, reap)
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, REQUEST_BYTES, 1)
        if not message:
            sys.exit()
        report = socket.socket(fileno=descriptors[0])
        # Until it is in `reports`, nothing would be written about a process that has ended.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        if (pid := os.fork()) == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            request: dict[str, Any] = json.loads(message)
            return request
        tell(report, pid)
        reports[pid] = report
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})


def tell(report: socket.socket, number: int) -> None:
    """Send a number to the starter, which may be gone."""
    with contextlib.suppress(OSError):
        report.send(str(number).encode())


def become(request: dict[str, Any]) -> None:
    """Run `python -m cosi_operator ARGUMENTS` in this fork, with what `testbed.warm` asks for."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.setsid()
    for descriptor, file, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT),
    ):
        opened = os.open(file, flags, 0o666)
        os.dup2(opened, descriptor)
    os.dup2(1, 2)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    environment: dict[str, str] = request["environment"]
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(request["folder"])
    installed = [path for path in sys.path if path.startswith((sys.prefix, sys.base_prefix))]
    sys.path[:] = [request["folder"], environment["PYTHONPATH"], *installed]
    sys.argv[:] = ["cosi_operator", *request["arguments"]]
    runpy.run_module("cosi_operator", run_name="__main__", alter_sys=True)


def preload() -> None:
    """Import what both processes import."""
    importlib.import_module("anyio._backends._asyncio")
    package = importlib.import_module("cosi_operator.app")
    for role in ROLES:
        # The module replaces the entry point, which has the same name in the package.
        entry = getattr(package, role)
        importlib.import_module(f"cosi_operator.app.{role}")
        setattr(package, role, entry)


if __name__ == "__main__":
    preload()
    gc.freeze()  # a collection in a fork would copy the pages of all that was imported
    # A separate descriptor: the forks open their own standard input.
    become(next_fork(socket.socket(fileno=os.dup(0))))
