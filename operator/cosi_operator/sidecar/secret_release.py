"""Removes our finalizer from Secrets that no live access owns, so a namespace can be deleted.

A restore creates Secrets with our finalizer for accesses that will never own them. Roles of real
drivers do not allow to list Secrets, so only a Secret that an access names can be found.
"""

from dataclasses import dataclass, field

from cosi_operator.api.view import BucketAccess, Key
from cosi_operator.kube.objects import Objects
from cosi_operator.plan import names
from cosi_operator.sidecar.secrets import Secrets

# The limit of Secret names stored for one access until its next run, because a tenant can change
# the name any number of times.
REMEMBERED_NAMES = 16


@dataclass(slots=True)
class UnheldSecrets:
    """Names of Secrets that an access no longer names, until each Secret was read."""

    # By key of the access: each Secret name, with the UID of a deleted access that named it, or "".
    _by_key: dict[Key, dict[str, str]] = field(default_factory=dict)
    # UIDs of accesses whose run has handled the Secrets and is removing the access's finalizer.
    _ended: set[str] = field(default_factory=set)

    def end(self, access_uid: str) -> None:
        """Call this before a run removes the finalizer of an access that is being deleted."""
        self._ended.add(access_uid)

    def note(
        self, old: BucketAccess, new: BucketAccess | None, *, classless: bool, recorded: bool
    ) -> None:
        """Process a change of an access of this driver, or of an access without a class.

        A deleted access needs an entry here unless a run handles its Secret: the run that removes
        our finalizer, or the run for an access that a record names although it no longer exists.
        If an access has neither a class nor a record, the controller removes the finalizer without
        changing the Secret, so each sidecar checks the Secret.
        """
        if new is not None and new.meta.uid == old.meta.uid:
            if new.secret_name != old.secret_name:
                self._keep(old, "")
            return
        has_finalizer = names.ACCESS_FINALIZER in old.meta.finalizers
        if classless or not has_finalizer or not (recorded or old.meta.uid in self._ended):
            self._keep(old, old.meta.uid)
        self._ended.discard(old.meta.uid)

    def _keep(self, access: BucketAccess, ending: str) -> None:
        secrets = self._by_key.setdefault(access.meta.key, {})
        secrets[access.secret_name] = ending
        if len(secrets) > REMEMBERED_NAMES:
            del secrets[next(iter(secrets))]

    def find(self, key: Key) -> dict[str, str]:
        """The Secret names to read, each with the UID of a deleted access, or ""."""
        return dict(self._by_key.get(key, {}))

    def forget(self, key: Key, name: str) -> None:
        secrets = self._by_key.get(key, {})
        secrets.pop(name, None)
        if not secrets:
            self._by_key.pop(key, None)


async def release_secret(
    secrets: Secrets, accesses: Objects[BucketAccess], key: Key, *, ending: str
) -> None:
    """Release a Secret that the access with the UID `ending` owns, or that no access owns.

    First list the accesses of the namespace again, because a Secret that any of them owns keeps its
    finalizer.
    """
    await accesses.relist(key.namespace)
    items = accesses.store.items()
    live = (cached.view.meta.uid for found, cached in items if found.namespace == key.namespace)
    await secrets.release(key, frozenset(live) - {ending})


async def release_unheld(
    unheld: UnheldSecrets, secrets: Secrets, accesses: Objects[BucketAccess], key: Key
) -> None:
    """Release each Secret that the access of this key named, if it has our finalizer.

    Raises:
        ApiError, ApiSilent: a Secret could not be read or written; the next run repeats this.
    """
    for name, ending in unheld.find(key).items():
        if names.is_object_name(name):
            secret = Key(key.namespace, name)
            found = await secrets.read(secret, ending)
            if found.exists and found.has_finalizer:
                await release_secret(secrets, accesses, secret, ending=ending)
        unheld.forget(key, name)
