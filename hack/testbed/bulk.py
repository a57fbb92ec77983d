"""Many requests to the API server at once, as the administrator."""

import asyncio
import json
import ssl
from collections.abc import Iterable, Iterator

import aiohttp

from controlplane import ControlPlane

CONNECTIONS = 20

type Sent = tuple[str, str, object]
"""Method, path, body (None: without one)."""


def send_all(plane: ControlPlane, requests: Iterable[Sent]) -> None:
    """Send every request; they overtake one another.

    Raises:
        RuntimeError: one was refused; names the first.
    """
    asyncio.run(_send_all(plane, iter(list(requests))))


async def _send_all(plane: ControlPlane, requests: Iterator[Sent]) -> None:
    tls = ssl.create_default_context(cafile=str(plane.ca_file))
    headers = {
        "Authorization": f"Bearer {plane.admin_token}",
        "Content-Type": "application/json",
    }
    async with (
        aiohttp.ClientSession(
            plane.server_url, connector=aiohttp.TCPConnector(ssl=tls), headers=headers
        ) as session,
        asyncio.TaskGroup() as senders,
    ):
        for _ in range(CONNECTIONS):
            senders.create_task(_send(session, requests))


async def _send(session: aiohttp.ClientSession, requests: Iterator[Sent]) -> None:
    for method, path, body in requests:
        data = None if body is None else json.dumps(body)
        async with session.request(method, path, data=data) as response:
            if response.status >= 400:
                raise RuntimeError(f"{method} {path}: {response.status} {await response.text()}")
            await response.read()
