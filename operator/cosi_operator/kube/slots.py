"""How many requests are sent at once, shared fairly by the namespaces that they are made for.

The queue hands out its keys fairly, but the requests of a run that has begun would still wait
behind those of all other runs. So the free slots go to the namespaces in turn: a request waits for
at most as many others as there are namespaces that wait, however many requests each of them has.
"""

import asyncio
from collections import OrderedDict, deque
from contextvars import ContextVar
from types import TracebackType

# The namespace that the requests of this task are made for; "" is one group like any other.
NAMESPACE: ContextVar[str] = ContextVar("namespace", default="")


class FairSlots:
    """An async context manager that holds one of `count` slots. Belongs to one event loop."""

    def __init__(self, count: int) -> None:
        self._free = count
        # Who waits, by namespace; first is the namespace whose turn it is. None waits while a
        # slot is free, and no line is empty.
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
                self._leave(namespace, turn)
            else:  # the slot was given to us in the same moment
                self._give()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._give()

    def _give(self) -> None:
        """Give a slot to the first of the namespace whose turn it is, else make it free."""
        while self._waiting:
            namespace, line = next(iter(self._waiting.items()))
            turn = line.popleft()
            if line:
                self._waiting.move_to_end(namespace)
            else:
                del self._waiting[namespace]
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _leave(self, namespace: str, turn: asyncio.Future[None]) -> None:
        line = self._waiting.get(namespace)
        if line is None or turn not in line:
            return
        line.remove(turn)
        if not line:
            del self._waiting[namespace]
