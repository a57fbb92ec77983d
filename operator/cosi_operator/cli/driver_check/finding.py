"""What a check is, how it can end, and how a call is put in words. Pure."""

import enum
from collections.abc import Callable
from dataclasses import dataclass

from cosi_operator.cli.driver_check.seen import CallResult, CheckRecord, Step
from cosi_operator.cli.text import clean
from cosi_operator.conditions import strip_ids
from cosi_operator.outcome import MadeBy
from cosi_operator.scrub import cut

WORDS = 160  # characters of the driver's own words
READ = 4096


class Result(enum.StrEnum):
    PASS = "pass"  # noqa: S105 - a result, not a password
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


type Judged = tuple[Result, str]


@dataclass(frozen=True, slots=True)
class Finding:
    """How one check ended. `seen`: what the driver did, in words."""

    check: str
    rule: str
    result: Result
    seen: str


@dataclass(frozen=True, slots=True)
class Check:
    """`needs`: the steps without which there is nothing to judge."""

    name: str
    rule: str
    needs: tuple[Step, ...]
    judge: Callable[[CheckRecord], Judged]


def words_of(asked: CallResult) -> str:
    """How a call ended, with the driver's words; nothing in it can drive a terminal."""
    status = asked.status
    match status.made_by:
        case MadeBy.DEADLINE:
            return f"{status.call} brought {status.message}"
        case MadeBy.TRANSPORT:
            return f"the connection ended during {status.call}: {clean(status.message)}"
        case MadeBy.REPLY:
            return f"{status.call} answered OK, but {clean(status.message)}"
        case MadeBy.DRIVER:
            said = cut(strip_ids(status.message[:READ]), WORDS)
            return f"{status.call} answered {status.code.name}" + (f": {said}" if said else "")
