"""The calls of a check with the options of the run, each ready to be awaited once."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from cosi_operator.api.view import AuthenticationType
from cosi_operator.cli.driver_check.options import Options
from cosi_operator.driver.probe import GrantReply, Probe


@dataclass(frozen=True, slots=True)
class Sender:
    """Makes the calls; what may be sent to which driver is decided by whoever asks for one."""

    _probe: Probe
    _options: Options

    def creating(self, name: str, options: Options) -> Callable[[], Awaitable[str]]:
        return lambda: self._probe.create_bucket(
            name, options.parameters, timeout_s=options.timeout_s
        )

    def granting(
        self, bucket_id: str, name: str, kind: AuthenticationType | None = None
    ) -> Callable[[], Awaitable[GrantReply]]:
        options = self._options
        wanted = options.authentication if kind is None else kind
        parameters, timeout_s = options.access_parameters, options.timeout_s
        return lambda: self._probe.grant_access(
            bucket_id, name, wanted, parameters, timeout_s=timeout_s
        )

    def revoking(self, bucket_id: str, account_id: str) -> Callable[[], Awaitable[str]]:
        parameters, timeout_s = self._options.access_parameters, self._options.timeout_s

        async def revoke() -> str:
            await self._probe.revoke_access(bucket_id, account_id, parameters, timeout_s=timeout_s)
            return ""

        return revoke

    def deleting(self, bucket_id: str) -> Callable[[], Awaitable[str]]:
        parameters, timeout_s = self._options.parameters, self._options.timeout_s

        async def delete() -> str:
            await self._probe.delete_bucket(bucket_id, parameters, timeout_s=timeout_s)
            return ""

        return delete
