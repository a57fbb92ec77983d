"""The Lease: two never lead at once, whatever clocks, network and the other one do."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs
from tests.support.apiserver import Drop, Hang, Reply, StubApiServer, client_of, serving
from tests.support.clock import PATIENCE_S, FakeClock

from cosi_operator.api.core import LEASES
from cosi_operator.api.view import Key
from cosi_operator.kube.client import KubeClient
from cosi_operator.kube.lease import LeaderElection, LeaseLost
from cosi_operator.plan.names import lease_name
from cosi_operator.settings import LeaseDurations

KEY = Key("storage", "driver-cosi")
PATH = LEASES.path(KEY.namespace, KEY.name)
DURATIONS = LeaseDurations()  # 15 s, 10 s, 2 s


@dataclass
class Candidate:
    """One process: what it leads with, and how its election ended."""

    election: LeaderElection
    clock: FakeClock
    client: KubeClient
    started: anyio.Event = field(default_factory=anyio.Event)
    stopped: anyio.Event = field(default_factory=anyio.Event)
    finish: anyio.Event = field(default_factory=anyio.Event)
    over: anyio.Event = field(default_factory=anyio.Event)
    lost: str = ""
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    @property
    def leads(self) -> bool:
        return self.started.is_set() and not self.stopped.is_set()

    async def lead(self) -> None:
        self.started.set()
        try:
            await self.finish.wait()
        finally:
            self.stopped.set()

    async def run(self) -> None:
        with self.scope:
            try:
                await self.election.run(self.lead)
            except LeaseLost as error:
                self.lost = str(error)
        self.over.set()

    async def tries(self, count: int) -> None:
        """Let it take its pause and try, so often."""
        for _ in range(count):
            await self.pause()
            self.clock.advance(self.clock.sleeping_for()[0])
        await self.pause()

    async def pause(self) -> None:
        """Wait until it sleeps between two attempts; the limits of requests are longer."""
        longest_s = DURATIONS.retry_period_s * 1.2
        await self.clock.wait_until(
            lambda: any(rest_s <= longest_s for rest_s in self.clock.sleeping_for()),
            "a pause between two attempts",
        )


@asynccontextmanager
async def candidate(
    server: StubApiServer, identity: str, clock: FakeClock | None = None
) -> AsyncIterator[Candidate]:
    clock = clock or FakeClock()
    async with client_of(server, clock) as client, anyio.create_task_group() as tasks:
        election = LeaderElection(
            client, KEY, identity=identity, clock=clock, rng=random.Random(1), durations=DURATIONS
        )
        made = Candidate(election, clock, client)
        tasks.start_soon(made.run)
        yield made
        tasks.cancel_scope.cancel()


@pytest.fixture
async def server() -> AsyncIterator[StubApiServer]:
    async with serving() as server:
        yield server


def spec_of(server: StubApiServer) -> dict[str, Any]:
    spec: dict[str, Any] = server.objects[PATH]["spec"]
    return spec


def held_by(
    server: StubApiServer,
    holder: str,
    *,
    renewed: str = "2026-01-01T00:00:00.000000Z",
    metadata: dict[str, Any] | None = None,
    **spec: Any,
) -> None:
    """Another process, perhaps upstream's, writes the Lease."""
    server.put(
        LEASES,
        KEY,
        metadata=metadata or {},
        spec={
            "holderIdentity": holder,
            "leaseDurationSeconds": 15,
            "acquireTime": renewed,
            "renewTime": renewed,
            "leaseTransitions": 3,
        }
        | spec,
    )


async def within_patience(event: anyio.Event) -> None:
    with anyio.fail_after(PATIENCE_S):
        await event.wait()


# --- acquire, renew, release


async def test_notes_for_people_are_written_and_those_of_others_stay(server: StubApiServer) -> None:
    held_by(server, "", metadata={"annotations": {"mine": "kept"}})
    async with candidate(server, "a") as a:
        a.election.notes = {"version": "1"}
        await within_patience(a.started)
        assert server.objects[PATH]["metadata"]["annotations"] == {"mine": "kept", "version": "1"}
        a.election.notes = {"version": "2"}
        await a.tries(1)
        assert server.objects[PATH]["metadata"]["annotations"]["version"] == "2"


async def test_the_first_one_creates_the_lease_and_leads(server: StubApiServer) -> None:
    async with candidate(server, "a") as a:
        await within_patience(a.started)
        assert spec_of(server) == {
            "holderIdentity": "a",
            "leaseDurationSeconds": 15,
            "acquireTime": "2026-01-01T00:00:00.000000Z",
            "renewTime": "2026-01-01T00:00:00.000000Z",
            "leaseTransitions": 0,
        }


