"""Reconciles the Buckets of one driver: the doing half of `plan/bucket.py`."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

from cosi_operator import conditions
from cosi_operator.api.view import Bucket, BucketAccess, BucketClaim, Key, Status
from cosi_operator.classify import Policy, Verdict
from cosi_operator.clock import Clock, SteadyTime
from cosi_operator.driver.v1alpha1 import Driver
from cosi_operator.kube.errors import ApiError, ApiSilent
from cosi_operator.kube.objects import Objects, set_finalizers
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
from cosi_operator.plan import bucket as planning
from cosi_operator.plan import names
from cosi_operator.plan.bucket import BucketView
from cosi_operator.plan.steps import (
    AccessDeleting,
    AccessesListed,
    BackendGone,
    BackendIs,
    BucketIs,
    BucketStep,
    ClaimIs,
    Context,
    CreateBackend,
    DeleteAccess,
    DeleteBackend,
    Done,
    DriverView,
    EditFinalizers,
    Fact,
    Failed,
    ListAccesses,
    MarkPending,
    ReadBucketObject,
    ReleaseClaim,
)
from cosi_operator.plan.verdicts import RESOLVE_ATTEMPTS
from cosi_operator.reconcile import Doubts, End, outcome_of, run_steps
from cosi_operator.report import PLAIN_WAITS, Level, Reporter, Told, ready_of
from cosi_operator.sidecar.calls import (
    Attempts,
    DriverState,
    Fingerprint,
    Refused,
    failure,
    final,
    judged,
)
from cosi_operator.sidecar.lanes import Lanes

ACCESSES_BY_CLAIM = "claim"  # index of accesses: the Key of the claim they name
BUCKETS_BY_CLAIM = "claim"  # index of Buckets: the Key of the claim they are bound to


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What both reconcilers of a sidecar share."""

    buckets: Objects[Bucket]
    claims: Objects[BucketClaim]
    accesses: Objects[BucketAccess]
    driver: Driver
    state: DriverState
    policy: Policy
    attempts: Attempts
    lanes: Lanes
    reporter: Reporter
    clock: Clock
    call_timeout_s: float
    recheck_s: float | None
    deletion_recheck_s: float | None


