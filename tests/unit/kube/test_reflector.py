"""The reflector against a server at the wire: after whatever happened, the store is right."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tests.support.apiserver import (
    Drop,
    Hang,
    Reply,
    StubApiServer,
    Watcher,
    client_of,
    serving,
)
from tests.support.clock import PATIENCE_S, FakeClock

from cosi_operator.api.view import Key, Resource
from cosi_operator.kube.client import KubeClient
from cosi_operator.kube.store import Store
from cosi_operator.kube.watch import Change, Reflector

BUCKETS = Resource("objectstorage.k8s.io", "v1alpha1", "buckets", "Bucket", namespaced=False)


# Longer sleeps are the idle limits of open watches.
LONGEST_REST_S = 61.0


class View(msgspec.Struct, frozen=True):
    """Just enough to see what is held; `spec` must be an object."""

    metadata: dict[str, Any]
    spec: dict[str, Any] = {}


@dataclass
class World:
    """One server, one reflector, and what it told."""

    server: StubApiServer
    clock: FakeClock
    client: KubeClient
    store: Store[View]
    reflector: Reflector[View]
    changes: list[Change[View]] = field(default_factory=list)
    changed: anyio.Event = field(default_factory=anyio.Event)

    def on_change(self, change: Change[View]) -> None:
        self.changes.append(change)
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        with anyio.move_on_after(PATIENCE_S) as patience:
            while not condition():
                self.changed = anyio.Event()
                await self.changed.wait()
        assert not patience.cancelled_caught, f"no such change came; seen: {self.changes}"

    async def until_held(self, name: str) -> None:
        await self.until(lambda: self.store.get(Key("", name)) is not None)

    async def next_rest(self) -> float:
        """Wait until the reflector pauses; the seconds it wants to."""
        await self.clock.wait_until(lambda: self._rests() != [], "a rest of the reflector")
        return self._rests()[0]

    def _rests(self) -> list[float]:
        return [rest_s for rest_s in self.clock.sleeping_for() if rest_s <= LONGEST_REST_S]

    async def skip_rest(self) -> float:
        rest_s = await self.next_rest()
        self.clock.advance(rest_s)
        return rest_s

    async def until_it_agrees(self) -> None:
        """Skip all rests until the store is equal to the server's objects."""
        with anyio.move_on_after(PATIENCE_S) as patience:
            while not (self.agrees and self.reflector.synced.is_set()):
                if rests := self._rests():
                    self.clock.advance(rests[0])
                await asyncio.sleep(0.001)  # a turn for the sockets
        assert not patience.cancelled_caught, (
            f"it never agrees; asleep for (s): {self.clock.sleeping_for()}; held: "
            f"{list(self.store.keys())}; there: {list(self.server.objects)}"
        )

    @property
    def agrees(self) -> bool:
        held = {key.name: json.loads(cached.raw) for key, cached in self.store.items()}
        there = {body["metadata"]["name"]: body for body in self.server.objects.values()}
        return held == there


@asynccontextmanager
async def a_world(*, run: bool = True) -> AsyncIterator[World]:
    clock = FakeClock()
    async with serving() as server, client_of(server, clock) as client:
        store: Store[View] = Store(msgspec.json.Decoder(View).decode)

        def on_change(change: Change[View]) -> None:
            world.on_change(change)

        reflector = Reflector(
            client, BUCKETS, store, on_change=on_change, clock=clock, rng=random.Random(1)
        )
        world = World(server, clock, client, store, reflector)
        async with anyio.create_task_group() as tasks:
            if run:
                tasks.start_soon(reflector.run)
            yield world
            tasks.cancel_scope.cancel()


def summary(changes: list[Change[View]]) -> list[tuple[str, bool, bool]]:
    return [(change.key.name, change.old is not None, change.new is not None) for change in changes]


async def test_it_lists_in_pages_then_follows_the_watch() -> None:
    async with a_world(run=False) as world:
        for number in range(501):
            world.server.put(BUCKETS, Key("", f"b-{number}"))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.reflector.run)
            await world.reflector.synced.wait()
            assert len(world.store) == 501
            assert world.server.count("list") == 2
            world.changes.clear()
            await world.server.watcher()
            world.server.put(BUCKETS, Key("", "b-0"), spec={"n": 1})
            world.server.put(BUCKETS, Key("", "new"))
            world.server.drop(BUCKETS, Key("", "b-1"))
            await world.until(lambda: len(world.changes) == 3)
            assert summary(world.changes) == [
                ("b-0", True, True),
                ("new", False, True),
                ("b-1", True, False),
            ]
            assert world.agrees
            tasks.cancel_scope.cancel()


async def test_an_empty_collection_is_synced_too() -> None:
    async with a_world() as world:
        await world.reflector.synced.wait()
        assert len(world.store) == 0


