"""The BucketAccess's half of the sidecar in a whole world, with its Secret and its keys."""

import base64
import functools
import json
from datetime import timedelta

import pytest
from tests.model.backend import Answer
from tests.model.memory import Json
from tests.model.pause import Point
from tests.model.processes import Run, Running
from tests.model.world import (
    World,
    add_access,
    add_access_class,
    add_claim,
    add_class,
    add_static_bucket,
    info_in,
    keys_in,
)

from cosi_operator.api.core import SECRETS
from cosi_operator.api.record import (
    ID_LIMIT_BYTES,
    RECORD_ANNOTATION,
    AccessRecord,
    decode_record,
)
from cosi_operator.api.resources import (
    BUCKET_ACCESS_CLASSES,
    BUCKET_ACCESSES,
    BUCKET_CLAIMS,
    BUCKETS,
)
from cosi_operator.api.view import Key, stamp
from cosi_operator.kube.errors import ApiSilent, Conflict, ServerError
from cosi_operator.outcome import Call, Code
from cosi_operator.plan import names
from cosi_operator.sidecar.calls import EARLY_RETRY_S

SECRET = "reader-secret"
ACCOUNT = "acct-of-ba-bucketaccess-reader-1"


@pytest.fixture
def world() -> World:
    made = World()
    add_class(made)
    add_access_class(made)
    add_claim(made)
    return made


def run(world: World) -> None:
    world.run_until_idle()
    assert world.check_settled() == []


def grants(world: World) -> int:
    return world.backend.count(Call.GRANT_ACCESS)


def status(world: World, name: str = "reader") -> Json:
    found: Json = world.found(BUCKET_ACCESSES, name)["status"]
    return found


def fail_once(world: World, verb: str, what: str, fault: Exception, *, before: bool) -> None:
    """The next request of this kind meets a fault, before or after it took effect."""

    def at_point(running: Running, run: Run, point: Point) -> Exception | None:
        if point.verb != verb or not point.what.startswith(what) or point.before != before:
            return None
        world.at_point = lambda running, run, point: None
        return fault

    world.at_point = at_point


def test_the_secret_holds_keys_that_work_and_the_status_says_so(world: World) -> None:
    add_access(world)
    run(world)
    assert world.ready(BUCKET_ACCESSES, "reader") == ("True", "Granted")
    secret = world.found(SECRETS, SECRET)
    assert keys_in(secret) in world.backend.live_keys()
    assert info_in(secret)["spec"]["bucketName"] == "bucket-bucketclaim-photos-1"
    assert status(world)["accountID"] == "acct-of-ba-bucketaccess-reader-1"


@pytest.mark.parametrize("before", [True, False], ids=["request lost", "reply lost"])
@pytest.mark.parametrize(
    "fault", [ApiSilent("gone"), ServerError(500, "InternalError", "etcd")], ids=["silent", "500"]
)
def test_keys_are_minted_once_though_storing_them_failed(
    world: World, fault: Exception, before: bool
) -> None:
    fail_once(world, "create", "secrets", fault, before=before)
    add_access(world)
    run(world)
    assert grants(world) == 1
    assert world.ready(BUCKET_ACCESSES, "reader") == ("True", "Granted")


def test_no_key_is_minted_for_a_secret_that_cannot_be_stored(world: World) -> None:
    world.api.refused_secrets.add(SECRET)
    add_access(world)
    world.run_until_idle(limit_s=300.0)
    assert grants(world) == 0
    assert world.ready(BUCKET_ACCESSES, "reader") == ("False", "SecretRefused")
    world.api.refused_secrets.clear()
    run(world)
    assert world.ready(BUCKET_ACCESSES, "reader") == ("True", "Granted")


def test_a_secret_of_someone_else_is_not_touched_and_is_looked_at_again(world: World) -> None:
    world.user_creates(SECRETS, SECRET, stringData={"password": "theirs"})
    before = world.found(SECRETS, SECRET)
    add_access(world)
    world.run_until_idle(limit_s=300.0)
    assert world.ready(BUCKET_ACCESSES, "reader") == ("False", "SecretNotOwned")
    assert world.found(SECRETS, SECRET) == before
    assert grants(world) == 0
    writes = world.writes()
    world.run_until_idle(limit_s=600.0)
    assert world.writes() == writes
    world.user_deletes(SECRETS, SECRET)
    run(world)
    assert world.ready(BUCKET_ACCESSES, "reader") == ("True", "Granted")


