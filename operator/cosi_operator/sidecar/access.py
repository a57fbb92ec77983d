"""Reconciles the BucketAccesses of one driver: applies the steps of `plan/access.py`."""

from dataclasses import replace

from cosi_operator.api.view import BucketAccess, BucketAccessClass, Key, Meta
from cosi_operator.clock import SteadyTime
from cosi_operator.conditions import describe_failure
from cosi_operator.kube.errors import ApiError, ApiSilent
from cosi_operator.kube.objects import Objects, set_finalizers
from cosi_operator.outcome import Outcome, Requeue, Success, Terminal
from cosi_operator.plan import access as planning
from cosi_operator.plan import records
from cosi_operator.plan.access_view import AccessView, fold, is_clean
from cosi_operator.plan.facts import (
    AccessFact,
    AccessIs,
    BucketIs,
    ClaimIs,
)
from cosi_operator.plan.steps import (
    AccessEffect,
    Context,
    EditBucket,
    EditFinalizers,
    Grant,
    LeaveAccounts,
    Pending,
    ReadAccessObject,
    ReadBucketObject,
    ReadClaim,
    Revoke,
)
from cosi_operator.reconcile import End, Steps, UnconfirmedWrites
from cosi_operator.refusals import Refusals
from cosi_operator.sidecar.access_accounts import AccessAccounts
from cosi_operator.sidecar.access_report import (
    access_report,
    is_bad_reply,
    is_vanished_ended,
)
from cosi_operator.sidecar.access_secret import AccessSecret, UnstoredKeys
from cosi_operator.sidecar.driver_failures import DriverFailures
from cosi_operator.sidecar.records import edit_bucket
from cosi_operator.sidecar.secret_release import release_unheld
from cosi_operator.sidecar.secrets import Secrets
from cosi_operator.sidecar.shared import Sidecar, warn_unrecorded_account


