"""The API server is away for five minutes; processes that exit are restarted as a kubelet does.

In each run time is compressed tenfold, by shorter settings: the API server is away for 30 s, the
Lease and the kubelet's backoff are a tenth of theirs. `make faults-full` runs the full length too.
"""

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.table import full_tier

from controlplane import ApiError
from cosi_operator.outcome import Call
from testbed import Testbed, claim_body, operator_process

AWAY_S = 300.0
# Of the kubelet: the first restart is immediate, then 10 s, doubled up to 5 minutes, and forgotten
# after 10 minutes without an exit.
BACKOFF_S, BACKOFF_CAP_S, FORGET_S = 10.0, 300.0, 600.0
COMPRESSED = Path(__file__).parents[1] / "support" / "compressed.py"
CLAIMS = 10


class Kubelet:
    """Keeps one process running; `exits` are the codes it has ended with."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path, scale: float):
        self.exits: list[int] = []
        self._command, self._environment, self._log = command, environment, log
        self._scale = scale
        self._stop = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep_running, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        while self._thread.is_alive():
            if self._process is not None and self._process.poll() is None:
                self._process.terminate()
            self._thread.join(0.2)

    def _keep_running(self) -> None:
        pause_s = 0.0
        while not self._stop.wait(pause_s / self._scale):
            started_s = time.monotonic()
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    self._command,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
                code = self._process.wait()
            if self._stop.is_set():
                return
            self.exits.append(code)
            if time.monotonic() - started_s > FORGET_S / self._scale:
                pause_s = 0.0
            pause_s = min(BACKOFF_CAP_S, max(BACKOFF_S, 2 * pause_s)) if pause_s else BACKOFF_S


def kubelet(bed: Testbed, role: str, scale: float) -> Kubelet:
    space, account = bed.accounts[role]
    flags = [f"--driver-addr={bed.driver.address}"] if role == "sidecar" else []
    process = operator_process(
        role,
        flags,
        kubeconfig=bed.plane.kubeconfig_for(space, account),
        namespace=space,
        logs=bed.directory,
    )
    start = process.command.index("cosi_operator") + 1
    command = [sys.executable, str(COMPRESSED), str(scale), *process.command[start:]]
    return Kubelet(command, dict(process.environment or {}), process.log_file, scale)


@pytest.fixture
def bed() -> Iterator[Testbed]:
    with (
        tempfile.TemporaryDirectory(prefix="cosi-") as directory,
        Testbed.start(Path(directory), operator=False) as bed,
    ):
        yield bed


@pytest.mark.attack("the API server is away for 5 minutes; exits are restarted with backoff")
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "scale",
    [pytest.param(10.0, id="time is compressed"), pytest.param(1.0, marks=full_tier, id="in full")],
)
def test_an_api_server_that_is_away_costs_one_restart_and_nothing_else(
    bed: Testbed, scale: float
) -> None:
    before = [f"before-{number}" for number in range(CLAIMS)]
    meanwhile = [f"meanwhile-{number}" for number in range(CLAIMS)]
    kubelets = {role: kubelet(bed, role, scale) for role in ("controller", "sidecar")}
    try:
        bed.make_classes("slow", parameters={"case": "slow"})
        bed.make_classes("quick")
        bed.make_claims(before, class_name="quick")
        bed.make_accesses(before, class_name="quick")
        bed.until_ready("bucketaccesses", before, timeout_s=60)
        settled = creates(bed, before)
        # Some calls are under way when the API server ends.
        bed.driver.set_rule(Call.CREATE_BUCKET, match={"parameters.case": "slow"}, delay_s=1.0)
        bed.create_all("bucketclaims", [claim_body(n, class_name="slow") for n in meanwhile])
        bed.until("a call to be under way", lambda: bed.driver.calls(Call.CREATE_BUCKET) > CLAIMS)
        bed.plane.stop_apiserver(grace_s=0)
        exits = {role: len(kept.exits) for role, kept in kubelets.items()}
        time.sleep(AWAY_S / scale)  # the question itself: what happens within this time?
        restarts = {role: len(kept.exits) - exits[role] for role, kept in kubelets.items()}
        bed.plane.start_apiserver()
        bed.until("the API server to know its objects", lambda: answers(bed), timeout_s=60)
        bed.until_ready("bucketclaims", meanwhile, timeout_s=120)
        bed.make_accesses(meanwhile, class_name="quick")
        bed.until_ready("bucketaccesses", [*before, *meanwhile], timeout_s=60)
    finally:
        for kept in kubelets.values():
            kept.stop()
    assert creates(bed, before) == settled
    # A call whose answer could not be stored before the exit is repeated, under the same name.
    assert max(creates(bed, meanwhile).values()) <= 2
    assert len(bed.driver.buckets()) == len(bed.driver.accounts()) == 2 * CLAIMS
    # Each process gives up its Lease once; the next one waits for the API server and stays.
    assert restarts == dict.fromkeys(kubelets, 1)
    assert {code for kept in kubelets.values() for code in kept.exits} == {1}


def creates(bed: Testbed, claims: list[str]) -> dict[str, int]:
    """How often the driver was asked for the bucket of each claim."""
    names = [str(call.fields["name"]) for call in bed.driver.journal(Call.CREATE_BUCKET)]
    uids = {claim: bed.get("bucketclaims", claim)["metadata"]["uid"] for claim in claims}
    return {claim: names.count(f"bucket-{uid}") for claim, uid in uids.items()}


def answers(bed: Testbed) -> bool:
    """Whether the API server serves every kind; just started, it answers 429."""
    try:
        for plural in ("bucketclaims", "buckets", "bucketaccesses"):
            bed.all_of(plural)
    except ApiError:
        return False
    return True
