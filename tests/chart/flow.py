"""The main job for tests: a claim, an access, keys, and all of it gone again."""

import base64
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from controlplane import ApiError, ControlPlane
from cosi_operator.api.resources import BUCKET_ACCESSES, BUCKET_CLAIMS, BUCKETS

DEADLINE_S = 25.0
POLL_S = 0.05

OBJECTS = """
apiVersion: objectstorage.k8s.io/v1alpha1
kind: BucketClass
metadata: {{name: {name}}}
driverName: {driver}
deletionPolicy: Delete
---
apiVersion: objectstorage.k8s.io/v1alpha1
kind: BucketAccessClass
metadata: {{name: {name}}}
driverName: {driver}
authenticationType: Key
---
apiVersion: v1
kind: Namespace
metadata: {{name: {name}}}
---
apiVersion: objectstorage.k8s.io/v1alpha1
kind: BucketClaim
metadata: {{name: claim, namespace: {name}}}
spec: {{protocols: [S3], bucketClassName: {name}}}
---
apiVersion: objectstorage.k8s.io/v1alpha1
kind: BucketAccess
metadata: {{name: access, namespace: {name}}}
spec: {{bucketClaimName: claim, bucketAccessClassName: {name}, credentialsSecretName: keys,
       protocol: S3}}
"""


@dataclass(frozen=True, slots=True)
class MainJob:
    """One tenant's claim and access with one driver. `name` is namespace and classes."""

    plane: ControlPlane
    driver: str
    name: str = "team"

    def ask(self) -> None:
        """Create it all at once, as people do."""
        self.plane.apply(OBJECTS.format(name=self.name, driver=self.driver))

    def claim(self) -> Any:
        return found(self.plane, BUCKET_CLAIMS.path(self.name, "claim"))

    def access(self) -> Any:
        return found(self.plane, BUCKET_ACCESSES.path(self.name, "access"))

    def secret(self) -> Any:
        return found(self.plane, f"/api/v1/namespaces/{self.name}/secrets/keys")

    def bucket_info(self) -> Any:
        return json.loads(base64.b64decode(self.secret()["data"]["BucketInfo"]))

    def wait_until_granted(self) -> None:
        """Until claim and access are ready and the Secret stands."""
        eventually(
            f"access of {self.name} to be granted",
            lambda: bool((self.access() or {}).get("status", {}).get("accessGranted")),
            told=lambda: json.dumps([self.claim(), self.access()]),
        )
        assert self.claim()["status"]["bucketReady"] is True
        assert self.bucket_info()["spec"]["secretS3"]["accessSecretKey"]

    def delete(self) -> None:
        """Delete both, and wait until nothing of them is left; an access may be gone already."""
        flags = (f"--namespace={self.name}", "--wait=false", "--ignore-not-found")
        for kind, name in (("bucketaccess", "access"), ("bucketclaim", "claim")):
            self.plane.run_kubectl("delete", kind, name, *flags)
        eventually(
            f"everything of {self.name} to go",
            lambda: not (self.access() or self.secret() or self.claim() or self.buckets()),
            told=lambda: json.dumps([self.claim(), self.access(), self.buckets()]),
        )

    def buckets(self) -> list[Any]:
        """Buckets made for its claim."""
        listed = self.plane.api.call("GET", BUCKETS.path())["items"]
        return [one for one in listed if one["spec"]["bucketClaim"].get("namespace") == self.name]


def found(plane: ControlPlane, path: str) -> Any:
    """The object, or None."""
    try:
        return plane.api.call("GET", path)
    except ApiError as error:
        if error.code != 404:
            raise
        return None


def eventually(
    what: str, holds: Callable[[], bool], *, told: Callable[[], str] = lambda: ""
) -> None:
    """Wait until it holds; `told` adds to the failure's message."""
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, f"waited {DEADLINE_S} s for {what} {told()}"
        time.sleep(POLL_S)


def refused(plane: ControlPlane, user: str) -> list[str]:
    """What the API server forbade an account, from its audit log."""
    entries = plane.audit.entries(where=lambda entry: entry.code == 403 and entry.user == user)
    return [f"{entry.verb} {entry.uri}" for entry in entries]
