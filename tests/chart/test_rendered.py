"""The charts as text: what they render to, what they refuse, and that nothing has drifted."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from chart_outputs import TESTS, Helm, HelmError, Object, made, objects, without_helm
from controlplane.build import find
from cosi_operator.flags import parse_controller, parse_sidecar
from cosi_operator.settings import LaneScope, LogLevel

ROOT = TESTS.parents[1]
COMBINATIONS = sorted(path.stem for path in (TESTS / "values").glob("*.yaml"))
FILES = ROOT / "charts" / "cosi-operator" / "files"
KEEP = "helm.sh/resource-policy"


def of_kind(text: str, kind: str) -> list[Object]:
    return [found for found in objects(text) if found["kind"] == kind]


def container(text: str, name: str) -> Object:
    (deployment,) = of_kind(text, "Deployment")
    found = deployment["spec"]["template"]["spec"]["containers"]
    return next(one for one in found if one["name"] == name)


def test_golden_files_and_the_controller_of_deploy_are_what_the_charts_render(
    directory: Path,
) -> None:
    stale = [
        str(file.relative_to(ROOT))
        for file, text in made(directory).items()
        if not file.exists() or file.read_text("utf-8") != text
    ]
    assert stale == [], "run hack/update-chart-outputs, and read the diff"
    assert {path.stem for path in (TESTS / "golden").glob("*.yaml")} == set(COMBINATIONS)


@pytest.mark.parametrize("values", COMBINATIONS)
def test_the_charts_pass_lint_in_its_strict_form(
    offline: Helm, both_charts: tuple[Path, Path], values: str
) -> None:
    chart = both_charts[values.startswith("driver-")]
    offline.run("lint", "--strict", str(chart), f"--values={TESTS / 'values' / values}.yaml")


def comparable(found: Object) -> Object:
    """An object without the labels that tell who installed it, and without a CRD's protection."""
    without_helm(found)
    meta = found["metadata"]
    labels = meta.pop("labels", {})
    kept = {key: text for key, text in labels.items() if key.endswith(("/name", "/component"))}
    if found["kind"] != "CustomResourceDefinition":
        meta["labels"] = kept
    meta.get("annotations", {}).pop(KEEP, None)
    return found


def by_name(found: list[Object]) -> dict[tuple[str, str], Object]:
    return {(one["kind"], one["metadata"]["name"]): comparable(one) for one in found}


