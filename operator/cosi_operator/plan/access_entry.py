"""Shared by Grant and deletion of a BucketAccess: its entry and its unanswered calls. Pure."""

from msgspec.structs import replace as with_fields

from cosi_operator.api.record import AccessRecord, is_storable_id
from cosi_operator.api.view import Bucket, BucketAccess, age_s, stamp
from cosi_operator.outcome import Call, MadeBy, Outcome, Reason, Requeue, Success, Terminal
from cosi_operator.plan import names, records
from cosi_operator.plan.access_view import (
    UNANSWERED_TIMEOUTS,
    AccessView,
    authentication_of,
    rotate_token,
)
from cosi_operator.plan.facts import CallFailed
from cosi_operator.plan.records import RecordEdit
from cosi_operator.plan.steps import (
    AccessStep,
    DeleteSecret,
    Done,
    EditBucket,
    Grant,
    LeaveAccounts,
    ReadBucketObject,
    ReadSecret,
    Revoke,
)
from cosi_operator.plan.verdicts import backing_off, driver_away
from cosi_operator.scrub import shown_name

# How often an access is reconciled whose account another access names too.
CONTESTED_RECHECK_S = 60.0


def enter_earlier(access: BucketAccess, bucket: Bucket, view: AccessView) -> AccessStep | None:
    """The entry, or the wait for it, of an access that was granted before the present record."""
    return (
        _await_record(access, bucket, view)
        or _restore_entry(access, bucket, view)
        or _take_over(access, bucket, view)
    )


def await_restored(view: AccessView) -> Done:
    """End the run until the Bucket's run has restored the record; that change wakes this access."""
    name = view.bucket.meta.name if view.bucket else ""
    return await_bucket(f"The record of Bucket {name} is incomplete and is not restored yet.")


def await_bucket(why: str) -> Done:
    """End the run until the Bucket's run has changed the record; reported if that takes long."""
    words = (
        f"{why} If this lasts, ask your cluster administrator to look at the Events of that Bucket."
    )
    requeue = Requeue(Reason.WAITING_FOR_BUCKET, words, after_s=1.0, quiet=True)
    return Done(requeue, report=False)


def _await_record(access: BucketAccess, bucket: Bucket, view: AccessView) -> Done | None:
    """End the run until the Bucket's run has started the record; that change wakes this access.

    The sidecar of the Bucket's driver starts the record, immediately if an access may have been
    granted before. Until the Bucket is ready, only an access that may be taken over waits for it.
    """
    if bucket.record or bucket.copied_record or not _is_ours(bucket, view):
        return None
    if not records.may_have_former(bucket):
        return None
    if not bucket.ready and names.ACCESS_FINALIZER not in access.meta.finalizers:
        return None
    return await_bucket(f"The record of Bucket {bucket.meta.name} is not started yet.")


def _is_ours(bucket: Bucket, view: AccessView) -> bool:
    return names.same_driver(records.driver_of(bucket), view.context.driver.name)


def _restore_entry(access: BucketAccess, bucket: Bucket, view: AccessView) -> EditBucket | None:
    """Restore the entry of an access whose Bucket object was replaced by one of the same bucket."""
    if view.remembered is None or view.entry is not None or not _is_ours(bucket, view):
        return None
    if access.meta.deleting and (view.revoked or view.nothing_to_revoke):
        return None  # the deletion has revoked its accounts and removed its entry
    return edit_entry(access, bucket, view.remembered, add=(names.BUCKET_ACCESS_FINALIZER,))


def _take_over(access: BucketAccess, bucket: Bucket, view: AccessView) -> AccessStep | None:
    """Add an entry for an access that was granted before the record was started.

    A tenant may write the status that names the account. So trust this account only if the record
    has listed the access with it since the record's first write, if the Bucket is bound to the
    access's claim, and if no other access names the same account.
    """
    has_finalizer = names.ACCESS_FINALIZER in access.meta.finalizers
    if not has_finalizer or not access.account_id or view.vanished:
        return None
    if access.meta.deleting and (view.revoked or view.nothing_to_revoke):
        return None  # the deletion has revoked its accounts and removed its entry
    if view.nothing_to_revoke or access.account_id in view.revoked:  # its entry was just removed
        return None
    if not _is_ours(bucket, view) or not _fits_into_entry(access):
        return None
    if not records.is_former(bucket, access) or not _is_of_bound_claim(access, bucket, view):
        return None
    if view.rivals:
        if access.meta.deleting:
            return None
        return Done(
            Terminal(
                Reason.ACCOUNT_CONTESTED,
                "The status of another BucketAccess names the same account, so the owner of the"
                " account is unknown, and nothing is granted or revoked. Ask your cluster"
                f" administrator to compare status.accountID ({shown_name(access.account_id)}) of"
                " all BucketAccesses and to delete the wrong BucketAccess.",
                waiting=True,
                recheck_s=CONTESTED_RECHECK_S,
            )
        )
    entry = AccessRecord(
        namespace=access.meta.namespace,
        name=access.meta.name,
        class_name=access.class_name if view.access_class else "",
        secret=access.secret_name,
        accounts=(access.account_id,),
        rotated=rotate_token(access),
    )
    return edit_entry(access, bucket, entry, add=(names.BUCKET_ACCESS_FINALIZER,))


