"""`cosi driver check` over a socket: what it touches, what it leaves, and two real drivers."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import warm
from controlplane.daemon import coverage_variables
from cosi_operator.cli.driver_check.seen import AT_ONCE
from cosi_operator.outcome import Call
from mockdriver.client import MockDriver
from refdriver import RefDriver
from seaweed import SeaweedFS

OPERATOR = Path(__file__).parents[2] / "operator"
TIMEOUT_S = 50.0
GOOD: tuple[tuple[Call, dict[str, str]], ...] = (
    (Call.CREATE_BUCKET, {"name": ""}),
    (Call.GRANT_ACCESS, {"authentication_type": "UnknownAuthenticationType"}),
    (Call.GRANT_ACCESS, {"bucket_id": ""}),
    (Call.GRANT_ACCESS, {"name": ""}),
    (Call.REVOKE_ACCESS, {"bucket_id": ""}),
    (Call.REVOKE_ACCESS, {"account_id": ""}),
    (Call.DELETE_BUCKET, {"bucket_id": ""}),
)


@pytest.fixture(scope="module")
def process() -> Iterator[MockDriver]:
    with (
        tempfile.TemporaryDirectory(prefix="cosi-") as directory,
        MockDriver.start(Path(directory), keep_state=False) as driver,
    ):
        yield driver


@pytest.fixture
def driver(process: MockDriver) -> MockDriver:
    """A driver that refuses what is empty or unknown, as the interface asks."""
    process.run()
    process.reset()
    for call, match in GOOD:
        process.set_rule(call, match=match, code="INVALID_ARGUMENT", message="no")
    return process


def command(address: str, *words: str) -> list[str]:
    start = [sys.executable, "-c", "import sys; from cosi_operator.cli import main"]
    start[-1] += "; sys.exit(main())"
    return [*start, "driver", "check", "--driver-addr", address, *words]


def run(address: str, *words: str) -> subprocess.CompletedProcess[str]:
    return warm.run_cosi(
        ["driver", "check", "--driver-addr", address, *words], environment={}, timeout_s=TIMEOUT_S
    )


def checked(driver: MockDriver, *words: str) -> tuple[int, dict[str, str], Any]:
    """Exit code, the checks that did not pass, and the whole report."""
    done = run(driver.address, "--yes", "-o", "json", "--timeout", "0.5", *words)
    assert done.returncode in (0, 1), done.stderr
    tree = json.loads(done.stdout)
    odd = {c["check"]: c["result"] for c in tree["checks"] if c["result"] not in ("pass", "skip")}
    return done.returncode, odd, tree


def test_a_good_driver_passes_and_keeps_nothing_of_it(driver: MockDriver) -> None:
    code, odd, tree = checked(driver)
    assert code == 0
    assert odd == {"grant-spelling": "warn"}  # accessKeyId, as the sample driver writes it
    assert driver.buckets() == []
    assert driver.accounts() == []
    assert tree["leftBehind"] == []


def test_nothing_empty_is_sent_unless_it_is_asked_for(driver: MockDriver) -> None:
    checked(driver)
    for entry in driver.journal():
        if entry.call in (Call.DELETE_BUCKET, Call.REVOKE_ACCESS, Call.GRANT_ACCESS):
            assert entry.fields["bucket_id"]
            assert entry.fields.get("account_id") != ""
    code, odd, _ = checked(driver, "--include-dangerous")
    assert (code, odd) == (0, {"grant-spelling": "warn"})
    empty = [e for e in driver.journal(Call.DELETE_BUCKET) if not e.fields["bucket_id"]]
    assert len(empty) == 1


@pytest.mark.parametrize(
    ("call", "rule", "failed"),
    [
        pytest.param(
            Call.CREATE_BUCKET, {"reply": "empty_id"}, {"create", "removed"}, id="no bucket id"
        ),
        pytest.param(
            Call.CREATE_BUCKET, {"reply_fields": {"bucket_id": "all"}},
            {"create-distinct", "removed"}, id="one id for all buckets",
        ),
        pytest.param(
            Call.CREATE_BUCKET, {"reply_fields": {"bucket_id": "a\x85b\u2028c"}},
            {"create-id", "create-distinct"}, id="an id with line ends",
        ),
        pytest.param(
            Call.GRANT_ACCESS, {"reply": "new_account"}, {"grant-again"}, id="always a new account"
        ),
        pytest.param(
            Call.GRANT_ACCESS, {"reply": "no_credentials"}, {"grant-credentials"}, id="no keys"
        ),
        pytest.param(
            Call.GRANT_ACCESS, {"reply": "partial_credentials"}, {"grant-credentials"},
            id="half of the keys",
        ),
        pytest.param(
            Call.GRANT_ACCESS, {"code": "ALREADY_EXISTS", "act": True, "message": "{secret_key}"},
            {"grant"}, id="Grant answers ALREADY_EXISTS",
        ),
        pytest.param(
            Call.REVOKE_ACCESS, {"code": "INTERNAL"}, {"revoke", "revoke-again", "removed"},
            id="Revoke fails",
        ),
        pytest.param(
            Call.DELETE_BUCKET, {"code": "INTERNAL"}, {"delete", "removed"}, id="Delete fails"
        ),
        pytest.param(
            Call.DELETE_BUCKET, {"hang": True, "times": 1}, {"delete", "in-time"},
            id="Delete does not answer",
        ),
        pytest.param(
            Call.CREATE_BUCKET, {"reply": "malformed"}, {"create", "removed"}, id="no protobuf"
        ),
        pytest.param(
            Call.CREATE_BUCKET, {"reply": "oversize"}, {"create", "removed"}, id="huge replies"
        ),
        pytest.param(
            Call.GET_INFO, {"reply_fields": {"name": "not a name"}}, {"info-name"}, id="a bad name"
        ),
        pytest.param(Call.GET_INFO, {"code": "INTERNAL"}, {"info-name"}, id="no name"),
    ],
)  # fmt: skip
def test_a_driver_that_misbehaves_fails_the_check_that_is_about_it(
    driver: MockDriver, call: Call, rule: dict[str, Any], failed: set[str]
) -> None:
    driver.set_rule(call, **rule)
    code, odd, tree = checked(driver)
    assert code == 1
    assert failed <= {check for check, result in odd.items() if result == "fail"}, odd
    assert not any(account.secret_key in json.dumps(tree) for account in driver.accounts())


def test_an_id_that_two_names_share_is_never_granted_revoked_or_deleted(
    driver: MockDriver,
) -> None:
    driver.set_rule(Call.CREATE_BUCKET, reply_fields={"bucket_id": "precious"})
    _, _, tree = checked(driver)
    assert driver.calls(Call.DELETE_BUCKET) == 0
    assert driver.calls(Call.REVOKE_ACCESS) == 0
    assert driver.calls(Call.GRANT_ACCESS) == 0
    assert "may not be ours" in str(tree["leftBehind"])


def test_an_account_that_two_names_share_is_never_revoked_again(driver: MockDriver) -> None:
    driver.set_rule(Call.GRANT_ACCESS, reply_fields={"account_id": "root"})
    _, odd, tree = checked(driver)
    assert odd["grant-distinct"] == "fail"
    assert driver.calls(Call.REVOKE_ACCESS) == 0
    assert "account root" in str(tree["leftBehind"])


def test_a_driver_that_dies_is_told_apart_and_the_check_ends(driver: MockDriver) -> None:
    driver.set_rule(Call.GRANT_ACCESS, die="before")
    code, odd, tree = checked(driver)
    assert code == 1
    assert odd["stays-up"] == "fail"
    assert tree["leftBehind"]
    driver.wait_until_dead()


def test_without_consent_nothing_is_asked(driver: MockDriver) -> None:
    done = run(driver.address)
    assert done.returncode == 2
    assert "up to 5 buckets and 13 accounts" in done.stderr
    assert "--yes" in done.stderr
    assert driver.journal() == []


def test_the_announced_number_of_buckets_is_not_exceeded(driver: MockDriver) -> None:
    checked(driver, "--include-dangerous")
    names = {e.fields["name"] for e in driver.journal(Call.CREATE_BUCKET)} - {""}
    accounts = {e.fields["name"] for e in driver.journal(Call.GRANT_ACCESS)} - {""}
    assert len(names) <= 5
    # "-gone" is the account that the empty bucket id is sent with.
    assert len({name for name in accounts if not name.endswith("-gone")}) <= 13
    assert len({name[: len("cosi-check-12345678")] for name in names | accounts}) == 1


@pytest.mark.parametrize("dangerous", [False, True])
def test_no_bucket_without_a_name_is_asked_for_unless_announced(
    driver: MockDriver, *, dangerous: bool
) -> None:
    _, _, tree = checked(driver, *(["--include-dangerous"] if dangerous else []))
    nameless = [e for e in driver.journal(Call.CREATE_BUCKET) if not e.fields["name"]]
    assert len(nameless) == dangerous
    done = run(driver.address, *(["--include-dangerous"] if dangerous else []))
    assert ("a bucket and an account without a name" in done.stderr) is dangerous
    assert tree["leftBehind"] == []


def test_when_every_create_fails_it_says_so_and_why_the_rest_is_skipped(driver: MockDriver) -> None:
    driver.set_rule(Call.CREATE_BUCKET, code="INVALID_ARGUMENT", message="region is missing")
    done = run(driver.address, "--yes")
    assert done.returncode == 1
    words = " ".join(done.stdout.split())
    assert "EVERY DriverCreateBucket FAILED" in words
    assert "region is missing" in words
    assert "skip revoke not asked: there is no bucket to try it on" in words


def test_a_driver_of_another_name_that_takes_over_gets_no_other_call(driver: MockDriver) -> None:
    driver.set_rule(Call.GET_INFO, reply_fields={"name": "other.example.com"})
    driver.set_rule(Call.GET_INFO, times=1)
    code, odd, _ = checked(driver)
    assert (code, odd["info-same"]) == (1, "fail")
    assert driver.calls(Call.CREATE_BUCKET) == 0


def test_revoke_is_tried_after_the_bucket_was_removed(driver: MockDriver) -> None:
    """The account lives, and NOT_FOUND is about the bucket: that is told, and what may be left."""
    driver.set_rule(Call.REVOKE_ACCESS, code="NOT_FOUND", message="no such bucket")
    _, odd, tree = checked(driver)
    assert odd["revoke-gone"] == "warn"
    assert any("Revoke answered NOT_FOUND" in note for note in tree["advice"]["notes"])
    deletes = driver.journal(Call.DELETE_BUCKET)
    deleted = next(entry for entry in deletes if entry.fields["bucket_id"].endswith("-3"))
    after = [e for e in driver.journal(Call.REVOKE_ACCESS) if e.number > deleted.number]
    assert deleted.fields["bucket_id"] in {e.fields["bucket_id"] for e in after}
    assert any("whose bucket was removed" in left for left in tree["leftBehind"])


def start(address: str, *words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command(address, "--yes", "-o", "json", "--timeout", "20", *words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env={"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": str(OPERATOR)},
    )


def release_once_all_wait(driver: MockDriver | RefDriver) -> None:
    """Let the eight calls that are made at the same time write only when all have read."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while driver.held_edits() < AT_ONCE:
        assert time.monotonic() < deadline_s, "fewer calls at the same time"
        time.sleep(0.02)
    driver.release_edits()


