"""The credentials of one API object for another one, whose event loop is another."""

import weakref
from functools import partial
from pathlib import Path

import anyio.to_thread
import kr8s
from kr8s._async_utils import as_sync_func

from cosi_operator.kube.kubeconfig_merge import KubeconfigError
from cosi_operator.sdk.api_objects import SyncApi, is_thread_gone
from cosi_operator.sdk.plugin import Credential


class Borrowed:
    """A source of credentials: those that `api` has, and newer ones if these were refused."""

    def __init__(self, api: kr8s.Api) -> None:
        # Weak, because `portal.py` finds the other API object by `api`, as long as that is used.
        self._api = weakref.ref(api)
        self._given: Credential | None = None
        self._runs = 0

    async def credential(self) -> Credential:
        """As of a plugin.

        Raises:
            KubeconfigError and others of a login: `api` can't have newer ones.
        """
        if (api := self._api()) is None:
            raise LookupError("the API object is gone")
        if isinstance(api, SyncApi):
            if self._given is not None and is_thread_gone():
                await api.log_in_alone()
            elif self._given is not None:
                renew = partial(as_sync_func(api.renewal.join), self._runs, api.log_in)
                await anyio.to_thread.run_sync(renew, abandon_on_cancel=True)
            self._runs = api.renewal.runs
        elif self._given is not None and self._given == _of(api):
            await anyio.to_thread.run_sync(api.reauthenticate, abandon_on_cancel=True)
        self._given = _of(api)
        return self._given

    def failed(self, how: str) -> KubeconfigError:
        """As of a plugin."""
        api = self._api()
        if isinstance(api, SyncApi):
            return api.login.failed(how)
        return KubeconfigError(f"the login {how}")


def _of(api: kr8s.Api) -> Credential:
    pair = None
    if isinstance(api, SyncApi):
        pair = api.login.printed[0] if api.login.printed else None
    elif (certificate := api.auth.client_cert_file) and (key := api.auth.client_key_file):
        pair = Path(certificate).read_bytes(), Path(key).read_bytes()
    return Credential(api.auth.token or "", pair)
