"""How many accounts a BucketAccess can have, and what happens if a driver returns one for two."""

from dataclasses import replace

import pytest
from tests.model.backend import Answer
from tests.model.memory import Json, copy
from tests.model.world import (
    World,
    add_access,
    add_access_class,
    add_claim,
    add_class,
    add_static_bucket,
    keys_in,
    record_of,
)

from cosi_operator.api.core import SECRETS
from cosi_operator.api.resources import BUCKET_ACCESSES, BUCKET_CLAIMS, BUCKETS
from cosi_operator.outcome import Call, Code
from cosi_operator.plan import names
from cosi_operator.sidecar.calls import EARLY_RETRY_S

HOUR_S = 3600.0
BUCKET = "bucket-bucketclaim-photos-1"
BOTH = ("reader", "writer")
READER_ACCOUNT = "acct-of-ba-bucketaccess-reader-1"


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
    text, for_the_administrator = events(shared, "BackendUnverified")
    assert text.startswith("Account acct-of-id-of-bucket")
    assert for_the_administrator == f"BucketAccess team/reader: {text}"
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


# --- what was granted before there was a record


def forget_record(world: World) -> None:
    """As an earlier release, or the Go pair, left it."""
    (bucket,) = world.api.list(BUCKETS)
    world.user_edits(BUCKETS, bucket["metadata"]["name"], _drop_annotations)
    world.restart("sidecar")


def _drop_annotations(body: Json) -> None:
    body["metadata"].pop("annotations", None)


def forge(world: World, name: str, account: str) -> None:
    body = world.found(BUCKET_ACCESSES, name)
    status = {**body.get("status", {}), "accountID": account, "accessGranted": True}
    world.api.update(BUCKET_ACCESSES, {**body, "status": status}, subresource="status")


def test_account_that_is_written_after_the_record_was_started_is_never_revoked(
    world: World,
) -> None:
    add_access(world, "reader")
    add_access(world, "waits", bucketAccessClassName="none")
    world.run_until_idle(limit_s=60.0)
    world.user_edits(
        BUCKET_ACCESSES,
        "waits",
        lambda b: b["metadata"].update(finalizers=[names.ACCESS_FINALIZER]),
    )
    forget_record(world)
    world.run_until_idle(limit_s=60.0)
    account = world.found(BUCKET_ACCESSES, "reader")["status"]["accountID"]
    (bucket,) = world.api.list(BUCKETS)
    record = record_of(bucket)
    assert record is not None
    assert [entry.accounts for entry in record.accesses.values()] == [(account,)]
    assert dict(record.former) == {}
    world.backend.accounts["root"] = replace(world.backend.accounts[account])
    forge(world, "waits", "root")
    world.user_deletes(BUCKET_ACCESSES, "waits")
    world.run_until_idle()
    assert world.backend.count(Call.REVOKE_ACCESS) == 0
    assert world.find(BUCKET_ACCESSES, "waits") is None


def test_keys_of_before_the_record_are_kept_and_revoked_in_the_end(world: World) -> None:
    add_access(world)
    world.run_until_idle()
    forget_record(world)
    world.run_until_idle()
    assert world.backend.count(Call.GRANT_ACCESS) == 1
    assert events(world, "BackendUnverified") == []
    world.user_deletes(BUCKET_ACCESSES, "reader")
    world.run_until_idle()
    assert world.backend.accounts == {}


def test_account_that_no_record_names_is_left_alone_and_the_owner_is_warned(world: World) -> None:
    """A copied status, or an access that the Go sidecar granted beside a record of ours."""
    add_access(world, "reader")
    world.run_until_idle()
    add_access(world, "copy")
    forge(world, "copy", "acct-of-production")
    world.run_until_idle()
    assert world.check_settled() == []
    (text,) = events(world, "BackendUnverified")
    assert text.startswith("status.accountID named account acct-of-production")
    assert world.backend.count(Call.REVOKE_ACCESS) == 0


