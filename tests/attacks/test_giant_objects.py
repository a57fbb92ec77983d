"""Objects as large as etcd takes, on upstream's CRDs, which have no limit of their own."""

import functools
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controlplane import Audit
from testbed import NAMESPACE, Testbed, access_body, claim_body

UPSTREAM_CRDS = Path(__file__).parents[1] / "support" / "upstream_crds"
# docs/faults.md has the command that sets these two, and the figures of such runs.
# By default, those of one kind alone are more than the limit leaves to a process.
GIANTS = int(os.environ.get("GIANTS", "120"))
GIANT_BYTES = int(os.environ.get("GIANT_BYTES", "950000"))
AT_ONCE = 20  # of 1 MB each, so that this process stays small
RSS_LIMIT_MIB = 128
SOON_S = 2.0
START_S = 30.0 + GIANTS / 20  # to read that many megabytes

type Json = dict[str, Any]


@pytest.fixture(scope="module")
def own_bed() -> Iterator[Testbed]:
    with (
        tempfile.TemporaryDirectory(prefix="cosi-") as directory,
        Testbed.start(Path(directory), crds=UPSTREAM_CRDS, audit=Audit.NOTHING) as bed,
    ):
        yield bed
        assert bed.forbidden() == []


def rss_mib(bed: Testbed, role: str) -> float:
    """The largest resident size that the process has had."""
    status = Path(f"/proc/{bed.processes[role].pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def flood(bed: Testbed, plural: str, bodies: Iterator[Json]) -> None:
    while some := [body for _, body in zip(range(AT_ONCE), bodies, strict=False)]:
        bed.create_all(plural, some)


def giant() -> str:
    """What no compression makes small."""
    return secrets.token_hex(GIANT_BYTES // 2)


def hold(bed: Testbed, name: str) -> dict[str, float]:
    """Another tenant's claim and access are ready soon; the largest sizes of both processes."""
    other = bed.make_namespace(f"{name}-other")
    bed.make_claims([name], class_name="fine", namespace=other)
    started = time.monotonic()
    bed.until_ready("bucketclaims", [name], other)
    assert time.monotonic() - started < SOON_S
    bed.make_accesses([name], class_name="fine", namespace=other)
    bed.until_ready("bucketaccesses", [name], other)
    sizes = {role: rss_mib(bed, role) for role in bed.processes}
    print({role: f"{size:.0f} MiB" for role, size in sizes.items()})
    return sizes


@pytest.mark.attack("a tenant's claims and accesses name things of 1 MB; both processes stay small")
@pytest.mark.timeout(900)
def test_giant_objects_hurt_nobody(own_bed: Testbed) -> None:
    bed = own_bed
    pids = {role: process.pid for role, process in bed.processes.items()}
    bed.make_classes("fine")
    half = GIANTS // 2
    claims = (claim_body(f"giant-{i}", class_name=giant()) for i in range(half))
    accesses = (
        access_body(f"giant-{i}", class_name="fine", claim=giant()) for i in range(GIANTS - half)
    )
    flood(bed, "bucketclaims", claims)
    flood(bed, "bucketaccesses", accesses)
    sizes = hold(bed, "during")
    assert {role: process.pid for role, process in bed.processes.items()} == pids
    assert all(process.is_running for process in bed.processes.values())
    assert max(sizes.values()) < RSS_LIMIT_MIB
    for role in ("controller", "sidecar"):  # a process that starts among them lists them all
        bed.restart(role)
    # Elsewhere, since the waiting itself lists the claims of the namespace.
    bed.make_claims(["listed"], class_name="fine", namespace=bed.make_namespace("listed"))
    bed.until_ready("bucketclaims", ["listed"], "listed", timeout_s=START_S)
    sizes = hold(bed, "after")
    assert max(sizes.values()) < RSS_LIMIT_MIB
    for role in bed.processes:
        assert max(map(len, bed.log_of(role).splitlines())) < 20_000
    for plural in ("bucketclaims", "bucketaccesses"):
        bed.until(f"Events about {plural}", functools.partial(told_of, bed, plural), timeout_s=60)
    gone = [f"giant-{i}" for i in range(3)]
    for plural in ("bucketclaims", "bucketaccesses"):
        bed.delete_all(plural, gone)
        assert not [name for name in gone if bed.find(plural, name)]


def told_of(bed: Testbed, plural: str) -> bool:
    """Whether each giant of this kind has an Event that says so."""
    kind = {"bucketclaims": "BucketClaim", "bucketaccesses": "BucketAccess"}[plural]
    told = {
        event["involvedObject"]["name"]
        for event in bed.all_of("events", NAMESPACE)
        if event["involvedObject"]["kind"] == kind and "InvalidObject" in event["message"]
    }
    wanted = range(GIANTS // 2 if plural == "bucketclaims" else GIANTS - GIANTS // 2)
    return {f"giant-{i}" for i in wanted} <= told
