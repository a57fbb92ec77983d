"""A role that lacks a verb: the process names it, and goes on by itself when it is granted."""

import json
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

import pytest
from tests.faults.bed import FaultBed
from tests.integration import test_rights as life
from tests.support.shared_bed import bed as bed
from tests.support.shared_bed import name as name
from tests.support.shared_bed import shared_bed as shared_bed

import rbac
from controlplane import ApiError
from controlplane.daemon import Daemon
from testbed import Testbed, access_body, claim_body, condition
from testbed.bed import ROLES
from testbed.objects import Json

RBAC = "/apis/rbac.authorization.k8s.io/v1"
# The annotation that says what upstream's CRDs have no room for.
ONLY_WITH_UPSTREAMS_CRDS = {"update bucketaccesses.objectstorage.k8s.io"}
# The count of an Event is raised only if a failure is repeated, and a fresh copy is read only after
# a conflict. The Event of a new leader is the only one in the namespace of the Lease, and is sent
# once: that the right is there by then shows nowhere, until what was missing is forgotten.
PERHAPS_NOT_ASKED_AGAIN = {
    "create events",
    "update events",
    "get bucketaccesses.objectstorage.k8s.io",
    "get bucketclaims.objectstorage.k8s.io",
    "get bucketclasses.objectstorage.k8s.io",
    "get buckets.objectstorage.k8s.io",
}
LEASE = "leases.coordination.k8s.io"


class RoleFile:
    """The rules of one process, which a test changes while the process runs."""

    def __init__(self, bed: Testbed, role: str) -> None:
        self._bed = bed
        space, account = bed.accounts[role]
        self._cluster = f"{RBAC}/clusterroles/{account}"
        self._own = f"{RBAC}/namespaces/{space}/roles/{account}"

    def set(self, calls: set[str]) -> None:
        """Grant exactly these calls, as in `get secrets` or `list buckets.GROUP`."""
        leases = {call for call in calls if call.endswith(LEASE)}
        for path, wanted in ((self._own, leases), (self._cluster, calls - leases)):
            while True:
                body = self._bed.plane.api.call("GET", path)
                body["rules"] = [rule_of(call) for call in sorted(wanted)]
                try:
                    self._bed.plane.api.call("PUT", path, body)
                except ApiError as error:
                    if error.code == HTTPStatus.CONFLICT:
                        continue
                    raise
                break


def rule_of(call: str) -> Json:
    verb, target = call.split()
    resource, _, group = target.partition(".")
    return {"apiGroups": [group], "resources": [resource], "verbs": [verb]}


def recorded(role: str) -> set[str]:
    """The calls of the record, in the words of the log."""
    calls = set()
    for call in rbac.recorded()[role]:
        verb, target = call.split()
        group, _, resource = target.partition("/")
        calls.add(f"{verb} {resource}" + ("" if group == rbac.CORE else f".{group}"))
    return calls


def told(bed: Testbed, role: str, event: str = "permission_missing") -> list[Json]:
    lines = [json.loads(ln) for ln in bed.log_of(role).splitlines() if f'"{event}"' in ln]
    return [line for line in lines if line["event"] == event]


class Administrator:
    """Grants one verb after the other: those that the logs name, and nothing else."""

    def __init__(self, bed: Testbed) -> None:
        self.granted: dict[str, list[str]] = {role: [] for role in ROLES}
        self._bed = bed
        self._files = {role: RoleFile(bed, role) for role in ROLES}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        for file in self._files.values():
            file.set(set())

    def __enter__(self) -> "Administrator":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stop.wait(0.1):
            for role, granted in self.granted.items():
                if role not in self._bed.processes:
                    continue
                asked = [f"{line['verb']} {line['resource']}" for line in told(self._bed, role)]
                if fresh := [call for call in asked if call not in granted]:
                    granted.append(fresh[0])
                    self._files[role].set(set(granted))


class BareBed(FaultBed):
    """A bed whose roles grant nothing when the processes start, and whose administrator works."""

    administrator: Administrator

    def start_process(
        self, role: str, *flags: str, environment: Mapping[str, str] | None = None
    ) -> Daemon:
        """Start it; the administrator begins before the first process."""
        if not hasattr(self, "administrator"):
            self.administrator = self._stack.enter_context(Administrator(self))
        return super().start_process(role, *flags, environment=environment)

    def until(self, what: str, holds: Callable[[], object], *, timeout_s: float = 30.0) -> None:
        """Wait longer than usual: each missing right costs a second or two."""
        super().until(what, holds, timeout_s=4 * timeout_s)