@pytest.mark.parametrize("restart", [False, True], ids=["same process", "after a restart"])
def test_static_bucket_is_replaced_by_one_of_another_id_and_no_account_moves_to_it(
    world: World, restart: bool
) -> None:
    world.backend.new_account_each_time = True
    add_static_bucket(world)
    world.user_creates(BUCKET_CLAIMS, "archive", spec={"existingBucketName": "old"})
    add_access(world, "reader", claim="archive")
    world.run_until_idle()
    (account,) = world.backend.accounts
    body = copy(world.found(BUCKETS, "old"))
    world.user_edits(BUCKETS, "old", lambda b: b["metadata"].pop("finalizers"))
    world.user_deletes(BUCKETS, "old")
    if restart:
        world.restart("sidecar")
    metadata = {"name": "old", "finalizers": body["metadata"]["finalizers"]}
    spec = {**body["spec"], "existingBucketID": "id-of-new"}
    world.backend.buckets["new"] = "id-of-new"
    world.user_creates(BUCKETS, "old", metadata=metadata, spec=spec)
    world.run_until_idle()
    world.user_deletes(BUCKET_ACCESSES, "reader")
    world.run_until_idle()
    revoked = [c for c in world.backend.calls if c.call is Call.REVOKE_ACCESS]
    assert {c.bucket_id for c in revoked if c.name == account} <= {"id-of-old"}
    left = set(world.backend.accounts)
    assert left == ({account} if restart else set())
    if restart:  # nothing in the cluster says where the account is, so a person has to look
        assert account in events(world, "BackendUnverified")[0]


def make_bucket_anew(world: World) -> None:
    """Remove it by force, and let the claim's status no longer say that it ever had one."""
    world.user_edits(BUCKETS, BUCKET, lambda b: b["metadata"].pop("finalizers"))
    world.user_deletes(BUCKETS, BUCKET)
    claim = copy(world.found(BUCKET_CLAIMS, "photos"))
    world.api.update(BUCKET_CLAIMS, {**claim, "status": {}}, subresource="status")


@pytest.mark.parametrize("edited", [False, True], ids=["Secret as it was", "Secret edited"])
def test_bucket_object_is_made_anew_for_the_same_bucket_and_its_access_is_recorded_again(
    world: World, edited: bool
) -> None:
    add_access(world, "reader")
    world.run_until_idle()
    (account,) = world.backend.accounts
    if edited:
        world.user_edits(SECRETS, "reader-secret", lambda b: b.update(data={}))
    make_bucket_anew(world)
    world.run_until_idle()
    assert world.found(BUCKETS, BUCKET)["status"]["bucketReady"]
    record = record_of(world.found(BUCKETS, BUCKET))
    assert record is not None
    (entry,) = record.accesses.values()
    assert entry.accounts == (account,)
    assert world.backend.count(Call.GRANT_ACCESS) == 1
    world.user_deletes(BUCKET_ACCESSES, "reader")
    world.run_until_idle()
    assert not world.backend.accounts


def test_bucket_object_is_made_anew_after_a_restart_and_the_status_forgets_no_account_in_silence(
    world: World,
) -> None:
    """The Secret is not this access's any more, so no new keys are granted that would tell it."""
    add_access(world, "reader")
    world.run_until_idle()
    (account,) = world.backend.accounts
    world.user_edits(SECRETS, "reader-secret", lambda b: b.update(data={}))
    make_bucket_anew(world)
    world.restart("sidecar")
    world.run_until_idle()
    assert world.ready(BUCKET_ACCESSES, "reader") == ("False", "SecretNotOwned")
    assert "accountID" not in world.found(BUCKET_ACCESSES, "reader")["status"]
    (text,) = events(world, "BackendUnverified")
    assert text.startswith(f"status.accountID named account {account}")


