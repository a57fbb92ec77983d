"""Leader election over one Lease: at most one holder works, if clocks advance at the same rate.

Promised: `lead` runs only while this process holds the Lease, and is cancelled `renew_deadline_s`
after the last renewal was sent, which is before anyone else may take the Lease (`lease_s` after
they saw it renewed). Time of day plays no part: each process times what it saw on its own
monotonic clock, so clocks may differ by years, but not run faster than lease_s/renew_deadline_s
(1.5) times one another.

Not promised: fencing. A process that is suspended for longer than `lease_s` may still have a
request under way when it wakes, while another leads already. All effects must be safe under two
leaders for a moment: conditional writes, idempotent driver calls.

Rights: get, create and update of one Lease. No watch, no list, no patch.
"""

import enum
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import anyio
import msgspec
import structlog
from msgspec import Struct

from cosi_operator.api.core import LEASES
from cosi_operator.api.view import Key
from cosi_operator.clock import Clock
from cosi_operator.kube.client import KubeClient
from cosi_operator.kube.deadline import within
from cosi_operator.kube.errors import (
    AlreadyExists,
    ApiError,
    ApiSilent,
    Conflict,
    Forbidden,
    NotFound,
)
from cosi_operator.kube.events import ObjectRef
from cosi_operator.settings import LeaseDurations

log = structlog.get_logger(__name__)

RELEASE_DEADLINE_S = 3.0
JITTER = 0.2


class LeaseLost(Exception):  # noqa: N818 - what happened, not a fault
    """No longer the leader; `lead` has been cancelled. The process should exit."""


class Attempt(enum.Enum):
    """What one attempt to get or keep the Lease came to."""

    HELD = "held"
    HELD_BY_OTHER = "held by another"
    FAILED = "failed"  # no usable answer, or somebody was faster: it is not known who holds it


class _Spec(Struct, rename="camel", frozen=True):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class _Lease(Struct):
    spec: _Spec | None = None


@dataclass(frozen=True, slots=True)
class _Seen:
    """Another's record, and when it was first seen on our own clock."""

    spec: _Spec
    since_s: float


