"""Objects as the Go pair leaves them, finished and half done, go on under ours; nothing is lost.

First stands what upstream installed: its CRDs, unchanged. Then helm takes these over, and our two
processes start. No bucket is created twice, no access whose account is known is granted twice, and
what was deleted ends.
"""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.chart.flow import eventually, found, refused
from tests.chart.pod import ROOT, Pod

from chart_outputs import NAMESPACE, RELEASE, Helm
from controlplane import ControlPlane
from cosi_operator.api.record import RECORD_ANNOTATION, decode_record
from cosi_operator.api.resources import BUCKET_ACCESSES, BUCKET_CLAIMS, BUCKETS, GROUP
from cosi_operator.api.view import Resource
from cosi_operator.outcome import Call
from cosi_operator.plan import names
from cosi_operator.rpc import cosi_pb2 as pb
from cosi_operator.rpc import cosi_pb2_grpc as pb_grpc
from mockdriver.client import MockDriver

TEAM = "team"
API = f"{GROUP}/v1alpha1"
CALL_TIMEOUT_S = 10.0

CLASSES = """
apiVersion: objectstorage.k8s.io/v1alpha1
kind: BucketClass
metadata: {{name: gold}}
driverName: {driver}
deletionPolicy: Delete
parameters: {{tier: gold}}
---
apiVersion: objectstorage.k8s.io/v1alpha1
kind: BucketAccessClass
metadata: {{name: keys}}
driverName: {driver}
authenticationType: Key
---
apiVersion: v1
kind: Namespace
metadata: {{name: team}}
"""


