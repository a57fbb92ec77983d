"""An account is revoked only if no other access can use it, and one that is left is told.

The other access may be older than the record, may be of a Bucket that vanished, or may leave the
account at the same moment.
"""

import json
import re
import shlex

import pytest
from tests.model.backend import Account, Answer
from tests.model.hostile import HostileWorld
from tests.model.memory import copy
from tests.model.pause import Point
from tests.model.processes import Run, Running
from tests.model.scenes import (
    advance,
    begin,
    begin_run,
    bucket_of,
    end_run,
    grants_whose_writes_are_lost,
    key_works,
    ready_of,
    remove_by_force,
    remove_record,
    rotate,
    start_both,
    stop_both,
    told,
    untold_accounts,
)
from tests.model.world import add_access, add_claim, add_static_bucket, record_of

from cosi_operator.api.core import SECRETS
from cosi_operator.api.resources import BUCKET_ACCESSES, BUCKET_CLAIMS, BUCKETS
from cosi_operator.api.view import Key
from cosi_operator.outcome import Call, Code
from cosi_operator.plan import names

OLD = Key("", "old")


@pytest.fixture
def world() -> HostileWorld:
    return begin()


def two_with_one_account(world: HostileWorld, *, static: bool = False) -> str:
    """Accesses a1 and a2 of one Bucket; returns its name."""
    world.backend.one_account_for_a_bucket = True
    if static:
        add_static_bucket(world)
        add_claim(world, existingBucketName="old")
    else:
        add_claim(world)
    add_access(world, "a1")
    add_access(world, "a2")
    world.run_until_idle(limit_s=30.0)
    assert len(world.backend.accounts) == 1
    return "old" if static else bucket_of(world)


def come_back_from_the_go_pair(world: HostileWorld, bucket: str) -> None:
    stop_both(world)
    remove_record(world, bucket)
    start_both(world)
    world.run_until_idle(limit_s=120.0)


def test_a_new_access_leaves_the_account_of_accesses_from_before_the_record(
    world: HostileWorld,
) -> None:
    come_back_from_the_go_pair(world, two_with_one_account(world))
    assert world.ready(BUCKET_ACCESSES, "a1")[1] == "AccountContested"
    add_access(world, "a3")
    world.run_until_idle(limit_s=120.0)
    assert world.ready(BUCKET_ACCESSES, "a3")[0] == "True"
    world.user_deletes(BUCKET_ACCESSES, "a3")
    world.run_until_idle(limit_s=600.0)
    assert world.find(BUCKET_ACCESSES, "a3") is None
    assert key_works(world, "a1")
    assert key_works(world, "a2")


@pytest.mark.parametrize("restored", [False, True], ids=["lost", "restored"])
def test_a_deleted_access_of_a_lost_bucket_keeps_the_account_of_a_live_one(
    world: HostileWorld, restored: bool
) -> None:
    name = two_with_one_account(world)
    before = copy(world.found(BUCKETS, name))
    remove_by_force(world, BUCKETS, Key("", name))
    world.run_until_idle(limit_s=60.0)
    if restored:
        meta = {k: before["metadata"][k] for k in ("finalizers", "annotations")}
        spec, status = before["spec"], before["status"]
        world.put(BUCKETS, "", name, metadata=meta, spec=spec, status=status)
    world.user_deletes(BUCKET_ACCESSES, "a2")
    world.run_until_idle(limit_s=600.0)
    assert key_works(world, "a1")


