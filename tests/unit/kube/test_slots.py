"""Few requests at once, shared by the namespaces in turn; a Lease never waits for one."""

import asyncio
import json

import anyio
import pytest
from tests.support.apiserver import Hang, StubApiServer, client_of, serving
from tests.support.clock import FakeClock

from cosi_operator.api.core import LEASES
from cosi_operator.api.resources import BUCKETS
from cosi_operator.api.view import Key
from cosi_operator.kube.client import KubeClient
from cosi_operator.kube.slots import NAMESPACE, FairSlots
from cosi_operator.kube.transport import REQUESTS_AT_ONCE

LEASE = Key("storage", "driver-cosi")


async def test_more_requests_than_slots_wait_their_turn_and_a_lease_does_not() -> None:
    async with serving() as server, client_of(server, FakeClock()) as client:
        server.put(LEASES, LEASE)
        server.fail_next("get", *[Hang()] * REQUESTS_AT_ONCE)
        async with anyio.create_task_group() as tasks:
            for number in range(REQUESTS_AT_ONCE + 3):
                tasks.start_soon(_get, client, f"b-{number}")
            await server.wait_for(lambda: _asked(server) == REQUESTS_AT_ONCE)
            lease = json.loads(await client.get(LEASES, LEASE))
            assert lease["metadata"]["name"] == LEASE.name
            assert _asked(server) == REQUESTS_AT_ONCE
            tasks.cancel_scope.cancel()
        server.put(BUCKETS, Key("", "b-0"))
        assert json.loads(await client.get(BUCKETS, Key("", "b-0")))["metadata"]["name"] == "b-0"


class Users:
    """Tasks that want a slot and hold it until they are told to go."""

    def __init__(self, count: int) -> None:
        self.slots = FairSlots(count)
        self.served: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._go: dict[str, asyncio.Event] = {}

    async def come(self, *names: str) -> None:
        """A name is NAMESPACE-NUMBER."""
        for name in names:
            self._go[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._hold(name))
        await turns()

    async def go(self, name: str) -> None:
        self._go[name].set()
        await turns()

    async def _hold(self, name: str) -> None:
        NAMESPACE.set(name.split("-")[0])
        async with self.slots:
            self.served.append(name)
            await self._go[name].wait()


async def turns() -> None:
    """Let every task run until it waits."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_namespaces_take_turns_however_many_requests_each_has() -> None:
    users = Users(1)
    await users.come("a-0", "a-1", "a-2", "a-3", "b-0", "b-1", "c-0")
    for _ in range(7):
        await users.go(users.served[-1])
    assert users.served == ["a-0", "a-1", "b-0", "c-0", "a-2", "b-1", "a-3"]
    await users.come("d-0")
    assert users.served[-1] == "d-0", "nobody waits, so the slot is free"
    await users.go("d-0")


@pytest.mark.parametrize("given", [False, True], ids=["while it waits", "as it is given the slot"])
async def test_a_request_that_is_cancelled_takes_no_slot_with_it(given: bool) -> None:
    users = Users(1)
    await users.come("a-0", "b-0", "b-1", "c-0")
    if given:
        users._go["a-0"].set()
        await asyncio.sleep(0)  # a-0 ends and gives its slot to b-0, which has not run yet
    users.tasks["b-0"].cancel()
    await turns()
    assert users.tasks["b-0"].cancelled()
    if not given:
        await users.go("a-0")
    for _ in range(2):
        await users.go(users.served[-1])
    assert "b-0" not in users.served
    assert sorted(users.served) == ["a-0", "b-1", "c-0"]
    await users.come("d-0")
    assert users.served[-1] == "d-0"
    await users.go("d-0")


async def test_all_who_wait_are_cancelled_and_nothing_is_left() -> None:
    users = Users(2)
    await users.come("a-0", "a-1", *(f"b-{number}" for number in range(50)))
    for name, task in users.tasks.items():
        if name.startswith("b"):
            task.cancel()
    await turns()
    await users.go("a-0")
    await users.go("a-1")
    await users.come("c-0", "c-1", "c-2")
    assert users.served == ["a-0", "a-1", "c-0", "c-1"]
    for name in ("c-0", "c-1", "c-2"):
        await users.go(name)


async def _get(client: KubeClient, name: str) -> None:
    await client.get(BUCKETS, Key("", name))


def _asked(server: StubApiServer) -> int:
    return sum("/buckets/" in seen.path for seen in server.seen)
