"""An object is deleted and created again with its name during a run for the former one."""

import pytest
from tests.model.hostile import HostileWorld
from tests.model.pause import Point
from tests.model.processes import DRIVER, Run, Running
from tests.model.scenes import begin, bucket_of
from tests.model.world import NAMESPACE, add_access, add_claim, add_static_bucket, keys_in

from cosi_operator.api.core import SECRETS
from cosi_operator.api.resources import (
    BUCKET_ACCESS_CLASSES,
    BUCKET_ACCESSES,
    BUCKET_CLAIMS,
    BUCKETS,
)
from cosi_operator.api.view import Key

# The requests of a run before the access has its finalizer.
REQUESTS = ["get bucketclaims", "dry-run secrets"]


@pytest.fixture
def world() -> HostileWorld:
    return begin()


def replace_after(world: HostileWorld, request: str, **spec: str) -> list[str]:
    """`kubectl replace --force` of access a1 after this request; returns what happened."""
    done: list[str] = []

    def at_point(running: Running, _run: Run, point: Point) -> None:
        if f"{point.verb} {point.what}".startswith(request) and not point.before and not done:
            done.append("replaced")
            world.user_deletes(BUCKET_ACCESSES, "a1")
            add_access(world, "a1", **spec)
            running.deliver()

    world.at_point = at_point
    return done


@pytest.mark.parametrize("request_", REQUESTS)
def test_an_access_that_was_replaced_during_a_run_gets_keys_to_the_bucket_of_its_claim(
    world: HostileWorld, request_: str
) -> None:
    add_claim(world)
    add_claim(world, "other")
    world.run_until_idle(limit_s=30.0)
    done = replace_after(world, request_, claim="other")
    add_access(world, "a1")
    world.run_until_idle(limit_s=600.0)
    assert done
    keys = keys_in(world.api.get(SECRETS, Key(NAMESPACE, "a1-secret")))
    granted = [a.bucket_id for a in world.backend.accounts.values() if keys in a.keys]
    assert granted == [f"id-of-{bucket_of(world, 'other')}"]


@pytest.mark.parametrize("request_", REQUESTS)
def test_an_access_that_was_replaced_during_a_run_gets_the_rights_of_its_class(
    world: HostileWorld, request_: str
) -> None:
    world.user_creates(
        BUCKET_ACCESS_CLASSES,
        "readonly",
        driverName=DRIVER,
        authenticationType="Key",
        parameters={"rights": "read"},
    )
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    done = replace_after(world, request_, bucketAccessClassName="readonly")
    add_access(world, "a1")
    world.run_until_idle(limit_s=600.0)
    assert done
    assert world.ready(BUCKET_ACCESSES, "a1")[0] == "True"
    assert [call.parameters for call in world.backend.calls if call.name.startswith("ba-")] == [
        {"rights": "read"}
    ]


def test_a_claim_replaced_during_its_run_gets_the_class_that_it_names(world: HostileWorld) -> None:
    """The policy of class `silver` is Retain."""
    done: list[str] = []

    def at_point(running: Running, run: Run, point: Point) -> None:
        is_hold = point.verb == "update" and point.what.startswith("bucketclaims")
        if running.name == "controller" and is_hold and point.before and not done:
            done.append("replaced")
            world.user_deletes(BUCKET_CLAIMS, "photos")
            add_claim(world, "photos", bucketClassName="silver")

    world.at_point = at_point
    add_claim(world)
    world.run_until_idle(limit_s=600.0)
    assert done
    assert world.found(BUCKETS, bucket_of(world))["spec"]["deletionPolicy"] == "Retain"


def test_a_claim_replaced_during_its_run_is_bound_to_the_bucket_that_it_names(
    world: HostileWorld,
) -> None:
    add_static_bucket(world)
    add_static_bucket(world, "old2")
    world.backend.buckets["old2"] = "id-of-old2"
    world.edit(BUCKETS, Key("", "old2"), lambda b: b["spec"].update(existingBucketID="id-of-old2"))
    add_claim(world, "earlier", existingBucketName="old")
    world.run_until_idle(limit_s=30.0)
    world.user_deletes(BUCKET_CLAIMS, "earlier")
    world.run_until_idle(limit_s=30.0)
    world.edit(BUCKETS, Key("", "old"), lambda b: b["spec"].update(bucketClaim={}))
    world.run_until_idle(limit_s=30.0)
    done: list[str] = []

    def at_point(running: Running, run: Run, point: Point) -> None:
        is_holder = point.verb == "get" and "earlier" in point.what
        if running.name == "controller" and is_holder and point.before and not done:
            done.append("replaced")
            world.user_deletes(BUCKET_CLAIMS, "photos")
            add_claim(world, existingBucketName="old2")
            running.deliver()

    world.at_point = at_point
    add_claim(world, existingBucketName="old")
    world.run_until_idle(limit_s=600.0)
    assert done
    assert world.found(BUCKET_CLAIMS, "photos")["status"]["bucketName"] == "old2"
