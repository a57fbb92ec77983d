"""An administrator removed a Bucket, a claim or a class by force, and users delete what is left."""

from typing import Any

import pytest
from tests.model.backend import Answer
from tests.model.hostile import HostileWorld
from tests.model.processes import MemoryEvents
from tests.model.scenes import (
    begin,
    bucket_of,
    key_works,
    remove_by_force,
    told,
)
from tests.model.test_keys_that_stay import DENIED, bind
from tests.model.world import (
    NAMESPACE,
    add_access,
    add_access_class,
    add_claim,
    add_class,
    add_static_bucket,
)

from cosi_operator.api.resources import (
    BUCKET_ACCESS_CLASSES,
    BUCKET_ACCESSES,
    BUCKET_CLAIMS,
    BUCKETS,
)
from cosi_operator.api.view import Key
from cosi_operator.kube.events import ObjectRef
from cosi_operator.outcome import Call, Code
from cosi_operator.plan import names


@pytest.fixture
def world() -> HostileWorld:
    return begin()


def grant_on_a_static_bucket(world: HostileWorld) -> str:
    """An access is granted on a static Bucket; returns the access's UID."""
    add_static_bucket(world)
    add_claim(world)
    add_access(world, "a1")
    world.run_until_idle(limit_s=30.0)
    return str(world.found(BUCKET_ACCESSES, "a1")["metadata"]["uid"])


@pytest.mark.parametrize("removed", [False, True], ids=["deleted", "removed by force"])
def test_what_was_given_up_of_an_earlier_bucket_is_not_given_up_of_the_next(
    world: HostileWorld, removed: bool
) -> None:
    uid = grant_on_a_static_bucket(world)
    world.backend.answers[Call.REVOKE_ACCESS] = DENIED
    remove_by_force(world, BUCKETS, Key("", bucket_of(world)))
    world.run_until_idle(limit_s=5.0)
    bind(world, "old", give_up=f"another-uid, {uid}")
    world.run_until_idle(limit_s=1800.0)
    assert world.ready(BUCKET_ACCESSES, "a1")[0] == "True"
    assert key_works(world, "a1")
    annotations = world.found(BUCKETS, "old")["metadata"]["annotations"]
    assert annotations[names.GIVE_UP_ANNOTATION] == "another-uid"
    world.backend.answers.clear()
    if removed:
        remove_by_force(world, BUCKET_ACCESSES, Key(NAMESPACE, "a1"))
    else:
        world.user_deletes(BUCKET_ACCESSES, "a1")
    world.run_until_idle(limit_s=1800.0)
    assert world.find(BUCKET_ACCESSES, "a1") is None
    assert world.backend.calls[-1].call is Call.REVOKE_ACCESS
    assert world.backend.calls[-1].bucket_id == "id-of-old"


def test_an_account_of_a_removed_bucket_is_told_when_the_namespace_accepts_no_events(
    world: HostileWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = grant_on_a_static_bucket(world)
    deliver = MemoryEvents.deliver

    async def refuse(self: MemoryEvents, about: ObjectRef, **event: Any) -> bool:
        """The API server refuses new objects in a namespace that is being deleted."""
        return about.namespace != NAMESPACE and await deliver(self, about, **event)

    world.backend.answers[Call.REVOKE_ACCESS] = DENIED
    remove_by_force(world, BUCKETS, Key("", bucket_of(world)))
    world.run_until_idle(limit_s=5.0)
    monkeypatch.setattr(MemoryEvents, "deliver", refuse)
    world.user_deletes(BUCKET_ACCESSES, "a1")
    world.run_until_idle(limit_s=60.0)
    bind(world, "old", give_up=uid)
    world.run_until_idle(limit_s=1800.0)
    assert world.find(BUCKET_ACCESSES, "a1") is None
    assert f"account acct-of-ba-{uid}" in told(world, "BackendUnverified")


@pytest.mark.parametrize("upstream", [False, True], ids=["our CRDs", "upstream's CRDs"])
@pytest.mark.parametrize("code", [Code.OK, Code.PERMISSION_DENIED], ids=["OK", "PERMISSION_DENIED"])
def test_an_access_whose_driver_nothing_names_any_more_is_released(
    upstream: bool, code: Code
) -> None:
    world = HostileWorld(upstream=upstream)
    add_class(world)
    add_access_class(world)
    add_claim(world)
    add_access(world, "a1")
    world.run_until_idle(limit_s=30.0)
    if code is not Code.OK:  # the last condition is about the deletion
        world.backend.answers[Call.REVOKE_ACCESS] = Answer(code, acts=False)
        world.user_deletes(BUCKET_ACCESSES, "a1")
        world.run_until_idle(limit_s=30.0)
    remove_by_force(world, BUCKETS, Key("", bucket_of(world)))
    world.run_until_idle(limit_s=30.0)
    remove_by_force(world, BUCKET_CLAIMS, Key(NAMESPACE, "photos"))
    world.run_until_idle(limit_s=30.0)
    world.restart("sidecar")
    world.user_deletes(BUCKET_ACCESS_CLASSES, "keys")
    world.run_until_idle(limit_s=100.0)
    world.user_deletes(BUCKET_ACCESSES, "a1")
    world.run_until_idle(limit_s=1200.0)
    assert world.find(BUCKET_ACCESSES, "a1") is None
    assert "did not revoke account" in told(world, "BackendUnverified")
