"""docs/use-a-bucket.md on real parts: its manifests are applied, and what its Pods run is run.

There is no kubelet, so a test reads the Pod and the Secret back from the API server, makes the
environment by the kubelet's rules, and starts the container's command with that environment alone.
"""

import base64
import io
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from cosi_operator.sidecar.secret_content import EXTRA_KEYS
from demo.screen import Screen
from demo.setup import start
from demo.world import NAMESPACE, World, eventually

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "use-a-bucket.md"
RUN_TIMEOUT_S = 60.0
WAIT = "--timeout=40s"


def manifests() -> list[str]:
    """The blocks of the page that are whole objects, in its order."""
    blocks = re.findall(r"(?ms)^```yaml\n(.*?)^```", PAGE.read_text(encoding="utf-8"))
    return [block for block in blocks if "kind:" in block]


def fragments() -> list[Any]:
    """The other blocks: parts of a Pod's spec."""
    blocks = re.findall(r"(?ms)^```yaml\n(.*?)^```", PAGE.read_text(encoding="utf-8"))
    return [yaml.safe_load(block) for block in blocks if "kind:" not in block]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A real API server, a real S3 and its driver, with the classes of the page."""
    with tempfile.TemporaryDirectory(prefix="cosi-") as directory, ExitStack() as stack:
        world = start(Screen(io.StringIO(), colour=False), Path(directory), stack)
        world.plane.run_kubectl("apply", "-f", str(ROOT / "hack/demo/manifests/classes.yaml"))
        account = {"metadata": {"name": "default"}}  # a cluster's controller manager makes it
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
        world.plane.api.call("POST", path, account)
        yield world


def apply(world: World, manifest: str) -> None:
    file = world.directory / "page.yaml"
    file.write_text(manifest, encoding="utf-8")
    world.plane.run_kubectl("apply", "-f", str(file))


def until_granted(world: World, access: str) -> None:
    world.plane.run_kubectl(
        "wait", "--for=condition=Ready", f"bucketaccess/{access}", "-n", NAMESPACE, WAIT
    )


def environment(world: World, container: Any) -> dict[str, str]:
    """What the kubelet would give the container of `envFrom`: the last source wins."""
    found: dict[str, str] = {}
    for source in container["envFrom"]:
        secret = world.get(f"/api/v1/namespaces/{NAMESPACE}/secrets/{source['secretRef']['name']}")
        for key, value in secret["data"].items():
            found[source.get("prefix", "") + key] = base64.b64decode(value).decode()
    return found


AWS_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def keys_of_aws(world: World) -> set[str]:
    data = world.get(f"/api/v1/namespaces/{NAMESPACE}/secrets/notes-keys")["data"]
    return {data[key] for key in AWS_KEYS}


def output_of(world: World, pod: str) -> str:
    """Run the Pod's one container; its program is this Python, and nothing else is inherited."""
    spec = world.get(f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}")["spec"]
    (container,) = spec["containers"]
    assert "env" not in container
    command: list[str] = container["command"] + container["args"]
    assert command[0] == "python"
    done = subprocess.run(
        [sys.executable, *command[1:]],
        env=environment(world, container),
        cwd=world.directory,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def test_the_pods_of_the_page_use_their_buckets_with_nothing_but_env_from(world: World) -> None:
    first, second = manifests()
    apply(world, first)
    until_granted(world, "notes-app")
    assert output_of(world, "notes-app") == "hello from a Pod"

    before = world.get(f"/api/v1/namespaces/{NAMESPACE}/secrets/notes-keys")["data"]
    world.plane.run_kubectl(
        "annotate", "bucketaccess/notes-app", "-n", NAMESPACE, "objectstorage.k8s.io/rotate=1"
    )
    eventually(
        "other keys in the same Secret",
        lambda: keys_of_aws(world).isdisjoint(before[key] for key in AWS_KEYS),
    )
    assert output_of(world, "notes-app") == "hello from a Pod"  # as after a restart

    archive = re.sub(r"\bnotes\b", "archive", first.split("kind: Pod")[0])
    claim_and_access = archive[: archive.rindex("---")]
    apply(world, claim_and_access.replace("notes-app", "archive-app"))
    until_granted(world, "archive-app")
    apply(world, second)
    assert output_of(world, "copier") == "hello.txt"


def test_the_keys_named_in_the_other_examples_exist(world: World) -> None:
    secret = world.get(f"/api/v1/namespaces/{NAMESPACE}/secrets/notes-keys")["data"]
    one_value, as_files = fragments()
    (variable,) = one_value["env"]
    reference = variable["valueFrom"]["secretKeyRef"]
    assert reference["name"] == "notes-keys"
    spec = json.loads(base64.b64decode(secret["BucketInfo"]))["spec"]
    assert base64.b64decode(secret[reference["key"]]).decode() == spec["secretS3"]["accessKeyID"]
    (volume,) = as_files["volumes"]
    assert volume["secret"]["secretName"] == "notes-keys"


def test_every_key_of_the_reference_is_one_that_is_written_and_the_other_way_round() -> None:
    page = (ROOT / "docs" / "secrets.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| (`[A-Z_0-9]+`(?:, `[A-Z_0-9]+`)*) \|", page)
    named = {key for row in rows for key in re.findall(r"`(\w+)`", row)}
    assert named == EXTRA_KEYS
