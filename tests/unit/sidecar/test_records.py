"""The record of a Bucket: how it is written, what is remembered of it, and how it is found."""

import json
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import pytest
from msgspec.structs import replace
from tests.model.memory import Json, MemoryApi
from tests.model.processes import MemoryClient
from tests.support.clock import FakeClock

from cosi_operator.api.decode import decode_bucket, decode_bucket_access, decode_bucket_claim
from cosi_operator.api.record import (
    RECORD_ANNOTATION,
    AccessRecord,
    BucketRecord,
    ClaimIdentity,
    decode_record,
    encode_record,
)
from cosi_operator.api.resources import BUCKET_ACCESSES, BUCKET_CLAIMS, BUCKETS
from cosi_operator.api.view import Bucket, BucketAccess, BucketClaim, Key, Resource
from cosi_operator.kube.errors import Conflict
from cosi_operator.kube.objects import STATUS_TRIES, Objects
from cosi_operator.kube.store import Store
from cosi_operator.plan import names
from cosi_operator.plan.records import RecordEdit, claim_if_finalizer
from cosi_operator.plan.steps import EditBucket
from cosi_operator.sidecar.record_memory import RecordMemory
from cosi_operator.sidecar.records import (
    BUCKET_INDEXES,
    BY_ACCOUNT,
    BY_CLAIM,
    WITH_FINALIZER_BY_CLAIM,
    RecordLookup,
)
from cosi_operator.sidecar.records import (
    edit_bucket as edit_bucket_of,
)

KEY = Key("", "bucket-1")
ONE = Key("team", "one")
PHOTOS = ClaimIdentity("team", "photos", "bucketclaim-photos-1")
MARK = names.BUCKET_ACCESS_FINALIZER


def entry(name: str = "one", *accounts: str) -> AccessRecord:
    return AccessRecord("team", name, secret=f"{name}-keys", accounts=accounts)


def now[R](coroutine: Coroutine[Any, Any, R]) -> R:
    """Run to the end, past every point at which it could be held."""
    while True:
        try:
            coroutine.send(None)
        except StopIteration as end:
            result: R = end.value
            return result


