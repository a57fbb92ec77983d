"""What a run changes in the status of an object. Pure; the time is an argument.

A `StatusPatch` is a value. `report.Reporter`, the only writer of status, applies it to the cached
object and, after a conflict, to the fresh copy. Four writers have one each:

- `OutcomePatch`: the outcome of a run, in the object that the run was for.
- `MirrorPatch`: the state of a Bucket, in its claim.
- `IgnoredPatch`: a change that has no effect, in a claim that is ready.
- `RefusalPatch`: a request that the API server refused.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from msgspec.structs import replace as with_fields

from cosi_operator import conditions
from cosi_operator.api.view import (
    Bucket,
    BucketAccess,
    BucketClaim,
    Condition,
    LastCall,
    Meta,
    Status,
    ready_in,
    stamp,
)
from cosi_operator.outcome import (
    Call,
    Code,
    DriverStatus,
    Effect,
    MadeBy,
    Outcome,
    Reason,
    Requeue,
    Success,
    Terminal,
)
from cosi_operator.plan.bucket_view import claim_retry, retry_token

type Reported = Bucket | BucketAccess | BucketClaim

CLAIM_READY_EVENT = "BucketReady"
"""The reason of the Event on a ready claim. Sidecar and controller emit the same Event."""


class StatusPatch[T](Protocol):
    """What one writer changes in the status of one object.

    `uid`: the object that the patch is for; a later object of the same name is not changed.
    `version`: the only resourceVersion that the patch is for; "" allows every version.
    """

    @property
    def uid(self) -> str: ...

    @property
    def version(self) -> str: ...

    def status_of(self, current: T) -> Status | None:
        """The fields to write for the object as it is now; None to write nothing."""


@dataclass(frozen=True, slots=True)
class StatusReport:
    """The result of one run for one object, for its status and its Events.

    `judged` is the object as the run read it; the result is valid for that uid and generation only.
    `success` is the reason and message of the Ready condition after a Success, `success_event` the
    Event reason then, and `failure_event` the Event reason otherwise. `fields` are the status
    fields of the kind. `call` is the driver call that creates the backend's side of the object.
    `must_store`: store the result even if another writer changed the object since the run read it,
    because the driver has answered and must not be called again only for that change.
    """

    outcome: Outcome
    judged: Meta
    success: tuple[Reason, str]
    success_event: str
    failure_event: str
    fields: dict[str, Any] = field(default_factory=dict)
    call: Call = Call.CREATE_BUCKET
    must_store: bool = False
    attempts: int = 0
    effect: Effect = Effect.MAYBE
    driver_instance: str = ""
    retry_token: str = ""
    ignored: str = ""


@dataclass(frozen=True, slots=True)
class OutcomePatch:
    """The outcome of a run, as conditions, fields and the stored verdict.

    `kind`: the kind of the object. `longest_pause_s`: the cap of the backoff, for the message.
    """

    report: StatusReport
    kind: str
    now: datetime
    longest_pause_s: float

    @property
    def uid(self) -> str:
        return self.report.judged.uid

    @property
    def version(self) -> str:
        return "" if self.report.must_store else self.report.judged.resource_version

    def status_of(self, current: Reported) -> Status:
        report = self.report
        wanted = conditions.from_outcome(
            report.outcome,
            generation=report.judged.generation,
            success=report.success,
            message=self.message(current),
            ignored=report.ignored,
        )
        return Status(
            conditions=conditions.merge(current.conditions, wanted, self.now),
            observed_generation=report.judged.generation,
            last_call=_last_call(current, report, self.now),
            **report.fields,
        )

    def message(self, view: Reported) -> str:
        """The message of the Ready condition, and of the Event about a failure."""
        report = self.report
        if isinstance(report.outcome, Success):
            return report.success[1]
        what = f"{self.kind.lower()} {view.meta.name}"
        if view.meta.namespace:
            what += f" -n {view.meta.namespace}"
        claim = view.claim if isinstance(view, Bucket) else None
        if claim and claim.name:  # the tenant may write the claim, not the Bucket
            what = f"bucketclaim {claim.name} -n {claim.namespace}"
        return conditions.failure_message(
            report.outcome,
            attempts=report.attempts,
            retry_what=what,
            advice=conditions.advice_on(report.outcome.reason, view),
            now=self.now,
            longest_pause_s=self.longest_pause_s,
        )


@dataclass(frozen=True, slots=True)
class MirrorPatch:
    """The state of a Bucket, in the status of its claim."""

    bucket: Bucket
    uid: str
    now: datetime
    version: str = ""

    def status_of(self, current: BucketClaim) -> Status:
        bucket = self.bucket
        wanted = conditions.mirror(current, bucket)
        return Status(
            conditions=conditions.merge(current.conditions, wanted, self.now),
            observed_generation=current.meta.generation,
            ready=bucket.ready and bool(bucket.bucket_id),
            bucket_name=bucket.meta.name,
            observed_retry=self._observed_retry(current),
        )

    def _observed_retry(self, claim: BucketClaim) -> str | None:
        """The retry annotation of the claim if the last driver call took it into account."""
        last = self.bucket.last_call
        is_observed = last is not None and last.retry_token == retry_token(self.bucket, claim)
        return claim_retry(claim) or None if is_observed else None


@dataclass(frozen=True, slots=True)
class IgnoredPatch:
    """A sentence about a change without effect, in a claim with conditions; "" removes it."""

    ignored: str
    uid: str
    now: datetime
    version: str = ""

    def status_of(self, current: BucketClaim) -> Status | None:
        if ready_of(current) is None:
            return None
        generation = current.meta.generation
        merged = conditions.with_ignored(
            current.conditions, self.ignored, generation=generation, now=self.now
        )
        return Status(merged, current.observed_generation)


@dataclass(frozen=True, slots=True)
class RefusalPatch:
    """A request that the API server did not carry out, as the conditions of its object."""

    refusal: Requeue | Terminal
    uid: str
    now: datetime
    version: str = ""

    def status_of(self, current: Reported) -> Status:
        generation = current.meta.generation
        wanted = conditions.from_outcome(
            self.refusal,
            generation=generation,
            success=(self.refusal.reason, ""),
            message=self.refusal.message,
        )
        return Status(conditions.merge(current.conditions, wanted, self.now), generation)


def claim_ready_message(bucket_name: str) -> str:
    """The message of the Event on a ready claim; also of its condition, from the controller."""
    return f"Bucket {bucket_name} is ready."


def ready_of(view: Reported) -> Condition | None:
    return ready_in(view.conditions)


def is_minor(before: Reported, report: StatusReport) -> bool:
    """Whether the outcome is not worth a write: a quiet one, or one more retry that failed."""
    outcome = report.outcome
    if not isinstance(outcome, Requeue) or conditions.is_worth_writing(report.attempts):
        return isinstance(outcome, Requeue) and outcome.quiet
    was = ready_of(before)
    return was is not None and was.status == "False" and was.reason == outcome.reason


def _last_call(view: Reported, report: StatusReport, now: datetime) -> LastCall | None:
    """The verdict to store; None (keep the stored one) when no driver call was judged."""
    if isinstance(view, BucketClaim):
        return None
    outcome = report.outcome
    if isinstance(outcome, Success):
        return _last_success(view, report, now)
    status: DriverStatus | None = outcome.status
    if status is None:
        return None
    call = LastCall(
        call=status.call.value,
        code=status.code.name,
        made_by=status.made_by.value,
        outcome=type(outcome).__name__,
        effect=report.effect,
        reason=outcome.reason.value,
        attempts=report.attempts,
        generation=report.judged.generation,
        driver_instance=report.driver_instance,
        retry_token=report.retry_token,
        time=stamp(now),
        object_uid=report.judged.uid,
    )
    # Keep the stored verdict if only the time differs: a recheck with the same result writes
    # nothing.
    if (
        view.last_call
        and with_fields(view.last_call, time="", attempts=0)
        == with_fields(call, time="", attempts=0)
        and isinstance(outcome, Terminal)
    ):
        return view.last_call
    return call


def _last_success(
    view: Bucket | BucketAccess, report: StatusReport, now: datetime
) -> LastCall | None:
    """The verdict after a Success: replaces a failure, or records the retry annotation.

    None without an earlier verdict and without a retry annotation, because then a write is not
    needed.
    """
    before = view.last_call
    if before is None and not report.retry_token:
        return None
    fresh = LastCall(
        call=report.call.value,
        code=Code.OK.name,
        made_by=MadeBy.DRIVER.value,
        outcome="Success",
        effect=Effect.MAYBE,
        reason=report.success[0].value,
        attempts=1,
        generation=report.judged.generation,
        driver_instance=report.driver_instance,
        retry_token=report.retry_token,
        time=stamp(now),
        object_uid=report.judged.uid,
    )
    said = before and (before.call, before.outcome, before.retry_token)
    return before if said == (fresh.call, fresh.outcome, fresh.retry_token) else fresh
