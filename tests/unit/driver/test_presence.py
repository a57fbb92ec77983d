"""Is the driver there: each change is told once, soon, and without asking it all the time."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import anyio.lowlevel
import pytest
from structlog.testing import capture_logs
from tests.support.clock import PATIENCE_S, FakeClock
from tests.support.scripteddriver import Peer, framed, scripted_driver

from cosi_operator.driver.channel import DriverChannel
from cosi_operator.driver.presence import (
    BACKOFF,
    DOWN_LOOK_S,
    UP_LOOK_S,
    DriverIdentity,
    Presence,
)
from cosi_operator.outcome import Call
from cosi_operator.rpc import cosi_pb2
from mockdriver.client import MockDriver

NAME = "mock.objectstorage.k8s.io"


@dataclass
class World:
    channel: DriverChannel
    clock: FakeClock
    presence: Presence
    told: list[str] = field(default_factory=list)  # names that came up, "" for down

    def up(self, identity: DriverIdentity) -> None:
        self.told.append(identity.name)

    def down(self) -> None:
        self.told.append("")

    @property
    def instance(self) -> str:
        return self.presence.current.instance if self.presence.current else ""

    async def rest(self) -> float:
        """Wait until it has looked and rests; for how long."""
        await self.clock.wait_for_sleepers()
        return self.clock.sleeping_for()[0]

    async def look(self, times: int = 1) -> None:
        """Let it look again, so often."""
        for _ in range(times):
            self.clock.advance(await self.rest())
        await self.rest()

    async def until_told(self, *told: str) -> None:
        for _ in range(2000):
            if self.told == list(told):
                return
            await anyio.sleep(0.01)
        pytest.fail(f"not {told} but {self.told}")


@asynccontextmanager
async def watching(path: Path, *, timeout_s: float = PATIENCE_S) -> AsyncIterator[World]:
    channel, clock = DriverChannel(f"unix://{path}"), FakeClock()
    presence = Presence(
        channel,
        clock=clock,
        get_info_timeout_s=timeout_s,
        on_up=lambda identity: world.up(identity),
        on_down=lambda: world.down(),
    )
    world = World(channel, clock, presence)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(presence.run)
        yield world
        tasks.cancel_scope.cancel()
    channel.close()
    for _ in range(3):  # the loop closes the socket in its next turns
        await anyio.lowlevel.checkpoint()


@pytest.fixture
def directory() -> Iterator[Path]:
    with TemporaryDirectory() as short:  # a socket's path has 107 bytes at most
        yield Path(short)


async def test_a_sidecar_that_starts_first_waits_for_the_socket(directory: Path) -> None:
    async with watching(directory / "cosi.sock") as world:
        await world.look(3)
        assert world.instance == ""
        assert await world.rest() == DOWN_LOOK_S
        with MockDriver.start(directory):
            await world.look()
            assert world.told == [NAME]
            assert len(world.instance) == 16


async def test_a_driver_that_stays_is_asked_once(directory: Path) -> None:
    with MockDriver.start(directory) as driver:
        async with watching(driver.socket_path) as world:
            await world.look(20)
            assert world.told == [NAME]
            assert await world.rest() == UP_LOOK_S
            assert driver.calls(Call.GET_INFO) == 1


async def test_a_restart_is_another_instance_and_a_sidecars_restart_is_not(
    directory: Path,
) -> None:
    with MockDriver.start(directory) as driver:
        async with watching(driver.socket_path) as world:
            await world.rest()
            first = world.presence.current
        async with watching(driver.socket_path) as world:
            await world.rest()
            assert world.presence.current == first
            driver.kill()
            await world.until_told(NAME, "")
            driver.run()
            await world.look()
            await world.until_told(NAME, "", NAME)
            assert world.presence.current != first


async def test_a_renamed_driver_comes_up_under_its_new_name(directory: Path) -> None:
    with MockDriver.start(directory) as driver:
        async with watching(driver.socket_path) as world:
            await world.rest()
            driver.restart(name="other.example.com")
            await world.look()
            for _ in range(20):
                if world.told[-1] == "other.example.com":
                    break
                await world.look()
            assert world.told[-1] == "other.example.com"


async def test_a_driver_that_dies_between_looks_is_missed_at_once(directory: Path) -> None:
    with MockDriver.start(directory) as driver:
        async with watching(driver.socket_path) as world:
            await world.rest()
            driver.kill()
            await world.until_told(NAME, "")
            assert world.clock.monotonic() < 1000 + UP_LOOK_S, "no look was due"


async def test_one_that_does_not_answer_is_asked_again_less_and_less_often(
    directory: Path,
) -> None:
    with MockDriver.start(directory) as driver:
        driver.set_rule(Call.GET_INFO, code="UNAVAILABLE", message="starting")
        with capture_logs() as logs:
            async with watching(driver.socket_path) as world:
                await world.look(120)  # 60 s
                assert world.told == []
                assert 60 / BACKOFF.cap_s <= driver.calls(Call.GET_INFO) <= 16
                driver.clear_rules()
                await world.look(int(BACKOFF.cap_s / DOWN_LOOK_S) + 1)
                assert world.told == [NAME]
    assert [entry["event"] for entry in logs] == ["driver_down", "driver_up"], "each told once"


async def test_a_new_socket_is_asked_at_once_whatever_the_backoff(directory: Path) -> None:
    with MockDriver.start(directory) as driver:
        driver.set_rule(Call.GET_INFO, code="INTERNAL")
        async with watching(driver.socket_path) as world:
            await world.look(40)
            driver.restart()
            await world.look()
            assert world.told == [NAME]


async def test_a_call_without_an_answer_makes_it_look_at_once(directory: Path) -> None:
    with MockDriver.start(directory) as driver:
        async with watching(driver.socket_path, timeout_s=0.2) as world:
            await world.rest()
            driver.set_rule(Call.GET_INFO, hang=True)
            world.presence.note_silent()
            await world.look()
            await world.until_told(NAME, "")


async def test_one_that_refuses_but_answers_is_still_there(directory: Path) -> None:
    with MockDriver.start(directory) as driver:
        async with watching(driver.socket_path) as world:
            await world.rest()
            driver.set_rule(Call.GET_INFO, code="INTERNAL")
            world.presence.note_silent()
            await world.look(3)
            assert driver.calls(Call.GET_INFO) == 2
            assert world.told == [NAME]


async def answer_and_close(peer: Peer, stream_id: int) -> None:
    peer.reply(stream_id, framed(cosi_pb2.DriverGetInfoResponse(name=NAME).SerializeToString()))
    await peer.flush()
    await peer.stream.aclose()


async def no_name(peer: Peer, stream_id: int) -> None:
    peer.reply(stream_id, framed(b""))


async def test_a_driver_that_closes_after_each_answer_is_not_asked_without_pause(
    directory: Path,
) -> None:
    path = directory / "cosi.sock"
    async with scripted_driver(path, answer_and_close) as driver, watching(path) as world:
        await world.until_told(NAME)
        for _ in range(50):  # turns of the loop in which it could ask
            await anyio.sleep(0.001)
        assert len(driver.peers) <= 2
        await world.look(3)
        assert len(driver.peers) <= 5
        assert world.told == [NAME]


async def test_one_without_a_name_is_not_up(directory: Path) -> None:
    path = directory / "cosi.sock"
    async with scripted_driver(path, no_name), watching(path) as world:
        await world.look(3)
        assert world.told == []
