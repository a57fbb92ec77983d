"""An access is revoked at the driver that holds its bucket, and at no other."""

from msgspec.structs import replace
from tests.support.views import ACCESS, BUCKET, DRIVER, KEYS_CLASS, UP, meta

from cosi_operator.plan import names
from cosi_operator.plan.access import AccessView, plan
from cosi_operator.plan.steps import EditFinalizers, Revoke, SecretIs

GOING = replace(
    meta(
        ACCESS,
        deleting=True,
        finalizers=(names.ACCESS_FINALIZER,),
        annotations={names.DRIVER_ANNOTATION: DRIVER, names.BUCKET_ID_ANNOTATION: "id-7"},
    ),
    granted=True,
    account_id="acct-7",
)


def seen(bucket_driver: str) -> AccessView:
    return AccessView(
        access=GOING,
        access_class=KEYS_CLASS,
        claim=None,
        bucket=replace(BUCKET, driver_name=bucket_driver, ready=True, bucket_id="id-7"),
        context=UP,
        secret=SecretIs(exists=False),
    )


def test_an_annotation_that_names_our_driver_does_not_point_us_at_the_bucket_of_another() -> None:
    assert isinstance(plan(seen(DRIVER)), Revoke)
    assert isinstance(plan(seen(DRIVER.upper())), Revoke)
    assert isinstance(plan(seen("other.example.com")), EditFinalizers)
