"""A testbed whose operator reaches the API server through the proxy, and whose parts can be
killed and brought back at once."""

import json
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import msgspec
from tests.faults.proxy import Proxy

from controlplane import ControlPlane
from controlplane.daemon import Daemon
from controlplane.flags import write_secret
from cosi_operator.outcome import Call
from mockdriver.backend import CANARY
from mockdriver.client import MockDriver
from mockdriver.journal import Entry
from mockdriver.rules import Rule
from testbed import Testbed, operator_process
from testbed.bed import DRIVER_NAME as DRIVER_NAME
from testbed.bed import OUR_CRDS
from testbed.objects import NAMESPACE, path_of

type Json = dict[str, Any]

# The driver answers in a millisecond; a call that hangs is given up after this.
CALL_TIMEOUT_S = 2
FLAGS = {"controller": (), "sidecar": (f"--driver-call-timeout={CALL_TIMEOUT_S}s",)}
# Values of the class parameter `verdict`: the driver refuses the bucket; it makes one more account,
# or other keys, each time that it grants.
REFUSED, NEW_ACCOUNT, NEW_KEYS = "refused", "new account", "new keys"
RULES = (
    Rule(
        match={"parameters.verdict": REFUSED},
        code="INVALID_ARGUMENT",
        message="InvalidBucketName (request id: {request_id})",
    ),
    Rule(match={"parameters.verdict": NEW_ACCOUNT}, call=Call.GRANT_ACCESS, reply="new_account"),
    Rule(match={"parameters.verdict": NEW_KEYS}, call=Call.GRANT_ACCESS, reply="new_keys"),
)
# Where a call carries the class parameter `case`.
CALL_FIELD = {
    Call.CREATE_BUCKET: "parameters.case",
    Call.DELETE_BUCKET: "delete_context.case",
    Call.GRANT_ACCESS: "parameters.case",
    Call.REVOKE_ACCESS: "revoke_access_context.case",
}


