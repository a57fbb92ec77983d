"""The mock driver as a program: it does what its rules say, and tells the truth about it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import pytest

from cosi_operator.outcome import Call, Code
from cosi_operator.rpc import cosi_pb2
from mockdriver.client import MockDriver
from mockdriver.rules import Rule, RuleBook

ROOT = Path(__file__).parents[2]
README = (ROOT / "hack" / "mockdriver" / "README.md").read_text()
TIMEOUT_S = 20.0
REPLIES: dict[Call, Any] = {
    Call.GET_INFO: cosi_pb2.DriverGetInfoResponse,
    Call.CREATE_BUCKET: cosi_pb2.DriverCreateBucketResponse,
    Call.DELETE_BUCKET: cosi_pb2.DriverDeleteBucketResponse,
    Call.GRANT_ACCESS: cosi_pb2.DriverGrantBucketAccessResponse,
    Call.REVOKE_ACCESS: cosi_pb2.DriverRevokeBucketAccessResponse,
}


@pytest.fixture
def directory() -> Iterator[Path]:
    with TemporaryDirectory() as short:  # a socket's path has 107 bytes at most
        yield Path(short)


@pytest.fixture(scope="module")
def shared() -> Iterator[MockDriver]:
    with TemporaryDirectory() as short, MockDriver.start(Path(short)) as driver:
        yield driver


@pytest.fixture
def driver(shared: MockDriver) -> MockDriver:
    shared.run()
    shared.reset()
    return shared


# The calls go over gRPC's own client, so that our client and the mock can't be wrong together.


def ask(driver: MockDriver, call: Call, *, timeout_s: float = TIMEOUT_S, **fields: Any) -> Any:
    request = {
        Call.GET_INFO: cosi_pb2.DriverGetInfoRequest,
        Call.CREATE_BUCKET: cosi_pb2.DriverCreateBucketRequest,
        Call.DELETE_BUCKET: cosi_pb2.DriverDeleteBucketRequest,
        Call.GRANT_ACCESS: cosi_pb2.DriverGrantBucketAccessRequest,
        Call.REVOKE_ACCESS: cosi_pb2.DriverRevokeBucketAccessRequest,
    }[call](**fields)
    service = "Identity" if call is Call.GET_INFO else "Provisioner"
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(driver.address, options=options) as channel:
        method: Any = channel.unary_unary(
            f"/cosi.v1alpha1.{service}/{call}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=REPLIES[call].FromString,
        )
        return method(request, timeout=timeout_s)


def code_of(driver: MockDriver, call: Call, *, timeout_s: float = TIMEOUT_S, **fields: Any) -> str:
    return refusal(driver, call, timeout_s=timeout_s, **fields)[0]


def refusal(
    driver: MockDriver, call: Call, *, timeout_s: float = TIMEOUT_S, **fields: Any
) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as raised:
        ask(driver, call, timeout_s=timeout_s, **fields)
    error: Any = raised.value  # it is a grpc.Call as well
    return error.code().name, error.details() or ""


def until(condition: Callable[[], bool]) -> None:
    """The driver is another process: look again until it is so."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "that did not come to be"
        time.sleep(0.01)


# --- behaving well


def test_buckets_and_accounts_come_and_go_and_repeating_is_fine(driver: MockDriver) -> None:
    assert ask(driver, Call.GET_INFO).name == driver.name
    for _ in range(2):
        assert ask(driver, Call.CREATE_BUCKET, name="b").bucket_id == "id-b"
    granted = [ask(driver, Call.GRANT_ACCESS, bucket_id="id-b", name="a") for _ in range(2)]
    assert granted[0] == granted[1]
    (account,) = driver.accounts()
    assert granted[0].credentials["s3"].secrets["accessSecretKey"] == account.secret_key
    assert [bucket.name for bucket in driver.buckets()] == ["b"]
    for _ in range(2):
        ask(driver, Call.REVOKE_ACCESS, bucket_id="id-b", account_id=account.account_id)
        ask(driver, Call.DELETE_BUCKET, bucket_id="id-b")
    assert (driver.buckets(), driver.accounts()) == ([], [])


