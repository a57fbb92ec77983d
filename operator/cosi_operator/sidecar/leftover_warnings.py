"""Stores Warnings about accounts and buckets that may be left on a backend.

Such a Warning is stored before the record is changed, because afterwards no object and no record
names the account or the bucket. The limits of other Events do not apply to it.
"""

from dataclasses import dataclass, field
from typing import Any

from cosi_operator.clock import Clock
from cosi_operator.kube.errors import ApiSilent, ServerError, TooManyRequests
from cosi_operator.kube.objects import Objects
from cosi_operator.outcome import Reason
from cosi_operator.report import Reporter
from cosi_operator.status_patch import Reported

# A Warning that can't be stored delays a deletion for at most this long. After that it is emitted
# like other Events. The log contains it in any case.
PATIENCE_S = 60.0
REASON = Reason.BACKEND_UNVERIFIED.value


@dataclass(slots=True)
class LeftoverWarnings:
    """Stores each Warning once, by the UID of the access that it is about."""

    reporter: Reporter
    clock: Clock
    # By UID, then by kind and message: the time of the first attempt that failed; later, whether
    # the Warning is stored.
    _stored: dict[str, dict[tuple[str, str], float | bool]] = field(default_factory=dict)

    async def store(
        self, uid: str, objects: Objects[Any], about: Reported, message: str, *, repeat: bool
    ) -> bool:
        """Store a Warning about an object, unless this process has done so.

        Returns:
            Whether it is stored; False if the API server refuses it, or after the last repetition.
        Raises:
            ApiSilent, ServerError, TooManyRequests: it may not be stored, so repeat this call.
                With `repeat=False`, never raised.
        """
        stored_before, key = self._stored.setdefault(uid, {}), (objects.resource.kind, message)
        now_s = self.clock.monotonic()
        began_s = stored_before.get(key, now_s)
        if isinstance(began_s, bool):
            return began_s
        try:
            stored = await self.reporter.deliver(objects, about, REASON, message)
        except (ApiSilent, ServerError, TooManyRequests):
            if repeat and now_s - began_s < PATIENCE_S:
                stored_before[key] = began_s
                raise
            self.reporter.event(objects, about, "Warning", REASON, message)
            stored = False
        stored_before[key] = stored
        return stored

    def forget(self, uid: str) -> None:
        """Call this when the access no longer exists."""
        self._stored.pop(uid, None)
