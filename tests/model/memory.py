"""An API server in memory at the boundary of `KubeClient`: what the real one promises, no wire.

Generations, finalizers, deletion in two steps, preconditions, the status subresource, dry runs and
refusals are those of the real server. With `upstream`, the served schema drops the status fields
that only this project's CRDs have.
"""

import base64
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from cosi_operator.api.core import SECRETS
from cosi_operator.api.resources import BUCKET_ACCESSES, BUCKET_CLAIMS, BUCKETS
from cosi_operator.api.view import Key, Resource
from cosi_operator.kube.errors import AlreadyExists, Conflict, Invalid, NotFound

type Json = dict[str, Any]
type Listener = Callable[[Resource, str, Json], None]

WITH_STATUS = {r.plural for r in (BUCKETS, BUCKET_CLAIMS, BUCKET_ACCESSES)}
OURS_ALONE = ("conditions", "observedGeneration", "lastCall")
IMMUTABLE = ("uid", "generation", "deletionTimestamp", "creationTimestamp")


def copy(body: Mapping[str, Any]) -> Json:
    decoded: Json = msgspec.json.decode(msgspec.json.encode(body))
    return decoded


class MemoryApi:
    """The server. `listeners` hear of every change, in order, as a watch would."""

    def __init__(self, now: Callable[[], datetime], *, upstream: bool = False) -> None:
        self._now = now
        self.objects: dict[tuple[str, Key], Json] = {}
        self.version = 100
        self.listeners: list[Listener] = []
        self.refused_secrets: set[str] = set()
        self.upstream = upstream
        self._born: Counter[tuple[str, Key]] = Counter()

    def find(self, resource: Resource, key: Key) -> Json | None:
        return self.objects.get((resource.plural, key))

    def list(self, resource: Resource) -> list[Json]:
        return [body for (plural, _), body in self.objects.items() if plural == resource.plural]

    def get(self, resource: Resource, key: Key) -> Json:
        if (held := self.find(resource, key)) is None:
            raise NotFound(404, "NotFound", f"{resource.plural} {key}")
        return held

    def create(self, resource: Resource, body: Json, *, dry_run: bool = False) -> Json:
        meta = body["metadata"]
        key = Key(meta.get("namespace", ""), meta["name"])
        if resource is SECRETS and key.name in self.refused_secrets:
            raise Invalid(422, "Invalid", "the quota is used up")
        if (resource.plural, key) in self.objects:
            raise AlreadyExists(409, "AlreadyExists", f"{resource.plural} {key}")
        stored = copy(body)
        if dry_run:
            return stored
        self._born[resource.plural, key] += 1
        count = self._born[resource.plural, key]
        space = "" if key.namespace in ("", "team") else f"{key.namespace}-"
        stored["metadata"] |= {
            "uid": f"{resource.kind.lower()}-{space}{key.name}-{count}",
            "creationTimestamp": self._now().strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        if resource is SECRETS:
            plain = stored.pop("stringData", {})
            stored["data"] = {k: base64.b64encode(v.encode()).decode() for k, v in plain.items()}
        else:
            stored["metadata"]["generation"] = 1
        if resource.plural in WITH_STATUS:
            stored.pop("status", None)
        return self._store(resource, key, stored, "ADDED")

    def update(self, resource: Resource, body: Json, *, subresource: str = "") -> Json:
        meta = body["metadata"]
        key = Key(meta.get("namespace", ""), meta["name"])
        held = self.get(resource, key)
        for name in ("uid", "resourceVersion"):
            if meta.get(name, held["metadata"][name]) != held["metadata"][name]:
                raise Conflict(409, "Conflict", f"{resource.plural} {key} has been modified")
        after = self._with_status(held, body) if subresource else self._with_spec(held, body)
        if after == held:
            return held
        if after["metadata"].get("deletionTimestamp") and not after["metadata"].get("finalizers"):
            return self._remove(resource, key, after)
        return self._store(resource, key, after, "MODIFIED")

    def delete(
        self, resource: Resource, key: Key, *, uid: str = "", resource_version: str | None = None
    ) -> Json:
        held = self.get(resource, key)
        wanted = {"uid": uid or None, "resourceVersion": resource_version}
        if any(value not in (None, held["metadata"][name]) for name, value in wanted.items()):
            raise Conflict(409, "Conflict", f"{resource.plural} {key} is another one")
        if not held["metadata"].get("finalizers"):
            self._remove(resource, key, held)
            return {"kind": "Status", "status": "Success"}
        if not held["metadata"].get("deletionTimestamp"):
            after = copy(held)
            after["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            if "generation" in after["metadata"]:
                after["metadata"]["generation"] += 1
            return self._store(resource, key, after, "MODIFIED")
        return held

    def _with_status(self, held: Json, body: Json) -> Json:
        status = copy(body.get("status") or {})
        if self.upstream:
            status = {name: v for name, v in status.items() if name not in OURS_ALONE}
        return {**copy(held), "status": status}

    def _with_spec(self, held: Json, body: Json) -> Json:
        after = copy(body)
        for name in IMMUTABLE:
            after["metadata"].pop(name, None)
            if name in held["metadata"]:
                after["metadata"][name] = held["metadata"][name]
        after["metadata"]["resourceVersion"] = held["metadata"]["resourceVersion"]
        after.pop("status", None)
        if "status" in held:
            after["status"] = copy(held["status"])
        added = set(after["metadata"].get("finalizers") or ()) - set(
            held["metadata"].get("finalizers") or ()
        )
        if added and held["metadata"].get("deletionTimestamp"):
            raise Invalid(422, "Invalid", "no new finalizers while the object is being deleted")
        spec, old = (
            {k: v for k, v in b.items() if k not in ("metadata", "status")} for b in (after, held)
        )
        if spec != old and "generation" in after["metadata"]:
            after["metadata"]["generation"] += 1
        return after

    def _store(self, resource: Resource, key: Key, body: Json, kind: str) -> Json:
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        self.objects[resource.plural, key] = body
        self._tell(resource, kind, body)
        return body

    def _remove(self, resource: Resource, key: Key, body: Json) -> Json:
        self.version += 1
        gone = copy(body)
        gone["metadata"]["resourceVersion"] = str(self.version)
        del self.objects[resource.plural, key]
        self._tell(resource, "DELETED", gone)
        return gone

    def _tell(self, resource: Resource, kind: str, body: Json) -> None:
        for listener in list(self.listeners):
            listener(resource, kind, body)
