"""The bare limit: one client that sends what a claim costs, and nothing else.

The requests of our controller and sidecar for one claim, until it is ready and until it is gone,
are read from an audit log with bodies. Then they are sent for many claims, 40 at a time, with the
libraries that the product uses: no logic, no watch, no driver. What a pair reaches is compared with
this, since a machine's speed changes within the hour.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPMethod
from typing import Self

import msgspec
from msgspec import Struct, field

from bench.counting import AUDIT_LAG_S
from bench.load import Load, run
from bench.procs import measured
from bench.scenarios import gone, ready
from bench.turns import Turn
from bench.world import OURS, World, world
from controlplane import Audit, AuditEntry

AT_ONCE = 40
MODEL = "recorded-claim"
METHODS = {"create": HTTPMethod.POST, "update": HTTPMethod.PUT, "delete": HTTPMethod.DELETE}


class _Meta(Struct, rename="camel"):
    uid: str = ""
    resource_version: str = ""


class _Reply(Struct):
    metadata: _Meta = field(default_factory=_Meta)


_decode = msgspec.json.Decoder(_Reply).decode
_VERSION = '"resourceVersion":"%s"'


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it was sent for the claim `MODEL`."""

    method: HTTPMethod
    path: str
    body: str
    """JSON text; empty when nothing was sent."""
    version: str
    """The resourceVersion in the body; empty where it has none."""
    name: str
    """Of the object."""

    @classmethod
    def of(cls, entry: AuditEntry) -> Self:
        """Read it from an audit log with bodies."""
        if entry.body is None:
            return cls(METHODS[entry.verb], entry.uri, "", "", entry.name)
        sent = dict(entry.body)
        if sent.get("kind") == "DeleteOptions":
            sent["apiVersion"] = "v1"  # the log has the name of the server's own type
        named = sent.get("preconditions") or sent["metadata"]
        body = json.dumps(sent, separators=(",", ":"))
        version = named.get("resourceVersion", "")
        return cls(METHODS[entry.verb], entry.uri, body, version, entry.name)


@dataclass(frozen=True, slots=True)
class Story:
    """What one claim costs: the requests until it is ready, and those until it is gone."""

    made: tuple[Request, ...]
    deleted: tuple[Request, ...]
    claim: str
    bucket: str
    """The UIDs of the recorded claim and of its Bucket."""


def record(found: World) -> Story:
    """Run ours for one claim and read what was asked. The world's audit log must have bodies."""
    made = _writes(found, lambda: ready(found, [MODEL]))
    [claim] = found.bed.all_of("bucketclaims")
    [bucket] = found.bed.all_of("buckets")
    deleted = _writes(found, lambda: gone(found, [MODEL]))
    return Story(made, deleted, claim["metadata"]["uid"], bucket["metadata"]["uid"])


def _writes(found: World, act: Callable[[], object]) -> tuple[Request, ...]:
    """All writes that follow from an act, the user's too, in the order in which they came."""
    found.until_idle()
    since = found.bed.plane.audit.mark()
    act()
    found.until_idle()
    time.sleep(AUDIT_LAG_S)
    entries = found.bed.plane.audit.entries(
        since=since, where=lambda entry: entry.is_write and entry.resource != "leases"
    )
    return tuple(map(Request.of, sorted(entries, key=lambda entry: entry.received_at)))


class _Claim:
    """One claim for which the story is told: its UIDs, and the newest version of each object."""

    def __init__(self, story: Story, name: str) -> None:
        self._story = story
        self._words = {MODEL: name}
        self._versions: dict[str, str] = {}

    async def make(self, load: Load) -> None:
        """All until it is ready. The first object made is the claim, the second the Bucket."""
        uids = [self._story.claim, self._story.bucket]
        for request in self._story.made:
            reply = await self._send(load, request)
            if uids and request.method is HTTPMethod.POST:
                self._words[uids.pop(0)] = reply.uid

    async def delete(self, load: Load) -> None:
        """All until it is gone."""
        for request in self._story.deleted:
            await self._send(load, request)

    async def _send(self, load: Load, request: Request) -> _Meta:
        path, body = self._told(request.path), self._told(request.body)
        target = path.removesuffix("/status")
        if request.version:
            old, new = (_VERSION % v for v in (request.version, self._versions[target]))
            body = body.replace(old, new)
        reply = _decode(await load.send(request.method, path, body.encode() or None)).metadata
        if request.method is HTTPMethod.POST:
            target += f"/{self._told(request.name)}"
        self._versions[target] = reply.resource_version
        return reply

    def _told(self, text: str) -> str:
        for recorded, own in self._words.items():
            text = text.replace(recorded, own)
        return text


def tell(found: World, story: Story, count: int) -> Turn:
    """Tell the story for so many claims, made and then deleted; nothing of ours may run."""
    claims = [_Claim(story, f"limit-{number}") for number in range(count)]

    async def work(load: Load) -> tuple[float, float]:
        marks = [time.perf_counter()]
        for act in (_Claim.make, _Claim.delete):
            await load.for_each(claims, partial(act, load=load), AT_ONCE)
            marks.append(time.perf_counter())
        return marks[1] - marks[0], marks[2] - marks[1]

    with measured(found.pids()) as used:
        made_s, deleted_s = run(found.bed.plane, work)
    return Turn(round(count / made_s, 1), round(count / deleted_s, 1), used.others_percent)


def story() -> Story:
    """The story of the sources as they are; takes about 15 s."""
    with world(OURS, audit=Audit.BODIES) as found:
        found.start()
        return record(found)


def measure(story: Story, count: int) -> Turn:
    """How fast a new API server takes the story for so many claims."""
    with world(OURS) as found:
        return tell(found, story, count)
