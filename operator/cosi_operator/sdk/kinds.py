"""What the classes of both flavours share: the names of their kinds, and fields. Pure."""

from typing import Any, Protocol

import msgspec

from cosi_operator.api.resources import (
    BUCKET_ACCESS_CLASSES,
    BUCKET_ACCESSES,
    BUCKET_CLAIMS,
    BUCKET_CLASSES,
    BUCKETS,
)
from cosi_operator.api.view import Resource
from cosi_operator.sdk import work
from cosi_operator.sdk.answer import decoded
from cosi_operator.sdk.diagnosis import Reported, is_ready


class _Read(Protocol):
    """An object of kr8s; `raw` is its content as it was read last."""

    @property
    def raw(self) -> Any: ...


class _Named:
    """The names of a kind, as kr8s wants them, from the `resource` of the class statement."""

    resource: Resource
    version: str
    endpoint: str
    kind: str
    plural: str
    singular: str
    namespaced: bool

    def __init_subclass__(cls, resource: Resource | None = None) -> None:
        super().__init_subclass__()
        if resource is None:  # the class of a flavour, whose base has the names
            return
        cls.resource = resource
        cls.version, cls.kind = resource.api_version, resource.kind
        cls.endpoint = cls.plural = resource.plural
        cls.singular = resource.kind.lower()
        cls.namespaced = resource.namespaced


class ClaimFields(_Named, resource=BUCKET_CLAIMS):
    @property
    def is_ready(self: _Read) -> bool:
        """Whether the bucket was ready when the claim was read last.

        Raises:
            ApiSilent: the object has a status that the operator does not write.
        """
        return _is_ready_now(work.CLAIM, self.raw)


class AccessFields(_Named, resource=BUCKET_ACCESSES):
    @property
    def is_ready(self: _Read) -> bool:
        """Whether the keys were granted when the access was read last.

        Raises:
            ApiSilent: the object has a status that the operator does not write.
        """
        return _is_ready_now(work.ACCESS, self.raw)


class BucketFields(_Named, resource=BUCKETS):
    @property
    def is_ready(self: _Read) -> bool:
        """Whether the bucket was ready when the object was read last.

        Raises:
            ApiSilent: the object has a status that the operator does not write.
        """
        return _is_ready_now(work.BUCKET, self.raw)

    @property
    def driver_name(self: _Read) -> str:
        """The driver that serves the bucket."""
        return _field(self.raw, "spec", "driverName")

    @property
    def bucket_id(self: _Read) -> str:
        """The driver's name of the bucket, or "" while there is none."""
        return _field(self.raw, "status", "bucketID")


class BucketClassFields(_Named, resource=BUCKET_CLASSES):
    @property
    def driver_name(self: _Read) -> str:
        """The driver that serves the class."""
        return _field(self.raw, "driverName")


class AccessClassFields(_Named, resource=BUCKET_ACCESS_CLASSES):
    @property
    def driver_name(self: _Read) -> str:
        """The driver that serves the class."""
        return _field(self.raw, "driverName")


def _is_ready_now(kind: work.Kind, raw: Any) -> bool:
    def decode(raw: Any) -> Reported:
        return kind.decode(msgspec.json.encode(dict(raw)))

    return is_ready(decoded(kind.resource.kind, raw, decode))


def _field(raw: Any, *path: str) -> str:
    """A text in the object, or "" while it is not set."""
    for name in path:
        raw = raw.get(name) if isinstance(raw, dict) else None
    return raw if isinstance(raw, str) else ""
