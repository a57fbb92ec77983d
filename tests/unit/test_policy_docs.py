"""The pages about policies: their generated part, and that every example in them is true."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cosi_operator.classify import CONSERVATIVE, PROFILES, parse_override, policy_for
from cosi_operator.cli.arguments import parse
from cosi_operator.cli.policy_command import run_policy
from cosi_operator.policy_file import parse_policy_file
from policy_docs import BEGIN, END, MarkersError, renewed

ROOT = Path(__file__).parents[2]
POLICIES = (ROOT / "docs/policies.md").read_text(encoding="utf-8")
DRIVERS = (ROOT / "docs/drivers.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", POLICIES + DRIVERS, re.DOTALL)


def test_the_committed_page_is_what_the_generator_writes() -> None:
    assert renewed(POLICIES) == POLICIES


def test_the_table_has_every_code_in_every_profile() -> None:
    part = POLICIES.partition(BEGIN)[2].partition(END)[0]
    assert {code.name: part.count(f"| {code.name} |") for code in CONSERVATIVE} == {
        code.name: len(PROFILES) + 1 for code in CONSERVATIVE
    }


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="no markers"),
        pytest.param(f"{BEGIN}", id="no end"),
        pytest.param(f"{END}{BEGIN}", id="the wrong order"),
        pytest.param(f"{BEGIN}{END}{BEGIN}{END}", id="two pairs"),
    ],
)
def test_a_page_without_its_markers_is_refused(text: str) -> None:
    with pytest.raises(MarkersError):
        renewed(text)


def test_the_check_fails_on_drift(tmp_path: Path) -> None:
    """On a copy of the tree, since the scripts work on their own one."""
    for folder in ("hack", "docs", "operator"):
        (tmp_path / folder).mkdir()
    for name in ("update-policy-docs", "verify-policy-docs", "policy_docs.py"):
        copy = tmp_path / "hack" / name
        copy.write_bytes((ROOT / "hack" / name).read_bytes())
        copy.chmod(0o755)
    (tmp_path / "operator/cosi_operator").symlink_to(ROOT / "operator/cosi_operator")
    page = tmp_path / "docs/policies.md"
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": sys.executable}

    def verify() -> int:
        return subprocess.run(
            [tmp_path / "hack/verify-policy-docs"], env=environment, check=False, timeout=50
        ).returncode

    page.write_text(POLICIES, encoding="utf-8")
    assert verify() == 0
    page.write_text(POLICIES.replace("| INTERNAL | requeue", "| INTERNAL | terminal"), "utf-8")
    assert verify() == 1


def test_every_override_and_profile_that_the_pages_name_is_accepted() -> None:
    words = re.findall(r"--retry-override=([\w./:*-]+=\w+)", POLICIES + DRIVERS)
    assert len(words) > 10
    for word in words:
        parse_override(word)
    for profile in re.findall(r"--retry-policy=([\w-]+)", POLICIES + DRIVERS):
        policy_for("", profile)


def test_every_policy_file_in_the_pages_is_accepted() -> None:
    blocks = [text for kind, text in BLOCKS if kind == "yaml"]
    helm = [values for text in blocks if (values := yaml.safe_load(text).get("cosiSidecar"))]
    files = [text for text in blocks if "cosiSidecar" not in text]
    files += [values["retryPolicyFile"] for values in helm if "retryPolicyFile" in values]
    assert (len(blocks), len(files)) == (4, 3)
    for text in files:
        parse_policy_file(text, "docs")
    for values in helm:
        policy_for("", values.get("retryPolicy", "conservative"))
        for word in values.get("retryOverrides", []):
            parse_override(word)


def test_every_console_example_about_policies_prints_what_the_page_shows() -> None:
    shown = 0
    for kind, text in BLOCKS:
        if kind != "console":
            continue
        for line, output in re.findall(r"^\$ (.*)\n((?:[^$].*\n|\n)*)", text, re.MULTILINE):
            words = shlex.split(line)
            assert words.pop(0) == "cosi"
            command = parse(words, "cosi")
            if command.name.startswith("policy") and output:
                assert run_policy(command).out == output
                shown += 1
    assert shown == 2
