"""Conditions: what an outcome looks like in `kubectl describe`. Pure; the time is an argument.

Shape: metav1.Condition (KEP-1623), types as kstatus reads them: Ready always, Reconciling and
Stalled only while they are true. Messages are built from fixed parts, with the driver's words
stripped of ids and times, so that the same fault always has the same text.
"""

import re
from collections.abc import Iterable
from datetime import datetime

from msgspec.structs import replace as with_fields

from cosi_operator.api.view import Bucket, BucketClaim, Condition
from cosi_operator.outcome import DriverStatus, MadeBy, Outcome, Reason, Requeue, Success, Terminal

MESSAGE_LIMIT = 2048  # characters; the API allows 32768, a person reads far fewer
WORDS_LIMIT = 600  # of the driver's own words
READ_LIMIT = 4096  # of a message, so that a huge one costs nothing

_ORDER = {"Ready": 0, "Reconciling": 1, "Stalled": 2}

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
_IDS = (
    # URL-safe base64 goes first and whole: a dash may stand anywhere in it, and what the others
    # leave of it would be pieces of a key. Two figures, or the size of an S3 secret. Names of
    # Kubernetes have no capitals.
    re.compile(
        r"(?<![\w+/%-])(?=[\w-]*[A-Z])(?=[\w-]*[a-z])"
        r"(?:(?=(?:[A-Za-z_-]*\d){2})[\w-]{24,}|(?=[A-Za-z0-9]*[-_])[\w-]{40,})={0,2}(?![\w+/%-])",
        re.ASCII,
    ),
    # Long random-looking words: AWS-style ids, and keys that a careless driver may put there. Two
    # figures at least, so that AmazonS3Exception stays; all capitals, or the size of an S3 secret,
    # need fewer.
    re.compile(
        r"(?<![\w+/%])(?=(?:[A-Za-z+/_%]*\d){2})(?=[a-z0-9+/_%]*[A-Z])[\w+/%]{16,}={0,2}",
        re.ASCII,
    ),
    # A UUID that stands alone: in `bucket-<UID>` it is our own name, the same at every try.
    re.compile(
        r"(?i)(?<![a-z0-9-])[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(?!\w)"
    ),
    re.compile(r"\btx[0-9a-f]{16,}(?:-\w+)*"),  # Ceph's transaction ids
    re.compile(r"(?i)\b(?:0x[0-9a-f]{10,}|(?=[0-9a-f]*\d)[0-9a-f]{16,})\b"),
    re.compile(r"\b(?=[A-Z]*\d)[A-Z0-9]{16,}\b"),
    re.compile(
        r"(?<![A-Za-z0-9+/])(?=[a-z0-9+/]*[A-Z])(?=[A-Z0-9+/]*[a-z])[A-Za-z0-9+/]{40}"
        r"(?![A-Za-z0-9+/])"
    ),
    re.compile(r"(?<!\w)(?<!-[0-9a-f]{4}-)\d{9,}(?:\.\d+)?\b"),  # counters, Unix times
)
# Also what turns the direction of a text round or takes no room: it could make a message read as
# something that it does not say.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+")


def strip_ids(words: str) -> str:
    """The driver's words on one line, without what changes at every try: ids, times, ports.

    What looks like a key goes too. Names that we made (`bucket-<UID>`) stay readable.
    """
    text, before = " ".join(_CONTROL.sub(" ", words).split()), ""
    while text != before:  # what one pattern took away may have hidden the start of another
        before = text
        text = _CLIENT_PORT.sub("<port>", text)
        text = _ID_AFTER_LABEL.sub(r"\1\2<id>", text)
        text = _TIME.sub("<time>", text)
        for pattern in _IDS:
            text = pattern.sub("<id>", text)
    return text


