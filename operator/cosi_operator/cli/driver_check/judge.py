"""What each check expects, and how a driver fared. Pure.

Some expectations come from the comments of the COSI interface: Create is idempotent by name and
parameters (OK) and refuses other parameters with ALREADY_EXISTS; Delete of a deleted bucket is not
an error; Grant is idempotent by name, though the secret values may differ; a driver's name is a
domain name of at most 63 characters. The others come from the meaning of gRPC's codes and from the
needs of an operator. A check fails if an operator would err or a user would wait indefinitely, and
warns if the operator can handle the result.
"""

import re
from collections.abc import Callable, Collection

from cosi_operator.cli.driver_check import judge_keys
from cosi_operator.cli.driver_check.finding import Check, Finding, Judged, Result, words_of
from cosi_operator.cli.driver_check.seen import AT_ONCE, CheckRecord, Step
from cosi_operator.cli.text import clean
from cosi_operator.outcome import Call, Code, MadeBy
from cosi_operator.scrub import cut

LONGEST_NAME = 63
LONGEST_ID = 1024

_NAME = re.compile(r"[a-zA-Z0-9]([-.a-zA-Z0-9]*[a-zA-Z0-9])?")
SPELLING = {
    "s3": ("accessKeyID", "accessSecretKey", "endpoint", "region"),
    "azure": ("accessToken", "expiryTs"),
}


def judge(seen: CheckRecord) -> list[Finding]:
    """Every check, in order."""
    return [_finding(check, seen) for check in CHECKS]


def _finding(check: Check, seen: CheckRecord) -> Finding:
    missing = [step for step in check.needs if step not in seen.asked]
    if missing:
        why = seen.skipped.get(missing[0], "an earlier call failed")
        return Finding(check.name, check.rule, Result.SKIP, f"not asked: {why}")
    result, words = check.judge(seen)
    return Finding(check.name, check.rule, result, words)


# --- kinds of checks


def _succeeds(step: Step) -> Callable[[CheckRecord], Judged]:
    def check(seen: CheckRecord) -> Judged:
        asked = seen.asked[step]
        return Result.PASS if asked.ok else Result.FAIL, words_of(asked)

    return check


def _gives_id(step: Step) -> Callable[[CheckRecord], Judged]:
    def check(seen: CheckRecord) -> Judged:
        asked = seen.asked[step]
        if asked.ok and not asked.reply:
            return Result.FAIL, f"{words_of(asked)}, without an id"
        return Result.PASS if asked.ok else Result.FAIL, words_of(asked)

    return check


def _is_gone(step: Step, not_found: Result) -> Callable[[CheckRecord], Judged]:
    """What is gone already counts as taken away."""

    def check(seen: CheckRecord) -> Judged:
        asked = seen.asked[step]
        if asked.ok:
            return Result.PASS, words_of(asked)
        if asked.refused is Code.NOT_FOUND:
            return not_found, f"{words_of(asked)} (counts as done; the interface wants OK)"
        return Result.FAIL, f"{words_of(asked)} (such a deletion never ends)"

    return check


def _refuses(
    step: Step, wanted: Collection[Code], *, near: Collection[Code] = (), other: Result
) -> Callable[[CheckRecord], Judged]:
    """The call has to be refused: with a `wanted` code; `near` ones warn, the rest is `other`."""

    def check(seen: CheckRecord) -> Judged:
        asked = seen.asked[step]
        words = words_of(asked)
        if asked.refused in wanted:
            return Result.PASS, words
        expected = " or ".join(code.name for code in wanted)
        if asked.refused in near:
            return Result.WARN, f"{words}; {expected} would say it better"
        if asked.ok:
            return Result.FAIL, f"{words} instead of {expected}"
        return other, f"{words} instead of {expected}"

    return check


# --- single checks


def _name(seen: CheckRecord) -> Judged:
    asked = seen.asked[Step.INFO]
    if not asked.ok:
        return Result.FAIL, words_of(asked)
    name = asked.reply
    if len(name) > LONGEST_NAME or not _NAME.fullmatch(name):
        return Result.FAIL, f"the name is {clean(cut(name, 80))!r}"
    return Result.PASS, f"the name is {name}"


def _same_name(seen: CheckRecord) -> Judged:
    again = seen.asked[Step.INFO_AGAIN]
    if not again.ok:
        return Result.FAIL, words_of(again)
    if again.reply != seen.driver:
        return Result.FAIL, f"first {clean(seen.driver)!r}, then {clean(again.reply)!r}"
    return Result.PASS, "the same name twice"


