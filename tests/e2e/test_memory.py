"""The smallest memory limit of vendors' charts, with many claims: nothing is killed."""

import os
import time

import pytest
from tests.e2e import processes
from tests.e2e.load import is_ready, lost
from tests.e2e.table import TABLES, Operation
from tests.e2e.world import CLASSES, COSI, SYSTEM, VENDOR, World, eventually, say

from testbed.bulk import send_all
from testbed.objects import claim_body, path_of, typed

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

LIMIT = "128Mi"
MIB = 1024 * 1024
CLAIMS = int(os.environ.get("COSI_E2E_CLAIMS", "2000"))
NAMESPACE = "many"


def test_many_claims_fit_into_the_smallest_limit(world: World) -> None:
    """Real buckets for all of them; then both processes start anew with everything to read."""
    world.install_operator(f"--set=resources.limits.memory={LIMIT}")
    world.install_driver(f"--set=cosiSidecar.resources.limits.memory={LIMIT}")
    world.kubectl("apply", "-f", "-", text=CLASSES)
    world.kubectl("create", "namespace", NAMESPACE)
    path = path_of("bucketclaims", NAMESPACE)
    before = world.second_creates()
    began = time.monotonic()
    send_all(
        world.node.plane,
        [("POST", path, typed("bucketclaims", body(number))) for number in range(CLAIMS)],
    )
    eventually(
        "all claims to be ready", lambda: count_ready(world) == CLAIMS, timeout_s=600,
        told=lambda: f"{count_ready(world)} of {CLAIMS} are ready",
    )  # fmt: skip
    took_s = time.monotonic() - began
    add_row(world, f"{CLAIMS} claims created under a limit of {LIMIT}", took_s, before)
    world.kubectl("rollout", "restart", "deployment", f"--namespace={SYSTEM}")
    world.kubectl("rollout", "restart", "deployment", f"--namespace={VENDOR}")
    began = time.monotonic()
    for namespace, name in ((SYSTEM, "cosi-operator-controller"), (VENDOR, "seaweed")):
        world.kubectl(
            "rollout", "status", f"deployment/{name}", f"--namespace={namespace}", "--timeout=55s"
        )
    eventually("the old pods to be gone", lambda: len(containers()) == 3)
    add_row(world, f"both restarted with {CLAIMS} claims to read", time.monotonic() - began, before)
    assert not (found := killed(world)), "\n".join(found)
    began = time.monotonic()
    world.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
    eventually(
        "the namespace to be gone",
        lambda: world.get(f"/api/v1/namespaces/{NAMESPACE}") is None,
        timeout_s=600,
    )
    add_row(world, f"namespace with {CLAIMS} claims deleted", time.monotonic() - began, before)
    assert not (found := killed(world)), "\n".join(found)
    assert world.storage.buckets() == []


def body(number: int) -> dict[str, object]:
    return claim_body(f"claim-{number}", class_name="standard", namespace=NAMESPACE)


def count_ready(world: World) -> int:
    return sum(map(is_ready, world.items(f"{COSI}/namespaces/{NAMESPACE}/bucketclaims")))


def containers() -> dict[int, str]:
    return {
        pid: word.strip("/") for word in ("/controller", "/sidecar") for pid in processes.find(word)
    }


def killed(world: World) -> list[str]:
    """Containers that did not run through, with the reason."""
    return [
        f"{pod['metadata']['name']} {status['name']}: {status['lastState']}"
        for namespace in (SYSTEM, VENDOR)
        for pod in world.pods(namespace)
        for status in pod["status"]["containerStatuses"]
        if status["restartCount"]
    ]


def add_row(world: World, name: str, took_s: float, before: int) -> None:
    peaks: dict[str, int] = {}
    for pid, what in containers().items():
        peaks[what] = max(peaks.get(what, 0), processes.peak_resident_bytes(pid))
    note = ", ".join(f"{what} {bytes_ / MIB:.0f} MiB" for what, bytes_ in sorted(peaks.items()))
    missing = lost(world)
    row = Operation(
        name, took_s, None, world.second_creates() - before, len(missing), f"peak: {note}"
    )
    TABLES.operations.append(row)
    say(" | ".join(row.cells()))
    assert not missing, "\n".join(missing[:20])
    assert row.second_creates == 0
    assert set(peaks) == {"controller", "sidecar"}
