"""Backups of a Bucket, records that are started again, and a driver that returns during a run.

A bucket in use goes to no other tenant, no account that works is forgotten or revoked, and nothing
waits for ever.
"""

from collections.abc import Callable
from datetime import timedelta

import pytest
from tests.model.backend import Answer
from tests.model.hostile import DRILL, HostileWorld
from tests.model.memory import Json, copy
from tests.model.pause import Point
from tests.model.processes import Run, Running
from tests.model.scenes import (
    BOTH,
    apply_older,
    begin,
    bucket_of,
    edit_record,
    key_works,
    ready_of,
    remove_by_force,
    remove_record,
    rotate,
    told,
)
from tests.model.world import (
    NAMESPACE,
    add_access,
    add_claim,
    add_static_bucket,
    keys_in,
    record_of,
)

from cosi_operator.api.core import SECRETS
from cosi_operator.api.resources import BUCKET_ACCESSES, BUCKET_CLAIMS, BUCKETS
from cosi_operator.api.view import Key
from cosi_operator.kube.errors import ApiSilent, Conflict
from cosi_operator.outcome import Call, Code

OLD = Key("", "old")
THIEF = Key(DRILL, "a-thief")  # before `team/photos` in a list of the API server


@pytest.fixture
def world() -> HostileWorld:
    return begin()


def add_granted(world: HostileWorld, access: str, *, claim: str = "photos") -> None:
    add_access(world, access, claim=claim)
    world.run_until_idle(limit_s=60.0)
    assert world.ready(BUCKET_ACCESSES, access)[0] == "True"


# --- an older copy of a static Bucket, and another tenant's claim


def bind_after_backup(world: HostileWorld, saved: str) -> Json:
    """A backup of a free Bucket, which is bound and in use since; another tenant names it too."""
    add_static_bucket(world)
    if saved == "freed":
        add_claim(world, "earlier", existingBucketName="old")
        world.run_until_idle(limit_s=30.0)
        world.user_deletes(BUCKET_CLAIMS, "earlier")
        world.run_until_idle(limit_s=30.0)
        world.edit(BUCKETS, OLD, lambda body: body["spec"].pop("bucketClaim"))
    world.run_until_idle(limit_s=30.0)
    backup = copy(world.found(BUCKETS, "old"))
    add_claim(world, existingBucketName="old")
    world.run_until_idle(limit_s=30.0)
    add_granted(world, "a1")
    named = {"protocols": ["S3"], "existingBucketName": "old"}
    world.put(BUCKET_CLAIMS, THIEF.namespace, THIEF.name, spec=named)
    world.run_until_idle(limit_s=30.0)
    return backup


def check_only_the_owner_has_keys(world: HostileWorld) -> None:
    wanted = {
        "bucketAccessClassName": "keys",
        "bucketClaimName": THIEF.name,
        "credentialsSecretName": "stolen",
        "protocol": "S3",
    }
    world.put(BUCKET_ACCESSES, DRILL, "t1", spec=wanted)
    world.run_until_idle(limit_s=300.0)
    assert ready_of(world, BUCKET_CLAIMS, THIEF)["reason"] == "BucketAlreadyBound"
    assert world.api.find(SECRETS, Key(DRILL, "stolen")) is None
    assert world.ready(BUCKET_CLAIMS, "photos")[0] == "True"
    assert key_works(world, "a1")


@pytest.mark.parametrize("saved", ["freed", "unbound"])
@pytest.mark.parametrize("away", [BOTH, ("controller",)], ids=["both", "controller"])
def test_an_older_bucket_with_the_processes_away_goes_to_no_other_tenant(
    world: HostileWorld, saved: str, away: tuple[str, ...]
) -> None:
    backup = bind_after_backup(world, saved)
    for process in away:
        world.processes[process].end()
    apply_older(world, backup)
    in_order = sorted(world.api.objects.items(), key=lambda item: item[0])
    world.api.objects = dict(in_order)  # a start lists them so
    world.start("controller")
    world.run_until_idle(limit_s=10.0, only="controller")
    if "sidecar" in away:
        world.start("sidecar")
    world.run_until_idle(limit_s=60.0)
    check_only_the_owner_has_keys(world)


