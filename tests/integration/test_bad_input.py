"""What users get wrong: a clear condition and Event that name field and fix, then a wake-up.

Each case makes its objects, says which reason and words have to appear, and repairs them.
"""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from cosi_operator.outcome import Call
from testbed import NAMESPACE, Testbed, access_body, claim_body, condition


@dataclass(frozen=True)
class Mistake:
    """`plural` is what tells of it, an object of the test's name; `words` are in its message."""

    make: Callable[[Testbed, str], object]
    plural: str
    reason: str
    words: tuple[str, ...]
    repair: Callable[[Testbed, str], object]
    becomes_ready: bool = True


def _then(*steps: Callable[[Testbed, str], object]) -> Callable[[Testbed, str], object]:
    def all_of(bed: Testbed, name: str) -> None:
        for step in steps:
            step(bed, name)

    return all_of


def _classes(bed: Testbed, name: str) -> None:
    bed.make_classes(name)


def _claim_of_class(bed: Testbed, name: str) -> None:
    bed.make_claims([name], class_name=name)


def _access(bed: Testbed, name: str) -> None:
    bed.create("bucketaccesses", access_body(name, class_name=name))


def _ask_for_a_retry(bed: Testbed, name: str) -> None:
    """Secrets can't be watched; a person who does not want to wait asks."""
    bed.annotate("bucketaccesses", name, retry="1")


def _recreate(plural: str, **fields: str | None) -> Callable[[Testbed, str], object]:
    """Another object of the same name with these fields; None leaves a field out."""

    def repair(bed: Testbed, name: str) -> None:
        spec = {**bed.get(plural, name)["spec"], **fields}
        bed.delete(plural, name)
        bed.until_gone(plural, [name])
        spec = {field: value for field, value in spec.items() if value is not None}
        bed.create(plural, {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec})

    return repair


def _claim(**fields: str) -> Callable[[Testbed, str], object]:
    def make(bed: Testbed, name: str) -> None:
        values = {key: value.format(name=name) for key, value in fields.items()}
        bed.create("bucketclaims", claim_body(name, **values))

    return make


def _ready_claim_and(make: Callable[[Testbed, str], object]) -> Callable[[Testbed, str], object]:
    def both(bed: Testbed, name: str) -> None:
        bed.make_classes(name)
        bed.make_claims([name], class_name=name)
        bed.until_ready("bucketclaims", [name])
        make(bed, name)

    return both


def _access_class(bed: Testbed, name: str, **fields: str) -> None:
    body = {"metadata": {"name": name}, "driverName": bed.driver.name, **fields}
    bed.create("bucketaccessclasses", {"authenticationType": "Key", **body})


def _odd_access_class(bed: Testbed, name: str) -> None:
    _access_class(bed, f"{name}-odd")


def _access_of_odd_class(**fields: str) -> Callable[[Testbed, str], object]:
    def make(bed: Testbed, name: str) -> None:
        _access_class(bed, f"{name}-odd", **fields)
        bed.create("bucketaccesses", access_body(name, class_name=f"{name}-odd"))

    return _ready_claim_and(make)


def _taken_secret(bed: Testbed, name: str) -> None:
    bed.create("secrets", {"metadata": {"name": f"{name}-keys"}, "stringData": {"mine": "kept"}})
    bed.create("bucketaccesses", access_body(name, class_name=name))


