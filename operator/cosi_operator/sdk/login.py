"""Reads the files that hold credentials, and says in one way why a credential can't be had.

kr8s reads a token once. So a token file is read again here whenever kr8s logs in again, which it
does when the server refuses the token.
"""

import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import anyio

from cosi_operator.clock import RealClock
from cosi_operator.kube.auth import CredentialError, TokenFile, is_token
from cosi_operator.kube.kubeconfig_merge import KubeconfigError
from cosi_operator.sdk.answer import DOCUMENTED, REQUEST_TIMEOUT_S, without_context
from cosi_operator.sdk.plugin import Credential
from cosi_operator.sdk.roots import tls_for

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


class Source(Protocol):
    """An exec plugin, or what takes its place."""

    async def credential(self) -> Credential: ...

    def failed(self, how: str) -> KubeconfigError: ...


@dataclass(frozen=True, slots=True)
class Login:
    """How one kubeconfig logs in. `user` is its user, which kr8s reads at each login."""

    user: dict[str, Any] = field(repr=False)
    cluster: dict[str, Any] = field(repr=False)  # the URL of a proxy can hold a password
    plugin: Source | None = None
    token: TokenPath | None = None
    # The certificate and key that the plugin printed last, which no file holds.
    printed: list[tuple[bytes, bytes]] = field(default_factory=list, repr=False)

    async def refresh(self) -> None:
        """Run the plugin or read the token file, and make sure that the other files are there.

        Raises:
            KubeconfigError: one of them can't be read. UNUSABLE: the plugin failed.
        """
        if self.plugin is not None:
            credential = await self.plugin.credential()
            self.user["token"] = credential.token
            self.printed[:] = [credential.pair] if credential.pair else []
        if self.token is not None:
            self.user["token"] = await self.token.read()
        if (problem := self.unreadable_file()) is not None:
            raise problem

    def unreadable_file(self) -> KubeconfigError | None:
        """Which file of a key or certificate can't be read, if that is so."""
        for each in _FILES:
            name = self.user.get(each) or self.cluster.get(each)
            try:
                if name:
                    Path(name).read_bytes()
            except OSError as error:
                return KubeconfigError(
                    f"{each}: {name} can't be read: {error.strerror}; name a file that you can read"
                )
        return None

    def tls(self) -> ssl.SSLContext:
        """The settings of the connections.

        Raises:
            KubeconfigError: a variable names roots that can't be read. OSError: a file can't be
            read or used.
        """
        certificate, key = self.user.get("client-certificate"), self.user.get("client-key")
        pair = self.printed[0] if self.printed else None
        if pair is None and certificate and key:
            pair = Path(certificate).read_bytes(), Path(key).read_bytes()
        return tls_for(
            self.cluster["server"],
            ca=self.cluster.get("certificate-authority") or "",
            insecure=bool(self.cluster.get("insecure-skip-tls-verify")),
            pair=pair,
        )

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
            failure = self.failed(f"did not end within {REQUEST_TIMEOUT_S:g} s")
        except UNUSABLE as error:
            failure = self._failure() or error
        else:
            return
        # Outside of `except`: what kr8s raises quotes what the plugin printed.
        raise without_context(failure)

    def check(self, token: str | None) -> None:
        """Raise KubeconfigError if no HTTP header can hold the token."""
        if token and not is_token(token):
            raise self.failed("printed a token with characters that no HTTP header can hold")

    def _failure(self) -> KubeconfigError | None:
        """What an error of kr8s means, if the credentials are its cause."""
        if self.plugin is None:
            return self.unreadable_file()
        return self.failed("failed")

    def failed(self, how: str) -> KubeconfigError:
        """The error that says so."""
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
