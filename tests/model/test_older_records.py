"""Older, odd and unreadable records, and an API server that is set back.

A sidecar that runs restores what an older record lacks, and never undoes the edit of another
process. Nothing goes to another tenant meanwhile.
"""

from collections.abc import Callable
from typing import Any

import pytest
from tests.model.hostile import HostileWorld
from tests.model.memory import Json, copy
from tests.model.processes import start_controller, start_sidecar
from tests.model.scenes import (
    BOTH,
    apply_older,
    begin,
    begin_run,
    bucket_of,
    edit_record,
    end_run,
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
from tests.model.world import add_access, add_claim, add_static_bucket, keys_in, record_of

from cosi_operator.api.core import SECRETS
from cosi_operator.api.record import RECORD_ANNOTATION
from cosi_operator.api.resources import BUCKET_ACCESSES, BUCKET_CLAIMS, BUCKETS
from cosi_operator.api.view import Key
from cosi_operator.outcome import Call

OLD = Key("", "old")
PHOTOS = Key("team", "photos")
THIEF = Key("drill", "a-thief")


@pytest.fixture
def world() -> HostileWorld:
    return begin()


def add_granted(world: HostileWorld, *accesses: str) -> None:
    """A claim with these accesses; the driver creates an account at each Grant."""
    world.backend.new_account_each_time = True
    add_claim(world)
    for access in accesses:
        add_access(world, access)
    world.run_until_idle(limit_s=30.0)


# --- an older version of a Bucket


@pytest.mark.parametrize("running", [True, False], ids=["running", "away"])
def test_an_older_bucket_is_applied_after_a_rebind_and_the_data_stay(
    world: HostileWorld, running: bool
) -> None:
    add_static_bucket(world, policy="Delete")
    add_claim(world, existingBucketName="old")
    world.run_until_idle(limit_s=30.0)
    older = copy(world.found(BUCKETS, "old"))
    world.processes["controller"].end()
    remove_by_force(world, BUCKET_CLAIMS, PHOTOS)
    world.run_until_idle(limit_s=30.0, only="sidecar")
    world.start("controller")
    add_claim(world, existingBucketName="old")
    world.run_until_idle(limit_s=30.0)
    uid = world.found(BUCKET_CLAIMS, "photos")["metadata"]["uid"]
    bound = {"namespace": "team", "name": "photos", "uid": uid}
    world.edit(BUCKETS, OLD, lambda body: body["spec"].update(bucketClaim=bound))
    world.run_until_idle(limit_s=30.0)
    add_access(world, "a1")
    world.run_until_idle(limit_s=30.0)
    assert world.ready(BUCKET_ACCESSES, "a1")[0] == "True"

    if not running:
        stop_both(world)
    apply_older(world, older)
    if not running:
        start_both(world)
    world.run_until_idle(limit_s=300.0)
    world.user_deletes(BUCKETS, "old")
    world.run_until_idle(limit_s=300.0)
    assert world.backend.count(Call.DELETE_BUCKET) == 0
    assert world.ready(BUCKETS, "old")[1] == "BucketInUse"


@pytest.mark.parametrize("order", ["controller first", "sidecar first", "away"])
@pytest.mark.parametrize("with_access", [False, True], ids=["no access", "an access"])
def test_a_bucket_from_before_its_claim_goes_to_no_other_tenant(
    world: HostileWorld, order: str, with_access: bool
) -> None:
    add_static_bucket(world)
    world.run_until_idle(limit_s=30.0)
    older = copy(world.found(BUCKETS, "old"))
    add_claim(world, existingBucketName="old")
    if with_access:
        add_access(world)
    world.run_until_idle(limit_s=30.0)
    world.put(
        BUCKET_CLAIMS,
        THIEF.namespace,
        THIEF.name,
        spec={"protocols": ["S3"], "existingBucketName": "old"},
    )
    world.run_until_idle(limit_s=30.0)
    if order == "away":
        stop_both(world)
    apply_older(world, older)
    if order == "away":
        world.start("controller")
    if order != "sidecar first":
        world.processes["controller"].deliver()
        end_run(begin_run(world, "controller", "bucketclaim", THIEF))
    if order == "away":
        world.start("sidecar")
    world.run_until_idle(limit_s=600.0)
    assert ready_of(world, BUCKET_CLAIMS, THIEF)["reason"] == "BucketAlreadyBound"
    assert world.ready(BUCKET_CLAIMS, "photos")[0] == "True"


@pytest.mark.parametrize("what", ["no record", "an older record"])
def test_a_claim_is_deleted_right_after_its_bucket_lost_an_entry(
    world: HostileWorld, what: str
) -> None:
    add_claim(world)
    add_access(world, "a1")
    world.run_until_idle(limit_s=30.0)
    name = bucket_of(world)
    if what == "no record":
        remove_record(world, name)
    else:
        edit_record(world, name, lambda record: record.pop("accesses"))
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle(limit_s=3600.0)
    assert world.find(BUCKETS, name) is None
    assert world.find(BUCKET_CLAIMS, "photos") is None
    assert world.backend.accounts == {}


@pytest.fixture
def first_version(world: HostileWorld) -> Json:
    """A dynamic Bucket from before its first driver call; an access is granted meanwhile."""
    world.processes["sidecar"].end()
    world.backend.new_account_each_time = True
    add_claim(world)
    world.run_until_idle(limit_s=10.0, only="controller")
    older = copy(world.found(BUCKETS, bucket_of(world)))
    world.start("sidecar")
    add_access(world, "a1")
    world.run_until_idle(limit_s=30.0)
    older["metadata"].pop("finalizers", None)
    return older


def apply_first_version(world: HostileWorld, older: Json) -> None:
    apply_older(world, older)
    key = Key("", older["metadata"]["name"])
    world.edit(BUCKETS, key, lambda body: body["metadata"].pop("finalizers", None))


@pytest.mark.parametrize("running", [True, False], ids=["running", "away"])
@pytest.mark.parametrize("then", ["nothing", "the access is deleted"])
def test_the_first_version_of_a_bucket_is_applied_and_keys_work_or_are_told(
    world: HostileWorld, first_version: Json, running: bool, then: str
) -> None:
    if not running:
        world.processes["sidecar"].end()
    apply_first_version(world, first_version)
    if then != "nothing":
        world.user_deletes(BUCKET_ACCESSES, "a1")
    if not running:
        world.start("sidecar")
    world.run_until_idle(limit_s=1200.0)
    if then == "nothing":
        assert key_works(world, "a1")
        world.user_deletes(BUCKET_CLAIMS, "photos")
        world.run_until_idle(limit_s=1200.0)
        assert world.find(BUCKET_CLAIMS, "photos") is None
        assert world.backend.buckets == {}
    assert world.find(BUCKET_ACCESSES, "a1") is None
    assert untold_accounts(world) == set()


def test_the_first_version_of_a_bucket_is_applied_with_the_claim_deleted_and_its_data_are_told(
    world: HostileWorld, first_version: Json
) -> None:
    bucket_id = world.found(BUCKETS, first_version["metadata"]["name"])["status"]["bucketID"]
    apply_first_version(world, first_version)
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle(limit_s=1200.0)
    assert world.find(BUCKET_CLAIMS, "photos") is None
    assert bucket_id in world.backend.buckets.values()
    assert bucket_id in told(world, "BackendUnverified")


# --- two processes for one driver


def add_second_sidecar(world: HostileWorld) -> None:
    """As in a rolling update without leader election."""
    world.processes["second"] = start_sidecar(world.parts)
    world.processes["second"].name = "second"
    world.run_until_idle(limit_s=30.0)


def test_a_second_sidecar_does_not_undo_a_rotation(world: HostileWorld) -> None:
    add_granted(world, "a1")
    add_second_sidecar(world)
    rotate(world, "a1")
    world.run_until_idle(limit_s=600.0)
    assert world.backend.count(Call.GRANT_ACCESS) <= 3
    assert key_works(world, "a1")
    assert told(world, "RecordLost") == ""


def test_a_second_sidecar_does_not_undo_a_deletion(world: HostileWorld) -> None:
    add_granted(world, "a1")
    add_second_sidecar(world)
    world.user_deletes(BUCKET_ACCESSES, "a1")
    world.run_until_idle(limit_s=600.0)
    assert world.find(BUCKET_ACCESSES, "a1") is None
    assert world.backend.count(Call.REVOKE_ACCESS) <= 3
    assert world.backend.accounts == {}
    assert told(world, "RecordLost") == ""


def test_a_leader_that_was_paused_beyond_its_lease_changes_nothing(world: HostileWorld) -> None:
    add_granted(world, "a1", "a2")
    paused = start_sidecar(world.parts)
    paused.name = "paused"
    rotate(world, "a1")
    world.user_deletes(BUCKET_ACCESSES, "a2")
    world.run_until_idle(limit_s=600.0)
    calls = len(world.backend.calls)
    keys = keys_in(world.found(SECRETS, "a1-secret"))
    world.processes["paused"] = paused
    world.run_until_idle(limit_s=0.0, only="paused")
    world.processes.pop("paused").end()
    world.run_until_idle(limit_s=600.0)
    assert keys_in(world.found(SECRETS, "a1-secret")) == keys
    assert len(world.backend.calls) == calls


@pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
def test_two_controllers_bind_and_delete_without_undoing_each_other(
    world: HostileWorld, static: bool
) -> None:
    world.processes["second"] = start_controller(world.parts)
    world.processes["second"].name = "second"
    if static:
        add_static_bucket(world, policy="Delete")
        add_claim(world, existingBucketName="old")
    else:
        add_claim(world)
    add_access(world, "a1")
    world.run_until_idle(limit_s=60.0)
    assert world.ready(BUCKET_ACCESSES, "a1")[0] == "True"
    sent = len(world.sent)
    key = OLD if static else Key("", bucket_of(world))
    world.edit(BUCKETS, key, lambda body: body["spec"].update(bucketClaim={}))
    world.run_until_idle(limit_s=60.0)
    assert world.ready(BUCKET_CLAIMS, "photos")[0] == "True"
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle(limit_s=600.0)
    assert world.find(BUCKET_CLAIMS, "photos") is None
    assert world.backend.accounts == {}
    assert len(world.sent) - sent < 150
    assert world.violations == []


# --- records that a person edited

type Entry = dict[str, Any]

ODD: dict[str, Callable[[Entry], object]] = {
    "one empty account": lambda entry: entry.update(accounts=[""]),
    "an empty second account": lambda entry: entry["accounts"].append(""),
    "an empty first account": lambda entry: entry["accounts"].insert(0, ""),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("then", ["delete", "rotate", "nothing"])
def test_an_empty_id_in_a_record_is_never_sent(world: HostileWorld, odd: str, then: str) -> None:
    add_claim(world)
    add_access(world, "a1")
    world.run_until_idle(limit_s=30.0)
    uid = world.found(BUCKET_ACCESSES, "a1")["metadata"]["uid"]
    world.processes["sidecar"].end()
    edit_record(world, bucket_of(world), lambda record: ODD[odd](record["accesses"][uid]))
    world.start("sidecar")
    world.run_until_idle(limit_s=60.0)
    if then == "delete":
        world.user_deletes(BUCKET_ACCESSES, "a1")
    elif then == "rotate":
        rotate(world, "a1")
    world.run_until_idle(limit_s=600.0)
    assert world.violations == []  # among them: a call with an empty id
    assert len(world.backend.calls) <= 5


UNREADABLE: dict[str, Callable[[str], str]] = {
    "a trailing comma": lambda text: text[:-1] + ",}",
    "null": lambda text: "null",
    "a list of accesses": lambda text: text.replace('"accesses":', '"accesses":[],"a":', 1),
    "an entry without a name": lambda text: text.replace('"name":"a1",', "", 1),
    "accounts that are a string": lambda text: text.replace("[", "").replace("]", ""),
    "a field of a later version": lambda text: text.replace("{", '{"version":2,', 1),
}


@pytest.mark.parametrize("running", [True, False], ids=["running", "away"])
@pytest.mark.parametrize("what", UNREADABLE)
def test_an_unreadable_record_leaves_the_keys_and_no_account_is_untold(
    world: HostileWorld, what: str, running: bool
) -> None:
    add_granted(world, "a1")
    if not running:
        world.processes["sidecar"].end()

    def spoil(body: Json) -> None:
        notes = body["metadata"]["annotations"]
        text = UNREADABLE[what](notes[RECORD_ANNOTATION])
        assert text != notes[RECORD_ANNOTATION]
        notes[RECORD_ANNOTATION] = text

    world.edit(BUCKETS, Key("", bucket_of(world)), spoil)
    if not running:
        world.start("sidecar")
    world.run_until_idle(limit_s=300.0)
    assert key_works(world, "a1")
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle(limit_s=1200.0)
    assert world.find(BUCKET_CLAIMS, "photos") is None
    assert untold_accounts(world) == set()


# --- etcd is restored from a snapshot; the backend is newer


def change_later(world: HostileWorld, what: str) -> None:
    if what == "rotation":
        rotate(world, "a1")
    elif what == "deleted access":
        world.user_deletes(BUCKET_ACCESSES, "a1")
    elif what == "deleted claim":
        world.user_deletes(BUCKET_CLAIMS, "photos")
    elif what == "new claim":
        add_claim(world, "films")
        add_access(world, "f1", claim="films")
    else:
        add_access(world, "a2")


def unknown_accounts(world: HostileWorld) -> set[str]:
    """Live accounts that no record and no Warning names."""
    records = [r for r in map(record_of, world.api.list(BUCKETS)) if r]
    recorded = {a for r in records for entry in r.accesses.values() for a in entry.accounts}
    former = {account for r in records for account in r.former.values()}
    return untold_accounts(world) - recorded - former


@pytest.mark.parametrize("raised", [False, True], ids=["older revision", "raised revision"])
@pytest.mark.parametrize("restarted", [(), ("sidecar",), BOTH], ids=["none", "sidecar", "both"])
@pytest.mark.parametrize(
    "what", ["rotation", "deleted access", "deleted claim", "new claim", "new access"]
)
def test_etcd_is_set_back_and_running_processes_find_every_account(
    world: HostileWorld, what: str, restarted: tuple[str, ...], raised: bool
) -> None:
    """`raised`: as `etcdutl snapshot restore --bump-revision` does."""
    add_granted(world, "a1")
    snapshot = {key: copy(body) for key, body in world.api.objects.items()}
    version = world.api.version
    change_later(world, what)
    world.run_until_idle(limit_s=60.0)
    world.api.objects.clear()
    world.api.objects.update(snapshot)
    world.api.version = world.api.version + 1000 if raised else version
    for name, process in list(world.processes.items()):
        if name in restarted:
            world.restart(name)
        else:
            for kind in process.kinds:
                kind.relist(world.api)
    calls = len(world.backend.calls)
    world.run_until_idle(limit_s=3600.0)
    assert world.violations == []
    assert len(world.backend.calls) - calls < 10
    if not restarted:  # a new process can't know what was lost
        assert unknown_accounts(world) == set()
