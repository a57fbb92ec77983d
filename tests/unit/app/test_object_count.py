"""How an object stands, as the metrics count it."""

import pytest
from msgspec.structs import replace
from tests.support.views import BUCKET, GOING

from cosi_operator.api.view import Bucket, Condition
from cosi_operator.app.object_count import counted_as
from cosi_operator.metrics import State


def told(bucket: Bucket, *conditions: tuple[str, str, str]) -> Bucket:
    return replace(
        bucket,
        conditions=tuple(Condition(kind, status, reason) for kind, status, reason in conditions),
    )


READY = ("Ready", "True", "Provisioned")
FAILED = ("Ready", "False", "DriverInternal")


@pytest.mark.parametrize(
    ("bucket", "counted"),
    [
        pytest.param(told(BUCKET), (State.NEW, ""), id="nothing has been said yet"),
        pytest.param(told(BUCKET, READY), (State.READY, ""), id="ready needs no reason"),
        pytest.param(
            told(BUCKET, FAILED, ("Stalled", "True", "DriverInternal")),
            (State.STALLED, "DriverInternal"),
            id="final",
        ),
        pytest.param(
            told(BUCKET, FAILED, ("Reconciling", "True", "DriverInternal")),
            (State.RECONCILING, "DriverInternal"),
            id="tried again",
        ),
        pytest.param(told(GOING, READY), (State.DELETING, ""), id="going well"),
        pytest.param(
            told(GOING, FAILED), (State.DELETING, "DriverInternal"), id="a deletion that fails"
        ),
    ],
)
def test_an_object_is_counted_in_one_state(bucket: Bucket, counted: tuple[State, str]) -> None:
    assert counted_as(bucket) == counted