MISTAKES = [
    pytest.param(
        Mistake(
            _claim(class_name="{name}"),
            "bucketclaims",
            "BucketClassNotFound",
            ("spec.bucketClassName", "does not exist", "ask your cluster administrator to"),
            _classes,
        ),
        id="a claim of a class that is not there waits for it",
    ),
    pytest.param(
        Mistake(
            _claim(),
            "bucketclaims",
            "InvalidSpec",
            ("spec.bucketClassName", "spec.existingBucketName", "both empty"),
            _then(
                _classes,
                lambda bed, name: _recreate("bucketclaims", bucketClassName=name)(bed, name),
            ),
        ),
        id="a claim with neither class nor existing bucket",
    ),
    pytest.param(
        Mistake(
            _claim(class_name="{name}", existing="{name}"),
            "bucketclaims",
            "BucketNotFound",  # as in the Go controller, the class does not count then
            ("spec.existingBucketName", "does not exist", "a new claim that names another Bucket"),
            _then(_classes, _recreate("bucketclaims", existingBucketName=None)),
        ),
        id="a claim with both class and existing bucket",
    ),
    pytest.param(
        Mistake(
            _claim(existing="{name}"),
            "bucketclaims",
            "BucketNotFound",
            ("spec.existingBucketName", "does not exist"),
            lambda bed, name: bed.create(
                "buckets",
                {
                    "metadata": {"name": name},
                    "spec": {
                        "bucketClaim": {},
                        "bucketClassName": name,
                        "driverName": bed.driver.name,
                        "protocols": ["S3"],
                        "existingBucketID": f"old-{name}",
                    },
                },
            ),
        ),
        id="a claim of an existing bucket that is not there waits for it",
    ),
    pytest.param(
        Mistake(
            _then(_classes, _access),
            "bucketaccesses",
            "BucketClaimNotFound",
            ("spec.bucketClaimName", "does not exist"),
            _claim_of_class,
        ),
        id="an access to a claim that is not there waits for it",
    ),
    pytest.param(
        Mistake(
            _ready_claim_and(
                lambda bed, name: bed.create(
                    "bucketaccesses", access_body(name, class_name=f"{name}-odd")
                )
            ),
            "bucketaccesses",
            "BucketAccessClassNotFound",
            ("spec.bucketAccessClassName", "does not exist"),
            _odd_access_class,
        ),
        id="an access of a class that is not there waits for it",
    ),
    pytest.param(
        Mistake(
            _access_of_odd_class(authenticationType="IAM"),
            "bucketaccesses",
            "InvalidSpec",
            ("authenticationType IAM", "spec.serviceAccountName"),
            _recreate("bucketaccesses", serviceAccountName="app"),
        ),
        id="IAM without a service account",
    ),
    pytest.param(
        Mistake(
            _ready_claim_and(_taken_secret),
            "bucketaccesses",
            "SecretNotOwned",
            ("spec.credentialsSecretName", "was not created for this BucketAccess"),
            _then(
                lambda bed, name: bed.delete("secrets", f"{name}-keys"),
                _ask_for_a_retry,
            ),
        ),
        id="a Secret name that someone else holds",
    ),
]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_with_field_and_fix_and_its_repair_wakes_the_object(
    bed: Testbed, name: str, mistake: Mistake
) -> None:
    calls = bed.driver.calls(Call.GRANT_ACCESS)
    mistake.make(bed, name)
    told = bed.until_reason(mistake.plural, name, mistake.reason)
    for word in mistake.words:
        assert word in told["message"]
    assert told["status"] == "False"
    bed.until(
        "an Event that says the same",
        lambda: any(mistake.reason in str(event["message"]) for event in bed.events(name)),
    )
    assert bed.driver.calls(Call.GRANT_ACCESS) == calls  # no key was minted for a mistake
    mistake.repair(bed, name)
    bed.until_ready(mistake.plural, [name])
    kind = bed.get(mistake.plural, name)
    assert [c["type"] for c in kind["status"]["conditions"]] == ["Ready"]


