"""What an outcome looks like to a person: words without ids, and conditions that stand still."""

import unicodedata
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cosi_operator import conditions, scrub
from cosi_operator.api.view import Bucket, BucketClaim, Condition, Meta
from cosi_operator.outcome import (
    Call,
    Code,
    DriverStatus,
    MadeBy,
    Outcome,
    Reason,
    Requeue,
    Success,
    Terminal,
)

NOW = datetime(2026, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
STAMP = "2026-05-06T07:08:09Z"
BEFORE = "2026-01-01T00:00:00Z"
SUCCESS = (Reason.PROVISIONED, "The bucket is ready.")
REFUSED = DriverStatus(
    Call.CREATE_BUCKET, Code.PERMISSION_DENIED, MadeBy.DRIVER, "not allowed (request id: 4F2A)"
)

# The same fault twice, as one driver tells it at two tries, and the text that both become.
SAME_FAULT = [
    pytest.param(
        "operation error S3: CreateBucket, https response error StatusCode: 403, RequestID:"
        " 17C9A1B2C3D4E5F6, HostID: dGhpcyBpcyBhIGhvc3QgaWQgdGhhdCBpcyBsb25n/12=, api error"
        " AccessDenied: Access Denied.",
        "operation error S3: CreateBucket, https response error StatusCode: 403, RequestID:"
        " 17C9FFFFFFFFFFF0, HostID: b3RoZXIgaG9zdCBpZCB0aGF0IGlzIGxvbmcgdG9v+99=, api error"
        " AccessDenied: Access Denied.",
        "operation error S3: CreateBucket, https response error StatusCode: 403, RequestID:"
        " <id>, HostID: <id>, api error AccessDenied: Access Denied.",
        id="S3, SDK for Go: request and host id",
    ),
    pytest.param(
        "AccessDenied: Access Denied\n\tstatus code: 403, request id: 9XB3V1J0Q5W7ZK2M, host id: ",
        "AccessDenied: Access Denied\n\tstatus code: 403, request id: 0AB3V1J0Q5W7ZK2X, host id: ",
        "AccessDenied: Access Denied status code: 403, request id: <id>, host id:",
        id="S3, older SDK: a line break and an empty host id",
    ),
    pytest.param(
        "<Error><Code>QuotaExceeded</Code><BucketName>logs</BucketName><RequestId>"
        "tx00000d1e4c9b2a7f3e5a1-0065f1c2d3-14e6-default</RequestId><HostId>14e6-default-zone"
        "</HostId></Error>",
        "<Error><Code>QuotaExceeded</Code><BucketName>logs</BucketName><RequestId>"
        "tx00000aaaaaaaaaaaaaaaa-0065ffffff-14e6-default</RequestId><HostId>14e6-default-zone"
        "</HostId></Error>",
        "<Error><Code>QuotaExceeded</Code><BucketName>logs</BucketName><RequestId>"
        "<id></RequestId><HostId><id></HostId></Error>",
        id="Ceph: a transaction id in XML",
    ),
    pytest.param(
        "UserAlreadyExists tx00000d1e4c9b2a7f3e5a1-0065f1c2d3-14e6-default 14e6-default-default",
        "UserAlreadyExists tx00000aaaaaaaaaaaaaaaa-0065ffffff-14e6-default 14e6-default-default",
        "UserAlreadyExists <id> 14e6-default-default",
        id="Ceph: a transaction id without a label",
    ),
    pytest.param(
        "This request is not authorized to perform this operation.\nRequestId:"
        "2f8e9b5f-401e-0042-1a2b-3c4d5e000000\nTime:2026-05-06T07:08:09.1234567Z",
        "This request is not authorized to perform this operation.\nRequestId:"
        "aaaaaaaa-401e-0042-1a2b-3c4d5e999999\nTime:2026-06-07T17:18:19.7654321Z",
        "This request is not authorized to perform this operation. RequestId:<id> Time:<time>",
        id="Azure: request id and time on lines of their own",
    ),
    pytest.param(
        'x-ms-request-id: "2f8e9b5f-401e-0042-1a2b-3c4d5e000000" QuotaExceeded',
        'x-ms-request-id: "11111111-401e-0042-1a2b-3c4d5e000000" QuotaExceeded',
        "x-ms-request-id: <id> QuotaExceeded",
        id="Azure: a header, in quotes",
    ),
    pytest.param(
        "NetApp: 422 Unprocessable Entity, requestId=1717000000123456, tenant quota reached",
        "NetApp: 422 Unprocessable Entity, requestId=1717000099999999, tenant quota reached",
        "NetApp: 422 Unprocessable Entity, requestId=<id>, tenant quota reached",
        id="NetApp: a number as request id",
    ),
    pytest.param(
        "ECS error 1020: RequestId 0af3c2d1:18f1234abcd:1a2b3:12 Forbidden",
        "ECS error 1020: RequestId 0af3c2d1:18f9999abcd:9a2b3:99 Forbidden",
        "ECS error 1020: RequestId <id> Forbidden",
        id="ECS: an id with colons",
    ),
    pytest.param(
        "trace_id=4bf92f3577b34da6a3ce929d0e0e4736 span_id=00f067aa0ba902b7 backend is busy",
        "trace_id=aaaa2f3577b34da6a3ce929d0e0e4736 span_id=ffff67aa0ba902b7 backend is busy",
        "trace_id=<id> span_id=<id> backend is busy",
        id="trace and span ids",
    ),
    pytest.param(
        "dial tcp 10.0.0.5:51234->10.96.0.1:8333: connect: connection refused",
        "dial tcp 10.0.0.5:40001->10.96.0.1:8333: connect: connection refused",
        "dial tcp 10.0.0.5:<port>->10.96.0.1:8333: connect: connection refused",
        id="the port that a client was given",
    ),
    pytest.param(
        "E0506 07:08:09.123456 lock held since 2026-05-06 07:08:09.5 +0000 UTC m=+12.000345678",
        "E0506 17:18:19.654321 lock held since 2026-06-07 17:18:19 +0000 UTC m=+99.5",
        "E0506 <time> lock held since <time>",
        id="times as Go prints them",
    ),
    pytest.param(
        "clock skew: server says Wed, 06 May 2026 07:08:09 GMT, epoch 1778051289.123",
        "clock skew: server says Thu, 07 May 2026 17:18:19 GMT, epoch 1778051299.9",
        "clock skew: server says <time>, epoch <id>",
        id="times of HTTP and of Unix",
    ),
    pytest.param(
        "lock 0x00007f3a9c0012b4 of node deadbeefdeadbeef0",
        "lock 0x00007f3a9c00ffff of node 0123456789abcdef0",
        "lock <id> of node <id>",
        id="addresses and other long hex",
    ),
    pytest.param(
        "user AIDAJQABLZS4A3QDU576Q: key AKIAIOSFODNN7EXAMPLE is not active",
        "user AIDAXXABLZS4A3QDU576X: key AKIAI44QH8DHBEXAMPLE is not active",
        "user <id>: key <id> is not active",
        id="AWS user and key ids",
    ),
    pytest.param(
        "sent key secret=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY to the backend",
        "sent key secret=AAAArXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY to the backend",
        "sent key secret=[redacted] to the backend",
        id="a secret key that a careless driver prints",
    ),
    pytest.param(
        "GET /c?sv=2024&sig=Zm9vYmFy%2FbmF6cXV4%2B12345678%3D failed",
        "GET /c?sv=2024&sig=QQ9vYmFy%2FbmF6cXV4%2B12345678%3D failed",
        "GET /c?sv=2024&sig=[redacted] failed",
        id="Azure: a signature in a URL",
    ),
]


@pytest.mark.parametrize(("first", "second", "text"), SAME_FAULT)
def test_the_same_fault_has_the_same_text_at_every_try(first: str, second: str, text: str) -> None:
    assert conditions.strip_ids(first) == text
    assert conditions.strip_ids(second) == text


@pytest.mark.parametrize(
    "words",
    [
        pytest.param("the bucket is not empty", id="plain words"),
        pytest.param(
            "bucket-6b3d2f10-1c2d-4e5f-8a9b-0c1d2e3f4a5b is not empty", id="a bucket of ours"
        ),
        pytest.param(
            "bucket-6b3d2f10-1c2d-4e5f-8a9b-012345678901 is not empty",
            id="a bucket of ours that ends in figures",
        ),
        pytest.param("user ba-6b3d2f10-1c2d-4e5f-8a9b-0c1d2e3f4a5b exists", id="an account"),
        pytest.param("no parameter region=eu-central-1 for class gold", id="parameters"),
        pytest.param("http://10.96.0.1:8333/status answered 503", id="addresses and ports"),
        pytest.param("quota 1073741 of 2097152 KiB used, 100% full", id="sizes"),
        pytest.param("the request id was not found in the log", id="a label without an id"),
        pytest.param("com.amazonaws.services.s3.model.AmazonS3Exception", id="a class name"),
        pytest.param("DriverCreateBucketUnsupportedForThisTenantException", id="a long word"),
        pytest.param("no route to 0a:1b:2c:3d:4e:5f or 00:11:22:33:44:55", id="a hardware address"),
        pytest.param("retry after 30s, limit 5000 ms", id="durations"),
        pytest.param("версия 2: нет доступа", id="another language"),
    ],
)
def test_words_without_ids_are_unchanged(words: str) -> None:
    assert conditions.strip_ids(words) == words


ID_PARTS = st.sampled_from(
    [
        "request id: ",
        "RequestId",
        "request  id",
        "host-id=",
        "6b3d2f10-1c2d-4e5f-8a9b-0c1d2e3f4a5b",
        "2026-05-06T07:08:09.5Z",
        "2026-05-06",
        "07:08:09",
        "Wed, 06 May 2026 ",
        "deadbeefdeadbeef0",
        "AKIAIOSFODNN7EXAMPLE",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "1778051289",
        ".123",
        ":51234->",
        ":0a",
        "<id>",
        "bucket-",
        "m=+1.5",
        "\u2028",
        "\n",
        " ",
        '"',
        ">",
        "+",
        "-",
        ":",
        "x",
    ]
)
ANY_WORDS = st.one_of(st.text(max_size=200), st.lists(ID_PARTS, max_size=12).map("".join))


@given(ANY_WORDS)
@example("request  id abcd1")
@example("00:00:00:0->")
@example("00:00:00:000000000")
@example("12345678901:00:00:00")
@example("00:00:00:0000/00/00T00:00:00")
@example("a\x85b\x9bc\u2029d\x00e")
def test_stripping_twice_is_stripping_once_and_leaves_one_clean_line(words: str) -> None:
    once = conditions.strip_ids(words)
    assert conditions.strip_ids(once) == once
    assert not {unicodedata.category(c) for c in once} & {"Cc", "Zl", "Zp"}
    assert once == once.strip()


# Forty characters of base64, in both cases: what a secret key of S3 is.
KEYS = st.text(
    alphabet="ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
    min_size=40,
    max_size=40,
).filter(lambda key: key.upper() != key != key.lower())


@given(
    KEYS,
    st.sampled_from(["{}", "key {} used", "secret={}", '"{}"', "k:{}.", "({})", "key-{}", "a_{}_"]),
)
def test_what_looks_like_a_secret_key_is_never_shown(key: str, around: str) -> None:
    shown = conditions.strip_ids(around.format(key))
    assert key not in shown
    assert all(key[i : i + 12] not in shown for i in range(len(key) - 12))


@given(ANY_WORDS, st.integers(min_value=1, max_value=50))
def test_a_text_is_cut_to_its_limit_and_shows_it(text: str, limit: int) -> None:
    cut = scrub.cut(text, limit)
    assert len(cut) <= limit
    if len(text) <= limit:
        assert cut == text
    else:
        assert cut == text[: limit - 1] + "…"


@pytest.mark.parametrize(
    ("status", "text"),
    [
        pytest.param(
            REFUSED,
            "DriverCreateBucket failed: the driver answered PERMISSION_DENIED: “not allowed"
            " (request id: <id>)”.",
            id="the driver's message -> in quotes, without ids",
        ),
        pytest.param(
            DriverStatus(Call.DELETE_BUCKET, Code.INTERNAL, MadeBy.DRIVER),
            "DriverDeleteBucket failed: the driver answered INTERNAL without a message.",
            id="a driver without words",
        ),
        pytest.param(
            DriverStatus(Call.CREATE_BUCKET, Code.OK, MadeBy.REPLY, "bucket_id is empty"),
            "DriverCreateBucket failed: the driver answered OK, but its reply can't be used because"
            " bucket_id is empty.",
            id="a reply that can't be used",
        ),
        pytest.param(
            DriverStatus(Call.GRANT_ACCESS, Code.DEADLINE_EXCEEDED, MadeBy.DEADLINE, "at 07:08"),
            "DriverGrantBucketAccess failed because the driver did not answer in time.",
            id="our deadline, without the library's words",
        ),
        pytest.param(
            DriverStatus(Call.REVOKE_ACCESS, Code.UNAVAILABLE, MadeBy.TRANSPORT, "fd 17 closed"),
            "DriverRevokeBucketAccess failed because the connection to the driver ended before the"
            " driver answered.",
            id="a connection that broke, without the library's words",
        ),
    ],
)
def test_a_failed_call_is_described(status: DriverStatus, text: str) -> None:
    assert conditions.describe_failure(status) == text


@pytest.mark.parametrize(
    ("outcome", "parts", "absent"),
    [
        pytest.param(
            Requeue(Reason.DRIVER_INTERNAL, "", after_s=16.2, status=REFUSED),
            [
                "Attempt 4 failed at 2026-05-06T07:08:09Z.",
                "The operator retries automatically, at least every 5 minutes.",
            ],
            ["annotate", "16"],
            id="a retry -> the time of the failure and the attempts, no countdown",
        ),
        pytest.param(
            Requeue(Reason.API_UNAVAILABLE, "The API server is away."),
            [
                "The API server is away. The operator retries automatically, at least every 5"
                " minutes."
            ],
            ["annotate", "Attempt"],
            id="a retry without a time of its own",
        ),
        pytest.param(
            Terminal(Reason.DRIVER_PERMISSION_DENIED, "", status=REFUSED),
            [
                "The call is not repeated until the object, its class or the driver changes.",
                "Ask your cluster administrator to grant the driver the permission that the error"
                " names.",
                "kubectl annotate --overwrite bucket b objectstorage.k8s.io/retry=1",
            ],
            [],
            id="a final verdict -> the remedy and the command that retries",
        ),
        pytest.param(
            Terminal(Reason.DRIVER_UNKNOWN, "", status=REFUSED, recheck_s=600.0),
            [
                "The call is repeated every 10 minutes.",
                "Ask your cluster administrator to check the driver's log.",
            ],
            ["is not repeated"],
            id="a final verdict with a slow recheck",
        ),
        pytest.param(
            Terminal(Reason.INVALID_SPEC, "spec.x is empty. Set it."),
            ["spec.x is empty. Set it."],
            ["annotate", "is not repeated"],
            id="bad input: the sentence alone, as the fix is in it",
        ),
        pytest.param(
            Terminal(Reason.WAITING_FOR_DRIVER, "The driver is away.", waiting=True),
            ["The driver is away."],
            ["annotate"],
            id="waiting: the sentence alone",
        ),
    ],
)
def test_a_message_gives_the_failure_and_the_next_step(
    outcome: Requeue | Terminal, parts: list[str], absent: list[str]
) -> None:
    text = conditions.failure_message(
        outcome,
        attempts=4,
        retry_what="bucket b",
        advice=conditions.advice_on(outcome.reason, Bucket(Meta("b"))),
        now=NOW,
        longest_pause_s=300.0,
    )
    for part in parts:
        assert part in text
    for part in absent:
        assert part not in text


def test_a_message_of_any_driver_is_shortened() -> None:
    endless = DriverStatus(Call.CREATE_BUCKET, Code.UNKNOWN, MadeBy.DRIVER, "no " * 100_000)
    outcome = Terminal(Reason.DRIVER_UNKNOWN, "", status=endless)
    text = conditions.failure_message(
        outcome, attempts=1, retry_what="bucket b", advice="", now=NOW, longest_pause_s=300.0
    )
    assert len(text) <= conditions.MESSAGE_LIMIT
    assert "kubectl annotate" in text
    waiting = Terminal(Reason.INVALID_SPEC, "x" * 100_000)
    text = conditions.failure_message(
        waiting, attempts=1, retry_what="bucket b", advice="", now=NOW, longest_pause_s=300.0
    )
    assert len(text) == conditions.MESSAGE_LIMIT


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        pytest.param(
            Success(),
            [("Ready", "True", "Provisioned", "The bucket is ready.")],
            id="success: Ready alone",
        ),
        pytest.param(
            Requeue(Reason.DRIVER_INTERNAL, ""),
            [
                ("Ready", "False", "DriverInternal", "told"),
                ("Reconciling", "True", "DriverInternal", "told"),
            ],
            id="tried again: Reconciling",
        ),
        pytest.param(
            Terminal(Reason.WAITING_FOR_BUCKET, "", waiting=True),
            [
                ("Ready", "False", "WaitingForBucket", "told"),
                ("Reconciling", "True", "WaitingForBucket", "told"),
            ],
            id="waiting: Reconciling, not Stalled",
        ),
        pytest.param(
            Terminal(Reason.INVALID_SPEC, ""),
            [("Ready", "False", "InvalidSpec", "told"), ("Stalled", "True", "InvalidSpec", "told")],
            id="final: Stalled",
        ),
    ],
)
def test_each_outcome_has_its_conditions(
    outcome: Outcome, expected: list[tuple[str, str, str, str]]
) -> None:
    made = conditions.from_outcome(outcome, generation=7, success=SUCCESS, message="told")
    assert [(c.type, c.status, c.reason, c.message) for c in made] == expected
    assert {c.observed_generation for c in made} == {7}


