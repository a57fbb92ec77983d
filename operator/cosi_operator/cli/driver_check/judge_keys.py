"""How a driver fared with calls at the same time, and with keys that outlive their bucket. Pure."""

from collections import Counter

from cosi_operator.cli.driver_check.finding import Judged, Result, words_of
from cosi_operator.cli.driver_check.seen import CheckRecord, KeyTrial, Step
from cosi_operator.outcome import Code

NO_S3 = "without --s3 no key is used, so this can't be seen"
# S3 has checked the key before it answers this.
KEY_IS_KNOWN = ("", "NoSuchBucket")
KEY_IS_GONE = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken")


def revoke_gone(seen: CheckRecord) -> Judged:
    """Revoke after the bucket was removed, while the account still exists."""
    asked, answer = seen.asked[Step.REVOKE_GONE], seen.orphan_key
    words = words_of(asked)
    if not asked.ok and asked.refused is not Code.NOT_FOUND:
        return Result.FAIL, f"{words} (the deletion of such a BucketAccess never ends)"
    if answer in KEY_IS_KNOWN:
        return Result.FAIL, f"{words}, but the account's key still works"
    if asked.ok:
        return Result.PASS, words
    if answer in KEY_IS_GONE:
        return Result.PASS, f"{words}, and S3 no longer knows the key"
    return Result.WARN, (
        f"{words}, because the bucket is gone: the account was not revoked before, so it may still"
        " exist on the backend (the operator counts NOT_FOUND as revoked)"
    )


def lone_key(seen: CheckRecord) -> Judged:
    if seen.lone_key is None:
        return Result.SKIP, f"not judged: {_why_no_key(seen)}"
    if seen.lone_key:
        return Result.FAIL, f"S3 answers {seen.lone_key}"
    return Result.PASS, "S3 accepts it"


def granted(seen: CheckRecord) -> Judged:
    trials = seen.at_once
    if not trials:
        return Result.SKIP, f"not asked: {seen.at_once_skipped or 'an earlier call failed'}"
    if refused := [trial.granted for trial in trials if not trial.granted.ok]:
        return Result.FAIL, f"{len(refused)} of {len(trials)} failed: {words_of(refused[0])}"
    if len({trial.granted.reply for trial in trials}) < len(trials):
        return Result.FAIL, "two names have one account"
    return Result.PASS, f"{len(trials)} accounts"


def keys_work(seen: CheckRecord) -> Judged:
    tried = [trial for trial in seen.at_once if trial.works is not None]
    if not tried:
        return Result.SKIP, f"not judged: {_why_no_key(seen)}"
    if lost := lost_grants(seen):
        return Result.FAIL, f"{len(lost)} of {len(tried)} are refused: {_answers(lost)}"
    return Result.PASS, f"S3 accepts {len(tried)} keys"


def revoked(seen: CheckRecord) -> Judged:
    asked = [trial.revoked for trial in seen.at_once if trial.revoked is not None]
    if not asked:
        return Result.SKIP, f"not asked: {seen.at_once_skipped or 'no Grant succeeded'}"
    if refused := [a for a in asked if not a.ok and a.refused is not Code.NOT_FOUND]:
        return Result.FAIL, f"{len(refused)} of {len(asked)} failed: {words_of(refused[0])}"
    return Result.PASS, f"{len(asked)} accounts revoked"


def keys_are_refused(seen: CheckRecord) -> Judged:
    tried = [trial for trial in seen.at_once if trial.after is not None]
    if not tried:
        return Result.SKIP, f"not judged: {_why_no_key(seen)}"
    if alive := lost_revokes(seen):
        return Result.FAIL, f"{len(alive)} of {len(tried)} keys work after their revocation"
    return Result.PASS, f"S3 refuses {len(tried)} keys"


def lost_grants(seen: CheckRecord) -> list[KeyTrial]:
    """Those granted at the same time whose key S3 refuses."""
    return [trial for trial in seen.at_once if trial.works]


def lost_revokes(seen: CheckRecord) -> list[KeyTrial]:
    """Those revoked at the same time whose key S3 still accepts."""
    return [trial for trial in seen.at_once if trial.after == ""]


def _answers(trials: list[KeyTrial]) -> str:
    counts = Counter(str(trial.works) for trial in trials)
    return ", ".join(f"{code} ({count})" for code, count in counts.most_common())


def _why_no_key(seen: CheckRecord) -> str:
    if not seen.options.s3:
        return NO_S3
    return seen.s3_problem or seen.at_once_skipped or "there was no S3 key to try"
