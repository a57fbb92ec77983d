"""Several writers, failing requests and stale watches: no endless writes, no lost verdict."""

from collections.abc import Callable

import pytest
from tests.model.backend import Answer
from tests.model.hostile import HostileWorld
from tests.model.memory import Json
from tests.model.pause import Point
from tests.model.processes import Run, Running
from tests.model.scenes import begin, bucket_of, key_works, remove_by_force, rotate
from tests.model.world import (
    NAMESPACE,
    add_access,
    add_access_class,
    add_claim,
    add_static_bucket,
    record_of,
)

from cosi_operator.api.core import SECRETS
from cosi_operator.api.resources import (
    BUCKET_ACCESS_CLASSES,
    BUCKET_ACCESSES,
    BUCKET_CLAIMS,
    BUCKET_CLASSES,
    BUCKETS,
)
from cosi_operator.api.view import Key, Resource
from cosi_operator.kube.errors import ApiSilent, Forbidden, Invalid, ServerError
from cosi_operator.outcome import Call, Code


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> HostileWorld:
    monkeypatch.setattr("tests.model.world.STEP_LIMIT", 4000)  # endless loops fail soon
    monkeypatch.setattr("tests.model.world.RUN_LIMIT", 1500)
    return begin()


def denied(verb: str, resource: str, who: str = "cosi:sidecar") -> Forbidden:
    group = "" if resource == "secrets" else "objectstorage.k8s.io"
    return Forbidden(
        403,
        "Forbidden",
        f'{verb} {resource}: User "system:serviceaccount:{who}" cannot {verb} resource'
        f' "{resource}" in API group "{group}" at the cluster scope',
    )


def error(fault: str, verb: str, resource: str) -> Exception:
    match fault:
        case "403":
            return denied(verb, resource)
        case "400":
            return Invalid(400, "BadRequest", 'admission webhook "policy" denied the request')
        case "silent":
            return ApiSilent("slow")
        case _:
            return ServerError(500, "x", "webhook does not answer")


def fail(world: HostileWorld, process: str, verb: str, plural: str, fault: str) -> None:
    def at_point(running: Running, _run: Run, point: Point) -> Exception | None:
        is_meant = process in ("", running.name) and point.before and not point.driver
        if is_meant and point.verb == verb and point.what.startswith(f"{plural} "):
            return error(fault, verb.split("/")[0], plural)
        return None

    world.at_point = at_point


def heal(world: HostileWorld) -> None:
    world.at_point = lambda *a: None
    world.parts.late.clear()


def status_writes(world: HostileWorld) -> int:
    return len([s for s in world.sent if s.verb == "update/status"])


def message_of(world: HostileWorld, resource: Resource, name: str) -> str:
    conditions = world.found(resource, name)["status"]["conditions"]
    return next(str(c["message"]) for c in conditions if c["type"] == "Ready")


