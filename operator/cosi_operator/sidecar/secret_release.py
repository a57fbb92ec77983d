"""Takes our finalizer off Secrets that no live access owns, so that a namespace can be deleted.

A restore brings back Secrets with our finalizer, under accesses that never get to hold them. Roles
of real drivers have no list of Secrets, so only a Secret that an access names can be found.
"""

from dataclasses import dataclass, field

from cosi_operator.api.view import BucketAccess, Key
from cosi_operator.kube.objects import Objects
from cosi_operator.plan import names
from cosi_operator.sidecar.secrets import Secrets

# Of one access so many names of Secrets are kept until its next run; a tenant can change them.
REMEMBERED_NAMES = 16


@dataclass(slots=True)
class UnheldSecrets:
    """Names of Secrets that an access no longer leads to, until each Secret was read."""

    # By key of the access: the name, and the UID of an access that is gone with it, or "".
    _by_key: dict[Key, dict[str, str]] = field(default_factory=dict)

    def note(self, old: BucketAccess, new: BucketAccess | None, *, classless: bool) -> None:
        """Take notice of a change of an access of this driver, or of one without a class.

        A sidecar has a run for what holds our finalizer. Of an access without a class and a record,
        the controller takes the finalizer off, which never touches a Secret; so each sidecar looks.
        """
        if new is not None and new.meta.uid == old.meta.uid:
            if new.secret_name != old.secret_name:
                self._keep(old, "")
        elif classless or names.ACCESS_FINALIZER not in old.meta.finalizers:
            self._keep(old, old.meta.uid)

    def _keep(self, access: BucketAccess, ending: str) -> None:
        kept = self._by_key.setdefault(access.meta.key, {})
        kept[access.secret_name] = ending
        if len(kept) > REMEMBERED_NAMES:
            del kept[next(iter(kept))]

    def find(self, key: Key) -> dict[str, str]:
        """The names to be looked at, each with the UID of an access that is gone, or ""."""
        return dict(self._by_key.get(key, {}))

    def forget(self, key: Key, name: str) -> None:
        kept = self._by_key.get(key, {})
        kept.pop(name, None)
        if not kept:
            self._by_key.pop(key, None)


async def release_secret(
    secrets: Secrets, accesses: Objects[BucketAccess], key: Key, *, ending: str
) -> None:
    """Release a Secret that belongs to the access with the UID `ending`, or to nobody.

    The accesses of the namespace are listed anew first, because a Secret of any of them keeps it.
    """
    await accesses.relist(key.namespace)
    items = accesses.store.items()
    live = (cached.view.meta.uid for found, cached in items if found.namespace == key.namespace)
    await secrets.release(key, frozenset(live) - {ending})


async def release_unheld(
    unheld: UnheldSecrets, secrets: Secrets, accesses: Objects[BucketAccess], key: Key
) -> None:
    """Release each Secret that the access of this key named, if it carries our finalizer.

    Raises:
        ApiError, ApiSilent: it could not be read or written; the next run repeats it.
    """
    for name, ending in unheld.find(key).items():
        if names.is_object_name(name):
            secret = Key(key.namespace, name)
            found = await secrets.read(secret, ending)
            if found.exists and found.held:
                await release_secret(secrets, accesses, secret, ending=ending)
        unheld.forget(key, name)
