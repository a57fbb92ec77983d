"""Requests that are refused together lead to one login, whose answer all of them use."""

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kr8s.objects
import pytest
from tests.support.apiserver import Reply
from tests.support.clock import PATIENCE_S
from tests.support.sdk import written
from tests.unit.sdk.conftest import Shop

from cosi_operator import sdk
from cosi_operator.sdk import asyncio as async_sdk
from cosi_operator.sdk import objects
from cosi_operator.sdk.api_objects import AsyncApi
from cosi_operator.sdk.flight import Flight

AT_ONCE = 12
OPERATOR = Path(__file__).resolve().parents[3] / "operator"


@dataclass(frozen=True, slots=True)
class Login:
    """An exec plugin that counts its runs."""

    folder: Path

    @property
    def user(self) -> dict[str, Any]:
        script = 'echo run >> "$0/runs"; cat "$0/answer"'
        return {
            "exec": {
                "apiVersion": "client.authentication.k8s.io/v1",
                "command": "sh",
                "args": ["-c", script, str(self.folder)],
            }
        }

    def prints(self, token: str) -> None:
        (self.folder / "answer").write_text(json.dumps({"status": {"token": token}}))

    def waits(self) -> None:
        """The next run waits for `one_more_runs`."""
        (self.folder / "answer").unlink()
        os.mkfifo(self.folder / "answer")

    @contextmanager
    def one_more_runs(self) -> Iterator[None]:
        """The run that waits ends with the block; the runs of the block end at once."""
        answer = self.folder / "answer"
        with answer.open("w") as held:  # waits until the run reads
            answer.unlink()
            self.prints("first")
            held.write(answer.read_text())
            yield

    def fails(self) -> None:
        (self.folder / "answer").write_text("no credential")

    @property
    def runs(self) -> int:
        return (self.folder / "runs").read_text().count("run")


@pytest.fixture
def login(shop: Shop, tmp_path: Path) -> Login:
    found = Login(tmp_path)
    found.prints("first")
    written(shop.server, shop.kubeconfig, **found.user)
    shop.server.allowed_tokens = {"Bearer first"}
    return found


def claim(number: int) -> dict[str, Any]:
    return {"metadata": {"name": f"new-{number}", "namespace": "shop"}, "spec": {}}


async def ask(number: int) -> None:
    """Through the SDK, and through each way of kr8s to send a request."""
    match number % 4:
        case 0:
            await async_sdk.BucketClaim.get("photos", namespace="shop")
        case 1:
            await (await async_sdk.BucketClaim(claim(number))).create()
        case 2:
            assert [each async for each in async_sdk.BucketClaim.list(namespace="shop")]
        case _:
            found = (await async_sdk.api()).async_get("bucketclaims", namespace="shop")
            assert [each async for each in found]


def ask_and_wait(number: int) -> None:
    match number % 4:
        case 0:
            sdk.BucketClaim.get("photos", namespace="shop")
        case 1:
            sdk.BucketClaim(claim(number)).create()
        case 2:
            assert list(sdk.BucketClaim.list(namespace="shop"))
        case _:
            list(kr8s.objects.Secret.list(namespace="shop", api=sdk.api()))


def renewed(shop: Shop, login: Login) -> None:
    login.prints("second")
    shop.server.allowed_tokens = {"Bearer second"}


async def test_the_first_requests_of_an_event_loop_log_in_once(login: Login) -> None:
    await asyncio.gather(
        *(async_sdk.BucketClaim.get("photos", namespace="shop") for _ in range(AT_ONCE))
    )
    assert login.runs == 1


def test_the_first_requests_of_threads_log_in_once(login: Login) -> None:
    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(lambda _: sdk.BucketClaim.get("photos", namespace="shop"), range(AT_ONCE)))
    assert login.runs == 1


