"""Keys, Secrets and data that outlived what they belonged to; found on 2026-11-28."""

from typing import Any

import pytest
from tests.model.backend import Answer
from tests.model.hostile import HostileWorld
from tests.model.memory import Json, copy
from tests.model.pause import Point
from tests.model.processes import DRIVER, MemoryEvents, Run, Running
from tests.model.scenes import (
    apply_older,
    begin,
    begin_run,
    bucket_of,
    end_run,
    key_works,
    remove_by_force,
    told,
    untold_accounts,
)
from tests.model.world import NAMESPACE, add_access, add_claim, add_static_bucket, record_of

from cosi_operator.api.core import SECRETS
from cosi_operator.api.resources import BUCKET_ACCESSES, BUCKET_CLAIMS, BUCKETS
from cosi_operator.api.view import Key
from cosi_operator.kube.errors import ApiSilent, Forbidden, Invalid
from cosi_operator.kube.events import ObjectRef
from cosi_operator.outcome import Call, Code
from cosi_operator.plan import names

DENIED = Answer(Code.PERMISSION_DENIED, acts=False)


@pytest.fixture
def world() -> HostileWorld:
    return begin()


def bind(world: HostileWorld, bucket: str, claim: str = "photos", give_up: str = "") -> None:
    """An administrator binds a static Bucket to a claim, perhaps with the give-up annotation."""
    uid = world.found(BUCKET_CLAIMS, claim)["metadata"]["uid"]

    def edit(body: Json) -> None:
        body["spec"]["bucketClaim"] = {"namespace": NAMESPACE, "name": claim, "uid": uid}
        if give_up:
            body["metadata"].setdefault("annotations", {})[names.GIVE_UP_ANNOTATION] = give_up

    world.edit(BUCKETS, Key("", bucket), edit)


def delete_an_access_without_the_driver(world: HostileWorld) -> str:
    """An access that was granted is deleted while the driver is away; returns its UID."""
    add_claim(world)
    add_access(world, "a1")
    world.run_until_idle(limit_s=30.0)
    uid = world.found(BUCKET_ACCESSES, "a1")["metadata"]["uid"]
    world.driver_goes()
    world.user_deletes(BUCKET_ACCESSES, "a1")
    return str(uid)


def give_up(world: HostileWorld, uid: str) -> None:
    annotation = {names.GIVE_UP_ANNOTATION: uid}
    bucket = Key("", bucket_of(world))
    world.edit(BUCKETS, bucket, lambda b: b["metadata"]["annotations"].update(annotation))


def retain(world: HostileWorld, bucket: str) -> None:
    world.edit(BUCKETS, Key("", bucket), lambda b: b["spec"].update(deletionPolicy="Retain"))


def run_sidecar_blindly(world: HostileWorld) -> None:
    """Its watch of Buckets is half-open: no line comes while it works."""
    sidecar = world.processes["sidecar"]
    for kind in sidecar.kinds:
        while kind.resource is not BUCKETS and kind.inbox:
            kind.deliver_one()
    while (run := sidecar.take()) is not None:
        world.finish(sidecar, run)


def test_a_policy_that_became_retain_keeps_the_data_of_a_bucket_in_use(
    world: HostileWorld,
) -> None:
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    bucket = bucket_of(world)
    world.user_deletes(BUCKETS, bucket)
    world.run_until_idle(limit_s=60.0)
    assert world.ready(BUCKETS, bucket)[1] == "BucketInUse"
    retain(world, bucket)
    world.user_deletes(BUCKET_CLAIMS, "photos")
    run_sidecar_blindly(world)
    world.run_until_idle(limit_s=600.0)
    assert world.find(BUCKETS, bucket) is None
    assert f"id-of-{bucket}" in world.backend.buckets.values()


def test_a_policy_that_became_retain_while_the_driver_was_away_keeps_the_data(
    world: HostileWorld,
) -> None:
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    bucket = bucket_of(world)
    world.driver_goes()
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle(limit_s=60.0)
    retain(world, bucket)
    world.driver_comes()
    run_sidecar_blindly(world)
    world.run_until_idle(limit_s=600.0)
    assert world.find(BUCKETS, bucket) is None
    assert f"id-of-{bucket}" in world.backend.buckets.values()


@pytest.mark.parametrize("code", [Code.INTERNAL, Code.INVALID_ARGUMENT])
@pytest.mark.parametrize("deleted", [False, True], ids=["live access", "deleted access"])
def test_an_access_of_a_bucket_removed_by_force_can_be_given_up(
    world: HostileWorld, code: Code, deleted: bool
) -> None:
    add_static_bucket(world)
    add_claim(world)
    add_access(world, "a1")
    world.run_until_idle(limit_s=30.0)
    uid = world.found(BUCKET_ACCESSES, "a1")["metadata"]["uid"]
    world.backend.answers[Call.REVOKE_ACCESS] = Answer(code, acts=False)
    remove_by_force(world, BUCKETS, Key("", bucket_of(world)))
    world.run_until_idle(limit_s=5.0)
    if deleted:
        world.user_deletes(BUCKET_ACCESSES, "a1")
        world.run_until_idle(limit_s=60.0)
        assert world.find(BUCKET_ACCESSES, "a1") is not None
    bind(world, "old", give_up=uid)
    world.run_until_idle(limit_s=1800.0)
    assert "may still hold account" in told(world, "BackendUnverified")
    if deleted:
        assert world.find(BUCKET_ACCESSES, "a1") is None
        assert world.find(SECRETS, "a1-secret") is None
    else:
        assert world.ready(BUCKET_ACCESSES, "a1")[0] == "True"
        assert world.backend.calls[-1].bucket_id == "id-of-old"