@pytest.mark.parametrize(
    ("outcome", "types"),
    [
        pytest.param(Success(), ["Ready"], id="success -> after Ready"),
        pytest.param(
            Requeue(Reason.DRIVER_INTERNAL, ""),
            ["Ready", "Reconciling"],
            id="retried -> after Reconciling",
        ),
        pytest.param(
            Terminal(Reason.INVALID_SPEC, ""), ["Ready", "Stalled"], id="final -> after Stalled"
        ),
    ],
)
def test_an_ignored_change_of_the_spec_is_a_condition_beside_the_others(
    outcome: Outcome, types: list[str]
) -> None:
    made = conditions.from_outcome(
        outcome, generation=7, success=SUCCESS, message="told", ignored="spec.x is ignored."
    )
    assert [c.type for c in made] == [*types, "SpecChangeIgnored"]
    assert made[-1] == Condition(
        "SpecChangeIgnored", "True", "SpecChangeIgnored", "spec.x is ignored.", 7
    )
    plain = conditions.from_outcome(outcome, generation=7, success=SUCCESS, message="told")
    assert made[:-1] == plain
    assert conditions.merge(conditions.merge([], made, NOW), plain, NOW) == conditions.merge(
        [], plain, NOW
    )


READY = Condition("Ready", "True", "Provisioned", "fine", 1, BEFORE)


