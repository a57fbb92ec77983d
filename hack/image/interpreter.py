"""Put the pinned Python into a root filesystem: the program, its standard library, its libraries.

The packages are unpacked into a folder, and what the image needs is copied from there. Nothing of
them is run here, so they can be of another architecture than this machine.
"""

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from image.archive import Package, architecture
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
TRIPLES = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
"""Debian's name of an architecture -> the name in its binutils and in its folder of libraries."""
_NEEDED = re.compile(r"\(NEEDED\) +Shared library: \[(.+)\]$", re.MULTILINE)
_FOLDERS = re.compile(r"\((?:RPATH|RUNPATH)\) +Library (?:rpath|runpath): \[(.+)\]$", re.MULTILINE)


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
    def architecture(self) -> str:
        """Debian's name of the packages' architecture."""
        return self.packages[0].architecture

    @property
    def libraries(self) -> Path:
        """The folder of the C libraries."""
        return self.root / "usr" / "lib" / TRIPLES[self.architecture]

    def python(self, *arguments: str) -> list[str]:
        """A command that runs this Python, on a machine of its architecture.

        Raises:
            ImageError: this machine is of another one.
        """
        if self.architecture != architecture():
            raise ImageError(f"a Python for {self.architecture} can't be run here")
        (loader,) = self.libraries.glob("ld-linux-*.so.*")
        program = self.root / "usr" / "bin" / NAME
        return [str(loader), "--library-path", str(self.libraries), str(program), *arguments]


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
    # Where each program looks for it: usr/lib64 or usr/lib, by its architecture.
    (loader,) = (base.root / "usr").glob("lib*/ld-linux-*")
    (rootfs / loader.relative_to(base.root)).symlink_to(loader.readlink())
    return [package for package in base.packages if package.name in taken]


def _linked(base: Base, files: Iterable[Path]) -> set[Path]:
    """The shared libraries that the files are linked to, and those that these are linked to."""
    reader = need("readelf", package="binutils")
    found: set[Path] = set()
    unread = set(files)
    while unread:
        # One file more, because readelf names a file only when it is given several.
        listed = run([reader, "--wide", "--dynamic", *map(str, unread), str(min(unread))])
        unread = set(_needed(base, listed)) - found
        found |= unread
    return found


def _needed(base: Base, listed: str) -> Iterator[Path]:
    """Find each library that readelf lists: in the folders that its file names, else in `base`."""
    for part in listed.split("\nFile: ")[1:]:
        file = Path(part.partition("\n")[0])
        named = [place for folders in _FOLDERS.findall(part) for place in folders.split(":")]
        folders = [Path(place.replace("$ORIGIN", str(file.parent))).resolve() for place in named]
        for name in _NEEDED.findall(part):
            places = [folder / name for folder in [*folders, base.libraries]]
            path = next((place for place in places if place.exists()), None)
            if path is None:
                raise ImageError(f"{file} needs {name}, which no pinned package has")
            yield path


def strip(rootfs: Path, kind: str) -> None:
    """Remove symbols that only a debugger reads, from the modules of the dependencies."""
    own = [
        path
        for path in sorted((rootfs / SITE).rglob("*.so*"))
        # Libraries in *.libs/ were rewritten by auditwheel, which strip does not always survive.
        if not path.is_symlink() and not path.parent.name.endswith(".libs")
    ]
    if kind == architecture():
        binutils = need("strip", package="binutils")
    else:
        triple = TRIPLES[kind]
        binutils = need(f"{triple}-strip", package=f"binutils-{triple.replace('_', '-')}")
    run([binutils, "--strip-unneeded", "--enable-deterministic-archives", *map(str, own)])
