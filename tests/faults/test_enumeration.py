"""Every side effect of every scenario, with every fault, on a real API server and a real driver.

The cases are not listed here: a run without faults tells what the side effects are.
"""

import pytest
from tests.faults.bed import FaultBed
from tests.faults.engine import Engine
from tests.faults.scenarios import SCENARIOS, Scenario
from tests.faults.table import TABLE, full_tier

# `make test` crashes the operator at each point of these; `make faults-full` of all.
IN_EVERY_RUN = ("create", "grant", "rotate, new account", "delete, policy Delete")


def scenarios(*, all_full: bool) -> list[object]:
    return [
        pytest.param(
            scenario,
            id=scenario.name,
            marks=[full_tier] if all_full or scenario.name not in IN_EVERY_RUN else [],
        )
        for scenario in SCENARIOS
    ]


def survive(bed: FaultBed, scenario: Scenario, *, crashes: bool, answers: bool) -> None:
    engine = Engine(bed)
    engine.run(scenario, crashes=crashes, answers=answers)
    for result in engine.results:
        survived = not result.problems
        TABLE.add(result.scenario, result.kind, met=result.met, survived=survived)
    assert [str(result) for result in engine.results if result.problems] == []
    met = sum(result.met for result in engine.results)
    assert met >= 0.8 * len(engine.results)  # else the proxy breaks nothing


@pytest.mark.timeout(600)
@pytest.mark.parametrize("scenario", scenarios(all_full=False))
def test_a_crash_or_a_lost_reply_at_any_side_effect_changes_nothing_in_the_end(
    bed: FaultBed, scenario: Scenario
) -> None:
    survive(bed, scenario, crashes=True, answers=False)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("scenario", scenarios(all_full=True))
def test_a_bad_answer_to_any_write_changes_nothing_in_the_end(
    bed: FaultBed, scenario: Scenario
) -> None:
    survive(bed, scenario, crashes=False, answers=True)
