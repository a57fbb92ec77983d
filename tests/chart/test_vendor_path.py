"""The README of cosi-sidecar-lib: a vendor who has nothing else gets from it to a ready claim.

Every command runs as it stands, in an empty folder, with the charts in a registry on loopback.
Containers run as the pod specs say, but without their ports, since other tests run beside this one.
"""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.chart.flow import eventually
from tests.chart.pod import ROOT, Pod, pod_of
from tests.chart.test_documents import commands
from tests.support.registry import registry

from chart_outputs import NAMESPACE, RELEASE, Helm, Object, objects
from controlplane import ControlPlane
from controlplane.build import find
from mockdriver.client import MockDriver

pytestmark = pytest.mark.timeout(180)  # the first run on a machine builds crane

README = ROOT / "charts" / "cosi-sidecar-lib" / "README.md"
PUBLISHED = "oci://registry.example.com/charts"
DRIVER = "my-driver.example.com"
TIMEOUT_S = 90.0


@dataclass(frozen=True, slots=True)
class Vendor:
    """A vendor's folder and cluster."""

    plane: ControlPlane
    helm: Helm
    folder: Path
    charts: str

    def run(self, typed: list[str]) -> str:
        """Run commands in one shell; returns what they print."""
        script = "\n".join(["set -euo pipefail", *typed]).replace(PUBLISHED, self.charts)
        programs = f"{find('helm').parent}:{find('kubectl').parent}"
        environment = {
            **self.helm.environment,
            "PATH": f"{programs}:{self.helm.environment['PATH']}",
            "HOME": str(self.folder),
        }
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder, env=environment, text=True, capture_output=True,
            timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def running(
        self, release: str, namespace: str, container: str, **volumes: Path
    ) -> Iterator[None]:
        """Run a container of the release's Deployment."""
        text = self.helm.run("get", "manifest", release, f"--namespace={namespace}")
        (spec,) = (pod_of(one) for one in objects(text) if one["kind"] == "Deployment")
        without_ports(spec, container)
        own = self.folder / f"pod-{release}"
        own.mkdir()
        mounted = {name.replace("_", "-"): path for name, path in volumes.items()}
        daemon = Pod(self.plane, own, namespace, spec, mounted).start(container, mounted=False)
        try:
            yield
        finally:
            daemon.stop(grace_s=8)


def without_ports(spec: Object, container: str) -> None:
    (found,) = (one for one in spec["containers"] if one["name"] == container)
    found["args"] = [word for word in found["args"] if "bind-address" not in word]


def steps() -> dict[int, list[str]]:
    """The commands of each numbered step."""
    parts = re.split(r"(?m)^\*\*(\d)\. ", README.read_text("utf-8"))
    return {
        int(number): commands(text) for number, text in zip(parts[1::2], parts[2::2], strict=True)
    }


@pytest.fixture(scope="module")
def vendor(
    tmp_path_factory: pytest.TempPathFactory, plane: ControlPlane, helm: Helm, operator_chart: Path
) -> Iterator[Vendor]:
    """A cluster with the operator, and the library in a registry."""
    folder = tmp_path_factory.mktemp("vendor")
    helm.run(
        "install", RELEASE, str(operator_chart), f"--namespace={NAMESPACE}", "--create-namespace"
    )
    with registry(tmp_path_factory.mktemp("registry")) as address:
        charts = f"oci://{address}/charts"
        packages = tmp_path_factory.mktemp("packages")
        helm.run("package", str(README.parent), f"--destination={packages}")
        (package,) = packages.glob("*.tgz")
        helm.run("push", str(package), charts, "--plain-http")
        yield Vendor(plane, helm, folder, charts)


def test_the_steps_are_numbered_and_each_has_commands() -> None:
    assert [number for number, typed in steps().items() if typed] == [1, 2, 3, 4, 5, 6]


def test_the_readme_alone_leads_a_vendor_to_a_ready_claim(
    vendor: Vendor, tmp_path_factory: pytest.TempPathFactory
) -> None:
    names, *chart, claim = steps().values()
    told = vendor.run([*names, *(command for typed in chart for command in typed)])
    assert "0 chart(s) failed" in told
    assert "deployment.apps/my-driver" in told
    with MockDriver.start(tmp_path_factory.mktemp("driver"), name=DRIVER) as driver:
        socket = driver.socket_path.parent
        with (
            vendor.running(RELEASE, NAMESPACE, "controller"),
            vendor.running("my-driver", "vendor", "cosi-sidecar", cosi_socket=socket),
        ):
            told = vendor.run([*names, *claim])
            assert "bucketclaim.objectstorage.k8s.io/first condition met" in told
            vendor.plane.run_kubectl("delete", "bucketclaim", "first", "--wait=false")
            eventually("the bucket to be deleted", lambda: not driver.buckets())


def test_the_chart_of_the_readme_is_the_example_driver(vendor: Vendor) -> None:
    """The other tests of the library use the example driver, so they hold for the README too."""
    example = ROOT / "tests" / "chart" / "example-driver" / "templates"
    for theirs in example.glob("*.yaml"):
        text = (vendor.folder / "my-driver" / "templates" / theirs.name).read_text("utf-8")
        assert text == theirs.read_text("utf-8")