def test_bucket_object_is_made_anew_and_a_refusal_does_not_undo_what_an_earlier_grant_may_have_made(
    world: World,
) -> None:
    """Its entry has no account yet, because the earlier Grant only failed."""
    world.backend.answers[Call.GRANT_ACCESS] = Answer(Code.INTERNAL, acts=False)
    add_access(world, "reader")
    world.run_until_idle(limit_s=10.0)
    world.backend.answers[Call.GRANT_ACCESS] = Answer(Code.INVALID_ARGUMENT, acts=False)
    world.clock.advance(EARLY_RETRY_S)
    make_bucket_anew(world)
    world.user_retries(BUCKET_ACCESSES, "reader", "1")  # no backoff lies between entry and Grant
    world.run_until_idle()
    record = record_of(world.found(BUCKETS, BUCKET))
    assert record is not None
    assert len(record.accesses) == 1
    assert world.ready(BUCKET_ACCESSES, "reader") == ("False", "DriverInvalidArgument")
    finalizers = world.found(BUCKET_ACCESSES, "reader")["metadata"].get("finalizers")
    assert finalizers == [names.ACCESS_FINALIZER]


# --- an older copy of the record comes back: kubectl apply of a backup, GitOps, a restore


@pytest.fixture
def older(world: World) -> Json:
    """The annotations of a Bucket before a second access was granted."""
    add_access(world, "reader")
    world.run_until_idle()
    (bucket,) = world.api.list(BUCKETS)
    add_access(world, "writer")
    world.run_until_idle()
    return copy(bucket["metadata"]["annotations"])


def put_back(world: World, annotations: Json) -> None:
    (bucket,) = world.api.list(BUCKETS)
    name = bucket["metadata"]["name"]
    world.user_edits(BUCKETS, name, lambda b: b["metadata"].update(annotations=annotations))
    world.run_until_idle()


def test_older_record_costs_no_grant_and_every_account_is_revoked_in_the_end(
    world: World, older: Json
) -> None:
    put_back(world, older)
    assert len(events(world, "RecordLost")) == 1
    assert world.check_settled() == []
    assert world.backend.count(Call.GRANT_ACCESS) == 2
    for name in BOTH:
        world.user_deletes(BUCKET_ACCESSES, name)
    world.run_until_idle()
    assert world.backend.accounts == {}
    assert events(world, "BackendUnverified") == []


def test_older_record_brings_back_an_access_that_is_gone_and_its_account_belongs_to_another(
    world: World, older: Json
) -> None:
    """A driver may give an account's name away again after its Revoke."""
    world.user_deletes(BUCKET_ACCESSES, "reader")
    world.run_until_idle()
    world.backend.answers[Call.GRANT_ACCESS] = Answer(id=READER_ACCOUNT)
    add_access(world, "third")
    world.run_until_idle()
    put_back(world, older)
    assert keys_in(world.found(SECRETS, "third-secret")) in world.backend.live_keys()
    assert world.check_settled() == []
    (bucket,) = world.api.list(BUCKETS)
    record = record_of(bucket)
    assert record is not None
    assert {entry.name for entry in record.accesses.values()} == {"writer", "third"}


def test_older_record_after_a_restart_grants_anew_and_names_the_account_that_is_left(
    world: World, older: Json
) -> None:
    (bucket,) = world.api.list(BUCKETS)
    name = bucket["metadata"]["name"]
    world.user_edits(BUCKETS, name, lambda b: b["metadata"].update(annotations=older))
    world.restart("sidecar")
    world.backend.new_account_each_time = True
    world.run_until_idle()
    assert world.ready(BUCKET_ACCESSES, "writer") == ("True", "Granted")
    assert keys_in(world.found(SECRETS, "writer-secret")) in world.backend.live_keys()
    told = [each for each in world.parts.told if each.reason == "BackendUnverified"]
    assert len({each.series for each in told}) == 1
    assert told[0].message.startswith(
        "status.accountID named account acct-of-ba-bucketaccess-writer-1,"
    )
