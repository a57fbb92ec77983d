"""Against a real driver process: what it said is told apart from what went wrong on the way."""

import asyncio
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import CoroutineType

import anyio
import anyio.lowlevel
import pytest
from tests.support.encodings import encodings, leaks

from cosi_operator.api.view import AuthenticationType
from cosi_operator.driver.channel import DriverChannel
from cosi_operator.driver.connection import CONNECT_MARGIN_S
from cosi_operator.driver.errors import DriverError, DriverMalformed, DriverRefused, DriverSilent
from cosi_operator.driver.v1alpha1 import CreatedBucket, Driver, GrantRequest
from cosi_operator.outcome import Call, Code, DriverStatus, MadeBy
from mockdriver.client import MockDriver

ARCHITECTURE = Path(__file__).resolve().parents[3] / "docs" / "architecture.md"
TIMEOUT_S = 20.0
GRANT = GrantRequest("id-b-1", "ba-1", AuthenticationType.KEY)


@pytest.fixture(scope="module")
def shared() -> Iterator[MockDriver]:
    """One process for the tests that leave it alive; a short path, for the sockets' sake."""
    with TemporaryDirectory() as directory, MockDriver.start(Path(directory)) as driver:
        yield driver


@pytest.fixture
def mock(shared: MockDriver) -> MockDriver:
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


async def until(condition: Callable[[], bool]) -> None:
    """Look again and again, as the mock driver is another process."""
    for _ in range(2000):
        if condition():
            return
        await anyio.sleep(0.01)
    pytest.fail("that did not come to be within 20 s")


async def status_of(
    channel: DriverChannel, *, timeout_s: float = TIMEOUT_S, driver: Driver | None = None
) -> DriverStatus:
    driver = driver or Driver(channel)
    with pytest.raises(DriverError) as raised:
        await driver.create_bucket("b-1", {}, timeout_s=timeout_s)
    assert str(raised.value) == (
        f"DriverCreateBucket: {raised.value.status.code.name} by {raised.value.status.made_by}: "
        f"{raised.value.status.message}"
    )
    return raised.value.status


# --- the driver's own words

CODES = [code for code in Code if code is not Code.OK]


@pytest.mark.parametrize(
    "headers_first",
    [
        pytest.param(False, id="as a lone trailer"),
        pytest.param(True, id="with headers first"),
    ],
)
@pytest.mark.parametrize("code", [pytest.param(code, id=code.name) for code in CODES])
async def test_each_code_comes_through_as_it_was_sent(
    mock: MockDriver, channel: DriverChannel, code: Code, *, headers_first: bool
) -> None:
    mock.set_rule(
        Call.CREATE_BUCKET, code=code.name, message="50% of «b-1»\n", headers_first=headers_first
    )
    status = await status_of(channel)
    assert status == DriverStatus(Call.CREATE_BUCKET, code, MadeBy.DRIVER, "50% of «b-1»\n")


async def test_ok_is_the_seventeenth_code(mock: MockDriver, channel: DriverChannel) -> None:
    assert len(CODES) == 16
    assert await Driver(channel).create_bucket("b-1", {"tier": "1"}, timeout_s=TIMEOUT_S) == (
        CreatedBucket("id-b-1")
    )
    (entry,) = mock.journal(Call.CREATE_BUCKET)
    assert entry.fields == {"name": "b-1", "parameters.tier": "1"}


async def test_all_five_calls_reach_the_driver_with_their_fields(
    mock: MockDriver, channel: DriverChannel
) -> None:
    driver = Driver(channel)
    assert await driver.get_info(timeout_s=TIMEOUT_S) == mock.name
    await driver.create_bucket("b-1", {}, timeout_s=TIMEOUT_S)
    granted = await driver.grant_access(GRANT, timeout_s=TIMEOUT_S)
    (account,) = mock.accounts()
    assert granted.account_id == account.account_id
    assert granted.credentials is not None
    assert granted.credentials.s3 is not None
    assert granted.credentials.s3.access_secret_key == account.secret_key
    assert account.secret_key not in repr(granted)
    context = {"a": "b"}
    await driver.revoke_access("id-b-1", account.account_id, context, timeout_s=TIMEOUT_S)
    await driver.delete_bucket("id-b-1", context, timeout_s=TIMEOUT_S)
    assert (mock.buckets(), mock.accounts()) == ([], [])
    assert [(entry.call, entry.code) for entry in mock.journal()] == [
        (Call.GET_INFO, "OK"),
        (Call.CREATE_BUCKET, "OK"),
        (Call.GRANT_ACCESS, "OK"),
        (Call.REVOKE_ACCESS, "OK"),
        (Call.DELETE_BUCKET, "OK"),
    ]
    assert mock.journal(Call.GRANT_ACCESS)[0].fields == {
        "bucket_id": "id-b-1",
        "name": "ba-1",
        "authentication_type": "Key",
    }


