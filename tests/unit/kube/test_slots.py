"""Few connections: so many requests at once and no more, and a Lease never waits for one."""

import json

import anyio
from tests.support.apiserver import Hang, StubApiServer, client_of, serving
from tests.support.clock import FakeClock

from cosi_operator.api.core import LEASES
from cosi_operator.api.v1alpha1 import BUCKETS
from cosi_operator.api.view import Key
from cosi_operator.kube.client import KubeClient
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


async def _get(client: KubeClient, name: str) -> None:
    await client.get(BUCKETS, Key("", name))


def _asked(server: StubApiServer) -> int:
    return sum("/buckets/" in seen.path for seen in server.seen)
