"""What `cosi rollback-check` says of each state that an object can be in."""

from typing import Any

import pytest
from msgspec.structs import replace
from tests.support import views
from tests.support.views import meta

from cosi_operator.api.view import (
    Bucket,
    BucketAccess,
    BucketClaim,
    ClaimRef,
    Condition,
    DeletionPolicy,
    Key,
)
from cosi_operator.cli import render
from cosi_operator.cli.rollback import Finding, Seen, mishandled
from cosi_operator.plan import names

CLAIM = views.READY_CLAIM
ACCESS = replace(
    meta(views.ACCESS, finalizers=(names.ACCESS_FINALIZER,)), account_id="acct-7", granted=True
)
BUCKET = views.with_entries(views.MARKED, access_uid=views.ENTRY)
OTHER = meta(BUCKET, name="other", uid="other-uid")


def recorded(bucket: Bucket = BUCKET, **changes: Any) -> Bucket:
    assert bucket.record is not None
    return replace(bucket, record=replace(bucket.record, **changes))


def entry(**changes: Any) -> Bucket:
    return views.with_entries(views.MARKED, access_uid=replace(views.ENTRY, **changes))


def check(*things: Bucket | BucketClaim | BucketAccess, lost: tuple[Key, ...] = ()) -> Seen:
    """These objects; a kind that is not among them is there in its good state."""

    def of[T: (Bucket, BucketClaim, BucketAccess)](kind: type[T], good: T) -> list[T]:
        return [thing for thing in things if isinstance(thing, kind)] or [good]

    return Seen(
        of(Bucket, BUCKET), of(BucketClaim, CLAIM), of(BucketAccess, ACCESS), frozenset(lost)
    )


def test_ready_objects_are_not_named() -> None:
    assert mishandled(check()) == []
    assert mishandled(Seen()) == []


@pytest.mark.parametrize("other_case", [BUCKET.driver_name.upper(), BUCKET.driver_name])
def test_a_drivers_name_has_no_case(other_case: str) -> None:
    assert mishandled(check(replace(BUCKET, driver_name=other_case))) == []


@pytest.mark.parametrize(
    ("bucket", "words"),
    [
        (replace(BUCKET, bucket_id="", ready=False), "with an empty id"),
        (replace(BUCKET, record=None, copied_record=BUCKET.record), "bucket of the original"),
        (replace(BUCKET, driver_name="other.example.com"), "go to that driver, or to none"),
        (recorded(bucket_id="id-8"), "name the wrong bucket"),
        (views.with_entries(BUCKET, access_uid=views.ENTRY, gone=views.ENTRY), "of 1 deleted"),
        (replace(BUCKET, claim=None), "to which it is bound"),
        (replace(BUCKET, claim=None, record=None), "crash the sidecar"),
        (meta(BUCKET, deleting=True), "is being deleted"),
        (replace(BUCKET, ready=False), "not ready"),
        (replace(meta(BUCKET, finalizers=()), bucket_id=""), "not ready"),
        (meta(BUCKET, finalizers=()), "leave the bucket on the backend"),
    ],
)
def test_a_bucket_is_named_with_the_gravest_reason(bucket: Bucket, words: str) -> None:
    found = [each for each in mishandled(check(bucket)) if each.kind == "Bucket"]
    assert [(each.namespace, each.name) for each in found] == [("", BUCKET.meta.name)]
    assert words in found[0].why
    assert found[0].before


def test_what_two_objects_share_is_named() -> None:
    same_id = meta(replace(BUCKET, claim=None, record=None), name="other", uid="other-uid")
    same_account = meta(ACCESS, name="writer", uid="writer-uid")
    found = mishandled(check(BUCKET, same_id, ACCESS, same_account))
    why = {each.name: each.why for each in found}
    assert why[BUCKET.meta.name].startswith("Bucket other has the same bucket id")
    assert why["reader"].startswith("BucketAccess team/writer has the same account")
    keeps = replace(BUCKET, deletion_policy=DeletionPolicy.RETAIN)
    assert not [each for each in mishandled(check(keeps, same_id)) if each.name == keeps.meta.name]