@pytest.mark.attack("a driver repeats the key that it has just granted; this process knows it")
async def test_a_granted_key_is_blanked_in_later_words_until_it_is_revoked(
    mock: MockDriver, channel: DriverChannel
) -> None:
    driver = Driver(channel)
    await driver.create_bucket("b-1", {}, timeout_s=TIMEOUT_S)
    await driver.grant_access(GRANT, timeout_s=TIMEOUT_S)
    (account,) = mock.accounts()
    spellings = [text for name, text in encodings(account.secret_key) if "Go prints" not in name]
    for text in spellings:
        mock.set_rule(Call.CREATE_BUCKET, code="INTERNAL", message=f"no: {text} is bad", times=1)
        message = (await status_of(channel, driver=driver)).message
        assert not leaks(message, account.secret_key), text
        assert message.startswith("no: "), text
        assert message.endswith(" is bad"), text
    await driver.revoke_access("id-b-1", account.account_id, {}, timeout_s=TIMEOUT_S)
    mock.set_rule(Call.CREATE_BUCKET, code="INTERNAL", message=account.secret_key)
    assert (await status_of(channel, driver=driver)).message == account.secret_key


async def test_an_empty_id_never_reaches_the_driver(
    mock: MockDriver, channel: DriverChannel
) -> None:
    driver = Driver(channel)
    with pytest.raises(ValueError, match="name is empty"):
        await driver.create_bucket("", {}, timeout_s=TIMEOUT_S)
    with pytest.raises(ValueError, match="bucket_id is empty"):
        await driver.delete_bucket("", {}, timeout_s=TIMEOUT_S)
    with pytest.raises(ValueError, match="account_id is empty"):
        await driver.revoke_access("b", "", {}, timeout_s=TIMEOUT_S)
    with pytest.raises(ValueError, match="bucket_id is empty"):
        await driver.grant_access(
            GrantRequest("", "n", AuthenticationType.KEY), timeout_s=TIMEOUT_S
        )
    assert mock.journal() == []


# --- OK, but


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        pytest.param("malformed", "the reply is not the message it should be", id="no protobuf"),
        pytest.param("oversize", "the reply is larger than 4194304 bytes", id="too large"),
    ],
)
async def test_an_ok_with_a_reply_that_cannot_be_used(
    mock: MockDriver, channel: DriverChannel, reply: str, message: str
) -> None:
    mock.set_rule(Call.CREATE_BUCKET, reply=reply, times=1)
    status = await status_of(channel)
    assert status == DriverStatus(Call.CREATE_BUCKET, Code.OK, MadeBy.REPLY, message)
    assert len(mock.buckets()) == 1, "it acted all the same"
    await Driver(channel).create_bucket("b-1", {}, timeout_s=TIMEOUT_S)  # and it goes on


async def test_an_empty_name_is_malformed(mock: MockDriver, channel: DriverChannel) -> None:
    mock.set_rule(Call.GET_INFO, reply="empty_id")
    with pytest.raises(DriverMalformed, match="the driver's name is empty"):
        await Driver(channel).get_info(timeout_s=TIMEOUT_S)


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        pytest.param(
            "no_credentials", "the reply has credentials for 0 protocols instead of one", id="none"
        ),
        pytest.param(
            "partial_credentials", "the S3 credentials lack accessSecretKey", id="partial"
        ),
    ],
)
async def test_unusable_credentials_are_named(
    mock: MockDriver, channel: DriverChannel, reply: str, problem: str
) -> None:
    driver = Driver(channel)
    await driver.create_bucket("b-1", {}, timeout_s=TIMEOUT_S)
    mock.set_rule(Call.GRANT_ACCESS, reply=reply)
    granted = await driver.grant_access(GRANT, timeout_s=TIMEOUT_S)
    (account,) = mock.accounts()
    assert (granted.credentials, granted.problem) == (None, problem)
    assert account.access_key not in repr(granted)


