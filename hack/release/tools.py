"""What all steps of a release share."""

import hashlib
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DIST = ROOT / "dist"


class ReleaseError(Exception):
    """The release can't go on; says why and what to do."""


def run(
    *command: str | Path, directory: Path = ROOT, environment: Mapping[str, str] | None = None
) -> str:
    """Run a program to its end; return its standard output.

    Raises:
        ReleaseError: the program failed; the message holds what it wrote.
    """
    done = subprocess.run(
        [str(word) for word in command],
        cwd=directory,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        shown = " ".join(Path(str(word)).name for word in command[:3])
        raise ReleaseError(
            f"{shown} ended with {done.returncode}:\n{(done.stderr or done.stdout).strip()}"
        )
    return done.stdout


def sha256(file: Path) -> str:
    """The digest of a file, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def files(folder: Path, *, but: Sequence[str] = ()) -> list[Path]:
    """The files of a folder by name, without those that `but` names."""
    return sorted(path for path in folder.iterdir() if path.name not in but)
