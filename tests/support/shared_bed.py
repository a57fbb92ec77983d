"""Fixtures for tests of a module that share a testbed; a conftest.py imports them by name."""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import Testbed

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def shared_bed() -> Iterator[Testbed]:
    """Ours CRDs, default flags; a short folder, as a socket's path has 107 bytes."""
    with (
        tempfile.TemporaryDirectory(prefix="cosi-") as directory,
        Testbed.start(Path(directory)) as bed,
    ):
        yield bed


@pytest.fixture
def bed(shared_bed: Testbed) -> Iterator[Testbed]:
    """The testbed, with a driver that behaves; afterwards, no request may have been forbidden."""
    mark = shared_bed.plane.audit.mark()
    shared_bed.driver.run()
    shared_bed.driver.clear_rules()
    yield shared_bed
    assert shared_bed.forbidden(since=mark) == []


@pytest.fixture
def name() -> str:
    """A name that no other test uses, for classes and objects."""
    return f"t{next(_numbers)}"
