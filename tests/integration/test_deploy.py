"""deploy/ on a real API server: first where upstream's CRDs stand already, then with ours."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.v1alpha1 import CALL, READY, STATUS

from controlplane import ControlPlane
from cosi_operator.api import view
from cosi_operator.api.decode import decode_bucket, decode_bucket_access, decode_bucket_claim
from cosi_operator.api.encode import annotate_status, bucket_body, keeps_conditions, with_status
from cosi_operator.api.resources import BUCKET_ACCESSES, BUCKET_CLAIMS, BUCKETS, GROUP
from cosi_operator.api.view import Resource

ROOT = Path(__file__).resolve().parents[2]
UPSTREAM_CRDS = ROOT / "tests" / "support" / "upstream_crds"
NAMESPACE = "container-object-storage-system"
SCHEMA_DEADLINE_S = 20.0

OBJECTS = """
apiVersion: objectstorage.k8s.io/v1alpha1
kind: BucketClass
metadata: {name: gold}
driverName: sample.objectstorage.k8s.io
---
apiVersion: objectstorage.k8s.io/v1alpha1
kind: BucketAccessClass
metadata: {name: keys}
driverName: sample.objectstorage.k8s.io
authenticationType: Key
---
apiVersion: objectstorage.k8s.io/v1alpha1
kind: Bucket
metadata: {name: one}
spec: {bucketClaim: {}, bucketClassName: gold, driverName: sample.objectstorage.k8s.io,
       protocols: [S3], existingBucketID: old}
---
apiVersion: objectstorage.k8s.io/v1alpha1
kind: BucketClaim
metadata: {name: one, namespace: default}
spec: {protocols: [s3, anything], existingBucketName: one}
---
apiVersion: objectstorage.k8s.io/v1alpha1
kind: BucketAccess
metadata: {name: one, namespace: default}
spec: {bucketClaimName: one, bucketAccessClassName: keys, credentialsSecretName: secret}
"""
WITH_STATUS = [BUCKETS, BUCKET_CLAIMS, BUCKET_ACCESSES]


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A cluster with upstream's CRDs and one object of each kind."""
    with ControlPlane.start(tmp_path_factory.mktemp("plane")) as plane:
        plane.apply(UPSTREAM_CRDS)
        plane.apply(OBJECTS)
        yield plane


@pytest.fixture(scope="module")
def deployed(upstream: ControlPlane) -> ControlPlane:
    """The same cluster after `kubectl apply -k deploy`."""
    upstream.run_kubectl("apply", "-k", str(ROOT / "deploy"))
    deadline = time.monotonic() + SCHEMA_DEADLINE_S
    # The API server takes a moment to use a changed schema.
    while not all(put_status(upstream, resource)[1] for resource in WITH_STATUS):
        assert time.monotonic() < deadline, "the new schemas are not served"
        time.sleep(0.1)
    return upstream


def path(resource: Resource, subresource: str = "") -> str:
    return resource.path("default", "one", subresource)


def put_status(plane: ControlPlane, resource: Resource) -> tuple[Any, bool]:
    """Write STATUS; the reply, and whether the served schema kept our part of it."""
    stored = plane.api.call("GET", path(resource))
    body = with_status(stored, STATUS)
    reply = plane.api.call("PUT", path(resource, "status"), body)
    return reply, keeps_conditions(reply, STATUS)


def read(body: Any) -> Any:
    decode = {
        "Bucket": decode_bucket,
        "BucketClaim": decode_bucket_claim,
        "BucketAccess": decode_bucket_access,
    }[body["kind"]]
    return decode(msgspec.json.encode(body))


@pytest.mark.parametrize("resource", WITH_STATUS, ids=lambda resource: resource.kind)
def test_upstreams_schema_drops_our_part_and_the_annotation_tells_it(
    upstream: ControlPlane, resource: Resource
) -> None:
    reply, kept = put_status(upstream, resource)
    assert not kept
    annotate_status(reply, STATUS)
    found = read(upstream.api.call("PUT", path(resource), reply))
    assert (found.conditions, found.observed_generation) == ((READY,), 3)
    if resource is not BUCKET_CLAIMS:
        assert found.last_call == CALL


@pytest.mark.parametrize("resource", WITH_STATUS, ids=lambda resource: resource.kind)
def test_our_schema_keeps_the_status_of_objects_stored_under_upstreams(
    deployed: ControlPlane, resource: Resource
) -> None:
    reply, kept = put_status(deployed, resource)
    assert kept
    found = read(reply)
    assert (found.conditions, found.observed_generation) == ((READY,), 3)
    if resource is not BUCKET_CLAIMS:
        assert found.last_call == CALL


