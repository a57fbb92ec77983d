"""A cluster, a driver, both processes and time, in memory; checked after every step.

`violations` collects what must never happen, in words. Users act through `user_*`; faults are
raised at the points where runs wait (see `pause`).
"""

import base64
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests import invariants
from tests.model.backend import Backend, Called
from tests.model.memory import Json, MemoryApi
from tests.model.pause import Point
from tests.model.processes import (
    DRIVER,
    EmittedEvent,
    Parts,
    Run,
    Running,
    Sent,
    start_controller,
    start_sidecar,
)
from tests.support.clock import FakeClock

from cosi_operator.api.core import SECRETS
from cosi_operator.api.record import RECORD_ANNOTATION, BucketRecord, decode_record
from cosi_operator.api.resources import (
    BUCKET_ACCESS_CLASSES,
    BUCKET_ACCESSES,
    BUCKET_CLAIMS,
    BUCKET_CLASSES,
    BUCKETS,
)
from cosi_operator.api.view import Key, Resource
from cosi_operator.outcome import Call, Reason
from cosi_operator.plan import names

NAMESPACE = "team"
# Far above any scenario; reaching it means that two writers undo each other.
STEP_LIMIT = 20_000
RUN_LIMIT = 10_000


@dataclass
class World:
    seed: int = 0
    upstream: bool = False
    recheck_s: float | None = None
    deletion_recheck_s: float | None = 600.0
    violations: list[str] = field(default_factory=list)
    # Asked at each point where a run waits; may crash a process, or return a fault to raise there.
    at_point: Callable[[Running, Run, Point], Exception | None] = field(
        default=lambda running, run, point: None
    )

    def __post_init__(self) -> None:
        self.clock = FakeClock()
        self.api = MemoryApi(self.clock.wall, upstream=self.upstream)
        self.backend = Backend(watch=self._driver_called)
        self.parts = Parts(
            self.api,
            self.backend,
            self.clock,
            random.Random(self.seed),
            recheck_s=self.recheck_s,
            deletion_recheck_s=self.deletion_recheck_s,
        )
        self.instance = 1
        self.up = True
        self._before: dict[tuple[str, str], Json] = {}
        self.api.listeners.append(self._changed)
        self.processes: dict[str, Running] = {}
        self.start("controller")
        self.start("sidecar")

    # --- processes

    def start(self, name: str) -> None:
        if name == "controller":
            self.processes[name] = start_controller(self.parts)
        else:
            self.processes[name] = start_sidecar(
                self.parts, instance=f"d-{self.instance}", up=self.up
            )

    def restart(self, name: str) -> None:
        self.processes[name].end()
        if name == "sidecar":
            self.backend.sidecar_killed()
        self.start(name)

    def driver_goes(self) -> None:
        self.up = self.processes["sidecar"].state.up = False

    def driver_comes(self, *, new: bool = True) -> None:
        sidecar = self.processes["sidecar"]
        self.instance += new
        sidecar.state.instance, sidecar.state.up = f"d-{self.instance}", True
        self.up = True
        sidecar.returned()

    # --- time

    def run_until_idle(self, limit_s: float = 7200.0, *, only: str = "") -> None:
        """Work, and let time pass while something is delayed, `limit_s` seconds at most.

        `only`: the other process gets no turn.
        """
        working = [only] if only else list(self.processes)
        end = self.clock.monotonic() + limit_s
        pace_s = 1.0
        for _ in range(STEP_LIMIT):
            if self._work(working):
                pace_s = 1.0
            elif self.clock.monotonic() >= end or not any(
                self.processes[name].is_delayed() for name in working
            ):
                return
            else:
                self.clock.advance(min(pace_s, end - self.clock.monotonic()))
                pace_s = min(60.0, pace_s * 2)
        raise AssertionError("writes never stop: " + str(self.parts.sent[-20:]))

    def _work(self, working: list[str]) -> bool:
        worked = False
        for name in working:
            worked |= self.processes[name].deliver()
            running, runs = self.processes[name], 0
            while (run := running.take()) is not None:
                worked, runs = True, runs + 1
                if runs > RUN_LIMIT:
                    last = running.outcomes[-4:]
                    raise AssertionError(f"runs never stop: {last} {self.parts.sent[-8:]}")
                self.finish(running, run)
                running = self.processes[name]  # it may be another one after a crash
        return worked

    def finish(self, running: Running, run: Run) -> None:
        """Step one run to its end, or to the crash of its process."""
        fault = None
        while running.step(run, fault):
            assert run.point is not None
            fault = self.at_point(running, run, run.point)
            if self.processes[running.name] is not running:
                return

    # --- users

    def user_creates(self, resource: Resource, name: str, **fields: Any) -> None:
        metadata = {"name": name}
        if resource.namespaced:
            metadata["namespace"] = NAMESPACE
        body = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}
        self.api.create(resource, {**body, **fields})

    def user_edits(self, resource: Resource, name: str, edit: Callable[[Json], None]) -> None:
        body = json.loads(json.dumps(self.found(resource, name)))
        edit(body)
        self.api.update(resource, body)

    def user_deletes(self, resource: Resource, name: str) -> None:
        if self.find(resource, name):
            self.api.delete(resource, key(resource, name))

    def user_retries(self, resource: Resource, name: str, token: str) -> None:
        def annotate(body: Json) -> None:
            annotations = body["metadata"].setdefault("annotations", {})
            annotations[names.RETRY_ANNOTATION] = token

        self.user_edits(resource, name, annotate)

    def find(self, resource: Resource, name: str) -> Json | None:
        return self.api.find(resource, key(resource, name))

    def found(self, resource: Resource, name: str) -> Json:
        body = self.find(resource, name)
        assert body is not None, f"{resource.plural} {name} is not there"
        return body

    # --- what is seen

    def ready(self, resource: Resource, name: str) -> tuple[str, str]:
        """Status and reason of the Ready condition."""
        status = self.found(resource, name).get("status") or {}
        found = [c for c in status.get("conditions") or [] if c["type"] == "Ready"]
        return (found[0]["status"], found[0]["reason"]) if found else ("", "")

    @property
    def sent(self) -> list[Sent]:
        return self.parts.sent

    def writes(self) -> int:
        return sum(1 for sent in self.parts.sent if sent.is_write)

    def snapshot(self) -> dict[str, Any]:
        """All that has to be the same after any fault.

        Without times, versions and what a failure says.
        """
        seen: dict[str, Any] = {
            f"{plural} {key}": _essence(plural, body)
            for (plural, key), body in self.api.objects.items()
        }
        seen["buckets on the backend"] = dict(sorted(self.backend.buckets.items()))
        seen["accounts on the backend"] = sorted(self.backend.accounts)
        return seen

    def check_settled(self) -> list[str]:
        """What is wrong now that nothing goes on any more."""
        found = list(self.violations)
        # Only the data of a Bucket that was removed by force can be told no earlier.
        found += [
            f"an Event after its object is gone: {told}"
            for told in self.parts.told_too_late
            if (told.about.kind, told.reason) != ("Bucket", Reason.BACKEND_UNVERIFIED)
        ]
        for resource in (BUCKET_CLAIMS, BUCKETS, BUCKET_ACCESSES):
            for body in self.api.list(resource):
                if self.upstream or self._driver_of(body) != DRIVER:
                    continue  # the sidecar of another driver, which is not here, reports on it
                if not body["metadata"].get("deletionTimestamp"):
                    found += invariants.status_violations(body, settled=True)
                elif _waits_silently(body):
                    found.append(f"{resource.kind} {body['metadata']['name']} waits silently")
        for body in self.api.list(SECRETS):
            works = keys_in(body) in self.backend.live_keys()
            if keys_in(body) and not works and self.is_owned(body):
                found.append(f"Secret {body['metadata']['name']} holds a key that does not work")
        return found + self._grants_of_others()

    def _grants_of_others(self) -> list[str]:
        """The Secrets whose keys are not of the Grant in the record, and nothing will change it."""
        found = []
        for bucket in self.api.list(BUCKETS):
            record = record_of(bucket)
            for entry in record.accesses.values() if record else ():
                secret = self.api.find(SECRETS, Key(entry.namespace, entry.secret))
                annotations = (secret and secret["metadata"].get("annotations")) or {}
                grant = annotations.get(names.GRANT_ANNOTATION)
                if grant and entry.grant and grant != entry.grant and not entry.minted:
                    found.append(f"Secret {entry.secret} has the keys of Grant {grant}: {entry}")
        return found

    def _driver_of(self, body: Json) -> str:
        """The driver of a Bucket, or of an access that says it was granted on its claim's."""
        granted = body.get("status", {}).get("accessGranted")
        if granted and not body["metadata"].get("deletionTimestamp"):
            space = body["metadata"]["namespace"]
            claim = self.api.find(BUCKET_CLAIMS, Key(space, body["spec"]["bucketClaimName"]))
            found = claim and self.find(BUCKETS, names.bucket_name(claim["metadata"]["uid"]))
            body = found or body
        driver: str = body["spec"].get("driverName", DRIVER)
        return driver

    def is_too_late(self, told: EmittedEvent) -> bool:
        """A Bucket that was removed by force is gone when its data are told."""
        return (told.about.kind, told.reason) != ("Bucket", "BackendUnverified")

    def is_owned(self, secret: Json) -> bool:
        """Whether the Secret is an access's own; a restored one is left to whoever restored it."""
        return True

    # --- what is checked at each step

    def _changed(self, resource: Resource, kind: str, body: Json) -> None:
        if resource.kind not in invariants.READY_FIELDS:
            return
        identity = (resource.plural, body["metadata"]["uid"])
        before = self._before.get(identity)
        self._before[identity] = body
        if resource is BUCKETS and (record := record_of(body)):
            self.backend.recorded.update(*(e.accounts for e in record.accesses.values()))
        if kind == "DELETED" or self.upstream:
            return
        self.violations += invariants.status_violations(body)
        if before is not None:
            self.violations += invariants.transition_violations(before, body)

    def _driver_called(self, called: Called) -> None:
        wrong = self.violations.append
        if not called.name:
            wrong(f"{called.call} with an empty name or id")
        if called.call is Call.CREATE_BUCKET:
            bucket = self.find(BUCKETS, called.name)
            if not _holds(bucket, names.BUCKET_FINALIZER):
                wrong(f"{called.call} for {called.name} without our finalizer")
            return
        if not called.bucket_id:
            wrong(f"{called.call} with an empty bucket id")
        buckets = [b for b in self.api.list(BUCKETS) if _id_of(b) in ("", called.bucket_id)]
        if called.call is Call.DELETE_BUCKET:
            if not any(_holds(b, names.BUCKET_FINALIZER) and _is_going(b) for b in buckets):
                wrong(f"{called.call} of {called.bucket_id}, which nobody deletes")
            return
        self._access_called(called)

    def _access_called(self, called: Called) -> None:
        wrong = self.violations.append
        wanted = [
            access
            for access in self.api.list(BUCKET_ACCESSES)
            if names.account_name(access["metadata"]["uid"]) in called.name
        ]
        if not any(_holds(access, names.ACCESS_FINALIZER) for access in wanted):
            wrong(f"{called.call} for {called.name} without our finalizer on the access")
        if called.call is Call.GRANT_ACCESS:
            marked = [b for b in self.api.list(BUCKETS) if _id_of(b) == called.bucket_id]
            if not any(_holds(b, names.BUCKET_ACCESS_FINALIZER) for b in marked):
                wrong(f"{called.call} for {called.name} without the mark on its Bucket")
            for access in wanted:
                if names.ROTATE_ANNOTATION in (access["metadata"].get("annotations") or ()):
                    continue
                secret = self.find(SECRETS, access["spec"]["credentialsSecretName"])
                if secret and owner_of(secret) == access["metadata"]["uid"]:
                    wrong(f"{called.call} for {called.name} over a Secret that holds keys")


