"""What a driver's status means: the table from (call, code) to a verdict. Pure.

Each row answers one question first: may asking again, with nothing changed, end differently, and
may the failed call have changed the backend? Only the driver's own statuses are looked up here: a
status that we made ourselves (socket gone, driver killed, our deadline) is no verdict and is always
tried again, and a reply that can't be used is always final. `docs/policies.md` is generated from
this module.
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
    """One code: what it means for every call that `at` does not name.

    `effect` is what a *failure* with this code leaves open: NONE says the driver refused before
    it did anything, so nothing has to be cleaned up.
    """

    reason: Reason
    verdict: Verdict
    effect: Effect
    why: str
    at: Mapping[Call, Verdict] = field(default_factory=dict)


_T, _R, _S = Verdict.TERMINAL, Verdict.REQUEUE, Verdict.SUCCESS
_NONE, _MAYBE = Effect.NONE, Effect.MAYBE

SOURCE = "meaning: gRPC status code documentation; what drivers send: docs/drivers.md"

CONSERVATIVE: Mapping[Code, Row] = {
    Code.CANCELLED: Row(
        Reason.DRIVER_CANCELLED,
        _T,
        _MAYBE,
        "The driver gave up by its own decision; nothing says that it would not do so again.",
    ),
    Code.UNKNOWN: Row(
        Reason.DRIVER_UNKNOWN,
        _T,
        _MAYBE,
        "The driver gave no code. Many send it for faults that last; one override makes it retry.",
    ),
    Code.INVALID_ARGUMENT: Row(
        Reason.DRIVER_INVALID_ARGUMENT,
        _T,
        _NONE,
        "The request itself is wrong, whatever the state of the backend.",
    ),
    Code.DEADLINE_EXCEEDED: Row(
        Reason.DRIVER_SENT_DEADLINE,
        _T,
        _MAYBE,
        "Sent by the driver: its own time limit, not ours (ours is always tried again).",
    ),
    Code.NOT_FOUND: Row(
        Reason.DRIVER_NOT_FOUND,
        _T,
        _NONE,
        "What the call needs is not there; for Delete and Revoke that is the goal.",
        {Call.DELETE_BUCKET: _S, Call.REVOKE_ACCESS: _S},
    ),
    Code.ALREADY_EXISTS: Row(
        Reason.DRIVER_ALREADY_EXISTS,
        _T,
        _NONE,
        "Names are made from UIDs, so what exists under this name is ours from an earlier try.",
        {Call.CREATE_BUCKET: _S, Call.GRANT_ACCESS: _S},
    ),
    Code.PERMISSION_DENIED: Row(
        Reason.DRIVER_PERMISSION_DENIED,
        _T,
        _NONE,
        "The driver's own rights on the backend do not suffice; a person has to widen them.",
    ),
    Code.RESOURCE_EXHAUSTED: Row(
        Reason.DRIVER_RESOURCE_EXHAUSTED,
        _T,
        _NONE,
        "A quota is used up; asking again does not raise it.",
    ),
    Code.FAILED_PRECONDITION: Row(
        Reason.DRIVER_FAILED_PRECONDITION,
        _T,
        _NONE,
        "The backend has to change first, for instance a bucket has to be emptied.",
    ),
    Code.ABORTED: Row(
        Reason.DRIVER_ABORTED,
        _T,
        _MAYBE,
        "Another operation was in the way, and the driver does not say that it has ended.",
    ),
    Code.OUT_OF_RANGE: Row(
        Reason.DRIVER_OUT_OF_RANGE,
        _T,
        _NONE,
        "A value of the request is outside what the backend can do.",
    ),
    Code.UNIMPLEMENTED: Row(
        Reason.DRIVER_UNIMPLEMENTED,
        _T,
        _NONE,
        "This driver cannot do it; a newer one may.",
    ),
    Code.INTERNAL: Row(
        Reason.DRIVER_INTERNAL,
        _R,
        _MAYBE,
        "What most drivers send while their backend is down; tried again, slower each time.",
    ),
    Code.UNAVAILABLE: Row(
        Reason.DRIVER_UNAVAILABLE,
        _T,
        _MAYBE,
        "Sent by the driver itself, which is there; measured drivers never send it for a backend"
        " that is down.",
    ),
    Code.DATA_LOSS: Row(
        Reason.DRIVER_DATA_LOSS,
        _T,
        _MAYBE,
        "Something is broken beyond repair by repetition.",
    ),
    Code.UNAUTHENTICATED: Row(
        Reason.DRIVER_UNAUTHENTICATED,
        _T,
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
    """One exception from the profile. None means every call, every driver."""

    code: Code
    verdict: Verdict
    call: Call | None = None
    driver: str | None = None


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
        return PROFILES[self.profile].get(code, row.verdict)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one status means; `effect` matters only for a failure."""

    verdict: Verdict
    reason: Reason
    effect: Effect


def classify(policy: Policy, status: DriverStatus) -> Judgement:
    """Judge one status of one call.

    Args:
        policy: the table in force.
        status: `made_by` decides first: only DRIVER is looked up in the table.
    """
    match status.made_by:
        case MadeBy.TRANSPORT | MadeBy.DEADLINE:
            return Judgement(Verdict.REQUEUE, _LOCAL_REASON[status.made_by], Effect.MAYBE)
        case MadeBy.REPLY:
            return Judgement(Verdict.TERMINAL, Reason.DRIVER_MALFORMED_REPLY, Effect.MAYBE)
        case MadeBy.DRIVER:
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
