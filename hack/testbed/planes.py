"""Control planes that the testbeds of one process use one after the other.

A control plane costs 3 s of CPU time until a testbed can use it. With COSI_WARM_STARTS, as in
`make test`, a testbed that ends leaves its control plane to the next one with the same CRDs and
audit level. Before that, etcd gets the content back that it had when the first testbed began:
what was made since is deleted, what was changed or deleted is written again.

A control plane is stopped instead of left when its programs were restarted, or when the first
roles, CRDs or admission were changed: nothing tells when the API server has noticed such a change.
"""

from __future__ import annotations

import atexit
import base64
import http.client
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import batched
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from controlplane import ControlPlane
from controlplane.audit import Audit

type Json = dict[str, Any]
type Key = tuple[Path, Audit]

PREFIX, PREFIX_END = b"/registry/", b"/registry0"
# The API server writes these at any time.
ITS_OWN = (
    "/registry/apiregistration.k8s.io/",
    "/registry/flowcontrol/",
    "/registry/flowschemas/",
    "/registry/prioritylevelconfigurations/",
    "/registry/leases/kube-system/",
    "/registry/masterleases/",
    "/registry/ranges/",
    "/registry/configmaps/kube-system/",
)
# Of these the API server keeps copies, and no request tells how old they are. Roles and bindings
# that were added may go: for a moment more, they allow what nobody asks for any longer.
RIGHTS = ("/registry/clusterrole", "/registry/role")
COPIED = ("/registry/apiextensions.k8s.io/", "/registry/mutating", "/registry/validating")
# A list of one of these is answered from the API server's cache once the cache is up to date.
CACHED = (
    *(f"/api/v1/{plural}" for plural in ("namespaces", "secrets", "serviceaccounts", "configmaps")),
    "/apis/coordination.k8s.io/v1/leases",
)
OPERATIONS_AT_ONCE = 100  # etcd takes 128 in one transaction
SPARE_AT_MOST = 2  # each takes memory, and 1% of a core
TIMEOUT_S = 30.0


@dataclass(slots=True)
class Spare:
    """A control plane, and what etcd held when the first testbed began."""

    plane: ControlPlane
    lists: tuple[str, ...]
    pids: dict[str, int] = field(init=False)
    before: dict[str, tuple[int, str]] = field(init=False)

    def __post_init__(self) -> None:
        """Remember the content: key -> revision and value, both as etcd gives them."""
        self.pids = self.plane.pids
        self.before = {
            _text(one["key"]): (int(one["mod_revision"]), one["value"])
            for one in self._keys(keys_only=False)
        }

    def is_as_before(self) -> bool:
        """Restore the content; False when that can't be done, or can't be known."""
        if self.plane.pids != self.pids:
            return False
        now = {_text(one["key"]): int(one["mod_revision"]) for one in self._keys(keys_only=True)}
        changed = {
            key
            for key in now.keys() | self.before.keys()
            if not key.startswith(ITS_OWN) and now.get(key) != self.before.get(key, (0, ""))[0]
        }
        if any(key.startswith(COPIED) for key in changed):
            return False
        if any(key.startswith(RIGHTS) for key in changed & self.before.keys()):
            return False
        for some in batched(sorted(changed), OPERATIONS_AT_ONCE):
            done = self._etcd("txn", {"success": [self._operation(key) for key in some]})
            revision = int(done["header"]["revision"])
            for key in self.before.keys() & some:
                self.before[key] = (revision, self.before[key][1])
        for path in (*CACHED, *self.lists):
            self.plane.api.call("GET", path)
        for file in self.plane.admin_kubeconfig.parent.iterdir():
            if file != self.plane.admin_kubeconfig:
                file.unlink()
        self.plane.audit.forget()
        return True

    def stop(self) -> None:
        self.plane.stop()
        shutil.rmtree(self.plane.directory, ignore_errors=True)

    def _operation(self, key: str) -> Json:
        name = base64.b64encode(key.encode()).decode()
        if key in self.before:
            return {"request_put": {"key": name, "value": self.before[key][1]}}
        return {"request_delete_range": {"key": name}}

    def _keys(self, *, keys_only: bool) -> Iterable[Json]:
        start, end = (base64.b64encode(key).decode() for key in (PREFIX, PREFIX_END))
        found = self._etcd("range", {"key": start, "range_end": end, "keys_only": keys_only})
        keys: list[Json] = found["kvs"]
        return keys

    def _etcd(self, method: str, body: Json) -> Json:
        connection = http.client.HTTPConnection(
            urlsplit(self.plane.etcd_url).netloc, timeout=TIMEOUT_S
        )
        try:
            connection.request("POST", f"/v3/kv/{method}", json.dumps(body))
            with connection.getresponse() as answer:
                text = answer.read()
                if answer.status != http.client.OK:
                    raise OSError(f"etcd answered {answer.status}: {text[:200]!r}")
        finally:
            connection.close()
        found: Json = json.loads(text)
        return found


_spares: dict[Key, Spare] = {}


@contextmanager
def lent(
    directory: Path,
    crds: Path,
    audit: Audit,
    prepare: Callable[[ControlPlane], tuple[str, ...]],
) -> Iterator[ControlPlane]:
    """A control plane on which `prepare` alone has run; stopped or left to the next one at the end.

    Args:
        directory: for its files, unless it is left to others.
        crds: the folder of CRDs that `prepare` installs.
        audit: what the API server records.
        prepare: returns paths of further lists that the API server answers from its cache.
    """
    if not os.environ.get("COSI_WARM_STARTS"):
        with ControlPlane.start(directory, audit=audit) as plane:
            prepare(plane)
            yield plane
        return
    if (spare := _spares.pop((crds, audit), None)) is None:
        # A short path: the caller's folder ends before the control plane does.
        plane = ControlPlane.start(Path(tempfile.mkdtemp(prefix="cosi-plane-")), audit=audit)
        try:
            spare = Spare(plane, prepare(plane))
        except BaseException:
            plane.stop()
            raise
    try:
        yield spare.plane
    except BaseException:
        spare.stop()
        raise
    _leave((crds, audit), spare)


def _leave(key: Key, spare: Spare) -> None:
    if key in _spares or not spare.is_as_before():
        spare.stop()
        return
    if not _spares:
        atexit.register(_stop_all)
    _spares[key] = spare
    while len(_spares) > SPARE_AT_MOST:
        _spares.pop(next(iter(_spares))).stop()


def _stop_all() -> None:
    while _spares:
        _spares.popitem()[1].stop()


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode()
