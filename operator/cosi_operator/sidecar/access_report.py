"""The status report of a BucketAccess's run, and the key for counting its driver calls."""

from cosi_operator.api.view import BucketAccess, BucketAccessClass, Key
from cosi_operator.outcome import Call, Code, Effect, MadeBy, Reason, Requeue, Success, Terminal
from cosi_operator.plan import names, records
from cosi_operator.plan.access_view import (
    AccessView,
    ignored_change,
    judged_on,
    retry_token,
    rotate_token,
)
from cosi_operator.plan.steps import DriverView
from cosi_operator.reconcile import End
from cosi_operator.sidecar.calls import Attempts, Fingerprint, Refused
from cosi_operator.status_patch import StatusReport


def access_report(end: End[AccessView], access: BucketAccess, attempts: Attempts) -> StatusReport:
    """The report for the status and the Event of a run."""
    view, entry = end.view, end.view.entry
    judged = view.judged or access
    basis = made_on(judged, view.access_class, view.context.driver)
    granted = isinstance(end.outcome, Success)
    # A failed rotation or deletion leaves the keys as they were.
    is_lost = view.secret is not None and not view.secret.ours and not access.meta.deleting
    has_account = entry is not None and bool(entry.accounts)
    works = has_account and access.granted and not view.revoked and not is_lost
    token = retry_token(access) if granted else basis.retry_token
    if granted and (rotate := rotate_token(access)):
        token = f"{token}+{rotate}"
    return StatusReport(
        outcome=end.outcome,
        judged=judged.meta,
        call=Call.GRANT_ACCESS,
        must_store=isinstance(end.outcome, Success) or end.outcome.status is not None,
        success=(Reason.GRANTED, _success_words(view)),
        success_event="AccessGranted",
        failure_event="FailedRevokeAccess" if access.meta.deleting else "FailedGrantAccess",
        fields={"ready": granted or works, "account_id": _account_field(view, access)},
        attempts=attempts.pending(attempts_key(access), basis).attempts or 1,
        effect=view.failed.effect if view.failed and view.clean else Effect.MAYBE,
        driver_instance=basis.driver_instance,
        # For a success, store the annotations only, because a change of them requests a new run.
        retry_token=token,
        ignored=ignored_change(view),
    )


def is_vanished_ended(end: End[AccessView]) -> bool:
    """Whether nothing is left to revoke on a Bucket that was removed by force."""
    outcome = end.outcome
    return (
        end.view.vanished and isinstance(outcome, Requeue) and outcome.reason is Reason.BUCKET_LOST
    )


def is_bad_reply(outcome: Terminal) -> bool:
    return outcome.status is not None and outcome.status.made_by is MadeBy.REPLY


def _success_words(view: AccessView) -> str:
    """The message after a Grant: where the keys are, and whether a rotation replaced them."""
    words = f"Secret {view.secret_key} holds the keys."
    match view.entry.keys if view.entry else "":
        case "same":
            return f"{words} The keys were not rotated, because the driver returned the same keys."
        case "added":
            same = "The keys are new, but the account is the same, so the old keys may still work."
            return f"{words} {same}"
        case _:
            return words


def _account_field(view: AccessView, access: BucketAccess) -> str | None:
    """status.accountID: the account in the record. A copied or forged value is removed."""
    entry, bucket = view.entry, view.bucket
    if entry and entry.accounts:
        return entry.accounts[-1]
    if bucket is None or bucket.record is None or records.is_former(bucket, access):
        return None  # it may still be taken over
    return "" if access.account_id else None


def attempts_key(access: BucketAccess) -> Key:
    """The key of `Attempts` for an access.

    The failures of an access that exists only in the record are counted under its UID, separate
    from a new access with the same name.
    """
    return access.meta.key if access.meta.resource_version else Key(access.meta.uid, "")


def unverified_account(access: BucketAccess) -> str:
    deleted = "This BucketAccess was deleted, but an" if access.meta.deleting else "An"
    return (
        f"{deleted} earlier, failed call may have left account"
        f" {names.account_name(access.meta.uid)} on the backend. Ask your cluster administrator to"
        " look for it on the backend."
    )


def is_guess(view: AccessView, access: BucketAccess, account_id: str, reply: object) -> bool:
    """Whether a revoked account may have another id, because the driver never returned its id.

    The driver had answered ALREADY_EXISTS to the Grant, so the account's name was used as its id.
    """
    if access.granted or account_id != names.account_name(access.meta.uid):
        return False
    last, granted = access.last_call, view.granted
    is_unknown = isinstance(reply, Refused) and reply.status.code is Code.NOT_FOUND
    is_just_guessed = granted is not None and granted.code is Code.ALREADY_EXISTS
    was_guessed = last is not None and last.code == Code.ALREADY_EXISTS.name
    return is_unknown or is_just_guessed or was_guessed


def made_on(
    access: BucketAccess, access_class: BucketAccessClass | None, driver: DriverView
) -> Fingerprint:
    """The fingerprint of this run's driver calls, with the driver instance at the run's start."""
    meta = access.meta
    token = judged_on(access, access_class)
    return Fingerprint(meta.uid, meta.generation, driver.instance, token, meta.deleting)
