"""What the controller does for an access that no sidecar reports on; each id states its rule."""

from datetime import timedelta

import pytest
from msgspec.structs import replace
from tests.support.views import (
    ACCESS,
    DRIVER,
    GOING_ACCESS,
    GRANTED,
    KEYS_CLASS,
    NOW,
    READY,
    STAMP,
    meta,
)

from cosi_operator.api.view import BucketAccess, Condition
from cosi_operator.outcome import Reason, Requeue, Success, Terminal
from cosi_operator.plan import names
from cosi_operator.plan.sidecar_wait import BUSY_HEAL_AFTER_S, BUSY_LOOK_S, HEAL_AFTER_S
from cosi_operator.plan.steps import Done, EditFinalizers
from cosi_operator.plan.unreported_access import (
    UNNAMED_WAIT_S,
    UnreportedView,
    plan,
    released_message,
)

NOTHING = Done(Success(), report=False)
HELD = meta(ACCESS, finalizers=(names.ACCESS_FINALIZER,))
GOING = meta(HELD, deleting=True)
LATER_S = HEAL_AFTER_S + 1


def told(access: BucketAccess, reason: str, status: str = "False") -> BucketAccess:
    return replace(access, conditions=(Condition("Ready", status, reason, "", 1, STAMP),))


def seen(
    access: BucketAccess | None, *, after_s: float = LATER_S, **more: object
) -> UnreportedView:
    given: dict[str, object] = {"access_class": KEYS_CLASS, "bucket": None, "since": NOW, **more}
    now = NOW + timedelta(seconds=after_s)
    return UnreportedView(access=access, now=now, **given)  # type: ignore[arg-type]  # a table's shorthand


def wait(after_s: float) -> Done:
    return Done(Requeue(Reason.WAITING_FOR_BUCKET, "", after_s=after_s, quiet=True), report=False)


@pytest.mark.parametrize(
    ("view", "step"),
    [
        pytest.param(seen(None), NOTHING, id="it is gone -> nothing to do"),
        pytest.param(seen(GRANTED, access_class=None), NOTHING, id="granted -> nothing to do"),
        pytest.param(
            seen(HELD, access_class=None), NOTHING, id="a sidecar has taken it on -> nothing to do"
        ),
        pytest.param(
            seen(told(ACCESS, "WaitingForBucket")),
            NOTHING,
            id="a sidecar has said what it waits for -> nothing to do",
        ),
        pytest.param(seen(ACCESS, after_s=1), wait(HEAL_AFTER_S - 1), id="new -> left to it first"),
        pytest.param(
            seen(ACCESS, wrote_at=NOW + timedelta(seconds=LATER_S)),
            wait(BUSY_LOOK_S),
            id="its sidecar is at work on others -> it gets longer",
        ),
        pytest.param(
            seen(told(GOING, "Granted", "True"), reported=True),
            NOTHING,
            id="a sidecar has replaced what the controller said -> not said again",
        ),
        pytest.param(
            seen(meta(ACCESS, deleting=True), access_class=None),
            NOTHING,
            id="it is deleted and nobody holds it -> the API server removes it",
        ),
        pytest.param(
            seen(told(GOING, "DriverInternal")),
            NOTHING,
            id="the sidecar has said why it is not revoked -> nothing to do",
        ),
        pytest.param(
            seen(GOING, access_class=None, after_s=1),
            wait(HEAL_AFTER_S - 1),
            id="nothing says whose it is, but the lists may be old -> looked at again",
        ),
        pytest.param(
            seen(GOING, access_class=None),
            EditFinalizers(ACCESS.meta.key, remove=(names.ACCESS_FINALIZER,)),
            id="nothing says whose it is: a copy -> our finalizer goes",
        ),
        pytest.param(
            seen(told(GOING, "DriverInternal"), access_class=None, after_s=UNNAMED_WAIT_S - 5),
            wait(5.0),
            id="nothing says whose it is any more, a sidecar reported before -> left to it first",
        ),
        pytest.param(
            seen(told(GOING, "DriverInternal"), access_class=None, after_s=UNNAMED_WAIT_S),
            EditFinalizers(ACCESS.meta.key, remove=(names.ACCESS_FINALIZER,)),
            id="no sidecar has reported for 15 minutes, nothing says whose -> our finalizer goes",
        ),
    ],
)
def test_the_next_step(view: UnreportedView, step: Done | EditFinalizers) -> None:
    assert plan(view) == step


@pytest.mark.parametrize(
    ("view", "reason"),
    [
        pytest.param(
            seen(ACCESS, access_class=None, after_s=0),
            Reason.ACCESS_CLASS_NOT_FOUND,
            id="no class -> said at once, because no sidecar can say it",
        ),
        pytest.param(
            seen(told(ACCESS, "DriverInternal"), access_class=None),
            Reason.ACCESS_CLASS_NOT_FOUND,
            id="the class is gone since a failure was reported -> said",
        ),
        pytest.param(
            seen(meta(ACCESS, oversized=True), access_class=None),
            Reason.INVALID_OBJECT,
            id="too large to read -> nobody can know its class",
        ),
        pytest.param(
            seen(meta(GOING, oversized=True), access_class=None),
            Reason.INVALID_OBJECT,
            id="too large to read, being deleted -> it may hold a grant, so our finalizer stays",
        ),
        pytest.param(
            seen(ACCESS), Reason.WAITING_FOR_SIDECAR, id="the driver is not installed -> said"
        ),
        pytest.param(
            seen(ACCESS, after_s=BUSY_HEAL_AFTER_S, wrote_at=NOW + timedelta(seconds=58)),
            Reason.WAITING_FOR_SIDECAR,
            id="a sidecar at work has passed it over for a minute -> said",
        ),
        pytest.param(
            seen(told(ACCESS, "BucketAccessClassNotFound")),
            Reason.WAITING_FOR_SIDECAR,
            id="the class is there now -> no longer said to be missing",
        ),
        pytest.param(
            seen(told(GOING_ACCESS, "Granted", "True")),
            Reason.WAITING_FOR_SIDECAR,
            id="granted, being deleted -> said",
        ),
        pytest.param(
            seen(told(GOING, "WaitingForBucket"), access_class=None, bucket=READY),
            Reason.WAITING_FOR_SIDECAR,
            id="its class is gone, its Bucket names the driver -> said",
        ),
    ],
)
def test_what_is_reported(view: UnreportedView, reason: Reason) -> None:
    step = plan(view)
    assert isinstance(step, Done)
    assert isinstance(step.outcome, Terminal)
    assert step.report
    assert step.outcome.reason is reason
    if reason is Reason.WAITING_FOR_SIDECAR:
        assert DRIVER in step.outcome.message


def test_the_warning_about_a_released_copy_names_the_account_that_its_status_names() -> None:
    assert "did not revoke" not in released_message(GOING)
    assert "did not revoke account a-7, which its status names" in released_message(
        replace(GOING, account_id="a-7")
    )
