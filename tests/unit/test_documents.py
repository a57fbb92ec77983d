"""What the documents name exists: files, make targets, flags, reasons."""

import re
from pathlib import Path

import pytest

from cosi_operator.flags.table import CONTROLLER, SIDECAR
from cosi_operator.outcome import Reason

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path
    for pattern in (
        "*.md",
        "docs/**/*.md",
        "hack/**/*.md",
        "charts/**/*.md",
        "deploy/**/*.md",
        "tests/*.md",
    )
    for path in ROOT.glob(pattern)
)
TESTS = ROOT / "tests" / "README.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
LINK = re.compile(r"\]\(([^)\s]+)\)")
MAKE = re.compile(r"(?m)(?:`make |^    make )([a-z0-9-]+)")
FLAG = re.compile(r"--((?:retry|driver|terminal|deletion|metrics|health|leader|log)-[a-z-]+)")
REASON = re.compile(r"`((?:Driver|Bucket|Secret|Waiting)[A-Z][A-Za-z]+)`")

KNOWN_FLAGS = {
    flag.name for table in (SIDECAR, CONTROLLER) for group in table.values() for flag in group
}
# CamelCase words of ours that are no condition reasons: kinds, calls and Event reasons.
OTHER_WORDS = re.compile(
    r"Bucket(Claim|Access|Class|AccessClass|Info)(es|s)?|Driver(GetInfo|(Create|Delete)Bucket|"
    r"(Grant|Revoke)BucketAccess|GetExistingBucket)|Bucket(Ready|Created|Deleted|ClassIgnored)"
)


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(path: Path) -> None:
    targets = [link.partition("#")[0] for link in LINK.findall(read(path)) if "://" not in link]
    assert [t for t in targets if t and not (path.parent / t).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_make_target_flag_and_reason_that_is_named_exists(path: Path) -> None:
    text = read(path)
    targets = set(re.findall(r"(?m)^([a-z0-9-]+):", read(ROOT / "Makefile")))
    assert set(MAKE.findall(text)) - targets == set()
    assert set(FLAG.findall(text)) - KNOWN_FLAGS == set()
    reasons = {reason.value for reason in Reason}
    named = {word for word in REASON.findall(text) if not OTHER_WORDS.fullmatch(word)}
    assert named - reasons == set()


def test_every_file_that_the_readme_of_the_tests_names_exists() -> None:
    text = read(TESTS)
    modules = re.findall(r"(?<![/\w])((?:\w+/)?test_\w+\.py)", text)
    assert len(modules) > 8
    assert [name for name in modules if not list((ROOT / "tests").rglob(name))] == []
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()}
    assert {name for name in folders if f"`{name}`" not in text} - {"__pycache__"} == set()


def test_every_file_that_the_architecture_names_exists() -> None:
    named = re.findall(
        r"`([a-z][\w/-]*\.(?:py|yaml|md)|(?:hack|tests)/[\w/-]+)", read(ARCHITECTURE)
    )
    assert len(named) > 40
    places = (ROOT, ROOT / "operator" / "cosi_operator")
    assert [name for name in named if not any((p / name).exists() for p in places)] == []
