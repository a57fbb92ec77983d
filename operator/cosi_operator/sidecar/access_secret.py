"""The steps for the Secret of a BucketAccess, and the keys in memory that it does not hold yet."""

from dataclasses import dataclass, field, replace
from typing import assert_never

import structlog

from cosi_operator.api.record import AccessRecord
from cosi_operator.api.view import BucketAccess, Key
from cosi_operator.driver.v1alpha1 import Credentials
from cosi_operator.outcome import Reason
from cosi_operator.plan import records
from cosi_operator.plan.access import is_rotation_due
from cosi_operator.plan.access_view import AccessView
from cosi_operator.plan.facts import (
    AccessFact,
    Granted,
    SecretAllowed,
    SecretIs,
    SecretStored,
)
from cosi_operator.plan.steps import (
    DeleteSecret,
    DryRunSecret,
    ReadSecret,
    ReleaseSecret,
    SecretStep,
    StoreSecret,
)
from cosi_operator.scrub import shown_name
from cosi_operator.sidecar.secret_content import SecretContent
from cosi_operator.sidecar.secret_release import release_secret
from cosi_operator.sidecar.secrets import Secrets
from cosi_operator.sidecar.shared import Sidecar, authentication_word

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class UnstoredKey:
    """An account and its keys in memory; the repr of `credentials` hides the values.

    `credentials`: None if the driver returned none; only the account is stored then.

    `keys` is the value for `AccessRecord.keys`. Determine it before the first write, because after
    a write without an answer the Secret may hold the keys already.
    """

    key: Key
    granted: Granted
    credentials: Credentials | None
    keys: str | None = None
    in_secret: bool = False


@dataclass(slots=True)
class UnstoredKeys:
    """New keys that are not stored in a Secret yet; the next run stores or revokes them."""

    # By UID, because a later access of the same name may exist before they are revoked.
    _by_uid: dict[str, UnstoredKey] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._by_uid)

    def of(self, access: BucketAccess, entry: AccessRecord | None = None) -> UnstoredKey | None:
        """What is not stored yet, in the Secret or in this entry of the record."""
        unstored = self._by_uid.get(access.meta.uid)
        if unstored is None or entry is None:
            return unstored
        granted = unstored.granted
        if unstored.credentials is None:  # only the account is to be stored
            is_stored = granted.account_id in entry.accounts
        else:
            is_stored = unstored.in_secret and entry.grant == granted.grant and not entry.minted
        if is_stored:
            del self._by_uid[access.meta.uid]
        return None if is_stored else unstored

    def others_with(self, access: BucketAccess, account: str) -> list[tuple[str, Key]]:
        """UID and key of the other accesses for which a Grant has returned this account."""
        return [
            (uid, unstored.key)
            for uid, unstored in self._by_uid.items()
            if uid != access.meta.uid and unstored.granted.account_id == account
        ]

    def keep(self, access: BucketAccess, granted: Granted, credentials: Credentials | None) -> None:
        self._by_uid[access.meta.uid] = UnstoredKey(access.meta.key, granted, credentials)

    def drop(self, access: BucketAccess, account: str) -> None:
        """Drop the keys of an account that was revoked."""
        unstored = self.of(access)
        if unstored and unstored.granted.account_id == account:
            del self._by_uid[access.meta.uid]

    def forget_access(self, uid: str) -> None:
        self._by_uid.pop(uid, None)

    def forget_earlier(self, key: Key, access: BucketAccess | None) -> None:
        """Drop the credentials of earlier accesses with this name; their accounts are revoked."""
        for uid, unstored in list(self._by_uid.items()):
            if unstored.key == key and (access is None or uid != access.meta.uid):
                del self._by_uid[uid]


