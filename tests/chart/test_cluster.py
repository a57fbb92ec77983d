"""The charts on a real API server: manifests, install, upgrade, roll back, uninstall."""

import http.client
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.chart.flow import eventually
from tests.chart.pod import Pod, free_ports, pod_of
from tests.chart.test_rendered import COMBINATIONS

from chart_outputs import NAMESPACE, RELEASE, TESTS, Helm, HelmError, Object, objects
from controlplane import ApiError, ControlPlane, KubectlError
from cosi_operator.api.resources import BUCKET_CLAIMS, GROUP

ROOT = TESTS.parents[1]
UPSTREAM_CRDS = ROOT / "tests" / "support" / "upstream_crds"
IN_NAMESPACE = (f"--namespace={NAMESPACE}", "--create-namespace")

# Kinds of the Prometheus operator by name only: anything goes in their spec.
STAND_IN = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: {plural}.monitoring.coreos.com}}
spec:
  group: monitoring.coreos.com
  scope: Namespaced
  names: {{kind: {kind}, plural: {plural}}}
  versions:
    - name: v1
      served: true
      storage: true
      schema:
        openAPIV3Schema:
          type: object
          properties: {{spec: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}
"""
STAND_INS = {
    "ServiceMonitor": "servicemonitors",
    "PodMonitor": "podmonitors",
    "PrometheusRule": "prometheusrules",
}


@pytest.fixture(scope="module")
def monitored(plane: ControlPlane) -> ControlPlane:
    """A cluster that knows the Prometheus operator's kinds, and the namespaces of the values."""
    plane.apply(
        "---".join(STAND_IN.format(kind=kind, plural=plural) for kind, plural in STAND_INS.items())
    )
    for namespace in (NAMESPACE, "monitoring"):
        plane.run_kubectl("create", "namespace", namespace)
    return plane


def dry_run(plane: ControlPlane, text: str) -> str:
    return plane.run_kubectl(
        "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", input=text
    )


@pytest.mark.parametrize("values", COMBINATIONS)
def test_every_manifest_is_accepted_to_the_last_field(
    monitored: ControlPlane, offline: Helm, both_charts: tuple[Path, Path], values: str
) -> None:
    chart = both_charts[values.startswith("driver-")]
    text = offline.template(chart, f"--values={TESTS / 'values' / values}.yaml")
    accepted = dry_run(monitored, text).splitlines()
    assert len(accepted) == len(objects(text))


def test_a_field_that_nobody_knows_would_be_noticed(
    monitored: ControlPlane, offline: Helm, operator_chart: Path
) -> None:
    text = offline.template(operator_chart).replace("readinessProbe:", "readynessProbe:")
    with pytest.raises(KubectlError, match="readynessProbe"):
        dry_run(monitored, text)


@pytest.mark.parametrize(
    ("driver", "settings"),
    [(False, ()), (True, ("--set=cosiSidecar.metrics.podMonitor.enabled=false",))],
    ids=["operator", "driver"],
)
def test_the_pods_meet_the_restricted_security_standard(
    monitored: ControlPlane,
    offline: Helm,
    both_charts: tuple[Path, Path],
    driver: bool,
    settings: tuple[str, ...],
) -> None:
    """The example driver's own container is taken out: only the sidecar is ours."""
    name = "restricted-driver" if driver else "restricted-operator"
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    monitored.api.call("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": label}})
    text = offline.template(both_charts[driver], *settings)
    (deployment,) = (found for found in objects(text) if found["kind"] == "Deployment")
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    spec["containers"] = [one for one in spec["containers"] if one["name"] != "driver"]
    path = f"/api/v1/namespaces/{name}/pods?dryRun=All"
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}
    monitored.api.call("POST", path, pod)
    spec["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    with pytest.raises(ApiError, match="restricted"):
        monitored.api.call("POST", path, pod)


PROBES = ("startup", "liveness", "readiness")
CLAIM = """
apiVersion: objectstorage.k8s.io/v1alpha1
kind: BucketClaim
metadata: {name: mine, namespace: default}
spec: {protocols: [S3], bucketClassName: gold}
"""


def deployment(plane: ControlPlane) -> Any:
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/cosi-operator-controller"
    return plane.api.call("GET", path)


def crds(plane: ControlPlane) -> list[Object]:
    found = plane.api.call("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions")
    return [crd for crd in found["items"] if crd["spec"]["group"] == GROUP]


def released(plane: ControlPlane) -> list[str]:
    """Every object that says it belongs to the release, but for CRDs and Helm's own record."""
    kinds = "deployments,services,pdb,serviceaccounts,roles,rolebindings,clusterroles"
    listed = plane.run_kubectl(
        "get", f"{kinds},clusterrolebindings,configmaps,networkpolicies", "--all-namespaces",
        "--selector=app.kubernetes.io/managed-by=Helm", "--output=name",
    )  # fmt: skip
    return listed.split()


def test_install_upgrade_roll_back_and_uninstall_keep_what_users_made(
    tmp_path_factory: pytest.TempPathFactory, operator_chart: Path
) -> None:
    with ControlPlane.start(tmp_path_factory.mktemp("life")) as plane:
        helm = Helm(plane.directory / "helm", plane.admin_kubeconfig)
        chart = str(operator_chart)
        told = helm.run("install", RELEASE, chart, *IN_NAMESPACE)
        assert "image cosi-operator:0.1.0 names no registry" in told, (
            "NOTES.txt says what is missing"
        )
        assert "Next:" in told
        assert len(crds(plane)) == 5
        plane.apply(CLAIM)

        helm.run("upgrade", RELEASE, chart, *IN_NAMESPACE, "--set=replicaCount=3,image.tag=v2")
        spec = deployment(plane)["spec"]
        assert spec["replicas"] == 3
        assert spec["template"]["spec"]["containers"][0]["image"] == "cosi-operator:v2"

        helm.run("rollback", RELEASE, "1", f"--namespace={NAMESPACE}")
        assert deployment(plane)["spec"]["replicas"] == 2

        # Turning the CRDs off removes them from the release, but not from the cluster.
        helm.run("upgrade", RELEASE, chart, *IN_NAMESPACE, "--set=crds.install=false")
        assert len(crds(plane)) == 5
        helm.run("upgrade", RELEASE, chart, *IN_NAMESPACE, "--reset-values")

        told = helm.run("uninstall", RELEASE, f"--namespace={NAMESPACE}")
        assert "buckets.objectstorage.k8s.io" in told, "it says what it keeps"
        assert released(plane) == []
        assert len(crds(plane)) == 5
        assert plane.run_kubectl("get", "bucketclaim", "mine", "--output=name")

        helm.run("install", RELEASE, chart, *IN_NAMESPACE)  # takes up the CRDs that stayed
        assert plane.run_kubectl("get", "bucketclaim", "mine", "--output=name")


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        ("image.tag=v2", True),
        ("image.registry=r.example.com", False),
        ("global.imageRegistry=r.example.com", False),
        ("image.repository=localhost:5000/cosi-operator", False),
    ],
)
def test_the_notes_warn_of_an_image_without_a_registry(
    monitored: ControlPlane, helm: Helm, operator_chart: Path, settings: str, warned: bool
) -> None:
    told = helm.run(
        "install", "notes", str(operator_chart), *IN_NAMESPACE, "--dry-run=client",
        "--take-ownership", f"--set={settings}",
    )  # fmt: skip
    assert ("names no registry" in told) is warned


