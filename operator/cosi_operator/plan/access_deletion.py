"""Plans the sidecar's next step for a BucketAccess that is being deleted. Pure.

Revoke each recorded account, then remove the Secrets, the entry in the record and our finalizer.
Only accounts from the record are revoked: a deletion never sends the driver an id from the access
itself, its annotations, its status or its Secret, because a tenant may write all of these.
"""

from msgspec.structs import replace as with_fields

from cosi_operator.api.record import AccessRecord
from cosi_operator.api.view import Bucket, BucketAccess, Key
from cosi_operator.outcome import Reason, Success, Terminal
from cosi_operator.plan import names, records
from cosi_operator.plan.access_entry import (
    accounts_of,
    edit_entry,
    enter_earlier,
    grant_step,
    leave_given_up,
    leave_vanished,
    note_failure,
    revoke_step,
    unanswered_wait,
    unanswered_words,
    with_unanswered,
)
from cosi_operator.plan.access_view import AccessView
from cosi_operator.plan.steps import (
    AccessStep,
    DeleteSecret,
    Done,
    EditFinalizers,
    LeaveAccounts,
    ReadAccessObject,
    ReadBucketObject,
    ReadSecret,
    ReleaseSecret,
)
from cosi_operator.plan.verdicts import backing_off, driver_away, ended
from cosi_operator.scrub import shown_name

# How often an access is reconciled that is deleted after another access with the same account.
HOLDER_RECHECK_S = 5.0


def plan_deletion(access: BucketAccess, view: AccessView) -> AccessStep:
    """Return the next step of a deletion."""
    bucket, has_finalizer = view.bucket, names.ACCESS_FINALIZER in access.meta.finalizers
    if not has_finalizer and view.entry is None:
        return _ended(access)
    if bucket is not None and (step := enter_earlier(access, bucket, view)):
        return step
    if view.failed:
        if bucket and (note := note_failure(access, bucket, view, view.failed)):
            return note
        return Done(with_unanswered(view.failed.outcome, access, view.entry, view))
    if not view.nothing_to_revoke and (step := _plan_revoke(access, view)):
        return step
    if step := _plan_secrets(access, view):
        return step
    if bucket is not None and view.entry is not None and not view.vanished:
        unmark = () if view.others_need_finalizer else (names.BUCKET_ACCESS_FINALIZER,)
        return edit_entry(access, bucket, None, remove=unmark)
    if has_finalizer:
        return EditFinalizers(access.meta.key, remove=(names.ACCESS_FINALIZER,))
    return Done(Success(), report=False)


def _ended(access: BucketAccess) -> Done:
    words = (
        "The sidecar has finished. The keys are revoked, or an Event says which keys are not. The"
        " BucketAccess"
    )
    return ended(access, Reason.REVOKED, words, usable=access.granted)


def _plan_revoke(access: BucketAccess, view: AccessView) -> AccessStep | None:
    bucket, entry = view.bucket, view.entry
    if bucket is None or entry is None:
        return _plan_unrecorded(access, view)
    bucket_id = records.bucket_id_of(bucket)
    if view.gave_up:
        return leave_given_up(access, bucket, view)
    if not bucket_id:  # the record was edited; an empty id is never sent to a driver
        return LeaveAccounts(
            f"No account was revoked, because Bucket {bucket.meta.name} has no bucket id. The"
            f" backend may still hold {accounts_of(access, view)}."
        )
    accounts = entry.accounts
    granted = view.granted.account_id if view.granted else ""
    if granted and granted not in accounts:
        accounts = (*accounts, granted)
        if granted not in view.revoked | view.used_by_others and not view.vanished:
            # Store it first: a Revoke may fail, and each Grant may create another account.
            return edit_entry(access, bucket, with_fields(entry, accounts=accounts))
    for account in accounts:
        if account in view.awaited - view.used_by_others:
            return _await_holder(account)
        if account not in view.revoked | view.used_by_others:
            return revoke_step(access, bucket, account, view)
    if shared := view.used_by_others.intersection(accounts):
        return _leave_used_by_others(access, shared, view)
    if accounts:
        return _leave_unanswered(access, view)
    return _plan_resolve(access, bucket, entry, view)


