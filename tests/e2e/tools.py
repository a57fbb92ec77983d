"""The image with boto3 and the two drivers: the layers of `make image`, and one on top."""

import importlib.util
from pathlib import Path

from image.interpreter import SITE
from node.archives import Base, write_image

ROOT = Path(__file__).resolve().parents[2]
NAME = "localhost/tools:1"
HERE = "opt/tools"
PACKAGES = ("boto3", "dateutil", "jmespath", "s3transfer", "six", "urllib3")
"""What boto3 imports, as the tests' own Python has it; botocore comes without most services."""
SERVICES = ("iam", "s3", "sts")
HACK = (
    "awsclient.py",
    "controlplane/daemon.py",
    "mockdriver",
    "refdriver",
    "stoppable.py",
    "warm",
)


def write_tools(target: Path, operator: Path) -> Path:
    """Write the archive; return its path.

    Args:
        target: the archive.
        operator: the archive of `make image`.
    """
    files = {f"{SITE}/{place.name}": place for place in map(_place, PACKAGES)}
    botocore = _place("botocore")
    for path in botocore.iterdir():
        if path.name != "data":
            files[f"{SITE}/botocore/{path.name}"] = path
    for path in (botocore / "data").iterdir():
        if path.is_file() or path.name in SERVICES:
            files[f"{SITE}/botocore/data/{path.name}"] = path
    files |= {f"{HERE}/{name}": ROOT / "hack" / name for name in HACK}
    python = target.parent / "python"
    python.unlink(missing_ok=True)
    python.symlink_to("python3")
    return write_image(
        target,
        NAME,
        {**files, "usr/bin/python": python},
        base=Base.read(operator),
        environment={"PYTHONPATH": f"/{HERE}", "PYTHONUNBUFFERED": "1"},
        entrypoint=["/usr/bin/python3"],
    )


def _place(package: str) -> Path:
    found = importlib.util.find_spec(package)
    assert found is not None
    assert found.origin is not None
    origin = Path(found.origin)
    return origin.parent if origin.name == "__init__.py" else origin
