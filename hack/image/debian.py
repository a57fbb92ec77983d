"""Which Debian packages Python and the C libraries are of, in the files that scanners read."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from image.archive import SUITE, Package
from image.interpreter import Base
from image.tools import need, run

DOCUMENTS = Path("usr/share/doc")
STATUS = Path("var/lib/dpkg/status.d")


@dataclass(frozen=True, slots=True)
class DebianPackage:
    """One installed package; `distribution` as in debian-sid."""

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


def record_packages(rootfs: Path, base: Base, packages: Iterable[Package]) -> list[DebianPackage]:
    """Write the status and the copyright of each package that something was copied from.

    Returns:
        The packages, by name.
    """
    shutil.copyfile(base.root / "usr/lib/os-release", rootfs / "etc" / "os-release")
    reader = need("dpkg-deb", package="dpkg")
    found = []
    (rootfs / STATUS).mkdir(parents=True)
    for package in sorted(packages, key=lambda package: package.name):
        name = package.name
        control = run([reader, "--field", str(package.file)])
        (rootfs / STATUS / name).write_text(f"{control.rstrip()}\nStatus: install ok installed\n")
        found.append(DebianPackage(name, package.version, package.architecture, f"debian-{SUITE}"))
        text = (base.root / DOCUMENTS / name / "copyright").resolve()
        if text.exists():
            target = rootfs / DOCUMENTS / name / "copyright"
            target.parent.mkdir(parents=True)
            shutil.copyfile(text, target)
    return found
