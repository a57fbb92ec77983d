"""What the mock driver is told to do wrong, and which call it applies to."""

import itertools
from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from cosi_operator.outcome import Call, Code


class Rule(Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of misbehaviour. What is left out stays normal.

    A call goes through these stages: `delay_s`, `die="before"`, the effect on the backend,
    `die="after"`, `hang`, `code`, `reply`. A rule with a `code` or with `hang` leaves the
    backend alone, unless `act` says that the effect happens anyway.
    """

    call: Call | None = None  # None: every call
    match: Mapping[str, str] = {}  # request fields, for instance name or parameters.tier
    times: int | None = None  # applies so often, then never again; None: always
    code: str = "OK"  # a status code's name
    message: str = ""  # {request_id}: a fresh id on each call; {secret_key}: a Grant's, with `act`
    headers_first: bool = False  # an error after initial headers, not as a lone trailer
    delay_s: float = 0.0
    hang: bool = False  # never answers
    die: Literal["before", "after"] | None = None  # SIGKILL to itself, before or after acting
    act: bool = False
    reply: (
        Literal[
            "empty_id",
            "malformed",
            "oversize",
            "no_credentials",
            "partial_credentials",
            "large_credentials",
            "azure_credentials",
            "new_account",
            "new_keys",
        ]
        | None
    ) = None
    # Grant and Revoke read the accounts (of the bucket, of the driver), wait while edits are held,
    # and write back what they read with their own change, as drivers without a lock do.
    edit: Literal["bucket", "driver"] | None = None
    oversize_bytes: int = 5 * 1024 * 1024
    reply_fields: Mapping[str, str] = {}  # name, bucket_id or account_id to answer instead

    def __post_init__(self) -> None:
        if self.code not in Code.__members__:
            raise ValueError(f"no status code is named {self.code!r}")

    @property
    def acts(self) -> bool:
        """Does the call change the backend?"""
        return self.act or not (self.hang or self.code != "OK")


NORMAL = Rule()


class RuleBook:
    """The rules in force; the newest that fits a call wins."""

    def __init__(self, rules: tuple[Rule, ...] = ()) -> None:
        self._numbers = itertools.count()
        self._rules: dict[int, Rule] = {}
        self._used: dict[int, int] = {}
        for rule in rules:
            self.add(rule)

    def add(self, rule: Rule) -> None:
        number = next(self._numbers)
        self._rules[number] = rule
        self._used[number] = 0

    def clear(self) -> None:
        self._rules.clear()
        self._used.clear()

    def take(self, call: Call, fields: Mapping[str, str]) -> Rule:
        """The rule for this call, which counts as one use of it; `NORMAL` if none fits."""
        for number, rule in reversed(self._rules.items()):
            if rule.call not in (None, call):
                continue
            if any(fields.get(name) != value for name, value in rule.match.items()):
                continue
            self._used[number] += 1
            if rule.times is not None and self._used[number] >= rule.times:
                del self._rules[number], self._used[number]
            return rule
        return NORMAL
