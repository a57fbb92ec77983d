"""`make krew`: the archive and the manifest of the krew plugin, into build/krew.

Equal sources give an equal archive, so the sum in the manifest can be checked by anyone.
"""

import argparse
import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "build" / "krew"
# What the wheel is built from; anything else in the folder, such as old builds, must not get in.
SOURCES = ("operator/cosi_operator", "pyproject.toml", "README.md", "LICENSE")
EPOCH_S = 1_600_000_000  # the time of every file in the archive; zip knows no time before 1980


def main() -> None:
    parser = argparse.ArgumentParser(prog="make krew", description=__doc__)
    parser.add_argument("--uri", required=True, help="where the archive will be: https://...tar.gz")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the folder (build/krew)")
    given = parser.parse_args()
    if not given.uri.startswith("https://"):
        parser.error("--uri: krew takes https only")
    archive, manifest = build(given.output, given.uri)
    print(f"{archive}\n{manifest}")


def build(output: Path, uri: str) -> tuple[Path, Path]:
    """Write the archive and the manifest that names it; return both paths."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    output.mkdir(parents=True, exist_ok=True)
    archive = output / f"kubectl-cosi-v{version}.tar.gz"
    with tempfile.TemporaryDirectory() as folder:
        wheel = _wheel(Path(folder))
        archive.write_bytes(
            _archive(
                {
                    "kubectl-cosi": (ROOT / "hack/krew/kubectl-cosi").read_bytes(),
                    "requirements.txt": (ROOT / "requirements/cli.txt").read_bytes(),
                    "LICENSE": (ROOT / "LICENSE").read_bytes(),
                    "version": f"{version}\n".encode(),
                    wheel.name: wheel.read_bytes(),
                }
            )
        )
    manifest = output / "cosi.yaml"
    text = (ROOT / "hack/krew/manifest.yaml").read_text()
    for word, value in {
        "vVERSION": f"v{version}",
        "uri: URI": f"uri: {uri}",
        "sha256: SHA256": f"sha256: {hashlib.sha256(archive.read_bytes()).hexdigest()}",
    }.items():
        text = text.replace(word, value)
    manifest.write_text("".join(f"{line}\n" for line in text.splitlines()[1:]))
    return archive, manifest


def _wheel(folder: Path) -> Path:
    for name in SOURCES:
        target = folder / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(ROOT / name, target)
    uv = Path(sys.executable).with_name("uv")
    subprocess.run(
        [uv, "build", "--wheel", "--quiet", "--out-dir", folder, folder / "source"],
        env={**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH_S)},
        check=True,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def _archive(files: dict[str, bytes]) -> bytes:
    """A tar.gz in which nothing depends on the machine or the time."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = len(content), EPOCH_S
            entry.mode = 0o755 if name == "kubectl-cosi" else 0o644
            tar.addfile(entry, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0)


if __name__ == "__main__":
    main()
