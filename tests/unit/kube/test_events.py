"""Events: one for each thing that goes on, however often it is told; never in anyone's way."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs
from tests.support.apiserver import Drop, Fault, Hang, Reply, StubApiServer, client_of, serving
from tests.support.clock import PATIENCE_S, FakeClock

from cosi_operator.api.core import EVENTS
from cosi_operator.api.view import Key
from cosi_operator.kube import events
from cosi_operator.kube.events import EventRecorder, ObjectRef

# Between tries; limits of requests and of drain are longer.
LONGEST_PAUSE_S = 6.0
CLAIM = ObjectRef("objectstorage.k8s.io/v1alpha1", "BucketClaim", "team", "mine", "u-1", "7")
BUCKET = ObjectRef("objectstorage.k8s.io/v1alpha1", "Bucket", "", "bucket-1", "u-2")


class World:
    """A recorder that sends to a server, and what arrived there."""

    def __init__(self, server: StubApiServer, recorder: EventRecorder, clock: FakeClock) -> None:
        self.server = server
        self.recorder = recorder
        self.clock = clock

    def emit(self, about: ObjectRef = CLAIM, message: str = "bad name", **fields: Any) -> None:
        self.recorder.emit(
            about,
            **({"type": "Warning", "reason": "FailedCreateBucket", "message": message} | fields),
        )

    async def sent(self) -> list[dict[str, Any]]:
        """The Events on the server once nothing is left to send; pauses between tries are cut."""
        with anyio.fail_after(PATIENCE_S):
            while not await self.recorder.drain(0):
                if rests := [s for s in self.clock.sleeping_for() if s <= LONGEST_PAUSE_S]:
                    self.clock.advance(rests[0])
                await asyncio.sleep(0.001)  # a turn for the sockets
        return list(self.server.objects.values())

    @property
    def writes(self) -> list[str]:
        return [seen.verb for seen in self.server.seen]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    clock = FakeClock()
    async with serving() as server, client_of(server, clock) as client:
        recorder = EventRecorder(client, component="cosi-sidecar", instance="pod-1", clock=clock)
        sending = asyncio.ensure_future(recorder.run())
        yield World(server, recorder, clock)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):  # anything else would have ended the process
            await sending


async def test_an_event_names_the_object_the_reason_and_the_reporter(world: World) -> None:
    world.emit()
    (event,) = await world.sent()
    name = event["metadata"].pop("name")
    assert name.startswith("mine.")
    assert event == {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": "team", "uid": "uid-101", "resourceVersion": "101"},
        "involvedObject": {
            "apiVersion": "objectstorage.k8s.io/v1alpha1",
            "kind": "BucketClaim",
            "namespace": "team",
            "name": "mine",
            "uid": "u-1",
            "resourceVersion": "7",
        },
        "type": "Warning",
        "reason": "FailedCreateBucket",
        "message": "bad name",
        "count": 1,
        "firstTimestamp": "2026-01-01T00:00:00Z",
        "lastTimestamp": "2026-01-01T00:00:00Z",
        "source": {"component": "cosi-sidecar", "host": "pod-1"},
        "reportingComponent": "cosi-sidecar",
        "reportingInstance": "pod-1",
    }


async def test_events_of_cluster_objects_live_in_default(world: World) -> None:
    world.emit(BUCKET)
    (event,) = await world.sent()
    assert event["metadata"]["namespace"] == "default"
    assert "namespace" not in event["involvedObject"]
    assert "resourceVersion" not in event["involvedObject"]


# --- the same thing again


async def test_the_same_thing_again_makes_the_count_grow(world: World) -> None:
    world.emit()
    await world.sent()
    world.clock.advance(60)
    world.emit()
    (event,) = await world.sent()
    assert (event["count"], event["firstTimestamp"], event["lastTimestamp"]) == (
        2,
        "2026-01-01T00:00:00Z",
        "2026-01-01T00:01:00Z",
    )
    assert world.writes == ["create", "update"]


async def test_what_waits_is_merged_before_it_is_sent(world: World) -> None:
    for _ in range(100):
        world.emit()
    (event,) = await world.sent()
    assert event["count"] == 100
    assert world.writes == ["create"]
    assert world.recorder.dropped == 0


async def test_a_fingerprint_joins_messages_that_differ_and_the_latest_shows(world: World) -> None:
    world.emit(message="request 1", fingerprint="x")
    world.emit(message="request 2", fingerprint="x")
    (event,) = await world.sent()
    assert (event["count"], event["message"]) == (2, "request 2")


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"reason": "WaitingForBucket"}, id="another reason"),
        pytest.param({"type": "Normal"}, id="another type"),
        pytest.param({"message": "another"}, id="another message"),
        pytest.param({"about": BUCKET}, id="another object"),
        pytest.param(
            {"about": ObjectRef("v", "BucketClaim", "team", "mine", "u-9")},
            id="a successor of the same name",
        ),
    ],
)
async def test_another_thing_is_another_event(world: World, other: dict[str, Any]) -> None:
    world.emit()
    world.emit(**other)
    assert [event["count"] for event in await world.sent()] == [1, 1]


async def test_after_an_hour_of_silence_the_count_starts_anew(world: World) -> None:
    world.emit()
    await world.sent()
    world.clock.advance(3600)
    world.emit()
    (event,) = await world.sent()
    assert event["count"] == 2
    world.clock.advance(3601)
    world.emit()
    assert sorted(event["count"] for event in await world.sent()) == [1, 2]


async def test_what_waits_longer_than_an_hour_still_counts_all(world: World) -> None:
    world.server.fail_next("create", Hang())
    world.emit(BUCKET)
    await world.server.wait_for(lambda: world.writes == ["create"])  # the sender is busy
    world.emit()
    world.clock.advance(4000)
    world.emit()
    assert [series.count for series in world.recorder._waiting["Warning"].values()] == [2]


# --- limits


async def test_one_object_can_emit_a_burst_of_25_events_then_one_every_5_minutes(
    world: World,
) -> None:
    for number in range(30):
        world.emit(message=f"m-{number}")
    world.emit(BUCKET)
    assert len(await world.sent()) == 26, "another object has a bucket of its own"
    assert world.recorder.dropped == 5
    world.clock.advance(299)
    world.emit(message="m-30")
    assert len(await world.sent()) == 26
    world.clock.advance(1)
    world.emit(message="m-31")
    assert len(await world.sent()) == 27


async def test_many_events_of_one_reason_do_not_suppress_the_last_word_of_another(
    world: World,
) -> None:
    """A tenant can repeat some at will, by the retry annotation."""
    for number in range(30):
        world.emit(message=f"m-{number}")
    assert len(await world.sent()) == 25
    world.emit(reason="BackendUnverified")
    assert (await world.sent())[-1]["reason"] == "BackendUnverified"


async def test_a_delivered_event_is_stored_at_once_and_past_the_limit(world: World) -> None:
    for number in range(30):
        world.emit(message=f"m-{number}")
    await world.sent()
    assert await world.recorder.deliver(CLAIM, type="Warning", reason="R", message="last")
    assert list(world.server.objects.values())[-1]["message"] == "last"


async def test_what_was_held_back_counts_with_the_next_one_that_gets_through(world: World) -> None:
    for _ in range(40):
        world.emit()
        await world.sent()
    assert world.writes.count("update") == 24
    world.clock.advance(300)
    world.emit()
    (event,) = await world.sent()
    assert event["count"] == 41


async def test_failures_go_first_and_successes_make_room_for_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "BUFFER_LIMIT", 3)
    for number in range(3):
        world.emit(type="Normal", message=f"fine {number}")
    world.emit(type="Normal", message="too many")
    world.emit(message="bad 0")
    world.emit(message="bad 1")
    assert world.recorder.dropped == 3
    assert [event["message"] for event in await world.sent()] == ["bad 0", "bad 1", "fine 2"]


async def test_nothing_grows_without_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "BUFFER_LIMIT", 10)
    world.server.fail_next("create", Hang())
    world.emit()
    await world.server.wait_for(lambda: world.writes == ["create"])
    for number in range(5000):
        world.emit(ObjectRef("v", "Bucket", "", f"b-{number}", f"u-{number}"))
    assert len(world.recorder._waiting["Warning"]) == 10
    assert world.recorder.dropped == 4990
    assert len(world.recorder._series.entries) == events.REMEMBERED_LIMIT
    assert len(world.recorder._buckets.entries) <= events.REMEMBERED_LIMIT


# --- trouble


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param([Drop()], id="a lost connection"),
        pytest.param([Reply(500), Reply(500)], id="twice 500"),
        pytest.param([Reply(200, body=b"{}")], id="a reply that is not an Event"),
    ],
)
async def test_trouble_with_one_event_is_over_with_the_next(
    world: World, faults: list[Fault]
) -> None:
    world.server.fail_next("create", *faults)
    world.emit()
    await world.sent()
    world.emit()
    (event,) = await world.sent()
    assert event["count"] == 2


async def test_a_create_whose_reply_was_lost_makes_no_second_event(world: World) -> None:
    world.server.fail_next("create", Drop(applied=True))
    world.emit()
    assert len(await world.sent()) == 1
    assert world.recorder.dropped == 0


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply(404, "NotFound"), id="the namespace does not exist"),
        pytest.param(Reply(403, "Forbidden"), id="the namespace is being deleted, or no right"),
        pytest.param(Reply(422, "Invalid"), id="the server does not like it"),
    ],
)
async def test_a_refused_event_is_dropped_without_another_try(world: World, reply: Reply) -> None:
    world.server.fail_next("create", reply)
    with capture_logs() as logs:
        world.emit(message="a-message")
        assert await world.sent() == []
    assert world.writes == ["create"]
    assert world.recorder.dropped == 1
    assert [entry["log_level"] for entry in logs] == ["debug"]


async def test_an_event_that_the_server_forgot_or_someone_changed_is_made_anew(
    world: World,
) -> None:
    world.emit()
    (event,) = await world.sent()
    world.server.drop(EVENTS, Key("team", event["metadata"]["name"]))
    world.emit()
    (event,) = await world.sent()
    assert event["count"] == 2
    world.server.put(EVENTS, Key("team", event["metadata"]["name"]), message="edited")
    world.emit()
    assert sorted(there["count"] for there in await world.sent()) == [2, 3]


async def test_without_the_right_to_update_each_repetition_is_a_separate_event(
    world: World,
) -> None:
    world.emit()
    await world.sent()
    world.server.fail_next("update", Reply(403, "Forbidden"))
    world.emit()
    assert [event["count"] for event in await world.sent()] == [1, 2]
    world.emit()
    assert [event["count"] for event in await world.sent()] == [1, 2, 3]
    assert world.writes == ["create", "update", "create", "create"]
    assert world.recorder.dropped == 0


async def test_a_long_outage_costs_only_what_was_said_in_it(world: World) -> None:
    world.server.fail_next("create", *[Reply(500)] * 3)
    world.emit()
    world.emit(BUCKET)
    (event,) = await world.sent()
    assert event["involvedObject"]["kind"] == "Bucket"
    assert world.recorder.dropped == 1


# --- drain


async def test_drain_returns_false_at_its_deadline(world: World) -> None:
    assert await world.recorder.drain(5), "nothing to send"
    world.server.fail_next("create", Hang())
    world.emit()
    results: list[bool] = []

    async def drain() -> None:
        results.append(await world.recorder.drain(5))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(drain)
        await world.clock.wait_until(lambda: 5.0 in world.clock.sleeping_for(), "the limit")
        world.clock.advance(5)
    assert results == [False]
