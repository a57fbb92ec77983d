"""The image that these tests share: built once, from a copy of the sources that nobody edits.

COSI_IMAGE, the folder of an OCI layout, names another image that is run instead of it.
"""

import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.image.pod import Pod, require_rights, unpack

from image.contract import INPUTS, ROOT, Identity
from image.oci import Image, make_image, write_archive
from image.rootfs import assemble
from image.tools import copy_named

NAME = "registry.example/cosi-operator:1.2.3"
IDENTITY = Identity(
    version="0.1.0",
    description="for a test",
    revision="0123abc",
    epoch_s=1_800_000_000,
    source="https://source.example/cosi-operator",
)


@dataclass(frozen=True, slots=True)
class Layout:
    """An image as a folder of blobs."""

    layout: Path

    def read(self, path: str) -> Any:
        """A JSON file of the layout."""
        return json.loads((self.layout / path).read_bytes())

    def blob(self, descriptor: dict[str, Any]) -> Path:
        """Where the content is that a descriptor names."""
        return self.layout / "blobs" / str(descriptor["digest"]).replace(":", "/")

    @property
    def manifest(self) -> Any:
        """As the index leads to it."""
        return json.loads(self.blob(self.read("index.json")["manifests"][0]).read_bytes())

    @property
    def config(self) -> Any:
        """As the manifest leads to it."""
        return json.loads(self.blob(self.manifest["config"]).read_bytes())

    @property
    def layers(self) -> list[Path]:
        """The blobs, from the lowest."""
        return [self.blob(layer) for layer in self.manifest["layers"]]


@dataclass(frozen=True, slots=True)
class Built(Layout):
    """A build: its sources, its root filesystem, what was made of it; and that, unpacked again."""

    source: Path
    rootfs: Path
    image: Image
    archive: Path


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build as `make image` does; about 10 s."""
    folder = tmp_path_factory.mktemp("image")
    source = folder / "source"
    copy_named(INPUTS, ROOT, source)
    rootfs = folder / "rootfs"
    assemble(rootfs, source, IDENTITY)
    image = make_image(rootfs, IDENTITY)
    write_archive(image, folder / "image.tar", NAME)
    with tarfile.open(folder / "image.tar") as archive:
        archive.extractall(folder / "layout", filter="data")
    return Built(folder / "layout", source, rootfs, image, folder / "image.tar")


@pytest.fixture(scope="session")
def shipped(built: Built) -> Layout:
    """The image that is run."""
    return Layout(Path(other)) if (other := os.environ.get("COSI_IMAGE")) else built


@pytest.fixture(scope="session")
def pod(shipped: Layout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """The image's layers, unpacked, with nothing in its mounts yet."""
    require_rights()
    folder = tmp_path_factory.mktemp("pod")
    for name in ("account", "shared"):
        (folder / name).mkdir()
        (folder / name).chmod(0o755)
    rootfs = unpack(shipped.layers, folder / "rootfs")
    yield Pod(rootfs, folder / "account", folder / "shared", shipped.config["config"])
    shutil.rmtree(rootfs)
