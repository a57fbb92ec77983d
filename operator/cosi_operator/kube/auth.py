"""Provides the Authorization header of each request, and renews the credentials.

kr8s is not used for this, because it reads credentials again only after a failure, does not support
tokenFile, runs exec plugins without a deadline and ignores when their credential expires. A
credential never appears in a log line, an exception or a repr.
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
TOKEN_FILE_LIMIT_BYTES = 1 << 20  # a setting can name any file, /dev/zero too
# A credential is renewed this long before it expires, because a request takes time and clocks
# differ slightly.
EXPIRY_MARGIN = timedelta(seconds=10)
# An explicit password, because OpenSSL would otherwise prompt for the password of an encrypted key
# at the terminal and block.
NO_PASSWORD = ""
EXEC_API_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")


# The characters that are valid in the header: visible ASCII.
_TOKEN = re.compile(r"[!-~]+")


class CredentialError(Exception):
    """A credential is not available; the message names its source and never contains its value."""


class Credentials(Protocol):
    """Provides the Authorization header of the next request."""

    async def authorization(self) -> str:
        """Return the header's value, or "" for no header.

        Raises:
            CredentialError: the source does not provide a credential.
        """

    def reject(self, authorization: str) -> bool:
        """Record that the server refused `authorization` (401).

        Returns:
            Whether the next `authorization()` may return another value.
        """


@dataclass(frozen=True, slots=True)
class FixedToken:
    """A token that never changes; "" for no token (client certificates, an open port)."""

    token: str = field(default="", repr=False)

    async def authorization(self) -> str:
        return f"Bearer {self.token}" if self.token else ""

    def reject(self, authorization: str) -> bool:  # noqa: ARG002 - the only token
        return False


class TokenFile:
    """A token file that the kubelet updates; read again after TOKEN_MAX_AGE_S and after a 401."""

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
        # If another request has already read the new token, use that token.
        if authorization == self._header:
            self._read_at_s = float("-inf")
        return True

    def _read(self) -> None:
        problem = "the file contains no token"
        try:
            with self._path.open("rb") as file:
                content = file.read(TOKEN_FILE_LIMIT_BYTES + 1)
            token = content.decode("utf-8").strip()
            if len(content) > TOKEN_FILE_LIMIT_BYTES:
                token, problem = "", "it is larger than 1 MiB"
        except (OSError, ValueError) as error:  # ValueError: not UTF-8, or not a valid path
            token, problem = "", _cause(error)
        if is_token(token):
            self._header = f"Bearer {token}"
        elif self._header:  # keep the previous token
            import structlog  # imported only here, because `cosi` starts faster without it

            log = structlog.get_logger(__name__)
            log.warning("token_file_unreadable", path=str(self._path), error=problem)
        else:
            raise CredentialError(f"token file {self._path}: {problem}")


@dataclass(frozen=True, slots=True)
class ExecPlugin:
    """The `exec` field of a kubeconfig user, resolved.

    `cluster` is passed to the plugin; None unless the kubeconfig sets provideClusterInfo.
    """

    command: str
    args: Sequence[str]
    env: Mapping[str, str] = field(repr=False)
    api_version: str
    install_hint: str = ""
    cluster: Mapping[str, object] | None = None


class _ExecStatus(Struct, rename="camel"):
    token: str = ""
    # The API requires a time zone, and a time without a zone can't be compared with our clock.
    expiration_timestamp: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    client_certificate_data: str = ""
    client_key_data: str = ""


class _ExecCredential(Struct, rename="camel"):
    api_version: str
    kind: str
    status: _ExecStatus


class ExecCredentials:
    """The credential of an exec plugin. The plugin runs again on expiry and after a 401.

    A client certificate is loaded into `tls` and used by connections that are opened afterwards.
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
        async with self._running:  # concurrent requests share one run of the plugin
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
            raise CredentialError(
                f"{name} returned a token with characters that are invalid in a header"
            )
        if status.client_certificate_data and status.client_key_data and self._tls is not None:
            try:
                load_client_certificate(
                    self._tls,
                    status.client_certificate_data.encode(),
                    status.client_key_data.encode(),
                )
            except ssl.SSLError:
                raise CredentialError(
                    f"{name} did not return a PEM certificate with its key, unencrypted"
                ) from None
        elif not status.token:
            raise CredentialError(f"{name} returned no credential")
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
        # The plugin inherits our stderr, because plugins print instructions for the user there.
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
                f"exec plugin {plugin.command} did not finish within {EXEC_DEADLINE_S:g} s"
            ) from None
        except (OSError, ValueError) as error:  # ValueError: a NUL character in the command or env
            hint = f"; {plugin.install_hint.strip()}" if plugin.install_hint else ""
            raise CredentialError(
                f"exec plugin {plugin.command} can't be run: {_cause(error)}{hint}"
            ) from None
        if done.returncode != 0:
            raise CredentialError(
                f"exec plugin {plugin.command} failed with exit code {done.returncode}"
            )
        try:
            answer = msgspec.json.decode(done.stdout, type=_ExecCredential)
        except msgspec.DecodeError as error:
            raise CredentialError(f"exec plugin {plugin.command}: {error}") from None
        if answer.api_version != plugin.api_version:
            raise CredentialError(
                f"exec plugin {plugin.command} returned apiVersion {answer.api_version}, "
                f"but the kubeconfig requires {plugin.api_version}"
            )
        return answer.status


def is_token(text: str) -> bool:
    """Whether `text` is valid in an Authorization header."""
    return _TOKEN.fullmatch(text) is not None


def load_client_certificate(tls: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Load a PEM certificate and its key from memory.

    Python's ssl module accepts only paths. If the system supports anonymous memory files, the key
    is never written to a disk, and the root file system may be read-only. Otherwise the key is
    written to a private temporary file, which is deleted immediately.

    Raises:
        ssl.SSLError: not PEM, the key does not match the certificate, or the key is encrypted.
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
    """Describe the error without the file's content, which a UnicodeDecodeError contains."""
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__