@dataclass(frozen=True, slots=True)
class Leftovers:
    """Writes what the Go controller and sidecar write, step by step, and asks the driver too.

    Source: v0.2.2; the order of its steps is that of its sidecar.
    """

    plane: ControlPlane
    driver: MockDriver

    def claim(self, name: str) -> Any:
        """A claim, its Bucket, the binding: the Go controller's part."""
        spec = {"protocols": ["S3"], "bucketClassName": "gold"}
        claim = self._create(BUCKET_CLAIMS, name, spec, [names.CLAIM_FINALIZER])
        meta = claim["metadata"]
        bucket = {
            "driverName": self.driver.name,
            "bucketClassName": "gold",
            "deletionPolicy": "Delete",
            "parameters": {"tier": "gold"},
            "protocols": ["S3"],
            "bucketClaim": {"name": name, "namespace": TEAM, "uid": meta["uid"]},
        }
        self._create(BUCKETS, names.bucket_name(meta["uid"]), bucket, [])
        status = {"bucketName": names.bucket_name(meta["uid"]), "bucketReady": False}
        return self._put_status(BUCKET_CLAIMS, name, status)

    def create_bucket(self, claim: Any) -> str:
        """DriverCreateBucket; returns the id."""
        with grpc.insecure_channel(self.driver.address) as channel:
            name = claim["status"]["bucketName"]
            request = pb.DriverCreateBucketRequest(name=name, parameters={"tier": "gold"})
            stub = pb_grpc.ProvisionerStub(channel)
            return str(stub.DriverCreateBucket(request, timeout=CALL_TIMEOUT_S).bucket_id)

    def bucket_is_ready(self, claim: Any, bucket_id: str) -> None:
        name = claim["status"]["bucketName"]
        self._add_finalizer(BUCKETS, name, names.BUCKET_FINALIZER)
        status = {"bucketReady": True, "bucketID": bucket_id}
        self._put_status(BUCKETS, name, status)

    def claim_is_ready(self, claim: Any) -> None:
        status = {**claim["status"], "bucketReady": True}
        self._put_status(BUCKET_CLAIMS, claim["metadata"]["name"], status)

    def ready(self, name: str) -> tuple[Any, str]:
        """A claim with all of it done."""
        claim = self.claim(name)
        bucket_id = self.create_bucket(claim)
        self.bucket_is_ready(claim, bucket_id)
        self.claim_is_ready(claim)
        return claim, bucket_id

    def access(self, name: str, claim: str) -> Any:
        spec = {
            "bucketClaimName": claim,
            "bucketAccessClassName": "keys",
            "credentialsSecretName": f"{name}-keys",
            "protocol": "S3",
        }
        return self._create(BUCKET_ACCESSES, name, spec, [])

    def grant(self, access: Any, bucket_id: str) -> pb.DriverGrantBucketAccessResponse:
        with grpc.insecure_channel(self.driver.address) as channel:
            request = pb.DriverGrantBucketAccessRequest(
                bucket_id=bucket_id,
                name=names.account_name(access["metadata"]["uid"]),
                authentication_type=pb.Key,
            )
            stub = pb_grpc.ProvisionerStub(channel)
            return stub.DriverGrantBucketAccess(request, timeout=CALL_TIMEOUT_S)

    def secret(self, access: Any, bucket: str, reply: pb.DriverGrantBucketAccessResponse) -> None:
        keys = {name.lower(): text for name, text in reply.credentials["s3"].secrets.items()}
        info = {
            "metadata": {
                "name": names.bucket_info_name(access["metadata"]["uid"]),
                "creationTimestamp": None,
            },
            "spec": {
                "bucketName": bucket,
                "authenticationType": "Key",
                "secretS3": {
                    "endpoint": keys["endpoint"],
                    "region": keys["region"],
                    "accessKeyID": keys["accesskeyid"],
                    "accessSecretKey": keys["accesssecretkey"],
                },
                "secretAzure": None,
                "protocols": ["S3"],
            },
        }
        body = {
            "metadata": {
                "name": access["spec"]["credentialsSecretName"],
                "finalizers": [names.SECRET_FINALIZER],
            },
            "stringData": {"BucketInfo": json.dumps(info)},
        }
        self.plane.api.call("POST", f"/api/v1/namespaces/{TEAM}/secrets", body)

    def access_is_granted(self, access: Any, bucket: str, account: str) -> None:
        name = access["metadata"]["name"]
        self._add_finalizer(BUCKETS, bucket, names.BUCKET_ACCESS_FINALIZER)
        self._add_finalizer(BUCKET_ACCESSES, name, names.ACCESS_FINALIZER)
        status = {"accessGranted": True, "accountID": account}
        self._put_status(BUCKET_ACCESSES, name, status)

    def granted(self, name: str, claim: Any, bucket_id: str) -> None:
        """An access with all of it done."""
        access = self.access(name, claim["metadata"]["name"])
        reply = self.grant(access, bucket_id)
        bucket = claim["status"]["bucketName"]
        self.secret(access, bucket, reply)
        self.access_is_granted(access, bucket, reply.account_id)

    def delete(self, resource: Resource, name: str) -> None:
        self.plane.api.call("DELETE", self._path(resource, name))

    def get(self, resource: Resource, name: str) -> Any:
        return found(self.plane, self._path(resource, name))

    @staticmethod
    def _path(resource: Resource, name: str, subresource: str = "") -> str:
        namespace = "" if resource is BUCKETS else TEAM
        return resource.path(namespace, name, subresource)

    def _create(self, resource: Resource, name: str, spec: Any, finalizers: list[str]) -> Any:
        meta = {"name": name, "finalizers": finalizers}
        body = {"apiVersion": API, "kind": resource.kind, "metadata": meta, "spec": spec}
        namespace = "" if resource is BUCKETS else TEAM
        return self.plane.api.call("POST", resource.path(namespace), body)

    def _put_status(self, resource: Resource, name: str, status: Any) -> Any:
        body = {**self.get(resource, name), "status": status}
        return self.plane.api.call("PUT", self._path(resource, name, "status"), body)

    def _add_finalizer(self, resource: Resource, name: str, finalizer: str) -> None:
        body = self.get(resource, name)
        body["metadata"].setdefault("finalizers", []).append(finalizer)
        self.plane.api.call("PUT", self._path(resource, name), body)


@dataclass(slots=True)
class Taken:
    """The cluster after the change, and how often the driver was called before it."""

    left: Leftovers
    before: int
    users: tuple[str, str]
    claims: dict[str, Any]

    def calls(self, call: Call, field: str) -> list[str]:
        """What the driver was asked since the change, by one field of the request."""
        return [entry.fields[field] for entry in self.left.driver.journal(call)[self._seen(call) :]]

    def _seen(self, call: Call) -> int:
        return sum(entry.number <= self.before for entry in self.left.driver.journal(call))

    def bucket(self, name: str) -> Any:
        return self.left.get(BUCKETS, self.claims[name]["status"]["bucketName"])

    def account(self, access: str) -> str:
        """The name under which the account of an access is made."""
        return names.account_name(self.left.get(BUCKET_ACCESSES, access)["metadata"]["uid"])

    def secret(self, access: str) -> Any:
        return found(self.left.plane, f"/api/v1/namespaces/{TEAM}/secrets/{access}-keys")

    def until_granted(self, access: str) -> None:
        def granted() -> bool:
            status = self.left.get(BUCKET_ACCESSES, access).get("status", {})
            return bool(status.get("accessGranted"))

        eventually(f"access {access}", granted)


