"""Conditions: what an outcome looks like in `kubectl describe`. Pure; the time is an argument.

Shape: metav1.Condition (KEP-1623), types as kstatus reads them: Ready always, Reconciling and
Stalled only while they are true. Messages are built from fixed parts, with the driver's words
scrubbed (`scrub`) and stripped of ids and times, so that the same fault always has the same text.
"""

import re
from collections.abc import Iterable
from datetime import datetime

from msgspec.structs import replace as with_fields

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

MESSAGE_LIMIT = 2048  # characters; the API allows 32768, a person reads far fewer
WORDS_LIMIT = 600  # of the driver's own words

SPEC_CHANGE_IGNORED = "SpecChangeIgnored"
_ORDER = {"Ready": 0, "Reconciling": 1, "Stalled": 2, SPEC_CHANGE_IGNORED: 3}

_ID_AFTER_LABEL = re.compile(
    r"(?i)\b((?:x-amz-)?(?:request|req|trace|span|correlation|host|transaction|invocation)"
    r"[ _-]?ids?(?:[ _-]?2)?)\b"
    # With nothing but a space between, only what has a figure in it is taken for an id.
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
    # A UUID that stands alone: in `bucket-<UID>` it is our own name, the same at every try.
    re.compile(
        r"(?i)(?<![a-z0-9-])[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(?!\w)"
    ),
    re.compile(r"\btx[0-9a-f]{16,}(?:-\w+)*"),  # Ceph's transaction ids
)
_COUNTER = re.compile(r"(?<!\w)(?<!-[0-9a-f]{4}-)\d{9,}(?:\.\d+)?\b")  # also Unix times
# A text whose every blanking reveals another id is no honest text.
_PASSES = 8


def strip_ids(words: str) -> str:
    """The driver's words on one line, without what changes at every try: ids, times, ports.

    Credentials and what looks like a key go too (`scrub`); what can't be seen is escaped. Names
    that we made (`bucket-<UID>`) stay readable.
    """
    text = one_line(_stripped_once(words))  # a line break within a key tells more than a blank
    for _ in range(_PASSES):  # what one pattern took away may have hidden the start of another
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
    """What failed and, in quotes, the driver's words."""
    words = cut(strip_ids(status.message[:READ_LIMIT]), WORDS_LIMIT)
    match status.made_by:
        case MadeBy.DRIVER:
            said = f": “{words}”" if words else " without a message"
            return f"{status.call} failed: the driver answered {status.code.name}{said}."
        case MadeBy.REPLY:
            said = f"{status.call}: the driver answered {status.code.name}"
            return f"{said}, but its reply can't be used: {words}."
        case MadeBy.DEADLINE:
            return f"{status.call}: the driver did not answer in time."
        case MadeBy.TRANSPORT:
            return f"{status.call}: the connection to the driver ended before it answered."


# The reader is the owner of a claim or an access, who may see neither classes nor the driver.
ADVICE = {
    Reason.DRIVER_INVALID_ARGUMENT: (
        "If it is about a parameter, ask your cluster administrator to correct it in {the_class}."
    ),
    Reason.DRIVER_PERMISSION_DENIED: (
        "Ask your cluster administrator to give the driver the permission that it names."
    ),
    Reason.DRIVER_UNAUTHENTICATED: (
        "Ask your cluster administrator to replace the credentials that the driver uses."
    ),
    Reason.DRIVER_RESOURCE_EXHAUSTED: (
        "Free something on the backend, or ask your cluster administrator to raise the quota."
    ),
    Reason.DRIVER_FAILED_PRECONDITION: (
        "Change what the driver names (for instance, empty the bucket)."
    ),
    Reason.DRIVER_UNIMPLEMENTED: (
        "Use another class, or ask your cluster administrator for a driver that supports this."
    ),
}
OTHER_ADVICE = "Ask your cluster administrator to look at the driver's log."
HOW_TO_RETRY = (
    "To have it tried again at once: kubectl annotate --overwrite {what}"
    " objectstorage.k8s.io/retry=1 (any new value)."
)


def advice_on(reason: Reason, view: Bucket | BucketAccess | BucketClaim) -> str:
    """What the owner of the object can do about this reason; "" if only the message knows."""
    kind = "BucketAccessClass" if isinstance(view, BucketAccess) else "BucketClass"
    named = f"{kind} {shown_name(view.class_name)}" if view.class_name else "the class"
    return ADVICE.get(reason, "").format(the_class=named)


def duration(seconds: float) -> str:
    """A setting's seconds in words: "600 s" is "10 minutes"."""
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
    """The whole message: what failed, what happens next, what a person can do.

    It is stored and read later, so it names the time of the attempt and no time left.
    """
    lead = describe_failure(outcome.status) if outcome.status else escaped(outcome.message)
    if isinstance(outcome, Requeue):
        failed = f"Attempt {attempts} failed at {stamp(now)}. " if outcome.status else ""
        tail = f"{failed}Retried automatically, at least every {duration(longest_pause_s)}."
    elif outcome.waiting or outcome.status is None:
        return cut(lead, MESSAGE_LIMIT)
    else:
        again = (
            f"Tried again every {duration(outcome.recheck_s)}."
            if outcome.recheck_s
            else "Not tried again until something changes."
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
    """The conditions that an outcome calls for, without times.

    `ignored`: a change of the spec that has no effect, as a sentence.
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
    """`new` with transition times: kept from `old` unless the status changed. Foreign types stay.

    Ours that are absent from `new` go. The order is fixed, so equal conditions compare equal.
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
    """The conditions that a BucketClaim takes over from its Bucket, for its own generation.

    A tenant may not read Buckets, so the claim says all of it. What the controller says of the
    class stays, unless the Bucket has an ignored change of its own.
    """
    ours = [c for c in bucket.conditions if c.type in _ORDER]
    if not ignored_in(bucket.conditions):
        ours += [c for c in claim.conditions if c.type == SPEC_CHANGE_IGNORED]
    return tuple(with_fields(c, observed_generation=claim.meta.generation) for c in ours)


def ignored_in(found: Iterable[Condition]) -> str:
    """The change that is said to be ignored, as a sentence; "" when none is."""
    return next((c.message for c in found if c.type == SPEC_CHANGE_IGNORED), "")


def with_ignored(
    old: Iterable[Condition], ignored: str, *, generation: int, now: datetime
) -> tuple[Condition, ...]:
    """`old` with another ignored change, or with none."""
    kept = tuple(c for c in old if c.type != SPEC_CHANGE_IGNORED)
    noted = Condition(SPEC_CHANGE_IGNORED, "True", SPEC_CHANGE_IGNORED, ignored, generation)
    return merge(old, (*kept, noted) if ignored else kept, now)


def is_worth_writing(attempts: int) -> bool:
    """A retrying object is written at attempts 1, 2, 4, 8 and so on, not at each."""
    return attempts & (attempts - 1) == 0
