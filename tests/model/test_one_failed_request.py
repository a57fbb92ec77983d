"""One request of a run fails, or lands late: keys stay valid, accounts known, and reports true."""

from datetime import timedelta

import pytest
from tests.model.backend import Answer
from tests.model.hostile import HostileWorld
from tests.model.pause import Point
from tests.model.processes import Run, Running
from tests.model.scenes import begin, bucket_of, key_works, rotate, untold_accounts
from tests.model.world import (
    add_access,
    add_claim,
)

from cosi_operator.api.core import SECRETS
from cosi_operator.api.resources import (
    BUCKET_ACCESS_CLASSES,
    BUCKET_ACCESSES,
    BUCKET_CLAIMS,
    BUCKETS,
)
from cosi_operator.kube.errors import ApiSilent, Conflict, ServerError
from cosi_operator.outcome import Call, Code


@pytest.fixture
def world() -> HostileWorld:
    return begin()


# --- a Secret with keys of another Grant


@pytest.mark.parametrize("fault", ["500", "silent", "killed"])
def test_a_secret_that_is_created_late_is_replaced_although_the_next_request_fails(
    world: HostileWorld, fault: str
) -> None:
    """A killed process's POST of the Secret lands late, and the PUT after it fails."""
    add_claim(world)
    world.run_until_idle()
    happened: list[str] = []

    def at_point(running: Running, run: Run, point: Point) -> Exception | None:
        is_secret = point.what.startswith(SECRETS.plural)
        if point.verb == "create" and is_secret and point.before and not happened:
            happened.append("killed")
            world.restart("sidecar")
        elif point.verb == Call.GRANT_ACCESS and not point.before and happened == ["killed"]:
            happened.append("landed")
            world.parts.late.pop()()
        elif happened == ["killed", "landed"] and point.verb == "create" and is_secret:
            happened.append("exists")
        elif happened[2:] == ["exists"] and point.verb == "update" and point.before:
            happened.append(fault)
            if fault == "killed":
                world.restart("sidecar")
                return None
            return ApiSilent("slow") if fault == "silent" else ServerError(500, "x", "etcd")
        return None

    world.at_point = at_point
    add_access(world, "reader")
    world.run_until_idle()
    assert happened == ["killed", "landed", "exists", fault]
    assert world.ready(BUCKET_ACCESSES, "reader")[0] == "True"
    assert key_works(world, "reader")


@pytest.mark.parametrize("fault", ["500", "silent", "killed"])
def test_a_secret_that_is_created_after_its_account_was_revoked_is_no_grant(
    world: HostileWorld, fault: str
) -> None:
    """The POST lands after the Revoke, and then the PUT of the entry fails."""
    add_claim(world)
    world.run_until_idle()
    happened: list[str] = []

    def at_point(running: Running, run: Run, point: Point) -> Exception | None:
        is_secret = point.what.startswith(SECRETS.plural)
        if point.verb == "create" and is_secret and point.before and not happened:
            happened.append("killed")
            world.restart("sidecar")
        elif point.verb == Call.REVOKE_ACCESS and not point.before and happened == ["killed"]:
            happened.append("landed")
            world.parts.late.pop()()
        elif happened == ["killed", "landed"] and point.verb == "update" and point.before:
            happened.append(fault)
            if fault == "killed":
                world.restart("sidecar")
                return None
            return ApiSilent("slow") if fault == "silent" else ServerError(500, "x", "etcd")
        return None

    world.at_point = at_point
    add_access(world, "reader")
    world.run_until_idle()
    assert happened == ["killed", "landed", fault]
    assert world.ready(BUCKET_ACCESSES, "reader")[0] == "True"
    assert key_works(world, "reader")


# --- the old keys of a rotation, and renewals


@pytest.mark.parametrize("why", ["bucket in use is deleted", "class is pruned"])
def test_the_old_keys_of_a_rotation_are_revoked_although_no_new_ones_may_be_granted(
    world: HostileWorld, why: str
) -> None:
    """Revoke fails for a while; then the driver works again."""
    world.backend.new_account_each_time = True
    add_claim(world)
    add_access(world, "a1")
    world.run_until_idle(limit_s=30.0)
    (old,) = world.backend.accounts
    world.backend.answers[Call.REVOKE_ACCESS] = Answer(Code.INTERNAL, acts=False)
    rotate(world, "a1")
    world.run_until_idle(limit_s=5.0)
    if why == "bucket in use is deleted":
        world.user_deletes(BUCKETS, bucket_of(world))
    else:
        world.user_deletes(BUCKET_ACCESS_CLASSES, "keys")
    world.run_until_idle(limit_s=2.0)
    world.backend.answers.clear()
    world.run_until_idle(limit_s=7200.0)
    said = str(world.found(BUCKET_ACCESSES, "a1")["status"]["conditions"])
    assert old not in world.backend.accounts, said


# --- class, access and claim are deleted together


@pytest.mark.parametrize("fault", ["409", "500", "killed"])
def test_an_access_whose_class_and_claim_are_uninstalled_with_it_ends(
    world: HostileWorld, fault: str
) -> None:
    """The last PUT of the access fails, when its Bucket and class are gone already."""
    add_claim(world)
    add_access(world, "a1")
    world.run_until_idle(limit_s=30.0)
    done: list[str] = []

    def at_point(running: Running, run: Run, point: Point) -> Exception | None:
        is_last = point.verb == "update" and point.what.startswith("bucketaccesses ")
        if running.name == "sidecar" and is_last and point.before and not done:
            done.append(fault)
            if fault == "killed":
                world.restart("sidecar")
                return None
            return Conflict(409, "x", "y") if fault == "409" else ServerError(500, "x", "etcd")
        return None

    world.backend.answers[Call.REVOKE_ACCESS] = Answer(Code.INTERNAL, acts=False)
    world.user_deletes(BUCKET_ACCESS_CLASSES, "keys")
    world.user_deletes(BUCKET_ACCESSES, "a1")
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle(limit_s=5.0)
    world.backend.answers.clear()
    world.at_point = at_point
    # Another process does not know that the access has no account any more.
    world.run_until_idle(limit_s=1200.0 if fault == "killed" else 60.0)
    assert done
    assert world.find(BUCKET_ACCESSES, "a1") is None


