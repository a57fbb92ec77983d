"""Reconciles the BucketAccesses of one driver: the doing half of `plan/access.py`."""

from dataclasses import dataclass, replace
from typing import assert_never

from msgspec.structs import replace as with_fields

from cosi_operator.api.view import (
    AuthenticationType,
    Bucket,
    BucketAccess,
    BucketAccessClass,
    BucketClaim,
    Key,
)
from cosi_operator.classify import Verdict
from cosi_operator.clock import SteadyTime
from cosi_operator.driver.v1alpha1 import Credentials, GrantRequest
from cosi_operator.kube.errors import ApiError, ApiSilent
from cosi_operator.kube.objects import Body, Objects, set_finalizers
from cosi_operator.outcome import (
    Call,
    Code,
    Effect,
    MadeBy,
    Outcome,
    Reason,
    Requeue,
    Success,
    Terminal,
)
from cosi_operator.plan import access as planning
from cosi_operator.plan import names
from cosi_operator.plan.access import AccessView
from cosi_operator.plan.steps import (
    AccessIs,
    AccessStep,
    BucketIs,
    Context,
    DeleteSecret,
    Done,
    DriverView,
    DryRunSecret,
    EditBucketFinalizers,
    EditFinalizers,
    Fact,
    Failed,
    Grant,
    Granted,
    MarkPending,
    ReadAccessObject,
    ReadSecret,
    Revoke,
    Revoked,
    SecretIs,
    StoreSecret,
)
from cosi_operator.plan.verdicts import RESOLVE_ATTEMPTS
from cosi_operator.reconcile import Doubts, Dropped, End, outcome_of, run_steps
from cosi_operator.report import Told
from cosi_operator.sidecar.bucket import ACCESSES_BY_CLAIM, BUCKETS_BY_CLAIM, Sidecar
from cosi_operator.sidecar.calls import Fingerprint, Refused, failure, final
from cosi_operator.sidecar.secret_content import SecretContent
from cosi_operator.sidecar.secrets import Secrets


@dataclass(frozen=True, slots=True)
class _Held:
    """Keys in memory; `credentials` hides itself when printed."""

    uid: str
    granted: Granted
    credentials: Credentials


