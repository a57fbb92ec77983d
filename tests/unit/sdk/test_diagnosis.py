"""From records to the chain of `cosi why` and the tables, without a server."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from cosi_operator.api.view import (
    Bucket,
    BucketAccess,
    BucketAccessClass,
    BucketClaim,
    BucketClass,
    ClaimRef,
    Condition,
    LastCall,
    Meta,
)
from cosi_operator.cli.render import driver_rows, drivers, not_ready, status, why
from cosi_operator.cli.text import age, clean, table
from cosi_operator.outcome import Effect
from cosi_operator.sdk.diagnosis import (
    AccessFacts,
    Facts,
    Link,
    SecretFound,
    State,
    Unseen,
    chain,
    state_of,
    verdict,
)

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
LAST = LastCall(
    "DriverCreateBucket", "INVALID_ARGUMENT", "driver", "Terminal", Effect.NONE,
    "DriverInvalidArgument", 1, 1, "i", "", "2026-01-01T11:00:00Z",
)  # fmt: skip


def conditions(reason: str, message: str, *kinds: str) -> tuple[Condition, ...]:
    """Ready=False and the given types, as the operator writes them."""
    at = "2026-01-01T11:00:00Z"
    return (
        Condition("Ready", "False", reason, message, 1, at),
        *(Condition(kind, "True", reason, message, 1, at) for kind in kinds),
    )


READY = (Condition("Ready", "True", "Provisioned", "", 1, "2026-01-01T11:00:00Z"),)
STALLED = conditions("DriverInvalidArgument", "The region is unknown.", "Stalled")
RETRYING = conditions("DriverInternal", "Attempt 3 failed", "Reconciling")
WAITING = conditions("WaitingForBucket", "The bucket is not ready.", "Reconciling")

CLASS = BucketClass(Meta("fast"), driver_name="d.example.com")
ACCESS_CLASS = BucketAccessClass(Meta("keys"), driver_name="d.example.com")
CLAIM = BucketClaim(
    Meta("c", "ns", "u1"), class_name="fast", bucket_name="bucket-u1", ready=True, conditions=READY
)
BUCKET = Bucket(
    Meta("bucket-u1"),
    driver_name="d.example.com",
    class_name="fast",
    claim=ClaimRef("ns", "c", "u1"),
    bucket_id="b",
    ready=True,
    conditions=READY,
)
ACCESS = BucketAccess(
    Meta("a", "ns", "u2"),
    class_name="keys",
    claim_name="c",
    secret_name="s",
    account_id="x",
    granted=True,
    conditions=READY,
)
NEW_CLAIM = BucketClaim(Meta("c", "ns", "u1"), class_name="fast")
BAD_CLAIM = replace(CLAIM, ready=False, conditions=STALLED)
BAD_BUCKET = replace(BUCKET, ready=False, conditions=STALLED, last_call=LAST)
NEW_ACCESS = replace(ACCESS, account_id="", granted=False, conditions=())
GONE = Unseen("you have no right to read it")


def facts(**changed: Any) -> Facts:
    access = AccessFacts(
        changed.pop("access", ACCESS),
        changed.pop("access_class", ACCESS_CLASS),
        changed.pop("secret", SecretFound()),
    )
    whole: dict[str, Any] = {
        "claim": CLAIM, "claim_name": "ns/c", "bucket_class": CLASS, "bucket": BUCKET,
        "accesses": [access],
    }  # fmt: skip
    return Facts(**{**whole, **changed})


@pytest.mark.parametrize(
    ("changed", "causes"),
    [
        pytest.param({}, [], id="nothing is marked when all is ready"),
        pytest.param(
            {"claim": BAD_CLAIM, "bucket": BAD_BUCKET, "access": NEW_ACCESS, "secret": None},
            ["Bucket bucket-u1"],
            id="the Bucket is marked, not the claim that repeats it nor the access that waits",
        ),
        pytest.param(
            {"claim": BAD_CLAIM, "bucket": GONE, "bucket_class": GONE, "access": NEW_ACCESS,
             "secret": None},
            ["BucketClaim ns/c"],
            id="a tenant who may not see the Bucket is shown the claim, which says the same",
        ),
        pytest.param(
            {"claim": NEW_CLAIM, "bucket_class": None, "bucket": None},
            ["BucketClass fast"],
            id="a class that is not there comes first",
        ),
        pytest.param(
            {"claim": NEW_CLAIM, "bucket": None, "accesses": []},
            ["BucketClaim ns/c"],
            id="a claim that nobody has looked at yet",
        ),
        pytest.param(
            {"bucket": None},
            ["Bucket bucket-u1"],
            id="a Bucket that has vanished",
        ),
        pytest.param(
            {"claim": None, "bucket": None, "bucket_class": None, "access": NEW_ACCESS,
             "secret": None},
            ["BucketClaim ns/c"],
            id="an access that names a claim which is not there",
        ),
        pytest.param(
            {"access": replace(NEW_ACCESS, conditions=RETRYING), "secret": None},
            ["BucketAccess ns/a"],
            id="the access is marked when the claim is ready",
        ),
        pytest.param(
            {"claim": BAD_CLAIM, "bucket": BAD_BUCKET, "access": NEW_ACCESS,
             "access_class": None, "secret": None},
            ["Bucket bucket-u1", "BucketAccessClass keys"],
            id="an access with a fault of its own is marked beside the claim's",
        ),
        pytest.param({"secret": None}, ["Secret ns/s"], id="a Secret removed by hand"),
        pytest.param(
            {"secret": SecretFound(deleting=True)}, ["Secret ns/s"],
            id="a Secret deleted by hand that its finalizer keeps",
        ),
        pytest.param({"secret": GONE}, [], id="a Secret that may not be read is no fault"),
    ],
)  # fmt: skip
def test_the_link_that_the_others_wait_for_is_marked(
    changed: Mapping[str, Any], causes: list[str]
) -> None:
    links = chain(facts(**changed))
    assert [f"{link.kind} {link.name}" for link in links if link.is_cause] == causes
    text = why(links, "BucketClaim ns/c")
    assert text.count("<== this") == len(causes)
    assert all(cause in verdict(links) for cause in causes)


def test_the_chain_runs_from_the_class_to_the_secret() -> None:
    assert [link.kind for link in chain(facts())] == [
        "BucketClass", "BucketClaim", "Bucket", "BucketAccessClass", "BucketAccess", "Secret",
    ]  # fmt: skip


def test_a_final_failure_shows_the_drivers_status_what_happens_and_what_to_do() -> None:
    text = why(chain(facts(claim=BAD_CLAIM, bucket=BAD_BUCKET)), "BucketClaim ns/c")
    flat = " ".join(text.split())
    for words in (
        "not ready, because of Bucket bucket-u1",
        "The region is unknown.",
        "DriverCreateBucket -> INVALID_ARGUMENT, attempt 1",
        "nothing until the spec, the class, the driver or the retry annotation changes",
        "ask your cluster administrator to correct that parameter in BucketClass fast",
        "cosi retry c -n ns",
    ):
        assert words in flat


def test_the_command_to_run_stands_on_one_line_however_long_the_names_are() -> None:
    name = "a-claim-with-a-name-that-is-longer-than-half-of-a-line-of-a-terminal"
    claim = replace(BAD_CLAIM, meta=Meta(name, "a-namespace-that-is-nearly-as-long"))
    text = why(chain(facts(claim=claim, bucket=Unseen("no right"))), "x")
    assert f"      then run   cosi retry {name} -n a-namespace-that-is-nearly-as-long\n" in text


def access_failed(reason: str, message: str) -> Link:
    failed = replace(NEW_ACCESS, conditions=conditions(reason, message, "Stalled"))
    return next(link for link in chain(facts(access=failed)) if link.kind == "BucketAccess")


@pytest.mark.parametrize(
    ("reason", "message", "then", "command"),
    [
        pytest.param(
            "SecretNotOwned", "Delete that Secret (checked again every 30 s).",
            "looked at again automatically, as often as the message says",
            "cosi retry bucketaccess/a -n ns", id="SecretNotOwned -> looked at again",
        ),
        pytest.param(
            "MissingPermission", "The request is repeated every 30 s.",
            "looked at again automatically, as often as the message says",
            "cosi retry bucketaccess/a -n ns", id="MissingPermission -> looked at again",
        ),
        pytest.param(
            "InvalidSpec", "Set it in a new BucketAccess.",
            "nothing until what the message names has changed",
            "", id="InvalidSpec -> a retry would change nothing",
        ),
        pytest.param(
            "DriverMismatch", "Use a BucketAccessClass of that driver.",
            "nothing until what the message names has changed",
            "", id="DriverMismatch -> the driver was not called",
        ),
        pytest.param(
            "DriverUnknown", "It failed. The call is repeated every 10 minutes.",
            "looked at again automatically, as often as the message says",
            "cosi retry bucketaccess/a -n ns", id="a final failure with a recheck",
        ),
    ],
)  # fmt: skip
def test_what_happens_next_never_contradicts_the_condition(
    reason: str, message: str, then: str, command: str
) -> None:
    link = access_failed(reason, message)
    assert (link.then, link.advice, link.command) == (then, "", command)


def test_a_tenant_is_told_to_ask_for_what_only_an_administrator_can_do() -> None:
    refused = access_failed("DriverInvalidArgument", "No such policy.")
    assert refused.advice.endswith(
        "ask your cluster administrator to correct that parameter in BucketAccessClass keys."
    )
    missing = chain(facts(claim=NEW_CLAIM, bucket_class=None, bucket=None, access_class=None))
    assert [link.advice for link in missing if link.state is State.MISSING] == [
        "Name another BucketClass in a new BucketClaim, or ask your cluster administrator to"
        " create this one.",
        "Name another BucketAccessClass in a new BucketAccess, or ask your cluster administrator"
        " to create this one.",
    ]


def test_a_deletion_that_was_refused_says_what_to_do_and_to_run() -> None:
    stuck = replace(
        BAD_CLAIM,
        meta=Meta("c", "ns", deleting=True),
        conditions=conditions("DriverFailedPrecondition", "Not empty.", "Stalled"),
    )
    text = why(chain(facts(claim=stuck, bucket=Unseen("no right"))), "x")
    assert "empty the bucket" in " ".join(text.split())
    assert "      then run   cosi retry c -n ns\n" in text


def test_a_status_that_the_driver_did_not_send_says_who_made_it() -> None:
    last = replace(LAST, made_by="deadline", code="DEADLINE_EXCEEDED", outcome="Requeue")
    bucket = replace(BUCKET, ready=False, conditions=RETRYING, last_call=last)
    text = why(chain(facts(bucket=bucket)), "x")
    assert "DEADLINE_EXCEEDED (made by: deadline, not the driver)" in " ".join(text.split())
    assert "retried automatically" in text


@pytest.mark.parametrize(
    ("view", "state"),
    [
        pytest.param(CLAIM, State.READY, id="ready"),
        pytest.param(
            replace(CLAIM, conditions=()), State.READY, id="ready without conditions (upstream)"
        ),
        pytest.param(BAD_BUCKET, State.FAILED, id="stalled"),
        pytest.param(
            replace(BUCKET, ready=False, conditions=RETRYING), State.RETRYING, id="retrying"
        ),
        pytest.param(replace(CLAIM, ready=False, conditions=WAITING), State.WAITING, id="waiting"),
        pytest.param(NEW_CLAIM, State.WAITING, id="nobody has written anything"),
        pytest.param(
            replace(CLAIM, meta=Meta("c", "ns", deleting=True)), State.DELETING, id="deleting"
        ),
        pytest.param(
            replace(BUCKET, conditions=STALLED), State.FAILED, id="was ready, and fails since"
        ),
    ],
)
def test_the_state_that_an_object_tells(view: BucketClaim | Bucket, state: State) -> None:
    assert state_of(view) is state


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        pytest.param(
            {"claim": NEW_CLAIM, "bucket": None},
            ("Bucket", State.NOT_YET, ""),
            id="a claim without a Bucket -> none yet",
        ),
        pytest.param(
            {"claim": GONE},
            ("BucketClaim", State.UNSEEN, "you have no right to read it"),
            id="a claim that may not be read -> says so",
        ),
        pytest.param(
            {"secret": GONE},
            ("Secret", State.UNSEEN, "you have no right to read it"),
            id="a Secret that may not be read -> says so",
        ),
        pytest.param(
            {"access": NEW_ACCESS, "secret": SecretFound()},
            ("Secret", State.NOT_YET, "A Secret of this name exists already."),
            id="a Secret before the access is granted -> somebody else's",
        ),
        pytest.param(
            {"secret": None},
            ("Secret", State.MISSING, "The access was granted, but its Secret is gone."),
            id="a granted access without its Secret -> missing",
        ),
    ],
)
def test_what_one_link_says(changed: dict[str, Any], expected: tuple[str, State, str]) -> None:
    found = [(link.kind, link.state, link.message) for link in chain(facts(**changed))]
    assert expected in found


def test_a_chain_of_which_a_part_may_not_be_seen_is_judged_by_the_rest() -> None:
    assert verdict(chain(facts(secret=GONE))) == "everything that you may see is ready"


def test_drivers_says_when_there_is_none() -> None:
    assert drivers([], NOW) == "No class and no Bucket names a driver.\n"


def test_status_lists_only_what_is_not_ready_and_sums_up() -> None:
    rows = not_ready([CLAIM, BAD_BUCKET, NEW_ACCESS])
    text = status(rows, 3, "in all namespaces", NOW)
    header, bucket, access, _, summary = text.splitlines()
    assert header.split()[:5] == ["NAMESPACE", "KIND", "NAME", "STATE", "REASON"]
    assert bucket.split()[:7] == [
        "-", "Bucket", "bucket-u1", "failed", "DriverInvalidArgument", "1h", "DriverCreateBucket",
    ]  # fmt: skip
    assert access.split()[:4] == ["ns", "BucketAccess", "a", "waiting"]
    assert summary.startswith("2 of 3 objects in all namespaces are not ready, 1 of them")
    assert bucket.index("failed") == access.index("waiting") == header.index("STATE")


def test_status_says_when_there_is_nothing_to_say() -> None:
    assert status([], 2, "in namespace ns", NOW) == "All 2 objects in namespace ns are ready.\n"
    assert status([], 0, "in namespace ns", NOW).startswith("No BucketClaims")


def test_drivers_are_counted_whatever_the_case_of_their_name() -> None:
    other = replace(BAD_BUCKET, driver_name="D.example.com")
    rows = driver_rows([CLASS], [ACCESS_CLASS], [BUCKET, other], None, NOW)
    (row,) = rows
    assert (row.driver, row.buckets, row.ready, row.failed) == ("d.example.com", 2, 1, 1)
    assert drivers(rows, NOW).splitlines()[1].split() == [
        "d.example.com", "not", "visible", "-", "-", "-", "2", "1", "0", "1", "fast", "keys",
    ]  # fmt: skip


def test_a_tenants_text_can_not_drive_the_terminal() -> None:
    evil = "\x1b[2J\x1b]0;owned\x07 ok\r\nnext\u202e\x9b1m"
    assert clean(evil) == r"\x1b[2J\x1b]0;owned\x07 ok next\u202e\x9b1m"
    claim = replace(BAD_CLAIM, conditions=conditions("X\x1b[1m", evil, "Stalled"))
    texts = [
        why(chain(facts(claim=claim, bucket=GONE)), "x"),
        status(not_ready([claim]), 1, "here", NOW),
        table(["A"], [[evil]]),
        why([Link("Secret", evil, State.READY)], "x"),
    ]
    assert all(c.isprintable() or c == "\n" for text in texts for c in text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0s"), (59, "59s"), (61, "1m"), (7200, "2h"), (180000, "2d")]
)
def test_ages_are_written_as_kubectl_does(seconds: float, text: str) -> None:
    assert age(seconds) == text