def cut(text: str, limit: int) -> str:
    """At most `limit` characters, with an ellipsis where something was cut."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


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


ADVICE = {
    Reason.DRIVER_INVALID_ARGUMENT: "Repair the parameters of the class, or what the driver names.",
    Reason.DRIVER_PERMISSION_DENIED: "Give the driver's own account the right that it names.",
    Reason.DRIVER_UNAUTHENTICATED: "Replace the credentials that the driver itself uses.",
    Reason.DRIVER_RESOURCE_EXHAUSTED: "Raise the quota, or free something, on the backend.",
    Reason.DRIVER_FAILED_PRECONDITION: "Change what the driver names (empty the bucket, say).",
    Reason.DRIVER_UNIMPLEMENTED: "Use a class that this driver supports, or a newer driver.",
}
HOW_TO_RETRY = (
    "To have it tried again at once: kubectl annotate --overwrite {what}"
    " objectstorage.k8s.io/retry=1 (any new value)."
)


def failure_message(outcome: Requeue | Terminal, *, attempts: int, retry_what: str) -> str:
    """The whole message: what failed, what happens next, what a person can do."""
    lead = describe_failure(outcome.status) if outcome.status else outcome.message
    if isinstance(outcome, Requeue):
        when = f"next in about {outcome.after_s:.0f} s" if outcome.after_s else "again soon"
        tail = f"Tried again by itself, {when} (attempt {attempts} failed)."
    elif outcome.waiting or outcome.status is None:
        return cut(lead, MESSAGE_LIMIT)
    else:
        again = (
            f"Looked at again after {outcome.recheck_s:.0f} s."
            if outcome.recheck_s
            else "Not tried again until something changes."
        )
        advice = ADVICE.get(outcome.reason, "Look at the driver's log.")
        tail = f"{again} {advice} {HOW_TO_RETRY.format(what=retry_what)}"
    extra = f" {outcome.message}" if outcome.status and outcome.message else ""
    return cut(f"{lead}{extra} {tail}", MESSAGE_LIMIT)


def from_outcome(
    outcome: Outcome, *, generation: int, success: tuple[Reason, str], message: str = ""
) -> tuple[Condition, ...]:
    """The conditions that an outcome calls for, without times."""

    def condition(kind: str, status: str, reason: Reason, text: str) -> Condition:
        return Condition(kind, status, reason.value, text, generation)

    match outcome:
        case Success():
            return (condition("Ready", "True", *success),)
        case Requeue(reason=reason):
            return (
                condition("Ready", "False", reason, message),
                condition("Reconciling", "True", reason, message),
            )
        case Terminal(reason=reason, waiting=waiting):
            return (
                condition("Ready", "False", reason, message),
                condition("Reconciling" if waiting else "Stalled", "True", reason, message),
            )


def merge(
    old: Iterable[Condition], new: Iterable[Condition], now: datetime
) -> tuple[Condition, ...]:
    """`new` with transition times: kept from `old` unless the status changed. Foreign types stay.

    Ours that are absent from `new` go. The order is fixed, so equal conditions compare equal.
    """
    before = {condition.type: condition for condition in old}
    stamp = now.isoformat(timespec="seconds").replace("+00:00", "Z")
    merged = [c for c in before.values() if c.type not in _ORDER]
    for condition in new:
        was = before.get(condition.type)
        kept = was.last_transition_time if was and was.status == condition.status else ""
        merged.append(with_fields(condition, last_transition_time=kept or stamp))
    return tuple(sorted(merged, key=lambda c: (_ORDER.get(c.type, 9), c.type)))


def mirror(claim: BucketClaim, bucket: Bucket) -> tuple[Condition, ...]:
    """The conditions that a BucketClaim takes over from its Bucket, for its own generation.

    A tenant may not read Buckets, so the claim says all of it.
    """
    ours = [c for c in bucket.conditions if c.type in _ORDER]
    return tuple(with_fields(c, observed_generation=claim.meta.generation) for c in ours)


def is_worth_writing(attempts: int) -> bool:
    """A retrying object is written at attempts 1, 2, 4, 8 and so on, not at each."""
    return attempts & (attempts - 1) == 0
