"""Reads the files that hold credentials, and says in one way why a credential can't be had.

kr8s reads a token once. So a token file is read again here whenever kr8s logs in again, which it
does when the server refuses the token.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from cosi_operator.clock import RealClock
from cosi_operator.kube.auth import CredentialError, TokenFile, is_token
from cosi_operator.kube.kubeconfig_merge import KubeconfigError
from cosi_operator.sdk.answer import DOCUMENTED, REQUEST_TIMEOUT_S, without_context
from cosi_operator.sdk.plugin import Plugin

# What kr8s raises when a plugin fails, or prints something else than a credential.
UNUSABLE = (
    OSError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
)
_FILES = ("certificate-authority", "client-certificate", "client-key")


@dataclass(frozen=True, slots=True)
class TokenPath:
    """A file with a token. `field` names the setting that named the file, for messages."""

    path: Path
    field: str
    fix: str

    async def read(self) -> str:
        """The token that is there now.

        Raises:
            KubeconfigError: it can't be read.
        """
        try:
            header = await TokenFile(self.path, RealClock()).authorization()
        except CredentialError as error:
            raise KubeconfigError(f"{self.field}: {error}; {self.fix}") from None
        return header.removeprefix("Bearer ")


@dataclass(frozen=True, slots=True)
class Login:
    """How one kubeconfig logs in. `user` is its user, which kr8s reads at each login."""

    user: dict[str, Any]
    cluster: dict[str, Any]
    plugin: Plugin | None = None
    token: TokenPath | None = None

    async def refresh(self) -> None:
        """Run the plugin or read the token file, and make sure that the other files are there.

        Raises:
            KubeconfigError: one of them can't be read. UNUSABLE: the plugin failed.
        """
        if self.plugin is not None:
            self.user.update(await self.plugin.credential())
        if self.token is not None:
            self.user["token"] = await self.token.read()
        if (problem := self.unreadable_file()) is not None:
            raise problem

    def unreadable_file(self) -> KubeconfigError | None:
        """Which file of a key or certificate can't be read, if that is so."""
        for field in _FILES:
            name = self.user.get(field) or self.cluster.get(field)
            try:
                if name:
                    Path(name).read_bytes()
            except OSError as error:
                return KubeconfigError(
                    f"{field}: {name} can't be read: {error.strerror}; name a file that you can"
                    " read"
                )
        return None

    async def run(self, log_in: Callable[[], Awaitable[None]]) -> None:
        """Run a part of a login.

        Raises:
            KubeconfigError: a credential can't be had, or can't be used. Other errors of `log_in`
            that are not about credentials.
        """
        try:
            with anyio.fail_after(REQUEST_TIMEOUT_S):
                await ended_at_once(log_in)
        except DOCUMENTED as error:
            failure: Exception = error
        except TimeoutError:
            failure = self._failed(f"did not end within {REQUEST_TIMEOUT_S:g} s")
        except UNUSABLE as error:
            failure = self._failure() or error
        else:
            return
        # Outside of `except`: what kr8s raises quotes what the plugin printed.
        raise without_context(failure)

    def check(self, token: str | None) -> None:
        """Raise KubeconfigError if no HTTP header can hold the token."""
        if token and not is_token(token):
            raise self._failed("printed a token with characters that no HTTP header can hold")

    def _failure(self) -> KubeconfigError | None:
        """What an error of kr8s means, if the credentials are its cause."""
        if self.plugin is None:
            return self.unreadable_file()
        return self._failed("failed")

    def _failed(self, how: str) -> KubeconfigError:
        if self.plugin is None:
            return KubeconfigError(f"the login {how}".replace("printed", "has"))
        return self.plugin.failed(how)


async def ended_at_once[T](log_in: Callable[[], Awaitable[T]]) -> T:
    """Run a login so that a plugin is killed when the caller is cancelled.

    asyncio cancels a task once, and anyio, which kr8s starts the plugin with, then waits until the
    plugin ends. A task group cancels what runs in it again and again.
    """
    results: list[T] = []
    failures: list[Exception] = []

    async def run() -> None:
        try:
            results.append(await log_in())
        except Exception as error:  # noqa: BLE001 - raised below, without a group around it
            failures.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
    for failure in failures:
        raise failure
    return results[0]
