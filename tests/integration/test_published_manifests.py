"""The manifests that drivers publish for their users, applied unchanged: buckets, keys, an end.

tests/integration/manifests has one file for each driver of docs/drivers.md that publishes some:
fields and values as the driver's repository has them, and nothing else of it. One mock driver
takes the name of each in turn.
"""

import base64
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from cosi_operator.outcome import Call
from testbed import Testbed
from testbed.bed import STOP_GRACE_S
from testbed.objects import Json, reasons

FILES = sorted((Path(__file__).parent / "manifests").glob("*.yaml"))
PLURALS = {
    "BucketClass": "bucketclasses",
    "BucketClaim": "bucketclaims",
    "BucketAccessClass": "bucketaccessclasses",
    "BucketAccess": "bucketaccesses",
    "Bucket": "buckets",
}


@dataclass(frozen=True, slots=True)
class Published:
    """The objects of one file."""

    file: Path
    objects: tuple[Json, ...]

    @classmethod
    def read(cls, file: Path) -> "Published":
        return cls(file, tuple(yaml.safe_load_all(file.read_text(encoding="utf-8"))))

    def of(self, kind: str) -> list[Json]:
        return [body for body in self.objects if body["kind"] == kind]

    @property
    def driver(self) -> str:
        (name,) = {body["driverName"] for body in self.objects if "driverName" in body}
        return str(name)

    def one(self, kind: str, name: str) -> Json:
        (found,) = (body for body in self.of(kind) if body["metadata"]["name"] == name)
        return found


def namespace_of(body: Json) -> str:
    return str(body["metadata"].get("namespace", "default"))


@pytest.fixture(scope="module")
def module_bed() -> Iterator[Testbed]:
    """Our CRDs and our controller; each test starts the sidecar."""
    with (
        tempfile.TemporaryDirectory(prefix="cosi-") as directory,
        Testbed.start(Path(directory), operator=False) as bed,
    ):
        bed.start_process("controller")
        bed.until_leading("controller")
        for name in {namespace_of(b) for file in FILES for b in Published.read(file).objects}:
            if name != "default":
                bed.make_namespace(name)
        yield bed


@pytest.fixture
def bed(module_bed: Testbed) -> Iterator[Testbed]:
    yield module_bed
    module_bed.processes["sidecar"].stop(grace_s=STOP_GRACE_S)


def serve(bed: Testbed, published: Published) -> None:
    """Start the driver of the manifests, with the buckets that they take, and a sidecar."""
    bed.driver.restart(name=published.driver)
    bed.driver.reset()
    bed.driver.stop()
    with (bed.directory / "state.jsonl").open("a", encoding="utf-8") as state:
        for body in published.of("Bucket"):
            existing = {"bucket_id": body["spec"]["existingBucketID"], "name": "", "parameters": {}}
            state.write(json.dumps({"bucket": existing}) + "\n")
    bed.driver.restart()
    if published.file.stem == "azure":
        bed.driver.set_rule(Call.GRANT_ACCESS, reply="azure_credentials")
    bed.start_process("sidecar")
    bed.until_leading("sidecar")


def until_all_ready(bed: Testbed, published: Published) -> None:
    for kind in ("BucketClaim", "BucketAccess"):
        for body in published.of(kind):
            bed.until_ready(PLURALS[kind], [body["metadata"]["name"]], namespace_of(body))


def keys_of(bed: Testbed, access: Json) -> dict[str, str]:
    secret = bed.get("secrets", access["spec"]["credentialsSecretName"], namespace_of(access))
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_published_manifests_work_unchanged(bed: Testbed, file: Path) -> None:
    published = Published.read(file)
    serve(bed, published)
    mark = bed.plane.audit.mark()
    bed.plane.run_kubectl("apply", f"--filename={file}")
    until_all_ready(bed, published)

    grants = {entry.fields["name"]: entry.fields for entry in bed.driver.journal(Call.GRANT_ACCESS)}
    for asked in published.of("BucketAccess"):
        access = bed.get("bucketaccesses", asked["metadata"]["name"], namespace_of(asked))
        assert reasons(access) == {"Ready": "Granted"}
        of_class = published.one("BucketAccessClass", asked["spec"]["bucketAccessClassName"])
        grant = grants[f"ba-{access['metadata']['uid']}"]
        kind = of_class["authenticationType"]
        assert grant["authentication_type"] == {"KEY": "Key"}.get(kind, kind)
        sent = {key: value for key, value in grant.items() if key.startswith("parameters.")}
        assert sent == with_prefix(of_class.get("parameters") or {})
        keys = keys_of(bed, access)
        spec = json.loads(keys["BucketInfo"])["spec"]
        claim = bed.get("bucketclaims", asked["spec"]["bucketClaimName"], namespace_of(asked))
        assert reasons(claim) == {"Ready": "Provisioned"}  # nothing of it is ignored
        assert spec["authenticationType"] == kind  # as it is written there, as Go has it
        assert spec["bucketName"] == claim["status"]["bucketName"]
        assert spec["protocols"] == [asked["spec"].get("protocol") or ""]
        assert keys["COSI_PROTOCOL"] == ("Azure" if file.stem == "azure" else "S3")

    bed.plane.run_kubectl("delete", f"--filename={file}", "--wait=false", "--ignore-not-found")
    for body in published.objects:
        name, plural = body["metadata"]["name"], PLURALS[body["kind"]]
        bed.until_gone(plural, [name], namespace_of(body))
    bed.until("the Buckets to be gone", lambda: not bed.all_of("buckets"))
    assert bed.driver.accounts() == []
    assert bed.forbidden(since=mark) == []
    assert {entry.code for entry in bed.driver.journal()} == {"OK"}


def with_prefix(parameters: dict[str, Any]) -> dict[str, str]:
    return {f"parameters.{key}": value for key, value in parameters.items()}