def _id_shape(seen: CheckRecord) -> Judged:
    created = seen.asked[Step.CREATE]
    if not created.reply:
        return Result.SKIP, "not judged: there is no id"
    id_ = created.reply
    if not id_.isprintable() or id_ != id_.strip() or len(id_.encode()) > LONGEST_ID:
        return Result.FAIL, (
            f"the id has {len(id_.encode())} bytes, or blanks at its ends, or control characters:"
            f" {clean(cut(id_, 80))!r}"
        )
    return Result.PASS, f"the id is {id_}"


def _distinct(first: Step, second: Step) -> Callable[[CheckRecord], Judged]:
    def check(seen: CheckRecord) -> Judged:
        one, other = seen.asked[first], seen.asked[second]
        if not (one.ok and other.ok and one.reply and other.reply):
            return Result.SKIP, "not judged: there are no two ids"
        if one.reply == other.reply:
            return Result.FAIL, f"two names have one id, {clean(cut(one.reply, 80))}"
        return Result.PASS, "two names, two ids"

    return check


def _create_again(seen: CheckRecord) -> Judged:
    first, again = seen.asked[Step.CREATE], seen.asked[Step.CREATE_AGAIN]
    if not again.ok:
        return Result.FAIL, f"{words_of(again)} instead of OK"
    if first.ok and again.reply != first.reply:
        return Result.FAIL, f"another id: first {clean(first.reply)}, then {clean(again.reply)}"
    return Result.PASS, words_of(again)


def _at_once(seen: CheckRecord) -> Judged:
    both = (seen.asked[Step.AT_ONCE_1], seen.asked[Step.AT_ONCE_2])
    done = [asked for asked in both if asked.ok]
    refused = [asked for asked in both if not asked.ok]
    if len(done) == 2:
        if done[0].reply == done[1].reply:
            return Result.PASS, "both answered OK with one id"
        return Result.FAIL, "two ids for one name: one of the buckets is lost"
    if done and refused[0].refused is Code.ABORTED:
        return Result.WARN, f"one answered OK, the other: {words_of(refused[0])}"
    return Result.FAIL, "; ".join(words_of(asked) for asked in refused)


def _other_parameters(seen: CheckRecord) -> Judged:
    first, other = seen.asked[Step.CREATE], seen.asked[Step.CREATE_OTHER]
    if other.refused is Code.ALREADY_EXISTS:
        return Result.PASS, words_of(other)
    if other.refused is Code.INVALID_ARGUMENT:
        return Result.PASS, f"{words_of(other)} (refused as unknown)"
    if other.ok and other.reply == first.reply:
        return Result.WARN, "OK with the same id: a changed class goes unnoticed"
    if other.ok:
        return Result.FAIL, "OK with another id: a second bucket for one name"
    return Result.FAIL, f"{words_of(other)} instead of ALREADY_EXISTS"


def _bad_name(seen: CheckRecord) -> Judged:
    if seen.asked[Step.BAD_NAME].ok:
        return Result.PASS, "the backend takes such a name"
    wanted = (Code.INVALID_ARGUMENT,)
    return _refuses(Step.BAD_NAME, wanted, other=Result.FAIL)(seen)


def _repeated(seen: CheckRecord) -> Judged:
    abandoned, again = seen.asked[Step.ABANDONED], seen.asked[Step.REPEATED]
    lead = "answered before it was given up" if abandoned.ok else "given up, then repeated"
    result, words = _gives_id(Step.REPEATED)(seen)
    if abandoned.ok and again.ok and abandoned.reply != again.reply:
        return Result.FAIL, f"{lead}: another id at the repeat"
    return result, f"{lead}: {words}"


def _credentials(seen: CheckRecord) -> Judged:
    granted = seen.asked[Step.GRANT]
    if granted.grant is None:
        return Result.SKIP, "not judged: there was no Grant"
    if granted.grant.problem:
        return Result.FAIL, clean(granted.grant.problem)
    return Result.PASS, f"keyed {', '.join(granted.grant.keys)}, complete"


def _spelling(seen: CheckRecord) -> Judged:
    granted = seen.asked[Step.GRANT].grant
    if granted is None or granted.problem:
        return Result.SKIP, "not judged: there are no complete credentials"
    [(protocol, keys)] = granted.keys.items()
    known = SPELLING[protocol.lower()]
    problems = [f"the protocol is written {protocol}"] if protocol not in SPELLING else []
    folded = {key.lower(): key for key in known}
    for key in keys:
        right = folded.get(key.lower())
        if right is None:
            problems.append(f"{clean(cut(key, 40))} is known to nobody")
        elif right != key:
            problems.append(f"{right} is written {key}")
    given = {key.lower() for key in keys}
    problems += [f"{key} is missing" for key in known if key.lower() not in given]
    if problems:
        return Result.WARN, "; ".join(problems)
    return Result.PASS, f"spelled {', '.join(keys)}"