# --- a status that could not be stored


@pytest.mark.parametrize("what", ["bucket", "access"])
@pytest.mark.parametrize("fault", ["500", "silent"])
def test_a_refused_deletion_is_reported_although_one_status_could_not_be_stored(
    world: HostileWorld, fault: str, what: str
) -> None:
    add_claim(world)
    add_access(world, "a1")
    world.run_until_idle(limit_s=30.0)
    call = Call.DELETE_BUCKET if what == "bucket" else Call.REVOKE_ACCESS
    world.backend.answers[call] = Answer(Code.PERMISSION_DENIED, acts=False)
    resource = BUCKETS if what == "bucket" else BUCKET_ACCESSES
    done: list[str] = []

    def at_point(running: Running, run: Run, point: Point) -> Exception | None:
        is_status = point.verb == "update/status" and point.what.startswith(resource.plural + " ")
        called = world.backend.count(call)
        if running.name == "sidecar" and is_status and point.before and called and not done:
            done.append(fault)
            return ApiSilent("slow") if fault == "silent" else ServerError(500, "x", "etcd")
        return None

    world.at_point = at_point
    bucket = bucket_of(world)
    if what == "bucket":
        world.user_deletes(BUCKET_ACCESSES, "a1")
        world.run_until_idle(limit_s=30.0)
        world.user_deletes(BUCKET_CLAIMS, "photos")
    else:
        world.user_deletes(BUCKET_ACCESSES, "a1")
    world.run_until_idle(limit_s=90.0)
    assert done
    assert (
        world.ready(resource, bucket if what == "bucket" else "a1")[1] == "DriverPermissionDenied"
    )


# --- an account whose id was learned


@pytest.mark.parametrize("how", ["deleted access", "reply without keys"])
def test_an_account_that_was_returned_is_known_although_its_entry_could_not_be_stored(
    world: HostileWorld, how: str
) -> None:
    world.backend.new_account_each_time = True
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    done: list[str] = []

    def at_point(running: Running, run: Run, point: Point) -> Exception | None:
        if point.verb == Call.GRANT_ACCESS and not point.before and done == ["armed"]:
            done.append("granted")
        elif done == ["armed", "granted"] and point.verb == "update" and point.before:
            done.append("500")
            return ServerError(500, "x", "etcd")
        return None

    world.at_point = at_point
    if how == "deleted access":
        world.backend.answers[Call.GRANT_ACCESS] = Answer(Code.INTERNAL, acts=False)
        add_access(world, "a1")
        world.run_until_idle(limit_s=10.0)
        world.backend.answers.clear()
        done.append("armed")
    else:
        world.backend.answers[Call.GRANT_ACCESS] = Answer(no_credentials=True)
        done.append("armed")
        add_access(world, "a1")
        world.run_until_idle(limit_s=60.0)
        world.backend.answers.clear()
    world.user_deletes(BUCKET_ACCESSES, "a1")
    world.run_until_idle(limit_s=7200.0)
    assert done == ["armed", "granted", "500"]
    assert world.find(BUCKET_ACCESSES, "a1") is None
    assert not untold_accounts(world)


def test_keys_that_expire_are_renewed_while_a_deleted_bucket_waits_for_its_claim(
    world: HostileWorld,
) -> None:
    hour = timedelta(hours=1)
    world.backend.expiry = lambda: (world.clock.wall() + hour).strftime("%Y-%m-%dT%H:%M:%SZ")
    add_claim(world)
    add_access(world, "a1")
    world.run_until_idle(limit_s=30.0)
    granted = world.backend.count(Call.GRANT_ACCESS)
    world.user_deletes(BUCKETS, bucket_of(world))
    world.run_until_idle(limit_s=4000.0)
    assert world.ready(BUCKETS, bucket_of(world))[1] == "BucketInUse"
    assert world.backend.count(Call.GRANT_ACCESS) > granted


def test_an_access_without_a_class_whose_bucket_goes_is_looked_at_again(
    world: HostileWorld,
) -> None:
    """The access says WaitingForSidecar; then its last PUT fails after its Bucket is gone."""
    add_claim(world)
    add_access(world, "a1")
    world.run_until_idle(limit_s=30.0)
    world.processes["sidecar"].end()  # a rolling update; the Lease is taken 70 s later
    del world.processes["sidecar"]
    world.user_deletes(BUCKET_ACCESS_CLASSES, "keys")
    world.user_deletes(BUCKET_ACCESSES, "a1")
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle(limit_s=70.0)
    assert world.ready(BUCKET_ACCESSES, "a1")[1] == "WaitingForSidecar"
    done: list[str] = []

    def at_point(running: Running, run: Run, point: Point) -> Exception | None:
        is_last = point.verb == "update" and point.what.startswith("bucketaccesses ")
        if running.name == "sidecar" and is_last and point.before and not done:
            done.append("409")
            return Conflict(409, "x", "y")
        return None

    world.at_point = at_point
    world.start("sidecar")
    world.run_until_idle(limit_s=7200.0)
    assert done
    assert world.find(BUCKET_ACCESSES, "a1") is None
