"""The tests that are not in every run, and the tables of faults and attacks at the end of a run.

COSI_FAULTS=full runs everything (`make faults-full`); without it the tests marked by `full_tier`
are left out, as docs/faults.md says; without COSI_IMAGE (`make containerfile`) those marked by
`containerfile`; without COSI_E2E (`make e2e`) those marked by `e2e`; without
COSI_RELEASE (`make release-test`) those marked by `release`.

The tables are put together from all processes of a run, since `make test` uses several.
"""

import os
from typing import Any

import pytest
from hypothesis import settings
from tests.attacks import table as attacks
from tests.faults.table import FULL, TABLE
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

CASES = "fault_cases"
# The modules of these folders run in one process, since they share what takes long to make.
TOGETHER = ("tests/image/",)  # the image
# The modules that take longest begin first, so that no process is left alone with one at the end.
LONGEST_FIRST = (
    "tests/faults/test_enumeration.py",
    "tests/integration/test_bad_objects.py",
    "tests/integration/test_missing_rights.py",
    "tests/integration/test_many_failures.py",
    "tests/integration/test_one_at_a_time.py",
    "tests/image/test_document.py",
    "tests/faults/test_outages.py",
    "tests/faults/test_process.py",
    "tests/integration/test_wakeups.py",
    "tests/chart/test_documents.py",
    "tests/integration/test_main_job.py",
    "tests/faults/test_streams.py",
    "tests/attacks/test_neighbours.py",
    "tests/integration/test_failures_deletion.py",
    "tests/model/test_state_machine.py",
    "tests/model/test_hostile.py",
    "tests/model/test_crash_points.py",
    "tests/unit/sidecar/test_lane.py",
)

# How long one example takes depends on what else the machine does. What has to be fast has a test
# of its own, which measures it.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what was not asked for."""
    asked = {
        "full_tier": FULL,
        "containerfile": bool(os.environ.get("COSI_IMAGE")),
        "e2e": bool(os.environ.get("COSI_E2E")),
        "release": bool(os.environ.get("COSI_RELEASE")),
    }
    markers = [marker for marker, is_asked in asked.items() if not is_asked]
    left_out = [item for item in items if any(map(item.get_closest_marker, markers))]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    ranks = {path: rank for rank, path in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: ranks.get(item.nodeid.partition("::")[0], len(ranks)))
    attacks.remember(items)


class _Scopes(LoadScopeScheduling):  # type: ignore[misc]
    """`--dist loadscope`, with TOGETHER."""

    def _split_scope(self, nodeid: str) -> str:
        return next(filter(nodeid.startswith, TOGETHER), super()._split_scope(nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Scopes | None:
    """One module after the other, as `make test` asks for."""
    return _Scopes(config, log) if config.getoption("dist") == "loadscope" else None


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker process hands its cases to the one that prints."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[CASES] = TABLE.packed()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker process has ended."""
    TABLE.merge(getattr(node, "workeroutput", {}).get(CASES, ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tables of fault cases and of attacks, if any were run."""
    if TABLE:
        terminalreporter.section("fault cases")
        terminalreporter.write_line(TABLE.text())
    reports = [report for found in terminalreporter.stats.values() for report in found]
    if tried := attacks.rows(reports):
        terminalreporter.section("attacks")
        terminalreporter.write_line(attacks.text(tried))
