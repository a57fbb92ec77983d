"""What the record of a Bucket says, how an edit changes it, and what may be taken over into it."""

from typing import Any

import pytest
from msgspec.structs import replace
from tests.support.views import (
    BUCKET,
    CLAIM,
    DRIVER,
    ENTRY,
    FORMER,
    IDENTITY,
    KEYS_CLASS,
    MARKED,
    OLD_ACCESS,
    PENDING_ENTRY,
    READY,
    READY_CLAIM,
    RECORD,
    RECORDED,
    REF,
    STARTED,
    UNRECORDED,
    UP,
    meta,
    with_entries,
)

from cosi_operator.api.record import (
    FORMER_LIMIT_BYTES,
    ID_LIMIT_BYTES,
    AccessRecord,
    BucketRecord,
    ClaimIdentity,
    encode_record,
)
from cosi_operator.api.view import Bucket, BucketAccess, BucketClaim, ClaimRef, Key
from cosi_operator.plan import names, records
from cosi_operator.plan.access import plan
from cosi_operator.plan.access_entry import await_bucket
from cosi_operator.plan.access_view import ROTATE_TOKEN_LENGTH, AccessView
from cosi_operator.plan.records import RecordEdit
from cosi_operator.plan.steps import EditBucket, Revoke

OTHER = ClaimIdentity("team", "photos", "earlier-uid")
EARLIER = ClaimRef("team", "photos", "earlier-uid")
RESERVED = ClaimRef("team", "photos")
NOBODY = ClaimIdentity()


def bucket(
    claim: ClaimRef | None = REF, recorded: ClaimIdentity | None = IDENTITY, name: str = "b"
) -> Bucket:
    """A Bucket whose spec and record name these claims; without `recorded` it has no record."""
    record = None if recorded is None else replace(RECORD, claim=recorded)
    return replace(meta(READY, name=name, uid=f"uid-{name}"), claim=claim, record=record)


@pytest.mark.parametrize(
    ("found", "bound"),
    [
        pytest.param(bucket(), IDENTITY, id="spec and record agree -> that claim"),
        pytest.param(bucket(EARLIER), IDENTITY, id="spec names another claim -> the record wins"),
        pytest.param(bucket(None), IDENTITY, id="spec was cleared -> the record wins"),
        pytest.param(bucket(REF, NOBODY), IDENTITY, id="the record names none -> the spec"),
        pytest.param(bucket(REF, None), IDENTITY, id="no record -> the spec"),
        pytest.param(bucket(RESERVED, NOBODY), NOBODY, id="a reservation without a UID -> unbound"),
        pytest.param(
            bucket(RESERVED, ClaimIdentity("team", "photos")),
            NOBODY,
            id="a recorded claim without a UID -> unbound",
        ),
        pytest.param(bucket(None, None), NOBODY, id="neither -> unbound"),
        pytest.param(
            replace(bucket(None, None), copied_record=RECORD), NOBODY, id="a copied record -> void"
        ),
    ],
)
def test_bound_claim(found: Bucket, bound: ClaimIdentity) -> None:
    assert records.bound_claim(found) == bound


OWN = bucket(name=names.bucket_name("claim-uid"))


