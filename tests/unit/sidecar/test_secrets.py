"""The Secret of an access: complete or not there, as Go pods read it, and only ours is touched."""

import base64
import json
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as with_fields
from tests.model.memory import Json
from tests.model.processes import MemoryClient
from tests.model.world import (
    World,
    add_access,
    add_access_class,
    add_claim,
    add_class,
    info_in,
)

from cosi_operator.api.core import SECRETS
from cosi_operator.api.resources import BUCKET_ACCESSES
from cosi_operator.api.view import BucketAccess, Key, Meta
from cosi_operator.driver.credentials import AzureCredentials, Credentials, S3Credentials
from cosi_operator.kube.errors import ApiSilent, Conflict, Invalid
from cosi_operator.plan import names
from cosi_operator.plan.facts import SecretAllowed, SecretIs
from cosi_operator.sidecar.secret_content import SecretContent, bucket_info, secret_data
from cosi_operator.sidecar.secret_release import UnheldSecrets
from cosi_operator.sidecar.secrets import Secrets

KEY = Key("team", "reader-keys")
S3 = Credentials(s3=S3Credentials("AKIA", "s3cret", "https://s3.example.com", "eu"))
CONTENT = SecretContent("uid-1", "bucket-0", "id-7", "acct-7", "Key", ("S3",), S3)


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


def test_what_is_created_is_read_back_as_ours_and_names_its_account_for_people(
    world: World, secrets: Secrets
) -> None:
    ours = SecretIs(exists=True, ours=True, has_finalizer=True, account="acct-7")
    assert now(secrets.create(KEY, CONTENT)) == ours
    assert now(secrets.read(KEY, "uid-1")) == ours
    assert now(secrets.read(KEY, "uid-2")) == SecretIs(exists=True, has_finalizer=True)
    annotations = world.found(SECRETS, KEY.name)["metadata"]["annotations"]
    assert annotations == {names.ACCOUNT_ID_ANNOTATION: "acct-7"}
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


def text_of(secret: Json) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


# What anybody who may write Secrets can put under BucketInfo.
ODD = [
    pytest.param(b'{"metadata":{"name":"\xff"}}', id="a name that is not UTF-8"),
    pytest.param(b'\xff\xfe{"metadata":{"name":"bc-uid-1"}}', id="a byte order mark"),
    pytest.param(b"[" * 100_000, id="100,000 brackets"),
    pytest.param(b'{"a":' * 100_000, id="100,000 braces"),
    pytest.param(
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b',"metadata":{"name":"bc-uid-1"}}',
        id="100,000 brackets beside our name",
    ),
    pytest.param(b'{"metadata":{"name":"\\ud800"}}', id="half of a surrogate pair"),
    pytest.param(b'{"metadata":{"name":"bc-uid-1"', id="cut short"),
    pytest.param(b'{"metadata":{"name":"bc-"}}', id="no UID"),
    pytest.param(b'{"metadata":{"name":["bc-uid-1"]}}', id="a list as the name"),
    pytest.param(b'{"metadata":null}', id="null as metadata"),
    pytest.param(b"9" * 500_000, id="a huge number"),
    pytest.param(b"null", id="null"),
    pytest.param(b"", id="empty"),
    pytest.param(
        b'{"metadata":{"name":"bc-uid-1"},"metadata":{"name":"bc-uid-2"}}',
        id="a key twice, of which the last counts, as in Go",
    ),
]


def put_bytes(world: World, info: bytes, **metadata: Any) -> Json:
    world.user_creates(SECRETS, KEY.name, stringData={})

    def edit(body: Json) -> None:
        body["data"] = {"BucketInfo": base64.b64encode(info).decode()}
        body["metadata"] |= metadata

    world.user_edits(SECRETS, KEY.name, edit)
    return world.found(SECRETS, KEY.name)


