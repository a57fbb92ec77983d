"""The system clock of a process is set one hour back or forward, and back again, while it works.

libfaketime (Debian package faketime, installed if it is missing) stands between the process and
the system's time of day. Monotonic time is left alone, as it is when a person or an NTP daemon sets
the clock.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
from tests.faults.bed import FLAGS, REFUSED, FaultBed
from tests.faults.table import TABLE

from cosi_operator.outcome import Call
from image.tools import need
from testbed import claim_body

RECHECK_S = 3.0
HOUR_S = 3600
# A recheck may be late by the length of one run and one driver call.
LATE_S = 1.5
INTERVALS = 3


@dataclass(frozen=True)
class FakedClock:
    """The time of day of one process."""

    file: Path

    def set(self, offset_s: int) -> None:
        """Move it so far from the true time."""
        written = self.file.with_suffix(".new")
        written.write_text(f"{offset_s:+d}\n")
        written.replace(self.file)

    def environment(self) -> dict[str, str]:
        """What makes a process see it."""
        need("faketime", package="faketime")
        (library,) = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


@pytest.fixture
def faked(bed: FaultBed, tmp_path: Path) -> Iterator[FakedClock]:
    """A sidecar with a clock of its own, which rechecks what the driver refused."""
    clock = FakedClock(tmp_path / "offset")
    clock.set(0)
    bed.processes["sidecar"].stop(grace_s=10.0)
    flags = (*FLAGS["sidecar"], f"--terminal-recheck-interval={RECHECK_S:g}s")
    bed.start_process("sidecar", *flags, environment=clock.environment())
    bed.until_leading("sidecar")
    yield clock
    clock.set(0)
    bed.processes["sidecar"].stop(grace_s=10.0)
    bed.start_process("sidecar", *FLAGS["sidecar"])
    bed.until_leading("sidecar")


@pytest.mark.attack("the clock of the sidecar's node jumps by an hour and back; rechecks go on")
@pytest.mark.timeout(180)
@pytest.mark.parametrize("jump_s", [-HOUR_S, HOUR_S], ids=["one hour back", "one hour forward"])
def test_the_clock_jumps_while_a_recheck_is_due_and_the_recheck_comes_in_time(
    bed: FaultBed, faked: FakedClock, jump_s: int
) -> None:
    name = f"clock-{'back' if jump_s < 0 else 'forward'}"
    process = bed.processes["sidecar"]
    bed.make_classes(name, parameters={"case": name, "verdict": REFUSED})
    bed.make_classes(f"{name}-good", parameters={"case": f"{name}-good"})
    bed.create("bucketclaims", claim_body(name, class_name=name))
    bed.until_reason("bucketclaims", name, "DriverInvalidArgument")
    for offset_s in (jump_s, 0):
        faked.set(offset_s)
        began = time.monotonic()
        seen = len(asked_for(bed, name))
        wanted = seen + INTERVALS
        bed.until(
            "the rechecks",
            lambda wanted=wanted: len(asked_for(bed, name)) >= wanted,  # type: ignore[misc]
            timeout_s=INTERVALS * (RECHECK_S + LATE_S),
        )
        # The first one was due at any time since the last; those after it have an interval each.
        assert time.monotonic() - began > (INTERVALS - 1) * RECHECK_S - LATE_S
        good = f"{name}-good-{abs(offset_s)}"
        bed.create("bucketclaims", claim_body(good, class_name=f"{name}-good"))
        bed.until_ready("bucketclaims", [good])
        assert clock_of_sidecar_s(bed) == pytest.approx(time.time() + offset_s, abs=10)
    TABLE.add("failing create", f"the clock jumps by {jump_s:+d} s", met=True, survived=True)
    assert bed.processes["sidecar"] is process
    assert process.is_running
    for claim in bed.all_of("bucketclaims"):
        bed.delete("bucketclaims", claim["metadata"]["name"])


def asked_for(bed: FaultBed, case: str) -> list[object]:
    return [entry for entry in bed.calls_of(case) if entry.call is Call.CREATE_BUCKET]


def clock_of_sidecar_s(bed: FaultBed) -> float:
    """The sidecar's own time of day, as it was when it last renewed its Lease."""
    spec = bed.plane.api.call("GET", bed.lease_path("sidecar"))["spec"]
    return datetime.fromisoformat(spec["renewTime"]).timestamp()
