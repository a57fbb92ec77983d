"""Every console command of install.md, migrate.md, upgrade.md and rollback.md, run in its order."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.chart.pod import ROOT
from tests.chart.test_cluster import CLAIM, STAND_IN, STAND_INS

from chart_outputs import NAMESPACE, Helm
from controlplane import ControlPlane
from controlplane.build import find

COMMAND_TIMEOUT_S = 40.0
VENDOR_DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      containers:
        - {{name: driver, image: "registry.example.com/driver:1"}}
        - {{name: objectstorage-provisioner-sidecar, image: "registry.example.com/sidecar:v0.2.2"}}
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What the commands touch, as in a clone of the repository."""
    for part in ("charts", "deploy"):
        shutil.copytree(ROOT / part, tmp_path / part)
    return tmp_path


@pytest.fixture
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane.start(tmp_path_factory.mktemp("plane")) as plane:
        yield plane


def sections(page: str) -> dict[str, str]:
    """The parts of a page by their headings of the second level."""
    parts = re.split(r"(?m)^## ", (ROOT / "docs" / page).read_text("utf-8"))
    return {part.partition("\n")[0]: part for part in parts[1:]}


def commands(text: str, kind: str = "console") -> list[str]:
    """What a reader types: lines after "$ ", a here-document with its lines up to END."""
    found: list[str] = []
    for block in re.findall(rf"(?ms)^```{kind}\n(.*?)^```", text):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append(line.removeprefix("$ "))
            elif found and re.search(r"<<'?END", found[-1]):
                found[-1] += f"\n{line}"
    return found


def run(plane: ControlPlane, clone: Path, typed: list[str]) -> str:
    """Run commands as the administrator in a clone; returns what they print."""
    helm = Helm(plane.directory / "helm", plane.admin_kubeconfig)
    cosi = plane.directory / "bin" / "cosi"  # as the wheel installs it
    cosi.parent.mkdir(exist_ok=True)
    cosi.write_text(
        f"#!{sys.executable}\nimport sys\nfrom cosi_operator.cli import main\nsys.exit(main())\n"
    )
    cosi.chmod(0o755)
    programs = [cosi.parent, find("helm").parent, find("kubectl").parent]
    environment = {
        **helm.environment,
        "PATH": os.pathsep.join([*map(str, programs), helm.environment["PATH"]]),
        "PYTHONPATH": str(ROOT / "operator"),
        "HOME": str(plane.directory),
    }
    told = ""
    for command in typed:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=clone, env=environment, text=True, capture_output=True,
            timeout=COMMAND_TIMEOUT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stderr}"
        told += done.stdout
    return told


def image(plane: ControlPlane, namespace: str, name: str, container: str) -> str:
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}"
    spec = plane.api.call("GET", path)["spec"]["template"]["spec"]
    return str(next(one["image"] for one in spec["containers"] if one["name"] == container))


def kinds_served(plane: ControlPlane) -> int:
    selector = "--selector=app.kubernetes.io/part-of=cosi-operator"
    return len(plane.run_kubectl("get", "crds", selector, "--output=name").split())


def test_every_command_that_installs_upgrades_and_uninstalls_with_helm(
    fresh: ControlPlane, clone: Path
) -> None:
    part = sections("install.md")
    fresh.apply("---".join(STAND_IN.format(kind=k, plural=p) for k, p in STAND_INS.items()))
    told = run(fresh, clone, commands(part["With Helm"]))
    assert "Next:" in told
    assert image(fresh, NAMESPACE, "cosi-operator-controller", "controller") == (
        "registry.example.com/cosi-operator:0.1.0"
    )
    run(fresh, clone, commands(part["The sidecar"]))
    may = fresh.run_kubectl(
        "auth", "can-i", "update", "leases", "--as=system:serviceaccount:vendor:my-driver",
        "--namespace=vendor",
    )  # fmt: skip
    assert may.strip() == "yes"
    run(fresh, clone, commands(part["Upgrade"]))
    assert image(fresh, NAMESPACE, "cosi-operator-controller", "controller") == (
        "registry.example.com/cosi-operator:0.1.0"
    ), "what was set is kept"
    run(fresh, clone, commands(part["Uninstall"]))
    assert kinds_served(fresh) == 5
    run(fresh, clone, commands(part["With Helm"])[:1])
    run(fresh, clone, commands(part["Uninstall"], "text")[1:])
    assert kinds_served(fresh) == 0


