"""The user's whole day, in pods: the tests of this module are its hours, in their order."""

import re
import time
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from tests.e2e.table import TABLES
from tests.e2e.tools import NAME as TOOLS
from tests.e2e.tools import ROOT
from tests.e2e.world import CLASSES, CONTROLLER, COSI, DRIVER, SYSTEM, VENDOR, World, eventually

from awsclient import Account

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

SHOP = "shop"
PAGE = ROOT / "docs" / "use-a-bucket.md"
MISNAMED = f"""
apiVersion: objectstorage.k8s.io/v1alpha1
kind: BucketClass
metadata: {{name: misnamed}}
driverName: {DRIVER}
deletionPolicy: Delete
parameters: {{namePrefix: "%s"}}
"""
REFUSED = """
apiVersion: objectstorage.k8s.io/v1alpha1
kind: BucketClaim
metadata: {name: refused, namespace: shop}
spec: {bucketClassName: misnamed, protocols: [S3]}
"""


def documents() -> tuple[str, str]:
    """The first example of docs/use-a-bucket.md: claim and access, and the Pod."""
    found = re.search(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    parts = found[1].replace("registry.example.com/notes-app:1.0", TOOLS).split("---\n")
    assert [part.count("kind: Pod") for part in parts] == [0, 0, 1]
    return "---\n".join(parts[:2]), parts[2]


def install_commands() -> list[str]:
    """What docs/image.md says for a node without a registry."""
    page = (ROOT / "docs" / "image.md").read_text()
    section = page.partition("## Without a registry\n")[2].partition("\n## ")[0]
    found = re.findall(r"(?m)^\$ (.*)$", section)
    assert [command.split()[0] for command in found] == ["ctr", "helm"]
    return found


def phase(world: World, name: str) -> str:
    pod = world.get(f"/api/v1/namespaces/{SHOP}/pods/{name}") or {}
    return str(pod.get("status", {}).get("phase", ""))


def waiting(world: World, name: str) -> str:
    """Why the container of a Pod does not run yet, in the kubelet's word."""
    pod = world.get(f"/api/v1/namespaces/{SHOP}/pods/{name}") or {}
    for status in pod.get("status", {}).get("containerStatuses", []):
        return str(status["state"].get("waiting", {}).get("reason", ""))
    return ""


def described(world: World, name: str) -> str:
    return world.kubectl("describe", "pod", name, f"--namespace={SHOP}")


def test_the_operator_is_installed_and_its_start_emits_no_warning(world: World) -> None:
    began = time.monotonic()
    for command in install_commands():
        world.shell(command)
    TABLES.step("helm install of the operator, 2 replicas ready", time.monotonic() - began)
    assert len(world.pods(SYSTEM)) == 2
    eventually("a leader", lambda: world.leader() != "")
    assert not (found := world.warnings(SYSTEM)), "\n".join(found)


def test_the_driver_is_installed_and_its_start_emits_no_warning(world: World) -> None:
    began = time.monotonic()
    world.install_driver()
    TABLES.step("helm install of a driver with the sidecar, ready", time.monotonic() - began)
    assert not (found := world.warnings(VENDOR)), "\n".join(found)


def test_a_pod_waits_for_its_secret_and_then_stores_and_reads_an_object(world: World) -> None:
    objects, pod = documents()
    world.kubectl("create", "namespace", SHOP)
    world.kubectl("apply", "-f", "-", text=CLASSES)
    account = f"/api/v1/namespaces/{SHOP}/serviceaccounts/default"
    eventually("the account of Pods", lambda: world.get(account) is not None)
    world.kubectl("apply", "-f", "-", text=pod)
    eventually(
        "the Pod to wait for its Secret",
        lambda: waiting(world, "notes-app") == "CreateContainerConfigError",
        told=lambda: described(world, "notes-app"),
    )
    began = time.monotonic()
    world.kubectl("apply", "-f", "-", text=objects)
    eventually("the Secret", lambda: bool(world.secret(SHOP, "notes-keys")))
    TABLES.step("claim and access applied, until the Secret is complete", time.monotonic() - began)
    eventually(
        "the Pod to end",
        lambda: phase(world, "notes-app") in ("Succeeded", "Failed"),
        told=lambda: described(world, "notes-app"),
    )
    TABLES.step("the same, until the waiting Pod has used its bucket", time.monotonic() - began)
    printed = world.kubectl("logs", "notes-app", f"--namespace={SHOP}")
    assert printed.strip() == "hello from a Pod"
    assert phase(world, "notes-app") == "Succeeded"
    (bucket,) = world.storage.buckets()
    assert world.storage.s3().get_object(Bucket=bucket, Key="hello.txt")["Body"].read()


def test_a_refused_claim_says_why_and_continues_when_its_class_is_corrected(world: World) -> None:
    world.kubectl("apply", "-f", "-", text=MISNAMED % "Team_A-")
    world.kubectl("apply", "-f", "-", text=REFUSED)
    in_shop = f"--namespace={SHOP}"
    world.kubectl(
        "wait", "--for=condition=Stalled", "bucketclaim/refused", in_shop, "--timeout=30s"
    )
    words = "InvalidBucketName: The specified bucket is not valid."
    describe = ("describe", "bucketclaim", "refused", in_shop)
    eventually("the Event", lambda: "FailedCreateBucket" in world.kubectl(*describe))
    for told in (world.kubectl(*describe), world.cosi("why", "refused", "-n", SHOP)):
        assert words in told
        assert "DriverInvalidArgument" in told
    refused = [one for one in world.calls() if one.code == "INVALID_ARGUMENT"]
    assert [one.call for one in refused] == ["DriverCreateBucket"], "asked once"
    began = time.monotonic()
    world.kubectl("apply", "-f", "-", text=MISNAMED % "team-a-")
    world.kubectl("wait", "--for=condition=Ready", "bucketclaim/refused", in_shop, "--timeout=30s")
    TABLES.step("class corrected, until the refused claim is ready", time.monotonic() - began)
    assert any(name.startswith("team-a-") for name in world.storage.buckets())


def test_rotated_keys_reach_the_next_pod_and_the_old_ones_are_refused(world: World) -> None:
    old = world.secret(SHOP, "notes-keys")
    began = time.monotonic()
    world.cosi("rotate", "notes-app", "-n", SHOP)
    eventually(
        "other keys",
        lambda: world.secret(SHOP, "notes-keys")["AWS_ACCESS_KEY_ID"] != old["AWS_ACCESS_KEY_ID"],
    )
    TABLES.step("cosi rotate, until the Secret has other keys", time.monotonic() - began)
    eventually("the old keys to be refused", lambda: is_refused(old))
    _, pod = documents()
    world.kubectl("delete", "pod", "notes-app", f"--namespace={SHOP}")
    world.kubectl("apply", "-f", "-", text=pod)
    eventually(
        "the Pod to end",
        lambda: phase(world, "notes-app") == "Succeeded",
        told=lambda: described(world, "notes-app"),
    )


def is_refused(keys: dict[str, str]) -> bool:
    account = Account(
        keys["AWS_ENDPOINT_URL"], keys["AWS_REGION"], keys["AWS_ACCESS_KEY_ID"],
        keys["AWS_SECRET_ACCESS_KEY"],
    )  # fmt: skip
    try:
        account.s3().list_objects_v2(Bucket=keys["COSI_S3_BUCKET_ID"])
    except ClientError as error:
        return error.response["Error"]["Code"] in ("InvalidAccessKeyId", "AccessDenied")
    return False


def test_nothing_is_left_when_all_is_deleted(world: World) -> None:
    (bucket,) = (name for name in world.storage.buckets() if not name.startswith("team-a-"))
    in_shop = f"--namespace={SHOP}"
    world.kubectl("delete", "pod", "notes-app", in_shop)
    began = time.monotonic()
    world.kubectl("delete", "bucketaccess", "notes-app", in_shop, "--timeout=30s")
    assert world.secret(SHOP, "notes-keys") == {}
    assert world.storage.users() == []
    world.kubectl("delete", "bucketclaim", "notes", "refused", in_shop, "--wait=false")
    eventually(
        "the claim to say that its bucket is not empty",
        lambda: "BucketNotEmpty" in world.cosi("why", "notes", "-n", SHOP),
        told=lambda: world.cosi("why", "notes", "-n", SHOP),
    )
    world.storage.s3().delete_object(Bucket=bucket, Key="hello.txt")
    world.cosi("retry", "notes", "-n", SHOP)
    left = f"{COSI}/namespaces/{SHOP}/bucketclaims"
    eventually("the claims to go", lambda: world.items(left) == [])
    TABLES.step("all deleted, a bucket emptied on the way, nothing left", time.monotonic() - began)
    assert world.storage.buckets() == []
    assert world.items(f"{COSI}/buckets") == []
    world.kubectl("delete", "bucketclass", "misnamed")
    world.kubectl("delete", "namespace", SHOP, "--timeout=60s")


def test_no_request_of_the_operator_was_forbidden(world: World) -> None:
    accounts = (f"{SYSTEM}:{CONTROLLER}", f"{VENDOR}:seaweed")
    users = [f"system:serviceaccount:{account}" for account in accounts]
    asked = world.node.plane.audit.entries(where=lambda entry: entry.user in users)
    assert {entry.user for entry in asked} == set(users), "both were seen"
    assert [f"{one.user} {one.verb} {one.uri}" for one in asked if one.code == 403] == []


def test_pods_ran_as_the_restricted_standard_asks(world: World) -> None:
    """What the chart says is one thing; here is what the kernel says of the processes."""
    found = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            status = (process / "status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"/controller\0" in command or b"/sidecar\0" in command:
            found += 1
            assert re.search(r"^Uid:\s+65532\s+65532", status, re.MULTILINE)
            assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
            assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
            assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE)
    assert found == 3
