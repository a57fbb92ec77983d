"""Runs the exec plugin of a kubeconfig user.

kr8s runs plugins too, but reads all that they print into memory, and hides their standard error.
There plugins print instructions for the user ("run: aws sso login"), so here it goes where ours
goes.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import anyio
import anyio.abc
import msgspec
from msgspec import Struct

from cosi_operator.kube.kubeconfig_merge import KubeconfigError
from cosi_operator.scrub import one_line
from cosi_operator.scrub.hidden import Hidden

OUTPUT_LIMIT_BYTES = 1 << 20


class _Status(Hidden, rename="camel"):
    token: str = ""
    client_certificate_data: str = ""
    client_key_data: str = ""


class _Printed(Struct):
    status: _Status


_decode = msgspec.json.Decoder(_Printed).decode


@dataclass(frozen=True, slots=True)
class Credential:
    """A token, or a certificate with its key (PEM), or both."""

    token: str = field(default="", repr=False)
    pair: tuple[bytes, bytes] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Plugin:
    """One plugin. `at_user` names its user and file, for messages."""

    command: Sequence[str] = field(repr=False)  # an argument can be a password
    env: Mapping[str, str] = field(repr=False)
    hint: str = ""
    at_user: str = ""

    def failed(self, how: str) -> KubeconfigError:
        """The error that says so, without anything that the plugin printed."""
        hint = one_line(self.hint)
        at_user = f"{self.at_user}.exec: " if self.at_user else ""
        return KubeconfigError(
            f"{at_user}exec plugin {self.command[0]} {how}{hint and f'. {hint}'}"
        )

    async def credential(self) -> Credential:
        """Run it; return what it printed.

        Raises:
            KubeconfigError: it printed too much. OSError, ValueError, LookupError,
            RuntimeError: it can't be run, failed, or printed no credential. Their texts quote it.
        """
        status = _decode(await self._output()).status
        certificate, key = status.client_certificate_data, status.client_key_data
        if not status.token and not (certificate and key):
            raise LookupError("no credential")
        return Credential(
            status.token, (certificate.encode(), key.encode()) if certificate and key else None
        )

    async def _output(self) -> bytes:
        process = await anyio.open_process(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=None,  # inherited
            env={**os.environ, **self.env},
        )
        try:
            output = await self._read(process)
            code = await process.wait()
        except BaseException:
            with suppress(ProcessLookupError):
                process.kill()
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await process.aclose()
        if code != 0:
            raise RuntimeError(f"exit code {code}")
        return output

    async def _read(self, process: anyio.abc.Process) -> bytes:
        assert process.stdout is not None
        output = bytearray()
        async for part in process.stdout:
            output += part
            if len(output) > OUTPUT_LIMIT_BYTES:
                raise self.failed(f"printed more than {OUTPUT_LIMIT_BYTES >> 20} MiB")
        return bytes(output)