def _grant_again(seen: CheckRecord) -> Judged:
    first, again = seen.asked[Step.GRANT], seen.asked[Step.GRANT_AGAIN]
    if not first.ok:
        return Result.SKIP, "not judged: the first Grant failed"
    if not again.ok or again.grant is None:
        return Result.FAIL, f"{words_of(again)} instead of OK with credentials"
    if again.reply != first.reply:
        return Result.FAIL, "another account for the same name: the first one is lost"
    if again.grant.problem:
        return Result.FAIL, f"OK, but {clean(again.grant.problem)}"
    same = first.grant is not None and first.grant.credentials == again.grant.credentials
    return Result.PASS, f"the same account, {'the same' if same else 'new'} credentials"


def _messages(seen: CheckRecord) -> Judged:
    refused = [(step, asked) for step, asked in seen.every if asked.refused]
    if seen.leaks:
        return Result.FAIL, f"a credential stands in the message of: {', '.join(seen.leaks)}"
    if bare := [step for step, asked in refused if not asked.status.message.strip()]:
        return Result.WARN, f"no message with the refusal of: {', '.join(bare)}"
    if odd := [step for step, asked in refused if not asked.status.message.isprintable()]:
        return Result.WARN, f"line ends or control characters in the message of: {', '.join(odd)}"
    return Result.PASS, f"{len(refused)} refusals, each with one line"


def _in_time(seen: CheckRecord) -> Judged:
    asked = [(step, a) for step, a in seen.every if step != Step.ABANDONED]
    if late := [step for step, a in asked if a.status.made_by is MadeBy.DEADLINE]:
        return Result.FAIL, f"no answer within {seen.options.timeout_s:g} s to: {', '.join(late)}"
    step, slowest = max(asked, key=lambda pair: pair[1].elapsed_s)
    words = f"the slowest call, {step}, took {slowest.elapsed_s:.2f} s"
    return Result.WARN if slowest.elapsed_s > seen.options.timeout_s / 2 else Result.PASS, words


def _stays_up(seen: CheckRecord) -> Judged:
    lost = [step for step, a in seen.every if a.status.made_by is MadeBy.TRANSPORT]
    if lost:
        return Result.FAIL, f"the connection ended during: {', '.join(lost)}"
    return Result.PASS, f"{len(seen.every)} calls over one socket"


def _removed(seen: CheckRecord) -> Judged:
    if not seen.left:
        return Result.PASS, "all that was made is gone"
    return Result.FAIL, f"may still be there: {clean('; '.join(seen.left))}"


