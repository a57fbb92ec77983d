"""A driver is killed and started again under many callers: who made each status, counted."""

import os
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import anyio.to_thread
import pytest

from cosi_operator.driver.channel import DriverChannel
from cosi_operator.driver.errors import DriverError
from cosi_operator.driver.v1alpha1 import Driver
from cosi_operator.outcome import Call, Code, DriverStatus, MadeBy
from mockdriver.client import MockDriver
from mockdriver.rules import Rule

CALLERS = 40
KILLS = 60 if os.environ.get("COSI_FAULTS") == "full" else 8
TIMEOUT_S = 20.0
WORDS = "said by the driver"


class Callers:
    """Each makes one call after the other, and counts how it ended.

    `ends`: "answered", "refused", "lost" (no answer on a connection) and "unreachable" (none was
    made). `wrong`: what no driver here sends.
    """

    def __init__(self, channel: DriverChannel, *, refuses: bool) -> None:
        self.ends: Counter[str] = Counter()
        self.wrong: list[DriverStatus] = []
        self._driver = Driver(channel)
        self._refuses = refuses
        self._said = anyio.Event()

    async def call(self, number: int) -> None:
        while True:
            try:
                await self._driver.create_bucket(f"b-{number}", {}, timeout_s=TIMEOUT_S)
                end = "answered"
            except DriverError as error:
                end = self._end(error.status)
            self.ends[end] += 1
            if end in ("answered", "refused"):
                self._said.set()
            else:
                await anyio.sleep(0.01)

    def _end(self, status: DriverStatus) -> str:
        if status.made_by is MadeBy.TRANSPORT:
            return "unreachable" if "can't connect" in status.message else "lost"
        sent = DriverStatus(Call.CREATE_BUCKET, Code.UNAVAILABLE, MadeBy.DRIVER, WORDS)
        if not self._refuses or status != sent:
            self.wrong.append(status)
        return "refused"

    async def until_the_driver_says(self, count: int) -> None:
        for _ in range(count):
            self._said = anyio.Event()
            await self._said.wait()


@pytest.mark.parametrize(
    "refuses",
    [
        pytest.param(False, id="driver that answers OK"),
        pytest.param(True, id="driver that answers UNAVAILABLE"),
    ],
)
async def test_no_local_failure_is_taken_for_the_drivers_status(*, refuses: bool) -> None:
    rules = (Rule(Call.CREATE_BUCKET, code="UNAVAILABLE", message=WORDS),) if refuses else ()
    with TemporaryDirectory() as directory, MockDriver.start(Path(directory), rules=rules) as mock:
        channel = DriverChannel(mock.address)
        callers = Callers(channel, refuses=refuses)
        async with anyio.create_task_group() as tasks:
            for number in range(CALLERS):
                tasks.start_soon(callers.call, number)
            for _ in range(KILLS):
                await callers.until_the_driver_says(3)
                await anyio.to_thread.run_sync(mock.kill)
                await anyio.to_thread.run_sync(mock.run)
            await callers.until_the_driver_says(3)
            tasks.cancel_scope.cancel()
        channel.close()
    said, never = ("refused", "answered") if refuses else ("answered", "refused")
    assert (callers.wrong, callers.ends[never]) == ([], 0), callers.ends
    assert callers.ends["lost"] >= KILLS * CALLERS / 4
    assert callers.ends["unreachable"] >= KILLS
    assert callers.ends[said] >= KILLS * 3
