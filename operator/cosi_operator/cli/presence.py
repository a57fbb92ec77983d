"""Whether a driver's sidecar works, according to its Lease. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import msgspec
from msgspec import Struct

from cosi_operator.api.view import age_s
from cosi_operator.plan import names

# Of a Lease that names no duration: that of the Go sidecar.
DURATION_S = 150
AWAY = ("down", "absent")  # states in which no sidecar serves the driver's buckets


class _Meta(Struct, frozen=True):
    name: str = ""
    namespace: str = ""
    annotations: dict[str, str] | None = None


class _Spec(Struct, rename="camel", frozen=True):
    holder_identity: str | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_duration_seconds: int | None = None


class Lease(Struct, frozen=True):
    """The part of a Lease that shows whether a process holds it."""

    metadata: _Meta = _Meta()
    spec: _Spec = _Spec()


decode_lease = msgspec.json.Decoder(Lease).decode


@dataclass(frozen=True, slots=True)
class Presence:
    """`state` is up, down, absent (no Lease) or not visible; `since` is RFC 3339, or "".

    `version` and `policy` are what the sidecar wrote on its Lease; the Go sidecar writes neither.
    """

    state: str
    since: str = ""
    version: str = ""
    policy: str = ""


def presence(driver: str, leases: Iterable[Lease] | None, now: datetime) -> Presence:
    """What the Leases say about the sidecar of a driver; None: they may not be listed."""
    if leases is None:
        return Presence("not visible")
    name = names.lease_name(f"{driver}/cosi")
    found = [_of(lease, now) for lease in leases if lease.metadata.name == name]
    up = [each for each in found if each.state == "up"]
    return max(up or found, key=lambda each: each.since, default=Presence("absent"))


def _of(lease: Lease, now: datetime) -> Presence:
    spec, notes = lease.spec, lease.metadata.annotations or {}
    if spec.holder_identity and notes.get(names.HOLDER_ANNOTATION) != spec.holder_identity:
        notes = {}  # those of an earlier holder, which the Go sidecar keeps
    renewed = spec.renew_time or ""
    limit_s = spec.lease_duration_seconds or DURATION_S
    is_up = bool(spec.holder_identity) and age_s(renewed, now) <= limit_s
    return Presence(
        "up" if is_up else "down",
        (spec.acquire_time or "") if is_up else renewed,
        notes.get(names.VERSION_ANNOTATION, ""),
        notes.get(names.POLICY_ANNOTATION, ""),
    )
