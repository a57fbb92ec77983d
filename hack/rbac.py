"""The rules of deploy/rbac, made from the calls that the code makes.

hack/calls.json is the record: the calls that the controller and the sidecar made to a real API
server, from its audit log, during tests/integration/test_rights.py, which does all that users do.
While recording, both processes have all rights, so that the run continues after a new call and also
records the calls that follow. The test itself runs under the present roles, and fails if the record
has a call too many or too few. It does not cover every path of the code. A new call on another path
is a forbidden request in another integration test; then add that path to test_rights.py.

Usage: rbac.py record | update | verify   update: deploy/rbac from the record
"""

import difflib
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest
import yaml

from testbed import Testbed
from testbed.bed import ROLES
from testbed.process import ROOT

RECORD = ROOT / "hack" / "calls.json"
TEST = ROOT / "tests" / "integration" / "test_rights.py"
EVERYTHING = '  - {apiGroups: ["*"], resources: ["*"], verbs: ["*"]}\n'
CORE = "core"
"""The name of the API group "" in the record."""
LEASE = "coordination.k8s.io/leases"
"""The only rule of a Role, because a Lease is in the namespace of its process."""
WHY = {
    "delete objectstorage.k8s.io/bucketaccesses": "the accesses of a bucket are deleted first",
    "update core/events": "a repetition increases the count",
    "update core/secrets": "new keys of a rotation; removal of our finalizer",
}
"""Why a call is needed, for a comment in the rule, by call."""


def recorded() -> dict[str, list[str]]:
    """The record: for each process its calls, "VERB GROUP/RESOURCE[/SUBRESOURCE]", sorted."""
    calls: dict[str, list[str]] = json.loads(RECORD.read_text("utf-8"))
    return calls


def calls_of(bed: Testbed, role: str) -> set[str]:
    """What a process has asked for since the testbed began, whatever the answer was."""
    space, account = bed.accounts[role]
    user = f"system:serviceaccount:{space}:{account}"
    return {
        f"{asked.verb} {asked.api_group or CORE}/{asked.resource}/{asked.subresource}".rstrip("/")
        for asked in bed.requests()
        if asked.user == user and asked.resource
    }


def rules(calls: Collection[str]) -> str:
    """The rules that grant exactly these calls, resources with equal verbs in one; as YAML."""
    verbs_of: dict[str, set[str]] = defaultdict(set)
    for call in calls:
        verb, target = call.split()
        verbs_of[target].add(verb)
    together: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    for target, verbs in sorted(verbs_of.items()):
        group, _, resource = target.partition("/")
        together[group, tuple(sorted(verbs))].append(resource)
    return "".join(
        line
        for (group, verbs), resources in together.items()
        for line in _rule(group, resources, verbs)
    )


def _rule(group: str, resources: list[str], verbs: tuple[str, ...]) -> Iterator[str]:
    for verb in verbs:
        for resource in resources:
            if why := WHY.get(f"{verb} {group}/{resource}"):
                yield f"  # {verb}: {why}\n"
    yield f"  - apiGroups: [{'""' if group == CORE else group}]\n"
    yield f"    resources: [{', '.join(resources)}]\n"
    yield f"    verbs: [{', '.join(verbs)}]\n"


def with_rules(manifest: str, rules_for: Callable[[str], str]) -> str:
    """A manifest whose ClusterRole and Role, which end with their rules, have these ones."""
    documents = manifest.split("\n---\n")
    for n, document in enumerate(documents):
        if (kind := yaml.safe_load(document)["kind"]) in ("ClusterRole", "Role"):
            head, key, _ = document.partition("\nrules:\n")
            documents[n] = head + key + rules_for(kind).rstrip("\n")
    return "\n---\n".join(documents)


def made(manifest: str, calls: Collection[str]) -> str:
    """A manifest of deploy/rbac with the rules that these calls need."""
    leases = {call for call in calls if call.endswith(f" {LEASE}")}
    needed = {"Role": leases, "ClusterRole": set(calls) - leases}
    return with_rules(manifest, lambda kind: rules(needed[kind]))


class Recorder:
    """A pytest plugin that collects the calls of every testbed before the testbed is stopped."""

    def __init__(self) -> None:
        self.calls: dict[str, set[str]] = {role: set() for role in ROLES}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Function) -> None:
        """Collect the calls to the testbeds of this test."""
        for bed in item.funcargs.values():
            if isinstance(bed, Testbed):
                for role, calls in self.calls.items():
                    calls |= calls_of(bed, role)


def record() -> None:
    """Run the test under roles that allow everything, and write its calls to the record."""
    recorder = Recorder()
    with tempfile.TemporaryDirectory() as folder:
        for role, file in ROLES.items():
            ROLES[role] = Path(folder) / file.name
            ROLES[role].write_text(with_rules(file.read_text("utf-8"), lambda _: EVERYTHING))
        if status := pytest.main(["--quiet", str(TEST), "-k", "forbidden"], plugins=[recorder]):
            sys.exit(status)
    calls = {role: sorted(asked) for role, asked in recorder.calls.items()}
    RECORD.write_text(json.dumps(calls, indent=2) + "\n", "utf-8")


def main(do: str) -> int:
    """Record the calls, update deploy/rbac from the record, or print the differences."""
    if do == "record":
        record()
        return 0
    told = ""
    for role, calls in recorded().items():
        there = ROLES[role].read_text("utf-8")
        fresh = made(there, calls)
        if do == "update":
            ROLES[role].write_text(fresh, "utf-8")
            continue
        old, new = there.splitlines(keepends=True), fresh.splitlines(keepends=True)
        told += "".join(difflib.unified_diff(old, new, str(ROLES[role]), "made anew"))
    sys.stderr.write(told and f"{told}deploy/rbac is out of date: run hack/update-rbac\n")
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