@pytest.mark.parametrize(
    ("new", "time"),
    [
        pytest.param(READY, BEFORE, id="nothing changed"),
        pytest.param(
            Condition("Ready", "True", "Bound", "better", 2), BEFORE, id="reason, text, generation"
        ),
        pytest.param(
            Condition("Ready", "False", "Provisioned", "fine", 1), STAMP, id="the status changed"
        ),
    ],
)
def test_the_transition_time_moves_only_with_the_status(new: Condition, time: str) -> None:
    (merged,) = conditions.merge([READY], [new], NOW)
    assert merged.last_transition_time == time
    assert (merged.status, merged.reason, merged.message) == (new.status, new.reason, new.message)


def test_a_condition_without_a_time_gets_one() -> None:
    (merged,) = conditions.merge([Condition("Ready", "True", "Provisioned")], [READY], NOW)
    assert merged.last_transition_time == STAMP


def test_our_conditions_are_first_in_a_fixed_order_and_those_of_others_are_preserved() -> None:
    foreign = Condition("Audited", "True", "ByHand", "seen", 1, BEFORE)
    also = Condition("Backed-up", "False", "Never", "", 1, BEFORE)
    stalled = Condition("Stalled", "True", "InvalidSpec", "x", 1, BEFORE)
    new = [Condition("Reconciling", "True", "DriverInternal"), Condition("Ready", "False", "D")]
    merged = conditions.merge([also, stalled, foreign], new, NOW)
    assert [c.type for c in merged] == ["Ready", "Reconciling", "Audited", "Backed-up"]
    assert merged[2:] == (foreign, also)