def test_a_deleted_access_can_be_given_up_on_a_new_bucket_with_the_old_name(
    world: HostileWorld,
) -> None:
    add_claim(world)
    add_access(world, "a1")
    world.run_until_idle(limit_s=30.0)
    uid = world.found(BUCKET_ACCESSES, "a1")["metadata"]["uid"]
    world.backend.answers[Call.REVOKE_ACCESS] = DENIED
    bucket = bucket_of(world)
    remove_by_force(world, BUCKETS, Key("", bucket))
    world.user_deletes(BUCKET_ACCESSES, "a1")
    world.run_until_idle(limit_s=60.0)
    assert world.find(BUCKET_ACCESSES, "a1") is not None
    world.put(
        BUCKETS,
        "",
        bucket,
        metadata={"annotations": {names.GIVE_UP_ANNOTATION: uid}},
        spec={"driverName": DRIVER, "deletionPolicy": "Retain", "bucketClaim": {}},
    )
    world.run_until_idle(limit_s=1800.0)
    assert world.find(BUCKET_ACCESSES, "a1") is None
    assert "may still hold account" in told(world, "BackendUnverified")


@pytest.mark.parametrize("first", ["a1", "a2"])
def test_a_secret_with_a_shared_account_goes_with_its_bucket(
    world: HostileWorld, first: str
) -> None:
    """The Bucket is removed by force; with the other Bucket no keys can be granted."""
    world.backend.answers[Call.GRANT_ACCESS] = Answer(id="account-of-all")
    add_static_bucket(world)
    add_claim(world)
    add_claim(world, "other")
    add_access(world, "a1")
    add_access(world, "a2", claim="other")
    world.run_until_idle(limit_s=30.0)
    remove_by_force(world, BUCKETS, Key("", bucket_of(world)))
    world.run_until_idle(limit_s=5.0)
    world.backend.answers[Call.GRANT_ACCESS] = DENIED
    bind(world, "old")
    world.run_until_idle(limit_s=60.0)
    assert world.find(SECRETS, "a1-secret") is None
    for name in (first, "a2" if first == "a1" else "a1"):
        world.user_deletes(BUCKET_ACCESSES, name)
        world.run_until_idle(limit_s=600.0)
        assert world.find(SECRETS, f"{name}-secret") is None
    assert not untold_accounts(world)