def test_a_new_bucket_is_accepted(deployed: ControlPlane) -> None:
    body = bucket_body(
        "bucket-u-1",
        claim=view.ClaimRef("default", "one", "u-1"),
        bucket_class=view.BucketClass(view.Meta(name="gold"), "d", parameters={"tier": "1"}),
        protocols=("S3",),
    )
    found = read(deployed.api.call("POST", BUCKETS.path(), body))
    assert found.claim == view.ClaimRef("default", "one", "u-1")
    assert found.deletion_policy is view.DeletionPolicy.RETAIN


@pytest.mark.parametrize(
    ("plural", "columns"),
    [
        ("bucketclaims", "NAME READY REASON BUCKET CLASS AGE"),
        ("bucketaccesses", "NAME GRANTED REASON SECRET AGE"),
        ("buckets", "NAME DRIVER NAMESPACE CLAIM POLICY READY REASON AGE"),
        ("bucketclasses", "NAME DRIVER POLICY AGE"),
        ("bucketaccessclasses", "NAME DRIVER AUTHENTICATION AGE"),
    ],
)
def test_kubectl_get_shows_what_matters(deployed: ControlPlane, plural: str, columns: str) -> None:
    assert deployed.run_kubectl("get", plural).splitlines()[0].split() == columns.split()


def test_kubectl_get_shows_the_reason(deployed: ControlPlane) -> None:
    assert "Provisioned" in deployed.run_kubectl("get", "bucketclaim", "one")


CONTROLLER, SIDECAR = "cosi-operator-controller", "cosi-operator-sidecar"


@pytest.mark.parametrize(
    ("account", "verbs", "resource", "namespace", "allowed"),
    [
        (SIDECAR, "get list watch update", "buckets", "", True),
        (SIDECAR, "create delete", "buckets", "", False),
        (SIDECAR, "get list watch update", "bucketclaims", "team", True),
        (SIDECAR, "create delete", "bucketclaims", "team", False),
        (SIDECAR, "get list watch update delete", "bucketaccesses", "team", True),
        (SIDECAR, "create", "bucketaccesses", "team", False),
        (SIDECAR, "update", "buckets/status", "", True),
        (SIDECAR, "update", "bucketclaims/status", "team", True),
        (SIDECAR, "update", "bucketaccesses/status", "team", True),
        (SIDECAR, "list watch", "bucketaccessclasses", "", True),
        (SIDECAR, "get update create delete", "bucketaccessclasses", "", False),
        (SIDECAR, "get list watch", "bucketclasses", "", False),
        (SIDECAR, "patch", "buckets", "", False),
        (SIDECAR, "patch", "buckets/status", "", False),
        (SIDECAR, "get create update delete", "secrets", "team", True),
        (SIDECAR, "list watch patch", "secrets", "team", False),
        (SIDECAR, "create update", "events", "team", True),
        (SIDECAR, "patch", "events", "team", False),
        (SIDECAR, "get create update", "leases", NAMESPACE, True),
        (SIDECAR, "get create update", "leases", "team", False),
        (CONTROLLER, "get list watch update", "bucketclaims", "team", True),
        (CONTROLLER, "create delete patch", "bucketclaims", "team", False),
        (CONTROLLER, "get list watch update delete", "bucketaccesses", "team", True),
        (CONTROLLER, "get list watch update create delete", "buckets", "", True),
        (CONTROLLER, "update", "bucketclaims/status", "team", True),
        (CONTROLLER, "update", "bucketaccesses/status", "team", True),
        (CONTROLLER, "update", "buckets/status", "", False),
        (CONTROLLER, "get list watch", "bucketclasses", "", True),
        (CONTROLLER, "update create delete patch", "bucketclasses", "", False),
        (CONTROLLER, "get list create update delete", "secrets", "team", False),
        (CONTROLLER, "create update", "events", "team", True),
        (CONTROLLER, "get create update", "leases", NAMESPACE, True),
        (CONTROLLER, "get create update", "leases", "team", False),
    ],
)
def test_an_account_may_do_this_and_no_more(
    deployed: ControlPlane,
    account: str,
    verbs: str,
    resource: str,
    namespace: str,
    allowed: bool,
) -> None:
    name, _, subresource = resource.partition("/")
    group = {"secrets": "", "events": "", "leases": "coordination.k8s.io"}.get(name, GROUP)
    for verb in verbs.split():
        asked = {"verb": verb, "group": group, "resource": name, "subresource": subresource}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": f"system:serviceaccount:{NAMESPACE}:{account}",
                "resourceAttributes": {**asked, "namespace": namespace},
            },
        }
        answer = deployed.api.call(
            "POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review
        )
        assert answer["status"]["allowed"] is allowed, verb