@pytest.mark.parametrize(
    ("word", "sent"),
    [
        pytest.param("KEY", "Key", id="KEY, as many published classes have it -> Key"),
        pytest.param("key", "Key", id="key -> Key"),
        pytest.param("Password", "UnknownAuthenticationType", id="another word -> Unknown"),
        pytest.param("", "UnknownAuthenticationType", id="no word -> Unknown"),
    ],
)
def test_the_authentication_type_is_read_without_regard_to_case_and_another_word_is_warned_of(
    bed: Testbed, name: str, word: str, sent: str
) -> None:
    _access_of_odd_class(authenticationType=word)(bed, name)
    bed.until_ready("bucketaccesses", [name])
    account = f"ba-{bed.get('bucketaccesses', name)['metadata']['uid']}"
    grants = [
        e.fields for e in bed.driver.journal(Call.GRANT_ACCESS) if e.fields["name"] == account
    ]
    assert [fields["authentication_type"] for fields in grants] == [sent]
    secret = bed.get("secrets", f"{name}-keys")["data"]["BucketInfo"]
    assert json.loads(base64.b64decode(secret))["spec"]["authenticationType"] == word

    def warnings() -> list[str]:
        events = bed.events(name)
        return [e["message"] for e in events if e["reason"] == "UnknownAuthenticationType"]

    if sent == "Key":
        bed.until(
            "AccessGranted", lambda: "AccessGranted" in {e["reason"] for e in bed.events(name)}
        )
        assert warnings() == []
    else:
        bed.until("the Warning", lambda: len(warnings()) == 1)
        assert f'is "{word}", which is not Key or IAM' in warnings()[0]


def test_the_secret_of_someone_else_is_neither_changed_nor_deleted(bed: Testbed, name: str) -> None:
    bed.make_classes(name)
    bed.make_claims([name], class_name=name)
    bed.until_ready("bucketclaims", [name])
    _taken_secret(bed, name)
    before = bed.get("secrets", f"{name}-keys")
    bed.until_reason("bucketaccesses", name, "SecretNotOwned")
    bed.delete("bucketaccesses", name)
    bed.until_gone("bucketaccesses", [name])
    assert bed.get("secrets", f"{name}-keys") == before
    assert base64.b64decode(before["data"]["mine"]) == b"kept"


def test_an_access_whose_class_is_of_another_driver_than_its_bucket_says_so(
    bed: Testbed, name: str
) -> None:
    """The class is ours, the Bucket is not: a foreign driver's bucket is never granted by us."""
    bed.make_classes(name)
    bed.make_classes(f"{name}-foreign", driver="other.example.com")
    bed.make_claims([name], class_name=f"{name}-foreign")
    bed.create("bucketaccesses", access_body(name, class_name=name))
    told = bed.until_reason("bucketaccesses", name, "DriverMismatch")
    assert "spec.bucketAccessClassName" in told["message"]
    assert "other.example.com" in told["message"]
    assert name not in str(bed.driver.journal(Call.GRANT_ACCESS))
    bucket = bed.bucket_of(name)
    assert not bucket["metadata"].get("finalizers")  # the other driver's to set
    assert not bucket.get("status", {}).get("conditions")


def test_a_foreign_drivers_access_is_left_alone(bed: Testbed, name: str) -> None:
    bed.make_classes(name)
    bed.make_classes(f"{name}-foreign", driver="other.example.com")
    bed.make_claims([name], class_name=name)
    bed.until_ready("bucketclaims", [name])
    bed.create("bucketaccesses", access_body(name, class_name=f"{name}-foreign"))
    # A second access, made later and ours, is handled: so the first had its turn.
    bed.create("bucketaccesses", access_body(f"{name}-ours", class_name=name, claim=name))
    bed.until_ready("bucketaccesses", [f"{name}-ours"])
    found = bed.get("bucketaccesses", name)
    assert "finalizers" not in found["metadata"]
    assert "status" not in found


@dataclass(frozen=True)
class OddReply:
    rule: dict[str, Any]
    plural: str
    reason: str
    words: str