def test_a_secret_of_someone_else_stays_when_the_access_is_deleted(world: World) -> None:
    world.user_creates(SECRETS, SECRET, stringData={"password": "theirs"})
    add_access(world)
    world.run_until_idle(limit_s=60.0)
    world.user_deletes(BUCKET_ACCESSES, "reader")
    run(world)
    assert world.find(SECRETS, SECRET)
    assert world.find(BUCKET_ACCESSES, "reader") is None


def test_a_name_that_is_taken_between_dry_run_and_grant_costs_the_key_not_the_secret(
    world: World,
) -> None:
    def at_point(running: Running, run: Run, point: Point) -> None:
        if point.verb == Call.GRANT_ACCESS and not point.before:
            world.at_point = lambda running, run, point: None
            world.user_creates(SECRETS, SECRET, stringData={"password": "theirs"})

    world.at_point = at_point
    add_access(world)
    world.run_until_idle(limit_s=60.0)
    assert world.ready(BUCKET_ACCESSES, "reader") == ("False", "SecretNotOwned")
    assert world.backend.accounts == {}


def test_an_access_class_that_vanishes_after_a_failed_grant_makes_nobody_fight(
    world: World,
) -> None:
    world.backend.answers[Call.GRANT_ACCESS] = Answer(Code.INVALID_ARGUMENT, acts=False)
    add_access(world)
    run(world)
    world.user_deletes(BUCKET_ACCESS_CLASSES, "keys")
    run(world)
    assert world.ready(BUCKET_ACCESSES, "reader") == ("False", "BucketAccessClassNotFound")
    world.backend.answers.clear()
    add_access_class(world)
    world.user_retries(BUCKET_ACCESSES, "reader", "1")
    run(world)
    assert world.ready(BUCKET_ACCESSES, "reader") == ("True", "Granted")


def test_a_retry_annotation_on_a_granted_access_is_followed_once_and_recorded(
    world: World,
) -> None:
    add_access(world)
    run(world)
    world.user_retries(BUCKET_ACCESSES, "reader", "7")
    run(world)
    assert status(world)["lastCall"]["retryToken"] == "7"
    reads = sum(sent.verb == "get" for sent in world.sent)
    world.restart("sidecar")
    run(world)
    assert sum(sent.verb == "get" for sent in world.sent) == reads
    assert grants(world) == 1


@pytest.mark.parametrize("new_account", [False, True], ids=["same account", "a new account"])
def test_after_a_secret_was_removed_a_retry_gives_new_keys_and_the_old_ones_end(
    world: World, new_account: bool
) -> None:
    world.backend.new_account_each_time = new_account
    add_access(world)
    run(world)
    old = keys_in(world.found(SECRETS, SECRET))
    world.user_edits(SECRETS, SECRET, lambda body: body["metadata"].pop("finalizers"))
    world.user_deletes(SECRETS, SECRET)
    world.user_retries(BUCKET_ACCESSES, "reader", "1")
    run(world)
    new = keys_in(world.found(SECRETS, SECRET))
    assert new != old
    assert world.backend.live_keys() == {new}
    assert [status(world)["accountID"]] == list(world.backend.accounts)
    world.user_deletes(BUCKET_ACCESSES, "reader")
    run(world)
    assert world.backend.accounts == {}


def test_an_account_without_keys_is_revoked_before_the_grant_is_tried_again(world: World) -> None:
    world.backend.answers[Call.GRANT_ACCESS] = Answer(no_credentials=True)
    world.backend.new_account_each_time = True
    add_access(world)
    run(world)
    assert world.ready(BUCKET_ACCESSES, "reader") == ("False", "DriverReturnedNoCredentials")
    world.backend.answers.clear()
    world.user_retries(BUCKET_ACCESSES, "reader", "1")
    run(world)
    assert world.ready(BUCKET_ACCESSES, "reader") == ("True", "Granted")
    assert len(world.backend.accounts) == 1