def test_a_namespace_that_is_created_again_gets_no_bucket_with_keys_from_before_the_record(
    world: HostileWorld,
) -> None:
    add_static_bucket(world)
    claim = {"protocols": ["S3"], "existingBucketName": "old"}
    world.put(BUCKET_CLAIMS, "drill", "x", spec=claim)
    access = {
        "bucketAccessClassName": "keys",
        "bucketClaimName": "x",
        "credentialsSecretName": "x-secret",
        "protocol": "S3",
    }
    world.put(BUCKET_ACCESSES, "drill", "x", spec=access)
    world.run_until_idle(limit_s=30.0)
    stop_both(world)
    remove_record(world, "old")
    remove_by_force(world, BUCKET_CLAIMS, Key("drill", "x"))
    world.start("sidecar")
    world.run_until_idle(limit_s=30.0, only="sidecar")
    record = record_of(world.found(BUCKETS, "old"))
    assert record is not None
    assert len(record.former) == 1
    world.processes["sidecar"].end()
    remove_by_force(world, BUCKET_ACCESSES, Key("drill", "x"))
    remove_by_force(world, SECRETS, Key("drill", "x-secret"))
    start_both(world)
    world.run_until_idle(limit_s=30.0)

    world.edit(BUCKETS, OLD, lambda body: body["spec"].update(bucketClaim={}))
    world.put(BUCKET_CLAIMS, "drill", "y", spec=claim)
    world.run_until_idle(limit_s=600.0)
    assert world.backend.accounts
    assert ready_of(world, BUCKET_CLAIMS, Key("drill", "y"))["reason"] == "BucketAlreadyBound"


def test_an_account_that_two_deleted_accesses_hold_in_memory_is_revoked(
    world: HostileWorld,
) -> None:
    world.backend.one_account_for_a_bucket = True
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    add_access(world, "a1")
    add_access(world, "a2")
    granted = grants_whose_writes_are_lost(world)
    world.run_until_idle(limit_s=0.5)
    assert len(granted) == 2
    for name in ("a1", "a2"):
        world.user_deletes(BUCKET_ACCESSES, name)
    world.at_point = lambda running, run, point: None
    world.clock.advance(60.0)
    world.processes["sidecar"].deliver()
    keys = [Key("team", name) for name in ("a1", "a2")]
    runs = [begin_run(world, "sidecar", "bucketaccess", key) for key in keys]
    while runs:
        runs = [run for run in runs if advance(run)]
    world.run_until_idle(limit_s=600.0)
    assert world.find(BUCKET_ACCESSES, "a1") is None
    assert world.find(BUCKET_ACCESSES, "a2") is None
    assert world.backend.accounts == {}


@pytest.mark.parametrize("second", ["rotates", "deleted"])
def test_an_account_that_two_accesses_leave_at_once_is_revoked(
    world: HostileWorld, second: str
) -> None:
    two_with_one_account(world)
    (shared,) = world.backend.accounts
    world.backend.one_account_for_a_bucket = False  # the driver was upgraded
    world.clock.advance(60.0)
    rotate(world, "a1")
    if second == "rotates":
        rotate(world, "a2")
    world.processes["sidecar"].deliver()
    one = begin_run(world, "sidecar", "bucketaccess", Key("team", "a1"))
    assert advance(one)  # the run has read what it plans with
    if second == "deleted":
        world.user_deletes(BUCKET_ACCESSES, "a2")
        world.processes["sidecar"].deliver()
    two = begin_run(world, "sidecar", "bucketaccess", Key("team", "a2"))
    assert advance(two)
    end_run(one)
    end_run(two)
    world.run_until_idle(limit_s=1200.0)
    assert shared not in world.backend.accounts
    assert key_works(world, "a1")
    assert key_works(world, "a2") == (second == "rotates")


def test_accesses_move_from_a_shared_account_to_accounts_of_their_own(world: HostileWorld) -> None:
    two_with_one_account(world)
    (shared,) = world.backend.accounts
    world.backend.one_account_for_a_bucket = False
    world.backend.new_account_each_time = True
    rotate(world, "a1")
    world.run_until_idle(limit_s=600.0)
    assert shared in world.backend.accounts
    assert key_works(world, "a2")
    rotate(world, "a2")
    world.run_until_idle(limit_s=600.0)
    assert len(world.backend.accounts) == 2
    assert shared not in world.backend.accounts