class Cluster:
    """An API server, and the caches of a sidecar, which hold what `sync` last brought."""

    def __init__(self) -> None:
        self.api = MemoryApi(FakeClock().wall)
        self.client = MemoryClient(self.api, "sidecar", [])
        self.memory = RecordMemory()
        self.buckets: Objects[Bucket] = self._objects(
            BUCKETS, Store(decode_bucket, BUCKET_INDEXES), self._note
        )
        self.claims: Objects[BucketClaim] = self._objects(
            BUCKET_CLAIMS, Store(decode_bucket_claim), _ignore
        )
        indexes: dict[str, Callable[[BucketAccess], Iterable[Any]]] = {
            BY_CLAIM: lambda access: (access.claim_key,),
            WITH_FINALIZER_BY_CLAIM: claim_if_finalizer,
            BY_ACCOUNT: lambda access: (access.account_id,) if access.account_id else (),
        }
        self.accesses: Objects[BucketAccess] = self._objects(
            BUCKET_ACCESSES, Store(decode_bucket_access, indexes), _ignore
        )
        self.lookup = RecordLookup(self.buckets, self.accesses, self.claims, self.memory)

    def _objects[T](self, resource: Resource, store: Store[T], changed: Any) -> Objects[T]:
        return Objects(self.client, resource, store, changed)

    def _note(self, _key: Key, old: Bucket | None, new: Bucket | None) -> None:
        self.memory.note(old, new)

    def sync(self) -> None:
        kinds: tuple[Objects[Any], ...] = (self.buckets, self.claims, self.accesses)
        for objects in kinds:
            bodies = [json.dumps(b).encode() for b in self.api.list(objects.resource)]
            for key, old, new in objects.store.replace(bodies, str(self.api.version)):
                objects.changed(key, old, new)

    # --- what others do

    def bucket(
        self,
        record: BucketRecord | None = None,
        name: str = KEY.name,
        *,
        claim: str = "photos",
        finalizers: Iterable[str] = (names.BUCKET_FINALIZER,),
        bucket_id: str = "",
    ) -> Json:
        uid = f"bucket-{name}-1"
        annotations = {}
        if record is not None:
            annotations = {RECORD_ANNOTATION: encode_record(replace(record, bucket=uid))}
        reference = {"namespace": "team", "name": claim, "uid": f"bucketclaim-{claim}-1"}
        body = self._create(
            BUCKETS,
            {"name": name, "finalizers": list(finalizers), "annotations": annotations},
            {"driverName": "s3.example.com", "bucketClaim": reference},
        )
        return self._status(BUCKETS, body, bucketReady=True, bucketID=bucket_id)

    def claim(self, name: str = "photos") -> None:
        self._create(BUCKET_CLAIMS, {"name": name, "namespace": "team"}, {})

    def access(
        self, name: str = "one", *, claim: str = "photos", account: str = "", held: bool = True
    ) -> None:
        finalizers = [names.ACCESS_FINALIZER] if held else []
        body = self._create(
            BUCKET_ACCESSES,
            {"name": name, "namespace": "team", "finalizers": finalizers},
            {"bucketClaimName": claim, "credentialsSecretName": f"{name}-keys"},
        )
        self._status(BUCKET_ACCESSES, body, accountID=account)

    def _create(self, resource: Resource, meta: Json, spec: Json) -> Json:
        head = {"apiVersion": resource.api_version, "kind": resource.kind}
        return self.api.create(resource, {**head, "metadata": meta, "spec": spec})

    def _status(self, resource: Resource, body: Json, **status: Any) -> Json:
        return self.api.update(resource, {**body, "status": status}, subresource="status")

    def edit(self, change: Callable[[Json], None], key: Key = KEY) -> None:
        """Somebody edits the Bucket; the cache does not know it yet."""
        body: Json = json.loads(json.dumps(self.api.get(BUCKETS, key)))
        change(body)
        self.api.update(BUCKETS, body)

    def enter(self, uid: str, what: AccessRecord | None) -> None:
        """Another run writes an entry; the cache does not know it yet."""

        def change(body: Json) -> None:
            record = decode_record(body["metadata"]["annotations"][RECORD_ANNOTATION])
            assert record is not None
            accesses = {k: v for k, v in record.accesses.items() if k != uid}
            accesses |= {uid: what} if what else {}
            body["metadata"]["annotations"][RECORD_ANNOTATION] = encode_record(
                replace(record, accesses=accesses)
            )

        self.edit(change)

    # --- what is stored

    def view(self) -> Bucket:
        return decode_bucket(json.dumps(self.api.get(BUCKETS, KEY)).encode())

    def entries(self) -> dict[str, AccessRecord]:
        record = self.view().record
        return dict(record.accesses) if record else {}


def _ignore(*_: object) -> None:
    """The change matters to nobody."""


@pytest.fixture
def cluster() -> Cluster:
    made = Cluster()
    made.bucket(BucketRecord(claim=PHOTOS))
    made.sync()
    return made


def edit_bucket(buckets: Objects[Bucket], step: EditBucket) -> Coroutine[Any, Any, Bucket | None]:
    """Edit the Bucket that the cache holds."""
    held = buckets.get(KEY)
    return edit_bucket_of(buckets, step, held.meta.uid if held else "")


def add_entry(uid: str = "uid-1", *, seen: AccessRecord | None = None) -> EditBucket:
    edit = RecordEdit(access_uid=uid, seen=seen, entry=entry())
    return EditBucket(KEY, add=(MARK,), record=edit)


def remove_entry(uid: str, seen: AccessRecord) -> EditBucket:
    edit = RecordEdit(access_uid=uid, seen=seen, entry=None)
    return EditBucket(KEY, remove=(MARK,), record=edit)


