"""The memory of failed driver calls: ever slower, never above the cap, void when things change."""

import math
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
    CALL_TIMES_KEPT,
    EARLY_RETRY_S,
    Attempts,
    DriverRun,
    DriverState,
    Fingerprint,
    Refused,
    Stopwatch,
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
        least = min(300.0 / 1.1, 2.0 ** min(number, 30))
        assert least <= wait <= min(300.0, 1.1 * least)


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


async def test_a_reply_comes_through_and_its_time_is_measured(clock: FakeClock) -> None:
    async def answers() -> str:
        clock.advance(1.5)
        return "reply"

    state, watch = DriverState("s3.example.com"), Stopwatch(clock)
    assert await judged(answers(), policy=Policy(), driver=state, watch=watch) == "reply"
    assert watch.elapsed_s == 1.5


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
    watch = Stopwatch(FakeClock())
    refused = await judged(_fails(error), policy=Policy(), driver=state, watch=watch)
    assert isinstance(refused, Refused)
    assert (refused.verdict, refused.reason, refused.effect) == (verdict, reason, effect)
    assert len(heard) == noted


async def test_what_is_no_drivers_failure_is_not_swallowed() -> None:
    state, watch = DriverState("a"), Stopwatch(FakeClock())
    with pytest.raises(ZeroDivisionError):
        await judged(_fails(ZeroDivisionError()), policy=Policy(), driver=state, watch=watch)


async def test_a_requeue_waits_its_backoff_and_a_final_one_only_its_recheck(
    attempts: Attempts,
) -> None:
    def ends(code: Code, recheck_s: float | None) -> Requeue | Terminal:
        status = DriverRefused(Call.CREATE_BUCKET, code, "no").status
        verdict = Policy().verdict(Call.CREATE_BUCKET, code)
        refused = Refused(status, verdict, WHY, Effect.MAYBE)
        end = DriverRun(attempts, KEY, MADE_ON, recheck_s).failure(refused).outcome
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


# --- early retries: a tenant may change an annotation or a spec as often as it likes


def retried(token: str, *, deleting: bool = False) -> Fingerprint:
    return replace(MADE_ON, retry_token=token, deleting=deleting)


def test_a_change_follows_a_call_and_the_next_call_waits_5_s_from_that_call(
    attempts: Attempts, clock: FakeClock
) -> None:
    attempts.called(KEY, MADE_ON)
    attempts.failed(KEY, MADE_ON, WHY)
    assert attempts.pending(KEY, retried("1")) == Pending(0, EARLY_RETRY_S)
    clock.advance(3.0)
    assert attempts.pending(KEY, retried("2")).wait_s == pytest.approx(EARLY_RETRY_S - 3.0)
    clock.advance(2.0)
    assert attempts.pending(KEY, retried("2")) == Pending()


def test_many_changes_in_5_s_make_one_call_which_is_made_on_the_last_value(
    attempts: Attempts, clock: FakeClock
) -> None:
    """The reconciler in small: each change is a run, each run calls when it may."""
    made_on: list[str] = []
    due = 0.0

    def run(token: str) -> None:
        nonlocal due
        pending = attempts.pending(KEY, retried(token))
        if pending.wait_s > 0:
            due = pending.wait_s
            return
        attempts.called(KEY, retried(token))
        attempts.failed(KEY, retried(token), WHY)
        made_on.append(token)

    for number in range(100):
        run(str(number))
        clock.advance(0.01)
    clock.advance(due)
    run("99")
    assert made_on == ["0", "99"]
    run("99")  # the same value again: the backoff counts, not the early retry
    assert made_on == ["0", "99"]


def test_the_same_request_waits_its_backoff_and_no_longer(
    attempts: Attempts, clock: FakeClock
) -> None:
    attempts.called(KEY, MADE_ON)
    _, delay = attempts.failed(KEY, MADE_ON, WHY)
    assert delay < EARLY_RETRY_S
    clock.advance(delay)
    assert attempts.pending(KEY, MADE_ON).wait_s == 0.0