def test_its_own_refusals(driver: MockDriver) -> None:
    ask(driver, Call.CREATE_BUCKET, name="b", parameters={"tier": "1"})
    assert code_of(driver, Call.CREATE_BUCKET, name="b") == "ALREADY_EXISTS"
    assert code_of(driver, Call.GRANT_ACCESS, bucket_id="none", name="a") == "NOT_FOUND"


# --- rules


@pytest.mark.parametrize("code", [code.name for code in Code if code is not Code.OK])
def test_any_status_can_be_sent_and_leaves_the_buckets_alone(driver: MockDriver, code: str) -> None:
    driver.set_rule(Call.CREATE_BUCKET, code=code, message="words")
    assert refusal(driver, Call.CREATE_BUCKET, name="b") == (code, "words")
    assert driver.buckets() == []
    assert driver.counts()["DriverCreateBucket"] == {code: 1}


def test_a_rule_is_for_one_call_some_requests_and_so_many_times(driver: MockDriver) -> None:
    driver.set_rule(Call.CREATE_BUCKET, code="INTERNAL", match={"parameters.tier": "1"}, times=2)
    gold: dict[str, Any] = {"parameters": {"tier": "1"}}
    ask(driver, Call.GET_INFO)
    ask(driver, Call.CREATE_BUCKET, name="other")
    codes = [code_of(driver, Call.CREATE_BUCKET, name=f"b-{n}", **gold) for n in range(2)]
    assert codes == ["INTERNAL", "INTERNAL"]
    ask(driver, Call.CREATE_BUCKET, name="b", **gold)
    assert driver.counts()["DriverCreateBucket"] == {"INTERNAL": 2, "OK": 2}


def test_the_newest_rule_wins_and_without_a_call_it_is_for_all(driver: MockDriver) -> None:
    driver.set_rule(None, code="UNAVAILABLE")
    driver.set_rule(Call.GET_INFO, code="INTERNAL")
    assert code_of(driver, Call.GET_INFO) == "INTERNAL"
    assert code_of(driver, Call.DELETE_BUCKET, bucket_id="x") == "UNAVAILABLE"
    driver.clear_rules()
    ask(driver, Call.GET_INFO)


def test_a_request_id_is_fresh_each_time(driver: MockDriver) -> None:
    driver.set_rule(Call.GET_INFO, code="INTERNAL", message="request {request_id} failed")
    words = {refusal(driver, Call.GET_INFO)[1] for _ in range(2)}
    assert len(words) == 2
    assert all(re.fullmatch(r"request [0-9a-f]{32} failed", text) for text in words)


def test_a_refusal_can_have_acted(driver: MockDriver) -> None:
    driver.set_rule(Call.CREATE_BUCKET, code="INTERNAL", act=True)
    assert code_of(driver, Call.CREATE_BUCKET, name="b") == "INTERNAL"
    assert [bucket.name for bucket in driver.buckets()] == ["b"]


def test_it_can_be_slow(driver: MockDriver) -> None:
    driver.set_rule(Call.GET_INFO, delay_s=0.2)
    started = time.monotonic()
    ask(driver, Call.GET_INFO)
    assert time.monotonic() - started >= 0.2


@pytest.mark.parametrize(
    "acts", [pytest.param(False, id="without acting"), pytest.param(True, id="having acted")]
)
def test_it_can_hang_and_notes_that_the_caller_left(driver: MockDriver, *, acts: bool) -> None:
    driver.set_rule(Call.CREATE_BUCKET, hang=True, act=acts)
    code = code_of(driver, Call.CREATE_BUCKET, name="b", timeout_s=0.3)
    assert code == "DEADLINE_EXCEEDED"
    until(lambda: driver.counts()["DriverCreateBucket"] == {"CANCELLED": 1})
    assert len(driver.buckets()) == acts


