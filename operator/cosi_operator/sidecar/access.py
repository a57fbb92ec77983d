"""Reconciles the BucketAccesses of one driver: applies the steps of `plan/access.py`."""

import functools
from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog

from cosi_operator.api.record import ID_LIMIT_BYTES, is_storable_id
from cosi_operator.api.view import BucketAccess, BucketAccessClass, Key, Meta
from cosi_operator.classify import Verdict
from cosi_operator.clock import SteadyTime
from cosi_operator.conditions import describe_failure
from cosi_operator.driver.v1alpha1 import GrantRequest
from cosi_operator.kube.errors import ApiError, ApiSilent
from cosi_operator.kube.objects import Objects, set_finalizers
from cosi_operator.outcome import Call, Code, MadeBy, Outcome, Reason, Requeue, Success, Terminal
from cosi_operator.plan import access as planning
from cosi_operator.plan import records
from cosi_operator.plan.access_view import AccessView, fold, is_clean
from cosi_operator.plan.facts import (
    AccessFact,
    AccessIs,
    BucketIs,
    CallFailed,
    Granted,
    Kept,
    Revoked,
)
from cosi_operator.plan.steps import (
    AccessStep,
    Context,
    Done,
    DriverView,
    EditBucket,
    EditFinalizers,
    Grant,
    LeaveAccounts,
    Pending,
    ReadAccessObject,
    ReadBucketObject,
    Revoke,
)
from cosi_operator.reconcile import End, UnconfirmedWrites, run_steps
from cosi_operator.refusals import Refusals
from cosi_operator.report import Level
from cosi_operator.scrub import shown_name
from cosi_operator.sidecar.access_report import (
    access_report,
    attempts_key,
    is_bad_reply,
    is_guess,
    is_vanished_ended,
    made_on,
    unverified_account,
)
from cosi_operator.sidecar.access_secret import AccessSecret, HeldKeys
from cosi_operator.sidecar.calls import DriverRun, Queued, Refused, Stopwatch, Unwanted, log_change
from cosi_operator.sidecar.records import edit_bucket
from cosi_operator.sidecar.secret_release import release_unheld
from cosi_operator.sidecar.secrets import Secrets
from cosi_operator.sidecar.shared import Sidecar, warn_unknown_type, warn_unrecorded_account

log = structlog.get_logger(__name__)