async def test_the_holder_renews_each_retry_period_with_one_put(server: StubApiServer) -> None:
    async with candidate(server, "a") as a:
        await within_patience(a.started)
        await a.tries(3)
        assert spec_of(server)["renewTime"] == "2026-01-01T00:00:06.000000Z"
        assert spec_of(server)["acquireTime"] == "2026-01-01T00:00:00.000000Z"
        assert spec_of(server)["leaseTransitions"] == 0
        assert [seen.verb for seen in server.seen] == [
            "get",
            "create",
            "update",
            "update",
            "update",
        ]


async def test_the_lease_is_given_back_when_the_work_ends(server: StubApiServer) -> None:
    async with candidate(server, "a") as a:
        await within_patience(a.started)
        a.finish.set()
        await within_patience(a.over)
        assert a.lost == ""
    assert spec_of(server)["holderIdentity"] == ""


async def test_the_lease_is_released_when_the_process_stops(
    server: StubApiServer,
) -> None:
    async with candidate(server, "a") as a:
        await within_patience(a.started)
        a.scope.cancel()
        await within_patience(a.over)
        assert a.stopped.is_set()
    assert spec_of(server)["holderIdentity"] == ""
    assert spec_of(server)["leaseTransitions"] == 0


@pytest.mark.parametrize("verb", ["create", "update"])
async def test_the_lease_is_released_when_the_process_stops_before_the_reply(
    server: StubApiServer, verb: str
) -> None:
    if verb == "update":
        held_by(server, "")
    server.fail_next(verb, Hang(applied=True))
    async with candidate(server, "a") as a:
        await server.wait_for(
            lambda: PATH in server.objects and spec_of(server)["holderIdentity"] == "a"
        )
        a.scope.cancel()
        await within_patience(a.over)
        assert not a.started.is_set()
    assert spec_of(server)["holderIdentity"] == ""


@pytest.mark.parametrize(
    ("stored", "reply", "standby"),
    [
        pytest.param("b", None, True, id="another process leads -> a standby"),
        pytest.param("", None, False, id="the Lease is free -> it leads, and was no standby"),
        pytest.param("b", Reply(503), False, id="the API server fails -> nothing is known"),
    ],
)
async def test_a_process_knows_when_it_is_a_standby(
    server: StubApiServer, stored: str, reply: Reply | None, standby: bool
) -> None:
    held_by(server, stored)
    if reply is not None:
        server.fail_next("get", reply)
    found: list[bool] = []
    async with candidate(server, "a") as a:
        a.election.on_standby = lambda: found.append(True)
        if stored:
            await a.pause()
        else:
            await within_patience(a.started)
        assert found == [True] * standby


async def test_a_stopped_standby_sends_no_more_requests(server: StubApiServer) -> None:
    held_by(server, "b")
    async with candidate(server, "a") as a:
        await a.pause()
        asked = len(server.seen)
        a.scope.cancel()
        await within_patience(a.over)
    assert len(server.seen) == asked


async def test_the_lease_is_given_back_when_the_work_fails(server: StubApiServer) -> None:
    async def fail() -> None:
        raise RuntimeError("the work")

    clock = FakeClock()
    async with client_of(server, clock) as client:
        election = LeaderElection(client, KEY, identity="a", clock=clock, rng=random.Random(1))
        with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="the work")):
            await election.run(fail)
    assert spec_of(server)["holderIdentity"] == ""


async def test_a_release_that_meets_a_conflict_looks_who_holds_it_first(
    server: StubApiServer,
) -> None:
    async with candidate(server, "a") as a:
        await within_patience(a.started)
        server.put(LEASES, KEY, metadata={"labels": {"touched": "yes"}})
        a.finish.set()
        await within_patience(a.over)
    assert spec_of(server)["holderIdentity"] == ""


async def test_a_release_leaves_the_lease_of_another_alone(server: StubApiServer) -> None:
    async with candidate(server, "a") as a:
        await within_patience(a.started)
        held_by(server, "b")
        a.finish.set()
        await within_patience(a.over)
    assert spec_of(server)["holderIdentity"] == "b"


async def test_a_release_does_not_hold_up_the_exit(server: StubApiServer) -> None:
    async with candidate(server, "a") as a:
        await within_patience(a.started)
        server.fail_next("update", Hang())
        a.finish.set()
        await a.clock.wait_until(lambda: 3.0 in a.clock.sleeping_for(), "the release's limit")
        with capture_logs() as logs:
            a.clock.advance(3)
            await within_patience(a.over)
    assert [entry["event"] for entry in logs] == ["lease_not_released"]