def test_a_grant_that_says_already_exists_is_healed_by_a_retry(world: World) -> None:
    world.backend.answers[Call.GRANT_ACCESS] = Answer(Code.ALREADY_EXISTS, acts=False)
    add_access(world)
    run(world)
    assert world.ready(BUCKET_ACCESSES, "reader") == ("False", "DriverReturnedNoCredentials")
    assert grants(world) == 1
    world.backend.answers.clear()
    world.user_retries(BUCKET_ACCESSES, "reader", "1")
    run(world)
    assert world.ready(BUCKET_ACCESSES, "reader") == ("True", "Granted")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(Answer(empty_id=True), "DriverReturnedEmptyAccountID", id="no account id"),
        pytest.param(Answer(no_credentials=True), "DriverReturnedNoCredentials", id="no keys"),
    ],
)
def test_a_grant_that_cannot_be_used_is_final_and_can_be_deleted(
    world: World, answer: Answer, reason: str
) -> None:
    world.backend.answers[Call.GRANT_ACCESS] = answer
    add_access(world)
    run(world)
    assert world.ready(BUCKET_ACCESSES, "reader") == ("False", reason)
    assert world.find(SECRETS, SECRET) is None
    assert grants(world) == 1
    world.backend.answers.clear()
    world.user_deletes(BUCKET_ACCESSES, "reader")
    run(world)
    assert world.find(BUCKET_ACCESSES, "reader") is None
    assert world.backend.accounts == {}


def test_a_secret_that_was_removed_by_hand_does_not_block_the_deletion(world: World) -> None:
    add_access(world)
    run(world)
    world.user_edits(SECRETS, SECRET, lambda body: body["metadata"].pop("finalizers"))
    world.user_deletes(SECRETS, SECRET)
    world.user_deletes(BUCKET_ACCESSES, "reader")
    run(world)
    assert world.find(BUCKET_ACCESSES, "reader") is None
    assert world.backend.accounts == {}
    assert grants(world) == 1


def test_a_deleted_access_is_revoked_where_it_was_granted_not_where_its_claim_leads_now(
    world: World,
) -> None:
    add_static_bucket(world)
    add_claim(world, "shared", existingBucketName="old")
    add_access(world, claim="shared")
    run(world)
    # The claim is removed by force, and another one takes its name.
    world.user_edits(BUCKET_CLAIMS, "shared", lambda body: body["metadata"].pop("finalizers"))
    world.user_deletes(BUCKET_CLAIMS, "shared")
    add_claim(world, "shared")
    run(world)
    world.user_deletes(BUCKET_ACCESSES, "reader")
    run(world)
    revoked = [c for c in world.backend.calls if c.call is Call.REVOKE_ACCESS]
    assert [called.bucket_id for called in revoked] == ["id-of-old"]


def test_a_status_of_an_access_that_was_replaced_meanwhile_is_not_told_of_the_new_one(
    world: World,
) -> None:
    def at_point(running: Running, run: Run, point: Point) -> None:
        if point.verb == "create" and point.what.startswith("secrets") and not point.before:
            world.at_point = lambda running, run, point: None
            world.user_edits(
                BUCKET_ACCESSES, "reader", lambda body: body["metadata"].pop("finalizers")
            )
            world.user_deletes(BUCKET_ACCESSES, "reader")
            add_access(world, credentialsSecretName="other")
            world.processes["sidecar"].deliver()

    world.run_until_idle()
    world.at_point = at_point
    add_access(world)
    world.run_until_idle()
    assert status(world)["accountID"] == "acct-of-ba-bucketaccess-reader-2"
    assert keys_in(world.found(SECRETS, "other"))


def test_a_claim_that_is_deleted_takes_its_accesses_with_it(world: World) -> None:
    add_access(world)
    add_access(world, "writer")
    run(world)
    world.user_deletes(BUCKET_CLAIMS, "photos")
    run(world)
    for resource in (BUCKET_CLAIMS, BUCKETS, BUCKET_ACCESSES, SECRETS):
        assert world.api.list(resource) == []
    assert (world.backend.buckets, world.backend.accounts) == ({}, {})


def test_a_failed_revoke_holds_the_claims_deletion_up_and_the_claim_says_why(world: World) -> None:
    add_access(world)
    run(world)
    world.backend.answers[Call.REVOKE_ACCESS] = Answer(Code.PERMISSION_DENIED, acts=False)
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle(limit_s=60.0)
    assert world.backend.count(Call.REVOKE_ACCESS) == 1
    claim = world.found(BUCKET_CLAIMS, "photos")
    assert world.ready(BUCKET_CLAIMS, "photos") == ("False", "WaitingForBucketAccesses")
    assert "team/reader" in claim["status"]["conditions"][0]["message"]
    world.backend.answers.clear()
    world.user_retries(BUCKET_ACCESSES, "reader", "1")
    world.run_until_idle(limit_s=60.0)
    assert world.api.list(BUCKET_CLAIMS) == []


