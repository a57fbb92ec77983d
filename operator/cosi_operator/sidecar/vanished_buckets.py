"""Releases the claims of Buckets that no longer exist, and warns about data that is left."""

from cosi_operator.api.view import Bucket, BucketClaim, DeletionPolicy, Key
from cosi_operator.kube.objects import set_finalizers
from cosi_operator.outcome import Reason
from cosi_operator.plan import names, records
from cosi_operator.sidecar.bucket_messages import data_left
from cosi_operator.sidecar.shared import Sidecar


class VanishedBuckets:
    """The claims that wait for vanished Buckets, and Warnings about the data of such Buckets."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._s = sidecar

    async def release_claim(self, key: Key) -> None:
        """Release the claim of a Bucket that vanished without our finalizer (a refused Bucket).

        Our controller releases the claim too, but the Go controller waits for the sidecar.
        """
        memory = self._s.lookup.memory
        bucket = memory.released_bucket(key.name)
        if bucket is None or self._s.buckets.get(key) is not None:
            memory.forget_released(key.name)
            return
        if memory.take_without_finalizer(bucket.meta.uid):
            self._warn_data_left(bucket)
        claim = self._s.lookup.claim_of_bucket(bucket)
        if claim is None or key.name != records.target_name(claim):
            memory.forget_released(key.name)
        elif claim.meta.deleting and await self._s.buckets.refresh(key) is None:
            await self.free(claim.meta.key, claim.meta.uid)
            memory.forget_released(key.name)

    async def free(self, key: Key, uid: str) -> BucketClaim | None:
        """Remove our finalizer from the claim with this UID."""
        current = self._s.claims.get(key)
        if current is None or current.meta.uid != uid:
            return None
        return await self._s.claims.edit(
            key, uid, lambda body: set_finalizers(body, remove=(names.CLAIM_FINALIZER,))
        )

    def _warn_data_left(self, bucket: Bucket) -> None:
        """Emit a Warning about a Bucket that was deleted after its finalizer was removed."""
        if bucket.deletion_policy is DeletionPolicy.DELETE and (left := data_left(bucket)):
            reason = Reason.BACKEND_UNVERIFIED.value
            self._s.reporter.event_about_gone(self._s.buckets, bucket, "Warning", reason, left)
