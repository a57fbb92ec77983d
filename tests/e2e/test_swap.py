"""The swap: a vendor's Pod with the Go sidecar's arguments, mounts and role; one line changes.

Upstream's CRDs and a controller of deploy/ are there, as after `kubectl apply`, without Helm. The
image that the vendor's manifest names at first is ours too, because no Go image can be had here;
what is tested is that everything else of the manifest stays.
"""

import time
from collections.abc import Iterator

import pytest
import yaml
from tests.chart.vendors import VENDORS, Vendor
from tests.e2e.table import TABLES
from tests.e2e.tools import NAME as TOOLS
from tests.e2e.tools import ROOT
from tests.e2e.world import (
    CLASSES,
    COSI,
    DRIVER,
    NEXT,
    REGISTRY,
    SYSTEM,
    VERSION,
    World,
    eventually,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

IMAGE = f"{REGISTRY}/cosi-operator"
SIDECAR = "objectstorage-provisioner-sidecar"
NAMESPACE = "swapped"
VENDOR_NAME = "ceph"


def manifest(world: World, vendor: Vendor) -> str:
    """A Deployment as the vendor's: the driver, and the sidecar without a command or probes."""
    field = {"fieldRef": {"fieldPath": "metadata.namespace"}}
    account = world.storage.account
    socket = {"name": "socket", "mountPath": "/var/lib/cosi"}
    driver = {
        "name": "driver",
        "image": TOOLS,
        "args": [
            "-m", "refdriver", "--socket=/var/lib/cosi/cosi.sock", f"--name={DRIVER}",
            f"--endpoint={account.endpoint}", f"--region={account.region}",
        ],
        "env": [
            {"name": "AWS_ACCESS_KEY_ID", "value": account.access_key},
            {"name": "AWS_SECRET_ACCESS_KEY", "value": account.secret_key},
        ],
        "volumeMounts": [socket],
    }  # fmt: skip
    sidecar = {
        "name": SIDECAR,
        "image": f"{IMAGE}:{VERSION}",
        "args": list(vendor.args),
        "env": [
            {"name": name, "valueFrom": field} if value is None else {"name": name, "value": value}
            for name, value in vendor.env
        ],
        "volumeMounts": [socket],
    }
    labels = {"app": "vendor"}
    name = {"name": "sidecar", "namespace": vendor.name}
    api = "rbac.authorization.k8s.io"
    rules = [
        {"apiGroups": [group], "resources": resources.split(), "verbs": verbs.split()}
        for group, resources, verbs in vendor.rules
    ]
    objects: list[dict[str, object]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": vendor.name}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": name},
        {"apiVersion": f"{api}/v1", "kind": "ClusterRole", "metadata": name, "rules": rules},
        {
            "apiVersion": f"{api}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": name,
            "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": "sidecar"},
            "subjects": [{"kind": "ServiceAccount", **name}],
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "vendor", "namespace": vendor.name},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "serviceAccountName": "sidecar",
                        "containers": [driver, sidecar],
                        "volumes": [{"name": "socket", "emptyDir": {}}],
                    },
                },
            },
        },
    ]
    return yaml.safe_dump_all(objects)


JOB = f"""
apiVersion: v1
kind: Namespace
metadata: {{name: {NAMESPACE}}}
---
apiVersion: objectstorage.k8s.io/v1alpha1
kind: BucketClaim
metadata: {{name: %s, namespace: {NAMESPACE}}}
spec: {{bucketClassName: standard, protocols: [S3]}}
---
apiVersion: objectstorage.k8s.io/v1alpha1
kind: BucketAccess
metadata: {{name: %s, namespace: {NAMESPACE}}}
spec: {{bucketClaimName: %s, bucketAccessClassName: keys, credentialsSecretName: %s-keys,
       protocol: S3}}
"""


@pytest.fixture(scope="module", autouse=True)
def upstream(world: World) -> Iterator[None]:
    """A cluster where `kubectl apply` installed upstream's CRDs, and our controller after them."""
    world.uninstall()
    plane = world.node.plane
    plane.apply(ROOT / "tests" / "support" / "upstream_crds")
    plane.apply(ROOT / "deploy" / "namespace.yaml")
    plane.apply(ROOT / "deploy" / "rbac" / "controller.yaml")
    text = (ROOT / "deploy" / "controller.yaml").read_text()
    plane.apply(text.replace("image: cosi-operator:", f"image: {IMAGE}:"))
    world.kubectl(
        "rollout", "status", "deployment/cosi-operator-controller", f"--namespace={SYSTEM}",
        "--timeout=55s",
    )  # fmt: skip
    plane.apply(CLASSES)
    yield
    roles = "clusterroles,clusterrolebindings"
    world.kubectl("delete", roles, "--selector=app.kubernetes.io/part-of=cosi-operator")
    world.kubectl("delete", roles, "sidecar", "--ignore-not-found")
    world.kubectl("delete", "namespace", SYSTEM, VENDOR_NAME, "--timeout=55s")
    world.delete_crds()


def granted(world: World, name: str) -> bool:
    access = world.get(f"{COSI}/namespaces/{NAMESPACE}/bucketaccesses/{name}") or {}
    return bool(access.get("status", {}).get("accessGranted"))


def test_set_image_is_the_whole_swap(world: World) -> None:
    (vendor,) = (one for one in VENDORS if one.name == VENDOR_NAME)
    plane = world.node.plane
    plane.apply(manifest(world, vendor))
    plane.apply(JOB.replace("%s", "before"))
    in_vendor = f"--namespace={vendor.name}"

    def described() -> str:
        return world.kubectl("describe", "pods", in_vendor)

    eventually("keys before the swap", lambda: granted(world, "before"), told=described)
    keys = world.secret(NAMESPACE, "before-keys")
    began = time.monotonic()
    world.kubectl("set", "image", "deployment/vendor", f"{SIDECAR}={IMAGE}:{NEXT}", in_vendor)
    world.kubectl("rollout", "status", "deployment/vendor", in_vendor, "--timeout=55s")
    plane.apply(JOB.replace("%s", "after"))
    eventually("keys after the swap", lambda: granted(world, "after"), told=described)
    TABLES.step("kubectl set image of a vendor's sidecar, until a new claim has keys",
                time.monotonic() - began)  # fmt: skip
    images = {
        container["image"]
        for pod in world.pods(vendor.name)
        for container in pod["spec"]["containers"]
    }
    assert images == {TOOLS, f"{IMAGE}:{NEXT}"}
    assert world.secret(NAMESPACE, "before-keys") == keys, "keys in use are not touched"
    user = f"system:serviceaccount:{vendor.name}:sidecar"
    asked = plane.audit.entries(where=lambda entry: entry.user == user)
    assert asked
    assert [f"{one.verb} {one.uri}" for one in asked if one.code == 403] == []
    world.kubectl("delete", "namespace", NAMESPACE, "--timeout=55s")
    assert world.storage.buckets() == []
    assert world.storage.users() == []
