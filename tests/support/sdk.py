"""Clients of the SDK for the API server at the wire, and kubeconfigs that lead to it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import kr8s
import pytest
import yaml
from kr8s._async_utils import Portal
from tests.support.apiserver import StubApiServer
from tests.support.clock import PATIENCE_S

from cosi_operator.clock import Clock
from cosi_operator.sdk import connect
from cosi_operator.sdk.api_objects import AsyncApi
from cosi_operator.sdk.client import Client
from cosi_operator.sdk.connect import Resolved, open_api

TOKEN = "token-of-a-test"


def kubeconfig_of(server: StubApiServer, **user: Any) -> dict[str, Any]:
    """One context for that server, in the namespace `default`."""
    return {
        "current-context": "stub",
        "contexts": [{"name": "stub", "context": {"cluster": "stub", "user": "stub"}}],
        "clusters": [{"name": "stub", "cluster": {"server": server.url}}],
        "users": [{"name": "stub", "user": user or {"token": TOKEN}}],
    }


def written(server: StubApiServer, path: Path, **user: Any) -> Path:
    """The same as a file."""
    path.write_text(yaml.safe_dump(kubeconfig_of(server, **user)))
    return path


@asynccontextmanager
async def sdk_client(server: StubApiServer, clock: Clock) -> AsyncIterator[Client]:
    """A client whose connections are closed at the end."""
    api = await open_api(Resolved(kubeconfig_of(server)))
    try:
        yield Client(api, clock)
    finally:
        await api.close()


class OpenApis:
    """The API objects of kr8s that a test opened. kr8s has no public call to close them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._opened: list[tuple[AsyncApi, asyncio.AbstractEventLoop | None]] = []
        finished = connect._finished

        def recorded(api: Any, resolved: Resolved) -> Any:
            is_sync = isinstance(api, kr8s.Api)
            self._opened.append((api, None if is_sync else asyncio.get_running_loop()))
            return finished(api, resolved)

        monkeypatch.setattr(connect, "_finished", recorded)

    def close(self) -> None:
        """Close those of other threads; a test closes what it opened in its own event loop."""
        for api, loop in self._opened:
            if loop is None:  # kr8s runs synchronous calls in a thread
                Portal().call(api.close)  # type: ignore[no-untyped-call]
            elif loop.is_running():
                asyncio.run_coroutine_threadsafe(api.close(), loop).result(PATIENCE_S)