def test_the_last_of_two_accesses_with_one_account_revokes_it(world: HostileWorld) -> None:
    """The keys of a2 stay in memory, because another Secret has its name."""
    world.backend.one_account_for_a_bucket = True
    add_claim(world)
    add_access(world, "a1")
    world.run_until_idle(limit_s=30.0)
    taken: list[str] = []

    def at_point(_running: Running, _run: Run, point: Point) -> None:
        if point.driver and point.verb == Call.GRANT_ACCESS.value and not taken:
            taken.append("a2-secret")
            world.user_creates(SECRETS, "a2-secret", stringData={"x": "theirs"})

    world.at_point = at_point
    add_access(world, "a2")
    world.run_until_idle(limit_s=20.0)
    assert world.ready(BUCKET_ACCESSES, "a2") == ("False", "SecretNotOwned")
    world.user_deletes(BUCKET_ACCESSES, "a1")
    world.run_until_idle(limit_s=20.0)
    assert world.find(BUCKET_ACCESSES, "a1") is None
    world.restart("sidecar")
    world.run_until_idle(limit_s=20.0)
    world.user_deletes(BUCKET_ACCESSES, "a2")
    world.run_until_idle(limit_s=600.0)
    assert world.find(BUCKET_ACCESSES, "a2") is None
    assert world.backend.accounts == {}


def grant_as_the_go_pair(world: HostileWorld, bucket: str, *, shared: bool) -> None:
    """An access a5 with its account, key and Secret."""
    bucket_id = world.found(BUCKETS, bucket)["status"]["bucketID"]
    add_access(world, "a5")
    uid = world.found(BUCKET_ACCESSES, "a5")["metadata"]["uid"]
    account_id = f"acct-of-{bucket_id}" if shared else f"acct-of-ba-{uid}-go"
    account = Account(bucket_id, f"ba-{uid}", [], learned=True)
    world.backend.accounts.setdefault(account_id, account).keys.append("GOKEY")
    secret_s3 = {"endpoint": "", "region": "", "accessKeyID": "GOKEY", "accessSecretKey": "s3cret"}
    info = {
        "metadata": {"name": f"bc-{uid}"},
        "spec": {
            "bucketName": bucket,
            "authenticationType": "Key",
            "secretS3": secret_s3,
            "secretAzure": None,
            "protocols": ["S3"],
        },
    }
    world.put(
        SECRETS,
        "team",
        "a5-secret",
        metadata={"finalizers": [names.SECRET_FINALIZER]},
        stringData={"BucketInfo": json.dumps(info)},
    )
    key, held = Key("team", "a5"), {"finalizers": [names.ACCESS_FINALIZER]}
    status = {"accessGranted": True, "accountID": account_id}
    world.edit(BUCKET_ACCESSES, key, lambda body: body["metadata"].update(held))
    world.edit(BUCKET_ACCESSES, key, lambda body: body.update(status=status), status=True)


@pytest.mark.parametrize("shared", [False, True], ids=["an account each", "one account"])
def test_after_a_rollback_and_back_keys_work_and_each_account_is_revoked_or_told(
    world: HostileWorld, shared: bool
) -> None:
    """The Go pair deletes a1 and grants a5 meanwhile; the records stay."""
    world.backend.one_account_for_a_bucket = shared
    add_claim(world)
    add_access(world, "a1")
    add_access(world, "a2")
    world.run_until_idle(limit_s=30.0)
    stop_both(world)
    if not shared:
        world.backend.accounts.pop(world.found(BUCKET_ACCESSES, "a1")["status"]["accountID"])
    remove_by_force(world, SECRETS, Key("team", "a1-secret"))
    remove_by_force(world, BUCKET_ACCESSES, Key("team", "a1"))
    grant_as_the_go_pair(world, bucket_of(world), shared=shared)
    start_both(world)
    world.run_until_idle(limit_s=600.0)
    assert key_works(world, "a2")
    assert key_works(world, "a5")
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle(limit_s=600.0)
    assert world.find(BUCKET_CLAIMS, "photos") is None
    assert untold_accounts(world) == set()


def test_contested_accesses_that_are_deleted_at_once_are_told(world: HostileWorld) -> None:
    come_back_from_the_go_pair(world, two_with_one_account(world))
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle(limit_s=600.0)
    assert world.find(BUCKET_CLAIMS, "photos") is None
    assert untold_accounts(world) == set()


def printed_give_up(message: str) -> str:
    """The value that the command in the message gives to the annotation."""
    found = re.search(r"run: (kubectl annotate --overwrite bucket old \S+=\S+)", message)
    assert found, message
    name, _, value = shlex.split(found[1])[-1].partition("=")
    assert name == "objectstorage.k8s.io/give-up"
    return value


