"""The table of fault cases that a run prints at its end."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

FULL = os.environ.get("COSI_FAULTS") == "full"
full_tier = pytest.mark.full_tier  # left out without COSI_FAULTS=full: tests/conftest.py


@dataclass(slots=True)
class Row:
    """One line: how many cases of a kind there were, in how many the fault came, how many held."""

    cases: int = 0
    met: int = 0
    survived: int = 0


@dataclass(slots=True)
class Table:
    """Rows by scenario and kind of fault, in the order in which they came."""

    rows: dict[tuple[str, str], Row] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether there is anything to print."""
        return bool(self.rows)

    def add(self, scenario: str, way: str, *, met: bool, survived: bool) -> None:
        """Count one case."""
        row = self.rows.setdefault((scenario, way), Row())
        row.cases += 1
        row.met += met
        row.survived += survived

    def packed(self) -> list[tuple[str, str, int, int, int]]:
        """As plain values, to go from a test process to the one that prints."""
        return [(*key, row.cases, row.met, row.survived) for key, row in self.rows.items()]

    def merge(self, packed: Iterable[tuple[str, str, int, int, int]]) -> None:
        """Add the counts of another process."""
        for scenario, way, cases, met, survived in packed:
            row = self.rows.setdefault((scenario, way), Row())
            row.cases += cases
            row.met += met
            row.survived += survived

    def text(self) -> str:
        """The table, with a sum."""
        lines: list[tuple[str, ...]] = [("scenario", "fault", "cases", "fault came", "survived")]
        lines += [
            (scenario, way, str(row.cases), str(row.met), str(row.survived))
            for (scenario, way), row in self.rows.items()
        ]
        total = [sum(getattr(row, name) for row in self.rows.values()) for name in Row.__slots__]
        lines.append(("all", "", *map(str, total)))
        widths = [max(len(line[column]) for line in lines) for column in range(5)]
        return "\n".join(_line(line, widths) for line in lines)


def _line(cells: Iterable[str], widths: Iterable[int]) -> str:
    padded = [
        cell.ljust(width) if column < 2 else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()


TABLE = Table()
