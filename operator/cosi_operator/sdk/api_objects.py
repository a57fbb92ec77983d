"""API objects of kr8s whose requests have limits, and whose connections are those of kubectl.

httpx would read proxies and certificates from the environment by other rules than kubectl, and fail
with errors that name no variable. So it is given what `kube/kubeconfig.py` found.
"""

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import anyio
import httpx
import kr8s
import kr8s.asyncio
import msgspec
from kr8s._async_utils import Portal
from msgspec import Struct

from cosi_operator.sdk.answer import AnswerTooLarge, BadAnswer, unreadable
from cosi_operator.sdk.flight import Flight
from cosi_operator.sdk.login import Login
from cosi_operator.sdk.session import Session


class _Version(Struct, rename="camel"):
    git_version: str


_decode_version = msgspec.json.Decoder(_Version).decode


class AsyncApi(kr8s.asyncio.Api):
    """For an event loop. Make one with `connect.open_api`."""

    login: Login
    _session: Session | None  # set by `_new_session` alone
    _retired: list[Session]  # were replaced, and may still have requests under way

    def use(self, login: Login, free: Callable[[], object]) -> None:
        """Whenever kr8s logs in, do it with what the files hold then, and within the time.

        Args:
            free: deletes the files with keys; `close` calls it.
        """
        self.login = login
        self._free = free
        self._retired = []
        self.renewal = Flight()
        again = self.auth.reauthenticate

        async def log_in() -> None:
            await login.refresh()
            await again()
            login.check(self.auth.token)

        self.auth.reauthenticate = partial(login.run, log_in)  # type: ignore[method-assign]

    async def log_in(self) -> None:
        """Load the credentials, and open a session with them."""
        await self.auth.reauthenticate()
        await self._create_session()

    async def log_in_alone(self) -> None:
        """Load the credentials in the caller's event loop, without the thread of kr8s.

        Raises:
            KubeconfigError: a credential can't be had.
        """
        await self.login.run(self.login.refresh)
        self.auth.token = self.login.user.get("token")

    async def close(self) -> None:
        """Close the connections, and delete the files with keys."""
        self._free()
        sessions: list[httpx.AsyncClient] = [*self._retired]
        if self._session is not None:
            sessions.append(self._session)
        with anyio.CancelScope(shield=True):
            for session in sessions:
                await session.aclose()

    @contextlib.asynccontextmanager
    async def call_api(
        self, *args: Any, raise_for_status: bool = True, **options: Any
    ) -> AsyncGenerator[httpx.Response]:
        """As that of kr8s, with fewer requests and logins.

        - 403 is final. kr8s logs in again three times, and a login runs a plugin.
        - 401 leads to one login for all requests that were refused before it ended.
        - A page of a list that is too large is asked for again with fewer objects.
        """
        call = super().call_api
        options["raise_for_status"] = False
        async with contextlib.AsyncExitStack() as stack:

            async def send() -> httpx.Response:
                await stack.aclose()
                return await stack.enter_async_context(call(*args, **options))

            runs = self.renewal.runs
            response = await _in_smaller_pages(options, send)
            if response.status_code == httpx.codes.UNAUTHORIZED:
                await self.renewal.join(runs, self.log_in)
                response = await _in_smaller_pages(options, send)
            if raise_for_status and not response.is_success:
                raise _refusal(response)
            yield response

    async def check_server(self) -> None:
        """Ask the server for its version; raise what `answer.failure_of` understands."""
        async with self.call_api(version="", base="/version", raise_for_status=False) as response:
            response.raise_for_status()
            try:
                _decode_version(response.content)
            except (ValueError, RecursionError) as error:
                problem = unreadable(error)
            else:
                return
            raise BadAnswer(f"{problem}; is this the address of an API server?")

    async def _create_session(self) -> None:
        await self.login.run(self._new_session)

    async def _new_session(self) -> None:
        auth = self.auth
        headers = {
            "User-Agent": self.__version__,
            "Content-Type": "application/json",
            "Accept-Encoding": "gzip",
        }
        if auth.token:
            self.login.check(auth.token)  # httpx would quote it in its errors
            headers["Authorization"] = f"Bearer {auth.token}"
        old, self._session = (
            self._session,
            Session(
                base_url=auth.server,
                headers=headers,
                verify=self.login.tls(),
                timeout=self.timeout,
                proxy=auth.proxy,
                trust_env=False,
            ),
        )
        self._retired = [each for each in self._retired if not each.is_closed]
        if old is not None:
            self._retired.append(old)
        for each in self._retired:
            with contextlib.suppress(RuntimeError):  # of an event loop that has ended
                await each.retire()


async def _in_smaller_pages(
    options: dict[str, Any], send: Callable[[], Awaitable[httpx.Response]]
) -> httpx.Response:
    while True:
        try:
            return await send()
        except AnswerTooLarge:
            params = options.get("params")
            if not isinstance(params, Mapping) or not (limit := int(params.get("limit", 0)) // 8):
                raise
        options["params"] = {**params, "limit": str(limit)}


def _refusal(response: httpx.Response) -> kr8s.ServerError:
    """What kr8s raises for it; its own reading fails for some answers."""
    try:
        status = response.json()
    except (ValueError, RecursionError):
        status = response.text
    said = status.get("message") if isinstance(status, dict) else None
    words = said if isinstance(said, str) else f"HTTP status {response.status_code}"
    return kr8s.ServerError(words, status=status, response=response)


def is_thread_gone() -> bool:
    """Whether the thread of kr8s was started before this process was forked.

    The process lacks that thread, so whatever waits for it never ends.
    """
    portal: Portal | None = getattr(Portal, "_instance", None)
    if portal is None or not hasattr(portal, "_portal"):  # which the thread sets when it has begun
        return False
    return not portal.thread.is_alive()


class SyncApi(AsyncApi, kr8s.Api):
    """For programs without an event loop. Make one with `connect.open_sync_api`."""
