"""Start the operator's processes as forks of a process that has imported their modules.

Importing is most of what a start costs: 0.7 s of CPU time, a few hundred times in `make test`.
A fork runs the same `python -m cosi_operator` with its own arguments, environment, folder and log;
only the start of the interpreter and the imports are shared. COSI_WARM_STARTS asks for it, as
`make test` does. Processes that get separate variables, those of the tests of signals, charts,
images and commands, and all of them under coverage are started anew in any case.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from controlplane.daemon import Daemon, RunningProcess, coverage_variables

_SOURCE_ROOTS = (Path(__file__).parents[1], Path(__file__).parents[2] / "operator")
_server: list[tuple[subprocess.Popen[bytes], socket.socket]] = []  # empty or one


def is_asked_for(environment: Mapping[str, str] | None) -> bool:
    """Whether to fork a process that gets these variables besides those of every process.

    Some variables have an effect only before the first import.
    """
    return bool(os.environ.get("COSI_WARM_STARTS")) and not environment and not coverage_variables()


class WarmDaemon(Daemon):
    """A Daemon whose command is `python -m cosi_operator ARGUMENTS`, started by a fork."""

    def _spawn(self) -> RunningProcess:
        request = {
            "arguments": self.command[self.command.index("cosi_operator") + 1 :],
            "environment": self.environment,
            "folder": str(self._cwd),
            "log": str(self.log_file),
        }
        self.log_file.touch()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            socket.send_fds(_requests(), [json.dumps(request).encode()], [theirs.fileno()])
        return _Fork(ours)


class _Fork:
    """A forked process, in the form of subprocess.Popen."""

    def __init__(self, reports: socket.socket) -> None:
        self._reports = reports
        self._code: int | None = None
        self.pid = self._report(None)

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        if self._code is None:
            try:
                self._code = self._report(timeout)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired("cosi_operator", timeout or 0) from None
            self._reports.close()
        return self._code

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self.poll() is None:
            # It may have ended without its exit code being here yet.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _report(self, timeout_s: float | None) -> int:
        self._reports.settimeout(timeout_s)
        if not (report := self._reports.recv(32)):
            raise RuntimeError("testbed.forks has ended")
        return int(report)


def _requests() -> socket.socket:
    """The socket of the process that forks; starts it if there is none."""
    if not _server:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "testbed.forks"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env={
                    "PATH": os.environ.get("PATH", os.defpath),
                    "PYTHONPATH": os.pathsep.join(map(str, _SOURCE_ROOTS)),
                },
                start_new_session=True,  # Ctrl-C reaches the tests alone, which stop in order
            )
        _server.append((process, ours))
        atexit.register(_end_server)
    return _server[0][1]


def _end_server() -> None:
    process, requests = _server.pop()
    requests.close()
    process.wait()
