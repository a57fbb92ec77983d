"""The next step for a BucketAccess that is being deleted; only the record says what is revoked."""

from dataclasses import replace as change
from datetime import timedelta

import pytest
from msgspec.structs import replace
from tests.support.views import (
    ACCESS,
    AWAY,
    BACKING_OFF,
    BEGUN,
    ENTRY,
    GOING_ACCESS,
    KEYS_CLASS,
    MARKED,
    NOW,
    PENDING_ENTRY,
    READY_CLAIM,
    RECORD,
    RECORDED,
    STAMP,
    UNRECORDED,
    UP,
    meta,
    with_context,
    with_entries,
)

from cosi_operator.api.record import AccessRecord
from cosi_operator.api.view import AuthenticationType, Bucket, BucketAccess, Key, Meta
from cosi_operator.outcome import (
    Call,
    Code,
    DriverStatus,
    Effect,
    MadeBy,
    Reason,
    Requeue,
    Success,
    Terminal,
)
from cosi_operator.plan import names
from cosi_operator.plan.access import plan
from cosi_operator.plan.access_entry import await_bucket
from cosi_operator.plan.access_view import AccessView, fold
from cosi_operator.plan.facts import (
    AccessFact,
    AccessIs,
    BucketIs,
    CallFailed,
    Granted,
    NothingToRevoke,
    Revoked,
    SecretIs,
)
from cosi_operator.plan.records import RecordEdit
from cosi_operator.plan.steps import (
    AccessStep,
    Context,
    DeleteSecret,
    Done,
    EditBucket,
    EditFinalizers,
    Grant,
    LeaveAccounts,
    ReadAccessObject,
    ReadBucketObject,
    ReadSecret,
    ReleaseSecret,
    Revoke,
)

KEY = ACCESS.meta.key
SECRET = Key("team", "reader-keys")
MOVED = Key("team", "moved")
NOTHING = Done(Success(), report=False)
FREE = SecretIs(exists=False)
OURS = SecretIs(exists=True, ours=True, has_finalizer=True)
STRIPPED = SecretIs(exists=True, ours=True)  # somebody removed our finalizer
THEIRS = SecretIs(exists=True)
FOREIGN_WITH_FINALIZER = SecretIs(exists=True, has_finalizer=True)
REVOKE = Revoke("id-7", "acct-7", {"role": "reader"})
RESOLVE = Grant("id-7", "ba-access-uid", AuthenticationType.KEY, {"role": "reader"}, resolving=True)
READ_BUCKET = ReadBucketObject(MARKED.meta.key)
LET_GO = EditFinalizers(KEY, remove=(names.ACCESS_FINALIZER,))
WAIT = Done(Requeue(Reason.DRIVER_UNREACHABLE, "", after_s=12.5, quiet=True), report=False)
NO_ACCOUNT = replace(GOING_ACCESS, account_id="", granted=False)
# As the run of its key makes it from the record, when the API server no longer has it.
ORPHAN = BucketAccess(
    Meta("reader", "team", uid="access-uid", deleting=True), secret_name="reader-keys"
)
GONE = frozenset({"acct-7"})
TWO = replace(ENTRY, accounts=("acct-6", "acct-7"))


def learned(seen: AccessRecord) -> EditBucket:
    """The entry with the account that a Grant has returned."""
    entry = replace(seen, accounts=(*seen.accounts, "acct-9"))
    record = RecordEdit(bucket_id="id-7", access_uid="access-uid", seen=seen, entry=entry)
    return EditBucket(MARKED.meta.key, record=record)


def drop(seen: AccessRecord | None, *, unmark: bool = True) -> EditBucket:
    return EditBucket(
        MARKED.meta.key,
        remove=(names.BUCKET_ACCESS_FINALIZER,) if unmark else (),
        record=RecordEdit(access_uid="access-uid", seen=seen, entry=None),
    )


def seen(
    access: BucketAccess = GOING_ACCESS,
    context: Context = UP,
    *,
    secret: SecretIs | None = None,
    **more: object,
) -> AccessView:
    """A deletion whose Bucket was read in this run."""
    given: dict[str, object] = {
        "access_class": KEYS_CLASS,
        "claim": READY_CLAIM,
        "bucket": RECORDED,
        "bucket_proven": True,
        "secrets": {SECRET.name: secret} if secret else {},
        **more,
    }
    return AccessView(access=access, context=context, **given)  # type: ignore[arg-type]  # a table's shorthand