def test_an_access_waits_for_what_it_names_and_goes_on_when_it_appears(world: World) -> None:
    add_access(world, claim="later")
    run(world)
    assert world.ready(BUCKET_ACCESSES, "reader") == ("False", "BucketClaimNotFound")
    world.backend.answers[Call.CREATE_BUCKET] = Answer(Code.INVALID_ARGUMENT, acts=False)
    add_claim(world, "later")
    run(world)
    assert world.ready(BUCKET_ACCESSES, "reader") == ("False", "WaitingForBucket")
    world.backend.answers.clear()
    world.user_retries(BUCKET_CLAIMS, "later", "1")
    run(world)
    assert world.ready(BUCKET_ACCESSES, "reader") == ("True", "Granted")


def test_an_access_without_its_class_waits_for_it_and_the_controller_says_so(
    world: World,
) -> None:
    add_access(world, bucketAccessClassName="later")
    run(world)
    assert world.ready(BUCKET_ACCESSES, "reader") == ("False", "BucketAccessClassNotFound")
    add_access_class(world, "later")
    run(world)
    assert world.ready(BUCKET_ACCESSES, "reader") == ("True", "Granted")


def test_a_class_that_cannot_be_used_is_told_and_its_repair_wakes_the_access(world: World) -> None:
    world.user_edits(
        BUCKET_ACCESS_CLASSES, "keys", lambda body: body.update(authenticationType="IAM")
    )
    add_access(world)
    run(world)
    assert world.ready(BUCKET_ACCESSES, "reader") == ("False", "InvalidSpec")
    world.user_edits(
        BUCKET_ACCESS_CLASSES, "keys", lambda body: body.update(authenticationType="Key")
    )
    run(world)
    assert world.ready(BUCKET_ACCESSES, "reader") == ("True", "Granted")


@pytest.mark.parametrize("word", ["Password", "", "\x1b[31mKey"])
def test_an_unknown_authentication_type_is_sent_as_unknown_with_one_warning(
    world: World, word: str
) -> None:
    world.user_edits(
        BUCKET_ACCESS_CLASSES, "keys", lambda body: body.update(authenticationType=word)
    )
    add_access(world)
    run(world)
    assert world.ready(BUCKET_ACCESSES, "reader") == ("True", "Granted")
    assert info_in(world.found(SECRETS, SECRET))["spec"]["authenticationType"] == word
    (told,) = [e for e in world.parts.told if e.reason == "UnknownAuthenticationType"]
    assert (told.about.kind, told.type) == ("BucketAccess", "Warning")
    assert f'is "{word}"'.replace("\x1b", "\\x1b") in told.message


def test_a_repaired_access_class_is_another_request_so_a_refused_grant_is_asked_again(
    world: World,
) -> None:
    world.backend.answers[Call.GRANT_ACCESS] = Answer(Code.INVALID_ARGUMENT, acts=False)
    add_access(world)
    run(world)
    world.user_edits(
        BUCKET_ACCESS_CLASSES, "keys", lambda b: b["metadata"].update(labels={"a": "b"})
    )
    run(world)
    assert grants(world) == 1
    world.backend.answers.clear()
    world.user_edits(BUCKET_ACCESS_CLASSES, "keys", lambda b: b.update(parameters={"role": "rw"}))
    run(world)
    assert world.ready(BUCKET_ACCESSES, "reader") == ("True", "Granted")
    assert grants(world) == 2


@pytest.mark.parametrize("what", ["update buckets", "update bucketaccesses"])
def test_a_conflict_after_the_revoke_does_not_revoke_again(world: World, what: str) -> None:
    add_access(world)
    run(world)
    world.user_deletes(BUCKET_ACCESSES, "reader")
    verb, _, plural = what.partition(" ")
    fail_once(world, verb, plural, Conflict(409, "Conflict", "someone was faster"), before=True)
    run(world)
    assert world.find(BUCKET_ACCESSES, "reader") is None
    assert world.backend.count(Call.REVOKE_ACCESS) == 1


def test_keys_in_memory_go_with_their_access(world: World) -> None:
    """The Secret can't be stored, and the access vanishes meanwhile, by force."""

    def at_point(running: Running, run: Run, point: Point) -> Exception | None:
        if point.verb == "create" and point.what.startswith("secrets") and point.before:
            return ApiSilent("gone")
        return None

    world.at_point = at_point
    add_access(world)
    world.run_until_idle(limit_s=30.0)
    assert grants(world) == 1
    reconciler = next(
        runner for runner in world.processes["sidecar"].runners if runner.name == "bucketaccess"
    ).reconcile.__wrapped__.__self__  # type: ignore[attr-defined]  # a bound method, wrapped
    assert len(reconciler._unstored) == 1
    world.user_edits(BUCKET_ACCESSES, "reader", lambda body: body["metadata"].pop("finalizers"))
    world.user_deletes(BUCKET_ACCESSES, "reader")
    world.run_until_idle(limit_s=600.0)
    assert len(reconciler._unstored) == 0


