"""The page "Install the CLI": its commands, run in a clean environment, give a working `cosi`."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import anyio
import pytest
from tests.support.apiserver import serving
from tests.support.sdk import written

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "install-cli.md").read_text()
SOURCES = ("operator/cosi_operator", "pyproject.toml", "README.md", "LICENSE")
UV = Path(sys.executable).with_name("uv")
INSTALL = "uv tool install '.[cli]'"

pytestmark = pytest.mark.timeout(300)  # downloads what is not in uv's cache


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources without anything that this machine has built."""
    folder = tmp_path_factory.mktemp("clone")
    for name in SOURCES:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    return folder


@pytest.fixture(scope="module")
def installed(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs that the page's command installs."""
    folder = tmp_path_factory.mktemp("tools")
    programs = folder / "bin"
    assert INSTALL in PAGE
    subprocess.run(
        INSTALL.replace("uv", str(UV), 1),
        shell=True,
        cwd=clone,
        env={
            **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            "UV_TOOL_DIR": str(folder / "environments"),
            "UV_TOOL_BIN_DIR": str(programs),
            "UV_PYTHON": sys.executable,
            # The versions that all other tests have run with.
            "UV_CONSTRAINT": str(ROOT / "requirements" / "dev.txt"),
        },
        check=True,
        capture_output=True,
        text=True,
    )
    return programs


def run(program: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(program), *words],
        env={"PATH": os.defpath, "HOME": "/nonexistent", **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_wheel_holds_the_package_and_nothing_else(clone: Path, tmp_path: Path) -> None:
    subprocess.run(
        [UV, "build", "--wheel", "--quiet", "--out-dir", tmp_path, clone], check=True, timeout=200
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].split("-")[0] for name in names} == {"cosi_operator"}
    assert "cosi_operator/py.typed" in names
    assert any(name.endswith("entry_points.txt") for name in names)


def test_the_version_is_printed(installed: Path) -> None:
    done = run(installed / "cosi", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, "cosi 0.1.0\n", "")


def test_the_plugin_of_kubectl_names_itself_so(installed: Path) -> None:
    assert run(installed / "kubectl-cosi", "--help").stdout.startswith("usage: kubectl cosi ")


def test_a_policy_needs_no_cluster(installed: Path) -> None:
    done = run(installed / "cosi", "policy", "show")
    assert (done.returncode, done.stderr) == (0, "")


def test_without_a_kubeconfig_every_place_is_named(installed: Path) -> None:
    done = run(installed / "cosi", "status")
    assert done.returncode == 2
    assert "--kubeconfig and KUBECONFIG are not set; /nonexistent/.kube/config" in done.stderr


async def test_a_cluster_is_asked(installed: Path, tmp_path: Path) -> None:
    async with serving() as server:
        kubeconfig = str(written(server, tmp_path / "config"))
        done = await anyio.to_thread.run_sync(
            lambda: run(installed / "cosi", "status", "-o", "yaml", KUBECONFIG=kubeconfig)
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "total: 0\nnotReady: []\nnotSeen: {}\n"