def _is_of_bound_claim(access: BucketAccess, bucket: Bucket, view: AccessView) -> bool:
    """Whether the Bucket is bound to the access's claim; a deletion does not need the claim."""
    if view.claim is not None:
        return records.is_bound_to(bucket, view.claim)
    bound = records.bound_claim(bucket)
    return access.meta.deleting and access.claim_key == (bound.namespace, bound.name)


def _fits_into_entry(access: BucketAccess) -> bool:
    """Whether account and Secret are short enough for an entry, because a tenant may write both."""
    named = not access.secret_name or names.is_object_name(access.secret_name)
    return named and is_storable_id(access.account_id)


def edit_entry(
    access: BucketAccess,
    bucket: Bucket,
    entry: AccessRecord | None,
    *,
    add: tuple[str, ...] = (),
    remove: tuple[str, ...] = (),
) -> EditBucket:
    edit = RecordEdit(
        bucket_id=records.bucket_id_of(bucket) if entry else None,
        access_uid=access.meta.uid,
        seen=records.entry_of(bucket, access.meta.uid),
        entry=entry,
    )
    return EditBucket(bucket.meta.key, add=add, remove=remove, record=edit)


def revoke_all(
    access: BucketAccess, bucket: Bucket, accounts: tuple[str, ...], view: AccessView
) -> AccessStep:
    """Revoke the accounts one by one, and remove each from the entry.

    An account that another access has too is not revoked, only removed from the entry.
    """
    entry = view.entry
    assert entry is not None
    for account in accounts:
        if account in view.revoked or account in view.used_by_others:
            left = tuple(a for a in entry.accounts if a != account)
            minted = entry.minted if entry.minted in left else ""
            return edit_entry(access, bucket, with_fields(entry, accounts=left, minted=minted))
    return revoke_step(access, bucket, accounts[0], view)


def revoke_step(access: BucketAccess, bucket: Bucket, account: str, view: AccessView) -> AccessStep:
    """Call DriverRevokeBucketAccess, unless the driver must not be called now."""
    if halt := backing_off(view.context) or driver_away(view.context):
        return halt
    if not view.bucket_proven and access.meta.uid not in account:
        # A stale record may name an account that the driver has since returned for another access.
        return ReadBucketObject(bucket.meta.key)
    return Revoke(records.bucket_id_of(bucket), account, view.parameters)


def end_vanished(view: AccessView) -> AccessStep | None:
    """Revoke the accounts of a vanished Bucket that another Bucket replaced; None without one.

    The Secret is deleted with its keys, because the next Grant may fail. The record of the other
    Bucket, which may have the same name, is not changed. The next run uses that Bucket.
    """
    bucket, entry = view.bucket, view.entry
    if not view.vanished or bucket is None or entry is None:
        return None
    if view.failed:
        return Done(view.failed.outcome)
    bucket_id = records.bucket_id_of(bucket)
    granted = view.unstored_grant.account_id if view.unstored_grant else ""
    accounts = dict.fromkeys((*entry.accounts, *filter(None, [granted])))
    done = view.revoked | view.used_by_others
    left = [account for account in accounts if account not in done]
    access, may_exist = view.access, not (accounts or view.revoked or view.clean)
    if may_exist and access is not None and not view.nothing_to_revoke:
        return leave_vanished(access, bucket, view)
    if bucket_id and left and not view.nothing_to_revoke:
        if access is not None and view.gave_up:
            return leave_given_up(access, bucket, view)
        halt = backing_off(view.context) or driver_away(view.context)
        return halt or Revoke(bucket_id, left[0], view.parameters)
    if entry.accounts or view.revoked:
        if view.secret is None:
            return ReadSecret(view.secret_key)
        if view.secret.exists and view.secret.ours:
            return DeleteSecret(view.secret_key)
    return Done(Requeue(Reason.BUCKET_LOST, "", after_s=0.0, quiet=True), report=False)


