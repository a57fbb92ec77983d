"""What a driver's status means, written out by hand: 17 codes, five calls, three profiles."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosi_operator.classify import (
    CONSERVATIVE,
    PROFILES,
    Override,
    Policy,
    PolicyError,
    Verdict,
    classify,
    is_retryable_error,
    parse_override,
    policy_for,
)
from cosi_operator.outcome import Call, Code, DriverStatus, Effect, MadeBy, Reason

# The order of the letters in each row below.
CALLS = (
    Call.GET_INFO,
    Call.CREATE_BUCKET,
    Call.DELETE_BUCKET,
    Call.GRANT_ACCESS,
    Call.REVOKE_ACCESS,
)
LETTERS = {"S": Verdict.SUCCESS, "T": Verdict.TERMINAL, "R": Verdict.REQUEUE}

# One letter a call: GetInfo, Create, Delete, Grant, Revoke. Typed in from the agreed table, never
# computed from the code under test.
AGREED = {
    "OK": "SSSSS",
    "CANCELLED": "TTTTT",
    "UNKNOWN": "TTTTT",
    "INVALID_ARGUMENT": "TTTTT",
    "DEADLINE_EXCEEDED": "TTTTT",
    "NOT_FOUND": "TTSTS",
    "ALREADY_EXISTS": "TSTST",
    "PERMISSION_DENIED": "TTTTT",
    "RESOURCE_EXHAUSTED": "TTTTT",
    "FAILED_PRECONDITION": "TTTTT",
    "ABORTED": "TTTTT",
    "OUT_OF_RANGE": "TTTTT",
    "UNIMPLEMENTED": "TTTTT",
    "INTERNAL": "RRRRR",
    "UNAVAILABLE": "TTTTT",
    "DATA_LOSS": "TTTTT",
    "UNAUTHENTICATED": "TTTTT",
}
COSI_SPEC = {
    "OK": "SSSSS",
    "CANCELLED": "RRRRR",
    "UNKNOWN": "RRRRR",
    "INVALID_ARGUMENT": "TTTTT",
    "DEADLINE_EXCEEDED": "RRRRR",
    "NOT_FOUND": "RRSRS",
    "ALREADY_EXISTS": "TSTST",
    "PERMISSION_DENIED": "RRRRR",
    "RESOURCE_EXHAUSTED": "RRRRR",
    "FAILED_PRECONDITION": "RRRRR",
    "ABORTED": "RRRRR",
    "OUT_OF_RANGE": "RRRRR",
    "UNIMPLEMENTED": "TTTTT",
    "INTERNAL": "RRRRR",
    "UNAVAILABLE": "RRRRR",
    "DATA_LOSS": "RRRRR",
    "UNAUTHENTICATED": "RRRRR",
}
CSI_LIKE = AGREED | {
    "CANCELLED": "RRRRR",
    "DEADLINE_EXCEEDED": "RRRRR",
    "RESOURCE_EXHAUSTED": "RRRRR",
    "ABORTED": "RRRRR",
    "UNAVAILABLE": "RRRRR",
}
TABLES = {"conservative": AGREED, "cosi-spec": COSI_SPEC, "csi-like": CSI_LIKE}

# What a failure with this code leaves open on the backend: N(othing), M(aybe something).
LEFT_OPEN = {
    "CANCELLED": "M",
    "UNKNOWN": "M",
    "INVALID_ARGUMENT": "N",
    "DEADLINE_EXCEEDED": "M",
    "NOT_FOUND": "N",
    "ALREADY_EXISTS": "N",
    "PERMISSION_DENIED": "N",
    "RESOURCE_EXHAUSTED": "N",
    "FAILED_PRECONDITION": "N",
    "ABORTED": "M",
    "OUT_OF_RANGE": "N",
    "UNIMPLEMENTED": "N",
    "INTERNAL": "M",
    "UNAVAILABLE": "M",
    "DATA_LOSS": "M",
    "UNAUTHENTICATED": "N",
}


def sent(call: Call, code: Code) -> DriverStatus:
    return DriverStatus(call, code, MadeBy.DRIVER, "words of the driver")


def cells(table: dict[str, str]) -> list[tuple[Code, Call, Verdict]]:
    return [
        (Code[name], call, LETTERS[letter])
        for name, letters in table.items()
        for call, letter in zip(CALLS, letters, strict=True)
    ]


def cell_id(value: object) -> str:
    return value.name if isinstance(value, Code) else str(value)


def test_each_table_here_has_all_17_codes_and_all_5_calls() -> None:
    assert len(CALLS) == len(Call) == 5
    for table in TABLES.values():
        assert set(table) == {code.name for code in Code}
        assert len(table) == 17
    assert set(PROFILES) == set(TABLES)


@pytest.mark.parametrize(("code", "call", "verdict"), cells(AGREED), ids=cell_id)
def test_a_status_that_the_driver_sent_means_what_was_agreed(
    code: Code, call: Call, verdict: Verdict
) -> None:
    assert classify(Policy(), sent(call, code)).verdict is verdict


# The rows of the proposal (docs/rfc-retry-only-internal.md), typed in by hand.
PROPOSAL = [
    pytest.param(Code.INTERNAL, True, id="INTERNAL -> retried"),
    pytest.param(Code.INVALID_ARGUMENT, False, id="INVALID_ARGUMENT -> not retried"),
    pytest.param(Code.PERMISSION_DENIED, False, id="PERMISSION_DENIED -> not retried"),
    pytest.param(Code.FAILED_PRECONDITION, False, id="FAILED_PRECONDITION -> not retried"),
    pytest.param(Code.RESOURCE_EXHAUSTED, False, id="RESOURCE_EXHAUSTED -> not retried"),
    pytest.param(Code.ALREADY_EXISTS, False, id="ALREADY_EXISTS -> not retried"),
    pytest.param(Code.NOT_FOUND, False, id="NOT_FOUND -> not retried"),
    pytest.param(Code.UNAVAILABLE, False, id="UNAVAILABLE -> not retried"),
    pytest.param(Code.UNKNOWN, False, id="UNKNOWN -> not retried"),
    # Codes that the proposal does not name.
    pytest.param(Code.OK, False, id="OK -> not an error, so not retried"),
    pytest.param(Code.CANCELLED, False, id="CANCELLED -> not retried"),
    pytest.param(Code.DEADLINE_EXCEEDED, False, id="DEADLINE_EXCEEDED -> not retried"),
    pytest.param(Code.ABORTED, False, id="ABORTED -> not retried"),
    pytest.param(Code.OUT_OF_RANGE, False, id="OUT_OF_RANGE -> not retried"),
    pytest.param(Code.UNIMPLEMENTED, False, id="UNIMPLEMENTED -> not retried"),
    pytest.param(Code.DATA_LOSS, False, id="DATA_LOSS -> not retried"),
    pytest.param(Code.UNAUTHENTICATED, False, id="UNAUTHENTICATED -> not retried"),
]


@pytest.mark.parametrize(("code", "retried"), PROPOSAL)
def test_only_internal_is_retryable_among_the_codes_that_a_driver_sends(
    code: Code, retried: bool
) -> None:
    assert [is_retryable_error(sent(call, code)) for call in Call] == [retried] * len(Call)


def test_the_proposal_has_a_row_for_each_code() -> None:
    assert [row.values[0] for row in PROPOSAL if row.values[1]] == [Code.INTERNAL]
    assert {row.values[0] for row in PROPOSAL} == set(Code)
    assert len(PROPOSAL) == len(Code)


def test_the_proposal_document_matches_the_code() -> None:
    root = Path(__file__).resolve().parents[2]
    text = (root / "docs" / "rfc-retry-only-internal.md").read_text(encoding="utf-8")
    _, _, section = text.partition("\n## Classification\n")
    section, _, _ = section.partition("\n## ")
    said = {
        Code[name]: answer == "yes"
        for names, answer in re.findall(r"^\| ([A-Z_, ]+) \| (yes|no) \|", section, re.MULTILINE)
        for name in names.split(", ")
    }
    expected = {code: is_retryable_error(sent(Call.CREATE_BUCKET, code)) for code in Code}
    del expected[Code.OK]
    assert said == expected


@pytest.mark.parametrize("code", list(Code), ids=cell_id)
@pytest.mark.parametrize(
    ("made_by", "retried"),
    [
        pytest.param(MadeBy.TRANSPORT, True, id="connection lost -> retried"),
        pytest.param(MadeBy.DEADLINE, True, id="own deadline passed -> retried"),
        pytest.param(MadeBy.REPLY, False, id="unusable reply -> not retried"),
    ],
)
def test_the_code_of_a_status_that_the_driver_did_not_send_does_not_matter(
    made_by: MadeBy, retried: bool, code: Code
) -> None:
    assert is_retryable_error(DriverStatus(Call.CREATE_BUCKET, code, made_by)) is retried


@pytest.mark.parametrize("made_by", list(MadeBy))
@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK], ids=cell_id)
def test_the_default_policy_requeues_exactly_the_retryable_errors(
    code: Code, made_by: MadeBy
) -> None:
    for call in Call:
        status = DriverStatus(call, code, made_by)
        requeued = classify(Policy(), status).verdict is Verdict.REQUEUE
        assert requeued is is_retryable_error(status)


@pytest.mark.parametrize("profile", list(TABLES))
def test_a_profile_changes_only_the_codes_that_it_names(profile: str) -> None:
    policy = policy_for("s3.example.com", profile)
    found = {(code, call): policy.verdict(call, code) for code in Code for call in Call}
    assert found == {(code, call): verdict for code, call, verdict in cells(TABLES[profile])}


@pytest.mark.parametrize(("name", "left"), list(LEFT_OPEN.items()))
def test_each_failure_has_the_effect_on_the_backend(name: str, left: str) -> None:
    judgement = classify(Policy(), sent(Call.CREATE_BUCKET, Code[name]))
    assert judgement.effect is (Effect.NONE if left == "N" else Effect.MAYBE)


def test_each_code_has_a_unique_reason_and_an_explanation() -> None:
    assert set(CONSERVATIVE) == set(Code) - {Code.OK}
    reasons = [row.reason for row in CONSERVATIVE.values()]
    assert len(set(reasons)) == len(reasons)
    for code, row in CONSERVATIVE.items():
        assert row.why.endswith("."), code
        assert row.reason.startswith("Driver"), code


@pytest.mark.parametrize("profile", list(TABLES))
@pytest.mark.parametrize("code", list(Code), ids=cell_id)
@pytest.mark.parametrize(
    ("made_by", "verdict", "reason"),
    [
        pytest.param(
            MadeBy.TRANSPORT,
            Verdict.REQUEUE,
            Reason.DRIVER_UNREACHABLE,
            id="a lost connection -> retried",
        ),
        pytest.param(
            MadeBy.DEADLINE,
            Verdict.REQUEUE,
            Reason.DRIVER_DEADLINE,
            id="the operator's own deadline -> retried",
        ),
        pytest.param(
            MadeBy.REPLY,
            Verdict.TERMINAL,
            Reason.DRIVER_MALFORMED_REPLY,
            id="a reply that can't be used -> final",
        ),
    ],
)
def test_a_status_that_the_driver_never_sent_is_not_looked_up(
    made_by: MadeBy, verdict: Verdict, reason: Reason, code: Code, profile: str
) -> None:
    overrides = tuple(Override(code, Verdict.SUCCESS) for code in Code if code is not Code.OK)
    policy = policy_for("s3.example.com", profile, overrides)
    for call in Call:
        judgement = classify(policy, DriverStatus(call, code, made_by))
        assert judgement.verdict is verdict
        assert judgement.reason is reason
        assert judgement.effect is Effect.MAYBE


@pytest.mark.parametrize(
    ("overrides", "call", "expected"),
    [
        pytest.param(
            ["UNKNOWN=requeue"],
            Call.CREATE_BUCKET,
            Verdict.REQUEUE,
            id="an override of a code -> for every call",
        ),
        pytest.param(
            ["*:UNKNOWN=requeue"],
            Call.GRANT_ACCESS,
            Verdict.REQUEUE,
            id="an override of * -> for every call",
        ),
        pytest.param(
            ["DriverGrantBucketAccess:UNKNOWN=requeue"],
            Call.GRANT_ACCESS,
            Verdict.REQUEUE,
            id="an override of a call -> for that call",
        ),
        pytest.param(
            ["DriverGrantBucketAccess:UNKNOWN=requeue"],
            Call.REVOKE_ACCESS,
            Verdict.TERMINAL,
            id="an override of a call -> not for another call",
        ),
        pytest.param(
            ["ceph.example.com/UNKNOWN=requeue"],
            Call.CREATE_BUCKET,
            Verdict.REQUEUE,
            id="an override of a driver -> for that driver",
        ),
        pytest.param(
            ["CEPH.Example.com/UNKNOWN=requeue"],
            Call.CREATE_BUCKET,
            Verdict.REQUEUE,
            id="an override of a driver in other letters -> for that driver",
        ),
        pytest.param(
            ["other.example.com/UNKNOWN=requeue"],
            Call.CREATE_BUCKET,
            Verdict.TERMINAL,
            id="an override of a driver -> not for another driver",
        ),
        pytest.param(
            ["UNKNOWN=requeue", "UNKNOWN=success"],
            Call.CREATE_BUCKET,
            Verdict.SUCCESS,
            id="two overrides match -> the last takes precedence",
        ),
        pytest.param(
            ["ceph.example.com/UNKNOWN=requeue", "UNKNOWN=success"],
            Call.CREATE_BUCKET,
            Verdict.REQUEUE,
            id="an override with the driver and a later one without -> the one with the driver",
        ),
        pytest.param(
            ["ceph.example.com/DriverCreateBucket:UNKNOWN=success", "UNKNOWN=requeue"],
            Call.DELETE_BUCKET,
            Verdict.REQUEUE,
            id="an override for another call -> ignored",
        ),
    ],
)
def test_overrides_by_code_by_call_and_by_driver(
    overrides: list[str], call: Call, expected: Verdict
) -> None:
    parsed = [parse_override(text) for text in overrides]
    policy = policy_for("ceph.example.com", overrides=parsed)
    assert policy.verdict(call, Code.UNKNOWN) is expected


def test_an_override_takes_precedence_over_a_profile_and_over_a_success_of_the_table() -> None:
    overrides = [
        parse_override("UNAVAILABLE=terminal"),
        parse_override("DriverDeleteBucket:NOT_FOUND=terminal"),
    ]
    policy = policy_for("ceph.example.com", "csi-like", overrides)
    assert policy.verdict(Call.CREATE_BUCKET, Code.UNAVAILABLE) is Verdict.TERMINAL
    assert policy.verdict(Call.DELETE_BUCKET, Code.NOT_FOUND) is Verdict.TERMINAL
    assert policy.verdict(Call.REVOKE_ACCESS, Code.NOT_FOUND) is Verdict.SUCCESS


def test_an_override_changes_the_verdict_but_not_what_may_be_left_behind() -> None:
    policy = Policy(overrides=(Override(Code.UNKNOWN, Verdict.TERMINAL),))
    assert classify(policy, sent(Call.CREATE_BUCKET, Code.UNKNOWN)).effect is Effect.MAYBE


def test_ok_is_a_success_with_any_override() -> None:
    policy = Policy(overrides=(Override(Code.OK, Verdict.TERMINAL),))
    assert policy.verdict(Call.CREATE_BUCKET, Code.OK) is Verdict.SUCCESS


@pytest.mark.parametrize(
    ("text", "override"),
    [
        pytest.param("UNKNOWN=requeue", Override(Code.UNKNOWN, Verdict.REQUEUE), id="code"),
        pytest.param(
            "drivercreatebucket:unknown=REQUEUE",
            Override(Code.UNKNOWN, Verdict.REQUEUE, Call.CREATE_BUCKET),
            id="any case",
        ),
        pytest.param(
            "  a.b / * : Internal = Terminal ",
            Override(Code.INTERNAL, Verdict.TERMINAL, None, "a.b"),
            id="spaces around the words",
        ),
        pytest.param(
            "/UNKNOWN=requeue", Override(Code.UNKNOWN, Verdict.REQUEUE), id="an empty driver is any"
        ),
        pytest.param(
            "Vendor.example.com/DriverRevokeBucketAccess:FAILED_PRECONDITION=success",
            Override(
                Code.FAILED_PRECONDITION, Verdict.SUCCESS, Call.REVOKE_ACCESS, "Vendor.example.com"
            ),
            id="all four words",
        ),
    ],
)
def test_an_override_is_parsed(text: str, override: Override) -> None:
    assert parse_override(text) == override


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(
            "UNKNWON=requeue",
            ["'UNKNWON'", "did you mean UNKNOWN?", "INVALID_ARGUMENT", "UNAUTHENTICATED"],
            id="an unknown code -> refused",
        ),
        pytest.param("OK=terminal", ["'OK'", "INTERNAL"], id="an override of OK -> refused"),
        pytest.param(
            "UNKNOWN=retry",
            ["'retry'", "requeue, terminal, success"],
            id="an unknown verdict -> refused",
        ),
        pytest.param(
            "CreateBucket:UNKNOWN=requeue",
            ["'CreateBucket'", "did you mean DriverCreateBucket?", "DriverRevokeBucketAccess"],
            id="an unknown call -> refused",
        ),
        pytest.param(
            "UNKNOWN", ["'UNKNOWN'", "[driver/][Call:]CODE=verdict"], id="no equals sign -> refused"
        ),
        pytest.param("", ["''", "[driver/][Call:]CODE=verdict"], id="an empty text -> refused"),
        pytest.param("=requeue", ["''", "INTERNAL"], id="no code -> refused"),
        pytest.param("UNKNOWN=", ["''", "requeue, terminal, success"], id="no verdict -> refused"),
    ],
)
def test_a_bad_override_names_the_bad_word_and_the_allowed_ones(
    text: str, words: list[str]
) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_override(text)
    for word in words:
        assert word in str(caught.value)


def test_an_unknown_profile_names_the_allowed_ones() -> None:
    with pytest.raises(PolicyError) as caught:
        policy_for("ceph.example.com", "conservativ")
    assert "'conservativ'" in str(caught.value)
    assert "did you mean conservative?" in str(caught.value)
    assert "conservative, cosi-spec, csi-like" in str(caught.value)


WORDS = st.sampled_from(
    [
        "UNKNOWN",
        "OK",
        "DriverCreateBucket",
        "*",
        ":",
        "/",
        "=",
        " ",
        "requeue",
        "a.example.com",
        "İ",
    ]
)


@given(st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=8).map("".join)))
def test_any_text_is_parsed_or_refused_with_a_policy_error(text: str) -> None:
    try:
        override = parse_override(text)
    except PolicyError:
        return
    assert override.code is not Code.OK
    assert override.driver != ""
