"""Each change of a backend or of a Secret is one line at level info, with ids, call and keys."""

from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.model.backend import Answer
from tests.model.memory import Json
from tests.model.world import World, add_access, add_access_class, add_claim, add_class

from cosi_operator.api.core import SECRETS
from cosi_operator.api.resources import BUCKET_ACCESSES, BUCKET_CLAIMS
from cosi_operator.outcome import Call, Code
from cosi_operator.plan import names

CHANGES = {
    "bucket_created",
    "bucket_adopted",
    "bucket_deleted",
    "access_granted",
    "access_granted_again",
    "access_revoked",
    "secret_created",
    "secret_updated",
    "secret_deleted",
}
BUCKET = {"bucket_id": "id-of-bucket-bucketclaim-photos-1"}
FIRST = BUCKET | {"account_id": "acct-of-ba-bucketaccess-reader-1"}
SECOND = BUCKET | {"account_id": "acct-of-ba-bucketaccess-reader-1-4"}
SECRET = {"name": "reader-secret"}


@pytest.fixture
def world() -> World:
    made = World()
    add_class(made)
    add_access_class(made)
    return made


def told(world: World) -> list[tuple[str, dict[str, Any]]]:
    """Run until nothing is left to do; the changes that were logged meanwhile, and their ids."""
    with capture_logs() as lines:
        world.run_until_idle()
    assert world.check_settled() == []
    assert [line for line in lines if line.get("message") == ""] == []
    changes = [line for line in lines if line["event"] in CHANGES]
    for line in changes:
        assert line["log_level"] == "info"
        assert ("call" in line, "call_ms" in line) == ("name" not in line, "name" not in line)
    fields = ("bucket_id", "account_id", "name", "keys")
    return [(line["event"], {f: line[f] for f in fields if f in line}) for line in changes]


def rotate(world: World, token: str) -> None:
    def annotate(body: Json) -> None:
        body["metadata"].setdefault("annotations", {})[names.ROTATE_ANNOTATION] = token

    world.user_edits(BUCKET_ACCESSES, "reader", annotate)


def test_from_the_claim_to_the_deletion_each_change_is_one_line(world: World) -> None:
    add_claim(world)
    add_access(world)
    assert told(world) == [
        ("bucket_created", BUCKET),
        ("access_granted", FIRST),
        ("secret_created", SECRET),
    ]
    world.restart("sidecar")
    assert told(world) == []

    world.backend.same_keys = True
    rotate(world, "1")
    assert told(world) == [
        ("access_granted_again", FIRST),
        ("secret_updated", SECRET | {"keys": "same"}),
    ]
    world.backend.same_keys = False
    rotate(world, "2")
    assert told(world) == [
        ("access_granted_again", FIRST),
        ("secret_updated", SECRET | {"keys": "added"}),
    ]
    world.backend.new_account_each_time = True
    rotate(world, "3")
    assert told(world) == [
        ("access_granted_again", SECOND),
        ("secret_updated", SECRET | {"keys": "new"}),
        ("access_revoked", FIRST),
    ]
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.user_deletes(BUCKET_ACCESSES, "reader")
    assert told(world) == [
        ("access_revoked", SECOND),
        ("secret_deleted", SECRET),
        ("bucket_deleted", BUCKET),
    ]
    assert not world.api.list(SECRETS)


def test_a_bucket_that_exists_already_is_adopted(world: World) -> None:
    world.backend.answers[Call.CREATE_BUCKET] = Answer(Code.ALREADY_EXISTS)
    add_claim(world)
    assert told(world) == [("bucket_adopted", {"bucket_id": "bucket-bucketclaim-photos-1"})]


def test_a_call_that_fails_changes_nothing_and_each_failure_is_one_line(world: World) -> None:
    world.backend.answers[Call.CREATE_BUCKET] = Answer(Code.INTERNAL, acts=False)
    add_claim(world)
    with capture_logs() as lines:
        world.run_until_idle(limit_s=20.0)
    failures = [line for line in lines if line["log_level"] != "debug" and "outcome" in line]
    calls = world.backend.count(Call.CREATE_BUCKET)
    assert calls > 2
    assert [line["attempt"] for line in failures] == list(range(1, calls + 1))
    for line in failures:
        assert (line["event"], line["outcome"]) == ("reconcile_requeued", "requeue")
        assert (line["call"], line["code"], line["made_by"]) == (
            "DriverCreateBucket",
            "INTERNAL",
            "driver",
        )
        assert line["message"].startswith("DriverCreateBucket failed")
        assert line["next_in_s"] > 0
    assert not [line for line in lines if line["event"] in CHANGES]