@pytest.mark.parametrize("fault", ["500", "403", "400"])
def test_a_class_is_corrected_while_the_controller_can_not_update_buckets(
    world: HostileWorld, fault: str
) -> None:
    """The driver refused; the class is corrected; the controller's PUT of the Bucket fails."""
    world.backend.answers[Call.CREATE_BUCKET] = Answer(Code.INVALID_ARGUMENT, acts=False)
    add_claim(world)
    world.run_until_idle(limit_s=60.0)
    assert world.ready(BUCKET_CLAIMS, "photos")[1] == "DriverInvalidArgument"
    fail(world, "controller", "update", "buckets", fault)
    before = status_writes(world)
    world.edit(BUCKET_CLASSES, Key("", "gold"), lambda b: b.update(parameters={"tier": "2"}))
    world.run_until_idle(limit_s=120.0)
    assert status_writes(world) - before <= 20
    calls = world.backend.count(Call.CREATE_BUCKET)
    assert calls <= 2


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("fault", ["400", "403", "500"])
@pytest.mark.parametrize("what", ["delete secrets", "update secrets", "update buckets"])
def test_an_orphan_is_ended_after_a_policy_refused_a_request_for_it(
    world: HostileWorld, kind: str, again: bool, fault: str, what: str
) -> None:
    if kind == "static":
        add_static_bucket(world)
        add_claim(world, existingBucketName="old")
    else:
        add_claim(world)
    add_access(world, "a1")
    world.run_until_idle(limit_s=60.0)
    assert key_works(world, "a1")
    bucket = "old" if kind == "static" else bucket_of(world)
    uid = world.found(BUCKET_ACCESSES, "a1")["metadata"]["uid"]
    verb, plural = what.split()
    fail(world, "sidecar", verb, plural, fault)
    remove_by_force(world, BUCKET_ACCESSES, Key(NAMESPACE, "a1"))
    if again:
        add_access(world, "a1", credentialsSecretName="another")
    world.run_until_idle(limit_s=45.0)
    heal(world)
    world.run_until_idle(limit_s=7200.0)
    record = record_of(world.found(BUCKETS, bucket))
    assert record is not None
    assert uid not in record.accesses, "the entry of the removed access stays"
    assert world.find(SECRETS, "a1-secret") is None
    if not again:
        assert not world.backend.accounts
        world.user_deletes(BUCKET_CLAIMS, "photos")
        world.run_until_idle(limit_s=7200.0)
        assert world.find(BUCKET_CLAIMS, "photos") is None


@pytest.mark.parametrize("fault", ["400"])
def test_a_claim_of_a_static_bucket_is_deleted_after_a_policy_refused_to_end_an_orphan(
    world: HostileWorld, fault: str
) -> None:
    add_static_bucket(world)
    add_claim(world, existingBucketName="old")
    add_access(world, "a1")
    world.run_until_idle(limit_s=60.0)
    fail(world, "sidecar", "update", "buckets", fault)
    remove_by_force(world, BUCKET_ACCESSES, Key(NAMESPACE, "a1"))
    world.run_until_idle(limit_s=45.0)
    heal(world)
    world.run_until_idle(limit_s=7200.0)
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle(limit_s=7200.0)
    assert world.find(BUCKET_CLAIMS, "photos") is None, message_of(world, BUCKET_CLAIMS, "photos")


def test_a_missing_permission_is_named_after_a_restart(world: HostileWorld) -> None:
    """The role lacks two verbs. One is granted with `helm upgrade`, which restarts the sidecar."""
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    fail(world, "sidecar", "get", "secrets", "403")
    add_access(world, "a1")
    world.run_until_idle(limit_s=120.0)
    assert '"get"' in message_of(world, BUCKET_ACCESSES, "a1")
    fail(world, "sidecar", "dry-run", "secrets", "403")
    world.restart("sidecar")
    world.run_until_idle(limit_s=600.0)
    message = message_of(world, BUCKET_ACCESSES, "a1")
    assert '"get"' not in message, message


def test_another_refusal_by_a_policy_is_named_after_a_restart(world: HostileWorld) -> None:
    def refuse(words: str) -> None:
        def at_point(running: Running, _run: Run, point: Point) -> Exception | None:
            is_edit = point.before and point.verb == "update" and point.what.startswith("buckets ")
            if running.name == "sidecar" and is_edit:
                return Invalid(400, "BadRequest", words)
            return None

        world.at_point = at_point

    refuse("policy one denied the request")
    add_claim(world)
    world.run_until_idle(limit_s=60.0)
    assert "policy one" in message_of(world, BUCKET_CLAIMS, "photos")
    world.restart("sidecar")
    refuse("policy two denied the request")
    world.run_until_idle(limit_s=600.0)
    assert "policy two" in message_of(world, BUCKETS, bucket_of(world))
    assert "policy two" in message_of(world, BUCKET_CLAIMS, "photos")


@pytest.mark.parametrize("fault", ["500", "403", "400"])
def test_a_claim_whose_deletion_was_refused_waits_for_its_sidecar_afterwards(
    world: HostileWorld, fault: str
) -> None:
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    world.processes.pop("sidecar").end()
    fail(world, "controller", "delete", "buckets", fault)
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle(limit_s=60.0)
    heal(world)
    world.run_until_idle(limit_s=7200.0)
    assert world.found(BUCKETS, bucket_of(world))["metadata"].get("deletionTimestamp")
    assert world.ready(BUCKET_CLAIMS, "photos")[1] == "WaitingForSidecar"


