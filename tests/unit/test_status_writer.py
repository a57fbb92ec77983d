"""The only writer of status applies a patch to the object as it is at each attempt."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
import pytest
from tests.support.apiserver import Reply, StubApiServer, client_of, serving
from tests.support.clock import FakeClock

from cosi_operator.api.decode import decode_bucket_claim
from cosi_operator.api.resources import BUCKET_CLAIMS
from cosi_operator.api.view import BucketClaim, Condition, Key, Status
from cosi_operator.kube.errors import Conflict
from cosi_operator.kube.events import EventRecorder
from cosi_operator.kube.objects import STATUS_TRIES, Body, Objects
from cosi_operator.kube.store import Store
from cosi_operator.kube.trim import bounded
from cosi_operator.report import Reporter
from cosi_operator.status_patch import StatusPatch

KEY = Key("team", "photos")


@dataclass(frozen=True)
class ClassPatch:
    """Writes the class of the object as it is at the attempt, so a stale copy would show."""

    uid: str
    version: str = ""
    seen: list[str] = field(default_factory=list)

    def status_of(self, current: BucketClaim) -> Status | None:
        self.seen.append(current.class_name)
        ready = Condition("Ready", "False", "Waiting", current.class_name)
        return Status((ready,), observed_generation=1, ready=False)


@dataclass
class World:
    server: StubApiServer
    claims: Objects[BucketClaim]
    reporter: Reporter

    def exists(self, *, held: bool = True, class_name: str = "gold", **metadata: Any) -> Body:
        """On the server, and unless `held` is False also in the store."""
        metadata = {"uid": "claim-1", **metadata}
        spec = {"bucketClassName": class_name}
        body = self.server.put(BUCKET_CLAIMS, KEY, metadata=metadata, spec=spec)
        if held:
            self.claims.store.upsert(bounded(msgspec.json.encode(body)))
        return body

    async def write(self, patch: StatusPatch[BucketClaim]) -> bool:
        return await self.reporter.write(self.claims, KEY, patch)

    @property
    def writes(self) -> list[str]:
        return [seen.verb for seen in self.server.seen if seen.verb != "get"]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with serving() as server, client_of(server, FakeClock()) as client:
        store = Store(decode_bucket_claim)
        claims = Objects(client, BUCKET_CLAIMS, store, lambda *_: None)
        events = cast("EventRecorder", None)  # `write` emits no Event
        yield World(server, claims, Reporter(events, FakeClock(), longest_pause_s=300.0))


async def test_after_a_conflict_the_patch_is_applied_to_the_fresh_copy(world: World) -> None:
    world.exists()
    world.exists(held=False, class_name="silver")
    patch = ClassPatch("claim-1")
    assert await world.write(patch)
    assert patch.seen == ["gold", "silver"]
    stored = world.server.objects[BUCKET_CLAIMS.path(*KEY)]["status"]
    assert stored["conditions"][0]["message"] == "silver"


async def test_endless_conflicts_end(world: World) -> None:
    world.exists()
    world.server.fail_next("update", *[Reply(409, "Conflict")] * STATUS_TRIES)
    with pytest.raises(Conflict):
        await world.write(ClassPatch("claim-1"))
    assert len(world.writes) == STATUS_TRIES


async def test_an_object_that_is_deleted_during_a_conflict_is_removed(world: World) -> None:
    world.exists()
    world.server.fail_next("update", Reply(409, "Conflict"))
    world.server.fail_next("get", Reply(404, "NotFound"))
    assert not await world.write(ClassPatch("claim-1"))
    assert world.claims.get(KEY) is None
    assert world.writes == ["update"]


@pytest.mark.parametrize(
    "exists",
    [
        pytest.param(lambda _: None, id="not cached -> no request"),
        pytest.param(lambda world: world.exists(uid="claim-2"), id="another UID -> no request"),
        pytest.param(
            lambda world: world.exists(class_name="x" * 10**6), id="oversized -> no request"
        ),
    ],
)
async def test_nothing_is_written_for_another_object(
    world: World, exists: Callable[[World], object]
) -> None:
    exists(world)
    patch = ClassPatch("claim-1")
    assert not await world.write(patch)
    assert patch.seen == []
    assert world.server.seen == []


async def test_a_patch_for_one_version_is_a_conflict_on_every_other(world: World) -> None:
    version = world.exists()["metadata"]["resourceVersion"]
    with pytest.raises(Conflict):
        await world.write(ClassPatch("claim-1", version=f"{version}0"))
    assert await world.write(ClassPatch("claim-1", version=version))
