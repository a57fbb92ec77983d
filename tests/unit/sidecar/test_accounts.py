"""How many accounts a BucketAccess can have, and what happens if a driver returns one for two."""

import pytest
from tests.model.backend import Answer
from tests.model.hostile import record_of
from tests.model.memory import Json
from tests.model.world import (
    World,
    add_access,
    add_access_class,
    add_claim,
    add_class,
    keys_in,
)

from cosi_operator.api.core import SECRETS
from cosi_operator.api.v1alpha1 import BUCKET_ACCESSES, BUCKETS
from cosi_operator.outcome import Call, Code
from cosi_operator.plan import names

HOUR_S = 3600.0
BOTH = ("reader", "writer")


@pytest.fixture
def world() -> World:
    made = World()
    add_class(made)
    add_access_class(made)
    add_claim(made)
    return made


def rotate(world: World, token: str) -> None:
    def annotate(body: Json) -> None:
        body["metadata"].setdefault("annotations", {})[names.ROTATE_ANNOTATION] = token

    world.user_edits(BUCKET_ACCESSES, "reader", annotate)


def events(world: World, reason: str) -> list[str]:
    return [told.message for told in world.parts.told if told.reason == reason]


# --- a rotation on a driver that makes an account for each Grant


def test_revoke_fails_for_hours_and_a_rotation_still_makes_one_account(world: World) -> None:
    world.backend.new_account_each_time = True
    add_access(world)
    world.run_until_idle()
    world.backend.answers[Call.REVOKE_ACCESS] = Answer(Code.INTERNAL, acts=False)
    for token in ("1", "2", "3"):  # the owner loses patience
        rotate(world, token)
        world.run_until_idle(limit_s=2 * HOUR_S)
    assert world.backend.count(Call.GRANT_ACCESS) == 2
    assert len(world.backend.accounts) == 2
    secret = keys_in(world.found(SECRETS, "reader-secret"))
    assert secret in world.backend.live_keys()
    world.backend.answers.clear()
    world.run_until_idle()
    assert world.check_settled() == []
    assert world.ready(BUCKET_ACCESSES, "reader") == ("True", "Granted")
    assert world.backend.count(Call.GRANT_ACCESS) == 3  # for the last token, after the Revoke
    assert world.backend.live_keys() == {keys_in(world.found(SECRETS, "reader-secret"))}


# --- one account for several accesses


@pytest.fixture
def shared(world: World) -> World:
    world.backend.one_account_for_a_bucket = True
    for name in BOTH:
        add_access(world, name)
    world.run_until_idle()
    return world


def test_one_account_for_two_accesses_is_reported_and_both_work(shared: World) -> None:
    assert [shared.ready(BUCKET_ACCESSES, name) for name in BOTH] == [("True", "Granted")] * 2
    (text,) = events(shared, "AccountShared")
    assert "acct-of-id-of-bucket" in text
    assert "cluster administrator" in text
    assert shared.check_settled() == []


@pytest.mark.parametrize("restart", [False, True], ids=["same process", "after a restart"])
def test_deleting_one_of_them_revokes_nothing_and_deleting_the_last_one_does(
    shared: World, restart: bool
) -> None:
    if restart:
        shared.restart("sidecar")
    shared.user_deletes(BUCKET_ACCESSES, "reader")
    shared.run_until_idle()
    assert shared.backend.count(Call.REVOKE_ACCESS) == 0
    assert shared.check_settled() == []
    (text,) = events(shared, "BackendUnverified")
    assert text.startswith("Account acct-of-id-of-bucket")
    assert keys_in(shared.found(SECRETS, "writer-secret")) in shared.backend.live_keys()
    shared.user_deletes(BUCKET_ACCESSES, "writer")
    shared.run_until_idle()
    assert shared.backend.accounts == {}


@pytest.mark.parametrize("first", BOTH)
def test_deleted_together_the_account_is_revoked(shared: World, first: str) -> None:
    for name in (first, *(set(BOTH) - {first})):
        shared.user_deletes(BUCKET_ACCESSES, name)
    shared.run_until_idle()
    assert shared.backend.accounts == {}
    assert shared.api.list(BUCKET_ACCESSES) == []


def test_a_rotation_of_one_of_them_revokes_nothing(shared: World) -> None:
    shared.backend.one_account_for_a_bucket = False
    shared.backend.new_account_each_time = True
    rotate(shared, "1")
    shared.run_until_idle()
    assert shared.backend.count(Call.REVOKE_ACCESS) == 0
    (bucket,) = shared.api.list(BUCKETS)
    record = record_of(bucket)
    assert record is not None
    assert sorted(len(entry.accounts) for entry in record.accesses.values()) == [1, 1]
    assert shared.check_settled() == []


def test_a_removed_secret_of_one_of_them_revokes_nothing(shared: World) -> None:
    shared.user_edits(SECRETS, "reader-secret", lambda b: b["metadata"].pop("finalizers", None))
    shared.user_deletes(SECRETS, "reader-secret")
    shared.user_retries(BUCKET_ACCESSES, "reader", "1")
    shared.run_until_idle()
    assert shared.backend.count(Call.REVOKE_ACCESS) == 0
    assert keys_in(shared.found(SECRETS, "reader-secret")) in shared.backend.live_keys()
    assert shared.check_settled() == []
