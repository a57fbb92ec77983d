"""The rules of deploy/rbac, made from the calls that the code makes.

hack/calls.json is the record: all that the controller and the sidecar asked a real API server for,
from its audit log, while tests/integration/test_rights.py took them through all that users do. In
a recording both may do everything: a new call then goes through as it will once it is granted, so
one run also sees what comes after it. The test itself runs under the roles as they are, and fails
when the record has a call too many or too few. It does not take every path of the code: a new call
elsewhere is a forbidden request in another integration test, and then this run has to go there too.

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
"""Stands in the record for the API group that has no name."""
LEASE = "coordination.k8s.io/leases"
"""In a Role, since a process has its Lease beside itself; everything else is a ClusterRole's."""
WHY = {
    "delete objectstorage.k8s.io/bucketaccesses": "the accesses of a bucket go before it",
    "update core/events": "a repeat raises the count",
    "update core/secrets": "only takes the finalizer off",
}
"""What a reader of a rule may wonder about, by call."""


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
    """A plugin of pytest: looks at every testbed that a test has used, before it goes."""

    def __init__(self) -> None:
        self.calls: dict[str, set[str]] = {role: set() for role in ROLES}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Function) -> None:
        """Take down what its testbeds were asked."""
        for bed in item.funcargs.values():
            if isinstance(bed, Testbed):
                for role, calls in self.calls.items():
                    calls |= calls_of(bed, role)


def record() -> None:
    """Run the test under roles that allow everything, and write what was asked."""
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
    """Record, or bring deploy/rbac up to the record, or tell where it differs."""
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
