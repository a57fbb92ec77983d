"""What a process waits for until it is ready: the Lease, and then all objects if it leads."""

import random
from typing import Any

import anyio
import pytest
from tests.support.apiserver import client_of, serving
from tests.support.clock import FakeClock

from cosi_operator.api.core import LEASES
from cosi_operator.api.view import Key
from cosi_operator.app.health import Health
from cosi_operator.app.process import API_SERVER, LEASE, Process
from cosi_operator.metrics import Metrics
from cosi_operator.plan.names import lease_name
from cosi_operator.settings import ControllerSettings

OWNER = "owner"


class Silent:
    """A recorder of Events that sends none."""

    def emit(self, *_: object, **__: object) -> None:
        """Nothing."""


@pytest.mark.parametrize(
    ("holder", "while_electing", "was_ready"),
    [
        pytest.param("another", set(), True, id="another process leads -> a standby is ready"),
        pytest.param("", {API_SERVER}, False, id="it leads -> not ready before it has read all"),
    ],
)
async def test_a_process_is_ready_as_standby_or_when_it_has_read_all_objects(
    holder: str, while_electing: set[str], was_ready: bool
) -> None:
    clock, health = FakeClock(), Health()
    events: Any = Silent()
    settings = ControllerSettings(kubeconfig=None, namespace="n", identity="a")
    async with serving() as server, client_of(server, clock) as client:
        key = Key("n", lease_name(OWNER))
        server.put(LEASES, key, spec={"holderIdentity": holder, "leaseDurationSeconds": 15})
        process = Process(
            settings=settings, component="controller", client=client, events=events, clock=clock,
            rng=random.Random(1), metrics=Metrics(), health=health, stop=anyio.Event(),
            hurry=anyio.Event(), tracing=None,
        )  # fmt: skip
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(process.lead, OWNER, anyio.sleep_forever)
            await clock.wait_until(lambda: not health.waiting_for & {"start", LEASE}, "an election")
            assert health.waiting_for == while_electing
            assert health.was_ready is was_ready
            tasks.cancel_scope.cancel()
