"""Leader election with one Lease: at most one process leads if clocks advance at the same rate.

Guaranteed: `lead` runs only while this process holds the Lease. It is cancelled `renew_deadline_s`
after the last successful renewal was sent. Another process may acquire the Lease only `lease_s`
after it saw that renewal, which is later. The time of day is not used, because each process
measures intervals on its own monotonic clock. So clocks may differ by years, but one clock must not
run faster than lease_s/renew_deadline_s (1.5) times another.

Not guaranteed: fencing. If a process is suspended for longer than `lease_s`, its request may still
be in flight when it resumes, while another process already leads. So every effect must be safe with
two leaders for a short time: writes are conditional and driver calls are idempotent.

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


class LeaseLost(Exception):  # noqa: N818 - a state, not a defect
    """This process is no longer the leader and `lead` was cancelled. The process should exit."""


class Attempt(enum.Enum):
    """The result of one attempt to acquire or renew the Lease."""

    HELD = "held"
    HELD_BY_OTHER = "held by another"
    FAILED = "failed"  # no usable reply, or a conflicting write, so the holder is unknown


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
    """The Lease's spec as another holder wrote it; `since_s` is the monotonic time of that read."""

    spec: _Spec
    since_s: float


class LeaderElection:
    """Acquires the Lease, renews it while the work runs, and releases it. For one `run` only."""

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
        """`identity` must be unique to this process: the host name and a random part."""
        if not identity:
            raise ValueError("identity must not be empty: an empty holder means a free Lease")
        self._client = client
        self._key = key
        self._identity = identity
        self._clock = clock
        self._rng = rng
        self._durations = durations or LeaseDurations()
        self._body: dict[str, Any] | None = None  # the Lease as last read or written
        self._seen: _Seen | None = None
        self._renewed_s = 0.0
        self._may_hold = False  # a request to acquire the Lease was sent and may have succeeded
        self._logged = ""  # the event of the last logged failure; "" after a success
        self._log = log.bind(lease=str(key), identity=identity)
        self.notes: Mapping[str, str] = {}
        """Annotations for people, written with each renewal, for instance the version."""
        self.on_standby: Callable[[], None] = lambda: None
        """Called after each attempt before leading that found another holder."""

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Wait for the Lease, then run `lead` while it is held. Returns when `lead` returns.

        The Lease is released when `lead` ends, raises or is cancelled, but not when it was lost. It
        is also released if `run` is cancelled before the reply to a request that acquires it.

        Raises:
            LeaseLost: the Lease was not renewed in time, or another process acquired it.
            ExceptionGroup: contains the error that `lead` raised.
        """
        # Acquiring has the deadline of a renewal, so that the Lease is not overdue when acquired.
        try:
            while (found := await self._attempt(self._durations.renew_deadline_s)) != Attempt.HELD:
                if found is Attempt.HELD_BY_OTHER:
                    self.on_standby()
                await self._clock.sleep(self._pause_s())
        except BaseException:
            if self._may_hold:
                self._body = None  # the stored Lease is unknown
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
        """A reference to the Lease that this process holds, for an Event."""
        metadata = self._body["metadata"] if self._body else {}
        return ObjectRef(
            api_version=LEASES.api_version,
            kind=LEASES.kind,
            namespace=self._key.namespace,
            name=self._key.name,
            uid=metadata.get("uid", ""),
        )

    async def _renew_until_lost(self) -> str:
        """Renew every retry period; return why the Lease was lost, before it expires."""
        while True:
            give_up_s = self._renewed_s + self._durations.renew_deadline_s
            await self._clock.sleep(
                min(self._durations.retry_period_s, give_up_s - self._clock.monotonic())
            )
            left_s = give_up_s - self._clock.monotonic()
            if left_s <= 0:
                return f"not renewed for {self._durations.renew_deadline_s:g} s"
            if await self._attempt(left_s) is Attempt.HELD_BY_OTHER:
                return "acquired by another process"

    async def _attempt(self, deadline_s: float) -> Attempt:
        try:
            attempt = await within(self._clock, deadline_s, self._get_or_renew)
        except Forbidden as error:
            self._log_once(
                "lease_forbidden",
                error,
                remedy="grant get, create and update on leases of coordination.k8s.io"
                f" in namespace {self._key.namespace}",
            )
        except (Conflict, AlreadyExists):
            self._body = None  # another process wrote first; the next attempt reads the Lease
        except (ApiError, ApiSilent, TimeoutError, msgspec.DecodeError) as error:
            self._body = None  # a write may have happened
            self._log_once("lease_request_failed", error)
        else:
            self._logged = ""
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
        self._body = None  # the next attempt reads the Lease again
        return Attempt.HELD_BY_OTHER

    def _is_free(self, spec: _Spec) -> bool:
        if not spec.holder_identity:
            return True
        now_s = self._clock.monotonic()
        if self._seen is None or self._seen.spec.holder_identity != spec.holder_identity:
            self._log.info("lease_held_by_other", holder=spec.holder_identity)
        if self._seen is None or self._seen.spec != spec:
            self._seen = _Seen(spec, now_s)
        # Respect the holder's own duration, because upstream's processes use 150 s.
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
        # Count from before the request was sent. Other processes count from when they read it,
        # which is always later.
        self._renewed_s = sent_s
        self._body = msgspec.json.decode(raw)
        return Attempt.HELD

    async def _release(self) -> None:
        """Release the Lease, so that another process can acquire it before `lease_s` has passed."""
        try:
            await within(self._clock, RELEASE_DEADLINE_S, self._clear_holder)
        except (ApiError, ApiSilent, TimeoutError, msgspec.DecodeError) as error:
            self._log.warning("lease_not_released", error=_cause(error))

    async def _clear_holder(self) -> None:
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
                self._body = None  # a renewal was stored before it was cancelled, so read again
            else:
                self._log.info("lease_released")
                return

    def _pause_s(self) -> float:
        return self._durations.retry_period_s * (1 + JITTER * self._rng.random())

    def _log_once(self, event: str, error: Exception, **fields: str) -> None:
        """Log each kind of failure once until an attempt succeeds."""
        if self._logged != event:
            self._log.error(event, error=_cause(error), **fields)
        self._logged = event


def _micro_time(when: datetime) -> str:
    """Format a time as a metav1.MicroTime."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _cause(error: Exception) -> str:
    return str(error) or type(error).__name__