# --- edit_bucket


def test_another_access_is_entered_meanwhile_and_both_entries_are_stored(cluster: Cluster) -> None:
    cluster.enter("uid-2", entry("two"))
    edited = now(edit_bucket(cluster.buckets, add_entry()))
    assert cluster.entries() == {"uid-1": entry(), "uid-2": entry("two")}
    assert edited == cluster.view()
    assert MARK in cluster.view().meta.finalizers


def test_the_entry_itself_changes_meanwhile_and_the_plan_decides_again(cluster: Cluster) -> None:
    cluster.enter("uid-1", entry("one", "acct-1"))
    with pytest.raises(Conflict, match="record of bucket-1 changed"):
        now(edit_bucket(cluster.buckets, add_entry()))
    assert cluster.entries() == {"uid-1": entry("one", "acct-1")}
    assert MARK not in cluster.view().meta.finalizers
    cached = cluster.buckets.get(KEY)
    assert cached == cluster.view()  # fresh for the plan


def test_the_bucket_is_replaced_meanwhile_and_no_entry_goes_into_the_record_of_another_object(
    cluster: Cluster,
) -> None:
    """A copied record is void: it neither has the entry that the plan saw nor keeps its own."""
    cluster.enter("uid-1", entry())
    cluster.sync()
    copied = encode_record(BucketRecord(bucket="other", accesses={"uid-1": entry()}))
    cluster.edit(lambda b: b["metadata"]["annotations"].update({RECORD_ANNOTATION: copied}))
    with pytest.raises(Conflict):
        now(edit_bucket(cluster.buckets, add_entry(seen=entry())))
    assert cluster.view().record is None


class Busy(MemoryClient):
    """Somebody writes the Bucket before each of the first `times` updates."""

    times = 0

    async def update(self, resource: Resource, body: Any, *, subresource: str = "") -> bytes:
        if self.times:
            self.times -= 1
            held: Json = json.loads(json.dumps(self._api.get(BUCKETS, KEY)))
            held["metadata"]["labels"] = {"writes-left": str(self.times)}
            self._api.update(BUCKETS, held)
        return await super().update(resource, body, subresource=subresource)


def busy(cluster: Cluster, times: int) -> Objects[Bucket]:
    client = Busy(cluster.api, "sidecar", [])
    client.times = times
    return Objects(client, BUCKETS, cluster.buckets.store, _ignore)


@pytest.mark.parametrize(
    ("times", "stored"),
    [
        pytest.param(1, True, id="one other write -> stored"),
        pytest.param(STATUS_TRIES - 1, True, id="one write fewer than tries -> stored"),
        pytest.param(STATUS_TRIES, False, id="as many other writes as tries -> Conflict"),
    ],
)
def test_an_entry_is_written_again_on_the_fresh_copy(
    cluster: Cluster, times: int, stored: bool
) -> None:
    buckets = busy(cluster, times)
    if stored:
        now(edit_bucket(buckets, add_entry()))
    else:
        with pytest.raises(Conflict):
            now(edit_bucket(buckets, add_entry()))
    assert cluster.entries() == ({"uid-1": entry()} if stored else {})


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(None, id="finalizers alone"),
        pytest.param(RecordEdit(driver="s3.example.com"), id="the driver"),
        pytest.param(RecordEdit(claim=PHOTOS), id="the claim"),
    ],
)
def test_an_edit_that_concerns_no_access_is_decided_again_after_one_conflict(
    cluster: Cluster, record: RecordEdit | None
) -> None:
    before = cluster.view().record
    with pytest.raises(Conflict):
        now(edit_bucket(busy(cluster, 1), EditBucket(KEY, add=("a/b",), record=record)))
    assert cluster.view().record == before
    assert "a/b" not in cluster.view().meta.finalizers


