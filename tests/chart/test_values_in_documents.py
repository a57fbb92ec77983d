"""Every Helm value in the documents exists, and every YAML block of values renders."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.chart.pod import ROOT
from tests.chart.test_documents import commands, sections

import charts
from chart_outputs import Helm, HelmError, objects
from cosi_operator.policy_file import parse_policy_file

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "hack/**/*.md", "charts/**/*.md", "deploy/**/*.md")
    for path in ROOT.glob(pattern)
)
OPERATOR_VALUES = {
    value.name: value.default
    for value in charts.values((charts.OPERATOR / "values.yaml").read_text("utf-8"))
}
SIDECAR_VALUES = {
    f"cosiSidecar.{value.name}": value.default
    for value in charts.values((charts.SIDECAR / "values.yaml").read_text("utf-8"))
}
KNOWN = {*OPERATOR_VALUES, *SIDECAR_VALUES}
POLICY_KEYS = {"profile", "overrides", "serializeAccessCalls", "drivers"}
NO_VALUES = {
    ("docs/use-a-bucket.md", ("env",)): "part of a container",
    ("docs/use-a-bucket.md", ("volumes",)): "part of a Pod",
    ("docs/gitops.md", ("data",)): "part of a ConfigMap of Argo CD",
    ("docs/adr/0002-verdicts-are-stored.md", ("status",)): "part of a claim",
}
"""Blocks that are neither values nor whole objects, by page and keys."""


@dataclass(frozen=True, slots=True)
class Block:
    """One YAML block of a page, without templates."""

    page: str
    line: int
    text: str
    content: Any

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self.content) if isinstance(self.content, dict) else ()

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks() -> list[Block]:
    found = []
    for path in PAGES:
        text = path.read_text("utf-8")
        for match in re.finditer(r"(?ms)^```ya?ml[^\n]*\n(.*?)^```", text):
            if "{{-" not in match[1]:
                content = next(yaml.safe_load_all(match[1]))
                line = text.count("\n", 0, match.start()) + 1
                found.append(Block(str(path.relative_to(ROOT)), line, match[1], content))
    return found


BLOCKS = blocks()


def kind(block: Block) -> str:
    """What a block is: "objects", "policy", "operator", "driver", "part", or "" if unknown."""
    keys = set(block.keys)
    if {"apiVersion", "kind"} <= keys:
        return "objects"
    if keys <= POLICY_KEYS:
        return "policy"
    if keys <= {"cosiSidecar", "global"}:
        return "driver"
    if keys <= set(OPERATOR_VALUES):
        return "operator"
    return "part" if (block.page, block.keys) in NO_VALUES else ""


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_yaml_block_renders_as_values_or_is_something_else_that_is_named(
    block: Block, offline: Helm, both_charts: tuple[Path, Path], tmp_path: Path
) -> None:
    what = kind(block)
    assert what, "neither objects, nor a policy, nor values of a chart: an invented value?"
    if what == "policy":
        parse_policy_file(block.text, str(block))
    if what in ("operator", "driver"):
        values = tmp_path / "values.yaml"
        values.write_text(block.text)
        assert objects(offline.template(both_charts[what == "driver"], f"--values={values}"))


def test_values_and_the_exceptions_are_among_the_blocks() -> None:
    kinds = {kind(block) for block in BLOCKS}
    assert {"driver", "operator", "policy", "objects"} <= kinds
    assert {(block.page, block.keys) for block in BLOCKS if kind(block) == "part"} == set(NO_VALUES)


GROUPS = {name.partition(".")[0] for name in KNOWN if "." in name} - {"image", "global"}
NAMED = re.compile(rf"`((?:{'|'.join(sorted(GROUPS))})(?:\.[A-Za-z]+)+)(?:=[^`]*)?`(?<!\.py`)")
SET = re.compile(r"--set(?:-[a-z]+)?[= ]([^\s`]+)")


def named(text: str) -> set[str]:
    """Values that a text names: in backticks by their path, and as an argument of --set."""
    in_set = [pair.partition("=")[0] for word in SET.findall(text) for pair in word.split(",")]
    return {*NAMED.findall(text), *in_set}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_value_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text("utf-8").replace("--set replicaCout=3", "")  # misspelt on purpose
    relative = {"cosi-sidecar-lib": "cosiSidecar."}.get(page.parent.name, "")
    unknown = {name for name in named(text) if not {name, relative + name} & KNOWN}
    assert unknown == set()


def test_a_value_that_does_not_exist_is_noticed() -> None:
    text = "module `metrics.py`, `metrics.portt`,"
    text += " `cosiSidecar.retryPolcy=x`, --set image.tagg=1,replicaCount=2"
    assert named(text) - KNOWN == {"metrics.portt", "cosiSidecar.retryPolcy", "image.tagg"}


def test_the_misspelt_value_of_the_installation_page_is_refused_as_it_says(
    offline: Helm, operator_chart: Path
) -> None:
    part = sections("install.md")["With Helm"]
    (typed,) = commands(part, "text")
    (printed,) = re.findall(r"(?m)^- at .*$", part)
    words = typed.replace("charts/cosi-operator", str(operator_chart)).split()
    with pytest.raises(HelmError) as raised:
        offline.run("template", *words[2:])
    assert printed in str(raised.value)
    assert all("--namespace" in command for command in commands(part)[1:] if "upgrade" in command)
