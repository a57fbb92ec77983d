"""What holds of every plan from every view, whatever stands in it (hypothesis).

Each plan is followed to its end with the facts that an honest world would give. On the way: no
driver call with an empty id, none without our finalizer, no Grant over a Secret that holds our
keys, nothing of others touched; and it ends, within MAX_STEPS.
"""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.support import views

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
from cosi_operator.outcome import Call, Code, Effect
from cosi_operator.plan import access as access_plan
from cosi_operator.plan import bucket as bucket_plan
from cosi_operator.plan import claim as claim_plan
from cosi_operator.plan import names
from cosi_operator.plan import steps as s
from cosi_operator.reconcile import MAX_STEPS

FOREIGN = "example.com/foreign"
FINALIZERS = (
    FOREIGN,
    names.BUCKET_FINALIZER,
    names.BUCKET_ACCESS_FINALIZER,
    names.CLAIM_FINALIZER,
    names.ACCESS_FINALIZER,
)
finalizer_sets = st.lists(st.sampled_from(FINALIZERS), unique=True).map(tuple)
ids = st.sampled_from(["", "id-7", "id-8"])
drivers = st.sampled_from([views.DRIVER, views.DRIVER, "other.example.com", ""])
contexts = st.builds(
    views.with_context,
    up=st.booleans(),
    instance=st.sampled_from(["one", "two"]),
    recheck_s=st.sampled_from([None, 60.0]),
    pending=st.sampled_from([s.Pending(), s.Pending(attempts=2, wait_s=5.0)]),
)
verdicts: st.SearchStrategy[LastCall | None] = st.none() | st.builds(
    views.judged,
    st.sampled_from(list(Call)),
    st.sampled_from([Code.INVALID_ARGUMENT, Code.UNKNOWN, Code.OK]),
    outcome=st.sampled_from(["Terminal", "Requeue", "Pending", "Success"]),
    effect=st.sampled_from(Effect),
    generation=st.sampled_from([1, 2]),
)
refs = st.sampled_from([None, views.REF, ClaimRef("team", "photos"), ClaimRef("b", "c", "other")])
annotations = st.fixed_dictionaries(
    {},
    optional={
        names.DRIVER_ANNOTATION: drivers,
        names.BUCKET_ID_ANNOTATION: ids,
        names.RETRY_ANNOTATION: st.just("1"),
    },
)


def metas(like: Meta) -> st.SearchStrategy[Meta]:
    return st.builds(
        lambda **fields: replace(like, **fields),
        deleting=st.booleans(),
        finalizers=finalizer_sets,
        generation=st.sampled_from([1, 2]),
        annotations=annotations,
    )


buckets = st.builds(
    Bucket,
    meta=metas(views.BUCKET.meta),
    driver_name=drivers,
    claim=refs,
    deletion_policy=st.sampled_from(DeletionPolicy),
    existing_bucket_id=ids,
    bucket_id=ids,
    ready=st.booleans(),
    last_call=verdicts,
)
claims = st.builds(
    BucketClaim,
    meta=metas(views.CLAIM.meta),
    class_name=st.sampled_from(["", "gold"]),
    existing_bucket_name=st.sampled_from(["", "old"]),
    bucket_name=st.sampled_from(["", views.BUCKET.meta.name]),
    ready=st.booleans(),
)
accesses = st.builds(
    BucketAccess,
    meta=metas(views.ACCESS.meta),
    class_name=st.just("keys"),
    claim_name=st.just("photos"),
    secret_name=st.sampled_from(["", "reader-keys"]),
    account_id=st.sampled_from(["", "acct-7"]),
    granted=st.booleans(),
    last_call=verdicts,
)
secrets = st.sampled_from(
    [
        s.SecretIs(exists=False),
        s.SecretIs(exists=True),
        s.SecretIs(exists=True, ours=True),
        s.SecretIs(exists=True, ours=True, account_id="acct-7"),
    ]
)


def edited(meta: Meta, add: tuple[str, ...], remove: tuple[str, ...]) -> Meta:
    """The metadata after a PUT; nothing of others is ever in it."""
    assert FOREIGN not in (*add, *remove)
    kept = tuple(f for f in meta.finalizers if f not in remove)
    return replace(meta, finalizers=kept + tuple(f for f in add if f not in kept))


def is_gone(meta: Meta) -> bool:
    return meta.deleting and not meta.finalizers