@pytest.mark.parametrize("fault", ["500", "403", "400"])
def test_a_claim_whose_creation_was_refused_waits_for_its_sidecar_afterwards(
    world: HostileWorld, fault: str
) -> None:
    world.processes.pop("sidecar").end()
    fail(world, "controller", "create", "buckets", fault)
    add_claim(world)
    world.run_until_idle(limit_s=60.0)
    heal(world)
    world.run_until_idle(limit_s=7200.0)
    assert world.ready(BUCKET_CLAIMS, "photos")[1] == "WaitingForBucket"


@pytest.mark.parametrize("call", [Call.CREATE_BUCKET, Call.GRANT_ACCESS])
@pytest.mark.parametrize("fault", ["500", "403", "400", "silent"])
def test_a_refused_call_is_not_repeated_while_its_verdict_can_not_be_stored(
    world: HostileWorld, call: Call, fault: str
) -> None:
    if call is Call.GRANT_ACCESS:
        add_claim(world)
        world.run_until_idle(limit_s=30.0)
    world.backend.answers[call] = Answer(Code.INVALID_ARGUMENT, acts=False)
    plural = "buckets" if call is Call.CREATE_BUCKET else "bucketaccesses"
    fail(world, "sidecar", "update/status", plural, fault)
    if call is Call.GRANT_ACCESS:
        add_access(world, "a1")
    else:
        add_claim(world)
    world.run_until_idle(limit_s=3600.0)
    assert world.backend.count(call) <= 2


@pytest.mark.parametrize("call", [Call.CREATE_BUCKET, Call.GRANT_ACCESS])
@pytest.mark.parametrize("fault", ["500", "silent"])
def test_a_refused_call_is_not_repeated_after_one_failed_write(
    world: HostileWorld, call: Call, fault: str
) -> None:
    if call is Call.GRANT_ACCESS:
        add_claim(world)
        world.run_until_idle(limit_s=30.0)
    world.backend.answers[call] = Answer(Code.INVALID_ARGUMENT, acts=False)
    plural = "buckets" if call is Call.CREATE_BUCKET else "bucketaccesses"
    done: list[str] = []

    def at_point(running: Running, _run: Run, point: Point) -> Exception | None:
        is_status = point.verb == "update/status" and point.what.startswith(f"{plural} ")
        if running.name == "sidecar" and is_status and point.before and not done:
            done.append(fault)
            return error(fault, "update", plural)
        return None

    world.at_point = at_point
    if call is Call.GRANT_ACCESS:
        add_access(world, "a1")
    else:
        add_claim(world)
    world.run_until_idle(limit_s=3600.0)
    assert done
    assert world.backend.count(call) == 1


def stall(world: HostileWorld, process: str, resource: Resource) -> Callable[[], None]:
    """The watch of one kind brings nothing until the returned function is called."""
    kind = next(k for k in world.processes[process].kinds if k.resource is resource)
    held = kind.inbox

    class Held(type(held)):  # type: ignore[misc]
        def __bool__(self) -> bool:
            return False

    kind.inbox = Held(held)

    def end() -> None:
        waiting = list(kind.inbox)
        kind.inbox = type(held)(waiting)

    return end


@pytest.mark.parametrize("recheck_s", [None, 600.0])
def test_a_class_is_deleted_while_the_watch_of_the_sidecar_stands_still(
    monkeypatch: pytest.MonkeyPatch, recheck_s: float | None
) -> None:
    monkeypatch.setattr("tests.model.world.STEP_LIMIT", 4000)
    monkeypatch.setattr("tests.model.world.RUN_LIMIT", 1500)
    world = begin_with(recheck_s)
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    world.backend.answers[Call.GRANT_ACCESS] = Answer(Code.INVALID_ARGUMENT, acts=False)
    add_access(world, "a1")
    world.run_until_idle(limit_s=30.0)
    end = stall(world, "sidecar", BUCKET_ACCESS_CLASSES)
    before, calls = status_writes(world), len(world.backend.calls)
    world.user_deletes(BUCKET_ACCESS_CLASSES, "keys")
    world.run_until_idle(limit_s=120.0)
    assert status_writes(world) - before <= 20
    assert len(world.backend.calls) - calls <= 2
    end()


