"""The Secret of an access: complete or not there, as Go pods read it, and only ours is touched."""

from collections.abc import Coroutine
from typing import Any

import pytest
from tests.model.memory import Json
from tests.model.processes import MemoryClient
from tests.model.world import World, info_in

from cosi_operator.api.core import SECRETS
from cosi_operator.api.view import Key
from cosi_operator.driver.credentials import AzureCredentials, Credentials, S3Credentials
from cosi_operator.plan.steps import SecretAllowed, SecretIs
from cosi_operator.sidecar.secrets import SecretContent, Secrets, bucket_info

KEY = Key("team", "reader-keys")
S3 = Credentials(s3=S3Credentials("AKIA", "s3cret", "https://s3.example.com", "eu"))
CONTENT = SecretContent("uid-1", "id-7", "acct-7", "Key", ("S3",), S3)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def secrets(world: World) -> Secrets:
    return Secrets(MemoryClient(world.api, "sidecar", world.sent))


def now[R](coroutine: Coroutine[Any, Any, R]) -> R:
    """Run to the end, past every point at which it could be held."""
    while True:
        try:
            coroutine.send(None)
        except StopIteration as end:
            result: R = end.value
            return result


def put(world: World, data: dict[str, str]) -> Json:
    world.user_creates(SECRETS, KEY.name, stringData=data)
    return world.found(SECRETS, KEY.name)


def test_s3_keys_in_the_shape_that_pods_read() -> None:
    assert bucket_info(CONTENT) == {
        "metadata": {"name": "bc-uid-1", "creationTimestamp": None},
        "spec": {
            "bucketName": "id-7",
            "authenticationType": "Key",
            "secretS3": {
                "endpoint": "https://s3.example.com",
                "region": "eu",
                "accessKeyID": "AKIA",
                "accessSecretKey": "s3cret",
            },
            "secretAzure": None,
            "protocols": ["S3"],
        },
    }


def test_azure_keys_in_the_shape_that_pods_read() -> None:
    azure = Credentials(azure=AzureCredentials("t0ken", "2026-01-02T03:04:05Z"))
    spec = bucket_info(SecretContent("u", "id", "a", "IAM", ("Azure",), azure))["spec"]
    assert spec["secretS3"] is None
    assert spec["secretAzure"] == {
        "accessToken": "t0ken",
        "expiryTimeStamp": "2026-01-02T03:04:05Z",
    }


def test_what_is_created_is_read_back_as_ours_with_its_account(
    world: World, secrets: Secrets
) -> None:
    ours = SecretIs(exists=True, ours=True, account_id="acct-7")
    assert now(secrets.create(KEY, CONTENT)) == ours
    assert now(secrets.read(KEY, "uid-1")) == ours
    assert now(secrets.read(KEY, "uid-2")) == SecretIs(exists=True)
    assert info_in(world.found(SECRETS, KEY.name)) == bucket_info(CONTENT)
    assert now(secrets.create(KEY, CONTENT)) == ours  # its reply was lost, and it is made again


def test_a_name_that_is_free(world: World, secrets: Secrets) -> None:
    assert now(secrets.read(KEY, "uid-1")) == SecretIs(exists=False)
    assert now(secrets.dry_run(KEY)) == SecretAllowed()
    assert world.api.list(SECRETS) == []
    now(secrets.delete(KEY, "uid-1"))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param({"password": "x"}, id="another key"),
        pytest.param({"BucketInfo": "no JSON"}, id="no JSON"),
        pytest.param({"BucketInfo": "[]"}, id="another shape"),
        pytest.param({"BucketInfo": '{"metadata":{"name":"bc-other"}}'}, id="another access's"),
        pytest.param({}, id="nothing"),
    ],
)
def test_a_secret_of_someone_else_is_never_written_or_deleted(
    world: World, secrets: Secrets, data: dict[str, str]
) -> None:
    before = put(world, data)
    assert now(secrets.read(KEY, "uid-1")) == SecretIs(exists=True)
    assert now(secrets.dry_run(KEY)) == SecretIs(exists=True)
    assert now(secrets.create(KEY, CONTENT)) == SecretIs(exists=True)
    now(secrets.delete(KEY, "uid-1"))
    assert world.found(SECRETS, KEY.name) == before


def test_a_secret_that_may_not_be_stored_says_why(world: World, secrets: Secrets) -> None:
    world.api.refused_secrets.add(KEY.name)
    for result in (now(secrets.dry_run(KEY)), now(secrets.create(KEY, CONTENT))):
        assert isinstance(result, SecretAllowed)
        assert "quota" in result.refused


def test_ours_goes_with_its_finalizer_also_when_its_deletion_had_begun(
    world: World, secrets: Secrets
) -> None:
    for deleted_by_a_user in (False, True):
        now(secrets.create(KEY, CONTENT))
        if deleted_by_a_user:
            world.user_deletes(SECRETS, KEY.name)
            assert world.find(SECRETS, KEY.name)
        now(secrets.delete(KEY, "uid-1"))
        assert world.find(SECRETS, KEY.name) is None


def test_finalizers_of_others_keep_it(world: World, secrets: Secrets) -> None:
    now(secrets.create(KEY, CONTENT))
    world.user_edits(SECRETS, KEY.name, lambda b: b["metadata"]["finalizers"].append("a/b"))
    now(secrets.delete(KEY, "uid-1"))
    kept = world.found(SECRETS, KEY.name)["metadata"]
    assert kept["finalizers"] == ["a/b"]
    assert kept["deletionTimestamp"]


def test_what_a_secret_is_made_from_never_shows_its_keys() -> None:
    assert "s3cret" not in repr(CONTENT)
    assert "AKIA" not in repr(CONTENT)
