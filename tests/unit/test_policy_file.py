"""A policy file and the flags give one table for one driver, or an error that can be acted on."""

import json
from collections.abc import Sequence

import pytest

from cosi_operator.classify import CONSERVATIVE, PROFILES, Policy, PolicyError, Verdict
from cosi_operator.outcome import Call, Code
from cosi_operator.policy_file import (
    PolicyFile,
    parse_policy_file,
    resolve_lane_scope,
    resolve_policy,
)
from cosi_operator.settings import LaneScope

CEPH = "ceph.objectstorage.k8s.io"

FILE = """\
profile: csi-like
overrides:
  - DriverGrantBucketAccess:UNKNOWN=requeue
  - 'ceph.objectstorage.k8s.io/*:INTERNAL=terminal'
drivers:
  Slow.example.com:
    profile: cosi-spec
    overrides: [UNAVAILABLE=terminal, 'INTERNAL=requeue']
  empty.example.com:
"""


def resolved(
    driver: str, text: str = FILE, *, profile: str | None = None, overrides: Sequence[str] = ()
) -> Policy:
    return resolve_policy(
        driver, profile=profile, overrides=overrides, file_text=text, file_name="policy.yaml"
    )


def test_without_file_and_flags_the_default_table_is_in_force() -> None:
    assert resolve_policy("any.example.com") == Policy()


@pytest.mark.parametrize(
    ("driver", "call", "code", "verdict"),
    [
        pytest.param(
            "other.example.com", Call.CREATE_BUCKET, Code.ABORTED, Verdict.REQUEUE,
            id="a driver that the file does not name -> the file's profile",
        ),
        pytest.param(
            "other.example.com", Call.GRANT_ACCESS, Code.UNKNOWN, Verdict.REQUEUE,
            id="an override without a driver -> for every driver",
        ),
        pytest.param(
            "other.example.com", Call.CREATE_BUCKET, Code.UNKNOWN, Verdict.TERMINAL,
            id="an override of one call -> the other calls stay",
        ),
        pytest.param(
            CEPH, Call.DELETE_BUCKET, Code.INTERNAL, Verdict.TERMINAL,
            id="an override that names the driver -> used",
        ),
        pytest.param(
            "other.example.com", Call.DELETE_BUCKET, Code.INTERNAL, Verdict.REQUEUE,
            id="an override that names another driver -> ignored",
        ),
        pytest.param(
            "slow.EXAMPLE.com", Call.CREATE_BUCKET, Code.NOT_FOUND, Verdict.REQUEUE,
            id="a driver's own profile, its name in other letters -> overrides the file's",
        ),
        pytest.param(
            "slow.example.com", Call.CREATE_BUCKET, Code.UNAVAILABLE, Verdict.TERMINAL,
            id="a driver's own overrides -> used",
        ),
        pytest.param(
            "empty.example.com", Call.CREATE_BUCKET, Code.ABORTED, Verdict.REQUEUE,
            id="a driver with nothing after its name -> the file's profile and overrides",
        ),
    ],
)  # fmt: skip
def test_what_a_file_puts_in_force(driver: str, call: Call, code: Code, verdict: Verdict) -> None:
    assert resolved(driver).verdict(call, code) is verdict


def test_the_profile_of_the_flag_beats_that_of_the_file() -> None:
    assert resolved("slow.example.com", profile="conservative").profile == "conservative"


def test_an_override_of_the_flag_beats_one_of_the_file_even_if_only_that_names_the_driver() -> None:
    policy = resolved(CEPH, overrides=["INTERNAL=requeue"])
    assert policy.verdict(Call.CREATE_BUCKET, Code.INTERNAL) is Verdict.REQUEUE


def test_overrides_add_up_over_the_sources() -> None:
    policy = resolved(CEPH, overrides=["DATA_LOSS=requeue"])
    assert policy.verdict(Call.GRANT_ACCESS, Code.UNKNOWN) is Verdict.REQUEUE
    assert policy.verdict(Call.GRANT_ACCESS, Code.DATA_LOSS) is Verdict.REQUEUE
    assert policy.verdict(Call.GRANT_ACCESS, Code.INTERNAL) is Verdict.TERMINAL


def test_within_one_source_the_override_that_names_the_driver_beats_a_later_general_one() -> None:
    policy = resolve_policy("d", overrides=["d/INTERNAL=terminal", "INTERNAL=requeue"])
    assert policy.verdict(Call.CREATE_BUCKET, Code.INTERNAL) is Verdict.TERMINAL


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="an empty file"),
        pytest.param("# nothing yet\n", id="a file of comments"),
        pytest.param("profile:\noverrides:\ndrivers:\n", id="fields with nothing after them"),
        pytest.param('{"overrides": null, "drivers": {}}', id="JSON with null and nothing"),
    ],
)
def test_an_empty_file_has_no_effect(text: str) -> None:
    assert parse_policy_file(text, "policy.yaml") == PolicyFile()


