"""Policies end to end: profiles, overrides, a file and the environment decide what is retried.

A sidecar is started for each setting, in one testbed; what is retried has to become ready by
itself. The default profile, conservative, is proven by test_failures_matrix.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.integration.cases import (
    calls_of,
    misbehave,
    plural_of,
    prepare,
    subject,
    until_nothing_is_left,
    until_told,
)

from cosi_operator.outcome import Call
from testbed import Testbed, condition, reasons

CREATE, GRANT = Call.CREATE_BUCKET, Call.GRANT_ACCESS
NOTHING_MADE = (GRANT, "DriverUnimplemented")
FILE = "policy.yaml"

POLICY_FILE = """
profile: cosi-spec
overrides: [INTERNAL=requeue]
drivers:
  Mock.Objectstorage.k8s.io:
    profile: csi-like
    overrides: [DriverCreateBucket:INTERNAL=terminal]
  other.example.com:
    overrides: [UNAVAILABLE=terminal]
"""


@dataclass(frozen=True, slots=True)
class Setting:
    """How the sidecar is told, and which calls and codes it then retries, or does not."""

    sentence: str
    retried: tuple[tuple[Call, str], ...] = ()
    final: tuple[tuple[Call, str], ...] = ()
    flags: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


SETTINGS = [
    Setting(
        "cosi-spec: UNAVAILABLE and nearly all else is retried, INVALID_ARGUMENT is not",
        flags=("--retry-policy=cosi-spec",),
        retried=((CREATE, "UNAVAILABLE"), (GRANT, "UNAVAILABLE"), (CREATE, "DATA_LOSS")),
        final=((CREATE, "INVALID_ARGUMENT"), (GRANT, "UNIMPLEMENTED")),
    ),
    Setting(
        "csi-like: UNAVAILABLE and what may still be running is retried, UNKNOWN is not",
        flags=("--retry-policy=csi-like",),
        retried=((CREATE, "UNAVAILABLE"), (GRANT, "UNAVAILABLE"), (GRANT, "ABORTED")),
        final=((CREATE, "UNKNOWN"), (GRANT, "DATA_LOSS")),
    ),
    Setting(
        "overrides: of one call, of this driver, and none of another driver's",
        flags=(
            "--retry-override=DriverGrantBucketAccess:UNKNOWN=requeue",
            "--retry-override=MOCK.objectstorage.k8s.io/*:aborted=Requeue",
            "--retry-override=other.example.com/DATA_LOSS=requeue",
            "--retry-override=INTERNAL=terminal",
        ),
        retried=((GRANT, "UNKNOWN"), (CREATE, "ABORTED"), (GRANT, "ABORTED")),
        final=((CREATE, "UNKNOWN"), (CREATE, "DATA_LOSS"), (CREATE, "INTERNAL")),
    ),
    Setting(
        "a file: its section of this driver goes before the rest of it",
        flags=(f"--retry-policy-file={FILE}",),
        retried=((CREATE, "UNAVAILABLE"), (GRANT, "INTERNAL")),
        final=((CREATE, "INTERNAL"), (CREATE, "DATA_LOSS")),
    ),
    Setting(
        "the environment: profile and overrides",
        environment={
            "COSI_RETRY_POLICY": "csi-like",
            "COSI_RETRY_OVERRIDES": "DATA_LOSS=requeue,DriverCreateBucket:ABORTED=terminal",
        },
        retried=((CREATE, "UNAVAILABLE"), (CREATE, "DATA_LOSS"), (GRANT, "ABORTED")),
        final=((CREATE, "ABORTED"), (CREATE, "UNKNOWN")),
    ),
]


@pytest.fixture(scope="module")
def own_bed() -> Iterator[Testbed]:
    with (
        tempfile.TemporaryDirectory(prefix="cosi-") as directory,
        Testbed.start(Path(directory)) as bed,
    ):
        (Path(directory) / FILE).write_text(POLICY_FILE)  # processes run in that folder
        yield bed
        assert bed.forbidden() == []


@pytest.mark.parametrize("setting", [pytest.param(s, id=s.sentence) for s in SETTINGS])
def test_a_setting_decides_what_is_tried_again(
    own_bed: Testbed, name: str, setting: Setting
) -> None:
    bed = own_bed
    bed.driver.clear_rules()
    bed.processes["sidecar"].stop(grace_s=10)
    bed.start_process("sidecar", *setting.flags, environment=setting.environment)
    bed.until_leading("sidecar")

    cases = {}
    for number, (call, code) in enumerate((*setting.retried, *setting.final)):
        cases[f"{name}-{number}"] = (call, f"Driver{_camel(code)}")
        misbehave(bed, f"{name}-{number}", call, code=code, message="not now")
    prepare(bed, {case: call for case, (call, _) in cases.items()})
    until_told(bed, cases)
    retried, final = list(cases)[: len(setting.retried)], list(cases)[len(setting.retried) :]
    bed.until(
        "a second attempt of all that is retried",
        lambda: all(len(calls_of(bed, case, cases[case][0])) > 1 for case in retried),
    )
    for case, (call, _) in cases.items():
        kind = "Reconciling" if case in retried else "Stalled"
        assert set(reasons(subject(bed, case, call))) == {"Ready", kind}, cases[case]
    assert [len(calls_of(bed, case, cases[case][0])) for case in final] == [1] * len(final)

    bed.driver.clear_rules()
    for case in retried:
        bed.until_ready(plural_of(cases[case][0]), [case])
    bed.delete_all("bucketclaims", cases)
    for case in final:
        if cases[case] == NOTHING_MADE:  # it holds nothing, so it does not go with its claim
            bed.until_reason("bucketaccesses", case, "BucketClaimNotFound")
            assert "finalizers" not in bed.get("bucketaccesses", case)["metadata"]
            bed.delete("bucketaccesses", case)
    until_nothing_is_left(bed, cases)


def _camel(code: str) -> str:
    return "".join(word.capitalize() for word in code.split("_"))


@pytest.mark.parametrize(
    ("flags", "environment", "words"),
    [
        pytest.param(
            ["--retry-policy=csi"],
            {},
            "--retry-policy: unknown profile 'csi'",
            id="no such profile",
        ),
        pytest.param(
            ["--retry-override=UNKNWN=requeue"], {}, "did you mean UNKNOWN?", id="no such code"
        ),
        pytest.param(
            [], {"COSI_RETRY_OVERRIDES": "UNKNOWN=again"}, "COSI_RETRY_OVERRIDES", id="no verdict"
        ),
        pytest.param(
            ["--retry-policy-file=bad.yaml"], {}, "bad.yaml:3: overrides[0]: ", id="a bad file"
        ),
        pytest.param(
            ["--retry-policy-file=none.yaml"],
            {},
            "none.yaml can't be read: No such",
            id="no such file",
        ),
    ],
)
def test_a_setting_that_is_wrong_ends_the_start_with_a_sentence(
    own_bed: Testbed, flags: list[str], environment: dict[str, str], words: str
) -> None:
    bed = own_bed
    (bed.directory / "bad.yaml").write_text("profile: csi-like\noverrides:\n- INTRNAL=requeue\n")
    bed.processes["sidecar"].stop(grace_s=10)
    before = len(bed.log_of("sidecar"))
    process = bed.start_process("sidecar", *flags, environment=environment)
    bed.until("the sidecar to end", lambda: not process.is_running)
    log = bed.log_of("sidecar")[before:]
    assert words in log
    assert "Traceback" not in log
    bed.restart("sidecar")


def test_a_repaired_class_makes_a_refused_claim_ready(bed: Testbed, name: str) -> None:
    bed.make_classes(name, parameters={"case": name, "tier": "goald"})
    bed.driver.set_rule(
        CREATE,
        match={"parameters.case": name, "parameters.tier": "goald"},
        code="INVALID_ARGUMENT",
        message="no such tier",
    )
    bed.make_claims([name], class_name=name)
    told = bed.until_reason("bucketclaims", name, "DriverInvalidArgument")
    ask = f"ask your cluster administrator to correct that parameter in BucketClass {name}."
    assert ask in told["message"]
    bed.edit(
        "bucketclasses", name, lambda body: body.update(parameters={"case": name, "tier": "gold"})
    )
    bed.until_ready("bucketclaims", [name])
    claim = bed.get("bucketclaims", name)
    assert reasons(claim) == {"Ready": "Provisioned"}
    assert [e.fields["parameters.tier"] for e in calls_of(bed, name)] == ["goald", "gold"]
    events = [e["reason"] for e in bed.events(name) if e["type"] == "Warning"]
    assert events == ["FailedCreateBucket"]


def test_internal_three_times_and_then_ok_is_ready_after_four_calls(
    bed: Testbed, name: str
) -> None:
    misbehave(bed, name, CREATE, code="INTERNAL", message="backend is down", times=3)
    prepare(bed, {name: CREATE})
    bed.until_ready("bucketclaims", [name])
    calls = calls_of(bed, name)
    assert [e.code for e in calls] == ["INTERNAL"] * 3 + ["OK"]
    assert calls[3].time_s - calls[0].time_s >= 0.8 * (1 + 2 + 4)
    assert condition(bed.get("bucketclaims", name), "Reconciling") == {}
