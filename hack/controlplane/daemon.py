"""Start a program in the background and end it again, surely and alone.

What is promised: a Daemon is ended by its process handle only, never by a name. When this Python
process dies in any way, SIGKILL included, the kernel kills its daemons too (Linux only).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

LOG_LINES_SHOWN = 20

# Linux signals a child when the *thread* that started it ends, not the process. So one thread
# starts all daemons, and that thread lives until the interpreter's exit.
_STARTER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="daemon-starter")

# Runs between fork and exec, as a separate program, since code in `preexec_fn` may deadlock in
# a process with threads. 1 is PR_SET_PDEATHSIG, 9 is SIGKILL; the setting survives the exec.
# The parent may be dead before the call; then nobody would send the signal, so it looks.
_SHIM = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent process is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


def coverage_variables() -> dict[str, str]:
    """What coverage put into this process's environment, so that it measures child processes too.

    Empty unless the tests run under `make coverage`.
    """
    return {name: text for name, text in os.environ.items() if name.startswith("COVERAGE_")}


class RunningProcess(Protocol):
    """What a Daemon needs of subprocess.Popen."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class StartError(Exception):
    """A program did not become ready; the message ends with the last lines of its log."""

    def __init__(self, reason: str, log_file: Path) -> None:
        """Read the end of `log_file` into the message."""
        self.log_file = log_file
        self.log_tail = last_lines(log_file, LOG_LINES_SHOWN)
        super().__init__(f"{reason}. Its log, {log_file}, ends with:\n{self.log_tail}")


class Daemon:
    """One program that can be started, stopped and started again, with all output in one file."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log_file: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        """Describe the program; nothing is started.

        Args:
            name: for messages.
            command: the full path of the program, then its arguments.
            log_file: standard output and standard error are appended here.
            env: its whole environment; by default this process's own.
            cwd: its working folder; by default this process's own.
        """
        self.name = name
        self.command = tuple(command)
        self.log_file = log_file
        self._env = env
        self._cwd = cwd
        self._process: RunningProcess | None = None

    @property
    def environment(self) -> Mapping[str, str] | None:
        """The environment it is started with; None is this process's own."""
        return self._env

    @property
    def pid(self) -> int | None:
        """The process id while it runs, else None."""
        return self._process.pid if self._process is not None and self.is_running else None

    @property
    def is_running(self) -> bool:
        """Whether the process was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the program; returns before it is ready. Does nothing while it runs."""
        if not self.is_running:
            self._process = _STARTER.submit(self._spawn).result()

    def _spawn(self) -> RunningProcess:
        shim = [sys.executable, "-I", "-S", "-c", _SHIM, str(os.getpid())]
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                [*shim, *self.command],
                env=None if self._env is None else {**self._env, **coverage_variables()},
                cwd=self._cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the caller alone, who stops us in order
            )

    def stop(self, *, grace_s: float) -> None:
        """End the program and wait for it: SIGTERM, then SIGKILL after `grace_s` seconds.

        A grace of 0 is SIGKILL at once, as in a crash. Does nothing when it isn't running.
        """
        process, self._process = self._process, None
        if process is None:
            return
        if grace_s > 0:
            process.terminate()  # harmless when it has exited already
            try:
                process.wait(timeout=grace_s)
                return
            except subprocess.TimeoutExpired:
                pass
        process.kill()
        process.wait()

    def wait_until(self, is_ready: Callable[[], bool], *, timeout_s: float) -> None:
        """Ask `is_ready` again and again until it says so.

        Raises:
            StartError: the program ended, or `timeout_s` seconds passed.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            ready = is_ready()
            # Looked at after the question: another process may be the one that answered.
            if self._process is None or (code := self._process.poll()) is not None:
                ended = "was stopped" if self._process is None else f"ended with code {code}"
                raise StartError(f"{self.name} {ended} before it was ready", self.log_file)
            if ready:
                return
            if time.monotonic() > deadline:
                raise StartError(f"{self.name} was not ready in {timeout_s} s", self.log_file)
            time.sleep(0.05)


def last_lines(file: Path, count: int) -> str:
    """Return the last `count` lines of a text file; a placeholder when it has none."""
    if not file.exists():
        return "(no log was written)"
    lines = file.read_text(errors="replace").splitlines()[-count:]
    return "\n".join(lines) or "(the log is empty)"
