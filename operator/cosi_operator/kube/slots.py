"""Limits the requests that are sent at the same time, and shares the limit between namespaces.

The queue orders keys fairly, but the requests of runs that have started would still be sent in
order of arrival. So free slots are given to the waiting namespaces in turn. Before a namespace gets
its next slot, each other waiting namespace gets at most one, however many requests wait in each.
"""

import asyncio
from collections import OrderedDict, deque
from contextvars import ContextVar
from types import TracebackType

# The namespace that the requests of this task are sent for. "" is a group like any namespace.
NAMESPACE: ContextVar[str] = ContextVar("namespace", default="")


class FairSlots:
    """An async context manager that holds one of `count` slots. For one event loop only."""

    def __init__(self, count: int) -> None:
        self._free = count
        # The waiting requests by namespace; the first namespace gets the next slot. Empty while a
        # slot is free, and no deque in it is empty.
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def __aenter__(self) -> None:
        if self._free:
            self._free -= 1
            return
        namespace = NAMESPACE.get()
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(namespace, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._withdraw(namespace, turn)
            else:  # the slot was assigned just before the cancellation
                self._release()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._release()

    def _release(self) -> None:
        """Assign the slot to the next namespace's first request; without one, mark it free."""
        while self._waiting:
            namespace, turns = next(iter(self._waiting.items()))
            turn = turns.popleft()
            if turns:
                self._waiting.move_to_end(namespace)
            else:
                del self._waiting[namespace]
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _withdraw(self, namespace: str, turn: asyncio.Future[None]) -> None:
        turns = self._waiting.get(namespace)
        if turns is None or turn not in turns:
            return
        turns.remove(turn)
        if not turns:
            del self._waiting[namespace]