def key(resource: Resource, name: str) -> Key:
    return Key(NAMESPACE if resource.namespaced else "", name)


def info_in(secret: Json) -> Json:
    """The BucketInfo of a Secret; empty when it is none, for anybody may write one."""
    raw = (secret.get("data") or {}).get("BucketInfo")
    try:
        info = json.loads(base64.b64decode(raw)) if raw else {}
    except ValueError:
        return {}
    return info if isinstance(info, dict) else {}


def keys_in(secret: Json) -> str:
    credentials = (info_in(secret).get("spec") or {}).get("secretS3") or {}
    return str(credentials.get("accessKeyID") or "")


def owner_of(secret: Json) -> str:
    name = (info_in(secret).get("metadata") or {}).get("name")
    return str(name or "").removeprefix("bc-")


def _holds(body: Json | None, finalizer: str) -> bool:
    return body is not None and finalizer in (body["metadata"].get("finalizers") or ())


def _waits_silently(body: Json) -> bool:
    """Whether a deletion that a finalizer of ours holds up does not say what it waits for."""
    ours = [f for f in body["metadata"].get("finalizers") or () if "objectstorage.k8s.io" in f]
    conditions = (body.get("status") or {}).get("conditions") or ()
    told = any(c["type"] == "Ready" and c["status"] != "True" for c in conditions)
    return bool(ours) and not told


