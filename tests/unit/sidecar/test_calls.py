"""The memory of failed driver calls: ever slower, never above the cap, void when things change."""

import random
from dataclasses import replace

import pytest
from tests.support.clock import FakeClock

from cosi_operator.api.view import Key
from cosi_operator.classify import Policy, Verdict
from cosi_operator.driver.errors import DriverMalformed, DriverRefused, DriverSilent
from cosi_operator.outcome import Call, Code, Effect, MadeBy, Reason, Requeue, Terminal
from cosi_operator.plan.steps import Pending
from cosi_operator.settings import Backoff
from cosi_operator.sidecar.calls import (
    Attempts,
    DriverState,
    Fingerprint,
    Refused,
    failure,
    judged,
)

KEY = Key("", "bucket-1")
MADE_ON = Fingerprint("uid", 1, "driver-1", "")
WHY = Reason.DRIVER_INTERNAL


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def attempts(clock: FakeClock) -> Attempts:
    return Attempts(Backoff(base_s=1.0, cap_s=300.0), clock, random.Random(1))


def test_waits_double_to_the_cap_and_jitter_never_goes_above_it(attempts: Attempts) -> None:
    waits = [attempts.failed(KEY, MADE_ON, WHY)[1] for _ in range(100)]
    for number, wait in enumerate(waits):
        whole = min(300.0, 2.0 ** min(number, 30))
        assert 0.8 * whole <= wait <= whole


def test_a_running_backoff_counts_down(attempts: Attempts, clock: FakeClock) -> None:
    _, delay = attempts.failed(KEY, MADE_ON, WHY)
    assert attempts.pending(KEY, MADE_ON).wait_s == pytest.approx(delay)
    clock.advance(delay)
    assert attempts.pending(KEY, MADE_ON) == Pending(1, 0.0, WHY)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(replace(MADE_ON, uid="another"), id="a new object of the same name"),
        pytest.param(replace(MADE_ON, generation=2), id="a changed spec"),
        pytest.param(replace(MADE_ON, driver_instance="driver-2"), id="a new driver process"),
        pytest.param(replace(MADE_ON, retry_token="1"), id="a retry annotation"),
    ],
)
def test_what_was_remembered_is_void_for(attempts: Attempts, other: Fingerprint) -> None:
    for _ in range(5):
        attempts.failed(KEY, MADE_ON, WHY)
    assert attempts.pending(KEY, other) == Pending()
    assert attempts.failed(KEY, other, WHY)[0] == 1


def test_a_driver_that_is_back_makes_nobody_wait(attempts: Attempts) -> None:
    attempts.failed(KEY, MADE_ON, WHY)
    attempts.forget_all()
    assert attempts.pending(KEY, MADE_ON) == Pending()
    assert len(attempts) == 0


async def _fails(error: Exception) -> str:
    raise error


async def test_a_reply_comes_through() -> None:
    async def answers() -> str:
        return "reply"

    state = DriverState("s3.example.com")
    assert await judged(answers(), policy=Policy(), driver=state) == "reply"


@pytest.mark.parametrize(
    ("error", "verdict", "reason", "effect", "noted"),
    [
        pytest.param(
            DriverRefused(Call.CREATE_BUCKET, Code.INVALID_ARGUMENT, "no"),
            Verdict.TERMINAL,
            Reason.DRIVER_INVALID_ARGUMENT,
            Effect.NONE,
            0,
            id="the driver's own verdict",
        ),
        pytest.param(
            DriverSilent(Call.CREATE_BUCKET, MadeBy.TRANSPORT, "gone"),
            Verdict.REQUEUE,
            Reason.DRIVER_UNREACHABLE,
            Effect.MAYBE,
            1,
            id="silence is no verdict, and whoever watches the driver hears of it",
        ),
        pytest.param(
            DriverMalformed(Call.CREATE_BUCKET, "no protobuf"),
            Verdict.TERMINAL,
            Reason.DRIVER_MALFORMED_REPLY,
            Effect.MAYBE,
            0,
            id="a reply that can't be read",
        ),
    ],
)
async def test_a_failed_call_becomes_a_value(
    error: Exception, verdict: Verdict, reason: Reason, effect: Effect, noted: int
) -> None:
    heard: list[int] = []
    state = DriverState("s3.example.com", note_silent=lambda: heard.append(1))
    refused = await judged(_fails(error), policy=Policy(), driver=state)
    assert isinstance(refused, Refused)
    assert (refused.verdict, refused.reason, refused.effect) == (verdict, reason, effect)
    assert len(heard) == noted


async def test_what_is_no_drivers_failure_is_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError):
        await judged(_fails(ZeroDivisionError()), policy=Policy(), driver=DriverState("a"))


async def test_a_requeue_waits_its_backoff_and_a_final_one_only_its_recheck(
    attempts: Attempts,
) -> None:
    def ends(code: Code, recheck_s: float | None) -> Requeue | Terminal:
        status = DriverRefused(Call.CREATE_BUCKET, code, "no").status
        verdict = Policy().verdict(Call.CREATE_BUCKET, code)
        refused = Refused(status, verdict, WHY, Effect.MAYBE)
        end = failure(
            refused, attempts=attempts, key=KEY, made_on=MADE_ON, recheck_s=recheck_s
        ).outcome
        assert isinstance(end, Requeue | Terminal)
        return end

    again = ends(Code.INTERNAL, None)
    assert isinstance(again, Requeue)
    assert again.after_s == pytest.approx(attempts.pending(KEY, MADE_ON).wait_s)
    assert ends(Code.INVALID_ARGUMENT, None) == Terminal(
        WHY, "", status=DriverRefused(Call.CREATE_BUCKET, Code.INVALID_ARGUMENT, "no").status
    )
    assert len(attempts) == 0
    slow = ends(Code.INVALID_ARGUMENT, 60.0)
    assert isinstance(slow, Terminal)
    assert slow.recheck_s == attempts.pending(KEY, MADE_ON).wait_s == 60.0