class AccessReconciler:
    """Brings one BucketAccess and its Secret to what they should be."""

    def __init__(
        self,
        sidecar: Sidecar,
        classes: Objects[BucketAccessClass],
        secrets: Secrets,
        dropped: Dropped[BucketAccess],
    ) -> None:
        self._s = sidecar
        self._classes = classes
        self._secrets = secrets
        # Keys that were minted but whose Secret is not stored yet (the API server was away): kept
        # in memory, so that the next run stores these instead of minting others. They go with
        # their access, of whose UID they hold.
        self._held: dict[Key, _Held] = {}
        # UIDs of accesses that go and are revoked: a conflict afterwards is no reason to ask again.
        self._revoked: dict[Key, str] = {}
        self._time = SteadyTime(sidecar.clock)
        self._doubts = Doubts()
        self._dropped = dropped

    async def reconcile(self, key: Key) -> Outcome:
        """One run for one key. Safe to repeat at any time."""
        try:
            await self._doubts.clear(self._s.accesses, key)
            if (unfinished := await self._take_back(key)) is not None:
                return unfinished
            end = await run_steps(
                self._read(self._s.accesses.get(key)),
                plan=planning.plan,
                apply=self._apply,
                fold=planning.fold,
            )
            return await self._report(key, end)
        except (ApiError, ApiSilent) as error:
            self._doubts.note(key, error)
            return outcome_of(error)

    async def _take_back(self, key: Key) -> Outcome | None:
        """Revoke an access that the API server dropped; None when there is none (any more)."""
        dropped = await self._dropped.find(self._s.accesses, key)
        if dropped is None:
            return None
        going = with_fields(dropped, meta=with_fields(dropped.meta, deleting=True))
        end = await run_steps(
            self._read(going), plan=planning.plan, apply=self._apply_to_dropped, fold=planning.fold
        )
        outcome = end.outcome
        if isinstance(outcome, Requeue) or (isinstance(outcome, Terminal) and outcome.waiting):
            return outcome
        self._dropped.forget(key)
        self._forget(key)
        return None

    async def _apply_to_dropped(self, view: AccessView, step: AccessStep) -> Fact | Failed:
        # There is nothing left to write to, and the key may lead to a successor by now.
        return AccessIs(None) if isinstance(step, EditFinalizers) else await self._apply(view, step)

    def _read(self, access: BucketAccess | None) -> AccessView:
        key = access.meta.key if access else Key("", "")
        claim = self._s.claims.get(access.claim_key) if access else None
        bucket = self._bucket_of(access, claim) if access else None
        access_class = self._classes.get(Key("", access.class_name)) if access else None
        driver = self._s.state.view()
        return AccessView(
            access=access,
            access_class=access_class,
            claim=claim,
            bucket=bucket,
            shared=self._is_shared(access),
            clean=planning.is_clean(access),
            unproven=True,
            revoked=access is not None and self._revoked.get(key) == access.meta.uid,
            granted=held.granted if (held := self._held_for(access)) else None,
            context=Context(
                driver=driver,
                now=self._time.now(),
                pending=self._s.attempts.pending(key, _made_on(access, access_class, driver)),
                recheck_s=self._s.recheck_s,
                deletion_recheck_s=self._s.deletion_recheck_s,
                started=self._time.started,
            ),
        )

    def _bucket_of(self, access: BucketAccess, claim: BucketClaim | None) -> Bucket | None:
        """The Bucket that the access leads to.

        One that is deleted goes back to where it was granted: a claim of the same name may be a
        new one by now, with another Bucket. The recorded intent only chooses among the Buckets
        that are bound to this claim's name, for a tenant may write annotations.
        """
        bound = [b.view for b in self._s.buckets.store.by_index(BUCKETS_BY_CLAIM, access.claim_key)]
        if access.meta.deleting:
            recorded = access.meta.annotations.get(names.BUCKET_ID_ANNOTATION)
            if granted := [b for b in bound if recorded and b.bucket_id == recorded]:
                return granted[0]
        if claim is not None:
            return self._s.buckets.get(Key("", claim.bucket_name)) if claim.bucket_name else None
        return bound[0] if bound else None  # the claim was removed by force

    def _is_shared(self, access: BucketAccess | None) -> bool:
        if access is None:
            return False
        return any(
            cached.view.meta.uid != access.meta.uid
            and names.ACCESS_FINALIZER in cached.view.meta.finalizers
            for cached in self._s.accesses.store.by_index(ACCESSES_BY_CLAIM, access.claim_key)
        )

    def _held_for(self, access: BucketAccess | None) -> "_Held | None":
        held = self._held.get(access.meta.key) if access else None
        return held if held and access and held.uid == access.meta.uid else None

    async def _apply(self, view: AccessView, step: AccessStep) -> Fact | Failed:
        assert view.access is not None
        access = view.access
        match step:
            case EditFinalizers(key=key):
                return AccessIs(await self._s.accesses.edit(key, lambda body: _edit(body, step)))
            case EditBucketFinalizers(key=key, add=add, remove=remove):
                return BucketIs(await self._mark_bucket(key, add, remove))
            case MarkPending():
                await self._s.reporter.mark_pending(self._s.accesses, access.meta.key)
                return AccessIs(self._s.accesses.get(access.meta.key))
            case ReadAccessObject(key=key):
                return AccessIs(await self._s.accesses.refresh(key))
            case ReadSecret(key=key):
                return await self._secrets.read(key, access.meta.uid)
            case DryRunSecret(key=key):
                return await self._secrets.dry_run(key)
            case Grant():
                return await self._grant(view, access, step)
            case StoreSecret():
                return await self._store(view, access, step)
            case Revoke():
                return await self._revoke(view, access, step)
            case DeleteSecret(key=key):
                await self._secrets.delete(key, access.meta.uid)
                return SecretIs(exists=False)
            case Done():
                raise AssertionError("Done ends the loop")
            case _:
                assert_never(step)

    async def _mark_bucket(
        self, key: Key, add: tuple[str, ...], remove: tuple[str, ...]
    ) -> Bucket | None:
        return await self._s.buckets.edit(
            key, lambda body: set_finalizers(body, add=add, remove=remove)
        )

    async def _grant(self, view: AccessView, access: BucketAccess, step: Grant) -> Fact | Failed:
        request = GrantRequest(
            bucket_id=step.bucket_id,
            name=step.name,
            authentication_type=step.authentication_type,
            parameters=step.parameters,
        )
        call = self._s.driver.grant_access(request, timeout_s=self._s.call_timeout_s)
        reply = await self._s.lanes.judged(access, step.bucket_id, call)
        if isinstance(reply, Refused):
            if reply.verdict is Verdict.SUCCESS:
                problem = "the account exists already, so no keys were sent"
                return Granted(step.name, problem, reply.status.code)
            if step.resolving and (known := self._resolved(view, reply)):
                return self._let_go(access, known)
            return self._failed(view, access, reply)
        if step.resolving:
            if reply.account_id:
                return Granted(reply.account_id)
            return self._let_go(access, Revoked(unverified=True))
        if not reply.account_id:
            return Granted("", "account_id is empty")
        if reply.credentials is None:
            return Granted(reply.account_id, reply.problem)
        granted = Granted(reply.account_id)
        self._held[access.meta.key] = _Held(access.meta.uid, granted, reply.credentials)
        return granted

    def _let_go(self, access: BucketAccess, known: Revoked) -> Revoked:
        if known.unverified:
            self._s.reporter.event(
                self._s.accesses,
                access,
                "Warning",
                Reason.BACKEND_UNVERIFIED.value,
                "Deleted without knowing whether the driver holds an account from an earlier,"
                f" failed try; look on the backend for {names.account_name(access.meta.uid)}.",
            )
        return known

    def _resolved(self, view: AccessView, refused: Refused) -> Revoked | None:
        """What a refusal says about an account that is to be revoked, but whose id is not known."""
        if refused.status.made_by is MadeBy.TRANSPORT or refused.status.made_by is MadeBy.DEADLINE:
            return None  # no verdict: ask again
        if refused.status.code is Code.NOT_FOUND:
            return Revoked()  # without the bucket there is no account either
        # Other refusals speak of this call only, not of what the earlier one did.
        last_try = view.context.pending.attempts + 1 >= RESOLVE_ATTEMPTS
        if refused.verdict is Verdict.TERMINAL or last_try:
            return Revoked(unverified=True)
        return None

    async def _store(self, view: AccessView, access: BucketAccess, step: StoreSecret) -> Fact:
        held = self._held_for(access)
        assert held is not None
        assert view.bucket is not None
        kind = view.access_class.authentication_type if view.access_class else ""
        content = SecretContent(
            access_uid=access.meta.uid,
            bucket_name=view.bucket.meta.name,
            bucket_id=step.bucket_id,
            account_id=step.account_id,
            authentication_type=kind or AuthenticationType.KEY.value,
            protocols=(access.protocol,),  # "" where the access names none, as Go writes it
            credentials=held.credentials,
        )
        result = await self._secrets.create(step.key, content)
        if isinstance(result, SecretIs) and result.ours:
            del self._held[access.meta.key]
        return result

    async def _revoke(self, view: AccessView, access: BucketAccess, step: Revoke) -> Fact | Failed:
        call = self._s.driver.revoke_access(
            step.bucket_id, step.account_id, step.context, timeout_s=self._s.call_timeout_s
        )
        reply = await self._s.lanes.judged(access, step.bucket_id, call)
        if isinstance(reply, Refused) and reply.verdict is not Verdict.SUCCESS:
            return self._failed(view, access, reply)
        self._held.pop(access.meta.key, None)
        if access.meta.deleting:  # no Grant can follow
            self._revoked[access.meta.key] = access.meta.uid
        elif access.account_id:
            await self._s.reporter.forget_account(self._s.accesses, access)
        self._s.reporter.event(
            self._s.accesses, access, "Normal", "AccessRevoked", "The access was revoked."
        )
        return Revoked()

    def _forget(self, key: Key) -> None:
        self._held.pop(key, None)
        self._revoked.pop(key, None)

    def _failed(self, view: AccessView, access: BucketAccess, refused: Refused) -> Failed:
        deleting = access.meta.deleting
        return failure(
            refused,
            attempts=self._s.attempts,
            key=access.meta.key,
            made_on=_made_on(access, view.access_class, view.context.driver),
            recheck_s=self._s.deletion_recheck_s if deleting else self._s.recheck_s,
        )

    async def _report(self, key: Key, end: End[AccessView]) -> Outcome:
        access, outcome = end.view.access, end.outcome
        if access is None:
            self._forget(key)
            self._s.attempts.forget(key)
            return outcome
        if isinstance(outcome, Success):
            self._s.attempts.forget(key)
        elif isinstance(outcome, Terminal) and outcome.status and end.report:
            # A reply that can't be used is final too, though the driver said OK.
            outcome = final(
                replace(outcome, recheck_s=outcome.recheck_s or self._s.recheck_s),
                attempts=self._s.attempts,
                key=key,
                made_on=_made_on(access, end.view.access_class, end.view.context.driver),
            )
        if end.report:
            await self._s.reporter.tell(
                self._s.accesses, key, self._told(replace(end, outcome=outcome), access)
            )
        return outcome

    def _told(self, end: End[AccessView], access: BucketAccess) -> Told:
        view = end.view
        made_on = _made_on(access, view.access_class, view.context.driver)
        # What was just granted is newer than what is stored.
        stored = "" if view.revoked else access.account_id
        account_id = (view.granted.account_id if view.granted else "") or stored
        if not account_id and view.secret and view.secret.ours:
            account_id = view.secret.account_id or names.account_name(access.meta.uid)
        granted = isinstance(end.outcome, Success)
        keep = access.granted and access.meta.deleting
        return Told(
            outcome=end.outcome,
            judged=access.meta,
            call=Call.GRANT_ACCESS,
            must_store=isinstance(end.outcome, Success) or end.outcome.status is not None,
            success=(Reason.GRANTED, f"Secret {view.secret_key} holds the keys."),
            success_event="AccessGranted",
            failure_event="FailedRevokeAccess" if access.meta.deleting else "FailedGrantAccess",
            fields={"ready": granted or keep, "account_id": account_id or None},
            attempts=self._s.attempts.pending(access.meta.key, made_on).attempts or 1,
            effect=end.effect if view.clean or view.revoked else Effect.MAYBE,
            driver_instance=made_on.driver_instance,
            # Of a success only the annotation counts: it is what asks for another look.
            retry_token=planning.retry_token(access) if granted else made_on.retry_token,
        )


def _made_on(
    access: BucketAccess | None, access_class: BucketAccessClass | None, driver: DriverView
) -> Fingerprint:
    """What a driver call of this run is made on: the driver as it was when the run began."""
    if access is None:
        return Fingerprint("", 0, "", "")
    token = planning.judged_on(access, access_class)
    return Fingerprint(access.meta.uid, access.meta.generation, driver.instance, token)


def _edit(body: Body, step: EditFinalizers) -> None:
    set_finalizers(body, add=step.add, remove=step.remove)
    if step.annotations:
        body["metadata"]["annotations"] = {
            **(body["metadata"].get("annotations") or {}),
            **step.annotations,
        }
