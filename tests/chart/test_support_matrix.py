"""docs/support-matrix.md says what the repository says, and names files that exist."""

import json
import re
import shutil
import tomllib
from pathlib import Path

import pytest
import yaml
from tests.chart.pod import ROOT
from tests.chart.vendors import VENDORS

from chart_outputs import Helm, HelmError
from controlplane.build import pinned_version

PAGE = (ROOT / "docs" / "support-matrix.md").read_text("utf-8")
ROWS = {
    cells[0]: cells[1:]
    for line in PAGE.splitlines()
    if line.startswith("| ") and (cells := [cell.strip() for cell in line.strip("|").split("|")])
}


def pinned(folder: str, module: str) -> str:
    """The version that a go.mod of the control plane pins, without its "v"."""
    text = (ROOT / "hack" / "controlplane" / folder / "go.mod").read_text("utf-8")
    return pinned_version(text, module).removeprefix("v")


def oldest_kubernetes(chart: str) -> str:
    about = yaml.safe_load((ROOT / "charts" / chart / "Chart.yaml").read_text("utf-8"))
    (oldest,) = re.findall(r"^>=(\d+\.\d+)\.0-0$", about["kubeVersion"])
    return str(oldest)


def test_the_versions_of_kubernetes_and_helm_are_those_of_the_charts_and_the_tests() -> None:
    for chart in ("cosi-operator", "cosi-sidecar-lib"):
        assert ROWS["Kubernetes"][0].startswith(f"{oldest_kubernetes(chart)} or newer")
    for name in ("Kubernetes", "kubectl"):
        assert ROWS[name][1] == pinned("kubernetes", "k8s.io/kubernetes")
    assert ROWS["Helm"][1] == pinned("helm", "helm.sh/helm/v3")


def test_the_versions_of_python_are_those_of_the_package_and_the_image() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        required = tomllib.load(file)["project"]["requires-python"].removeprefix(">=")
    name = "Python for `cosi` and the package"
    assert ROWS[name][:2] == [
        f"{required} or newer",
        (ROOT / ".python-version").read_text().strip(),
    ]
    pins = json.loads((ROOT / "hack" / "image" / "interpreter.json").read_text("utf-8"))["packages"]
    in_image = pins["amd64"]["python3.13-minimal"]["version"].partition("-")[0]
    assert ROWS["Python in the image"][:2] == [in_image, in_image]


def test_the_number_of_drivers_is_that_of_the_test() -> None:
    assert f"manifests and roles of {len(VENDORS)} public drivers" in ROWS


def test_an_older_kubernetes_is_refused_and_the_oldest_accepted_one_renders(
    offline: Helm, operator_chart: Path
) -> None:
    oldest = oldest_kubernetes("cosi-operator")
    assert offline.template(operator_chart, f"--kube-version={oldest}.0")
    major, minor = map(int, oldest.split("."))
    with pytest.raises(HelmError, match="chart requires kubeVersion"):
        offline.template(operator_chart, f"--kube-version={major}.{minor - 1}.0")


@pytest.mark.parametrize(
    ("version", "settings", "warned"),
    [
        ("1.26.0", "crds.install=true", True),
        ("1.29.14", "crds.install=true", True),
        ("1.29.14", "crds.install=false", False),
        ("1.30.0", "crds.install=true", False),
    ],
)
def test_the_notes_say_what_a_cluster_cannot_do_with_the_crds(
    offline: Helm, operator_chart: Path, tmp_path: Path, version: str, settings: str, warned: bool
) -> None:
    chart = shutil.copytree(operator_chart, tmp_path / "chart")
    # `helm template` renders everything but the notes.
    (chart / "templates" / "NOTES.txt").rename(chart / "notes")
    (chart / "templates" / "n.yaml").write_text('notes: {{ tpl (.Files.Get "notes") . | quote }}')
    told = offline.template(
        chart, f"--kube-version={version}", f"--set={settings}", "--show-only=templates/n.yaml"
    )
    assert ("older than 1.30" in told) is warned


def test_every_named_file_exists() -> None:
    names = re.findall(
        r"`((?:charts|deploy|hack|tests)/[^`]+|pyproject\.toml|\.python-version)`", PAGE
    )
    assert names
    assert [name for name in names if not (ROOT / name).exists()] == []
