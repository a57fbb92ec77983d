"""The record of a Bucket as an annotation: what is read back, and how much fits."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.support.v1alpha1 import Json, decode, whole

from cosi_operator.api.record import (
    ID_LIMIT_BYTES,
    RECORD_ANNOTATION,
    RECORD_LIMIT_BYTES,
    AccessRecord,
    BucketRecord,
    ClaimIdentity,
    Room,
    decode_record,
    encode_record,
    is_storable_id,
    room_in,
    with_access,
)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
count = st.integers(min_value=0, max_value=1000)
entries = st.builds(
    AccessRecord,
    namespace=text,
    name=text,
    secret=text,
    accounts=st.lists(ids, max_size=3).map(tuple),
    rotated=text,
    renew_at=text,
    unanswered=count,
    since=text,
    last=text,
)
records = st.builds(
    BucketRecord,
    revision=count,
    bucket=text,
    driver=text,
    bucket_id=text,
    claim=st.builds(ClaimIdentity, text, text, text),
    accesses=st.dictionaries(text, entries, max_size=3),
    former=st.dictionaries(text, ids, max_size=3),
)

RECORD = BucketRecord(
    bucket="u-1",
    driver="s3.example.com",
    bucket_id="id-7",
    claim=ClaimIdentity("team", "photos", "c-1"),
    accesses={
        "a-1": AccessRecord(
            "team",
            "reader",
            secret="keys",
            accounts=("acct-6", "acct-7"),
            rotated="1",
            renew_at="2026-05-07T00:00:00Z",
            unanswered=2,
            since="2026-05-06T08:00:00Z",
            last="2026-05-06T09:00:00Z",
        ),
    },
    former={"a-0": "acct-5"},
)
TEXT = (
    '{"bucket":"u-1","driver":"s3.example.com","bucketID":"id-7",'
    '"claim":{"namespace":"team","name":"photos","uid":"c-1"},'
    '"accesses":{"a-1":{"namespace":"team","name":"reader",'
    '"secret":"keys","accounts":["acct-6","acct-7"],"rotated":"1",'
    '"renewAt":"2026-05-07T00:00:00Z","unanswered":2,"since":"2026-05-06T08:00:00Z",'
    '"last":"2026-05-06T09:00:00Z"}},"former":{"a-0":"acct-5"}}'
)


@given(record=records)
def test_what_is_written_is_read_back(record: BucketRecord) -> None:
    assert decode_record(encode_record(record)) == (record if record != BucketRecord() else None)


def test_text_of_a_record() -> None:
    """It is part of the API: a later release has to read it."""
    assert encode_record(RECORD) == TEXT
    assert decode_record(TEXT) == RECORD
    assert encode_record(BucketRecord()) == "{}"


def test_equal_records_give_equal_texts() -> None:
    one = BucketRecord(accesses={"a": AccessRecord("n", "a"), "b": AccessRecord("n", "b")})
    other = BucketRecord(accesses={"b": AccessRecord("n", "b"), "a": AccessRecord("n", "a")})
    assert encode_record(one) == encode_record(other)


def test_empty_account_ids_which_a_person_wrote_are_dropped() -> None:
    entry = AccessRecord("n", "a", accounts=("", "acct-1"))
    record = BucketRecord(accesses={"a": entry}, former={"b": "", "c": "acct-2"})
    kept = replace(entry, accounts=("acct-1",))
    assert decode_record(encode_record(record)) == BucketRecord(
        accesses={"a": kept}, former={"c": "acct-2"}
    )


def test_field_of_a_later_release_is_ignored() -> None:
    assert decode_record('{"bucket":"u-1","later":{"x":[1]}}') == BucketRecord(bucket="u-1")


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(None, id="no annotation -> none"),
        pytest.param("", id="empty -> none"),
        pytest.param("yes", id="not JSON -> none"),
        pytest.param("[]", id="not an object -> none"),
        pytest.param("null", id="null -> none"),
        pytest.param(TEXT[:-1], id="cut off -> none"),
        pytest.param('{"bucketID":7}', id="an id that is a number -> none"),
        pytest.param('{"accesses":[]}', id="accesses that are a list -> none"),
        pytest.param('{"accesses":{"a":{"namespace":"n"}}}', id="entry without a name -> none"),
        pytest.param('{"accesses":{"a":null}}', id="entry that is null -> none"),
        pytest.param(
            '{"accesses":{"a":{"namespace":"n","name":"a","accounts":[null]}}}',
            id="account that is null -> none",
        ),
        pytest.param('{"x":' + "[" * 100_000, id="deeply nested -> none"),
        pytest.param('"\ud800"', id="a lone surrogate -> none"),
    ],
)
def test_record_that_cannot_be_read_is_none(found: str | None) -> None:
    assert decode_record(found) is None


@given(found=st.text())
def test_any_text_is_read_or_is_none(found: str) -> None:
    record = decode_record(found)
    assert record is None or decode_record(encode_record(record)) == record


@pytest.mark.parametrize(
    ("uid", "own", "copied"),
    [
        pytest.param("u-1", RECORD, None, id="its own UID -> counts"),
        pytest.param("u-2", None, RECORD, id="another Bucket's UID -> void"),
    ],
)
def test_copied_record_is_void(
    uid: str, own: BucketRecord | None, copied: BucketRecord | None
) -> None:
    found = decode(_annotated(TEXT, uid))
    assert (found.record, found.copied_record) == (own, copied)


def test_record_that_names_no_bucket_yet_counts_for_any() -> None:
    new = BucketRecord(claim=ClaimIdentity("team", "photos", "c-1"))
    found = decode(_annotated(encode_record(new), "u-9"))
    assert (found.record, found.copied_record) == (new, None)


def test_unreadable_record_does_not_make_the_bucket_unreadable() -> None:
    found = decode(_annotated("{", "u-1"))
    assert (found.record, found.copied_record) == (None, None)


def _annotated(text: str, uid: str) -> Json:
    metadata = {"name": "b", "uid": uid, "annotations": {RECORD_ANNOTATION: text}}
    return whole("Bucket", metadata=metadata)


def _uid(number: int) -> str:
    return str(uuid.UUID(int=number))


def _filled(entry: AccessRecord, record: BucketRecord = RECORD) -> BucketRecord:
    """As many accesses as are let in, one after the other, each with its account in the end."""
    while room_in(record) is Room.NOW:
        record = with_access(record, _uid(len(record.accesses)), entry)
    return record


ORDINARY = AccessRecord(
    "photos-production",
    "thumbnailer-reader",
    class_name="standard-keys",
    secret="thumbnailer-reader-credentials",
    accounts=("ba-6f1c2a3e-52b1-4b6e-9a57-0c2f6f0d7f11",),
)


def test_500_accesses_of_ordinary_length_fit() -> None:
    full = _filled(ORDINARY)
    assert len(full.accesses) == 990
    assert len(encode_record(full)) < RECORD_LIMIT_BYTES


@pytest.mark.parametrize(
    ("entry", "accesses"),
    [
        pytest.param(
            replace(ORDINARY, accounts=("x" * ID_LIMIT_BYTES,)), 101, id="longest account -> fewer"
        ),
        pytest.param(
            AccessRecord(
                "n" * 63,
                "a" * 253,
                secret="s" * 253,
                accounts=("x" * ID_LIMIT_BYTES, "y" * ID_LIMIT_BYTES),
                rotated="r" * 64,
            ),
            48,
            id="everything of full length -> still fewer",
        ),
    ],
)
def test_room_ends_before_the_limit(entry: AccessRecord, accesses: int) -> None:
    full = _filled(entry)
    assert len(full.accesses) == accesses
    assert len(encode_record(full)) <= RECORD_LIMIT_BYTES


def test_room_counts_accounts_that_are_still_to_come() -> None:
    """Many accesses are entered before any of their accounts is known."""
    pending = replace(ORDINARY, accounts=())
    full = _filled(pending)
    longest = ("x" * ID_LIMIT_BYTES, "y" * ID_LIMIT_BYTES)
    granted = replace(
        full, accesses={uid: replace(e, accounts=longest) for uid, e in full.accesses.items()}
    )
    assert len(encode_record(granted)) <= RECORD_LIMIT_BYTES


@pytest.mark.parametrize(
    ("found", "fits"),
    [
        pytest.param("", True, id="empty -> fits"),
        pytest.param("x" * ID_LIMIT_BYTES, True, id="exactly the limit -> fits"),
        pytest.param("x" * (ID_LIMIT_BYTES + 1), False, id="a byte more -> refused"),
        pytest.param("ä" * (ID_LIMIT_BYTES // 2), True, id="bytes count, at the limit -> fits"),
        pytest.param("ä" * (ID_LIMIT_BYTES // 2 + 1), False, id="bytes count -> refused"),
        pytest.param("\ud800", False, id="a lone surrogate -> refused"),
        pytest.param('"' * ID_LIMIT_BYTES, False, id="quotes take two bytes as JSON -> refused"),
    ],
)
def test_ids_that_the_record_can_hold(found: str, fits: bool) -> None:
    assert is_storable_id(found) is fits


def test_entry_of_one_access_leaves_the_others() -> None:
    both = with_access(RECORD, "a-2", ORDINARY)
    assert dict(both.accesses) == {**RECORD.accesses, "a-2": ORDINARY}
    assert with_access(both, "a-2", None) == RECORD
    assert with_access(RECORD, "a-3", None) == RECORD
