"""The tables that `make e2e` prints: the day, and the operations under load."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "e2e.md"
BEGIN = "<!-- made by make e2e UPDATE=1: do not edit -->"
END = "<!-- end of the made part -->"


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation while claims were there.

    `downtime_s` is the longest time in which a new claim did not become ready, as seen by a
    client that creates one after the other; None if none was made.
    """

    name: str
    took_s: float
    downtime_s: float | None
    second_creates: int
    lost: int
    note: str = ""

    def cells(self) -> tuple[str, ...]:
        downtime = "-" if self.downtime_s is None else f"{self.downtime_s:.1f} s"
        return (
            self.name, f"{self.took_s:.1f} s", downtime, str(self.second_creates), str(self.lost),
            self.note,
        )  # fmt: skip


@dataclass(slots=True)
class Tables:
    """Rows in the order in which they came."""

    day: list[tuple[str, str]] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)

    def step(self, what: str, seconds: float) -> None:
        self.day.append((what, f"{seconds:.1f} s"))

    def update(self, page: Path = PAGE) -> None:
        """Put both into the page, between its two marks."""
        before, begin, rest = page.read_text().partition(BEGIN)
        _, end, after = rest.partition(END)
        page.write_text(f"{before}{begin}\n\n{self.text()}\n\n{end}{after}")

    def text(self) -> str:
        """Both as Markdown, as docs/e2e.md has them."""
        parts = []
        if self.day:
            parts.append(_table(("the user's day", "time"), self.day))
        if self.operations:
            head = ("operation", "took", "downtime", "second Creates", "lost objects", "note")
            parts.append(_table(head, [one.cells() for one in self.operations]))
        return "\n\n".join(parts)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


TABLES = Tables()