def begin_with(recheck_s: float | None) -> HostileWorld:
    world = HostileWorld(recheck_s=recheck_s)
    world.user_creates(
        BUCKET_CLASSES,
        "gold",
        driverName="s3.example.com",
        deletionPolicy="Delete",
        parameters={"tier": "1"},
    )
    add_access_class(world)
    world.run_until_idle(limit_s=5.0)
    return world


@pytest.mark.parametrize("recheck_s", [None, 600.0])
@pytest.mark.parametrize("code", [Code.INTERNAL, Code.INVALID_ARGUMENT])
def test_a_claim_that_exists_again_is_not_reported_as_missing(
    recheck_s: float | None, code: Code
) -> None:
    world = begin_with(recheck_s)
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    world.backend.answers[Call.GRANT_ACCESS] = Answer(code, acts=False)
    add_access(world, "a1")
    world.run_until_idle(limit_s=150.0)
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle(limit_s=1.0)
    remove_by_force(world, BUCKET_CLAIMS, Key(NAMESPACE, "photos"))
    world.run_until_idle(limit_s=20.0)
    add_claim(world)
    world.run_until_idle(limit_s=60.0)
    if world.find(BUCKET_ACCESSES, "a1"):
        assert world.ready(BUCKET_ACCESSES, "a1")[1] != "BucketClaimNotFound"


@pytest.mark.parametrize("what", ["bucket", "access"])
def test_the_words_of_a_refusal_are_kept_when_the_sidecar_starts_before_the_driver(
    world: HostileWorld, what: str
) -> None:
    call = Call.CREATE_BUCKET if what == "bucket" else Call.GRANT_ACCESS
    if what == "access":
        add_claim(world)
        world.run_until_idle(limit_s=30.0)
    world.backend.answers[call] = Answer(Code.INVALID_ARGUMENT, acts=False)
    add_claim(world) if what == "bucket" else add_access(world, "a1")
    world.run_until_idle(limit_s=60.0)
    resource, name = (BUCKET_CLAIMS, "photos") if what == "bucket" else (BUCKET_ACCESSES, "a1")
    assert "the backend says no" in message_of(world, resource, name)
    world.driver_goes()
    world.edit(
        BUCKET_CLASSES if what == "bucket" else BUCKET_ACCESSES,
        Key("" if what == "bucket" else NAMESPACE, "gold" if what == "bucket" else name),
        lambda b: b["metadata"].setdefault("labels", {}).update(x="1"),
    )
    world.restart("sidecar")
    world.run_until_idle(limit_s=60.0)
    reason = world.ready(resource, name)[1]
    world.driver_comes(new=False)
    world.run_until_idle(limit_s=7200.0)
    assert "the backend says no" in message_of(world, resource, name), (
        reason,
        message_of(world, resource, name),
        world.backend.count(call),
    )


def test_a_refusal_about_the_bucket_of_an_earlier_claim_is_not_written_on_a_new_one(
    world: HostileWorld,
) -> None:
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    bucket = bucket_of(world)
    fail(world, "sidecar", "update", "buckets", "500")
    remove_by_force(world, BUCKET_CLAIMS, Key(NAMESPACE, "photos"))
    world.user_deletes(BUCKETS, bucket)
    add_claim(world, bucketClassName="nope")
    before = status_writes(world)
    world.run_until_idle(limit_s=120.0)
    assert status_writes(world) - before <= 20
    assert world.ready(BUCKET_CLAIMS, "photos")[1] == "BucketClassNotFound"


