"""Accepts a bounded number of connections, each for a bounded time.

aiohttp's server limits neither the number of connections nor the time for the header of a request.
Here, each address has at most `limit` connections. If another connection arrives, the oldest
connection of the client with the most connections is closed. So a flood from one client closes only
that client's connections. A kubelet's probe still succeeds, because it comes from another address
and is answered within milliseconds.
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
"""For each address. Two addresses take 128 of the 1024 file descriptors of a typical process."""
LIFETIME_S = 10.0
"""From accepting the connection to the last byte of the response."""
LOOK_EVERY_S = 1.0
BACKLOG = 128
ACCEPT_PAUSE_S = 0.1  # after an error such as "too many open files"
NOT_ON_THIS_MACHINE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # for example without IPv6

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
        """Close the connection now and discard data that is not sent yet."""
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
        """Add a connection. Above the limit, close one of the client with the most connections."""
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
        """Close the connections that were accepted before `than_s` (monotonic seconds)."""
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
        except OSError as error:  # no free file descriptor, or the client disconnected
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
        # sock_accept does not yield while connections are pending, so let the other tasks run.
        await asyncio.sleep(0)


async def _bind(address: str) -> list[socket.socket]:
    """Listen at each address of a host name, with separate sockets for IPv4 and IPv6."""
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