def test_kustomize_makes_the_same_objects_as_the_chart(texts: dict[str, str]) -> None:
    done = subprocess.run(
        [str(find("kubectl")), "kustomize", str(ROOT / "deploy")],
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    kustomized = by_name(objects(done.stdout))
    # helm makes the namespace by itself: --create-namespace
    del kustomized["Namespace", "container-object-storage-system"]
    assert kustomized == by_name(objects(texts["default"]))


def test_the_crds_stay_when_the_chart_goes_and_are_those_of_deploy(texts: dict[str, str]) -> None:
    found = of_kind(texts["default"], "CustomResourceDefinition")
    assert len(found) == 5
    assert {one["metadata"]["annotations"][KEEP] for one in found} == {"keep"}
    ours = [yaml.safe_load(path.read_text()) for path in (ROOT / "deploy" / "crds").glob("*")]
    assert by_name(found) == by_name(ours)


def test_crds_are_left_to_others_when_asked(texts: dict[str, str]) -> None:
    assert of_kind(texts["least"], "CustomResourceDefinition") == []


def rules_of_deploy(kind: str) -> Any:
    found = yaml.safe_load_all((ROOT / "deploy" / "rbac" / "sidecar.yaml").read_text())
    return next(one["rules"] for one in found if one["kind"] == kind)


def test_the_librarys_roles_are_those_of_deploy(texts: dict[str, str]) -> None:
    for kind in ("ClusterRole", "Role"):
        (role,) = of_kind(texts["driver-default"], kind)
        assert role["rules"] == rules_of_deploy(kind)


def test_a_driver_can_bind_a_clusterrole_that_stands_already(texts: dict[str, str]) -> None:
    text = texts["driver-everything"]
    assert of_kind(text, "ClusterRole") == []
    (binding,) = of_kind(text, "ClusterRoleBinding")
    assert binding["roleRef"]["name"] == "cosi-operator-sidecar"
    (made_by_the_operator,) = (
        role
        for role in of_kind(texts["default"], "ClusterRole")
        if role["metadata"]["name"] == binding["roleRef"]["name"]
    )
    assert made_by_the_operator["rules"] == rules_of_deploy("ClusterRole")


@pytest.mark.parametrize("values", COMBINATIONS)
def test_every_argument_is_a_flag_that_the_process_knows_and_uses(
    texts: dict[str, str], values: str
) -> None:
    if values.startswith("driver-"):
        found = container(texts[values], "cosi-sidecar")
        assert found["command"] == ["/sidecar"]
        sidecar = parse_sidecar(found["args"], {})
        assert sidecar.notes == ()
    else:
        found = container(texts[values], "controller")
        assert found["command"] == ["/controller"]
        controller = parse_controller(found["args"], {})
        assert controller.notes == ()


def test_values_reach_the_sidecar_as_its_flags_take_them(texts: dict[str, str]) -> None:
    found = container(texts["driver-everything"], "cosi-sidecar")
    settings = parse_sidecar(found["args"], {}).settings
    assert settings.driver_address == "unix:///run/cosi/cosi.sock"
    assert settings.secret_extra_keys is False
    assert settings.serialize_access_calls is LaneScope.BUCKET
    assert settings.retry_policy == "csi-like"
    assert settings.retry_overrides == (
        "UNKNOWN=requeue",
        "DriverCreateBucket:ALREADY_EXISTS=terminal",
    )
    mounts = {mount["name"]: mount["mountPath"] for mount in found["volumeMounts"]}
    assert mounts["cosi-socket"] == "/run/cosi"
    assert settings.retry_policy_file == f"{mounts['cosi-policy']}/policy.yaml"
    assert (settings.terminal_recheck_s, settings.deletion_recheck_s) == (3600.0, 600.0)


def test_a_changed_policy_file_makes_new_pods(offline: Helm, driver_chart: Path) -> None:
    def annotations(text: str) -> Any:
        (found,) = of_kind(text, "Deployment")
        return found["spec"]["template"]["metadata"]["annotations"]

    policy = "--set-string=cosiSidecar.retryPolicyFile=profile: "
    seen = [
        annotations(offline.template(driver_chart, f"{policy}{profile}"))
        for profile in ("csi-like", "csi-like", "cosi-spec")
    ]
    assert seen[0] == seen[1] != seen[2]


@pytest.mark.parametrize(
    ("driver", "setting", "words"),
    [
        (False, "replicaCout=3", "'replicaCout' not allowed"),
        (False, "metrics.servicMonitor.enabled=true", "'servicMonitor' not allowed"),
        (False, "metrics.serviceMonitor.enable=true", "'enable' not allowed"),
        (False, "image.repo=x", "'repo' not allowed"),
        (False, "crds.instal=false", "'instal' not allowed"),
        (False, "resources.limit.memory=1Gi", "'limit' not allowed"),
        (False, "securityContext.readOnlyRootFilesytem=true", "'readOnlyRootFilesytem' not"),
        (False, "retryPolicy=csi-like", "'retryPolicy' not allowed"),
        (False, "replicaCount=two", "'/replicaCount'"),
        (False, "logLevel=verbose", "'/logLevel'"),
        (False, "metrics.port=0", "'/metrics/port'"),
        (True, "cosiSidecar.deletionRecheckInterval=10", "'/deletionRecheckInterval'"),
        (False, "image.digest=latest", "'/image/digest'"),
        (True, "cosiSidecar.retryPolcy=csi-like", "'retryPolcy' not allowed"),
        (True, "cosiSidecar.retryPolicy=csi", "'/retryPolicy'"),
        (True, "cosiSidecar.serializeAccessCalls=pod", "'/serializeAccessCalls'"),
        (True, "cosiSidecar.retryOverrides={UNKNOWN=retry}", "'/retryOverrides/0'"),
        (True, "cosiSidecar.metrics.podMonitr.enabled=true", "'podMonitr' not allowed"),
        (True, "cosiSidecar.socketDir=cosi", "'/socketDir'"),
    ],
)
def test_a_wrong_value_is_refused_and_its_key_is_named(
    offline: Helm, both_charts: tuple[Path, Path], driver: bool, setting: str, words: str
) -> None:
    with pytest.raises(HelmError) as raised:
        offline.template(both_charts[driver], f"--set={setting}")
    assert words in str(raised.value)


@pytest.mark.parametrize("chart", ["cosi-operator", "cosi-sidecar-lib"])
def test_the_charts_take_every_level_that_the_processes_take(chart: str) -> None:
    schema = json.loads((ROOT / "charts" / chart / "values.schema.json").read_text())
    assert schema["properties"]["logLevel"]["enum"] == list(LogLevel)


def test_every_key_of_both_charts_is_checked() -> None:
    for chart in ("cosi-operator", "cosi-sidecar-lib"):
        schema = json.loads((ROOT / "charts" / chart / "values.schema.json").read_text())
        open_ones = [path for path, node in nodes(schema, "") if open_object(node)]
        assert set(open_ones) <= {"/properties/global"}, (
            f"{chart}: only global is shared with others"
        )


def nodes(node: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        yield path, node
        for key, below in node.items():
            yield from nodes(below, f"{path}/{key}")


def open_object(node: dict[str, Any]) -> bool:
    """Fields are named, but others pass too."""
    fields = node.get("properties")
    return isinstance(fields, dict) and node.get("additionalProperties") is not False


def test_a_monitor_without_metrics_is_refused(offline: Helm, operator_chart: Path) -> None:
    with pytest.raises(HelmError, match="there is nothing to scrape"):
        offline.template(
            operator_chart,
            "--set=metrics.enabled=false",
            "--set=metrics.serviceMonitor.enabled=true",
        )


def test_a_driver_that_forgot_the_alias_is_told_so(
    offline: Helm, driver_chart: Path, tmp_path: Path
) -> None:
    text = (driver_chart / "Chart.yaml").read_text()
    subprocess.run(["cp", "-r", str(driver_chart), str(tmp_path / "driver")], check=True)
    (tmp_path / "driver" / "Chart.yaml").write_text(text.replace("    alias: cosiSidecar\n", ""))
    (tmp_path / "driver" / "values.yaml").write_text("driverImage: x\n")
    with pytest.raises(HelmError, match="alias: cosiSidecar"):
        offline.template(tmp_path / "driver")


def test_the_dashboard_is_json_in_the_configmap(texts: dict[str, str]) -> None:
    (found,) = (
        one
        for one in of_kind(texts["everything"], "ConfigMap")
        if "dashboard" in str(one["metadata"])
    )
    assert json.loads(found["data"]["cosi-operator.json"])["panels"]


def test_by_default_only_prometheus_reaches_the_controller_and_only_its_metrics(
    texts: dict[str, str],
) -> None:
    (policy,) = of_kind(texts["default"], "NetworkPolicy")
    (deployment,) = of_kind(texts["default"], "Deployment")
    assert policy["spec"]["podSelector"] == deployment["spec"]["selector"]
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    (rule,) = policy["spec"]["ingress"]
    ports = {port["name"]: port["containerPort"] for port in container_ports(texts["default"])}
    assert [port["port"] for port in rule["ports"]] == [ports["metrics"]]
    assert [sorted(peer) for peer in rule["from"]] == [
        ["namespaceSelector", "podSelector"],
        ["namespaceSelector"],
    ]


def container_ports(text: str) -> list[Object]:
    ports: list[Object] = container(text, "controller")["ports"]
    return ports


def test_a_policy_can_be_turned_off_opened_and_given_egress_rules(texts: dict[str, str]) -> None:
    assert of_kind(texts["least"], "NetworkPolicy") == []
    (opened,) = of_kind(texts["names"], "NetworkPolicy")
    assert "from" not in opened["spec"]["ingress"][0]
    (strict,) = of_kind(texts["everything"], "NetworkPolicy")
    assert strict["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert len(strict["spec"]["ingress"]) == 2
    assert {"ports": [{"port": 3128}]} in strict["spec"]["egress"]
