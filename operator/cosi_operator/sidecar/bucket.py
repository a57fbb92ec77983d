"""Reconciles the Buckets of one driver: applies the steps of `plan/bucket.py`."""

from typing import assert_never

from cosi_operator.api.record import ID_LIMIT_BYTES, RECORD_ANNOTATION, is_storable_id
from cosi_operator.api.view import Bucket, BucketClaim, Key
from cosi_operator.classify import Verdict
from cosi_operator.clock import SteadyTime
from cosi_operator.kube.errors import ApiError, ApiSilent
from cosi_operator.outcome import (
    Call,
    Code,
    DriverStatus,
    Effect,
    MadeBy,
    Outcome,
    Reason,
    Success,
    Terminal,
)
from cosi_operator.plan import bucket as planning
from cosi_operator.plan import records
from cosi_operator.plan.bucket_view import (
    BucketView,
    claim_retry,
    fold,
    ignored_change,
    is_clean,
    known_id,
    our_finalizers,
    retry_token,
)
from cosi_operator.plan.facts import (
    AccessDeleting,
    AccessesListed,
    BackendGone,
    BackendIs,
    BucketFact,
    BucketIs,
    CallFailed,
    ClaimIs,
)
from cosi_operator.plan.steps import (
    BucketEffect,
    Context,
    CreateBackend,
    DeleteAccess,
    DeleteBackend,
    DriverView,
    EditBucket,
    LeaveBackend,
    ListAccesses,
    ReadBucketObject,
    ReadClaim,
    ReleaseClaim,
)
from cosi_operator.reconcile import End, Steps, UnconfirmedWrites
from cosi_operator.refusals import Refusals
from cosi_operator.report import Level
from cosi_operator.scrub import shown_name
from cosi_operator.sidecar.bucket_messages import (
    accounts_left,
    former_left,
    is_released,
    lost_record,
    retained_id,
    unverified,
)
from cosi_operator.sidecar.calls import (
    DriverRun,
    Fingerprint,
    Refused,
    Stopwatch,
    judged,
    log_change,
)
from cosi_operator.sidecar.driver_failures import DriverFailures
from cosi_operator.sidecar.records import edit_bucket
from cosi_operator.sidecar.shared import Sidecar, bucket_failure_event, mirror_to_claim
from cosi_operator.sidecar.vanished_buckets import VanishedBuckets
from cosi_operator.status_patch import StatusReport