def leave(left: Leftovers) -> dict[str, Any]:
    """Every state that the Go pair can leave behind; the claims by their names."""
    claims = {}
    for name in ("done", "forgotten", "leaving"):
        claims[name], bucket_id = left.ready(name)
        left.granted(f"{name}-app", claims[name], bucket_id)
    # Its two halves race for the claim's status: the Bucket is ready, and the claim never.
    claims["unready"] = left.claim("unready")
    left.bucket_is_ready(claims["unready"], left.create_bucket(claims["unready"]))
    claims["unmade"] = left.claim("unmade")  # nobody has asked the driver yet
    claims["unwritten"] = left.claim("unwritten")  # the bucket is made, its status is lost
    left.create_bucket(claims["unwritten"])
    # Refused by the driver, and tried again for ever.
    claims["refused"] = left.claim("refused")
    name = claims["refused"]["status"]["bucketName"]
    left.driver.set_rule(Call.CREATE_BUCKET, match={"name": name}, code="INVALID_ARGUMENT")
    # Killed between the Secret and its own finalizer.
    claims["killed"], bucket_id = left.ready("killed")
    access = left.access("killed-app", "killed")
    bucket = claims["killed"]["status"]["bucketName"]
    left.secret(access, bucket, left.grant(access, bucket_id))
    # Deleted while the Go pair was away already.
    left.delete(BUCKET_ACCESSES, "leaving-app")
    left.delete(BUCKET_CLAIMS, "leaving")
    return claims


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory, operator_chart: Path) -> Iterator[Taken]:
    folder = tmp_path_factory.mktemp("takeover")
    with (
        ControlPlane.start(tmp_path_factory.mktemp("plane")) as plane,
        MockDriver.start(tmp_path_factory.mktemp("driver")) as driver,
    ):
        plane.apply(ROOT / "tests" / "support" / "upstream_crds")
        plane.apply(CLASSES.format(driver=driver.name))
        left = Leftovers(plane, driver)
        claims = leave(left)
        before = len(driver.journal())
        Helm(folder / "helm", plane.admin_kubeconfig).run(
            "install", RELEASE, str(operator_chart), f"--namespace={NAMESPACE}",
            "--create-namespace", "--take-ownership",
        )  # fmt: skip
        pods = [pod(plane, folder, role, driver) for role in ("controller", "sidecar")]
        daemons = [one.start(one.spec["containers"][0]["name"], mounted=False) for one in pods]
        try:
            yield Taken(left, before, (pods[0].user, pods[1].user), claims)
        finally:
            for daemon in daemons:
                daemon.stop(grace_s=8)


def pod(plane: ControlPlane, folder: Path, role: str, driver: MockDriver) -> Pod:
    """One of the two processes under the account that the chart made for it."""
    env = [{"name": "POD_NAMESPACE", "value": NAMESPACE}]
    mounts = [{"name": "socket", "mountPath": "/var/lib/cosi"}] if role == "sidecar" else []
    arguments = ["--driver-addr=unix:///var/lib/cosi/cosi.sock"] if mounts else []
    container = {
        "name": role,
        "command": [f"/{role}"],
        "args": arguments,
        "env": env,
        "volumeMounts": mounts,
    }
    spec = {
        "serviceAccountName": f"cosi-operator-{role}",
        "containers": [container],
        "volumes": [{"name": "socket"}],
    }
    return Pod(plane, folder, NAMESPACE, spec, {"socket": driver.socket_path.parent})


@pytest.mark.parametrize("name", ["done", "forgotten", "unready", "unmade", "unwritten", "killed"])
def test_every_claim_becomes_ready(taken: Taken, name: str) -> None:
    def ready() -> bool:
        claim = taken.left.get(BUCKET_CLAIMS, name)
        return bool(claim["status"]["bucketReady"]) and any(
            condition["type"] == "Ready" and condition["status"] == "True"
            for condition in claim["status"].get("conditions", ())
        )

    eventually(f"claim {name}", ready)
    assert taken.bucket(name)["status"]["bucketReady"] is True


@pytest.mark.parametrize("name", ["done-app", "forgotten-app"])
def test_every_access_is_granted_and_its_secret_is_as_it_was(taken: Taken, name: str) -> None:
    taken.until_granted(name)
    assert not written_by_ours(taken.secret(name))


