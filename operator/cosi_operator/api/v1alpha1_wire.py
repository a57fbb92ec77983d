"""The field names and types of objectstorage.k8s.io/v1alpha1, as msgspec structs.

Only `decode.py` and `encode.py` use these structs. `hack/verify-crds` compares their names and
types with deploy/crds/. Decoding is lenient: every field that upstream's schema allows to be absent
or null is optional here, and so are some that the schema requires.
"""

import hashlib
from collections.abc import Mapping

from msgspec import Raw, Struct, field

from cosi_operator.api import view
from cosi_operator.api.resources import RETRY_ANNOTATION
from cosi_operator.outcome import Effect

RETRY_LIMIT = 256


class Wire(Struct, frozen=True, gc=False, rename="camel"):
    """Base class of these structs. gc=False is safe, because JSON has no cycles."""


class Meta(Wire, frozen=True):
    name: str
    namespace: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    generation: int | None = None
    deletion_timestamp: str | None = None
    finalizers: tuple[str, ...] | None = None
    annotations: dict[str, str] | None = None
    creation_timestamp: str | None = None

    def to_view(self, *, oversized: bool = False) -> view.Meta:
        return view.Meta(
            name=self.name,
            namespace=self.namespace or "",
            uid=self.uid or "",
            resource_version=self.resource_version or "",
            generation=self.generation or 0,
            deleting=self.deletion_timestamp is not None,
            finalizers=self.finalizers or (),
            annotations=_with_short_retry(self.annotations or {}),
            created=self.creation_timestamp or "",
            oversized=oversized,
        )


def _with_short_retry(annotations: dict[str, str]) -> dict[str, str]:
    """Replace a long retry annotation by its digest, because the status stores the value.

    The digest is sufficient, because the value is only compared.
    """
    value = annotations.get(RETRY_ANNOTATION, "")
    if len(value) <= RETRY_LIMIT:
        return annotations
    digest = hashlib.sha256(value.encode(errors="replace")).hexdigest()
    return {**annotations, RETRY_ANNOTATION: f"sha256:{digest}"}


class Condition(Wire, frozen=True):
    type: str
    status: str
    reason: str
    last_transition_time: str
    message: str
    observed_generation: int = 0

    def to_view(self) -> view.Condition:
        return view.Condition(
            type=self.type,
            status=self.status,
            reason=self.reason,
            message=self.message,
            observed_generation=self.observed_generation,
            last_transition_time=self.last_transition_time,
        )


class LastCall(Wire, frozen=True):
    call: str
    code: str
    made_by: str
    outcome: str
    effect: Effect
    reason: str
    attempts: int
    observed_generation: int
    driver_instance: str
    retry_token: str
    time: str
    object_uid: str = field(default="", name="objectUID")

    def to_view(self) -> view.LastCall:
        return view.LastCall(
            call=self.call,
            code=self.code,
            made_by=self.made_by,
            outcome=self.outcome,
            effect=self.effect,
            reason=self.reason,
            attempts=self.attempts,
            generation=self.observed_generation,
            driver_instance=self.driver_instance,
            retry_token=self.retry_token,
            time=self.time,
            object_uid=self.object_uid,
        )


class Own(Wire, frozen=True):
    """Our own fields of a status; also the content of the status annotation."""

    conditions: list[Condition] | None = None
    observed_generation: int | None = None
    last_call: LastCall | None = None
    observed_retry: str | None = None


class Status(Wire, frozen=True):
    """Our own fields stay raw here, so that an invalid one does not make the object unreadable."""

    conditions: Raw = Raw()
    observed_generation: Raw = Raw()
    last_call: Raw = Raw()


class ClaimStatus(Status, frozen=True):
    bucket_ready: bool | None = None
    bucket_name: str | None = None
    observed_retry: Raw = Raw()  # only shown to users, never read


class BucketStatus(Status, frozen=True):
    bucket_ready: bool | None = None
    bucket_id: str | None = field(default=None, name="bucketID")


class AccessStatus(Status, frozen=True):
    access_granted: bool | None = None
    account_id: str | None = field(default=None, name="accountID")


class ClaimRef(Wire, frozen=True):
    """The part of a core/v1 ObjectReference that we read."""

    namespace: str | None = None
    name: str | None = None
    uid: str | None = None

    def to_view(self) -> view.ClaimRef | None:
        """Return None if all fields are empty, as in `bucketClaim: {}` of a manual Bucket."""
        if not (self.namespace or self.name or self.uid):
            return None
        return view.ClaimRef(self.namespace or "", self.name or "", self.uid or "")


class ClaimSpec(Wire, frozen=True):
    protocols: tuple[str, ...] | None = None
    bucket_class_name: str | None = None
    existing_bucket_name: str | None = None


class BucketSpec(Wire, frozen=True):
    driver_name: str | None = None
    bucket_class_name: str | None = None
    bucket_claim: ClaimRef | None = None
    protocols: tuple[str, ...] | None = None
    parameters: dict[str, str] | None = None
    deletion_policy: str | None = None
    existing_bucket_id: str | None = field(default=None, name="existingBucketID")


class AccessSpec(Wire, frozen=True):
    bucket_access_class_name: str | None = None
    bucket_claim_name: str | None = None
    credentials_secret_name: str | None = None
    protocol: str | None = None
    service_account_name: str | None = None


class BucketClass(Wire, frozen=True):
    metadata: Meta
    driver_name: str | None = None
    deletion_policy: str | None = None
    parameters: dict[str, str] | None = None


class BucketAccessClass(Wire, frozen=True):
    metadata: Meta
    driver_name: str | None = None
    authentication_type: str | None = None
    parameters: dict[str, str] | None = None


class BucketClaim(Wire, frozen=True):
    metadata: Meta
    spec: ClaimSpec | None = None
    status: ClaimStatus | None = None
    oversized: bool = field(default=False, name="$oversized")  # see kube/trim.py


class Bucket(Wire, frozen=True):
    metadata: Meta
    spec: BucketSpec | None = None
    status: BucketStatus | None = None


class BucketAccess(Wire, frozen=True):
    metadata: Meta
    spec: AccessSpec | None = None
    status: AccessStatus | None = None
    oversized: bool = field(default=False, name="$oversized")  # see kube/trim.py


BY_KIND: Mapping[str, type[Wire]] = {
    "BucketClass": BucketClass,
    "BucketAccessClass": BucketAccessClass,
    "BucketClaim": BucketClaim,
    "Bucket": Bucket,
    "BucketAccess": BucketAccess,
}
