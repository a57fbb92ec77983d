"""Conditions: how `kubectl describe` shows an outcome. Pure; the time is an argument.

Shape: metav1.Condition (KEP-1623), with the types that kstatus reads: Ready is always present,
Reconciling and Stalled only while they are true. Messages are built from fixed parts, and the
driver's words are scrubbed (`scrub`) and stripped of ids and times, so the same fault always has
the same text.
"""

import re
from collections.abc import Iterable
from datetime import datetime

from msgspec.structs import replace as with_fields

from cosi_operator.api.resources import RETRY_ANNOTATION
from cosi_operator.api.view import Bucket, BucketAccess, BucketClaim, Condition, stamp
from cosi_operator.outcome import DriverStatus, MadeBy, Outcome, Reason, Requeue, Success, Terminal
from cosi_operator.scrub import (
    READ_LIMIT,
    REDACTED,
    cut,
    escaped,
    one_line,
    scrub,
    shown_name,
)

MESSAGE_LIMIT = 2048  # characters; the API allows 32768, but people read far fewer
WORDS_LIMIT = 600  # of the driver's own words

SPEC_CHANGE_IGNORED = "SpecChangeIgnored"
_ORDER = {"Ready": 0, "Reconciling": 1, "Stalled": 2, SPEC_CHANGE_IGNORED: 3}

_ID_AFTER_LABEL = re.compile(
    r"(?i)\b((?:x-amz-)?(?:request|req|trace|span|correlation|host|transaction|invocation)"
    r"[ _-]?ids?(?:[ _-]?2)?)\b"
    # If only a space separates label and value, the value counts as an id only if it has a digit.
    r"( ?[:=>] ?| (?=[\"'A-Za-z+/=_.:-]*\d))[\"']?[A-Za-z0-9+/=_.:-]{4,}[\"']?"
)
_TIME = re.compile(
    r"(?<!\w)(?<!(?<![\w+/%])[0-9a-f]{2}:)"  # not inside a hardware address
    r"(?:\d{4}[-/]\d{2}[-/]\d{2}[T ]|[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} )?"
    r"\d{2}:\d{2}:\d{2}(?:[.,]\d+)?"
    r"(?:Z| ?[+-]\d{2}:?\d{2})?(?: UTC| GMT)?(?: m=[+-][\d.]+)?"
    r"(?!\w)(?!:[0-9a-f]{2}(?![\w+/%]))"
)
_CLIENT_PORT = re.compile(r"(?<=:)\d{1,5}(?=->)")
_NAMES_AND_IDS = (
    # Only a separate UUID: the UID in `bucket-<UID>` is part of our own name and never changes.
    re.compile(
        r"(?i)(?<![a-z0-9-])[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(?!\w)"
    ),
    re.compile(r"\btx[0-9a-f]{16,}(?:-\w+)*"),  # Ceph's transaction ids
)
_COUNTER = re.compile(r"(?<!\w)(?<!-[0-9a-f]{4}-)\d{9,}(?:\.\d+)?\b")  # also Unix times
# A text in which each of so many passes reveals another id is not an honest text: redact all of it.
_PASSES = 8


def strip_ids(words: str) -> str:
    """The driver's words on one line, without ids, times and ports, which change at every attempt.

    Credentials and strings that look like keys are removed too (`scrub`), and invisible characters
    are escaped. Names that this project creates (`bucket-<UID>`) stay readable.
    """
    # Strip before lines are joined, because a line break within a key helps to recognize the key.
    text = one_line(_stripped_once(words))
    for _ in range(_PASSES):  # the text that one pattern removed may have hidden another match
        after = _stripped_once(text)
        if after == text:
            return text
        text = after
    return REDACTED


def _stripped_once(text: str) -> str:
    text = _CLIENT_PORT.sub("<port>", text)
    text = _ID_AFTER_LABEL.sub(r"\1\2<id>", text)
    text = _TIME.sub("<time>", text)
    for pattern in _NAMES_AND_IDS:
        text = pattern.sub("<id>", text)
    return _COUNTER.sub("<id>", scrub(text))


def describe_failure(status: DriverStatus) -> str:
    """The call, why it failed and, in quotes, the driver's words. Starts with the call's name."""
    words = cut(strip_ids(status.message[:READ_LIMIT]), WORDS_LIMIT)
    match status.made_by:
        case MadeBy.DRIVER:
            said = f": “{words}”" if words else " without a message"
            return f"{status.call} failed: the driver answered {status.code.name}{said}."
        case MadeBy.REPLY:
            said = f"{status.call} failed: the driver answered {status.code.name}"
            return f"{said}, but its reply can't be used because {words}."
        case MadeBy.DEADLINE:
            return f"{status.call} failed because the driver did not answer in time."
        case MadeBy.TRANSPORT:
            return (
                f"{status.call} failed because the connection to the driver ended before the driver"
                " answered."
            )


# The reader owns a claim or an access, and may not be allowed to read classes or the driver's log.
ADVICE = {
    Reason.DRIVER_INVALID_ARGUMENT: (
        "If the error is about a parameter, ask your cluster administrator to correct that"
        " parameter in {the_class}."
    ),
    Reason.DRIVER_PERMISSION_DENIED: (
        "Ask your cluster administrator to grant the driver the permission that the error names."
    ),
    Reason.DRIVER_UNAUTHENTICATED: (
        "Ask your cluster administrator to replace the credentials that the driver uses."
    ),
    Reason.DRIVER_RESOURCE_EXHAUSTED: (
        "Free resources on the backend, or ask your cluster administrator to raise the quota."
    ),
    Reason.DRIVER_FAILED_PRECONDITION: (
        "Resolve the problem that the driver names (for instance, empty the bucket)."
    ),
    Reason.DRIVER_UNIMPLEMENTED: (
        "Use another class, or ask your cluster administrator for a driver that supports this."
    ),
}
OTHER_ADVICE = "Ask your cluster administrator to check the driver's log."
HOW_TO_RETRY = (
    "To retry now, run: kubectl annotate --overwrite {what}"
    f" {RETRY_ANNOTATION}=1 (use a new value each time)."
)