@pytest.mark.parametrize("fault", ["500", "403"])
def test_an_unheld_secret_and_a_missing_class_are_not_reported_in_turn(
    world: HostileWorld, fault: str
) -> None:
    add_claim(world)
    add_access(world, "a1")
    world.run_until_idle(limit_s=30.0)
    fail(world, "sidecar", "get", "secrets", fault)
    remove_by_force(world, BUCKET_ACCESSES, Key(NAMESPACE, "a1"))
    world.user_deletes(BUCKET_ACCESS_CLASSES, "keys")
    add_access(world, "a1")
    before = status_writes(world)
    world.run_until_idle(limit_s=120.0)
    assert status_writes(world) - before <= 20


@pytest.mark.parametrize("fault", ["500", "403"])
def test_a_renamed_secret_and_a_missing_class_are_not_reported_in_turn(
    world: HostileWorld, fault: str
) -> None:
    """A waiting access gets another Secret name; its class is missing; Secrets can't be read."""
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    fail(world, "sidecar", "get", "secrets", fault)
    add_access(world, "a1", bucketAccessClassName="nope")
    world.run_until_idle(limit_s=5.0)
    world.edit(
        BUCKET_ACCESSES,
        Key(NAMESPACE, "a1"),
        lambda b: b["spec"].update(credentialsSecretName="other"),
    )
    before = status_writes(world)
    world.run_until_idle(limit_s=120.0)
    assert status_writes(world) - before <= 20


@pytest.mark.parametrize("mode", ["plain", "mint", "replace", "same"])
@pytest.mark.parametrize("then", ["deleted", "secret deleted", "rotated", "killed", "forced"])
def test_what_happens_during_a_rotation_whose_entry_can_not_be_stored(
    world: HostileWorld, mode: str, then: str
) -> None:
    world.backend.new_account_each_time = mode == "mint"
    world.backend.replaces_keys = mode == "replace"
    world.backend.same_keys = mode == "same"
    add_claim(world)
    add_access(world, "a1")
    world.run_until_idle(limit_s=30.0)
    secrets = [0]

    def at_point(running: Running, _run: Run, point: Point) -> Exception | None:
        if point.verb == "update" and point.what.startswith("secrets ") and not point.before:
            secrets[0] += 1
        is_edit = point.before and point.verb == "update" and point.what.startswith("buckets ")
        return ServerError(500, "x", "webhook") if is_edit and secrets[0] else None

    world.at_point = at_point
    rotate(world, "a1")
    world.run_until_idle(limit_s=60.0)
    grants = world.backend.count(Call.GRANT_ACCESS)
    match then:
        case "deleted":
            world.user_deletes(BUCKET_ACCESSES, "a1")
        case "secret deleted":
            remove_by_force(world, SECRETS, Key(NAMESPACE, "a1-secret"))
            rotate(world, "a1", "2")
        case "rotated":
            rotate(world, "a1", "2")
        case "killed":
            world.restart("sidecar")
        case "forced":
            remove_by_force(world, BUCKET_ACCESSES, Key(NAMESPACE, "a1"))
        case _:
            raise AssertionError(then)
    world.run_until_idle(limit_s=300.0)
    assert world.backend.count(Call.GRANT_ACCESS) - grants <= 3
    heal(world)
    world.run_until_idle(limit_s=7200.0)
    if then in ("deleted", "forced"):
        assert not world.backend.accounts
        assert world.find(SECRETS, "a1-secret") is None
    else:
        assert key_works(world, "a1")
        assert len(world.backend.accounts) == 1
        assert not world.check_settled()


@pytest.mark.parametrize("reason", ["WaitingForBucket", "BucketClaimNotFound", "BeingDeleted"])
def test_a_forged_wait_does_not_make_the_driver_be_called_without_end(
    world: HostileWorld, reason: str
) -> None:
    """One forged condition voids the verdict once; it must not void the next one."""
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    world.backend.answers[Call.GRANT_ACCESS] = Answer(Code.INVALID_ARGUMENT, acts=False)
    add_access(world, "a1")
    world.run_until_idle(limit_s=60.0)

    def forge(body: Json) -> None:
        for condition in body["status"]["conditions"]:
            condition.update(reason=reason)

    for _ in range(20):
        world.edit(BUCKET_ACCESSES, Key(NAMESPACE, "a1"), forge, status=True)
        world.run_until_idle(limit_s=1.0)
    world.run_until_idle(limit_s=600.0)
    assert world.backend.count(Call.GRANT_ACCESS) <= 7
    assert world.ready(BUCKET_ACCESSES, "a1")[1] == "DriverInvalidArgument"


