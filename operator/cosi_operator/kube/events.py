"""Emits Kubernetes Events, which users see with `kubectl describe`.

Emitting never waits and never fails, because a separate task sends the Events. Rights: create and
update of core/v1 Events. Some drivers' roles lack update. After the first refusal of an update,
each repetition becomes a separate Event.

Three limits prevent a repeating failure from filling etcd:

- repetitions within SERIES_S become one Event with an increasing `count`;
- Events that have not been sent yet are merged;
- each object has a token bucket of 25 for each reason, refilled with one token every 300 s (as in
  client-go's spam filter). Suppressed Events are counted, and the next Event of the reason that is
  sent contains the count.

Failures are sent before successes. When the buffer is full, a failure replaces a success.
"""

import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import anyio
import msgspec
import structlog

from cosi_operator.api.core import EVENTS
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
    ServerError,
    TooManyRequests,
)
from cosi_operator.kube.store import identify
from cosi_operator.scrub import cut_bytes, escaped

log = structlog.get_logger(__name__)

# Enough for two Events about each of 4096 objects. An Event that does not fit is never sent.
BUFFER_LIMIT = 8192
REMEMBERED_LIMIT = 4096
# Lower than for failures, because a success rarely repeats. With the same limit, 10,000 claims that
# become ready together took 4 MiB.
REMEMBERED_SUCCESSES = 256
SERIES_S = 3600.0
BURST = 25.0
REFILL_S = 300.0
MESSAGE_LIMIT_BYTES = 1024
NAME_LIMIT = 253
TRIES = 3
RETRY_S = 5.0

