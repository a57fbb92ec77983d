"""API objects of kr8s whose requests have limits, and whose connections are those of kubectl.

httpx would read proxies and certificates from the environment by other rules than kubectl, and fail
with errors that name no variable. So it is given what `kube/kubeconfig.py` found.
"""

import contextlib
import os
import ssl
from functools import partial

import anyio
import httpx
import kr8s
import kr8s.asyncio
import msgspec
from msgspec import Struct

from cosi_operator.kube.kubeconfig_merge import KubeconfigError
from cosi_operator.sdk.answer import BadAnswer, unreadable
from cosi_operator.sdk.login import Login
from cosi_operator.sdk.session import Session


class _Version(Struct, rename="camel"):
    git_version: str


_decode_version = msgspec.json.Decoder(_Version).decode


class AsyncApi(kr8s.asyncio.Api):
    """For an event loop. Make one with `connect.open_api`."""

    _login: Login
    _session: Session | None  # set by `_new_session` alone
    _retired: list[Session]  # were replaced, and may still have requests under way

    def use(self, login: Login) -> None:
        """Whenever kr8s logs in, do it with what the files hold then, and within the time."""
        self._login = login
        self._retired = []
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

    async def close(self) -> None:
        """Close the connections."""
        sessions: list[httpx.AsyncClient] = [*self._retired]
        if self._session is not None:
            sessions.append(self._session)
        with anyio.CancelScope(shield=True):
            for session in sessions:
                await session.aclose()

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
        await self._login.run(self._new_session)

    async def _new_session(self) -> None:
        auth = self.auth
        headers = {
            "User-Agent": self.__version__,
            "Content-Type": "application/json",
            "Accept-Encoding": "gzip",
        }
        if auth.token:
            self._login.check(auth.token)  # httpx would quote it in its errors
            headers["Authorization"] = f"Bearer {auth.token}"
        verify = await auth.ssl_context()  # type: ignore[no-untyped-call]
        old, self._session = (
            self._session,
            Session(
                base_url=auth.server,
                headers=headers,
                verify=public_roots(auth.server) if verify is True else verify,
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


class SyncApi(AsyncApi, kr8s.Api):
    """For programs without an event loop. Make one with `connect.open_sync_api`."""


def public_roots(server: str) -> ssl.SSLContext:
    """What certifies a server whose CA no kubeconfig names.

    Raises:
        KubeconfigError: a variable names what can't be read.
    """
    if not server.startswith("https:"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nothing, if there is a redirect
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        if not (path := os.environ.get(variable)):
            continue
        try:
            if variable == "SSL_CERT_FILE":
                return ssl.create_default_context(cafile=path)
            return ssl.create_default_context(capath=path)
        except (OSError, ValueError) as error:  # ValueError: NUL in the name
            problem = (isinstance(error, OSError) and error.strerror) or type(error).__name__
        raise KubeconfigError(
            f"{variable}: {path} can't be read: {problem}; name PEM certificates, or unset it"
        )
    return httpx.create_ssl_context(trust_env=False)
