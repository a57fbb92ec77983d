"""The bed of the fault tests: one for a module, as long as each test leaves it as it was."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.faults.bed import FaultBed

SHOWN = 8000  # characters


class Beds:
    """Makes a bed when there is none; a failed test's leftovers are not the next one's fault."""

    def __init__(self) -> None:
        """No bed yet."""
        self._stack = ExitStack()
        self._bed: FaultBed | None = None

    def get(self) -> FaultBed:
        if self._bed is None:
            # A short folder, as a socket's path has 107 bytes.
            folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="cosi-"))
            self._bed = self._stack.enter_context(FaultBed.ready(Path(folder)))
        return self._bed

    def discard(self) -> None:
        self._stack.close()
        self._bed = None


@pytest.fixture(scope="module")
def beds() -> Iterator[Beds]:
    made = Beds()
    yield made
    made.discard()


def show(bed: FaultBed) -> None:
    """The ends of the logs and what was asked last, for the report of a failed test."""
    for role in bed.processes:
        print(f"--- log of {role}:", bed.log_of(role)[-SHOWN:], sep="\n")
    print("--- requests:", *(f"{a.at_s:.2f} {a}" for a in bed.proxy.log[-100:]), sep="\n")


@pytest.fixture
def rough_bed(beds: Beds, request: pytest.FixtureRequest) -> Iterator[FaultBed]:
    """A bed with both processes and the driver alive and no fault in force."""
    failed = request.session.testsfailed
    bed = beds.get()
    try:
        bed.proxy.clear()
        bed.driver.run()
        bed.forget_rules()
        for role in ("controller", "sidecar"):
            if not bed.processes[role].is_running:
                bed.revive(role)
        bed.until_leading("controller", "sidecar")
        yield bed
        bed.proxy.clear()
        has_failed = request.session.testsfailed > failed
        if has_failed:
            show(bed)
        else:
            bed.until_empty()
            assert bed.leaks() == []
    except BaseException:
        beds.discard()
        raise
    if has_failed:
        beds.discard()


@pytest.fixture
def bed(rough_bed: FaultBed) -> Iterator[FaultBed]:
    """The same; afterwards, no request may have been forbidden.

    Not where the API server restarts: it answers 403 until it has read its own roles.
    """
    mark = rough_bed.plane.audit.mark()
    yield rough_bed
    assert rough_bed.forbidden(since=mark) == []