def advice_on(reason: Reason, view: Bucket | BucketAccess | BucketClaim) -> str:
    """How the owner of the object can resolve this reason; "" without general advice for it."""
    kind = "BucketAccessClass" if isinstance(view, BucketAccess) else "BucketClass"
    named = f"{kind} {shown_name(view.class_name)}" if view.class_name else "the class"
    return ADVICE.get(reason, "").format(the_class=named)


def duration(seconds: float) -> str:
    """A setting's seconds as text: 600 is "10 minutes", 20 is "20 s"."""
    minutes, rest = divmod(round(seconds), 60)
    if rest or not minutes:
        return f"{seconds:.0f} s"
    return "minute" if minutes == 1 else f"{minutes} minutes"


def failure_message(
    outcome: Requeue | Terminal,
    *,
    attempts: int,
    retry_what: str,
    advice: str,
    now: datetime,
    longest_pause_s: float,
) -> str:
    """The whole message: the failure, the operator's next action, and advice for the reader.

    The message is stored and read later, so it names the time of the attempt and never the time
    that is left.
    """
    lead = describe_failure(outcome.status) if outcome.status else escaped(outcome.message)
    if isinstance(outcome, Requeue):
        failed = f"Attempt {attempts} failed at {stamp(now)}. " if outcome.status else ""
        pause = duration(longest_pause_s)
        tail = f"{failed}The operator retries automatically, at least every {pause}."
    elif outcome.waiting or outcome.status is None:
        return cut(lead, MESSAGE_LIMIT)
    else:
        again = (
            f"The call is repeated every {duration(outcome.recheck_s)}."
            if outcome.recheck_s
            else "The call is not repeated until the object, its class or the driver changes."
        )
        tail = f"{again} {advice or OTHER_ADVICE} {HOW_TO_RETRY.format(what=retry_what)}"
    extra = f" {escaped(outcome.message)}" if outcome.status and outcome.message else ""
    return cut(f"{lead}{extra} {tail}", MESSAGE_LIMIT)


def from_outcome(
    outcome: Outcome,
    *,
    generation: int,
    success: tuple[Reason, str],
    message: str = "",
    ignored: str = "",
) -> tuple[Condition, ...]:
    """The conditions for an outcome, without transition times.

    `ignored`: a sentence about a change of the spec that has no effect, or "".
    """

    def condition(kind: str, status: str, reason: str, text: str) -> Condition:
        return Condition(kind, status, reason, text, generation)

    noted = (condition(SPEC_CHANGE_IGNORED, "True", SPEC_CHANGE_IGNORED, ignored),)
    rest = noted if ignored else ()
    match outcome:
        case Success():
            return (condition("Ready", "True", success[0].value, success[1]), *rest)
        case Requeue(reason=reason):
            return (
                condition("Ready", "False", reason.value, message),
                condition("Reconciling", "True", reason.value, message),
                *rest,
            )
        case Terminal(reason=reason, waiting=waiting):
            kind = "Reconciling" if waiting else "Stalled"
            return (
                condition("Ready", "False", reason.value, message),
                condition(kind, "True", reason.value, message),
                *rest,
            )


def merge(
    old: Iterable[Condition], new: Iterable[Condition], now: datetime
) -> tuple[Condition, ...]:
    """`new` with transition times, which are kept from `old` unless the status changed.

    Conditions of other types are kept. Conditions of our types that are absent from `new` are
    removed. The order is fixed, so equal conditions compare equal.
    """
    before = {condition.type: condition for condition in old}
    at = stamp(now)
    merged = [c for c in before.values() if c.type not in _ORDER]
    for condition in new:
        was = before.get(condition.type)
        kept = was.last_transition_time if was and was.status == condition.status else ""
        merged.append(with_fields(condition, last_transition_time=kept or at))
    return tuple(sorted(merged, key=lambda c: (_ORDER.get(c.type, 9), c.type)))


def mirror(claim: BucketClaim, bucket: Bucket) -> tuple[Condition, ...]:
    """The conditions that a BucketClaim copies from its Bucket, for the claim's own generation.

    All of them are copied, because a tenant may not read Buckets. The controller's condition about
    an ignored change of the class is kept, unless the Bucket has an ignored change itself.
    """
    ours = [c for c in bucket.conditions if c.type in _ORDER]
    if not ignored_in(bucket.conditions):
        ours += [c for c in claim.conditions if c.type == SPEC_CHANGE_IGNORED]
    return tuple(with_fields(c, observed_generation=claim.meta.generation) for c in ours)


def ignored_in(found: Iterable[Condition]) -> str:
    """The sentence about an ignored change; "" without one."""
    return next((c.message for c in found if c.type == SPEC_CHANGE_IGNORED), "")


def with_ignored(
    old: Iterable[Condition], ignored: str, *, generation: int, now: datetime
) -> tuple[Condition, ...]:
    """`old` with this ignored change instead of the stored one; "" removes the condition."""
    kept = tuple(c for c in old if c.type != SPEC_CHANGE_IGNORED)
    noted = Condition(SPEC_CHANGE_IGNORED, "True", SPEC_CHANGE_IGNORED, ignored, generation)
    return merge(old, (*kept, noted) if ignored else kept, now)


def is_worth_writing(attempts: int) -> bool:
    """Whether to write the status after this attempt: after attempts 1, 2, 4, 8 and so on."""
    return attempts & (attempts - 1) == 0
