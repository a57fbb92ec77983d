"""OCI archives for a node: the pause image, and images that add a folder to another one."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlplane.build import find
from image.archive import architecture
from image.oci import MEDIA, Blob, Image, Layer, write_archive
from node.settings import PAUSE

GZIP_LEVEL = 1  # read once, on the same machine


@dataclass(frozen=True, slots=True)
class Base:
    """The layers and the config of an image that another one is built on."""

    layers: tuple[Layer, ...]
    config: Mapping[str, Any]

    @classmethod
    def read(cls, archive: Path) -> "Base":
        """From an OCI archive, as `make image` writes it."""
        with tarfile.open(archive) as tar:

            def blob(digest: str) -> bytes:
                found = tar.extractfile(f"blobs/{digest.replace(':', '/')}")
                assert found is not None
                return found.read()

            index = tar.extractfile("index.json")
            assert index is not None
            manifest = json.loads(blob(json.load(index)["manifests"][0]["digest"]))
            config = json.loads(blob(manifest["config"]["digest"]))
            layers = tuple(
                Layer("base", Blob(blob(layer["digest"]), layer["mediaType"]), diff_id, 0)
                for layer, diff_id in zip(
                    manifest["layers"], config["rootfs"]["diff_ids"], strict=True
                )
            )
        return cls(layers, config)


EMPTY = Base((), {"config": {}})


def write_image(
    target: Path,
    name: str,
    files: Mapping[str, Path],
    *,
    base: Base = EMPTY,
    environment: Mapping[str, str] | None = None,
    entrypoint: Sequence[str] = (),
) -> Path:
    """Write an archive with one layer on top of `base`; return its path.

    Args:
        target: the archive.
        name: registry/repository:tag.
        files: path in the image -> file or folder here.
        base: what it is built on; by default nothing.
        environment: variables besides those of the base.
        entrypoint: overrides that of the base.
    """
    layers = (*base.layers, _layer(files))
    inherited = base.config["config"]
    variables = [f"{key}={value}" for key, value in (environment or {}).items()]
    config = Blob(
        json.dumps(
            {
                "architecture": architecture(),
                "os": "linux",
                "config": {
                    **inherited,
                    "Env": [*inherited.get("Env", []), *variables],
                    "Entrypoint": list(entrypoint) or inherited.get("Entrypoint"),
                },
                "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
            }
        ).encode(),
        f"{MEDIA}.config.v1+json",
    )
    manifest = Blob(
        json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": f"{MEDIA}.manifest.v1+json",
                "config": config.descriptor(),
                "layers": [layer.blob.descriptor() for layer in layers],
            }
        ).encode(),
        f"{MEDIA}.manifest.v1+json",
    )
    write_archive(Image(architecture(), layers, config, manifest), target, name)
    return target


def write_pause(target: Path) -> Path:
    """Write the image of every pod's sandbox."""
    return write_image(target, PAUSE, {"pause": find("pause")}, entrypoint=["/pause"])


def _layer(files: Mapping[str, Path]) -> Layer:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, path in files.items():
            archive.add(path, name, filter=_plain)
    content = packed.getvalue()
    diff_id = f"sha256:{hashlib.sha256(content).hexdigest()}"
    blob = Blob(gzip.compress(content, GZIP_LEVEL, mtime=0), f"{MEDIA}.layer.v1.tar+gzip")
    return Layer("files", blob, diff_id, len(content))


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if "__pycache__" in member.name:
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode |= 0o555 if member.isdir() or member.mode & 0o111 else 0o444
    return member
