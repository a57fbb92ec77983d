"""What the controller remembers of time: when a sidecar was last at work, since when one is due."""

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime

from cosi_operator.api.view import Bucket, BucketAccess, Key
from cosi_operator.clock import Clock
from cosi_operator.plan import records
from cosi_operator.plan.sidecar_wait import is_by_controller


class SidecarActivity:
    """When the sidecar of each driver last wrote how an object fares."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_driver: dict[str, datetime] = {}

    def observe_bucket(self, old: Bucket | None, new: Bucket | None) -> None:
        """Take notice of a change, if it is one that a sidecar makes."""
        if old is not None and (new is None or _of_sidecar(old) != _of_sidecar(new)):
            self._note(records.driver_of(old))

    def observe_access(
        self, old: BucketAccess | None, new: BucketAccess | None, driver: str
    ) -> None:
        """The same for an access of this driver; what the controller writes itself is none."""
        if old is None or is_by_controller(old.conditions):
            return
        told = new is not None and old.conditions != new.conditions
        if new is None or (told and not is_by_controller(new.conditions)):
            self._note(driver)

    def _note(self, driver: str) -> None:
        if driver:
            self._by_driver[driver.lower()] = self._clock.wall()

    def of(self, driver: str) -> datetime | None:
        """None: not since this process began."""
        return self._by_driver.get(driver.lower())


def _of_sidecar(bucket: Bucket) -> tuple[object, ...]:
    return bucket.ready, bucket.conditions, bucket.meta.finalizers


@dataclass(slots=True)
class _Due:
    state: Hashable
    since: datetime
    reported: bool = False


class FirstSeen:
    """When this process first saw an object in the state in which a sidecar is due."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_key: dict[Key, _Due] = {}

    def since(self, key: Key, state: Hashable) -> datetime:
        """The time at which `state` was first asked for; another state of the key begins anew."""
        known = self._by_key.get(key)
        if known is None or known.state != state:
            known = self._by_key[key] = _Due(state, self._clock.wall())
        return known.since

    def mark_reported(self, key: Key) -> None:
        """The object says now that it waits for the sidecar."""
        if known := self._by_key.get(key):
            known.reported = True

    def is_reported(self, key: Key) -> bool:
        known = self._by_key.get(key)
        return known is not None and known.reported

    def forget(self, key: Key) -> None:
        self._by_key.pop(key, None)
