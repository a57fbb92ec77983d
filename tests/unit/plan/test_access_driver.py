"""An access is revoked at the driver that holds its bucket, and at no other."""

import pytest
from msgspec.structs import replace
from tests.support.views import (
    DRIVER,
    GOING_ACCESS,
    KEYS_CLASS,
    RECORDED,
    STARTED,
    UNRECORDED,
    UP,
    meta,
)

from cosi_operator.api.record import BucketRecord
from cosi_operator.api.view import Bucket
from cosi_operator.outcome import Success
from cosi_operator.plan.access import plan
from cosi_operator.plan.access_view import AccessView
from cosi_operator.plan.steps import Done, Revoke

NOTHING = Done(Success(), report=False)


def seen(bucket: Bucket, class_driver: str = DRIVER) -> AccessView:
    return AccessView(
        access=meta(GOING_ACCESS, created="2020-01-01T00:00:00Z"),
        access_class=replace(KEYS_CLASS, driver_name=class_driver),
        claim=None,
        bucket=bucket,
        context=UP,
        bucket_proven=True,
    )


def recorded_by(driver: str) -> Bucket:
    record = RECORDED.record or BucketRecord()
    return replace(RECORDED, record=replace(record, driver=driver))


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(seen(RECORDED), id="our record -> revoked"),
        pytest.param(seen(recorded_by(DRIVER.upper())), id="our name in other letters -> revoked"),
        pytest.param(
            seen(RECORDED, "other.example.com"), id="the class names another driver -> revoked"
        ),
        pytest.param(
            seen(replace(RECORDED, driver_name="other.example.com")),
            id="spec.driverName was changed -> revoked",
        ),
    ],
)
def test_an_account_that_our_driver_made_is_revoked_by_it(view: AccessView) -> None:
    assert isinstance(plan(view), Revoke)


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(
            seen(recorded_by("other.example.com")),
            id="another driver's record -> no call",
        ),
        pytest.param(
            seen(replace(UNRECORDED, driver_name="other.example.com")),
            id="another driver's Bucket without a record, our class -> no call",
        ),
        pytest.param(
            seen(
                replace(STARTED, record=replace(STARTED.record or BucketRecord(), driver="other"))
            ),
            id="could be taken over, but the Bucket is another driver's -> no call",
        ),
    ],
)
def test_a_class_that_names_our_driver_does_not_point_us_at_the_bucket_of_another(
    view: AccessView,
) -> None:
    assert plan(view) == NOTHING
