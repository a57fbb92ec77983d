"""What the API server was asked, by whom, and what it answered, read from its audit log."""

from __future__ import annotations

import datetime
import enum
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BLOCK_BYTES = 64 * 1024
WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


class Audit(enum.StrEnum):
    """What the API server writes down of a request."""

    NOTHING = "None"
    METADATA = "Metadata"
    BODIES = "Request"
    """What was sent, too; then the log holds Secrets."""


def policy(level: Audit) -> dict[str, Any]:
    """Return an audit policy that records every request so."""
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            # The server's calls to itself and the health checks are noise to every reader.
            {"level": "None", "users": ["system:apiserver", "system:anonymous"]},
            {"level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*"]},
            {"level": level},
        ],
    }


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One request. What it lacks is an empty string: a list has no name, a node no namespace."""

    audit_id: str
    stage: str
    """ResponseComplete; ResponseStarted for a watch that still runs; Panic."""
    verb: str
    user: str
    """For a service account, system:serviceaccount:NAMESPACE:NAME."""
    user_agent: str
    api_group: str
    resource: str
    subresource: str
    namespace: str
    name: str
    """Empty too for a create whose name the server makes up."""
    uri: str
    code: int
    """The HTTP status of the answer; 0 when there was none."""
    received_at: datetime.datetime
    """When the server got the request, its clock, UTC."""
    body: Any
    """What was sent, decoded; None when nothing was, or the log has no bodies."""

    @property
    def is_write(self) -> bool:
        """Whether the request, if it succeeded, changed something."""
        return self.verb in WRITES


class AuditLog:
    """The audit log of one control plane."""

    def __init__(self, file: Path) -> None:
        """Read from `file`, JSON lines, which need not exist yet."""
        self.file = file
        self._forgotten = 0

    def forget(self) -> None:
        """Skip all entries written so far."""
        self._forgotten = self.mark()

    def mark(self) -> int:
        """Return a position, for `entries(since=...)` to start from: the end of the last line.

        A line that is being written comes after it, since the file may end within that line.
        """
        if not self.file.exists():
            return 0
        with self.file.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            while end:
                start = max(0, end - BLOCK_BYTES)
                file.seek(start)
                found = file.read(end - start).rfind(b"\n")
                if found >= 0:
                    return start + found + 1
                end = start
        return 0

    def entries(
        self, *, since: int = 0, where: Callable[[AuditEntry], bool] = lambda _: True
    ) -> list[AuditEntry]:
        """Return the requests whose last entry stands after `since`, in the order they ended.

        One entry for each request: a watch is written when it starts and again when it ends, and
        counts once, with its latest stage. An entry is written after its answer is sent, so it
        may appear some milliseconds after the client has read that answer.

        Args:
            since: what `mark` returned; 0 is the start.
            where: leaves out every request for which it returns False.
        """
        if not self.file.exists():
            return []
        with self.file.open("rb") as file:
            file.seek(max(since, self._forgotten))
            lines = file.read().split(b"\n")
        latest: dict[str, AuditEntry] = {}
        for line in lines[:-1]:  # after the last newline: nothing, or a line being written
            entry = parse_entry(json.loads(line))
            latest.pop(entry.audit_id, None)
            latest[entry.audit_id] = entry
        return [entry for entry in latest.values() if where(entry)]


def parse_entry(event: dict[str, Any]) -> AuditEntry:
    """Return the record of one decoded `audit.k8s.io/v1` Event."""
    target = event.get("objectRef", {})
    return AuditEntry(
        audit_id=event["auditID"],
        stage=event["stage"],
        verb=event["verb"],
        user=event.get("user", {}).get("username", ""),
        user_agent=event.get("userAgent", ""),
        api_group=target.get("apiGroup", ""),
        resource=target.get("resource", ""),
        subresource=target.get("subresource", ""),
        namespace=target.get("namespace", ""),
        name=target.get("name", ""),
        uri=event["requestURI"],
        code=event.get("responseStatus", {}).get("code", 0),
        received_at=datetime.datetime.fromisoformat(event["requestReceivedTimestamp"]),
        body=event.get("requestObject"),
    )
