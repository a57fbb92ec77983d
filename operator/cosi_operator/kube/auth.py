"""Where a request's Authorization header comes from, and how it is renewed.

kr8s reads credentials once and again only after a failure, knows no tokenFile, runs exec
plugins without a deadline and forgets when their answer expires; so this part is our own.
A credential never appears in a log line, an exception or a repr.
"""

import os
import re
import ssl
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Protocol

import anyio
import msgspec
from msgspec import Struct

from cosi_operator.clock import Clock

TOKEN_MAX_AGE_S = 60.0
EXEC_DEADLINE_S = 60.0
# Renewed this long before its end, as a request takes time and clocks differ a little.
EXPIRY_MARGIN = timedelta(seconds=10)
# Without any, OpenSSL would ask for an encrypted key's password at the terminal, and wait.
NO_PASSWORD = ""
EXEC_API_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")


# What fits into a header: the rest of a line of visible ASCII.
_TOKEN = re.compile(r"[!-~]+")


class CredentialError(Exception):
    """A credential can't be had just now; the message names the source, never the value."""


class Credentials(Protocol):
    """Gives the Authorization header of the next request."""

    async def authorization(self) -> str:
        """The header's value, or "" for none.

        Raises:
            CredentialError: the source does not give one.
        """

    def reject(self, authorization: str) -> bool:
        """The server refused `authorization` (401). True: asking again may give another one."""


@dataclass(frozen=True, slots=True)
class FixedToken:
    """A token that never changes, or none (client certificates, an open port)."""

    token: str = field(default="", repr=False)

    async def authorization(self) -> str:
        return f"Bearer {self.token}" if self.token else ""

    def reject(self, authorization: str) -> bool:  # noqa: ARG002 - there is no other one
        return False


