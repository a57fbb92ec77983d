"""What single values of the charts do, and which combinations they refuse."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.chart.test_rendered import COMBINATIONS, container, container_ports, of_kind

from chart_outputs import TESTS, Helm, HelmError, Object, objects


class OnceEachKey(yaml.SafeLoader):
    """Refuses a mapping that has a key twice, which YAML forbids and PyYAML accepts."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"{node.start_mark}: {sorted(keys)}"
        return super().construct_mapping(node, deep)


@pytest.mark.parametrize("values", COMBINATIONS)
def test_no_rendered_object_has_a_key_twice(texts: dict[str, str], values: str) -> None:
    assert list(yaml.load_all(texts[values], OnceEachKey))


OF_THE_CHART = (
    *(f"app.kubernetes.io/{name}" for name in ("name", "instance", "component", "part-of")),
    *("app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart"),
)


@pytest.mark.parametrize(
    "field",
    [
        "commonLabels",
        "podLabels",
        "metrics.serviceMonitor.labels",
        "metrics.prometheusRule.labels",
        "metrics.dashboard.labels",
    ],
)
def test_a_label_of_the_chart_in_a_value_is_refused_with_its_key(
    offline: Helm, operator_chart: Path, field: str
) -> None:
    group = field.rpartition(".")[0]
    for label in OF_THE_CHART:
        settings = [f"--set-string={field}.{label.replace('.', chr(92) + '.')}=x"]
        settings += [f"--set={group}.enabled=true"] if group else []
        with pytest.raises(HelmError) as raised:
            offline.template(operator_chart, *settings)
        assert f"{field}: the chart itself sets the label {label}. Remove" in str(raised.value)


AGGREGATION = "rbac.authorization.k8s.io/aggregate-to-"


def test_every_label_that_the_chart_sets_is_among_the_refused_ones(texts: dict[str, str]) -> None:
    for found in objects(texts["default"]):
        labels = {key for key in found["metadata"]["labels"] if not key.startswith(AGGREGATION)}
        assert labels <= set(OF_THE_CHART)


def test_no_common_label_gives_the_rights_of_the_controller_to_tenants(
    offline: Helm, operator_chart: Path
) -> None:
    label = f"{AGGREGATION}view".replace(".", r"\.")
    with pytest.raises(HelmError, match=r"commonLabels: the label .* would give the rights"):
        offline.template(operator_chart, f"--set-string=commonLabels.{label}=true")


def test_the_more_special_label_wins_over_the_common_one(texts: dict[str, str]) -> None:
    (deployment,) = of_kind(texts["host-network"], "Deployment")
    assert deployment["metadata"]["labels"]["team"] == "storage"
    assert deployment["spec"]["template"]["metadata"]["labels"]["team"] == "buckets"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        pytest.param(
            "metrics.port=8081",
            "metrics.port and healthProbe.port are both 8081. Set one of them to another port.",
            id="metrics and probes on one port -> refused",
        ),
        pytest.param(
            "podDisruptionBudget.minAvailable=1,podDisruptionBudget.maxUnavailable=1",
            'and podDisruptionBudget.maxUnavailable are both set. Set one of them to "".',
            id="both limits of a disruption budget -> refused",
        ),
        pytest.param(
            "podDisruptionBudget.minAvailable=0,podDisruptionBudget.maxUnavailable=0",
            "are both set",
            id="both limits are zero -> refused",
        ),
    ],
)  # fmt: skip
def test_values_that_exclude_each_other_are_refused_with_their_names_and_the_fix(
    offline: Helm, operator_chart: Path, settings: str, words: str
) -> None:
    with pytest.raises(HelmError) as raised:
        offline.template(operator_chart, f"--set={settings}")
    assert words in str(raised.value)


