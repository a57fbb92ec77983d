"""All that runs during the end-to-end tests, and short ways to ask it."""

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.tools import NAME as TOOLS
from tests.e2e.tools import ROOT, write_tools

from chart_outputs import Helm, HelmError
from controlplane import ApiError, find
from image.__main__ import ARCHIVE
from node import Node
from node.worker import Worker
from refdriver import CallRecord, record
from refdriver.process import DEFAULT_NAME
from seaweed import SeaweedFS

SYSTEM = "container-object-storage-system"
VENDOR = "vendor"
MOCK_VENDOR = "mock-vendor"
MOCK_DRIVER = "mock.objectstorage.k8s.io"
SOCKET = "/var/lib/cosi/cosi.sock"
OPERATOR = "cosi-operator"
CONTROLLER = "cosi-operator-controller"
REGISTRY = "localhost"
DRIVER = DEFAULT_NAME
COSI = "/apis/objectstorage.k8s.io/v1alpha1"
IMAGE = ROOT / "build" / "image" / ARCHIVE
POLL_S = 0.1
CALLS = "calls.jsonl"
VERSION, NEXT = "0.1.0", "next"
"""Tags of the operator's image; both name the same one."""
CLASSES = f"""
apiVersion: objectstorage.k8s.io/v1alpha1
kind: BucketClass
metadata: {{name: standard}}
driverName: {DRIVER}
deletionPolicy: Delete
---
apiVersion: objectstorage.k8s.io/v1alpha1
kind: BucketAccessClass
metadata: {{name: keys}}
driverName: {DRIVER}
authenticationType: Key
"""

type Json = dict[str, Any]


def say(text: str) -> None:
    """One line of progress; the tests run without captured output."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


def eventually(
    what: str,
    holds: Callable[[], bool],
    *,
    timeout_s: float = 60.0,
    told: Callable[[], str] = lambda: "",
) -> float:
    """Wait until it holds; return the seconds it took. `told` adds to the failure's message."""
    started = time.monotonic()
    while not holds():
        passed_s = time.monotonic() - started
        assert passed_s < timeout_s, f"waited {timeout_s:.0f} s for {what}\n{told()}"
        time.sleep(POLL_S)
    return time.monotonic() - started


