"""What the most common jobs cost. More of any of these has to be on purpose."""

from pathlib import Path

import pytest
from tests.model.profile import JOBS, Cost, measure, table

ARCHITECTURE = Path(__file__).resolve().parents[2] / "docs" / "architecture.md"


@pytest.mark.parametrize(
    ("job", "cost"),
    [
        pytest.param("a claim becomes ready", Cost(3, 5, 1, 7), id="claim ready"),
        pytest.param("a Create is refused", Cost(3, 6, 1, 7), id="create refused"),
        pytest.param("an access is granted", Cost(5, 8, 1, 9), id="access granted"),
        pytest.param("an access is deleted", Cost(6, 6, 1, 9), id="access deleted"),
        pytest.param("a claim is deleted", Cost(4, 4, 1, 7), id="claim deleted"),
    ],
)
def test_what_a_job_costs(job: str, cost: Cost) -> None:
    assert measure(JOBS[job]) == cost


def test_the_table_of_the_documentation_has_these_costs() -> None:
    assert table() in ARCHITECTURE.read_text(encoding="utf-8")