class TokenFile:
    """A token that the kubelet replaces in place: read again each minute and after a 401."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._header = ""
        self._read_at_s = float("-inf")

    async def authorization(self) -> str:
        now_s = self._clock.monotonic()
        if now_s - self._read_at_s >= TOKEN_MAX_AGE_S:
            self._read()
            self._read_at_s = now_s
        return self._header

    def reject(self, authorization: str) -> bool:
        # Another request may have read the new token already: then just use it.
        if authorization == self._header:
            self._read_at_s = float("-inf")
        return True

    def _read(self) -> None:
        problem = "it holds no token"
        try:
            token = self._path.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:  # ValueError: no UTF-8, or no path
            token, problem = "", _cause(error)
        if is_token(token):
            self._header = f"Bearer {token}"
        elif self._header:  # better the one from before than none
            import structlog  # late: `cosi` starts faster without it

            log = structlog.get_logger(__name__)
            log.warning("token_file_unreadable", path=str(self._path), error=problem)
        else:
            raise CredentialError(f"token file {self._path}: {problem}")


@dataclass(frozen=True, slots=True)
class ExecPlugin:
    """The `exec` part of a kubeconfig user, resolved. `cluster` goes to the plugin if asked."""

    command: str
    args: Sequence[str]
    env: Mapping[str, str] = field(repr=False)
    api_version: str
    install_hint: str = ""
    cluster: Mapping[str, object] | None = None


class _ExecStatus(Struct, rename="camel"):
    token: str = ""
    # With its zone, as the API asks; without one it can't be compared with our clock.
    expiration_timestamp: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    client_certificate_data: str = ""
    client_key_data: str = ""


class _ExecCredential(Struct, rename="camel"):
    api_version: str
    kind: str
    status: _ExecStatus


class ExecCredentials:
    """What an exec plugin answered; run again when that expires and after a 401.

    A client certificate is loaded into `tls` and used by connections opened from then on.
    Source: client authentication API, client.authentication.k8s.io/v1.
    """

    def __init__(self, plugin: ExecPlugin, clock: Clock, tls: ssl.SSLContext | None) -> None:
        self._plugin = plugin
        self._clock = clock
        self._tls = tls
        self._header = ""
        self._valid = False
        self._expires: datetime | None = None
        self._running = anyio.Lock()

    async def authorization(self) -> str:
        async with self._running:  # many requests, one run of the plugin
            if not self._valid or (
                self._expires is not None and self._clock.wall() >= self._expires - EXPIRY_MARGIN
            ):
                self._accept(await self._run())
        return self._header

    def reject(self, authorization: str) -> bool:
        if authorization == self._header:
            self._valid = False
        return True

    def _accept(self, status: _ExecStatus) -> None:
        name = f"exec plugin {self._plugin.command}"
        if status.token and not is_token(status.token):
            raise CredentialError(f"{name} gave a token that no header can carry")
        if status.client_certificate_data and status.client_key_data and self._tls is not None:
            try:
                load_client_certificate(
                    self._tls,
                    status.client_certificate_data.encode(),
                    status.client_key_data.encode(),
                )
            except ssl.SSLError:
                raise CredentialError(
                    f"{name} gave no PEM certificate with its key, unencrypted"
                ) from None
        elif not status.token:
            raise CredentialError(f"{name} gave no credential")
        self._header = f"Bearer {status.token}" if status.token else ""
        self._expires = status.expiration_timestamp
        self._valid = True

    async def _run(self) -> _ExecStatus:
        plugin = self._plugin
        info: dict[str, object] = {
            "apiVersion": plugin.api_version,
            "kind": "ExecCredential",
            "spec": {"interactive": False}
            | ({} if plugin.cluster is None else {"cluster": plugin.cluster}),
        }
        env = {
            **os.environ,
            **plugin.env,
            "KUBERNETES_EXEC_INFO": msgspec.json.encode(info).decode(),
        }
        # Its stderr goes to ours: plugins explain themselves there, to people.
        try:
            with anyio.fail_after(EXEC_DEADLINE_S):
                done = await anyio.run_process(
                    [plugin.command, *plugin.args],
                    stdin=subprocess.DEVNULL,
                    stderr=None,
                    env=env,
                    check=False,
                )
        except TimeoutError:
            raise CredentialError(
                f"exec plugin {plugin.command}: no answer in {EXEC_DEADLINE_S:g} s"
            ) from None
        except (OSError, ValueError) as error:  # ValueError: a NUL in the command or its env
            hint = f"; {plugin.install_hint.strip()}" if plugin.install_hint else ""
            raise CredentialError(
                f"exec plugin {plugin.command} can't be run: {_cause(error)}{hint}"
            ) from None
        if done.returncode != 0:
            raise CredentialError(f"exec plugin {plugin.command} failed ({done.returncode})")
        try:
            answer = msgspec.json.decode(done.stdout, type=_ExecCredential)
        except msgspec.DecodeError as error:
            raise CredentialError(f"exec plugin {plugin.command}: {error}") from None
        if answer.api_version != plugin.api_version:
            raise CredentialError(
                f"exec plugin {plugin.command} answered in {answer.api_version}, "
                f"the kubeconfig asks for {plugin.api_version}"
            )
        return answer.status


def is_token(text: str) -> bool:
    """Whether it can stand in an Authorization header."""
    return _TOKEN.fullmatch(text) is not None


def load_client_certificate(tls: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Load a PEM pair that is not in files.

    OpenSSL's Python binding takes only paths. Where the system has anonymous memory files the
    key never meets a disk (and the root may be read-only); elsewhere a private file is deleted
    at once.

    Raises:
        ssl.SSLError: no PEM, no pair, or the key is encrypted.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("client-certificate")
        try:
            with open(descriptor, "wb", closefd=False) as pair:
                pair.write(certificate + b"\n" + key)
            tls.load_cert_chain(f"/proc/self/fd/{descriptor}", password=NO_PASSWORD)
        finally:
            os.close(descriptor)
        return
    with tempfile.NamedTemporaryFile() as pair:
        pair.write(certificate + b"\n" + key)
        pair.flush()
        tls.load_cert_chain(pair.name, password=NO_PASSWORD)


def _cause(error: OSError | ValueError) -> str:
    """What went wrong, without the content of the file (a UnicodeDecodeError carries it)."""
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__
