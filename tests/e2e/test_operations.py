"""What an operator does to the operator, while 200 claims are there and new ones come."""

import signal
import time

import pytest
from tests.e2e import processes
from tests.e2e.load import NAMESPACE, create_claims, operate
from tests.e2e.table import TABLES
from tests.e2e.world import (
    CLASSES,
    COSI,
    NEXT,
    OPERATOR,
    SYSTEM,
    VENDOR,
    VERSION,
    World,
    eventually,
    say,
)

from controlplane import KubectlError

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

CLAIMS = 200
OUTAGE_S = 10.0
"""How long kubelet and containerd are stopped."""
GRACE_S = 30
"""terminationGracePeriodSeconds of the chart and of Kubernetes."""


@pytest.fixture(scope="module", autouse=True)
def loaded(world: World) -> None:
    """Both releases, and the claims, every tenth with keys."""
    world.install_operator()
    world.install_driver()
    world.kubectl("apply", "-f", "-", text=CLASSES)
    say(f"both releases are ready; {CLAIMS} claims")
    create_claims(world, CLAIMS)


def restarts(world: World, namespace: str, container: str) -> int:
    return sum(
        status["restartCount"]
        for pod in world.pods(namespace)
        for status in pod["status"].get("containerStatuses", [])
        if status["name"] == container
    )


def all_ready(world: World, namespace: str, count: int) -> bool:
    pods = world.pods(namespace)
    conditions = [
        {one["type"]: one["status"] for one in pod["status"].get("conditions", [])} for pod in pods
    ]
    return len(pods) == count and all(one.get("Ready") == "True" for one in conditions)


def test_a_rolling_update_of_the_sidecar(world: World) -> None:
    operate(
        world, "rolling update of the sidecar's image",
        lambda: world.install_driver(f"--set=cosiSidecar.image.tag={NEXT}"),
    )  # fmt: skip


def test_a_rolling_update_of_the_operator(world: World) -> None:
    operate(world, "rolling update of the operator", lambda: world.install_operator(version=NEXT))


def test_helm_rollback(world: World) -> None:
    def roll_back() -> None:
        world.helm.run("rollback", OPERATOR, f"--namespace={SYSTEM}", "--wait", "--timeout=55s")

    operate(world, "helm rollback of the operator", roll_back)
    images = {pod["spec"]["containers"][0]["image"] for pod in world.pods(SYSTEM)}
    assert images == {f"localhost/{OPERATOR}:{VERSION}"}


def test_the_leader_pod_is_deleted(world: World) -> None:
    leader = world.leader()

    def delete() -> None:
        world.kubectl("delete", "pod", leader, f"--namespace={SYSTEM}", "--timeout=40s")
        eventually("another leader", lambda: world.leader() not in ("", leader))
        eventually("two controllers", lambda: all_ready(world, SYSTEM, 2))

    operate(world, "leader Pod deleted", delete)


def test_the_leader_is_killed(world: World) -> None:
    leader = world.leader()
    (pid,) = (pid for pid in processes.find("/controller") if processes.pod_of(pid) == leader)

    def kill() -> None:
        before = restarts(world, SYSTEM, "controller")
        processes.kill(pid)
        eventually("a restart", lambda: restarts(world, SYSTEM, "controller") > before)
        eventually("a leader", lambda: world.leader() != "")
        eventually("two controllers", lambda: all_ready(world, SYSTEM, 2))

    operate(world, "leader process killed (SIGKILL)", kill)


@pytest.mark.parametrize(
    ("container", "word", "second_creates"),
    [("driver", "refdriver", 1), ("cosi-sidecar", "/sidecar", 1)],
)
def test_one_container_of_the_driver_pod_is_killed(
    world: World, container: str, word: str, second_creates: int
) -> None:
    """A Create whose reply is lost is repeated; there is one new claim at a time."""
    (pid,) = processes.find(word)

    def kill() -> None:
        before = restarts(world, VENDOR, container)
        processes.kill(pid)
        eventually("a restart", lambda: restarts(world, VENDOR, container) > before)
        eventually("the pod to be ready", lambda: all_ready(world, VENDOR, 1))

    name = f"container {container} killed (SIGKILL)"
    operate(world, name, kill, second_creates=second_creates)


def test_sigterm_with_calls_in_flight_ends_in_order(world: World) -> None:
    """The burst of claims is not over when the signal comes; the process still ends with 0.

    In a new Pod, because a kubelet delays the second restart of a container.
    """
    world.kubectl("rollout", "restart", "deployment/seaweed", f"--namespace={VENDOR}")
    world.kubectl("rollout", "status", "deployment/seaweed", f"--namespace={VENDOR}")
    eventually("the old pod to be gone", lambda: len(processes.find("/sidecar")) == 1)
    (pid,) = processes.find("/sidecar")
    ended: dict[str, object] = {}
    took: list[float] = []

    def terminate() -> None:
        before = restarts(world, VENDOR, "cosi-sidecar")
        create_claims(world, 50, namespace=f"{NAMESPACE}-burst", wait=False)
        processes.kill(pid, signal.SIGTERM)
        began = time.monotonic()
        eventually("the process to end", lambda: pid not in processes.find("/sidecar"))
        took.append(time.monotonic() - began)
        eventually("a restart", lambda: restarts(world, VENDOR, "cosi-sidecar") > before)
        (pod,) = world.pods(VENDOR)
        statuses = pod["status"]["containerStatuses"]
        (status,) = (one for one in statuses if one["name"] == "cosi-sidecar")
        ended.update(status["lastState"]["terminated"])
        eventually("the pod to be ready", lambda: all_ready(world, VENDOR, 1))

    operate(
        world, "SIGTERM to the sidecar, 50 new claims in flight", terminate,
        note=lambda: f"exit code {ended['exitCode']} after {took[0]:.1f} s",
    )  # fmt: skip
    assert ended["exitCode"] == 0
    assert took[0] < GRACE_S
    world.kubectl("delete", "namespace", f"{NAMESPACE}-burst", "--timeout=60s")


