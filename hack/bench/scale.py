"""Simulations for docs/scaling.md: the real store, queue and plans, synthetic objects, no server.

    PYTHONPATH=operator:hack python -m bench.scale

Memory and CPU are measured on the real code. Times of a burst are computed: a virtual clock, the
real work queues, and an API server that takes so many writes a second, shared fairly.
"""

import json
import os
import time
import tracemalloc
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime

from bench.burst import burst, retries
from bench.procs import memory_mib
from cosi_operator.api.decode import decode_bucket, decode_bucket_access, decode_bucket_claim
from cosi_operator.api.view import Bucket, BucketAccess, BucketClaim, Key
from cosi_operator.kube.store import READY_LIMIT, Store
from cosi_operator.plan import bucket as bucket_plan
from cosi_operator.plan import claim as claim_plan
from cosi_operator.plan.bucket_view import BucketView
from cosi_operator.plan.claim_view import ClaimView
from cosi_operator.plan.records import target_name
from cosi_operator.plan.steps import Context, DriverView

STAMP = "2026-01-01T00:00:00Z"


# Synthetic objects, as the API server sends them.


def _uid(*parts: object) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, repr(parts)))


def _object(kind: str, name: str, number: int, spec: object, status: dict[str, object]) -> bytes:
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "Provisioned",
        "message": f"Bucket bucket-{_uid('claim', number)} is ready.",
        "observedGeneration": 1,
        "lastTransitionTime": STAMP,
    }
    metadata: dict[str, object] = {
        "name": name,
        "uid": _uid(kind, number),
        "resourceVersion": str(1000 + number),
        "generation": 1,
        "creationTimestamp": STAMP,
        "finalizers": [f"cosi.objectstorage.k8s.io/{kind.lower()}-protection"],
    }
    if kind != "Bucket":
        metadata["namespace"] = f"team-{number % 500}"
    body = {
        "apiVersion": "objectstorage.k8s.io/v1alpha1",
        "kind": kind,
        "metadata": metadata,
        "spec": spec,
        "status": {**status, "conditions": [ready], "observedGeneration": 1},
    }
    return json.dumps(body, separators=(",", ":")).encode()


def claim(number: int) -> bytes:
    """A ready claim in one of 500 namespaces."""
    spec = {"bucketClassName": f"class-{number % 50}", "protocols": ["S3"]}
    status = {"bucketReady": True, "bucketName": f"bucket-{_uid('BucketClaim', number)}"}
    return _object("BucketClaim", f"claim-{number}", number, spec, status)


def bucket(number: int) -> bytes:
    """Its Bucket, of one of 50 drivers."""
    reference = {
        "apiVersion": "objectstorage.k8s.io/v1alpha1",
        "kind": "BucketClaim",
        "namespace": f"team-{number % 500}",
        "name": f"claim-{number}",
        "uid": _uid("BucketClaim", number),
    }
    spec = {
        "driverName": f"driver-{number % 50}.example.com",
        "bucketClassName": f"class-{number % 50}",
        "bucketClaim": reference,
        "deletionPolicy": "Delete",
        "protocols": ["S3"],
    }
    name = f"bucket-{_uid('BucketClaim', number)}"
    return _object("Bucket", name, number, spec, {"bucketReady": True, "bucketID": f"id-{name}"})


def access(number: int) -> bytes:
    """A granted access to it."""
    spec = {
        "bucketClaimName": f"claim-{number}",
        "bucketAccessClassName": f"class-{number % 50}",
        "credentialsSecretName": f"claim-{number}-keys",
        "protocol": "S3",
    }
    status = {"accessGranted": True, "accountID": f"acct-{_uid('BucketAccess', number)}"}
    return _object("BucketAccess", f"access-{number}", number, spec, status)


@dataclass(slots=True)
class Stores:
    """What a sidecar holds: everything in the cluster, whichever driver it is for."""

    buckets: Store[Bucket] = field(
        default_factory=lambda: Store(
            decode_bucket,
            {"claim": lambda found: (found.claim.key,) if found.claim else ()},
        )
    )
    claims: Store[BucketClaim] = field(default_factory=lambda: Store(decode_bucket_claim))
    accesses: Store[BucketAccess] = field(
        default_factory=lambda: Store(
            decode_bucket_access,
            {
                "class": lambda found: (found.class_name,),
                "claim": lambda found: (found.claim_key,),
            },
        )
    )

    def fill(self, count: int) -> None:
        """The first lists after a start."""
        self.buckets.replace((bucket(n) for n in range(count)), "1")
        self.claims.replace((claim(n) for n in range(count)), "1")
        self.accesses.replace((access(n) for n in range(count)), "1")


