"""A process that has imported the modules of a program and forks processes of that program.

The package starts it as `python -m warm.forks PROGRAM`. Its standard input is a Unix socket. Each
message there is a request, in JSON, with one end of a socket pair: the fork's process id is written
to it, and later, when that process has ended, its exit code as in subprocess.Popen. A
request without a log has two more descriptors, the fork's standard output and standard error. This
process ends when its standard input is closed, and the kernel then kills what it has forked.
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
IMPORTED = {
    "mockdriver": ("mockdriver.control", "mockdriver.service"),
    "cosi": ("cosi_operator.cli.commands", "cosi_operator.cli.driver_check.command"),
}
_libc = ctypes.CDLL(None)


def next_fork(requests: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Fork at each request; returns in the forks only: the request, and its outputs."""
    reports: dict[int, socket.socket] = {}

    def reap(_number: int, _frame: FrameType | None) -> None:
        for pid in list(reports):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                with reports.pop(pid) as report:
                    tell(report, os.waitstatus_to_exitcode(status))

    signal.signal(signal.SIGCHLD, reap)
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, REQUEST_BYTES, 3)
        if not message:
            sys.exit()
        report = socket.socket(fileno=descriptors[0])
        # Until it is in `reports`, nothing would be written about a process that has ended.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        if (pid := os.fork()) == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            request: dict[str, Any] = json.loads(message)
            return request, descriptors[1:]
        for descriptor in descriptors[1:]:
            os.close(descriptor)
        tell(report, pid)
        reports[pid] = report
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})


def tell(report: socket.socket, number: int) -> None:
    """Send a number to the starter, which may be gone."""
    with contextlib.suppress(OSError):
        report.send(str(number).encode())


def become(program: str, request: dict[str, Any], outputs: list[int]) -> None:
    """Run a program in this fork as `warm.fork` asks for."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if request["log"]:
        os.dup2(os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666), 1)
        os.dup2(1, 2)
    else:
        os.dup2(outputs[0], 1)
        os.dup2(outputs[1], 2)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    environment: dict[str, str] = request["environment"]
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(request["folder"])
    installed = [path for path in sys.path if path.startswith((sys.prefix, sys.base_prefix))]
    roots = environment["PYTHONPATH"].split(os.pathsep)
    sys.path[:] = [request["folder"], *roots, *installed]
    sys.argv[:] = [program, *request["arguments"]]
    if program == "cosi":
        sys.exit(importlib.import_module("cosi_operator.cli").main())
    runpy.run_module(program, run_name="__main__", alter_sys=True)


def preload(program: str) -> None:
    """Import what each process of the program imports."""
    importlib.import_module("anyio._backends._asyncio")
    if program in IMPORTED:
        for name in IMPORTED[program]:
            importlib.import_module(name)
        return
    package = importlib.import_module("cosi_operator.app")
    for role in ROLES:
        # The module replaces the entry point, which has the same name in the package.
        entry = getattr(package, role)
        importlib.import_module(f"cosi_operator.app.{role}")
        setattr(package, role, entry)


if __name__ == "__main__":
    name = sys.argv[1]
    preload(name)
    gc.freeze()  # a collection in a fork would copy the pages of all that was imported
    # A separate descriptor: the forks open their own standard input.
    become(name, *next_fork(socket.socket(fileno=os.dup(0))))
