"""Events under the roles that real drivers bring: some may not be updated, some not even made."""

from collections.abc import AsyncIterator

import anyio
import pytest
from tests.support.apiserver import StubApiServer, client_of, serving
from tests.support.clock import FakeClock

from cosi_operator.kube.events import EventRecorder, ObjectRef

ABOUT = ObjectRef("v1", "BucketAccess", "team", "access", "uid-1")
GRACE_S = 5.0


@pytest.fixture
async def server() -> AsyncIterator[StubApiServer]:
    async with serving() as server:
        yield server


async def emitted(server: StubApiServer, times: int) -> EventRecorder:
    """The same Event so many times, each sent before the next one happens."""
    clock = FakeClock()
    async with client_of(server, clock) as client, anyio.create_task_group() as tasks:
        recorder = EventRecorder(client, component="cosi-sidecar", instance="pod-0", clock=clock)
        tasks.start_soon(recorder.run)
        for _ in range(times):
            recorder.emit(ABOUT, type="Warning", reason="FailedGrantAccess", message="no")
            assert await recorder.drain(GRACE_S)
        tasks.cancel_scope.cancel()
    return recorder


def counts(server: StubApiServer) -> list[int]:
    return sorted(body["count"] for body in server.objects.values())


async def test_a_repeat_is_counted_in_the_one_event(server: StubApiServer) -> None:
    await emitted(server, 3)
    assert counts(server) == [3]


async def test_where_no_event_may_be_updated_each_repeat_is_an_event_of_its_own(
    server: StubApiServer,
) -> None:
    server.forbid("update", "events")
    recorder = await emitted(server, 4)
    assert counts(server) == [1, 2, 3, 4]
    assert server.count("update") == 1, "one try is needed to learn it, and no more"
    assert recorder.dropped == 0


async def test_where_no_event_may_be_made_nothing_else_suffers(server: StubApiServer) -> None:
    server.forbid("create", "events")
    recorder = await emitted(server, 2)
    assert counts(server) == []
    assert recorder.dropped == 2