def test_a_bucket_whose_claim_is_gone_is_named() -> None:
    found = mishandled(Seen(buckets=[views.READY]))
    assert "is not there: its deletion would never end" in found[0].why


def test_a_reference_without_a_uid_is_enough_for_the_go_pair() -> None:
    assert mishandled(check(replace(BUCKET, claim=ClaimRef("team", "photos")))) == []


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        (meta(CLAIM, deleting=True), "is being deleted"),
        (replace(CLAIM, ready=False), "not ready"),
        (replace(CLAIM, bucket_name=""), "not ready"),
        (replace(CLAIM, bucket_name="nowhere"), "is gone: its deletion would never end"),
        (meta(CLAIM, uid="copy"), "would delete that Bucket"),
        (meta(CLAIM, finalizers=()), "would leave its Bucket"),
    ],
)
def test_a_claim_is_named(claim: BucketClaim, words: str) -> None:
    found = [each for each in mishandled(check(claim)) if each.kind == "BucketClaim"]
    assert [(each.namespace, each.name) for each in found] == [("team", "photos")]
    assert words in found[0].why


@pytest.mark.parametrize(
    ("access", "words"),
    [
        (replace(ACCESS, account_id="", granted=False), "with an empty id"),
        (
            replace(meta(ACCESS, finalizers=(), uid="new"), account_id="", granted=False),
            "not granted",
        ),
        (
            replace(ACCESS, conditions=(Condition("SpecChangeIgnored", "True", "SpecChanged"),)),
            "spec was changed",
        ),
        (meta(ACCESS, deleting=True), "is being deleted"),
        (meta(ACCESS, finalizers=()), "would leave its keys"),
        (meta(ACCESS, uid="copy"), "a tenant may have written it"),
        (replace(ACCESS, account_id="acct-of-another"), "revoke the wrong account"),
        (replace(ACCESS, secret_name="other"), "would delete that Secret"),
        (replace(ACCESS, claim_name="nowhere"), "its BucketClaim nowhere is gone"),
    ],
)
def test_an_access_is_named(access: BucketAccess, words: str) -> None:
    found = [each for each in mishandled(check(access)) if each.kind == "BucketAccess"]
    assert [(each.namespace, each.name) for each in found] == [("team", "reader")]
    assert words in found[0].why


@pytest.mark.parametrize(
    ("buckets", "words"),
    [
        ([entry(accounts=("acct-6", "acct-7"))], "2 accounts are recorded"),
        ([entry(accounts=())], "not answered"),
        (
            [views.MARKED, views.with_entries(OTHER, access_uid=views.ENTRY)],
            "name the wrong bucket",
        ),
    ],
)
def test_an_access_is_named_for_what_the_record_says(buckets: list[Bucket], words: str) -> None:
    found = [each for each in mishandled(check(*buckets)) if each.kind == "BucketAccess"]
    assert len(found) == 1
    assert words in found[0].why


def test_an_access_whose_secret_was_removed_is_named() -> None:
    found = mishandled(check(lost=(Key("team", "reader-keys"),)))
    assert [each.why for each in found] == [
        "its Secret reader-keys is gone: its deletion would never end"
    ]


def test_the_spec_change_that_is_over_is_not_named() -> None:
    over = Condition("SpecChangeIgnored", "False", "SpecChanged")
    assert mishandled(check(replace(ACCESS, conditions=(over,)))) == []


def test_the_table_has_one_line_for_each_object() -> None:
    found = [
        Finding("Bucket", "", "b", "why\x1b[2J", "do"),
        Finding("BucketClaim", "ns", "c", "w", "d"),
    ]
    text = render.rollback(found, is_all=True)
    assert text.splitlines()[1].split() == ["Bucket", "b", r"why\x1b[2J", "do"]
    assert text.splitlines()[2].split() == ["BucketClaim", "ns/c", "w", "d"]
    assert "would mishandle 2 objects" in text
    assert "it would mishandle no object" in render.rollback([], is_all=True)
    assert "do not roll back yet" in render.rollback([], is_all=False)
