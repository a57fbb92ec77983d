"""Copy the running Python into a root filesystem: the program, its standard library, its libraries.

CPython finds its library relative to its program (`../lib/python3.X/os.py`), so it may be moved.
"""

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from image.tools import ImageError, need, run

NAME = f"python{sys.version_info.major}.{sys.version_info.minor}"
OLDEST = (3, 12)

# Not for a service: tests, toolkits, installers, editors, and what needs ncurses, readline (GPL)
# or a database library.
LEFT_OUT = (
    "__pycache__", "_pyrepl", "config-*", "curses", "dbm", "dist-packages", "ensurepip", "idlelib",
    "lib2to3", "pydoc_data", "site-packages", "sitecustomize.py", "sqlite3", "test", "tests",
    "tkinter", "turtle.py", "turtledemo", "venv",
    "_bootsubprocess*", "_crypt*", "_ctypes_test*", "_curses*", "_dbm*", "_gdbm*", "_sqlite3*",
    "_test*", "_tkinter*", "_xxtestfuzz*", "nis.*", "ossaudiodev*", "readline*", "xxlimited*",
    "xxsubtype*",
)  # fmt: skip
LOADED_BY_NAME = ("libgcc_s.so.1",)
"""Opened by glibc while running (when a thread ends), so ldd does not show it."""
_LISTED = re.compile(r"^\s+(?:\S+ => )?(?P<path>/\S+) \(0x|^\s+(?P<lost>\S+) => not found")


def site_folder() -> Path:
    """Where this Python looks for packages, from the filesystem's root and without the slash."""
    patched = "deb_system" in sysconfig.get_scheme_names()  # Debian's own builds rename it
    return Path("usr/lib", NAME, "dist-packages" if patched else "site-packages")


def install_interpreter(rootfs: Path) -> None:
    """Copy program and standard library to /usr.

    Raises:
        ImageError: this Python is too old for the operator.
    """
    if sys.version_info < OLDEST:
        raise ImageError(f"Python 3.12 or newer is needed; this is {sys.version.split()[0]}")
    binaries = rootfs / "usr" / "bin"
    binaries.mkdir(parents=True)
    shutil.copyfile(program(), binaries / NAME)
    (binaries / NAME).chmod(0o755)
    (binaries / "python3").symlink_to(NAME)
    library = rootfs / "usr" / "lib" / NAME
    shutil.copytree(sysconfig.get_path("stdlib"), library, ignore=shutil.ignore_patterns(*LEFT_OUT))


def program() -> Path:
    """The file of the interpreter itself, also when this runs in a virtual environment."""
    base: str = getattr(sys, "_base_executable", None) or sys.executable
    return Path(base).resolve()


def install_libraries(rootfs: Path) -> list[Path]:
    """Copy every shared library that the program and all extension modules are linked to.

    Returns:
        Where the copied ones are on this machine, Python's own aside.
    Raises:
        ImageError: one is not on this machine.
    """
    (rootfs / "usr" / "lib64").mkdir()
    for name in ("lib", "lib64"):
        (rootfs / name).symlink_to(f"usr/{name}")
    modules = sorted(rootfs.rglob("*.so"))
    found = _linked([program(), *modules])
    folders = {path.parent for path in found}
    for name in LOADED_BY_NAME:
        places = [folder / name for folder in sorted(folders) if (folder / name).exists()]
        found.update(places[:1])
    taken: list[Path] = []
    for path in sorted(found):
        if path.is_relative_to(rootfs):
            continue  # shipped by a package, found beside the module
        if path.is_relative_to(sys.base_prefix) and sys.base_prefix != "/usr":
            target = rootfs / "usr" / "lib" / path.name  # where the loader looks by default
        else:
            target = rootfs / "usr" / path.relative_to("/usr" if path.parts[1] == "usr" else "/")
            taken.append(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        target.chmod(0o755)
    return taken


def _linked(files: Iterable[Path]) -> set[Path]:
    ldd = need("ldd", package="libc-bin")
    listed = subprocess.run(
        [ldd, *map(str, files)], capture_output=True, text=True, check=False
    ).stdout  # the code is not 0 when one of many files is linked statically
    found: set[Path] = set()
    for line in listed.splitlines():
        if match := _LISTED.match(line):
            if match["lost"]:
                raise ImageError(f"the library {match['lost']} is not on this machine")
            found.add(Path(match["path"]))
    if not found:
        raise ImageError(f"{ldd} shows no library of {program()}")
    return found


def strip(rootfs: Path) -> None:
    """Remove symbols that only a debugger reads. Two thirds of the extension modules are that."""
    own = [
        path
        for path in sorted(rootfs.rglob("*.so*"))
        if not path.is_symlink()
        # Libraries in *.libs/ were rewritten by auditwheel, which strip does not always survive.
        and not path.parent.name.endswith(".libs")
        and (path.is_relative_to(rootfs / "usr/lib" / NAME) or path.name.startswith("libpython"))
    ]
    binutils = need("strip", package="binutils")
    run([binutils, "--strip-unneeded", "--enable-deterministic-archives", *map(str, own)])