class FaultBed(Testbed):
    """Start it with `FaultBed.ready`; `proxy` sees and breaks what the operator asks."""

    proxy: Proxy

    def __init__(self, plane: ControlPlane, driver: MockDriver, directory: Path) -> None:
        """Nothing of the logs has been read."""
        super().__init__(plane, driver, directory)
        self._read_bytes: dict[Path, int] = {}

    @classmethod
    def ready(cls, directory: Path, *, crds: Path | None = None) -> Self:
        """Start everything and wait until both processes lead; 5 to 8 s."""
        bed = cls.start(directory, operator=False, crds=crds or OUR_CRDS)
        try:
            bed.driver.stop()  # this one has no rules that survive a crash
            bed.driver = bed._stack.enter_context(
                MockDriver.start(directory, name=bed.driver.name, rules=RULES)
            )
            bed.proxy = bed._stack.enter_context(Proxy(bed.plane))
            bed._stack.callback(bed.stop_operator)  # before the proxy goes
            for role, flags in FLAGS.items():
                bed.start_process(role, *flags)
            bed.until_leading()
        except BaseException:
            bed._stack.close()
            raise
        return bed

    # --- processes

    def start_process(
        self, role: str, *flags: str, environment: Mapping[str, str] | None = None
    ) -> Daemon:
        """Start a process behind the proxy. `role` may have a suffix: "sidecar-2" is a second."""
        kind = role.split("-", maxsplit=1)[0]
        space, account = self.accounts[kind]
        arguments = list(flags)
        if kind == "sidecar":
            arguments.insert(0, f"--driver-addr={self.driver.address}")
        folder = self.directory / role
        folder.mkdir(exist_ok=True)
        process = operator_process(
            kind,
            arguments,
            kubeconfig=self._kubeconfig(role, space, account),
            namespace=space,
            logs=folder,
            environment=environment,
        )
        process.start()
        self.processes[role] = process
        return process

    def _kubeconfig(self, role: str, space: str, account: str) -> Path:
        file = self.directory / role / "kubeconfig"
        if not file.exists():
            direct = self.plane.kubeconfig_for(space, account, token_file=True)
            config = json.loads(direct.read_text())
            config["clusters"][0]["cluster"]["server"] = self.proxy.listen(role)
            write_secret(file, json.dumps(config))
        return file

    def stop_operator(self) -> None:
        """End all processes in good order, sidecars first."""
        for role in sorted(self.processes, reverse=True):
            self.processes[role].stop(grace_s=10.0)

    def kill(self, role: str) -> None:
        """SIGKILL a process, as the kernel does when it is out of memory."""
        pid = self.processes[role].pid
        if pid is not None:
            os.kill(pid, signal.SIGKILL)

    def revive(self, role: str) -> None:
        """Start a process again after a crash; it gets its Lease at once."""
        self.processes[role].stop(grace_s=0)
        self.drop_lease(role)
        self.start_process(role, *FLAGS[role])

    def memory_kib(self, role: str) -> int:
        """The resident memory of a process."""
        pid = self.processes[role].pid
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise ValueError(f"{role} does not run")

    # --- tokens

    def token_of(self, role: str) -> str:
        """The token that a role's kubeconfig leads to now."""
        return self._token_file(role).read_text()

    def rotate_token(self, role: str) -> None:
        """Replace it by a new one, as the kubelet does."""
        write_secret(self._token_file(role), self.plane.token_for(*self.accounts[role]))

    def _token_file(self, role: str) -> Path:
        space, account = self.accounts[role]
        return self.plane.directory / "kubeconfigs" / f"{space}.{account}.token"

    # --- the driver

    @property
    def driver_lives(self) -> bool:
        """Whether the driver's process runs; a rule may have ended it."""
        try:
            state = Path(f"/proc/{self.driver.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return False
        return state != "Z"

    def revive_driver(self) -> None:
        """Start the driver again after it killed itself."""
        self.driver.wait_until_dead()
        self.driver.run()

    def forget_rules(self) -> None:
        """The driver misbehaves no more, apart from its standing verdict."""
        self.driver.clear_rules()
        for rule in RULES:
            self.driver.set_rule(**msgspec.structs.asdict(rule))

    def until_empty(self) -> None:
        """Wait until no object and nothing on the backend is left.

        Raises:
            AssertionError: something was left; names it.
        """
        with suppress(TimeoutError):
            self.until("everything to be gone", lambda: not any(self.left_over()))
        left = list(self.left_over())
        assert not left, "left over:\n" + "\n".join(left)

    def left_over(self) -> Iterator[str]:
        """What tests make and have to take away again, classes aside; asked for one by one."""
        for plural in ("bucketclaims", "buckets", "bucketaccesses", "secrets"):
            yield from (f"{plural} {item}" for item in self.all_of(plural))
        yield from (f"on the backend: {bucket}" for bucket in self.driver.buckets())
        yield from (f"on the backend: account {a.name}" for a in self.driver.accounts())

    def leaks(self) -> list[str]:
        """Where a secret key stands besides Secrets: in objects, and in new log lines and Events.

        The Events are deleted, so that the next test reads its own alone.
        """
        texts = {f"the log of {role}": self._new_log_of(role) for role in self.processes}
        for plural in ("bucketclaims", "buckets", "bucketaccesses"):
            texts |= {
                f"{plural} {b['metadata']['name']}": json.dumps(b) for b in self.all_of(plural)
            }
        for space in (NAMESPACE, "default"):
            for event in self.all_of("events", space):
                texts[f"Event {event['metadata']['name']}"] = json.dumps(event)
            self.plane.api.call("DELETE", path_of("events", space))
        return [where for where, text in texts.items() if CANARY in text]

    def _new_log_of(self, role: str) -> str:
        """What a process has written since this was asked last, and the line before it."""
        file = self.processes[role].log_file
        with file.open("rb") as log:
            log.seek(self._read_bytes.get(file, 0))
            text = log.read()
        self._read_bytes[file] = self._read_bytes.get(file, 0) + text.rfind(b"\n") + 1
        return text.decode(errors="replace")

    def calls_of(self, case: str) -> list[Entry]:
        """The calls about one case since the driver's present process started."""
        return [
            entry
            for entry in self.driver.journal()
            if entry.call in CALL_FIELD and entry.fields.get(CALL_FIELD[entry.call]) == case
        ]