@pytest.mark.parametrize(
    ("claim", "buckets", "name"),
    [
        pytest.param(CLAIM, [], None, id="no Bucket -> none"),
        pytest.param(CLAIM, [bucket()], "b", id="one is bound -> that one"),
        pytest.param(CLAIM, [bucket(EARLIER, OTHER)], None, id="an earlier claim's -> none"),
        pytest.param(CLAIM, [bucket(RESERVED, NOBODY)], None, id="reserved without a UID -> none"),
        pytest.param(
            replace(CLAIM, bucket_name="other"),
            [bucket(ClaimRef("a", "b", "c"), ClaimIdentity("a", "b", "c"), "other")],
            None,
            id="the status names another tenant's Bucket -> none",
        ),
        pytest.param(
            CLAIM, [bucket(name="c"), bucket(name="a")], "a", id="two are bound -> first by name"
        ),
        pytest.param(
            replace(CLAIM, bucket_name="c"),
            [bucket(name="c"), bucket(name="a")],
            "c",
            id="two are bound -> the one that the status names",
        ),
        pytest.param(
            replace(CLAIM, bucket_name="c"),
            [bucket(name="c"), OWN, bucket(name="a")],
            OWN.meta.name,
            id="one was made for the claim -> that one, before the status",
        ),
        pytest.param(
            CLAIM,
            [bucket(REF, OTHER, "a"), bucket(name="z")],
            "z",
            id="the spec of one was forged -> the record decides",
        ),
        pytest.param(
            meta(CLAIM, namespace="other"), [bucket()], None, id="another namespace -> none"
        ),
    ],
)
def test_bucket_of_claim(claim: BucketClaim, buckets: list[Bucket], name: str | None) -> None:
    found = records.bucket_of_claim(claim, buckets)
    assert (found.meta.name if found else None) == name


@pytest.mark.parametrize(
    ("found", "keys"),
    [
        pytest.param(bucket(), {Key("team", "photos")}, id="one claim -> one key"),
        pytest.param(
            bucket(ClaimRef("a", "b", "c")),
            {Key("team", "photos"), Key("a", "b")},
            id="record and spec differ -> both keys",
        ),
        pytest.param(
            bucket(RESERVED, NOBODY), {Key("team", "photos")}, id="reserved -> the reserved key"
        ),
        pytest.param(bucket(None, None), set(), id="none -> no key"),
    ],
)
def test_keys_under_which_a_bucket_is_found(found: Bucket, keys: set[Key]) -> None:
    assert set(records.claims_of(found)) == keys
    assert len(records.claims_of(found)) == len(keys)


@pytest.mark.parametrize(
    ("found", "driver", "bucket_id"),
    [
        pytest.param(READY, DRIVER, "id-7", id="record without an id -> the status"),
        pytest.param(
            replace(RECORDED, driver_name="new.example.com", bucket_id="forged"),
            DRIVER,
            "id-7",
            id="spec and status changed -> the record wins",
        ),
        pytest.param(UNRECORDED, DRIVER, "id-7", id="no record -> spec and status"),
        pytest.param(
            replace(BUCKET, driver_name="new.example.com"),
            "new.example.com",
            "",
            id="a new record names no driver -> the spec",
        ),
        pytest.param(
            replace(UNRECORDED, bucket_id="", copied_record=RECORDED.record),
            DRIVER,
            "",
            id="a copied record -> its id is void",
        ),
    ],
)
def test_driver_and_id_of_a_bucket(found: Bucket, driver: str, bucket_id: str) -> None:
    assert (records.driver_of(found), records.bucket_id_of(found)) == (driver, bucket_id)


def test_entry_of_an_access() -> None:
    assert records.entry_of(RECORDED, "access-uid") == ENTRY
    assert records.entry_of(RECORDED, "other") is None
    assert records.entry_of(None, "access-uid") is None
    assert records.entry_of(UNRECORDED, "access-uid") is None
    copied = replace(UNRECORDED, copied_record=RECORDED.record)
    assert records.entry_of(copied, "access-uid") is None


WITH_ENTRY = replace(RECORD, accesses={"access-uid": ENTRY})
SET = RecordEdit(access_uid="access-uid", seen=None, entry=ENTRY)
CHANGE = RecordEdit(access_uid="access-uid", seen=ENTRY, entry=PENDING_ENTRY)
DROP = RecordEdit(access_uid="access-uid", seen=ENTRY, entry=None)


