"""An access is deleted and created again with its name during a run for the former one."""

import pytest
from tests.model.hostile import HostileWorld
from tests.model.pause import Point
from tests.model.processes import DRIVER, Run, Running
from tests.model.scenes import begin, bucket_of
from tests.model.world import NAMESPACE, add_access, add_claim, keys_in

from cosi_operator.api.core import SECRETS
from cosi_operator.api.resources import BUCKET_ACCESS_CLASSES, BUCKET_ACCESSES
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