def _is_going(body: Json) -> bool:
    return bool(body["metadata"].get("deletionTimestamp"))


def _id_of(bucket: Json) -> str:
    status = bucket.get("status") or {}
    return str(status.get("bucketID") or bucket["spec"].get("existingBucketID") or "")


def _essence(plural: str, body: Json) -> Json:
    meta = body["metadata"]
    essence: Json = {
        "finalizers": sorted(meta.get("finalizers") or ()),
        "deleting": bool(meta.get("deletionTimestamp")),
        "spec": body.get("spec"),
    }
    if plural == SECRETS.plural:
        info = info_in(body)
        if info:
            info["spec"]["secretS3"] = "keys" if keys_in(body) else None
        annotations = dict(meta.get("annotations") or {})
        annotations.pop(names.GRANT_ANNOTATION, None)  # a random word
        return {**essence, "info": info, "annotations": annotations}
    status = dict(body.get("status") or {})
    status.pop("lastCall", None)
    status["conditions"] = [
        {
            **{name: c[name] for name in ("type", "status", "reason", "observedGeneration")},
            # Of a failure the words may count attempts; of a success they say what holds.
            "message": c["message"] if (c["type"], c["status"]) == ("Ready", "True") else "",
        }
        for c in status.get("conditions") or []
    ]
    return {**essence, "status": status}