def ends[V, S](view: V, plan: Callable[[V], S], act: Callable[[V, S], V]) -> None:
    """Follow a plan to its end."""
    seen: list[S] = []
    for _ in range(MAX_STEPS):
        step = plan(view)
        if isinstance(step, s.Done):
            return
        seen.append(step)
        view = act(view, step)
    raise AssertionError(f"it never ends: {seen}")


def act_on_bucket(view: bucket_plan.BucketView, step: s.BucketStep) -> bucket_plan.BucketView:
    bucket = view.bucket
    assert bucket is not None
    assert names.same_driver(bucket.driver_name, views.DRIVER), "another driver's Bucket"
    fact: s.Fact
    match step:
        case s.EditFinalizers(key=key, add=add, remove=remove):
            assert key == bucket.meta.key
            after = edited(bucket.meta, add, remove)
            fact = s.BucketIs(None if is_gone(after) else replace(bucket, meta=after))
        case s.MarkPending():
            assert bucket.last_call is not None
            call = replace(bucket.last_call, outcome="Pending", effect=Effect.MAYBE)
            fact = s.BucketIs(replace(bucket, last_call=call))
        case s.ReadBucketObject(key=key):
            assert key == bucket.meta.key
            fact = s.BucketIs(bucket)
        case s.CreateBackend(name=name):
            assert name
            assert not view.unproven
            assert names.BUCKET_FINALIZER in bucket.meta.finalizers
            assert view.context.driver.up
            fact = s.BackendIs("id-7")
        case s.DeleteBackend(bucket_id=bucket_id):
            assert bucket_id
            assert bucket.meta.deleting
            assert bucket.deletion_policy is DeletionPolicy.DELETE
            assert names.BUCKET_FINALIZER in bucket.meta.finalizers
            assert view.context.driver.up
            fact = s.BackendGone()
        case s.ListAccesses(namespace=namespace):
            assert bucket.claim is not None
            assert namespace == bucket.claim.namespace
            fact = s.AccessesListed(view.accesses)
        case s.DeleteAccess(key=key):
            assert bucket.meta.deleting
            fact = s.AccessDeleting(key)
        case s.ReleaseClaim():
            claim = view.claim
            assert claim is not None
            assert claim.meta.deleting
            after = edited(claim.meta, (), (names.CLAIM_FINALIZER,))
            fact = s.ClaimIs(None if is_gone(after) else replace(claim, meta=after))
        case s.Done():
            raise AssertionError
    return bucket_plan.fold(view, fact)


@given(
    bucket=buckets, claim=st.none() | claims, found=st.lists(accesses, max_size=3), context=contexts
)
def test_every_plan_of_a_bucket(
    bucket: Bucket, claim: BucketClaim | None, found: list[BucketAccess], context: s.Context
) -> None:
    numbered = tuple(
        replace(a, meta=replace(a.meta, name=f"a{n}", uid=f"u{n}")) for n, a in enumerate(found)
    )
    view = bucket_plan.BucketView(bucket, claim, numbered, context, unproven=True)
    ends(view, bucket_plan.plan, act_on_bucket)


def act_on_access(
    view: access_plan.AccessView, step: s.AccessStep, standing: s.SecretIs
) -> access_plan.AccessView:
    access, bucket = view.access, view.bucket
    assert access is not None
    fact: s.Fact
    match step:
        case s.EditFinalizers(key=key, add=add, remove=remove, annotations=more):
            assert key == access.meta.key
            after = edited(access.meta, add, remove)
            after = replace(after, annotations={**after.annotations, **more})
            fact = s.AccessIs(None if is_gone(after) else replace(access, meta=after))
        case s.EditBucketFinalizers(add=add, remove=remove):
            assert bucket is not None
            assert not (add and bucket.meta.deleting), "the API server would refuse it"
            after = edited(bucket.meta, add, remove)
            fact = s.BucketIs(None if is_gone(after) else replace(bucket, meta=after))
        case s.MarkPending():
            assert access.last_call is not None
            call = replace(access.last_call, outcome="Pending", effect=Effect.MAYBE)
            fact = s.AccessIs(replace(access, last_call=call))
        case s.ReadSecret(key=key):
            assert key == Key("team", "reader-keys")
            fact = standing
        case s.DryRunSecret():
            fact = s.SecretAllowed()
        case s.Grant(bucket_id=bucket_id, name=name):
            assert bucket_id
            assert not view.unproven
            assert name == "ba-access-uid"
            assert not (view.secret and view.secret.ours), "over keys that are held"
            assert view.secret is not None or not access.secret_name
            assert names.ACCESS_FINALIZER in access.meta.finalizers
            assert bucket is not None
            assert names.BUCKET_ACCESS_FINALIZER in bucket.meta.finalizers
            assert view.context.driver.up
            fact = s.Granted("acct-9")
        case s.StoreSecret(account_id=account_id, bucket_id=bucket_id):
            assert account_id
            assert bucket_id
            assert not standing.exists
            fact = s.SecretIs(exists=True, ours=True, account_id=account_id)
        case s.Revoke(bucket_id=bucket_id, account_id=account_id):
            assert bucket_id
            assert account_id
            assert names.ACCESS_FINALIZER in access.meta.finalizers
            assert view.context.driver.up
            fact = s.Revoked()
        case s.ReadAccessObject(key=key):
            assert key == access.meta.key
            fact = s.AccessIs(access)
        case s.DeleteSecret():
            assert standing.ours, "a Secret of someone else"
            assert access.meta.deleting
            fact = s.SecretIs(exists=False)
        case s.Done():
            raise AssertionError
    return access_plan.fold(view, fact)