@pytest.mark.parametrize("call", [Call.GRANT_ACCESS, Call.REVOKE_ACCESS])
def test_eight_calls_are_made_at_the_same_time(driver: MockDriver, call: Call) -> None:
    driver.set_rule(call, edit="driver")
    driver.hold_edits(only="-o")
    with start(driver.address) as check:
        release_once_all_wait(driver)
        out, _ = check.communicate(timeout=TIMEOUT_S)
    tree = json.loads(out)
    # Every call answered OK. Without --s3 the loss can't be seen, and the report says so.
    results = {c["check"]: c["result"] for c in tree["checks"]}
    assert (results["grant-at-once"], results["revoke-at-once"]) == ("pass", "pass")
    assert results["keys-at-once"] == "skip"
    assert any("was not seen, because no key was used" in n for n in tree["advice"]["notes"])


@pytest.mark.parametrize(
    ("unlocked_policy", "odd", "flags"),
    [
        pytest.param(False, {"delete-again": "warn"}, [], id="a policy for each user -> no flag"),
        pytest.param(
            True,
            {"delete-again": "warn", "keys-at-once": "fail"},
            ["--serialize-access-calls=driver"],
            id="one policy, edited without a lock -> keys are lost, and the setting is named",
        ),
    ],
)
def test_with_s3_each_key_is_used(
    tmp_path: Path, *, unlocked_policy: bool, odd: dict[str, str], flags: list[str]
) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="cosi-") as directory,
        SeaweedFS.start(tmp_path) as server,
        RefDriver.start(Path(directory), server.account, unlocked_policy=unlocked_policy) as driver,
        start(driver.address, "--s3") as check,
    ):
        if unlocked_policy:
            driver.hold_edits(only="-o")
            release_once_all_wait(driver)
        out, _ = check.communicate(timeout=TIMEOUT_S)
    tree = json.loads(out)
    found = {c["check"]: c["result"] for c in tree["checks"] if c["result"] != "pass"}
    assert {check: r for check, r in found.items() if r != "skip"} == odd, out
    skipped = [check for check, result in found.items() if result == "skip"]
    empty_ids = ("-no-id", "-no-name", "-no-bucket-id", "-no-account-id")
    assert all(check.endswith(empty_ids) for check in skipped)
    assert [flag["text"] for flag in tree["advice"]["flags"]] == flags
    assert tree["leftBehind"] == []


