"""What holds of every plan from every view, whatever a tenant wrote into it (hypothesis).

Each plan is followed to its end with the facts that an honest world would give. On the way: no
driver call with an empty id; no id that the record or the status of the Bucket does not vouch for;
no call without our finalizer and an entry; nothing of others touched; and it ends, within
MAX_STEPS. What a tenant may write (status, annotations and Secrets of its own objects) is hostile:
it names ids that belong to others.
"""

from collections.abc import Callable
from dataclasses import replace as change

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.support import views

from cosi_operator.api.record import AccessRecord, BucketRecord, ClaimIdentity
from cosi_operator.api.view import (
    Bucket,
    BucketAccess,
    BucketClaim,
    ClaimRef,
    DeletionPolicy,
    Key,
    LastCall,
    Meta,
)
from cosi_operator.outcome import (
    Call,
    Code,
    DriverStatus,
    Effect,
    MadeBy,
    Reason,
    Requeue,
    Terminal,
)
from cosi_operator.plan import access as access_plan
from cosi_operator.plan import access_view, bucket_view, claim_view, names, records
from cosi_operator.plan import bucket as bucket_plan
from cosi_operator.plan import claim as claim_plan
from cosi_operator.plan import facts as f
from cosi_operator.plan import steps as s
from cosi_operator.reconcile import MAX_STEPS

FOREIGN = "example.com/foreign"
VICTIM = "victim"  # an id that belongs to another tenant
FINALIZERS = (
    FOREIGN,
    names.BUCKET_FINALIZER,
    names.BUCKET_ACCESS_FINALIZER,
    names.CLAIM_FINALIZER,
    names.ACCESS_FINALIZER,
)


