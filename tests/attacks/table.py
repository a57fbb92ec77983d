"""The table of attacks that a test run prints at its end: one row for each sentence.

Mark a test, or a class or module of tests, with the attack in one sentence:

    @pytest.mark.attack("a tenant queues 3,000 claims; another tenant's claim waits its turn only")

The marker works in every folder under tests. Tests with the same sentence share a row, and the
row says `held` only if all of them passed.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import pytest

MARKER = "attack"


@dataclass(slots=True)
class Row:
    """The tests of one attack."""

    tests: int = 0
    broken: int = 0


def remember(items: Iterable[pytest.Item]) -> None:
    """Attach each test's attacks to its reports; they reach the process that prints."""
    for item in items:
        for marker in item.iter_markers(MARKER):
            (attack,) = marker.args
            item.user_properties.append((MARKER, attack))


def rows(reports: Iterable[object]) -> dict[str, Row]:
    """Count the reports by attack. A skipped test or a failed fixture breaks its attack."""
    found: dict[str, Row] = {}
    broken: set[tuple[str, str]] = set()
    for report in reports:
        if not isinstance(report, pytest.TestReport):
            continue
        for name, attack in report.user_properties:
            if name != MARKER:
                continue
            row = found.setdefault(str(attack), Row())
            row.tests += report.when == "call" or (report.when == "setup" and not report.passed)
            if not report.passed and (case := (str(attack), report.nodeid)) not in broken:
                broken.add(case)
                row.broken += 1
    return found


def text(found: dict[str, Row]) -> str:
    """The table: one line for each attack, then the counts."""
    lines = [
        f"{'BROKEN' if row.broken else 'held':<6}  {row.tests:>3}  {attack}"
        for attack, row in found.items()
    ]
    held = sum(not row.broken for row in found.values())
    lines.append(f"{len(found)} attacks tried, {held} held, {len(found) - held} broken")
    return "\n".join(lines)