@pytest.mark.parametrize("saved", ["freed", "unbound"])
@pytest.mark.parametrize("running", [True, False], ids=["running", "away"])
def test_two_workers_of_the_controller_give_an_older_bucket_to_no_other_tenant(
    world: HostileWorld, saved: str, running: bool
) -> None:
    backup = bind_after_backup(world, saved)
    if not running:
        world.processes["sidecar"].end()
    apply_older(world, backup)
    controller = world.processes["controller"]
    controller.deliver()
    runs: list[Run] = []
    while run := controller.take():
        runs.append(run)
    for run in sorted(runs, key=lambda run: run.key != THIEF):
        world.finish(controller, run)
    if not running:
        world.start("sidecar")
    world.run_until_idle(limit_s=60.0)
    check_only_the_owner_has_keys(world)


# --- a record that is lost and started again


def restart_record(world: HostileWorld) -> Json:
    """A backup with many edits; the record is started again since, and a second access granted."""
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    add_granted(world, "a1")
    for token in ("1", "2", "3"):
        rotate(world, "a1", token)
        world.run_until_idle(limit_s=30.0)
    backup = copy(world.found(BUCKETS, bucket_of(world)))
    world.processes["sidecar"].end()
    remove_record(world, bucket_of(world))
    world.start("sidecar")
    world.run_until_idle(limit_s=60.0)
    add_granted(world, "a2")
    return backup


@pytest.mark.parametrize("minting", [False, True], ids=["one account", "an account each time"])
@pytest.mark.parametrize("then", ["nothing", "the access is deleted"])
def test_a_backup_from_before_the_record_was_started_again_hides_no_account(
    world: HostileWorld, minting: bool, then: str
) -> None:
    world.backend.new_account_each_time = minting
    backup = restart_record(world)
    apply_older(world, backup)
    if then != "nothing":
        world.user_deletes(BUCKET_ACCESSES, "a2")
    world.run_until_idle(limit_s=600.0)
    record = record_of(world.found(BUCKETS, bucket_of(world)))
    assert record is not None
    recorded = {account for entry in record.accesses.values() for account in entry.accounts}
    assert set(world.backend.accounts) <= recorded
    assert (world.find(BUCKET_ACCESSES, "a2") is None) == (then != "nothing")


def test_a_claim_is_deleted_with_all_accounts_after_a_backup_from_before_the_new_record(
    world: HostileWorld,
) -> None:
    backup = restart_record(world)
    name = bucket_of(world)
    apply_older(world, backup)
    world.run_until_idle(limit_s=60.0)
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle(limit_s=3600.0)
    assert world.find(BUCKETS, name) is None
    assert world.find(BUCKET_ACCESSES, "a2") is None
    assert world.backend.accounts == {}


def test_lost_parts_survive_a_removal_of_the_record_right_after(world: HostileWorld) -> None:
    world.backend.new_account_each_time = True
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    add_granted(world, "a1")
    backup = copy(world.found(BUCKETS, bucket_of(world)))
    add_granted(world, "a2")
    apply_older(world, backup)
    remove_record(world, bucket_of(world))
    world.run_until_idle(limit_s=120.0)
    assert len(world.backend.accounts) == 2
    for access in ("a1", "a2"):
        world.user_deletes(BUCKET_ACCESSES, access)
    world.run_until_idle(limit_s=120.0)
    assert world.backend.accounts == {}


def test_an_older_record_with_an_ended_access_revokes_no_live_account(world: HostileWorld) -> None:
    world.backend.one_account_for_a_bucket = True
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    add_granted(world, "a0")
    backup = copy(world.found(BUCKETS, bucket_of(world)))
    world.user_deletes(BUCKET_ACCESSES, "a0")
    world.run_until_idle(limit_s=30.0)
    add_granted(world, "a1")
    keys = keys_in(world.found(SECRETS, "a1-secret"))
    world.processes["sidecar"].end()
    apply_older(world, backup)
    world.start("sidecar")
    world.run_until_idle(limit_s=300.0)
    assert world.violations == []  # among them: a Revoke of an account whose access is alive
    assert keys in world.backend.live_keys()
    assert key_works(world, "a1")


def test_a_lost_entry_without_an_account_is_not_told_as_restored(world: HostileWorld) -> None:
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    world.backend.answers[Call.GRANT_ACCESS] = Answer(Code.INTERNAL)
    add_access(world, "a1")
    world.run_until_idle(limit_s=20.0)
    uid = world.found(BUCKET_ACCESSES, "a1")["metadata"]["uid"]
    remove_by_force(world, BUCKET_ACCESSES, Key(NAMESPACE, "a1"))
    edit_record(world, bucket_of(world), lambda record: record["accesses"].pop(uid))
    world.run_until_idle(limit_s=120.0)
    assert told(world, "RecordLost") == ""