ODD_REPLIES = [
    pytest.param(
        OddReply(
            {"call": Call.CREATE_BUCKET, "reply": "empty_id"},
            "bucketclaims",
            "DriverReturnedEmptyBucketID",
            "bucket_id is empty",
        ),
        id="no bucket_id",
    ),
    pytest.param(
        OddReply(
            {"call": Call.GRANT_ACCESS, "reply": "empty_id"},
            "bucketaccesses",
            "DriverReturnedEmptyAccountID",
            "account_id is empty",
        ),
        id="no account_id",
    ),
    pytest.param(
        OddReply(
            {"call": Call.GRANT_ACCESS, "reply": "no_credentials"},
            "bucketaccesses",
            "DriverReturnedNoCredentials",
            "credentials",
        ),
        id="no credentials",
    ),
    pytest.param(
        OddReply(
            {"call": Call.GRANT_ACCESS, "reply": "partial_credentials"},
            "bucketaccesses",
            "DriverReturnedNoCredentials",
            "accessSecretKey",
        ),
        id="half the credentials",
    ),
    pytest.param(
        OddReply(
            {"call": Call.GRANT_ACCESS, "reply": "large_credentials"},
            "bucketaccesses",
            "DriverReturnedNoCredentials",
            "and a Secret has room for 102400 at most",
        ),
        id="credentials too large for a Secret",
    ),
]


@pytest.mark.parametrize("odd", ODD_REPLIES)
def test_a_reply_that_can_not_be_used_is_final_told_and_repaired_by_a_retry(
    bed: Testbed, name: str, odd: OddReply
) -> None:
    call = odd.rule["call"]
    rule = {key: value for key, value in odd.rule.items() if key != "call"}
    bed.driver.set_rule(call, match={"parameters.case": name}, **rule)
    bed.make_classes(name, parameters={"case": name})
    bed.make_claims([name], class_name=name)
    bed.make_accesses([name], class_name=name)
    told = bed.until_reason(odd.plural, name, odd.reason)
    assert odd.words in told["message"]
    assert condition(bed.get(odd.plural, name), "Stalled")["reason"] == odd.reason
    assert bed.find("secrets", f"{name}-keys") is None
    bed.until(
        "an Event that says the same",
        lambda: any(odd.reason in str(event["message"]) for event in bed.events(name)),
    )
    bed.driver.clear_rules()
    bed.annotate(odd.plural, name, retry="now")
    bed.until_ready("bucketaccesses", [name])


def test_a_bucket_whose_id_was_never_told_is_deleted_by_asking_again_not_with_an_empty_id(
    bed: Testbed, name: str
) -> None:
    bed.driver.set_rule(
        Call.CREATE_BUCKET, match={"parameters.case": name}, times=1, reply="empty_id"
    )
    bed.make_classes(name, parameters={"case": name})
    bed.make_claims([name], class_name=name)
    bed.until_reason("bucketclaims", name, "DriverReturnedEmptyBucketID")
    bucket = bed.bucket_of(name)["metadata"]["name"]
    bed.delete("bucketclaims", name)
    bed.until_gone("bucketclaims", [name])
    ids = [entry.fields["bucket_id"] for entry in bed.driver.journal(Call.DELETE_BUCKET)]
    assert f"id-{bucket}" in ids
    assert "" not in ids
    assert not [found for found in bed.driver.buckets() if found.name == bucket]


def test_a_class_that_is_edited_after_its_bucket_was_created_is_said_to_be_ignored(
    bed: Testbed, name: str
) -> None:
    bed.make_classes(name)
    bed.make_claims([name], class_name=name)
    bed.until_ready("bucketclaims", [name])

    def set_parameters(**parameters: str) -> None:
        bed.edit("bucketclasses", name, lambda body: body.update(parameters=parameters))

    def ignored() -> str:
        return str(condition(bed.get("bucketclaims", name), "SpecChangeIgnored").get("message", ""))

    set_parameters(tier="2")
    bed.until("the claim says so", ignored)
    assert f"BucketClass {name} differs from the bucket in parameters." in ignored()
    set_parameters()
    bed.until("the claim no longer says so", lambda: not ignored())
