"""A sandbox ends without a trace: after a failed start, a signal, a kill. Runs outside of one."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.e2e.world import say

from node.machine import Node
from node.needs import NodeError, cgroup_roots, missing
from node.sandbox import PREFIX, Sandbox

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

# Starts a node with one pod, says so, and waits for its end.
WITH_A_POD = """
import os, pathlib, time
from node import Node
folder = pathlib.Path(os.environ["COSI_NODE_FOLDER"])
with Node.start(folder / "node") as node:
    node.plane.run_kubectl("run", "pod", "--image=localhost/pause:1", "--image-pull-policy=Never")
    while "Running" not in node.plane.run_kubectl("get", "pods"):
        time.sleep(0.1)
    (folder / "runs").touch()
    time.sleep(600)
"""
FAILS = """
import os, pathlib
from node import Node, settings
settings.NAME = "No_name_of_a_node-{number}"  # the kubelet ends with an error
Node.start(pathlib.Path(os.environ["COSI_NODE_FOLDER"]) / "node")
"""


@pytest.fixture(scope="module", autouse=True)
def able() -> None:
    assert missing() == [], "run `make e2e` where a node can run"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "sandbox"


def until(what: str, holds: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert process.poll() is None, f"ended while waiting for {what}: {process.communicate()}"
        assert time.monotonic() < deadline, f"waited 120 s for {what}"
        time.sleep(0.1)


def with_a_pod(folder: Path) -> subprocess.Popen[str]:
    """`python -m node` with a node and a running pod inside."""
    process = subprocess.Popen(
        [sys.executable, "-m", "node", f"--folder={folder}", sys.executable, "-c", WITH_A_POD],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    until("a pod", (folder / "runs").exists, process)
    return process


def ours() -> set[str]:
    """Processes and cgroups of sandboxes, by any name."""
    found = {str(path) for root in cgroup_roots() for path in root.glob(f"{PREFIX}*")}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if PREFIX.encode() in (process / "cgroup").read_bytes():
                found.add(process.name)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_everything_in_order(folder: Path, number: signal.Signals) -> None:
    before = ours()
    process = with_a_pod(folder)
    say("a pod runs")
    assert ours() > before, "the check sees what runs"
    process.send_signal(number)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, printed
    assert "ended without a trace" in printed
    assert ours() == before
    assert not folder.exists()


def test_a_start_that_fails_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    before = ours()
    with Sandbox(folder) as sandbox:
        log = tmp_path / "log"
        code = sandbox.run([sys.executable, "-c", FAILS], log=log)
    assert code == 1
    assert "StartError" in log.read_text()
    assert ours() == before
    assert not folder.exists()


def test_a_killed_supervisor_takes_all_processes_with_it(folder: Path) -> None:
    before = ours()
    process = with_a_pod(folder)
    say("a pod runs")
    process.kill()
    process.communicate(timeout=60)
    deadline = time.monotonic() + 30
    while [found for found in ours() - before if found.isdigit()]:
        assert time.monotonic() < deadline, ours() - before
        time.sleep(0.1)
    assert str(folder) not in Path("/proc/self/mountinfo").read_text()
    remaining = ours() - before
    assert remaining, "cgroups stay, which no process is left to remove"
    assert folder.exists()
    with Sandbox(folder):
        assert not remaining & ours(), "the next start removes what a killed one left"
    assert not folder.exists()


def test_what_is_left_is_named(folder: Path) -> None:
    root = cgroup_roots()[0]
    with pytest.raises(NodeError, match="cgroups: ") as found, Sandbox(folder):
        (root / "kubepods-left-by-a-test").mkdir()
    (root / "kubepods-left-by-a-test").rmdir()
    assert "kubepods-left-by-a-test" in str(found.value)


def test_a_node_refuses_to_start_outside_of_a_sandbox(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match="not in a sandbox"):
        Node.start(tmp_path)


def test_a_command_that_ends_takes_its_orphans_with_it(folder: Path) -> None:
    """The machine's kernel settings and folders stay, and the exit code comes back."""
    orphan = (
        "(sleep 300 &) ; echo 7 > /proc/sys/vm/overcommit_memory; mkdir /var/lib/kubelet; exit 3"
    )
    kept = Path("/proc/sys/vm/overcommit_memory").read_text()
    with Sandbox(folder) as sandbox:
        assert sandbox.run(["sh", "-c", orphan]) == 3
    assert Path("/proc/sys/vm/overcommit_memory").read_text() == kept
    assert not Path("/var/lib/kubelet").exists()


def test_a_folder_that_is_in_use_or_is_none_of_a_sandbox_is_left_alone(folder: Path) -> None:
    with Sandbox(folder), pytest.raises(NodeError, match="another sandbox uses it"):
        Sandbox(folder).__enter__()
    folder.mkdir()
    (folder / "mine").touch()
    with pytest.raises(NodeError, match="none of one"):
        Sandbox(folder).__enter__()
    assert (folder / "mine").exists()