def given_up(bucket: Bucket, value: str) -> Bucket:
    return meta(bucket, annotations={names.GIVE_UP_ANNOTATION: value})


def with_entry(entry: AccessRecord) -> Bucket:
    return with_entries(MARKED, access_uid=entry)


@pytest.mark.parametrize(
    ("view", "step"),
    [
        pytest.param(
            seen(replace(meta(GOING_ACCESS, finalizers=("a/b",)), granted=False), bucket=MARKED),
            NOTHING,
            id="neither our finalizer nor an entry -> nothing to do",
        ),
        pytest.param(
            seen(meta(GOING_ACCESS, finalizers=("a/b",))),
            REVOKE,
            id="the finalizer was stripped, an entry is left -> Revoke",
        ),
        pytest.param(
            seen(bucket=UNRECORDED),
            await_bucket(f"The record of Bucket {UNRECORDED.meta.name} is not started yet."),
            id="the Bucket has no record yet -> its own run starts it first",
        ),
        pytest.param(seen(), REVOKE, id="recorded account -> revoked first"),
        pytest.param(
            seen(bucket_proven=False),
            READ_BUCKET,
            id="the record may be stale -> the Bucket is read before the Revoke",
        ),
        pytest.param(
            seen(
                bucket=with_entry(replace(ENTRY, accounts=("ba-access-uid",))),
                bucket_proven=False,
            ),
            change(REVOKE, account_id="ba-access-uid"),
            id="the account contains the access's own UID -> revoked without a read",
        ),
        pytest.param(
            seen(bucket=with_entry(TWO)),
            change(REVOKE, account_id="acct-6"),
            id="two accounts during a rotation -> the older is revoked",
        ),
        pytest.param(
            seen(bucket=with_entry(TWO), revoked=frozenset({"acct-6"})),
            REVOKE,
            id="the older is revoked -> then the newer",
        ),
        pytest.param(
            seen(access_class=None),
            change(REVOKE, context={}),
            id="the class is gone -> still revoked",
        ),
        pytest.param(seen(claim=None), REVOKE, id="the claim is gone -> still revoked"),
        pytest.param(
            seen(replace(GOING_ACCESS, account_id="forged")),
            REVOKE,
            id="the status names another account -> the recorded one is revoked",
        ),
        pytest.param(
            seen(bucket=replace(RECORDED, bucket_id="forged")),
            REVOKE,
            id="the status of the Bucket names another id -> the recorded id is sent",
        ),
        pytest.param(seen(revoked=GONE), ReadSecret(SECRET), id="revoked -> the Secret is read"),
        pytest.param(
            seen(revoked=GONE, secret=OURS), DeleteSecret(SECRET), id="our Secret -> deleted"
        ),
        pytest.param(
            seen(revoked=GONE, secret=STRIPPED),
            DeleteSecret(SECRET),
            id="our Secret without our finalizer -> deleted",
        ),
        pytest.param(
            seen(revoked=GONE, secret=FOREIGN_WITH_FINALIZER),
            ReleaseSecret(SECRET),
            id="a Secret with our finalizer that names no access -> released",
        ),
        pytest.param(
            seen(revoked=GONE, secret=THEIRS), drop(ENTRY), id="someone else's Secret -> untouched"
        ),
        pytest.param(
            seen(revoked=GONE, secret=FREE), drop(ENTRY), id="the Secret is gone -> the entry goes"
        ),
        pytest.param(
            seen(revoked=GONE, secret=FREE, others_need_finalizer=True),
            drop(ENTRY, unmark=False),
            id="another access needs the mark -> it stays",
        ),
        pytest.param(
            seen(NO_ACCOUNT, bucket=MARKED, secret=FREE),
            LET_GO,
            id="the entry is removed -> the finalizer goes last",
        ),
        pytest.param(
            seen(meta(GOING_ACCESS, finalizers=()), revoked=GONE, secret=FREE, bucket=MARKED),
            NOTHING,
            id="the entry is removed and the finalizer was stripped -> done",
        ),
    ],
)
def test_deletion(view: AccessView, step: AccessStep) -> None:
    assert plan(view) == step