async def test_synced_waits_for_the_last_page() -> None:
    async with a_world(run=False) as world:
        for number in range(501):
            world.server.put(BUCKETS, Key("", f"b-{number}"))
        page = json.dumps({"metadata": {"resourceVersion": "601", "continue": "601|"}, "items": []})
        world.server.fail_next("list", Reply(200, body=page.encode()), Reply(500))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.reflector.run)
            await world.next_rest()
            assert not world.reflector.synced.is_set()
            tasks.cancel_scope.cancel()


@dataclass(frozen=True)
class Way:
    """A way for a watch to end; `relists` tells whether the version is lost with it."""

    end: Callable[[World], object]
    relists: bool


def _of_watcher(do: Callable[[Watcher], object]) -> Callable[[World], object]:
    return lambda world: do(world.server.watchers[-1])


def _error_line(code: int, reason: str) -> Callable[[World], object]:
    return _of_watcher(
        lambda w: w.line("ERROR", {"kind": "Status", "code": code, "reason": reason})
    )


def _half_a_line_and(end: Callable[[Watcher], None]) -> Callable[[World], object]:
    def say_and_end(watcher: Watcher) -> None:
        watcher.say(b'{"type":"ADDED","obj')
        end(watcher)

    return _of_watcher(say_and_end)


def _refused(reply: Reply) -> Callable[[World], object]:
    def end(world: World) -> None:
        world.server.fail_next("watch", reply)
        world.server.watchers[-1].end()

    return end


def _compacted(world: World) -> None:
    world.server.watchers[-1].end()
    world.server.put(BUCKETS, Key("", "missed"))
    world.server.compact()


WAYS = {
    "an orderly end": Way(_of_watcher(lambda w: w.end()), relists=False),
    "a cut connection": Way(_of_watcher(lambda w: w.cut()), relists=False),
    "an end within a line": Way(_half_a_line_and(Watcher.end), relists=False),
    "a cut within a line": Way(_half_a_line_and(Watcher.cut), relists=False),
    "an ERROR line with 410": Way(_error_line(410, "Expired"), relists=True),
    "an ERROR line with 429": Way(_error_line(429, "TooManyRequests"), relists=False),
    "an ERROR line with 500": Way(_error_line(500, "InternalError"), relists=False),
    "an ERROR line with an unknown code": Way(_error_line(418, "Teapot"), relists=True),
    "an ERROR line without a status": Way(_of_watcher(lambda w: w.line("ERROR", {})), relists=True),
    "410 as HTTP status": Way(_compacted, relists=True),
    "429 with Retry-After as HTTP status": Way(
        _refused(Reply(429, headers={"Retry-After": "3"})), relists=False
    ),
    "503 as HTTP status": Way(_refused(Reply(503)), relists=False),
    "504 as HTTP status, a version too large": Way(_refused(Reply(504)), relists=True),
    "a line that is no JSON": Way(_of_watcher(lambda w: w.say(b"<html>\n")), relists=True),
    "a line of an unknown type": Way(_of_watcher(lambda w: w.line("NEWS", {})), relists=True),
    "a line with no object": Way(_of_watcher(lambda w: w.line("ADDED", {})), relists=True),
}


@pytest.mark.parametrize("way", [pytest.param(way, id=name) for name, way in WAYS.items()])
async def test_nothing_is_missed_however_a_watch_ends(way: Way) -> None:
    async with a_world() as world:
        world.server.put(BUCKETS, Key("", "stays"))
        world.server.put(BUCKETS, Key("", "goes"))
        await world.server.watcher()
        way.end(world)
        await world.next_rest()
        world.server.drop(BUCKETS, Key("", "goes"))
        world.server.put(BUCKETS, Key("", "comes"))
        await world.until_it_agrees()
        assert (world.server.count("list") > 1) == way.relists


def _error_line_that_asks_for(seconds: float) -> Callable[[World], object]:
    status = {"code": 429, "reason": "TooManyRequests", "details": {"retryAfterSeconds": seconds}}
    return _of_watcher(lambda w: w.line("ERROR", {"kind": "Status", **status}))


HOUR = {"Retry-After": "3600"}


