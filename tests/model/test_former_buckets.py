"""A Bucket is restored just before its claim, and two watches bring the two."""

import pytest
from tests.model.hostile import HostileWorld
from tests.model.pause import Point
from tests.model.processes import DRIVER, Run, Running
from tests.model.scenes import begin, bucket_of, told
from tests.model.world import NAMESPACE, add_claim

from cosi_operator.api.v1alpha1 import BUCKET_CLAIMS, BUCKETS

FORMER = "bucket-of-an-earlier-claim"


@pytest.fixture
def world() -> HostileWorld:
    return begin()


def restore(world: HostileWorld) -> None:
    claim = {"namespace": NAMESPACE, "name": "photos", "uid": "earlier"}
    spec = {"driverName": DRIVER, "deletionPolicy": "Retain", "bucketClaim": claim}
    world.put(BUCKETS, "", FORMER, spec={"bucketClassName": "gold", "protocols": ["S3"], **spec})
    add_claim(world)


def test_a_bucket_that_comes_during_the_run_of_its_claim_is_not_replaced_by_an_empty_one(
    world: HostileWorld,
) -> None:
    restore(world)
    controller = world.processes["controller"]
    for kind in controller.kinds:
        while kind.resource is not BUCKETS and kind.inbox:
            kind.deliver_one()

    def at_point(running: Running, run: Run, point: Point) -> None:
        running.deliver()

    world.at_point = at_point
    world.run_until_idle(limit_s=60.0)
    assert world.ready(BUCKET_CLAIMS, "photos")[1] == "FormerBucketFound"
    assert not world.backend.buckets


def test_a_bucket_that_comes_after_the_new_one_is_told(world: HostileWorld) -> None:
    restore(world)
    controller = world.processes["controller"]
    for kind in controller.kinds:
        while kind.resource is not BUCKETS and kind.inbox:
            kind.deliver_one()
    while (run := controller.take()) is not None:
        world.finish(controller, run)
    world.run_until_idle(limit_s=60.0)
    assert world.ready(BUCKET_CLAIMS, "photos")[0] == "True"
    assert bucket_of(world) != FORMER
    assert f"Bucket {FORMER} belongs to an earlier BucketClaim" in told(world, "FormerBucketFound")