def test_what_a_foreign_finalizer_keeps_is_no_longer_granted() -> None:
    step = plan(seen(meta(GOING_ACCESS, finalizers=("a/b",)), bucket=MARKED))
    assert isinstance(step, Done)
    assert isinstance(step.outcome, Terminal)
    assert step.outcome.reason is Reason.REVOKED
    assert step.outcome.message.endswith("removed: a/b.")


@pytest.mark.parametrize(
    ("view", "step"),
    [
        pytest.param(
            seen(bucket=BEGUN),
            RESOLVE,
            id="entry without an account -> Grant is asked again to learn it",
        ),
        pytest.param(
            seen(bucket=BEGUN, unproven=True),
            ReadAccessObject(KEY),
            id="the copy may be stale -> the access is read first",
        ),
        pytest.param(seen(context=AWAY, bucket=BEGUN), None, id="the driver is away -> waits"),
        pytest.param(
            seen(context=BACKING_OFF, bucket=BEGUN), WAIT, id="a backoff -> waits until it is over"
        ),
        pytest.param(
            seen(bucket=BEGUN, granted=Granted("acct-9")),
            learned(PENDING_ENTRY),
            id="the account was learned -> recorded, because the Revoke may fail",
        ),
        pytest.param(
            seen(bucket=BEGUN, granted=Granted("acct-9"), revoked=frozenset({"acct-9"})),
            ReadSecret(SECRET),
            id="the learned account is revoked -> the Secret",
        ),
        pytest.param(
            seen(granted=Granted("acct-9"), revoked=GONE),
            learned(ENTRY),
            id="keys in memory whose account is not recorded yet -> recorded",
        ),
        pytest.param(
            seen(bucket=BEGUN, nothing_to_revoke=True, secret=FREE),
            drop(PENDING_ENTRY),
            id="the driver says that no account exists -> the entry goes",
        ),
        pytest.param(
            seen(ORPHAN, bucket=BEGUN, bucket_proven=False, unproven=True, access_class=None),
            READ_BUCKET,
            id="orphan -> the Bucket is read, because the access can't be",
        ),
        pytest.param(
            seen(ORPHAN, bucket=BEGUN, unproven=True, access_class=None),
            change(RESOLVE, authentication_type=AuthenticationType.UNKNOWN, parameters={}),
            id="orphan whose record was read -> Grant is asked again",
        ),
    ],
)
def test_grant_whose_result_is_unknown(view: AccessView, step: AccessStep | None) -> None:
    found = plan(view)
    if step is not None:
        assert found == step
        return
    assert isinstance(found, Done)
    assert isinstance(found.outcome, Terminal)
    assert found.outcome.reason is Reason.WAITING_FOR_DRIVER


@pytest.mark.parametrize(
    ("view", "words"),
    [
        pytest.param(
            seen(bucket=MARKED, secret=OURS),
            (
                f"No account was revoked, because the record of Bucket {MARKED.meta.name} does not"
                " name this BucketAccess. Its status names account acct-7 of bucket id-7."
            ),
            id="no entry, the status names an account -> nothing is sent",
        ),
        pytest.param(
            seen(bucket=None, claim=None, secret=THEIRS),
            (
                "No account was revoked, because no record of a Bucket names this BucketAccess."
                " Its status names account acct-7."
            ),
            id="no Bucket, the status names an account -> nothing is sent",
        ),
        pytest.param(
            seen(
                bucket=replace(
                    RECORDED,
                    bucket_id="",
                    record=replace(RECORD, accesses={"access-uid": ENTRY}),
                )
            ),
            f"No account was revoked, because Bucket {MARKED.meta.name} has no bucket id. The"
            " backend may still hold account acct-7.",
            id="an edited record without the bucket's id -> no call with an empty id",
        ),
        pytest.param(
            seen(bucket=given_up(RECORDED, "access-uid")),
            "The backend may still hold account acct-7 of bucket id-7.",
            id="an administrator gave up on this access -> nothing is sent",
        ),
        pytest.param(
            seen(bucket=given_up(RECORDED, "other, access-uid"), context=AWAY),
            "The backend may still hold account acct-7 of bucket id-7.",
            id="given up among others, the driver is away -> ends",
        ),
        pytest.param(
            seen(bucket=given_up(with_entry(TWO), "access-uid")),
            "The backend may still hold account acct-6, acct-7 of bucket id-7.",
            id="given up with two accounts -> both are named",
        ),
        pytest.param(
            seen(bucket=given_up(BEGUN, "access-uid"), context=BACKING_OFF),
            "The backend may still hold an account named ba-access-uid of bucket id-7.",
            id="given up without an account -> its name is told",
        ),
        pytest.param(
            seen(ORPHAN, bucket=BEGUN, vanished=True),
            f"Bucket {MARKED.meta.name} was removed by force, so no account could be revoked.",
            id="the Bucket vanished, no account was learned -> no Grant on it",
        ),
        pytest.param(
            seen(bucket=with_entry(replace(ENTRY, unanswered=2, since=STAMP)), revoked=GONE),
            f"The known accounts are revoked. 2 driver calls got no answer since {STAMP}",
            id="revoked, but calls got no answer -> says what may be left",
        ),
    ],
)
def test_what_may_be_left_on_the_backend_is_named(view: AccessView, words: str) -> None:
    step = plan(view)
    assert isinstance(step, LeaveAccounts)
    assert words in step.message
    after = fold(view, NothingToRevoke())
    assert plan(change(after, secrets={})) == ReadSecret(SECRET)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("", id="empty -> not given up"),
        pytest.param("access", id="a part of the UID -> not given up"),
        pytest.param("other", id="another UID -> not given up"),
        pytest.param("bucket-uid", id="the UID of the Bucket -> its accesses are still revoked"),
        pytest.param("access-uid-2", id="a longer UID -> not given up"),
    ],
)
def test_give_up_annotation_for_another_object_ends_nothing(value: str) -> None:
    assert plan(seen(bucket=given_up(RECORDED, value))) == REVOKE


