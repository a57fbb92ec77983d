"""Takes our finalizer off Secrets that no live access owns, so that a namespace can be deleted.

A restore brings back Secrets with our finalizer, under accesses that never get to hold them. Roles
of real drivers have no list of Secrets, so only a Secret that an access names can be found.
"""

from dataclasses import dataclass, field

from cosi_operator.api.view import BucketAccess, Key
from cosi_operator.kube.objects import Objects
from cosi_operator.plan import names
from cosi_operator.sidecar.secrets import Secrets


@dataclass(slots=True)
class UnheldAccesses:
    """Accesses that were deleted without a run of ours, until their Secret was read."""

    _by_key: dict[Key, BucketAccess] = field(default_factory=dict)

    def note(self, old: BucketAccess, new: BucketAccess | None, *, classless: bool) -> None:
        """Take notice of a change of an access of this driver, or of one without a class.

        A sidecar has a run for what holds our finalizer. Of an access without a class and a record,
        the controller takes the finalizer off, which never touches a Secret; so each sidecar looks.
        """
        is_gone = new is None or new.meta.uid != old.meta.uid
        if is_gone and (classless or names.ACCESS_FINALIZER not in old.meta.finalizers):
            self._by_key[old.meta.key] = old

    def find(self, key: Key) -> BucketAccess | None:
        return self._by_key.get(key)

    def forget(self, key: Key) -> None:
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
    unheld: UnheldAccesses, secrets: Secrets, accesses: Objects[BucketAccess], key: Key
) -> None:
    """Release the Secret that a deleted access of this key named, if it carries our finalizer.

    Raises:
        ApiError, ApiSilent: it could not be read or written; the next run repeats it.
    """
    access = unheld.find(key)
    if access is None:
        return
    if names.is_object_name(access.secret_name):
        secret = Key(key.namespace, access.secret_name)
        found = await secrets.read(secret, access.meta.uid)
        if found.exists and found.held:
            await release_secret(secrets, accesses, secret, ending=access.meta.uid)
    unheld.forget(key)
