"""What publisher.toml says, written where catalogues and package indexes read it.

Usage: metadata.py update | verify
"""

import difflib
import json
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
PUBLISHER = ROOT / "publisher.toml"
BEGIN = "# made by hack/update-metadata from publisher.toml: do not edit\n"
END = "# end of the made part\n"
IMAGE = "cosi-operator"
CHARTS = ("cosi-operator", "cosi-sidecar-lib")


class MetadataError(Exception):
    """publisher.toml or a file that is made from it is wrong; says how."""


@dataclass(frozen=True, slots=True)
class Publisher:
    """The fields of publisher.toml; `maintainers` have a name and an email."""

    source: str
    home: str
    icon: str
    registry: str
    artifacthub_id: str
    maintainers: tuple[Mapping[str, str], ...]

    @classmethod
    def read(cls, file: Path = PUBLISHER) -> "Publisher":
        """Read the file.

        Raises:
            MetadataError: a field is missing, unknown, or no address.
        """
        found = tomllib.loads(file.read_text("utf-8"))
        if unlike := found.keys() ^ set(cls.__slots__):
            raise MetadataError(f"{file.name}: missing or unknown: {', '.join(sorted(unlike))}")
        for name in ("source", "home", "icon"):
            if not found[name].startswith("https://") or found[name].endswith("/"):
                raise MetadataError(
                    f"{file.name}: {name} has to begin with https://, without a / at the end"
                )
        return cls(**{**found, "maintainers": tuple(found["maintainers"])})

    @property
    def charts(self) -> str:
        """The address of the charts, as helm takes it."""
        return f"oci://{self.registry}/charts"

    @property
    def image(self) -> str:
        """The image without its tag."""
        return f"{self.registry}/{IMAGE}"


def project() -> Mapping[str, Any]:
    """The table [project] of pyproject.toml."""
    found: Mapping[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))[
        "project"
    ]
    return found


def with_part(text: str, part: str) -> str:
    """The text with its made part replaced.

    Raises:
        MetadataError: it has no such part, or several.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest:
        raise MetadataError(f"needs one line {BEGIN.strip()!r} and then one {END.strip()!r}")
    return f"{before}{BEGIN}{part}{END}{after}"


def chart_part(publisher: Publisher, chart: str) -> str:
    """The end of a Chart.yaml: addresses, people, and what Artifact Hub shows."""
    annotations = {
        "artifacthub.io/category": "storage",
        "artifacthub.io/license": project()["license"],
        "artifacthub.io/links": _block([{"name": "Documentation", "url": publisher.home}]),
        "artifacthub.io/images": _block(
            [{"name": IMAGE, "image": f"{publisher.image}:{project()['version']}"}]
        ),
    }
    if chart == "cosi-operator":
        annotations["artifacthub.io/crds"] = _block([_crd(file) for file in _crd_files()])
    return _block(
        {
            "home": publisher.home,
            "icon": publisher.icon,
            "sources": [publisher.source],
            "maintainers": [dict(person) for person in publisher.maintainers],
            "annotations": annotations,
        }
    )


def _crd_files() -> list[Path]:
    return sorted((ROOT / "deploy" / "crds").glob("*.yaml"))


def _crd(file: Path) -> dict[str, str]:
    spec = yaml.safe_load(file.read_text("utf-8"))["spec"]
    version = spec["versions"][0]
    described = version["schema"]["openAPIV3Schema"]["description"]
    return {
        "kind": spec["names"]["kind"],
        "version": version["name"],
        "name": f"{spec['names']['plural']}.{spec['group']}",
        "displayName": spec["names"]["kind"],
        "description": " ".join(described.split()),
    }


class _Dumper(yaml.SafeDumper):
    """Writes a text of several lines as a block, as people do in annotations."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def _block(value: Any) -> str:
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=10_000))


def project_part(publisher: Publisher) -> str:
    """The addresses in pyproject.toml, as the Python package index shows them."""
    people = ", ".join(
        f"{{ name = {json.dumps(person['name'])}, email = {json.dumps(person['email'])} }}"
        for person in publisher.maintainers
    )
    urls = {
        "Homepage": publisher.home,
        "Documentation": publisher.home,
        "Source": publisher.source,
        "Changelog": f"{publisher.source}/blob/main/CHANGELOG.md",
        "Issues": f"{publisher.source}/issues",
    }
    lines = [f"maintainers = [{people}]", "", "[project.urls]"]
    lines += [f"{name} = {json.dumps(url)}" for name, url in urls.items()]
    return "".join(f"{line}\n" for line in lines)


def made() -> dict[Path, str]:
    """Every file with a made part, and what should stand in it."""
    publisher = Publisher.read()
    files = {
        ROOT / "charts" / chart / "Chart.yaml": chart_part(publisher, chart) for chart in CHARTS
    }
    files[ROOT / "pyproject.toml"] = project_part(publisher)
    files[ROOT / "artifacthub-repo.yml"] = _block(
        {
            "repositoryID": publisher.artifacthub_id,
            "owners": [dict(person) for person in publisher.maintainers],
        }
    )
    advisories = f"{publisher.source}/security/advisories/new"
    about = "Report it privately, never in a public issue."
    files[ROOT / ".github" / "ISSUE_TEMPLATE" / "config.yml"] = _block(
        {
            "blank_issues_enabled": False,
            "contact_links": [
                {"name": "A vulnerability", "url": advisories, "about": about},
                {
                    "name": "Documentation",
                    "url": publisher.home,
                    "about": "Most failures are there.",
                },
            ],
        }
    )
    return {file: with_part(file.read_text("utf-8"), part) for file, part in files.items()}


def main(do: str) -> int:
    told = ""
    for file, text in made().items():
        there = file.read_text("utf-8")
        if do == "update":
            file.write_text(text, "utf-8")
            continue
        told += "".join(
            difflib.unified_diff(
                there.splitlines(keepends=True),
                text.splitlines(keepends=True),
                str(file),
                "made anew",
            )
        )
    sys.stderr.write(told and f"{told}run hack/update-metadata\n")
    return 1 if told else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1]))
    except MetadataError as error:
        sys.exit(str(error))