def test_an_access_whose_account_nobody_wrote_down_is_granted_again_into_its_own_secret(
    taken: Taken,
) -> None:
    """The record names the accounts that may be revoked, so the driver is asked for its id."""
    taken.until_granted("killed-app")
    secret = taken.secret("killed-app")
    assert written_by_ours(secret)
    keys = json.loads(base64.b64decode(secret["data"]["BucketInfo"]))["spec"]["secretS3"]
    account = taken.account("killed-app")
    accounts = {one.account_id: one for one in taken.left.driver.accounts()}
    assert keys["accessSecretKey"] == accounts[f"acct-{account}"].secret_key
    record = decode_record(taken.bucket("killed")["metadata"]["annotations"][RECORD_ANNOTATION])
    assert record is not None
    assert [entry.accounts for entry in record.accesses.values()] == [(f"acct-{account}",)]


def written_by_ours(secret: Any) -> bool:
    managers = {entry["manager"] for entry in secret["metadata"]["managedFields"]}
    return any("cosi-sidecar" in manager for manager in managers)


def test_what_was_being_deleted_ends_and_its_account_and_bucket_are_gone(taken: Taken) -> None:
    claim = taken.claims["leaving"]
    eventually(
        "the claim, its access, Bucket and Secret to go",
        lambda: (
            taken.left.get(BUCKET_CLAIMS, "leaving") is None
            and taken.left.get(BUCKET_ACCESSES, "leaving-app") is None
            and taken.bucket("leaving") is None
            and found(taken.left.plane, f"/api/v1/namespaces/{TEAM}/secrets/leaving-app-keys")
            is None
        ),
    )
    backend_id = f"id-{claim['status']['bucketName']}"
    assert backend_id not in {bucket.bucket_id for bucket in taken.left.driver.buckets()}
    assert backend_id not in {account.bucket_id for account in taken.left.driver.accounts()}


def test_what_was_refused_for_ever_stops_and_says_so(taken: Taken) -> None:
    def stalled() -> bool:
        claim = taken.left.get(BUCKET_CLAIMS, "refused")
        return any(
            (condition["type"], condition["status"]) == ("Stalled", "True")
            and condition["reason"] == "DriverInvalidArgument"
            for condition in claim["status"].get("conditions", ())
        )

    eventually("the claim to be stalled", stalled)


def test_only_what_was_never_finished_is_asked_for(taken: Taken) -> None:
    states = ("unmade", "unwritten", "refused")
    unfinished = {taken.claims[name]["status"]["bucketName"] for name in states}
    created = taken.calls(Call.CREATE_BUCKET, "name")
    assert sorted(created) == sorted(unfinished)
    assert taken.calls(Call.GRANT_ACCESS, "name") == [taken.account("killed-app")]


@pytest.mark.parametrize("name", ["done", "forgotten", "killed"])
def test_deleting_what_the_go_pair_made_leaves_nothing(taken: Taken, name: str) -> None:
    left = taken.left
    account = taken.account(f"{name}-app")
    if name == "forgotten":  # someone removed the Secret by force, which blocks the Go sidecar
        path = f"/api/v1/namespaces/{TEAM}/secrets/forgotten-app-keys"
        secret = found(left.plane, path)
        secret["metadata"]["finalizers"] = []
        left.plane.api.call("PUT", path, secret)
        left.plane.api.call("DELETE", path)
    left.delete(BUCKET_ACCESSES, f"{name}-app")
    left.delete(BUCKET_CLAIMS, name)
    eventually(
        f"all of {name} to go",
        lambda: (
            left.get(BUCKET_ACCESSES, f"{name}-app") is None
            and left.get(BUCKET_CLAIMS, name) is None
            and taken.bucket(name) is None
            and found(left.plane, f"/api/v1/namespaces/{TEAM}/secrets/{name}-app-keys") is None
        ),
        told=lambda: json.dumps(
            [
                left.get(BUCKET_ACCESSES, f"{name}-app"),
                left.get(BUCKET_CLAIMS, name),
                taken.bucket(name),
            ]
        ),
    )
    backend_id = f"id-{taken.claims[name]['status']['bucketName']}"
    # More than one Revoke when the two deletions meet: it is safe to repeat, unlike a Grant.
    assert f"acct-{account}" in taken.calls(Call.REVOKE_ACCESS, "account_id")
    assert taken.calls(Call.DELETE_BUCKET, "bucket_id").count(backend_id) == 1
    assert backend_id not in {account.bucket_id for account in left.driver.accounts()}


def test_no_request_was_forbidden(taken: Taken) -> None:
    for user in taken.users:
        assert refused(taken.left.plane, user) == []