@pytest.mark.parametrize(
    ("view", "step"),
    [
        pytest.param(
            seen(bucket=MARKED, bucket_proven=False),
            READ_BUCKET,
            id="no entry in a cached record -> the Bucket is read",
        ),
        pytest.param(
            seen(bucket=None, bucket_proven=False),
            READ_BUCKET,
            id="no Bucket in the cache -> the claim's Bucket is read",
        ),
        pytest.param(
            seen(NO_ACCOUNT, bucket=MARKED),
            ReadSecret(SECRET),
            id="no entry and no account in the status -> no warning",
        ),
        pytest.param(
            seen(NO_ACCOUNT, bucket=None, claim=None, bucket_proven=False),
            ReadSecret(SECRET),
            id="neither Bucket nor claim -> nothing to read",
        ),
        pytest.param(
            seen(
                bucket=replace(MARKED, record=None, copied_record=RECORDED.record),
                bucket_proven=False,
            ),
            READ_BUCKET,
            id="the record was copied from another Bucket -> it is void, the Bucket is read",
        ),
    ],
)
def test_access_without_an_entry(view: AccessView, step: AccessStep) -> None:
    assert plan(view) == step


def test_copied_record_revokes_nothing() -> None:
    copy = replace(MARKED, record=None, copied_record=RECORDED.record)
    step = plan(seen(bucket=copy, secret=OURS))
    assert isinstance(step, LeaveAccounts)
    assert "does not name this BucketAccess" in step.message


def test_of_a_deletion_that_an_earlier_run_has_nearly_finished_nothing_is_said() -> None:
    """It revoked, deleted the Secret and ended the entry; the status still names the account."""
    view = seen(bucket=MARKED)
    assert plan(view) == ReadSecret(SECRET)
    assert plan(fold(view, FREE)) == LET_GO


def test_vanished_bucket_revokes_the_account_that_is_remembered() -> None:
    view = seen(ORPHAN, bucket=RECORDED, vanished=True, bucket_proven=False, access_class=None)
    assert plan(view) == READ_BUCKET
    view = fold(view, BucketIs(None))
    assert plan(view) == change(REVOKE, context={})
    view = fold(view, Revoked("acct-7"))
    assert plan(view) == ReadSecret(SECRET)
    view = fold(view, FREE)
    assert plan(view) == NOTHING  # neither a record nor an access is left to edit


def test_successor_of_a_vanished_bucket_does_not_hide_the_account() -> None:
    view = seen(ORPHAN, bucket=RECORDED, vanished=True, bucket_proven=False, access_class=None)
    view = fold(view, BucketIs(meta(MARKED, uid="successor")))
    assert plan(view) == change(REVOKE, context={})


