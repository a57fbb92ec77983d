"""The workflows of the public forge, as far as they can be judged without it."""

import re
from pathlib import Path

import pytest
import yaml

from controlplane.build import ensure, find
from controlplane.minor import MINORS
from release.tools import ROOT, ReleaseError, run

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"(?m)^([a-z0-9-]+):", (ROOT / "Makefile").read_text("utf-8")))
VARIABLES = {"VERSION", "KEY", "REGISTRY", "KUBERNETES"}


@pytest.fixture(scope="module")
def actionlint() -> Path:
    """The program; the first call on a machine builds it, which takes about 10 s."""
    ensure(["actionlint"])
    return find("actionlint")


@pytest.mark.timeout(200)  # the first run builds actionlint
def test_actionlint_finds_nothing(actionlint: Path) -> None:
    assert {file.stem for file in WORKFLOWS} == {"ci", "release"}
    run(actionlint, "-no-color", *WORKFLOWS)


@pytest.mark.timeout(200)
def test_actionlint_is_really_asked(actionlint: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "ci.yml"
    wrong.write_text(WORKFLOWS[0].read_text().replace("runs-on:", "run-on:"))
    with pytest.raises(ReleaseError, match="run-on"):
        run(actionlint, "-no-color", wrong)


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_every_target_of_make_exists(file: Path) -> None:
    typed = re.findall(
        r"(?m)(?:run:|- command:|^) +make ([a-z0-9-]+)(.*)$", file.read_text("utf-8")
    )
    assert typed
    for target, settings in typed:
        assert target in TARGETS
        assert {each.partition("=")[0] for each in settings.split()} <= VARIABLES


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_every_action_is_pinned_by_commit_and_rights_are_named(file: Path) -> None:
    text = file.read_text("utf-8")
    used = re.findall(r"uses: (\S+)", text)
    assert used
    assert [name for name in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", name)] == []
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}


def test_every_change_is_tested_on_the_oldest_and_the_newest_minor_that_has_pins() -> None:
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    pinned = sorted(folder.name for folder in MINORS.iterdir())
    assert re.findall(r"make minor KUBERNETES=(\S+)", text) == [pinned[0], pinned[-1]]