class BucketReconciler:
    """Reconciles one Bucket and the status of its claim."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._s = sidecar
        self._time = SteadyTime(sidecar.clock)
        self._unconfirmed = UnconfirmedWrites()
        self._refusals = Refusals(sidecar.reporter, sidecar.clock)
        self._steps = Steps[BucketView, BucketEffect, BucketFact](planning.plan, self._apply, fold)
        # The returned ids that are not stored yet, by Bucket, because two Creates can return the
        # same id before either id is stored.
        self._returned: dict[Key, str] = {}
        self._vanished = VanishedBuckets(sidecar)
        self._failures = DriverFailures()
        self._reported_left: set[str] = (
            set()
        )  # UIDs of removed accesses with an account that is left

    async def reconcile(self, key: Key) -> Outcome:
        """Reconcile one key. Safe to repeat at any time."""
        try:
            await self._unconfirmed.clear(self._s.buckets, key)
            await self._vanished.release_claim(key)
            end = await self._steps.run(self._read(key))
            reported = await self._report(key, end)
            outcome = self._s.current(end.outcome)
            outcome = await self._refusals.settled(self._s.buckets, key, outcome)
        except (ApiError, ApiSilent) as error:
            self._unconfirmed.note(key, error)
            outcome = await self._refusals.end(self._s.buckets, key, error)
            bucket = self._s.buckets.get(key)
            if claim := self._s.lookup.claim_of_bucket(bucket):  # a tenant may not read Buckets
                await self._refusals.report(self._s.claims, claim.meta.key, outcome)
            return outcome
        return await self._mirror(key, end.view, reported) or outcome

    def _read(self, key: Key) -> BucketView:
        bucket = self._s.buckets.get(key)
        rival = self._s.lookup.rival_of(bucket)
        claim = None if rival else self._s.lookup.claim_of_bucket(bucket)
        driver = self._s.state.view()
        return BucketView(
            bucket=bucket,
            claim=claim,
            accesses=() if rival else tuple(self._s.lookup.accesses_of(bucket)),
            rival=rival,
            successor=self._s.lookup.successor_of(bucket),
            sharer=self._s.lookup.sharer_of(bucket) if bucket and bucket.meta.deleting else None,
            remembered=self._s.lookup.memory.removed_record(bucket),
            lost=self._s.lookup.lost_record(bucket),
            clean=is_clean(bucket),
            unproven=True,
            context=Context(
                driver=driver,
                now=self._time.now(),
                pending=self._calls(bucket, claim, driver).pending(),
                recheck_s=self._s.recheck_s,
                deletion_recheck_s=self._s.deletion_recheck_s,
                started=self._time.started,
                call_timeout_s=self._s.call_timeout_s,
            ),
        )

    async def _apply(self, view: BucketView, step: BucketEffect) -> BucketFact:
        assert view.bucket is not None
        match step:
            case EditBucket():
                return BucketIs(await self._edit(view, view.bucket, step))
            case ReadBucketObject(key=key):
                return BucketIs(await self._s.buckets.refresh(key, view.bucket.meta.uid))
            case CreateBackend():
                return await self._create(view, view.bucket, step)
            case DeleteBackend():
                return await self._delete(view, step)
            case LeaveBackend(message=message):
                return self._leave(view, message)
            case ListAccesses(namespace=namespace):
                await self._s.accesses.relist(namespace)
                return AccessesListed(tuple(self._s.lookup.accesses_of(view.bucket)))
            case DeleteAccess(key=key, uid=uid):
                await self._s.accesses.delete(key, uid=uid)
                return AccessDeleting(key)
            case ReadClaim(key=key):
                return ClaimIs(await self._s.claims.refresh(key))
            case ReleaseClaim(key=key, uid=uid):
                return ClaimIs(await self._vanished.free(key, uid))
            case _:
                assert_never(step)

    async def _edit(self, view: BucketView, bucket: Bucket, step: EditBucket) -> Bucket | None:
        memory = self._s.lookup.memory
        if left := accounts_left(bucket, step):
            self._s.reporter.event(
                self._s.buckets, bucket, "Warning", Reason.BACKEND_UNVERIFIED.value, left
            )
        if kept := retained_id(bucket, step):
            text = f"The bucket {shown_name(kept)} was kept, because deletionPolicy is Retain."
            self._events(view, "Normal", "BucketRetained", text)
        edited = await edit_bucket(self._s.buckets, step, bucket.meta.uid)
        if step.record is not None and step.record.restored:
            memory.forget_lost(bucket.meta.uid)
        if what := lost_record(bucket, view, step):
            self._s.reporter.event(
                self._s.buckets,
                bucket,
                "Warning",
                "RecordLost",
                f"Annotation {RECORD_ANNOTATION} {what}. Do not replace whole Buckets, because"
                " without this annotation no key can be revoked.",
            )
        return edited

    async def _create(
        self, view: BucketView, bucket: Bucket, step: CreateBackend
    ) -> BackendIs | BackendGone | CallFailed:
        self._calls_of(view).called()
        watch = Stopwatch(self._s.clock)
        call = self._s.driver.create_bucket(
            step.name, step.parameters, timeout_s=self._s.call_timeout_s
        )
        reply = await judged(call, policy=self._s.policy, driver=self._s.state, watch=watch)
        if isinstance(reply, Refused):
            if reply.verdict is Verdict.SUCCESS:  # the bucket exists; without an id, use its name
                log_change("bucket_adopted", Call.CREATE_BUCKET, reply, watch, bucket_id=step.name)
                return self._accept(view, bucket, step, step.name, existed=True)
            if step.resolving and reply.verdict is Verdict.TERMINAL:
                # A refusal covers only this attempt; an earlier call may have created a bucket.
                return self._leave(view, unverified(bucket))
            return self._calls_of(view).failure(reply)
        if not step.resolving:
            returned = reply.bucket_id
            log_change("bucket_created", Call.CREATE_BUCKET, reply, watch, bucket_id=returned)
        return self._accept(view, bucket, step, reply.bucket_id)

    def _accept(
        self,
        view: BucketView,
        bucket: Bucket,
        step: CreateBackend,
        bucket_id: str,
        *,
        existed: bool = False,
    ) -> BackendIs | BackendGone | CallFailed:
        """Check an id before it is stored or used in a deletion."""
        problem = self._id_problem(bucket, bucket_id)
        if problem is None:
            self._returned[bucket.meta.key] = bucket_id
            return BackendIs(bucket_id, already_existed=existed)
        if step.resolving:
            return self._leave(view, unverified(bucket))
        reason, words = problem
        status = DriverStatus(Call.CREATE_BUCKET, Code.OK, MadeBy.REPLY, words)
        verdict = Terminal(reason, "", recheck_s=self._s.recheck_s, status=status)
        return CallFailed(self._calls_of(view).final(verdict), Effect.MAYBE)

    def _id_problem(self, bucket: Bucket, bucket_id: str) -> tuple[Reason, str] | None:
        if not bucket_id:
            return Reason.EMPTY_BUCKET_ID, "bucket_id is empty"
        if not is_storable_id(bucket_id):
            limit = f"bucket_id is longer than {ID_LIMIT_BYTES} bytes"
            return Reason.DRIVER_MALFORMED_REPLY, limit
        holders = {key for key, returned in self._returned.items() if returned == bucket_id}
        holders |= {o.meta.key for o in self._s.lookup.others_with_id(bucket, bucket_id)}
        if holders - {bucket.meta.key}:
            return Reason.FOREIGN_BUCKET_ID, "another Bucket has this bucket_id"
        return None

    def _leave(self, view: BucketView, message: str) -> BackendGone:
        self._events(view, "Warning", Reason.BACKEND_UNVERIFIED.value, message)
        return BackendGone()

    async def _delete(self, view: BucketView, step: DeleteBackend) -> BackendGone | CallFailed:
        self._calls_of(view).called()
        watch = Stopwatch(self._s.clock)
        call = self._s.driver.delete_bucket(
            step.bucket_id, step.context, timeout_s=self._s.call_timeout_s
        )
        reply = await judged(call, policy=self._s.policy, driver=self._s.state, watch=watch)
        if isinstance(reply, Refused) and reply.verdict is not Verdict.SUCCESS:
            return self._calls_of(view).failure(reply)
        deleted = step.bucket_id
        log_change("bucket_deleted", Call.DELETE_BUCKET, reply, watch, bucket_id=deleted)
        self._events(
            view, "Normal", "BucketDeleted", f"The bucket {shown_name(step.bucket_id)} was deleted."
        )
        return BackendGone()

    def _calls(
        self, bucket: Bucket | None, claim: BucketClaim | None, driver: DriverView
    ) -> DriverRun:
        """The driver calls for this Bucket, by the driver instance at the start of the run."""
        if bucket is None:
            made_on, recheck_s = Fingerprint("", 0, "", ""), None
        else:
            meta = bucket.meta
            token = retry_token(bucket, claim)
            made_on = Fingerprint(meta.uid, meta.generation, driver.instance, token, meta.deleting)
            recheck_s = self._s.deletion_recheck_s if meta.deleting else self._s.recheck_s
        key = bucket.meta.key if bucket else Key("", "")
        return DriverRun(self._s.attempts, key, made_on, recheck_s)

    def _calls_of(self, view: BucketView) -> DriverRun:
        return self._calls(view.bucket, view.claim, view.context.driver)

    async def _report(self, key: Key, end: End[BucketView]) -> Outcome:
        bucket = end.view.bucket
        if bucket is None or isinstance(end.outcome, Success):
            self._s.attempts.forget(key)
        if bucket is None:
            self._returned.pop(key, None)
            self._failures.forget(key)
            return end.outcome
        kept = None if end.report else self._failures.to_repeat(bucket, end.outcome)
        if report := self._status_report(end, bucket) if end.report else kept:
            with self._failures.storing(key, report, self._calls_of(end.view)):
                await self._s.reporter.report(self._s.buckets, key, report, again=bool(kept))
        self._returned.pop(key, None)  # the index of ids now contains the id
        self._warn_former_left(bucket, end.view)
        return report.outcome if report else end.outcome

    async def _mirror(self, key: Key, view: BucketView, reported: Outcome) -> Outcome | None:
        """Write the Bucket's state into its claim; the outcome of the run if that fails."""
        claim, is_retried = view.claim, self._is_retried(view)
        if claim is None or view.bucket is None:
            return None
        try:
            await mirror_to_claim(self._s, key, claim, reported, retried=is_retried)
        except (ApiError, ApiSilent) as error:  # the Bucket itself is reported
            return await self._refusals.end(self._s.claims, claim.meta.key, error)
        await self._refusals.settled(self._s.claims, claim.meta.key, Success())
        return None

    def _warn_former_left(self, bucket: Bucket, view: BucketView) -> None:
        """Emit one Warning about each access from before the record that was removed by force."""
        left = records.former_left(bucket, view.accesses)
        if new := {uid: account for uid, account in left.items() if uid not in self._reported_left}:
            self._reported_left.update(new)
            words, reason = former_left(new), Reason.BACKEND_UNVERIFIED.value
            self._s.event_about_removed(bucket, "Warning", reason, words)

    def _is_retried(self, view: BucketView) -> bool:
        """Whether the run's failed call is the first since the claim's retry annotation changed."""
        if (
            view.failed is None
            or view.bucket is None
            or not (view.claim and claim_retry(view.claim))
        ):
            return False
        made_on = self._calls(view.judged, view.claim, view.context.driver).made_on
        last = view.bucket.last_call
        return last is None or last.retry_token != made_on.retry_token

    def _status_report(self, end: End[BucketView], bucket: Bucket) -> StatusReport:
        view = end.view
        bucket_id = known_id(bucket, view)
        ready = isinstance(end.outcome, Success) and bool(bucket_id)
        note = (
            " (the driver answered ALREADY_EXISTS, so the name is used as the id)"
            if view.already_existed
            else ""
        )
        judged = view.judged or bucket
        calls = self._calls(judged, view.claim, view.context.driver)
        # After a failed deletion, and without its claim, the bucket still works.
        is_ending = bucket.meta.deleting and bool(our_finalizers(bucket))
        is_kept = is_ending or is_released(end.outcome)
        return StatusReport(
            outcome=end.outcome,
            judged=judged.meta,
            must_store=isinstance(end.outcome, Success) or end.outcome.status is not None,
            success=(
                Reason.PROVISIONED,
                f"The bucket is ready; its id is {shown_name(bucket_id)}{note}.",
            ),
            success_event="BucketCreated",
            failure_event=bucket_failure_event(bucket),
            # Store an id that was learned for a deletion, to avoid another Create call for it.
            fields={
                "ready": ready or (bucket.ready and is_kept),
                "bucket_id": bucket_id if ready or is_kept else None,
            },
            attempts=calls.pending().attempts or 1,
            effect=view.failed.effect if view.failed and view.clean else Effect.MAYBE,
            driver_instance=calls.made_on.driver_instance,
            retry_token=calls.made_on.retry_token,
            ignored=ignored_change(bucket),
        )

    def _events(self, view: BucketView, level: Level, reason: str, message: str) -> None:
        """Emit the same Event on the Bucket and on its claim, which the tenant can read."""
        if view.bucket is not None:
            self._s.reporter.event(self._s.buckets, view.bucket, level, reason, message)
        if view.claim is not None:
            self._s.reporter.event(self._s.claims, view.claim, level, reason, message)
