"""What is in the image, and what is not."""

import hashlib
import json
import os
import re
import stat
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from tests.image.conftest import IDENTITY, NAME, Built, Layout
from tests.image.pod import Pod

from image.contract import ENTRIES, FILE_TEST, UID
from image.oci import make_image, make_index, write_index_archive
from image.packages import modules_without_bytecode
from image.rootfs import assemble
from image.sbom import PLACE
from image.vulnerable import INTERPRETER, LOCK, known_defects, release

pytestmark = pytest.mark.timeout(180)  # whichever test is first builds the image

REQUIREMENTS = re.compile(r"^([\w.-]+)==([\w.+-]+)", re.MULTILINE)


def test_a_second_build_elsewhere_gives_the_same_digest(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    monkeypatch.setenv("LC_ALL", "C")
    before = os.umask(0o077)
    try:
        assemble(tmp_path / "other" / "place", built.source, IDENTITY)
    finally:
        os.umask(before)
    again = make_image(tmp_path / "other" / "place", IDENTITY)
    assert [layer.diff_id for layer in again.layers] == [
        layer.diff_id for layer in built.image.layers
    ]
    assert again.manifest.digest == built.image.manifest.digest


def test_another_commit_changes_no_layer_but_the_operators(built: Built) -> None:
    later = replace(IDENTITY, revision="4567def", epoch_s=IDENTITY.epoch_s + 86400)
    launcher = built.rootfs / "sidecar"
    text = launcher.read_text()
    try:
        launcher.write_text(text + "# a change\n")
        changed = make_image(built.rootfs, later)
    finally:
        launcher.write_text(text)
    same = [
        layer.what
        for layer, before in zip(changed.layers, built.image.layers, strict=True)
        if layer.diff_id == before.diff_id
    ]
    assert same == ["Python and the C libraries", "the locked dependencies"]
    assert {path.lstat().st_mtime for path in built.rootfs.rglob("*.py")} == {0.0}


def test_each_blob_has_the_digest_and_the_size_that_name_it(built: Built) -> None:
    blobs = [*built.manifest["layers"], built.manifest["config"]]
    blobs += built.read("index.json")["manifests"]
    for blob in blobs:
        content = built.blob(blob).read_bytes()
        assert f"sha256:{hashlib.sha256(content).hexdigest()}" == blob["digest"]
        assert len(content) == blob["size"]


def test_the_archive_says_its_name_as_docker_and_as_containerd_look_for_it(built: Built) -> None:
    [docker] = built.read("manifest.json")
    assert docker["RepoTags"] == [NAME]
    assert all((built.layout / path).exists() for path in [docker["Config"], *docker["Layers"]])
    [entry] = built.read("index.json")["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == NAME


def test_the_config_keeps_the_contract(built: Built) -> None:
    config = built.config["config"]
    assert config["Entrypoint"] == ["/sidecar"]
    assert config["User"] == "65532:65532"
    assert config["Env"] == [f"{name}={value}" for name, value in IDENTITY.environment().items()]
    assert "COSI_OPERATOR_COMMIT=0123abc" in config["Env"]
    assert config["Labels"] == {
        "org.opencontainers.image.title": "cosi-operator",
        "org.opencontainers.image.description": "for a test",
        "org.opencontainers.image.version": "0.1.0",
        "org.opencontainers.image.revision": "0123abc",
        "org.opencontainers.image.created": "2027-01-15T08:00:00Z",
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.source": "https://source.example/cosi-operator",
    }


def test_nothing_can_be_run_but_python_and_the_entries(pod: Pod) -> None:
    programs = {
        str(path.relative_to(pod.rootfs))
        for path in pod.rootfs.rglob("*")
        if path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o111
        if ".so" not in path.name
    }
    python = (pod.rootfs / "usr/bin/python3").readlink()
    assert programs == {*ENTRIES, FILE_TEST, f"usr/bin/{python}"}


@pytest.mark.parametrize("name", ["sh", "bash", "busybox", "apt*", "dpkg", "pip", "ensurepip"])
def test_no_shell_and_no_installer_is_there(pod: Pod, name: str) -> None:
    found = [path for path in pod.rootfs.rglob(name) if path != pod.rootfs / "var/lib/dpkg"]
    assert found == []


def test_no_file_gives_rights_away(pod: Pod) -> None:
    for path in pod.rootfs.rglob("*"):
        if path.is_symlink():
            continue
        found, name = path.stat(), str(path.relative_to(pod.rootfs))
        assert not found.st_mode & (stat.S_ISUID | stat.S_ISGID), name
        assert found.st_mode & stat.S_IWOTH == 0 or name == "tmp", name
        assert (found.st_uid, found.st_gid) == ((UID, UID) if name == "var/lib/cosi" else (0, 0))


def test_every_module_is_compiled(built: Built) -> None:
    assert list(modules_without_bytecode(built.rootfs)) == []


def test_no_process_has_to_read_a_source_to_start(pod: Pod) -> None:
    done = pod.run("/usr/bin/python3", "-Ivc", "import cosi_operator.app.sidecar")
    assert done.returncode == 0, done.stderr
    assert "cosi_operator/app/__pycache__/sidecar" in done.stderr
    assert re.findall(r"# (?:wrote|code object from '/|could not create) .*", done.stderr) == []


def test_the_sbom_names_what_is_locked_and_nothing_that_is_not_there(built: Built) -> None:
    sbom = json.loads((built.rootfs / PLACE).read_text())
    listed = {
        (component["name"].lower().replace("_", "-"), component["version"])
        for component in sbom["components"]
        if component["purl"].startswith("pkg:pypi/")
    }
    locked = set(REQUIREMENTS.findall((built.source / "requirements/run.txt").read_text()))
    assert listed == locked
    debian = {c["name"] for c in sbom["components"] if c["purl"].startswith("pkg:deb/")}
    assert {"libc6", "libssl3t64", INTERPRETER} <= debian
    assert all((built.rootfs / "var/lib/dpkg/status.d" / name).exists() for name in debian)
    assert sbom["metadata"]["component"]["version"] == "0.1.0"


def test_the_interpreter_is_the_pinned_one_and_has_no_known_defect(pod: Pod, built: Built) -> None:
    done = pod.run("/usr/bin/python3", "-Ic", "import platform; print(platform.python_version())")
    assert done.returncode == 0, done.stderr
    version = done.stdout.strip()
    assert known_defects(version) == []
    pins = json.loads(LOCK.read_text())["packages"]["amd64"]
    assert release(version) >= release(pins[INTERPRETER]["version"])
    sbom = json.loads((built.rootfs / PLACE).read_text())
    python = next(part for part in sbom["components"] if part["name"] == "CPython")
    assert python["version"] == version


def test_nothing_of_the_machine_that_builds_is_in_the_image(built: Built) -> None:
    """Every file comes from a pinned package, a locked dependency or the repository."""
    mine = f"{sys.base_prefix}/".encode()
    told = [
        str(path.relative_to(built.rootfs))
        for path in built.rootfs.rglob("*")
        if path.is_file() and not path.is_symlink() and mine in path.read_bytes()
    ]
    assert sys.base_prefix == "/usr" or told == []


def test_one_archive_holds_an_image_for_each_architecture(built: Built, tmp_path: Path) -> None:
    images = [built.image, make_image(built.rootfs, IDENTITY, "arm64")]
    index = make_index(images, IDENTITY)
    write_index_archive(images, index, tmp_path / "both.tar", NAME)
    with tarfile.open(tmp_path / "both.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    layout = Layout(tmp_path)
    [entry] = layout.read("index.json")["manifests"]
    assert (entry["digest"], entry["annotations"]["io.containerd.image.name"]) == (
        index.digest,
        NAME,
    )
    for image, found in zip(images, layout.manifest["manifests"], strict=True):
        manifest = json.loads(layout.blob(found).read_bytes())
        config = json.loads(layout.blob(manifest["config"]).read_bytes())
        assert found["digest"] == image.manifest.digest
        assert found["platform"] == {"architecture": image.architecture, "os": "linux"}
        assert config["architecture"] == image.architecture
        assert all(layout.blob(layer).exists() for layer in manifest["layers"])