@pytest.mark.parametrize("indent", [None, 2, "\t"], ids=["in one line", "with blanks", "with tabs"])
def test_json_means_the_same_as_yaml(indent: int | str | None) -> None:
    tree = {
        "profile": "csi-like",
        "overrides": [
            "DriverGrantBucketAccess:UNKNOWN=requeue",
            "ceph.objectstorage.k8s.io/*:INTERNAL=terminal",
        ],
        "drivers": {
            "Slow.example.com": {
                "profile": "cosi-spec",
                "overrides": ["UNAVAILABLE=terminal", "INTERNAL=requeue"],
            },
            "empty.example.com": None,
        },
    }
    text = json.dumps(tree, indent=indent)
    assert parse_policy_file(text, "policy.json") == parse_policy_file(FILE, "policy.yaml")


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        pytest.param(
            "profile: csi-lik", "policy.yaml:1: profile: ",
            ["unknown profile 'csi-lik'", "did you mean csi-like?", *PROFILES],
            id="an unknown profile -> the allowed profiles",
        ),
        pytest.param(
            "\noverides: []", "policy.yaml:2: ",
            ["unknown field 'overides'", "mean overrides?", "serializeAccessCalls, drivers"],
            id="an unknown field -> the allowed fields",
        ),
        pytest.param(
            "overrides:\n- INTERNAL=requeue\n- Internl=requeue", "policy.yaml:3: overrides[1]: ",
            ["unknown code 'Internl'", "INTERNAL", "UNAVAILABLE"],
            id="an unknown code -> its line and index in the list",
        ),
        pytest.param(
            "drivers: {d: {overrides: [INTERNAL=retry]}}",
            "policy.yaml:1: drivers.d.overrides[0]: ",
            ["unknown verdict 'retry'", "requeue, terminal, success"],
            id="an override of a driver -> its full path",
        ),
        pytest.param(
            "overrides: ['Grant:INTERNAL=requeue']", "policy.yaml:1: overrides[0]: ",
            ["unknown call 'Grant'", *Call],
            id="an unknown call -> the allowed calls",
        ),
        pytest.param(
            "overrides: [no]", "policy.yaml:1: overrides[0]: ", ["'no'", "CODE=verdict"],
            id="a word that YAML takes for a boolean stays a word",
        ),
        pytest.param(
            "overrides: INTERNAL=requeue", "policy.yaml:1: overrides: ", ["expected a list"],
            id="a single override that is not a list",
        ),
        pytest.param(
            "profile: [csi-like]", "policy.yaml:1: profile: ", ["expected one word"],
            id="a list for a word",
        ),
        pytest.param(
            "serializeAccessCalls: always", "policy.yaml:1: serializeAccessCalls: ",
            ["unknown scope 'always'", "driver, bucket, none"],
            id="an unknown scope -> the allowed scopes",
        ),
        pytest.param("- INTERNAL=requeue", "policy.yaml:1: ", ["expected fields"], id="no mapping"),
        pytest.param(
            "profile: csi-like\nprofile: cosi-spec", "policy.yaml:2: ", ["'profile'", "twice"],
            id="a field given twice is not decided by its order",
        ),
        pytest.param(
            "drivers: {A.b: {}, a.B: {}}", "policy.yaml:1: drivers.a.B: ", ["twice"],
            id="a driver given twice in other letters",
        ),
        pytest.param(
            "drivers: {a: {overrides: [b/INTERNAL=terminal]}}", "policy.yaml:1: drivers.a: ",
            ["another driver, 'b'"],
            id="an override in the section of another driver",
        ),
        pytest.param(
            "overrides:\n- *:INTERNAL=terminal", "policy.yaml:2: ", ["YAML", "in quotes"],
            id="an unquoted star",
        ),
        pytest.param("a: 1\n---\nb: 1", "policy.yaml:2: ", ["another document"], id="two files"),
        pytest.param("profile: \x01", "policy.yaml: ", ["character"], id="a control character"),
    ],
)  # fmt: skip
def test_an_error_names_file_line_field_word_and_what_is_allowed(
    text: str, place: str, words: list[str]
) -> None:
    with pytest.raises(PolicyError) as caught:
        resolved("a-driver-the-file-does-not-name", text)
    assert str(caught.value).startswith(place)
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("profile", "override", "words"),
    [
        pytest.param("fast", "INTERNAL=requeue", ["'fast'", *PROFILES], id="profile"),
        pytest.param(
            "csi-like",
            "INTERNL=requeue",
            ["retry override 'INTERNL=requeue'", "did you mean INTERNAL?"],
            id="override",
        ),
    ],
)
def test_a_bad_flag_is_named(profile: str, override: str, words: list[str]) -> None:
    with pytest.raises(PolicyError) as caught:
        resolved("d", profile=profile, overrides=[override])
    assert [word for word in words if word not in str(caught.value)] == []


def test_no_code_lacks_a_verdict_in_any_profile() -> None:
    verdicts = {
        resolve_policy("d", profile=profile).verdict(call, code)
        for profile in PROFILES
        for call in Call
        for code in CONSERVATIVE
    }
    assert verdicts == set(Verdict)


SCOPES = """
serializeAccessCalls: Bucket
drivers:
  own.example.com: {serializeAccessCalls: none}
  silent.example.com: {serializeAccessCalls: }
"""


@pytest.mark.parametrize(
    ("driver", "text", "given", "scope"),
    [
        pytest.param("any.example.com", None, None, LaneScope.DRIVER, id="nothing -> driver"),
        pytest.param("any.example.com", "profile: csi-like", None, LaneScope.DRIVER,
                     id="a file that does not say -> driver"),
        pytest.param("any.example.com", SCOPES, None, LaneScope.BUCKET, id="the file's"),
        pytest.param("Own.example.com", SCOPES, None, LaneScope.NONE, id="the driver's"),
        pytest.param("silent.example.com", SCOPES, None, LaneScope.BUCKET,
                     id="empty for the driver -> the file's"),
        pytest.param("own.example.com", SCOPES, LaneScope.DRIVER, LaneScope.DRIVER,
                     id="the flag -> over the file"),
    ],
)  # fmt: skip
def test_the_scope_comes_from_the_flag_the_file_or_the_default(
    driver: str, text: str | None, given: LaneScope | None, scope: LaneScope
) -> None:
    assert resolve_lane_scope(driver, given=given, file_text=text) is scope
