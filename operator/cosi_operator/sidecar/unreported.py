"""Reports that could not be stored; a later run without a newer report stores them.

After a driver call, the pause before the next call is in memory. While it lasts, a run has nothing
new to report, so without this memory one failed status write would hide the result of the call.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cosi_operator.api.view import Bucket, BucketAccess, Key
from cosi_operator.kube.errors import ApiError, ApiSilent
from cosi_operator.status_patch import StatusReport


@dataclass(slots=True)
class Unreported:
    """The last report for each object, if a request that was part of reporting it failed."""

    _by_key: dict[Key, StatusReport] = field(default_factory=dict)

    def of(self, view: Bucket | BucketAccess) -> StatusReport | None:
        """The report that was not stored for this object."""
        report = self._by_key.get(view.meta.key)
        return report if report and report.judged.uid == view.meta.uid else None

    @contextmanager
    def storing(self, key: Key, report: StatusReport | None) -> Iterator[None]:
        """Within this context, the report is stored; if a request fails, it is kept."""
        try:
            yield
        except (ApiError, ApiSilent):
            if report:
                self._by_key[key] = report
            raise
        self.forget(key)

    def forget(self, key: Key) -> None:
        self._by_key.pop(key, None)