@pytest.mark.parametrize(
    ("others", "marked"),
    [
        pytest.param({}, False, id="the last entry -> the mark is removed"),
        pytest.param({"uid-2": entry("two")}, True, id="another entry -> the mark stays"),
    ],
)
def test_the_mark_stays_while_another_access_has_an_entry(
    others: dict[str, AccessRecord], marked: bool
) -> None:
    cluster = Cluster()
    record = BucketRecord(claim=PHOTOS, accesses={"uid-1": entry()})
    cluster.bucket(record, finalizers=[names.BUCKET_FINALIZER, MARK])
    cluster.sync()
    for uid, other in others.items():  # written after the plan of uid-1 has looked
        cluster.enter(uid, other)
    now(edit_bucket(cluster.buckets, remove_entry("uid-1", entry())))
    assert cluster.entries() == others
    assert (MARK in cluster.view().meta.finalizers) is marked


def test_the_bucket_is_being_deleted_and_gets_an_entry_but_no_finalizer(cluster: Cluster) -> None:
    """The API server refuses a new finalizer then, and the whole write with it."""
    cluster.api.delete(BUCKETS, KEY)
    cluster.sync()
    now(edit_bucket(cluster.buckets, add_entry()))
    assert cluster.entries() == {"uid-1": entry()}
    assert cluster.view().meta.finalizers == (names.BUCKET_FINALIZER,)


def test_another_bucket_of_the_same_name_gets_no_entry(cluster: Cluster) -> None:
    with pytest.raises(Conflict):
        now(edit_bucket_of(cluster.buckets, add_entry(), "uid-of-the-replaced-bucket"))
    assert cluster.entries() == {}


def test_a_bucket_that_is_gone_is_none(cluster: Cluster) -> None:
    cluster.api._remove(BUCKETS, KEY, cluster.api.get(BUCKETS, KEY))
    assert now(edit_bucket(cluster.buckets, add_entry())) is None
    assert cluster.api.list(BUCKETS) == []


# --- RecordMemory


def drop_record(body: Json) -> None:
    del body["metadata"]["annotations"]


def test_a_record_that_was_removed_is_remembered_until_the_bucket_has_one_again() -> None:
    cluster = Cluster()
    cluster.bucket(BucketRecord(claim=PHOTOS, accesses={"uid-1": entry()}))
    cluster.sync()
    kept = cluster.view().record
    assert cluster.memory.removed_record(cluster.view()) is None
    cluster.edit(drop_record)
    cluster.sync()
    cluster.edit(lambda body: body["metadata"].update(labels={"seen": "again"}))
    cluster.sync()
    assert cluster.view().record is None
    assert cluster.memory.removed_record(cluster.view()) == kept
    now(edit_bucket(cluster.buckets, EditBucket(KEY, record=RecordEdit(start=kept))))
    assert kept is not None
    assert cluster.view().record == replace(kept, name=KEY.name, revision=kept.revision + 1)
    assert cluster.memory.removed_record(cluster.view()) is None


# --- an older copy of the record is written over the present one


def put_record(cluster: Cluster, record: BucketRecord) -> None:
    def edit(body: Json) -> None:
        named = replace(record, bucket=body["metadata"]["uid"])
        body["metadata"]["annotations"] = {RECORD_ANNOTATION: encode_record(named)}

    cluster.edit(edit)
    cluster.sync()


PRESENT = BucketRecord(
    revision=7,
    claim=PHOTOS,
    driver="s3.example.com",
    bucket_id="id-7",
    accesses={"uid-1": entry("one", "acct-1", "acct-2"), "uid-2": entry("two", "acct-3")},
)


