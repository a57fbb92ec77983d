"""The proposal's reproduction: a bucket name that S3 refuses costs one call, then nothing."""

import json
import os
import re
import subprocess
import sys

import pytest

from testbed.process import ROOT

CLAIMS = 3
PROPOSAL = ROOT / "docs" / "rfc-retry-only-internal.md"
PYTHONPATH = f"{ROOT / 'operator'}{os.pathsep}{ROOT / 'hack'}"


def shown_of_a_claim() -> list[int]:
    """Create calls, writes and Events of one claim, from the output that the proposal shows."""
    ours = PROPOSAL.read_text(encoding="utf-8").partition("\nours: 10 refused claims")[2]
    (numbers,) = re.findall(
        r"^ +first 60 +(\d+) +(\d+) +(\d+)$", ours.partition("\npeer:")[0], re.MULTILINE
    )
    return [int(number) // 10 for number in numbers]


@pytest.mark.timeout(180)  # it starts a control plane, SeaweedFS, a driver and both processes
def test_a_name_that_s3_refuses_is_sent_once_and_then_neither_sent_nor_written_again() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "repro", f"--claims={CLAIMS}", "--seconds=5", "--json"],
        env={**os.environ, "PYTHONPATH": PYTHONPATH, "PEER_CONTROLLER": "", "PEER_SIDECAR": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = json.loads(done.stdout.splitlines()[-1])["ours"]
    assert first["create_calls"] == CLAIMS
    # docs/performance.md, what a claim costs; one more takes the finalizer off its Bucket again.
    assert first["writes"] == 6 * CLAIMS
    made = [first[field] for field in ("create_calls", "writes", "events")]
    assert made == [CLAIMS * number for number in shown_of_a_claim()]
    assert (second["create_calls"], second["writes"], second["events"]) == (0, 0, 0)
    assert "The driver answered: INVALID_ARGUMENT\n" in done.stdout
    assert f"{CLAIMS} of {CLAIMS} claims say why in their conditions." in done.stdout
    assert "InvalidBucketName" in done.stdout