async def test_azure_credentials_come_through(mock: MockDriver, channel: DriverChannel) -> None:
    driver = Driver(channel)
    await driver.create_bucket("b-1", {}, timeout_s=TIMEOUT_S)
    mock.set_rule(Call.GRANT_ACCESS, reply="azure_credentials")
    granted = await driver.grant_access(GRANT, timeout_s=TIMEOUT_S)
    assert granted.credentials is not None
    assert granted.credentials.azure is not None
    assert granted.credentials.s3 is None


# --- no word from the driver


async def test_our_deadline_is_ours_and_the_driver_learns_of_it(
    mock: MockDriver, channel: DriverChannel
) -> None:
    await Driver(channel).get_info(timeout_s=TIMEOUT_S)  # the connection stands
    mock.set_rule(Call.CREATE_BUCKET, hang=True)
    assert await status_of(channel, timeout_s=0.2) == DriverStatus(
        Call.CREATE_BUCKET, Code.DEADLINE_EXCEEDED, MadeBy.DEADLINE, "no answer within 0.2 s"
    )
    await until(lambda: mock.journal(Call.CREATE_BUCKET)[-1].code == "CANCELLED")
    mock.clear_rules()
    await Driver(channel).create_bucket("b-1", {}, timeout_s=TIMEOUT_S)


async def test_a_driver_that_stands_still_is_late_and_goes_on_later(
    mock: MockDriver, channel: DriverChannel
) -> None:
    assert mock.pid is not None
    os.kill(mock.pid, signal.SIGSTOP)
    try:
        status = await status_of(channel, timeout_s=0.2)
    finally:
        os.kill(mock.pid, signal.SIGCONT)
    assert (status.code, status.made_by) == (Code.DEADLINE_EXCEEDED, MadeBy.DEADLINE)
    assert await Driver(channel).get_info(timeout_s=TIMEOUT_S) == mock.name


@pytest.mark.parametrize(
    ("when", "buckets"),
    [
        pytest.param("before", 0, id="before it acted"),
        pytest.param("after", 1, id="after it acted"),
    ],
)
async def test_a_driver_killed_in_a_call_gave_no_verdict(
    mock: MockDriver, channel: DriverChannel, when: str, buckets: int
) -> None:
    mock.set_rule(Call.CREATE_BUCKET, die=when)
    status = await status_of(channel)
    assert (status.code, status.made_by) == (Code.UNAVAILABLE, MadeBy.TRANSPORT)
    assert "connection" in status.message
    mock.wait_until_dead()
    stale = await status_of(channel)
    assert (stale.code, stale.made_by) == (Code.UNAVAILABLE, MadeBy.TRANSPORT)
    assert stale.message == f"can't connect to {mock.socket_path}: Connection refused"
    mock.run()
    assert len(mock.buckets()) == buckets
    created = await Driver(channel).create_bucket("b-1", {}, timeout_s=TIMEOUT_S)
    assert created.bucket_id == "id-b-1", "the very next call follows the restart"


async def test_a_driver_killed_before_the_call_gave_no_verdict(
    mock: MockDriver, channel: DriverChannel
) -> None:
    await Driver(channel).get_info(timeout_s=TIMEOUT_S)
    mock.kill()
    status = await status_of(channel)
    assert (status.code, status.made_by) == (Code.UNAVAILABLE, MadeBy.TRANSPORT)


async def test_a_restart_is_followed_although_the_old_connection_seemed_to_stand(
    mock: MockDriver, channel: DriverChannel
) -> None:
    lost: list[str] = []
    channel.when_lost(lambda: lost.append("lost"))
    await Driver(channel).get_info(timeout_s=TIMEOUT_S)
    before = channel.socket_identity()
    mock.restart(name="other.example.com")
    try:
        assert await Driver(channel).get_info(timeout_s=TIMEOUT_S) == "other.example.com"
    finally:
        mock.restart(name="mock.objectstorage.k8s.io")
    after = channel.socket_identity()
    assert before is not None
    assert after is not None
    assert before.digest() != after.digest()
    assert lost == ["lost"]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        pytest.param("missing", "No such file or directory", id="no socket"),
        pytest.param("stale", "Connection refused", id="a socket that nobody listens on"),
        pytest.param("file", "Connection refused", id="a file that is no socket"),
        pytest.param("directory", "Connection refused", id="a directory"),
    ],
)
async def test_nobody_there_is_silence(tmp_path: Path, kind: str, words: str) -> None:
    path = tmp_path / "cosi.sock"
    if kind == "stale":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    elif kind == "file":
        path.touch()
    elif kind == "directory":
        path.mkdir()
    status = await status_of(DriverChannel(f"unix://{path}"))
    assert status == DriverStatus(
        Call.CREATE_BUCKET, Code.UNAVAILABLE, MadeBy.TRANSPORT, f"can't connect to {path}: {words}"
    )


