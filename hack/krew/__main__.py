"""`make krew`: the archive and the manifest of the krew plugin, into build/krew.

Equal sources give an equal archive, so the sum in the manifest can be checked by anyone.
"""

import argparse
import hashlib
import tempfile
import tomllib
from pathlib import Path

from release.packages import build_python, write_tar

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "build" / "krew"
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


def build(output: Path, uri: str, wheel: Path | None = None) -> tuple[Path, Path]:
    """Write the archive and the manifest that names it; return both paths.

    Args:
        wheel: what is installed; by default it is built here.
    """
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    output.mkdir(parents=True, exist_ok=True)
    archive = output / f"kubectl-cosi-v{version}.tar.gz"
    with tempfile.TemporaryDirectory() as folder:
        wheel = wheel or build_python(ROOT, Path(folder), EPOCH_S)[0]
        contents = {
            "kubectl-cosi": (ROOT / "hack/krew/kubectl-cosi").read_bytes(),
            "requirements.txt": (ROOT / "requirements/cli.txt").read_bytes(),
            "LICENSE": (ROOT / "LICENSE").read_bytes(),
            "version": f"{version}\n".encode(),
            wheel.name: wheel.read_bytes(),
        }
    modes = {name: 0o755 if name == "kubectl-cosi" else 0o644 for name in contents}
    files = {name: (content, modes[name]) for name, content in contents.items()}
    write_tar(archive, files, EPOCH_S)
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


if __name__ == "__main__":
    main()
