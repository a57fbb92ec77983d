"""An account that a reply named is never forgotten: it is stored, revoked or told."""

import base64
from collections.abc import Callable
from datetime import timedelta

import pytest
from tests.model.backend import Answer
from tests.model.hostile import HostileWorld
from tests.model.memory import Json
from tests.model.scenes import (
    begin,
    bucket_of,
    edit_record,
    grants_whose_writes_are_lost,
    remove_by_force,
    rotate,
    told,
    untold_accounts,
)
from tests.model.world import add_access, add_claim

from cosi_operator.api.core import SECRETS
from cosi_operator.api.record import RECORD_ANNOTATION
from cosi_operator.api.resources import BUCKET_ACCESSES, BUCKET_CLAIMS, BUCKETS
from cosi_operator.api.view import Key
from cosi_operator.outcome import Call, Code
from cosi_operator.plan import names

A1 = Key("team", "a1")


@pytest.fixture
def world() -> HostileWorld:
    return begin()


@pytest.mark.parametrize("restarted", [False, True], ids=["runs on", "restarted"])
def test_accounts_that_a_deletion_learns_do_not_pile_up(
    world: HostileWorld, restarted: bool
) -> None:
    world.backend.new_account_each_time = True
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    world.backend.answers[Call.GRANT_ACCESS] = Answer(Code.INTERNAL, acts=False)
    add_access(world, "a1")
    world.run_until_idle(limit_s=10.0)
    world.backend.answers.clear()
    world.backend.answers[Call.REVOKE_ACCESS] = Answer(Code.INTERNAL, acts=False)
    world.user_deletes(BUCKET_ACCESSES, "a1")
    world.run_until_idle(limit_s=120.0)
    assert world.backend.count(Call.REVOKE_ACCESS) > 1
    if restarted:
        world.restart("sidecar")
        world.run_until_idle(limit_s=10.0)
    assert len(world.backend.accounts) == 1
    world.backend.answers.clear()
    world.run_until_idle(limit_s=3600.0)
    assert world.find(BUCKET_ACCESSES, "a1") is None
    assert world.backend.accounts == {}


@pytest.mark.parametrize("fault", ["Revoke is refused", "the driver is away"])
@pytest.mark.parametrize("again", [False, True], ids=["gone", "created again"])
def test_keys_in_memory_of_a_removed_access_are_revoked_or_told(
    world: HostileWorld, fault: str, again: bool
) -> None:
    world.backend.new_account_each_time = True
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    add_access(world, "a1")
    grants_whose_writes_are_lost(world)
    world.run_until_idle(limit_s=0.5)
    (account,) = world.backend.accounts
    world.at_point = lambda running, run, point: None
    remove_by_force(world, BUCKET_ACCESSES, A1)
    if again:
        add_access(world, "a1")
    if fault == "the driver is away":
        world.driver_goes()
    else:
        world.backend.answers[Call.REVOKE_ACCESS] = Answer(Code.INTERNAL, acts=False)
    world.run_until_idle(limit_s=60.0)
    world.backend.answers.clear()
    if fault == "the driver is away":
        world.driver_comes(new=False)
    world.run_until_idle(limit_s=3600.0)
    warned = told(world, "BackendUnverified")
    assert account not in world.backend.accounts or "ba-bucketaccess-a1-1" in warned


def test_an_unanswered_call_of_a_wrong_clock_does_not_stop_the_access(world: HostileWorld) -> None:
    """The clock was a year ahead when a Grant got no reply."""
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    world.processes["sidecar"].end()
    add_access(world, "a1")
    held = {"finalizers": [names.ACCESS_FINALIZER]}
    world.edit(BUCKET_ACCESSES, A1, lambda body: body["metadata"].update(held))
    uid = world.found(BUCKET_ACCESSES, "a1")["metadata"]["uid"]
    later = (world.clock.wall() + timedelta(days=365)).strftime("%Y-%m-%dT%H:%M:%SZ")
    entry = {
        "namespace": "team",
        "name": "a1",
        "className": "keys",
        "secret": "a1-secret",
        "unanswered": 1,
        "since": later,
        "last": later,
    }
    edit_record(world, bucket_of(world), lambda record: record.update(accesses={uid: entry}))
    world.start("sidecar")
    world.run_until_idle(limit_s=86400.0)
    assert world.ready(BUCKET_ACCESSES, "a1")[0] == "True"


