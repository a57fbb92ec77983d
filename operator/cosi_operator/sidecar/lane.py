"""The order in which one lane starts calls, one at a time. Pure: no clock, no waiting.

Why a lane: many drivers grant and revoke by reading a shared document (a bucket policy, an identity
file), changing their copy and writing it back. Two such calls at the same time lose one of the
changes, although both answer OK.

A key (a BucketAccess) has a ticket from its first request for a turn until its call has ended or
its run no longer needs a turn. The state of a ticket is one of:

    RUNNING   its call is in progress; at most one ticket of a lane
    WAITING   its reconcile run waits, and occupies a worker
    PARKED    no run waits, so no worker is occupied; the lane invites the key later
    INVITED   the key was added to the work queue, and its run has not asked yet

Order:
- Namespaces take turns; within a namespace the older ticket is first.
- After a call that exceeded our deadline, every ticket of its namespace and every ticket of its
  class moves behind all other tickets that are in the lane at that moment. So the other calls start
  before that namespace or class can block the lane for another deadline.
- While the first ticket in order is INVITED, the lane is kept free for it only if all WAITING
  tickets are behind it because of such a move, and until one of them reaches its time limit.
  Otherwise a waiting ticket runs, because a late run must not leave the driver idle.

No wake-up is lost: whenever no call runs and there are tickets, the first ticket is INVITED, and an
invited key either asks or leaves.
"""

import enum
import itertools
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass


class TicketState(enum.Enum):
    """The state of a ticket; see the module docstring."""

    RUNNING = "running"
    WAITING = "waiting"
    PARKED = "parked"
    INVITED = "invited"


@dataclass(slots=True)
class WaitingLimit:
    """Limits the waiting runs of all lanes that share it, because each of them occupies a worker.

    A new ticket may wait while fewer than `limit` runs wait. Keys are invited while fewer than half
    of `limit` wait or are invited, so that the lane always has a next run. Invited keys may wait
    beyond the limit, because their runs were requested, so at most `1.5 * limit` runs wait.
    """

    limit: int
    waiting: int = 0
    invited: int = 0

    @property
    def _spare(self) -> int:
        return self.limit // 2

    def may_wait(self, *, is_invited: bool) -> bool:
        return self.waiting < self.limit + (self._spare if is_invited else 0)

    def may_invite(self) -> bool:
        return self.waiting + self.invited < self._spare


@dataclass(slots=True)
class _Ticket[K]:
    """`passed` counts the deadlines that passed before this ticket took its present position."""

    key: K
    namespace: str
    class_name: str
    number: int
    passed: int
    place: TicketState = TicketState.PARKED


