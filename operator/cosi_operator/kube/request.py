"""One request to the API server, as a value."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode

from yarl import URL

from cosi_operator.api.view import Key, Resource, is_path_segment
from cosi_operator.kube.errors import NotFound
from cosi_operator.scrub import shown_name

METHODS = {
    "get": "GET",
    "list": "GET",
    "watch": "GET",
    "create": "POST",
    "update": "PUT",
    "delete": "DELETE",
}

# etcd accepts at most 1.5 MiB for each object, so a line of a real API server is always shorter.
LINE_LIMIT_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `key.name` is "" for a collection. The repr omits the body.

    A reply that is longer than `reply_limit_bytes` raises ReplyTooLarge.
    """

    verb: str
    resource: Resource
    key: Key
    subresource: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = field(default=None, repr=False)
    reply_limit_bytes: int = 0  # of a successful reply; 0: LINE_LIMIT_BYTES
    compressed: bool = True  # the server may compress the reply

    @property
    def what(self) -> str:
        """A description of the request; it contains object names but no other values."""
        target = f"{self.resource.plural}/{self.subresource}".rstrip("/")
        return f"{self.verb} {target} {self.key}".rstrip(" /")

    def url(self, server: str) -> URL:
        """Return the request's URL; raise NotFound if no object can have this name."""
        needs_name = self.verb in ("get", "update", "delete")
        for segment, needed in ((self.key.namespace, False), (self.key.name, needs_name)):
            if (needed or segment) and not is_path_segment(segment):
                what = f"{self.verb} {self.resource.plural} {shown_name(segment)}"
                raise NotFound(404, "NotFound", f"{what}: no object can have this name")
        path = self.resource.path(self.key.namespace, self.key.name, self.subresource)
        query = urlencode({name: value for name, value in self.query.items() if value})
        return URL(f"{server}{path}{'?' if query else ''}{query}", encoded=True)