@pytest.mark.parametrize(
    ("older", "lost"),
    [
        pytest.param(PRESENT, None, id="the same -> nothing is lost"),
        pytest.param(
            replace(PRESENT, accesses={**PRESENT.accesses, "uid-0": entry("zero", "acct-0")}),
            None,
            id="more than was there -> nothing is lost",
        ),
        pytest.param(
            replace(PRESENT, accesses={"uid-1": PRESENT.accesses["uid-1"]}),
            BucketRecord(7, accesses={"uid-2": entry("two", "acct-3")}),
            id="an entry less -> lost",
        ),
        pytest.param(
            replace(PRESENT, accesses={**PRESENT.accesses, "uid-1": entry("one", "acct-1")}),
            BucketRecord(7, accesses={"uid-1": entry("one", "acct-2")}),
            id="an account less -> lost",
        ),
        pytest.param(
            replace(PRESENT, accesses={**PRESENT.accesses, "uid-1": entry("one")}),
            BucketRecord(7, accesses={"uid-1": entry("one", "acct-1", "acct-2")}),
            id="an entry as it was before the Grant -> its accounts are lost",
        ),
        pytest.param(
            replace(PRESENT, bucket_id="", driver=""),
            BucketRecord(7, bucket_id="id-7", driver="s3.example.com"),
            id="as it was before the Create -> id and driver are lost",
        ),
        pytest.param(
            replace(PRESENT, bucket_id="id-of-another"),
            BucketRecord(7, bucket_id="id-7"),
            id="another id -> lost",
        ),
        pytest.param(
            replace(PRESENT, revision=6, claim=ClaimIdentity()),
            BucketRecord(7, claim=PHOTOS),
            id="older, from before its claim -> the claim is lost",
        ),
        pytest.param(
            replace(PRESENT, claim=ClaimIdentity("team", "films", "bucketclaim-films-1")),
            None,
            id="a person edited the claim -> nothing is lost",
        ),
        pytest.param(
            replace(PRESENT, revision=8, bucket_id="", driver="", accesses={}),
            None,
            id="another process of ours edited it -> nothing is lost",
        ),
    ],
)
def test_what_an_older_record_lacks_is_remembered_and_put_back(
    older: BucketRecord, lost: BucketRecord | None
) -> None:
    cluster = Cluster()
    cluster.bucket(PRESENT)
    cluster.sync()
    put_record(cluster, older)
    assert cluster.memory.lost_record(cluster.view()) == lost
    if lost is None:
        return
    assert cluster.memory.is_incomplete(cluster.view(), "uid-1")
    assert cluster.memory.is_incomplete(None, "uid-1") is ("uid-1" in lost.accesses)
    step = EditBucket(KEY, record=RecordEdit(restored=lost))
    now(edit_bucket(cluster.buckets, step))
    record = cluster.view().record
    assert record is not None
    assert (record.bucket_id, record.driver) == ("id-7", "s3.example.com")
    for uid, entry_then in PRESENT.accesses.items():
        back = cluster.entries()[uid]
        assert set(back.accounts) == set(entry_then.accounts)
        asks = uid in older.accesses and older.accesses[uid] != entry_then
        assert bool(back.minted) is asks, "only an entry that was put together asks for a Grant"


def test_an_entry_that_this_process_removes_is_not_lost(cluster: Cluster) -> None:
    now(edit_bucket(cluster.buckets, add_entry()))
    now(edit_bucket(cluster.buckets, remove_entry("uid-1", entry())))
    assert cluster.memory.lost_record(cluster.view()) is None


def test_two_older_records_in_a_row_lose_what_both_lack() -> None:
    cluster = Cluster()
    cluster.bucket(PRESENT)
    cluster.sync()
    put_record(cluster, replace(PRESENT, accesses={"uid-2": PRESENT.accesses["uid-2"]}))
    put_record(cluster, replace(PRESENT, accesses={}))
    lost = cluster.memory.lost_record(cluster.view())
    assert lost is not None
    assert lost.accesses == PRESENT.accesses
    remove_by_force(cluster)
    cluster.sync()
    assert not cluster.memory.is_incomplete(None, "uid-1")


def remove_by_force(cluster: Cluster) -> None:
    cluster.api._remove(BUCKETS, KEY, cluster.api.get(BUCKETS, KEY))