@given(
    access=accesses,
    claim=st.none() | claims,
    bucket=st.none() | buckets,
    context=contexts,
    standing=secrets,
    has_class=st.booleans(),
    shared=st.booleans(),
)
def test_every_plan_of_an_access(
    access: BucketAccess,
    claim: BucketClaim | None,
    bucket: Bucket | None,
    context: s.Context,
    standing: s.SecretIs,
    has_class: bool,
    shared: bool,
) -> None:
    view = access_plan.AccessView(
        access,
        views.KEYS_CLASS if has_class else None,
        claim,
        bucket,
        context,
        shared,
        unproven=True,
    )
    ends(view, access_plan.plan, lambda view, step: act_on_access(view, step, standing))


def act_on_claim(view: claim_plan.ClaimView, step: s.ClaimStep) -> claim_plan.ClaimView:
    claim, bucket = view.claim, view.bucket
    assert claim is not None
    fact: s.Fact
    match step:
        case s.EditFinalizers(key=key, add=add, remove=remove):
            assert key == claim.meta.key
            assert not (add and claim.meta.deleting), "the API server would refuse it"
            after = edited(claim.meta, add, remove)
            fact = s.ClaimIs(None if is_gone(after) else replace(claim, meta=after))
        case s.ReadClaim(key=key):
            assert key == claim.meta.key
            fact = s.ClaimIs(claim)
        case s.ReadBucketObject():
            fact = s.BucketIs(bucket)
        case s.CreateBucketObject(name=name):
            assert bucket is None
            assert not view.unproven
            assert names.CLAIM_FINALIZER in claim.meta.finalizers
            fact = s.BucketIs(replace(views.BUCKET, meta=replace(views.BUCKET.meta, name=name)))
        case s.UpdateBucketObject(driver_name=driver_name, parameters=parameters):
            assert bucket is not None
            assert not bucket.bucket_id
            fact = s.BucketIs(replace(bucket, driver_name=driver_name, parameters=parameters))
        case s.BindBucketObject():
            assert bucket is not None
            assert not view.unproven
            assert bucket.claim is None or bucket.claim == ClaimRef("team", "photos")
            fact = s.BucketIs(replace(bucket, claim=views.REF))
        case s.DeleteBucketObject(uid=uid):
            assert bucket is not None
            assert bucket.claim is not None
            assert (uid, bucket.claim.uid) == (bucket.meta.uid, claim.meta.uid), "not its own"
            assert claim.meta.deleting
            gone = replace(bucket.meta, deleting=True)
            fact = s.BucketIs(None if is_gone(gone) else replace(bucket, meta=gone))
        case s.DeleteAccess(key=key):
            assert claim.meta.deleting
            fact = s.AccessDeleting(key)
        case s.Done():
            raise AssertionError
    return claim_plan.fold(view, fact)


@given(
    claim=claims,
    bucket=st.none() | buckets,
    found=st.lists(accesses, max_size=3),
    has_class=st.booleans(),
)
def test_every_plan_of_a_claim(
    claim: BucketClaim, bucket: Bucket | None, found: list[BucketAccess], has_class: bool
) -> None:
    numbered = tuple(
        replace(a, meta=replace(a.meta, name=f"a{n}", uid=f"u{n}")) for n, a in enumerate(found)
    )
    view = claim_plan.ClaimView(
        claim, views.CLASS if has_class else None, bucket, numbered, views.NOW, unproven=True
    )
    ends(view, claim_plan.plan, act_on_claim)
