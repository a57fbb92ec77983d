"""Reads from the store, writes by conditional PUT; the store knows of each write at once."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from tests.support.apiserver import Drop, Reply, StubApiServer, client_of, serving
from tests.support.clock import FakeClock

from cosi_operator.api.view import Key, Resource
from cosi_operator.kube.errors import ApiSilent, Conflict, Invalid
from cosi_operator.kube.objects import Body, Objects, set_finalizers
from cosi_operator.kube.store import Store
from cosi_operator.kube.trim import bounded

CLAIMS = Resource(
    "objectstorage.k8s.io", "v1alpha1", "bucketclaims", "BucketClaim", namespaced=True
)
KEY = Key("team", "mine")
PATH = CLAIMS.path("team", "mine")
UID = "uid-101"  # the first object of the stub
FINALIZER = "cosi.objectstorage.k8s.io/bucketclaim-protection"


class View(msgspec.Struct, frozen=True):
    metadata: dict[str, Any]
    spec: dict[str, Any] = {}
    status: dict[str, Any] = {}


@dataclass
class World:
    server: StubApiServer
    claims: Objects[View]
    told: list[tuple[str, bool, bool]]

    def exists(self, **fields: Any) -> Body:
        """On the server, and in the store as by its watch."""
        body = self.server.put(CLAIMS, KEY, **fields)
        self.claims.store.upsert(msgspec.json.encode(body))
        return body

    @property
    def there(self) -> Body:
        return self.server.objects[PATH]

    @property
    def writes(self) -> list[str]:
        return [seen.verb for seen in self.server.seen if seen.verb != "get"]

    @property
    def held_version(self) -> str:
        view = self.claims.get(KEY)
        return "" if view is None else str(view.metadata["resourceVersion"])


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with serving() as server, client_of(server, FakeClock()) as client:
        told: list[tuple[str, bool, bool]] = []

        def changed(key: Key, old: View | None, new: View | None) -> None:
            told.append((key.name, old is not None, new is not None))

        store: Store[View] = Store(msgspec.json.Decoder(View).decode)
        yield World(server, Objects(client, CLAIMS, store, changed), told)


def label(body: Body) -> None:
    body["metadata"]["labels"] = {"a": "b"}


def nothing(body: Body) -> None:
    pass


def ready(body: Body) -> Body:
    return body | {"status": {"bucketReady": True}}


async def put_status(claims: Objects[View], change: Callable[[Body], Body]) -> Body | None:
    held = claims.body(KEY)
    assert held is not None
    return await claims.put_status(KEY, held, change)


# --- edit


async def test_an_edit_is_sent_stored_and_reported(world: World) -> None:
    world.exists(spec={"unknown": {"field": 1}})
    view = await world.claims.edit(KEY, UID, label)
    assert view is not None
    assert view.metadata["labels"] == {"a": "b"}
    assert world.there["spec"] == {"unknown": {"field": 1}}, "what we do not know is kept"
    assert world.held_version == world.there["metadata"]["resourceVersion"]
    assert world.told == [("mine", True, True)]


async def test_an_edit_that_changes_nothing_is_not_sent(world: World) -> None:
    world.exists()
    assert await world.claims.edit(KEY, UID, nothing) is not None
    assert world.server.seen == []
    assert world.told == []


async def test_an_edit_of_what_is_not_held_does_nothing(world: World) -> None:
    assert await world.claims.edit(KEY, UID, label) is None
    assert world.server.seen == []


async def test_an_edit_of_a_stale_copy_is_a_conflict_and_the_copy_is_fresh_then(
    world: World,
) -> None:
    world.exists()
    world.server.put(CLAIMS, KEY, spec={"theirs": 1})
    with pytest.raises(Conflict):
        await world.claims.edit(KEY, UID, label)
    assert "labels" not in world.there["metadata"]
    assert world.held_version == world.there["metadata"]["resourceVersion"]
    assert (await world.claims.edit(KEY, UID, label)) is not None


async def test_a_change_function_gets_a_separate_copy(world: World) -> None:
    world.exists()
    world.server.fail_next("update", Reply(422, "Invalid"))
    with pytest.raises(Invalid):
        await world.claims.edit(KEY, UID, label)
    view = world.claims.get(KEY)
    assert view is not None
    assert "labels" not in view.metadata


async def test_an_edit_of_an_earlier_object_of_the_name_is_not_sent(world: World) -> None:
    world.exists()
    with pytest.raises(Conflict, match="replaced by a later object"):
        await world.claims.edit(KEY, "uid-0", label)
    assert world.writes == []


async def test_a_read_of_an_earlier_object_of_the_name_is_a_conflict(world: World) -> None:
    world.exists()
    with pytest.raises(Conflict, match="replaced by a later object"):
        await world.claims.refresh(KEY, "uid-0")
    assert await world.claims.refresh(KEY, UID) is not None


async def test_an_edit_of_a_deleted_object_removes_it_from_the_store(world: World) -> None:
    world.exists()
    world.server.drop(CLAIMS, KEY)
    assert await world.claims.edit(KEY, UID, label) is None
    assert world.claims.get(KEY) is None
    assert world.told == [("mine", True, False)]


async def test_a_write_that_completes_the_deletion_removes_the_object(world: World) -> None:
    metadata = {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [FINALIZER]}
    world.exists(metadata=metadata)
    assert (
        await world.claims.edit(KEY, UID, lambda b: set_finalizers(b, remove=(FINALIZER,))) is None
    )
    assert world.claims.get(KEY) is None
    assert world.told == [("mine", True, False)]


async def test_a_finalizer_of_another_keeps_a_deleted_object(world: World) -> None:
    metadata = {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["x/y", FINALIZER]}
    world.exists(metadata=metadata)
    view = await world.claims.edit(KEY, UID, lambda body: set_finalizers(body, remove=(FINALIZER,)))
    assert view is not None
    assert view.metadata["finalizers"] == ["x/y"]


async def test_a_late_end_does_not_take_a_newer_copy_away(world: World) -> None:
    metadata = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    ended = world.exists(metadata=metadata)
    world.server.drop(CLAIMS, KEY)
    successor = world.server.put(CLAIMS, KEY)
    world.claims.store.upsert(msgspec.json.encode(successor))
    assert world.claims._fold(KEY, msgspec.json.encode(ended)) is None
    assert world.held_version == successor["metadata"]["resourceVersion"]


# --- put_status


async def test_a_status_goes_to_its_subresource_and_the_reply_is_given(world: World) -> None:
    world.exists()
    reply = await put_status(world.claims, ready)
    assert reply is not None
    assert reply["status"] == {"bucketReady": True}
    assert world.server.seen[-1].path == f"{PATH}/status"
    assert await put_status(world.claims, ready) is None, "nothing differs"
    assert world.writes == ["update"]


async def test_a_status_for_a_stale_copy_is_a_conflict_and_the_copy_is_fresh_then(
    world: World,
) -> None:
    world.exists()
    world.server.put(CLAIMS, KEY, spec={"n": 2})
    with pytest.raises(Conflict):
        await put_status(world.claims, ready)
    assert world.held_version == world.there["metadata"]["resourceVersion"]
    assert await put_status(world.claims, ready) is not None


async def test_a_status_write_for_a_deleted_object_removes_it_from_the_store(world: World) -> None:
    world.exists()
    world.server.drop(CLAIMS, KEY)
    assert await put_status(world.claims, ready) is None
    assert world.told == [("mine", True, False)]


# --- create, delete, refresh


async def test_a_created_object_is_in_the_store_immediately(world: World) -> None:
    body = {"apiVersion": CLAIMS.api_version, "kind": "BucketClaim", "metadata": {"name": "mine"}}
    view = await world.claims.create(body, namespace="team")
    assert view is not None
    assert world.held_version == world.there["metadata"]["resourceVersion"]
    assert world.told == [("mine", False, True)]


async def test_a_delete_is_of_exactly_that_object(world: World) -> None:
    world.exists()
    world.server.drop(CLAIMS, KEY)
    successor = world.server.put(CLAIMS, KEY)
    with pytest.raises(Conflict):
        await world.claims.delete(KEY, uid="uid-101")
    assert world.there == successor
    assert world.held_version == successor["metadata"]["resourceVersion"], "and it is known now"


async def test_a_delete_of_a_deleted_object_is_not_an_error(world: World) -> None:
    await world.claims.delete(KEY, uid="uid-101")


async def test_a_delete_without_a_reply_raises(world: World) -> None:
    world.exists()
    world.server.fail_next("delete", *[Drop()] * 10)
    clock = world.claims.client._transport._clock
    assert isinstance(clock, FakeClock)
    async with clock.flying():
        with pytest.raises(ApiSilent):
            await world.claims.delete(KEY, uid="uid-101")


async def test_a_refresh_brings_what_is_there(world: World) -> None:
    world.server.put(CLAIMS, KEY)
    assert await world.claims.refresh(KEY) is not None
    world.server.drop(CLAIMS, KEY)
    assert await world.claims.refresh(KEY) is None
    assert world.claims.get(KEY) is None
    assert world.told == [("mine", False, True), ("mine", True, False)]


async def test_a_relist_brings_all_pages_of_one_namespace(world: World) -> None:
    world.server.put(CLAIMS, KEY)
    world.server.put(CLAIMS, Key("other", "theirs"))
    for number in range(501):  # one more than a page
        world.server.put(CLAIMS, Key("team", f"claim-{number}"))
    await world.claims.relist("team")
    assert len(world.told) == 502
    assert world.claims.get(KEY) is not None
    assert world.claims.get(Key("other", "theirs")) is None
    assert [seen.query["limit"] for seen in world.server.seen] == ["125", "500"]


async def test_a_body_is_complete_and_private(world: World) -> None:
    body = world.exists()
    world.claims.store.upsert(
        msgspec.json.encode({"metadata": body["metadata"] | {"resourceVersion": "500"}})
    )
    first = world.claims.body(KEY)
    assert first is not None
    assert (first["apiVersion"], first["kind"]) == (CLAIMS.api_version, "BucketClaim")
    first["metadata"]["name"] = "other"
    assert world.claims.body(KEY) != first


# --- finalizers


@pytest.mark.parametrize(
    ("before", "add", "remove", "after"),
    [
        pytest.param(None, ("a",), (), ["a"], id="the first one"),
        pytest.param(["a"], ("a",), (), ["a"], id="never twice"),
        pytest.param(["x", "a", "y"], (), ("a",), ["x", "y"], id="others keep their order"),
        pytest.param(["a"], (), ("a",), None, id="no empty list is left"),
        pytest.param(["x"], ("b",), ("a",), ["x", "b"], id="the new one comes last"),
    ],
)
def test_finalizers(
    before: list[str] | None, add: tuple[str, ...], remove: tuple[str, ...], after: list[str] | None
) -> None:
    body: Body = {"metadata": {} if before is None else {"finalizers": before}}
    set_finalizers(body, add=add, remove=remove)
    assert body["metadata"].get("finalizers") == after


# --- objects that are too large to be held


@pytest.fixture
async def giants() -> AsyncIterator[World]:
    async with serving() as server, client_of(server, FakeClock()) as client:
        store: Store[View] = Store(msgspec.json.Decoder(View).decode, trim=bounded)
        yield World(server, Objects(client, CLAIMS, store, lambda *_: None), [])


async def test_an_edit_of_a_partly_held_object_writes_all_of_it(giants: World) -> None:
    note = {"note": "x" * 200_000}
    giants.exists(spec={"bucketClassName": "gold"}, metadata={"annotations": note})
    await giants.claims.edit(KEY, UID, label)
    assert giants.there["metadata"]["labels"] == {"a": "b"}
    assert giants.there["metadata"]["annotations"] == note
    assert giants.there["spec"] == {"bucketClassName": "gold"}
    assert giants.held_version == giants.there["metadata"]["resourceVersion"]
    assert not any(name.startswith("$") for name in giants.there)


async def test_an_edit_of_an_oversized_object_keeps_its_spec(giants: World) -> None:
    giants.exists(spec={"bucketClassName": "x" * 10**6}, metadata={"finalizers": [FINALIZER]})
    await giants.claims.edit(KEY, UID, lambda body: set_finalizers(body, remove=(FINALIZER,)))
    assert giants.there["spec"] == {"bucketClassName": "x" * 10**6}
    assert not giants.there["metadata"].get("finalizers")


async def test_an_edit_that_changes_nothing_reads_nothing(giants: World) -> None:
    giants.exists(spec={"bucketClassName": "x" * 10**6})
    await giants.claims.edit(KEY, UID, lambda body: set_finalizers(body, remove=(FINALIZER,)))
    assert giants.server.seen == []


async def test_the_status_of_a_partly_held_object_is_written_once(giants: World) -> None:
    giants.exists(metadata={"annotations": {"note": "x" * 200_000}})
    for _ in range(2):
        await put_status(
            giants.claims, lambda body: {**body, "status": {"conditions": ["y" * 20_000]}}
        )
    assert giants.there["status"] == {"conditions": ["y" * 20_000]}
    assert giants.writes == ["update"]


async def test_an_edit_of_a_stale_part_is_a_conflict_and_the_part_is_fresh_then(
    giants: World,
) -> None:
    giants.exists(spec={"bucketClassName": "x" * 10**6})
    giants.server.put(CLAIMS, KEY, spec={"bucketClassName": "y" * 10**6})
    with pytest.raises(Conflict):
        await giants.claims.edit(KEY, UID, label)
    assert giants.held_version == giants.there["metadata"]["resourceVersion"]