type EventType = Literal["Normal", "Warning"]
type _SeriesKey = tuple[str, str, EventType, str, str]  # kind, uid, type, reason, fingerprint


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """The object that an Event is about; `namespace` is "" for cluster-scoped objects."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str
    resource_version: str = ""


@dataclass(slots=True)
class _Series:
    """The wanted content of one Event; `name` is "" until the Event was created."""

    about: ObjectRef
    type: EventType
    reason: str
    message: str
    first: datetime
    last: datetime
    last_s: float
    count: int = 0
    name: str = ""
    resource_version: str = ""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_s: float


@dataclass(slots=True)
class _LruMap[K, V]:
    """A map of at most `limit` entries that evicts the least recently used entry."""

    limit: int
    entries: OrderedDict[K, V] = field(default_factory=OrderedDict)

    def get(self, key: K) -> V | None:
        if key in self.entries:
            self.entries.move_to_end(key)
        return self.entries.get(key)

    def put(self, key: K, value: V) -> None:
        self.entries[key] = value
        self.entries.move_to_end(key)
        if len(self.entries) > self.limit:
            self.entries.popitem(last=False)


class EventRecorder:
    """Accepts Events at any time and sends them while `run` runs.

    `component` is the name of the program, `instance` of the replica. `dropped` counts the Events
    that were suppressed by a limit, refused, or not deliverable.
    """

    def __init__(self, client: KubeClient, *, component: str, instance: str, clock: Clock) -> None:
        self.dropped = 0
        self._client = client
        self._component = component
        self._instance = instance
        self._clock = clock
        self._series: _LruMap[_SeriesKey, _Series] = _LruMap(REMEMBERED_LIMIT)
        self._successes: _LruMap[_SeriesKey, _Series] = _LruMap(REMEMBERED_SUCCESSES)
        self._buckets: _LruMap[tuple[str, str, str], _Bucket] = _LruMap(REMEMBERED_LIMIT)
        self._waiting: dict[EventType, OrderedDict[_SeriesKey, _Series]] = {
            "Warning": OrderedDict(),
            "Normal": OrderedDict(),
        }
        self._sending = False
        self._may_update = True
        self._more = anyio.Event()
        self._progress = anyio.Event()

    def emit(
        self,
        about: ObjectRef,
        *,
        type: EventType,  # noqa: A002 - the field's name in the API
        reason: str,
        message: str,
        fingerprint: str = "",
    ) -> None:
        """Queue an Event; never blocks, never raises.

        Events with the same `fingerprint` are repetitions. Pass one if the message changes each
        time, for example if it contains a request id. The default is the message. The Event shows
        the latest message.
        """
        # Shorten the message now, because it is held until it is sent.
        message = escaped(cut_bytes(message, MESSAGE_LIMIT_BYTES))
        now, now_s = self._clock.wall(), self._clock.monotonic()
        key = (*_identity(about), type, reason, fingerprint or message)
        waiting = self._waiting[type]
        # A waiting Event is merged however old it is.
        series = waiting.get(key) or self._recent(key, now_s)
        if series is None:
            series = _Series(about, type, reason, message, first=now, last=now, last_s=now_s)
            self._memory_of(key).put(key, series)
        series.about, series.message = about, message
        series.last, series.last_s = now, now_s
        series.count += 1
        if key in waiting:
            return  # merged into the waiting Event
        if not self._take_token(about, reason, now_s) or not self._has_room(type):
            self.dropped += 1
            return
        waiting[key] = series
        self._more.set()

    async def deliver(
        self,
        about: ObjectRef,
        *,
        type: EventType,  # noqa: A002 - the field's name in the API
        reason: str,
        message: str,
    ) -> bool:
        """Store an Event now, without any limit, because its content is stored nowhere else.

        Returns:
            Whether it is stored; False, for example, in a namespace that is being deleted.
        Raises:
            ApiSilent, ServerError, TooManyRequests: it may not be stored; repeat this call.
        """
        now, now_s = self._clock.wall(), self._clock.monotonic()
        message = escaped(cut_bytes(message, MESSAGE_LIMIT_BYTES))
        try:
            await self._write(_Series(about, type, reason, message, now, now, now_s, count=1))
        except (ServerError, TooManyRequests):
            raise
        except ApiError:
            return False
        return True

    async def run(self) -> None:
        """Send emitted Events until cancelled."""
        while True:
            while not (waiting := self._waiting["Warning"] or self._waiting["Normal"]):
                self._more = anyio.Event()
                await self._more.wait()
            _, series = waiting.popitem(last=False)
            self._sending = True
            await self._send(series)
            self._sending = False
            self._progress.set()
            self._progress = anyio.Event()

    async def drain(self, timeout_s: float) -> bool:
        """Wait at most `timeout_s` until all Events are sent; return whether they were.

        `run` must still be running.
        """
        try:
            await within(self._clock, timeout_s, self._wait_until_idle)
        except TimeoutError:
            return False
        return True

    async def _wait_until_idle(self) -> None:
        while any(self._waiting.values()) or self._sending:
            await self._progress.wait()

    def _recent(self, key: _SeriesKey, now_s: float) -> _Series | None:
        series = self._memory_of(key).get(key)
        return series if series is not None and now_s - series.last_s <= SERIES_S else None

    def _has_room(self, type: EventType) -> bool:  # noqa: A002
        """Whether the buffer has room; if not, a failure replaces the oldest success."""
        failures, successes = self._waiting["Warning"], self._waiting["Normal"]
        if len(failures) + len(successes) < BUFFER_LIMIT:
            return True
        if type == "Normal" or not successes:
            return False
        successes.popitem(last=False)
        self.dropped += 1
        return True

    def _memory_of(self, key: _SeriesKey) -> _LruMap[_SeriesKey, _Series]:
        return self._successes if key[2] == "Normal" else self._series

    def _take_token(self, about: ObjectRef, reason: str, now_s: float) -> bool:
        # One bucket for each reason, because a tenant can cause some Events again and again.
        key = (*_identity(about), reason)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = _Bucket(BURST, now_s)
            self._buckets.put(key, bucket)
        bucket.tokens = min(BURST, bucket.tokens + (now_s - bucket.filled_s) / REFILL_S)
        bucket.filled_s = now_s
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    async def _send(self, series: _Series) -> None:
        problem: Exception | None = None
        if not self._may_update:
            series.name = series.resource_version = ""
        for attempt in range(TRIES):
            if attempt and isinstance(problem, ApiSilent | ServerError | TooManyRequests):
                await self._clock.sleep(RETRY_S)
            try:
                await self._write(series)
            except AlreadyExists:
                series.name = (
                    ""  # created, but the reply was lost; the next repetition is a new Event
                )
                return
            except (ApiSilent, ServerError, TooManyRequests) as error:
                problem = error
            except (NotFound, Conflict) as error:
                if not series.resource_version:
                    problem = error  # the namespace does not exist
                    break
                # The server deletes Events after about an hour, and other clients may edit them.
                # Create a new one.
                series.name = series.resource_version = ""
            except Forbidden as error:
                if not series.resource_version:
                    problem = error
                    break
                self._may_update = False
                series.name = series.resource_version = ""
            except ApiError as error:  # the namespace is being deleted
                problem = error
                break
            else:
                return
        self.dropped += 1
        log.debug(
            "event_dropped", reason=series.reason, about=series.about.name, error=str(problem)
        )

    async def _write(self, series: _Series) -> None:
        if series.resource_version:
            raw = await self._client.update(EVENTS, self._body(series))
        else:
            if not series.name:
                suffix = secrets.token_hex(8)
                # A DNS name that was shortened must not end in a dot or dash.
                stem = series.about.name[: NAME_LIMIT - 17].rstrip(".-")
                series.name = f"{stem}.{suffix}"
            body = self._body(series)
            raw = await self._client.create(EVENTS, body, namespace=_namespace(series.about))
        try:
            series.resource_version = identify(raw).resource_version
        except msgspec.DecodeError:  # accepted, but unreadable; a repetition becomes a new Event
            series.name = series.resource_version = ""

    def _body(self, series: _Series) -> dict[str, Any]:
        about = series.about
        metadata = {"name": series.name, "namespace": _namespace(about)}
        if series.resource_version:
            metadata["resourceVersion"] = series.resource_version
        involved = {
            "apiVersion": about.api_version,
            "kind": about.kind,
            "namespace": about.namespace,
            "name": about.name,
            "uid": about.uid,
            "resourceVersion": about.resource_version,
        }
        return {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": metadata,
            "involvedObject": {name: value for name, value in involved.items() if value},
            "type": series.type,
            "reason": series.reason,
            "message": cut_bytes(series.message, MESSAGE_LIMIT_BYTES),
            "count": series.count,
            "firstTimestamp": _time(series.first),
            "lastTimestamp": _time(series.last),
            "source": {"component": self._component, "host": self._instance},
            "reportingComponent": self._component,
            "reportingInstance": self._instance,
        }


def _identity(about: ObjectRef) -> tuple[str, str]:
    return about.kind, about.uid or f"{about.namespace}/{about.name}"


def _namespace(about: ObjectRef) -> str:
    return about.namespace or "default"


def _time(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")