def test_crds_that_kubectl_installed_are_taken_over_when_asked(
    tmp_path_factory: pytest.TempPathFactory, operator_chart: Path
) -> None:
    with ControlPlane.start(tmp_path_factory.mktemp("upstream")) as plane:
        helm = Helm(plane.directory / "helm", plane.admin_kubeconfig)
        plane.apply(UPSTREAM_CRDS)
        plane.apply(CLAIM)
        before = plane.api.call("GET", BUCKET_CLAIMS.path("default", "mine"))
        with pytest.raises(HelmError, match="invalid ownership metadata"):
            helm.run("install", RELEASE, str(operator_chart), *IN_NAMESPACE)
        helm.run("install", RELEASE, str(operator_chart), *IN_NAMESPACE, "--take-ownership")
        after = plane.api.call("GET", BUCKET_CLAIMS.path("default", "mine"))
        assert (after["metadata"]["uid"], after["spec"]) == (
            before["metadata"]["uid"],
            before["spec"],
        )
        ours = yaml.safe_load((ROOT / "deploy" / "crds" / "bucketclaims.yaml").read_text())
        (crd,) = (one for one in crds(plane) if one["spec"]["names"]["plural"] == "bucketclaims")
        (version,), (our_version,) = crd["spec"]["versions"], ours["spec"]["versions"]
        assert json.dumps(version["schema"], sort_keys=True) == json.dumps(
            our_version["schema"], sort_keys=True
        )
        helm.run("uninstall", RELEASE, f"--namespace={NAMESPACE}")
        assert plane.run_kubectl("get", "bucketclaim", "mine", "--output=name")


def answer(port: int, path: str, timeout_s: float = 2) -> str:
    """The body of a response, whatever the status; "" if no process listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    except OSError:
        return ""
    finally:
        connection.close()


def test_without_crds_the_controller_waits_and_goes_on_by_itself_once_they_are_there(
    monitored: ControlPlane, helm: Helm, operator_chart: Path, tmp_path: Path
) -> None:
    metrics, health = free_ports(2)
    helm.run(
        "install", RELEASE, str(operator_chart), *IN_NAMESPACE, "--set=crds.install=false",
        f"--set=metrics.host=127.0.0.1,metrics.port={metrics}",
        f"--set=healthProbe.host=127.0.0.1,healthProbe.port={health}",
    )  # fmt: skip
    spec = pod_of(deployment(monitored))
    daemon = Pod(monitored, tmp_path, NAMESPACE, spec).start("controller", mounted=False)
    try:
        waiting = "waiting for the API server\n"
        paths = {kind: spec["containers"][0][f"{kind}Probe"]["httpGet"]["path"] for kind in PROBES}
        eventually("it to wait", lambda: answer(health, paths["readiness"]) == waiting)
        for kind in ("startup", "liveness"):  # the first holds its answer for some seconds
            timeout_s = spec["containers"][0][f"{kind}Probe"]["timeoutSeconds"]
            text = answer(health, paths[kind], timeout_s)
            assert text == "ok\n", f"{kind}: a restart would not help"
        monitored.apply(ROOT / "deploy" / "crds")
        eventually("it to be ready", lambda: answer(health, paths["readiness"]) == "ok\n")
    finally:
        daemon.stop(grace_s=8)
