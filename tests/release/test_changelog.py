"""`make cut`: the fragments become a section, and the section becomes the release notes."""

from pathlib import Path

import pytest

from release.changelog import cut, notes
from release.tools import ROOT, ReleaseError

HEAD = "# Changelog\n\nThe newest release first.\n\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository before its first release."""
    (tmp_path / "CHANGELOG.md").write_text(f"{HEAD}No release so far.\n")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "0.0.1"\n')
    (tmp_path / "changelog.d").mkdir()
    (tmp_path / "changelog.d" / "README.md").write_text("Not a fragment.\n")
    for name, text in {
        "10.fix.2.md": "A late\nfix.\n",
        "10.fix.1.md": "An early fix.\n",
        "9.fix.md": "The first fix.\n",
        "3.change.md": "A change.\n\nWhat to do.\n",
        "3.feature.md": "A feature.\n",
    }.items():
        (tmp_path / "changelog.d" / name).write_text(text)
    return tmp_path


SECTION = """\
### Changed

- A change.

  What to do.

### Added

- A feature.

### Fixed

- The first fix.
- An early fix.
- A late fix.
"""


def test_the_fragments_become_a_section_by_kind_and_issue(root: Path) -> None:
    gone = cut("0.1.0", "2026-02-03", root)
    text = (root / "CHANGELOG.md").read_text()
    assert text == f"{HEAD}## 0.1.0 (2026-02-03)\n\n{SECTION}"
    assert len(gone) == 5
    assert [file.name for file in (root / "changelog.d").iterdir()] == ["README.md"]
    assert 'version = "0.1.0"' in (root / "pyproject.toml").read_text()
    assert notes(text, "0.1.0") == SECTION


def test_a_later_version_stands_before_the_others(root: Path) -> None:
    cut("0.1.0", "2026-02-03", root)
    (root / "changelog.d" / "11.fix.md").write_text("Another fix.\n")
    cut("0.2.0rc1", "2026-03-04", root)
    text = (root / "CHANGELOG.md").read_text()
    assert notes(text, "0.2.0rc1") == "### Fixed\n\n- Another fix.\n"
    assert notes(text, "0.1.0") == SECTION
    assert text.index("0.2.0rc1") < text.index("0.1.0 (")


@pytest.mark.parametrize("version", ["v0.1.0", "0.1", "0.1.0-rc1", "latest", "0.1.0; true"])
def test_what_is_no_version_for_every_registry_changes_nothing(root: Path, version: str) -> None:
    with pytest.raises(ReleaseError, match="is not a version"):
        cut(version, "2026-02-03", root)
    assert len(list((root / "changelog.d").iterdir())) == 6


def test_a_version_is_cut_once(root: Path) -> None:
    cut("0.1.0", "2026-02-03", root)
    (root / "changelog.d" / "11.fix.md").write_text("Another fix.\n")
    with pytest.raises(ReleaseError, match=r"has a section 0\.1\.0 already"):
        cut("0.1.0", "2026-02-04", root)
    (root / "changelog.d" / "11.fix.md").unlink()
    with pytest.raises(ReleaseError, match="nothing to release"):
        cut("0.2.0", "2026-02-04", root)


def test_a_version_that_was_not_cut_has_no_notes() -> None:
    with pytest.raises(ReleaseError, match=r"run `make cut VERSION=9\.9\.9`"):
        notes((ROOT / "CHANGELOG.md").read_text("utf-8"), "9.9.9")


def test_no_fragment_of_this_repository_is_lost(root: Path) -> None:
    fragments = [file for file in (ROOT / "changelog.d").glob("*.md") if file.name != "README.md"]
    for file in fragments:
        (root / "changelog.d" / file.name).write_text(file.read_text("utf-8"), "utf-8")
    cut("0.1.0", "2026-02-03", root)
    section = " ".join((root / "CHANGELOG.md").read_text("utf-8").split())
    lost = [file.name for file in fragments if " ".join(file.read_text().split()) not in section]
    assert lost == []
