"""The reports of failed driver calls, which a later run stores again if the status lacks them.

After a failed call, the pause before the next call is in memory. While it lasts, a run has nothing
new to report. So without this memory, one failed write of a status would hide the result of the
call, and the report of another problem would stay after that problem has gone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cosi_operator.api.view import Bucket, BucketAccess, Key
from cosi_operator.kube.errors import ApiError, ApiSilent
from cosi_operator.outcome import Outcome, Reason, Success
from cosi_operator.sidecar.calls import DriverRun
from cosi_operator.status_patch import StatusReport, ready_of


@dataclass(slots=True)
class DriverFailures:
    """The report of the last driver call for each object, if that call failed."""

    _by_key: dict[Key, StatusReport] = field(default_factory=dict)
    _not_stored: set[Key] = field(default_factory=set)

    def to_repeat(self, view: Bucket | BucketAccess, outcome: Outcome) -> StatusReport | None:
        """The report to store again; None unless `outcome` is the pause after that call."""
        report = self._by_key.get(view.meta.key)
        if report is None or report.judged.uid != view.meta.uid or isinstance(outcome, Success):
            return None
        if isinstance(report.outcome, Success) or outcome.reason is not report.outcome.reason:
            return None
        ready = ready_of(view)
        kept = (outcome.reason, Reason.ACCESS_CLASS_NOT_FOUND)  # the latter by the controller
        is_other = ready is not None and ready.status != "True" and ready.reason not in kept
        return report if is_other or view.meta.key in self._not_stored else None

    @contextmanager
    def storing(self, key: Key, report: StatusReport, calls: DriverRun) -> Iterator[None]:
        """Within this context, the report is stored; if a request fails, it is stored later."""
        if isinstance(report.outcome, Success):
            self.forget(key)
        elif report.outcome.status is not None:
            self._by_key[key] = report
        try:
            yield
        except (ApiError, ApiSilent):
            self._not_stored.add(key)
            calls.not_stored(report.outcome)
            raise
        self._not_stored.discard(key)
        calls.stored()

    def forget(self, key: Key) -> None:
        self._by_key.pop(key, None)
        self._not_stored.discard(key)
