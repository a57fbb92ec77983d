"""The krew plugin: krew itself takes the manifest and the archive, and kubectl runs the result."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest
import yaml
from tests.support.apiserver import serving
from tests.support.sdk import written

from controlplane.build import ensure, find
from krew.__main__ import ROOT, build

URI = "https://releases.example.com/v0.1.0/kubectl-cosi-v0.1.0.tar.gz"

pytestmark = pytest.mark.timeout(400)  # the first run builds krew, and downloads packages


@dataclass(frozen=True, slots=True)
class Plugin:
    """What was built, and the environment of a person who installed it."""

    archive: Path
    manifest: Path
    environ: Mapping[str, str]

    def kubectl(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["kubectl", *words],
            env={**self.environ, **environ},
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Plugin:
    ensure(["krew"])
    folder = tmp_path_factory.mktemp("krew")
    archive, manifest = build(folder / "built", URI)
    home, programs = folder / "home", folder / "bin"
    programs.mkdir()
    shutil.copy2(find("kubectl"), programs / "kubectl")
    (programs / "python3").symlink_to(sys.executable)
    environ = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "KREW_ROOT": str(home / ".krew"),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "PATH": os.pathsep.join([str(home / ".krew" / "bin"), str(programs), os.defpath]),
    }
    (home / ".krew").mkdir(parents=True)
    subprocess.run(
        [find("krew"), "install", f"--manifest={manifest}", f"--archive={archive}"],
        env=environ, check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return Plugin(archive, manifest, environ)


def test_kubectl_runs_the_plugin_that_krew_installed(plugin: Plugin) -> None:
    done = plugin.kubectl("cosi", "--version")
    assert (done.returncode, done.stdout) == (0, "cosi 0.1.0\n"), done.stderr
    assert "Installing cosi 0.1.0" in done.stderr
    again = plugin.kubectl("cosi", "policy", "show")
    assert (again.returncode, again.stderr) == (0, "")


async def test_the_plugin_asks_a_cluster(plugin: Plugin, tmp_path: Path) -> None:
    async with serving() as server:
        kubeconfig = str(written(server, tmp_path / "config"))
        done = await anyio.to_thread.run_sync(
            lambda: plugin.kubectl("cosi", "status", KUBECONFIG=kubeconfig)
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "No BucketClaims and no BucketAccesses in namespace default.\n"


def test_without_a_python_that_is_new_enough_the_plugin_says_so(
    plugin: Plugin, tmp_path: Path
) -> None:
    (tmp_path / "python3").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python3").chmod(0o755)
    for version in ("python3.12", "python3.13", "python3.14"):
        (tmp_path / version).symlink_to(tmp_path / "python3")
    path = f"{tmp_path}{os.pathsep}{plugin.environ['PATH']}"
    done = plugin.kubectl("cosi", "--version", PATH=path, XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 2
    assert "needs Python 3.12 or newer on the PATH" in done.stderr


def test_equal_sources_give_an_equal_archive(plugin: Plugin, tmp_path: Path) -> None:
    archive, manifest = build(tmp_path, URI)
    assert archive.read_bytes() == plugin.archive.read_bytes()
    assert manifest.read_text() == plugin.manifest.read_text()


def test_the_manifest_has_the_version_of_the_package_and_the_address(plugin: Plugin) -> None:
    spec = yaml.safe_load(plugin.manifest.read_text())["spec"]
    assert spec["version"] == "v0.1.0"
    assert [platform["uri"] for platform in spec["platforms"]] == [URI]
    assert len(spec["shortDescription"]) <= 50  # so that `kubectl krew search` shows it whole


def test_an_address_that_krew_would_refuse_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "krew", "--uri", "http://example.com/a.tar.gz"],
        env={"PYTHONPATH": str(ROOT / "hack"), "PATH": os.defpath},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "krew takes https only" in done.stderr
