"""Messages about a Bucket: its lost record, accounts and buckets that may be left."""

from collections.abc import Mapping

from cosi_operator.api.record import BucketRecord
from cosi_operator.api.view import Bucket, DeletionPolicy
from cosi_operator.outcome import Outcome, Reason, Terminal
from cosi_operator.plan import names, records
from cosi_operator.plan.bucket_view import BucketView, first_of
from cosi_operator.plan.steps import EditBucket
from cosi_operator.scrub import shown_name
from cosi_operator.status_patch import ready_of


def lost_record(bucket: Bucket, view: BucketView, step: EditBucket) -> str:
    """A clause about the loss of the Bucket's record; "" when the record was not lost."""
    if view.lost:
        return "was replaced by another version, and the sidecar restored the missing parts"
    if bucket.record is not None:
        return ""
    if view.remembered:
        return "was removed, and the sidecar restored it"
    # Only our sidecar writes conditions, and only after the record.
    conditions = [ready_of(bucket), *(ready_of(access) for access in view.accesses)]
    if step.record is None or not any(ready and ready.status == "True" for ready in conditions):
        return ""
    return (
        "was lost, and the sidecar wrote a new one from the data on which the Bucket, its"
        " BucketClaim and its BucketAccesses agree"
    )


def is_released(outcome: Outcome) -> bool:
    return isinstance(outcome, Terminal) and outcome.reason is Reason.RELEASED


def accounts_left(bucket: Bucket, step: EditBucket) -> str:
    """A text about the accounts in a copied record, which a new record replaces; "" if none."""
    copied, edit = bucket.copied_record, step.record
    if copied is None or edit is None:
        return ""
    left = records.accounts_left(copied, edit.start or BucketRecord())
    if not left:
        return ""
    texts = [f"{shown_name(account)} ({shown_name(access)})" for account, access in left.items()]
    return (
        f"Bucket {bucket.meta.name} was copied or restored. Its copied record names accounts that"
        " this sidecar does not revoke, because another cluster may use them. Their keys work:"
        f" {first_of(texts, 5)}. If nobody uses them any more, revoke them with the tools of your"
        " storage."
    )


def former_left(accounts: Mapping[str, str]) -> str:
    """A text about accounts from before the record whose accesses no longer exist.

    Args:
        accounts: by UID of the access.
    """
    shown = [f"{shown_name(account)} ({uid})" for uid, account in sorted(accounts.items())]
    return (
        "BucketAccesses that were granted before this operator were removed without a revoke, so"
        f" their keys may work. Account (and UID of the BucketAccess): {first_of(shown, 5)}. Revoke"
        " these accounts with the tools of your storage."
    )


def retained_id(bucket: Bucket, step: EditBucket) -> str:
    """The id of the bucket that this edit leaves on the backend; "" if there is none."""
    is_end = bucket.meta.deleting and names.BUCKET_FINALIZER in step.remove
    if not is_end or bucket.deletion_policy is DeletionPolicy.DELETE or bucket.copied_record:
        return ""
    return records.bucket_id_of(bucket)


def data_left(bucket: Bucket) -> str:
    """A text about the data of a Bucket that was removed by force; "" if it has no bucket id."""
    bucket_id = records.bucket_id_of(bucket)
    if not bucket_id:
        return ""
    return (
        f"Bucket {bucket.meta.name} was removed by force, so the driver was not called to delete"
        f" bucket {shown_name(bucket_id)}, and its data are still on the backend."
    )


def unverified(bucket: Bucket) -> str:
    return (
        f"Bucket {bucket.meta.name} was deleted, but an earlier, failed call may have left that"
        " bucket on the backend. Ask your cluster administrator to look for it on the backend."
    )
