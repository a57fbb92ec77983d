"""How the release was made: an in-toto Statement v1 with SLSA provenance v1.

Equal commits give an equal statement, so it has no times and no name of a machine.
Source: in-toto attestation framework, Statement v1; SLSA 1.0, provenance.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from image.archive import Package
from release.tools import sha256

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
LOCKS = ("requirements/run.txt", "requirements/cli.txt", "requirements/build.txt")

type Json = dict[str, Any]


def statement(
    subjects: Json, source: str, commit: str, parameters: Json, materials: Iterable[Json]
) -> Json:
    """The whole statement.

    Args:
        subjects: name of a file or image -> its SHA-256.
        source: the repository's address.
        parameters: what the build was told.
        materials: what it was made of, besides the commit.
    """
    return {
        "_type": STATEMENT,
        "subject": [
            {"name": name, "digest": {"sha256": digest}}
            for name, digest in sorted(subjects.items())
        ],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": f"{source}/blob/main/docs/release.md",
                "externalParameters": {"repository": source, **parameters},
                "internalParameters": {},
                "resolvedDependencies": [
                    {"uri": f"git+{source}", "digest": {"gitCommit": commit}},
                    *materials,
                ],
            },
            "runDetails": {"builder": {"id": f"{source}/blob/main/hack/release"}},
        },
    }


def debian_materials(packages: Iterable[Package]) -> list[Json]:
    """The Debian packages that the image's Python and C libraries are from."""
    return [
        {
            "uri": f"pkg:deb/debian/{package.name}@{package.version}?arch={package.architecture}",
            "digest": {"sha256": sha256(package.file)},
        }
        for package in packages
    ]


def lock_materials(source: Path) -> list[Json]:
    """The lock files: each names its Python packages by digest."""
    return [{"name": name, "digest": {"sha256": sha256(source / name)}} for name in LOCKS]


def write(target: Path, value: Json) -> None:
    """Write JSON as a person reads it."""
    target.write_text(json.dumps(value, indent=1) + "\n", "utf-8")
