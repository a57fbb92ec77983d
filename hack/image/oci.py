"""Write a root filesystem as an OCI image: layers, config, manifest, one archive.

The archive is for readers of OCI archives, such as skopeo; for those of Docker's archives it also
has their `manifest.json`. Equal files and labels give equal bytes.
Source: OCI image specification 1.1, parts layer, config, manifest, image-layout.
"""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from image.archive import architecture
from image.contract import (
    ENTRIES,
    ENTRYPOINT,
    FILE_TIME_S,
    USER,
    WORKING_DIRECTORY,
    Identity,
)
from image.interpreter import SITE
from image.packages import PACKAGE
from image.rootfs import OWNED
from image.sbom import PLACE

MEDIA = "application/vnd.oci.image"
GZIP_LEVEL = 6

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Blob:
    """Content and how a manifest refers to it."""

    content: bytes
    media_type: str

    @property
    def digest(self) -> str:
        """As in sha256:0123..."""
        return f"sha256:{hashlib.sha256(self.content).hexdigest()}"

    def descriptor(self) -> Json:
        """What stands in a manifest or an index."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.content)}


@dataclass(frozen=True, slots=True)
class Layer:
    """`diff_id` is the digest before compression, `size_bytes` the sum of its files."""

    what: str
    blob: Blob
    diff_id: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Image:
    """All blobs; `manifest.digest` is what people call the image's digest.

    OCI names the architectures as Debian does.
    """

    architecture: str
    layers: tuple[Layer, ...]
    config: Blob
    manifest: Blob

    @property
    def blobs(self) -> list[Blob]:
        """All of them, the manifest last."""
        return [*(layer.blob for layer in self.layers), self.config, self.manifest]


def make_image(rootfs: Path, identity: Identity, kind: str = "") -> Image:
    """Pack the files; three layers, so that an upgrade of the operator alone loads little.

    Args:
        kind: the architecture that the files are for; "" is this machine's.
    """
    kind = kind or architecture()
    files = sorted(path.relative_to(rootfs) for path in rootfs.rglob("*"))
    with ThreadPoolExecutor() as pool:  # zlib works outside the interpreter's lock
        layers = tuple(
            pool.map(lambda part: _layer(rootfs, files, part[0], part[1]), LAYERS.items())
        )
    config = _blob(_config(layers, identity, kind), "config")
    manifest: Json = {
        "schemaVersion": 2,
        "mediaType": f"{MEDIA}.manifest.v1+json",
        "config": config.descriptor(),
        "layers": [layer.blob.descriptor() for layer in layers],
        "annotations": identity.labels(),
    }
    return Image(kind, layers, config, _blob(manifest, "manifest"))


def write_archive(image: Image, target: Path, name: str) -> None:
    """Write the layout into one tar file.

    Args:
        name: as in registry/repository:tag; what the image is called once it is loaded.
    """
    docker = [
        {
            "Config": _place(image.config),
            "RepoTags": [name],
            "Layers": [_place(layer.blob) for layer in image.layers],
        }
    ]
    _write(target, image.manifest, image.blobs, name, {"manifest.json": _encode(docker)})


def make_index(images: Sequence[Image], identity: Identity) -> Blob:
    """One image for several architectures: its digest is what people call the image's digest."""
    entries = [
        {
            **image.manifest.descriptor(),
            "platform": {"architecture": image.architecture, "os": "linux"},
        }
        for image in images
    ]
    return _blob({**_index(entries), "annotations": identity.labels()}, "index")


def write_index_archive(images: Sequence[Image], index: Blob, target: Path, name: str) -> None:
    """Write the layout of `make_index` into one tar file; `name` as in `write_archive`."""
    _write(target, index, [*(blob for image in images for blob in image.blobs), index], name, {})


def _index(entries: Sequence[Json]) -> Json:
    return {"schemaVersion": 2, "mediaType": f"{MEDIA}.index.v1+json", "manifests": list(entries)}


def _write(
    target: Path, top: Blob, blobs: Sequence[Blob], name: str, more: Mapping[str, bytes]
) -> None:
    entry = {
        **top.descriptor(),
        "annotations": {
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": name.rpartition(":")[2],
        },
    }
    contents = {
        "oci-layout": _encode({"imageLayoutVersion": "1.0.0"}),
        "index.json": _encode(_index([entry])),
        **more,
        **{_place(blob): blob.content for blob in blobs},
    }
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as archive:
        for path, content in contents.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            member.mode = 0o644
            archive.addfile(member, io.BytesIO(content))


def _place(blob: Blob) -> str:
    return f"blobs/{blob.digest.replace(':', '/')}"


def _encode(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _blob(value: Json, kind: str) -> Blob:
    return Blob(_encode(value), f"{MEDIA}.{kind}.v1+json")


def _is_operator(path: Path) -> bool:
    text, site = str(path), str(SITE)
    return text in ENTRIES or path == PLACE or text.startswith(f"{site}/{PACKAGE}")


def _is_dependency(path: Path) -> bool:
    return path.is_relative_to(SITE) and not _is_operator(path)


def _is_runtime(path: Path) -> bool:
    return not _is_operator(path) and not _is_dependency(path)


LAYERS: Mapping[str, Callable[[Path], bool]] = {
    "Python and the C libraries": _is_runtime,
    "the locked dependencies": _is_dependency,
    "the operator": _is_operator,
}


def _layer(rootfs: Path, files: list[Path], what: str, belongs: Callable[[Path], bool]) -> Layer:
    size_bytes = 0
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path in _with_parents([path for path in files if belongs(path)]):
            member = _member(rootfs, path)
            if member.isreg():
                size_bytes += member.size
                archive.addfile(member, io.BytesIO((rootfs / path).read_bytes()))
            else:
                archive.addfile(member)
    content = gzip.compress(packed.getvalue(), GZIP_LEVEL, mtime=0)
    diff_id = f"sha256:{hashlib.sha256(packed.getvalue()).hexdigest()}"
    return Layer(what, Blob(content, f"{MEDIA}.layer.v1.tar+gzip"), diff_id, size_bytes)


def _with_parents(files: list[Path]) -> Iterator[Path]:
    # A layer that names a file without its folder leaves the folder's mode to the unpacker.
    seen: set[Path] = set()
    for path in files:
        for each in [*reversed(path.parents), path]:
            if each not in seen and each != Path():
                seen.add(each)
                yield each


def _member(rootfs: Path, path: Path) -> tarfile.TarInfo:
    full = rootfs / path
    member = tarfile.TarInfo(str(path))
    member.mtime = FILE_TIME_S
    member.uid = member.gid = OWNED.get(str(path), 0)
    if full.is_symlink():
        member.type, member.linkname, member.mode = tarfile.SYMTYPE, str(full.readlink()), 0o777
    else:
        member.type = tarfile.DIRTYPE if full.is_dir() else tarfile.REGTYPE
        member.mode = full.stat().st_mode & 0o7777
        member.size = full.stat().st_size if member.isreg() else 0
    return member


def _config(layers: tuple[Layer, ...], identity: Identity, kind: str) -> Json:
    return {
        "created": identity.created,
        "architecture": kind,
        "os": "linux",
        "config": {
            "User": USER,
            "Env": [f"{name}={value}" for name, value in identity.environment().items()],
            "Entrypoint": ENTRYPOINT,
            "WorkingDir": WORKING_DIRECTORY,
            "Labels": identity.labels(),
        },
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [
            {"created": identity.created, "created_by": "hack/image", "comment": layer.what}
            for layer in layers
        ],
    }
