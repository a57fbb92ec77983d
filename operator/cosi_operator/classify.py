"""The meaning of a driver's status: the table from (call, code) to a verdict. Pure.

`is_retryable_error` is the default rule: of the codes that a driver sends, only INTERNAL is
retried. `CONSERVATIVE` adds the condition reason of each code, the calls for which a code means
success, and whether a failed call may have changed the backend. Profiles and overrides change the
verdict of single codes.

Only statuses that the driver sent are looked up in the table. A status made by this side (socket
gone, driver killed, deadline passed) decides nothing, so the call is always retried; an unusable
reply is always final. `docs/policies.md` is generated from this module.
"""

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from cosi_operator.outcome import Call, Code, DriverStatus, Effect, MadeBy, Reason


class Verdict(enum.StrEnum):
    REQUEUE = "requeue"
    TERMINAL = "terminal"
    SUCCESS = "success"


@dataclass(frozen=True, slots=True)
class Row:
    """One code: the condition reason, and what a failed call with this code means.

    Whether the default policy retries the code is not a column: `is_retryable_error` decides. `at`
    names the calls for which the code is not a failure.

    `effect` says whether a *failed* call may have changed the backend. NONE means that the driver
    refused before it changed anything, so there is nothing to clean up.
    """

    reason: Reason
    effect: Effect
    why: str
    at: Mapping[Call, Verdict] = field(default_factory=dict)


_R, _S = Verdict.REQUEUE, Verdict.SUCCESS
_NONE, _MAYBE = Effect.NONE, Effect.MAYBE

SOURCE = "meaning: gRPC status code documentation; what drivers send: docs/drivers.md"

CONSERVATIVE: Mapping[Code, Row] = {
    Code.CANCELLED: Row(
        Reason.DRIVER_CANCELLED,
        _MAYBE,
        "The driver gave up by its own decision; nothing says that it would not do so again.",
    ),
    Code.UNKNOWN: Row(
        Reason.DRIVER_UNKNOWN,
        _MAYBE,
        "The driver gave no code. Many send it for faults that last; one override makes it retry.",
    ),
    Code.INVALID_ARGUMENT: Row(
        Reason.DRIVER_INVALID_ARGUMENT,
        _NONE,
        "The request itself is wrong, whatever the state of the backend.",
    ),
    Code.DEADLINE_EXCEEDED: Row(
        Reason.DRIVER_SENT_DEADLINE,
        _MAYBE,
        "Sent by the driver: its own time limit, not ours (ours is always tried again).",
    ),
    Code.NOT_FOUND: Row(
        Reason.DRIVER_NOT_FOUND,
        _NONE,
        "What the call needs is not there; for Delete and Revoke that is the goal.",
        {Call.DELETE_BUCKET: _S, Call.REVOKE_ACCESS: _S},
    ),
    Code.ALREADY_EXISTS: Row(
        Reason.DRIVER_ALREADY_EXISTS,
        _NONE,
        "Names are made from UIDs, so what exists under this name is ours from an earlier try.",
        {Call.CREATE_BUCKET: _S, Call.GRANT_ACCESS: _S},
    ),
    Code.PERMISSION_DENIED: Row(
        Reason.DRIVER_PERMISSION_DENIED,
        _NONE,
        "The driver's own rights on the backend do not suffice; a person has to widen them.",
    ),
    Code.RESOURCE_EXHAUSTED: Row(
        Reason.DRIVER_RESOURCE_EXHAUSTED,
        _NONE,
        "A quota is used up; asking again does not raise it.",
    ),
    Code.FAILED_PRECONDITION: Row(
        Reason.DRIVER_FAILED_PRECONDITION,
        _NONE,
        "The backend has to change first, for instance a bucket has to be emptied.",
    ),
    Code.ABORTED: Row(
        Reason.DRIVER_ABORTED,
        _MAYBE,
        "Another operation was in the way, and the driver does not say that it has ended.",
    ),
    Code.OUT_OF_RANGE: Row(
        Reason.DRIVER_OUT_OF_RANGE,
        _NONE,
        "A value of the request is outside what the backend can do.",
    ),
    Code.UNIMPLEMENTED: Row(
        Reason.DRIVER_UNIMPLEMENTED,
        _NONE,
        "This driver cannot do it; a newer one may.",
    ),
    Code.INTERNAL: Row(
        Reason.DRIVER_INTERNAL,
        _MAYBE,
        "What most drivers send while their backend is down; tried again, slower each time.",
    ),
    Code.UNAVAILABLE: Row(
        Reason.DRIVER_UNAVAILABLE,
        _MAYBE,
        "Sent by the driver itself, which is there; measured drivers never send it for a backend"
        " that is down.",
    ),
    Code.DATA_LOSS: Row(
        Reason.DRIVER_DATA_LOSS,
        _MAYBE,
        "Something is broken beyond repair by repetition.",
    ),
    Code.UNAUTHENTICATED: Row(
        Reason.DRIVER_UNAUTHENTICATED,
        _NONE,
        "The driver's own credentials for the backend are wrong; a person has to replace them.",
    ),
}

