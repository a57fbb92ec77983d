"""Build every file of a release from the last commit into a folder."""

import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from image.archive import ARCHITECTURES, Package, fetch
from image.contract import Identity, identify
from image.oci import Image, make_image, make_index, write_index_archive
from image.packages import modules_without_bytecode
from image.rootfs import assemble
from image.sbom import PLACE
from krew.__main__ import build as build_krew
from metadata import Publisher, project
from release.changelog import notes
from release.packages import CHARTS, build_python, package_chart
from release.provenance import debian_materials, lock_materials, statement, write
from release.signing import signed_names, signer
from release.tools import ROOT, ReleaseError, files, run, sha256

SUMS = "SHA256SUMS"
PROVENANCE = "provenance.json"
NOTES = "RELEASE_NOTES.md"
DIGEST = "image-digest"


@dataclass(frozen=True, slots=True)
class Release:
    """What is released, and where it will be published.

    Args:
        registry: of image and charts; overrides that of publisher.toml.
        epoch_s: time of the commit, which every archive has for all its files.
    """

    version: str
    registry: str
    publisher: Publisher
    commit: str
    epoch_s: int
    notes: str

    @property
    def image(self) -> str:
        """The image with its tag."""
        return f"{self.registry}/cosi-operator:{self.version}"

    @property
    def archive(self) -> str:
        """The name of the image's archive."""
        return f"cosi-operator-{self.version}.oci.tar"

    @property
    def downloads(self) -> str:
        """Where the files will be."""
        return f"{self.publisher.source}/releases/download/v{self.version}"

    def sbom(self, kind: str) -> str:
        """The name of an image's bill of materials."""
        return f"cosi-operator-{self.version}.linux-{kind}.cdx.json"


def prepare(version: str, registry: str) -> Release:
    """Check that the last commit is what `version` names.

    Raises:
        ReleaseError: a file differs from the commit, or it is of another version.
    """
    if changed := run("git", "status", "--porcelain"):
        raise ReleaseError(f"these files differ from the last commit:\n{changed}")
    if project()["version"] != version:
        raise ReleaseError(
            f"pyproject.toml has version {project()['version']}: run `make cut VERSION={version}`"
        )
    publisher = Publisher.read()
    return Release(
        version=version,
        registry=registry or publisher.registry,
        publisher=publisher,
        commit=run("git", "rev-parse", "HEAD").strip(),
        epoch_s=int(run("git", "log", "-1", "--format=%ct")),
        notes=notes((ROOT / "CHANGELOG.md").read_text("utf-8"), version),
    )


def build(release: Release, output: Path, architectures: tuple[str, ...], key: str) -> None:
    """Fill the folder `output`, which is emptied first; sign if there is a key.

    Raises:
        ReleaseError, ImageError: the message says what is missing.
    """
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = _export(folder / "source")
        packages = {kind: fetch(kind) for kind in architectures}
        digest = _images(release, source, output, folder, architectures)
        wheel, _ = build_python(source, output, release.epoch_s)
        (folder / "krew").mkdir()
        archive = f"kubectl-cosi-v{release.version}.tar.gz"
        for built in build_krew(folder / "krew", f"{release.downloads}/{archive}", wheel):
            shutil.move(built, output / built.name)
        for chart in CHARTS:
            package_chart(source / "charts" / chart, release.registry, output, release.epoch_s)
        (output / DIGEST).write_text(f"{digest}\n")
        (output / NOTES).write_text(_notes(release, digest), "utf-8")
        _describe(release, output, source, [deb for kind in packages.values() for deb in kind])
    if key:
        _sign(output, key)


def _export(target: Path) -> Path:
    """The files of the last commit, and nothing that git ignores."""
    done = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(target, filter="data")
    return target


def _images(
    release: Release, source: Path, output: Path, folder: Path, architectures: tuple[str, ...]
) -> str:
    """Write the archive with an image for each architecture; return the digest of their index."""
    given = identify(source)
    identity = Identity(
        given.version, given.description, release.commit, release.epoch_s, release.publisher.source
    )
    images: list[Image] = []
    for kind in architectures:
        rootfs = folder / kind
        assemble(rootfs, source, identity, kind)
        if missing := list(modules_without_bytecode(rootfs)):
            raise ReleaseError(f"{len(missing)} modules have no bytecode, such as {missing[0]}")
        shutil.copyfile(rootfs / PLACE, output / release.sbom(kind))
        images.append(make_image(rootfs, identity, kind))
        print(f"image for linux/{kind}: {images[-1].manifest.digest}", flush=True)
        shutil.rmtree(rootfs)
    index = make_index(images, identity)
    write_index_archive(images, index, output / release.archive, release.image)
    return index.digest


def _notes(release: Release, digest: str) -> str:
    chart = f"oci://{release.registry}/charts/cosi-operator --version {release.version}"
    image = release.image.rpartition(":")[0]
    return (
        f"# cosi-operator {release.version}\n\n"
        f"Image: `{image}@{digest}`\n\n"
        f"```console\n$ helm install cosi-operator {chart}"
        " --namespace container-object-storage-system --create-namespace\n```\n\n"
        "How to verify these files and the image: "
        f"{release.publisher.source}/blob/v{release.version}/docs/release.md\n\n"
        f"## Changes\n\n{release.notes}"
    )


def _describe(release: Release, output: Path, source: Path, packages: list[Package]) -> None:
    """Write the provenance statement, then the sums of all files."""
    subjects = {file.name: sha256(file) for file in files(output)}
    image = release.image.rpartition(":")[0]
    subjects[image] = (output / DIGEST).read_text().strip().removeprefix("sha256:")
    parameters = {"version": release.version, "registry": release.registry}
    materials = [*debian_materials(packages), *lock_materials(source)]
    write(
        output / PROVENANCE,
        statement(subjects, release.publisher.source, release.commit, parameters, materials),
    )
    sums = "".join(f"{sha256(file)}  {file.name}\n" for file in files(output))
    (output / SUMS).write_text(sums)


def _sign(output: Path, key: str) -> None:
    with signer(key) as signing:
        (output / "cosign.pub").write_text(signing.public_key())
        signing.sign_file(output / SUMS)
        signing.sign_statement(output / PROVENANCE)


def unsigned_names(output: Path) -> list[str]:
    """The files of a release that its sums name.

    Raises:
        ReleaseError: a file was changed or added, or one is missing.
    """
    lines = [line.partition("  ") for line in (output / SUMS).read_text().splitlines()]
    sums = {name: digest for digest, _, name in lines}
    found = files(output, but=(SUMS, *signed_names((SUMS, PROVENANCE))))
    if {file.name: sha256(file) for file in found} != sums:
        raise ReleaseError(f"{output} differs from its {SUMS}: run `make release` again")
    return sorted(sums)


def predicate(output: Path) -> str:
    """What the provenance says, without its subjects."""
    return json.dumps(json.loads((output / PROVENANCE).read_text())["predicate"])


def every_architecture() -> tuple[str, ...]:
    """All that packages are pinned for."""
    return tuple(sorted(ARCHITECTURES.values()))
