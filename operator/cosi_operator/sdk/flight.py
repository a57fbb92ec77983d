"""One run of something slow for all tasks that need its result."""

import copy
from collections.abc import Awaitable, Callable

import anyio

from cosi_operator.sdk.answer import DOCUMENTED


class Flight:
    """`runs` counts the runs that ended. Whoever sees a problem has read it before."""

    def __init__(self) -> None:
        self.runs = 0
        self._lock = anyio.Lock()
        self._failure: Exception | None = None

    async def join(self, runs: int, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work`, unless a run has ended since `self.runs` was `runs`.

        Raises:
            DOCUMENTED: that run failed, or this one. Others: this one did. A run that is cancelled
            does not count.
        """
        async with self._lock:
            if self.runs == runs:
                self._failure = None
                try:
                    await work()
                except DOCUMENTED as error:
                    self._failure = error
                self.runs += 1
            failure = self._failure
        if failure is not None:
            raise copy.copy(failure)  # each task adds its own traceback
