"""A process whose first list is old meets what is long gone, and makes nothing for it."""

from collections.abc import Callable

import pytest
from msgspec.json import encode
from tests.model.memory import Json
from tests.model.world import (
    World,
    add_access,
    add_access_class,
    add_claim,
    add_class,
    add_static_bucket,
)

from cosi_operator.api.resources import BUCKET_ACCESSES, BUCKET_CLAIMS, BUCKETS
from cosi_operator.api.view import Resource
from cosi_operator.outcome import Call

KINDS = (BUCKET_CLAIMS, BUCKETS, BUCKET_ACCESSES)


def made_world() -> World:
    world = World()
    add_class(world)
    add_access_class(world)
    return world


def dynamic(world: World) -> None:
    add_claim(world)
    add_access(world)


def static(world: World) -> None:
    add_static_bucket(world)
    add_claim(world, existingBucketName="old")
    add_access(world)


def lived(live: Callable[[World], None], resource: Resource) -> tuple[World, list[Json]]:
    """A world in which all is over, and each form that the objects of one kind had in it."""
    world = made_world()
    forms: list[Json] = []
    world.api.listeners.append(
        lambda kind, what, body: forms.append(body) if kind is resource else None
    )
    live(world)
    world.run_until_idle()
    assert len(world.backend.accounts) == 1
    world.user_deletes(BUCKET_ACCESSES, "reader")
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle()
    assert not world.api.list(BUCKET_CLAIMS)
    return world, [form for form in forms if form["metadata"].get("finalizers")]


def count(world: World) -> int:
    """The calls that make something; to take back twice what is gone harms nobody."""
    return sum(
        called.call in (Call.CREATE_BUCKET, Call.GRANT_ACCESS) for called in world.backend.calls
    )


@pytest.mark.parametrize("name", ["controller", "sidecar"])
@pytest.mark.parametrize("resource", KINDS, ids=lambda kind: kind.plural)
@pytest.mark.parametrize("live", [dynamic, static])
def test_a_list_from_the_past_makes_nothing_again(
    live: Callable[[World], None], resource: Resource, name: str
) -> None:
    _, forms = lived(live, resource)
    for number in range(len(forms)):
        world, again = lived(live, resource)
        before, made = world.snapshot(), count(world)
        world.restart(name)
        (kind,) = [kind for kind in world.processes[name].kinds if kind.resource is resource]
        for key, old, new in kind.store.replace([encode(again[number])], "1"):
            kind.changed(key, old, new)
        world.run_until_idle()
        assert world.snapshot() == before, f"after form {number}: {again[number]}"
        assert count(world) == made


def test_a_bucket_does_not_go_before_an_access_that_an_old_list_lacks() -> None:
    world = made_world()
    dynamic(world)
    world.run_until_idle()
    assert len(world.backend.accounts) == 1
    world.restart("sidecar")
    (kind,) = [k for k in world.processes["sidecar"].kinds if k.resource is BUCKET_ACCESSES]
    for key, old, new in kind.store.replace([], "1"):
        kind.changed(key, old, new)
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle()
    assert not world.backend.accounts
    assert not world.backend.buckets
    assert not [world.api.list(resource) for resource in KINDS if world.api.list(resource)]
    assert world.check_settled() == []
