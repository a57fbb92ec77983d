"""Coverage of operator/ by lines and branches: printed, compared with docs/coverage.md, recorded.

Usage: coverage_figures.py check PART COVERAGE_JSON   fails if a figure fell below its floor
       coverage_figures.py update PART COVERAGE_JSON  writes the figures into docs/coverage.md

PART names the row: `all tests` or `unit and model tests`. A floor is the recorded figure minus
`SLACK`, because a few branches depend on timing; for all tests it is at least `LEAST`.
"""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "coverage.md"
ROW = "| {part} | {lines:.1f} | {branches:.1f} |"
SLACK = 1.0


class FiguresError(Exception):
    """A figure is missing or too low; says which."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Percentages of lines and of branches."""

    lines: float
    branches: float

    def below(self, floor: "Figures") -> list[str]:
        """What is lower than a floor, in words."""
        return [
            f"{name} {found:.1f}% (at least {least:.1f}%)"
            for name, found, least in (
                ("lines", self.lines, floor.lines),
                ("branches", self.branches, floor.branches),
            )
            if found < least
        ]


LEAST = {"all tests": Figures(95.0, 90.0), "unit and model tests": Figures(0.0, 0.0)}


def measured(report: Any) -> Figures:
    """The figures of a report that `coverage json` wrote.

    Raises:
        FiguresError: the report has no branches.
    """
    totals = report["totals"]
    if not totals.get("num_branches"):
        raise FiguresError("the report has no branches: was it made with branch = true?")
    return Figures(
        lines=100 * totals["covered_lines"] / totals["num_statements"],
        branches=100 * totals["covered_branches"] / totals["num_branches"],
    )


def recorded(document: str, part: str) -> Figures:
    """The figures in a row of docs/coverage.md.

    Raises:
        FiguresError: there is no such row.
    """
    found = re.search(rf"^\| {re.escape(part)} \| ([\d.]+) \| ([\d.]+) \|", document, re.MULTILINE)
    if found is None:
        raise FiguresError(f"docs/coverage.md has no row {part!r}")
    return Figures(float(found[1]), float(found[2]))


def floor(document: str, part: str) -> Figures:
    """What a run must reach."""
    before, least = recorded(document, part), LEAST[part]
    return Figures(
        max(least.lines, before.lines - SLACK), max(least.branches, before.branches - SLACK)
    )


def updated(document: str, part: str, figures: Figures) -> str:
    """The document with the figures of one row replaced."""
    recorded(document, part)
    row = ROW.format(part=part, lines=figures.lines, branches=figures.branches)
    pattern = rf"^\| {re.escape(part)} \| [\d.]+ \| [\d.]+ \|"
    return re.sub(pattern, row, document, count=1, flags=re.MULTILINE)


def main(arguments: Sequence[str]) -> int:
    """Return 1 if a figure is below its floor."""
    task, part, file = arguments
    figures = measured(json.loads(Path(file).read_text()))
    document = DOCUMENT.read_text(encoding="utf-8")
    print(f"coverage of operator/ by {part}: lines {figures.lines:.1f}%,", end=" ")
    print(f"branches {figures.branches:.1f}%")
    if task == "update":
        DOCUMENT.write_text(updated(document, part, figures), encoding="utf-8")
    elif low := figures.below(floor(document, part)):
        print(f"coverage fell: {', '.join(low)}. See docs/coverage.md.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
