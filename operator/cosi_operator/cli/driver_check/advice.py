"""Which retry policy fits what was seen, as flags of the sidecar with a reason each. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from cosi_operator.cli.driver_check.finding import words_of
from cosi_operator.cli.driver_check.judge import CALLS
from cosi_operator.cli.driver_check.judge_keys import KEY_IS_GONE, lost_grants, lost_revokes
from cosi_operator.cli.driver_check.seen import AT_ONCE, CallResult, CheckRecord, Step
from cosi_operator.outcome import Call, Code, MadeBy

# What a driver sends for temporary faults; `csi-like` retries them all.
PASSING = (
    Code.CANCELLED,
    Code.DEADLINE_EXCEEDED,
    Code.UNAVAILABLE,
    Code.RESOURCE_EXHAUSTED,
    Code.ABORTED,
)
MANY = 2  # so many of them, and a profile says it more briefly than overrides
UNSEEN = (
    "What it sends while its backend is down can't be seen here: stop the backend once, and look"
    " at `cosi why` for the code."
)
WRONG = (Step.BAD_NAME, Step.NO_NAME, Step.GRANT_UNKNOWN_TYPE, Step.GRANT_GONE)


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag of the sidecar, ready to be pasted, and why."""

    text: str
    because: str


@dataclass(frozen=True, slots=True)
class Advice:
    """`notes`: what no flag can help, and what could not be seen."""

    flags: tuple[Flag, ...]
    notes: tuple[str, ...]


def advise(seen: CheckRecord) -> Advice:
    """What to set for this driver. No flags: the defaults fit."""
    flags = (
        *_passing(seen),
        *_unnamed(seen),
        *_known_only_by_name(seen),
        *_missing_first(seen),
        *_one_at_a_time(seen),
    )
    notes = tuple(note for make in _NOTES if (note := make(seen)))
    return Advice(flags, (*notes, UNSEEN))


def _override(call: Call | None, code: Code, verdict: str) -> str:
    return f"--retry-override={f'{call}:' if call else ''}{code.name}={verdict}"


def _passing(seen: CheckRecord) -> list[Flag]:
    """Codes for "not now" that the driver itself sent, while nothing was wrong with the request."""
    found: dict[Code, tuple[str, CallResult]] = {}
    for step, asked in seen.every:
        if asked.refused in PASSING and step not in WRONG:
            found.setdefault(asked.refused, (step, asked))
    if len(found) >= MANY:
        codes = ", ".join(code.name for code in found)
        return [Flag("--retry-policy=csi-like", f"it sent {codes}, which mean a temporary fault")]
    return [
        Flag(
            _override(asked.call, code, "requeue"),
            f"it sent {code.name} at {step}, where the request was right, so a repeat can succeed",
        )
        for code, (step, asked) in found.items()
    ]


def _unnamed(seen: CheckRecord) -> list[Flag]:
    """UNKNOWN and nothing else: the driver names no codes, so an outage will look the same."""
    calls = []
    for call in CALLS:
        codes = {asked.refused for _, asked in seen.every if asked.call is call and asked.refused}
        if codes == {Code.UNKNOWN}:
            calls.append(call)
    because = (
        "every refusal came as UNKNOWN, so an outage will too; the price is that wrong requests"
        " are repeated, at most every five minutes"
    )
    if len(calls) > 1:
        return [Flag(_override(None, Code.UNKNOWN, "requeue"), because)]
    return [Flag(_override(call, Code.UNKNOWN, "requeue"), because) for call in calls]


def _known_only_by_name(seen: CheckRecord) -> list[Flag]:
    """ALREADY_EXISTS counts as done, under the bucket's name: which is wrong if the id differs."""
    created, again = seen.asked.get(Step.CREATE), seen.asked.get(Step.CREATE_AGAIN)
    if created is None or again is None or not created.ok or seen.name_of_first == created.reply:
        return []
    other = seen.asked.get(Step.CREATE_OTHER)
    exists = [a for a in (again, other) if a is not None and a.refused is Code.ALREADY_EXISTS]
    if not exists:
        return []
    return [
        Flag(
            _override(Call.CREATE_BUCKET, Code.ALREADY_EXISTS, "terminal"),
            "it sends ALREADY_EXISTS, and its ids are not the names, so the id can't be known",
        )
    ]


