"""Reproduce the endless retry: BucketClaims whose bucket name a real S3 can never accept.

A control plane (etcd, kube-apiserver), SeaweedFS as the S3, the reference driver, and a pair of
controller and sidecar. The class makes each bucket name longer than the 63 characters that S3
allows, so S3 answers InvalidBucketName and the driver INVALID_ARGUMENT. Printed is what the pair
asks of the driver and of the API server afterwards: `make repro`, or `python -m repro --help`.
"""

import argparse
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.counting import AUDIT_LAG_S, is_write, kind_of
from controlplane import ControlPlane
from controlplane.daemon import Daemon
from refdriver import RefDriver
from seaweed import SeaweedFS
from testbed.process import ROOT, operator_process, service_account

ROLES = ("controller", "sidecar")
NAMESPACE = "shop"
API = "/apis/objectstorage.k8s.io/v1alpha1"
CLASS = "too-long"
PREFIX = "a-prefix-that-makes-the-name-of-each-bucket-too-long-"
LEADING_WITHIN_S = 60.0
STOP_GRACE_S = 8.0
POLL_S = 0.1

ADMIN = """
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: "repro-{name}"}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}}
subjects: [{{kind: ServiceAccount, namespace: "{namespace}", name: "{name}"}}]
"""


@dataclass(frozen=True, slots=True)
class Pair:
    """Controller and sidecar. Without commands, this project's own.

    In a command, {kubeconfig} and {driver} are filled in.
    """

    name: str
    commands: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Window:
    """What a pair asked within some seconds."""

    name: str
    create_calls: int
    writes: int
    """Writes to the API server, Leases and Events aside."""
    events: int


@dataclass(slots=True)
class World:
    """What runs, and how to look at it."""

    plane: ControlPlane
    driver: RefDriver
    accounts: dict[str, tuple[str, str]]

    def claims(self) -> list[dict[str, Any]]:
        path = f"{API}/namespaces/{NAMESPACE}/bucketclaims"
        items: list[dict[str, Any]] = self.plane.api.call("GET", path)["items"]
        return items

    def create_claims(self, count: int) -> None:
        """Create the class and claims of it."""
        self.plane.api.call(
            "POST",
            f"{API}/bucketclasses",
            {
                "apiVersion": "objectstorage.k8s.io/v1alpha1",
                "kind": "BucketClass",
                "metadata": {"name": CLASS},
                "driverName": self.driver.name,
                "deletionPolicy": "Delete",
                "parameters": {"namePrefix": PREFIX},
            },
        )
        for number in range(count):
            self.plane.api.call(
                "POST",
                f"{API}/namespaces/{NAMESPACE}/bucketclaims",
                {
                    "apiVersion": "objectstorage.k8s.io/v1alpha1",
                    "kind": "BucketClaim",
                    "metadata": {"name": f"refused-{number}"},
                    "spec": {"bucketClassName": CLASS, "protocols": ["S3"]},
                },
            )

    def create_calls(self) -> list[str]:
        """The codes that the driver answered DriverCreateBucket with, oldest first."""
        return [found.code for found in self.driver.calls() if found.call == "DriverCreateBucket"]

    def watch(self, name: str, seconds: float, since: int, calls: int) -> Window:
        """Wait, and count what was asked since a mark of the audit log and a number of calls."""
        time.sleep(seconds)  # the question itself: what does the pair ask meanwhile?
        users = {f"system:serviceaccount:{space}:{name}" for space, name in self.accounts.values()}
        made = len(self.create_calls()) - calls
        time.sleep(AUDIT_LAG_S)
        homes = {space for space, _ in self.accounts.values()}
        kinds = [
            kind_of(entry)
            for entry in self.plane.audit.entries(since=since)
            if entry.user in users and entry.resource != "leases" and entry.verb != "watch"
            if entry.resource != "events" or entry.namespace not in homes  # of leader election
        ]
        events = sum(" events" in kind for kind in kinds)
        return Window(name, made, sum(map(is_write, kinds)), events)


