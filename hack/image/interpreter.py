"""Put the pinned Python into a root filesystem: the program, its standard library, its libraries.

The packages are unpacked into a folder, and what the image needs is copied from there. Their Python
runs on any machine of the same architecture, by the dynamic linker that came with it.
"""

import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from image.archive import Package
from image.tools import ImageError, need, run
from image.vulnerable import INTERPRETER, release

NAME = INTERPRETER.removesuffix("-minimal")
SITE = Path("usr/lib", NAME, "dist-packages")
"""Where Debian's Python looks for packages, from the filesystem's root."""
CACHE_TAG = "c" + NAME.replace("python", "python-").replace(".", "")

# Not for a service: tests, toolkits, installers, editors, and what needs ncurses, readline (GPL)
# or a database library.
LEFT_OUT = (
    "EXTERNALLY-MANAGED", "LICENSE.txt",
    "__pycache__", "_pyrepl", "config-*", "curses", "dbm", "dist-packages", "ensurepip", "idlelib",
    "lib2to3", "pydoc_data", "site-packages", "sitecustomize.py", "sqlite3", "test", "tests",
    "tkinter", "turtle.py", "turtledemo", "venv",
    "_bootsubprocess*", "_crypt*", "_ctypes_test*", "_curses*", "_dbm*", "_gdbm*", "_sqlite3*",
    "_test*", "_tkinter*", "_xxtestfuzz*", "nis.*", "ossaudiodev*", "readline*", "xxlimited*",
    "xxsubtype*",
)  # fmt: skip
LOADED_BY_NAME = ("libgcc_s.so.1",)
"""Opened by glibc while running (when a thread ends), so no file names it."""
_LISTED = re.compile(r"^\s+(?:\S+ => )?(?P<path>/\S+) \(0x|^\s+(?P<lost>\S+) => not found")


@dataclass(frozen=True, slots=True)
class Base:
    """The unpacked packages, and which package each file is of."""

    root: Path
    packages: tuple[Package, ...]
    owners: Mapping[str, Package]

    @property
    def version(self) -> str:
        """Of Python, as in 3.13.18."""
        found = next(package for package in self.packages if package.name == INTERPRETER)
        return ".".join(map(str, release(found.version)))

    @property
    def libraries(self) -> Path:
        """The folder of the C libraries."""
        (found,) = (self.root / "usr" / "lib").glob("*-linux-gnu*")
        return found

    def linker(self, *arguments: str) -> list[str]:
        """A command that runs the dynamic linker of the packages."""
        (loader,) = self.libraries.glob("ld-linux-*.so.*")
        return [str(loader), "--library-path", str(self.libraries), *arguments]


def unpack(packages: Sequence[Package], root: Path) -> Base:
    """Unpack the packages over each other into an empty folder."""
    unpacker = need("dpkg-deb", package="dpkg")
    owners: dict[str, Package] = {}
    for package in packages:
        for line in run([unpacker, "--vextract", str(package.file), str(root)]).splitlines():
            owners[line.removeprefix("./")] = package
    return Base(root, tuple(packages), owners)


def install_interpreter(rootfs: Path, base: Base) -> None:
    """Copy program and standard library to /usr."""
    binaries = rootfs / "usr" / "bin"
    binaries.mkdir(parents=True)
    shutil.copyfile(base.root / "usr" / "bin" / NAME, binaries / NAME)
    (binaries / NAME).chmod(0o755)
    (binaries / "python3").symlink_to(NAME)
    shutil.copytree(
        base.root / "usr" / "lib" / NAME,
        rootfs / "usr" / "lib" / NAME,
        ignore=shutil.ignore_patterns(*LEFT_OUT),
    )


def install_libraries(rootfs: Path, base: Base) -> list[Package]:
    """Copy every shared library that the program and all extension modules are linked to.

    Returns:
        The packages that something was copied from, Python's own included.
    Raises:
        ImageError: a library is in none of the packages.
    """
    (rootfs / "usr" / "lib64").mkdir()
    for folder in ("lib", "lib64"):
        (rootfs / folder).symlink_to(f"usr/{folder}")
    modules = sorted(rootfs.rglob("*.so"))
    found = _linked(base, [rootfs / "usr" / "bin" / NAME, *modules])
    found |= {base.libraries / name for name in LOADED_BY_NAME}
    taken = {package.name for package in base.packages if package.name.startswith(f"lib{NAME}")}
    taken.add(INTERPRETER)
    for path in sorted(found):
        if path.is_relative_to(rootfs):
            continue  # shipped by a package, found beside the module
        if not path.is_relative_to(base.root):
            raise ImageError(f"{path} is in none of the pinned packages")
        name = path.relative_to(base.root)
        target = rootfs / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        target.chmod(0o755)
        real = path.resolve().relative_to(base.root.resolve())
        taken.add(base.owners[str(real)].name)
    (loader,) = (base.root / "usr" / "lib64").glob("ld-linux-*")  # where each program looks for it
    (rootfs / loader.relative_to(base.root)).symlink_to(loader.readlink())
    return [package for package in base.packages if package.name in taken]


def _linked(base: Base, files: Iterable[Path]) -> set[Path]:
    found: set[Path] = set()
    for file in files:
        listed = subprocess.run(
            base.linker("--list", str(file)), capture_output=True, text=True, check=False
        ).stdout  # nothing for a file that is linked to nothing
        for match in filter(None, map(_LISTED.match, listed.splitlines())):
            if match["lost"]:
                raise ImageError(f"{file} needs {match['lost']}, which no pinned package has")
            found.add(Path(match["path"]))
    return found


def strip(rootfs: Path) -> None:
    """Remove symbols that only a debugger reads, from the modules of the dependencies."""
    own = [
        path
        for path in sorted((rootfs / SITE).rglob("*.so*"))
        # Libraries in *.libs/ were rewritten by auditwheel, which strip does not always survive.
        if not path.is_symlink() and not path.parent.name.endswith(".libs")
    ]
    binutils = need("strip", package="binutils")
    run([binutils, "--strip-unneeded", "--enable-deterministic-archives", *map(str, own)])
