"""The steps of a BucketAccess that call the driver about its accounts: Grant and Revoke."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from secrets import token_hex

import structlog

from cosi_operator.api.record import ID_LIMIT_BYTES, is_storable_id
from cosi_operator.api.view import BucketAccess, BucketAccessClass
from cosi_operator.classify import Verdict
from cosi_operator.driver.v1alpha1 import GrantRequest
from cosi_operator.kube.errors import Conflict
from cosi_operator.outcome import Call, Code, MadeBy, Reason
from cosi_operator.plan import access as planning
from cosi_operator.plan import records
from cosi_operator.plan.access_view import AccessView
from cosi_operator.plan.facts import (
    AccessFact,
    CallFailed,
    Granted,
    NothingToRevoke,
    Revoked,
    UsedByOthers,
)
from cosi_operator.plan.steps import DriverView, EditBucket, Grant, Revoke
from cosi_operator.report import Level
from cosi_operator.scrub import shown_name
from cosi_operator.sidecar.access_report import (
    attempts_key,
    is_guess,
    made_on,
    unverified_account,
)
from cosi_operator.sidecar.access_secret import UnstoredKeys
from cosi_operator.sidecar.calls import DriverRun, Queued, Refused, Stopwatch, Unwanted, log_change
from cosi_operator.sidecar.leftover_warnings import LeftoverWarnings
from cosi_operator.sidecar.records import Holders
from cosi_operator.sidecar.shared import Sidecar, warn_unknown_type

log = structlog.get_logger(__name__)


class AccessAccounts:
    """Applies the steps of a plan that call the driver, and remembers what the calls changed."""

    def __init__(self, sidecar: Sidecar, unstored: UnstoredKeys) -> None:
        self._s = sidecar
        self._unstored = unstored
        # Accounts revoked for an access, by its UID, so no Revoke is repeated after a conflict.
        self._revoked: dict[str, frozenset[str]] = {}
        # UIDs of accesses whose entry this process wrote and whose Grant was not sent yet.
        self._not_sent: set[str] = set()
        # UIDs of deleted accesses whose finalizer is the last thing to remove.
        self._finished: set[str] = set()
        # UID and account of each removal from an entry that is being written, because another
        # access has the account too.
        self._leaving: set[tuple[str, str]] = set()
        self._leftovers = LeftoverWarnings(sidecar.reporter, sidecar.clock)

    def revoked(self, uid: str) -> frozenset[str]:
        """The accounts that this process revoked for the access with this UID."""
        return self._revoked.get(uid, frozenset())

    def is_grant_not_sent(self, uid: str) -> bool:
        """Whether this process wrote the entry of an access and has not sent its Grant yet."""
        return uid in self._not_sent

    def note_grant_not_sent(self, uid: str) -> None:
        self._not_sent.add(uid)

    def is_finished(self, uid: str) -> bool:
        """Whether this process removed the entry of a deleted access, which has no account now."""
        return uid in self._finished

    def note_finished(self, uid: str) -> None:
        self._finished.add(uid)

    def forget(self, uid: str) -> None:
        self._revoked.pop(uid, None)
        self._leftovers.forget(uid)
        self._not_sent.discard(uid)
        self._finished.discard(uid)

    def calls(
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

    def calls_of(self, view: AccessView, access: BucketAccess) -> DriverRun:
        return self.calls(access, view.access_class, view.context.driver)

    async def grant(self, view: AccessView, access: BucketAccess, step: Grant) -> AccessFact:
        request = GrantRequest(
            bucket_id=step.bucket_id,
            name=step.name,
            authentication_type=step.authentication_type,
            parameters=step.parameters,
        )
        is_grant_not_sent = access.meta.uid in self._not_sent
        self._not_sent.discard(access.meta.uid)
        watch = Stopwatch(self._s.clock)
        call = functools.partial(
            self._s.driver.grant_access, request, timeout_s=self._s.call_timeout_s
        )
        reply = await self._s.lanes.judged(access, step.bucket_id, call, watch)
        if isinstance(reply, Queued):
            self._not_sent.update({access.meta.uid} if is_grant_not_sent else ())
        else:
            self.calls_of(view, access).called()
            warn_unknown_type(self._s, access, view.access_class)
        if isinstance(reply, Refused):
            return await self._refused_grant(view, access, step, reply)
        if not reply.account_id:
            if step.resolving:
                return await self.leave(view, access, unverified_account(access), repeat=False)
            return Granted("", "account_id is empty")
        if not is_storable_id(reply.account_id):
            return await self._refuse_account(view, access, step, reply.account_id)
        if step.resolving or reply.credentials is None:
            granted = self._exists(access, Granted(reply.account_id, reply.problem))
            self._unstored.keep(access, granted, None)
            return granted
        azure = reply.credentials.azure
        ends_at = azure.ends_at if azure else None
        renew_at = planning.renewal_time(ends_at, view.context.now)
        if ends_at and not renew_at:
            self._warn_expired(access, ends_at)
        is_shared = self._is_shared(access, reply.account_id)
        granted = Granted(
            reply.account_id,
            renew_at=renew_at,
            used_by_others=is_shared,
            grant=token_hex(4),
            after=view.entry.grant if view.entry else "",
        )
        granted = self._exists(access, granted)
        self._unstored.keep(access, granted, reply.credentials)
        known = view.entry and view.entry.accounts
        event = "access_granted_again" if known else "access_granted"
        ids = {"bucket_id": step.bucket_id, "account_id": reply.account_id}
        log_change(event, Call.GRANT_ACCESS, reply, watch, **ids)
        return granted

    async def _refused_grant(
        self, view: AccessView, access: BucketAccess, step: Grant, reply: Refused
    ) -> AccessFact:
        if reply.verdict is Verdict.SUCCESS:
            problem = "the account exists already and no keys were sent"
            return self._exists(access, Granted(step.name, problem, reply.status.code))
        if step.resolving and reply.status.made_by is MadeBy.DRIVER:
            if reply.status.code is Code.NOT_FOUND:
                return NothingToRevoke()  # without the bucket there is no account either
            if reply.verdict is Verdict.TERMINAL:
                # A refusal covers only this attempt; an earlier call may have had an effect.
                return await self.leave(view, access, unverified_account(access), repeat=False)
        return self.calls_of(view, access).failure(reply)

    def _exists(self, access: BucketAccess, granted: Granted) -> Granted:
        """Note that a granted account exists, although it may have been revoked before."""
        if done := self._revoked.get(access.meta.uid):
            self._revoked[access.meta.uid] = done - {granted.account_id}
        return granted

    def _warn_expired(self, access: BucketAccess, ends_at: str) -> None:
        text = (
            f"The driver returned keys that expire at {shown_name(ends_at)}, which is past by this"
            " sidecar's clock, so they are not renewed automatically. Ask your cluster"
            " administrator to compare the clocks of this node and of the storage."
        )
        self._s.reporter.event(self._s.accesses, access, "Warning", "KeysExpired", text)

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

    def holders(self, access: BucketAccess, account: str) -> Holders:
        """The other accesses with an account, by the records or by a Grant just made."""
        leaving = {uid for uid, left in self._leaving if left == account}
        found = self._s.lookup.holders(access, account, leaving)
        for uid, key in self._unstored.others_with(access, account):
            found |= self._s.lookup.holder(access, uid, key)
        return found

    @contextmanager
    def leaving(self, view: AccessView, access: BucketAccess, step: EditBucket) -> Iterator[None]:
        """Within this context, accounts that other accesses have too are removed from an entry.

        Raises:
            Conflict: no other access has one of these accounts any more, because the account is
                being removed from its entry as well. Plan again, to revoke the account.
        """
        uid, edit = access.meta.uid, step.record
        before = view.entry.accounts if view.entry else ()
        after = edit.entry.accounts if edit and edit.entry else ()
        left = {a for a in before if a not in after and a not in view.revoked}
        left &= view.used_by_others
        if not all(self.holders(access, account).live for account in left):
            raise Conflict(409, "Conflict", f"an account of {access.meta.key} is no longer shared")
        marks = {(uid, account) for account in left}
        self._leaving |= marks
        try:
            yield
        finally:
            self._leaving -= marks

    async def _refuse_account(
        self, view: AccessView, access: BucketAccess, step: Grant, account_id: str
    ) -> AccessFact:
        """Revoke an account at once if its id is too long for the record, and report that."""
        revoke = Revoke(step.bucket_id, account_id, step.parameters)
        revoked = await self.revoke(view, access, revoke)
        if isinstance(revoked, CallFailed):
            return revoked
        problem = f"account_id is longer than {ID_LIMIT_BYTES} bytes"
        return Granted("", problem, reason=Reason.DRIVER_MALFORMED_REPLY)

    async def leave(
        self, view: AccessView, access: BucketAccess, message: str, *, repeat: bool = True
    ) -> NothingToRevoke:
        """Store a Warning about accounts that may be left, before the record no longer names them.

        `repeat`: whether the run may be repeated until the Warning is stored; False after a Grant,
        because each repetition could create another account.

        Raises:
            ApiError, ApiSilent: the Warning may not be stored; repeat the run.
        """
        s, bucket, uid = self._s, view.bucket, access.meta.uid
        log.warning(
            "accounts_left",
            access=str(access.meta.key),
            uid=uid,
            bucket_id=records.bucket_id_of(bucket) if bucket else "",
            account_ids=list(view.entry.accounts if view.entry else ()),
        )
        exists = bool(access.meta.resource_version)
        stored = exists and await self._leftovers.store(
            uid, s.accesses, access, message, repeat=repeat
        )
        # Administrators read the Events of the Bucket. A namespace that is being deleted accepts no
        # Event, so then the Warning is about the Bucket, even if the Bucket was removed.
        removed = ":" if exists else f" ({uid}) was removed by force."
        text = f"BucketAccess {access.meta.key}{removed} {message}"
        held = s.buckets.get(bucket.meta.key) if bucket else None
        if bucket and (not stored or (held and held.meta.uid == bucket.meta.uid)):
            await self._leftovers.store(uid, s.buckets, bucket, text, repeat=repeat)
        if not exists and (claim := s.lookup.claim_of_bucket(bucket)):
            await self._leftovers.store(uid, s.claims, claim, text, repeat=repeat)
        return NothingToRevoke()

    def event(
        self, view: AccessView, access: BucketAccess, level: Level, reason: str, message: str
    ) -> None:
        """Emit an Event about the access, or about its Bucket and claim if it was removed."""
        if access.meta.resource_version:
            self._s.reporter.event(self._s.accesses, access, level, reason, message)
        else:
            removed = f"BucketAccess {access.meta.key} ({access.meta.uid}) was removed by force."
            self._s.event_about_removed(view.bucket, level, reason, f"{removed} {message}")

    async def revoke(
        self, view: AccessView, access: BucketAccess, step: Revoke
    ) -> Revoked | UsedByOthers | CallFailed:
        watch = Stopwatch(self._s.clock)
        call = functools.partial(
            self._s.driver.revoke_access,
            step.bucket_id,
            step.account_id,
            step.context,
            timeout_s=self._s.call_timeout_s,
        )
        reply = await self._s.lanes.judged(
            access,
            step.bucket_id,
            call,
            watch,
            # Checked again at its turn: a Grant for another access may have returned the account.
            lambda: not self.holders(access, step.account_id).live,
        )
        if isinstance(reply, Unwanted):
            if not access.meta.deleting:
                self._unstored.drop(access, step.account_id)
            return UsedByOthers(step.account_id)
        if not isinstance(reply, Queued):
            self.calls_of(view, access).called()
        if isinstance(reply, Refused) and reply.verdict is not Verdict.SUCCESS:
            return self.calls_of(view, access).failure(reply)
        ids = {"bucket_id": step.bucket_id, "account_id": step.account_id}
        log_change("access_revoked", Call.REVOKE_ACCESS, reply, watch, **ids)
        self._unstored.drop(access, step.account_id)
        is_guessed = is_guess(view, access, step.account_id, reply)
        if is_guessed:  # before the account counts as revoked, so that a failure is repeated
            await self.leave(view, access, unverified_account(access))
        if access.meta.deleting or view.vanished:  # until a Grant returns the account again
            uid = access.meta.uid
            self._revoked[uid] = self.revoked(uid) | {step.account_id}
        if not is_guessed:
            words = "The access" if access.meta.deleting else "An earlier account"
            self.event(view, access, "Normal", "AccessRevoked", f"{words} was revoked.")
        return Revoked(step.account_id)
