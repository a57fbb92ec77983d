"""Start processes as forks of a process that has imported their modules.

Importing is most of what a start costs: 0.7 s of CPU time for the controller or the sidecar, a few
hundred times in `make test`, and 0.3 to 0.5 s for the mock driver and `cosi`. A fork runs the same
program with its own arguments, environment, folder and log; only the start of the interpreter and
the imports are shared. COSI_WARM_STARTS asks for it, as `make test` does. Processes that get
separate variables, and those of the tests of signals, charts, images and documented commands are
started anew in any case; so are controller, sidecar and `cosi` under coverage.
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
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from controlplane.daemon import Daemon, RunningProcess, coverage_variables

OPERATOR, MOCK_DRIVER, COSI = "cosi_operator", "mockdriver", "cosi"
_SOURCE_ROOTS = (Path(__file__).parents[1], Path(__file__).parents[2] / "operator")
# As the script of the wheel does.
_COSI = "import sys; from cosi_operator.cli import main; sys.argv[0] = 'cosi'; sys.exit(main())"
_servers: dict[str, tuple[subprocess.Popen[bytes], socket.socket]] = {}  # by program


def is_asked_for(environment: Mapping[str, str] | None, *, is_measured: bool = True) -> bool:
    """Whether to fork a process that gets these variables besides those of every process.

    Some variables have an effect only before the first import.

    Args:
        is_measured: whether coverage measures the process. Forks are not measured.
    """
    if is_measured and coverage_variables():
        return False
    return bool(os.environ.get("COSI_WARM_STARTS")) and not environment


class WarmDaemon(Daemon):
    """A Daemon whose command is `python -m cosi_operator ARGUMENTS`, started by a fork."""

    def _spawn(self) -> RunningProcess:
        self.log_file.touch()
        return fork(
            OPERATOR,
            self.command[self.command.index(OPERATOR) + 1 :],
            environment=self.environment or {},
            folder=self._cwd or Path.cwd(),
            log=self.log_file,
        )


def fork(
    program: str,
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: Path,
    log: Path | None = None,
    outputs: tuple[int, int] | None = None,
) -> RunningProcess:
    """Start `python -m PROGRAM ARGUMENTS`, or `cosi ARGUMENTS`, by a fork.

    Args:
        program: OPERATOR, MOCK_DRIVER or COSI.
        arguments: its command line.
        environment: its whole environment; PYTHONPATH is required.
        folder: its working folder.
        log: standard output and standard error are appended to this file.
        outputs: without a log, the descriptors of its standard output and standard error.
    """
    request = {
        "arguments": list(arguments),
        "environment": dict(environment),
        "folder": str(folder),
        "log": str(log or ""),
    }
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        descriptors = [theirs.fileno(), *(outputs or ())]
        socket.send_fds(_requests(program), [json.dumps(request).encode()], descriptors)
    return _Fork(ours)


def run_cosi(
    arguments: Sequence[str], *, environment: Mapping[str, str], timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Run `cosi ARGUMENTS` to its end, with nothing on its standard input.

    Args:
        arguments: its command line.
        environment: its variables besides PATH and PYTHONPATH.
        timeout_s: seconds after which it is killed.
    Raises:
        subprocess.TimeoutExpired: it was killed.
    """
    variables = {
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONPATH": str(_SOURCE_ROOTS[1]),
        **environment,
    }
    if not is_asked_for(None):
        return subprocess.run(
            [sys.executable, "-c", _COSI, *arguments],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
            env={**variables, **coverage_variables()},
            check=False,
        )
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as note:
        process = fork(
            COSI,
            arguments,
            environment=variables,
            folder=Path.cwd(),
            outputs=(out.fileno(), note.fileno()),
        )
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        texts = []
        for file in (out, note):
            file.seek(0)
            texts.append(file.read())
    return subprocess.CompletedProcess([COSI, *arguments], code, *texts)


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
                raise subprocess.TimeoutExpired("a fork", timeout or 0) from None
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
            raise RuntimeError("warm.forks has ended")
        return int(report)


def _requests(program: str) -> socket.socket:
    """The socket of the process that forks `program`; starts it if there is none."""
    if program not in _servers:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "warm.forks", program],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env={
                    "PATH": os.environ.get("PATH", os.defpath),
                    "PYTHONPATH": os.pathsep.join(map(str, _SOURCE_ROOTS)),
                },
                start_new_session=True,  # Ctrl-C reaches the tests alone, which stop in order
            )
        if not _servers:
            atexit.register(_end_servers)
        _servers[program] = (process, ours)
    return _servers[program][1]


def _end_servers() -> None:
    for process, requests in _servers.values():
        requests.close()
        process.wait()
