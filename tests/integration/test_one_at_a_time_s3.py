"""The reference driver edits a bucket's policy without a lock; keys on a real S3 show the loss."""

import functools
from collections.abc import Callable, Iterator

import anyio
import pytest
from botocore.exceptions import ClientError
from msgspec.structs import replace
from tests.support.views import ACCESS

from awsclient import Account
from cosi_operator.api.view import AuthenticationType, Key
from cosi_operator.classify import Policy
from cosi_operator.clock import RealClock
from cosi_operator.driver.channel import DriverChannel
from cosi_operator.driver.v1alpha1 import Driver, GrantedAccess, GrantRequest
from cosi_operator.settings import LaneScope
from cosi_operator.sidecar.calls import DriverState, Refused, Stopwatch
from cosi_operator.sidecar.lanes import Lanes
from refdriver import RefDriver
from seaweed import SeaweedFS

TIMEOUT_S = 30.0
AT_ONCE = 6  # the reference driver does 8 calls at a time
WORKERS = 6 * AT_ONCE + 2  # enough that all the others wait for their turn


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    with SeaweedFS.start(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture(scope="module")
def driver(server: SeaweedFS, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RefDriver]:
    directory = tmp_path_factory.mktemp("driver")
    with RefDriver.start(directory, server.account, unlocked_policy=True) as driver:
        yield driver


async def until(holds: Callable[[], bool]) -> None:
    """The driver and the server are other processes: look again until it is so."""
    for _ in range(1000):
        if await anyio.to_thread.run_sync(holds):
            return
        await anyio.sleep(0.03)
    pytest.fail("that did not come to be within 30 s")


def answer(account: Account, bucket: str) -> str:
    """What S3 says to one write with this key; "" when it is done."""
    try:
        account.s3().put_object(Bucket=bucket, Key="x", Body=b"x")
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


@pytest.mark.parametrize(
    ("scope", "at_once", "kept"),
    [
        pytest.param(LaneScope.DRIVER, 1, AT_ONCE, id="driver -> every key works, then none"),
        pytest.param(LaneScope.BUCKET, 1, AT_ONCE, id="bucket -> every key works, then none"),
        pytest.param(LaneScope.NONE, AT_ONCE, 1, id="none -> one of the granted keys works"),
    ],
)
async def test_keys_of_accesses_that_are_granted_at_once(
    server: SeaweedFS, driver: RefDriver, scope: LaneScope, at_once: int, kept: int
) -> None:
    channel = DriverChannel(driver.address)
    calls = Driver(channel)
    lanes = Lanes(
        scope,
        policy=Policy("conservative", ()),
        driver=DriverState(driver.name),
        workers=WORKERS,
        clock=RealClock(),
        invite=lambda key: pytest.fail(f"{key} was queued"),
    )
    bucket = (await calls.create_bucket(f"b-{scope}", {}, timeout_s=TIMEOUT_S)).bucket_id
    granted: dict[Key, GrantedAccess] = {}

    async def grant(number: int) -> None:
        meta = replace(ACCESS.meta, name=f"a-{number}")
        request = GrantRequest(bucket, f"{scope}-{number}", AuthenticationType.KEY)
        call = functools.partial(calls.grant_access, request, timeout_s=TIMEOUT_S)
        watch = Stopwatch(RealClock())
        reply = await lanes.judged(replace(ACCESS, meta=meta), bucket, call, watch)
        assert not isinstance(reply, Refused), reply
        granted[meta.key] = reply

    driver.hold_edits()
    async with anyio.create_task_group() as tasks:
        for number in range(AT_ONCE):
            tasks.start_soon(grant, number)
        await until(lambda: driver.held_edits() == at_once)
        driver.release_edits()
    accounts = {}
    for key, reply in granted.items():
        assert reply.credentials is not None
        s3 = reply.credentials.s3
        assert s3 is not None
        accounts[key] = Account(s3.endpoint, s3.region, s3.access_key_id, s3.access_secret_key)

    def answers() -> list[str]:
        return sorted(answer(account, bucket) for account in accounts.values())

    assert len(accounts) == AT_ONCE, "all calls answered OK"
    await until(lambda: answers() == [""] * kept + ["AccessDenied"] * (AT_ONCE - kept))

    async def revoke(key: Key) -> None:
        meta = replace(ACCESS.meta, name=key.name)
        account_id = granted[key].account_id
        call = functools.partial(calls.revoke_access, bucket, account_id, {}, timeout_s=TIMEOUT_S)
        watch = Stopwatch(RealClock())
        reply = await lanes.judged(replace(ACCESS, meta=meta), bucket, call, watch)
        assert not isinstance(reply, Refused), reply

    async with anyio.create_task_group() as tasks:
        for key in granted:
            tasks.start_soon(functools.partial(revoke, key))
    await until(lambda: answers() == ["InvalidAccessKeyId"] * AT_ONCE)
    channel.close()