@pytest.mark.parametrize(("when", "buckets"), [pytest.param("before", 0), pytest.param("after", 1)])
def test_it_can_die_in_a_call_and_keeps_what_it_did(
    driver: MockDriver, when: str, buckets: int
) -> None:
    driver.set_rule(Call.CREATE_BUCKET, die=when)
    assert code_of(driver, Call.CREATE_BUCKET, name="b") == "UNAVAILABLE"
    driver.wait_until_dead()
    assert driver.socket_path.is_socket(), "as after any crash"
    driver.run()
    assert len(driver.buckets()) == buckets
    assert driver.counts()["DriverCreateBucket"] == {}, "counts are of one process"
    ask(driver, Call.CREATE_BUCKET, name="b")


@pytest.mark.parametrize(
    ("reply", "check"),
    [
        pytest.param("empty_id", lambda r: r.account_id == "", id="empty_id"),
        pytest.param("no_credentials", lambda r: not r.credentials, id="no_credentials"),
        pytest.param(
            "partial_credentials",
            lambda r: "accessSecretKey" not in r.credentials["s3"].secrets,
            id="partial_credentials",
        ),
        pytest.param(
            "azure_credentials",
            lambda r: list(r.credentials["azure"].secrets) == ["accessToken"],
            id="azure_credentials",
        ),
    ],
)
def test_kinds_of_replies(driver: MockDriver, reply: str, check: Callable[[Any], bool]) -> None:
    ask(driver, Call.CREATE_BUCKET, name="b")
    driver.set_rule(Call.GRANT_ACCESS, reply=reply)
    assert check(ask(driver, Call.GRANT_ACCESS, bucket_id="id-b", name="a"))


def test_a_grant_can_make_another_account_each_time(driver: MockDriver) -> None:
    ask(driver, Call.CREATE_BUCKET, name="b")
    driver.set_rule(Call.GRANT_ACCESS, reply="new_account")
    made = {ask(driver, Call.GRANT_ACCESS, bucket_id="id-b", name="a").account_id for _ in "ab"}
    assert len(made) == len(driver.accounts()) == 2


def test_a_reply_can_be_too_large(driver: MockDriver) -> None:
    driver.set_rule(Call.GET_INFO, reply="oversize", oversize_bytes=5_000_000)
    assert code_of(driver, Call.GET_INFO) == "RESOURCE_EXHAUSTED"