_WRONG = (Code.INVALID_ARGUMENT,)
_NO_SUCH_TYPE = (Code.INVALID_ARGUMENT, Code.UNIMPLEMENTED)
_NEAR_NOT_FOUND = (Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION)
S = Step
CHECKS: tuple[Check, ...] = (
    Check("info-name", "DriverGetInfo gives a domain name of at most 63 characters.",
          (S.INFO,), _name),
    Check("info-same", "The name is the same at every call.", (S.INFO_AGAIN,), _same_name),
    Check("create", "DriverCreateBucket makes a bucket and gives its id.",
          (S.CREATE,), _gives_id(S.CREATE)),
    Check("create-id", "The id is one short line of printable text.", (S.CREATE,), _id_shape),
    Check("create-again", "The same name and parameters again: OK with the same id.",
          (S.CREATE, S.CREATE_AGAIN), _create_again),
    Check("create-distinct", "Two names give two ids.",
          (S.CREATE, S.CREATE_SECOND), _distinct(S.CREATE, S.CREATE_SECOND)),
    Check("create-at-once", "Two equal calls at the same time give one id.",
          (S.AT_ONCE_1, S.AT_ONCE_2), _at_once),
    Check("create-repeated", "A call that was given up can be repeated.",
          (S.ABANDONED, S.REPEATED), _repeated),
    Check("create-other-parameters", "The same name, other parameters: ALREADY_EXISTS.",
          (S.CREATE, S.CREATE_OTHER), _other_parameters),
    Check("create-bad-name", "A name that the backend can't take: INVALID_ARGUMENT.",
          (S.BAD_NAME,), _bad_name),
    Check("create-no-name", "An empty name: INVALID_ARGUMENT.",
          (S.NO_NAME,), _refuses(S.NO_NAME, _WRONG, other=Result.WARN)),
    Check("grant", "DriverGrantBucketAccess makes an account and gives its id.",
          (S.GRANT,), _gives_id(S.GRANT)),
    Check("grant-credentials", "The credentials are complete: one entry, s3 or azure.",
          (S.GRANT,), _credentials),
    Check("grant-spelling", "The names in the credentials are those of the interface.",
          (S.GRANT,), _spelling),
    Check("grant-again", "The same name again: OK, the same account, complete credentials.",
          (S.GRANT, S.GRANT_AGAIN), _grant_again),
    Check("grant-distinct", "Two names give two accounts.",
          (S.GRANT, S.GRANT_SECOND), _distinct(S.GRANT, S.GRANT_SECOND)),
    Check("grant-unknown-type", "An unknown authentication type: INVALID_ARGUMENT.",
          (S.GRANT_UNKNOWN_TYPE,),
          _refuses(S.GRANT_UNKNOWN_TYPE, _NO_SUCH_TYPE, other=Result.FAIL)),
    Check("grant-gone", "A bucket that is gone: NOT_FOUND.",
          (S.GRANT_GONE,),
          _refuses(S.GRANT_GONE, (Code.NOT_FOUND,), near=_NEAR_NOT_FOUND, other=Result.FAIL)),
    Check("revoke", "DriverRevokeBucketAccess takes the account away.",
          (S.REVOKE,), _succeeds(S.REVOKE)),
    Check("revoke-again", "An account that is gone: OK.",
          (S.REVOKE_AGAIN,), _is_gone(S.REVOKE_AGAIN, Result.PASS)),
    Check("revoke-gone", "A living account of a bucket that is gone: OK, and its key is refused.",
          (S.REVOKE_GONE,), judge_keys.revoke_gone),
    Check("key-works", "A key opens its bucket.", (S.GRANT_SECOND,), judge_keys.lone_key),
    Check("grant-at-once", f"{AT_ONCE} Grants at the same time: OK, each with its own account.",
          (S.GRANT,), judge_keys.granted),
    Check("keys-at-once", "Each of those keys opens its bucket.", (S.GRANT,), judge_keys.keys_work),
    Check("revoke-at-once", f"{AT_ONCE} Revokes at the same time: OK.",
          (S.GRANT,), judge_keys.revoked),
    Check("keys-after", "Each of those keys is refused afterwards.",
          (S.GRANT,), judge_keys.keys_are_refused),
    Check("delete", "DriverDeleteBucket removes the bucket.", (S.DELETE,), _succeeds(S.DELETE)),
    Check("delete-again", "A bucket that is gone: OK.",
          (S.DELETE, S.DELETE_AGAIN), _is_gone(S.DELETE_AGAIN, Result.WARN)),
    Check("grant-no-bucket-id", "Grant with an empty bucket_id: INVALID_ARGUMENT.",
          (S.GRANT_NO_BUCKET_ID,), _refuses(S.GRANT_NO_BUCKET_ID, _WRONG, other=Result.WARN)),
    Check("grant-no-name", "Grant with an empty name: INVALID_ARGUMENT.",
          (S.GRANT_NO_NAME,), _refuses(S.GRANT_NO_NAME, _WRONG, other=Result.WARN)),
    Check("revoke-no-bucket-id", "Revoke with an empty bucket_id: INVALID_ARGUMENT.",
          (S.REVOKE_NO_BUCKET_ID,), _refuses(S.REVOKE_NO_BUCKET_ID, _WRONG, other=Result.WARN)),
    Check("revoke-no-account-id", "Revoke with an empty account_id: INVALID_ARGUMENT.",
          (S.REVOKE_NO_ACCOUNT_ID,), _refuses(S.REVOKE_NO_ACCOUNT_ID, _WRONG, other=Result.WARN)),
    Check("delete-no-id", "Delete with an empty bucket_id: INVALID_ARGUMENT.",
          (S.DELETE_NO_ID,), _refuses(S.DELETE_NO_ID, _WRONG, other=Result.WARN)),
    Check("messages", "A refusal says why, on one line, without credentials.",
          (S.INFO,), _messages),
    Check("in-time", "Every call is answered within the time for one call.", (S.INFO,), _in_time),
    Check("stays-up", "No call ends the driver.", (S.INFO,), _stays_up),
    Check("removed", "Revoke and Delete have removed all that the check made.",
          (S.INFO,), _removed),
)  # fmt: skip

CALLS = (Call.CREATE_BUCKET, Call.GRANT_ACCESS, Call.REVOKE_ACCESS, Call.DELETE_BUCKET)
