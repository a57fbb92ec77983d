"""Every error code of every driver call, on a real API server with a real driver process.

All 64 cases live in one testbed at once, so that the matrix costs seconds; each test then judges
what was seen of its own case. What is expected is written out here, not read from `classify`.
"""

import itertools
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from cosi_operator.outcome import Call, Code
from mockdriver.journal import Entry
from testbed import Testbed, access_body, condition, reasons

SETTLE_S, CLEAN_S = 40.0, 40.0
BASE_S = 0.8  # the first wait of the backoff, with all of its jitter

CALLS = {
    Call.CREATE_BUCKET: "create",
    Call.DELETE_BUCKET: "delete",
    Call.GRANT_ACCESS: "grant",
    Call.REVOKE_ACCESS: "revoke",
}
REASONS = {
    Code.CANCELLED: "DriverCancelled",
    Code.UNKNOWN: "DriverUnknown",
    Code.INVALID_ARGUMENT: "DriverInvalidArgument",
    Code.DEADLINE_EXCEEDED: "DriverSentDeadlineExceeded",
    Code.NOT_FOUND: "DriverNotFound",
    Code.ALREADY_EXISTS: "DriverAlreadyExists",
    Code.PERMISSION_DENIED: "DriverPermissionDenied",
    Code.RESOURCE_EXHAUSTED: "DriverResourceExhausted",
    Code.FAILED_PRECONDITION: "DriverFailedPrecondition",
    Code.ABORTED: "DriverAborted",
    Code.OUT_OF_RANGE: "DriverOutOfRange",
    Code.UNIMPLEMENTED: "DriverUnimplemented",
    Code.INTERNAL: "DriverInternal",
    Code.UNAVAILABLE: "DriverUnavailable",
    Code.DATA_LOSS: "DriverDataLoss",
    Code.UNAUTHENTICATED: "DriverUnauthenticated",
}
# After these the backend may hold something, so a deletion asks the driver again before it goes on.
AMBIGUOUS = {
    Code.CANCELLED, Code.UNKNOWN, Code.DEADLINE_EXCEEDED, Code.ABORTED, Code.INTERNAL,
    Code.UNAVAILABLE, Code.DATA_LOSS,
}  # fmt: skip
GOALS = {  # the answer says that what was asked for is so already
    (Call.CREATE_BUCKET, Code.ALREADY_EXISTS),
    (Call.DELETE_BUCKET, Code.NOT_FOUND),
    (Call.REVOKE_ACCESS, Code.NOT_FOUND),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One cell of the matrix."""

    call: Call
    code: Code

    @property
    def name(self) -> str:
        return f"m-{CALLS[self.call]}-{self.code.name.lower().replace('_', '-')}"

    @property
    def is_goal(self) -> bool:
        return (self.call, self.code) in GOALS

    @property
    def is_retried(self) -> bool:
        return self.code is Code.INTERNAL

    @property
    def is_deletion(self) -> bool:
        return self.call in (Call.DELETE_BUCKET, Call.REVOKE_ACCESS)

    @property
    def is_about_access(self) -> bool:
        return self.call in (Call.GRANT_ACCESS, Call.REVOKE_ACCESS)

    @property
    def is_refused_grant(self) -> bool:
        """Nothing was made, so the access holds nothing and is not deleted with its claim."""
        harmless = self.code not in AMBIGUOUS and self.code is not Code.ALREADY_EXISTS
        return self.call is Call.GRANT_ACCESS and harmless

    @property
    def reason(self) -> str:
        if (self.call, self.code) == (Call.GRANT_ACCESS, Code.ALREADY_EXISTS):
            return "DriverReturnedNoCredentials"  # the account is there, its keys are not
        return REASONS[self.code]

    @property
    def sentence(self) -> str:
        end = "final"
        if self.is_goal:
            end = "what was wanted"
        elif self.is_retried:
            end = "tried again, slower each time"
        return f"{self.call} answers {self.code.name}: {end}"


CASES = [Case(call, code) for call in CALLS for code in REASONS]
EVERY = [pytest.param(case, id=case.sentence) for case in CASES]
FAILURES = [pytest.param(case, id=case.sentence) for case in CASES if not case.is_goal]


@dataclass(slots=True)
class Seen:
    """What was seen of one case: while the driver refused, and of the clearing up afterwards."""

    calls: list[Entry] = field(default_factory=list)  # of the case's call, while it refused
    subject: dict[str, Any] | None = None  # the Bucket or BucketAccess
    claim: dict[str, Any] | None = None
    events: list[dict[str, Any]] = field(default_factory=list)  # Warnings about the subject
    claim_events: list[dict[str, Any]] = field(default_factory=list)
    later: Counter[str] = field(default_factory=Counter)  # calls of the clearing up
    outlives_claim: list[str] = field(default_factory=list)
    without_claim: dict[str, Any] | None = None  # the BucketAccess, when its claim was gone
    left: list[str] = field(default_factory=list)


class Matrix:
    """All cases in one testbed. `run` takes them through their lives and records."""

    def __init__(self, bed: Testbed) -> None:
        self._bed = bed
        self._buckets: dict[str, str] = {}  # by the case's name
        self._uids: dict[str, str] = {}  # of the accesses
        self.seen = {case: Seen() for case in CASES}

    def run(self) -> None:
        self._make()
        self._wait(self._is_settled, SETTLE_S)
        self._record()
        mark = self._last_entry()
        self._bed.driver.clear_rules()
        self._clear_up()
        self._wait(self._is_cleared, CLEAN_S)
        things = self._things()
        for case, seen in self.seen.items():
            seen.outlives_claim = self._left(case, things)
            seen.without_claim = things["bucketaccesses"].get(case.name)
        kept = [seen.without_claim for seen in self.seen.values() if seen.without_claim]
        self._bed.delete_all("bucketaccesses", [body["metadata"]["name"] for body in kept])
        self._wait(lambda case, things: not self._left(case, things), CLEAN_S)
        things = self._things()
        for case, seen in self.seen.items():
            seen.left = self._left(case, things)
            seen.later = Counter(
                CALLS[entry.call]
                for entry in self._entries(case)
                if entry.number > mark and entry.call in CALLS
            )

    def _make(self) -> None:
        bed = self._bed
        for case in CASES:
            bed.make_classes(case.name, parameters={"case": case.name})
            fields = {
                Call.DELETE_BUCKET: "delete_context.case",
                Call.REVOKE_ACCESS: "revoke_access_context.case",
            }
            bed.driver.set_rule(
                case.call,
                match={fields.get(case.call, "parameters.case"): case.name},
                code=case.code.name,
                message=f"{case.name} is refused (request id: {{request_id}})",
                act=case.is_goal and case.is_deletion,  # NOT_FOUND: then it is not there
            )
        for case in CASES:
            bed.make_claims([case.name], class_name=case.name)
        bodies = [
            access_body(case.name, class_name=case.name) for case in CASES if case.is_about_access
        ]
        bed.create_all("bucketaccesses", bodies)
        ready = [case.name for case in CASES if case.call is not Call.CREATE_BUCKET]
        bed.until_ready("bucketclaims", ready)
        revoked = [case.name for case in CASES if case.call is Call.REVOKE_ACCESS]
        bed.until_ready("bucketaccesses", revoked)
        bed.until("all Buckets to be there", lambda: len(self._things()["buckets"]) == len(CASES))
        things = self._things()
        self._buckets = {name: b["metadata"]["name"] for name, b in things["buckets"].items()}
        self._uids = {name: a["metadata"]["uid"] for name, a in things["bucketaccesses"].items()}
        bed.delete_all("bucketclaims", [c.name for c in CASES if c.call is Call.DELETE_BUCKET])
        bed.delete_all("bucketaccesses", revoked)

    def _clear_up(self) -> None:
        """As a person would: delete what failed, ask again for a deletion that failed."""
        bed = self._bed
        final = [case for case in CASES if not case.is_goal and not case.is_retried]
        for case in final:
            if case.is_deletion:
                plural = "bucketaccesses" if case.is_about_access else "bucketclaims"
                bed.annotate(plural, case.name, retry="1")
        # An access that failed goes with its claim, unless its Grant made nothing.
        claims = [case.name for case in CASES if case.call is not Call.DELETE_BUCKET]
        bed.delete_all("bucketclaims", claims)

    def _wait(
        self, is_done: Callable[[Case, dict[str, dict[str, Any]]], bool], timeout_s: float
    ) -> None:
        """Until all cases are done, or the time is up: then the tests of the others will tell."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            things = self._things()
            if all(is_done(case, things) for case in CASES):
                return
            time.sleep(0.2)
        for role, process in self._bed.processes.items():  # shown with the tests that will fail
            print(f"--- {role}: running: {process.is_running}\n{self._bed.log_of(role)[-4000:]}")

    def _is_settled(self, case: Case, things: dict[str, dict[str, Any]]) -> bool:
        kind = "bucketaccesses" if case.is_about_access else "buckets"
        if case.is_goal and case.is_deletion:
            return case.name not in things[kind]
        if case.is_goal:
            return bool(things["bucketclaims"][case.name].get("status", {}).get("bucketReady"))
        told = condition(things[kind].get(case.name)).get("reason") == case.reason
        if case.call in (Call.CREATE_BUCKET, Call.DELETE_BUCKET):
            claim = things["bucketclaims"].get(case.name)
            told = told and condition(claim).get("reason") == case.reason
        return told and (not case.is_retried or len(self._entries(case, case.call)) >= 3)

    def _is_cleared(self, case: Case, things: dict[str, dict[str, Any]]) -> bool:
        if not case.is_refused_grant:
            return not self._left(case, things)
        told = condition(things["bucketaccesses"].get(case.name)).get("reason")
        return told == "BucketClaimNotFound" and len(self._left(case, things)) == 1

    def _record(self) -> None:
        things = self._things()
        events = [*self._bed.all_of("events"), *self._bed.all_of("events", "default")]
        for case, seen in self.seen.items():
            kind = "bucketaccesses" if case.is_about_access else "buckets"
            seen.calls = self._entries(case, case.call)
            seen.subject = things[kind].get(case.name)
            seen.claim = things["bucketclaims"].get(case.name)
            name = case.name if case.is_about_access else self._buckets[case.name]
            about = "BucketAccess" if case.is_about_access else "Bucket"
            seen.events = [e for e in events if _warns(e, about, name)]
            seen.claim_events = [e for e in events if _warns(e, "BucketClaim", case.name)]

    def _things(self) -> dict[str, dict[str, Any]]:
        """Our objects by kind and case; Buckets by the name of their claim."""
        found: dict[str, dict[str, Any]] = {
            kind: {item["metadata"]["name"]: item for item in self._bed.all_of(kind)}
            for kind in ("bucketclaims", "bucketaccesses", "secrets")
        }
        found["buckets"] = {
            item["spec"]["bucketClaim"]["name"]: item
            for item in self._bed.all_of("buckets")
            if item["spec"]["bucketClaim"].get("name", "").startswith("m-")
        }
        found["backend"] = {bucket.name: bucket for bucket in self._bed.driver.buckets()}
        found["accounts"] = {account.name: account for account in self._bed.driver.accounts()}
        return found

    def _left(self, case: Case, things: dict[str, dict[str, Any]]) -> list[str]:
        named = {
            "bucketclaims": case.name,
            "bucketaccesses": case.name,
            "buckets": case.name,
            "secrets": f"{case.name}-keys",
            "backend": self._buckets[case.name],
            "accounts": f"ba-{self._uids.get(case.name)}",
        }
        return [f"{kind} {name}" for kind, name in named.items() if name in things[kind]]

    def _entries(self, case: Case, call: Call | None = None) -> list[Entry]:
        return [e for e in self._bed.driver.journal(call) if case.name in e.fields.values()]

    def _last_entry(self) -> int:
        return self._bed.driver.journal()[-1].number


def _warns(event: dict[str, Any], kind: str, name: str) -> bool:
    about = event["involvedObject"]
    return (event["type"], about["kind"], about["name"]) == ("Warning", kind, name)


@pytest.fixture(scope="module")
def matrix(shared_bed: Testbed) -> dict[Case, Seen]:
    """What was seen of every case; made once."""
    mark = shared_bed.plane.audit.mark()
    shared_bed.driver.clear_rules()
    cases = Matrix(shared_bed)
    cases.run()
    assert shared_bed.forbidden(since=mark) == []
    return cases.seen


@pytest.mark.timeout(200)  # the first one makes the matrix
@pytest.mark.parametrize("case", EVERY)
def test_the_driver_is_asked_once_unless_the_answer_is_worth_another_try(
    matrix: dict[Case, Seen], case: Case
) -> None:
    calls = matrix[case].calls
    assert {entry.code for entry in calls} == {case.code.name}
    if not case.is_retried:
        assert len(calls) == 1
        return
    assert len(calls) >= 3
    gaps = [b.time_s - a.time_s for a, b in itertools.pairwise(calls)]
    assert all(gap >= BASE_S * 2**n for n, gap in enumerate(gaps)), gaps


@pytest.mark.parametrize("case", EVERY)
def test_the_conditions_say_what_became_of_it(matrix: dict[Case, Seen], case: Case) -> None:
    seen = matrix[case]
    if case.is_goal:
        if case.is_deletion:
            assert seen.subject is None
        else:
            assert reasons(seen.subject) == reasons(seen.claim) == {"Ready": "Provisioned"}
        return
    shown = {"Ready": case.reason, "Reconciling" if case.is_retried else "Stalled": case.reason}
    assert reasons(seen.subject) == shown
    assert seen.subject is not None
    generation = seen.subject["metadata"]["generation"]
    for told in seen.subject["status"]["conditions"]:
        assert told["observedGeneration"] == generation
        assert told["status"] == ("False" if told["type"] == "Ready" else "True")
    if case.is_about_access:
        assert reasons(seen.claim) == {"Ready": "Provisioned"}  # the claim itself is well
    else:
        assert reasons(seen.claim) == shown  # a tenant may not read Buckets


@pytest.mark.parametrize("case", FAILURES)
def test_the_message_has_the_code_the_words_of_the_driver_and_what_to_do(
    matrix: dict[Case, Seen], case: Case
) -> None:
    seen = matrix[case]
    told = condition(seen.subject if case.is_about_access else seen.claim)["message"]
    assert case.call in told
    assert f"the driver answered {case.code.name}" in told
    if case.reason != "DriverReturnedNoCredentials":
        assert f"{case.name} is refused (request id: <id>)" in told
    if case.is_retried:
        assert re.search(
            r"Attempt \d+ failed at \d{4}-\S+Z\. The operator retries automatically, at least", told
        )
        return
    kind = "bucketaccess" if case.is_about_access else "bucketclaim"
    assert (
        f"kubectl annotate --overwrite {kind} {case.name} -n team objectstorage.k8s.io/retry=1"
        in told
    )
    assert "The call is repeated every 10 minutes." in told or not case.is_deletion
    assert "The call is not repeated until" in told or case.is_deletion


@pytest.mark.parametrize("case", EVERY)
def test_one_warning_tells_it_where_the_user_looks(matrix: dict[Case, Seen], case: Case) -> None:
    seen = matrix[case]
    told = [*seen.events, *seen.claim_events]
    if case.is_goal:
        assert told == []
        return
    reason = {
        Call.CREATE_BUCKET: "FailedCreateBucket",
        Call.DELETE_BUCKET: "FailedDeleteBucket",
        Call.GRANT_ACCESS: "FailedGrantAccess",
        Call.REVOKE_ACCESS: "FailedRevokeAccess",
    }[case.call]
    assert [event["reason"] for event in seen.events] == [reason]
    expected = [] if case.is_about_access else [reason]
    assert [event["reason"] for event in seen.claim_events] == expected
    for event in told:
        assert event["message"].startswith(f"{case.reason}: {case.call}")
        kind = event["involvedObject"]["kind"]
        assert event["metadata"]["namespace"] == ("default" if kind == "Bucket" else "team")


def _clearing_up(case: Case) -> set[str]:
    """The calls that a deletion needs after the failure."""
    resolving = case.code in AMBIGUOUS
    match case.call:
        case Call.CREATE_BUCKET if case.is_goal:
            calls = ["delete"]
        case Call.CREATE_BUCKET:
            calls = ["create", "delete"] if resolving else []
        case Call.DELETE_BUCKET:
            calls = [] if case.is_goal else ["delete"]
        case Call.GRANT_ACCESS if case.code is Code.ALREADY_EXISTS:
            calls = ["revoke", "delete"]
        case Call.GRANT_ACCESS:
            calls = ["grant", "revoke", "delete"] if resolving else ["delete"]
        case _:
            calls = ["delete"] if case.is_goal else ["revoke", "delete"]
    return set(calls)


@pytest.mark.parametrize("case", EVERY)
def test_only_an_access_for_which_nothing_was_made_outlives_its_claim_and_says_that_it_is_gone(
    matrix: dict[Case, Seen], case: Case
) -> None:
    seen = matrix[case]
    if not case.is_refused_grant:
        assert seen.outlives_claim == []
        return
    assert seen.outlives_claim == [f"bucketaccesses {case.name}"]
    assert seen.without_claim is not None
    assert "finalizers" not in seen.without_claim["metadata"]
    assert reasons(seen.without_claim) == {
        "Ready": "BucketClaimNotFound", "Reconciling": "BucketClaimNotFound",
    }  # fmt: skip


@pytest.mark.parametrize("case", EVERY)
def test_all_of_it_can_be_deleted_and_nothing_is_left(matrix: dict[Case, Seen], case: Case) -> None:
    assert matrix[case].left == []
    # Each call at least once and no other: a write conflict after a call repeats the call.
    assert set(matrix[case].later) == _clearing_up(case)