def test_a_reply_can_be_no_message_at_all(driver: MockDriver) -> None:
    driver.set_rule(Call.GET_INFO, reply="malformed")
    # gRPC's client makes a status of its own of that.
    assert code_of(driver, Call.GET_INFO) == "INTERNAL"


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        pytest.param({"code": "NONE"}, "no status code is named 'NONE'", id="a code"),
        pytest.param({"reply": "kind"}, "Invalid enum value 'kind'", id="a reply"),
        pytest.param({"typo": 1}, "unknown field `typo`", id="a field"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(
    driver: MockDriver, rule: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        driver.set_rule(None, **rule)
    assert ask(driver, Call.GET_INFO).name == driver.name


def test_rules_without_a_process() -> None:
    book = RuleBook((Rule(times=1, code="INTERNAL"),))
    taken = [book.take(Call.GET_INFO, {}).code for _ in range(2)]
    assert taken == ["INTERNAL", "OK"]


# --- counts, journal, state


def test_the_journal_has_each_request_in_order_with_its_fields(driver: MockDriver) -> None:
    ask(driver, Call.CREATE_BUCKET, name="b", parameters={"tier": "1"})
    driver.set_rule(Call.DELETE_BUCKET, code="INTERNAL")
    code_of(driver, Call.DELETE_BUCKET, bucket_id="id-b", delete_context={"k": "v"})
    entries = driver.journal()
    assert [(e.number, e.call, e.code) for e in entries] == [
        (1, Call.CREATE_BUCKET, "OK"),
        (2, Call.DELETE_BUCKET, "INTERNAL"),
    ]
    assert entries[0].fields == {"name": "b", "parameters.tier": "1"}
    assert entries[1].fields == {"bucket_id": "id-b", "delete_context.k": "v"}
    assert driver.calls(Call.DELETE_BUCKET) == 1


@pytest.mark.parametrize(
    ("keep_state", "left"),
    [pytest.param(True, 1, id="kept"), pytest.param(False, 0, id="not kept")],
)
def test_what_a_kill_leaves(directory: Path, *, keep_state: bool, left: int) -> None:
    rules = (Rule(call=Call.DELETE_BUCKET, code="INTERNAL"),)
    with MockDriver.start(directory, keep_state=keep_state, rules=rules) as driver:
        for name in ("a", "b"):
            ask(driver, Call.CREATE_BUCKET, name=name)
        driver.reset()
        ask(driver, Call.CREATE_BUCKET, name="c")
        driver.kill()
        assert driver.pid is None
        driver.run()
        assert len(driver.buckets()) == left
        assert code_of(driver, Call.DELETE_BUCKET, bucket_id="id-c") == "INTERNAL"


def test_a_driver_that_cannot_start_is_told(directory: Path) -> None:
    (directory / "state.jsonl").write_text("no JSON\n")
    with pytest.raises(RuntimeError, match="did not start"):
        MockDriver.start(directory)


# --- the README


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return str(found)


def table(heading: str) -> list[str]:
    """The first column of the first table after a heading."""
    section = README.split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `(\S+)` \|", section, re.MULTILINE)


def test_the_readme_names_each_option_command_and_field() -> None:
    usage = subprocess.run(
        [sys.executable, "-m", "mockdriver", "--help"],
        env=os.environ | {"PYTHONPATH": f"{ROOT}/operator:{ROOT}/hack"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert set(table("Start")) == set(re.findall(r"--[a-z]+", usage)) - {"--help"}
    source = (ROOT / "hack" / "mockdriver" / "control.py").read_text()
    assert table("Tell it what to do") == re.findall(r'Command\(do="(\w+)"', source)
    assert table("Rules") == list(Rule.__struct_fields__)


def test_the_readmes_commands_and_answers_are_true(directory: Path) -> None:
    environment = os.environ | {
        "DIR": str(directory),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    process = subprocess.Popen(
        ["/bin/sh", "-c", block("sh")],
        start_new_session=True,  # the shell and what it starts end together
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        sent = 0
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(TIMEOUT_S)
            control.connect(str(directory / "control.sock"))
            answers = control.makefile("r")
            for line in block("text").splitlines():
                if line.startswith("> "):
                    control.sendall(line[2:].encode() + b"\n")
                    sent += 1
                else:
                    assert f"< {answers.readline().strip()}" == line
            answers.close()
        assert sent == 5
        assert process.wait(TIMEOUT_S) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def test_the_readmes_rules_file_does_what_it_says(directory: Path) -> None:
    rules = tuple(Rule(**fields) for fields in json.loads(block("json")))
    with MockDriver.start(directory, rules=rules) as driver:
        for _ in range(3):
            assert refusal(driver, Call.GET_INFO) == ("UNAVAILABLE", "starting")
        ask(driver, Call.GET_INFO)
        ask(driver, Call.CREATE_BUCKET, name="b")
        gold: dict[str, Any] = {"parameters": {"tier": "gold"}}
        assert code_of(driver, Call.CREATE_BUCKET, name="g", **gold) == "RESOURCE_EXHAUSTED"


def test_the_readmes_python_runs(directory: Path) -> None:
    names: dict[str, Any] = {"directory": directory}
    exec(compile(block("python"), "README.md", "exec"), names)
    assert names["driver"].name == "other.example.com"
    assert names["driver"].pid is None
