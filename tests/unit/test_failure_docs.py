"""The page about failures: its table of reasons, and what its generator promises."""

import subprocess
import sys
from pathlib import Path

import pytest

from cosi_operator.outcome import Reason
from failure_docs import (
    END,
    REASONS_BEGIN,
    SCENES_BEGIN,
    MarkersError,
    normal,
    part,
    renewed,
    table_of_reasons,
)
from failure_reasons import REASONS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/failures.md").read_text(encoding="utf-8")


def test_every_reason_has_a_meaning_and_a_remedy() -> None:
    assert set(REASONS) == set(Reason)
    assert all(meaning and remedy for meaning, remedy in REASONS.values())
    assert not [text for row in REASONS.values() for text in row if "|" in text]


def test_the_committed_table_is_what_the_generator_writes() -> None:
    assert part(PAGE, REASONS_BEGIN)[1] == table_of_reasons().strip()


def test_the_page_shows_five_failures_with_meaning_and_remedy() -> None:
    scenes = part(PAGE, SCENES_BEGIN)[1]
    assert scenes.count("$ kubectl describe ") == 5
    assert scenes.count("**What it means.**") == scenes.count("**What to do.**") == 5


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="no markers"),
        pytest.param(SCENES_BEGIN, id="no end"),
        pytest.param(f"{END}{SCENES_BEGIN}", id="the wrong order"),
        pytest.param(f"{SCENES_BEGIN}{SCENES_BEGIN}{END}", id="two beginnings"),
    ],
)
def test_a_page_without_its_markers_is_refused(text: str) -> None:
    with pytest.raises(MarkersError):
        renewed(text, SCENES_BEGIN, "")


def test_what_differs_each_time_is_made_equal_and_short_waits_are_left_out() -> None:
    def described(uid: str, time: str, age: str) -> str:
        return (
            f"  UID: {uid}\n  Time: {time}\n  Message: Attempt {len(age)} failed"
            f" at {time}. Retried automatically.\nEvents:\n"
            "  Type     Reason             Age   From          Message\n"
            "  ----     ------             ----  ----          -------\n"
            "  Normal   WaitingForBucket   1s    cosi-sidecar  WaitingForBucket: not yet\n"
            f"  Warning  FailedCreateBucket  {age}  cosi-sidecar  DriverInternal: no  such host\n"
        )

    one = described("0f0f0f0f-0000-4000-8000-00000000000a", "2026-01-01T00:00:00Z", "1s")
    other = described(
        "1a1a1a1a-0000-4000-8000-00000000000b", "2027-01-01T00:00:09Z", "3s (x2 over 5s)"
    )
    assert normal(one) == normal(other)
    assert "DriverInternal: no  such host" in normal(one)
    assert "WaitingForBucket" not in normal(one)


def test_the_check_fails_on_drift(tmp_path: Path) -> None:
    """On a copy of the tree, since the scripts work on their own one."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "hack").mkdir()
    for file in (ROOT / "hack").iterdir():
        (tmp_path / "hack" / file.name).symlink_to(file)
    for name in ("update-failure-docs", "verify-failure-docs"):
        copy = tmp_path / "hack" / name
        copy.unlink()
        copy.write_bytes((ROOT / "hack" / name).read_bytes())
        copy.chmod(0o755)
    (tmp_path / "operator").symlink_to(ROOT / "operator")
    page = tmp_path / "docs/failures.md"
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": sys.executable}

    def verify() -> int:
        return subprocess.run(
            [tmp_path / "hack/verify-failure-docs"], env=environment, check=False, timeout=50
        ).returncode

    page.write_text(PAGE, encoding="utf-8")
    assert verify() == 0
    page.write_text(PAGE.replace("The bucket is ready. |", "The bucket is full. |"), "utf-8")
    assert verify() == 1