@pytest.mark.parametrize("fault", ["403", "500"])
def test_a_refused_finalizer_of_a_claim_and_the_mirror_are_not_written_in_turn(
    world: HostileWorld, fault: str
) -> None:
    """The claim has lost its finalizer (applied from a backup), and the controller can't add it."""
    world.backend.answers[Call.CREATE_BUCKET] = Answer(Code.INVALID_ARGUMENT, acts=False)
    add_claim(world)
    world.run_until_idle(limit_s=60.0)
    fail(world, "controller", "update", "bucketclaims", fault)
    before = status_writes(world)
    world.edit(
        BUCKET_CLAIMS, Key(NAMESPACE, "photos"), lambda b: b["metadata"].pop("finalizers", None)
    )
    world.run_until_idle(limit_s=120.0)
    assert status_writes(world) - before <= 20


@pytest.mark.parametrize("fault", ["400", "500"])
@pytest.mark.parametrize("mode", ["plain", "mint"])
def test_an_account_whose_entry_was_refused_is_revoked_after_its_access_was_removed(
    world: HostileWorld, fault: str, mode: str
) -> None:
    world.backend.new_account_each_time = mode == "mint"
    add_claim(world)
    world.run_until_idle(limit_s=30.0)

    def at_point(running: Running, _run: Run, point: Point) -> Exception | None:
        is_edit = point.before and point.verb == "update" and point.what.startswith("buckets ")
        if is_edit and world.backend.accounts:
            return error(fault, "update", "buckets")
        return None

    world.at_point = at_point
    add_access(world, "a1")
    world.run_until_idle(limit_s=20.0)
    assert world.backend.accounts
    remove_by_force(world, BUCKET_ACCESSES, Key(NAMESPACE, "a1"))
    world.run_until_idle(limit_s=30.0)
    heal(world)
    world.run_until_idle(limit_s=7200.0)
    assert not world.backend.accounts, "a key works, and nobody is told"


@pytest.mark.parametrize("what", ["bucket", "access"])
@pytest.mark.parametrize("fault", ["500", "400", "silent"])
def test_a_refused_call_is_not_repeated_while_its_finalizer_can_not_be_removed(
    world: HostileWorld, what: str, fault: str
) -> None:
    call = Call.CREATE_BUCKET if what == "bucket" else Call.GRANT_ACCESS
    if what == "access":
        add_claim(world)
        world.run_until_idle(limit_s=30.0)
    world.backend.answers[call] = Answer(Code.INVALID_ARGUMENT, acts=False)

    def at_point(running: Running, _run: Run, point: Point) -> Exception | None:
        is_edit = point.before and point.verb == "update" and point.what.startswith("buckets ")
        if running.name == "sidecar" and is_edit and world.backend.count(call):
            return error(fault, "update", "buckets")
        return None

    world.at_point = at_point
    if what == "access":
        add_access(world, "a1")
    else:
        add_claim(world)
    world.run_until_idle(limit_s=3600.0)
    assert world.backend.count(call) <= 2


def test_a_verdict_is_kept_when_the_controller_sees_a_new_class_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.model.world.STEP_LIMIT", 4000)
    monkeypatch.setattr("tests.model.world.RUN_LIMIT", 1500)
    world = begin_with(None)
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    world.user_deletes(BUCKET_ACCESS_CLASSES, "keys")
    world.backend.answers[Call.GRANT_ACCESS] = Answer(Code.INVALID_ARGUMENT, acts=False)
    add_access(world, "a1")
    world.run_until_idle(limit_s=30.0)
    end = stall(world, "controller", BUCKET_ACCESS_CLASSES)
    before = status_writes(world)
    add_access_class(world)
    world.run_until_idle(limit_s=120.0)
    assert status_writes(world) - before <= 20
    assert world.backend.count(Call.GRANT_ACCESS) <= 2
    end()
