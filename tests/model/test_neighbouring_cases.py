"""Cases beside those that were mended for an attack, found by a tester with fresh eyes."""

from typing import Any

import pytest
from tests.model.backend import Answer
from tests.model.hostile import HostileWorld
from tests.model.memory import Json, copy
from tests.model.pause import Point
from tests.model.processes import DRIVER, Run, Running
from tests.model.world import (
    World,
    add_access,
    add_access_class,
    add_claim,
    add_class,
    add_static_bucket,
    record_of,
)

from cosi_operator.api.core import SECRETS
from cosi_operator.api.resources import (
    BUCKET_ACCESS_CLASSES,
    BUCKET_ACCESSES,
    BUCKET_CLAIMS,
    BUCKETS,
)
from cosi_operator.api.view import Key
from cosi_operator.outcome import Call, Code
from cosi_operator.plan import names

PHOTOS = Key("team", "photos")
DYNAMIC = "bucket-bucketclaim-photos-1"
FOREIGN = "example.com/mine"


@pytest.fixture
def world() -> HostileWorld:
    world = HostileWorld()
    add_class(world)
    add_class(world, "silver", policy="Retain")
    add_access_class(world)
    return world


def messages(world: World, reason: str) -> list[str]:
    return [told.message for told in world.parts.told if told.reason == reason]


def reason_of(body: Json) -> str:
    found = [c["reason"] for c in body["status"]["conditions"] if c["type"] == "Ready"]
    return str(found[0])


def static_spec(bucket_id: str) -> Json:
    return {
        "driverName": DRIVER,
        "bucketClassName": "gold",
        "deletionPolicy": "Delete",
        "protocols": ["S3"],
        "existingBucketID": bucket_id,
        "bucketClaim": {},
    }


def test_a_static_bucket_that_was_never_ready_deletes_no_data_of_another(
    world: HostileWorld,
) -> None:
    add_claim(world)
    world.run_until_idle()
    world.processes["sidecar"].end()
    held = {"finalizers": [names.BUCKET_FINALIZER]}
    world.put(BUCKETS, "", "typo", metadata=held, spec=static_spec(f"id-of-{DYNAMIC}"))
    world.user_deletes(BUCKETS, "typo")
    world.start("sidecar")
    world.run_until_idle()
    assert world.find(BUCKETS, "typo") is None
    assert world.backend.count(Call.DELETE_BUCKET) == 0
    assert world.ready(BUCKET_CLAIMS, "photos")[0] == "True"


def test_a_changed_bucket_id_that_is_ignored_keeps_no_other_data(world: HostileWorld) -> None:
    add_static_bucket(world)
    add_claim(world, "films", existingBucketName="old")
    add_claim(world)
    world.run_until_idle()
    other = f"id-of-{DYNAMIC}"
    world.user_edits(BUCKETS, "old", lambda b: b["spec"].update(existingBucketID=other))
    world.run_until_idle()
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle()
    assert [c.bucket_id for c in world.backend.calls if c.call is Call.DELETE_BUCKET] == [other]


@pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
def test_a_bucket_that_is_bound_by_hand_is_not_released(world: HostileWorld, static: bool) -> None:
    """The controller is away, so only the Bucket's own run can say that the new claim exists."""
    if static:
        add_static_bucket(world)
        add_claim(world, existingBucketName="old")
    else:
        add_claim(world, bucketClassName="silver")
    world.run_until_idle()
    name = "old" if static else DYNAMIC
    before = copy(world.found(BUCKET_CLAIMS, "photos"))
    world.processes["controller"].end()
    world.edit(BUCKET_CLAIMS, PHOTOS, lambda body: body["metadata"].pop("finalizers"))
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle(only="sidecar")
    assert reason_of(world.found(BUCKETS, name)) == "Released"
    held = {"finalizers": before["metadata"]["finalizers"]}
    world.put(
        BUCKET_CLAIMS, "team", "photos", metadata=held, spec=before["spec"], status=before["status"]
    )
    uid = world.found(BUCKET_CLAIMS, "photos")["metadata"]["uid"]
    claim = {"namespace": "team", "name": "photos", "uid": uid}
    world.edit(BUCKETS, Key("", name), lambda body: body["spec"].update(bucketClaim=claim))
    world.run_until_idle(only="sidecar")
    assert reason_of(world.found(BUCKETS, name)) == "Provisioned"
    world.start("controller")


@pytest.mark.parametrize("how", ["taken", "refused"])
def test_a_shared_account_whose_keys_can_not_be_stored_says_so(
    world: HostileWorld, how: str
) -> None:
    world.backend.one_account_for_a_bucket = True
    add_claim(world)
    add_access(world, "a1")
    world.run_until_idle()
    spoilt: list[str] = []

    def at_point(_running: Running, _run: Run, point: Point) -> None:
        if spoilt or point.verb != Call.GRANT_ACCESS.value:
            return
        spoilt.append(how)
        if how == "taken":
            world.user_creates(SECRETS, "a2-secret", stringData={"x": "theirs"})
        else:
            world.api.refused_secrets.add("a2-secret")

    world.at_point = at_point
    add_access(world, "a2")
    world.run_until_idle(limit_s=20.0)
    assert spoilt
    expected = {"taken": "SecretNotOwned", "refused": "SecretRefused"}[how]
    assert world.ready(BUCKET_ACCESSES, "a2") == ("False", expected)


