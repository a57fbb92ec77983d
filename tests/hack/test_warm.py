"""A process of the operator that is forked from a warm one, beside one that is started anew."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import warm
from controlplane.daemon import Daemon
from testbed.process import ROOT, operator_process
from warm import WarmDaemon, _Fork

KINDS = [pytest.param("", Daemon, id="anew"), pytest.param("1", WarmDaemon, id="forked")]
FOREVER = """
import os, pathlib, sys
from testbed.process import operator_process
os.environ["COSI_WARM_STARTS"] = "1"
folder = pathlib.Path(sys.argv[1])
kubeconfig = folder / "kubeconfig"
process = operator_process("controller", [], kubeconfig=kubeconfig, namespace="x", logs=folder)
process.start()
print(process.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    """Of an API server that is away, for which a process waits."""
    file = tmp_path / "kubeconfig"
    user = {"name": "u", "user": {"token": "t"}}
    cluster = {"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    config = {"clusters": [cluster], "users": [user], "contexts": [context]}
    file.write_text(json.dumps({**config, "current-context": "x"}))
    return file


def process_of(folder: Path, *arguments: str) -> Daemon:
    return operator_process(
        "controller",
        arguments,
        kubeconfig=folder / "kubeconfig",
        namespace="space",
        logs=folder,
    )


def until_ended(process: Daemon) -> int:
    deadline = time.monotonic() + 30
    while process.is_running:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert process._process is not None
    code = process._process.poll()
    assert code is not None
    return code


@pytest.mark.parametrize(("asked", "kind"), KINDS)
def test_a_refused_flag_ends_it_with_the_same_code_and_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, kind: type[Daemon]
) -> None:
    monkeypatch.setenv("COSI_WARM_STARTS", asked)
    process = process_of(tmp_path, "--nonsense")
    assert type(process) is kind
    process.log_file.write_text("before\n")
    process.start()
    assert until_ended(process) == 2
    words = process.log_file.read_text().splitlines()
    assert words[0] == "before"
    assert words[1].startswith("cosi-controller: unknown flag --nonsense")


@pytest.mark.parametrize(("asked", "kind"), KINDS)
def test_it_has_a_session_and_a_folder_of_its_own_and_writes_into_its_log(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kubeconfig: Path,
    asked: str,
    kind: type[Daemon],
) -> None:
    monkeypatch.setenv("COSI_WARM_STARTS", asked)
    process = process_of(tmp_path)
    assert type(process) is kind
    process.start()
    try:
        process.wait_until(lambda: bool(process.log_file.read_text()), timeout_s=30)
        assert process.pid is not None
        files = Path(f"/proc/{process.pid}")
        assert os.getsid(process.pid) == process.pid
        assert (files / "cwd").readlink() == tmp_path
        assert [(files / "fd" / str(n)).readlink() for n in range(3)] == [
            Path(os.devnull),
            process.log_file,
            process.log_file,
        ]
    finally:
        process.stop(grace_s=10)
    assert not files.exists() or " Z " in (files / "stat").read_text()


@pytest.mark.parametrize(("asked", "kind"), KINDS)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGUSR1])
def test_a_signal_that_ends_it_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kubeconfig: Path,
    number: signal.Signals,
    asked: str,
    kind: type[Daemon],
) -> None:
    monkeypatch.setenv("COSI_WARM_STARTS", asked)
    process = process_of(tmp_path)
    assert type(process) is kind
    process.start()
    process.wait_until(lambda: bool(process.log_file.read_text()), timeout_s=30)
    assert process.pid is not None
    os.kill(process.pid, number)
    assert until_ended(process) == -number


@pytest.mark.parametrize("stop", [_Fork.kill, _Fork.terminate])
def test_stopping_one_that_ended_a_moment_ago_is_no_error(stop: Callable[[_Fork], None]) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        theirs.send(str(ended.pid).encode())
        fork = _Fork(ours)
        stop(fork)
        theirs.send(b"-9")
        assert fork.wait() == -9


def test_it_is_killed_when_the_process_that_asked_for_it_is(
    tmp_path: Path, kubeconfig: Path
) -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", FOREVER, str(tmp_path)],
        env={"PATH": os.defpath, "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'hack'}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        os.kill(pid, 0)
        starter.kill()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_process_with_variables_of_its_own_and_a_measured_one_are_started_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COSI_WARM_STARTS", "1")
    monkeypatch.delenv("COVERAGE_PROCESS_START", raising=False)
    assert warm.is_asked_for(None)
    assert not warm.is_asked_for({"HTTPS_PROXY": "http://127.0.0.1:1"})
    monkeypatch.setenv("COVERAGE_PROCESS_START", "x")
    assert not warm.is_asked_for(None)