def test_bucket_that_vanishes_during_the_deletion_leaves_only_the_finalizer() -> None:
    view = fold(seen(revoked=GONE, secret=FREE), BucketIs(None))
    assert plan(view) == LET_GO


def test_entry_that_is_missing_from_the_cache_is_found_by_the_read() -> None:
    view = seen(bucket=MARKED, bucket_proven=False)
    assert plan(view) == READ_BUCKET
    assert plan(fold(view, BucketIs(RECORDED))) == REVOKE


@pytest.mark.parametrize(
    ("spec", "recorded", "secrets", "step"),
    [
        pytest.param(
            "reader-keys",
            "reader-keys",
            {"reader-keys": FREE},
            drop(ENTRY),
            id="one name, free -> one read",
        ),
        pytest.param("moved", "reader-keys", {}, ReadSecret(MOVED), id="two names -> spec's first"),
        pytest.param(
            "moved",
            "reader-keys",
            {"moved": THEIRS},
            ReadSecret(SECRET),
            id="spec's is someone else's -> then the recorded one",
        ),
        pytest.param(
            "moved",
            "reader-keys",
            {"moved": FOREIGN_WITH_FINALIZER},
            ReleaseSecret(MOVED),
            id="spec's carries our finalizer -> released",
        ),
        pytest.param(
            "moved",
            "reader-keys",
            {"moved": OURS},
            DeleteSecret(MOVED),
            id="spec's is ours -> deleted",
        ),
        pytest.param(
            "moved",
            "reader-keys",
            {"moved": FREE, "reader-keys": OURS},
            DeleteSecret(SECRET),
            id="the recorded one is ours -> deleted",
        ),
        pytest.param(
            "moved",
            "reader-keys",
            {"moved": FREE, "reader-keys": FOREIGN_WITH_FINALIZER},
            ReleaseSecret(SECRET),
            id="the recorded one carries our finalizer -> released",
        ),
        pytest.param(
            "",
            "reader-keys",
            {},
            ReadSecret(SECRET),
            id="spec names none -> the recorded one",
        ),
        pytest.param(
            "../Keys",
            "reader-keys",
            {},
            ReadSecret(SECRET),
            id="spec names no possible Secret -> the recorded one",
        ),
        pytest.param("", "", {}, drop(replace(ENTRY, secret="")), id="no name -> none is read"),
    ],
)
def test_secrets_of_the_spec_and_of_the_record(
    spec: str, recorded: str, secrets: dict[str, SecretIs], step: AccessStep
) -> None:
    view = seen(
        replace(GOING_ACCESS, secret_name=spec),
        bucket=with_entry(replace(ENTRY, secret=recorded)),
        revoked=GONE,
    )
    assert plan(change(view, secrets=secrets)) == step


def failed_call(call: Call, code: Code, made_by: MadeBy = MadeBy.DRIVER) -> CallFailed:
    status = DriverStatus(call, code, made_by)
    return CallFailed(Requeue(Reason.DRIVER_INTERNAL, "", after_s=4.0, status=status), Effect.MAYBE)


@pytest.mark.parametrize(
    "failed",
    [
        pytest.param(failed_call(Call.REVOKE_ACCESS, Code.INTERNAL), id="Revoke failed -> retried"),
        pytest.param(
            failed_call(Call.GRANT_ACCESS, Code.INTERNAL), id="resolving failed -> retried"
        ),
        pytest.param(
            failed_call(Call.REVOKE_ACCESS, Code.DEADLINE_EXCEEDED, MadeBy.DEADLINE),
            id="our deadline ended a Revoke -> retried, not noted",
        ),
        pytest.param(
            CallFailed(
                Terminal(
                    Reason.DRIVER_PERMISSION_DENIED,
                    "",
                    status=DriverStatus(Call.REVOKE_ACCESS, Code.PERMISSION_DENIED, MadeBy.DRIVER),
                ),
                Effect.NONE,
            ),
            id="Revoke refused -> reported, entry and finalizer stay",
        ),
    ],
)
def test_failed_call_during_a_deletion_changes_nothing(failed: CallFailed) -> None:
    assert plan(seen(clean=True, failed=failed)) == Done(failed.outcome)
    assert plan(seen(bucket=BEGUN, failed=failed)) == Done(failed.outcome)