def test_a_stored_refusal_does_not_deny_what_an_earlier_grant_may_have_made(world: World) -> None:
    world.backend.answers[Call.GRANT_ACCESS] = Answer(Code.UNKNOWN, acts=True)
    add_access(world)
    run(world)
    world.backend.answers[Call.GRANT_ACCESS] = Answer(Code.UNAUTHENTICATED, acts=False)
    world.user_retries(BUCKET_ACCESSES, "reader", "1")
    run(world)
    world.backend.answers.clear()
    world.user_deletes(BUCKET_ACCESSES, "reader")
    run(world)
    assert world.backend.accounts == {}


@pytest.mark.parametrize("when", ["update", "create"])
def test_an_access_that_the_server_dropped_with_our_finalizer_on_it_leaves_no_account(
    world: World, when: str
) -> None:
    """kubernetes/kubernetes#77988: a DELETE that was decided before the finalizer was stored."""
    world.run_until_idle()

    def at_point(running: Running, run: Run, point: Point) -> Exception | None:
        kind = "bucketaccesses" if when == "update" else "secrets"
        if point.verb == when and point.what.startswith(kind) and not point.before:
            dropped = world.found(BUCKET_ACCESSES, "reader")
            key = Key(dropped["metadata"]["namespace"], "reader")
            world.api._remove(BUCKET_ACCESSES, key, dropped)
            world.at_point = lambda running, run, point: None
        return None

    world.at_point = at_point
    add_access(world)
    world.run_until_idle()
    # Calls without a finalizer are all right here: no object is left that could hold one.
    found = world.check_settled()
    assert [violation for violation in found if "without our finalizer" not in violation] == []
    assert grants(world) == 1
    assert world.backend.accounts == {}
    assert world.api.list(SECRETS) == []
    (bucket,) = world.api.list(BUCKETS)
    assert names.BUCKET_ACCESS_FINALIZER not in bucket["metadata"]["finalizers"]


# --- accounts that the record can't hold


def test_an_account_id_is_too_long_for_the_record_and_the_account_is_revoked_at_once(
    world: World,
) -> None:
    long = ACCOUNT.ljust(ID_LIMIT_BYTES + 1, "x")
    world.backend.answers[Call.GRANT_ACCESS] = Answer(id=long)
    add_access(world)
    run(world)
    assert world.backend.accounts == {}
    assert [(c.call, c.name == long) for c in world.backend.calls[-2:]] == [
        (Call.GRANT_ACCESS, False),
        (Call.REVOKE_ACCESS, True),
    ]
    ready, reason = world.ready(BUCKET_ACCESSES, "reader")
    assert (ready, reason) == ("False", "DriverMalformedReply")
    message = status(world)["conditions"][0]["message"]
    assert f"account_id is longer than {ID_LIMIT_BYTES} bytes" in message
    stored = json.dumps([world.api.list(kind) for kind in (BUCKETS, BUCKET_ACCESSES, SECRETS)])
    assert "xxx" not in stored
    assert grants(world) == 1
    world.backend.answers.clear()
    world.user_retries(BUCKET_ACCESSES, "reader", "1")
    run(world)
    assert world.ready(BUCKET_ACCESSES, "reader") == ("True", "Granted")


def test_an_account_id_of_the_longest_allowed_length_is_recorded_and_revoked(
    world: World,
) -> None:
    world.backend.answers[Call.GRANT_ACCESS] = Answer(id=ACCOUNT.ljust(ID_LIMIT_BYTES, "x"))
    add_access(world)
    run(world)
    assert world.ready(BUCKET_ACCESSES, "reader") == ("True", "Granted")
    world.user_deletes(BUCKET_ACCESSES, "reader")
    run(world)
    assert world.backend.accounts == {}


