"""What the image promises: user, entry points, environment, labels. The Containerfile repeats it.

tests/image compares both, so that an image is the same whichever way it was built.
"""

import os
import subprocess
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

UID = 65532
USER = f"{UID}:{UID}"
ENTRYPOINT = ["/sidecar"]
WORKING_DIRECTORY = "/"
ENTRIES = {
    "sidecar": ("cosi_operator.app", "sidecar"),
    "controller": ("cosi_operator.app", "controller"),
    "cosi": ("cosi_operator.cli", "main"),
}
"""File in the image's root -> module and function."""
FILE_TEST = "usr/bin/test"
"""Where a probe of a vendor's chart finds `test`."""
ENVIRONMENT = {
    "PATH": "/usr/bin:/",
    "LANG": "C.UTF-8",
    "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt",
    "PYTHONDONTWRITEBYTECODE": "1",
}
COMMIT_VARIABLE = "COSI_OPERATOR_COMMIT"
"""Which commit was built: in the start line of each process and in cosi_build_info."""
SOCKET_FOLDER = "var/lib/cosi"
FILE_TIME_S = 0
"""Of every file, whatever the commit: then a layer whose files did not change stays the same."""
LICENSE = "Apache-2.0"
TITLE = "cosi-operator"

INPUTS = ("pyproject.toml", "LICENSE", "requirements", "operator", "hack/image")
"""All that the image is made of; the Containerfile copies these and nothing else."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Which build this is.

    Args:
        epoch_s: seconds since 1970 that stand for the time of the build (SOURCE_DATE_EPOCH).
        source: where the source is published; "" leaves the label out.
    """

    version: str
    description: str
    revision: str
    epoch_s: int
    source: str = ""

    @property
    def created(self) -> str:
        """`epoch_s` as RFC 3339."""
        return datetime.fromtimestamp(self.epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    @property
    def name(self) -> str:
        """What the image is called unless told otherwise.

        It has a host, because a kubelet puts its default registry before a name without one, and
        then does not find an image that its node has loaded.
        """
        return f"localhost/{TITLE}:{self.version}"

    def environment(self) -> dict[str, str]:
        """The environment of a process in the image; no file changes with the commit."""
        return {**ENVIRONMENT, COMMIT_VARIABLE: self.revision}

    def labels(self) -> dict[str, str]:
        """The OCI labels, without those that have no value."""
        named = {
            "title": TITLE,
            "description": self.description,
            "version": self.version,
            "revision": self.revision,
            "created": self.created,
            "licenses": LICENSE,
            "source": self.source,
        }
        return {f"org.opencontainers.image.{key}": value for key, value in named.items() if value}


def identify(source: Path = ROOT) -> Identity:
    """Read version and description from pyproject.toml, the rest from environment, else git.

    SOURCE_DATE_EPOCH, IMAGE_REVISION and IMAGE_SOURCE go first. Without them the time and the
    revision are those of the last commit (`-dirty` when a file of INPUTS differs from it), and
    without git they are 0 and `unknown`.
    """
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    epoch = os.environ.get("SOURCE_DATE_EPOCH") or _git(source, "log", "-1", "--format=%ct")
    return Identity(
        version=project["version"],
        description=project["description"],
        revision=os.environ.get("IMAGE_REVISION") or _revision(source),
        epoch_s=int(epoch or 0),
        source=os.environ.get("IMAGE_SOURCE", ""),
    )


def _revision(source: Path) -> str:
    head = _git(source, "rev-parse", "HEAD")
    if not head:
        return "unknown"
    return head + ("-dirty" if _git(source, "status", "--porcelain", "--", *INPUTS) else "")


def _git(source: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(source), *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