# --- the objects that most scenarios begin with


def add_class(world: World, name: str = "gold", *, policy: str = "Delete", **spec: Any) -> None:
    fields = {"driverName": DRIVER, "deletionPolicy": policy, "parameters": {"tier": "1"}}
    world.user_creates(BUCKET_CLASSES, name, **{**fields, **spec})


def add_access_class(world: World, name: str = "keys") -> None:
    world.user_creates(
        BUCKET_ACCESS_CLASSES, name, driverName=DRIVER, authenticationType="Key", parameters={}
    )


def add_claim(world: World, name: str = "photos", **spec: Any) -> None:
    world.user_creates(
        BUCKET_CLAIMS,
        name,
        spec={"protocols": ["S3"], **(spec or {"bucketClassName": "gold"})},
    )


def add_access(world: World, name: str = "reader", *, claim: str = "photos", **spec: Any) -> None:
    fields = {
        "bucketAccessClassName": "keys",
        "bucketClaimName": claim,
        "credentialsSecretName": f"{name}-secret",
        "protocol": "S3",
    }
    world.user_creates(BUCKET_ACCESSES, name, spec={**fields, **spec})


def add_static_bucket(world: World, name: str = "old", *, policy: str = "Retain") -> None:
    world.user_creates(
        BUCKETS,
        name,
        spec={
            "driverName": DRIVER,
            "bucketClassName": "",
            "existingBucketID": "id-of-old",
            "deletionPolicy": policy,
            "protocols": ["S3"],
            "bucketClaim": {},
        },
    )
    world.backend.buckets[name] = "id-of-old"


def record_of(bucket: Json) -> BucketRecord | None:
    meta = bucket["metadata"]
    record = decode_record((meta.get("annotations") or {}).get(RECORD_ANNOTATION))
    return record if record and record.bucket in ("", meta["uid"]) else None