def test_a_revoked_access_that_a_foreign_finalizer_keeps_does_not_say_that_it_is_granted(
    world: World,
) -> None:
    add_access(world)
    run(world)
    mine = "example.com/mine"
    world.user_edits(
        BUCKET_ACCESSES, "reader", lambda body: body["metadata"]["finalizers"].append(mine)
    )
    world.user_deletes(BUCKET_ACCESSES, "reader")
    run(world)
    assert not world.backend.accounts
    assert world.ready(BUCKET_ACCESSES, "reader") == ("False", "Revoked")
    assert status(world)["accessGranted"] is False
    world.user_edits(
        BUCKET_ACCESSES, "reader", lambda body: body["metadata"]["finalizers"].remove(mine)
    )
    run(world)
    assert not world.api.list(BUCKET_ACCESSES)


# --- rotation


def rotate(world: World, token: str = "1") -> None:
    def annotate(body: Json) -> None:
        body["metadata"].setdefault("annotations", {})[names.ROTATE_ANNOTATION] = token

    world.user_edits(BUCKET_ACCESSES, "reader", annotate)


def entry_of(world: World, uid: str = "bucketaccess-reader-1") -> AccessRecord | None:
    (bucket,) = world.api.list(BUCKETS)
    record = decode_record(bucket["metadata"]["annotations"][RECORD_ANNOTATION])
    assert record is not None
    return record.accesses.get(uid)


def granted_before(world: World) -> str:
    """An access that is granted; its key."""
    add_access(world)
    run(world)
    return keys_in(world.found(SECRETS, SECRET))


@pytest.mark.parametrize(
    ("driver", "renewed", "revokes", "words"),
    [
        pytest.param(
            {"same_keys": True},
            False,
            0,
            " The keys were not rotated, because the driver returned the same keys.",
            id="the same key -> the Secret stays",
        ),
        pytest.param(
            {},
            True,
            0,
            " The keys are new, but the account is the same, so the old keys may still work.",
            id="a new key of the same account -> nothing is revoked",
        ),
        pytest.param(
            {"new_account_each_time": True},
            True,
            1,
            "",
            id="a new account -> the old one is revoked",
        ),
    ],
)
def test_keys_are_rotated_once_for_each_value_of_the_annotation(
    world: World, driver: dict[str, bool], renewed: bool, revokes: int, words: str
) -> None:
    for name, value in driver.items():
        setattr(world.backend, name, value)
    old = granted_before(world)
    uid = world.found(SECRETS, SECRET)["metadata"]["uid"]
    rotate(world)
    run(world)
    secret = world.found(SECRETS, SECRET)
    assert (keys_in(secret) != old) is renewed
    assert secret["metadata"]["uid"] == uid  # changed in place: Pods may have it mounted
    assert keys_in(secret) in world.backend.live_keys()
    assert world.ready(BUCKET_ACCESSES, "reader") == ("True", "Granted")
    assert grants(world) == 2
    assert world.backend.count(Call.REVOKE_ACCESS) == revokes
    (account,) = world.backend.accounts
    entry = entry_of(world)
    assert entry is not None
    assert (entry.accounts, entry.rotated) == ((account,), "1")
    assert status(world)["accountID"] == account
    world.restart("sidecar")
    world.user_edits(BUCKET_ACCESSES, "reader", lambda b: b["metadata"].update(labels={"a": "b"}))
    run(world)
    assert grants(world) == 2
    ready = next(c for c in status(world)["conditions"] if c["type"] == "Ready")
    assert ready["message"] == f"Secret team/{SECRET} holds the keys.{words}"
    rotate(world, "2")
    run(world)
    assert grants(world) == 3
    world.user_deletes(BUCKET_ACCESSES, "reader")
    run(world)
    assert world.backend.accounts == {}


def test_a_new_account_ends_what_an_earlier_rotation_said(world: World) -> None:
    granted_before(world)
    rotate(world)
    run(world)
    world.user_edits(SECRETS, SECRET, lambda body: body["metadata"].pop("finalizers"))
    world.user_deletes(SECRETS, SECRET)
    world.user_retries(BUCKET_ACCESSES, "reader", "1")
    run(world)
    assert world.ready(BUCKET_ACCESSES, "reader") == ("True", "Granted")
    ready = next(c for c in status(world)["conditions"] if c["type"] == "Ready")
    assert ready["message"] == f"Secret team/{SECRET} holds the keys."