@pytest.mark.parametrize(
    ("expires_in", "is_told"),
    [
        pytest.param(timedelta(hours=-1), True, id="expired at once -> told"),
        pytest.param(timedelta(days=90), False, id="expire later -> not told"),
    ],
)
def test_keys_that_are_expired_at_once_are_told(
    world: HostileWorld, expires_in: timedelta, is_told: bool
) -> None:
    world.backend.expiry = lambda: (world.clock.wall() + expires_in).strftime("%Y-%m-%dT%H:%M:%SZ")
    add_claim(world)
    add_access(world, "a1")
    world.run_until_idle(limit_s=86400.0)
    assert world.ready(BUCKET_ACCESSES, "a1")[0] == "True"
    assert ("is past by this sidecar's clock" in told(world, "KeysExpired")) == is_told
    assert world.backend.count(Call.GRANT_ACCESS) == 1


@pytest.mark.parametrize("size", [100_000, 300_000])
def test_a_huge_account_id_without_credentials_is_told_and_not_recorded(
    world: HostileWorld, size: int
) -> None:
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    world.backend.answers[Call.GRANT_ACCESS] = Answer(id="a" * size, no_credentials=True)
    add_access(world, "a1")
    world.run_until_idle(limit_s=60.0)
    record = world.found(BUCKETS, bucket_of(world))["metadata"]["annotations"][RECORD_ANNOTATION]
    assert len(record) < 50_000
    assert world.ready(BUCKET_ACCESSES, "a1") == ("False", "DriverMalformedReply")


@pytest.mark.parametrize("with_access", [True, False], ids=["an access", "no access"])
def test_a_stripped_bucket_whose_claim_is_deleted_at_once_is_told(
    world: HostileWorld, with_access: bool
) -> None:
    add_claim(world)
    if with_access:
        add_access(world, "a1")
    world.run_until_idle(limit_s=30.0)
    name = bucket_of(world)
    bucket_id = world.found(BUCKETS, name)["status"]["bucketID"]
    world.edit(BUCKETS, Key("", name), lambda body: body["metadata"].pop("finalizers"))
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle(limit_s=1200.0)
    assert world.find(BUCKET_CLAIMS, "photos") is None
    left = bucket_id in world.backend.buckets.values()
    assert not left or bucket_id in told(world, "BackendUnverified")


def write_other_info(body: Json) -> None:
    body["data"] = {"BucketInfo": base64.b64encode(b"null").decode()}


SPOIL: dict[str, Callable[[Json], object]] = {
    "immutable": lambda body: body.update(immutable=True),
    "other info": write_other_info,
    "no annotations": lambda body: body["metadata"].update(annotations={}),
    "no data": lambda body: body.pop("data"),
    "info that is no string": lambda body: body["data"].update(BucketInfo=5),
}


@pytest.mark.parametrize("spoil", SPOIL)
@pytest.mark.parametrize("then", ["delete", "rotate", "delete the claim"])
def test_an_access_whose_secret_is_spoilt_leaves_no_account(
    world: HostileWorld, spoil: str, then: str
) -> None:
    world.backend.new_account_each_time = True
    add_claim(world)
    add_access(world, "a1")
    world.run_until_idle(limit_s=30.0)
    world.edit(SECRETS, Key("team", "a1-secret"), SPOIL[spoil])
    if then == "rotate":
        rotate(world, "a1")
        world.run_until_idle(limit_s=600.0)
        assert len(world.backend.accounts) <= 2
    if then == "delete the claim":
        world.user_deletes(BUCKET_CLAIMS, "photos")
    else:
        world.user_deletes(BUCKET_ACCESSES, "a1")
    world.run_until_idle(limit_s=1200.0)
    assert world.find(BUCKET_ACCESSES, "a1") is None
    assert world.backend.accounts == {}
    assert untold_accounts(world) == set()
    secret = world.find(SECRETS, "a1-secret")
    assert secret is None or names.SECRET_FINALIZER not in secret["metadata"].get("finalizers", ())