def test_the_first_requests_of_threads_share_a_failure(
    login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = threading.Semaphore(0)
    join = Flight.join

    async def counted(self: Flight, runs: int, work: Callable[[], Awaitable[None]]) -> None:
        waiting.release()
        await join(self, runs, work)

    monkeypatch.setattr(Flight, "join", counted)
    (login.folder / "answer").unlink()
    os.mkfifo(login.folder / "answer")

    def fail(_: int) -> None:
        with pytest.raises(sdk.KubeconfigError, match="exec plugin sh failed"):
            sdk.BucketClaim.get("photos", namespace="shop")

    with ThreadPoolExecutor(AT_ONCE) as threads:
        failed = threads.map(fail, range(AT_ONCE))
        for _ in range(AT_ONCE):
            assert waiting.acquire(timeout=PATIENCE_S)
        (login.folder / "answer").write_text("no credential")
        list(failed)
    assert login.runs == 1


async def test_the_first_requests_of_an_event_loop_share_a_failure(login: Login) -> None:
    login.fails()
    calls = [async_sdk.BucketClaim.get("photos", namespace="shop") for _ in range(AT_ONCE)]
    failed = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(error) for error in failed} == {sdk.KubeconfigError}
    assert login.runs == 1


async def test_asynchronous_requests_that_are_refused_together_log_in_once(
    shop: Shop, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AsyncApi, "async_lookup_kind", known_kind)
    await async_sdk.api()
    renewed(shop, login)
    await asyncio.gather(*map(ask, range(AT_ONCE)))
    assert login.runs == 2


async def known_kind(*_: object, **__: object) -> tuple[str, str, bool]:
    """Without the list of kinds, which the server of these tests does not have."""
    return "bucketclaim.objectstorage.k8s.io/v1alpha1", "bucketclaims", True


def test_synchronous_requests_that_are_refused_together_log_in_once(
    shop: Shop, login: Login
) -> None:
    sdk.BucketClaim.get("photos", namespace="shop")
    renewed(shop, login)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(ask_and_wait, range(AT_ONCE)))
    assert login.runs == 2


def test_synchronous_requests_share_the_failure_of_a_login(shop: Shop, login: Login) -> None:
    sdk.BucketClaim.get("photos", namespace="shop")
    login.fails()
    shop.server.allowed_tokens = set()

    def fail(number: int) -> str:
        with pytest.raises(sdk.KubeconfigError) as raised:
            sdk.BucketClaim.get(f"photos-{number}", namespace="shop")
        return str(raised.value)

    with ThreadPoolExecutor(AT_ONCE) as threads:
        (told,) = set(threads.map(fail, range(AT_ONCE)))
    assert re.search(r"users\[stub\]\.exec: exec plugin sh failed$", told)


async def test_requests_that_were_sent_before_a_login_failed_share_its_failure(
    shop: Shop, login: Login
) -> None:
    await async_sdk.api()
    login.fails()
    shop.server.allowed_tokens = set()
    claims = [await async_sdk.BucketClaim(claim(number)) for number in range(AT_ONCE)]
    failed = await asyncio.gather(*(each.create() for each in claims), return_exceptions=True)
    assert {type(error) for error in failed} == {sdk.KubeconfigError}
    assert len({str(error) for error in failed}) == 1
    assert login.runs == 2
    login.prints("third")
    shop.server.allowed_tokens = {"Bearer third"}
    await claims[0].create()  # one that is sent later tries again
    assert login.runs == 3


async def test_a_cancelled_login_is_no_answer_for_the_others(
    shop: Shop, login: Login, tmp_path: Path
) -> None:
    await async_sdk.api()
    renewed(shop, login)
    (tmp_path / "answer").rename(tmp_path / "kept")
    (tmp_path / "answer").symlink_to(tmp_path / "fifo")
    os.mkfifo(tmp_path / "fifo")
    first = asyncio.create_task(ask(0))
    descriptor = await asyncio.to_thread(os.open, tmp_path / "fifo", os.O_WRONLY)  # it runs now
    second = asyncio.create_task(ask(2))
    (tmp_path / "answer").unlink()
    (tmp_path / "kept").rename(tmp_path / "answer")
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    os.close(descriptor)
    await second


