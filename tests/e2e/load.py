"""Claims that are there while something is done to the operator, and what it costs them."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.table import TABLES, Operation
from tests.e2e.world import COSI, World, eventually, say

from controlplane import ApiError
from testbed.bulk import send_all
from testbed.objects import access_body, claim_body, condition, path_of, typed

NAMESPACE = "load"
CANARY = "canary"
CANARY_EVERY_S = 0.5
SETTLE_S = 90.0

type Json = dict[str, Any]


def is_ready(body: Json) -> bool:
    return condition(body).get("status") == "True"


@dataclass
class Canaries:
    """New claims, one after the other: how long each waits until it is ready."""

    world: World
    created_s: dict[str, float] = field(default_factory=dict)
    ready_s: dict[str, float] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    holders: list[tuple[float, str]] = field(default_factory=list)
    """When a Lease got another holder, monotonic seconds, and which."""
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Canaries":
        self._thread = threading.Thread(target=self._run, name="canaries")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        """Create one claim after the other until told to end, then wait until all are ready."""
        call = self.world.node.plane.api.call
        path = path_of("bucketclaims", NAMESPACE)
        count = 0
        deadline = float("inf")
        while time.monotonic() < deadline:
            if not self._over.is_set():
                name = f"{CANARY}-{count}"
                body = claim_body(name, class_name="standard", namespace=NAMESPACE)
                self.created_s[name] = time.monotonic()
                try:
                    call("POST", path, typed("bucketclaims", body))
                except (ApiError, OSError) as error:  # the API server is not what is tested
                    self.refused.append(f"{name}: {error}")
                count += 1
            elif deadline == float("inf"):
                deadline = time.monotonic() + SETTLE_S
            elif len(self.ready_s) == len(self.created_s):
                return
            self._look()
            self._over.wait(CANARY_EVERY_S) if not self._over.is_set() else time.sleep(0.1)

    def _look(self) -> None:
        known = {text.partition(": ")[0]: text for _, text in self.holders}
        for name, holder in self.world.lease_holders().items():
            if known.get(name) != (text := f"{name}: {holder or 'free'}"):
                self.holders.append((time.monotonic(), text))
        for claim in self.world.items(f"{COSI}/namespaces/{NAMESPACE}/bucketclaims"):
            name = claim["metadata"]["name"]
            if name in self.created_s and name not in self.ready_s and is_ready(claim):
                self.ready_s[name] = time.monotonic()

    @property
    def slowest_s(self) -> float:
        """The longest wait of one of them; all of them must have become ready."""
        missing = sorted(set(self.created_s) - set(self.ready_s))
        assert not missing, f"not ready {SETTLE_S:.0f} s later: {missing}"
        assert not self.refused, self.refused
        return max(self.ready_s[name] - since_s for name, since_s in self.created_s.items())


def create_claims(
    world: World, count: int, *, namespace: str = NAMESPACE, wait: bool = True
) -> None:
    """Create a namespace with so many claims, every tenth with keys; wait until all are ready."""
    world.kubectl("create", "namespace", namespace)
    requests: list[tuple[str, str, object]] = []
    for number in range(count):
        name = f"claim-{number}"
        claim = claim_body(name, class_name="standard", namespace=namespace)
        requests.append(("POST", path_of("bucketclaims", namespace), typed("bucketclaims", claim)))
        if number % 10 == 0:
            body = access_body(name, class_name="keys", namespace=namespace)
            requests.append(
                ("POST", path_of("bucketaccesses", namespace), typed("bucketaccesses", body))
            )
    send_all(world.node.plane, requests)
    if wait:
        eventually("all claims and accesses to be ready", lambda: not unready(world), timeout_s=120)


def unready(world: World) -> list[str]:
    """Claims and accesses of any namespace that are not ready."""
    return [
        f"{kind}/{found['metadata']['name']}"
        for kind in ("bucketclaims", "bucketaccesses")
        for found in world.items(f"{COSI}/{kind}")
        if not is_ready(found)
    ]


def lost(world: World) -> list[str]:
    """What should be there and is not, or the reverse: claims, Buckets, Secrets, backend."""
    claims = world.items(f"{COSI}/bucketclaims")
    wanted = {str((claim.get("status") or {}).get("bucketName")) for claim in claims}
    buckets = {found["metadata"]["name"] for found in world.items(f"{COSI}/buckets")}
    real = set(world.storage.buckets())
    accesses = world.items(f"{COSI}/bucketaccesses")
    users = {str((access.get("status") or {}).get("accountID")) for access in accesses}
    differences = {
        "Bucket": wanted ^ buckets,
        "bucket on S3": buckets ^ real,
        "user on S3": users ^ set(world.storage.users()),
        "not ready": set(unready(world)),
        "Secret": {
            access["metadata"]["name"]
            for access in accesses
            if not world.secret(
                access["metadata"]["namespace"], access["spec"]["credentialsSecretName"]
            )
        },
    }
    return [f"{what}: {name}" for what, names in differences.items() for name in sorted(names)]


def operate(
    world: World,
    name: str,
    act: Callable[[], object],
    *,
    note: Callable[[], str] = lambda: "",
    second_creates: int = 0,
) -> None:
    """Do something to the operator while claims are there and new ones come; add a row.

    Args:
        name: of the row.
        act: returns when it is done.
        note: for the row, asked afterwards.
        second_creates: how many there may be; 0 unless a reply of the driver was lost.
    """
    before = world.second_creates()
    with Canaries(world) as canaries:
        eventually("a first new claim to be ready", lambda: bool(canaries.ready_s))
        began = time.monotonic()
        act()
        took_s = time.monotonic() - began
    slowest_s = canaries.slowest_s
    seconds = world.second_creates() - before
    eventually("everything to be where it should", lambda: not lost(world), timeout_s=60,
               told=lambda: "\n".join(lost(world)))  # fmt: skip
    row = Operation(name, took_s, slowest_s, seconds, len(lost(world)), note())
    TABLES.operations.append(row)
    say(" | ".join(row.cells()))
    for at_s, text in canaries.holders:
        say(f"    {at_s - began:+.1f} s: {text}")
    _remove(world, list(canaries.created_s))
    assert seconds <= second_creates, world.answers("DriverCreateBucket").most_common(3)


def _remove(world: World, names: list[str]) -> None:
    path = f"{COSI}/namespaces/{NAMESPACE}/bucketclaims"
    send_all(world.node.plane, [("DELETE", f"{path}/{name}", None) for name in names])
    eventually(
        "the new claims to be gone",
        lambda: not [one for one in world.items(path) if one["metadata"]["name"] in names],
        timeout_s=SETTLE_S,
    )
