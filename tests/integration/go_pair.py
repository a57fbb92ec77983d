"""A stand-in for the Go controller and sidecar v0.2.2: their order of steps and their faults.

It looks at every object once per `turn`, as the Go pair does on each event and retry, over the real
API server and the driver's real socket. An error ends an object's step and is kept in `failed`.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import grpc

from controlplane import ApiError
from cosi_operator.plan.names import (
    ACCESS_FINALIZER,
    BUCKET_ACCESS_FINALIZER,
    BUCKET_FINALIZER,
    CLAIM_FINALIZER,
    SECRET_FINALIZER,
    account_name,
    bucket_name,
)
from cosi_operator.rpc import cosi_pb2, cosi_pb2_grpc
from testbed import NAMESPACE, Testbed
from testbed.objects import path_of

type Json = dict[str, Any]
type Named = tuple[str, str]  # kind and name
TIMEOUT_S = 20.0
KINDS = {"bucketclaims": "BucketClaim", "buckets": "Bucket", "bucketaccesses": "BucketAccess"}


class GoPair:
    """Both halves, for one driver and the namespace of the testbed."""

    def __init__(self, bed: Testbed) -> None:
        self.bed = bed
        self.driver = cosi_pb2_grpc.ProvisionerStub(grpc.insecure_channel(bed.driver.address))
        self.failed: set[Named] = set()
        self._known: dict[str, Json] = {}

    def turn(self) -> set[Named]:
        """Look at every object once; returns those that are still there."""
        steps: dict[str, Callable[[Json], None]] = {
            "bucketclaims": self._claim,
            "bucketaccesses": self._access,
            "buckets": self._bucket,
        }
        self.failed = set()
        for plural, step in steps.items():
            for body in self.bed.all_of(plural):
                self._try(plural, body, step)
        now = {body["metadata"]["uid"]: body for body in self.bed.all_of("buckets")}
        for uid in self._known.keys() - now.keys():  # the handler of the watch's DELETED
            self._try("buckets", self._known[uid], self._release_claim)
        self._known = now
        return {
            (kind, body["metadata"]["name"])
            for plural, kind in KINDS.items()
            for body in self.bed.all_of(plural)
        }

    def _try(self, plural: str, body: Json, step: Callable[[Json], None]) -> None:
        try:
            step(body)
        except (ApiError, grpc.RpcError, KeyError):
            self.failed.add((KINDS[plural], body["metadata"]["name"]))

    def _claim(self, claim: Json) -> None:
        name = claim.get("status", {}).get("bucketName", "")
        if claim["metadata"].get("deletionTimestamp"):
            if name and CLAIM_FINALIZER in claim["metadata"].get("finalizers", ()):
                with contextlib.suppress(ApiError):
                    self.bed.delete("buckets", name)
        elif not claim.get("status", {}).get("bucketReady"):
            # Its Bucket is made anew; in these tests our controller has made it already.
            self.bed.get("bucketclasses", claim["spec"]["bucketClassName"])
            self.bed.get("buckets", bucket_name(claim["metadata"]["uid"]))

    def _bucket(self, bucket: Json) -> None:
        spec, status = bucket["spec"], bucket.get("status", {})
        is_ours = spec["driverName"].lower() == self.bed.driver.name
        if not bucket["metadata"].get("deletionTimestamp"):
            if is_ours and not status.get("bucketReady"):
                self.driver.DriverCreateBucket(
                    cosi_pb2.DriverCreateBucketRequest(
                        name=bucket["metadata"]["name"], parameters=spec.get("parameters", {})
                    ),
                    timeout=TIMEOUT_S,
                )
            return
        if BUCKET_ACCESS_FINALIZER in bucket["metadata"].get("finalizers", ()):
            claim = spec["bucketClaim"]  # absent: the real one ends with a panic
            for access in self.bed.all_of("bucketaccesses", claim["namespace"]):
                if access["spec"]["bucketClaimName"] == claim["name"]:
                    self.bed.delete("bucketaccesses", access["metadata"]["name"])
        if BUCKET_FINALIZER in bucket["metadata"].get("finalizers", ()) and is_ours:
            if spec.get("deletionPolicy") == "Delete":
                self._delete_bucket(status.get("bucketID", ""), spec.get("parameters", {}))
            self._release_claim(bucket)
        self._strip("buckets", bucket, BUCKET_ACCESS_FINALIZER, BUCKET_FINALIZER)

    def _delete_bucket(self, bucket_id: str, parameters: dict[str, str]) -> None:
        request = cosi_pb2.DriverDeleteBucketRequest(bucket_id=bucket_id, delete_context=parameters)
        try:
            self.driver.DriverDeleteBucket(request, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.NOT_FOUND:
                raise

    def _release_claim(self, bucket: Json) -> None:
        if claim := bucket["spec"].get("bucketClaim"):
            body = self.bed.get("bucketclaims", claim["name"], claim["namespace"])
            self._strip("bucketclaims", body, CLAIM_FINALIZER)

    def _access(self, access: Json) -> None:
        status = access.get("status", {})
        is_granted = status.get("accessGranted") and status.get("accountID")
        is_deleting = bool(access["metadata"].get("deletionTimestamp"))
        if is_granted and not is_deleting:
            return
        claim = self.bed.get("bucketclaims", access["spec"]["bucketClaimName"])
        bucket = self.bed.get("buckets", claim.get("status", {}).get("bucketName") or "none")
        bucket_id = bucket.get("status", {}).get("bucketID", "")
        if not is_deleting:
            class_name = access["spec"]["bucketAccessClassName"]
            request = cosi_pb2.DriverGrantBucketAccessRequest(
                bucket_id=bucket_id,
                name=account_name(access["metadata"]["uid"]),
                parameters=self.bed.get("bucketaccessclasses", class_name).get("parameters", {}),
            )
            self.driver.DriverGrantBucketAccess(request, timeout=TIMEOUT_S)
            return
        self.driver.DriverRevokeBucketAccess(
            cosi_pb2.DriverRevokeBucketAccessRequest(
                bucket_id=bucket_id, account_id=status.get("accountID", "")
            ),
            timeout=TIMEOUT_S,
        )
        secret = self.bed.get("secrets", access["spec"]["credentialsSecretName"])
        self._strip("secrets", secret, SECRET_FINALIZER)
        self.bed.delete("secrets", secret["metadata"]["name"])
        self._strip("bucketaccesses", access, ACCESS_FINALIZER)

    def _strip(self, plural: str, body: Json, *finalizers: str) -> None:
        held = body["metadata"].get("finalizers", [])
        left = [each for each in held if each not in finalizers]
        if left != held:
            body["metadata"]["finalizers"] = left
            path = path_of(plural, NAMESPACE, body["metadata"]["name"])
            self.bed.plane.api.call("PUT", path, body)
