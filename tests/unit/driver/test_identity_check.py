"""DriverGetInfo is the first call on every new connection, and a foreign driver gets no other."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import anyio.lowlevel
import pytest

from cosi_operator.driver.channel import DriverChannel
from cosi_operator.driver.errors import DriverSilent
from cosi_operator.driver.v1alpha1 import CreatedBucket, Driver
from cosi_operator.outcome import Call, Code, MadeBy
from mockdriver.client import MockDriver

NAME = "mock.objectstorage.k8s.io"
TIMEOUT_S = 20.0
CHECK_S = 0.3
FIRST = "not sent, because DriverGetInfo comes first on a new connection: "


@pytest.fixture(scope="module")
def shared() -> Iterator[MockDriver]:
    with TemporaryDirectory() as directory, MockDriver.start(Path(directory)) as driver:
        yield driver


@pytest.fixture
def mock(shared: MockDriver) -> MockDriver:
    if shared.name != NAME:
        shared.restart(name=NAME)
    shared.run()
    shared.reset()
    return shared


@pytest.fixture
async def channel(mock: MockDriver) -> AsyncIterator[DriverChannel]:
    channel = DriverChannel(mock.address)
    yield channel
    channel.close()
    for _ in range(3):  # the loop closes the socket in its next turns
        await anyio.lowlevel.checkpoint()


@pytest.fixture
def driver(channel: DriverChannel) -> Driver:
    driver = Driver(channel)
    driver.serve_only(NAME.upper(), timeout_s=CHECK_S)
    return driver


def calls(mock: MockDriver) -> list[Call]:
    return [entry.call for entry in mock.journal()]


async def create(driver: Driver, name: str = "b-1") -> CreatedBucket:
    return await driver.create_bucket(name, {}, timeout_s=TIMEOUT_S)


async def silence(driver: Driver, name: str = "b-1") -> str:
    """The words of a create that was not sent."""
    with pytest.raises(DriverSilent) as raised:
        await create(driver, name)
    status = raised.value.status
    assert (status.call, status.code, status.made_by) == (
        Call.CREATE_BUCKET,
        Code.UNAVAILABLE,
        MadeBy.TRANSPORT,
    )
    assert status.message.startswith(FIRST)
    return status.message.removeprefix(FIRST)


async def at_once(driver: Driver, count: int = 20) -> list[str]:
    """Make calls at the same time; returns what stopped each, "" for a success."""
    ends: list[str] = []

    async def one(number: int) -> None:
        try:
            await create(driver, f"b-{number}")
            ends.append("")
        except DriverSilent as error:
            ends.append(error.status.message.removeprefix(FIRST))

    async with anyio.create_task_group() as tasks:
        for number in range(count):
            tasks.start_soon(one, number)
    return ends


async def test_the_name_is_asked_once_for_each_connection(mock: MockDriver, driver: Driver) -> None:
    assert await at_once(driver) == [""] * 20
    assert calls(mock) == [Call.GET_INFO, *[Call.CREATE_BUCKET] * 20]
    mock.restart()
    assert await at_once(driver) == [""] * 20
    assert calls(mock) == [Call.GET_INFO, *[Call.CREATE_BUCKET] * 20]


async def test_a_look_at_the_name_counts_as_the_first_call(
    mock: MockDriver, driver: Driver
) -> None:
    assert await driver.get_info(timeout_s=TIMEOUT_S) == NAME
    await create(driver)
    assert calls(mock) == [Call.GET_INFO, Call.CREATE_BUCKET]


async def test_a_connection_from_before_the_name_was_known_is_asked_too(
    mock: MockDriver, channel: DriverChannel
) -> None:
    driver = Driver(channel)
    await create(driver, "before")
    driver.serve_only(NAME, timeout_s=CHECK_S)
    await create(driver, "after")
    assert calls(mock) == [Call.CREATE_BUCKET, Call.GET_INFO, Call.CREATE_BUCKET]


async def test_a_driver_of_another_name_gets_no_other_call(
    mock: MockDriver, driver: Driver
) -> None:
    await create(driver)
    mock.restart(name="other.example.com")
    words = f"the driver there is named 'other.example.com', not {NAME.upper()!r}"
    assert await silence(driver) == words
    ends = await at_once(driver)
    assert set(ends) <= {words, "it failed for another call"}
    assert set(calls(mock)) == {Call.GET_INFO}
    assert await driver.get_info(timeout_s=TIMEOUT_S) == "other.example.com"
    assert await silence(driver) == words
    assert set(calls(mock)) == {Call.GET_INFO}
    mock.restart(name=NAME)
    await create(driver)
    assert calls(mock) == [Call.GET_INFO, Call.CREATE_BUCKET]


async def test_a_driver_that_changes_its_name_on_one_connection_gets_no_other_call(
    mock: MockDriver, driver: Driver
) -> None:
    await create(driver)
    mock.set_rule(Call.GET_INFO, reply_fields={"name": "other.example.com"})
    await driver.get_info(timeout_s=TIMEOUT_S)
    assert "other.example.com" in await silence(driver)
    assert mock.calls(Call.CREATE_BUCKET) == 1


async def test_a_refused_name_stops_the_call_until_the_driver_tells_it(
    mock: MockDriver, driver: Driver
) -> None:
    mock.set_rule(Call.GET_INFO, code="INTERNAL", message="starting", times=1)
    assert await silence(driver) == "INTERNAL: starting"
    await create(driver)
    assert calls(mock) == [Call.GET_INFO, Call.GET_INFO, Call.CREATE_BUCKET]


async def test_calls_that_wait_for_one_name_wait_once(mock: MockDriver, driver: Driver) -> None:
    mock.set_rule(Call.GET_INFO, hang=True, times=1)
    ends = await at_once(driver)
    late = f"DEADLINE_EXCEEDED: no answer within {CHECK_S:g} s"
    assert sorted(ends) == sorted([late, *["it failed for another call"] * 19])
    assert calls(mock) == [Call.GET_INFO]
    await create(driver)


async def test_a_call_that_is_cancelled_while_it_asks_leaves_the_next_one_alone(
    mock: MockDriver, driver: Driver
) -> None:
    mock.set_rule(Call.GET_INFO, hang=True, times=1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(create, driver)
        while not mock.journal():
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    await create(driver)
    assert calls(mock) == [Call.GET_INFO, Call.GET_INFO, Call.CREATE_BUCKET]


async def test_each_first_call_is_counted(mock: MockDriver) -> None:
    counted: list[tuple[Call, Code]] = []
    channel = DriverChannel(
        mock.address, on_call=lambda call, code, *_: counted.append((call, code))
    )
    driver = Driver(channel)
    driver.serve_only(NAME, timeout_s=CHECK_S)
    await create(driver)
    channel.close()
    await anyio.lowlevel.checkpoint()
    assert counted == [(Call.GET_INFO, Code.OK), (Call.CREATE_BUCKET, Code.OK)]