def test_every_command_that_installs_without_helm(fresh: ControlPlane, clone: Path) -> None:
    part = sections("install.md")
    run(fresh, clone, commands(part["Without Helm"]))
    assert image(fresh, NAMESPACE, "cosi-operator-controller", "controller") == (
        "registry.example.com/cosi-operator:0.1.0"
    )
    delete = commands(part["Uninstall"], "text")[0]
    assert delete.startswith("kubectl delete -f deploy/")
    run(fresh, clone, [delete])
    left = fresh.run_kubectl("get", "clusterroles,deployments", "-A", "-o", "name")
    assert "cosi-operator" not in left
    assert fresh.run_kubectl("get", "bucketclaims", "-A") == ""


def test_every_command_of_the_migration_and_of_the_way_back(
    fresh: ControlPlane, clone: Path
) -> None:
    part = sections("migrate.md")
    fresh.apply(ROOT / "tests" / "support" / "upstream_crds")
    for namespace, name in (
        (NAMESPACE, "container-object-storage-controller"),
        ("vendor", "vendor-driver"),
    ):
        fresh.run_kubectl("create", "namespace", namespace)
        fresh.apply(VENDOR_DEPLOYMENT.format(name=name, namespace=namespace))
    sidecar = ("vendor", "vendor-driver", "objectstorage-provisioner-sidecar")
    run(fresh, clone, commands(part["Before"]))
    assert (clone / "cosi-before.yaml").exists()
    run(fresh, clone, commands(part["The controller"]))
    assert kinds_served(fresh) == 5
    run(fresh, clone, commands(part["The sidecar"]))
    assert image(fresh, *sidecar) == "registry.example.com/cosi-operator:0.1.0"
    run(fresh, clone, commands(part["Roll back"]))
    assert image(fresh, *sidecar) == "registry.example.com/objectstorage-sidecar:v0.2.2"
    assert kinds_served(fresh) == 5


COLUMN = "    - {name: Newer, type: string, jsonPath: .metadata.uid}\n"


def columns(plane: ControlPlane) -> set[str]:
    """The columns that the API server has for claims."""
    crd = plane.api.call(
        "GET",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/bucketclaims.objectstorage.k8s.io",
    )
    (version,) = crd["spec"]["versions"]
    return {column["name"] for column in version["additionalPrinterColumns"]}


def test_every_command_of_an_upgrade_and_of_the_way_back(fresh: ControlPlane, clone: Path) -> None:
    """The clone is upgraded to a chart with another image and another column in a CRD."""
    up, back = sections("upgrade.md"), sections("rollback.md")
    controller = (NAMESPACE, "cosi-operator-controller", "controller")
    run(fresh, clone, commands(sections("install.md")["With Helm"])[:1])
    fresh.apply(CLAIM)
    assert "registry.example.com" in run(fresh, clone, commands(up["Before"]))

    chart = clone / "charts" / "cosi-operator"
    about = (chart / "Chart.yaml").read_text("utf-8")
    (chart / "Chart.yaml").write_text(about.replace("appVersion: 0.1.0", "appVersion: 0.2.0"))
    crd = chart / "templates" / "crds" / "bucketclaims.yaml"
    before, key, after = crd.read_text("utf-8").partition("additionalPrinterColumns:\n")
    indent = after[: len(after) - len(after.lstrip())]
    crd.write_text(before + key + indent + COLUMN.lstrip() + after)

    run(fresh, clone, commands(up["Upgrade with Helm"]))
    assert image(fresh, *controller) == "registry.example.com/cosi-operator:0.2.0"
    assert "Newer" in columns(fresh)
    run(fresh, clone, commands(back["To an earlier revision"]))
    assert image(fresh, *controller) == "registry.example.com/cosi-operator:0.1.0"
    assert "Newer" not in columns(fresh)
    assert fresh.run_kubectl("get", "bucketclaim", "mine", "--output=name")


def test_no_section_with_commands_is_left_out() -> None:
    ran = {"With Helm", "Without Helm", "The sidecar", "Upgrade", "Uninstall"}
    ran |= {"Upgrade with Helm", "To an earlier revision"}
    ran |= {"Before", "The controller", "Roll back"}
    ran |= {"From a release"}  # in tests/release/test_release.py
    ran |= {"Come back after a rollback"}  # in tests/integration/test_rollback.py
    for page in ("install.md", "migrate.md", "upgrade.md", "rollback.md"):
        with_commands = {name for name, text in sections(page).items() if commands(text)}
        assert with_commands <= ran, page


def test_a_chart_readmes_command_is_that_of_the_documents() -> None:
    readme = (ROOT / "charts" / "cosi-operator" / "README.md").read_text("utf-8")
    (command,) = re.findall(r"(?m)^helm install .*$", readme)
    installed = commands(sections("install.md")["With Helm"])[0]
    assert installed.startswith(command)