# What each profile changes. Codes that are not named keep the conservative verdict, and so do the
# per-call successes (NOT_FOUND on Delete and Revoke, ALREADY_EXISTS on Create and Grant).
PROFILES: Mapping[str, Mapping[Code, Verdict]] = {
    "conservative": {},
    # sidecar/pkg/reconciler/driver.go of the COSI repository, main of 2026-03: it retries every
    # code but INVALID_ARGUMENT, ALREADY_EXISTS and UNIMPLEMENTED.
    "cosi-spec": {
        code: _R
        for code in CONSERVATIVE
        if code not in {Code.INVALID_ARGUMENT, Code.ALREADY_EXISTS, Code.UNIMPLEMENTED}
    },
    # The codes after which a CSI external-provisioner (checkError in its controller.go) holds that
    # the operation may still be running, and INTERNAL.
    "csi-like": {
        Code.CANCELLED: _R,
        Code.DEADLINE_EXCEEDED: _R,
        Code.UNAVAILABLE: _R,
        Code.RESOURCE_EXHAUSTED: _R,
        Code.ABORTED: _R,
        Code.INTERNAL: _R,
    },
}

_LOCAL_REASON: Mapping[MadeBy, Reason] = {
    MadeBy.TRANSPORT: Reason.DRIVER_UNREACHABLE,
    MadeBy.DEADLINE: Reason.DRIVER_DEADLINE,
    MadeBy.REPLY: Reason.DRIVER_MALFORMED_REPLY,
}


class PolicyError(ValueError):
    """A policy setting can't be used; the text names the bad word and the allowed ones."""


@dataclass(frozen=True, slots=True)
class Override:
    """One exception from the profile. None stands for every call or every driver."""

    code: Code
    verdict: Verdict
    call: Call | None = None
    driver: str | None = None

    def spelled(self) -> str:
        """The override in the form of the command line."""
        driver = f"{self.driver}/" if self.driver else ""
        call = f"{self.call}:" if self.call else ""
        return f"{driver}{call}{self.code.name}={self.verdict}"


