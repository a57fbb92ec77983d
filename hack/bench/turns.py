"""What one turn of a comparison measures, and the table of all turns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

COLUMNS = {
    "ready_per_s": "ready/s",
    "deleted_per_s": "deleted/s",
    "cpu_ms": "CPU ms a claim",
    "idle_mib": "idle sidecar, MiB",
    "others_percent": "% that others used",
}


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn measured."""

    ready_per_s: float
    """Claims."""
    deleted_per_s: float
    others_percent: float
    """The share of the machine that others used meanwhile: how far the turn can be trusted."""
    cpu_ms: float | None = None
    """A claim's, of controller and sidecar together, from its creation to ready."""
    idle_mib: float | None = None
    """The sidecar's resident memory before the first claim."""


def comparison(turns: Mapping[str, Sequence[Turn]], *, of: str) -> str:
    """A table of means and extremes, and the ratios of one column's means to each other's.

    Args:
        turns: by who was measured, in the order of the table.
        of: whose means are divided by the others'.
    """
    lines = [
        "| | " + " | ".join(COLUMNS.values()) + " |",
        "|---|" + "---|" * len(COLUMNS),
        *(_row(who, [_cell(_values(found, c)) for c in COLUMNS]) for who, found in turns.items()),
    ]
    for other, found in turns.items():
        if other != of:
            cells = [
                _ratio(_values(turns[of], c), _values(found, c)) if c != "others_percent" else ""
                for c in COLUMNS
            ]
            lines.append(_row(f"**{of} / {other}**", cells))
    return "\n".join(lines) + "\n"


def _row(head: str, cells: Sequence[str]) -> str:
    return f"| {head} | " + " | ".join(cells) + " |"


def _values(turns: Sequence[Turn], column: str) -> list[float]:
    return [value for turn in turns if (value := getattr(turn, column)) is not None]


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{fmean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    return f"{fmean(ours) / fmean(theirs):.2f}" if ours and theirs else "-"