@pytest.mark.parametrize(
    ("edit", "record", "fits"),
    [
        pytest.param(SET, None, False, id="new entry, the record is gone -> decide again"),
        pytest.param(SET, RECORD, True, id="new entry, none there -> fits"),
        pytest.param(SET, WITH_ENTRY, False, id="new entry, one there -> decide again"),
        pytest.param(CHANGE, WITH_ENTRY, True, id="change, the seen one there -> fits"),
        pytest.param(CHANGE, RECORD, False, id="change, it is gone -> decide again"),
        pytest.param(CHANGE, None, False, id="change, the record is gone -> decide again"),
        pytest.param(
            CHANGE,
            replace(RECORD, accesses={"access-uid": replace(ENTRY, rotated="1")}),
            False,
            id="change, another field differs -> decide again",
        ),
        pytest.param(DROP, WITH_ENTRY, True, id="removal, the seen one there -> fits"),
        pytest.param(DROP, RECORD, False, id="removal, it is gone -> decide again"),
        pytest.param(
            DROP,
            replace(RECORD, accesses={"access-uid": ENTRY, "other": PENDING_ENTRY}),
            True,
            id="another access's entry changed -> fits",
        ),
        pytest.param(RecordEdit(driver="d"), WITH_ENTRY, True, id="no entry is edited -> fits"),
        pytest.param(RecordEdit(driver="d"), None, True, id="no entry, no record -> fits"),
    ],
)
def test_whether_an_edit_fits(edit: RecordEdit, record: BucketRecord | None, fits: bool) -> None:
    assert edit.fits(record) is fits


@pytest.mark.parametrize(
    ("edit", "record", "after"),
    [
        pytest.param(
            RecordEdit(), None, BucketRecord(bucket="u", name="b"), id="empty edit -> UID alone"
        ),
        pytest.param(
            RecordEdit(),
            RECORD,
            replace(RECORD, bucket="u", name="b"),
            id="empty edit of a record -> UID, the rest stays",
        ),
        pytest.param(
            RecordEdit(start=BucketRecord(former=FORMER), driver="d", claim=IDENTITY),
            None,
            BucketRecord(bucket="u", name="b", driver="d", claim=IDENTITY, former=FORMER),
            id="no record -> begins with start",
        ),
        pytest.param(
            RecordEdit(start=BucketRecord(former=FORMER), driver="d"),
            RECORD,
            replace(RECORD, bucket="u", name="b", driver="d"),
            id="a record is there by now -> start is ignored",
        ),
        pytest.param(
            RecordEdit(driver=""),
            RECORD,
            replace(RECORD, bucket="u", name="b", driver=""),
            id="empty driver -> the driver is removed",
        ),
        pytest.param(
            RecordEdit(bucket_id="id-7", access_uid="access-uid", entry=ENTRY),
            replace(RECORD, accesses={"other": PENDING_ENTRY}),
            replace(
                RECORD,
                bucket="u",
                name="b",
                bucket_id="id-7",
                accesses={"other": PENDING_ENTRY, "access-uid": ENTRY},
            ),
            id="entry -> added, the others stay",
        ),
        pytest.param(
            DROP,
            replace(WITH_ENTRY, bucket_id="id-7"),
            replace(RECORD, bucket="u", name="b", bucket_id="id-7"),
            id="entry of none -> removed, the id stays",
        ),
        pytest.param(
            RecordEdit(entry=ENTRY),
            RECORD,
            replace(RECORD, bucket="u", name="b"),
            id="an entry without an access -> ignored",
        ),
    ],
)
def test_record_after_an_edit(
    edit: RecordEdit, record: BucketRecord | None, after: BucketRecord
) -> None:
    revision = record.revision if record else 0
    assert edit.apply(record, "u", "b") == replace(after, revision=revision + 1)


