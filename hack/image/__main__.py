"""`make image`: build the image into build/image, then say what it costs."""

import argparse
import shutil
import sys
import time
from pathlib import Path

from image.archive import ARCHITECTURES, architecture
from image.contract import ROOT, identify
from image.measure import report, report_peer
from image.oci import make_image, write_archive
from image.packages import modules_without_bytecode
from image.rootfs import assemble
from image.sbom import PLACE, python_distributions
from image.tools import MEGABYTE, ImageError

OUTPUT = ROOT / "build" / "image"
ARCHIVE = "cosi-operator.oci.tar"


def main() -> None:
    """Read the command line and build, or only measure what is built."""
    parser = argparse.ArgumentParser(prog="image", description=__doc__)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder (%(default)s)")
    parser.add_argument(
        "--name", default="", help="registry/repository:tag (localhost/cosi-operator:VERSION)"
    )
    parser.add_argument(
        "--architecture", choices=sorted(ARCHITECTURES.values()), help="this machine's by default"
    )
    parser.add_argument("--measure", action="store_true", help="measure what is built already")
    parser.add_argument(
        "--peer", type=Path, action="append", default=[], help="measure this program, too"
    )
    arguments = parser.parse_args()
    try:
        if not arguments.measure:
            build(arguments.output, arguments.name, arguments.architecture or "")
        if arguments.architecture not in (None, architecture()):
            return  # nothing of it can be run here
        rootfs = arguments.output / "rootfs"
        if not rootfs.exists():
            raise ImageError(f"nothing is built in {arguments.output}: run `make image`")
        print("\n".join(report(rootfs.resolve())))
        for peer in arguments.peer:
            print(report_peer(peer))
    except ImageError as error:
        sys.exit(f"image: {error}")


def build(output: Path, name: str, kind: str) -> None:
    """Fill the folder `output`: rootfs/, the archive, its digest and its bill of materials."""
    started_s = time.monotonic()
    identity = identify()
    name = name or identity.name
    rootfs = output / "rootfs"
    shutil.rmtree(output, ignore_errors=True)
    assemble(rootfs, ROOT, identity, kind)
    if missing := list(modules_without_bytecode(rootfs)):
        raise ImageError(f"{len(missing)} modules have no bytecode, for instance {missing[0]}")
    image = make_image(rootfs, identity, kind)
    write_archive(image, output / ARCHIVE, name)
    shutil.copyfile(rootfs / PLACE, output / PLACE.name)
    (output / "digest").write_text(f"{image.manifest.digest}\n")
    print(f"{name} of {identity.revision} in {time.monotonic() - started_s:.0f} s")
    print(f"{output / ARCHIVE}")
    print(f"{image.manifest.digest}")
    for layer in image.layers:
        print(
            f"{len(layer.blob.content) / MEGABYTE:7.1f} MB to load, "
            f"{layer.size_bytes / MEGABYTE:6.1f} MB unpacked: {layer.what}"
        )
    loaded = sum(len(layer.blob.content) for layer in image.layers)
    unpacked = sum(layer.size_bytes for layer in image.layers)
    print(f"{loaded / MEGABYTE:7.1f} MB to load, {unpacked / MEGABYTE:6.1f} MB unpacked: in all")
    print(f"{len(python_distributions(rootfs))} Python distributions, the operator included")


if __name__ == "__main__":
    main()