class Lane[K: Hashable]:
    """One lane.

    Args:
        limit: shared with the other lanes of the process.
        start: called with a WAITING key whose turn has come; it is RUNNING by then.
        invite: called with a key that has to be reconciled; its run must call `ask` or `leave`.
    """

    def __init__(
        self,
        limit: WaitingLimit,
        *,
        start: Callable[[K], None],
        invite: Callable[[K], None],
    ) -> None:
        self._limit = limit
        self._start_run = start
        self._invite_run = invite
        self._numbers = itertools.count()
        self._passed = 0
        self._running: _Ticket[K] | None = None
        self._tickets: dict[K, _Ticket[K]] = {}
        # The tickets of each namespace, ordered by passed and number, and the number of the
        # namespace's last turn (of its first ticket, if it had no turn yet).
        self._queues: dict[str, dict[K, _Ticket[K]]] = {}
        self._turns: dict[str, int] = {}

    def __len__(self) -> int:
        """The number of tickets, including the running one."""
        return len(self._tickets)

    def place(self, key: K) -> TicketState | None:
        """The state of the key's ticket; None without a ticket."""
        ticket = self._tickets.get(key)
        return ticket.place if ticket else None

    def ask(self, key: K, namespace: str, class_name: str) -> TicketState:
        """Request a turn for a run of the key.

        Returns:
            RUNNING: make the call now, then `end`. WAITING: wait for `start`, or `release_worker`
            or `leave`. PARKED: end the run; the key is invited later.
        Raises:
            ValueError: the key is RUNNING or WAITING; the caller has a bug.
        """
        ticket = self._tickets.get(key) or self._enter(key, namespace, class_name)
        if ticket.place in (TicketState.RUNNING, TicketState.WAITING):
            raise ValueError(f"asked twice: {key}")
        was_invited = ticket.place is TicketState.INVITED
        if self._running is None and ticket.passed <= self._fewest_passed():
            self._run(ticket)
        elif self._limit.may_wait(is_invited=was_invited):
            self._move(ticket, TicketState.WAITING)
        else:
            self._move(ticket, TicketState.PARKED)
        return ticket.place

    def release_worker(self, key: K) -> TicketState:
        """End the wait of a WAITING run: free its worker, and keep its position.

        No other key is invited instead, because a lane in which runs wait that long has enough
        runs.

        Returns:
            PARKED; or RUNNING if the lane was kept free for an invited run that has not asked in
            that time: make the call now, because the driver must not stay idle longer.
        """
        ticket = self._tickets[key]
        if ticket.place is not TicketState.WAITING:
            raise ValueError(f"not waiting: {key}")
        if self._running is None:
            self._run(ticket)
        else:
            self._move(ticket, TicketState.PARKED)
        return ticket.place

    def end(self, key: K, *, exceeded: bool) -> None:
        """End the turn of the RUNNING key. `exceeded`: our own deadline ended its call."""
        ticket = self._tickets[key]
        if ticket is not self._running:
            raise ValueError(f"not running: {key}")
        self._running = None
        self._turns[ticket.namespace] = next(self._numbers)
        self._remove(ticket)
        if exceeded:
            self._send_back(ticket.namespace, ticket.class_name)
        self._advance()

    def leave(self, key: K) -> None:
        """Remove the ticket of a key that no longer needs a turn, if it has one."""
        ticket = self._tickets.get(key)
        if ticket is None:
            return
        if ticket is self._running:
            raise ValueError(f"its call is running: {key}")
        self._remove(ticket)
        self._advance()

    # --- order

    def _enter(self, key: K, namespace: str, class_name: str) -> _Ticket[K]:
        ticket = _Ticket(key, namespace, class_name, next(self._numbers), self._passed)
        self._tickets[key] = ticket
        self._queues.setdefault(namespace, {})[key] = ticket
        self._turns.setdefault(namespace, ticket.number)
        return ticket

    def _remove(self, ticket: _Ticket[K]) -> None:
        self._move(ticket, TicketState.PARKED)  # updates the counts of waiting and invited
        del self._tickets[ticket.key]
        queue = self._queues[ticket.namespace]
        del queue[ticket.key]
        if not queue:
            del self._queues[ticket.namespace], self._turns[ticket.namespace]

    def _send_back(self, namespace: str, class_name: str) -> None:
        self._passed += 1
        for name, queue in self._queues.items():
            for ticket in queue.values():
                if name == namespace or ticket.class_name == class_name:
                    ticket.passed = self._passed
            ordered = sorted(queue.values(), key=lambda ticket: (ticket.passed, ticket.number))
            self._queues[name] = {ticket.key: ticket for ticket in ordered}

    def _fewest_passed(self) -> int:
        return min((head.passed for head in self._heads(None)), default=self._passed)

    def _heads(self, place: TicketState | None) -> Iterator[_Ticket[K]]:
        """The first ticket of each namespace, or its first ticket in state `place`."""
        for queue in self._queues.values():
            for ticket in queue.values():
                if ticket is not self._running and place in (None, ticket.place):
                    yield ticket
                    break

    def _first(self, place: TicketState | None = None) -> _Ticket[K] | None:
        """The next ticket in order, or the next ticket in state `place`."""
        return min(
            self._heads(place),
            key=lambda ticket: (ticket.passed, self._turns[ticket.namespace]),
            default=None,
        )

    # --- places

    def _advance(self) -> None:
        """Start the next call if none runs, and invite keys up to the limit."""
        if self._running is None and (first := self._first()) is not None:
            waiting = self._first(TicketState.WAITING) if self._limit.waiting else None
            if waiting is not None and waiting.passed == first.passed:
                self._run(waiting)
                self._start_run(waiting.key)
            if first.place is TicketState.PARKED:
                self._invite(first)
        while self._limit.may_invite() and (parked := self._first(TicketState.PARKED)) is not None:
            self._invite(parked)

    def _run(self, ticket: _Ticket[K]) -> None:
        self._move(ticket, TicketState.RUNNING)
        self._running = ticket

    def _invite(self, ticket: _Ticket[K]) -> None:
        self._move(ticket, TicketState.INVITED)
        self._invite_run(ticket.key)

    def _move(self, ticket: _Ticket[K], place: TicketState) -> None:
        self._limit.waiting += (place is TicketState.WAITING) - (
            ticket.place is TicketState.WAITING
        )
        self._limit.invited += (place is TicketState.INVITED) - (
            ticket.place is TicketState.INVITED
        )
        ticket.place = place
