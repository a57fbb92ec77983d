"""The smallest memory limit of vendors' charts, with many claims: nothing is killed.

The driver is the mock, because an S3 service of its size would be what is measured.
"""

import os
import re
import time
import urllib.request
from collections.abc import Iterator

import pytest
from tests.e2e import processes
from tests.e2e.load import is_ready
from tests.e2e.table import TABLES, Operation
from tests.e2e.world import COSI, MOCK_DRIVER, MOCK_VENDOR, SYSTEM, World, eventually, say

from testbed.bulk import send_all
from testbed.objects import claim_body, path_of, typed

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

LIMIT = "128Mi"
MIB = 1024 * 1024
CLAIMS = int(os.environ.get("COSI_E2E_CLAIMS", "10000"))
PATIENCE_S = 500.0
NAMESPACE = "many"
CLASS = f"""
apiVersion: objectstorage.k8s.io/v1alpha1
kind: BucketClass
metadata: {{name: {NAMESPACE}}}
driverName: {MOCK_DRIVER}
deletionPolicy: Delete
"""
OPERATIONS = re.compile(
    r"^cosi_sidecar_operations_seconds_count\{(?=[^}]*DriverCreateBucket)[^}]*\} (\S+)$",
    re.MULTILINE,
)


@pytest.fixture(scope="module", autouse=True)
def limited(world: World) -> Iterator[None]:
    """Both processes under the limit; the mock driver is gone afterwards."""
    world.install_operator(f"--set=resources.limits.memory={LIMIT}")
    world.install_mock(f"--set=cosiSidecar.resources.limits.memory={LIMIT}")
    world.kubectl("apply", "-f", "-", text=CLASS)
    yield
    world.kubectl("delete", "bucketclass", NAMESPACE)
    world.helm.run("uninstall", "mock", f"--namespace={MOCK_VENDOR}", "--wait")


def test_many_claims_are_created(world: World) -> None:
    world.kubectl("create", "namespace", NAMESPACE)
    path = path_of("bucketclaims", NAMESPACE)
    bodies = (
        claim_body(f"claim-{number}", class_name=NAMESPACE, namespace=NAMESPACE)
        for number in range(CLAIMS)
    )
    began = time.monotonic()
    send_all(world.node.plane, [("POST", path, typed("bucketclaims", one)) for one in bodies])
    eventually(
        "all claims to be ready", lambda: count_ready(world) == CLAIMS, timeout_s=PATIENCE_S,
        told=lambda: f"{count_ready(world)} of {CLAIMS} are ready",
    )  # fmt: skip
    second = creates(world) - CLAIMS
    add_row(world, f"{CLAIMS} claims created, limits of {LIMIT}", time.monotonic() - began, second)


def test_both_processes_start_anew_with_everything_to_read(world: World) -> None:
    began = time.monotonic()
    for namespace, name in ((SYSTEM, "cosi-operator-controller"), (MOCK_VENDOR, "mock")):
        in_namespace = f"--namespace={namespace}"
        world.kubectl("rollout", "restart", f"deployment/{name}", in_namespace)
        world.kubectl("rollout", "status", f"deployment/{name}", in_namespace, "--timeout=55s")
    eventually("the old pods to be gone", lambda: len(world.all_pods(SYSTEM, MOCK_VENDOR)) == 3)
    eventually("a leader", lambda: world.leader() != "")
    took_s = time.monotonic() - began
    assert count_ready(world) == CLAIMS
    add_row(world, f"both restarted, {CLAIMS} claims to read", took_s, creates(world))


def test_their_namespace_is_deleted(world: World) -> None:
    began = time.monotonic()
    world.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
    eventually(
        "the namespace to be gone",
        lambda: world.get(f"/api/v1/namespaces/{NAMESPACE}") is None,
        timeout_s=PATIENCE_S,
        told=lambda: f"{len(world.items(f'{COSI}/bucketclaims'))} claims are left",
    )
    assert world.items(f"{COSI}/buckets") == []
    took_s = time.monotonic() - began
    add_row(world, f"namespace with {CLAIMS} claims deleted", took_s, creates(world))


def count_ready(world: World) -> int:
    return sum(map(is_ready, world.items(f"{COSI}/namespaces/{NAMESPACE}/bucketclaims")))


def creates(world: World) -> int:
    """How many DriverCreateBucket the present sidecar has sent, by its own metrics."""
    (pod,) = world.pods(MOCK_VENDOR)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{pod['status']['podIP']}:9810/metrics", timeout=10) as answer:
        text = answer.read().decode()
    assert "cosi_driver_up" in text
    return round(sum(map(float, OPERATIONS.findall(text))))


def add_row(world: World, name: str, took_s: float, second_creates: int) -> None:
    """With the peaks of all processes of a kind, and nothing was killed."""
    peaks = {
        word.strip("/"): max(map(processes.peak_resident_bytes, processes.find(word)))
        for word in ("/controller", "/sidecar")
    }
    note = ", ".join(f"{what} {peak / MIB:.0f} MiB" for what, peak in peaks.items())
    missing = 0 if count_ready(world) in (0, CLAIMS) else CLAIMS - count_ready(world)
    row = Operation(name, took_s, None, second_creates, missing, f"peak: {note}")
    TABLES.operations.append(row)
    say(" | ".join(row.cells()))
    assert second_creates == missing == 0
    restarted = [
        f"{pod['metadata']['name']} {status['name']}: {status['lastState']}"
        for namespace in (SYSTEM, MOCK_VENDOR)
        for pod in world.pods(namespace)
        for status in pod["status"]["containerStatuses"]
        if status["restartCount"]
    ]
    assert not restarted, "\n".join(restarted)
