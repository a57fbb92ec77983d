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
        "The driver cancelled the call itself, and nothing indicates that a retry would succeed.",
    ),
    Code.UNKNOWN: Row(
        Reason.DRIVER_UNKNOWN,
        _MAYBE,
        "The driver sent no specific code. Many drivers send it for permanent failures; an override"
        " makes it retryable.",
    ),
    Code.INVALID_ARGUMENT: Row(
        Reason.DRIVER_INVALID_ARGUMENT,
        _NONE,
        "The request itself is wrong, whatever the state of the backend.",
    ),
    Code.DEADLINE_EXCEEDED: Row(
        Reason.DRIVER_SENT_DEADLINE,
        _MAYBE,
        "The driver's own time limit passed. A call that exceeds the operator's deadline is always"
        " retried.",
    ),
    Code.NOT_FOUND: Row(
        Reason.DRIVER_NOT_FOUND,
        _NONE,
        "Something that the call needs does not exist. For Delete and Revoke that is a success.",
        {Call.DELETE_BUCKET: _S, Call.REVOKE_ACCESS: _S},
    ),
    Code.ALREADY_EXISTS: Row(
        Reason.DRIVER_ALREADY_EXISTS,
        _NONE,
        "Names contain UIDs, so an earlier attempt of the operator created what has this name.",
        {Call.CREATE_BUCKET: _S, Call.GRANT_ACCESS: _S},
    ),
    Code.PERMISSION_DENIED: Row(
        Reason.DRIVER_PERMISSION_DENIED,
        _NONE,
        "The driver lacks a right on the backend; an administrator has to grant it.",
    ),
    Code.RESOURCE_EXHAUSTED: Row(
        Reason.DRIVER_RESOURCE_EXHAUSTED,
        _NONE,
        "A quota is exhausted; a retry does not raise it.",
    ),
    Code.FAILED_PRECONDITION: Row(
        Reason.DRIVER_FAILED_PRECONDITION,
        _NONE,
        "The backend has to change first; for example, a bucket has to be emptied.",
    ),
    Code.ABORTED: Row(
        Reason.DRIVER_ABORTED,
        _MAYBE,
        "Another operation prevented the call, and the driver does not report when it ends.",
    ),
    Code.OUT_OF_RANGE: Row(
        Reason.DRIVER_OUT_OF_RANGE,
        _NONE,
        "A value of the request is outside the range that the backend supports.",
    ),
    Code.UNIMPLEMENTED: Row(
        Reason.DRIVER_UNIMPLEMENTED,
        _NONE,
        "This version of the driver does not support the call or a parameter of it.",
    ),
    Code.INTERNAL: Row(
        Reason.DRIVER_INTERNAL,
        _MAYBE,
        "Most drivers send it while their backend is down, so it is retried with backoff.",
    ),
    Code.UNAVAILABLE: Row(
        Reason.DRIVER_UNAVAILABLE,
        _MAYBE,
        "The driver itself sent it, so the driver is reachable. No driver that was tested sends it"
        " while its backend is down.",
    ),
    Code.DATA_LOSS: Row(
        Reason.DRIVER_DATA_LOSS,
        _MAYBE,
        "Data is lost or corrupt; a retry does not repair it.",
    ),
    Code.UNAUTHENTICATED: Row(
        Reason.DRIVER_UNAUTHENTICATED,
        _NONE,
        "The driver's credentials for the backend are invalid; an administrator has to replace"
        " them.",
    ),
}

# The verdicts that each profile changes. All other codes keep the conservative verdict, and so do
# the successes for single calls (NOT_FOUND on Delete and Revoke, ALREADY_EXISTS on Create and
# Grant).
PROFILES: Mapping[str, Mapping[Code, Verdict]] = {
    "conservative": {},
    # Source: sidecar/pkg/reconciler/driver.go of the COSI repository, main of 2026-03. It retries
    # every code except INVALID_ARGUMENT, ALREADY_EXISTS and UNIMPLEMENTED.
    "cosi-spec": {
        code: _R
        for code in CONSERVATIVE
        if code not in {Code.INVALID_ARGUMENT, Code.ALREADY_EXISTS, Code.UNIMPLEMENTED}
    },
    # INTERNAL, and the codes after which CSI's external-provisioner (checkError in its
    # controller.go) assumes that the operation may still be running.
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
    """A policy setting is invalid; the text names the invalid word and the allowed words."""


@dataclass(frozen=True, slots=True)
class Override:
    """One exception to the profile. A `call` or `driver` of None applies to every one."""

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
    """The policy of one driver: a profile and the overrides that apply to this driver."""

    profile: str = "conservative"
    overrides: tuple[Override, ...] = ()

    def verdict(self, call: Call, code: Code) -> Verdict:
        """Return the verdict on a status that the driver sent.

        The last matching override takes precedence.
        """
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
    """The meaning of one status; `effect` is relevant only for a failure."""

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
    """Judge the status of one call.

    Args:
        policy: the policy of the driver. It applies only to statuses that the driver sent.
        status: the status and its origin.
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
    """Return the policy for one driver, without overrides that name another driver.

    Overrides that name the driver take precedence over those that name none, in any order.

    Raises:
        PolicyError: the profile does not exist.
    """
    if profile not in PROFILES:
        raise PolicyError(unknown_word("profile", profile, PROFILES))
    fitting = [o for o in overrides if o.driver is None or o.driver.lower() == driver.lower()]
    return Policy(profile, tuple(sorted(fitting, key=lambda o: o.driver is not None)))


def parse_override(text: str) -> Override:
    """Parse `[driver/][Call:]CODE=verdict`, for example DriverGrantBucketAccess:UNKNOWN=requeue.

    Case is ignored. An absent call or `*` means every call.

    Raises:
        PolicyError: a word is unknown or the form is wrong.
    """
    left, equals, verdict_word = text.strip().partition("=")
    if not equals:
        raise PolicyError(
            f"{text!r}: write [driver/][Call:]CODE=verdict,"
            " for example DriverGrantBucketAccess:UNKNOWN=requeue"
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
    """Return an error text that lists the `known` words and suggests the one nearest to `word`."""
    names = list(known)
    folded = {name.lower(): name for name in names}
    near = get_close_matches(word.lower(), folded, n=1)
    hint = f" (did you mean {folded[near[0]]}?)" if near else ""
    return f"unknown {what} {word!r}{hint}; allowed: {', '.join(names)}"
