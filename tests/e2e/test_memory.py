"""The smallest memory limit of vendors' charts, with many claims: nothing is killed.

The driver is the mock, because an S3 service of its size would be what is measured.
"""

import os
import time
from collections.abc import Iterator

import pytest
from tests.e2e import metrics, processes
from tests.e2e.table import TABLES, Operation
from tests.e2e.world import COSI, MOCK_DRIVER, MOCK_VENDOR, SYSTEM, World, eventually, say

from testbed.bulk import send_all
from testbed.objects import claim_body, path_of, typed

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

LIMIT = "128Mi"
MIB = 1024 * 1024
PORT = 9810
CLAIMS = int(os.environ.get("COSI_E2E_CLAIMS", "2000"))
PATIENCE_S = 500.0
NAMESPACE = "many"
CLASS = f"""
apiVersion: objectstorage.k8s.io/v1alpha1
kind: BucketClass
metadata: {{name: {NAMESPACE}}}
driverName: {MOCK_DRIVER}
deletionPolicy: Delete
"""


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
        "all claims to be ready", lambda: ready(world) == CLAIMS, timeout_s=PATIENCE_S,
        told=lambda: f"{ready(world)} of {CLAIMS} are ready",
    )  # fmt: skip
    took_s = time.monotonic() - began
    second = creates(world) - CLAIMS
    name = f"{CLAIMS} claims created, limits of {LIMIT}"
    add_row(world, name, took_s, second, CLAIMS - ready(world))


def test_both_processes_start_anew_with_everything_to_read(world: World) -> None:
    began = time.monotonic()
    for namespace, name in ((SYSTEM, "cosi-operator-controller"), (MOCK_VENDOR, "mock")):
        in_namespace = f"--namespace={namespace}"
        world.kubectl("rollout", "restart", f"deployment/{name}", in_namespace)
        world.kubectl("rollout", "status", f"deployment/{name}", in_namespace, "--timeout=55s")
    eventually("the old pods to be gone", lambda: len(world.all_pods(SYSTEM, MOCK_VENDOR)) == 3)
    eventually("a leader", lambda: world.leader() != "")
    eventually("all to be read", lambda: ready(world) == CLAIMS)
    took_s = time.monotonic() - began
    lost = CLAIMS - ready(world)
    add_row(world, f"both restarted, {CLAIMS} claims to read", took_s, creates(world), lost)


def test_their_namespace_is_deleted(world: World) -> None:
    began = time.monotonic()
    world.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
    eventually(
        "the namespace to be gone",
        lambda: world.get(f"/api/v1/namespaces/{NAMESPACE}") is None,
        timeout_s=PATIENCE_S,
        told=lambda: f"{ready(world)} Buckets are left",
    )
    took_s = time.monotonic() - began
    lost = len(world.items(f"{COSI}/buckets"))
    add_row(world, f"namespace with {CLAIMS} claims deleted", took_s, creates(world), lost)


def ready(world: World) -> int:
    """How many claims are ready, as the sidecar counts their Buckets; a list of all is slow."""
    (pod,) = world.pods(MOCK_VENDOR)
    try:
        return round(metrics.total(pod, PORT, "cosi_objects", kind="Bucket", state="ready"))
    except (LookupError, OSError):  # it has just started
        return -1


def creates(world: World) -> int:
    """How many DriverCreateBucket the present sidecar has sent, by its own metrics."""
    (pod,) = world.pods(MOCK_VENDOR)
    name = "cosi_sidecar_operations_seconds_count"
    return round(metrics.total(pod, PORT, name, call="DriverCreateBucket"))


def add_row(world: World, name: str, took_s: float, second_creates: int, lost: int) -> None:
    """With the peaks of all processes of a kind, and nothing was killed."""
    peaks = {
        word.strip("/"): max(map(processes.peak_resident_bytes, processes.find(word)))
        for word in ("/controller", "/sidecar")
    }
    note = ", ".join(f"{what} {peak / MIB:.0f} MiB" for what, peak in peaks.items())
    row = Operation(name, took_s, None, second_creates, lost, f"peak: {note}")
    TABLES.operations.append(row)
    say(" | ".join(row.cells()))
    assert second_creates == lost == 0
    restarted = [
        f"{pod['metadata']['name']} {status['name']}: {status['lastState']}"
        for namespace in (SYSTEM, MOCK_VENDOR)
        for pod in world.pods(namespace)
        for status in pod["status"]["containerStatuses"]
        if status["restartCount"]
    ]
    assert not restarted, "\n".join(restarted)
