"""A driver of another name on the sidecar's socket: only DriverGetInfo reaches that driver."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cosi_operator.outcome import Call
from mockdriver.client import MockDriver
from testbed import Testbed

OTHER = "other.example.com"
CLAIMS = 40


@pytest.fixture(scope="module")
def own_bed() -> Iterator[Testbed]:
    with (
        tempfile.TemporaryDirectory(prefix="cosi-") as directory,
        Testbed.start(Path(directory)) as bed,
    ):
        yield bed
        assert bed.forbidden() == []


def test_a_foreign_driver_gets_no_call_but_the_question_for_its_name(
    own_bed: Testbed, name: str
) -> None:
    bed = own_bed
    bed.make_classes(name)
    claims = [f"{name}-{number}" for number in range(CLAIMS)]
    sidecar, ours = bed.processes["sidecar"], bed.driver.name
    with (
        tempfile.TemporaryDirectory(prefix="cosi-") as directory,
        MockDriver.start(Path(directory), name=OTHER) as other,
    ):
        # The socket changes hands while the first driver lives: the sidecar notices it at its next
        # call, or within a second, and most of these calls come sooner.
        other.socket_path.replace(bed.driver.socket_path)
        bed.make_claims(claims, class_name=name)
        bed.until("the sidecar to end", lambda: not sidecar.is_running)
        assert {entry.call for entry in other.journal()} == {Call.GET_INFO}
    assert bed.driver.calls(Call.CREATE_BUCKET) == 0
    (renamed,) = (line for line in bed.log_of("sidecar").splitlines() if "driver_renamed" in line)
    told = json.loads(renamed)
    assert (told["driver"], told["renamed_to"]) == (ours, OTHER)
    bed.driver.restart(name=ours)
    bed.start_process("sidecar")
    bed.until_ready("bucketclaims", claims)
