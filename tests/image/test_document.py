"""docs/image.md, word for word: every console command, against a real registry on loopback."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.image.conftest import Built, Layout
from tests.support.registry import crane, registry

from image.archive import CACHE, fetch
from image.contract import INPUTS, ROOT, Identity
from image.tools import need

pytestmark = pytest.mark.timeout(300)  # the first run builds crane; whichever is first, the image

PUBLISHED = "registry.example.com"
"""What stands in the document for the reader's registry."""
SECTIONS = {
    part.partition("\n")[0]: re.findall(
        r"(?m)^\$ (.*)$", "".join(re.findall(r"(?ms)^```console\n(.*?)^```", part))
    )
    for part in (ROOT / "docs" / "image.md").read_text("utf-8").split("\n## ")
}
SKOPEO = "The same with skopeo"
ON_A_NODE = "Without a registry"  # tests/e2e/test_day.py runs it


@pytest.fixture(scope="module", name="crane")
def built_crane() -> Path:
    return crane()


@pytest.fixture(name="registry")
def empty_registry(tmp_path: Path) -> Iterator[str]:
    """The address of an empty registry."""
    with registry(tmp_path) as address:
        yield address


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What the commands touch, as in a clone, with this one's .venv."""
    clone = tmp_path / "clone"
    for name in (*INPUTS, "Makefile", ".python-version"):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, clone / name)
        else:
            shutil.copyfile(ROOT / name, clone / name)
    for path in (*(clone / "requirements").iterdir(), clone / ".python-version"):
        os.utime(path, (0, 0))  # so that make takes the .venv for current
    (clone / ".venv").symlink_to(ROOT / ".venv")
    fetch()  # not again for each clone
    shutil.copytree(CACHE, clone / CACHE.relative_to(ROOT))
    return clone


def run(clone: Path, crane: Path, registry: str, command: str) -> str:
    """Run a command of the document; returns what it prints."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command.replace(PUBLISHED, registry)],
        cwd=clone,
        env=os.environ
        | {
            "PATH": f"{crane.parent}{os.pathsep}{os.environ['PATH']}",
            "DOCKER_CONFIG": str(clone),  # nobody's password is read
            "COSI_MEASURED_RUNS": "1",
        },
        text=True, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def test_every_command_builds_pushes_and_measures(
    clone: Path, crane: Path, registry: str, tmp_path: Path
) -> None:
    told = {
        command: run(clone, crane, registry, command)
        for section, typed in SECTIONS.items()
        for command in typed
        if section not in (SKOPEO, ON_A_NODE)
    }
    digest = (clone / "build/image/digest").read_text()
    (shown,) = (text for command, text in told.items() if command.startswith("crane digest"))
    assert shown == digest
    assert digest.strip() in told["make image"]
    (measured,) = (text for command, text in told.items() if "--peer" in command)
    assert f"{crane}: " in measured

    pulled = f"crane pull --format=oci {PUBLISHED}/cosi-operator:0.1.0 {tmp_path}/pulled"
    run(clone, crane, registry, pulled)
    assert Layout(tmp_path / "pulled").manifest == Layout(clone / "build/image/layout").manifest
    for blob in (clone / "build/image/layout/blobs/sha256").iterdir():
        assert (tmp_path / "pulled/blobs/sha256" / blob.name).read_bytes() == blob.read_bytes()


def test_a_reader_of_dockers_archives_finds_the_same_image(
    built: Built, clone: Path, crane: Path, registry: str
) -> None:
    name = f"{PUBLISHED}/cosi-operator:docker"
    run(clone, crane, registry, f"crane push {built.archive} {name}")
    assert json.loads(run(clone, crane, registry, f"crane config {name}")) == built.config


@pytest.mark.containerfile
def test_skopeo_pushes_the_same_digest(
    built: Built, clone: Path, crane: Path, registry: str
) -> None:
    need("skopeo", package="skopeo")
    config = clone / ".config/containers/registries.conf"  # the reader's registry has TLS
    config.parent.mkdir(parents=True)
    config.write_text(f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n')
    (clone / "build/image").mkdir(parents=True)
    (clone / "build/image/cosi-operator.oci.tar").symlink_to(built.archive)
    for command in SECTIONS[SKOPEO]:
        run(clone, crane, registry, f"HOME={clone} {command}")
    digest = run(clone, crane, registry, f"crane digest {PUBLISHED}/cosi-operator:0.1.0")
    assert digest.strip() == built.image.manifest.digest


def test_no_command_is_shown_that_is_not_run() -> None:
    page = (ROOT / "docs" / "image.md").read_text("utf-8")
    assert set(re.findall(r"(?m)^```(\w*)$", page)) == {"console", ""}
    assert len(SECTIONS[SKOPEO]) == 1
    assert len(SECTIONS[ON_A_NODE]) == 2


def test_the_image_has_a_name_that_a_kubelet_leaves_as_it_is() -> None:
    """A kubelet puts its default registry before a name whose first part is no host."""
    identity = Identity(version="1.2.3", description="", revision="", epoch_s=0)
    assert identity.name == "localhost/cosi-operator:1.2.3"
