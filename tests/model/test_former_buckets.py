"""Buckets of earlier claims: watches have no common order, and one may be silent."""

import pytest
from tests.model.hostile import HostileWorld
from tests.model.pause import Point
from tests.model.processes import DRIVER, Run, Running
from tests.model.scenes import begin, bucket_of, told
from tests.model.world import NAMESPACE, add_access, add_claim, add_static_bucket

from cosi_operator.api.resources import BUCKET_ACCESSES, BUCKET_CLAIMS, BUCKETS
from cosi_operator.outcome import Call

FORMER = "bucket-of-an-earlier-claim"


@pytest.fixture
def world() -> HostileWorld:
    return begin()


def test_no_keys_of_an_earlier_claims_bucket_are_granted(world: HostileWorld) -> None:
    """The sidecar's watch of claims is half-open while a claim is replaced by one of its name."""
    add_static_bucket(world)
    add_claim(world, existingBucketName="old")
    world.run_until_idle(limit_s=30.0)
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle(limit_s=30.0, only="controller")
    assert world.find(BUCKET_CLAIMS, "photos") is None
    add_claim(world)
    add_access(world, "a1")
    sidecar = world.processes["sidecar"]

    def deliver_accesses() -> None:
        for kind in sidecar.kinds:
            while kind.resource is BUCKET_ACCESSES and kind.inbox:
                kind.deliver_one()

    deliver_accesses()
    while (run := sidecar.take()) is not None:
        world.finish(sidecar, run)
        deliver_accesses()
    world.run_until_idle(limit_s=600.0)
    granted = [called for called in world.backend.calls if called.call is Call.GRANT_ACCESS]
    assert "id-of-old" not in [called.bucket_id for called in granted]


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
