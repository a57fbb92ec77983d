"""Who tells a claim of its Bucket: the sidecar has 5 s, then the controller does."""

from datetime import timedelta

import pytest
from msgspec.structs import replace
from tests.support import views

from cosi_operator.api.view import Bucket, BucketClaim
from cosi_operator.outcome import Reason, Requeue, Success, Terminal
from cosi_operator.plan import names
from cosi_operator.plan.claim import plan
from cosi_operator.plan.claim_view import ClaimView
from cosi_operator.plan.sidecar_wait import BUSY_HEAL_AFTER_S, BUSY_LOOK_S, HEAL_AFTER_S
from cosi_operator.plan.steps import Done

NEW = views.meta(views.CLAIM, finalizers=(names.CLAIM_FINALIZER,))
MADE = views.meta(views.BUCKET, created=views.STAMP)
READY = replace(
    views.READY, conditions=(replace(views.READY_CONDITION, last_transition_time=views.STAMP),)
)


def planned(
    claim: BucketClaim, bucket: Bucket, *, after_s: float, heard_s: float | None = None
) -> Done:
    """What is planned so long after the Bucket was made, and after the sidecar was heard of."""
    now = views.NOW + timedelta(seconds=after_s)
    heard = None if heard_s is None else now - timedelta(seconds=heard_s)
    step = plan(ClaimView(claim, views.CLASS, bucket, (), now, sidecar_wrote_at=heard))
    assert isinstance(step, Done)
    return step


@pytest.mark.parametrize(
    ("claim", "bucket"),
    [
        pytest.param(NEW, MADE, id="its Bucket was just created -> waits"),
        pytest.param(views.BOUND_CLAIM, READY, id="its Bucket just became ready -> waits"),
    ],
)
def test_within_5_s_the_controller_writes_nothing_and_looks_again_when_they_are_over(
    claim: BucketClaim, bucket: Bucket
) -> None:
    step = planned(claim, bucket, after_s=1.5)
    assert step == Done(
        Requeue(Reason.WAITING_FOR_BUCKET, "", after_s=HEAL_AFTER_S - 1.5, quiet=True),
        report=False,
    )


def test_without_a_sidecar_the_claim_names_its_bucket_and_what_it_waits_for_after_5_s() -> None:
    step = planned(NEW, MADE, after_s=5)
    assert step.report
    assert isinstance(step.outcome, Terminal)
    assert step.outcome.reason is Reason.WAITING_FOR_BUCKET


@pytest.mark.parametrize(
    ("after_s", "look_s"),
    [
        pytest.param(5, BUSY_LOOK_S, id="at work -> looks again after 20 s"),
        pytest.param(BUSY_HEAL_AFTER_S - 1, 1, id="a second is left -> looks again after it"),
    ],
)
def test_a_sidecar_that_is_at_work_gets_a_minute(after_s: float, look_s: float) -> None:
    step = planned(NEW, MADE, after_s=after_s, heard_s=4)
    assert step == Done(
        Requeue(Reason.WAITING_FOR_BUCKET, "", after_s=look_s, quiet=True), report=False
    )


@pytest.mark.parametrize(
    ("after_s", "heard_s"),
    [
        pytest.param(BUSY_HEAL_AFTER_S, 0, id="a minute is over -> reported"),
        pytest.param(6, 5, id="no write for 5 s -> reported"),
        pytest.param(
            6, -3600, id="a write in the future, because the clock was set back -> reported"
        ),
    ],
)
def test_then_the_claim_is_told_to_wait(after_s: float, heard_s: float) -> None:
    step = planned(NEW, MADE, after_s=after_s, heard_s=heard_s)
    assert step.report
    assert isinstance(step.outcome, Terminal)


def test_a_ready_bucket_that_nobody_told_the_claim_of_is_told_after_5_s() -> None:
    assert planned(views.BOUND_CLAIM, READY, after_s=5) == Done(Success())


def test_a_bucket_whose_age_is_not_known_is_not_waited_for() -> None:
    assert planned(NEW, views.meta(MADE, created=""), after_s=0).report


def test_a_clock_that_is_far_behind_the_api_servers_holds_nothing_up() -> None:
    assert planned(NEW, MADE, after_s=-3600).report
    assert not planned(NEW, MADE, after_s=-2).report