async def test_a_listener_that_never_greets_is_late(tmp_path: Path) -> None:
    path = tmp_path / "cosi.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        silent = DriverChannel(f"unix://{path}")
        status = await status_of(silent, timeout_s=0.2)
        silent.close()
        await anyio.lowlevel.checkpoint()
    assert (status.code, status.made_by) == (Code.DEADLINE_EXCEEDED, MadeBy.DEADLINE)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.attack("something listens on the driver's socket and never says a word")
async def test_sockets_of_a_listener_that_never_greets_are_closed(tmp_path: Path) -> None:
    """The gRPC library keeps such a socket, also after its channel is closed."""
    path = tmp_path / "cosi.sock"
    before = open_descriptors()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        silent = DriverChannel(f"unix://{path}")
        for _ in range(20):
            status = await status_of(silent, timeout_s=0.02)
            assert status.made_by is MadeBy.DEADLINE
        # The library itself keeps fewer than 10 descriptors open.
        await until(lambda: open_descriptors() < before + 10)


async def test_a_connection_outlives_the_deadline_of_the_call_that_made_it(
    mock: MockDriver, channel: DriverChannel
) -> None:
    lost: list[str] = []
    channel.when_lost(lambda: lost.append("lost"))
    await Driver(channel).get_info(timeout_s=0.5)
    await anyio.sleep(0.5 + CONNECT_MARGIN_S + 0.5)
    await Driver(channel).get_info(timeout_s=TIMEOUT_S)
    assert lost == []


# --- one connection


async def test_many_calls_share_one_connection(mock: MockDriver, channel: DriverChannel) -> None:
    driver = Driver(channel)

    async def create(number: int) -> None:
        await driver.create_bucket(f"b-{number}", {}, timeout_s=TIMEOUT_S)

    async with anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(create, number)
    assert mock.calls(Call.CREATE_BUCKET) == 100
    assert len(mock.buckets()) == 100


async def test_closing_ends_the_calls_under_way(mock: MockDriver, channel: DriverChannel) -> None:
    mock.set_rule(Call.CREATE_BUCKET, hang=True)
    ended: list[DriverStatus] = []

    async def create() -> None:
        ended.append(await status_of(channel))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(create)
        await until(lambda: mock.journal(Call.CREATE_BUCKET) != [])
        channel.close()
    assert ended[0].made_by is MadeBy.TRANSPORT


@pytest.mark.parametrize("address", ["", "/run/cosi.sock", "tcp://127.0.0.1:80", "unix:"])
def test_only_unix_sockets_are_addresses(address: str) -> None:
    with pytest.raises(ValueError, match="not the address of a Unix socket"):
        DriverChannel(address)


def test_both_spellings_of_an_address() -> None:
    assert DriverChannel("unix:///a/b").path == DriverChannel("unix:/a/b").path == Path("/a/b")


def test_the_kinds_of_error_are_the_three_and_no_other() -> None:
    assert set(DriverError.__subclasses__()) == {DriverRefused, DriverSilent, DriverMalformed}


# --- how deep a call is


def frames_of_ours(coroutine: object) -> list[str]:
    """The functions of the package that wait for each other, the outermost first."""
    found = []
    while isinstance(coroutine, CoroutineType):
        if "cosi_operator" in coroutine.cr_code.co_filename:
            found.append(coroutine.cr_code.co_qualname)
        coroutine = coroutine.cr_await
    return found


async def test_a_call_has_the_frames_that_the_documentation_states(
    mock: MockDriver, channel: DriverChannel
) -> None:
    mock.set_rule(Call.CREATE_BUCKET, hang=True)
    call = Driver(channel).create_bucket("b-1", {}, timeout_s=TIMEOUT_S)
    task = asyncio.create_task(call)
    await until(lambda: frames_of_ours(task.get_coro())[-1:] == ["Connection.ask"])
    frames = frames_of_ours(task.get_coro())
    task.cancel()
    await asyncio.wait([task])
    assert frames[0] == "Driver.create_bucket"
    (stated,) = re.findall(r"(\d+) from the driver call to gRPC", ARCHITECTURE.read_text())
    assert len(frames) == int(stated)