@pytest.fixture
def bare_bed() -> Iterator[BareBed]:
    with (
        tempfile.TemporaryDirectory(prefix="cosi-") as directory,
        BareBed.ready(Path(directory)) as bed,
    ):
        yield bed


@pytest.mark.attack("a role lacks a verb: a line of the log names it, whichever it is")
@pytest.mark.timeout(600)
def test_who_grants_what_the_log_names_one_verb_at_a_time_gets_a_working_operator(
    bare_bed: BareBed,
) -> None:
    bed = bare_bed
    for role in ROLES:
        for plural in ("bucketclaims", "bucketaccesses", "buckets"):
            life.first_update_conflicts(bed, role, plural)
    bed.make_classes("plain")
    life.delete_a_claim_with_its_access(bed)
    life.delete_a_static_claim_with_its_access(bed)
    life.repair_a_class(bed)
    life.name_what_does_not_exist(bed)
    bed.until_quiet()
    for role in ROLES:
        granted = bed.administrator.granted[role]
        assert len(granted) == len(set(granted))
        assert set(granted) <= recorded(role)
        assert recorded(role) - set(granted) <= ONLY_WITH_UPSTREAMS_CRDS
        lines = [f"{line['verb']} {line['resource']}" for line in told(bed, role)]
        assert sorted(lines) == sorted(granted)  # one line each
        back = {line["call"] for line in told(bed, role, "permission_granted")}
        assert back <= set(granted)
        assert set(granted) - back <= PERHAPS_NOT_ASKED_AGAIN


@contextmanager
def without(bed: Testbed, role: str, call: str) -> Iterator[None]:
    file = RoleFile(bed, role)
    file.set(recorded(role) - {call})
    try:
        yield
    finally:
        file.set(recorded(role))


@pytest.fixture
def lacking_bed(shared_bed: Testbed) -> Testbed:
    """Without the check that nothing was forbidden."""
    shared_bed.driver.run()
    shared_bed.driver.clear_rules()
    return shared_bed


@pytest.mark.attack("a role lacks a verb: the object says which, and goes on when it is granted")
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("role", "call", "plural"),
    [
        ("sidecar", "get secrets", "bucketaccesses"),
        ("sidecar", "create secrets", "bucketaccesses"),
        ("sidecar", "update buckets.objectstorage.k8s.io", "bucketclaims"),
        ("controller", "create buckets.objectstorage.k8s.io", "bucketclaims"),
        ("controller", "update bucketclaims.objectstorage.k8s.io", "bucketclaims"),
    ],
)
def test_the_condition_names_verb_resource_and_role(
    lacking_bed: Testbed, name: str, role: str, call: str, plural: str
) -> None:
    bed = lacking_bed
    bed.make_classes(name)
    with without(bed, role, call):
        bed.create("bucketclaims", claim_body(name, class_name=name))
        bed.create("bucketaccesses", access_body(name, class_name=name))
        said = bed.until_reason(plural, name, "MissingPermission")
    verb, resource = call.split()
    space, account = bed.accounts[role]
    assert f'lacks the verb "{verb}" on {resource}' in said["message"]
    assert f"the ClusterRole bound to ServiceAccount {space}/{account}" in said["message"]
    assert condition(bed.get(plural, name), "Stalled")["reason"] == "MissingPermission"
    bed.until_ready("bucketaccesses", [name], timeout_s=60)  # by itself
    bed.delete("bucketclaims", name)
    bed.until_gone("bucketclaims", [name])


@pytest.mark.timeout(120)
def test_where_no_condition_can_be_written_an_event_says_it(
    lacking_bed: Testbed, name: str
) -> None:
    bed = lacking_bed
    bed.make_classes(name)
    call = "update bucketclaims/status.objectstorage.k8s.io"
    with without(bed, "controller", call), without(bed, "sidecar", call):
        bed.create("bucketclaims", claim_body(name, class_name=name))
        bed.until(
            "the Event",
            lambda: any(event["reason"] == "MissingPermission" for event in bed.events(name)),
        )
    bed.until_ready("bucketclaims", [name], timeout_s=60)
    bed.delete("bucketclaims", name)
    bed.until_gone("bucketclaims", [name])