CONDITIONS = st.lists(
    st.builds(
        Condition,
        type=st.sampled_from(["Ready", "Reconciling", "Stalled", "Audited"]),
        status=st.sampled_from(["True", "False", "Unknown"]),
        reason=st.sampled_from(["A", "B"]),
        last_transition_time=st.sampled_from(["", BEFORE]),
    ),
    max_size=4,
    unique_by=lambda c: c.type,
)
OURS = CONDITIONS.map(lambda found: [c for c in found if c.type != "Audited"])


@given(CONDITIONS, OURS)
def test_merging_the_same_again_changes_nothing(old: list[Condition], new: list[Condition]) -> None:
    once = conditions.merge(old, new, NOW)
    assert conditions.merge(once, new, NOW + timedelta(hours=1)) == once
    assert all(c.last_transition_time for c in once if c.type != "Audited")


def test_a_claim_takes_over_the_conditions_of_its_bucket_for_its_own_generation() -> None:
    foreign = Condition("Audited", "True", "ByHand")
    stalled = Condition("Stalled", "True", "InvalidSpec", "x", 1, BEFORE)
    bucket = Bucket(Meta("b", generation=9), conditions=(READY, stalled, foreign))
    claim = BucketClaim(Meta("c", "ns", generation=3))
    mirrored = conditions.mirror(claim, bucket)
    assert [(c.type, c.observed_generation) for c in mirrored] == [("Ready", 3), ("Stalled", 3)]
    assert [c.message for c in mirrored] == ["fine", "x"]