def sizes(count: int) -> dict[str, float]:
    """Bytes that an object of each kind takes, its part of dicts and indexes included."""
    stores = Stores()
    found: dict[str, float] = {}
    for kind, store, make in (
        ("Bucket", stores.buckets, bucket),
        ("BucketClaim", stores.claims, claim),
        ("BucketAccess", stores.accesses, access),
    ):
        raws = [make(number) for number in range(count + 2 * READY_LIMIT)]
        for raw in raws[count:]:  # the last ones that were looked at are decoded, however many
            store.upsert(raw)
        tracemalloc.start()
        for raw in raws[:count]:
            store.upsert(raw)
        found[kind] = round(tracemalloc.get_traced_memory()[0] / count)
        tracemalloc.stop()
    return found


def memory(count: int) -> dict[str, float]:
    """MiB by which a sidecar grows for `count` claims with a Bucket and an access each."""
    before = memory_mib(os.getpid())["rss"]
    stores = Stores()
    stores.fill(count)
    grown = memory_mib(os.getpid())["rss"] - before
    return {"claims": len(stores.claims), "mib": round(grown, 1)}


def start(count: int) -> dict[str, float]:
    """CPU seconds from the first list's bytes until every settled object was looked at once."""
    raws = [[make(n) for n in range(count)] for make in (bucket, claim, access)]
    stores = Stores()
    began = time.process_time()
    stores.buckets.replace(raws[0], "1")
    longest = time.process_time() - began
    stores.claims.replace(raws[1], "1")
    stores.accesses.replace(raws[2], "1")
    taken_in = time.process_time() - began
    context = Context(driver=DriverView("driver-7.example.com", "one"), now=datetime.now(UTC))
    looked_at = 0
    for _, held_bucket in stores.buckets.items():  # noqa: PERF102 - a Store, not a dict
        found = held_bucket.view
        held = stores.claims.get(found.claim.key) if found.claim else None
        view = BucketView(found, held.view if held else None, (), context)
        bucket_plan.plan(view)
        looked_at += 1
    for _, claimed in stores.claims.items():  # noqa: PERF102
        target = stores.buckets.get(Key("", target_name(claimed.view)))
        claim_plan.plan(
            ClaimView(claimed.view, None, target.view if target else None, (), context.now)
        )
        looked_at += 1
    return {
        "claims": count,
        "list_requests": 3 * -(-count // 500),
        "longest_block_s": round(longest, 2),
        "taken_in_s": round(taken_in, 2),
        "looked_at_s": round(time.process_time() - began, 2),
    }


def main() -> None:
    """Print everything as Markdown."""
    print("## Memory: MiB of a sidecar, bytes an object\n")
    _table([memory(count) for count in (1_000, 10_000, 100_000)])
    print()
    _table([sizes(10_000)])
    print("\n## Start\n")
    _table([start(count) for count in (1_000, 10_000, 100_000)])
    print("\n## A burst\n")
    _table(
        [
            burst(1_000, writes_per_s=1000),
            burst(10_000, writes_per_s=1000),
            burst(100_000, writes_per_s=1000),
            burst(100_000, writes_per_s=1000, drivers=50),
            burst(10_000, writes_per_s=1000, driver_s=1.0),
            burst(10_000, writes_per_s=1000, driver_s=1.0, workers=200),
            burst(10_000, writes_per_s=1000, driver_s=1.0, drivers=50),
            burst(100_000, writes_per_s=5000, drivers=50),
        ]
    )
    print("\n## Retries\n")
    _table([retries(1_000), retries(100_000)])


def _table(rows: list[dict[str, float]]) -> None:
    print(f"| {' | '.join(rows[0])} |")
    print(f"|{'---|' * len(rows[0])}")
    for row in rows:
        print(f"| {' | '.join(f'{value:g}' for value in row.values())} |")


if __name__ == "__main__":
    main()