class AccessReconciler:
    """Reconciles one BucketAccess and its Secret."""

    def __init__(
        self, sidecar: Sidecar, classes: Objects[BucketAccessClass], secrets: Secrets
    ) -> None:
        self._s = sidecar
        self._classes = classes
        self._secrets = secrets
        self._held = HeldKeys()
        self._secret = AccessSecret(sidecar, secrets, self._held)
        # Accounts revoked for an access, by its UID, so no Revoke is repeated after a conflict.
        self._revoked: dict[str, frozenset[str]] = {}
        # UIDs of accesses whose entry this process wrote and whose Grant was not sent yet.
        self._unasked: set[str] = set()
        self._time = SteadyTime(sidecar.clock)
        self._unconfirmed = UnconfirmedWrites()
        self._refusals = Refusals(sidecar.reporter, sidecar.clock)

    async def reconcile(self, key: Key) -> Outcome:
        """Reconcile one key. Safe to repeat at any time."""
        try:
            await self._unconfirmed.clear(self._s.accesses, key)
            await release_unheld(self._s.unheld, self._secrets, self._s.accesses, key)
            unfinished = await self._end_orphans(key)
            end = await self._run(self._s.accesses.get(key))
            outcome = await self._report(key, end)
        except (ApiError, ApiSilent) as error:
            self._unconfirmed.note(key, error)
            return await self._refusals.end(self._s.accesses, key, error)
        return outcome if unfinished is None or isinstance(outcome, Requeue) else unfinished

    async def _run(self, access: BucketAccess | None) -> End[AccessView]:
        return await run_steps(self._read(access), plan=planning.plan, apply=self._apply, fold=fold)

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
            end = await self._run(removed)
            if isinstance(end.outcome, Success):
                self._forget(key, uid)
                continue
            unfinished = end.outcome
            if end.view.access and (status := end.outcome.status) and end.view.failed:
                words = f"Its keys may work. {describe_failure(status)}"
                self._event(end.view, end.view.access, "Warning", "FailedRevokeAccess", words)
        return unfinished

    def _read(self, access: BucketAccess | None) -> AccessView:
        if access is None:
            return AccessView(None, None, None, None, self._context(Pending()))
        s, uid = self._s, access.meta.uid
        claim = s.claims.get(access.claim_key)
        recorded = s.lookup.recorded_bucket(uid)
        vanished = None if recorded else s.lookup.memory.vanished_bucket(uid)
        bound = s.lookup.bucket_of_claim(claim) if claim else None
        bound_id = records.bucket_id_of(bound) if bound and bound.ready else ""
        remembered = None
        if vanished and bound_id and bound_id == records.bucket_id_of(vanished):
            # The same bucket on the backend; the Bucket object has a new UID and no record.
            remembered, vanished = records.entry_of(vanished, uid), None
        bucket = recorded or vanished or bound
        access_class = self._classes.get(Key("", access.class_name))
        calls = self._calls(access, access_class, s.state.view())
        entry, held = records.entry_of(bucket, uid), self._held.of(access)
        accounts = (*(entry.accounts if entry else ()), held.granted.account_id if held else "")
        holders = {account: s.lookup.holders(access, account) for account in accounts}
        kept = (a for a, other in holders.items() if other.live or self._held.has_other(access, a))
        return AccessView(
            access=access,
            access_class=access_class,
            claim=claim,
            bucket=bucket,
            vanished=vanished is not None,
            succeeded=bool(vanished and bound and bound_id and not bound.meta.deleting),
            shared=s.lookup.is_shared(access),
            rivals=s.lookup.has_rival(access),
            remembered=remembered,
            restoring=s.lookup.memory.is_lost(uid),
            kept=frozenset(kept),
            awaited=frozenset(account for account, other in holders.items() if other.ending),
            clean=remembered is None and (is_clean(access, bucket) or uid in self._unasked),
            unproven=True,
            may_release=self._secret.may_release(access),
            revoked=self._revoked.get(uid, frozenset()),
            granted=held.granted if held else None,
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

    async def _apply(self, view: AccessView, step: AccessStep) -> AccessFact:
        assert view.access is not None
        access = view.access
        match step:
            case EditFinalizers(key=key, add=add, remove=remove):
                if remove and access.meta.deleting:
                    self._s.unheld.end(access.meta.uid)
                return AccessIs(
                    await self._s.accesses.edit(
                        key, lambda body: set_finalizers(body, add=add, remove=remove)
                    )
                )
            case EditBucket():
                edited = await edit_bucket(self._s.buckets, step, self._s.lookup.memory)
                if view.remembered:
                    self._s.lookup.memory.forget_access(access.meta.uid)  # recorded again
                if view.clean and view.entry is None:
                    self._unasked.add(access.meta.uid)
                    warn_unrecorded_account(self._s, access, view)
                return BucketIs(edited)
            case ReadAccessObject(key=key):
                return AccessIs(await self._s.accesses.refresh(key))
            case ReadBucketObject(key=key):
                return BucketIs(await self._s.buckets.refresh(key))
            case Grant():
                return await self._grant(view, access, step)
            case Revoke():
                return await self._revoke(view, access, step)
            case LeaveAccounts(message=message):
                return self._leave(view, access, message)
            case Done():
                raise AssertionError("Done ends the loop")
            case _:
                return await self._secret.apply(view, access, step)

    async def _grant(self, view: AccessView, access: BucketAccess, step: Grant) -> AccessFact:
        request = GrantRequest(
            bucket_id=step.bucket_id,
            name=step.name,
            authentication_type=step.authentication_type,
            parameters=step.parameters,
        )
        is_unasked = access.meta.uid in self._unasked
        self._unasked.discard(access.meta.uid)
        watch = Stopwatch(self._s.clock)
        timeout_s = self._s.call_timeout_s
        reply = await self._called(
            view,
            access,
            step.bucket_id,
            lambda: watch.time(self._s.driver.grant_access(request, timeout_s=timeout_s)),
        )
        if isinstance(reply, Queued):
            self._unasked.update({access.meta.uid} if is_unasked else ())
        else:
            warn_unknown_type(self._s, access, view.access_class)
        if isinstance(reply, Refused):
            if reply.verdict is Verdict.SUCCESS:
                problem = "the account exists already and no keys were sent"
                return Granted(step.name, problem, reply.status.code)
            if step.resolving and reply.status.made_by is MadeBy.DRIVER:
                if reply.status.code is Code.NOT_FOUND:
                    return Revoked()  # without the bucket there is no account either
                if reply.verdict is Verdict.TERMINAL:
                    # A refusal covers only this attempt; an earlier call may have had an effect.
                    return self._leave(view, access, unverified_account(access))
            return self._calls_of(view, access).failure(reply)
        if not reply.account_id:
            if step.resolving:
                return self._leave(view, access, unverified_account(access))
            return Granted("", "account_id is empty")
        if step.resolving or reply.credentials is None:
            return Granted(reply.account_id, reply.problem)
        if not is_storable_id(reply.account_id):
            return await self._refuse_account(view, access, step, reply.account_id)
        if done := self._revoked.get(access.meta.uid):
            self._revoked[access.meta.uid] = done - {reply.account_id}
        azure = reply.credentials.azure
        granted = Granted(
            reply.account_id,
            renew_at=planning.renewal_time(azure.ends_at if azure else None, view.context.now),
            shared=self._is_shared(access, reply.account_id),
        )
        self._held.keep(access, granted, reply.credentials)
        known = view.entry and view.entry.accounts
        event = "access_granted_again" if known else "access_granted"
        ids = {"bucket_id": step.bucket_id, "account_id": reply.account_id}
        log_change(event, Call.GRANT_ACCESS, reply, watch, **ids)
        return granted

    def _is_shared(self, access: BucketAccess, account: str) -> bool:
        """Whether another access has the returned account too; if so, emit a Warning."""
        if not self._s.lookup.holders(access, account).live:
            return False
        text = (
            f"The driver returned account {shown_name(account)}, which it returned for another"
            " BucketAccess too. The keys of one can work for the other, and the account is revoked"
            " only when the last of these BucketAccesses is deleted. If the driver should return an"
            " account for each BucketAccess, ask your cluster administrator to report this to the"
            " driver's vendor."
        )
        self._s.reporter.event(self._s.accesses, access, "Warning", "AccountShared", text)
        return True

    def _is_used_by_another(self, access: BucketAccess, account: str) -> bool:
        """Whether a live access has the account too, by the records or by a Grant just made."""
        is_recorded = self._s.lookup.holders(access, account).live
        return is_recorded or self._held.has_other(access, account)

    async def _called[R](
        self,
        view: AccessView,
        access: BucketAccess,
        bucket_id: str,
        call: Callable[[], Awaitable[R]],
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> R | Refused:
        """Make a call in its lane, and note the time of the call."""
        reply = await self._s.lanes.judged(access, bucket_id, call, is_wanted)
        if not isinstance(reply, Queued | Unwanted):
            self._calls_of(view, access).called()
        return reply

    async def _refuse_account(
        self, view: AccessView, access: BucketAccess, step: Grant, account_id: str
    ) -> AccessFact:
        """Revoke an account at once if its id is too long for the record, and report that."""
        revoke = Revoke(step.bucket_id, account_id, step.parameters)
        revoked = await self._revoke(view, access, revoke)
        if isinstance(revoked, CallFailed):
            return revoked
        problem = f"account_id is longer than {ID_LIMIT_BYTES} bytes"
        return Granted("", problem, reason=Reason.DRIVER_MALFORMED_REPLY)

    def _leave(self, view: AccessView, access: BucketAccess, message: str) -> Revoked:
        log.warning("accounts_left", access=str(access.meta.key), uid=access.meta.uid)
        self._event(view, access, "Warning", Reason.BACKEND_UNVERIFIED.value, message)
        return Revoked()

    def _event(
        self, view: AccessView, access: BucketAccess, level: Level, reason: str, message: str
    ) -> None:
        """Emit an Event about the access, or about its Bucket and claim if it was removed."""
        if access.meta.resource_version:
            self._s.reporter.event(self._s.accesses, access, level, reason, message)
        else:
            removed = f"BucketAccess {access.meta.key} was removed by force."
            self._s.event_about_removed(view.bucket, level, reason, f"{removed} {message}")

    async def _revoke(
        self, view: AccessView, access: BucketAccess, step: Revoke
    ) -> Revoked | Kept | CallFailed:
        watch = Stopwatch(self._s.clock)
        revoke = functools.partial(
            self._s.driver.revoke_access,
            step.bucket_id,
            step.account_id,
            step.context,
            timeout_s=self._s.call_timeout_s,
        )
        reply = await self._called(
            view,
            access,
            step.bucket_id,
            lambda: watch.time(revoke()),
            # Checked again at its turn: a Grant for another access may have returned the account.
            lambda: not self._is_used_by_another(access, step.account_id),
        )
        if isinstance(reply, Unwanted):
            if not access.meta.deleting:
                self._held.drop(access, step.account_id)
            return Kept(step.account_id)
        if isinstance(reply, Refused) and reply.verdict is not Verdict.SUCCESS:
            return self._calls_of(view, access).failure(reply)
        ids = {"bucket_id": step.bucket_id, "account_id": step.account_id}
        log_change("access_revoked", Call.REVOKE_ACCESS, reply, watch, **ids)
        self._held.drop(access, step.account_id)
        if access.meta.deleting or view.vanished:  # until a Grant returns the account again
            uid = access.meta.uid
            self._revoked[uid] = self._revoked.get(uid, frozenset()) | {step.account_id}
        if is_guess(view, access, step.account_id, reply):
            self._leave(view, access, unverified_account(access))
        else:
            words = "The access" if access.meta.deleting else "An earlier account"
            self._event(view, access, "Normal", "AccessRevoked", f"{words} was revoked.")
        return Revoked(step.account_id)

    def _forget(self, key: Key, uid: str) -> None:
        self._held.forget(key, uid)
        self._revoked.pop(uid, None)
        self._unasked.discard(uid)
        self._s.lookup.memory.forget_access(uid)
        self._s.attempts.forget(Key(uid, ""))

    def _calls(
        self, access: BucketAccess, access_class: BucketAccessClass | None, driver: DriverView
    ) -> DriverRun:
        """The driver calls for this access, by the driver instance at the start of the run."""
        deleting = access.meta.deleting
        return DriverRun(
            attempts=self._s.attempts,
            key=attempts_key(access),
            made_on=made_on(access, access_class, driver),
            recheck_s=self._s.deletion_recheck_s if deleting else self._s.recheck_s,
        )

    def _calls_of(self, view: AccessView, access: BucketAccess) -> DriverRun:
        return self._calls(access, view.access_class, view.context.driver)

    async def _report(self, key: Key, end: End[AccessView]) -> Outcome:
        access, outcome = end.view.access, end.outcome
        if access is None:
            self._held.forget(key)
            self._secret.forget(key)
            self._s.attempts.forget(key)
            return outcome
        if is_vanished_ended(end):
            self._s.lookup.memory.forget_access(access.meta.uid)
        if isinstance(outcome, Success):
            self._s.attempts.forget(key)
            if access.meta.deleting:
                self._forget(key, access.meta.uid)
        elif isinstance(outcome, Terminal) and is_bad_reply(outcome) and end.report:
            # A reply that can't be used is final too, although the driver answered OK.
            outcome = self._calls_of(end.view, access).final(
                replace(outcome, recheck_s=outcome.recheck_s or self._s.recheck_s)
            )
        if end.report:
            told = access_report(replace(end, outcome=outcome), access, self._s.attempts)
            # Warn before the new status replaces the account.
            warn_unrecorded_account(self._s, access, end.view)
            await self._s.reporter.report(self._s.accesses, key, told)
        return outcome