async def test_foreign_fields_of_the_lease_are_preserved(server: StubApiServer) -> None:
    held_by(server, "", strategy="OldestEmulationVersion")
    async with candidate(server, "a") as a:
        await within_patience(a.started)
    assert spec_of(server)["strategy"] == "OldestEmulationVersion"
    assert spec_of(server)["leaseTransitions"] == 4


# --- taking over


async def test_a_standby_takes_over_immediately_when_the_leader_releases_the_lease(
    server: StubApiServer,
) -> None:
    async with candidate(server, "a") as a, candidate(server, "b") as b:
        await server.wait_for(lambda: PATH in server.objects)
        first, second = (a, b) if spec_of(server)["holderIdentity"] == "a" else (b, a)
        await within_patience(first.started)
        await second.tries(2)
        assert not second.started.is_set()
        first.finish.set()
        await within_patience(first.over)
        await second.pause()
        second.clock.advance(second.clock.sleeping_for()[0])
        await within_patience(second.started)
        assert spec_of(server)["leaseTransitions"] == 1


async def test_an_abandoned_lease_is_taken_after_its_time_on_our_own_clock(
    server: StubApiServer,
) -> None:
    held_by(server, "dead")
    async with candidate(server, "b") as b:
        await b.pause()
        seen_s = b.clock.monotonic()
        while b.clock.monotonic() - seen_s <= 15:
            assert spec_of(server)["holderIdentity"] == "dead"
            await b.pause()
            b.clock.advance(b.clock.sleeping_for()[0])
        await within_patience(b.started)
        assert 15 < b.clock.monotonic() - seen_s <= 15 + 2 * 1.2


@pytest.mark.parametrize(
    "skew_s",
    [
        pytest.param(86400.0 * 365, id="a year ahead"),
        pytest.param(-86400.0 * 365, id="a year behind"),
    ],
)
async def test_the_time_of_day_plays_no_part(server: StubApiServer, skew_s: float) -> None:
    clock = FakeClock()
    clock.skew_wall(skew_s)
    async with candidate(server, "a") as a, candidate(server, "b", clock) as b:
        await server.wait_for(lambda: PATH in server.objects)
        first, second = (a, b) if spec_of(server)["holderIdentity"] == "a" else (b, a)
        for _ in range(12):  # 24 s for each
            await first.tries(1)
            await second.tries(1)
        assert first.leads
        assert not second.started.is_set()


async def test_a_renewal_seen_starts_the_time_anew(server: StubApiServer) -> None:
    held_by(server, "alive")
    async with candidate(server, "b") as b:
        for second in range(10, 30):
            await b.tries(1)
            held_by(server, "alive", renewed=f"2026-01-01T00:00:{second}.000000Z")
        assert b.clock.monotonic() > 1000 + 40
        assert not b.started.is_set()


async def test_the_holders_own_longer_duration_counts(server: StubApiServer) -> None:
    held_by(server, "upstream", leaseDurationSeconds=150)
    async with candidate(server, "b") as b:
        while b.clock.monotonic() < 1000 + 145:
            await b.tries(1)
        assert not b.started.is_set()
        assert server.count("update") == 0


async def test_of_two_that_take_over_the_conditional_write_lets_one_through(
    server: StubApiServer,
) -> None:
    held_by(server, "")
    server.fail_next("update", Reply(409, "Conflict"))
    async with candidate(server, "a") as a:
        await a.pause()
        assert not a.started.is_set(), "somebody was faster"
        held_by(server, "b")
        await a.tries(1)
        assert not a.started.is_set()
        assert server.count("update") == 1


async def test_a_create_after_another_create_is_not_an_error(server: StubApiServer) -> None:
    server.fail_next("create", Reply(409, "AlreadyExists"))
    async with candidate(server, "a") as a:
        with capture_logs() as logs:
            await a.pause()
        assert not a.started.is_set()
        assert [entry["log_level"] for entry in logs if entry["log_level"] != "info"] == []


async def test_a_create_whose_reply_was_lost_is_found_by_the_next_look(
    server: StubApiServer,
) -> None:
    server.fail_next("create", Drop(applied=True))
    async with candidate(server, "a") as a:
        await a.pause()
        a.clock.advance(a.clock.sleeping_for()[0])
        await within_patience(a.started)


async def test_a_lease_without_a_spec_is_free(server: StubApiServer) -> None:
    server.put(LEASES, KEY, spec=None)
    async with candidate(server, "a") as a:
        await within_patience(a.started)


# --- losing


