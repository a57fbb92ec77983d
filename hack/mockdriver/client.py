"""Start a mock driver from a test and tell it what to do.

Example:
    with MockDriver.start(tmp_path) as driver:
        driver.set_rule(Call.CREATE_BUCKET, code="INVALID_ARGUMENT", message="bad name")
        ...
        assert driver.counts()["DriverCreateBucket"] == {"INVALID_ARGUMENT": 1}
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import msgspec

import warm
from controlplane.daemon import RunningProcess
from cosi_operator.outcome import Call
from mockdriver.backend import Account, Bucket
from mockdriver.journal import Entry
from mockdriver.rules import Rule
from stoppable import Stoppable

ANSWER_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 5.0
STDERR = 2
_SOURCE_ROOTS = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "operator")]


class MockDriver(Stoppable):
    """A mock driver's process. All methods block; none needs more than some milliseconds,
    apart from `start` and `restart`, which wait until the driver serves.

    Args:
        directory: for the two sockets and the state; its path must be short (a Unix socket's
            path has 107 bytes at most).
        name: what DriverGetInfo answers.
        keep_state: buckets and accounts survive `kill` and `restart`.
        rules: in force from the first call on, also after a restart.
    """

    def __init__(
        self,
        directory: Path,
        *,
        name: str = "mock.objectstorage.k8s.io",
        keep_state: bool = True,
        rules: tuple[Rule, ...] = (),
    ) -> None:
        self.name = name
        self.socket_path = directory / "cosi.sock"
        self._control_path = directory / "control.sock"
        self._state_path = directory / "state.jsonl" if keep_state else None
        self._rules_path = directory / "rules.json"
        self._rules_path.write_bytes(msgspec.json.encode(rules))
        self._process: RunningProcess | None = None
        self._connection: socket.socket | None = None
        self._received = b""

    @classmethod
    def start(
        cls,
        directory: Path,
        *,
        name: str = "mock.objectstorage.k8s.io",
        keep_state: bool = True,
        rules: tuple[Rule, ...] = (),
    ) -> Self:
        """A driver that serves; leave it (`with`) or `stop` it to end the process."""
        driver = cls(directory, name=name, keep_state=keep_state, rules=rules)
        driver.run()
        return driver

    @property
    def address(self) -> str:
        """What the sidecar's --driver-addr takes."""
        return f"unix://{self.socket_path}"

    @property
    def pid(self) -> int | None:
        """The process, or None while there is none."""
        return self._process.pid if self._process is not None else None

    def run(self) -> None:
        """Start the process, if there is none, and wait until it serves."""
        if self._process is not None:
            return
        arguments = ["--name", self.name]
        arguments += ["--socket", str(self.socket_path), "--control", str(self._control_path)]
        arguments += ["--rules", str(self._rules_path)]
        if self._state_path is not None:
            arguments += ["--state", str(self._state_path)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(_SOURCE_ROOTS)}
        read, write = os.pipe()
        with os.fdopen(read, encoding="utf-8") as told:
            try:
                self._process = _started(arguments, environment, write)
            finally:
                os.close(write)
            if told.readline() != "ready\n":
                self.kill()
                raise RuntimeError("the mock driver did not start; its own words are on stderr")

    def kill(self) -> None:
        """End the process as a crash does: SIGKILL, the socket files stay behind."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the process in good order; nothing happens if it has ended."""
        self._end(signal.SIGTERM)

    def restart(self, *, name: str | None = None) -> None:
        """Stop if need be, and serve again: new process, new socket file, no rules but the
        first ones, counts at zero. `name`: under another driver name."""
        self.stop()
        self.name = name if name is not None else self.name
        self.run()

    def wait_until_dead(self) -> None:
        """Return once the process has exited because of a rule with `die`."""
        assert self._process is not None
        self._process.wait(ANSWER_TIMEOUT_S)
        self._end(signal.SIGKILL)

    def set_rule(self, call: Call | None, **rule: Any) -> None:
        """Misbehave from now on; see `mockdriver.rules.Rule` for the fields.

        Raises:
            ValueError: there is no such rule.
        """
        self._ask("set_rule", rule={"call": call, **rule})

    def start_with(self, *rules: Rule) -> None:
        """Have the next process misbehave from its first call on, and those after it."""
        self._rules_path.write_bytes(msgspec.json.encode(rules))

    def clear_rules(self) -> None:
        self._ask("clear_rules")

    def counts(self) -> dict[str, dict[str, int]]:
        """Answers since the process started: by call, then by code."""
        return msgspec.convert(self._ask("counts"), dict[str, dict[str, int]])

    def calls(self, call: Call) -> int:
        """How often this call was answered, whatever the code."""
        return sum(self.counts()[call].values())

    def journal(self, call: Call | None = None) -> list[Entry]:
        """The requests since the process started, oldest first."""
        entries = msgspec.convert(self._ask("journal"), list[Entry])
        return [entry for entry in entries if call in (None, entry.call)]

    def buckets(self) -> list[Bucket]:
        return msgspec.convert(self._ask("buckets"), list[Bucket])

    def accounts(self) -> list[Account]:
        return msgspec.convert(self._ask("accounts"), list[Account])

    def hold_edits(self, only: str = "") -> None:
        """Let calls with a rule `edit` read the document, but write it only once released.

        Args:
            only: a part of the account's name or id; other calls are not held.
        """
        self._ask("hold_edits", only=only)

    def release_edits(self) -> None:
        self._ask("release_edits")

    def held_edits(self) -> int:
        """How many calls have read the document and not written it yet."""
        return msgspec.convert(self._ask("held_edits"), int)

    def reset(self) -> None:
        """Forget rules, counts, journal, buckets and accounts; release held edits."""
        self._ask("reset")

    def _ask(self, do: str, **rest: Mapping[str, object] | str) -> object:
        if self._connection is None:
            self._connection = socket.socket(socket.AF_UNIX)
            self._connection.settimeout(ANSWER_TIMEOUT_S)
            self._connection.connect(str(self._control_path))
        self._connection.sendall(msgspec.json.encode({"do": do, **rest}) + b"\n")
        while b"\n" not in self._received:
            part = self._connection.recv(1 << 20)
            if not part:
                raise ConnectionError("the mock driver is gone")
            self._received += part
        line, _, self._received = self._received.partition(b"\n")
        answer = msgspec.json.decode(line, type=dict[str, object])
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer["value"]

    def _end(self, how: signal.Signals) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection, self._received = None, b""
        if self._process is None:
            return
        process, self._process = self._process, None
        # Both do nothing if it has ended.
        if how is signal.SIGTERM:
            process.terminate()
        else:
            process.kill()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_TIMEOUT_S)


def _started(arguments: list[str], environment: dict[str, str], stdout: int) -> RunningProcess:
    if warm.is_asked_for(None, is_measured=False):
        return warm.fork(
            warm.MOCK_DRIVER,
            arguments,
            environment=environment,
            folder=Path.cwd(),
            outputs=(stdout, STDERR),
        )
    command = [sys.executable, "-m", warm.MOCK_DRIVER, *arguments]
    return subprocess.Popen(command, stdout=stdout, env=environment)