def mostly[T](usual: T, others: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    """The usual value seven times of eight, so that plans get as far as their driver calls."""
    return st.integers(0, 7).flatmap(lambda n: st.just(usual) if n else others)


finalizer_sets = st.lists(st.sampled_from(FINALIZERS), unique=True).map(tuple)
ids = st.sampled_from(["", "id-7", "id-8"])
drivers = mostly(views.DRIVER, st.sampled_from(["other.example.com", ""]))
contexts = st.builds(
    views.with_context,
    up=mostly(True, st.just(False)),
    instance=st.sampled_from(["one", "two"]),
    recheck_s=st.sampled_from([None, 60.0]),
    pending=mostly(
        s.Pending(),
        st.sampled_from([s.Pending(attempts=2, wait_s=5.0), s.Pending(wait_s=float("inf"))]),
    ),
)
verdicts: st.SearchStrategy[LastCall | None] = st.none() | st.builds(
    views.judged,
    st.sampled_from(list(Call)),
    st.sampled_from([Code.INVALID_ARGUMENT, Code.UNKNOWN, Code.OK]),
    outcome=st.sampled_from(["Terminal", "Requeue", "Pending", "Success"]),
    effect=st.sampled_from(Effect),
    generation=st.sampled_from([1, 2]),
)
refs: st.SearchStrategy[ClaimRef | None] = mostly(
    views.REF, st.sampled_from([None, ClaimRef("team", "photos"), ClaimRef("b", "c", "other")])
)
identities = mostly(
    views.IDENTITY, st.sampled_from([ClaimIdentity(), ClaimIdentity("b", "c", "other")])
)
uids = st.sampled_from(["", "true", "bucket-uid", "access-uid", "claim-uid", "u0,access-uid"])
annotations = mostly(
    {},
    st.fixed_dictionaries(
        {},
        optional={
            "cosi.objectstorage.k8s.io/driver-name": drivers,
            "cosi.objectstorage.k8s.io/bucket-id": st.just(VICTIM),
            "cosi.objectstorage.k8s.io/record": st.just("{}"),
            names.RETRY_ANNOTATION: st.just("1"),
            names.ROTATE_ANNOTATION: st.sampled_from(["", "1", "2", "x" * 300]),
            names.NEW_BUCKET_ANNOTATION: uids,
            names.FORCE_DELETE_ANNOTATION: uids,
            names.GIVE_UP_ANNOTATION: uids,
        },
    ),
)
times = st.sampled_from(["", views.BEFORE, views.STAMP, "2026-05-06T07:00:00Z", "soon"])


def metas(like: Meta, *finalizers: str) -> st.SearchStrategy[Meta]:
    return st.builds(
        lambda **fields: replace(like, **fields),
        deleting=st.booleans(),
        finalizers=mostly(finalizers, finalizer_sets),
        generation=st.sampled_from([1, 2]),
        annotations=annotations,
        created=times,
    )


entries = st.builds(
    AccessRecord,
    namespace=st.just("team"),
    name=st.just("reader"),
    secret=st.sampled_from(["", "reader-keys", "moved"]),
    accounts=st.sampled_from([(), ("acct-7",), ("acct-7", "acct-8"), ("ba-access-uid",)]),
    rotated=st.sampled_from(["", "1"]),
    renew_at=times,
    unanswered=mostly(0, st.just(2)),
    since=times,
    last=times,
)
book = st.builds(
    BucketRecord,
    bucket=mostly("bucket-uid", st.just("")),
    driver=drivers,
    bucket_id=ids,
    claim=identities,
    former=st.sampled_from([{}, views.FORMER]),
    accesses=st.sampled_from([{}, {"access-uid"}, {"access-uid"}, {"u9"}, {"access-uid", "u9"}])
    .map(sorted)
    .flatmap(lambda uids: st.fixed_dictionaries(dict.fromkeys(uids, entries))),
)
copied: BucketRecord = replace(views.RECORD, bucket_id=VICTIM, accesses={"access-uid": views.ENTRY})
bookings: st.SearchStrategy[tuple[BucketRecord | None, BucketRecord | None]] = st.integers(
    0, 9
).flatmap(
    lambda n: (
        st.just((None, copied))
        if n == 0
        else st.just((None, None))
        if n == 1
        else st.tuples(book, st.none())
    )
)
buckets = st.builds(
    lambda booking, **fields: Bucket(**fields, record=booking[0], copied_record=booking[1]),
    bookings,
    meta=metas(views.BUCKET.meta, names.BUCKET_FINALIZER, names.BUCKET_ACCESS_FINALIZER),
    driver_name=drivers,
    claim=refs,
    deletion_policy=st.sampled_from(DeletionPolicy),
    existing_bucket_id=mostly("", ids),
    bucket_id=ids,
    ready=st.booleans(),
    last_call=verdicts,
)
claims = st.builds(
    BucketClaim,
    meta=metas(views.CLAIM.meta, names.CLAIM_FINALIZER),
    class_name=mostly("gold", st.just("")),
    existing_bucket_name=st.sampled_from(["", "", "old"]),
    bucket_name=st.sampled_from(["", views.BUCKET.meta.name, VICTIM, "../x"]),
    ready=st.booleans(),
)
accesses = st.builds(
    BucketAccess,
    meta=metas(views.ACCESS.meta, names.ACCESS_FINALIZER),
    class_name=st.just("keys"),
    claim_name=st.just("photos"),
    secret_name=mostly("reader-keys", st.sampled_from(["", "moved", "../x"])),
    account_id=st.sampled_from(["", "acct-7", VICTIM]),
    granted=st.booleans(),
    last_call=verdicts,
)
secrets = st.sampled_from(
    [
        f.SecretIs(exists=False),
        f.SecretIs(exists=True),
        f.SecretIs(exists=True, has_finalizer=True),
        f.SecretIs(exists=True, ours=True),
        f.SecretIs(exists=True, ours=True, has_finalizer=True),
    ]
)


def failure(call: Call, made_by: MadeBy, effect: Effect, *, final: bool) -> f.CallFailed:
    status = DriverStatus(call, Code.INTERNAL, made_by)
    if final:
        return f.CallFailed(Terminal(Reason.DRIVER_INTERNAL, "", status=status), effect)
    return f.CallFailed(Requeue(Reason.DRIVER_INTERNAL, "", after_s=1.0, status=status), effect)


# What becomes of a driver call: None is a success.
endings: st.SearchStrategy[Callable[[Call], f.CallFailed] | None] = st.none() | st.builds(
    lambda made_by, effect, final: lambda call: failure(call, made_by, effect, final=final),
    st.sampled_from([MadeBy.DRIVER, MadeBy.DEADLINE]),
    st.sampled_from(Effect),
    st.booleans(),
)


def edited(meta: Meta, add: tuple[str, ...], remove: tuple[str, ...]) -> Meta:
    """The metadata after a PUT; nothing of others is ever in it."""
    assert FOREIGN not in (*add, *remove)
    kept = tuple(f for f in meta.finalizers if f not in remove)
    return replace(meta, finalizers=kept + tuple(f for f in add if f not in kept))


def edited_bucket(bucket: Bucket, step: s.EditBucket) -> Bucket | None:
    """The Bucket after a PUT of its finalizers and its record, as the API server does it."""
    assert step.key == bucket.meta.key
    add = () if bucket.meta.deleting else step.add
    record = bucket.record
    remove = step.remove
    if step.record is not None:
        assert step.record.fits(record), "the plan saw another entry"
        record = step.record.apply(record, bucket.meta.uid, bucket.meta.name)
        if record.accesses and step.record.access_uid:
            remove = tuple(name for name in remove if name != names.BUCKET_ACCESS_FINALIZER)
    after = edited(bucket.meta, add, remove)
    copied = None if step.record is not None else bucket.copied_record
    if is_gone(after):
        return None
    return replace(bucket, meta=after, record=record, copied_record=copied)


def is_gone(meta: Meta) -> bool:
    return meta.deleting and not meta.finalizers


def ends[V, S](view: V, plan: Callable[[V], S], act: Callable[[V, S], V]) -> list[S]:
    """Follow a plan to its end."""
    seen: list[S] = []
    for _ in range(MAX_STEPS):
        step = plan(view)
        seen.append(step)
        if isinstance(step, s.Done):
            return seen
        view = act(view, step)
    raise AssertionError(f"it never ends: {seen}")


def vouched_ids(bucket: Bucket) -> set[str]:
    """The ids that a Bucket, which only an administrator may write, vouches for."""
    recorded = bucket.record.bucket_id if bucket.record else ""
    return {recorded or bucket.bucket_id, bucket.existing_bucket_id} - {""}


def act_on_bucket(
    view: bucket_view.BucketView,
    step: s.BucketStep,
    ending: Callable[[Call], f.CallFailed] | None,
    found: BucketClaim | None,
) -> bucket_view.BucketView:
    bucket = view.bucket
    assert bucket is not None
    assert names.same_driver(records.driver_of(bucket), views.DRIVER), "another driver's Bucket"
    fact: f.BucketFact
    match step:
        case s.EditBucket():
            fact = f.BucketIs(edited_bucket(bucket, step))
        case s.ReadBucketObject(key=key):
            assert key == bucket.meta.key
            fact = f.BucketIs(bucket)
        case s.CreateBackend(name=name):
            assert name == bucket.meta.name
            assert not view.unproven
            assert names.BUCKET_FINALIZER in bucket.meta.finalizers
            assert bucket.record is not None
            assert bucket.copied_record is None
            assert view.context.driver.up
            assert not view.context.pending.wait_s
            fact = ending(Call.CREATE_BUCKET) if ending else f.BackendIs("id-9")
        case s.DeleteBackend(bucket_id=bucket_id):
            assert bucket_id
            assert bucket_id in vouched_ids(bucket) | {view.bucket_id}
            assert bucket_id != VICTIM
            assert bucket.meta.deleting
            assert bucket.deletion_policy is DeletionPolicy.DELETE
            assert names.BUCKET_FINALIZER in bucket.meta.finalizers
            assert bucket.record is not None
            assert not bucket.record.accesses, "keys of its accesses could not be revoked"
            assert not view.accesses
            in_use = view.claim is not None and not view.claim.meta.deleting
            forced = bucket.meta.annotations.get(names.FORCE_DELETE_ANNOTATION) == bucket.meta.uid
            assert forced or not in_use
            assert view.context.driver.up
            assert not view.context.pending.wait_s
            fact = ending(Call.DELETE_BUCKET) if ending else f.BackendGone()
        case s.LeaveBackend():
            assert bucket.meta.deleting
            given_up = bucket.meta.annotations.get(names.GIVE_UP_ANNOTATION, "")
            assert bucket.copied_record or bucket.meta.uid in given_up.split(",")
            fact = f.BackendGone()
        case s.ListAccesses(namespace=namespace):
            assert namespace == records.bound_claim(bucket).namespace
            fact = f.AccessesListed(view.accesses)
        case s.DeleteAccess(key=key):
            assert bucket.meta.deleting
            fact = f.AccessDeleting(key)
        case s.ReadClaim(key=key):
            bound = records.bound_claim(bucket)
            assert key == (bound.namespace, bound.name)
            fact = f.ClaimIs(found)
        case s.ReleaseClaim():
            claim = view.claim
            assert claim is not None
            assert claim.meta.deleting
            assert records.is_bound_to(bucket, claim)
            after = edited(claim.meta, (), (names.CLAIM_FINALIZER,))
            fact = f.ClaimIs(None if is_gone(after) else replace(claim, meta=after))
        case s.Done():
            raise AssertionError
    return bucket_view.fold(view, fact)


@given(
    bucket=buckets,
    claim=claims.flatmap(lambda claim: mostly(claim, st.none())),
    found=mostly([], st.lists(accesses, max_size=3)),
    context=contexts,
    remembered=st.none() | book,
    clean=st.booleans(),
    ending=endings,
)
def test_every_plan_of_a_bucket(
    bucket: Bucket,
    claim: BucketClaim | None,
    found: list[BucketAccess],
    context: s.Context,
    remembered: BucketRecord | None,
    clean: bool,
    ending: Callable[[Call], f.CallFailed] | None,
) -> None:
    numbered = tuple(
        replace(a, meta=replace(a.meta, name=f"a{n}", uid=f"u{n}")) for n, a in enumerate(found)
    )
    bound = claim if claim is not None and records.is_bound_to(bucket, claim) else None
    view = bucket_view.BucketView(
        bucket,
        bound,
        numbered,
        context,
        remembered=remembered,
        clean=clean and bucket_view.is_clean(bucket),
        unproven=True,
    )
    steps = ends(
        view, bucket_plan.plan, lambda view, step: act_on_bucket(view, step, ending, claim)
    )
    calls = [step for step in steps if isinstance(step, s.CreateBackend | s.DeleteBackend)]
    assert len(calls) <= (1 if ending else 2), "a failed call is not repeated in one run"


class AccessRun:
    """One run of an access in an honest world with a hostile tenant."""

    def __init__(
        self,
        view: access_view.AccessView,
        standing: f.SecretIs,
        ending: Callable[[Call], f.CallFailed] | None,
        account: str,
    ) -> None:
        self.standing = standing
        self.ending = ending
        self.account = account
        # Accounts that the record names when the run begins, and those that the driver returns.
        # An access from before the record vouches for its own, once (`take_over`).
        entry, deleting = view.entry, view.access is not None and view.access.meta.deleting
        self.vouched = {account, *(entry.accounts if entry else ())}
        if (
            view.access is not None
            and view.bucket is not None
            and records.is_former(view.bucket, view.access)
            and (records.is_bound_to(view.bucket, view.claim) if view.claim else deleting)
            # A run adds the finalizer again that somebody has stripped.
            and (names.ACCESS_FINALIZER in view.access.meta.finalizers or not deleting)
            and not view.rivals
            and not view.vanished
        ):
            self.vouched.add(view.access.account_id)

    def act(self, view: access_view.AccessView, step: s.AccessStep) -> access_view.AccessView:
        access, bucket = view.access, view.bucket
        assert access is not None
        fact: f.AccessFact
        match step:
            case s.EditFinalizers(key=key, add=add, remove=remove):
                assert key == access.meta.key
                assert not (add and access.meta.deleting), "the API server would refuse it"
                assert not remove or view.entry is None or view.vanished, "an account would leak"
                after = edited(access.meta, add, remove)
                fact = f.AccessIs(None if is_gone(after) else replace(access, meta=after))
            case s.EditBucket(add=add, record=edit):
                assert bucket is not None
                assert not view.vanished
                assert edit is not None
                assert edit.access_uid == access.meta.uid, "the entry of another access"
                assert (edit.driver, edit.claim) == (None, None)
                assert bucket.record is not None or bucket.copied_record is not None
                assert VICTIM not in (edit.bucket_id or "")
                if edit.entry is not None:
                    assert set(edit.entry.accounts) <= self.vouched
                    assert len(edit.entry.rotated) <= access_view.ROTATE_TOKEN_LENGTH
                fact = f.BucketIs(edited_bucket(bucket, step))
            case s.Grant() | s.Revoke():
                fact = self.call(view, access, step)
            case s.LeaveAccounts():
                assert access.meta.deleting
                fact = f.NothingToRevoke()
            case s.ReadAccessObject(key=key):
                assert key == access.meta.key
                fact = f.AccessIs(access)
            case s.ReadBucketObject(key=key):
                fact = f.BucketIs(bucket)
            case s.ReadClaim(key=key):
                assert key == access.claim_key
                fact = f.ClaimIs(view.claim)
            case s.Done():
                raise AssertionError
            case _:
                fact = self.touch_secret(view, access, step)
        return access_view.fold(view, fact)

    def touch_secret(
        self, view: access_view.AccessView, access: BucketAccess, step: s.SecretStep
    ) -> f.AccessFact:
        key = step.key
        assert key.namespace == "team"
        assert names.is_object_name(key.name)
        match step:
            case s.ReadSecret():
                return change(self.standing, name=key.name)
            case s.DryRunSecret():
                return f.SecretAllowed()
            case s.StoreSecret(replace=replaces):
                assert view.unstored_grant is not None
                assert view.unstored_grant.account_id
                assert view.entry is not None
                assert view.unstored_grant.account_id in view.entry.accounts, "not recorded yet"
                assert replaces is (view.secret is not None and view.secret.ours)
                assert replaces or not self.standing.exists
                return f.SecretStored()
            case s.DeleteSecret():
                assert self.standing.ours, "a Secret of someone else"
                assert access.meta.deleting
                return f.SecretIs(exists=False, name=key.name)
            case s.ReleaseSecret():
                assert self.standing.has_finalizer
                assert not self.standing.ours
                assert view.may_release
                return f.SecretIs(exists=True, name=key.name)

    def call(
        self, view: access_view.AccessView, access: BucketAccess, step: s.Grant | s.Revoke
    ) -> f.AccessFact:
        bucket = view.bucket
        assert bucket is not None
        assert step.bucket_id
        assert step.bucket_id != VICTIM
        assert step.bucket_id == records.bucket_id_of(bucket)
        assert names.same_driver(records.driver_of(bucket), views.DRIVER)
        assert view.context.driver.up
        assert view.entry is not None, "a call without an entry"
        match step:
            case s.Grant(name=name, resolving=resolving):
                assert name == "ba-access-uid"
                assert not view.vanished
                assert not (view.unproven and access.meta.resource_version)
                assert resolving is access.meta.deleting
                assert not view.context.pending.wait_s
                if not resolving:
                    assert names.ACCESS_FINALIZER in access.meta.finalizers
                    assert names.BUCKET_ACCESS_FINALIZER in bucket.meta.finalizers
                    rotating = access_plan.is_rotation_due(access, view)
                    assert rotating or not view.entry.accounts, "keys that are held"
                return self.ending(Call.GRANT_ACCESS) if self.ending else f.Granted(self.account)
            case s.Revoke(account_id=account_id):
                assert account_id
                assert account_id in self.vouched
                assert account_id in (*view.entry.accounts, self.account)
                assert view.bucket_proven or access.meta.uid in account_id
                assert not view.context.pending.wait_s
                failed = self.ending and self.ending(Call.REVOKE_ACCESS)
                return failed or f.Revoked(account_id)


@given(
    access=accesses,
    claim=st.builds(
        lambda claim, deleting: views.meta(claim, deleting=deleting),
        claims,
        mostly(False, st.just(True)),
    ).flatmap(lambda claim: mostly(claim, st.none())),
    bucket=st.builds(
        lambda bucket, ready, deleting: replace(views.meta(bucket, deleting=deleting), ready=ready),
        buckets,
        mostly(True, st.just(False)),
        mostly(False, st.just(True)),
    ).flatmap(lambda bucket: mostly(bucket, st.none())),
    context=contexts,
    standing=secrets,
    has_class=mostly(True, st.just(False)),
    flags=st.tuples(*[mostly(False, st.just(True))] * 5),
    ending=endings,
    account=st.sampled_from(["acct-7", "acct-9", "ba-access-uid"]),
)
def test_every_plan_of_an_access(
    access: BucketAccess,
    claim: BucketClaim | None,
    bucket: Bucket | None,
    context: s.Context,
    standing: f.SecretIs,
    has_class: bool,
    flags: tuple[bool, bool, bool, bool, bool],
    ending: Callable[[Call], f.CallFailed] | None,
    account: str,
) -> None:
    shared, rivals, vanished, orphan, held = flags
    if orphan:  # as it is made from its entry
        meta = Meta("reader", "team", uid="access-uid", deleting=True)
        access, claim, has_class = BucketAccess(meta, secret_name=access.secret_name), None, False
    view = access_view.AccessView(
        access,
        views.KEYS_CLASS if has_class else None,
        claim,
        bucket,
        context,
        vanished=vanished and orphan and bucket is not None,
        others_need_finalizer=shared,
        rivals=rivals,
        clean=access_view.is_clean(access, bucket),
        unproven=True,
        granted=f.Granted(account) if held and not orphan else None,
    )
    run = AccessRun(view, standing, ending, account)
    steps = ends(view, access_plan.plan, run.act)
    grants = [step for step in steps if isinstance(step, s.Grant)]
    assert len(grants) <= 1, "one run makes at most one account"


def act_on_claim(
    view: claim_view.ClaimView, step: s.ClaimStep, other: Bucket | None
) -> claim_view.ClaimView:
    claim, bucket = view.claim, view.bucket
    assert claim is not None
    fact: f.ClaimFact
    match step:
        case s.EditFinalizers(key=key, add=add, remove=remove):
            assert key == claim.meta.key
            assert not (add and claim.meta.deleting), "the API server would refuse it"
            after = edited(claim.meta, add, remove)
            fact = f.ClaimIs(None if is_gone(after) else replace(claim, meta=after))
        case s.ReadClaim(key=key):
            assert key == claim.meta.key
            fact = f.ClaimIs(claim)
        case s.ReadBucketObject(key=key):
            assert names.is_object_name(key.name)
            known = bucket is not None and bucket.meta.name == key.name
            fact = f.BucketIs(bucket if known else other, key.name)
        case s.ReadClass():
            fact = f.ClassIs(None)
        case s.ReadHolder(holder=holder):
            assert holder.uid
            assert holder != records.identity_of(claim)
            fact = f.HolderIs(alive=claim.ready)
        case s.CreateBucketObject(name=name):
            assert bucket is None
            assert not view.unproven
            assert names.CLAIM_FINALIZER in claim.meta.finalizers
            asked = claim.meta.annotations.get(names.NEW_BUCKET_ANNOTATION)
            assert not view.former or asked == claim.meta.uid
            fact = f.BucketIs(replace(views.BUCKET, meta=replace(views.BUCKET.meta, name=name)))
        case s.UpdateBucketObject(driver_name=driver_name, parameters=parameters):
            assert bucket is not None
            assert records.is_bound_to(bucket, claim)
            assert not bucket.bucket_id
            fact = f.BucketIs(replace(bucket, driver_name=driver_name, parameters=parameters))
        case s.BindBucketObject():
            assert bucket is not None
            own = records.is_bound_to(bucket, claim)
            assert own or not view.unproven
            recorded = bucket.record.claim.uid if bucket.record else ""
            assert own or not recorded or view.holder_alive is False
            named = bucket.claim
            assert own or named in (None, ClaimRef("team", "photos"), views.REF)
            record = bucket.record and replace(bucket.record, claim=views.IDENTITY)
            fact = f.BucketIs(replace(bucket, claim=views.REF, record=record))
        case s.DeleteBucketObject(uid=uid):
            assert bucket is not None
            assert records.is_bound_to(bucket, claim), "not its own"
            assert uid == bucket.meta.uid
            assert claim.meta.deleting
            gone = replace(bucket.meta, deleting=True)
            fact = f.BucketIs(None if is_gone(gone) else replace(bucket, meta=gone))
        case s.DeleteAccess(key=key):
            assert claim.meta.deleting
            fact = f.AccessDeleting(key)
        case s.Done():
            raise AssertionError
    return claim_view.fold(view, fact)


@given(
    claim=claims,
    bucket=buckets.flatmap(lambda bucket: st.sampled_from([bucket, None])),
    other=buckets.flatmap(lambda bucket: st.sampled_from([bucket, None])),
    found=st.lists(accesses, max_size=3),
    has_class=st.booleans(),
)
def test_every_plan_of_a_claim(
    claim: BucketClaim,
    bucket: Bucket | None,
    other: Bucket | None,
    found: list[BucketAccess],
    has_class: bool,
) -> None:
    numbered = tuple(
        replace(a, meta=replace(a.meta, name=f"a{n}", uid=f"u{n}")) for n, a in enumerate(found)
    )
    stranger = other and replace(other, meta=replace(other.meta, name=VICTIM, uid="victim-uid"))
    naming = [b for b in (bucket, stranger) if b is not None]
    view = claim_view.ClaimView(
        claim,
        views.CLASS if has_class else None,
        records.bucket_of_claim(claim, naming) or bucket,
        numbered,
        views.NOW,
        former=claim_view.former_buckets(claim, naming),
        unproven=True,
    )
    ends(view, claim_plan.plan, lambda view, step: act_on_claim(view, step, stranger))


def test_key_of_the_secret_is_in_the_namespace_of_the_access() -> None:
    view = access_view.AccessView(views.GRANTED, views.KEYS_CLASS, None, views.RECORDED, views.UP)
    assert view.secret_key == Key("team", "reader-keys")