def start(stack: ExitStack, directory: Path, pair: Pair) -> World:
    """Start everything; `stack` ends it in reverse order."""
    plane = stack.enter_context(ControlPlane.start(directory / "controlplane"))
    storage = stack.enter_context(SeaweedFS.start(directory / "seaweedfs"))
    driver = stack.enter_context(RefDriver.start(directory / "driver", storage.account))
    plane.apply(ROOT / "deploy" / "crds")
    plane.api.call("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    accounts = {}
    for role in ROLES:
        manifest = ROOT / "deploy" / "rbac" / f"{role}.yaml"
        namespace, name = accounts[role] = service_account(manifest)
        plane.token_for(namespace, name)  # creates the namespace
        plane.apply(manifest)
        if pair.commands:  # another pair may need other rights, which is not the question here
            plane.apply(ADMIN.format(namespace=namespace, name=name))
    world = World(plane, driver, accounts)
    for number, role in enumerate(ROLES):
        process = _process(world, pair, role, number, directory)
        stack.callback(process.stop, grace_s=STOP_GRACE_S)
        process.start()
    _wait_for_leaders(world)
    return world


def _process(world: World, pair: Pair, role: str, number: int, directory: Path) -> Daemon:
    namespace, account = world.accounts[role]
    kubeconfig = world.plane.kubeconfig_for(namespace, account)
    address = world.driver.address
    if not pair.commands:
        flags = [f"--driver-addr={address}"] if role == "sidecar" else []
        return operator_process(
            role, flags, kubeconfig=kubeconfig, namespace=namespace, logs=directory
        )
    command = shlex.split(pair.commands[number].format(kubeconfig=kubeconfig, driver=address))
    environ = {"KUBECONFIG": str(kubeconfig), "POD_NAMESPACE": namespace, "DRIVER_ADDR": address}
    return Daemon(f"{pair.name}-{role}", command, directory / f"{role}.log", env=environ)


def _wait_for_leaders(world: World) -> None:
    """Wait until each process holds a Lease.

    Raises:
        TimeoutError: not within `LEADING_WITHIN_S` seconds.
    """
    deadline = time.monotonic() + LEADING_WITHIN_S
    while True:
        leases = world.plane.api.call("GET", "/apis/coordination.k8s.io/v1/leases")["items"]
        held = [lease for lease in leases if lease["spec"].get("holderIdentity")]
        if len(held) >= len(ROLES):
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"no leaders within {LEADING_WITHIN_S:.0f} s")
        time.sleep(POLL_S)


def reproduce(pair: Pair, count: int, seconds: float) -> list[Window]:
    """Run one pair against refused claims, print what it did, and return it."""
    with tempfile.TemporaryDirectory(prefix="cr-") as folder, ExitStack() as stack:
        world = start(stack, Path(folder), pair)
        mark, calls = world.plane.audit.mark(), len(world.create_calls())
        world.create_claims(count)
        windows = [world.watch("first", seconds, mark, calls)]
        mark, calls = world.plane.audit.mark(), len(world.create_calls())
        windows.append(world.watch("second", seconds, mark, calls))
        answers = sorted(set(world.create_calls()))
        lines = [
            f"\n{pair.name}: {count} refused claims. The driver answered: {', '.join(answers)}",
            table(windows, seconds),
            *told(world.claims()),
        ]
        print("\n".join(lines), flush=True)
    return windows


def table(windows: Sequence[Window], seconds: float) -> str:
    """The counts as lines of text."""
    header = ("seconds", "create calls", "API writes", "Events written")
    rows = [
        (f"{window.name} {seconds:g}", window.create_calls, window.writes, window.events)
        for window in windows
    ]
    lines = [header, *rows]
    return "\n".join("  ".join(f"{cell!s:>14}" for cell in line) for line in lines)


def told(claims: Sequence[dict[str, Any]]) -> list[str]:
    """How many claims say why they are not ready, and the words of the first."""
    ready = [
        condition
        for claim in claims
        for condition in claim.get("status", {}).get("conditions", [])
        if condition["type"] == "Ready"
    ]
    lines = [f"{len(ready)} of {len(claims)} claims say why in their conditions."]
    if ready:
        lines.append(f"{ready[0]['reason']}: {ready[0]['message']}")
    return lines


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="repro", description=__doc__)
    parser.add_argument("--claims", type=int, default=10, help="refused claims (default: 10)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each window (default: 60)")
    parser.add_argument(
        "--peer-controller",
        default=os.environ.get("PEER_CONTROLLER", ""),
        help="command of another controller, run after ours; {kubeconfig} is filled in",
    )
    parser.add_argument(
        "--peer-sidecar",
        default=os.environ.get("PEER_SIDECAR", ""),
        help="command of another sidecar; {kubeconfig} and {driver} are filled in",
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON at the end")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Return 0 if this project's pair asked nothing in the second window, else 1."""
    given = _arguments(arguments)
    print(f"S3 allows 63 characters; the class puts {PREFIX!r} before each name.", flush=True)
    found = {"ours": reproduce(Pair("ours"), given.claims, given.seconds)}
    if given.peer_controller:
        peer = Pair("peer", (given.peer_controller, given.peer_sidecar))
        found["peer"] = reproduce(peer, given.claims, given.seconds)
    if given.json:
        fields = ("name", "create_calls", "writes", "events")
        print(json.dumps({
            pair: [{field: getattr(window, field) for field in fields} for window in windows]
            for pair, windows in found.items()
        }))  # fmt: skip
    last = found["ours"][-1]
    return 0 if last.create_calls == last.writes == 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
