"""The world changes while a Grant is under way: another leader, or another Bucket."""

import pytest
from tests.model.backend import Answer
from tests.model.hostile import HostileWorld
from tests.model.pause import Point
from tests.model.processes import Run, Running
from tests.model.scenes import begin, bucket_of, key_works, remove_by_force, told, untold_accounts
from tests.model.test_keys_that_stay import bind
from tests.model.test_older_records import add_second_sidecar
from tests.model.world import NAMESPACE, add_access, add_claim, add_static_bucket, keys_in

from cosi_operator.api.core import SECRETS
from cosi_operator.api.resources import BUCKET_ACCESSES, BUCKETS
from cosi_operator.api.view import Key
from cosi_operator.outcome import Call, Code


@pytest.fixture
def world() -> HostileWorld:
    return begin()


@pytest.mark.parametrize("driver", ["one account", "an account each time", "keys replaced"])
@pytest.mark.parametrize("at", range(1, 20))
def test_a_leader_that_is_overtaken_anywhere_leaves_the_valid_keys(
    world: HostileWorld, at: int, driver: str
) -> None:
    """The second leader makes all its runs at one point of the first one's run."""
    world.backend.new_account_each_time = driver == "an account each time"
    world.backend.replaces_keys = driver == "keys replaced"
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    add_second_sidecar(world)
    points = 0

    def at_point(running: Running, run: Run, point: Point) -> None:
        nonlocal points
        if running.name != "sidecar" or run.runner.name != "bucketaccess":
            return
        points += 1
        if points == at:
            second = world.processes["second"]
            second.deliver()
            while (other := second.take()) is not None:
                world.finish(second, other)
                second.deliver()

    world.at_point = at_point
    add_access(world, "a1")
    world.run_until_idle(limit_s=600.0)
    assert world.ready(BUCKET_ACCESSES, "a1")[0] == "True"
    assert key_works(world, "a1")
    world.user_deletes(BUCKET_ACCESSES, "a1")
    world.run_until_idle(limit_s=1200.0)
    assert world.find(BUCKET_ACCESSES, "a1") is None
    assert world.find(SECRETS, "a1-secret") is None
    assert not untold_accounts(world)


@pytest.mark.parametrize("mint", [False, True], ids=["one account", "an account each time"])
def test_keys_of_a_bucket_that_was_replaced_during_their_grant_are_not_those_of_the_next(
    world: HostileWorld, mint: bool
) -> None:
    world.backend.new_account_each_time = mint
    add_static_bucket(world)
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    replaced: list[str] = []

    def at_point(running: Running, run: Run, point: Point) -> None:
        if point.verb == Call.GRANT_ACCESS and not point.before and not replaced:
            replaced.append(bucket_of(world))
            remove_by_force(world, BUCKETS, Key("", replaced[0]))
            bind(world, "old")

    world.at_point = at_point
    add_access(world, "a1")
    world.run_until_idle(limit_s=1200.0)
    assert replaced
    secret = world.api.get(SECRETS, Key(NAMESPACE, "a1-secret"))
    accounts = world.backend.accounts.values()
    assert [a.bucket_id for a in accounts if keys_in(secret) in a.keys] == ["id-of-old"]


def test_an_account_of_a_vanished_bucket_whose_id_never_came_is_told(world: HostileWorld) -> None:
    world.backend.new_account_each_time = True
    add_static_bucket(world)
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    world.backend.answers[Call.GRANT_ACCESS] = Answer(Code.INTERNAL)
    add_access(world, "a1")
    world.run_until_idle(limit_s=3.0)
    assert world.backend.accounts
    remove_by_force(world, BUCKETS, Key("", bucket_of(world)))
    world.run_until_idle(limit_s=2.0)
    world.backend.answers.clear()
    bind(world, "old")
    world.run_until_idle(limit_s=1200.0)
    assert world.ready(BUCKET_ACCESSES, "a1")[0] == "True"
    uid = world.found(BUCKET_ACCESSES, "a1")["metadata"]["uid"]
    assert uid in told(world, "BackendUnverified")
