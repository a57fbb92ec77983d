"""Our sidecar in the place of the Go one: a vendor's own arguments, environment, mounts and role.

Upstream's CRDs are there, unchanged. Each vendor has a namespace of its own, and one mock driver
serves them all, one after the other.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.chart.flow import MainJob, eventually, refused
from tests.chart.pod import ROOT, Pod, can_mount
from tests.chart.vendors import LEAST, VENDORS, Vendor, rights

from chart_outputs import Object
from controlplane import ControlPlane
from cosi_operator.outcome import Call
from mockdriver.client import MockDriver

SYSTEM = "container-object-storage-system"
VALUE_FROM = {"fieldRef": {"fieldPath": "metadata.namespace"}}


@dataclass(frozen=True, slots=True)
class World:
    plane: ControlPlane
    driver: MockDriver
    directory: Path
    mounted: bool


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Upstream's CRDs, our controller under its own role, a driver; no sidecar."""
    folder = tmp_path_factory.mktemp("swap")
    with (
        ControlPlane.start(tmp_path_factory.mktemp("plane")) as plane,
        MockDriver.start(tmp_path_factory.mktemp("driver")) as driver,
    ):
        plane.apply(ROOT / "tests" / "support" / "upstream_crds")
        plane.apply(ROOT / "deploy" / "namespace.yaml")
        plane.apply(ROOT / "deploy" / "rbac" / "controller.yaml")
        controller = controller_pod(plane, folder).start("controller", mounted=False)
        try:
            yield World(plane, driver, folder, can_mount(folder))
        finally:
            controller.stop(grace_s=8)


def controller_pod(plane: ControlPlane, folder: Path) -> Pod:
    """The controller as of deploy/, but without its ports: tests listen on loopback only."""
    env = [{"name": "POD_NAMESPACE", "valueFrom": VALUE_FROM}]
    container = {"name": "controller", "command": ["/controller"], "env": env}
    spec = {"serviceAccountName": "cosi-operator-controller", "containers": [container]}
    return Pod(plane, folder, SYSTEM, spec)


def role(vendor: Vendor) -> list[Object]:
    """The vendor's rights as a ClusterRole for the account `sidecar` of the vendor's namespace."""
    rules = [
        {"apiGroups": [group], "resources": resources.split(), "verbs": verbs.split()}
        for group, resources, verbs in vendor.rules
    ]
    api = "rbac.authorization.k8s.io"
    meta = {"name": f"{vendor.name}-sidecar"}
    return [
        {"apiVersion": f"{api}/v1", "kind": "ClusterRole", "metadata": meta, "rules": rules},
        {
            "apiVersion": f"{api}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": meta["name"]},
            "subjects": [{"kind": "ServiceAccount", "name": "sidecar", "namespace": vendor.name}],
        },
    ]


def spec(vendor: Vendor) -> Object:
    """The pod spec, as far as the sidecar is concerned."""
    return {
        "serviceAccountName": "sidecar",
        "volumes": [{"name": "socket", "emptyDir": {}}],
        "containers": [
            {
                "name": "sidecar",
                "args": list(vendor.args),
                "env": [
                    {"name": name, "valueFrom": VALUE_FROM}
                    if value is None
                    else {"name": name, "value": value}
                    for name, value in vendor.env
                ],
                "volumeMounts": [{"name": "socket", "mountPath": "/var/lib/cosi"}],
            }
        ],
    }


def started(world: World, vendor: Vendor) -> Pod:
    folder = world.directory / vendor.name
    folder.mkdir()
    world.plane.token_for(vendor.name, "sidecar")  # makes namespace and account
    for found in role(vendor):
        path = f"/apis/rbac.authorization.k8s.io/v1/{found['kind'].lower()}s"
        world.plane.api.call("POST", path, found)
    world.driver.reset()
    volumes = {"socket": world.driver.socket_path.parent}
    return Pod(world.plane, folder, vendor.name, spec(vendor), volumes)


@pytest.mark.parametrize("vendor", [*VENDORS, LEAST], ids=lambda vendor: vendor.name)
def test_under_a_vendors_own_manifest_the_main_job_works_and_nothing_is_forbidden(
    world: World, vendor: Vendor
) -> None:
    pod = started(world, vendor)
    sidecar = pod.start("sidecar", mounted=world.mounted)
    try:
        job = MainJob(world.plane, world.driver.name, name=f"team-{vendor.name}")
        job.ask()
        job.wait_until_granted()
        lease = f"/apis/coordination.k8s.io/v1/namespaces/{vendor.name}/leases/"
        lease += f"{world.driver.name.replace('.', '-')}-cosi"
        assert world.plane.api.call("GET", lease)["spec"]["holderIdentity"]
        assert tolerable(vendor, refused(world.plane, pod.user))
        if vendor.can_delete_secrets:
            job.delete()
            assert tolerable(vendor, refused(world.plane, pod.user))
        else:
            stays_until_the_secret_may_go(world, pod, job)
        assert sidecar.is_running
        calls = (Call.CREATE_BUCKET, Call.GRANT_ACCESS, Call.REVOKE_ACCESS, Call.DELETE_BUCKET)
        counts = world.driver.counts()
        if not vendor.can_delete_secrets:  # a try to delete the Secret begins with a Revoke
            counts[Call.REVOKE_ACCESS] = dict.fromkeys(counts[Call.REVOKE_ACCESS], 1)
        assert [counts[call] for call in calls] == [{"OK": 1}] * 4
    finally:
        sidecar.stop(grace_s=8)


def tolerable(vendor: Vendor, forbidden: list[str]) -> bool:
    """Nothing; but where Events can't be updated, one try is needed to learn that."""
    if "update" in rights(vendor.rules).get(("", "events"), {"update"}):
        return forbidden == []
    return len(forbidden) <= 1 and all("/events/" in what for what in forbidden)


def stays_until_the_secret_may_go(world: World, pod: Pod, job: MainJob) -> None:
    """A role without deleting Secrets: the deletion waits, and goes on once it may."""
    world.plane.run_kubectl(
        "delete", "bucketaccess", "access", f"--namespace={job.name}", "--wait=false"
    )
    eventually("the deletion to be refused", lambda: refused(world.plane, pod.user) != [])
    assert job.access()["metadata"]["finalizers"], "nothing is let go of that still stands"
    more = ("", "secrets", "delete")
    wider = Vendor(f"{pod.namespace}-more", "", (more,))
    for found in role(wider):
        found.get("subjects", [{}])[0]["namespace"] = pod.namespace
        path = f"/apis/rbac.authorization.k8s.io/v1/{found['kind'].lower()}s"
        world.plane.api.call("POST", path, found)
    job.delete()
