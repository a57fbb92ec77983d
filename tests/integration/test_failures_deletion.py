"""What failed can be deleted, also while the driver goes on failing; it says why while it waits."""

import pytest
from tests.integration.cases import (
    calls_of,
    misbehave,
    plural_of,
    prepare,
    until_nothing_is_left,
    until_told,
)

from cosi_operator.outcome import Call
from testbed import Testbed, condition, reasons

CREATE, GRANT, REVOKE = Call.CREATE_BUCKET, Call.GRANT_ACCESS, Call.REVOKE_ACCESS


def test_an_access_that_cannot_be_revoked_holds_its_claim_up_and_the_claim_says_which_and_why(
    bed: Testbed, name: str
) -> None:
    misbehave(bed, name, REVOKE, code="PERMISSION_DENIED", message="no right to remove users")
    prepare(bed, {name: GRANT})
    bed.until_ready("bucketaccesses", [name])
    bed.delete("bucketclaims", name)
    told = bed.until_reason("bucketclaims", name, "WaitingForBucketAccesses")
    bed.until(
        "the claim to say why",
        lambda: f"team/{name} (DriverPermissionDenied)" in _said(bed, name),
    )
    assert "kubectl describe bucketaccess" in told["message"]
    assert set(reasons(bed.get("bucketclaims", name))) == {"Ready", "Reconciling"}
    access = bed.get("bucketaccesses", name)
    assert reasons(access) == dict.fromkeys(["Ready", "Stalled"], "DriverPermissionDenied")
    assert "no right to remove users" in condition(access)["message"]
    assert calls_of(bed, name, Call.DELETE_BUCKET) == []  # not before its accesses are revoked

    bed.driver.clear_rules()  # the driver was given the right
    bed.annotate("bucketaccesses", name, retry="1")
    until_nothing_is_left(bed, [name])


def _said(bed: Testbed, name: str) -> str:
    return str(condition(bed.find("bucketclaims", name)).get("message", ""))


@pytest.mark.parametrize(
    ("call", "code", "tries"),
    [
        pytest.param(CREATE, "INVALID_ARGUMENT", 0, id="a create that was refused: no call at all"),
        pytest.param(GRANT, "INVALID_ARGUMENT", 0, id="a grant that was refused: no call at all"),
        pytest.param(CREATE, "UNKNOWN", 1, id="a create with an unclear end: asked once more"),
        pytest.param(GRANT, "UNKNOWN", 1, id="a grant with an unclear end: asked once more"),
    ],
)
def test_a_driver_that_goes_on_failing_does_not_keep_what_failed_for_ever(
    bed: Testbed, name: str, call: Call, code: str, tries: int
) -> None:
    misbehave(bed, name, call, code=code, message="still failing")
    prepare(bed, {name: call})
    until_told(bed, {name: (call, f"Driver{code.title().replace('_', '')}")})
    known = len(calls_of(bed, name, call))
    bed.delete("bucketclaims", name)
    if (call, tries) == (GRANT, 0):  # it holds nothing, so it does not go with its claim
        told = bed.until_reason("bucketaccesses", name, "BucketClaimNotFound")
        assert told["status"] == "False"
        assert "finalizers" not in bed.get("bucketaccesses", name)["metadata"]
        bed.delete("bucketaccesses", name)
    until_nothing_is_left(bed, [name])
    asked = len(calls_of(bed, name, call)) - known
    assert tries <= asked <= tries + 1  # one may have been under way
    if tries > 0:  # only what may be left on the backend is worth a warning
        warning = bed.until_event(name, "BackendUnverified")
        assert "was deleted, but an earlier, failed call may have left" in warning
        assert warning.endswith(" on the backend.")
    else:
        bed.until_quiet()
        assert "BackendUnverified" not in {event["reason"] for event in bed.events(name)}


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(CREATE, id="a create with an unclear end"),
        pytest.param(GRANT, id="a grant with an unclear end"),
    ],
)
def test_a_deletion_asks_a_driver_that_may_answer_later_until_it_does_and_leaves_nothing(
    bed: Testbed, name: str, call: Call
) -> None:
    misbehave(bed, name, call, code="INTERNAL", message="still failing")
    prepare(bed, {name: call})
    until_told(bed, {name: (call, "DriverInternal")})
    known = len(calls_of(bed, name, call))
    bed.delete("bucketclaims", name)
    bed.until(
        "more attempts than it once had before it was let go",
        lambda: len(calls_of(bed, name, call)) >= known + 5,
    )
    assert bed.get(plural_of(call), name)["metadata"]["deletionTimestamp"]
    bed.driver.clear_rules()
    until_nothing_is_left(bed, [name])
    assert [e for e in bed.events(name) if e["reason"] == "BackendUnverified"] == []
