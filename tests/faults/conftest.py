"""The one bed of the fault tests."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.bed import FaultBed


@pytest.fixture(scope="session")
def fault_bed_for_all() -> Iterator[FaultBed]:
    """A bed behind the proxy; a short folder, as a socket's path has 107 bytes."""
    with (
        tempfile.TemporaryDirectory(prefix="cosi-") as directory,
        FaultBed.ready(Path(directory)) as bed,
    ):
        yield bed


@pytest.fixture
def rough_bed(fault_bed_for_all: FaultBed) -> Iterator[FaultBed]:
    """That bed, with both processes and the driver alive and no fault in force."""
    bed = fault_bed_for_all
    bed.proxy.clear()
    bed.driver.run()
    bed.forget_rules()
    for role in ("controller", "sidecar"):
        if not bed.processes[role].is_running:
            bed.revive(role)
    bed.until_leading("controller", "sidecar")
    yield bed
    bed.proxy.clear()


@pytest.fixture
def bed(rough_bed: FaultBed) -> Iterator[FaultBed]:
    """The same; afterwards, no request may have been forbidden.

    Not where the API server restarts: it answers 403 until it has read its own roles.
    """
    mark = rough_bed.plane.audit.mark()
    yield rough_bed
    assert rough_bed.forbidden(since=mark) == []