@pytest.mark.parametrize(
    ("found", "access", "before"),
    [
        pytest.param(STARTED, OLD_ACCESS, True, id="listed with this account -> former"),
        pytest.param(
            STARTED,
            replace(OLD_ACCESS, account_id="victim"),
            False,
            id="listed with another account -> not",
        ),
        pytest.param(
            STARTED, replace(OLD_ACCESS, account_id=""), False, id="its account is gone -> not"
        ),
        pytest.param(
            STARTED,
            meta(OLD_ACCESS, uid="later-uid"),
            False,
            id="a later access of that name -> not",
        ),
        pytest.param(MARKED, OLD_ACCESS, False, id="not listed, whatever its age -> never"),
        pytest.param(UNRECORDED, OLD_ACCESS, False, id="no record -> not yet"),
        pytest.param(
            with_entries(STARTED, access_uid=PENDING_ENTRY),
            OLD_ACCESS,
            False,
            id="it has an entry -> not again",
        ),
        pytest.param(
            with_entries(STARTED, other=ENTRY),
            OLD_ACCESS,
            True,
            id="another has an entry -> former",
        ),
    ],
)
def test_is_former(found: Bucket, access: BucketAccess, before: bool) -> None:
    assert records.is_former(found, access) is before


def test_a_copied_record_counts_only_for_the_uid_that_it_names() -> None:
    """A restored access has another UID, and a tenant can write any account into its status."""
    entry = AccessRecord(namespace="ns", name="a", accounts=("acct-a",))
    copied = BucketRecord(accesses={"uid-a": entry}, former={"uid-b": "acct-b"})
    listed = {
        (uid, account): records.could_be_former(
            meta(replace(OLD_ACCESS, account_id=account), uid=uid), copied
        )
        for uid in ("uid-a", "uid-b", "restored-uid")
        for account in ("acct-a", "acct-b", "acct-c")
    }
    assert {pair for pair, yes in listed.items() if yes} == {
        ("uid-a", "acct-a"),
        ("uid-b", "acct-b"),
    }
    assert records.could_be_former(OLD_ACCESS, None)


def test_accounts_of_a_copied_record_that_nobody_takes_over_are_left() -> None:
    entry = AccessRecord(namespace="ns", name="a", accounts=("acct-1", "acct-2"))
    copied = BucketRecord(accesses={"uid-a": entry}, former={"uid-b": "acct-3"})
    assert records.accounts_left(copied, BucketRecord()) == {
        "acct-1": "ns/a",
        "acct-2": "ns/a",
        "acct-3": "uid-b",
    }
    started = BucketRecord(former={"uid-a": "acct-2", "uid-b": "acct-3"})
    assert records.accounts_left(copied, started) == {"acct-1": "ns/a"}


def test_former_accesses_are_listed_with_their_accounts_and_within_the_limit() -> None:
    def access(uid: str, **fields: object) -> BucketAccess:
        return replace(meta(OLD_ACCESS, uid=uid), **fields)

    listed = [
        access("b", account_id="acct-b"),
        access("waits", account_id=""),
        meta(OLD_ACCESS, uid="not-held", finalizers=()),
        access("long", account_id="x" * (ID_LIMIT_BYTES + 1)),
        access("a", account_id="acct-a"),
    ]
    assert records.former_accesses(listed, None) == {"a": "acct-a", "b": "acct-b"}
    many = [access(f"uid-{n:05}", account_id="x" * 1000) for n in range(1000)]
    former = records.former_accesses(many, None)
    assert list(former) == [f"uid-{n:05}" for n in range(len(former))]
    assert 30 < len(former) < 100
    size = len(encode_record(replace(RECORD, former=former)))
    assert size < FORMER_LIMIT_BYTES


def seen(access: BucketAccess = OLD_ACCESS, **more: object) -> AccessView:
    given: dict[str, object] = {
        "access_class": KEYS_CLASS,
        "claim": READY_CLAIM,
        "bucket": STARTED,
        "context": UP,
        **more,
    }
    return AccessView(access=access, **given)  # type: ignore[arg-type]  # a table's shorthand


def taken(entry: AccessRecord = ENTRY) -> EditBucket:
    return EditBucket(
        STARTED.meta.key,
        add=(names.BUCKET_ACCESS_FINALIZER,),
        record=RecordEdit(bucket_id="id-7", access_uid="access-uid", seen=None, entry=entry),
    )


