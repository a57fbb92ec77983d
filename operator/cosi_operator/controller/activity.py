"""The times that the controller remembers: a sidecar's last write, and the start of each wait."""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from datetime import datetime

from cosi_operator.api.view import Bucket, BucketAccess, Key
from cosi_operator.clock import Clock
from cosi_operator.controller.sidecar_leases import SidecarLeases
from cosi_operator.outcome import Outcome
from cosi_operator.plan import records
from cosi_operator.plan.sidecar_wait import is_by_controller, is_waiting_for_sidecar


class SidecarActivity:
    """The time at which the sidecar of each driver last wrote the state of an object."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_driver: dict[str, datetime] = {}

    def observe_bucket(self, old: Bucket | None, new: Bucket | None) -> None:
        """Process a change of a Bucket; only changes that a sidecar makes count."""
        if old is not None and (new is None or _of_sidecar(old) != _of_sidecar(new)):
            self._note(records.driver_of(old))

    def observe_access(
        self, old: BucketAccess | None, new: BucketAccess | None, driver: str
    ) -> None:
        """Process a change of an access of this driver; the controller's own writes don't count."""
        if old is None or is_by_controller(old.conditions):
            return
        reported = new is not None and old.conditions != new.conditions
        if new is None or (reported and not is_by_controller(new.conditions)):
            self._note(driver)

    def _note(self, driver: str) -> None:
        if driver:
            self._by_driver[driver.lower()] = self._clock.wall()

    def of(self, driver: str) -> datetime | None:
        """The last write of this driver's sidecar; None if none since this process started."""
        return self._by_driver.get(driver.lower())


def _of_sidecar(bucket: Bucket) -> tuple[object, ...]:
    return bucket.ready, bucket.conditions, bucket.meta.finalizers


@dataclass(slots=True)
class _Due:
    state: Hashable
    since: datetime
    reported: bool = False
    lease: str | None = None


class FirstSeen:
    """The time at which this process first saw an object that waits for a sidecar."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_key: dict[Key, _Due] = {}

    def since(self, key: Key, state: Hashable) -> datetime:
        """The time of the first call with this key and `state`; another state resets the time."""
        known = self._by_key.get(key)
        if known is None or known.state != state:
            known = self._by_key[key] = _Due(state, self._clock.wall())
        return known.since

    def mark_reported(self, key: Key) -> None:
        """Call this after the object's status reports that it waits for the sidecar."""
        if known := self._by_key.get(key):
            known.reported = True

    def is_reported(self, key: Key) -> bool:
        known = self._by_key.get(key)
        return known is not None and known.reported

    async def with_lease(
        self, key: Key, outcome: Outcome, driver: str, leases: SidecarLeases
    ) -> Outcome:
        """Add to an outcome that waits for a sidecar what its Lease said at the first report."""
        known = self._by_key.get(key)
        if known is None or not is_waiting_for_sidecar(outcome):
            return outcome
        if known.lease is None:
            known.lease = await leases.words(driver)
        return replace(outcome, message=outcome.message + known.lease)

    def forget(self, key: Key) -> None:
        self._by_key.pop(key, None)