def test_a_record_is_not_remembered_for_a_later_bucket_of_the_same_name() -> None:
    cluster = Cluster()
    cluster.bucket(BucketRecord(claim=PHOTOS, accesses={"uid-1": entry()}))
    cluster.sync()
    cluster.edit(drop_record)
    cluster.sync()
    remove_by_force(cluster)
    cluster.sync()
    cluster.bucket()
    cluster.sync()
    assert cluster.memory.removed_record(cluster.view()) is None
    assert cluster.memory.removed_record(None) is None


@pytest.mark.parametrize("successor", [False, True], ids=["it is gone", "another took its name"])
def test_a_bucket_is_removed_by_force_and_its_entries_are_remembered_until_they_are_revoked(
    successor: bool,
) -> None:
    cluster = Cluster()
    entries = {"uid-1": entry("one", "acct-1"), "uid-2": entry("two", "acct-2")}
    cluster.bucket(BucketRecord(claim=PHOTOS, bucket_id="id-1", accesses=entries))
    cluster.sync()
    before = cluster.view()
    remove_by_force(cluster)
    if successor:
        cluster.bucket()
    cluster.sync()
    memory = cluster.memory
    assert memory.vanished_bucket("uid-1") == memory.vanished_bucket("uid-2") == before
    assert memory.vanished_bucket("uid-3") is None
    assert list(memory.vanished_accesses(ONE)) == [("uid-1", entries["uid-1"], before)]
    memory.forget_access("uid-1")
    memory.forget_access("uid-1")
    assert memory.vanished_bucket("uid-1") is None
    assert list(memory.vanished_accesses(ONE)) == []
    assert memory.vanished_bucket("uid-2") == before


@pytest.mark.parametrize(
    ("finalizers", "released"),
    [
        pytest.param([], True, id="without our finalizer -> its claim may wait for it"),
        pytest.param(["a/b"], True, id="only with another's -> its claim may wait for it"),
        pytest.param([names.BUCKET_FINALIZER], False, id="with our finalizer -> by force"),
    ],
)
def test_a_bucket_that_vanishes(finalizers: list[str], released: bool) -> None:
    cluster = Cluster()
    cluster.bucket(BucketRecord(claim=PHOTOS), finalizers=finalizers)
    cluster.sync()
    before = cluster.view()
    remove_by_force(cluster)
    cluster.sync()
    assert cluster.memory.released_bucket(KEY.name) == (before if released else None)
    cluster.memory.forget_released(KEY.name)
    assert cluster.memory.released_bucket(KEY.name) is None


# --- RecordLookup


def uid_of(name: str) -> str:
    return f"bucketaccess-{name}-1"


OLD = BucketRecord(claim=PHOTOS, former={uid_of("one"): "acct-1"})


def found(cluster: Cluster) -> set[str]:
    return {access.meta.name for access in cluster.lookup.accesses_of(cluster.buckets.get(KEY))}


def test_the_accesses_of_a_bucket_are_those_in_its_record_wherever_their_spec_leads() -> None:
    cluster = Cluster()
    recorded = {uid_of("one"): entry("one", "acct-1"), uid_of("gone"): entry("gone")}
    cluster.bucket(BucketRecord(claim=PHOTOS, accesses=recorded))
    cluster.claim()
    cluster.claim("other")
    cluster.access("one", claim="other")
    cluster.access("two")  # names the claim, and the record does not name it
    cluster.sync()
    assert found(cluster) == {"one"}
    assert list(cluster.lookup.accesses_of(None)) == []


def test_an_access_of_the_recorded_name_and_another_uid_is_another_access() -> None:
    cluster = Cluster()
    cluster.bucket(BucketRecord(claim=PHOTOS, accesses={"earlier": entry("one", "acct-1")}))
    cluster.access("one")
    cluster.sync()
    assert found(cluster) == set()
    (orphan,) = cluster.lookup.orphans(ONE)
    assert orphan == ("earlier", entry("one", "acct-1"), cluster.buckets.get(KEY))