@pytest.mark.parametrize(
    ("view", "entry"),
    [
        pytest.param(seen(), ENTRY, id="all agree -> its account is recorded"),
        pytest.param(
            seen(meta(OLD_ACCESS, deleting=True)),
            ENTRY,
            id="being deleted -> recorded, then revoked",
        ),
        pytest.param(
            seen(replace(OLD_ACCESS, granted=False)),
            ENTRY,
            id="not granted, an account -> recorded",
        ),
        pytest.param(
            seen(meta(OLD_ACCESS, annotations={names.ROTATE_ANNOTATION: "1"})),
            replace(ENTRY, rotated="1"),
            id="a rotate annotation from before -> counts as followed",
        ),
        pytest.param(
            seen(meta(OLD_ACCESS, annotations={names.ROTATE_ANNOTATION: "x" * 9999})),
            replace(ENTRY, rotated="x" * ROTATE_TOKEN_LENGTH),
            id="a huge rotate annotation -> only its start is recorded",
        ),
        pytest.param(
            seen(replace(OLD_ACCESS, secret_name="")),
            replace(ENTRY, secret=""),
            id="no Secret's name -> recorded without",
        ),
        pytest.param(
            seen(access_class=None),
            replace(ENTRY, class_name=""),
            id="the class is gone -> recorded at the Bucket's driver",
        ),
    ],
)
def test_access_from_before_the_record_is_taken_over(view: AccessView, entry: AccessRecord) -> None:
    assert plan(view) == taken(entry)


DISAGREEMENTS = [
    pytest.param(
        seen(replace(OLD_ACCESS, account_id="victim")),
        id="its status names another account than the list -> nothing",
    ),
    pytest.param(seen(meta(OLD_ACCESS, uid="later-uid")), id="the list lacks it -> nothing"),
    pytest.param(seen(meta(OLD_ACCESS, finalizers=("a/b",))), id="not our finalizer -> nothing"),
    pytest.param(seen(replace(OLD_ACCESS, account_id="")), id="no account -> nothing"),
    pytest.param(seen(rivals=True), id="another names the account -> nothing"),
    pytest.param(seen(vanished=True), id="the Bucket was removed by force -> nothing"),
    pytest.param(
        seen(claim=meta(READY_CLAIM, uid="later-uid")), id="a later claim of that name -> nothing"
    ),
    pytest.param(
        seen(bucket=replace(STARTED, record=replace(RECORD, former=FORMER, claim=OTHER))),
        id="the Bucket is bound to another claim -> nothing",
    ),
    pytest.param(
        seen(
            bucket=replace(
                STARTED, claim=RESERVED, record=replace(RECORD, former=FORMER, claim=NOBODY)
            )
        ),
        id="the Bucket is only reserved for the claim -> nothing",
    ),
    pytest.param(seen(bucket=MARKED), id="the record lists nothing -> nothing"),
    pytest.param(
        seen(bucket=replace(UNRECORDED, copied_record=STARTED.record)),
        id="the record was copied -> nothing",
    ),
    pytest.param(
        seen(bucket=with_entries(STARTED, access_uid=PENDING_ENTRY)),
        id="it has an entry without an account -> the status adds none",
    ),
    pytest.param(
        seen(bucket=replace(STARTED, record=replace(RECORD, former=FORMER, driver="other"))),
        id="the Bucket is another driver's -> nothing",
    ),
    pytest.param(
        seen(replace(OLD_ACCESS, account_id="x" * (ID_LIMIT_BYTES + 1))),
        id="an account longer than any that is accepted -> nothing",
    ),
    pytest.param(
        seen(replace(OLD_ACCESS, secret_name="x" * 9999)),
        id="a name that no Secret can have -> nothing",
    ),
]


@pytest.mark.parametrize("view", DISAGREEMENTS)
def test_single_disagreement_takes_nothing_over(view: AccessView) -> None:
    for deleting in (False, True):
        assert view.access is not None
        access = meta(view.access, deleting=deleting)
        step = plan(replace_access(view, access))
        assert not isinstance(step, Revoke)
        if isinstance(step, EditBucket):
            assert step.record is not None
            entry = step.record.entry
            assert entry is None or access.account_id not in entry.accounts