@dataclass(slots=True)
class World:
    """A node, an S3 service beside it, the operator and the driver as releases of Helm.

    `registry`: of the sidecar's image; empty for what the driver's chart says by itself.
    """

    node: Node
    storage: SeaweedFS
    helm: Helm
    tools: Path
    calls_folder: Path
    driver_chart: Path
    registry: str = REGISTRY
    times_s: dict[str, float] = field(default_factory=dict)

    # --- asking the API server

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        return self.node.plane.run_kubectl(*arguments, input=text)

    def get(self, path: str) -> Json | None:
        """One object or list; None if it does not exist."""
        try:
            found: Json = self.node.plane.api.call("GET", path)
        except ApiError as error:
            if error.code != 404:
                raise
            return None
        return found

    def items(self, path: str) -> list[Json]:
        found = self.get(path)
        return list(found["items"]) if found else []

    def pods(self, namespace: str, selector: str = "") -> list[Json]:
        """Pods that are not being deleted."""
        path = f"/api/v1/namespaces/{namespace}/pods?labelSelector={selector}"
        return [pod for pod in self.items(path) if "deletionTimestamp" not in pod["metadata"]]

    def all_pods(self, *namespaces: str) -> list[Json]:
        """Pods, those that are being deleted too."""
        return [
            pod
            for namespace in namespaces
            for pod in self.items(f"/api/v1/namespaces/{namespace}/pods")
        ]

    def events(self, *namespaces: str, type_: str = "") -> list[str]:
        """The Events of all Pods of the namespaces, in words; those of one type if it is given."""
        return [
            f"{event['involvedObject']['name']}: {event['reason']}: {event['message']}"
            for namespace in namespaces
            for event in self.items(f"/api/v1/namespaces/{namespace}/events")
            if event["involvedObject"]["kind"] == "Pod" and type_ in ("", event["type"])
        ]

    def warnings(self, *namespaces: str) -> list[str]:
        """The Warning Events of all Pods of the namespaces, in words."""
        return self.events(*namespaces, type_="Warning")

    def secret(self, namespace: str, name: str) -> dict[str, str]:
        """The values of a Secret, decoded; empty if it does not exist."""
        found = self.get(f"/api/v1/namespaces/{namespace}/secrets/{name}") or {}
        return {key: base64.b64decode(text).decode() for key, text in found.get("data", {}).items()}

    def lease_holders(self) -> dict[str, str]:
        """Which Pod holds each Lease of the operator; "" if it is free."""
        return {
            lease["metadata"]["name"]: str(lease["spec"].get("holderIdentity") or "").split("_")[0]
            for namespace in (SYSTEM, VENDOR)
            for lease in self.items(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases")
        }

    def leader(self) -> str:
        """The Pod that holds the controller's Lease; "" if none does that is not being deleted."""
        holder = self.lease_holders().get("leader-lock-cosi-controller-manager", "")
        return holder if holder in [pod["metadata"]["name"] for pod in self.pods(SYSTEM)] else ""

    # --- what the driver was asked

    def calls(self) -> list[CallRecord]:
        """Every call that any driver has answered since the start, oldest first."""
        file = self.calls_folder / CALLS
        return record.read(file.read_text()) if file.exists() else []

    def answers(self, call: str) -> Counter[str]:
        """How often a call was answered OK, by what it was about."""
        return Counter(one.subject for one in self.calls() if (one.call, one.code) == (call, "OK"))

    def second_creates(self) -> int:
        """Creates that were answered OK though an earlier one of the same bucket had been."""
        return sum(count - 1 for count in self.answers("DriverCreateBucket").values())

    def add_worker(self) -> Worker:
        """One more node, with all images."""
        worker = self.node.add_worker()
        load(worker, self.tools)
        return worker

    # --- releases

    def install_operator(self, *settings: str, version: str = "") -> None:
        """Install or upgrade the operator's release, and wait until its Pods are ready."""
        tag = [f"--set=image.tag={version}"] if version else []
        chart = ROOT / "charts" / "cosi-operator"
        registry = f"--set=image.registry={REGISTRY}"
        self._install(OPERATOR, chart, SYSTEM, registry, *tag, *settings)

    def install_driver(self, *settings: str) -> None:
        """Install or upgrade the reference driver's release, and wait until its Pod is ready."""
        account = self.storage.account
        driver = {
            "args": [
                "-m", "refdriver", f"--socket={SOCKET}", f"--name={DRIVER}",
                f"--endpoint={account.endpoint}", f"--region={account.region}",
                f"--calls=/calls/{CALLS}",
            ],
            "secret": {
                "AWS_ACCESS_KEY_ID": account.access_key,
                "AWS_SECRET_ACCESS_KEY": account.secret_key,
            },
        }  # fmt: skip
        self._install_driver("seaweed", VENDOR, driver, *settings)

    def install_mock(self, *settings: str) -> None:
        """The same with a driver in memory, which keeps its buckets in a file of the node."""
        args = [
            "-m", "mockdriver", f"--socket={SOCKET}", "--control=/calls/control.sock",
            "--state=/calls/mock.jsonl",
        ]  # fmt: skip
        self._install_driver("mock", MOCK_VENDOR, {"args": args}, *settings)

    def _install_driver(
        self, release: str, namespace: str, driver: Mapping[str, object], *settings: str
    ) -> None:
        texts = {
            "image": TOOLS,
            "callsFolder": str(self.calls_folder),
        }
        if self.registry:
            texts["cosiSidecar.image.registry"] = self.registry
        words = [f"--set-string={key}={text}" for key, text in texts.items()]
        words += [f"--set-json={key}={json.dumps(part)}" for key, part in driver.items()]
        self._install(release, self.driver_chart, namespace, *words, *settings)

    def _install(self, release: str, chart: Path, namespace: str, *settings: str) -> None:
        try:
            self.helm.run(
                "upgrade", "--install", release, str(chart), f"--namespace={namespace}",
                "--create-namespace", *settings, "--wait", "--timeout=55s",
            )  # fmt: skip
        except HelmError as error:
            error.add_note(self.kubectl("describe", "pods", f"--namespace={namespace}"))
            raise

    def uninstall(self) -> None:
        """Remove operator, driver and CRDs, after a test that deleted all that it had created."""
        for release, namespace in (("seaweed", VENDOR), (OPERATOR, SYSTEM)):
            self.helm.run(
                "uninstall", release, f"--namespace={namespace}", "--ignore-not-found", "--wait"
            )
        for kind in ("bucketclaims", "bucketaccesses", "buckets"):
            assert self.items(f"{COSI}/{kind}") == [], "earlier tests have deleted what they made"
        self.delete_crds()

    def delete_crds(self) -> None:
        crds = self.kubectl("get", "crds", "--output=name").split()
        if cosi := [name for name in crds if name.endswith(".objectstorage.k8s.io")]:
            self.kubectl("delete", *cosi, "--timeout=30s")

    def shell(self, command: str) -> None:
        """Run a command of a document in the repository's folder, with the built helm."""
        path = os.pathsep.join([str(find("helm").parent), os.environ["PATH"]])
        done = subprocess.run(
            ["bash", "-c", command], env={**self.helm.environment, "PATH": path}, cwd=ROOT,
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stderr}"

    def cosi(self, *arguments: str) -> str:
        """Run `cosi` as a person does; return all that it prints, whatever its exit code."""
        done = subprocess.run(
            [sys.executable, "-m", "cosi_operator", "cosi", *arguments],
            env={**os.environ, "KUBECONFIG": str(self.node.plane.admin_kubeconfig)},
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        return done.stdout + done.stderr


@contextmanager
def started(directory: Path) -> Iterator[World]:
    """Start everything but the releases, and end it."""
    began = time.monotonic()
    times_s = {}
    with Node.start(directory / "node") as node:
        times_s["node ready"] = time.monotonic() - began
        say(f"node ready after {times_s['node ready']:.1f} s")
        with SeaweedFS.start(directory / "seaweedfs", address=node.address) as storage:
            tools = write_tools(directory / "tools.tar", IMAGE)
            load(node.first, tools)
            calls = directory / "calls"
            calls.mkdir()
            calls.chmod(0o777)  # the driver in the pod is another user
            helm = Helm(directory / "helm", node.plane.admin_kubeconfig)
            times_s["images and S3"] = time.monotonic() - began
            say(f"images loaded, S3 at {storage.endpoint}")
            yield World(
                node, storage, helm, tools, calls, driver_chart(directory, helm), times_s=times_s
            )


def load(worker: Worker, tools: Path) -> None:
    """Give a node the images: two versions of ours, and the one with the driver."""
    worker.load(IMAGE)
    image = f"{REGISTRY}/{OPERATOR}"
    worker.tag(f"{image}:{VERSION}", f"{image}:{NEXT}")
    worker.load(tools)


def driver_chart(directory: Path, helm: Helm, charts: str = "") -> Path:
    """A copy of the driver's chart with its dependency inside; from `charts`, if it is given."""
    for part in ("charts/cosi-sidecar-lib", "tests/e2e/driver"):
        shutil.copytree(ROOT / part, directory / part)
    chart = directory / "tests" / "e2e" / "driver"
    if charts:
        file = chart / "Chart.yaml"
        local = "file://../../../charts/cosi-sidecar-lib"
        assert local in file.read_text()
        file.write_text(file.read_text().replace(local, charts))
    helm.run("dependency", "update", str(chart))
    return chart