@pytest.mark.parametrize("verb", ["create", "list", "get", "delete", "patch"])
def test_a_missing_right_leads_to_no_login_of_kr8s(shop: Shop, login: Login, verb: str) -> None:
    found = sdk.BucketClaim.get("photos", namespace="shop")
    shop.server.forbid(verb, "bucketclaims")
    asked = shop.server.count(verb)
    calls: dict[str, Callable[[], object]] = {
        "create": sdk.BucketClaim(claim(1)).create,
        "list": lambda: sdk.BucketClaim.get(namespace="shop", label_selector="a=b"),
        "get": found.refresh,
        "delete": found.delete,
        "patch": lambda: found.patch({"spec": {}}),
    }
    with pytest.raises(sdk.Forbidden):
        calls[verb]()
    assert shop.server.count(verb) == asked + 1
    assert login.runs == 1


def test_kr8ss_own_objects_raise_what_kr8s_documents(shop: Shop, login: Login) -> None:
    shop.server.forbid("list", "secrets")
    with pytest.raises(kr8s.ServerError, match="cannot list resource secrets") as raised:
        list(kr8s.objects.Secret.list(namespace="shop", api=sdk.api()))
    assert raised.value.response is not None
    assert raised.value.response.status_code == 403
    with pytest.raises(kr8s.NotFoundError):
        kr8s.objects.Secret.get("none", namespace="shop", api=objects.api(), timeout=0)
    assert login.runs == 1


FORKED = """
import os, signal, sys, warnings
warnings.simplefilter("ignore")  # Python warns of a fork with threads
from cosi_operator.sdk import BucketClaim
BucketClaim.get("photos", namespace="shop")
print("used", flush=True)
sys.stdin.readline()
child = os.fork()
if child == 0:
    signal.alarm(20)
    os._exit(0 if BucketClaim.get("photos", namespace="shop").name == "photos" else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_logs_in_again_when_the_token_has_expired(
    shop: Shop, login: Login
) -> None:
    """The thread of kr8s, which logs in otherwise, does not exist there."""
    with subprocess.Popen(
        [sys.executable, "-c", FORKED],
        env={**os.environ, "PYTHONPATH": str(OPERATOR), "KUBECONFIG": str(shop.kubeconfig)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "used\n"
        login.prints("second")
        shop.server.allowed_tokens = {"Bearer second"}
        _, problems = process.communicate("go on\n", timeout=60)
    assert (process.returncode, problems) == (0, "")
    assert login.runs == 2


FORKED_BEFORE_AN_API_OBJECT = """
import os, signal, sys, threading, warnings
warnings.simplefilter("ignore")  # Python warns of a fork with threads
from cosi_operator.sdk import ApiError, BucketAccess, BucketClaim
def fail():
    try:
        BucketClaim.get("photos", namespace="shop")
    except ApiError:
        print("failed", flush=True)
if sys.argv[1] == "failed":
    fail()
else:
    threading.Thread(target=BucketClaim.get, args=["photos", "shop"], daemon=True).start()
sys.stdin.readline()
child = os.fork()
if child == 0:
    signal.alarm(20)
    claim = BucketClaim.get("photos", namespace="shop")
    print("got", flush=True)
    sys.stdin.readline()
    keys = BucketAccess.get("photos-keys", namespace="shop").credentials()
    os._exit(0 if claim.why().is_ready and keys.bucket else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize("before", ["failed", "opening"])
def test_a_process_that_is_forked_before_there_is_an_api_object_makes_its_own(
    shop: Shop, login: Login, before: str
) -> None:
    """The first use failed, or another thread is still at it: kr8s has a thread then."""
    if before == "failed":
        shop.server.fail_next("version", Reply(503, body=b"{}"))
    else:
        login.waits()
    with subprocess.Popen(
        [sys.executable, "-c", FORKED_BEFORE_AN_API_OBJECT, before],
        env={**os.environ, "PYTHONPATH": str(OPERATOR), "KUBECONFIG": str(shop.kubeconfig)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        if before == "failed":
            assert process.stdout.readline() == "failed\n"
        with nullcontext() if before == "failed" else login.one_more_runs():
            process.stdin.write("fork\n")
            process.stdin.flush()
            assert process.stdout.readline() == "got\n"
        login.prints("second")
        shop.server.allowed_tokens = {"Bearer second"}
        _, problems = process.communicate("go on\n", timeout=60)
    assert (process.returncode, problems) == (0, "")
