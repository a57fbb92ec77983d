"""What the API server refuses is said on the object, and asked for again; not the first 403."""

from typing import cast

import pytest
from tests.support.clock import FakeClock

from cosi_operator.api.view import Key
from cosi_operator.kube.errors import ApiSilent, Conflict, Forbidden, Invalid
from cosi_operator.outcome import Outcome, Reason, Requeue, Terminal
from cosi_operator.refusals import RECHECK_S, Refusals
from cosi_operator.report import Reporter

KEY = Key("team", "photos")
DENIED = (
    'buckets is forbidden: User "system:serviceaccount:cosi:controller" cannot create resource'
    ' "buckets" in API group "objectstorage.k8s.io" at the cluster scope'
)
RIGHT = Forbidden(403, "Forbidden", f"create buckets: {DENIED}")
OTHER_RIGHT = Forbidden(403, "Forbidden", RIGHT.message.replace("create", "delete"))
QUOTA = Forbidden(403, "Forbidden", "create secrets team: exceeded quota: one")
INVALID = Invalid(422, "Invalid", "create buckets: spec.x: too long")


def refusals(clock: FakeClock) -> Refusals:
    return Refusals(cast("Reporter", None), clock)  # `outcome` alone reports nothing


def pauses(found: Outcome) -> float | None:
    return found.after_s if isinstance(found, Requeue) else found.recheck_s


def test_the_first_403_is_quiet_and_the_next_is_reported_until_the_right_is_granted() -> None:
    clock = FakeClock()
    refused = refusals(clock)
    first = refused.outcome(KEY, RIGHT)
    assert isinstance(first, Requeue)
    assert first.quiet
    seen = [first.after_s]
    for _ in range(8):
        clock.advance(seen[-1] or 0)
        again = refused.outcome(KEY, RIGHT)
        assert isinstance(again, Terminal)
        assert again.reason is Reason.MISSING_PERMISSION
        seen.append(again.recheck_s)
    assert seen == [1.0, 2.0, 4.0, 8.0, 16.0, RECHECK_S, RECHECK_S, RECHECK_S, RECHECK_S]


def test_the_message_names_verb_resource_role_and_who_can_grant_it() -> None:
    refused = refusals(FakeClock())
    refused.outcome(KEY, RIGHT)
    said = refused.outcome(KEY, RIGHT)
    assert isinstance(said, Terminal)
    assert said.message == (
        "The operator lacks a permission: the ClusterRole bound to ServiceAccount cosi/controller"
        ' lacks the verb "create" on buckets.objectstorage.k8s.io in the whole cluster. Ask your'
        " cluster administrator to grant this permission. The request is repeated every 30 s."
    )


def test_a_quota_refusal_is_quoted_and_is_not_a_missing_right() -> None:
    refused = refusals(FakeClock())
    refused.outcome(KEY, QUOTA)
    said = refused.outcome(KEY, QUOTA)
    assert isinstance(said, Terminal)
    assert said.reason is Reason.API_REFUSED
    assert "exceeded quota: one" in said.message


def test_an_invalid_request_is_reported_immediately_and_retried_every_30_s() -> None:
    said = refusals(FakeClock()).outcome(KEY, INVALID)
    assert said == Terminal(
        Reason.API_REFUSED,
        "The API server refused the request: create buckets: spec.x: too long The request is"
        " repeated every 30 s.",
        recheck_s=RECHECK_S,
    )


@pytest.mark.parametrize("between", ["another right", "time", "another object"])
def test_the_count_begins_anew(between: str) -> None:
    clock = FakeClock()
    refused = refusals(clock)
    for _ in range(4):
        refused.outcome(KEY, RIGHT)
    key, error = KEY, RIGHT
    if between == "another right":
        error = OTHER_RIGHT
    elif between == "time":
        clock.advance(2 * RECHECK_S + 1)
    else:
        key = Key("team", "other")
    assert pauses(refused.outcome(key, error)) == 1.0


@pytest.mark.parametrize("error", [Conflict(409, "Conflict", "x"), ApiSilent("x")])
def test_other_failures_are_not_refusals(error: Conflict | ApiSilent) -> None:
    found = refusals(FakeClock()).outcome(KEY, error)
    assert isinstance(found, Requeue)
    assert found.quiet
