"""Assemble the image's files in a folder: `python -m image.rootfs FOLDER`.

`make image` and the Containerfile both run this, so both images hold the same files. The standard
library, uv and Debian's apt and dpkg are needed, but no rights.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from image.archive import architecture, fetch
from image.contract import ENTRIES, FILE_TIME_S, ROOT, SOCKET_FOLDER, UID, Identity, identify
from image.debian import record_packages
from image.interpreter import SITE, Base, install_interpreter, install_libraries, strip, unpack
from image.packages import compile_all, install_dependencies, install_operator
from image.sbom import PLACE, make_sbom
from image.tools import ImageError

OWNED = {SOCKET_FOLDER: UID}
"""Folder -> user and group; all else is root's."""
STICKY = "tmp"
BINARIES = "usr/bin/"

ACCOUNTS = {
    "passwd": f"root:x:0:0:root:/:/none\nnonroot:x:{UID}:{UID}:nonroot:/:/none\n",
    "group": f"root:x:0:\nnonroot:x:{UID}:\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


def assemble(rootfs: Path, source: Path, identity: Identity, kind: str = "") -> None:
    """Fill the folder `rootfs`, which must not exist.

    Args:
        source: a folder with the repository's files that contract.INPUTS names.
        kind: Debian's name of the image's architecture; "" is this machine's.
    Raises:
        ImageError: something is missing on this machine; the message says what.
    """
    rootfs = rootfs.resolve()
    rootfs.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        kind = kind or architecture()
        base = unpack(fetch(kind), Path(folder, "base").resolve())
        compiler = _compiler(base, Path(folder, "compiler").resolve())
        install_interpreter(rootfs, base)
        install_dependencies(rootfs, source, kind)
        install_operator(rootfs, source)
        taken = install_libraries(rootfs, base)
        strip(rootfs, kind)
        _make_folders(rootfs)
        packages = record_packages(rootfs, base, taken)
        sbom = rootfs / PLACE
        sbom.parent.mkdir(parents=True)
        document = make_sbom(rootfs, identity, base.version, packages)
        sbom.write_text(json.dumps(document, indent=1) + "\n")
        compile_all(rootfs, compiler)
    _normalize(rootfs)


def _compiler(base: Base, folder: Path) -> Base:
    """A Python that writes the bytecode of `base`: the same version, of this machine's kind.

    Raises:
        ImageError: interpreter.json pins another version for this machine.
    """
    if base.architecture == architecture():
        return base
    own = unpack(fetch(), folder)
    if own.version != base.version:
        raise ImageError(
            f"Python {own.version} of this machine can't compile for {base.version} of "
            f"{base.architecture}: run hack/update-interpreter"
        )
    return own


def _make_folders(rootfs: Path) -> None:
    for name in ("etc/ssl/certs", "usr/lib/ssl", "run", "tmp", "dev", "proc", "sys", SOCKET_FOLDER):
        (rootfs / name).mkdir(parents=True)
    (rootfs / "var" / "run").symlink_to("../run")
    for name, text in ACCOUNTS.items():
        (rootfs / "etc" / name).write_text(text)
    # The machine's own bundle may hold its owner's authorities; certifi's is Mozilla's, locked.
    bundle = Path("/") / SITE / "certifi" / "cacert.pem"
    (rootfs / "etc/ssl/certs/ca-certificates.crt").symlink_to(bundle)
    (rootfs / "usr/lib/ssl/cert.pem").symlink_to("/etc/ssl/certs/ca-certificates.crt")


def _normalize(rootfs: Path) -> None:
    """Set modes, owners and times that do not depend on who builds, where and when."""
    for path in [*sorted(rootfs.rglob("*"), reverse=True), rootfs]:
        name = str(path.relative_to(rootfs))
        if not path.is_symlink():
            runs = path.is_dir() or name in ENTRIES or ".so" in path.name or BINARIES in name
            path.chmod(0o1777 if name == STICKY else 0o755 if runs else 0o644)
        if os.geteuid() == 0:  # else the archive's writer alone sets it
            owner = OWNED.get(name, 0)
            os.chown(path, owner, owner, follow_symlinks=False)
        os.utime(path, (FILE_TIME_S, FILE_TIME_S), follow_symlinks=False)


def main() -> None:
    """Assemble anew in the folder named on the command line, from the repository around this."""
    target = Path(sys.argv[1])
    shutil.rmtree(target, ignore_errors=True)
    try:
        assemble(target, ROOT, identify())
    except ImageError as error:
        sys.exit(f"image: {error}")


if __name__ == "__main__":
    main()
