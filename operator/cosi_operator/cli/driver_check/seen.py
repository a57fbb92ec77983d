"""What a check of a driver asked and what it heard: plain records, no verdicts. Pure."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace

from cosi_operator.cli.driver_check.options import Options
from cosi_operator.driver.probe import GrantReply
from cosi_operator.outcome import Call, Code, DriverStatus, MadeBy

HIDDEN = "[credential]"
AT_ONCE = 8  # Grants, and Revokes, at the same time
SHORTEST_SECRET = 6  # a shorter value stands in too many innocent texts


class Step(enum.StrEnum):
    """Every call that a check makes, apart from cleaning up; each at most once."""

    INFO = "info"
    INFO_AGAIN = "info-again"
    CREATE = "create"
    CREATE_AGAIN = "create-again"
    CREATE_OTHER = "create-other-parameters"
    CREATE_SECOND = "create-second"
    AT_ONCE_1 = "create-at-once-1"
    AT_ONCE_2 = "create-at-once-2"
    ABANDONED = "create-abandoned"
    REPEATED = "create-repeated"
    BAD_NAME = "create-bad-name"
    NO_NAME = "create-no-name"
    GRANT = "grant"
    GRANT_AGAIN = "grant-again"
    GRANT_SECOND = "grant-second"
    GRANT_ORPHAN = "grant-before-gone"
    GRANT_UNKNOWN_TYPE = "grant-unknown-type"
    GRANT_NO_BUCKET_ID = "grant-no-bucket-id"
    GRANT_NO_NAME = "grant-no-name"
    REVOKE = "revoke"
    REVOKE_AGAIN = "revoke-again"
    DELETE = "delete"
    DELETE_AGAIN = "delete-again"
    DELETE_GRANTED = "delete-with-account"
    GRANT_GONE = "grant-gone"
    REVOKE_GONE = "revoke-gone"
    REVOKE_NO_BUCKET_ID = "revoke-no-bucket-id"
    REVOKE_NO_ACCOUNT_ID = "revoke-no-account-id"
    DELETE_NO_ID = "delete-no-id"


@dataclass(frozen=True, slots=True)
class CallResult:
    """One call and its end. `reply`: the driver's name, the bucket's id or the account's id."""

    call: Call
    status: DriverStatus
    elapsed_s: float
    reply: str = ""
    grant: GrantReply | None = None

    @property
    def ok(self) -> bool:
        """The driver said OK, and its reply could be read."""
        return self.status.code is Code.OK and self.status.made_by is MadeBy.DRIVER

    @property
    def refused(self) -> Code | None:
        """The code, if the driver itself sent one that is not OK."""
        return None if self.ok or self.status.made_by is not MadeBy.DRIVER else self.status.code


@dataclass(frozen=True, slots=True)
class KeyTrial:
    """One of the accounts that were granted, and revoked, at the same time.

    `works`, `after`: what S3 said to its key after the Grant and after the Revoke: "" for accepted,
    else the name of the error; None when it was not asked.
    """

    granted: CallResult
    revoked: CallResult | None = None
    works: str | None = None
    after: str | None = None

    @property
    def every(self) -> tuple[tuple[str, CallResult], ...]:
        """Its calls with what they were for."""
        revoked = (("revoke-at-once", self.revoked),) if self.revoked else ()
        return (("grant-at-once", self.granted), *revoked)


@dataclass(frozen=True, slots=True)
class CheckRecord:
    """All of one run.

    `skipped` says why a step was not asked. `cleanup` are the calls that removed what was made;
    `left` names what may still be there. `name_of_first` is the first bucket's. `leaks` are steps
    whose message held a credential that the driver had handed out; no message holds it any more.
    `at_once`: see there; `at_once_skipped` says why it is empty. `lone_key`, `orphan_key`: what S3
    said (as in `KeyTrial`) to a key that was granted alone, and to a key after `REVOKE_GONE`.
    `s3_problem`: why a key could not be tried.
    """

    options: Options
    asked: Mapping[Step, CallResult]
    skipped: Mapping[Step, str]
    cleanup: tuple[CallResult, ...] = ()
    left: tuple[str, ...] = ()
    name_of_first: str = ""
    leaks: tuple[str, ...] = ()
    at_once: tuple[KeyTrial, ...] = ()
    at_once_skipped: str = ""
    lone_key: str | None = None
    orphan_key: str | None = None
    s3_problem: str = ""

    @property
    def driver(self) -> str:
        """The driver's name, "" if it gave none."""
        info = self.asked.get(Step.INFO)
        return info.reply if info and info.ok else ""

    @property
    def every(self) -> tuple[tuple[str, CallResult], ...]:
        """All calls with what they were for."""
        return (
            *((str(s), a) for s, a in self.asked.items()),
            *(call for trial in self.at_once for call in trial.every),
            *(("cleanup", a) for a in self.cleanup),
        )


def without_credentials(seen: CheckRecord) -> CheckRecord:
    """The same with every credential that a Grant handed out taken out of the messages."""
    secrets = {
        value
        for _, asked in seen.every
        if asked.grant
        for value in asked.grant.values
        if len(value) >= SHORTEST_SECRET
    }
    leaks = tuple(
        dict.fromkeys(
            step for step, asked in seen.every if any(s in asked.status.message for s in secrets)
        )
    )
    if not leaks:
        return seen

    def hidden(asked: CallResult) -> CallResult:
        message = asked.status.message
        for secret in sorted(secrets, key=len, reverse=True):
            message = message.replace(secret, HIDDEN)
        return replace(asked, status=replace(asked.status, message=message))

    return replace(
        seen,
        asked={step: hidden(asked) for step, asked in seen.asked.items()},
        at_once=tuple(
            replace(
                trial,
                granted=hidden(trial.granted),
                revoked=hidden(trial.revoked) if trial.revoked else None,
            )
            for trial in seen.at_once
        ),
        cleanup=tuple(hidden(asked) for asked in seen.cleanup),
        leaks=leaks,
    )