@pytest.mark.attack(
    "the API server refuses a watch once and asks for an hour; 60 s later it goes on"
)
@pytest.mark.parametrize(
    ("end", "waits_s", "told"),
    [
        pytest.param(
            _refused(Reply(429, headers={"Retry-After": "60"})), 60, False, id="60 s -> 60 s"
        ),
        pytest.param(_refused(Reply(429, headers=HOUR)), 60, True, id="429, 1 h -> 60 s"),
        pytest.param(_refused(Reply(503, headers=HOUR)), 60, True, id="503, 1 h -> 60 s"),
        pytest.param(_error_line_that_asks_for(3600), 60, True, id="ERROR line, 1 h -> 60 s"),
        pytest.param(_error_line_that_asks_for(1e300), 60, True, id="ERROR line, 1e300 s -> 60 s"),
        pytest.param(_error_line_that_asks_for(-5), 0.8, False, id="ERROR line, -5 s -> backoff"),
    ],
)
async def test_a_watch_that_is_refused_for_an_hour_is_retried_after_a_minute(
    end: Callable[[World], object], waits_s: float, told: bool
) -> None:
    async with a_world() as world:
        await world.server.watcher()
        with capture_logs() as logs:
            end(world)
            rest_s = await world.next_rest()
            if not logs:  # the watch ended in order first, so that the next one could be refused
                await world.skip_rest()
                rest_s = await world.next_rest()
        assert rest_s == pytest.approx(waits_s, rel=0.25)
        world.server.put(BUCKETS, Key("", "missed"))
        world.clock.advance(rest_s)
        await world.until_held("missed")
    (error,) = [line["error"] for line in logs if line["event"] == "watch_refused"]
    assert ("the operator waits at most 60 s" in error) == told


async def test_a_list_that_is_refused_for_an_hour_is_asked_again_after_a_minute() -> None:
    async with a_world(run=False) as world:
        world.server.fail_next("list", Reply(429, headers={"Retry-After": "3600"}))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.reflector.run)
            assert await world.next_rest() == 60
            world.clock.advance(60)
            await world.reflector.synced.wait()
            tasks.cancel_scope.cancel()


async def test_a_half_open_watch_is_left_after_its_time_and_five_seconds() -> None:
    async with a_world() as world:
        watcher = await world.server.watcher()
        await world.clock.wait_for_sleepers()
        (idle_s,) = world.clock.sleeping_for()
        assert idle_s == int(idle_s - 5) + 5 or 305 <= idle_s <= 605
        watcher.collection = "nowhere"  # the other side no longer hears of anything
        world.server.put(BUCKETS, Key("", "missed"))
        world.clock.advance(idle_s)
        await world.skip_rest()
        await world.until_held("missed")
        assert world.server.count("list") == 1


async def test_odd_characters_in_a_string_do_not_break_the_stream() -> None:
    odd = "\u2028\u2029\u0085\x0b\x0c"
    async with a_world() as world:
        await world.server.watcher()
        world.server.put(BUCKETS, Key("", "odd"), metadata={"annotations": {"note": odd}})
        await world.until_held("odd")
        cached = world.store.get(Key("", "odd"))
        assert cached is not None
        assert cached.view.metadata["annotations"] == {"note": odd}
        assert world.server.count("watch") == 1


async def test_a_bookmark_moves_only_the_version() -> None:
    async with a_world() as world:
        watcher = await world.server.watcher()
        world.server.version = 500
        watcher.line("BOOKMARK", {"kind": "Bucket", "metadata": {"resourceVersion": "500"}})
        watcher.end()
        await world.skip_rest()
        await world.server.watcher(2)
        assert world.server.seen[-1].query["resourceVersion"] == "500"
        assert world.changes == []


async def test_the_watch_event_of_our_own_write_is_not_reported() -> None:
    async with a_world() as world:
        await world.server.watcher()
        reply = await world.client.create(BUCKETS, {"metadata": {"name": "ours"}})
        world.store.upsert(reply)
        world.server.put(BUCKETS, Key("", "other"))
        await world.until_held("other")
        assert summary(world.changes) in (
            [("other", False, True)],  # the reply was first
            [("ours", False, True), ("other", False, True)],  # the watch was
        )


async def test_a_broken_object_is_reported_and_does_not_affect_others() -> None:
    async with a_world() as world:
        await world.server.watcher()
        world.server.put(BUCKETS, Key("", "bad"), spec="no object")
        world.server.put(BUCKETS, Key("", "good"))
        world.server.drop(BUCKETS, Key("", "bad"))
        await world.until(lambda: len(world.changes) == 3)
        assert summary(world.changes) == [
            ("bad", False, False),
            ("good", False, True),
            ("bad", False, False),
        ]
        assert world.store.broken(Key("", "bad")) is None
        assert world.server.count("watch") == 1


async def test_without_the_right_to_watch_the_reflector_lists_every_minute_and_logs_once() -> None:
    with capture_logs() as logs:
        async with a_world(run=False) as world:
            world.server.forbid("watch", "buckets")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(world.reflector.run)
                for name in ("one", "two"):
                    assert await world.skip_rest() == 60
                    world.server.put(BUCKETS, Key("", name))
                assert await world.skip_rest() == 60
                await world.until_held("two")
                world.server.drop(BUCKETS, Key("", "one"))
                assert await world.skip_rest() == 60
                await world.until(lambda: len(world.store) == 1)
                await world.next_rest()  # the refusal that follows this list
                world.server.allow("watch", "buckets")
                await world.skip_rest()
                await world.server.watcher()
                tasks.cancel_scope.cancel()
    told = [entry for entry in logs if entry["event"] == "watch_forbidden"]
    assert len(told) == 1
    assert told[0]["remedy"] == "grant 'watch' on 'buckets' of API group 'objectstorage.k8s.io'"