ONCE = replace(PENDING_ENTRY, unanswered=1, since=STAMP, last=STAMP)


def after(seconds: float) -> Context:
    return with_context(now=NOW + timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("view", "step"),
    [
        pytest.param(
            seen(
                bucket=BEGUN,
                failed=failed_call(Call.GRANT_ACCESS, Code.DEADLINE_EXCEEDED, MadeBy.DEADLINE),
            ),
            EditBucket(
                MARKED.meta.key,
                record=RecordEdit(
                    bucket_id="id-7", access_uid="access-uid", seen=PENDING_ENTRY, entry=ONCE
                ),
            ),
            id="our deadline ended the resolving Grant -> noted",
        ),
        pytest.param(
            seen(context=after(200), bucket=with_entry(ONCE)),
            Done(Requeue(Reason.DRIVER_DEADLINE, "", after_s=40.0, quiet=True), report=False),
            id="a Grant may still be at work -> waits for 4 call timeouts",
        ),
        pytest.param(
            seen(context=after(240), bucket=with_entry(ONCE)),
            RESOLVE,
            id="4 call timeouts are over -> asked again",
        ),
        pytest.param(
            seen(context=after(1), bucket=with_entry(replace(ONCE, accounts=("acct-7",)))),
            REVOKE,
            id="a known account -> revoked without that wait",
        ),
    ],
)
def test_unanswered_grant_during_a_deletion(view: AccessView, step: AccessStep) -> None:
    assert plan(view) == step


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(seen(context=AWAY), id="an account to revoke -> waits"),
        pytest.param(seen(context=AWAY, bucket=BEGUN), id="an account to learn -> waits"),
    ],
)
def test_a_deletion_waits_for_a_driver_that_is_away(view: AccessView) -> None:
    step = plan(view)
    assert isinstance(step, Done)
    assert isinstance(step.outcome, Terminal)
    assert step.outcome.reason is Reason.WAITING_FOR_DRIVER


def test_a_final_verdict_on_a_deletion_is_held_in_memory_only() -> None:
    held = with_context(pending=change(BACKING_OFF.pending, wait_s=float("inf")))
    assert plan(seen(context=held)) == Done(Terminal(Reason.DRIVER_UNREACHABLE, ""), report=False)


def test_deletion_from_revoke_to_finalizer_in_order() -> None:
    view = seen(bucket_proven=False, unproven=True)
    facts: list[tuple[AccessStep, AccessFact]] = [
        (READ_BUCKET, BucketIs(RECORDED)),
        (REVOKE, Revoked("acct-7")),
        (ReadSecret(SECRET), OURS),
        (DeleteSecret(SECRET), FREE),
        (drop(ENTRY), BucketIs(MARKED)),
    ]
    for step, fact in facts:
        assert plan(view) == step
        view = fold(view, fact)
    # The status still names the account, and the entry is gone: no warning, it was revoked.
    assert plan(view) == LET_GO
    view = fold(view, AccessIs(None))
    assert plan(view) == NOTHING


def test_live_access_of_a_bucket_removed_by_force_keeps_its_keys() -> None:
    live = replace(ORPHAN, meta=replace(ORPHAN.meta, deleting=False))
    step = plan(seen(live, bucket=RECORDED, vanished=True, bucket_proven=False))
    assert isinstance(step, Done)
    assert isinstance(step.outcome, Terminal)
    assert step.outcome.reason is Reason.BUCKET_LOST


def test_live_access_of_a_bucket_that_another_one_replaced_is_revoked_and_starts_anew() -> None:
    live = replace(ORPHAN, meta=replace(ORPHAN.meta, deleting=False))
    view = seen(live, bucket=RECORDED, vanished=True, succeeded=True, bucket_proven=False)
    step = plan(view)
    assert isinstance(step, Revoke)
    assert (step.bucket_id, step.account_id) == ("id-7", "acct-7")
    view = fold(view, Revoked("acct-7"))
    key = view.secret_key
    assert plan(view) == ReadSecret(key)
    assert plan(fold(view, SecretIs(exists=True, ours=True, name=key.name))) == DeleteSecret(key)
    view = fold(view, SecretIs(exists=False, name=key.name))
    again = Requeue(Reason.BUCKET_LOST, "", after_s=0.0, quiet=True)
    assert plan(view) == Done(again, report=False)
