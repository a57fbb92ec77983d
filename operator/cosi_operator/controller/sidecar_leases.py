"""What the Lease of a driver's sidecar says, for a message about an object that waits for it.

Only the controller's own namespace is read: its role can't read others, and a tenant could write a
Lease of this name in its own namespace.
"""

from dataclasses import dataclass

import msgspec
from msgspec import Struct

from cosi_operator.api.core import LEASES
from cosi_operator.api.view import Key
from cosi_operator.kube.client import KubeClient
from cosi_operator.kube.errors import ApiError, ApiSilent
from cosi_operator.plan import names
from cosi_operator.scrub import shown_name


class _Spec(Struct, rename="camel"):
    renew_time: str | None = None


class _Lease(Struct):
    spec: _Spec = msgspec.field(default_factory=_Spec)


_decode = msgspec.json.Decoder(_Lease).decode


@dataclass(frozen=True, slots=True)
class SidecarLeases:
    client: KubeClient
    namespace: str

    async def words(self, driver: str) -> str:
        """A sentence about the last renewal; "" if no Lease can be read. It starts with a space."""
        name = names.lease_name(f"{driver}/cosi")
        try:
            lease = _decode(await self.client.get(LEASES, Key(self.namespace, name)))
        except (ApiError, ApiSilent, msgspec.DecodeError):
            return ""
        if not (renewed := lease.spec.renew_time):
            return ""
        return f" The Lease of that sidecar was last renewed at {shown_name(renewed)}."
