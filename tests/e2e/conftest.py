"""One node for all tests of this folder that run inside a sandbox; the tables at the end."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.table import TABLES
from tests.e2e.world import World, say, started

from node.sandbox import FOLDER_VARIABLE


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    """The node and all that runs on it; its files are in the folder of the sandbox."""
    with started(Path(os.environ[FOLDER_VARIABLE]) / "world") as world:
        for what, seconds in world.times_s.items():
            TABLES.step(what, seconds)
        yield world


@pytest.fixture(autouse=True)
def progress(request: pytest.FixtureRequest) -> None:
    say(request.node.name)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tables, if there are any; with COSI_E2E=update also write them into the page."""
    if text := TABLES.text():
        terminalreporter.section("end to end")
        terminalreporter.write_line(text)
        if os.environ.get("COSI_E2E") == "update":
            TABLES.update()
