"""What the proxy knows of a request: who asked for what, about which test case."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
WRITES = frozenset(VERBS.values())
KINDS = {"BucketClaim": "bucketclaims", "Bucket": "buckets", "BucketAccess": "bucketaccesses"}


@dataclass(slots=True)
class Asked:
    """One request. `case` is "" when it is about no test case, a list for instance.

    `code` is 0 until the API server answered (or if it never did); faults do not set it.
    """

    role: str
    verb: str
    plural: str
    subresource: str = ""
    name: str = ""
    case: str = ""
    dry_run: bool = False
    at_s: float = field(default_factory=time.monotonic)
    code: int = 0
    authorization: str = field(default="", repr=False)

    @property
    def is_effect(self) -> bool:
        """Whether it changes something that lasts; a Lease only says who works."""
        return self.verb in WRITES and not self.dry_run and self.plural != "leases"

    @property
    def label(self) -> str:
        """What kind of effect it is, without names: "sidecar update buckets/status"."""
        target = f"{self.plural}/{self.subresource}".rstrip("/")
        return f"{self.role} {self.verb} {target}"

    def __str__(self) -> str:
        return f"{self.label} {self.name} ({self.code})"


def parse(role: str, method: str, path: str, query: Mapping[str, str]) -> Asked:
    """Take a request line apart; the name of a created object is not in it."""
    parts = path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        rest = rest[2:]
    plural, name, subresource = (*rest, "", "", "")[:3]
    if method in VERBS:
        verb = VERBS[method]
    elif name:
        verb = "get"
    else:
        verb = "watch" if "watch" in query else "list"
    return Asked(role, verb, plural, subresource, name, dry_run="dryRun" in query)


class CaseBook:
    """Finds the test case that an object belongs to.

    A case names its claim, its access and, for a static one, its Bucket; the Bucket of a claim
    has a name made from a UID, and is learned from its own body.
    """

    def __init__(self) -> None:
        self._by_bucket: dict[str, str] = {}

    def learn(self, bucket: str, case: str) -> None:
        """Remember whose Bucket this is."""
        self._by_bucket[bucket] = case

    def bucket_of(self, case: str) -> str:
        """The last Bucket learned for a case; its own name when there is none."""
        found = [bucket for bucket, owner in self._by_bucket.items() if owner == case]
        return found[-1] if found else case

    def fill(self, asked: Asked, body: Any) -> None:
        """Set `name` and `case` of a request, whose body is decoded JSON or None."""
        body = body if isinstance(body, dict) else {}
        if asked.verb == "create":
            asked.name = (body.get("metadata") or {}).get("name", "")
        if asked.plural == "buckets":
            owner = ((body.get("spec") or {}).get("bucketClaim") or {}).get("name")
            if owner:
                self.learn(asked.name, owner)
        if asked.plural == "events":
            about = body.get("involvedObject") or {}
            asked.case = self._case(KINDS.get(about.get("kind", ""), ""), about.get("name", ""))
        else:
            asked.case = self._case(asked.plural, asked.name)

    def _case(self, plural: str, name: str) -> str:
        match plural:
            case "buckets":
                return self._by_bucket.get(name, name)
            case "secrets":
                return name.removesuffix("-keys")
            case "bucketclaims" | "bucketaccesses":
                return name
            case _:
                return ""