@pytest.mark.parametrize("in_token", [False, True], ids=["expiryTs", "se of the SAS"])
def test_keys_that_expire_are_renewed_by_themselves_also_after_a_restart(
    world: World, in_token: bool
) -> None:
    world.backend.expiry_in_token = in_token
    life = timedelta(seconds=1000)
    world.backend.expiry = lambda: stamp(world.clock.wall() + life)
    add_access(world)
    world.run_until_idle(limit_s=700)
    assert (grants(world), status(world)["accessGranted"]) == (1, True)
    world.restart("sidecar")
    world.run_until_idle(limit_s=50)
    assert grants(world) == 1
    world.run_until_idle(limit_s=100)
    assert grants(world) == 2
    secret = world.found(SECRETS, SECRET)
    assert b"t0ken-KEY2" in base64.b64decode(secret["data"]["BucketInfo"])
    assert world.ready(BUCKET_ACCESSES, "reader") == ("True", "Granted")


@pytest.mark.parametrize("new_account", [False, True], ids=["same account", "a new account"])
@pytest.mark.parametrize(
    "verb", [Call.GRANT_ACCESS, Call.REVOKE_ACCESS, "update"], ids=["grant", "revoke", "write"]
)
def test_the_sidecar_crashes_in_a_rotation_and_no_key_is_left_that_the_secret_does_not_hold(
    world: World, verb: str, new_account: bool
) -> None:
    world.backend.new_account_each_time = new_account
    old = granted_before(world)
    crashes = 0

    def at_point(running: Running, run: Run, point: Point) -> None:
        nonlocal crashes
        if running.name == "sidecar" and point.verb == verb and not point.before:
            crashes += 1
            world.at_point = lambda running, run, point: None
            world.restart("sidecar")

    world.at_point = at_point
    rotate(world)
    run(world)
    assert crashes == (0 if verb == Call.REVOKE_ACCESS and not new_account else 1)
    new = keys_in(world.found(SECRETS, SECRET))
    assert new != old
    entry = entry_of(world)
    assert entry is not None
    assert entry.rotated == "1"
    lost = set(world.backend.accounts) - set(entry.accounts)
    # Nothing can tell the id of an account whose reply was lost, on a driver that mints each time.
    assert lost == ({f"{ACCOUNT}-2"} if new_account and verb == Call.GRANT_ACCESS else set())
    assert set(entry.accounts) <= set(world.backend.accounts)
    world.user_deletes(BUCKET_ACCESSES, "reader")
    run(world)
    assert entry_of(world) is None
    assert set(world.backend.accounts) == lost


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        pytest.param(Code.INVALID_ARGUMENT, "Stalled", id="final"),
        pytest.param(Code.INTERNAL, "Reconciling", id="retried"),
    ],
)
def test_a_rotation_fails_and_the_old_keys_stay_and_work(
    world: World, code: Code, outcome: str
) -> None:
    world.backend.new_account_each_time = True
    old = granted_before(world)
    world.backend.answers[Call.GRANT_ACCESS] = Answer(code, acts=False)
    rotate(world)
    world.run_until_idle(limit_s=60.0)
    assert keys_in(world.found(SECRETS, SECRET)) == old
    assert old in world.backend.live_keys()
    assert status(world)["accessGranted"] is True
    assert [c["type"] for c in status(world)["conditions"]] == ["Ready", outcome]
    world.backend.answers.clear()
    rotate(world, "2")
    run(world)
    assert world.ready(BUCKET_ACCESSES, "reader") == ("True", "Granted")
    assert world.backend.live_keys() == {keys_in(world.found(SECRETS, SECRET))}


def test_the_old_account_cannot_be_revoked_and_the_new_keys_are_in_the_secret_already(
    world: World,
) -> None:
    world.backend.new_account_each_time = True
    old = granted_before(world)
    world.backend.answers[Call.REVOKE_ACCESS] = Answer(Code.PERMISSION_DENIED, acts=False)
    rotate(world)
    world.run_until_idle(limit_s=600.0)
    assert keys_in(world.found(SECRETS, SECRET)) != old
    assert world.backend.count(Call.REVOKE_ACCESS) == 1
    assert grants(world) == 2
    assert world.ready(BUCKET_ACCESSES, "reader") == ("False", "DriverPermissionDenied")
    world.backend.answers.clear()
    world.user_retries(BUCKET_ACCESSES, "reader", "1")
    run(world)
    assert world.ready(BUCKET_ACCESSES, "reader") == ("True", "Granted")
    assert world.backend.live_keys() == {keys_in(world.found(SECRETS, SECRET))}


# --- a tenant that asks for retries without pause