@pytest.mark.parametrize(
    ("record", "account", "held", "counts"),
    [
        pytest.param(OLD, "acct-1", True, True, id="listed -> counts"),
        pytest.param(OLD, "victim", True, False, id="listed with another -> does not count"),
        pytest.param(OLD, "acct-1", False, False, id="without our finalizer -> does not count"),
        pytest.param(
            BucketRecord(claim=PHOTOS), "acct-1", True, False, id="not listed -> does not count"
        ),
        pytest.param(None, "acct-1", True, True, id="no record yet -> is to be listed"),
        pytest.param(None, "", True, False, id="no record yet, no account -> is not"),
        pytest.param(
            replace(OLD, claim=ClaimIdentity("team", "photos", "an-earlier-claim")),
            "acct-1",
            True,
            False,
            id="the claim has another UID -> does not count",
        ),
    ],
)
def test_an_access_from_before_the_record_belongs_to_the_bucket(
    record: BucketRecord | None, account: str, held: bool, counts: bool
) -> None:
    cluster = Cluster()
    cluster.bucket(record)
    cluster.claim()
    cluster.access("one", account=account, held=held)
    cluster.sync()
    assert found(cluster) == ({"one"} if counts else set())


def test_the_claim_is_gone_and_an_access_from_before_the_record_still_counts() -> None:
    cluster = Cluster()
    cluster.bucket(OLD)
    cluster.access("one", account="acct-1")
    cluster.sync()
    assert found(cluster) == {"one"}


def test_an_access_that_another_record_names_is_not_listed_again() -> None:
    cluster = Cluster()
    cluster.bucket(None)
    cluster.claim()
    cluster.access("one", account="acct-1")
    cluster.bucket(
        BucketRecord(claim=PHOTOS, accesses={uid_of("one"): entry("one", "acct-1")}), name="other"
    )
    cluster.sync()
    assert found(cluster) == set()


@pytest.mark.parametrize(("bucket_id", "listed"), [("id-7", {"one"}), ("id-8", set())])
def test_a_bucket_replaces_another_one_of_its_name(bucket_id: str, listed: set[str]) -> None:
    cluster = Cluster()
    recorded = {uid_of("one"): entry("one", "acct-1")}
    cluster.bucket(BucketRecord(claim=PHOTOS, bucket_id="id-7", accesses=recorded))
    cluster.claim()
    cluster.access("one", account="acct-1")
    cluster.sync()
    remove_by_force(cluster)
    cluster.sync()
    cluster.bucket(None, bucket_id=bucket_id)
    cluster.sync()
    assert found(cluster) == listed


def rival(cluster: Cluster) -> bool:
    cluster.sync()
    return cluster.lookup.has_rival(cluster.accesses.get(ONE))


def test_an_account_that_nothing_else_names_has_no_rival() -> None:
    cluster = Cluster()
    cluster.bucket(OLD)
    cluster.claim()
    cluster.access("one", account="acct-1")
    cluster.access("two", account="acct-2")
    assert rival(cluster) is False
    assert cluster.lookup.has_rival(None) is False


def test_two_accesses_have_no_account_and_are_no_rivals() -> None:
    cluster = Cluster()
    cluster.bucket(OLD)
    cluster.claim()
    cluster.access("one")
    cluster.access("two")
    assert rival(cluster) is False


@pytest.mark.parametrize(
    ("uid", "expected"),
    [
        pytest.param(uid_of("two"), True, id="another access's entry -> a rival"),
        pytest.param(uid_of("one"), False, id="its own entry -> no rival"),
    ],
)
def test_a_record_names_the_account(uid: str, expected: bool) -> None:
    cluster = Cluster()
    cluster.bucket(replace(OLD, accesses={uid: entry("two", "acct-0", "acct-1")}))
    cluster.claim()
    cluster.access("one", account="acct-1")
    assert rival(cluster) is expected


