"""The bill of materials, CycloneDX 1.6, from what was really installed."""

from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from image.contract import LICENSE, Identity
from image.debian import DebianPackage
from image.interpreter import SITE

PLACE = Path("usr/share/sbom/cosi-operator.cdx.json")

Json = dict[str, Any]


def make_sbom(
    rootfs: Path, identity: Identity, python: str, packages: Iterable[DebianPackage]
) -> Json:
    """Return the document; equal for equal installations. `python` is the interpreter's version."""
    installed = python_distributions(rootfs)
    own = next(found for found in installed if found.name == "cosi-operator")
    subject = {**_python_package(own), "type": "container", "version": identity.version}
    components = [
        *(_python_package(found) for found in installed if found is not own),
        _interpreter(python),
        *(_debian_package(package) for package in packages),
    ]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"timestamp": identity.created, "component": subject},
        "components": components,
        "dependencies": [
            {
                "ref": subject["bom-ref"],
                "dependsOn": sorted(component["bom-ref"] for component in components),
            }
        ],
    }


def python_distributions(rootfs: Path) -> list[Distribution]:
    """The installed Python packages with their metadata, by name."""
    found = distributions(path=[str(rootfs / SITE)])
    return sorted(found, key=lambda each: _normal(each.name))


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _python_package(found: Distribution) -> Json:
    purl = f"pkg:pypi/{_normal(found.name)}@{found.version}"
    described: Json = {
        "type": "library",
        "bom-ref": purl,
        "name": found.name,
        "version": found.version,
        "purl": purl,
    }
    metadata = found.metadata
    if found.name == "cosi-operator":
        described["licenses"] = [{"expression": LICENSE}]
    elif expression := metadata.get("License-Expression"):
        described["licenses"] = [{"expression": expression}]
    elif names := _license_names(metadata.get_all("Classifier") or [], metadata.get("License")):
        described["licenses"] = [{"license": {"name": name}} for name in names]
    return described


def _license_names(classifiers: list[str], field: str | None) -> list[str]:
    named = [line.rpartition(" :: ")[2] for line in classifiers if line.startswith("License :: ")]
    if not named and field and "\n" not in field:
        named = [field]  # some put the whole text there
    return sorted(named)


def _interpreter(version: str) -> Json:
    purl = f"pkg:generic/python@{version}"
    return {
        "type": "platform",
        "bom-ref": purl,
        "name": "CPython",
        "version": version,
        "purl": purl,
        "cpe": f"cpe:2.3:a:python:python:{version}:*:*:*:*:*:*:*",
        "licenses": [{"expression": "PSF-2.0"}],
    }


def _debian_package(package: DebianPackage) -> Json:
    return {
        "type": "library",
        "bom-ref": package.purl,
        "name": package.name,
        "version": package.version,
        "purl": package.purl,
    }
