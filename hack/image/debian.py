"""Which Debian packages the copied libraries are of, said in the way that scanners look for."""

import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

DOCUMENTS = Path("usr/share/doc")
STATUS = Path("var/lib/dpkg/status.d")


@dataclass(frozen=True, slots=True)
class DebianPackage:
    """One installed package; `distribution` as in debian-12."""

    name: str
    version: str
    architecture: str
    distribution: str

    @property
    def purl(self) -> str:
        """The package URL, as an SBOM names it."""
        version = self.version.replace(":", "%3A").replace("+", "%2B")
        return (
            f"pkg:deb/debian/{self.name}@{version}"
            f"?arch={self.architecture}&distro={self.distribution}"
        )


def record_packages(rootfs: Path, libraries: Iterable[Path]) -> list[DebianPackage]:
    """Copy the status and the copyright of each package that a library is of.

    Returns:
        The packages, by name; none on a machine without dpkg.
    """
    release = Path("/usr/lib/os-release")
    if not shutil.which("dpkg-query") or not release.exists():
        return []
    shutil.copyfile(release, rootfs / "etc" / "os-release")
    number = re.search(r'^VERSION_ID="?([\w.]+)', release.read_text(), re.MULTILINE)
    distribution = f"debian-{number[1]}" if number else "debian"
    packages = []
    (rootfs / STATUS).mkdir(parents=True)
    for owner in sorted(_owners(libraries)):
        status = _query("--status", owner)
        name, version, architecture = (
            _field(status, field) for field in ("Package", "Version", "Architecture")
        )
        packages.append(DebianPackage(name, version, architecture, distribution))
        (rootfs / STATUS / name).write_text(status)
        copyright_file = Path("/") / DOCUMENTS / name / "copyright"
        if copyright_file.exists():
            target = rootfs / DOCUMENTS / name / "copyright"
            target.parent.mkdir(parents=True)
            shutil.copyfile(copyright_file, target)
    return packages


def _owners(libraries: Iterable[Path]) -> set[str]:
    # With /lib merged into /usr/lib, dpkg knows a file by one of the two names, and its target.
    names: set[str] = set()
    for library in libraries:
        for path in (str(library), str(library.resolve())):
            bare = path.removeprefix("/usr")
            names |= {bare, f"/usr{bare}"}
    found = _query("--search", *sorted(names))
    return {line.partition(": ")[0] for line in found.splitlines() if ": /" in line}


def _query(*arguments: str) -> str:
    # The code is not 0 as soon as one of many names is unknown.
    return subprocess.run(
        ["dpkg-query", *arguments], capture_output=True, text=True, check=False
    ).stdout


def _field(status: str, name: str) -> str:
    found = re.search(rf"^{name}: (.+)$", status, re.MULTILINE)
    return found[1] if found else "unknown"