@pytest.mark.parametrize(
    ("former", "claim", "expected"),
    [
        pytest.param({uid_of("two"): "acct-1"}, "photos", True, id="it is listed too -> a rival"),
        pytest.param({}, "photos", False, id="it is not listed -> no rival"),
        pytest.param(
            {uid_of("two"): "acct-1"}, "none", False, id="its claim has no Bucket -> no rival"
        ),
    ],
)
def test_another_access_names_the_account(
    former: dict[str, str], claim: str, expected: bool
) -> None:
    """A tenant may write any account into a status; only what can be taken over counts."""
    cluster = Cluster()
    cluster.bucket(replace(OLD, former={**OLD.former, **former}))
    cluster.claim()
    cluster.access("one", account="acct-1")
    cluster.access("two", account="acct-1", claim=claim)
    assert rival(cluster) is expected


def orphans(cluster: Cluster) -> list[str]:
    cluster.sync()
    return [uid for uid, _, _ in cluster.lookup.orphans(ONE)]


def test_a_recorded_access_that_does_not_exist_is_an_orphan_of_its_key() -> None:
    cluster = Cluster()
    recorded = {"uid-1": entry(), "uid-2": entry("two"), uid_of("one"): entry()}
    cluster.bucket(BucketRecord(claim=PHOTOS, accesses=recorded))
    assert sorted(orphans(cluster)) == sorted(["uid-1", uid_of("one")])
    cluster.access("one")
    assert orphans(cluster) == ["uid-1"]


def test_the_bucket_of_a_live_access_is_removed_by_force_and_the_access_is_no_orphan() -> None:
    cluster = Cluster()
    recorded = {"uid-1": entry(), uid_of("one"): entry()}
    cluster.bucket(BucketRecord(claim=PHOTOS, accesses=recorded))
    cluster.access("one")
    cluster.sync()
    remove_by_force(cluster)
    assert orphans(cluster) == ["uid-1"]
    cluster.memory.forget_access("uid-1")
    assert orphans(cluster) == []


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        pytest.param({}, True, id="another access with our finalizer -> shared"),
        pytest.param({"held": False}, False, id="without our finalizer -> not shared"),
        pytest.param({"claim": "other"}, False, id="of another claim -> not shared"),
    ],
)
def test_the_mark_is_shared(cluster: Cluster, other: dict[str, Any], expected: bool) -> None:
    cluster.access("one")
    cluster.access("two", **other)
    cluster.sync()
    assert cluster.lookup.others_need_finalizer(cluster.accesses.get(ONE)) is expected
    assert cluster.lookup.others_need_finalizer(None) is False


def test_the_claim_of_a_bucket_is_found_by_its_uid(cluster: Cluster) -> None:
    cluster.claim()
    cluster.sync()
    claim = cluster.claims.get(Key("team", "photos"))
    assert claim is not None
    assert cluster.lookup.claim_of_bucket(cluster.view()) == claim
    assert cluster.lookup.bucket_of_claim(claim) == cluster.buckets.get(KEY)
    cluster.api.delete(BUCKET_CLAIMS, claim.meta.key)
    cluster.claim()
    cluster.sync()
    successor = cluster.claims.get(Key("team", "photos"))
    assert successor is not None
    assert cluster.lookup.claim_of_bucket(cluster.view()) is None
    assert cluster.lookup.bucket_of_claim(successor) is None
    assert cluster.lookup.claim_of_bucket(None) is None


def test_the_bucket_whose_record_names_an_access_is_found_by_the_uid_alone() -> None:
    cluster = Cluster()
    cluster.bucket(BucketRecord(claim=PHOTOS, accesses={"uid-1": entry()}))
    cluster.bucket(name="bucket-2", claim="other")
    cluster.sync()
    assert cluster.lookup.recorded_bucket("uid-1") == cluster.buckets.get(KEY)
    assert cluster.lookup.recorded_bucket("uid-2") is None
    assert cluster.lookup.recorded_bucket("one") is None