def test_an_account_is_forgotten_only_after_the_warning_about_it_is_stored(
    world: HostileWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = delete_an_access_without_the_driver(world)

    async def silent(*_: object, **__: object) -> bool:
        raise ApiSilent("gone")

    with monkeypatch.context() as patched:
        patched.setattr(MemoryEvents, "deliver", silent)
        give_up(world, uid)
        world.run_until_idle(limit_s=30.0)
        assert world.find(BUCKET_ACCESSES, "a1") is not None
        world.restart("sidecar")
    world.run_until_idle(limit_s=600.0)
    assert world.find(BUCKET_ACCESSES, "a1") is None
    assert "may still hold account" in told(world, "BackendUnverified")


def test_a_guessed_account_is_told_although_its_event_could_not_be_stored_at_first(
    world: HostileWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver answers ALREADY_EXISTS to the Grant and NOT_FOUND to the Revoke."""
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    world.backend.answers[Call.GRANT_ACCESS] = Answer(Code.ALREADY_EXISTS)
    add_access(world, "a1")
    world.run_until_idle(limit_s=30.0)
    world.backend.answers[Call.REVOKE_ACCESS] = Answer(Code.NOT_FOUND, acts=False)
    store, tries = MemoryEvents.deliver, 0

    async def deliver(self: MemoryEvents, about: ObjectRef, **event: Any) -> bool:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise ApiSilent("gone")
        return await store(self, about, **event)

    monkeypatch.setattr(MemoryEvents, "deliver", deliver)
    world.user_deletes(BUCKET_ACCESSES, "a1")
    world.run_until_idle(limit_s=600.0)
    assert world.find(BUCKET_ACCESSES, "a1") is None
    assert told(world, "BackendUnverified")


@pytest.mark.parametrize("bound", [False, True], ids=["no other Bucket", "another Bucket is bound"])
def test_an_access_and_its_bucket_that_were_removed_by_force_are_told_and_can_be_given_up(
    world: HostileWorld, bound: bool
) -> None:
    add_static_bucket(world)
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    world.backend.answers[Call.GRANT_ACCESS] = Answer(Code.INTERNAL)
    add_access(world, "a1")
    world.run_until_idle(limit_s=5.0)
    uid = world.found(BUCKET_ACCESSES, "a1")["metadata"]["uid"]
    remove_by_force(world, BUCKETS, Key("", bucket_of(world)))
    world.run_until_idle(limit_s=2.0)
    remove_by_force(world, BUCKET_ACCESSES, Key(NAMESPACE, "a1"))
    if bound:
        bind(world, "old", give_up=uid)
    world.run_until_idle(limit_s=1800.0)
    assert f"({uid}) was removed by force. " in told(world, "BackendUnverified")
    calls = len(world.backend.calls)
    world.run_until_idle(limit_s=7200.0)
    assert len(world.backend.calls) == calls


@pytest.mark.parametrize("minutes", [10, 60])
def test_what_is_left_is_told_once_while_its_secret_can_not_be_deleted(
    world: HostileWorld, minutes: int
) -> None:
    uid = delete_an_access_without_the_driver(world)
    world.run_until_idle(limit_s=60.0)

    def at_point(running: Running, run: Run, point: Point) -> Exception | None:
        is_secret = point.what.startswith(SECRETS.plural)
        return Forbidden(403, "Forbidden", "no") if is_secret and point.verb == "delete" else None

    world.at_point = at_point
    give_up(world, uid)
    world.run_until_idle(limit_s=60.0 * minutes)
    about = [event.about.kind for event in world.parts.told if event.reason == "BackendUnverified"]
    assert about == ["BucketAccess", "Bucket"]


def test_no_access_is_granted_by_a_secret_that_does_not_have_its_keys() -> None:
    """A Secret is created late, and a policy makes Secrets immutable."""
    world = begin()
    add_claim(world)
    world.run_until_idle()
    happened: list[str] = []
    secret = Key(NAMESPACE, "reader-secret")

    def at_point(running: Running, run: Run, point: Point) -> Exception | None:
        is_secret = point.what.startswith(SECRETS.plural)
        if is_secret and point.verb == "create" and point.before and not happened:
            happened.append("killed")
            world.restart("sidecar")
        elif point.verb == Call.GRANT_ACCESS and not point.before and happened == ["killed"]:
            happened.append("landed")
            world.parts.late.pop()()
            world.edit(SECRETS, secret, lambda b: b.update(immutable=True))
        elif is_secret and point.verb == "update" and point.before:
            return Invalid(422, "Invalid", "data: field is immutable when `immutable` is set")
        return None

    world.at_point = at_point
    add_access(world, "reader")
    world.run_until_idle()
    assert happened == ["killed", "landed"]
    assert world.ready(BUCKET_ACCESSES, "reader") == ("False", "SecretRefused")
    remove_by_force(world, SECRETS, secret)
    world.user_retries(BUCKET_ACCESSES, "reader", "1")
    world.run_until_idle()
    assert world.ready(BUCKET_ACCESSES, "reader")[0] == "True"
    assert key_works(world, "reader")


def test_no_entry_is_written_into_another_bucket_of_the_same_name(world: HostileWorld) -> None:
    """The Bucket is replaced between two requests of an access's run."""
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    uid = world.found(BUCKET_CLAIMS, "photos")["metadata"]["uid"]
    bucket = bucket_of(world)
    world.backend.buckets["foreign"] = "id-of-foreign"
    claim = {"namespace": NAMESPACE, "name": "photos", "uid": uid}
    spec = {"driverName": DRIVER, "bucketClassName": "", "deletionPolicy": "Retain"}
    done: list[str] = []

    def at_point(running: Running, run: Run, point: Point) -> None:
        if point.verb == "dry-run" and not point.before and not done:
            done.append("replaced")
            remove_by_force(world, BUCKETS, Key("", bucket))
            more = {"existingBucketID": "id-of-foreign", "protocols": ["S3"], "bucketClaim": claim}
            world.put(BUCKETS, "", bucket, spec={**spec, **more})
            running.deliver()
            end_run(begin_run(world, "sidecar", "bucket", Key("", bucket)))

    world.at_point = at_point
    add_access(world, "a1")
    world.run_until_idle(limit_s=600.0)
    assert done
    record = record_of(world.found(BUCKETS, bucket))
    assert record is not None
    assert record.bucket_id == "id-of-foreign"


def test_a_secret_whose_access_no_record_names_any_more_goes_with_its_access(
    world: HostileWorld,
) -> None:
    """An older Bucket is applied while the sidecar is away, and the Grant anew is refused."""
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    older = copy(world.found(BUCKETS, bucket_of(world)))
    add_access(world, "a1")
    world.run_until_idle(limit_s=30.0)
    (account,) = world.backend.accounts
    world.processes["sidecar"].end()
    apply_older(world, older)
    world.backend.answers[Call.GRANT_ACCESS] = DENIED
    world.start("sidecar")
    world.run_until_idle(limit_s=600.0)
    world.user_deletes(BUCKET_ACCESSES, "a1")
    world.run_until_idle(limit_s=600.0)
    assert world.find(BUCKET_ACCESSES, "a1") is None
    assert world.find(SECRETS, "a1-secret") is None
    assert account in told(world, "BackendUnverified")