class BucketReconciler:
    """Brings one Bucket, and the status of its claim, to what it should be."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._s = sidecar
        self._time = SteadyTime(sidecar.clock)
        self._doubts = Doubts()

    async def reconcile(self, key: Key) -> Outcome:
        """One run for one key. Safe to repeat at any time."""
        try:
            await self._doubts.clear(self._s.buckets, key)
            view = self._read(key)
            end = await run_steps(view, plan=planning.plan, apply=self._apply, fold=planning.fold)
            return await self._report(key, end)
        except (ApiError, ApiSilent) as error:
            self._doubts.note(key, error)
            return outcome_of(error)

    def _read(self, key: Key) -> BucketView:
        bucket = self._s.buckets.get(key)
        claim = self._claim_of(bucket)
        driver = self._s.state.view()
        made_on = _made_on(bucket, claim, driver)
        return BucketView(
            bucket=bucket,
            claim=claim,
            accesses=tuple(self._accesses_of(bucket)),
            clean=planning.is_clean(bucket),
            unproven=True,
            context=Context(
                driver=driver,
                now=self._time.now(),
                pending=self._s.attempts.pending(key, made_on),
                recheck_s=self._s.recheck_s,
                deletion_recheck_s=self._s.deletion_recheck_s,
                started=self._time.started,
            ),
        )

    def _claim_of(self, bucket: Bucket | None) -> BucketClaim | None:
        if bucket is None or bucket.claim is None or not bucket.claim.name:
            return None
        claim = self._s.claims.get(bucket.claim.key)
        same = claim is not None and bucket.claim.uid in ("", claim.meta.uid)
        return claim if same else None

    def _accesses_of(self, bucket: Bucket | None) -> Iterable[BucketAccess]:
        if bucket is None or bucket.claim is None or not bucket.claim.name:
            return
        for cached in self._s.accesses.store.by_index(ACCESSES_BY_CLAIM, bucket.claim.key):
            if names.ACCESS_FINALIZER in cached.view.meta.finalizers:
                yield cached.view

    async def _apply(self, view: BucketView, step: BucketStep) -> Fact | Failed:
        assert view.bucket is not None
        match step:
            case EditFinalizers(key=key, add=add, remove=remove):
                return BucketIs(
                    await self._s.buckets.edit(
                        key, lambda body: set_finalizers(body, add=add, remove=remove)
                    )
                )
            case MarkPending():
                await self._s.reporter.mark_pending(self._s.buckets, view.bucket.meta.key)
                return BucketIs(self._s.buckets.get(view.bucket.meta.key))
            case ReadBucketObject(key=key):
                return BucketIs(await self._s.buckets.refresh(key))
            case CreateBackend():
                return await self._create(view, view.bucket, step)
            case DeleteBackend():
                return await self._delete(view, view.bucket, step)
            case ListAccesses(namespace=namespace):
                await self._s.accesses.relist(namespace)
                return AccessesListed(tuple(self._accesses_of(view.bucket)))
            case DeleteAccess(key=key, uid=uid):
                await self._s.accesses.delete(key, uid=uid)
                return AccessDeleting(key)
            case ReleaseClaim(key=key, uid=uid):
                current = self._s.claims.get(key)
                if current is None or current.meta.uid != uid:
                    return ClaimIs(None)
                claim = await self._s.claims.edit(
                    key, lambda body: set_finalizers(body, remove=(names.CLAIM_FINALIZER,))
                )
                return ClaimIs(claim)
            case Done():
                raise AssertionError("Done ends the loop")
            case _:
                assert_never(step)

    async def _create(self, view: BucketView, bucket: Bucket, step: CreateBackend) -> Fact | Failed:
        call = self._s.driver.create_bucket(
            step.name, step.parameters, timeout_s=self._s.call_timeout_s
        )
        reply = await judged(call, policy=self._s.policy, driver=self._s.state)
        if isinstance(reply, Refused):
            if reply.verdict is Verdict.SUCCESS:  # it exists, and the name is all that is known
                return BackendIs(step.name, already_existed=True)
            if step.resolving and (known := self._resolved(view, reply)):
                return self._let_go(view, known)
            return self._failed(view, bucket, reply)
        if not reply.bucket_id:
            if step.resolving:
                return self._let_go(view, BackendGone(unverified=True))
            empty = DriverStatus(Call.CREATE_BUCKET, Code.OK, MadeBy.REPLY, "bucket_id is empty")
            verdict = Terminal(
                Reason.EMPTY_BUCKET_ID, "", recheck_s=self._s.recheck_s, status=empty
            )
            return Failed(self._final(view, bucket, verdict), Effect.MAYBE)
        return BackendIs(reply.bucket_id)

    def _let_go(self, view: BucketView, known: BackendGone) -> BackendGone:
        if known.unverified and view.bucket:
            self._events(
                view,
                "Warning",
                Reason.BACKEND_UNVERIFIED.value,
                "Deleted without knowing whether the driver holds a bucket from an earlier, failed"
                f" try; look on the backend for {view.bucket.meta.name}.",
            )
        return known

    def _resolved(self, view: BucketView, refused: Refused) -> BackendGone | None:
        """What a refusal says about a bucket that is to be deleted, but whose id is not known."""
        if refused.status.made_by is MadeBy.TRANSPORT or refused.status.made_by is MadeBy.DEADLINE:
            return None  # no verdict: ask again
        # A refusal "before anything was done" speaks of this call only, not of the earlier one.
        last_try = view.context.pending.attempts + 1 >= RESOLVE_ATTEMPTS
        if refused.verdict is Verdict.TERMINAL or last_try:
            return BackendGone(unverified=True)
        return None

    async def _delete(self, view: BucketView, bucket: Bucket, step: DeleteBackend) -> Fact | Failed:
        call = self._s.driver.delete_bucket(
            step.bucket_id, step.context, timeout_s=self._s.call_timeout_s
        )
        reply = await judged(call, policy=self._s.policy, driver=self._s.state)
        if isinstance(reply, Refused) and reply.verdict is not Verdict.SUCCESS:
            return self._failed(view, bucket, reply)
        self._events(view, "Normal", "BucketDeleted", f"The bucket {step.bucket_id} was deleted.")
        return BackendGone()

    def _failed(self, view: BucketView, bucket: Bucket, refused: Refused) -> Failed:
        deleting = bucket.meta.deleting
        return failure(
            refused,
            attempts=self._s.attempts,
            key=bucket.meta.key,
            made_on=_made_on(bucket, view.claim, view.context.driver),
            recheck_s=self._s.deletion_recheck_s if deleting else self._s.recheck_s,
        )

    def _final(self, view: BucketView, bucket: Bucket, verdict: Terminal) -> Terminal:
        return final(
            verdict,
            attempts=self._s.attempts,
            key=bucket.meta.key,
            made_on=_made_on(bucket, view.claim, view.context.driver),
        )

    async def _report(self, key: Key, end: End[BucketView]) -> Outcome:
        bucket = end.view.bucket
        if bucket is None or isinstance(end.outcome, Success):
            self._s.attempts.forget(key)
        if bucket is None:
            return end.outcome
        if end.report:
            await self._s.reporter.tell(self._s.buckets, key, self._told(end, bucket))
        await self._tell_claim(end, key)
        return end.outcome

    def _told(self, end: End[BucketView], bucket: Bucket) -> Told:
        view = end.view
        bucket_id = planning.known_id(bucket, view)
        ready = isinstance(end.outcome, Success) and bool(bucket_id)
        note = (
            " (the driver said ALREADY_EXISTS, so its name is its id)"
            if view.already_existed
            else ""
        )
        made_on = _made_on(bucket, view.claim, view.context.driver)
        keep = bucket.ready and bucket.meta.deleting  # a failed deletion leaves it usable
        return Told(
            outcome=end.outcome,
            judged=bucket.meta,
            must_store=isinstance(end.outcome, Success) or end.outcome.status is not None,
            success=(Reason.PROVISIONED, f"The bucket is ready; its id is {bucket_id}{note}."),
            success_event="BucketCreated",
            failure_event="FailedDeleteBucket" if bucket.meta.deleting else "FailedCreateBucket",
            # An id that a deletion has learned is kept: to learn it again, Create would be asked.
            fields={
                "ready": ready or keep,
                "bucket_id": bucket_id if ready or bucket.meta.deleting else None,
            },
            attempts=self._s.attempts.pending(bucket.meta.key, made_on).attempts or 1,
            effect=end.effect if view.clean else Effect.MAYBE,
            driver_instance=made_on.driver_instance,
            retry_token=made_on.retry_token,
        )

    async def _tell_claim(self, end: End[BucketView], key: Key) -> None:
        """Mirror the Bucket on its claim: a tenant may not read Buckets."""
        bucket, claim = self._s.buckets.get(key), end.view.claim
        if bucket is None or claim is None or not bucket.conditions:
            return
        if not _speaks_for(bucket, claim):
            return
        ready = bucket.ready and bool(bucket.bucket_id)

        def status(current: BucketClaim) -> Status | None:
            wanted = conditions.mirror(current, bucket)
            if current.meta.uid != claim.meta.uid:
                return None
            return Status(
                conditions=conditions.merge(current.conditions, wanted, self._s.clock.wall()),
                observed_generation=current.meta.generation,
                ready=ready,
                bucket_name=bucket.meta.name,
            )

        was = ready_of(claim)
        if not await self._s.reporter.write(self._s.claims, claim.meta.key, status):
            return
        now = ready_of(bucket)
        if now and (was is None or (was.status, was.reason) != (now.status, now.reason)):
            self._claim_event(end, claim, bucket)

    def _claim_event(self, end: End[BucketView], claim: BucketClaim, bucket: Bucket) -> None:
        now = ready_of(bucket)
        assert now is not None
        if now.status == "True":
            self._s.reporter.event(
                self._s.claims,
                claim,
                "Normal",
                "BucketReady",
                f"Bucket {bucket.meta.name} is ready.",
            )
        elif isinstance(end.outcome, Requeue | Terminal):
            reason = "FailedDeleteBucket" if bucket.meta.deleting else "FailedCreateBucket"
            level: Level = "Warning"
            if end.outcome.reason in PLAIN_WAITS:
                level, reason = "Normal", end.outcome.reason.value
            self._s.reporter.event(
                self._s.claims,
                claim,
                level,
                reason,
                f"{now.reason}: {now.message}",
                fingerprint=f"{now.reason}:{bucket.meta.deleting}",
            )

    def _events(self, view: BucketView, level: Level, reason: str, message: str) -> None:
        """The same Event on the Bucket and on its claim, where the tenant looks."""
        if view.bucket is not None:
            self._s.reporter.event(self._s.buckets, view.bucket, level, reason, message)
        if view.claim is not None:
            self._s.reporter.event(self._s.claims, view.claim, level, reason, message)


def _made_on(bucket: Bucket | None, claim: BucketClaim | None, driver: DriverView) -> Fingerprint:
    """What a driver call of this run is made on: the driver as it was when the run began."""
    if bucket is None:
        return Fingerprint("", 0, "", "")
    token = planning.retry_token(bucket, claim)
    return Fingerprint(bucket.meta.uid, bucket.meta.generation, driver.instance, token)


def _speaks_for(bucket: Bucket, claim: BucketClaim) -> bool:
    """Whether the claim's status is this Bucket's to tell; else it is the controller's alone.

    A Bucket that is only reserved for a claim of this name is not bound to it, and a claim whose
    Bucket stays after it (static, Retain) is released by the controller.
    """
    bound = bucket.claim is not None and bucket.claim.uid == claim.meta.uid
    led = claim.bucket_name in ("", bucket.meta.name)
    return bound and led and (bucket.meta.deleting or not claim.meta.deleting)
