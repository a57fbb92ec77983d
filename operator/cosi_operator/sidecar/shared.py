"""Shared by the reconcilers of a sidecar: their parts, and the copy of a Bucket on its claim."""

from dataclasses import dataclass

from cosi_operator.api.view import (
    AuthenticationType,
    Bucket,
    BucketAccess,
    BucketAccessClass,
    BucketClaim,
    Key,
)
from cosi_operator.classify import Policy
from cosi_operator.clock import Clock
from cosi_operator.driver.v1alpha1 import Driver
from cosi_operator.kube.objects import Objects
from cosi_operator.outcome import Outcome, Reason, Requeue, Terminal
from cosi_operator.plan import names, records
from cosi_operator.plan.access_view import AccessView, authentication_of
from cosi_operator.plan.bucket_view import claim_retry
from cosi_operator.report import Level, Reporter, event_of
from cosi_operator.scrub import shown_name
from cosi_operator.sidecar.calls import Attempts, DriverState
from cosi_operator.sidecar.lanes import Lanes
from cosi_operator.sidecar.records import RecordLookup
from cosi_operator.sidecar.secret_release import UnheldSecrets
from cosi_operator.status_patch import (
    CLAIM_READY_EVENT,
    MirrorPatch,
    claim_ready_message,
    ready_of,
)


@dataclass(frozen=True, slots=True)
class Sidecar:
    """The parts that both reconcilers of a sidecar share."""

    buckets: Objects[Bucket]
    claims: Objects[BucketClaim]
    accesses: Objects[BucketAccess]
    driver: Driver
    state: DriverState
    policy: Policy
    attempts: Attempts
    lanes: Lanes
    reporter: Reporter
    lookup: RecordLookup
    unheld: UnheldSecrets
    clock: Clock
    call_timeout_s: float
    recheck_s: float | None
    deletion_recheck_s: float | None

    def current(self, outcome: Outcome) -> Outcome:
        """The outcome; a requeue if the run waits for the driver, but the driver answers again.

        When a driver answers again, only objects whose status shows that they wait are requeued,
        and the status of this object does not show it yet.
        """
        is_waiting = isinstance(outcome, Terminal) and outcome.reason is Reason.WAITING_FOR_DRIVER
        if is_waiting and self.state.view().up:
            return Requeue(Reason.CONFLICT, "", after_s=0.0, quiet=True)
        return outcome

    def event_about_removed(
        self, bucket: Bucket | None, level: Level, reason: str, message: str
    ) -> None:
        """Emit an Event on a Bucket and its claim about an access that no longer exists."""
        if bucket is None:
            return
        self.reporter.event(self.buckets, bucket, level, reason, message)
        if claim := self.lookup.claim_of_bucket(bucket):
            self.reporter.event(self.claims, claim, level, reason, message)


def bucket_failure_event(bucket: Bucket) -> str:
    """The reason of the Event about a failure, on the Bucket and on its claim."""
    return "FailedDeleteBucket" if bucket.meta.deleting else "FailedCreateBucket"


async def mirror_to_claim(
    sidecar: Sidecar, key: Key, claim: BucketClaim | None, outcome: Outcome, *, retried: bool
) -> None:
    """Mirror the Bucket of this key on its claim, because a tenant may not read Buckets.

    `retried`: the retry annotation of the claim made this run call the driver, which failed again.
    """
    bucket = sidecar.buckets.get(key)
    if bucket is None or claim is None or not bucket.conditions:
        return
    bound = sidecar.lookup.bucket_of_claim(claim)  # an administrator may bind two
    if bound is None or bound.meta.uid != bucket.meta.uid or not _is_mirrored(bucket, claim):
        return
    was = ready_of(claim)
    patch = MirrorPatch(bucket, claim.meta.uid, sidecar.clock.wall())
    is_written = await sidecar.reporter.write(sidecar.claims, claim.meta.key, patch)
    if retried:  # often only this Event shows that the operator retried
        _claim_event(sidecar, claim, bucket, outcome, retry=claim_retry(claim))
    if retried or not is_written:
        return
    now = ready_of(bucket)
    if now is None:
        return
    is_new = was is None or (was.status, was.reason) != (now.status, now.reason)
    # If a call fails again, the Event has to show the latest attempt, not the first.
    if is_new or (isinstance(outcome, Requeue) and outcome.status is not None):
        _claim_event(sidecar, claim, bucket, outcome)


def _claim_event(
    sidecar: Sidecar, claim: BucketClaim, bucket: Bucket, outcome: Outcome, *, retry: str = ""
) -> None:
    now = ready_of(bucket)
    if now is None:
        return
    answer = f"Retried because of {names.RETRY_ANNOTATION}={shown_name(retry)}. " if retry else ""
    if now.status == "True":
        text = claim_ready_message(bucket.meta.name)
        sidecar.reporter.event(sidecar.claims, claim, "Normal", CLAIM_READY_EVENT, text)
    elif isinstance(outcome, Requeue | Terminal):
        level, reason = event_of(outcome, bucket_failure_event(bucket))
        sidecar.reporter.event(
            sidecar.claims,
            claim,
            level,
            reason,
            f"{now.reason}: {answer}{now.message}",
            fingerprint=f"{now.reason}:{bucket.meta.deleting}:{retry}",
        )


def authentication_word(access_class: BucketAccessClass | None) -> str:
    """The type for `BucketInfo`: spelled as in the class, as the Go sidecar does."""
    return access_class.authentication_type if access_class else AuthenticationType.KEY.value


def warn_unknown_type(
    sidecar: Sidecar, access: BucketAccess, access_class: BucketAccessClass | None
) -> None:
    """Emit a Warning about a Grant that was sent with an unknown authentication type."""
    if access_class is None or authentication_of(access_class):
        return
    known = " or ".join(kind.value for kind in AuthenticationType if kind)
    sidecar.reporter.event(
        sidecar.accesses,
        access,
        "Warning",
        "UnknownAuthenticationType",
        f"authenticationType of BucketAccessClass {access_class.meta.name} is"
        f' "{shown_name(access_class.authentication_type)}", which is not {known}, so the driver'
        " was called with an unknown authentication type. If the access is refused or does not"
        " work, ask your cluster administrator to correct the class.",
    )


def warn_unrecorded_account(sidecar: Sidecar, access: BucketAccess, view: AccessView) -> None:
    """Emit a Warning if the status names an account that no record names.

    The status may be the only place that names the account, and it is about to be replaced. The
    account may also be copied from another access, or written by a tenant.
    """
    if not access.account_id or access.account_id in view.revoked or access.meta.deleting:
        return
    bucket = view.bucket
    if view.entry is not None or bucket is None or bucket.record is None:
        return
    if records.is_former(bucket, access):
        return
    sidecar.reporter.event(
        sidecar.accesses,
        access,
        "Warning",
        Reason.BACKEND_UNVERIFIED.value,
        f"status.accountID named account {shown_name(access.account_id)}, but the record of Bucket"
        f" {bucket.meta.name} does not name it for this BucketAccess, so the account was not"
        " revoked. If no other BucketAccess uses that account, ask your cluster administrator to"
        " delete it on the backend.",
        fingerprint=f"not in the record: {access.account_id}",
    )


def _is_mirrored(bucket: Bucket, claim: BucketClaim) -> bool:
    """Whether the sidecar writes the status of the claim; otherwise only the controller does.

    The controller releases a claim whose Bucket is kept after the claim (static, Retain).
    """
    return bucket.meta.deleting or not claim.meta.deleting
