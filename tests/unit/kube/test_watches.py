"""What is logged about watched objects that can't be read."""

import random
from typing import Any

import anyio
import msgspec
from structlog.testing import capture_logs
from tests.support.apiserver import client_of, serving
from tests.support.clock import PATIENCE_S, FakeClock

from cosi_operator.api.view import Key, Resource
from cosi_operator.kube.watches import Watches

CLAIMS = Resource(
    "objectstorage.k8s.io", "v1alpha1", "bucketclaims", "BucketClaim", namespaced=True
)
KEY = Key("shop", "photos")


class View(msgspec.Struct, frozen=True):
    """`spec` must be an object, and `size` a number."""

    metadata: dict[str, Any]
    spec: dict[str, int] = {}


async def test_an_unreadable_object_is_logged_once_until_its_error_changes() -> None:
    clock = FakeClock()
    steps: tuple[object, ...] = (
        {"size": 1},  # readable
        "text",
        "text",  # another write, the same error
        {"size": "large"},  # another error
        {"size": 2},  # repaired
        "text",
    )
    arrived, arrive = anyio.create_memory_object_stream[Key](len(steps))
    with capture_logs() as logs:
        async with serving() as server, client_of(server, clock) as client:
            watches = Watches(client, clock=clock, rng=random.Random(1))
            watches.add(
                CLAIMS, msgspec.json.Decoder(View).decode, lambda key, *_: arrived.send_nowait(key)
            )
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watches.run)
                await watches.until_synced()
                for number, spec in enumerate(steps):
                    server.put(CLAIMS, KEY, spec=spec, note=number)
                    with anyio.fail_after(PATIENCE_S):
                        assert await arrive.receive() == KEY
                tasks.cancel_scope.cancel()
    arrived.close()
    arrive.close()
    lines = [entry for entry in logs if entry["event"] == "object_unreadable"]
    assert [(entry["key"], "`int`" in entry["error"]) for entry in lines] == [
        ("shop/photos", False),
        ("shop/photos", True),
        ("shop/photos", False),
    ]
