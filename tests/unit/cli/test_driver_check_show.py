"""What `cosi driver check` prints of each result, and of the advice."""

from xml.etree import ElementTree

import pytest

from cosi_operator.cli.driver_check import show
from cosi_operator.cli.driver_check.advice import Advice, Flag
from cosi_operator.cli.driver_check.finding import Finding, Result
from cosi_operator.cli.driver_check.options import Options
from cosi_operator.cli.driver_check.seen import CheckRecord

SEEN = CheckRecord(Options(), {}, {})
FINDINGS = [
    Finding("name", "The name is valid.", Result.PASS, "it is d.example.com"),
    Finding("create-other", "Other parameters are noticed.", Result.WARN, "they are not"),
    Finding("delete", "A bucket is deleted.", Result.FAIL, "it answered INTERNAL"),
    Finding("delete-no-id", "An empty id is refused.", Result.SKIP, "not asked"),
]
FLAG = "--retry-override=UNKNOWN=requeue"
ADVICE = Advice((Flag(FLAG, "the driver sends UNKNOWN"),), ("It is slow.",))


def test_text_explains_warnings_and_failures_only() -> None:
    lines = show.text(SEEN, FINDINGS, ADVICE).splitlines()
    assert lines[2:10] == [
        "ok    name",
        "warn  create-other",
        "        expected: Other parameters are noticed.",
        "        seen: they are not",
        "FAIL  delete",
        "        expected: A bucket is deleted.",
        "        seen: it answered INTERNAL",
        "skip  delete-no-id",
    ]
    assert "1 passed, 1 warnings, 1 failed, 1 not asked; 0 calls in 0.0 s" in lines


@pytest.mark.parametrize(
    ("advice", "expected"),
    [
        pytest.param(
            ADVICE,
            ["Set for the sidecar of this driver:", f"  {FLAG}", "because the driver sends UNKNOWN",
             "Note: It is slow."],
            id="a flag and a note",
        ),
        pytest.param(
            Advice((), ()),
            ["For the sidecar of this driver, the default retry policy fits what was seen."],
            id="nothing to set",
        ),
    ],
)  # fmt: skip
def test_text_ends_with_the_advice(advice: Advice, expected: list[str]) -> None:
    lines = show.text(SEEN, FINDINGS, advice).splitlines()
    assert [line.strip() for line in lines[-len(expected) :]] == [x.strip() for x in expected]


def test_junit_has_each_result_in_its_own_element() -> None:
    suite = ElementTree.fromstring(show.junit(SEEN, FINDINGS, ADVICE))
    assert (suite.get("failures"), suite.get("skipped"), suite.get("tests")) == ("1", "1", "4")
    children = {case.get("name"): [child.tag for child in case] for case in suite.iter("testcase")}
    assert children == {
        "name": [],
        "create-other": ["system-out"],
        "delete": ["failure"],
        "delete-no-id": ["skipped"],
    }
    told = [p.get("value") for p in suite.iter("property") if p.get("name") == "advice"]
    assert told == [FLAG]
