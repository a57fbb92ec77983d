"""Freed memory is given back, now and then."""

import asyncio
import sys

import pytest
from tests.support.clock import FakeClock

from cosi_operator.app import malloc_trim
from cosi_operator.app.malloc_trim import EVERY_S, trim_regularly


async def test_it_is_given_back_every_thirty_seconds() -> None:
    clock, times = FakeClock(), list[float]()
    task = asyncio.create_task(trim_regularly(clock, lambda: times.append(clock.monotonic())))
    await clock.run(3 * EVERY_S)
    task.cancel()
    assert len(times) == 3


async def test_where_the_c_library_can_not_it_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ctypes", None)  # importing it fails
    clock = FakeClock()
    task = asyncio.create_task(trim_regularly(clock))
    await clock.run(EVERY_S)
    assert task.done()
    assert task.exception() is None


def test_glibc_can() -> None:
    trim = malloc_trim._glibc_trim()
    assert trim is not None
    assert trim() in (0, 1)  # whether there was anything to give back
