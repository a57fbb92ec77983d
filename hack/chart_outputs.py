"""What the charts render to: golden files for the tests, and two files for kustomize.

tests/chart/values/NAME.yaml gives tests/chart/golden/NAME.yaml; a name that begins with `driver-`
is for the example driver, all others are for the operator's chart. deploy/controller.yaml and
deploy/rbac/tenants.yaml are what the operator's chart renders with default values, without Helm's
own labels.

Usage: chart_outputs.py   writes them all; needs the built helm. tests/chart/ compares.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from controlplane.build import find

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests" / "chart"
NAMESPACE = "container-object-storage-system"
RELEASE = "cosi-operator"
TIMEOUT_S = 60.0

HELMS_LABELS = ("helm.sh/chart", "app.kubernetes.io/managed-by")
"""Labels about the installation by Helm; the files in deploy/ do not have them."""

WORKLOAD = ("Deployment", "NetworkPolicy", "PodDisruptionBudget", "Service")
TENANT = "tenant"
"""The component of the roles for tenants."""
HEADER = "# Made by hack/update-chart-outputs from charts/cosi-operator: do not edit.\n"

type Object = dict[str, Any]


class HelmError(Exception):
    """helm ended with an error; the message is what it wrote to stderr."""


class Helm:
    """Runs helm without the user's configuration: its folders are in `home`."""

    def __init__(self, home: Path, kubeconfig: Path | None = None) -> None:
        self._program = find("helm")
        self.environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HELM_CACHE_HOME": str(home / "cache"),
            "HELM_CONFIG_HOME": str(home / "config"),
            "HELM_DATA_HOME": str(home / "data"),
            "KUBECACHEDIR": str(home / "kubectl-cache"),
            "KUBECONFIG": str(kubeconfig or home / "no-kubeconfig"),
        }

    def run(self, *arguments: str) -> str:
        """Run helm and return its standard output.

        Raises:
            HelmError: it ended with an error.
            subprocess.TimeoutExpired: it took more than 60 s.
        """
        done = subprocess.run(
            [str(self._program), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise HelmError(done.stderr)
        return done.stdout

    def template(self, chart: Path, *arguments: str) -> str:
        """Render a chart as the release that the documents install."""
        return self.run("template", RELEASE, str(chart), f"--namespace={NAMESPACE}", *arguments)


def charts(directory: Path, helm: Helm) -> tuple[Path, Path]:
    """The operator's chart, and a copy of the example driver's with its dependency beside it."""
    for part in ("charts", "tests/chart/example-driver"):
        shutil.copytree(ROOT / part, directory / part, dirs_exist_ok=True)
    driver = directory / "tests" / "chart" / "example-driver"
    helm.run("dependency", "update", str(driver))
    return ROOT / "charts" / "cosi-operator", driver


def objects(text: str) -> list[Object]:
    """The objects of a rendered text, empty documents left out."""
    return [found for found in yaml.safe_load_all(text) if found]


def rendered(directory: Path, helm: Helm) -> Mapping[str, str]:
    """What each file of tests/chart/values renders to, by its name without the ending."""
    operator, driver = charts(directory, helm)
    return {
        values.stem: helm.template(
            driver if values.stem.startswith("driver-") else operator, f"--values={values}"
        )
        for values in sorted((TESTS / "values").glob("*.yaml"))
    }


def golden(text: str) -> str:
    """A rendered text without the CRDs, which are compared with deploy/crds elsewhere."""
    kept = []
    for document in text.removeprefix("---\n").split("\n---\n"):
        found = yaml.safe_load(document)
        if found and found["kind"] == "CustomResourceDefinition":
            kept.append(f"# CustomResourceDefinition {found['metadata']['name']}: see deploy/crds")
        elif found:
            kept.append(document.rstrip("\n"))
    return "---\n" + "\n---\n".join(kept) + "\n"


def without_helm(found: Object) -> Object:
    """An object without Helm's own labels, also those of its pods."""
    pods = found.get("spec", {}).get("template", {}).get("metadata", {})
    for labels in (found["metadata"].get("labels"), pods.get("labels")):
        for label in HELMS_LABELS if labels else ():
            labels.pop(label, None)
    return found


def manifest(found: Iterable[Object]) -> str:
    """Objects of the chart as a file of deploy/."""
    plain = [without_helm(one) for one in found]
    return HEADER + yaml.safe_dump_all(plain, sort_keys=False, width=1000)


def workload(text: str) -> str:
    """deploy/controller.yaml, from what the chart renders with default values."""
    return manifest(one for one in objects(text) if one["kind"] in WORKLOAD)


def tenants(text: str) -> str:
    """deploy/rbac/tenants.yaml, from what the chart renders with default values."""
    component = "app.kubernetes.io/component"
    return manifest(
        one for one in objects(text) if one["metadata"]["labels"].get(component) == TENANT
    )


def made(directory: Path) -> Mapping[Path, str]:
    """The content of every file that is generated from the charts, by path."""
    texts = rendered(directory, Helm(directory))
    files = {TESTS / "golden" / f"{name}.yaml": golden(text) for name, text in texts.items()}
    files[ROOT / "deploy" / "controller.yaml"] = workload(texts["default"])
    files[ROOT / "deploy" / "rbac" / "tenants.yaml"] = tenants(texts["default"])
    return files


def main() -> int:
    with tempfile.TemporaryDirectory() as directory:
        files = made(Path(directory))
    for old in (TESTS / "golden").glob("*.yaml"):
        if old not in files:
            old.unlink()
    for file, text in files.items():
        file.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
