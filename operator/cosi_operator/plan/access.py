"""Plans the sidecar's next step for one BucketAccess. Pure.

Grant: read the Secret's name and make a dry run, add our finalizer to the access, add an entry to
the Bucket's record, call DriverGrantBucketAccess, add the account to the entry, store the Secret,
write status. A Grant is never repeated while the record names an account whose keys the Secret
holds, because many drivers create new keys, and some even a new account, with each call. Deletion:
see `plan/access_deletion.py`.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from msgspec.structs import replace as with_fields

from cosi_operator.api.record import NO_GRANT, AccessRecord, Room
from cosi_operator.api.view import Bucket, BucketAccess, age_s, stamp
from cosi_operator.outcome import (
    Call,
    DriverStatus,
    Effect,
    MadeBy,
    Reason,
    Success,
    Terminal,
)
from cosi_operator.plan import names, records
from cosi_operator.plan.access_checks import problem_of, rotation_problem, secret_problem
from cosi_operator.plan.access_deletion import plan_deletion
from cosi_operator.plan.access_entry import (
    await_restored,
    edit_entry,
    end_vanished,
    enter_earlier,
    grant_step,
    note_failure,
    revoke_all,
    unanswered_wait,
    with_unanswered,
)
from cosi_operator.plan.access_view import (
    AccessView,
    driver_of,
    is_retry_seen,
    judged_on,
    rotate_token,
)
from cosi_operator.plan.bucket_view import is_given_up
from cosi_operator.plan.facts import CallFailed, Granted
from cosi_operator.plan.steps import (
    AccessStep,
    Done,
    DryRunSecret,
    EditFinalizers,
    ReadAccessObject,
    ReadClaim,
    ReadSecret,
    ReleaseSecret,
    StoreSecret,
)
from cosi_operator.plan.verdicts import driver_away, valid_verdict

# The shortest time between two renewals of keys, whatever expiry the driver returns.
RENEW_EARLIEST_S = 60.0
# An access that waits for room in the record is reconciled this often, without a driver call.
ROOM_RECHECK_S = 60.0
# Keys that expire are renewed after this fraction of their lifetime.
RENEW_AFTER = 0.8


def plan(view: AccessView) -> AccessStep:
    """Return the next step."""
    access = view.access
    if access is None or not names.same_driver(driver_of(view), view.context.driver.name):
        return Done(Success(), report=False)
    if view.restoring:
        return await_restored(view)
    if access.meta.deleting:
        return plan_deletion(access, view)
    if view.vanished and view.entry:
        return (end_vanished(view) if view.succeeded else _settled(access, view)) or _lost(view)
    bucket = view.bucket
    if bucket is not None and (entering := enter_earlier(access, bucket, view)):
        return entering
    if settled := _settled(access, view):
        return settled
    if view.failed and bucket:
        return _after_failure(access, bucket, view, view.failed)
    if problem := problem_of(access, view):
        return _revoke_old(access, bucket, view) or Done(problem)
    assert bucket is not None  # otherwise problem_of returned a problem
    return _plan_grant(access, bucket, view)


def _revoke_old(access: BucketAccess, bucket: Bucket | None, view: AccessView) -> AccessStep | None:
    """Revoke the accounts whose keys a rotation replaced; None when none is left."""
    entry = view.entry
    old = entry.accounts[:-1] if entry and not entry.minted else ()
    if bucket is None or not old or not records.bucket_id_of(bucket):
        return None
    token = judged_on(access, view.access_class)
    verdict = valid_verdict(access, Call.REVOKE_ACCESS, view.context, token=token)
    return verdict or revoke_all(access, bucket, old, view)


def _lost(view: AccessView) -> Done:
    """The end of the run when the Bucket object no longer exists: no Grant, no Revoke."""
    assert view.bucket is not None
    return Done(
        Terminal(
            Reason.BUCKET_LOST,
            f"Bucket {view.bucket.meta.name} was removed by force, so no new keys are granted. The"
            " keys in the Secret are revoked when this BucketAccess is deleted.",
        )
    )


def _settled(access: BucketAccess, view: AccessView) -> Done | None:
    """The end of the run if the access is granted and neither annotation nor expiry is due."""
    entry = view.entry
    if entry is None or len(entry.accounts) != 1 or not access.granted or view.unstored_grant:
        return None
    if names.ACCESS_FINALIZER not in access.meta.finalizers or is_rotation_due(access, view):
        return None
    if not is_retry_seen(access) or view.is_superseded or view.has_other_keys:
        return None
    return Done(_success(entry, view))


def _success(entry: AccessRecord, view: AccessView) -> Success:
    """The outcome of a granted access; for keys that expire, with a recheck at their renewal."""
    if not entry.renew_at:
        return Success()
    return Success(recheck_s=max(1.0, -age_s(entry.renew_at, view.context.now)))


def is_rotation_due(access: BucketAccess, view: AccessView) -> bool:
    """Whether the keys in the Secret have to be replaced by new keys."""
    entry = view.entry
    if entry is None or not entry.accounts:
        return False
    if entry.minted:  # a run ended before the keys of this account were stored in the Secret
        return True
    asked = rotate_token(access)
    if asked and asked != entry.rotated:
        return True
    return bool(entry.renew_at) and age_s(entry.renew_at, view.context.now) >= 0


def _plan_grant(access: BucketAccess, bucket: Bucket, view: AccessView) -> AccessStep:
    token = judged_on(access, view.access_class)
    verdict = valid_verdict(access, Call.REVOKE_ACCESS, view.context, token=token)
    verdict = verdict or valid_verdict(access, Call.GRANT_ACCESS, view.context, token=token)
    if verdict and not view.unstored_grant:  # credentials in memory need no driver call
        return verdict
    if view.secret is None:
        return ReadSecret(view.secret_key)
    entry = view.entry
    if entry and entry.accounts:
        if view.revoked.issuperset(entry.accounts):
            return revoke_all(access, bucket, entry.accounts, view)  # removes them from the entry
        if view.secret.ours and (step := _plan_kept(access, bucket, view)):
            return step
    if view.unstored_grant:
        return _plan_store(access, bucket, view)
    if view.secret.has_finalizer and not view.secret.ours and view.may_release:
        # Release a restored Secret, because its finalizer would block deleting the namespace.
        return ReleaseSecret(view.secret_key)
    if blocked := secret_problem(view):
        return Done(blocked)
    if away := driver_away(view.context):
        return away
    if not view.secret_allowed and not view.secret.exists:
        return DryRunSecret(view.secret_key)
    return _plan_mint(access, bucket, view)


def _plan_kept(access: BucketAccess, bucket: Bucket, view: AccessView) -> AccessStep | None:
    """The next step when the Secret holds keys of a recorded account."""
    if hold := _plan_hold(access, bucket, view):
        return hold
    entry = view.entry
    assert entry is not None
    if (view.has_other_keys or view.is_superseded) and not is_rotation_due(access, view):
        # It is unknown which keys the Secret holds, so they are replaced as in a rotation.
        return edit_entry(access, bucket, with_fields(entry, minted=entry.accounts[-1], keys=""))
    old = entry.accounts[:-1]
    if old and not entry.minted:  # revoke before the next Grant, so that accounts never accumulate
        return revoke_all(access, bucket, old, view)
    if is_rotation_due(access, view):
        return _plan_rotation(access, bucket, entry, view)
    return Done(_success(entry, view)) if view.unstored_grant is None or view.stored else None


def _plan_hold(access: BucketAccess, bucket: Bucket, view: AccessView) -> AccessStep | None:
    """Add our finalizer to the access, then its entry to the record; None when both exist."""
    if names.ACCESS_FINALIZER not in access.meta.finalizers:
        return EditFinalizers(access.meta.key, add=(names.ACCESS_FINALIZER,))
    entry = view.entry
    marked = names.BUCKET_ACCESS_FINALIZER in bucket.meta.finalizers
    made_for = (access.class_name, access.secret_name)
    if entry and marked and (entry.accounts or (entry.class_name, entry.secret) == made_for):
        return None
    if entry is None and (halt := _no_room(bucket, records.room_of(bucket), "one more")):
        return halt
    if entry is None or not entry.accounts:
        base = entry or AccessRecord(access.meta.namespace, access.meta.name)
        entry = with_fields(base, class_name=access.class_name, secret=access.secret_name)
    edit = edit_entry(access, bucket, entry, add=(names.BUCKET_ACCESS_FINALIZER,))
    # The annotation was set for accounts of an earlier Bucket, not for those of later Grants.
    gave_up = view.entry is None and is_given_up(bucket, access.meta.uid)
    return replace(edit, given_up=access.meta.uid) if gave_up else edit


def _no_room(bucket: Bucket, room: Room, what: str) -> Done | None:
    if room is Room.NOW:
        return None
    count = len(bucket.record.accesses) if bucket.record else 0
    reason, text = (
        Reason.RECORD_FULL,
        f"Bucket {bucket.meta.name} already has {count} accesses, and its record has no room for"
        f" {what}. Delete a BucketAccess of this bucket that is no longer used.",
    )
    if room is Room.LATER:
        reason, text = (
            Reason.WAITING_FOR_TURN,
            f"The record of Bucket {bucket.meta.name} has no room for {what}, because too many of"
            " its BucketAccesses have no account yet. This BucketAccess continues automatically"
            " when some of them are granted or deleted.",
        )
    return Done(Terminal(reason, text, waiting=True, recheck_s=ROOM_RECHECK_S))


def _plan_mint(access: BucketAccess, bucket: Bucket, view: AccessView) -> AccessStep:
    """Write the entry, then call Grant. Every check that needs no driver call has passed."""
    if view.entry is None and not view.claim_proven:
        # Another tenant's claim may have the namespace and the name of a deleted one by now.
        return ReadClaim(access.claim_key)
    if hold := _plan_hold(access, bucket, view):
        return hold
    entry = view.entry
    assert entry is not None  # _plan_hold wrote it
    if entry.accounts:
        # Revoke accounts whose keys no Secret holds (the Secret was removed, or the driver sent no
        # keys) before another account is created, or their keys would work indefinitely.
        if entry.grant != NO_GRANT:  # a late request may still store a Secret with these keys
            return edit_entry(access, bucket, with_fields(entry, grant=NO_GRANT))
        return revoke_all(access, bucket, entry.accounts, view)
    if wait := unanswered_wait(entry, view):
        return wait
    if view.unproven:  # an account granted for a stale copy of a deleted access would leak
        return ReadAccessObject(access.meta.key)
    return grant_step(access, records.bucket_id_of(bucket), view)


def _plan_store(access: BucketAccess, bucket: Bucket, view: AccessView) -> AccessStep:
    """Write the account into the record, then the credentials into the Secret."""
    granted, entry, secret = view.unstored_grant, view.entry, view.secret
    assert granted is not None
    assert secret is not None
    if hold := _plan_hold(access, bucket, view):
        return hold
    assert entry is not None
    is_blocked = (secret.exists and not secret.ours) or bool(view.secret_refused)
    is_recorded = granted.account_id in entry.accounts
    if is_blocked and not is_recorded and granted.account_id in view.used_by_others:
        # It was just removed from the entry, because another access has it too.
        problem = secret_problem(view)
        assert problem is not None
        return Done(problem)
    if granted.account_id and not is_recorded:
        return edit_entry(access, bucket, _with_account(access, entry, view))
    if granted.problem:
        return _bad_reply(granted)
    if is_blocked:
        # The name was taken after the dry run, so no Secret can hold the keys: revoke them.
        return revoke_all(access, bucket, (granted.account_id,), view)
    # Replace keys in an existing Secret only if the record marks them as outdated (`minted`).
    return StoreSecret(view.secret_key, replace=secret.ours and bool(entry.minted))


def _bad_reply(granted: Granted) -> Done:
    reply = DriverStatus(Call.GRANT_ACCESS, granted.code, MadeBy.REPLY, granted.problem)
    missing = Reason.NO_CREDENTIALS if granted.account_id else Reason.EMPTY_ACCOUNT_ID
    return Done(Terminal(granted.reason or missing, "", status=reply))


def _with_account(access: BucketAccess, entry: AccessRecord, view: AccessView) -> AccessRecord:
    granted = view.granted
    assert granted is not None
    accounts = (*entry.accounts, granted.account_id)
    # Replace a Secret that holds other keys as in a rotation, because a rotation survives a crash.
    outdated = view.secret is not None and view.secret.ours
    if entry.accounts or outdated:
        minted = granted.account_id
        return with_fields(entry, accounts=accounts, minted=minted, grant=granted.grant, keys="")
    renew_at = _renew_at(granted, view)
    rotated = rotate_token(access)
    return with_fields(
        entry,
        accounts=accounts,
        grant=granted.grant,
        rotated=rotated,
        renew_at=renew_at,
        keys="",
    )


def renewal_time(expiry: str | None, now: datetime) -> str:
    """When to renew keys with this expiry (RFC 3339); "" for keys that do not expire."""
    left_s = -age_s(expiry, now) if expiry else 0.0
    return stamp(now + timedelta(seconds=left_s * RENEW_AFTER)) if left_s > 0 else ""


def _renew_at(granted: Granted, view: AccessView) -> str:
    """When to renew the keys. Never in the past, which would create new keys without a pause."""
    now = view.context.now
    if not granted.renew_at or age_s(granted.renew_at, now) <= -RENEW_EARLIEST_S:
        return granted.renew_at
    return stamp(now + timedelta(seconds=RENEW_EARLIEST_S))


def _plan_rotation(
    access: BucketAccess, bucket: Bucket, entry: AccessRecord, view: AccessView
) -> AccessStep:
    """Store new keys in the Secret; the accounts of the old keys are revoked after that.

    The rotation is finished when the entry contains the token. Until then, a crash at any point
    repeats the Grant, and only a crash does.
    """
    granted = view.unstored_grant
    if problem := rotation_problem(view):
        return Done(problem)
    if granted is None:
        room = records.room_of(bucket, rotating=True)
        if halt := _no_room(bucket, room, "the second account of a rotation"):
            return halt
        if wait := driver_away(view.context) or unanswered_wait(entry, view):
            return wait
        if view.unproven:
            return ReadAccessObject(access.meta.key)
        return grant_step(access, records.bucket_id_of(bucket), view)
    if granted.account_id and granted.account_id not in entry.accounts:
        return edit_entry(access, bucket, _with_account(access, entry, view))
    if granted.problem:
        return _bad_reply(granted)
    if view.stored is None:
        return StoreSecret(view.secret_key, replace=True)
    old = tuple(account for account in entry.accounts if account != granted.account_id)
    done = with_fields(
        entry,
        accounts=(*old, granted.account_id),
        minted="",
        grant=granted.grant,
        rotated=rotate_token(access),
        renew_at=_renew_at(granted, view),
        keys=view.stored.keys,
    )
    return edit_entry(access, bucket, done)


def _after_failure(
    access: BucketAccess, bucket: Bucket, view: AccessView, failed: CallFailed
) -> AccessStep:
    """After a failed call, remove the entry only if a Grant certainly had no effect."""
    entry, outcome = view.entry, failed.outcome
    granting = outcome.status is not None and outcome.status.call is Call.GRANT_ACCESS
    # A Secret of ours without an account (its entry was lost) has to be deleted with the access.
    holds_keys = _has_account(entry) or (view.secret is not None and view.secret.ours)
    if granting and failed.effect is Effect.NONE and view.clean and not holds_keys:
        if entry is not None:
            unmark = () if view.others_need_finalizer else (names.BUCKET_ACCESS_FINALIZER,)
            return edit_entry(access, bucket, None, remove=unmark)
        if names.ACCESS_FINALIZER in access.meta.finalizers:
            return EditFinalizers(access.meta.key, remove=(names.ACCESS_FINALIZER,))
        return Done(outcome)
    if note := note_failure(access, bucket, view, failed):
        return note
    return Done(with_unanswered(outcome, access, entry, view))


def _has_account(entry: AccessRecord | None) -> bool:
    return entry is not None and bool(entry.accounts)
