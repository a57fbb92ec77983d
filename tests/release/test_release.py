"""docs/release.md, word for word, in a clean clone; then the release is installed.

`make release-test` runs it. The registry is on loopback; everything else is what a maintainer and a
user type.
"""

import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.chart.test_documents import commands, image, sections
from tests.support.registry import crane, registry

from chart_outputs import NAMESPACE, Helm
from controlplane import ControlPlane
from controlplane.build import ensure, find
from image.tools import need
from release.tools import ROOT

pytestmark = [pytest.mark.release, pytest.mark.timeout(1800)]

PUBLISHED = "registry.example.com"
"""What stands in the documents for the registry of the release."""
VERIFY = ("Verify the files", "Verify the provenance", "Verify image and charts")
PROGRAMS = ["cosign", "crane", "helm", "kubectl"]
PERSON = {
    f"GIT_{role}_{what}": f"tester{at}example.com"
    for role in ("AUTHOR", "COMMITTER")
    for what, at in (("NAME", " of "), ("EMAIL", "@"))
}
PAGE = sections("release.md")


@dataclass(frozen=True, slots=True)
class Desk:
    """A folder, and what a person there has at hand."""

    folder: Path
    address: str
    home: Path

    def type(self, typed: list[str], folder: Path) -> str:
        """Run commands one after the other; return what they print."""
        told = ""
        for command in typed:
            done = subprocess.run(
                ["bash", "-o", "pipefail", "-c", command.replace(PUBLISHED, self.address)],
                cwd=folder,
                env={
                    **{name: text for name, text in os.environ.items() if name != "PYTHONPATH"},
                    **PERSON,
                    "COSIGN_PASSWORD": "only for this test",
                    "DOCKER_CONFIG": str(self.home),
                    "HELM_CACHE_HOME": str(self.home),
                    "PATH": f"{find('helm').parent}{os.pathsep}{os.environ['PATH']}",
                },
                text=True, capture_output=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
            told += done.stdout
        return told


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A clean clone, and a registry; the programs that the page needs are built already."""
    ensure(PROGRAMS)
    crane()
    folder = tmp_path_factory.mktemp("release")
    subprocess.run(["git", "clone", "--quiet", ROOT, folder / "clone"], check=True)
    (folder / "home").mkdir()
    with registry(folder) as address:
        yield Desk(folder / "clone", address, folder / "home")


@pytest.fixture(scope="module")
def released(desk: Desk) -> Desk:
    """After all that a maintainer types; the key is committed as the page says."""
    # What a machine keeps from one clone to the next: programs of pinned versions.
    (desk.folder / ".cache").mkdir()
    (desk.folder / ".cache" / "bin").symlink_to(ROOT / ".cache" / "bin")
    desk.type(commands(PAGE["Before the first release"]), desk.folder)
    desk.type(["git add cosign.pub", "mv cosign.key .."], desk.folder)
    desk.type(commands(PAGE["Cut the version"]), desk.folder)
    for section in ("Build and sign", "Publish"):
        (command,) = commands(PAGE[section])
        command = command.replace("KEY=", "KEY=../")
        told = desk.type([f"{command} REGISTRY={desk.address}"], desk.folder)
        print(told)
    return desk


def test_every_section_with_commands_is_run() -> None:
    with_commands = {name for name, text in PAGE.items() if commands(text)}
    maintainer = {"Before the first release", "Cut the version", "Build and sign", "Publish"}
    assert with_commands == maintainer | set(VERIFY) | {"Build it again"}


@pytest.mark.parametrize("section", VERIFY)
def test_a_user_verifies_it(released: Desk, section: str) -> None:
    typed = commands(PAGE[section])
    told = released.type(typed, released.folder / "dist")
    assert "FAILED" not in told
    if section == "Verify image and charts":
        assert told.count('"docker-reference"') >= 2
        assert told.count('"payloadType":"application/vnd.in-toto+json"') == 2


@pytest.mark.parametrize(
    "harmed",
    ["SHA256SUMS", "cosi-operator-0.1.0.tgz", "cosign.pub"],
    ids=lambda name: f"{name} -> refused",
)
def test_a_changed_file_and_another_key_are_refused(
    released: Desk, tmp_path: Path, harmed: str
) -> None:
    dist = released.folder / "dist"
    for file in dist.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / harmed).unlink()
    if harmed == "cosign.pub":
        released.type(["cosign generate-key-pair"], tmp_path)
    else:
        content = bytearray((dist / harmed).read_bytes())
        content[10] ^= 1
        (tmp_path / harmed).write_bytes(content)
    typed = [*commands(PAGE[VERIFY[0]]), *commands(PAGE[VERIFY[1]])]
    if harmed == "cosign.pub":
        typed += commands(PAGE[VERIFY[2]])
    refused = []
    for command in typed:
        try:
            released.type([command], tmp_path)
        except AssertionError:
            refused.append(command.split()[0] + " " + command.split()[1])
    expected = {
        "SHA256SUMS": ["cosign verify-blob", "sha256sum --check", "openssl dgst"],
        "cosi-operator-0.1.0.tgz": ["sha256sum --check", "cosign verify-blob-attestation"],
        "cosign.pub": [
            "cosign verify-blob", "openssl dgst", "cosign verify-blob-attestation",
            *["cosign verify"] * 2, *["cosign verify-attestation"] * 2,
        ],
    }  # fmt: skip
    assert refused == expected[harmed]


def test_the_same_commit_gives_the_same_bytes(released: Desk) -> None:
    sums = (released.folder / "dist" / "SHA256SUMS").read_text()
    (command,) = commands(PAGE["Build it again"])
    again = released.folder.with_name("again")
    released.type([f"git clone --quiet {released.folder} {again}"], released.folder)
    (again / ".cache").mkdir()
    (again / ".cache" / "bin").symlink_to(ROOT / ".cache" / "bin")
    released.type([f"{command} REGISTRY={released.address}"], again)
    assert (again / "dist" / "SHA256SUMS").read_text() == sums


def test_the_chart_is_installed_from_the_registry_by_the_command_of_the_page(
    released: Desk, tmp_path: Path
) -> None:
    (command,) = commands(sections("install.md")["From a release"])
    with ControlPlane.start(tmp_path / "plane") as plane:
        helm = Helm(tmp_path / "helm", plane.admin_kubeconfig)
        helm.run(*command.replace(PUBLISHED, released.address).split()[1:])
        told = image(plane, NAMESPACE, "cosi-operator-controller", "controller")
        assert told == f"{released.address}/cosi-operator:0.1.0"
        plane.run_kubectl("get", "bucketclaims", "--all-namespaces")
    pulled = released.type([f"crane digest {told}"], tmp_path).strip()
    assert pulled == (released.folder / "dist" / "image-digest").read_text().strip()


def test_pip_installs_the_wheel_and_krew_reads_the_manifest(released: Desk, tmp_path: Path) -> None:
    (wheel,) = (released.folder / "dist").glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    released.type([f"venv/bin/pip install --quiet {wheel}", "venv/bin/cosi --version"], tmp_path)
    manifest = (released.folder / "dist" / "cosi.yaml").read_text()
    (named,) = re.findall(r"sha256: (\w{64})", manifest)
    assert named in (released.folder / "dist" / "SHA256SUMS").read_text()


@pytest.mark.parametrize("program", ["sidecar", "controller", "cosi"])
def test_the_arm64_image_starts_under_qemu(released: Desk, tmp_path: Path, program: str) -> None:
    emulator = need("qemu-aarch64-static", package="qemu-user-static")
    name = f"{released.address}/cosi-operator:0.1.0"
    released.type([f"crane export --platform linux/arm64 {name} image.tar"], tmp_path)
    with tarfile.open(tmp_path / "image.tar") as archive:
        archive.extractall(tmp_path / "rootfs", filter="fully_trusted")
    rootfs = tmp_path / "rootfs"
    done = subprocess.run(
        [emulator, "-L", rootfs, rootfs / "usr/bin/python3.13", "-IB", rootfs / program, "--help"],
        env={}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()