def test_a_call_that_succeeded_counts_too_and_an_object_that_was_never_called_waits_not(
    attempts: Attempts,
) -> None:
    attempts.called(KEY, MADE_ON)
    attempts.forget(KEY)
    assert attempts.pending(KEY, retried("1")).wait_s == EARLY_RETRY_S
    assert attempts.pending(Key("", "bucket-2"), retried("1")) == Pending()


@pytest.mark.parametrize("first", [False, True], ids=["creation first", "deletion first"])
def test_a_call_of_a_creation_does_not_make_the_deletion_wait_nor_the_other_way_round(
    attempts: Attempts, first: bool
) -> None:
    attempts.called(KEY, retried("", deleting=first))
    assert attempts.pending(KEY, retried("", deleting=not first)) == Pending()
    assert attempts.pending(KEY, retried("1", deleting=first)).wait_s == EARLY_RETRY_S


def test_the_driver_returns_and_an_early_retry_waits_no_longer(attempts: Attempts) -> None:
    attempts.called(KEY, MADE_ON)
    attempts.failed(KEY, MADE_ON, WHY)
    attempts.forget_all()
    assert attempts.pending(KEY, retried("1")) == Pending()


def test_times_of_calls_are_removed_when_they_no_longer_matter(
    attempts: Attempts, clock: FakeClock
) -> None:
    for number in range(CALL_TIMES_KEPT):
        attempts.called(Key("", f"other-{number}"), MADE_ON)
    assert len(attempts._called) == CALL_TIMES_KEPT
    clock.advance(EARLY_RETRY_S)
    attempts.called(KEY, MADE_ON)
    assert list(attempts._called) == [(KEY, False)]
    assert attempts.pending(KEY, retried("1")).wait_s == EARLY_RETRY_S


# --- final verdicts


def verdict(*, recheck_s: float | None = None) -> Terminal:
    status = DriverRefused(Call.REVOKE_ACCESS, Code.PERMISSION_DENIED, "no").status
    return Terminal(WHY, "", recheck_s=recheck_s, status=status)


def test_a_final_verdict_on_a_deletion_is_held_until_the_request_changes(
    attempts: Attempts, clock: FakeClock
) -> None:
    """In memory, because a tenant may write the status that stores it."""
    going = retried("", deleting=True)
    DriverRun(attempts, KEY, going, None).final(verdict())
    assert attempts.pending(KEY, going) == Pending(1, math.inf, WHY)
    clock.advance(1e9)
    assert attempts.pending(KEY, going).wait_s == math.inf
    attempts.forget_all()  # the driver was away: no reason to ask again
    assert attempts.pending(KEY, going).wait_s == math.inf
    for other in (
        retried("1", deleting=True),
        replace(going, driver_instance="driver-2"),
        replace(going, uid="another"),
    ):
        assert attempts.pending(KEY, other) == Pending()
    attempts.forget(KEY)
    assert attempts.pending(KEY, going) == Pending()


def test_a_final_verdict_on_a_deletion_with_a_recheck_is_held_until_the_recheck(
    attempts: Attempts, clock: FakeClock
) -> None:
    going = retried("", deleting=True)
    DriverRun(attempts, KEY, going, None).final(verdict(recheck_s=600.0))
    clock.advance(599.0)
    assert attempts.pending(KEY, going) == Pending(1, 1.0, WHY)
    clock.advance(1.0)
    assert attempts.pending(KEY, going).wait_s == 0.0


def test_a_final_verdict_on_a_creation_is_stored_with_the_object_and_not_held(
    attempts: Attempts,
) -> None:
    attempts.failed(KEY, MADE_ON, WHY)
    DriverRun(attempts, KEY, MADE_ON, None).final(verdict())
    assert len(attempts) == 0
    assert attempts.pending(KEY, MADE_ON) == Pending()


def test_the_driver_returns_and_what_was_only_a_backoff_ends_but_a_recheck_does_not(
    attempts: Attempts,
) -> None:
    other = Key("", "bucket-2")
    attempts.failed(KEY, MADE_ON, WHY)
    DriverRun(attempts, other, MADE_ON, None).final(verdict(recheck_s=600.0))
    attempts.forget_all()
    assert attempts.pending(KEY, MADE_ON) == Pending()
    assert attempts.pending(other, MADE_ON).wait_s == 600.0
