"""The real clock keeps the promises of `clock.Clock` that the fake one keeps too."""

import pytest
from tests.support.clock import FakeClock

from cosi_operator.clock import Clock, RealClock


@pytest.mark.parametrize("clock", [RealClock(), FakeClock()], ids=["real", "fake"])
@pytest.mark.parametrize("seconds", [0.0, -0.001, -1e9])
async def test_to_sleep_until_a_time_that_has_passed_is_no_wait_and_no_error(
    clock: Clock, seconds: float
) -> None:
    before = clock.monotonic()
    await clock.sleep(seconds)
    assert clock.monotonic() - before < 1
