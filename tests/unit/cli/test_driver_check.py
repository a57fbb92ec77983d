"""`cosi driver check`: what is judged how, what is advised, and how it is shown. All pure."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from cosi_operator.classify import parse_override
from cosi_operator.cli.arguments import parse
from cosi_operator.cli.driver_check import show
from cosi_operator.cli.driver_check.advice import advise
from cosi_operator.cli.driver_check.finding import Result
from cosi_operator.cli.driver_check.judge import CHECKS, judge
from cosi_operator.cli.driver_check.options import Options
from cosi_operator.cli.driver_check.seen import (
    AT_ONCE,
    HIDDEN,
    CallResult,
    CheckRecord,
    KeyTrial,
    Step,
    without_credentials,
)
from cosi_operator.driver.credentials import Credentials, S3Credentials
from cosi_operator.driver.probe import GrantReply
from cosi_operator.outcome import Call, Code, DriverStatus, MadeBy

SECRET = "hush-hush-0123456789"
DOCS = Path(__file__).parents[3] / "docs" / "driver-authors.md"
S = Step
CALL_OF = {
    "info": Call.GET_INFO,
    "create": Call.CREATE_BUCKET,
    "grant": Call.GRANT_ACCESS,
    "revoke": Call.REVOKE_ACCESS,
    "delete": Call.DELETE_BUCKET,
}


def call_of(step: Step) -> Call:
    return CALL_OF[step.partition("-")[0]]


def ok(step: Step, reply: str = "", elapsed_s: float = 0.1) -> CallResult:
    status = DriverStatus(call_of(step), Code.OK, MadeBy.DRIVER)
    return CallResult(call_of(step), status, elapsed_s, reply)


def grant(
    step: Step, account: str, *, secret: str = SECRET, key: str = "accessKeyID"
) -> CallResult:
    seen = GrantReply(
        account_id=account,
        keys={"s3": (key, "accessSecretKey", "endpoint", "region")},
        credentials=Credentials(s3=S3Credentials("AK", secret, "https://s3", "r")),
        problem="",
        values=("AK", secret),
    )
    return replace(ok(step, account), grant=seen)


def refusal(step: Step, code: Code, message: str = "no") -> CallResult:
    return CallResult(call_of(step), DriverStatus(call_of(step), code, MadeBy.DRIVER, message), 0.1)


def silent(step: Step, made_by: MadeBy) -> CallResult:
    code = Code.DEADLINE_EXCEEDED if made_by is MadeBy.DEADLINE else Code.UNAVAILABLE
    status = DriverStatus(call_of(step), code, made_by, "no answer within 60 s")
    return CallResult(call_of(step), status, 60.0 if made_by is MadeBy.DEADLINE else 0.1)


def malformed(step: Step) -> CallResult:
    status = DriverStatus(call_of(step), Code.OK, MadeBy.REPLY, "the reply is too large")
    return CallResult(call_of(step), status, 0.1)


def exemplary() -> dict[Step, CallResult]:
    """A driver that does everything as the interface asks."""
    return {
        S.INFO: ok(S.INFO, "good.example.com"),
        S.INFO_AGAIN: ok(S.INFO_AGAIN, "good.example.com"),
        S.CREATE: ok(S.CREATE, "c-1"),
        S.CREATE_AGAIN: ok(S.CREATE_AGAIN, "c-1"),
        S.CREATE_OTHER: refusal(S.CREATE_OTHER, Code.ALREADY_EXISTS),
        S.CREATE_SECOND: ok(S.CREATE_SECOND, "c-2"),
        S.AT_ONCE_1: ok(S.AT_ONCE_1, "c-3"),
        S.AT_ONCE_2: ok(S.AT_ONCE_2, "c-3"),
        S.ABANDONED: silent(S.ABANDONED, MadeBy.DEADLINE),
        S.REPEATED: ok(S.REPEATED, "c-4"),
        S.BAD_NAME: refusal(S.BAD_NAME, Code.INVALID_ARGUMENT),
        S.NO_NAME: refusal(S.NO_NAME, Code.INVALID_ARGUMENT),
        S.GRANT: grant(S.GRANT, "a-1"),
        S.GRANT_AGAIN: grant(S.GRANT_AGAIN, "a-1", secret="another-secret"),
        S.GRANT_SECOND: grant(S.GRANT_SECOND, "a-4"),
        S.GRANT_UNKNOWN_TYPE: refusal(S.GRANT_UNKNOWN_TYPE, Code.INVALID_ARGUMENT),
        S.REVOKE: ok(S.REVOKE),
        S.REVOKE_AGAIN: ok(S.REVOKE_AGAIN),
        S.DELETE: ok(S.DELETE),
        S.DELETE_AGAIN: ok(S.DELETE_AGAIN),
        S.GRANT_GONE: refusal(S.GRANT_GONE, Code.NOT_FOUND),
        S.REVOKE_GONE: ok(S.REVOKE_GONE),
        **{
            step: refusal(step, Code.INVALID_ARGUMENT)
            for step in (
                S.GRANT_NO_BUCKET_ID,
                S.GRANT_NO_NAME,
                S.REVOKE_NO_BUCKET_ID,
                S.REVOKE_NO_ACCOUNT_ID,
                S.DELETE_NO_ID,
            )
        },
    }


def trial(number: int) -> KeyTrial:
    """An account whose key works until its Revoke."""
    granted = grant(S.GRANT, f"a-o{number}")
    return KeyTrial(granted, ok(S.REVOKE), works="", after="InvalidAccessKeyId")


TRIALS = tuple(trial(number) for number in range(AT_ONCE))
EXEMPLARY = CheckRecord(
    Options(s3=True),
    exemplary(),
    {},
    name_of_first="c-1",
    at_once=TRIALS,
    lone_key="",
    orphan_key="InvalidAccessKeyId",
)


def seen_with(
    *changes: tuple[Step, CallResult], left: tuple[str, ...] = (), **fields: Any
) -> CheckRecord:
    asked = exemplary() | dict(changes)
    return without_credentials(replace(EXEMPLARY, asked=asked, left=left, **fields))


def not_passed(seen: CheckRecord) -> dict[str, Result]:
    return {f.check: f.result for f in judge(seen) if f.result is not Result.PASS}


def test_a_driver_that_does_as_the_interface_asks_passes_every_check_and_needs_no_flag() -> None:
    assert not_passed(seen_with()) == {}
    assert advise(seen_with()).flags == ()


F, W = Result.FAIL, Result.WARN
INVALID, INTERNAL, UNKNOWN = Code.INVALID_ARGUMENT, Code.INTERNAL, Code.UNKNOWN
BAD_GRANT = GrantReply("a-1", {}, None, "the reply has no credentials")


def one(step: Step, asked: CallResult) -> list[tuple[Step, CallResult]]:
    return [(step, asked)]


type Case = tuple[str, list[tuple[Step, CallResult]], dict[str, Result]]
CASES: list[Case] = [
    (
        "a name that is no domain name",
        one(S.INFO, ok(S.INFO, "no good_name")) + one(S.INFO_AGAIN, ok(S.INFO, "no good_name")),
        {"info-name": F},
    ),
    (
        "a name of 64 characters",
        one(S.INFO, ok(S.INFO, "n" * 64)) + one(S.INFO_AGAIN, ok(S.INFO, "n" * 64)),
        {"info-name": F},
    ),
    (
        "another name at the second call",
        one(S.INFO_AGAIN, ok(S.INFO, "other.example.com")),
        {"info-same": F},
    ),
    (
        "no id",
        one(S.CREATE, ok(S.CREATE, "")),
        {"create": F, "create-id": Result.SKIP, "create-again": F, "create-distinct": Result.SKIP},
    ),
    (
        "an id of two lines",
        [(s, ok(s, "a\nb")) for s in (S.CREATE, S.CREATE_AGAIN)],
        {"create-id": F},
    ),
    (
        "an id of more than 1024 bytes",
        [(s, ok(s, "x" * 1025)) for s in (S.CREATE, S.CREATE_AGAIN)],
        {"create-id": F},
    ),
    (
        "one id for two names",
        one(S.CREATE_SECOND, ok(S.CREATE_SECOND, "c-1")),
        {"create-distinct": F},
    ),
    (
        "another id at the second Create",
        one(S.CREATE_AGAIN, ok(S.CREATE_AGAIN, "c-9")),
        {"create-again": F},
    ),
    (
        "ALREADY_EXISTS at the second Create",
        one(S.CREATE_AGAIN, refusal(S.CREATE_AGAIN, Code.ALREADY_EXISTS)),
        {"create-again": F},
    ),
    (
        "a reply that can't be read",
        one(S.CREATE_AGAIN, malformed(S.CREATE_AGAIN)),
        {"create-again": F},
    ),
    (
        "two ids for two calls at once",
        one(S.AT_ONCE_2, ok(S.AT_ONCE_2, "c-8")),
        {"create-at-once": F},
    ),
    (
        "ABORTED for the second of two at once",
        one(S.AT_ONCE_2, refusal(S.AT_ONCE_2, Code.ABORTED)),
        {"create-at-once": W},
    ),
    (
        "INTERNAL for the second of two at once",
        one(S.AT_ONCE_2, refusal(S.AT_ONCE_2, INTERNAL)),
        {"create-at-once": F},
    ),
    (
        "what was given up can't be repeated",
        one(S.REPEATED, refusal(S.REPEATED, Code.ABORTED)),
        {"create-repeated": F},
    ),
    ("another id at the repeat", one(S.ABANDONED, ok(S.ABANDONED, "c-7")), {"create-repeated": F}),
    (
        "other parameters go unnoticed",
        one(S.CREATE_OTHER, ok(S.CREATE_OTHER, "c-1")),
        {"create-other-parameters": W},
    ),
    (
        "other parameters make a second bucket",
        one(S.CREATE_OTHER, ok(S.CREATE_OTHER, "c-5")),
        {"create-other-parameters": F},
    ),
    (
        "INTERNAL for other parameters",
        one(S.CREATE_OTHER, refusal(S.CREATE_OTHER, INTERNAL)),
        {"create-other-parameters": F},
    ),
    ("a backend that takes every name", one(S.BAD_NAME, ok(S.BAD_NAME, "c-6")), {}),
    (
        "INTERNAL for a bad name",
        one(S.BAD_NAME, refusal(S.BAD_NAME, INTERNAL)),
        {"create-bad-name": F},
    ),
    ("a bucket without a name", one(S.NO_NAME, ok(S.NO_NAME, "?")), {"create-no-name": F}),
    (
        "UNKNOWN for an empty name",
        one(S.NO_NAME, refusal(S.NO_NAME, UNKNOWN)),
        {"create-no-name": W},
    ),
    (
        "no credentials",
        one(S.GRANT, replace(ok(S.GRANT, "a-1"), grant=BAD_GRANT)),
        {"grant-credentials": F, "grant-spelling": Result.SKIP},
    ),
    (
        "another spelling of a key",
        one(S.GRANT, grant(S.GRANT, "a-1", key="accessKeyId")),
        {"grant-spelling": W},
    ),
    (
        "no account id",
        one(S.GRANT, grant(S.GRANT, "")),
        {"grant": F, "grant-again": F, "grant-distinct": Result.SKIP},
    ),
    (
        "ALREADY_EXISTS and no keys at the second Grant",
        one(S.GRANT_AGAIN, refusal(S.GRANT_AGAIN, Code.ALREADY_EXISTS)),
        {"grant-again": F},
    ),
    (
        "a new account at the second Grant",
        one(S.GRANT_AGAIN, grant(S.GRANT_AGAIN, "a-2")),
        {"grant-again": F},
    ),
    (
        "the second Grant without keys",
        one(S.GRANT_AGAIN, replace(ok(S.GRANT_AGAIN, "a-1"), grant=BAD_GRANT)),
        {"grant-again": F},
    ),
    (
        "one account for two names",
        one(S.GRANT_SECOND, grant(S.GRANT_SECOND, "a-1")),
        {"grant-distinct": F},
    ),
    (
        "an unknown type is granted",
        one(S.GRANT_UNKNOWN_TYPE, grant(S.GRANT_UNKNOWN_TYPE, "a-2")),
        {"grant-unknown-type": F},
    ),
    (
        "INTERNAL for an unknown type",
        one(S.GRANT_UNKNOWN_TYPE, refusal(S.GRANT_UNKNOWN_TYPE, INTERNAL)),
        {"grant-unknown-type": F},
    ),
    (
        "a Grant on a bucket that is gone",
        one(S.GRANT_GONE, grant(S.GRANT_GONE, "a-3")),
        {"grant-gone": F},
    ),
    (
        "INVALID_ARGUMENT for a bucket that is gone",
        one(S.GRANT_GONE, refusal(S.GRANT_GONE, INVALID)),
        {"grant-gone": W},
    ),
    ("Revoke fails", one(S.REVOKE, refusal(S.REVOKE, INTERNAL)), {"revoke": F}),
    (
        "the second Revoke fails",
        one(S.REVOKE_AGAIN, refusal(S.REVOKE_AGAIN, INTERNAL)),
        {"revoke-again": F},
    ),
    (
        "NOT_FOUND at the second Revoke",
        one(S.REVOKE_AGAIN, refusal(S.REVOKE_AGAIN, Code.NOT_FOUND)),
        {},
    ),
    (
        "a Revoke on a bucket that is gone fails",
        one(S.REVOKE_GONE, refusal(S.REVOKE_GONE, INTERNAL)),
        {"revoke-gone": F},
    ),
    ("Delete fails", one(S.DELETE, refusal(S.DELETE, INTERNAL)), {"delete": F}),
    (
        "the second Delete fails",
        one(S.DELETE_AGAIN, refusal(S.DELETE_AGAIN, INTERNAL)),
        {"delete-again": F},
    ),
    (
        "NOT_FOUND at the second Delete",
        one(S.DELETE_AGAIN, refusal(S.DELETE_AGAIN, Code.NOT_FOUND)),
        {"delete-again": W},
    ),
    (
        "a Grant without a bucket",
        one(S.GRANT_NO_BUCKET_ID, grant(S.GRANT, "a-5")),
        {"grant-no-bucket-id": F},
    ),
    ("a Grant without a name", one(S.GRANT_NO_NAME, grant(S.GRANT, "a-5")), {"grant-no-name": F}),
    (
        "a Revoke without a bucket",
        one(S.REVOKE_NO_BUCKET_ID, ok(S.REVOKE)),
        {"revoke-no-bucket-id": F},
    ),
    (
        "a Revoke without an account",
        one(S.REVOKE_NO_ACCOUNT_ID, ok(S.REVOKE)),
        {"revoke-no-account-id": F},
    ),
    ("a Delete without an id", one(S.DELETE_NO_ID, ok(S.DELETE)), {"delete-no-id": F}),
    (
        "a message with a credential",
        one(S.REVOKE_AGAIN, refusal(S.REVOKE_AGAIN, Code.NOT_FOUND, f"key {SECRET}")),
        {"messages": F},
    ),
    (
        "a refusal without a message",
        one(S.BAD_NAME, refusal(S.BAD_NAME, INVALID, " ")),
        {"messages": W},
    ),
    (
        "a message of two lines",
        one(S.BAD_NAME, refusal(S.BAD_NAME, INVALID, "a\nb")),
        {"messages": W},
    ),
    (
        "a call without an answer",
        one(S.DELETE, silent(S.DELETE, MadeBy.DEADLINE)),
        {"delete": F, "in-time": F},
    ),
    (
        "a call that took more than half of its time",
        one(S.DELETE, ok(S.DELETE, elapsed_s=31)),
        {"in-time": W},
    ),
    (
        "a call that ends the driver",
        one(S.DELETE, silent(S.DELETE, MadeBy.TRANSPORT)),
        {"delete": F, "stays-up": F},
    ),
]


@pytest.mark.parametrize(
    ("changes", "expected"), [pytest.param(c, e, id=text) for text, c, e in CASES]
)
def test_each_fault_fails_the_check_that_is_about_it(
    changes: list[tuple[Step, CallResult]], expected: dict[str, Result]
) -> None:
    assert not_passed(seen_with(*changes)) == expected


def of_trials(count: int, **fields: Any) -> tuple[KeyTrial, ...]:
    """The first `count` trials end otherwise."""
    return tuple(replace(one, **fields) if n < count else one for n, one in enumerate(TRIALS))


NOT_FOUND_GONE = (S.REVOKE_GONE, refusal(S.REVOKE_GONE, Code.NOT_FOUND))
SERIALIZE = "--serialize-access-calls=driver"
type KeyCase = tuple[
    str, dict[str, Any], list[tuple[Step, CallResult]], dict[str, Result], list[str]
]
KEY_CASES: list[KeyCase] = [
    ("a key that never works", {"lone_key": "AccessDenied"}, [], {"key-works": F}, []),
    (
        "keys that were granted at once are refused",
        {"at_once": of_trials(3, works="AccessDenied", after=None)},
        [],
        {"keys-at-once": F},
        [SERIALIZE],
    ),
    (
        "no key works, alone or at once: no lock would help",
        {"lone_key": "X", "at_once": of_trials(AT_ONCE, works="X", after=None)},
        [],
        {"key-works": F, "keys-at-once": F, "keys-after": Result.SKIP},
        [],
    ),
    (
        "a key works after its revocation",
        {"at_once": of_trials(1, after="")},
        [],
        {"keys-after": F},
        [SERIALIZE],
    ),
    (
        "Grants at once are refused",
        {"at_once": of_trials(2, granted=refusal(S.GRANT, INTERNAL), revoked=None, works=None)},
        [],
        {"grant-at-once": F},
        [SERIALIZE],
    ),
    (
        "Revokes at once are refused",
        {"at_once": of_trials(1, revoked=refusal(S.REVOKE, INTERNAL), after=None)},
        [],
        {"revoke-at-once": F},
        [SERIALIZE],
    ),
    (
        "one account for two names at once",
        {"at_once": of_trials(2, granted=grant(S.GRANT, "a-1"))},
        [],
        {"grant-at-once": F},
        [],
    ),
    (
        "NOT_FOUND for a gone bucket, and the key is gone",
        {},
        [NOT_FOUND_GONE],
        {},
        [],
    ),
    (
        "NOT_FOUND for a gone bucket, and the key lives",
        {"orphan_key": "NoSuchBucket"},
        [NOT_FOUND_GONE],
        {"revoke-gone": F},
        [],
    ),
    (
        "NOT_FOUND for a gone bucket, and nobody looked at the key",
        {"orphan_key": None},
        [NOT_FOUND_GONE],
        {"revoke-gone": W},
        [],
    ),
    (
        "OK for a gone bucket, and the key lives",
        {"orphan_key": ""},
        [],
        {"revoke-gone": F},
        [],
    ),
]


@pytest.mark.parametrize(
    ("fields", "changes", "expected", "flags"), [pytest.param(*c[1:], id=c[0]) for c in KEY_CASES]
)
def test_keys_and_calls_at_once_are_judged_and_the_setting_follows(
    fields: dict[str, Any],
    changes: list[tuple[Step, CallResult]],
    expected: dict[str, Result],
    flags: list[str],
) -> None:
    seen = seen_with(*changes, **fields)
    assert not_passed(seen) == expected
    assert [flag.text for flag in advise(seen).flags] == flags


def test_without_s3_it_says_what_it_could_not_see() -> None:
    unseen = tuple(replace(one, works=None, after=None) for one in TRIALS)
    seen = seen_with(options=Options(), at_once=unseen, lone_key=None, orphan_key=None)
    skipped = ("key-works", "keys-at-once", "keys-after")
    assert not_passed(seen) == dict.fromkeys(skipped, Result.SKIP)
    shown = show.text(seen, judge(seen), advise(seen))
    assert shown.count("without --s3 no key is used") == len(skipped)
    assert "because no key was used (see --s3)" in " ".join(shown.split())
    assert "at its default" in " ".join(shown.split())


def test_when_every_create_failed_it_says_so_and_why_the_rest_was_not_asked() -> None:
    creates = (S.CREATE, S.CREATE_AGAIN, S.CREATE_SECOND, S.AT_ONCE_1, S.AT_ONCE_2, S.REPEATED)
    asked = {S.INFO: ok(S.INFO, "good.example.com")}
    asked |= {step: refusal(step, INVALID, "region is missing") for step in creates}
    skipped = {S.GRANT: "there is no bucket to try it on"}
    seen = CheckRecord(Options(), asked, skipped, at_once_skipped=skipped[S.GRANT])
    shown = " ".join(show.text(seen, judge(seen), advise(seen)).split())
    assert "EVERY DriverCreateBucket FAILED" in shown
    assert "region is missing" in shown
    assert "--parameter K=V" in shown
    assert "skip grant not asked: there is no bucket to try it on" in shown


def test_what_may_be_left_behind_is_a_failure_and_named() -> None:
    seen = seen_with(left=("bucket c-9 (id 9)",))
    assert not_passed(seen) == {"removed": F}
    assert "bucket c-9 (id 9)" in show.text(seen, judge(seen), advise(seen))


def test_every_check_has_a_case_that_it_finds_and_stands_in_the_docs() -> None:
    found = {"removed"} | {
        check for _, _, expected in CASES for check, result in expected.items() if result in (F, W)
    }
    found |= {check for case in KEY_CASES for check in case[3]}
    assert [c.name for c in CHECKS if c.name not in found] == []
    text = DOCS.read_text()
    assert [c.name for c in CHECKS if f"`{c.name}`" not in text] == []


def test_what_was_not_asked_is_skipped_with_the_reason() -> None:
    asked = exemplary()
    del asked[S.GRANT]
    seen = CheckRecord(Options(), asked, {S.GRANT: "there is no bucket to try it on"})
    found = {f.check: f for f in judge(seen)}["grant"]
    assert found.result is Result.SKIP
    assert found.seen == "not asked: there is no bucket to try it on"


CREATE_EXISTS = "--retry-override=DriverCreateBucket:ALREADY_EXISTS=terminal"


@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        pytest.param(
            one(S.AT_ONCE_2, refusal(S.AT_ONCE_2, Code.ABORTED)),
            ["--retry-override=DriverCreateBucket:ABORTED=requeue"],
            id="ABORTED while nothing was wrong",
        ),
        pytest.param(
            one(S.AT_ONCE_2, refusal(S.AT_ONCE_2, Code.ABORTED))
            + one(S.REVOKE, refusal(S.REVOKE, Code.UNAVAILABLE)),
            ["--retry-policy=csi-like"],
            id="two codes for what passes",
        ),
        pytest.param(
            one(S.GRANT_GONE, refusal(S.GRANT_GONE, UNKNOWN))
            + one(S.GRANT_UNKNOWN_TYPE, refusal(S.GRANT_UNKNOWN_TYPE, UNKNOWN)),
            [],
            id="UNKNOWN beside other codes of the same call",
        ),
        pytest.param(
            one(S.DELETE_AGAIN, refusal(S.DELETE_AGAIN, UNKNOWN))
            + one(S.DELETE_NO_ID, refusal(S.DELETE_NO_ID, UNKNOWN)),
            ["--retry-override=DriverDeleteBucket:UNKNOWN=requeue"],
            id="UNKNOWN only, for one call",
        ),
        pytest.param(
            [(s, refusal(s, UNKNOWN)) for s, a in exemplary().items() if a.refused],
            ["--retry-override=UNKNOWN=requeue"],
            id="UNKNOWN only, for all calls",
        ),
        pytest.param(
            one(S.REVOKE, refusal(S.REVOKE, Code.NOT_FOUND)),
            ["--retry-override=DriverRevokeBucketAccess:NOT_FOUND=terminal"],
            id="NOT_FOUND for an account that was there",
        ),
        pytest.param(
            [(s, ok(s, "opaque-7")) for s in (S.CREATE, S.CREATE_AGAIN)],
            [CREATE_EXISTS],
            id="ALREADY_EXISTS, and ids that are not names",
        ),
    ],
)
def test_the_advice_follows_from_what_was_seen(
    changes: list[tuple[Step, CallResult]], flags: list[str]
) -> None:
    advice = advise(seen_with(*changes))
    assert [flag.text for flag in advice.flags] == flags
    assert all(flag.because for flag in advice.flags)
    for flag in flags:
        option, _, value = flag.partition("=")
        if option == "--retry-override":
            parse_override(value)  # raises when it could not be pasted


@pytest.mark.parametrize(
    ("step", "code", "word"),
    [
        pytest.param(S.BAD_NAME, INTERNAL, "wrong request", id="wrong requests look like outages"),
        pytest.param(S.DELETE_AGAIN, INTERNAL, "gone already", id="what is gone is refused"),
        pytest.param(S.GRANT_AGAIN, Code.ALREADY_EXISTS, "second Grant", id="no keys again"),
    ],
)
def test_what_no_flag_can_help_is_a_note(step: Step, code: Code, word: str) -> None:
    notes = advise(seen_with((step, refusal(step, code)))).notes
    assert any(word in note for note in notes)
    assert len(notes) == 3  # this one, that no change was lost, and what could not be seen


def test_no_form_of_the_report_shows_a_credential_or_a_control_character() -> None:
    message = f"\x1b[2J{SECRET}\x00 accessSecretKey=tellme"
    seen = seen_with((S.DELETE, refusal(S.DELETE, INTERNAL, message)))
    assert HIDDEN in seen.asked[S.DELETE].status.message
    findings, advice = judge(seen), advise(seen)
    for form in (show.text, show.json, show.junit):
        shown = form(seen, findings, advice)
        assert SECRET not in shown
        assert "tellme" not in shown
        assert all(c.isprintable() or c == "\n" for c in shown)
    assert SECRET not in repr(seen)


def test_json_and_junit_carry_every_check() -> None:
    seen = seen_with((S.DELETE, refusal(S.DELETE, INTERNAL)))
    findings, advice = judge(seen), advise(seen)
    tree = json.loads(show.json(seen, findings, advice))
    assert [c["check"] for c in tree["checks"]] == [c.name for c in CHECKS]
    assert tree["passed"] is False
    suite = ElementTree.fromstring(show.junit(seen, findings, advice))
    assert [case.get("name") for case in suite.iter("testcase")] == [c.name for c in CHECKS]
    assert suite.get("failures") == "1"
    failed = [c.get("name") for c in suite.iter("testcase") if c.find("failure") is not None]
    assert failed == ["delete"]


def test_the_command_line_becomes_options() -> None:
    words = "--driver-addr unix:///s --parameter a=b=c --access-parameter d= --timeout 5s"
    command = parse(
        ["driver", "check", *words.split(), "--include-dangerous", "--s3", "--yes", "-o", "junit"],
        "cosi",
    )
    assert command.check == Options(
        address="unix:///s",
        parameters={"a": "b=c"},
        access_parameters={"d": ""},
        timeout_s=5.0,
        include_dangerous=True,
        s3=True,
        yes=True,
    )
    assert command.output == "junit"
    default = parse(["driver", "check"], "cosi").check
    assert default == Options()
    assert default is not None
    assert not default.include_dangerous


@pytest.mark.parametrize(
    "words",
    [
        pytest.param("--driver-addr tcp://h:1", id="not a Unix socket"),
        pytest.param("--parameter nothing", id="a parameter without a value"),
        pytest.param("--timeout 0", id="no time at all"),
        pytest.param("--timeout nan", id="a time that is no number"),
        pytest.param("--include", id="an abbreviation"),
    ],
)
def test_wrong_words_are_refused(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(["driver", "check", *words.split()], "cosi")
    assert stopped.value.code == 2
    assert words.split()[0] in capsys.readouterr().err