def test_where_no_driver_is_it_says_so(tmp_path: Path) -> None:
    done = run(f"unix://{tmp_path}/none.sock", "--yes")
    assert done.returncode == 2
    assert "no driver answers" in done.stderr
    assert done.stdout == ""


def test_an_interrupt_removes_what_was_made(driver: MockDriver) -> None:
    driver.set_rule(Call.GRANT_ACCESS, hang=True)
    check = subprocess.Popen(
        command(driver.address, "--yes", "--timeout", "40"),
        env={
            "PATH": os.environ.get("PATH", os.defpath),
            "PYTHONPATH": str(OPERATOR),
            **coverage_variables(),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with check:
        while not driver.journal(Call.GRANT_ACCESS):
            assert check.poll() is None
        check.send_signal(signal.SIGINT)
        check.communicate(timeout=TIMEOUT_S)
    assert check.returncode == 130
    assert driver.buckets() == []


def test_the_reference_driver_on_a_real_s3_passes_and_the_backend_is_as_before(
    tmp_path: Path,
) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="cosi-") as directory,
        SeaweedFS.start(tmp_path) as server,
        RefDriver.start(Path(directory), server.account) as driver,
    ):
        before = server.buckets()
        done = run(driver.address, "--yes", "--include-dangerous", "-o", "json")
        tree = json.loads(done.stdout)
        until_s = time.monotonic() + 10  # S3's list may be a moment behind
        while server.buckets() != before and time.monotonic() < until_s:
            time.sleep(0.2)
        assert server.buckets() == before, done.stdout
    odd = {c["check"]: c["result"] for c in tree["checks"] if c["result"] != "pass"}
    assert done.returncode == 0
    # It answers NOT_FOUND to both, which this operator counts as done.
    not_seen = dict.fromkeys(("key-works", "keys-at-once", "keys-after"), "skip")
    assert odd == {"delete-again": "warn", "revoke-no-bucket-id": "warn"} | not_seen
    assert tree["advice"]["flags"] == []
