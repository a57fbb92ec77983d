"""The API objects as all other modules use them, independent of the served version.

Every value is frozen. An absent string is "", an absent map or list is empty.
"""

import enum
import functools
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from msgspec import Struct

from cosi_operator.api.record import BucketRecord
from cosi_operator.outcome import Effect

# Every valid object name matches. A "." or "/" from a spec must not change the path of a request.
LONGEST_NAME = 253
_PATH_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")


def is_path_segment(name: str) -> bool:
    """Whether an object or a namespace can have this name, so that it may be put into a path.

    The API server refuses longer names. A spec can hold one, where a CRD limits no length.
    """
    return len(name) <= LONGEST_NAME and _PATH_SEGMENT.fullmatch(name) is not None


class Key(NamedTuple):
    """The key of one object of a kind; `namespace` is "" for cluster-scoped objects."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


def stamp(now: datetime) -> str:
    """Format a time as the API server does: RFC 3339, UTC, whole seconds."""
    return now.isoformat(timespec="seconds").replace("+00:00", "Z")


def age_s(time: str, now: datetime) -> float:
    """Seconds since an RFC 3339 time; infinite for an invalid time, so nothing waits for it."""
    try:
        then = datetime.fromisoformat(time)
    except ValueError:
        return float("inf")
    return (now - (then if then.tzinfo else then.replace(tzinfo=UTC))).total_seconds()


@functools.cache  # one text for the thousands of Events and bodies that hold it
def _api_version(group: str, version: str) -> str:
    return f"{group}/{version}" if group else version


class Resource(NamedTuple):
    """A kind, and the API path that serves it."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool

    @property
    def api_version(self) -> str:
        return _api_version(self.group, self.version)

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Return the URL path, e.g. /apis/objectstorage.k8s.io/v1alpha1/buckets/b-1/status."""
        parts = ["", "apis", self.group, self.version] if self.group else ["", "api", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/".join(parts)


class DeletionPolicy(enum.StrEnum):
    RETAIN = "Retain"
    DELETE = "Delete"


class AuthenticationType(enum.StrEnum):
    UNKNOWN = ""
    KEY = "Key"
    IAM = "IAM"


class Meta(Struct, frozen=True):
    """The fields of ObjectMeta that the operator reads.

    `generation` counts changes of the spec. `created` is RFC 3339 in whole seconds.
    """

    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    deleting: bool = False
    finalizers: tuple[str, ...] = ()
    annotations: Mapping[str, str] = {}
    created: str = ""
    # The object is too large to hold (`kube/trim.py`), so only its metadata is set.
    oversized: bool = False

    @property
    def key(self) -> Key:
        return Key(self.namespace, self.name)


class Condition(Struct, frozen=True):
    """A metav1.Condition. `status` is "True", "False" or "Unknown"; the time is RFC 3339."""

    type: str
    status: str
    reason: str
    message: str = ""
    observed_generation: int = 0
    last_transition_time: str = ""


def ready_in(conditions: Iterable[Condition]) -> Condition | None:
    """The Ready condition; None before it is written."""
    return next((c for c in conditions if c.type == "Ready"), None)


class LastCall(Struct, frozen=True):
    """The verdict on a driver call that is stored with an object, and the inputs of the verdict.

    The verdict is valid, so the driver is not called again, while `generation`, `driver_instance`
    and `retry_token` are unchanged. Source: `status.lastCall` in our CRDs.
    """

    call: str
    code: str
    made_by: str
    outcome: str  # Success, Requeue or Terminal
    effect: Effect
    reason: str
    attempts: int
    generation: int
    driver_instance: str
    retry_token: str
    time: str  # RFC 3339
    # UID of the object that was judged; "" in verdicts of earlier releases.
    object_uid: str = ""


class ClaimRef(Struct, frozen=True):
    namespace: str = ""
    name: str = ""
    uid: str = ""

    @property
    def key(self) -> Key:
        return Key(self.namespace, self.name)


class BucketClass(Struct, frozen=True):
    meta: Meta
    driver_name: str = ""
    deletion_policy: DeletionPolicy = DeletionPolicy.RETAIN
    parameters: Mapping[str, str] = {}
    # The deletionPolicy as written if it is not "", "Delete" or "Retain"; otherwise "".
    unknown_policy: str = ""


class BucketAccessClass(Struct, frozen=True):
    meta: Meta
    driver_name: str = ""
    authentication_type: str = ""
    parameters: Mapping[str, str] = {}


class BucketClaim(Struct, frozen=True):
    meta: Meta
    protocols: tuple[str, ...] = ()
    class_name: str = ""
    existing_bucket_name: str = ""
    bucket_name: str = ""
    ready: bool = False
    conditions: tuple[Condition, ...] = ()
    observed_generation: int = 0


class Bucket(Struct, frozen=True):
    meta: Meta
    driver_name: str = ""
    class_name: str = ""
    claim: ClaimRef | None = None
    deletion_policy: DeletionPolicy = DeletionPolicy.RETAIN
    unknown_policy: str = ""
    existing_bucket_id: str = ""
    parameters: Mapping[str, str] = {}
    protocols: tuple[str, ...] = ()
    bucket_id: str = ""
    ready: bool = False
    conditions: tuple[Condition, ...] = ()
    observed_generation: int = 0
    last_call: LastCall | None = None
    record: BucketRecord | None = None
    copied_record: BucketRecord | None = None  # written for another Bucket, so ignored


class BucketAccess(Struct, frozen=True):
    meta: Meta
    class_name: str = ""
    claim_name: str = ""
    secret_name: str = ""
    protocol: str = ""
    service_account_name: str = ""
    account_id: str = ""
    granted: bool = False
    conditions: tuple[Condition, ...] = ()
    observed_generation: int = 0
    last_call: LastCall | None = None

    @property
    def claim_key(self) -> Key:
        return Key(self.meta.namespace, self.claim_name)


class Status(Struct, frozen=True):
    """Status fields to write; None leaves a field unchanged.

    `observed_retry` is only for a BucketClaim, and `last_call` only for the other kinds.
    """

    conditions: tuple[Condition, ...]
    observed_generation: int
    ready: bool | None = None
    bucket_name: str | None = None
    bucket_id: str | None = None
    account_id: str | None = None
    last_call: LastCall | None = None
    observed_retry: str | None = None
