"""`cosi policy`: the table in force and the explanation of one status, without a cluster."""

import json
from pathlib import Path

import pytest

from cosi_operator.classify import CONSERVATIVE, PROFILES, Policy, PolicyError, Verdict
from cosi_operator.cli.arguments import parse
from cosi_operator.cli.policy import explain, policy_decision, policy_decisions, show
from cosi_operator.cli.policy_command import run_policy
from cosi_operator.cli.printed import CommandError, Printed
from cosi_operator.cli.words import CALLS
from cosi_operator.outcome import Call, Code
from cosi_operator.policy_file import resolve_policy
from cosi_operator.settings import LaneScope


def cosi(*words: str) -> Printed:
    return run_policy(parse(words, "cosi"))


@pytest.mark.parametrize("profile", PROFILES)
def test_the_table_has_a_verdict_for_every_code_and_call(profile: str) -> None:
    policy = Policy(profile)
    assert {(r.call, r.code): r.verdict for r in policy_decisions(policy)} == {
        (call, code): policy.verdict(call, code) for call in CALLS for code in CONSERVATIVE
    }
    lines = {
        line.split()[0]: line.split()
        for line in show(policy, "", LaneScope.DRIVER).splitlines()
        if line
    }
    for code, row in CONSERVATIVE.items():
        cells = [str(policy.verdict(call, code)) for call in CALLS]
        assert lines[code.name] == [code.name, *cells, row.reason]


@pytest.mark.parametrize(
    ("overrides", "call", "code", "rule"),
    [
        pytest.param([], Call.GRANT_ACCESS, Code.UNKNOWN, "profile csi-like", id="the profile"),
        pytest.param(
            [], Call.DELETE_BUCKET, Code.NOT_FOUND, "every profile, for DriverDeleteBucket",
            id="a call at which the code means something else",
        ),
        pytest.param(
            ["UNKNOWN=requeue", "d/DriverGrantBucketAccess:UNKNOWN=terminal"],
            Call.GRANT_ACCESS, Code.UNKNOWN,
            "override d/DriverGrantBucketAccess:UNKNOWN=terminal",
            id="the override that wins",
        ),
        pytest.param(
            ["UNKNOWN=requeue", "d/DriverGrantBucketAccess:UNKNOWN=terminal"],
            Call.CREATE_BUCKET, Code.UNKNOWN, "override UNKNOWN=requeue",
            id="the override that fits this call",
        ),
    ],
)  # fmt: skip
def test_a_ruling_names_the_rule_that_gave_it(
    overrides: list[str], call: Call, code: Code, rule: str
) -> None:
    policy = resolve_policy("d", profile="csi-like", overrides=overrides)
    ruled = policy_decision(policy, call, code)
    assert (ruled.rule, ruled.verdict) == (rule, policy.verdict(call, code))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        pytest.param(
            Code.INTERNAL, ["requeue", "Retried automatically", "DriverInternal", "may still"],
            id="a fault that is tried again",
        ),
        pytest.param(
            Code.INVALID_ARGUMENT, ["terminal", "cosi retry", "nothing has to be cleaned up"],
            id="a refusal that is final",
        ),
        pytest.param(Code.ALREADY_EXISTS, ["success", "Counts as done"], id="a goal reached"),
    ],
)  # fmt: skip
def test_an_explanation_says_what_happens_and_why(code: Code, words: list[str]) -> None:
    text = explain(policy_decision(Policy(), Call.CREATE_BUCKET, code))
    flat = " ".join(text.split())
    assert [w for w in [*words, CONSERVATIVE[code].why] if w not in flat] == []
    assert max(map(len, text.splitlines())) <= 100


def test_show_stars_what_an_override_changed() -> None:
    text = cosi("policy", "show", "--override", "UNKNOWN=requeue").out
    line = next(line for line in text.splitlines() if line.startswith("UNKNOWN "))
    assert line.split()[1:5] == ["requeue*"] * 4
    assert "\n  UNKNOWN=requeue\n" in text


def test_show_reads_a_policy_file_for_one_driver(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("drivers: {slow: {profile: csi-like, overrides: [INTERNAL=terminal]}}")
    words = ("policy", "show", "--file", str(file), "-o", "json")
    slow = json.loads(cosi(*words, "--driver", "slow").out)
    assert (slow["profile"], slow["overrides"]) == ("csi-like", ["INTERNAL=terminal"])
    assert {v["verdict"] for v in slow["verdicts"] if v["code"] == "INTERNAL"} == {Verdict.TERMINAL}
    assert json.loads(cosi(*words, "--driver", "other").out)["profile"] == "conservative"


def test_explain_speaks_json_with_the_codes_name() -> None:
    words = ("--call", "drivercreatebucket", "--code", "unavailable", "-o", "json")
    told = json.loads(cosi("policy", "explain", *words).out)
    assert (told["call"], told["code"], told["verdict"]) == (
        "DriverCreateBucket",
        "UNAVAILABLE",
        "terminal",
    )


def test_a_bad_word_is_answered_with_the_allowed_ones() -> None:
    with pytest.raises(PolicyError, match="did you mean cosi-spec"):
        cosi("policy", "show", "--profile", "cosi-spek")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"nothing\.yaml"):
        cosi("policy", "show", "--file", str(tmp_path / "nothing.yaml"))


@pytest.mark.parametrize(
    ("driver", "scope", "words"),
    [
        pytest.param("", "driver", "one at a time (", id="the default"),
        pytest.param("a.example.com", "none", "all at once (", id="the file's for this driver"),
    ],
)
def test_show_names_the_calls_that_run_one_at_a_time(
    tmp_path: Path, driver: str, scope: str, words: str
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("drivers: {a.example.com: {serializeAccessCalls: none}}")
    asked = ("policy", "show", "--file", str(file), "--driver", driver)
    assert f"Grant and Revoke calls run {words}serializeAccessCalls: {scope})." in cosi(*asked).out
    assert json.loads(cosi(*asked, "-o", "json").out)["serializeAccessCalls"] == scope


def test_a_policy_file_that_does_not_exist_names_the_place_and_where_a_sidecar_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CommandError) as raised:
        cosi("policy", "show", "--file", "policy.yaml")
    assert f"--file policy.yaml: {tmp_path}/policy.yaml does not exist" in str(raised.value)
    assert "--retry-policy-file" in str(raised.value)
    assert "COSI_RETRY_POLICY_FILE" in str(raised.value)
