"""The files of a release that are archives: charts, wheel and sdist. Equal sources, equal bytes."""

import gzip
import io
import re
import shutil
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

from charts import readme, values
from controlplane.build import find
from image.tools import copy_named
from release.tools import ReleaseError, run

CHARTS = ("cosi-operator", "cosi-sidecar-lib")
SOURCES = ("operator/cosi_operator", "pyproject.toml", "README.md", "LICENSE")
"""What wheel and sdist are built from; anything else in the folder must not get in."""
_REGISTRY = re.compile(r'^(image:\n(?:  .*\n)*?  registry: )""$', re.MULTILINE)


def write_tar(target: Path, files: Mapping[str, tuple[bytes, int]], epoch_s: int) -> None:
    """Write a .tar.gz in which nothing depends on the machine or the time.

    Args:
        files: name -> content and mode.
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, (content, mode) in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.mode = len(content), epoch_s, mode
            archive.addfile(member, io.BytesIO(content))
    target.write_bytes(gzip.compress(packed.getvalue(), mtime=0))


def normalize(file: Path, epoch_s: int) -> None:
    """Write a .tar.gz again, without the names, times and order of the machine that made it."""
    found: dict[str, tuple[bytes, int]] = {}
    with tarfile.open(file) as archive:
        for member in archive:
            if opened := archive.extractfile(member):
                found[member.name] = (opened.read(), 0o755 if member.mode & 0o100 else 0o644)
    write_tar(file, found, epoch_s)


def package_chart(source: Path, registry: str, target: Path, epoch_s: int) -> Path:
    """Package a chart whose image is in `registry`, so that it installs as it is.

    Args:
        source: the chart's folder; its values.yaml and README.md are changed.
    """
    file = source / "values.yaml"
    text, changed = _REGISTRY.subn(rf'\g<1>"{registry}"', file.read_text("utf-8"))
    if changed != 1:
        raise ReleaseError(f"{source.name}: values.yaml has no empty image.registry")
    file.write_text(text, "utf-8")
    page = source / "README.md"
    page.write_text(readme(page.read_text("utf-8"), values(text)), "utf-8")
    done = run(find("helm"), "package", source, "--destination", target)
    package = Path(done.strip().rpartition(": ")[2])
    normalize(package, epoch_s)
    return package


def build_python(source: Path, target: Path, epoch_s: int) -> tuple[Path, Path]:
    """Build wheel and sdist by the locked build backend; return their paths.

    Into a separate folder first, because uv puts a .gitignore beside them.
    """
    made = target / "made"
    clean = made / "source"
    copy_named(SOURCES, source, clean)
    run(
        Path(sys.executable).with_name("uv"), "build", "--quiet", "--sdist", "--wheel",
        "--require-hashes", f"--build-constraints={source / 'requirements' / 'build.txt'}",
        f"--out-dir={made}", clean,
        environment={"SOURCE_DATE_EPOCH": str(epoch_s)},
    )  # fmt: skip
    (wheel,), (sdist,) = made.glob("*.whl"), made.glob("*.tar.gz")
    normalize(sdist, epoch_s)
    kept = wheel.rename(target / wheel.name), sdist.rename(target / sdist.name)
    shutil.rmtree(made)
    return kept
