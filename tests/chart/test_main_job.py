"""What the charts render does the main job: both processes are started as their pod specs say."""

import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from tests.chart.flow import MainJob, eventually, refused
from tests.chart.pod import Pod, can_mount, free_ports, pod_of

from chart_outputs import NAMESPACE, RELEASE, Helm, objects
from controlplane import ControlPlane
from controlplane.daemon import Daemon
from cosi_operator.outcome import Call
from mockdriver.client import MockDriver

DRIVER_NAMESPACE = "vendor"
POLICY = "profile: csi-like"


@dataclass(frozen=True, slots=True)
class Cluster:
    plane: ControlPlane
    driver: MockDriver
    users: tuple[str, str]
    ports: list[int]
    controller: Daemon
    sidecar: Daemon
    standby: Pod
    """A second replica of the controller, not started; its ports are the last two."""


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory,
    both_charts: tuple[Path, Path],
) -> Iterator[Cluster]:
    """Both charts installed by helm, and their containers running."""
    folder = tmp_path_factory.mktemp("pod")
    mounted = can_mount(folder)
    ports = free_ports(6)
    local = [f"--set={part}.host=127.0.0.1" for part in ("metrics", "healthProbe")]
    with (
        ControlPlane.start(tmp_path_factory.mktemp("plane")) as plane,
        MockDriver.start(tmp_path_factory.mktemp("driver")) as driver,
    ):
        helm = Helm(folder / "helm", plane.admin_kubeconfig)
        helm.run(
            "install", RELEASE, str(both_charts[0]), f"--namespace={NAMESPACE}",
            "--create-namespace", *local,
            f"--set=metrics.port={ports[0]},healthProbe.port={ports[1]}",
        )  # fmt: skip
        helm.run(
            "install", "vendor-driver", str(both_charts[1]), f"--namespace={DRIVER_NAMESPACE}",
            "--create-namespace", *(text.replace("--set=", "--set=cosiSidecar.") for text in local),
            f"--set=cosiSidecar.metrics.port={ports[2]},cosiSidecar.healthProbe.port={ports[3]}",
            f"--set-string=cosiSidecar.retryPolicyFile={POLICY}",
        )  # fmt: skip
        policy = folder / "policy"
        policy.mkdir()
        pods = []
        for namespace, release in ((NAMESPACE, RELEASE), (DRIVER_NAMESPACE, "vendor-driver")):
            text = helm.run("get", "manifest", release, f"--namespace={namespace}")
            for found in objects(text):
                if found["kind"] == "ConfigMap":
                    (policy / "policy.yaml").write_text(found["data"]["policy.yaml"])
            (spec,) = (pod_of(one) for one in objects(text) if one["kind"] == "Deployment")
            own = folder / release
            own.mkdir()
            volumes = {"cosi-socket": driver.socket_path.parent, "cosi-policy": policy}
            pods.append(Pod(plane, own, namespace, spec, volumes))
        text = helm.template(
            both_charts[0], *local, f"--set=metrics.port={ports[4]},healthProbe.port={ports[5]}"
        )
        (spec,) = (pod_of(one) for one in objects(text) if one["kind"] == "Deployment")
        (folder / "standby").mkdir()
        standby = Pod(plane, folder / "standby", NAMESPACE, spec)
        controller = pods[0].start("controller", mounted=mounted)
        sidecar = pods[1].start("cosi-sidecar", mounted=mounted)
        try:
            users = (pods[0].user, pods[1].user)
            yield Cluster(plane, driver, users, ports, controller, sidecar, standby)
        finally:
            controller.stop(grace_s=8)
            sidecar.stop(grace_s=8)


def get(port: int, path: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
        return str(answer.read().decode())


def answers(port: int, path: str) -> bool:
    try:
        return bool(get(port, path))
    except OSError:
        return False


def leads(port: int, value: str = "1.0") -> bool:
    """Whether the process says that it leads, or with "0.0" that it waits for its turn."""
    try:
        lines = get(port, "/metrics").splitlines()
    except OSError:
        return False
    series = "leader_election_master_status{"
    return any(line.startswith(series) and line.endswith(f" {value}") for line in lines)


def test_the_probes_and_metrics_answer_where_the_pod_spec_asks(cluster: Cluster) -> None:
    controller_metrics, controller_health, sidecar_metrics, sidecar_health = cluster.ports[:4]
    for port in (controller_health, sidecar_health):
        for path in ("/healthz", "/readyz"):
            eventually(f"{path} on {port}", partial(answers, port, path))
    for port in (controller_metrics, sidecar_metrics):
        eventually("the process to lead", partial(leads, port))


def test_a_claim_gets_a_bucket_and_an_access_its_keys_and_all_goes_again(cluster: Cluster) -> None:
    job = MainJob(cluster.plane, cluster.driver.name)
    job.ask()
    job.wait_until_granted()
    job.delete()
    counts = cluster.driver.counts()
    for call in (Call.CREATE_BUCKET, Call.GRANT_ACCESS, Call.REVOKE_ACCESS, Call.DELETE_BUCKET):
        assert counts[call] == {"OK": 1}, call


def test_the_policy_file_is_the_one_of_the_values(cluster: Cluster) -> None:
    """Under csi-like a driver's UNAVAILABLE is tried again; under the default it is final."""
    cluster.driver.set_rule(Call.CREATE_BUCKET, code="UNAVAILABLE", times=1)
    job = MainJob(cluster.plane, cluster.driver.name, name="patient")
    job.ask()
    job.wait_until_granted()
    job.delete()


def test_a_second_replica_is_ready_and_takes_over_when_the_first_one_ends(
    cluster: Cluster,
) -> None:
    daemon = cluster.standby.start("controller", mounted=False)
    try:
        metrics, health = cluster.ports[4:]
        eventually("the standby to be ready", partial(answers, health, "/readyz"))
        eventually("the standby to say that it does not lead", partial(leads, metrics, "0.0"))
        cluster.controller.stop(grace_s=8)
        eventually("the standby to lead", partial(leads, metrics))
        job = MainJob(cluster.plane, cluster.driver.name, name="later")
        job.ask()
        job.wait_until_granted()
        job.delete()
    finally:
        daemon.stop(grace_s=8)


def test_no_request_was_forbidden(cluster: Cluster) -> None:
    for user in cluster.users:
        asked = {entry.user for entry in cluster.plane.audit.entries()}
        assert user in asked, f"{user} did nothing"
        assert refused(cluster.plane, user) == []


def test_the_logs_are_json_and_tell_of_no_error(cluster: Cluster) -> None:
    for process in (cluster.controller, cluster.sidecar):
        lines = [json.loads(line) for line in process.log_file.read_text().splitlines()]
        assert lines
        assert [line for line in lines if line["level"] == "error"] == []