def test_the_port_of_the_probes_can_be_that_of_metrics_that_are_off(
    offline: Helm, operator_chart: Path
) -> None:
    text = offline.template(operator_chart, "--set=metrics.enabled=false,healthProbe.port=8080")
    assert [port["containerPort"] for port in container_ports(text)] == [8080]


@pytest.mark.parametrize(
    ("settings", "limits"),
    [
        ("minAvailable=1", {"minAvailable": 1}),
        ("minAvailable=50%", {"minAvailable": "50%"}),
        ("maxUnavailable=0", {"maxUnavailable": 0}),
        ("maxUnavailable=null", {"maxUnavailable": 1}),
        ("minAvailable=null", {"maxUnavailable": 1}),
    ],
)
def test_a_disruption_budget_has_one_limit(
    offline: Helm, operator_chart: Path, settings: str, limits: Object
) -> None:
    text = offline.template(operator_chart, f"--set=podDisruptionBudget.{settings}")
    (budget,) = of_kind(text, "PodDisruptionBudget")
    del budget["spec"]["selector"]
    assert budget["spec"] == limits


IMAGES = [
    pytest.param("image.registry=", "cosi-operator:0.1.0", id="no registry -> repository alone"),
    pytest.param(
        "image.registry=r.example.com:5000,image.tag=v1",
        "r.example.com:5000/cosi-operator:v1",
        id="registry -> in front of the repository",
    ),
    pytest.param(
        "image.registry=r.example.com,global.imageRegistry=mirror.example.com/all",
        "mirror.example.com/all/cosi-operator:0.1.0",
        id="global registry -> overrides the registry",
    ),
    pytest.param(
        f"global.imageRegistry=mirror.example.com,image.digest=sha256:{'0' * 64}",
        f"mirror.example.com/cosi-operator@sha256:{'0' * 64}",
        id="digest -> after the registry and the repository",
    ),
]


@pytest.mark.parametrize(("settings", "image"), IMAGES)
def test_the_image_is_registry_repository_and_tag(
    offline: Helm, operator_chart: Path, settings: str, image: str
) -> None:
    text = offline.template(operator_chart, f"--set={settings}")
    assert container(text, "controller")["image"] == image


@pytest.mark.parametrize(
    ("settings", "image"),
    [
        pytest.param(
            "cosiSidecar.image.registry=r.example.com",
            "r.example.com/cosi-operator:0.1.0",
            id="registry of the sidecar -> in front of the repository",
        ),
        pytest.param(
            "global.imageRegistry=mirror.example.com,cosiSidecar.image.registry=r.example.com",
            "mirror.example.com/cosi-operator:0.1.0",
            id="global registry of the driver's chart -> overrides the registry",
        ),
        pytest.param(
            "cosiSidecar.global.imageRegistry=mirror.example.com",
            "mirror.example.com/cosi-operator:0.1.0",
            id="global registry below the alias -> used",
        ),
    ],
)
def test_the_image_of_the_sidecar_is_registry_repository_and_tag(
    offline: Helm, driver_chart: Path, settings: str, image: str
) -> None:
    text = offline.template(driver_chart, f"--set={settings}")
    assert container(text, "cosi-sidecar")["image"] == image


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        pytest.param(
            "cosiSidecar.metrics.port=9809",
            "cosiSidecar.metrics.port and cosiSidecar.healthProbe.port are both 9809. Set one of",
            id="metrics and probes of the sidecar on one port -> refused",
        ),
        pytest.param(
            "cosiSidecar.metrics.podMonitor.enabled=true,"
            r"cosiSidecar.metrics.podMonitor.labels.app\.kubernetes\.io/name=x",
            "podMonitor.labels: the chart itself sets the label app.kubernetes.io/name. Remove",
            id="label of the chart on the PodMonitor -> refused",
        ),
    ],
)
def test_values_of_the_sidecar_that_exclude_each_other_are_refused(
    offline: Helm, driver_chart: Path, settings: str, words: str
) -> None:
    with pytest.raises(HelmError) as raised:
        offline.template(driver_chart, f"--set={settings}")
    assert words in str(raised.value)


