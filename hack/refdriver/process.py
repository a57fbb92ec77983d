"""Run the reference driver as a separate process, for the demo and the tests."""

import os
import sys
from pathlib import Path

import grpc

from awsclient import Account
from controlplane.daemon import Daemon
from cosi_operator.rpc import cosi_pb2 as pb
from cosi_operator.rpc import cosi_pb2_grpc as pb_grpc
from refdriver import record
from refdriver.policy import EDITS, HOLD
from refdriver.record import CallRecord
from stoppable import Stoppable

DEFAULT_NAME = "seaweedfs.objectstorage.k8s.io"
KEY_VARIABLE = "AWS_ACCESS_KEY_ID"
SECRET_KEY_VARIABLE = "AWS_SECRET_ACCESS_KEY"
START_TIMEOUT_S = 20.0
STOP_GRACE_S = 5.0
ASK_TIMEOUT_S = 1.0


class RefDriver(Stoppable):
    """One running driver. Make it with `RefDriver.start`; leaving `with` ends it."""

    def __init__(
        self, directory: Path, account: Account, name: str, *, unlocked_policy: bool = False
    ) -> None:
        """Lay out files and the command line; nothing is started."""
        self.name = name
        self.socket = directory / "cosi.sock"
        self.log_file = directory / "refdriver.log"
        self._holding = directory / "held"
        flags = {"socket": self.socket, "endpoint": account.endpoint, "region": account.region}
        self._daemon = Daemon(
            "refdriver",
            [sys.executable, "-m", "refdriver"]
            + [f"--{flag}={value}" for flag, value in {**flags, "name": name}.items()]
            + (["--unlocked-policy", f"--hold-edits={self._holding}"] if unlocked_policy else []),
            self.log_file,
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "PYTHONPATH": os.pathsep.join(sys.path),
                KEY_VARIABLE: account.access_key,
                SECRET_KEY_VARIABLE: account.secret_key,
            },
        )

    @classmethod
    def start(
        cls,
        directory: Path,
        account: Account,
        *,
        name: str = DEFAULT_NAME,
        unlocked_policy: bool = False,
    ) -> "RefDriver":
        """Start a driver and return it when it tells its name.

        Args:
            directory: made when missing; holds the socket `cosi.sock` and `refdriver.log`. The
                socket's path must be shorter than 108 bytes.
            account: where to provision, and the admin's key there.
            name: the driver's name.
            unlocked_policy: it gives access by the bucket's policy, edited without a lock; then
                edits can be held.
        Raises:
            StartError: it ended or wasn't ready in 20 s; the message ends with its last log lines.
        """
        directory.mkdir(parents=True, exist_ok=True)
        driver = cls(directory.resolve(), account, name, unlocked_policy=unlocked_policy)
        driver._holding.mkdir(exist_ok=True)
        try:
            driver._daemon.start()
            driver._daemon.wait_until(driver._is_ready, timeout_s=START_TIMEOUT_S)
        except BaseException:
            driver.stop()
            raise
        return driver

    def stop(self) -> None:
        """End the driver; calls in progress get 2 s. Safe to repeat."""
        self._daemon.stop(grace_s=STOP_GRACE_S)

    @property
    def address(self) -> str:
        """What the sidecar's `--driver-addr` takes."""
        return f"unix://{self.socket}"

    def calls(self) -> list[CallRecord]:
        """Return what it was asked so far and how it answered, oldest first."""
        return record.read(self.log_file.read_text())

    def hold_edits(self, only: str = "") -> None:
        """Let edits of a policy read it, but write it only once released.

        Args:
            only: a part of the user's name; the edits for other users are not held.
        """
        (self._holding / HOLD).write_text(only)

    def release_edits(self) -> None:
        """Let held edits write, and later ones no longer wait."""
        (self._holding / HOLD).unlink(missing_ok=True)

    def held_edits(self) -> int:
        """How many edits have read a policy and not written it yet."""
        return len(list(self._holding.glob(EDITS)))

    def _is_ready(self) -> bool:
        with grpc.insecure_channel(self.address) as channel:
            identity = pb_grpc.IdentityStub(channel)
            try:
                reply = identity.DriverGetInfo(pb.DriverGetInfoRequest(), timeout=ASK_TIMEOUT_S)
            except grpc.RpcError:
                return False
        return reply.name == self.name
