"""What an enumeration is made of and what comes of it: effects, cases, their results."""

from dataclasses import dataclass, field

from tests.faults.bed import Json
from tests.faults.fault import How

from cosi_operator.outcome import Call

RPC = "sidecar call "  # begins the label of a driver call


@dataclass(frozen=True, slots=True)
class Effect:
    """One side effect of a scenario: the `number`-th (from 1) with this label."""

    label: str
    number: int

    @property
    def call(self) -> Call | None:
        """The driver call, or None for an API write."""
        return Call(self.label.removeprefix(RPC)) if self.label.startswith(RPC) else None

    @property
    def is_event(self) -> bool:
        """Whether it only tells people what happened."""
        return self.label.endswith(" events")

    def __str__(self) -> str:
        return self.label if self.number == 1 else f"{self.label} (no. {self.number})"


@dataclass(slots=True)
class Result:
    """How one case ended. `met` is False when the effect did not come, so nothing was broken."""

    scenario: str
    way: str
    effect: Effect
    case: str
    met: bool = True
    problems: list[str] = field(default_factory=list)
    mark: int = 0

    @property
    def kind(self) -> str:
        """The way, in words for the table."""
        return How[self.way].value if self.way in How.__members__ else self.way

    def __str__(self) -> str:
        problems = "; ".join(self.problems)
        return f"{self.scenario}: {self.effect}: {self.kind} ({self.case}): {problems}"


@dataclass(frozen=True, slots=True)
class Base:
    """A scenario without a fault: how it ends, by which effects, with how many driver calls."""

    state: Json
    effects: tuple[Effect, ...]
    calls: int
