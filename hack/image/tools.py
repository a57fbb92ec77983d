"""Programs that the build needs from the machine."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

MEGABYTE = 1e6


class ImageError(Exception):
    """The image can't be built here; the message says what to do, for a person to read."""


def need(program: str, *, package: str) -> str:
    """Return the path of a program; on Debian, as root, install its package when it is missing.

    Raises:
        ImageError: it is missing and could not be installed.
    """
    if found := shutil.which(program):
        return found
    if os.geteuid() == 0 and shutil.which("apt-get"):
        for step in (["update"], ["install", "--yes", "--no-install-recommends", package]):
            run(["apt-get", "-qq", *step], environment={"DEBIAN_FRONTEND": "noninteractive"})
        if found := shutil.which(program):
            return found
    raise ImageError(f"`{program}` is missing: install the package {package}, then try again")


def copy_named(names: Iterable[str], source: Path, target: Path) -> None:
    """Copy these files and folders of `source` to the same places in `target`."""
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if (source / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source / name, target / name, ignore=ignored)
        else:
            shutil.copyfile(source / name, target / name)


def find_uv() -> str:
    """Return the path of uv: beside this Python (the project's .venv), else on PATH.

    Raises:
        ImageError: there is none.
    """
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if not found:
        raise ImageError(
            "`uv` is missing: python -m pip install --require-hashes -r requirements/bootstrap.txt"
        )
    return found


def run(command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> str:
    """Run a program to its end and return its standard output.

    Args:
        environment: what it gets besides this process's own.
    Raises:
        ImageError: it ended with an error; the message holds what it wrote.
    """
    done = subprocess.run(
        list(command),
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        wrote = (done.stderr or done.stdout).strip()
        raise ImageError(f"{' '.join(command[:4])} ... ended with {done.returncode}:\n{wrote}")
    return done.stdout
