"""Separate namespaces for a node: network, mounts, processes; and its cgroups.

When the first process of the sandbox ends, the kernel ends every other one, and with the last of
them the mounts, the links and the network. What is left are cgroups and one folder, which `Sandbox`
removes. So nothing remains, even if a node did not start or was killed.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from node.needs import NodeError, cgroup_roots
from node.traces import Traces, look

NAME_VARIABLE = "COSI_NODE"
"""In the environment of every process of a sandbox: its name, which its cgroups have too."""
FOLDER_VARIABLE = "COSI_NODE_FOLDER"
INSIDE = "/run/node"
"""Where the folder is inside, and what that variable says: a short name, for Unix sockets."""
PREFIX = "cosi-node-"
OWNER = "supervisor"
"""A file of the folder with the process id of who removes it."""
GRACE_S = 20.0
CLEAN_S = 20.0
POLL_S = 0.05
STOPPED_BY_SIGNAL = 128

# The kubelet sets these for the whole machine. It finds files with the values that it wants
# in their place, so the machine keeps its own.
KERNEL = {
    "/proc/sys/vm/overcommit_memory": "1",
    "/proc/sys/vm/panic_on_oom": "0",
    "/proc/sys/kernel/panic": "10",
    "/proc/sys/kernel/panic_on_oops": "1",
    "/proc/sys/kernel/keys/root_maxkeys": "1000000",
    "/proc/sys/kernel/keys/root_maxbytes": "25000000",
}

# /run and /var are private: what kubelet, containerd and CNI plugins write there ends with the
# sandbox. The first process reaps those whose parent has ended.
_SETUP = """
set -e
folder=$1; shift
mount -t tmpfs tmpfs /run
mkdir -p /run/netns /run/node "$folder/var/upper" "$folder/var/work"
mount -t overlay overlay \
    -o "lowerdir=/var,upperdir=$folder/var/upper,workdir=$folder/var/work" /var
mount --bind "$folder" /run/node
for setting in "$folder"/kernel/*; do
    mount --bind "$setting" "$(echo "$setting" | sed "s|.*/||; s|,|/|g")"
done
ip link set lo up
exec "$@"
"""


class Sandbox:
    """One sandbox; leaving `with` ends all of it and checks that no trace is left.

    SIGTERM and SIGINT of this process end the command in order, for 20 s at most.
    """

    def __init__(self, folder: Path) -> None:
        """Choose a name; nothing is made.

        Args:
            folder: for all files of the sandbox; must not exist, is removed at the end.
        """
        self.name = f"{PREFIX}{uuid.uuid4().hex[:8]}-{os.getpid()}"
        self.folder = folder.resolve()
        self._before: Traces | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped_by = 0
        self._on_exit = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Make folder and cgroups; remove what a sandbox left whose supervisor was killed.

        Raises:
            NodeError: the folder exists, and another sandbox uses it, or it is none of a sandbox.
        """
        if self.folder.exists() and not _is_abandoned(self.folder):
            raise NodeError(f"{self.folder} exists: another sandbox uses it, or it is none of one")
        _remove_abandoned()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._before = self._look()
        self._on_exit.enter_context(self._signals())
        try:
            self._make()
        except BaseException as error:
            with self._on_exit:
                self._end_and_check(error)
            raise
        return self

    def _make(self) -> None:
        self.folder.mkdir(parents=True)
        (self.folder / OWNER).write_text(str(os.getpid()))
        (self.folder / "kernel").mkdir()
        for path, value in KERNEL.items():
            if Path(path).exists():
                (self.folder / "kernel" / path.replace("/", ",")).write_text(f"{value}\n")
        for root in cgroup_roots():
            (root / self.name).mkdir()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End everything.

        Raises:
            NodeError: something is left after 20 s; the message names it.
        """
        with self._on_exit:  # signals do not interrupt this
            self._end_and_check(error)

    def _end_and_check(self, error: BaseException | None) -> None:
        self.end()
        left: list[str] = []

        def is_clean() -> bool:
            self._remove_cgroups()
            shutil.rmtree(self.folder, ignore_errors=True)
            assert self._before is not None
            left[:] = self._look().left_since(self._before)
            return not left

        if not _eventually(is_clean, CLEAN_S):
            raise NodeError("the sandbox left behind:\n" + "\n".join(left)) from error

    def run(self, command: Sequence[str], *, log: Path | None = None) -> int:
        """Run a command inside, with its network, mounts and processes; return its exit code.

        Args:
            command: a program and its arguments. It is the sandbox's first process but one.
            log: where its output goes; by default to our own.
        """
        with log.open("ab") if log else contextlib.nullcontext() as output:
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL"),  # we are killed: so is the sandbox
                    *("unshare", "--net", "--mount", "--pid", "--ipc", "--fork", "--kill-child"),
                    *("--mount-proc", "--propagation", "private", "sh", "-c", _SETUP, "sh"),
                    *(str(self.folder), sys.executable, "-m", "node.first", *command),
                ],
                env={**os.environ, **self._environment()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C reaches us alone, who end it in order
            )
            code = self._wait()
        return STOPPED_BY_SIGNAL + self._stopped_by if self._stopped_by else code

    def end(self, *, grace_s: float = 0.0) -> None:
        """End the command, after `grace_s` seconds for an orderly end, and all its processes."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        if grace_s > 0:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=grace_s)
        if process.poll() is None:
            self._signal(signal.SIGKILL)
            process.wait()

    def _wait(self) -> int:
        assert self._process is not None
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._process.wait(timeout=POLL_S)
            if self._stopped_by:
                self.end(grace_s=GRACE_S)

    def _signal(self, number: int) -> None:
        """To the first process inside: `unshare` waits for that one, and it for all others."""
        assert self._process is not None
        pid = self._process.pid
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split() or [str(pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), number)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def note(number: int, _: FrameType | None) -> None:
            self._stopped_by = number

        kept = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)

    def _environment(self) -> dict[str, str]:
        return {NAME_VARIABLE: self.name, FOLDER_VARIABLE: INSIDE}

    def _look(self) -> Traces:
        return look(self.name, self.folder, [path for path in map(Path, KERNEL) if path.exists()])

    def _remove_cgroups(self) -> None:
        for root in cgroup_roots():
            _remove_cgroup(root / self.name)


def _remove_cgroup(cgroup: Path) -> None:
    for folder, _, _ in os.walk(cgroup, topdown=False):
        with contextlib.suppress(OSError):  # a process in it has not ended yet
            Path(folder).rmdir()


def _remove_abandoned() -> None:
    """Remove cgroups of sandboxes whose supervisor was killed; a name ends with its process id."""
    for root in cgroup_roots():
        for cgroup in root.glob(f"{PREFIX}*"):
            if not _runs(cgroup.name.rpartition("-")[2]):
                _remove_cgroup(cgroup)


def _is_abandoned(folder: Path) -> bool:
    """Whether a folder is that of a sandbox whose supervisor was killed."""
    owner = folder / OWNER
    return owner.exists() and not _runs(owner.read_text())


def _runs(pid: str) -> bool:
    return Path("/proc", pid).exists()


def _eventually(holds: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True