def test_the_sidecars_monitor_in_another_namespace_selects_the_pods_of_the_release(
    texts: dict[str, str],
) -> None:
    (monitor,) = of_kind(texts["driver-everything"], "PodMonitor")
    (deployment,) = of_kind(texts["driver-everything"], "Deployment")
    assert monitor["metadata"]["namespace"] == "monitoring"
    place = deployment["metadata"]["namespace"]
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": [place]}
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert [one["targetLabel"] for one in endpoint["relabelings"]] == ["cosi_process", "node"]
    assert endpoint["metricRelabelings"][0]["action"] == "drop"
    assert (endpoint["scrapeTimeout"], endpoint["honorLabels"]) == ("30s", True)


def test_a_namespace_override_moves_every_object_and_the_notes(
    offline: Helm, operator_chart: Path, texts: dict[str, str]
) -> None:
    text = offline.template(
        operator_chart, f"--values={TESTS / 'values' / 'everything.yaml'}",
        "--set=namespaceOverride=elsewhere,extraObjects=null,metrics.serviceMonitor.namespace=",
    )  # fmt: skip
    places = {found["metadata"].get("namespace", "") for found in objects(text)}
    assert places == {"", "elsewhere"}
    subjects = [one for found in objects(text) for one in found.get("subjects", [])]
    assert {one["namespace"] for one in subjects if "namespace" in one} == {"elsewhere"}


def test_a_monitor_in_another_namespace_selects_the_service_of_the_release(
    texts: dict[str, str],
) -> None:
    (monitor,) = of_kind(texts["everything"], "ServiceMonitor")
    (service,) = of_kind(texts["everything"], "Service")
    assert monitor["metadata"]["namespace"] == "monitoring"
    assert monitor["spec"]["namespaceSelector"] == {
        "matchNames": [service["metadata"]["namespace"]]
    }
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["relabelings"][0] == {
        "targetLabel": "cosi_process",
        "replacement": "controller",
    }
    assert endpoint["relabelings"][1]["targetLabel"] == "node"
    assert endpoint["metricRelabelings"][0]["action"] == "drop"
    assert (endpoint["scrapeTimeout"], endpoint["honorLabels"]) == ("30s", True)


def test_extra_objects_are_rendered_as_templates(texts: dict[str, str]) -> None:
    names = [found["metadata"]["name"] for found in of_kind(texts["everything"], "ConfigMap")]
    assert "cosi-operator-trust" in names, "from an object"
    assert "cosi-operator-more" in names, "from a string"


def test_pods_in_the_network_of_the_node_resolve_names_of_the_cluster(
    texts: dict[str, str],
) -> None:
    (deployment,) = of_kind(texts["host-network"], "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    assert (pod["hostNetwork"], pod["dnsPolicy"]) == (True, "ClusterFirstWithHostNet")


def test_a_probe_can_be_removed(texts: dict[str, str]) -> None:
    found = container(texts["host-network"], "controller")
    assert {name for name in found if name.endswith("Probe")} == {"livenessProbe", "readinessProbe"}


NEWER_VALUES = (
    "namespaceOverride,global,image.registry,strategy,revisionHistoryLimit,extraVolumes,"
    "extraVolumeMounts,extraObjects,hostNetwork,dnsPolicy,dnsConfig,deploymentAnnotations,"
    "podDisruptionBudget.minAvailable"
)


def test_the_values_of_an_older_release_render_as_before(
    offline: Helm, operator_chart: Path, texts: dict[str, str]
) -> None:
    """`helm upgrade --reuse-values` gives a newer chart the older chart's defaults."""
    lacking = ",".join(f"{name}=null" for name in NEWER_VALUES.split(","))
    text = offline.template(operator_chart, f"--set={lacking}")
    assert text == texts["default"]