def leave_given_up(access: BucketAccess, bucket: Bucket, view: AccessView) -> LeaveAccounts:
    """Leave the accounts on the backend, because an administrator has given up the driver."""
    bucket_id = records.bucket_id_of(bucket)
    return LeaveAccounts(
        f"The driver was not called to revoke keys, because annotation {names.GIVE_UP_ANNOTATION}"
        f" of the Bucket requests it. The backend may still hold {accounts_of(access, view)} of"
        f" bucket {shown_name(bucket_id)}."
    )


def leave_vanished(access: BucketAccess, bucket: Bucket, view: AccessView) -> LeaveAccounts:
    """Leave an account whose id is not known, because its Bucket vanished."""
    bucket_id = records.bucket_id_of(bucket)
    return LeaveAccounts(
        f"Bucket {bucket.meta.name} was removed by force, so no account could be revoked. The"
        f" backend may hold {accounts_of(access, view)} of bucket {shown_name(bucket_id)}."
    )


def accounts_of(access: BucketAccess, view: AccessView) -> str:
    """The accounts of an access, for a message about what is left."""
    entry = view.entry
    if entry and entry.accounts:
        return "account " + ", ".join(entry.accounts)
    return f"an account named {names.account_name(access.meta.uid)}"


def unanswered_wait(entry: AccessRecord, view: AccessView) -> Done | None:
    """End the run while the driver may still be executing a call that got no answer."""
    if not entry.unanswered:
        return None
    needed = UNANSWERED_TIMEOUTS * view.context.call_timeout_s
    age = age_s(entry.last, view.context.now)
    if age < 0:  # a clock was wrong; the call was made before this process started, or just now
        started = view.context.started or view.context.now
        age = (view.context.now - started).total_seconds()
    if not age < needed:
        return None
    return Done(Requeue(Reason.DRIVER_DEADLINE, "", after_s=needed - age, quiet=True), report=False)


def grant_step(
    access: BucketAccess, bucket_id: str, view: AccessView, *, resolving: bool = False
) -> Grant:
    return Grant(
        bucket_id=bucket_id,
        name=names.account_name(access.meta.uid),
        authentication_type=authentication_of(view.access_class),
        parameters=view.parameters,
        resolving=resolving,
    )


def was_unanswered(outcome: Outcome) -> bool:
    """Whether our own deadline ended a Grant, so the driver may still be executing the call."""
    status = None if isinstance(outcome, Success) else outcome.status
    return (
        status is not None
        and status.made_by is MadeBy.DEADLINE
        and status.call is Call.GRANT_ACCESS
    )


def note_failure(
    access: BucketAccess, bucket: Bucket, view: AccessView, failed: CallFailed
) -> EditBucket | None:
    """Store once that a Grant got no answer; None when nothing has to be stored."""
    entry = view.entry
    if entry is None or not was_unanswered(failed.outcome) or _is_noted(entry, view):
        return None
    return edit_entry(access, bucket, _note_unanswered(entry, view))


def _is_noted(entry: AccessRecord, view: AccessView) -> bool:
    return entry.last == stamp(view.context.now)


def _note_unanswered(entry: AccessRecord, view: AccessView) -> AccessRecord:
    now = stamp(view.context.now)
    return with_fields(entry, unanswered=entry.unanswered + 1, since=entry.since or now, last=now)


def with_unanswered(
    outcome: Requeue | Terminal, access: BucketAccess, entry: AccessRecord | None, view: AccessView
) -> Outcome:
    """Add to the outcome the accounts that may be left, and a pause for an unanswered call."""
    if entry is None or not entry.unanswered or not isinstance(outcome, Requeue):
        return outcome
    wait_s = outcome.after_s
    if was_unanswered(outcome):
        needed = UNANSWERED_TIMEOUTS * view.context.call_timeout_s
        wait_s = max(outcome.after_s or 0.0, needed)
    return Requeue(
        outcome.reason,
        unanswered_words(access, entry),
        after_s=wait_s,
        status=outcome.status,
        quiet=outcome.quiet,
        attempts=outcome.attempts,
    )


def unanswered_words(access: BucketAccess, entry: AccessRecord) -> str:
    """A sentence about the accounts that may be left on the backend: number, time and name."""
    calls = "call" if entry.unanswered == 1 else "calls"
    return (
        f"{entry.unanswered} driver {calls} got no answer since {entry.since}, so the backend may"
        f" hold up to {entry.unanswered} accounts named {names.account_name(access.meta.uid)} that"
        " this sidecar can't revoke."
    )