def test_a_former_account_whose_accesses_are_gone_is_told_and_ends_by_the_printed_command(
    world: HostileWorld,
) -> None:
    come_back_from_the_go_pair(world, two_with_one_account(world, static=True))
    (account,) = world.backend.accounts
    uids = {world.found(BUCKET_ACCESSES, name)["metadata"]["uid"] for name in ("a1", "a2")}
    for name in ("a1", "a2"):
        remove_by_force(world, BUCKET_ACCESSES, Key("team", name))
    world.run_until_idle(limit_s=600.0)
    assert untold_accounts(world) == set()

    world.user_deletes(BUCKET_CLAIMS, "photos")
    add_claim(world, "films", existingBucketName="old")
    world.run_until_idle(limit_s=600.0)
    message = ready_of(world, BUCKETS, OLD)["message"]
    assert f"Revoke account {account}" in message
    assert world.ready(BUCKET_CLAIMS, "films") == ("False", "BucketAlreadyBound")
    value = printed_give_up(message)
    assert set(value.split(",")) == uids

    notes = {names.GIVE_UP_ANNOTATION: value}
    world.edit(BUCKETS, OLD, lambda body: body["metadata"]["annotations"].update(notes))
    world.run_until_idle(limit_s=600.0)
    record = record_of(world.found(BUCKETS, "old"))
    assert record is not None
    assert record.former == {}
    world.edit(BUCKETS, OLD, lambda body: body["spec"].update(bucketClaim={}))
    world.run_until_idle(limit_s=600.0)
    assert world.ready(BUCKET_CLAIMS, "films")[0] == "True"


@pytest.mark.parametrize("claim", ["there", "lost"])
def test_a_status_that_is_forged_before_the_record_takes_no_account(
    world: HostileWorld, claim: str
) -> None:
    """docs/migrate.md, "Come back after a rollback", removes all records; a tenant waits for it."""
    add_static_bucket(world)
    add_claim(world, "photos", existingBucketName="old")
    add_access(world, "victim")
    world.run_until_idle(limit_s=30.0)
    account = world.found(BUCKET_ACCESSES, "victim")["status"]["accountID"]
    spec = {"protocols": ["S3"], "bucketClassName": "gold"}
    world.put(BUCKET_CLAIMS, "drill", "mine", spec=spec)
    world.run_until_idle(limit_s=30.0)
    stop_both(world)
    for body in world.api.list(BUCKETS):
        remove_record(world, body["metadata"]["name"])
    if claim == "lost":
        remove_by_force(world, BUCKET_CLAIMS, Key("team", "photos"))
    world.put(
        BUCKET_ACCESSES,
        "drill",
        "forged",
        metadata={"finalizers": [names.ACCESS_FINALIZER]},
        spec={
            "bucketAccessClassName": "keys",
            "bucketClaimName": "mine",
            "credentialsSecretName": "s",
            "protocol": "S3",
        },
        status={"accessGranted": True, "accountID": account},
    )
    start_both(world)
    world.run_until_idle(limit_s=120.0)
    world.api.delete(BUCKET_ACCESSES, Key("drill", "forged"))
    world.run_until_idle(limit_s=600.0)
    assert world.backend.count(Call.REVOKE_ACCESS) == 0
    assert key_works(world, "victim")


def test_the_uid_to_give_up_a_removed_access_is_told(world: HostileWorld) -> None:
    add_claim(world)
    add_access(world, "a1")
    world.run_until_idle(limit_s=30.0)
    uid = world.found(BUCKET_ACCESSES, "a1")["metadata"]["uid"]
    world.backend.answers[Call.REVOKE_ACCESS] = Answer(Code.INTERNAL, acts=False)
    remove_by_force(world, BUCKET_ACCESSES, Key("team", "a1"))
    world.run_until_idle(limit_s=60.0)
    name = bucket_of(world)
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle(limit_s=60.0)
    message = ready_of(world, BUCKETS, Key("", name))["message"]
    assert uid in message + told(world, "FailedRevokeAccess")
