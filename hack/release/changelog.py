"""Make a section of CHANGELOG.md from the fragments in changelog.d, and read it again."""

import re
from pathlib import Path

from release.tools import ROOT, ReleaseError, run

KINDS = {"change": "Changed", "feature": "Added", "fix": "Fixed"}
"""Kind of a fragment -> its heading, in the order of the section."""
NONE_YET = "No release so far.\n"
VERSION = re.compile(r"\d+\.\d+\.\d+((a|b|rc)\d+)?")
"""What Python's index, Helm and OCI tags all take as a version of ours."""
_NAME = re.compile(r"(?P<issue>\d+)\.(?P<kind>\w+)(?:\.(?P<number>\d+))?\.md")
_HEADING = re.compile(r"^## (?P<version>\S+) \((?P<date>[\d-]+)\)$", re.MULTILINE)


def section(fragments: Path) -> str:
    """All fragments as lists below a heading for each kind, by issue and number.

    Raises:
        ReleaseError: there are none.
    """
    found: dict[str, list[tuple[int, int, str]]] = {}
    for file in fragments.glob("*.md"):
        if name := _NAME.fullmatch(file.name):
            lines = file.read_text("utf-8").split("\n\n")
            text = "\n\n".join(
                " ".join(paragraph.split()) for paragraph in lines if paragraph.strip()
            )
            entry = (int(name["issue"]), int(name["number"] or 0), text.replace("\n\n", "\n\n  "))
            found.setdefault(name["kind"], []).append(entry)
    if not found:
        raise ReleaseError(f"{fragments.name} has no fragments: nothing to release")
    return "\n".join(
        f"### {heading}\n\n" + "".join(f"- {text}\n" for *_, text in sorted(found[kind]))
        for kind, heading in KINDS.items()
        if kind in found
    )


def notes(changelog: str, version: str) -> str:
    """The section of a version, without its heading.

    Raises:
        ReleaseError: there is none.
    """
    headings = list(_HEADING.finditer(changelog))
    for at, heading in enumerate(headings):
        if heading["version"] == version:
            end = headings[at + 1].start() if at + 1 < len(headings) else len(changelog)
            return changelog[heading.end() : end].strip() + "\n"
    raise ReleaseError(
        f"CHANGELOG.md has no section {version}: run `make cut VERSION={version}` and commit"
    )


def cut(version: str, date: str, root: Path = ROOT) -> list[Path]:
    """Move the fragments into a new section of CHANGELOG.md and set the version.

    Returns:
        The fragments that were removed.
    Raises:
        ReleaseError: the version is malformed or was released before; nothing was changed.
    """
    if not VERSION.fullmatch(version):
        raise ReleaseError(f"{version!r} is not a version: write it as in 1.2.3 or 1.2.3rc1")
    log = root / "CHANGELOG.md"
    text = log.read_text("utf-8")
    if any(heading["version"] == version for heading in _HEADING.finditer(text)):
        raise ReleaseError(f"CHANGELOG.md has a section {version} already")
    made = f"## {version} ({date})\n\n{section(root / 'changelog.d')}\n"
    first = _HEADING.search(text)
    if first:
        text = text[: first.start()] + made + text[first.start() :]
    else:
        text = text.replace(NONE_YET, "").rstrip("\n") + f"\n\n{made}"
    log.write_text(text.rstrip("\n") + "\n", "utf-8")
    project = root / "pyproject.toml"
    lines = project.read_text("utf-8")
    project.write_text(re.sub(r'(?m)^version = ".*"$', f'version = "{version}"', lines, count=1))
    gone = [file for file in (root / "changelog.d").glob("*.md") if _NAME.fullmatch(file.name)]
    for file in gone:
        file.unlink()
    return gone


def update_made_files(root: Path = ROOT) -> None:
    """Write the new version into the charts, and into what is made of them."""
    for script in ("update-charts", "update-metadata", "update-chart-outputs"):
        run(root / "hack" / script, directory=root)
