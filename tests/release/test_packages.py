"""Charts, provenance, sums: the parts of a release that are quick to build."""

import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from chart_outputs import Helm
from image.archive import Package
from metadata import MetadataError, Publisher, with_part
from release.build import PROVENANCE, SUMS, predicate, unsigned_names
from release.packages import CHARTS, build_python, normalize, package_chart, write_tar
from release.provenance import debian_materials, lock_materials, statement, write
from release.tools import ROOT, ReleaseError, run, sha256

EPOCH_S = 1_800_000_000


@pytest.mark.parametrize("chart", CHARTS)
def test_a_packaged_chart_names_the_published_image_and_has_no_time(
    chart: str, tmp_path: Path
) -> None:
    packages = []
    for place in ("first", "second"):
        (tmp_path / place).mkdir()
        source = shutil.copytree(ROOT / "charts" / chart, tmp_path / place / chart)
        packages.append(package_chart(source, "r.example.com/all", tmp_path / place, EPOCH_S))
    assert packages[0].read_bytes() == packages[1].read_bytes()
    with tarfile.open(packages[0]) as archive:
        assert {member.mtime for member in archive} == {EPOCH_S}
        archive.extractall(tmp_path, filter="data")
    values = yaml.safe_load((tmp_path / chart / "values.yaml").read_text())
    assert values["image"]["registry"] == "r.example.com/all"
    assert (
        '| `image.registry` | `"r.example.com/all"` |'
        in (tmp_path / chart / "README.md").read_text()
    )
    if chart == "cosi-operator":
        rendered = Helm(tmp_path).template(packages[0])
        assert "image: r.example.com/all/cosi-operator:0.1.0\n" in rendered
    linted = run(ROOT / ".cache/bin/helm", "lint", "--strict", packages[0])
    assert "[WARNING]" not in linted
    assert "[INFO]" not in linted


def test_a_chart_whose_registry_is_set_already_is_refused(tmp_path: Path) -> None:
    source = shutil.copytree(ROOT / "charts" / CHARTS[0], tmp_path / CHARTS[0])
    text = (source / "values.yaml").read_text()
    (source / "values.yaml").write_text(text.replace('  registry: ""', "  registry: other", 1))
    with pytest.raises(ReleaseError, match=r"no empty image\.registry"):
        package_chart(source, "r.example.com", tmp_path, EPOCH_S)


@pytest.mark.timeout(200)  # the locked build backend may have to be downloaded
def test_wheel_and_sdist_are_all_that_is_built_and_name_the_project(tmp_path: Path) -> None:
    built = build_python(ROOT, tmp_path, EPOCH_S)
    assert {file.name for file in tmp_path.iterdir()} == {file.name for file in built}
    with zipfile.ZipFile(built[0]) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
        metadata = wheel.read(name).decode()
    publisher = Publisher.read()
    assert f"Project-URL: Source, {publisher.source}\n" in metadata
    assert "Classifier: Framework :: AsyncIO\n" in metadata
    assert publisher.maintainers[0]["email"] in metadata


def test_an_archive_loses_what_names_the_machine_that_made_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    for name, owner in (("one.tar.gz", "alice"), ("two.tar.gz", "bob")):
        with tarfile.open(tmp_path / name, "w:gz") as archive:
            member = archive.gettarinfo(tmp_path / "file", "file")
            member.uname, member.mtime = owner, len(owner)
            with (tmp_path / "file").open("rb") as content:
                archive.addfile(member, content)
        normalize(tmp_path / name, EPOCH_S)
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "two.tar.gz").read_bytes()
    write_tar(tmp_path / "three.tar.gz", {"file": (b"text", 0o644)}, EPOCH_S)
    assert (tmp_path / "three.tar.gz").read_bytes() == (tmp_path / "one.tar.gz").read_bytes()


def test_the_provenance_names_the_commit_and_every_material_by_digest(tmp_path: Path) -> None:
    (tmp_path / "libc6.deb").write_text("a package")
    package = Package("libc6", "2.42-1", "arm64", tmp_path / "libc6.deb")
    materials = [*debian_materials([package]), *lock_materials(ROOT)]
    made = statement(
        {"b": "22", "a": "11"}, "https://e.example/x", "0123abc", {"version": "1.2.3"}, materials
    )
    write(tmp_path / PROVENANCE, made)
    assert made["_type"] == "https://in-toto.io/Statement/v1"
    assert made["predicateType"] == "https://slsa.dev/provenance/v1"
    assert made["subject"] == [
        {"name": "a", "digest": {"sha256": "11"}},
        {"name": "b", "digest": {"sha256": "22"}},
    ]
    definition = json.loads(predicate(tmp_path))["buildDefinition"]
    commit, libc6, *locks = definition["resolvedDependencies"]
    assert commit == {"uri": "git+https://e.example/x", "digest": {"gitCommit": "0123abc"}}
    assert libc6["uri"] == "pkg:deb/debian/libc6@2.42-1?arch=arm64"
    assert libc6["digest"]["sha256"] == sha256(package.file)
    for lock in locks:
        assert lock["digest"]["sha256"] == sha256(ROOT / lock["name"])


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(lambda folder: (folder / "a").write_text("other"), id="changed"),
        pytest.param(lambda folder: (folder / "a").unlink(), id="missing"),
        pytest.param(lambda folder: (folder / "c").write_text("more"), id="added"),
    ],
)
def test_files_that_differ_from_their_sums_are_not_published(harm: object, tmp_path: Path) -> None:
    for name in ("a", PROVENANCE):
        (tmp_path / name).write_text(name)
    names = ("a", PROVENANCE)
    (tmp_path / SUMS).write_text("".join(f"{sha256(tmp_path / n)}  {n}\n" for n in names))
    (tmp_path / f"{SUMS}.sig").write_text("a signature is not summed up")
    assert unsigned_names(tmp_path) == sorted(names)
    assert callable(harm)
    harm(tmp_path)
    with pytest.raises(ReleaseError, match="differs from its SHA256SUMS"):
        unsigned_names(tmp_path)


def test_publisher_toml_has_every_field_and_no_other(tmp_path: Path) -> None:
    text = (ROOT / "publisher.toml").read_text("utf-8")
    file = tmp_path / "publisher.toml"
    for wrong, named in {
        text.replace("home = ", "house = "): "home, house",
        text.replace("https://github.com/", "github.com/"): "source has to begin with https://",
    }.items():
        file.write_text(wrong)
        with pytest.raises(MetadataError, match=named):
            Publisher.read(file)


def test_a_file_without_its_made_part_is_refused() -> None:
    with pytest.raises(MetadataError, match="needs one line"):
        with_part("name: cosi-operator\n", "home: x\n")
