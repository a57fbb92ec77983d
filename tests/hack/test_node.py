"""The parts of hack/node that need no node: what it asks of a machine, traces, archives."""

import json
import os
import sys
import tarfile
from pathlib import Path

import pytest

from node import __main__ as command
from node import needs
from node.archives import Base, write_image
from node.traces import Traces

NOTHING: frozenset[str] = frozenset()
CLEAN = Traces(NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING)


@pytest.mark.parametrize("check", [["--check"], []], ids=["when asked", "before a command"])
def test_elsewhere_it_says_what_is_missing_and_runs_nothing(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    check: list[str],
) -> None:
    ran = tmp_path / "ran"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "argv", ["node", *check, "touch", str(ran)])
    assert command.main() == 2
    told = capsys.readouterr().err
    assert "nothing was run" in told
    assert "needs root" in told
    assert not ran.exists()


def test_another_system_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    (told,) = needs.missing()
    assert "Linux only" in told
    assert "darwin" in told


def test_each_program_that_is_missing_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no apt-get, too: nothing is installed
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(needs, "CNI_PLUGINS", tmp_path)
    told = "\n".join(needs.missing())
    for program, package in needs.DEBIAN.items():
        assert f"`{program}` is missing: install the package {package}" in told
    assert "containernetworking-plugins" in told


def test_a_trace_is_what_is_there_now_and_was_not_before() -> None:
    before = Traces(frozenset({"/run"}), NOTHING, frozenset({"lo"}), NOTHING, NOTHING, NOTHING)
    now = Traces(
        frozenset({"/run", "/run/netns/x"}), frozenset({"/sys/fs/cgroup/cosi-node-1"}),
        frozenset({"lo", "node0"}), frozenset({"12 kubelet"}), frozenset({"/var/lib/kubelet"}),
        frozenset({"/proc/sys/kernel/panic: 10"}),
    )  # fmt: skip
    assert now.left_since(now) == CLEAN.left_since(now) == []
    assert now.left_since(before) == [
        "mounts: /run/netns/x",
        "cgroups: /sys/fs/cgroup/cosi-node-1",
        "links: node0",
        "processes: 12 kubelet",
        "files: /var/lib/kubelet",
        "kernel: /proc/sys/kernel/panic: 10",
    ]


def test_an_image_on_a_base_has_its_layers_and_its_environment(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("1")
    second.mkdir()
    (second / "x").write_text("2")
    base = write_image(
        tmp_path / "base.tar", "localhost/base:1", {"first": first},
        environment={"A": "1"}, entrypoint=["/first"],
    )  # fmt: skip
    archive = write_image(
        tmp_path / "top.tar", "localhost/top:2", {"opt/second": second},
        base=Base.read(base), environment={"B": "2"},
    )  # fmt: skip
    found = Base.read(archive)
    assert len(found.layers) == 2
    assert found.config["config"]["Env"] == ["A=1", "B=2"]
    assert found.config["config"]["Entrypoint"] == ["/first"]
    with tarfile.open(archive) as tar:
        index = tar.extractfile("index.json")
        assert index is not None
        (entry,) = json.load(index)["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == "localhost/top:2"