class AccessReconciler:
    """Reconciles one BucketAccess and its Secret."""

    def __init__(
        self, sidecar: Sidecar, classes: Objects[BucketAccessClass], secrets: Secrets
    ) -> None:
        self._s = sidecar
        self._classes = classes
        self._secrets = secrets
        self._unstored = UnstoredKeys()
        self._accounts = AccessAccounts(sidecar, self._unstored)
        self._secret = AccessSecret(sidecar, secrets, self._unstored)
        self._time = SteadyTime(sidecar.clock)
        self._unconfirmed = UnconfirmedWrites()
        self._failures = DriverFailures()
        self._refusals = Refusals(sidecar.reporter, sidecar.clock)
        self._steps = Steps[AccessView, AccessEffect, AccessFact](planning.plan, self._apply, fold)

    async def reconcile(self, key: Key) -> Outcome:
        """Reconcile one key. Safe to repeat at any time."""
        try:
            await self._unconfirmed.clear(self._s.accesses, key)
            await release_unheld(self._s.unheld, self._secrets, self._s.accesses, key)
            unfinished = await self._try_orphans(key)
            end = await self._steps.run(self._read(self._s.accesses.get(key)))
            outcome = self._s.current(await self._report(key, end))
            outcome = await self._refusals.settled(self._s.accesses, key, outcome)
            if unfinished is None:
                self._unstored.forget_earlier(key, end.view.access)
        except (ApiError, ApiSilent) as error:
            self._unconfirmed.note(key, error)
            return await self._refusals.end(self._s.accesses, key, error)
        return outcome if unfinished is None or isinstance(outcome, Requeue) else unfinished

    async def _try_orphans(self, key: Key) -> Outcome | None:
        """As `_end_orphans`. A failed request says nothing about the access that has the key."""
        try:
            return await self._end_orphans(key)
        except (ApiError, ApiSilent) as error:
            self._unconfirmed.note(key, error)
            return self._refusals.outcome(Key(key.namespace, f"{key.name}, removed"), error)

    async def _end_orphans(self, key: Key) -> Outcome | None:
        """Revoke recorded accesses that no longer exist; None when none is left.

        An access vanishes without a Revoke if its finalizer is removed by hand, or if the API
        server decides its deletion before our finalizer is stored.
        """
        unfinished: Outcome | None = None
        for uid, entry, _ in list(self._s.lookup.orphans(key)):
            live = await self._s.accesses.refresh(key)
            if live is not None and live.meta.uid == uid:
                continue
            meta = Meta(key.name, key.namespace, uid, deleting=True)
            removed = BucketAccess(meta, class_name=entry.class_name, secret_name=entry.secret)
            end = await self._steps.run(self._read(removed))
            if isinstance(end.outcome, Success):
                self._forget(uid)
                continue
            unfinished = end.outcome
            if end.view.access and (status := end.outcome.status) and end.view.failed:
                words = f"Its keys may work. {describe_failure(status)}"
                self._accounts.event(
                    end.view, end.view.access, "Warning", "FailedRevokeAccess", words
                )
        return unfinished

    def _read(self, access: BucketAccess | None) -> AccessView:
        if access is None:
            return AccessView(None, None, None, None, self._context(Pending()))
        s, uid = self._s, access.meta.uid
        claim = s.claims.get(access.claim_key)
        recorded = s.lookup.recorded_bucket(uid)
        vanished = None if recorded else s.lookup.memory.vanished_bucket(uid)
        # An access that no longer exists names no claim.
        bound_claim = claim or s.lookup.claim_of_bucket(vanished)
        bound = s.lookup.bucket_of_claim(bound_claim) if bound_claim else None
        bound_id = records.bucket_id_of(bound) if bound and bound.ready else ""
        remembered = None
        if vanished and bound_id and bound_id == records.bucket_id_of(vanished):
            # The same bucket on the backend; the Bucket object has a new UID and no record.
            remembered, vanished = records.entry_of(vanished, uid), None
        bucket = recorded or vanished or bound
        same_name = s.buckets.get(vanished.meta.key) if vanished else None
        access_class = self._classes.get(Key("", access.class_name))
        calls = self._accounts.calls(access, access_class, s.state.view())
        entry = records.entry_of(bucket, uid)
        unstored = self._unstored.of(access, entry)
        accounts = (
            *(entry.accounts if entry else ()),
            unstored.granted.account_id if unstored else "",
        )
        holders = {a: self._accounts.holders(access, a) for a in accounts if a}
        return AccessView(
            access=access,
            access_class=access_class,
            claim=claim,
            bucket=bucket,
            vanished=vanished is not None,
            replacing=tuple(filter(None, (bound, same_name))) if vanished else (),
            succeeded=bool(vanished and bound and bound_id and not bound.meta.deleting),
            others_need_finalizer=s.lookup.others_need_finalizer(access),
            rivals=s.lookup.has_rival(access),
            remembered=remembered,
            restoring=s.lookup.memory.is_incomplete(bucket, uid),
            used_by_others=frozenset(a for a, other in holders.items() if other.live),
            awaited=frozenset(account for account, other in holders.items() if other.ending),
            clean=remembered is None
            and (is_clean(access, bucket) or self._accounts.is_grant_not_sent(uid)),
            unproven=True,
            may_release=self._secret.may_release(access),
            revoked=self._accounts.revoked(uid),
            finished=self._accounts.is_finished(uid),
            granted=unstored.granted if unstored else None,
            context=self._context(calls.pending()),
        )

    def _context(self, pending: Pending) -> Context:
        return Context(
            driver=self._s.state.view(),
            now=self._time.now(),
            pending=pending,
            recheck_s=self._s.recheck_s,
            deletion_recheck_s=self._s.deletion_recheck_s,
            started=self._time.started,
            call_timeout_s=self._s.call_timeout_s,
        )

    async def _apply(self, view: AccessView, step: AccessEffect) -> AccessFact:
        assert view.access is not None
        access = view.access
        if access.meta.resource_version:  # otherwise it no longer exists, and its entry is ended
            self._s.accesses.must_be(access.meta.key, access.meta.uid)
        match step:
            case EditFinalizers(key=key, add=add, remove=remove):
                if remove and access.meta.deleting:
                    self._s.unheld.end(access.meta.uid)
                return AccessIs(
                    await self._s.accesses.edit(
                        key,
                        access.meta.uid,
                        lambda body: set_finalizers(body, add=add, remove=remove),
                    )
                )
            case EditBucket():
                return await self._edit_bucket(view, access, step)
            case ReadAccessObject() | ReadClaim() | ReadBucketObject():
                return await self._read_again(access, step)
            case Grant():
                return await self._accounts.grant(view, access, step)
            case Revoke():
                return await self._accounts.revoke(view, access, step)
            case LeaveAccounts(message=message):
                return await self._accounts.leave(view, access, message)
            case _:
                return await self._secret.apply(view, access, step)

    async def _edit_bucket(
        self, view: AccessView, access: BucketAccess, step: EditBucket
    ) -> BucketIs:
        bucket = view.bucket
        assert bucket is not None
        with self._accounts.leaving(view, access, step):
            edited = await edit_bucket(self._s.buckets, step, bucket.meta.uid)
        if view.remembered:
            self._s.lookup.memory.forget_access(access.meta.uid)  # recorded again
        if view.clean and view.entry is None:
            self._accounts.note_grant_not_sent(access.meta.uid)
            warn_unrecorded_account(self._s, access, view)
        if access.meta.deleting and step.record and step.record.entry is None:
            self._accounts.note_finished(access.meta.uid)
        return BucketIs(edited)

    async def _read_again(
        self, access: BucketAccess, step: ReadAccessObject | ReadClaim | ReadBucketObject
    ) -> AccessFact:
        match step:
            case ReadAccessObject(key=key):
                return AccessIs(await self._s.accesses.refresh(key, access.meta.uid))
            case ReadClaim(key=key):
                return ClaimIs(await self._s.claims.refresh(key))
            case ReadBucketObject(key=key):
                return BucketIs(await self._s.buckets.refresh(key))

    def _forget(self, uid: str) -> None:
        self._unstored.forget_access(uid)
        self._accounts.forget(uid)
        self._s.lookup.memory.forget_access(uid)
        self._s.attempts.forget(Key(uid, ""))

    async def _report(self, key: Key, end: End[AccessView]) -> Outcome:
        access, outcome = end.view.access, end.outcome
        if access is None:
            self._secret.forget(key)
            self._s.attempts.forget(key)
            self._failures.forget(key)
            return outcome
        if is_vanished_ended(end):
            self._s.lookup.memory.forget_access(access.meta.uid)
        if isinstance(outcome, Success):
            self._s.attempts.forget(key)
            if access.meta.deleting:
                self._forget(access.meta.uid)
        elif isinstance(outcome, Terminal) and is_bad_reply(outcome) and end.report:
            # A reply that can't be used is final too, although the driver answered OK.
            outcome = self._accounts.calls_of(end.view, access).final(
                replace(outcome, recheck_s=outcome.recheck_s or self._s.recheck_s)
            )
        report = kept = None if end.report else self._failures.to_repeat(access, end.outcome)
        if end.report:
            report = access_report(replace(end, outcome=outcome), access, self._s.attempts)
            # Warn before the new status replaces the account.
            warn_unrecorded_account(self._s, access, end.view)
        if report:
            calls = self._accounts.calls_of(end.view, access)
            with self._failures.storing(key, report, calls):
                await self._s.reporter.report(self._s.accesses, key, report, again=bool(kept))
        return outcome