def test_a_class_that_is_changed_before_the_grant_is_used_and_recorded(
    world: HostileWorld,
) -> None:
    two: dict[str, Any] = {"driverName": DRIVER, "authenticationType": "Key"}
    world.user_creates(BUCKET_ACCESS_CLASSES, "two", **two, parameters={"two": "2"})
    add_claim(world)
    world.run_until_idle()
    world.backend.answers[Call.GRANT_ACCESS] = Answer(Code.INTERNAL, acts=False)
    add_access(world, "a1")
    world.run_until_idle(limit_s=5.0)
    world.user_edits(
        BUCKET_ACCESSES, "a1", lambda body: body["spec"].update(bucketAccessClassName="two")
    )
    world.backend.answers.clear()
    world.run_until_idle()
    access = world.found(BUCKET_ACCESSES, "a1")
    assert [c["type"] for c in access["status"]["conditions"]] == ["Ready"]
    record = record_of(world.found(BUCKETS, DYNAMIC))
    assert record is not None
    assert record.accesses[access["metadata"]["uid"]].class_name == "two"


@pytest.mark.parametrize("kind", ["access", "bucket", "claim"])
def test_what_was_never_ready_and_a_foreign_finalizer_keeps_says_that_it_is_over(
    world: HostileWorld, kind: str
) -> None:
    call = Call.GRANT_ACCESS if kind == "access" else Call.CREATE_BUCKET
    world.backend.answers[call] = Answer(Code.INTERNAL)
    add_claim(world)
    if kind == "access":
        add_access(world, "a1")
    world.run_until_idle(limit_s=5.0)
    resource, key, claim = {
        "access": (BUCKET_ACCESSES, Key("team", "a1"), False),
        "bucket": (BUCKETS, Key("", DYNAMIC), True),
        "claim": (BUCKET_CLAIMS, PHOTOS, True),
    }[kind]
    world.edit(resource, key, lambda body: body["metadata"]["finalizers"].append(FOREIGN))
    world.user_deletes(BUCKET_CLAIMS if claim else resource, "photos" if claim else key.name)
    world.run_until_idle(limit_s=5.0)
    world.backend.answers.clear()
    world.run_until_idle()
    body = world.found(resource, key.name)
    assert body["metadata"]["finalizers"] == [FOREIGN]
    assert reason_of(body) == ("Revoked" if kind == "access" else "BeingDeleted")


@pytest.mark.parametrize("deleted", [True, False], ids=["deleted", "retried"])
def test_a_guessed_account_is_not_said_to_be_revoked(world: HostileWorld, deleted: bool) -> None:
    add_claim(world)
    world.run_until_idle()
    world.backend.answers[Call.GRANT_ACCESS] = Answer(Code.INTERNAL, id="acct-hidden")
    add_access(world, "a1")
    world.run_until_idle(limit_s=2.0)
    world.backend.answers[Call.GRANT_ACCESS] = Answer(Code.ALREADY_EXISTS, acts=False)
    if deleted:
        world.user_deletes(BUCKET_ACCESSES, "a1")
    else:
        world.run_until_idle()
        world.user_retries(BUCKET_ACCESSES, "a1", "1")
    world.run_until_idle()
    assert "acct-hidden" in world.backend.accounts
    assert messages(world, "AccessRevoked") == []
    assert messages(world, "BackendUnverified")


@pytest.mark.parametrize("policy", ["Delete", "Retain"])
def test_data_stay_while_another_bucket_of_the_id_waits_or_keeps_them(
    world: HostileWorld, policy: str
) -> None:
    add_claim(world)
    world.run_until_idle()
    bucket_id = f"id-of-{DYNAMIC}"
    world.put(BUCKETS, "", "a-twin", spec=static_spec(bucket_id))
    add_claim(world, "twin", existingBucketName="a-twin")
    add_access(world, "a1", claim="twin")
    world.run_until_idle()
    world.backend.answers[Call.REVOKE_ACCESS] = Answer(Code.INTERNAL, acts=False)
    world.user_deletes(BUCKET_CLAIMS, "twin")
    world.run_until_idle(limit_s=5.0)
    world.user_edits(BUCKETS, "a-twin", lambda body: body["spec"].update(deletionPolicy=policy))
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle(limit_s=30.0)
    assert world.backend.count(Call.DELETE_BUCKET) == 0
    world.backend.answers.clear()
    world.run_until_idle()
    assert world.find(BUCKETS, "a-twin") is None
    assert world.backend.count(Call.DELETE_BUCKET) == (1 if policy == "Delete" else 0)


@pytest.mark.parametrize("class_name", ["gold", "silver"], ids=["Delete", "Retain"])
def test_a_claim_that_is_lost_and_restored_in_a_gap_of_the_watch_keeps_its_data(
    world: HostileWorld, class_name: str
) -> None:
    add_claim(world, bucketClassName=class_name)
    world.run_until_idle()
    world.edit(BUCKET_CLAIMS, PHOTOS, lambda body: body["metadata"].pop("finalizers"))
    world.user_deletes(BUCKET_CLAIMS, "photos")
    add_claim(world, bucketClassName=class_name)
    for kind in world.processes["controller"].kinds:
        kind.relist(world.api)
    world.run_until_idle()
    assert list(world.backend.buckets.values()) == [f"id-of-{DYNAMIC}"]
    assert world.ready(BUCKET_CLAIMS, "photos") == ("False", "FormerBucketFound")