@dataclass(frozen=True, slots=True)
class Policy:
    """The table in force for one driver: a profile and the overrides that name this driver."""

    profile: str = "conservative"
    overrides: tuple[Override, ...] = ()

    def verdict(self, call: Call, code: Code) -> Verdict:
        """The verdict for a status that the driver sent. The last override that fits wins."""
        if code is Code.OK:
            return Verdict.SUCCESS
        for override in reversed(self.overrides):
            if override.code is code and override.call in (None, call):
                return override.verdict
        row = CONSERVATIVE[code]
        if call in row.at:
            return row.at[call]
        if (changed := PROFILES[self.profile].get(code)) is not None:
            return changed
        sent = DriverStatus(call, code, MadeBy.DRIVER)
        return Verdict.REQUEUE if is_retryable_error(sent) else Verdict.TERMINAL


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one status means; `effect` matters only for a failure."""

    verdict: Verdict
    reason: Reason
    effect: Effect


def is_retryable_error(status: DriverStatus) -> bool:
    """Return whether the default policy retries a driver call that ended with this status.

    The conservative rule: of the statuses that a driver sends, only INTERNAL is retried. A driver
    that sends any other code has decided something that the same request cannot change.

    A status that the driver did not send decides nothing: the connection was lost, or the
    operator's own deadline passed. The call is then retried, whatever the code. An unusable reply
    is not retried, because the driver answered. `classify` starts from this rule; profiles and
    overrides change it.

    Args:
        status: the status of a failed call. OK is not an error, so the answer for OK is False.
    Source: docs/rfc-retry-only-internal.md.
    """
    if status.made_by is MadeBy.DRIVER:
        return status.code is Code.INTERNAL
    return status.made_by in (MadeBy.TRANSPORT, MadeBy.DEADLINE)


def classify(policy: Policy, status: DriverStatus) -> Judgement:
    """Judge one status of one call.

    Args:
        policy: the table in force. The policy covers only statuses that the driver sent.
        status: the status, with who made it.
    """
    if status.made_by is not MadeBy.DRIVER:
        verdict = Verdict.REQUEUE if is_retryable_error(status) else Verdict.TERMINAL
        return Judgement(verdict, _LOCAL_REASON[status.made_by], Effect.MAYBE)
    verdict = policy.verdict(status.call, status.code)
    if status.code is Code.OK:
        return Judgement(verdict, Reason.PROVISIONED, Effect.MAYBE)
    row = CONSERVATIVE[status.code]
    return Judgement(verdict, row.reason, row.effect)


def policy_for(
    driver: str, profile: str = "conservative", overrides: Iterable[Override] = ()
) -> Policy:
    """The policy for one driver: overrides that name another driver are left out.

    Overrides that name the driver win over those that name none, whatever their order.
    Raises:
        PolicyError: there is no such profile.
    """
    if profile not in PROFILES:
        raise PolicyError(unknown_word("profile", profile, PROFILES))
    fitting = [o for o in overrides if o.driver is None or o.driver.lower() == driver.lower()]
    return Policy(profile, tuple(sorted(fitting, key=lambda o: o.driver is not None)))


def parse_override(text: str) -> Override:
    """Parse `[driver/][Call:]CODE=verdict`, for instance DriverGrantBucketAccess:UNKNOWN=requeue.

    Words are compared without regard to case; `*` or nothing stands for every call.
    Raises:
        PolicyError: a word is not known, or the form is wrong.
    """
    left, equals, verdict_word = text.strip().partition("=")
    if not equals:
        raise PolicyError(
            f"{text!r}: write [driver/][Call:]CODE=verdict,"
            " for instance DriverGrantBucketAccess:UNKNOWN=requeue"
        )
    driver, slash, rest = left.rpartition("/")
    call_word, _, code_word = rest.rpartition(":")
    call_word = call_word.strip()
    codes = {code.name: code for code in Code if code is not Code.OK}
    return Override(
        code=_lookup("code", code_word, codes),
        verdict=_lookup("verdict", verdict_word, {v.value: v for v in Verdict}),
        call=None if call_word in ("", "*") else _lookup("call", call_word, {c: c for c in Call}),
        driver=(driver.strip() or None) if slash else None,
    )


def _lookup[T](what: str, word: str, known: Mapping[str, T]) -> T:
    for name, value in known.items():
        if name.lower() == word.strip().lower():
            return value
    raise PolicyError(unknown_word(what, word.strip(), known))


def unknown_word(what: str, word: str, known: Iterable[str]) -> str:
    """Say that `word` is none of the `known` ones, and which of them may have been meant."""
    names = list(known)
    folded = {name.lower(): name for name in names}
    near = get_close_matches(word.lower(), folded, n=1)
    hint = f" (did you mean {folded[near[0]]}?)" if near else ""
    return f"{word!r} is no {what}{hint}; allowed: {', '.join(names)}"