def test_an_access_of_a_claim_that_is_gone_is_taken_over_only_to_be_revoked() -> None:
    view = seen(claim=None)
    assert not isinstance(plan(view), EditBucket)
    step = plan(replace_access(view, meta(OLD_ACCESS, deleting=True)))
    assert isinstance(step, EditBucket)
    assert step.record is not None
    assert step.record.entry == ENTRY
    elsewhere = meta(replace(OLD_ACCESS, claim_name="elsewhere"), deleting=True)
    assert not isinstance(plan(replace_access(view, elsewhere)), EditBucket)


def replace_access(view: AccessView, access: BucketAccess) -> AccessView:
    fields = {name: getattr(view, name) for name in AccessView.__slots__}
    return AccessView(**{**fields, "access": access})


def test_bucket_without_a_record_makes_its_accesses_wait() -> None:
    wait = await_bucket(f"The record of Bucket {UNRECORDED.meta.name} is not started yet.")
    assert plan(seen(bucket=UNRECORDED)) == wait
    assert plan(seen(meta(OLD_ACCESS, deleting=True), bucket=UNRECORDED)) == wait


def test_account_that_fits_exactly_is_taken_over() -> None:
    account = "x" * ID_LIMIT_BYTES
    bucket = replace(STARTED, record=replace(RECORD, former={"access-uid": account}))
    view = seen(replace(OLD_ACCESS, account_id=account), bucket=bucket)
    assert plan(view) == taken(replace(ENTRY, accounts=(account,)))


@pytest.mark.parametrize(
    ("account", "view"),
    [
        pytest.param(
            "acct-7", {"revoked": frozenset({"acct-7"})}, id="its account was revoked -> not again"
        ),
        pytest.param(
            "victim", {"revoked": frozenset({"acct-7"})}, id="its status was forged -> not recorded"
        ),
        pytest.param("acct-7", {"nothing_to_revoke": True}, id="given up -> not again"),
    ],
)
def test_access_whose_entry_the_deletion_removed_is_not_taken_over_again(
    account: str, view: dict[str, object]
) -> None:
    going = replace(meta(OLD_ACCESS, deleting=True), account_id=account)
    step = plan(seen(going, bucket_proven=True, **view))
    assert not isinstance(step, EditBucket | Revoke)


MIDDAY = "2026-01-01T12:00:00Z"
CLAIM_REF = ClaimRef("team", "photos", "claim-uid")
OF_IT = ClaimIdentity("team", "photos", "claim-uid")
RECORDS_IT = BucketRecord(claim=OF_IT)


def _bucket(name: str, day: int, **fields: Any) -> Bucket:
    created = f"2026-01-{day:02}T00:00:00Z"
    meta = replace(BUCKET.meta, name=name, uid=f"{name}-uid", created=created)
    return replace(BUCKET, meta=meta, claim=CLAIM_REF, **{"record": None, **fields})


@pytest.mark.parametrize(
    ("other", "does"),
    [
        pytest.param(_bucket("old", 2, record=RECORDS_IT), True, id="its record names the claim"),
        pytest.param(
            _bucket("old", 1, record=BucketRecord(claim=OTHER)),
            False,
            id="its record names another",
        ),
        pytest.param(_bucket("target", 2), True, id="the claim leads to it"),
        pytest.param(_bucket("old", 1), True, id="it is older"),
        pytest.param(_bucket("old", 2), False, id="it is younger"),
        pytest.param(
            _bucket("old", 1, copied_record=replace(RECORDS_IT, bucket="x", name="source")),
            False,
            id="it is a copy under another name itself",
        ),
        pytest.param(replace(_bucket("old", 1), claim=EARLIER), False, id="it names another claim"),
    ],
)
def test_of_two_buckets_without_the_claims_record(other: Bucket, does: bool) -> None:
    mine = replace(_bucket("mine", 1), meta=replace(BUCKET.meta, name="mine", created=MIDDAY))
    assert records.precedes(other, mine, OF_IT, "target") is does
