"""One testbed: start it, fill it with objects, wait, and see who asked the API server for what."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path
from typing import Self

from controlplane import ApiError, ControlPlane
from controlplane.audit import Audit, AuditEntry
from controlplane.daemon import Daemon
from mockdriver.client import MockDriver
from stoppable import Stoppable
from testbed import planes
from testbed.cluster import DRIVER_NAME as DRIVER_NAME
from testbed.cluster import ClusterObjects
from testbed.objects import API, KINDS, NAMESPACE, Json, condition
from testbed.process import ROOT, operator_process, service_account

OUR_CRDS = ROOT / "deploy" / "crds"
ROLES = {role: ROOT / "deploy" / "rbac" / f"{role}.yaml" for role in ("controller", "sidecar")}

START_TIMEOUT_S = 30.0
STOP_GRACE_S = 10.0
POLL_S = 0.05
LONGEST_POLL_S = 0.3  # after 5 s of waiting


class Testbed(ClusterObjects, Stoppable):
    """Everything that runs. Make it with `Testbed.start`; leaving `with` ends it."""

    __test__ = False  # not a test class, whatever pytest makes of its name

    def __init__(self, plane: ControlPlane, driver: MockDriver, directory: Path) -> None:
        """Describe the operator's processes; they are not started."""
        super().__init__(plane)
        self.driver = driver
        self.directory = directory
        self.accounts = {role: service_account(file) for role, file in ROLES.items()}
        self.users = [f"system:serviceaccount:{space}:{n}" for space, n in self.accounts.values()]
        self.processes: dict[str, Daemon] = {}
        self._stack = ExitStack()

    @classmethod
    def start(
        cls,
        directory: Path,
        *,
        crds: Path = OUR_CRDS,
        sidecar_flags: Sequence[str] = (),
        controller_flags: Sequence[str] = (),
        audit: Audit = Audit.METADATA,
        operator: bool = True,
    ) -> Self:
        """Start all parts, in 5 to 8 s.

        Args:
            directory: for logs, state and sockets; a short path (a socket's has 107 bytes).
            crds: the folder of the CRDs to install.
            sidecar_flags: besides the driver's address.
            controller_flags: all of the controller's.
            audit: what the API server records of requests, for `requests` and `forbidden`.
            operator: False leaves the controller and the sidecar to `start_process`.
        Raises:
            StartError, KubectlError: a part did not start; the others were ended.
        """
        accounts = {role: service_account(file) for role, file in ROLES.items()}

        def prepare(plane: ControlPlane) -> tuple[str, ...]:
            plane.apply(crds)
            for role, file in ROLES.items():
                plane.token_for(*accounts[role])  # makes the namespace
                plane.apply(file)
            plane.api.call("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
            return tuple(f"{API}/{plural}" for plural in KINDS)

        with ExitStack() as stack:
            plane = stack.enter_context(planes.lent(directory / "plane", crds, audit, prepare))
            driver = stack.enter_context(MockDriver.start(directory, name=DRIVER_NAME))
            bed = cls(plane, driver, directory)
            stack.callback(bed.stop_operator)
            if operator:
                bed.start_process("controller", *controller_flags)
                bed.start_process("sidecar", *sidecar_flags)
                bed.until_leading()
            bed._stack = stack.pop_all()
        return bed

    def stop(self) -> None:
        """End everything, in reverse order. Safe to repeat."""
        self._stack.close()

    # --- processes

    def start_process(
        self, role: str, *flags: str, environment: Mapping[str, str] | None = None
    ) -> Daemon:
        """Start the controller or the sidecar; returns before it is ready."""
        account = self.accounts[role]
        arguments = list(flags)
        if role == "sidecar":
            arguments.insert(0, f"--driver-addr={self.driver.address}")
        process = operator_process(
            role,
            arguments,
            kubeconfig=self.plane.kubeconfig_for(*account),
            namespace=account[0],
            logs=self.directory,
            environment=environment,
        )
        process.start()
        self.processes[role] = process
        return process

    def stop_operator(self) -> None:
        """End both processes in good order, the sidecar first."""
        for role in ("sidecar", "controller"):
            if role in self.processes:
                self.processes[role].stop(grace_s=STOP_GRACE_S)

    def restart(self, role: str, *flags: str, grace_s: float = STOP_GRACE_S) -> None:
        """End a process (`grace_s` 0: as a crash does) and start it with these flags."""
        self.processes[role].stop(grace_s=grace_s)
        if grace_s == 0:
            self.drop_lease(role)
        self.start_process(role, *flags)
        self.until_leading(role)

    def drop_lease(self, role: str) -> None:
        """Free the Lease of a process that crashed, so that its successor needs not wait for it."""
        path = self.lease_path(role)
        lease = self.plane.api.call("GET", path)
        lease["spec"]["holderIdentity"] = ""
        self.plane.api.call("PUT", path, lease)

    def lease_path(self, role: str) -> str:
        """Where the Lease of a process is."""
        name = {
            "controller": "leader-lock-cosi-controller-manager",
            "sidecar": f"{self.driver.name.replace('.', '-')}-cosi",
        }[role]
        space = self.accounts[role][0]
        return f"/apis/coordination.k8s.io/v1/namespaces/{space}/leases/{name}"

    def until_leading(self, *roles: str) -> None:
        """Wait until each process has its Lease."""
        for role in roles or tuple(self.processes):
            self.processes[role].wait_until(
                lambda role=role: self._is_held(role),  # type: ignore[misc]  # a lambda's default
                timeout_s=START_TIMEOUT_S,
            )

    def _is_held(self, role: str) -> bool:
        try:
            lease = self.plane.api.call("GET", self.lease_path(role))
        except ApiError as error:
            if error.code == HTTPStatus.NOT_FOUND:
                return False
            raise
        return bool(lease["spec"].get("holderIdentity"))

    def log_of(self, role: str) -> str:
        """What a process has written so far."""
        return self.processes[role].log_file.read_text(errors="replace")

    # --- waiting

    def until(self, what: str, holds: Callable[[], object], *, timeout_s: float = 30.0) -> None:
        """Wait until `holds` is true.

        Raises:
            TimeoutError: it was not within `timeout_s` seconds; names `what`, shows the logs' ends.
        """
        deadline = time.monotonic() + timeout_s
        asked_s = time.monotonic()
        while not holds():
            took_s = time.monotonic() - asked_s
            if time.monotonic() > deadline:
                tails = "\n".join(
                    f"--- {role}: {self.log_of(role)[-2000:]}" for role in self.processes
                )
                raise TimeoutError(f"waited {timeout_s:.0f} s without success for: {what}\n{tails}")
            waited_s = timeout_s - (deadline - time.monotonic())
            # To list many objects is work for the API server, so it rests in between.
            time.sleep(min(LONGEST_POLL_S, max(POLL_S + waited_s / 20, 4 * took_s)))
            asked_s = time.monotonic()

    def until_ready(
        self,
        plural: str,
        names: Iterable[str],
        namespace: str = NAMESPACE,
        *,
        timeout_s: float = 30.0,
    ) -> None:
        """Wait until each of these objects says so, in upstream's own field."""
        field = "accessGranted" if plural == "bucketaccesses" else "bucketReady"
        wanted = set(names)

        def all_ready() -> bool:
            ready = {
                item["metadata"]["name"]
                for item in self.all_of(plural, namespace)
                if item.get("status", {}).get(field)
            }
            return wanted <= ready

        self.until(f"{len(wanted)} {plural} to be ready", all_ready, timeout_s=timeout_s)

    def until_reason(
        self,
        plural: str,
        name: str,
        reason: str,
        namespace: str = NAMESPACE,
        *,
        timeout_s: float = 30.0,
    ) -> Json:
        """Wait until the Ready condition has this reason; return that condition."""
        self.until(
            f"{plural} {name} to say {reason}",
            lambda: condition(self.find(plural, name, namespace)).get("reason") == reason,
            timeout_s=timeout_s,
        )
        return condition(self.get(plural, name, namespace))

    def until_event(
        self, name: str, reason: str, *, namespace: str = NAMESPACE, timeout_s: float = 30.0
    ) -> str:
        """Wait for an Event about objects of this name; its message. Events come a little later.

        Raises:
            TimeoutError: there was none within `timeout_s` seconds.
        """

        def found() -> list[str]:
            events = self.events(name, namespace)
            return [str(event["message"]) for event in events if event["reason"] == reason]

        self.until(f"Event {reason} about {name}", found, timeout_s=timeout_s)
        return found()[0]

    def until_gone(
        self,
        plural: str,
        names: Iterable[str],
        namespace: str = NAMESPACE,
        *,
        timeout_s: float = 30.0,
    ) -> None:
        """Wait until none of these objects is left."""
        wanted = set(names)

        def none_left() -> bool:
            return wanted.isdisjoint(i["metadata"]["name"] for i in self.all_of(plural, namespace))

        self.until(f"{len(wanted)} {plural} to be gone", none_left, timeout_s=timeout_s)

    def until_quiet(self, quiet_s: float = 1.5, *, timeout_s: float = 60.0) -> None:
        """Wait until the operator has written nothing for so long, Leases aside."""

        def is_quiet() -> bool:
            mark = self.plane.audit.mark()
            time.sleep(quiet_s)  # the question itself: what happens within this time?
            return not self.writes(since=mark)

        self.until("the operator to be quiet", is_quiet, timeout_s=timeout_s)

    # --- what was asked

    def requests(self, *, since: int = 0) -> list[AuditEntry]:
        """All that the operator's two accounts asked; `since`: of `plane.audit.mark()`."""
        return self.plane.audit.entries(since=since, where=lambda entry: entry.user in self.users)

    def writes(self, *, since: int = 0) -> list[AuditEntry]:
        """The operator's writes, those of the Lease and dry runs aside."""
        return [
            entry
            for entry in self.requests(since=since)
            if entry.is_write and entry.resource != "leases" and "dryRun" not in entry.uri
        ]

    def forbidden(self, *, since: int = 0) -> list[str]:
        """What the operator asked and its roles did not allow, in words."""
        return [
            f"{entry.user} {entry.verb} {entry.uri}"
            for entry in self.requests(since=since)
            if entry.code == HTTPStatus.FORBIDDEN
        ]
