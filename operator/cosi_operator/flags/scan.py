"""Parses command lines in all the spellings that Go programs accept, according to a table of flags.

Long flags have one dash or two, `_` is the same as `-`, and a value follows `=` or is the next
word. Short flags are as in pflag: `-v 5`, `-v=5`, `-v5`, `-gv5`. A switch takes a value only after
`=`. An empty value counts as absent, because templates often produce such flags.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

# The values of Go's strconv.ParseBool, ignoring case.
TRUE = frozenset({"1", "t", "true"})
FALSE = frozenset({"0", "f", "false"})

_NUMBER = re.compile(r"-\d")
_GO_DURATION = re.compile(r"(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}


class UsageError(Exception):
    """The command line is invalid. The text names the word and the correct form."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag.

    `value` is the placeholder for its value in the help; "" makes it a switch. `env` are
    environment variables; the first one that is set applies if the flag is absent. An `ignored`
    flag is accepted for compatibility and has no effect.
    """

    name: str
    help: str = ""
    value: str = ""
    short: str = ""
    env: tuple[str, ...] = ()
    ignored: bool = False

    @property
    def is_switch(self) -> bool:
        return not self.value


@dataclass(frozen=True, slots=True)
class Given:
    """The parsed command line: the values of each flag in order, without empty ones."""

    values: Mapping[str, Sequence[str]]
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def last(self, name: str) -> str | None:
        """Return the last value of a flag, which takes precedence; None if it was not given."""
        values = self.values.get(name)
        return values[-1] if values else None


@dataclass(slots=True)
class _Scan:
    flags: Mapping[str, Flag]
    shorts: Mapping[str, Flag]
    values: dict[str, list[str]] = field(default_factory=dict)
    ignored: dict[str, None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def words(self, words: Iterator[str]) -> None:
        switch: Flag | None = None  # the previous word, if it is a switch without a value
        for word in words:
            if word == "--" or not word.startswith("-") or word == "-":
                self._stray(word, switch)
                switch = None
                continue
            two_dashes = word.startswith("--")
            name, equals, value = word[1 + two_dashes :].partition("=")
            flag = self.flags.get(name.replace("_", "-"))
            if flag is not None and (two_dashes or len(name) > 1):
                switch = self._take(flag, value if equals else None, words)
            elif two_dashes or _is_long(name):
                raise self._unknown(word.partition("=")[0])
            else:
                switch = self._cluster(word, words)

    def _cluster(self, word: str, words: Iterator[str]) -> Flag | None:
        """Parse short flags in one word. The first one with a value takes the rest of the word."""
        switch = None
        rest = word[1:]
        while rest:
            flag = self.shorts.get(rest[0])
            if flag is None:
                raise self._unknown(word.partition("=")[0])
            rest = rest[1:]
            if not flag.is_switch or rest.startswith("="):
                attached = rest.removeprefix("=") if rest else None
                return self._take(flag, attached, words)
            switch = self._take(flag, None, words)
        return switch

    def _take(self, flag: Flag, value: str | None, words: Iterator[str]) -> Flag | None:
        """Record one flag; return it if it is a switch without a value, otherwise None."""
        bare = value is None
        if value is None:
            value = "true" if flag.is_switch else self._next(flag, words)
        if flag.ignored:
            self.ignored[f"--{flag.name}"] = None
        elif value:
            self.values.setdefault(flag.name, []).append(value)
        return flag if flag.is_switch and bare else None

    def _next(self, flag: Flag, words: Iterator[str]) -> str:
        word = next(words, None)
        if word is None:
            raise UsageError(f"--{flag.name} needs a value: write --{flag.name}={flag.value}")
        if word.startswith("-") and not _NUMBER.match(word):
            raise UsageError(
                f"--{flag.name} needs a value, but {word.partition('=')[0]} follows:"
                f" write --{flag.name}={flag.value}"
            )
        return word

    def _stray(self, word: str, switch: Flag | None) -> None:
        if switch is None or word.lower() not in TRUE | FALSE:
            raise UsageError(
                f'unexpected word "{word}": a flag starts with a dash'
                f"{_did_you_mean(word.partition('=')[0], self.flags)} (--help lists them)"
            )
        # pflag treats such a word as a positional argument, which upstream ignores.
        self.notes.append(
            f'the word "{word}" after --{switch.name} has no effect;'
            f" to set the switch, write --{switch.name}={word.lower()}"
        )

    def _unknown(self, word: str) -> UsageError:
        near = _did_you_mean(word.lstrip("-").replace("_", "-"), self.flags)
        return UsageError(f"unknown flag {word}{near} (--help lists all flags)")


def scan(argv: Sequence[str], flags: Sequence[Flag]) -> Given:
    """Parse a command line without the program's name.

    Raises:
        UsageError: a flag is unknown or lacks its value, or a word is not a flag.
    """
    state = _Scan(
        flags={flag.name: flag for flag in flags},
        shorts={flag.short: flag for flag in flags if flag.short},
    )
    state.words(iter(argv))
    return Given(state.values, tuple(state.ignored), tuple(state.notes))


def read_switch(name: str, text: str) -> bool:
    """Parse a boolean in Go's spelling. `name` is the source, for the UsageError."""
    if text.lower() in TRUE:
        return True
    if text.lower() in FALSE:
        return False
    raise UsageError(f'{name} is "{text}": write true or false')


def read_integer(name: str, text: str) -> int:
    """Parse an integer of at most 9 digits. `name` is the source, for the UsageError."""
    if not re.fullmatch(r"[+-]?\d{1,9}", text, re.ASCII):
        raise UsageError(f'{name} is "{text}": write an integer of at most 9 digits')
    return int(text)


def read_duration_s(name: str, text: str) -> float:
    """Parse a duration in Go's format (10m, 1h30m, 1.5s, 300ms, 0); return seconds."""
    if re.fullmatch(r"[+-]?0", text):
        return 0.0
    parts = _GO_DURATION.findall(text.removeprefix("+"))
    if parts and "".join(parts) == text.removeprefix("+"):
        units = [part.lstrip("0123456789.") for part in parts]
        numbers = [part.removesuffix(unit) for part, unit in zip(parts, units, strict=True)]
        return sum(float(n) * _UNIT_S[unit] for n, unit in zip(numbers, units, strict=True))
    if re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise UsageError(f"{name} is {text} without a unit: write {text}s or {text}m")
    raise UsageError(f'{name} is "{text}": write a duration, for example 30s, 10m or 1h30m')


def _is_long(name: str) -> bool:
    """Whether a word with one dash is probably a long flag."""
    return len(name) > 2 and all(letter.isalpha() or letter in "-_" for letter in name)


def _did_you_mean(word: str, flags: Mapping[str, Flag]) -> str:
    near = get_close_matches(word.lower(), flags, n=1)
    return f": did you mean --{near[0]}?" if near else ""