async def test_the_work_ends_before_anyone_else_may_take_the_lease(server: StubApiServer) -> None:
    async with candidate(server, "a") as a:
        await within_patience(a.started)
        renewed_s = a.clock.monotonic()
        server.forbid("update", "leases")
        server.forbid("get", "leases")
        while not a.stopped.is_set():
            await a.clock.wait_until(
                lambda: a.stopped.is_set() or a.clock.sleeping_for() != [], "a pause or the end"
            )
            if not a.stopped.is_set():
                a.clock.advance(min(a.clock.sleeping_for()[0], 1.0))
                await anyio.sleep(0.001)  # a turn for the sockets
        await within_patience(a.over)
        assert a.clock.monotonic() - renewed_s <= 10
        assert a.lost == "Lease storage/driver-cosi: not renewed for 10 s"
    assert spec_of(server)["holderIdentity"] == "a", "what was lost is not given back"


async def test_a_server_that_hangs_does_not_keep_a_leader_past_its_time(
    server: StubApiServer,
) -> None:
    async with candidate(server, "a") as a:
        await within_patience(a.started)
        server.fail_next("update", Hang())
        a.clock.advance(2)
        await server.wait_for(lambda: server.count("update") == 1)
        await a.clock.wait_until(lambda: 8.0 in a.clock.sleeping_for(), "the limit of the renewal")
        a.clock.advance(8)
        await within_patience(a.over)
        assert a.lost == "Lease storage/driver-cosi: not renewed for 10 s"


async def test_a_leader_that_sees_another_holder_stops_immediately(server: StubApiServer) -> None:
    async with candidate(server, "a") as a:
        await within_patience(a.started)
        held_by(server, "b")
        await a.tries(1)  # a conflict: somebody wrote it
        a.clock.advance(2)
        await within_patience(a.over)
        assert a.lost == "Lease storage/driver-cosi: acquired by another process"
    assert spec_of(server)["holderIdentity"] == "b"


async def test_a_leader_that_was_suspended_stops_when_it_wakes(server: StubApiServer) -> None:
    async with candidate(server, "a") as a:
        await within_patience(a.started)
        await a.pause()
        a.clock.advance(3600)
        await within_patience(a.over)
        assert a.lost == "Lease storage/driver-cosi: not renewed for 10 s"


async def test_a_deleted_lease_is_created_again_while_the_work_continues(
    server: StubApiServer,
) -> None:
    async with candidate(server, "a") as a:
        await within_patience(a.started)
        server.drop(LEASES, KEY)
        await a.tries(2)
        assert a.leads
    assert server.count("create") == 2


async def test_a_slow_acquisition_does_not_start_work_that_is_late_already(
    server: StubApiServer,
) -> None:
    server.fail_next("get", Hang())
    async with candidate(server, "a") as a:
        await server.wait_for(lambda: server.count("get") == 1)
        await a.clock.wait_for_sleepers()
        assert a.clock.sleeping_for()[0] <= DURATIONS.renew_deadline_s


# --- trouble is told once


async def test_a_missing_right_is_logged_once_with_its_remedy(server: StubApiServer) -> None:
    server.forbid("get", "leases")
    with capture_logs() as logs:
        async with candidate(server, "a") as a:
            await a.tries(3)
            await a.pause()
            server.allow("get", "leases")
            a.clock.advance(a.clock.sleeping_for()[0])
            await within_patience(a.started)
    errors = [entry for entry in logs if entry["log_level"] == "error"]
    assert [(entry["event"], entry["remedy"]) for entry in errors] == [
        (
            "lease_forbidden",
            "grant get, create and update on leases of coordination.k8s.io in namespace storage",
        )
    ]


async def test_a_standby_logs_each_holder_once(server: StubApiServer) -> None:
    held_by(server, "a")
    with capture_logs() as logs:
        async with candidate(server, "z") as z:
            await z.tries(2)
            held_by(server, "a", renewed="2026-01-01T00:00:02.000000Z")
            await z.tries(2)
            held_by(server, "b")
            await z.tries(2)
    lines = [entry for entry in logs if entry["event"] == "lease_held_by_other"]
    assert [(entry["log_level"], entry["holder"]) for entry in lines] == [
        ("info", "a"),
        ("info", "b"),
    ]


def test_an_empty_identity_is_rejected() -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        LeaderElection(
            None,  # type: ignore[arg-type] # never used
            KEY,
            identity="",
            clock=FakeClock(),
            rng=random.Random(1),
        )


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        pytest.param(
            "sample.objectstorage.k8s.io/cosi",
            "sample-objectstorage-k8s-io-cosi",
            id="as upstream names it",
        ),
        pytest.param("My.Driver", "my-driver", id="lower case"),
        pytest.param("odd.", "odd-x", id="a dash at the end gets a letter"),
    ],
)
def test_the_name_is_the_one_that_upstreams_process_uses(owner: str, name: str) -> None:
    assert lease_name(owner) == name