async def test_without_the_right_to_list_the_reflector_logs_once_and_retries() -> None:
    with capture_logs() as logs:
        async with a_world(run=False) as world:
            world.server.forbid("list", "buckets")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(world.reflector.run)
                rests = [await world.skip_rest() for _ in range(9)]
                assert max(rests) <= 30
                assert not world.reflector.synced.is_set()
                await world.next_rest()  # the refusal after the last of them
                world.server.allow("list", "buckets")
                await world.skip_rest()
                await world.reflector.synced.wait()
                tasks.cancel_scope.cancel()
    told = [entry for entry in logs if entry["log_level"] == "error"]
    assert [entry["remedy"] for entry in told] == [
        "grant 'list' on 'buckets' of API group 'objectstorage.k8s.io'"
    ]
    assert logs[-1]["event"] == "list_recovered"


@pytest.mark.parametrize(
    "watch_is_cut",
    [
        pytest.param(True, id="with its watches cut, as a restart does"),
        pytest.param(False, id="under an open watch, whose versions then go back"),
    ],
)
async def test_a_server_restored_from_a_backup_is_believed(*, watch_is_cut: bool) -> None:
    async with a_world() as world:
        await world.server.watcher()
        world.server.version = 900
        world.server.put(BUCKETS, Key("", "after-the-backup"))
        await world.until_held("after-the-backup")
        world.server.objects.clear()
        world.server.history.clear()
        world.server.version = 300
        if watch_is_cut:
            world.server.watchers[-1].collection = "nowhere"  # it hears of nothing more
            world.server.watchers[-1].cut()
        world.server.put(BUCKETS, Key("", "from-the-backup"))
        await world.until_it_agrees()


# --- the property

NAMES = st.sampled_from(["a", "b", "c"])
WRITES = st.tuples(st.sampled_from(["put", "put", "drop", "replace"]), NAMES)
FAULTS = st.tuples(
    st.sampled_from(["list", "watch"]),
    st.sampled_from(
        [
            Drop(),
            Drop(applied=True),
            Reply(403),
            Reply(410, "Expired"),
            Reply(429, headers={"Retry-After": "2"}),
            Reply(500),
            Reply(503),
            Reply(504),
            Reply(200, body=b"<html>"),
        ]
    ),
)
ENDINGS = st.tuples(st.just("end"), st.sampled_from(sorted(WAYS)))
PAUSES = st.tuples(st.just("pause"), st.integers(0, 3))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(story=st.lists(st.one_of(WRITES, FAULTS, ENDINGS, PAUSES), max_size=14))
def test_any_story_ends_with_the_store_equal_to_the_server(story: list[tuple[str, Any]]) -> None:
    asyncio.run(_tell(story))


async def _tell(story: list[tuple[str, Any]]) -> None:
    async with a_world() as world:
        for kind, what in story:
            _happen(world, kind, what)
            for _ in range(5 * what if kind == "pause" else 0):
                await _pass_time(world)
        await world.until_it_agrees()


async def _pass_time(world: World) -> None:
    """A second of the reflector's time, and a turn for the sockets."""
    world.clock.advance(1)
    await asyncio.sleep(0.001)


def _happen(world: World, kind: str, what: Any) -> None:
    path = BUCKETS.path("", what) if kind in ("put", "drop", "replace") else ""
    match kind:
        case "put":
            world.server.put(BUCKETS, Key("", what), spec={"n": world.server.version})
        case "drop" | "replace" if path in world.server.objects:
            world.server.drop(BUCKETS, Key("", what))
            if kind == "replace":
                world.server.put(BUCKETS, Key("", what))
        case "list" | "watch":
            world.server.fail_next(kind, what)
        case "end" if world.server.watchers:
            WAYS[what].end(world)
        case _:
            pass


async def test_a_server_that_never_answers_a_list_is_given_up_and_asked_again() -> None:
    clock = FakeClock()
    async with serving() as server, client_of(server, clock, timeout_s=0.05) as client:
        server.fail_next("list", Hang())
        store: Store[View] = Store(msgspec.json.Decoder(View).decode)
        reflector = Reflector(
            client, BUCKETS, store, on_change=print, clock=clock, rng=random.Random(1)
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reflector.run)
            await clock.wait_for_sleepers()
            clock.advance(1)
            await reflector.synced.wait()
            tasks.cancel_scope.cancel()
