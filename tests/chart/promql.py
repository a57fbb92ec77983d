"""The part of PromQL that our alerts use, evaluated on scrapes, and what `for` makes of it.

expression = compared [ "unless" compared ]
compared   = value [ ">" | "==" number ]
value      = ("sum" | "max" | "min") "by" (labels) (value) | "increase" (selector[duration])
           | "absent" (expression) | selector

`increase` is the difference between the last and the first scrape of the window: Prometheus
extrapolates a little more. A counter that starts within the window counts from its first scrape.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

type Labels = frozenset[tuple[str, str]]
type Vector = dict[Labels, float]
type Scrape = Mapping[str, Vector]
"""Values by the series' name, then its labels, those of the target included."""

STEP_S = 60.0
"""Time between two scrapes, and between two looks at the rules."""

TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[A-Za-z_]\w*|\d+[a-z]?|[=!]~|==|!=|[-+*/<>=(){}\[\],])')
JOINS: dict[str, Callable[[Iterable[float]], float]] = {"sum": sum, "max": max, "min": min}
SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(duration: str) -> float:
    """5m -> 300."""
    return float(duration[:-1]) * SECONDS[duration[-1]]


@dataclass(frozen=True, slots=True)
class Selector:
    name: str
    matchers: tuple[tuple[str, str, str], ...]

    def at(self, scrape: Scrape) -> Vector:
        return {
            labels: value
            for labels, value in scrape.get(self.name, {}).items()
            if self._fits(dict(labels))
        }

    def _fits(self, labels: Mapping[str, str]) -> bool:
        return all(_holds(labels.get(name, ""), op, text) for name, op, text in self.matchers)


def _holds(value: str, op: str, text: str) -> bool:
    match op:
        case "=":
            return value == text
        case "!=":
            return value != text
        case "=~":
            return re.fullmatch(text, value) is not None
        case _:
            return re.fullmatch(text, value) is None


class Query:
    """One parsed expression.

    Raises:
        SyntaxError: it is not of the form above.
    """

    def __init__(self, text: str) -> None:
        self._tokens = TOKEN.findall(text)
        if "".join(self._tokens) != re.sub(r"\s+(?=(?:[^\"]*\"[^\"]*\")*[^\"]*$)", "", text):
            raise SyntaxError(f"not understood: {text}")
        self._at = 0
        self._evaluate = self._expression()
        if self._at != len(self._tokens):
            raise SyntaxError(f"not understood from {self._tokens[self._at :]} on")

    def at(self, scrapes: Sequence[Scrape]) -> Vector:
        """The result after the last of these scrapes."""
        return self._evaluate(scrapes)

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self, *wanted: str) -> str:
        token = self._peek()
        if wanted and token not in wanted:
            raise SyntaxError(f"{token!r} stands where {' or '.join(wanted)} should")
        self._at += 1
        return token

    def _expression(self) -> Callable[[Sequence[Scrape]], Vector]:
        left = self._compared()
        if self._peek() != "unless":
            return left
        self._next("unless")
        right = self._compared()

        def unless(scrapes: Sequence[Scrape]) -> Vector:
            without = right(scrapes)
            return {labels: v for labels, v in left(scrapes).items() if labels not in without}

        return unless

    def _compared(self) -> Callable[[Sequence[Scrape]], Vector]:
        value = self._value()
        if self._peek() not in (">", "=="):
            return value
        op, number = self._next(), float(self._next())

        def compared(scrapes: Sequence[Scrape]) -> Vector:
            return {
                labels: found
                for labels, found in value(scrapes).items()
                if (found > number if op == ">" else found == number)
            }

        return compared

    def _value(self) -> Callable[[Sequence[Scrape]], Vector]:
        word = self._next()
        if word in ("sum", "max", "min"):
            return self._aggregation(JOINS[word])
        if word == "increase":
            self._next("(")
            selector = self._selector(self._next())
            self._next("[")
            window = round(seconds(self._next()) / STEP_S)
            self._next("]")
            self._next(")")
            return lambda scrapes: _increase(selector, scrapes[-window - 1 :])
        if word == "absent":
            self._next("(")
            inner = self._expression()
            self._next(")")
            return lambda scrapes: {} if inner(scrapes) else {frozenset(): 1.0}
        selector = self._selector(word)
        return lambda scrapes: selector.at(scrapes[-1])

    def _aggregation(
        self, join: Callable[[Iterable[float]], float]
    ) -> Callable[[Sequence[Scrape]], Vector]:
        self._next("by")
        kept = set(self._list("(", ")"))
        self._next("(")
        inner = self._value()
        self._next(")")

        def aggregated(scrapes: Sequence[Scrape]) -> Vector:
            groups: dict[Labels, list[float]] = {}
            for labels, value in inner(scrapes).items():
                key = frozenset(pair for pair in labels if pair[0] in kept)
                groups.setdefault(key, []).append(value)
            return {labels: join(values) for labels, values in groups.items()}

        return aggregated

    def _selector(self, name: str) -> Selector:
        matchers = []
        if self._peek() == "{":
            self._next("{")
            while self._peek() != "}":
                label, op, text = self._next(), self._next("=", "!=", "=~", "!~"), self._next()
                matchers.append((label, op, text.strip('"')))
                if self._peek() == ",":
                    self._next(",")
            self._next("}")
        return Selector(name, tuple(matchers))

    def _list(self, opening: str, closing: str) -> list[str]:
        self._next(opening)
        found = []
        while self._peek() != closing:
            found.append(self._next())
            if self._peek() == ",":
                self._next(",")
        self._next(closing)
        return found


def _increase(selector: Selector, window: Sequence[Scrape]) -> Vector:
    seen: dict[Labels, list[float]] = {}
    for scrape in window:
        for labels, value in selector.at(scrape).items():
            seen.setdefault(labels, []).append(value)
    return {labels: values[-1] - values[0] for labels, values in seen.items() if len(values) > 1}


@dataclass(frozen=True, slots=True)
class Alert:
    name: str
    query: Query
    for_s: float

    def fires(self, scrapes: Sequence[Scrape]) -> list[dict[str, str]]:
        """The labels under which it fires after the last scrape."""
        needed = round(self.for_s / STEP_S) + 1
        if len(scrapes) < needed:
            return []
        looks = [set(self.query.at(scrapes[: len(scrapes) - back])) for back in range(needed)]
        return [dict(labels) for labels in set.intersection(*looks)]