@pytest.mark.parametrize("revision", [-5, 10**30, "7", None], ids=repr)
def test_an_odd_revision_stops_nothing(world: HostileWorld, revision: object) -> None:
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    add_granted(world, "a1")
    name = bucket_of(world)
    edit_record(world, name, lambda record: record.update(revision=revision))
    world.run_until_idle(limit_s=120.0)
    add_granted(world, "a2")
    rotate(world, "a1")
    world.run_until_idle(limit_s=120.0)
    assert key_works(world, "a1")
    assert key_works(world, "a2")
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle(limit_s=600.0)
    assert world.backend.accounts == {}
    assert world.find(BUCKETS, name) is None


# --- a claim is made anew while its Bucket is being deleted

FAULTS: dict[str, Callable[[], Exception] | None] = {
    "conflict": lambda: Conflict(409, "Conflict", "modified"),
    "no answer": lambda: ApiSilent("away"),
    "crash": None,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_claim_made_anew_does_not_stop_the_deletion_of_its_bucket(
    world: HostileWorld, fault: str
) -> None:
    """As `kubectl replace --force` does; the last write on the Bucket fails."""
    add_static_bucket(world, policy="Delete")
    add_claim(world, existingBucketName="old")
    world.run_until_idle(limit_s=30.0)
    failed: list[Point] = []

    def at_point(running: Running, _run: Run, point: Point) -> Exception | None:
        is_write = point.before and point.verb == "update" and point.what.startswith("buckets ")
        is_last = running.name == "sidecar" and world.find(BUCKET_CLAIMS, "photos") is None
        if failed or not is_write or not is_last:
            return None
        failed.append(point)
        add_claim(world, existingBucketName="old")
        if make := FAULTS[fault]:
            return make()
        world.restart("sidecar")
        return None

    world.at_point = at_point
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle(limit_s=3600.0)
    assert failed
    assert world.find(BUCKETS, "old") is None
    assert world.backend.count(Call.DELETE_BUCKET) > 0


def test_a_tenant_does_not_hold_the_deletion_of_a_bucket_for_ever(world: HostileWorld) -> None:
    """It takes the finalizer off its claim, and makes one anew that names the Bucket."""
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    name = bucket_of(world)
    world.backend.answers[Call.DELETE_BUCKET] = Answer(Code.INTERNAL, acts=False)
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle(limit_s=30.0)
    remove_by_force(world, BUCKET_CLAIMS, Key(NAMESPACE, "photos"))
    world.run_until_idle(limit_s=1.0)
    world.backend.answers.pop(Call.DELETE_BUCKET)
    add_claim(world, existingBucketName=name)
    world.run_until_idle(limit_s=3600.0)
    assert world.find(BUCKETS, name) is None
    assert world.backend.buckets == {}


# --- the driver returns during a run that began without it


def driver_comes_during_a_run(world: HostileWorld, *, new: bool = True) -> list[Point]:
    """It comes at the next point of the sidecar, which is returned once it is reached."""
    came: list[Point] = []

    def at_point(running: Running, _run: Run, point: Point) -> Exception | None:
        if running.name == "sidecar" and not came:
            came.append(point)
            world.driver_comes(new=new)
        return None

    world.at_point = at_point
    return came


@pytest.mark.parametrize("new", [True, False], ids=["new driver", "same driver"])
def test_a_rotation_that_begins_as_the_driver_returns_goes_on(
    world: HostileWorld, new: bool
) -> None:
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    add_granted(world, "a1")
    keys = keys_in(world.found(SECRETS, "a1-secret"))
    world.driver_goes()
    rotate(world, "a1")
    came = driver_comes_during_a_run(world, new=new)
    world.run_until_idle(limit_s=3600.0)
    assert came
    assert keys_in(world.found(SECRETS, "a1-secret")) != keys
    assert key_works(world, "a1")


def test_a_renewal_that_begins_as_the_driver_returns_goes_on(world: HostileWorld) -> None:
    hour = timedelta(hours=1)
    world.backend.expiry = lambda: (world.clock.wall() + hour).strftime("%Y-%m-%dT%H:%M:%SZ")
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    add_granted(world, "a1")
    grants = world.backend.count(Call.GRANT_ACCESS)
    world.driver_goes()
    came = driver_comes_during_a_run(world)
    world.clock.advance(2920.0)  # past the renewal, which is due after 4/5 of the hour
    world.run_until_idle(limit_s=7200.0)
    assert came
    assert world.backend.count(Call.GRANT_ACCESS) > grants