def _missing_first(seen: CheckRecord) -> list[Flag]:
    """NOT_FOUND for what was certainly there means something else than "gone"."""
    flags = []
    for step in (Step.REVOKE, Step.DELETE):
        asked = seen.asked.get(step)
        if asked and asked.refused is Code.NOT_FOUND:
            flags.append(
                Flag(
                    _override(asked.call, Code.NOT_FOUND, "terminal"),
                    "it sent NOT_FOUND for something that was there, which would count as gone",
                )
            )
    return flags


def _one_at_a_time(seen: CheckRecord) -> list[Flag]:
    """Calls that fail, or keys that are wrong, only when calls are made at the same time."""
    refused = [
        asked for trial in seen.at_once for _, asked in trial.every if asked.refused is not None
    ]
    alone = seen.asked.get(Step.GRANT)
    lost, alive = lost_grants(seen), lost_revokes(seen)
    if lost and seen.lone_key == "":
        because = f"{len(lost)} of {AT_ONCE} keys that were granted at the same time are refused"
    elif alive:
        because = f"{len(alive)} of {AT_ONCE} keys work after Revokes at the same time"
    elif refused and alone and alone.ok:
        because = f"{len(refused)} calls at the same time were refused, while a single one succeeds"
    else:
        return []
    return [Flag("--serialize-access-calls=driver", f"{because}; it is the default")]


# --- notes


def _no_bucket(seen: CheckRecord) -> str:
    creates = [a for _, a in seen.every if a.call is Call.CREATE_BUCKET]
    if not creates or any(asked.ok and asked.reply for asked in creates):
        return ""
    return (
        f"EVERY DriverCreateBucket FAILED ({words_of(creates[0])}), so most checks were not made."
        " If the driver needs parameters of a class, give them: --parameter K=V."
    )


def _at_the_same_time(seen: CheckRecord) -> str:
    if not seen.at_once or _one_at_a_time(seen):
        return ""
    tried = [trial for trial in seen.at_once if trial.after is not None]
    if not tried:
        return (
            "Whether changes at the same time are lost was not seen, because no key was used"
            f" ({seen.s3_problem or 'see --s3'}). Leave --serialize-access-calls at its default,"
            " driver."
        )
    return (
        f"{len(tried)} Grants and Revokes at the same time lost no change. One run proves nothing:"
        " set --serialize-access-calls=none (or bucket) only if the driver's source edits no"
        " document that accounts (or buckets) share."
    )


def _wrong_as_internal(seen: CheckRecord) -> str:
    steps = [s for s in WRONG if s in seen.asked and seen.asked[s].refused is Code.INTERNAL]
    if not steps:
        return ""
    return (
        f"INTERNAL for a wrong request ({', '.join(steps)}): that is retried, with backoff, as"
        " an outage is. An override would stop at outages too; only the driver can tell them apart."
    )


def _gone_as_failure(seen: CheckRecord) -> str:
    steps = [
        step
        for step in (Step.REVOKE_AGAIN, Step.REVOKE_GONE, Step.DELETE_AGAIN)
        if step in seen.asked and seen.asked[step].refused not in (None, Code.NOT_FOUND)
    ]
    if not steps:
        return ""
    return (
        f"What is gone already is refused ({', '.join(steps)}): an object whose bucket or account"
        " was removed by hand stays in deletion. No override is safe: the same code may come for"
        " what is still there."
    )


def _slow(seen: CheckRecord) -> str:
    late = [s for s, a in seen.every if a.status.made_by is MadeBy.DEADLINE and s != Step.ABANDONED]
    if not late:
        return ""
    return f"No answer in {seen.options.timeout_s:g} s: if it is only slow, --driver-call-timeout."


def _no_keys_again(seen: CheckRecord) -> str:
    again = seen.asked.get(Step.GRANT_AGAIN)
    if again is None or again.ok or again.refused is None:
        return ""
    return (
        "A second Grant gives no credentials: when a reply is lost, the BucketAccess has to be"
        " deleted and made again."
    )


def _orphan(seen: CheckRecord) -> str:
    gone = seen.asked.get(Step.REVOKE_GONE)
    if gone is None or gone.refused is not Code.NOT_FOUND or seen.orphan_key in KEY_IS_GONE:
        return ""
    return (
        "Revoke answered NOT_FOUND because the bucket is gone, while the account was there. The"
        " operator counts it as revoked. If buckets are removed by hand, look for accounts that"
        " are left."
    )


_NOTES: tuple[Callable[[CheckRecord], str], ...] = (
    _no_bucket,
    _at_the_same_time,
    _orphan,
    _wrong_as_internal,
    _gone_as_failure,
    _slow,
    _no_keys_again,
)
