"""The table of attacks counts tests by sentence and never hides one that failed."""

from typing import Literal

import pytest
from tests.attacks import table

type When = Literal["setup", "call", "teardown"]
type Outcome = Literal["passed", "failed", "skipped"]


def report(test: str, attack: str, outcome: Outcome, when: When = "call") -> pytest.TestReport:
    return pytest.TestReport(
        nodeid=test,
        location=("", None, test),
        keywords={},
        outcome=outcome,
        longrepr=None,
        when=when,
        user_properties=[("other", "x"), (table.MARKER, attack)],
    )


def run(test: str, attack: str, *outcomes: Outcome) -> list[pytest.TestReport]:
    whens: tuple[When, ...] = ("setup", "call", "teardown")
    return [report(test, attack, o, when) for o, when in zip(outcomes, whens, strict=False)]


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        pytest.param(
            run("a", "flood", "passed", "passed", "passed"),
            "held      1  flood\n1 attacks tried, 1 held, 0 broken",
            id="passed -> held",
        ),
        pytest.param(
            run("a", "flood", "passed", "failed", "failed"),
            "BROKEN    1  flood\n1 attacks tried, 0 held, 1 broken",
            id="failed in the test and after it -> broken once",
        ),
        pytest.param(
            run("a", "flood", "failed"),
            "BROKEN    1  flood\n1 attacks tried, 0 held, 1 broken",
            id="fixture failed -> broken",
        ),
        pytest.param(
            run("a", "flood", "skipped"),
            "BROKEN    1  flood\n1 attacks tried, 0 held, 1 broken",
            id="skipped -> broken, because nothing was tried",
        ),
        pytest.param(
            run("a", "flood", "passed", "passed", "failed"),
            "BROKEN    1  flood\n1 attacks tried, 0 held, 1 broken",
            id="failed after the test -> broken",
        ),
        pytest.param(
            run("a", "flood", "passed", "passed", "passed")
            + run("b", "flood", "passed", "failed", "passed")
            + run("c", "lie", "passed", "passed", "passed"),
            "BROKEN    2  flood\nheld      1  lie\n2 attacks tried, 1 held, 1 broken",
            id="one of two tests of an attack failed -> broken; another attack held",
        ),
    ],
)
def test_a_row_is_held_only_if_all_its_tests_passed(
    reports: list[pytest.TestReport], expected: str
) -> None:
    assert table.text(table.rows(reports)) == expected


def test_what_is_not_an_attack_has_no_row() -> None:
    plain = report("a", "x", "passed")
    plain.user_properties = []
    assert table.rows([plain, "a collection error"]) == {}


def test_the_marker_puts_the_sentence_on_the_test(request: pytest.FixtureRequest) -> None:
    item = request.node
    item.add_marker(pytest.mark.attack("made up"))
    properties = list(item.user_properties)
    table.remember([item])
    assert item.user_properties == [*properties, (table.MARKER, "made up")]
    item.user_properties[:] = properties