@pytest.mark.parametrize("info", ODD)
def test_any_bytes_under_bucketinfo_are_somebody_elses_secret(
    world: World, secrets: Secrets, info: bytes
) -> None:
    before = put_bytes(world, info)
    assert now(secrets.read(KEY, "uid-1")) == SecretIs(exists=True)
    assert now(secrets.create(KEY, CONTENT)) == SecretIs(exists=True)
    assert now(secrets.update(KEY, CONTENT)) == SecretIs(exists=True)
    assert now(secrets.holds(KEY, CONTENT)) is False
    now(secrets.delete(KEY, "uid-1"))
    now(secrets.release(KEY, frozenset()))
    assert world.found(SECRETS, KEY.name) == before


class OneSecret(MemoryClient):
    """Answers each GET with these bytes, and records what is sent."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.writes: list[str] = []

    async def _send(self, verb: str, *_: object) -> bytes:
        if verb != "get":
            self.writes.append(verb)
        return self.raw


@given(info=st.binary() | st.text().map(lambda text: json.dumps(text).encode()))
def test_no_bytes_under_bucketinfo_raise(info: bytes) -> None:
    """Neither as they are nor inside of JSON that begins as ours does."""
    for value in (info, b'{"metadata":{"name":' + info + b"}}", b'{"metadata":' + info + b"}"):
        body = {"metadata": {}, "data": {"BucketInfo": base64.b64encode(value).decode()}}
        client = OneSecret(json.dumps(body).encode())
        assert now(Secrets(client).read(KEY, "uid-1")) == SecretIs(exists=True)
        now(Secrets(client).delete(KEY, "uid-1"))
        now(Secrets(client).release(KEY, frozenset()))
        assert now(Secrets(client).update(KEY, CONTENT)) == SecretIs(exists=True)
        assert client.writes == []


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(metadata=JSON, annotations=JSON, finalizers=JSON, data=JSON, info=JSON)
def test_no_shape_of_a_secret_raises(
    metadata: Any, annotations: Any, finalizers: Any, data: Any, info: Any
) -> None:
    whole = {"annotations": annotations, "finalizers": finalizers}
    for body in (
        {"metadata": metadata, "data": data},
        {"metadata": whole, "data": data},
        {"metadata": whole, "data": {"BucketInfo": info}},
    ):
        client = OneSecret(json.dumps(body).encode())
        found = now(Secrets(client).read(KEY, "uid-1"))
        assert (found.exists, found.ours) == (True, False)
        now(Secrets(client).release(KEY, frozenset()))
        now(Secrets(client).delete(KEY, "uid-1"))
        assert client.writes == []


@pytest.mark.parametrize("raw", [b"[]", b"no JSON", b"[" * 100_000, b'"\xff"'])
def test_a_reply_that_is_no_object_counts_as_no_reply(raw: bytes) -> None:
    with pytest.raises(ApiSilent, match="not an object"):
        now(Secrets(OneSecret(raw)).read(KEY, "uid-1"))


OUR_INFO = b'{"metadata":{"name":"bc-uid-1"}}'


@pytest.mark.parametrize(
    ("info", "live", "released"),
    [
        pytest.param(OUR_INFO, {"uid-1"}, False, id="named by a live access -> kept"),
        pytest.param(OUR_INFO, {"uid-2"}, True, id="named by a deleted access -> released"),
        pytest.param(OUR_INFO, set(), True, id="no access is left -> released"),
        pytest.param(b"edited", {"uid-1"}, True, id="BucketInfo was edited -> released"),
        pytest.param(b'{"metadata":{"name":"\xff"}}', {"uid-1"}, True, id="bytes -> released"),
        pytest.param(b'{"metadata":{"name":"uid-1"}}', {"uid-1"}, True, id="no bc- -> released"),
    ],
)
def test_only_the_finalizer_of_a_secret_that_no_live_access_owns_is_removed(
    world: World, secrets: Secrets, info: bytes, live: set[str], released: bool
) -> None:
    before = put_bytes(world, info, finalizers=["a/b", names.SECRET_FINALIZER], labels={"app": "x"})
    assert now(secrets.read(KEY, "uid-3")).has_finalizer
    now(secrets.release(KEY, frozenset(live)))
    after = world.found(SECRETS, KEY.name)
    assert after["metadata"]["finalizers"] == (
        ["a/b"] if released else ["a/b", names.SECRET_FINALIZER]
    )
    assert after["data"] == before["data"]
    assert after["metadata"]["labels"] == {"app": "x"}
    assert now(secrets.read(KEY, "uid-3")).has_finalizer is not released


def test_a_secret_whose_deletion_waited_for_our_finalizer_goes_when_it_is_released(
    world: World, secrets: Secrets
) -> None:
    put_bytes(world, b"edited", finalizers=[names.SECRET_FINALIZER])
    world.user_deletes(SECRETS, KEY.name)
    now(secrets.delete(KEY, "uid-1"))  # not recognised as ours
    assert world.find(SECRETS, KEY.name)
    now(secrets.release(KEY, frozenset({"uid-1"})))
    assert world.find(SECRETS, KEY.name) is None
    now(secrets.release(KEY, frozenset()))  # a Secret that is gone is fine


def test_a_release_writes_nothing_when_the_finalizer_is_not_there(
    world: World, secrets: Secrets
) -> None:
    put_bytes(world, OUR_INFO)
    world.sent.clear()
    now(secrets.release(KEY, frozenset()))
    assert [sent.verb for sent in world.sent] == ["get"]


class Contended(MemoryClient):
    """Another writer changes the Secret before each of the first `times` updates."""

    def __init__(self, world: World, times: int) -> None:
        super().__init__(world.api, "sidecar", world.sent)
        self.world, self.times = world, times

    async def update(self, *args: Any, **kwargs: Any) -> bytes:
        if self.times:
            self.times -= 1
            self.world.user_edits(
                SECRETS,
                KEY.name,
                lambda b: b["metadata"].update(labels={"edit": str(self.times)}),
            )
        return await super().update(*args, **kwargs)


RENEWED = replace(
    CONTENT, account_id="acct-8", credentials=Credentials(s3=S3Credentials("AKIB", "n3w"))
)


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(lambda s: s.release(KEY, frozenset()), id="release"),
        pytest.param(lambda s: s.update(KEY, RENEWED), id="update"),
    ],
)
def test_a_conflict_is_answered_by_one_fresh_read(
    world: World, secrets: Secrets, act: Callable[[Secrets], Coroutine[Any, Any, Any]]
) -> None:
    now(secrets.create(KEY, CONTENT))
    before = world.found(SECRETS, KEY.name)
    with pytest.raises(Conflict):
        now(act(Secrets(Contended(world, 2))))
    assert world.found(SECRETS, KEY.name)["data"] == before["data"]
    now(act(Secrets(Contended(world, 1))))
    after = world.found(SECRETS, KEY.name)
    assert after["metadata"]["labels"] == {"edit": "0"}
    assert (after["data"], after["metadata"].get("finalizers")) != (
        before["data"],
        before["metadata"].get("finalizers"),
    )


class Overtaken(MemoryClient):
    """A new leader stores its keys before the update."""

    def __init__(self, world: World) -> None:
        super().__init__(world.api, "sidecar", world.sent)
        self.newer = Secrets(MemoryClient(world.api, "sidecar", world.sent))

    async def update(self, *args: Any, **kwargs: Any) -> bytes:
        newer = replace(CONTENT, credentials=Credentials(s3=S3Credentials("AKIC", "newer")))
        await self.newer.update(KEY, newer)
        return await super().update(*args, **kwargs)


def test_newer_keys_are_not_overwritten_after_a_conflict(world: World, secrets: Secrets) -> None:
    now(secrets.create(KEY, CONTENT))
    with pytest.raises(Conflict, match="the credentials in Secret team/reader-keys changed"):
        now(Secrets(Overtaken(world)).update(KEY, RENEWED))
    newer = replace(CONTENT, credentials=Credentials(s3=S3Credentials("AKIC", "newer")))
    assert now(secrets.holds(KEY, newer))


def test_keys_of_a_later_grant_are_not_overwritten(world: World, secrets: Secrets) -> None:
    now(secrets.create(KEY, replace(CONTENT, grant="later")))
    with pytest.raises(Conflict, match="the credentials in Secret team/reader-keys changed"):
        now(secrets.update(KEY, replace(RENEWED, grant="earlier"), "first"))
    assert now(secrets.holds(KEY, CONTENT))
    now(secrets.update(KEY, replace(RENEWED, grant="last"), "later"))
    assert now(secrets.read(KEY, "uid-1")).grant == "last"


def test_new_credentials_replace_the_old_ones_in_place_and_what_is_not_ours_stays(
    world: World, secrets: Secrets
) -> None:
    now(secrets.create(KEY, CONTENT))

    def edit(body: Json) -> None:
        body["data"]["team-note"] = base64.b64encode(b"x").decode()
        body["metadata"]["labels"] = {"app": "x"}
        body["metadata"]["annotations"]["reloader"] = "yes"
        body["metadata"]["finalizers"] = ["a/b"]  # ours was removed by hand

    world.user_edits(SECRETS, KEY.name, edit)
    assert now(secrets.holds(KEY, CONTENT)) is True
    assert now(secrets.holds(KEY, RENEWED)) is False
    renewed = SecretIs(exists=True, ours=True, has_finalizer=True, account="acct-8")
    assert now(secrets.update(KEY, RENEWED)) == renewed
    assert now(secrets.read(KEY, "uid-1")) == renewed
    assert now(secrets.holds(KEY, RENEWED)) is True
    after = world.found(SECRETS, KEY.name)
    assert after["metadata"]["labels"] == {"app": "x"}
    assert after["metadata"]["annotations"] == {
        "reloader": "yes",
        names.ACCOUNT_ID_ANNOTATION: "acct-8",
    }
    assert after["metadata"]["finalizers"] == ["a/b", names.SECRET_FINALIZER]
    assert text_of(after) == {**secret_data(RENEWED, extra_keys=True), "team-note": "x"}
    world.sent.clear()
    assert now(secrets.update(KEY, RENEWED)) == renewed  # repeated: nothing is written
    assert [sent.verb for sent in world.sent] == ["get"]


@pytest.mark.parametrize("extra_keys", [True, False])
def test_no_key_of_earlier_credentials_stays_behind(world: World, extra_keys: bool) -> None:
    """Neither those of another protocol nor, when extra keys were turned off, any of them."""
    client = MemoryClient(world.api, "sidecar", world.sent)
    now(Secrets(client).create(KEY, CONTENT))
    azure = replace(CONTENT, credentials=Credentials(azure=AzureCredentials("t0ken")))
    now(Secrets(client, extra_keys=extra_keys).update(KEY, azure))
    found = text_of(world.found(SECRETS, KEY.name))
    assert found == secret_data(azure, extra_keys=extra_keys)
    assert "s3cret" not in str(found)


def test_the_dry_run_has_the_keys_that_the_secret_will_have(world: World) -> None:
    """A policy of the cluster may forbid some; it must say so before a key is minted."""

    class Recording(MemoryClient):
        async def create(self, resource: Any, body: Any, **more: Any) -> bytes:
            bodies.append(body)
            return await super().create(resource, body, **more)

    for extra_keys in (True, False):
        bodies: list[Json] = []
        secrets = Secrets(Recording(world.api, "sidecar", world.sent), extra_keys=extra_keys)
        assert now(secrets.dry_run(Key("team", f"free-{extra_keys}"))) == SecretAllowed()
        now(secrets.create(Key("team", f"free-{extra_keys}"), CONTENT))
        tried, created = (set(body["stringData"]) for body in bodies)
        assert created <= tried
        assert ("AWS_ACCESS_KEY_ID" in tried) is extra_keys


def test_a_secret_of_the_go_sidecar_is_renewed_too(world: World, secrets: Secrets) -> None:
    put_bytes(world, OUR_INFO, finalizers=[names.SECRET_FINALIZER])
    assert now(secrets.holds(KEY, CONTENT)) is False
    renewed = SecretIs(exists=True, ours=True, has_finalizer=True, account="acct-7")
    assert now(secrets.update(KEY, CONTENT)) == renewed
    assert info_in(world.found(SECRETS, KEY.name)) == bucket_info(CONTENT)


def test_a_secret_that_is_being_deleted_gets_new_credentials_but_no_finalizer(
    world: World, secrets: Secrets
) -> None:
    put_bytes(world, OUR_INFO, finalizers=["a/b"])
    world.user_deletes(SECRETS, KEY.name)
    now(secrets.update(KEY, CONTENT))
    after = world.found(SECRETS, KEY.name)
    assert info_in(after) == bucket_info(CONTENT)
    assert after["metadata"]["finalizers"] == ["a/b"]


class Refusing(MemoryClient):
    async def update(self, *args: Any, **kwargs: Any) -> bytes:
        raise Invalid(422, "Invalid", "update secrets team/reader-keys")


def test_an_update_that_the_api_server_refuses_says_so(world: World, secrets: Secrets) -> None:
    now(secrets.create(KEY, CONTENT))
    refusing = Secrets(Refusing(world.api, "sidecar", world.sent))
    assert now(refusing.update(KEY, RENEWED)) == SecretAllowed("update secrets team/reader-keys")
    assert now(secrets.holds(KEY, CONTENT))


def test_a_missing_secret_is_not_made_by_an_update(world: World, secrets: Secrets) -> None:
    assert now(secrets.update(KEY, CONTENT)) == SecretIs(exists=False)
    assert now(secrets.holds(KEY, CONTENT)) is False
    assert world.api.list(SECRETS) == []


@pytest.mark.parametrize("is_own", [False, True], ids=["of nobody", "of the access itself"])
def test_an_access_names_another_secret_and_a_restored_one_that_it_named_is_released(
    is_own: bool,
) -> None:
    """Nobody else would ever find it: roles of sidecars have no list of Secrets."""
    world = World()
    for make in (add_class, add_access_class, add_claim):
        make(world)
    if not is_own:
        held = {
            "name": "reader-secret",
            "namespace": "team",
            "finalizers": [names.SECRET_FINALIZER],
        }
        world.user_creates(SECRETS, "reader-secret", metadata=held)
        world.processes["sidecar"].deliver()
    add_access(world, "reader")
    if is_own:
        world.run_until_idle()
    for process in world.processes.values():
        process.deliver()
    world.user_edits(
        BUCKET_ACCESSES, "reader", lambda body: body["spec"].update(credentialsSecretName="other")
    )
    world.run_until_idle()
    finalizers = world.found(SECRETS, "reader-secret")["metadata"].get("finalizers") or []
    assert (names.SECRET_FINALIZER in finalizers) == is_own


def test_of_one_access_few_names_of_secrets_are_kept() -> None:
    unheld = UnheldSecrets()
    access = BucketAccess(Meta("reader", "team", uid="uid"), secret_name="s0")
    for number in range(1, 100):
        renamed = with_fields(access, secret_name=f"s{number}")
        unheld.note(access, renamed, classless=False, recorded=True)
        access = renamed
    found = unheld.find(access.meta.key)
    assert list(found.items()) == [(f"s{number}", "") for number in range(83, 99)]
    for name in found:
        unheld.forget(access.meta.key, name)
    assert unheld.find(access.meta.key) == {}