class AccessSecret:
    """Applies the steps of a plan that concern a Secret."""

    def __init__(self, sidecar: Sidecar, secrets: Secrets, unstored: UnstoredKeys) -> None:
        self._s = sidecar
        self._secrets = secrets
        self._unstored = unstored
        # The accesses (key, UID) that have removed our finalizer from a Secret without an owner.
        self._released: dict[Key, str] = {}

    def may_release(self, access: BucketAccess) -> bool:
        """Whether to release a Secret: once per access, because each release needs a list."""
        return access.meta.deleting or self._released.get(access.meta.key) != access.meta.uid

    def forget(self, key: Key) -> None:
        self._released.pop(key, None)

    async def apply(self, view: AccessView, access: BucketAccess, step: SecretStep) -> AccessFact:
        key = step.key
        match step:
            case ReadSecret():
                return replace(await self._secrets.read(key, access.meta.uid), name=key.name)
            case DryRunSecret():
                return await self._secrets.dry_run(key)
            case StoreSecret():
                self._warn_unrevoked(view, access, key)
                return await self._store(view, access, step)
            case DeleteSecret():
                self._warn_unrevoked(view, access, key)
                found = await self._secrets.delete(key, access.meta.uid)
                if not found.exists:
                    log.info("secret_deleted", name=key.name)
                return replace(found, name=key.name)
            case ReleaseSecret():
                uid = access.meta.uid
                ending = uid if access.meta.deleting else ""
                self._released[access.meta.key] = uid
                await release_secret(self._secrets, self._s.accesses, key, ending=ending)
                return SecretIs(exists=True, name=key.name)
            case _:
                assert_never(step)

    def _warn_unrevoked(self, view: AccessView, access: BucketAccess, key: Key) -> None:
        """Emit a Warning if the Secret is for an account that the record does not name.

        An older record may have replaced the record while no sidecar ran.
        """
        secret, entry = view.secrets.get(key.name), view.entry
        account = secret.account if secret else ""
        if not account or entry is None or not entry.accounts or account in entry.accounts:
            return
        if self._s.lookup.holders(access, account).live:
            return  # a tenant may write the annotation
        self._s.reporter.event(
            self._s.accesses,
            access,
            "Warning",
            Reason.BACKEND_UNVERIFIED.value,
            f"An annotation of Secret {key}, which its owner may have changed, names account"
            f" {shown_name(account)}. The record of the Bucket does not name that account, so it"
            " was not revoked. If no other BucketAccess uses it, ask your cluster administrator to"
            " look for it on the backend.",
            fingerprint=f"not in the record: {account}",
        )

    async def _store(
        self, view: AccessView, access: BucketAccess, step: StoreSecret
    ) -> SecretIs | SecretAllowed | SecretStored:
        unstored = self._unstored.of(access)
        assert unstored is not None
        assert unstored.credentials is not None  # otherwise the plan reports the missing keys
        assert view.bucket is not None
        content = SecretContent(
            access_uid=access.meta.uid,
            bucket_name=view.bucket.meta.name,
            bucket_id=records.bucket_id_of(view.bucket),
            account_id=unstored.granted.account_id,
            grant=unstored.granted.grant,
            authentication_type=authentication_word(view.access_class),
            protocols=(access.protocol,),  # "" without a protocol, as the Go sidecar writes it
            credentials=unstored.credentials,
        )
        # A new account is `minted` in its entry until the Secret holds its keys.
        known = view.entry is not None and not view.entry.minted
        if unstored.keys is None and step.replace and known and is_rotation_due(access, view):
            unstored.keys = "same" if await self._secrets.holds(step.key, content) else "added"
        if step.replace and view.secret:
            result = await self._secrets.update(step.key, content, view.secret.grant)
        else:
            result = await self._secrets.create(step.key, content)
        if isinstance(result, SecretIs) and result.other_keys:
            # The keys are of a create that was late, or of another leader. It is unknown which
            # keys are valid.
            self._unstored.drop(access, unstored.granted.account_id)
            return replace(result, name=step.key.name)
        if isinstance(result, SecretIs) and result.ours:
            # A rotation ends in the record. Until then, no other Grant is needed after a failure.
            if not step.replace:
                self._unstored.drop(access, unstored.granted.account_id)
                log.info("secret_created", name=step.key.name)
            elif not unstored.in_secret:
                # "same": the driver returned the keys that the Secret already held
                log.info("secret_updated", name=step.key.name, keys=unstored.keys or "new")
            unstored.in_secret = True
            return SecretStored(unstored.keys or "")
        return result
