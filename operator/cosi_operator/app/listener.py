"""Accepts connections, in bounded number and for a bounded time.

aiohttp's own server has no limit for the number of connections, nor a deadline for the header of a
request. Here, each address has `limit` connections at most. If one more arrives, the oldest
connection of the client address with the most connections is closed. So a flood from one place
closes its own connections, and a kubelet's probe, which arrives from another address and is
answered within milliseconds, gets through.
"""

import asyncio
import errno
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import anyio
import structlog

from cosi_operator.clock import Clock

CONNECTION_LIMIT = 64
"""For one address. Two addresses take 128 of the 1024 file descriptors that a process often has."""
LIFETIME_S = 10.0
"""From the first byte of the connection to the last byte of the response."""
LOOK_EVERY_S = 1.0
BACKLOG = 128
ACCEPT_PAUSE_S = 0.1  # after an error such as "too many open files"
NOT_ON_THIS_MACHINE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # for instance without IPv6

log = structlog.get_logger(__name__)

type ProtocolFactory = Callable[[], asyncio.Protocol]


@dataclass(frozen=True, slots=True)
class Connection:
    """One accepted connection. The event loop closes `accepted` when the connection is lost."""

    accepted: socket.socket
    transport: asyncio.WriteTransport
    client: str
    since_s: float

    @property
    def is_open(self) -> bool:
        return self.accepted.fileno() != -1

    def abort(self) -> None:
        """Close it now, without sending what waits to be sent."""
        self.transport.abort()


class Connections:
    """The open connections of one address, oldest first; at most `limit`."""

    def __init__(self, limit: int = CONNECTION_LIMIT) -> None:
        self._limit = limit
        self._open: list[Connection] = []

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._open)

    def add(self, connection: Connection) -> None:
        """Keep a new connection; if there are too many, close one of the busiest client."""
        self._open = [known for known in self._open if known.is_open]
        self._open.append(connection)
        if len(self._open) <= self._limit:
            return
        clients = Counter(known.client for known in self._open)
        most = max(clients.values())
        # The new connection is last, so it is closed only if its client has no older one.
        victim = next(known for known in self._open if clients[known.client] == most)
        self._open.remove(victim)
        victim.abort()

    def close_older(self, than_s: float) -> None:
        """Close the connections that were accepted before a moment of the monotonic clock."""
        for known in self._open:
            if known.since_s <= than_s:
                known.abort()
        self._open = [known for known in self._open if known.is_open and known.since_s > than_s]


async def listen(address: str, protocol: ProtocolFactory, clock: Clock) -> None:
    """Accept connections at `host:port` until cancelled. An empty host is every interface.

    Raises:
        OSError: the address can't be used.
    """
    connections = Connections()
    listeners = await _bind(address)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_expire, connections, clock)
            for listener in listeners:
                tasks.start_soon(_accept, listener, connections, protocol, clock)
    finally:
        for listener in listeners:
            listener.close()


async def _expire(connections: Connections, clock: Clock) -> None:
    while True:
        await clock.sleep(LOOK_EVERY_S)
        connections.close_older(clock.monotonic() - LIFETIME_S)


async def _accept(
    listener: socket.socket, connections: Connections, protocol: ProtocolFactory, clock: Clock
) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            accepted, peer = await loop.sock_accept(listener)
        except OSError as error:  # no file descriptor is left, or the client is gone already
            log.warning("accept_failed", error=errno.errorcode.get(error.errno or 0, "unknown"))
            await clock.sleep(ACCEPT_PAUSE_S)
            continue
        accepted.setblocking(False)
        try:
            transport, _ = await loop.connect_accepted_socket(protocol, accepted)
        except OSError:
            accepted.close()
            continue
        connections.add(Connection(accepted, transport, str(peer[0]), clock.monotonic()))
        # sock_accept does not wait while clients wait; everything else has its turn in between.
        await asyncio.sleep(0)


async def _bind(address: str) -> list[socket.socket]:
    """Listen at each address that a host name stands for; IPv4 and IPv6 apart."""
    host, _, port = address.rpartition(":")
    found = await asyncio.get_running_loop().getaddrinfo(
        host.strip("[]") or None,
        int(port),
        type=socket.SOCK_STREAM,
        flags=socket.AI_PASSIVE,
    )
    bound: list[socket.socket] = []
    failed: OSError | None = None
    for family, kind, protocol, _, place in dict.fromkeys(found):
        try:
            bound.append(_listener(family, kind, protocol, place))
        except OSError as error:
            failed = error
            if error.errno not in NOT_ON_THIS_MACHINE:
                break
    if failed is None or (bound and failed.errno in NOT_ON_THIS_MACHINE):
        return bound
    for listener in bound:
        listener.close()
    raise failed


def _listener(family: int, kind: int, protocol: int, place: tuple[object, ...]) -> socket.socket:
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(place)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