def test_what_the_controller_says_of_the_class_stays_unless_the_bucket_has_its_own() -> None:
    said = Condition("SpecChangeIgnored", "True", "SpecChangeIgnored", "of the class", 3, BEFORE)
    own = Condition("SpecChangeIgnored", "True", "SpecChangeIgnored", "of the Bucket", 9, BEFORE)
    claim = BucketClaim(Meta("c", "ns", generation=3), conditions=(READY, said))
    assert conditions.mirror(claim, Bucket(Meta("b"), conditions=(READY,)))[1:] == (said,)
    (taken,) = conditions.mirror(claim, Bucket(Meta("b"), conditions=(READY, own)))[1:]
    assert taken.message == "of the Bucket"


def test_a_failing_object_is_written_at_attempts_that_double() -> None:
    written = [n for n in range(1, 70) if conditions.is_worth_writing(n)]
    assert written == [1, 2, 4, 8, 16, 32, 64]


@pytest.mark.parametrize("turned", "\u061c\u200b\u200e\u202e\u2060\u2066\ufeff")
def test_a_drivers_message_can_not_imitate_other_text(turned: str) -> None:
    escape = turned.encode("unicode_escape").decode()
    assert conditions.strip_ids(f"a{turned}b") == f"a{escape}b"


@pytest.mark.parametrize(
    "key",
    [
        "f-xY7_Lk-3mQ_pV-9zT_wR-2bN_cX-5dK_hJ-8gFs",
        "-4aB-cD_eF-gH_iJ-kL_mN-oP_qR-8tU",
        "_" * 9 + "aB3-" * 5,
        "abcdefgh-" * 4 + "ABCD",
    ],
)
@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("{}", "<id>"),
        ("the key {} is bad", "<id>"),
        ('{{"k":"{}"}}', "<id>"),
        ("https://u:{}@h/", "[redacted]"),
        ("k={}&x=1", "<id>"),
    ],
)
def test_a_key_with_dashes_in_it_is_taken_out_whole(text: str, mark: str, key: str) -> None:
    shown = conditions.strip_ids(text.format(key))
    assert mark in shown
    assert not [key[i : i + 8] for i in range(len(key) - 8) if key[i : i + 8] in shown]


@pytest.mark.parametrize(
    "words",
    [
        "bucket-0b1498b5-8aa6-4063-986c-ca4e68e83985 is not there",
        "the class team-a-production-2024-gold is not known",
        "InvalidBucketName: Bad_Name-bucket",
        "AuthorizationQueryParametersError",
    ],
)
def test_names_that_are_not_keys_are_unchanged(words: str) -> None:
    assert conditions.strip_ids(words) == words
