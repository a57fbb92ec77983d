"""Counts how often each key of a queue was retried in a row; from that, the pause before a retry.

Two counts, because they end differently: a failed run is retried with the backoff of the settings,
and a run that only lost a race (a conflict) is repeated at once a few times.
"""

from collections.abc import Hashable
from random import Random

from cosi_operator.settings import Backoff

# Another writer rarely wins more often in a row; the run can't succeed before some time has passed.
REPEATS_AT_ONCE = 5
REPEAT_BACKOFF = Backoff(base_s=0.05, cap_s=2.0)


class RetryCounts[K: Hashable]:
    """The failures and the repetitions of each key since its last success."""

    def __init__(self, backoff: Backoff, random: Random) -> None:
        self._backoff = backoff
        self._random = random  # the source of the jitter
        # Never 0.
        self._failures: dict[K, int] = {}
        self._repeats: dict[K, int] = {}

    def failed(self, key: K) -> float:
        """Count a failure; return the seconds until the next run."""
        self._repeats.pop(key, None)
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        return self._backoff.pause_s(failures, self._random.random())

    def repeated(self, key: K) -> float:
        """Count a repetition, which is not a failure; return the seconds until the next run.

        The first REPEATS_AT_ONCE repetitions in a row have no pause.
        """
        repeats = self._repeats[key] = self._repeats.get(key, 0) + 1
        more = repeats - REPEATS_AT_ONCE
        return REPEAT_BACKOFF.pause_s(more, self._random.random()) if more > 0 else 0.0

    def forget(self, key: K) -> None:
        """Reset both counts of the key."""
        self._failures.pop(key, None)
        self._repeats.pop(key, None)

    def failures(self, key: K) -> int:
        """Failures in a row."""
        return self._failures.get(key, 0)
