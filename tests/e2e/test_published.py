"""The release from a registry: docs/install.md, word for word, up to a Pod that wrote an object.

Image and charts are those of `make release`, in a registry on loopback; the node pulls the image
from there, and a vendor's chart gets the sidecar from there.
"""

import shutil
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.chart.test_documents import commands, sections
from tests.e2e.table import TABLES
from tests.e2e.test_day import SHOP, described, documents, phase
from tests.e2e.world import (
    CLASSES,
    COSI,
    IMAGE,
    OPERATOR,
    SYSTEM,
    VENDOR,
    VERSION,
    World,
    driver_chart,
    eventually,
)
from tests.support.registry import crane, registry

from controlplane.build import find
from release.packages import CHARTS, package_chart
from release.tools import ROOT, run

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

PUBLISHED = "registry.example.com"
"""What stands in the page for the registry of the release."""


@dataclass(frozen=True, slots=True)
class Published:
    """A cluster without COSI, and a registry with the release. `image`: with its digest."""

    world: World
    address: str
    image: str


@pytest.fixture(scope="module")
def published(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    world.uninstall()
    folder = tmp_path_factory.mktemp("published")
    with registry(folder) as address:
        image = push(folder, address)
        chart = driver_chart(folder / "vendor", world.helm, f"oci://{address}/charts")
        with namespaces(world):
            yield Published(replace(world, driver_chart=chart, registry=""), address, image)
        world.uninstall()


def push(folder: Path, address: str) -> str:
    """Push image and charts; return the image's address with its digest."""
    with tarfile.open(IMAGE) as archive:
        archive.extractall(folder / "image", filter="data")
    image = f"{address}/{OPERATOR}"
    run(crane(), "push", folder / "image", f"{image}:{VERSION}")
    for name in CHARTS:
        source = shutil.copytree(ROOT / "charts" / name, folder / "charts" / name)
        package = package_chart(source, address, folder, epoch_s=0)
        run(find("helm"), "push", package, f"oci://{address}/charts")
    return f"{image}@{run(crane(), 'digest', f'{image}:{VERSION}').strip()}"


@contextmanager
def namespaces(world: World) -> Iterator[None]:
    world.kubectl("create", "namespace", SHOP)
    yield
    world.kubectl("delete", "namespace", SHOP, "--timeout=60s")


def images(world: World, namespace: str, container: str) -> set[str]:
    """What the containers of this name run, as the node says."""
    return {
        status["imageID"]
        for pod in world.pods(namespace)
        for status in pod["status"]["containerStatuses"]
        if container in status["name"]
    }


def test_the_operator_is_installed_from_the_registry(published: Published) -> None:
    world = published.world
    (command,) = commands(sections("install.md")["From a release"])
    began = time.monotonic()
    world.shell(command.replace(PUBLISHED, published.address))
    eventually("a leader", lambda: world.leader() != "", timeout_s=90)
    TABLES.step("helm install from a registry, until a leader works", time.monotonic() - began)
    eventually("both replicas", lambda: images(world, SYSTEM, "") == {published.image})


def test_a_vendors_chart_gets_the_sidecar_from_the_registry(published: Published) -> None:
    world = published.world
    world.install_driver()
    assert images(world, VENDOR, "sidecar") == {published.image}


def test_a_pod_writes_an_object(published: Published) -> None:
    world = published.world
    objects, pod = documents()
    world.kubectl("apply", "-f", "-", text=CLASSES)
    world.kubectl("apply", "-f", "-", text=objects)
    world.kubectl("apply", "-f", "-", text=pod)
    eventually(
        "the Pod to end",
        lambda: phase(world, "notes-app") in ("Succeeded", "Failed"),
        told=lambda: described(world, "notes-app"),
    )
    printed = world.kubectl("logs", "notes-app", f"--namespace={SHOP}")
    assert printed.strip() == "hello from a Pod"
    (bucket,) = world.storage.buckets()
    world.storage.s3().delete_object(Bucket=bucket, Key="hello.txt")
    world.kubectl("delete", "bucketaccess,bucketclaim", "--all", f"--namespace={SHOP}")
    assert world.items(f"{COSI}/buckets") == []
    assert world.storage.buckets() == []