def _plan_resolve(
    access: BucketAccess, bucket: Bucket, entry: AccessRecord, view: AccessView
) -> AccessStep:
    """Repeat a Grant to learn the id of an account that an earlier Grant may have created."""
    bucket_id = records.bucket_id_of(bucket)
    if view.vanished:
        return leave_vanished(access, bucket, view)
    if halt := backing_off(view.context) or driver_away(view.context):
        return halt
    if wait := unanswered_wait(entry, view):
        return wait
    if _is_orphan(access):
        if not view.bucket_proven:
            return ReadBucketObject(bucket.meta.key)
    elif view.unproven:
        return ReadAccessObject(access.meta.key)
    return grant_step(access, bucket_id, view, resolving=True)


def _is_orphan(access: BucketAccess) -> bool:
    """Whether the access no longer exists and was built from its entry in the record."""
    return not access.meta.resource_version


def _await_holder(account: str) -> Done:
    """Wait for the one access that revokes an account which several deleted accesses share."""
    return Done(
        Terminal(
            Reason.ACCOUNT_CONTESTED,
            f"The driver returned account {shown_name(account)} for another BucketAccess too, which"
            " is being deleted. This BucketAccess is deleted after that one.",
            waiting=True,
            recheck_s=HOLDER_RECHECK_S,
        )
    )


def _leave_used_by_others(
    access: BucketAccess, shared: frozenset[str], view: AccessView
) -> LeaveAccounts:
    shown = ", ".join(shown_name(account) for account in sorted(shared))
    text = (
        f"Account {shown} was not revoked, because the driver returned it for another BucketAccess"
        " too. The account is revoked when the last of these BucketAccesses is deleted, and its"
        " keys work until then."
    )
    unanswered = _leave_unanswered(access, view)
    return LeaveAccounts(f"{text} {unanswered.message}" if unanswered else text)


def _leave_unanswered(access: BucketAccess, view: AccessView) -> LeaveAccounts | None:
    entry = view.entry
    if entry is None or not entry.unanswered:
        return None
    return LeaveAccounts(f"The known accounts are revoked. {unanswered_words(access, entry)}")


def _plan_unrecorded(access: BucketAccess, view: AccessView) -> AccessStep | None:
    """The access has no entry in a record, so no account was created or its id is unknown."""
    bucket = view.bucket
    if not view.bucket_proven and (name := _bucket_to_read(view)):
        return ReadBucketObject(Key("", name))  # the cached record may be stale
    if not access.account_id or access.account_id in view.revoked:
        return None
    if bucket is not None and bucket.record and names.is_object_name(access.secret_name):
        if view.secret is None:
            return ReadSecret(view.secret_key)
        if not view.secret.exists:
            return None  # an earlier run revoked, deleted the Secret, and then removed the entry
    unnamed = "no record of a Bucket names this BucketAccess"
    if bucket:
        unnamed = f"the record of Bucket {bucket.meta.name} does not name this BucketAccess"
    claimed = _claimed_bucket(bucket)
    return LeaveAccounts(
        f"No account was revoked, because {unnamed}."
        f" Its status names account {shown_name(access.account_id)}{claimed}. If that account was"
        " created for this BucketAccess, ask your cluster administrator to delete that account on"
        " the backend."
    )


def _bucket_to_read(view: AccessView) -> str:
    if view.bucket is not None:
        return view.bucket.meta.name
    return names.bucket_name(view.claim.meta.uid) if view.claim else ""


def _claimed_bucket(bucket: Bucket | None) -> str:
    bucket_id = records.bucket_id_of(bucket) if bucket else ""
    return f" of bucket {shown_name(bucket_id)}" if bucket_id else ""


def _plan_secrets(access: BucketAccess, view: AccessView) -> AccessStep | None:
    """Delete the Secret of this access; remove our finalizer from a Secret that it does not own.

    Both the Secret in the spec and the recorded Secret are handled, because either field may have
    been edited.
    """
    named = (access.secret_name, view.entry.secret if view.entry else "")
    for name in dict.fromkeys(named):
        if not names.is_object_name(name):
            continue
        key = Key(access.meta.namespace, name)
        secret = view.secrets.get(name)
        if secret is None:
            return ReadSecret(key)
        if secret.exists and secret.ours:
            return DeleteSecret(key)
        if secret.exists and secret.has_finalizer:
            return ReleaseSecret(key)
    return None
