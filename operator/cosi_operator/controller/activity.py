"""What the controller remembers of time: when a sidecar was last at work, since when one is due."""

from collections.abc import Hashable
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

    def look_at_bucket(self, old: Bucket | None, new: Bucket | None) -> None:
        """Take notice of a change, if it is one that a sidecar makes."""
        if old and new and (old.ready, old.conditions) != (new.ready, new.conditions):
            self._note(records.driver_of(new))

    def look_at_access(
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


class FirstSeen:
    """When this process first saw an object in the state in which a sidecar is due."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_key: dict[Key, tuple[Hashable, datetime]] = {}

    def since(self, key: Key, state: Hashable) -> datetime:
        """The time at which `state` was first asked for; another state of the key begins anew."""
        known = self._by_key.get(key)
        if known is None or known[0] != state:
            known = self._by_key[key] = (state, self._clock.wall())
        return known[1]

    def forget(self, key: Key) -> None:
        self._by_key.pop(key, None)