def test_a_hundred_retries_within_a_second_make_two_calls_the_second_on_the_last_value(
    world: World,
) -> None:
    world.backend.answers[Call.GRANT_ACCESS] = Answer(Code.INVALID_ARGUMENT, acts=False)
    add_access(world)
    run(world)
    world.clock.advance(EARLY_RETRY_S)
    assert grants(world) == 1
    for number in range(100):
        world.user_retries(BUCKET_ACCESSES, "reader", str(number))
        world.run_until_idle(limit_s=0.01)
    assert grants(world) == 2  # the first at once, for nothing was called for a while
    world.run_until_idle(limit_s=EARLY_RETRY_S + 1.0)
    assert grants(world) == 3
    assert status(world)["lastCall"]["retryToken"].startswith("99|")
    world.run_until_idle(limit_s=600.0)
    assert grants(world) == 3


def test_a_tenant_forges_the_status_of_a_failed_deletion_and_the_driver_is_not_called_again(
    world: World,
) -> None:
    world.deletion_recheck_s = world.parts.deletion_recheck_s = None
    world.restart("sidecar")
    granted_before(world)
    world.backend.answers[Call.REVOKE_ACCESS] = Answer(Code.PERMISSION_DENIED, acts=False)
    world.user_deletes(BUCKET_ACCESSES, "reader")
    run(world)
    assert world.backend.count(Call.REVOKE_ACCESS) == 1
    for number in range(5):
        body = json.loads(json.dumps(world.found(BUCKET_ACCESSES, "reader")))
        body["status"] = {"accessGranted": True, "accountID": f"acct-{number}"}
        world.api.update(BUCKET_ACCESSES, body, subresource="status")
        world.run_until_idle(limit_s=60.0)
    assert world.backend.count(Call.REVOKE_ACCESS) == 1
    world.backend.answers.clear()
    world.user_retries(BUCKET_ACCESSES, "reader", "1")
    run(world)
    assert world.find(BUCKET_ACCESSES, "reader") is None
    revoked = {c.name for c in world.backend.calls if c.call is Call.REVOKE_ACCESS}
    assert revoked == {"acct-of-ba-bucketaccess-reader-1"}


def test_a_normal_life_ends_without_a_warning(world: World) -> None:
    granted_before(world)
    rotate(world)
    run(world)
    world.user_deletes(BUCKET_ACCESSES, "reader")
    run(world)
    assert [(e.type, e.reason) for e in world.parts.told if e.about.kind == "BucketAccess"] == [
        ("Normal", "AccessGranted"),
        ("Normal", "AccessRevoked"),
    ]


@pytest.mark.parametrize("new_account", [False, True], ids=["same account", "a new account"])
@pytest.mark.parametrize(
    ("field", "value"),
    [("serviceAccountName", "robot"), ("annotations", "1")],
    ids=["the spec", "the retry annotation"],
)
def test_a_change_during_a_refused_grant_is_not_swallowed_by_its_verdict(
    world: World, field: str, value: str, new_account: bool
) -> None:
    world.backend.new_account_each_time = new_account
    world.backend.answers[Call.GRANT_ACCESS] = Answer(Code.INVALID_ARGUMENT, acts=False)

    def at_point(running: Running, run: Run, point: Point) -> None:
        if point.verb != Call.GRANT_ACCESS or point.before:
            return
        world.at_point = lambda running, run, point: None
        world.backend.answers.clear()
        if field == "annotations":
            world.user_retries(BUCKET_ACCESSES, "reader", value)
        else:
            world.user_edits(BUCKET_ACCESSES, "reader", lambda b: b["spec"].update({field: value}))
        running.deliver()

    world.at_point = at_point
    add_access(world)
    run(world)
    assert world.ready(BUCKET_ACCESSES, "reader") == ("True", "Granted")
    assert grants(world) == 2


@pytest.mark.parametrize("token", ["1", "2026-05-06T07:08:09+02:00", "a|b"])
def test_a_retry_that_was_followed_is_known_whatever_its_value(world: World, token: str) -> None:
    granted_before(world)
    world.user_retries(BUCKET_ACCESSES, "reader", token)
    run(world)
    reads = len([sent for sent in world.sent if sent.plural == "secrets"])
    for labels in ({"x": "1"}, {"x": "2"}, {"x": "3"}):
        edit = functools.partial(_set_labels, labels)
        world.user_edits(BUCKET_ACCESSES, "reader", edit)
        run(world)
    assert len([sent for sent in world.sent if sent.plural == "secrets"]) == reads


def _set_labels(labels: dict[str, str], body: Json) -> None:
    body["metadata"]["labels"] = labels