class LeaderElection:
    """Gets the Lease, runs the work, keeps the Lease, gives it back. For one `run`."""

    def __init__(
        self,
        client: KubeClient,
        key: Key,
        *,
        identity: str,
        clock: Clock,
        rng: random.Random,
        durations: LeaseDurations | None = None,
    ) -> None:
        """`identity` must be unique to this process: host name and a random part."""
        if not identity:
            raise ValueError("the identity of a Lease's holder can't be empty: that means nobody")
        self._client = client
        self._key = key
        self._identity = identity
        self._clock = clock
        self._rng = rng
        self._durations = durations or LeaseDurations()
        self._body: dict[str, Any] | None = None  # the Lease as last read or written
        self._seen: _Seen | None = None
        self._renewed_s = 0.0
        self._may_hold = False  # a request was sent that takes the Lease
        self._trouble = ""
        self._log = log.bind(lease=str(key), identity=identity)
        self.notes: Mapping[str, str] = {}
        """Annotations for people, written with each renewal, for instance the version."""

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Wait for the Lease, then run `lead` while it is held. Returns when `lead` does.

        The Lease is released when `lead` ends, raises or is cancelled, not when it was lost. It is
        also released when this is cancelled while a request that takes it has no answer yet.

        Raises:
            LeaseLost: it could not be renewed in time, or another took it.
            ExceptionGroup: around what `lead` raised.
        """
        # No longer than a renewal may take: what is held then is not late already.
        try:
            while await self._attempt(self._durations.renew_deadline_s) is not Attempt.HELD:
                await self._clock.sleep(self._pause_s())
        except BaseException:
            if self._may_hold:
                self._body = None  # it is not known what was stored
                with anyio.CancelScope(shield=True):
                    await self._release()
            raise
        self._log.info("lease_acquired")
        lost = ""
        try:
            async with anyio.create_task_group() as group:

                async def keep() -> None:
                    nonlocal lost
                    lost = await self._renew_until_lost()
                    group.cancel_scope.cancel()

                group.start_soon(keep)
                await lead()
                group.cancel_scope.cancel()
        finally:
            if not lost:
                with anyio.CancelScope(shield=True):
                    await self._release()
        if lost:
            raise LeaseLost(f"Lease {self._key}: {lost}")

    def lease(self) -> ObjectRef:
        """The Lease that this process holds, as an Event names it."""
        metadata = self._body["metadata"] if self._body else {}
        return ObjectRef(
            api_version=LEASES.api_version,
            kind=LEASES.kind,
            namespace=self._key.namespace,
            name=self._key.name,
            uid=metadata.get("uid", ""),
        )

    async def _renew_until_lost(self) -> str:
        """Renew each retry period; returns why it can't go on, in time for the work to stop."""
        while True:
            give_up_s = self._renewed_s + self._durations.renew_deadline_s
            await self._clock.sleep(
                min(self._durations.retry_period_s, give_up_s - self._clock.monotonic())
            )
            left_s = give_up_s - self._clock.monotonic()
            if left_s <= 0:
                return f"not renewed for {self._durations.renew_deadline_s:g} s"
            if await self._attempt(left_s) is Attempt.HELD_BY_OTHER:
                return "taken by another"

    async def _attempt(self, deadline_s: float) -> Attempt:
        try:
            attempt = await within(self._clock, deadline_s, self._get_or_renew)
        except Forbidden as error:
            self._tell(
                "lease_forbidden",
                error,
                remedy="grant get, create and update on leases of coordination.k8s.io"
                f" in namespace {self._key.namespace}",
            )
        except (Conflict, AlreadyExists):
            self._body = None  # somebody was faster; look again at the next attempt
        except (ApiError, ApiSilent, TimeoutError, msgspec.DecodeError) as error:
            self._body = None  # a write may have happened
            self._tell("lease_request_failed", error)
        else:
            self._trouble = ""
            return attempt
        return Attempt.FAILED

    async def _get_or_renew(self) -> Attempt:
        if self._body is None:
            try:
                raw = await self._client.get(LEASES, self._key)
            except NotFound:
                return await self._create()
            self._body = msgspec.json.decode(raw)
        spec = msgspec.convert(self._body, _Lease).spec or _Spec()
        self._may_hold = False
        if spec.holder_identity == self._identity:
            return await self._write(self._body, spec)
        if self._is_free(spec):
            return await self._write(self._body, spec)
        self._body = None  # read afresh next time
        return Attempt.HELD_BY_OTHER

    def _is_free(self, spec: _Spec) -> bool:
        if not spec.holder_identity:
            return True
        now_s = self._clock.monotonic()
        if self._seen is None or self._seen.spec.holder_identity != spec.holder_identity:
            self._log.info("lease_held_by_other", holder=spec.holder_identity)
        if self._seen is None or self._seen.spec != spec:
            self._seen = _Seen(spec, now_s)
        # The holder's own duration: upstream's processes hold theirs for 150 s.
        lasts_s = max(float(spec.lease_duration_seconds or 0), self._durations.lease_s)
        return now_s - self._seen.since_s > lasts_s

    async def _create(self) -> Attempt:
        now = _micro_time(self._clock.wall())
        body = {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {
                "name": self._key.name,
                "namespace": self._key.namespace,
                "annotations": dict(self.notes),
            },
            "spec": self._spec(acquired=now, renewed=now, transitions=0),
        }
        sent_s = self._clock.monotonic()
        self._may_hold = True
        raw = await self._client.create(LEASES, body, namespace=self._key.namespace)
        return self._held(raw, sent_s)

    async def _write(self, body: dict[str, Any], spec: _Spec) -> Attempt:
        now = _micro_time(self._clock.wall())
        ours = spec.holder_identity == self._identity
        body["spec"] = {**(body.get("spec") or {})} | self._spec(
            acquired=(spec.acquire_time if ours else None) or now,
            renewed=now,
            transitions=(spec.lease_transitions or 0) + (0 if ours else 1),
        )
        metadata = body["metadata"]
        metadata["annotations"] = {**(metadata.get("annotations") or {}), **self.notes}
        sent_s = self._clock.monotonic()
        self._may_hold = True
        return self._held(await self._client.update(LEASES, body), sent_s)

    def _spec(self, *, acquired: str, renewed: str, transitions: int) -> dict[str, object]:
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, int(self._durations.lease_s)),
            "acquireTime": acquired,
            "renewTime": renewed,
            "leaseTransitions": transitions,
        }

    def _held(self, raw: bytes, sent_s: float) -> Attempt:
        # Counted from before it was sent: others count from after it was stored.
        self._renewed_s = sent_s
        self._body = msgspec.json.decode(raw)
        return Attempt.HELD

    async def _release(self) -> None:
        """Let the next one take over at once instead of after `lease_s`."""
        try:
            await within(self._clock, RELEASE_DEADLINE_S, self._give_back)
        except (ApiError, ApiSilent, TimeoutError, msgspec.DecodeError) as error:
            self._log.warning("lease_not_released", error=_cause(error))

    async def _give_back(self) -> None:
        for _ in range(2):
            body = self._body or msgspec.json.decode(await self._client.get(LEASES, self._key))
            if body["spec"].get("holderIdentity") != self._identity:
                return
            body["spec"] = {
                **body["spec"],
                "holderIdentity": "",
                "leaseDurationSeconds": 1,
                "renewTime": _micro_time(self._clock.wall()),
            }
            try:
                await self._client.update(LEASES, body)
            except Conflict:
                self._body = None  # a renewal was cancelled after it was stored: read it
            else:
                self._log.info("lease_released")
                return

    def _pause_s(self) -> float:
        return self._durations.retry_period_s * (1 + JITTER * self._rng.random())

    def _tell(self, event: str, error: Exception, **fields: str) -> None:
        """Log each kind of trouble once until an attempt goes well."""
        if self._trouble != event:
            self._log.error(event, error=_cause(error), **fields)
        self._trouble = event


def _micro_time(when: datetime) -> str:
    """The form of a metav1.MicroTime."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _cause(error: Exception) -> str:
    return str(error) or type(error).__name__