def test_the_kubelet_is_stopped_and_started(world: World) -> None:
    worker = world.node.first

    def stop() -> None:
        worker.kubelet.stop(grace_s=10)
        time.sleep(OUTAGE_S)  # the outage itself
        worker.kubelet.start()
        worker.until_ready()

    before = restarts(world, SYSTEM, "controller"), restarts(world, VENDOR, "cosi-sidecar")
    operate(world, f"kubelet stopped for {OUTAGE_S:.0f} s and started", stop)
    after = restarts(world, SYSTEM, "controller"), restarts(world, VENDOR, "cosi-sidecar")
    assert after == before


def test_containerd_is_stopped_and_started(world: World) -> None:
    worker = world.node.first

    def stop() -> None:
        worker.containerd.stop(grace_s=10)
        time.sleep(OUTAGE_S)  # the outage itself
        worker.start_containerd()
        worker.until_ready()

    before = restarts(world, SYSTEM, "controller"), restarts(world, VENDOR, "cosi-sidecar")
    operate(world, f"containerd stopped for {OUTAGE_S:.0f} s and started", stop)
    after = restarts(world, SYSTEM, "controller"), restarts(world, VENDOR, "cosi-sidecar")
    assert after == before


def test_a_drain_of_the_only_node_leaves_one_controller(world: World) -> None:
    """There is no other node for the evicted one, so the budget refuses the second eviction."""
    refused: list[str] = []

    def drain() -> None:
        try:
            world.kubectl(
                "drain", world.node.first.name, "--ignore-daemonsets", "--timeout=15s",
                f"--pod-selector=app.kubernetes.io/instance={OPERATOR}",
            )  # fmt: skip
        except KubectlError as error:
            refused.append(error.stderr)
        assert len([pod for pod in world.pods(SYSTEM) if pod["status"]["phase"] == "Running"]) == 1
        world.kubectl("uncordon", world.node.first.name)
        eventually("two controllers", lambda: all_ready(world, SYSTEM, 2))

    operate(
        world, "kubectl drain of the only node, then uncordon", drain,
        note=lambda: "the budget kept one controller",
    )  # fmt: skip
    assert "disruption budget" in refused[0]


def test_a_drain_of_one_of_two_nodes_moves_everything(world: World) -> None:
    """Then the first node is back, and the second one is taken away, as in an upgrade of nodes."""
    second = world.add_worker()
    first = world.node.first
    leader = world.leader()

    def on(name: str) -> list[str]:
        return [
            pod["metadata"]["name"]
            for namespace in (SYSTEM, VENDOR)
            for pod in world.pods(namespace)
            if pod["spec"].get("nodeName") == name
        ]

    def drain() -> None:
        world.kubectl(
            "drain", first.name, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=55s"
        )
        eventually("two controllers", lambda: all_ready(world, SYSTEM, 2))
        eventually("the driver", lambda: all_ready(world, VENDOR, 1))

    assert leader in on(first.name)
    operate(world, "kubectl drain of one of two nodes, with leader and driver on it", drain)
    assert on(first.name) == []
    assert len(on(second.name)) == 3
    world.kubectl("uncordon", first.name)


def test_uninstall_keeps_objects_and_a_new_install_takes_them_up(world: World) -> None:
    def reinstall() -> None:
        kept = len(world.items(f"{COSI}/bucketclaims"))
        told = world.helm.run(
            "uninstall", OPERATOR, f"--namespace={SYSTEM}", "--wait", "--timeout=55s"
        )
        assert "bucketclaims.objectstorage.k8s.io" in told, "helm names what it keeps"
        assert world.pods(SYSTEM) == []
        assert len(world.items(f"{COSI}/bucketclaims")) >= kept
        world.install_operator()

    operate(world, "helm uninstall and install of the operator", reinstall)


def test_no_probe_and_no_memory_limit_ended_a_container(world: World) -> None:
    """In all tests so far, by the Events of the pods."""
    told = world.events(SYSTEM, VENDOR)
    assert [line for line in told if "Started" in line], "Events are seen"
    causes = ("failed liveness probe", "failed startup probe", "OOM", "Evicted")
    wrong = [line for line in told if any(cause in line for cause in causes)]
    assert not wrong, "\n".join(wrong)


def test_a_namespace_with_claims_and_accesses_is_deleted(world: World) -> None:
    namespace = f"{NAMESPACE}-tenant"
    create_claims(world, 100, namespace=namespace)

    def delete() -> None:
        world.kubectl("delete", "namespace", namespace, "--timeout=55s")

    operate(world, "namespace with 100 claims and 10 accesses deleted", delete)
    assert not [one for one in world.storage.users() if namespace in one]


def test_nothing_is_left_of_the_load(world: World) -> None:
    began = time.monotonic()
    world.kubectl("delete", "namespace", NAMESPACE, "--timeout=55s")
    TABLES.step(f"namespace with the {CLAIMS} claims deleted", time.monotonic() - began)
    assert world.items(f"{COSI}/buckets") == []
    assert world.storage.buckets() == []
    assert world.storage.users() == []
