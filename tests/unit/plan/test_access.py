"""The next step for a BucketAccess that is granted, as a table; each id states its row's rule."""

from dataclasses import replace as change
from datetime import timedelta

import pytest
from msgspec.structs import replace
from tests.support.views import (
    ACCESS,
    AWAY,
    BACKING_OFF,
    BEGUN,
    CLAIM,
    DRIVER,
    ENTRY,
    GOING_CLAIM,
    GRANTED,
    HELD,
    KEYS_CLASS,
    MARKED,
    NOW,
    PENDING_ENTRY,
    READY,
    READY_CLAIM,
    RECORD,
    RECORDED,
    STAMP,
    UNRECORDED,
    UP,
    judged,
    meta,
    with_context,
    with_entries,
)

from cosi_operator.api.record import (
    ENTRY_RESERVE_BYTES,
    NO_GRANT,
    RECORD_LIMIT_BYTES,
    AccessRecord,
    ClaimIdentity,
    encode_record,
)
from cosi_operator.api.view import AuthenticationType, Bucket, BucketAccess, ClaimRef, Key
from cosi_operator.outcome import (
    Call,
    Code,
    DriverStatus,
    Effect,
    MadeBy,
    Reason,
    Requeue,
    Success,
    Terminal,
)
from cosi_operator.plan import names
from cosi_operator.plan.access import plan
from cosi_operator.plan.access_entry import await_bucket
from cosi_operator.plan.access_view import AccessView, authentication_of, driver_of, fold, is_clean
from cosi_operator.plan.facts import (
    AccessFact,
    AccessIs,
    BucketIs,
    CallFailed,
    Granted,
    NothingToRevoke,
    Revoked,
    SecretAllowed,
    SecretIs,
    SecretStored,
    UsedByOthers,
)
from cosi_operator.plan.records import RecordEdit
from cosi_operator.plan.steps import (
    AccessStep,
    Context,
    Done,
    DryRunSecret,
    EditBucket,
    EditFinalizers,
    Grant,
    ReadAccessObject,
    ReadBucketObject,
    ReadClaim,
    ReadSecret,
    ReleaseSecret,
    Revoke,
    StoreSecret,
)

KEY = ACCESS.meta.key
SECRET = Key("team", "reader-keys")
NAME = SECRET.name
NOTHING = Done(Success(), report=False)
FINE = Done(Success())
FREE = SecretIs(exists=False)
OURS = SecretIs(exists=True, ours=True, has_finalizer=True)
OTHER_KEYS = SecretIs(exists=True, ours=True, has_finalizer=True, other_keys=True)
THEIRS = SecretIs(exists=True)
OK = Granted("acct-7")
GRANT = Grant("id-7", "ba-access-uid", AuthenticationType.KEY, {"role": "reader"})
REVOKE = Revoke("id-7", "acct-7", {"role": "reader"})
STORE = StoreSecret(SECRET)
HOLD = EditFinalizers(KEY, add=(names.ACCESS_FINALIZER,))
LET_GO = EditFinalizers(KEY, remove=(names.ACCESS_FINALIZER,))
UNGRANTED = replace(ENTRY, grant=NO_GRANT)
WAIT_FOR_RECORD = await_bucket(f"The record of Bucket {READY.meta.name} is not started yet.")
REFUSED = replace(HELD, last_call=judged(Call.GRANT_ACCESS))
UNSURE = replace(HELD, last_call=judged(Call.GRANT_ACCESS, Code.UNKNOWN, effect=Effect.MAYBE))


def edit(
    seen: AccessRecord | None,
    entry: AccessRecord | None,
    *,
    mark: bool = False,
    unmark: bool = False,
) -> EditBucket:
    """The edit of the access's entry; an entry also stores the bucket's id."""
    return EditBucket(
        MARKED.meta.key,
        add=(names.BUCKET_ACCESS_FINALIZER,) if mark else (),
        remove=(names.BUCKET_ACCESS_FINALIZER,) if unmark else (),
        record=RecordEdit(
            bucket_id="id-7" if entry else None, access_uid="access-uid", seen=seen, entry=entry
        ),
    )


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("Key", AuthenticationType.KEY),
        ("KEY", AuthenticationType.KEY),
        ("key", AuthenticationType.KEY),
        ("iam", AuthenticationType.IAM),
        ("IAM", AuthenticationType.IAM),
        ("Keys", AuthenticationType.UNKNOWN),
        ("K\u0130", AuthenticationType.UNKNOWN),
        ("", AuthenticationType.UNKNOWN),
    ],
)
def test_the_authentication_type_is_compared_without_regard_to_case(
    word: str, kind: AuthenticationType
) -> None:
    assert authentication_of(replace(KEYS_CLASS, authentication_type=word)) is kind


ENTER = edit(None, PENDING_ENTRY, mark=True)


def seen(
    access: BucketAccess | None,
    context: Context = UP,
    *,
    secret: SecretIs | None = None,
    **more: object,
) -> AccessView:
    given: dict[str, object] = {
        "access_class": KEYS_CLASS,
        "claim": READY_CLAIM,
        "bucket": MARKED,
        "claim_proven": True,
        "secrets": {NAME: secret} if secret else {},
        **more,
    }
    return AccessView(access=access, context=context, **given)  # type: ignore[arg-type]  # a table's shorthand


def free(access: BucketAccess, context: Context = UP, **more: object) -> AccessView:
    """The Secret's name was looked at, and is free and allowed."""
    return seen(access, context, **{"secret": FREE, "secret_allowed": True, **more})  # type: ignore[arg-type]


def begun(access: BucketAccess = HELD, context: Context = UP, **more: object) -> AccessView:
    """All is stored that precedes a Grant."""
    return free(access, context, **{"bucket": BEGUN, **more})


def asked(access: BucketAccess, token: str = "1") -> BucketAccess:
    return meta(access, annotations={**access.meta.annotations, names.RETRY_ANNOTATION: token})


def final(call: Call) -> Done:
    """The end of a run in which a stored refusal stands."""
    status = DriverStatus(call, Code.PERMISSION_DENIED, MadeBy.DRIVER)
    return Done(Terminal(Reason.DRIVER_PERMISSION_DENIED, "", status=status), report=False)


def full(bucket: Bucket) -> Bucket:
    """A Bucket whose record has no room for one more access."""
    count = 0
    while True:
        entries = {
            f"u{n}": AccessRecord("team", f"a{n}", accounts=("x" * 2000,)) for n in range(count)
        }
        filled = with_entries(bucket, **entries)
        assert filled.record is not None
        if len(encode_record(filled.record)) + ENTRY_RESERVE_BYTES > RECORD_LIMIT_BYTES:
            return filled
        count += 1


FULL = full(MARKED)
BUSY = with_entries(MARKED, **{f"u{n}": AccessRecord("team", f"a{n}") for n in range(60)})


@pytest.mark.parametrize(
    ("view", "step"),
    [
        pytest.param(seen(None), NOTHING, id="the access is gone -> nothing to do"),
        pytest.param(
            seen(ACCESS, access_class=replace(KEYS_CLASS, driver_name="other.example.com")),
            NOTHING,
            id="another driver's access -> not touched",
        ),
        pytest.param(
            seen(ACCESS, access_class=None, bucket=None),
            NOTHING,
            id="no class and no Bucket -> no driver's access",
        ),
        pytest.param(
            seen(ACCESS, bucket=UNRECORDED),
            WAIT_FOR_RECORD,
            id="the Bucket has no record yet -> its own run starts it first",
        ),
        pytest.param(
            seen(HELD, bucket=replace(UNRECORDED, ready=False)),
            WAIT_FOR_RECORD,
            id="the Bucket has an id and no record yet, and the access was begun -> waits for it",
        ),
        pytest.param(
            seen(ACCESS), ReadSecret(SECRET), id="new access -> the Secret's name is read first"
        ),
        pytest.param(
            seen(ACCESS, secret=FREE), DryRunSecret(SECRET), id="the name is free -> dry run"
        ),
        pytest.param(free(ACCESS, bucket=READY), HOLD, id="allowed -> finalizer on the access"),
        pytest.param(
            free(ACCESS, bucket=READY, claim_proven=False),
            ReadClaim(ACCESS.claim_key),
            id="allowed, the claim may be another one by now -> read it before anything is written",
        ),
        pytest.param(free(HELD, bucket=READY), ENTER, id="held -> entry and mark before the Grant"),
        pytest.param(
            free(HELD, bucket=with_entries(READY, access_uid=PENDING_ENTRY)),
            edit(PENDING_ENTRY, PENDING_ENTRY, mark=True),
            id="entry without the mark -> the mark is added before the Grant",
        ),
        pytest.param(
            free(
                HELD, bucket=with_entries(MARKED, access_uid=replace(PENDING_ENTRY, secret="old"))
            ),
            edit(replace(PENDING_ENTRY, secret="old"), PENDING_ENTRY, mark=True),
            id="entry without account names another Secret -> the entry is corrected",
        ),
        pytest.param(begun(), GRANT, id="entry and mark are stored -> Grant"),
        pytest.param(
            begun(granted=OK),
            edit(PENDING_ENTRY, ENTRY),
            id="keys in hand -> the account is recorded before the Secret",
        ),
        pytest.param(
            seen(HELD, bucket=RECORDED, secret=FREE, granted=OK),
            STORE,
            id="account recorded -> the keys are stored at once",
        ),
        pytest.param(
            seen(HELD, AWAY, bucket=RECORDED, secret=FREE, granted=OK),
            STORE,
            id="keys in hand and the driver is away -> stored",
        ),
        pytest.param(
            seen(HELD, BACKING_OFF, bucket=RECORDED, secret=FREE, granted=OK),
            STORE,
            id="keys in hand and a backoff -> stored",
        ),
        pytest.param(
            begun(REFUSED, bucket=RECORDED, granted=OK),
            STORE,
            id="keys in hand and a stored refusal -> stored",
        ),
        pytest.param(
            begun(secret=OURS),
            GRANT,
            id="a Secret names this access, but no account is recorded -> Grant",
        ),
        pytest.param(
            seen(HELD, bucket=RECORDED, secret=OURS, granted=OK),
            STORE,
            id="a Secret named this access before the Grant -> created, which compares its keys",
        ),
        pytest.param(
            seen(HELD, bucket=RECORDED, secret=OTHER_KEYS),
            edit(ENTRY, replace(ENTRY, minted="acct-7")),
            id="a Secret has other keys than the Grant -> the record says so, for a rotation",
        ),
        pytest.param(
            seen(HELD, bucket=RECORDED, secret=OURS, granted=OK, stored=SecretStored()),
            FINE,
            id="the Secret is stored -> granted",
        ),
        pytest.param(
            seen(HELD, bucket=RECORDED, secret=OURS),
            FINE,
            id="the Secret holds the keys of the recorded account -> no second Grant",
        ),
        pytest.param(
            seen(HELD, AWAY, bucket=RECORDED, secret=OURS),
            FINE,
            id="crash between Secret and status -> no driver is needed",
        ),
        pytest.param(
            seen(ACCESS, bucket=RECORDED, secret=OURS),
            HOLD,
            id="the finalizer was stripped -> it is put back",
        ),
        pytest.param(
            seen(GRANTED, bucket=RECORDED), FINE, id="granted and recorded -> no request at all"
        ),
        pytest.param(
            seen(GRANTED, bucket=RECORDED, claim=GOING_CLAIM),
            FINE,
            id="granted and the claim is being deleted -> still granted",
        ),
        pytest.param(
            seen(replace(GRANTED, account_id="forged"), bucket=RECORDED),
            FINE,
            id="the status names another account -> the record decides, the status is rewritten",
        ),
        pytest.param(
            seen(replace(GRANTED, granted=False), bucket=RECORDED),
            ReadSecret(SECRET),
            id="recorded but the status is empty -> the Secret is read",
        ),
        pytest.param(
            seen(GRANTED),
            ReadSecret(SECRET),
            id="a status says granted without an entry -> not believed",
        ),
        pytest.param(
            begun(GRANTED), GRANT, id="a status says granted, an entry has no account -> Grant"
        ),
        pytest.param(
            seen(asked(GRANTED), bucket=RECORDED),
            ReadSecret(SECRET),
            id="retry on a granted access -> the Secret is read",
        ),
        pytest.param(
            seen(
                asked(replace(GRANTED, last_call=judged(Call.GRANT_ACCESS, retry_token="1"))),
                bucket=RECORDED,
            ),
            FINE,
            id="a retry that was followed -> not followed again",
        ),
        pytest.param(
            free(asked(GRANTED), bucket=RECORDED),
            edit(ENTRY, UNGRANTED),
            id="the Secret is gone -> the record says first that no Secret has valid keys",
        ),
        pytest.param(
            free(asked(GRANTED), bucket=with_entries(MARKED, access_uid=UNGRANTED)),
            ReadBucketObject(MARKED.meta.key),
            id="the Secret is gone -> the record is read before its account is revoked",
        ),
        pytest.param(
            free(
                asked(GRANTED),
                bucket=with_entries(MARKED, access_uid=UNGRANTED),
                bucket_proven=True,
            ),
            REVOKE,
            id="the Secret is gone -> the old account is revoked before another is made",
        ),
        pytest.param(
            free(
                asked(GRANTED),
                bucket=with_entries(
                    MARKED, access_uid=replace(UNGRANTED, accounts=("ba-access-uid",))
                ),
            ),
            change(REVOKE, account_id="ba-access-uid"),
            id="the account contains the access's own UID -> revoked without a read",
        ),
        pytest.param(
            free(asked(GRANTED), BACKING_OFF, bucket=RECORDED, bucket_proven=True),
            Done(Requeue(Reason.DRIVER_UNREACHABLE, "", after_s=12.5, quiet=True), report=False),
            id="the Secret is gone during a backoff -> the Revoke waits",
        ),
        pytest.param(
            free(
                asked(GRANTED),
                bucket=RECORDED,
                bucket_proven=True,
                revoked=frozenset({"acct-7"}),
            ),
            edit(ENTRY, PENDING_ENTRY),
            id="the old account is revoked -> it leaves the record",
        ),
        pytest.param(
            begun(asked(GRANTED), revoked=frozenset({"acct-7"})),
            GRANT,
            id="no account is left -> new keys are made",
        ),
        pytest.param(
            begun(
                asked(
                    replace(
                        GRANTED,
                        granted=False,
                        last_call=judged(Call.REVOKE_ACCESS, retry_token="1|keys-uid:0"),
                    )
                ),
                bucket=RECORDED,
                bucket_proven=True,
            ),
            final(Call.REVOKE_ACCESS),
            id="a final Revoke of the old account -> stands",
        ),
        pytest.param(
            begun(replace(REFUSED, last_call=judged(Call.GRANT_ACCESS, retry_token="|keys-uid:0"))),
            final(Call.GRANT_ACCESS),
            id="a final Grant -> stands",
        ),
        pytest.param(
            begun(
                replace(REFUSED, last_call=judged(Call.GRANT_ACCESS, retry_token="|keys-uid:0")),
                access_class=replace(KEYS_CLASS, meta=replace(KEYS_CLASS.meta, generation=1)),
            ),
            GRANT,
            id="the class changed since a final Grant -> asked again",
        ),
        pytest.param(
            seen(HELD, bucket=RECORDED, bucket_proven=True, secret=THEIRS, granted=OK),
            REVOKE,
            id="the name was taken after the dry run -> the new account is revoked",
        ),
        pytest.param(
            seen(
                HELD,
                bucket=RECORDED,
                bucket_proven=True,
                secret=FREE,
                secret_refused="quota",
                granted=OK,
            ),
            REVOKE,
            id="the Secret is refused after the Grant -> the new account is revoked",
        ),
        pytest.param(
            begun(UNSURE, unproven=True),
            ReadAccessObject(UNSURE.meta.key),
            id="the copy may be stale -> the access is read before keys are minted",
        ),
        pytest.param(
            begun(UNSURE, with_context(instance="two")),
            GRANT,
            id="a verdict of an earlier driver process -> Grant",
        ),
    ],
)
def test_grant(view: AccessView, step: AccessStep) -> None:
    assert plan(view) == step


@pytest.mark.parametrize(
    ("view", "reason", "waiting", "words"),
    [
        pytest.param(
            seen(meta(ACCESS, oversized=True)),
            Reason.INVALID_OBJECT,
            False,
            "larger than 4 KiB",
            id="too large to be read -> InvalidObject",
        ),
        pytest.param(
            seen(HELD, access_class=None),
            Reason.ACCESS_CLASS_NOT_FOUND,
            True,
            "BucketAccessClass keys, which does not exist",
            id="the class is gone -> BucketAccessClassNotFound",
        ),
        pytest.param(
            seen(ACCESS, access_class=replace(KEYS_CLASS, authentication_type="IAM")),
            Reason.INVALID_SPEC,
            False,
            "spec.serviceAccountName",
            id="IAM without a service account -> InvalidSpec",
        ),
        pytest.param(
            seen(replace(ACCESS, secret_name="")),
            Reason.INVALID_SPEC,
            False,
            "spec.credentialsSecretName is empty",
            id="no name for the Secret -> InvalidSpec",
        ),
        pytest.param(
            seen(replace(ACCESS, secret_name="team/Keys")),
            Reason.INVALID_SPEC,
            False,
            "spec.credentialsSecretName 'team/Keys' is not a valid name of a Secret",
            id="a name that no Secret can have -> InvalidSpec",
        ),
        pytest.param(
            seen(
                replace(ACCESS, protocol="Azure"), bucket=replace(MARKED, protocols=("S3", "GCS"))
            ),
            Reason.INVALID_SPEC,
            False,
            "spec.protocol is Azure, but the bucket of BucketClaim team/photos supports S3, GCS.",
            id="a protocol that the Bucket does not have -> InvalidSpec",
        ),
        pytest.param(
            seen(ACCESS, claim=None, bucket=None),
            Reason.CLAIM_NOT_FOUND,
            True,
            "BucketClaim team/photos, which does not exist",
            id="no such claim -> BucketClaimNotFound",
        ),
        pytest.param(
            seen(ACCESS, claim=GOING_CLAIM),
            Reason.BEING_DELETED,
            False,
            "team/photos is being deleted",
            id="the claim is being deleted -> BeingDeleted",
        ),
        pytest.param(
            seen(ACCESS, bucket=meta(MARKED, deleting=True)),
            Reason.BEING_DELETED,
            False,
            "is being deleted",
            id="the Bucket is being deleted -> BeingDeleted",
        ),
        pytest.param(
            seen(
                ACCESS,
                bucket=replace(
                    MARKED,
                    record=replace(RECORD, claim=ClaimIdentity("team", "photos", "other")),
                ),
            ),
            Reason.WAITING_FOR_BUCKET,
            True,
            "is not ready yet",
            id="the record binds the Bucket to an earlier claim -> not ready",
        ),
        pytest.param(
            seen(
                ACCESS,
                claim=replace(CLAIM, bucket_name=MARKED.meta.name, ready=True),
                bucket=replace(
                    MARKED,
                    claim=ClaimRef("team", "photos"),
                    record=replace(RECORD, claim=ClaimIdentity()),
                ),
            ),
            Reason.WAITING_FOR_BUCKET,
            True,
            "is not ready yet",
            id="a reserved Bucket that only the claim's status names -> not ready",
        ),
        pytest.param(
            seen(ACCESS, bucket=replace(MARKED, driver_name="other", record=None)),
            Reason.DRIVER_MISMATCH,
            False,
            "belongs to driver other",
            id="a class of one driver, a bucket of another -> DriverMismatch, no wait for a record",
        ),
        pytest.param(
            seen(
                ACCESS,
                bucket=replace(MARKED, record=replace(RECORD, driver="other.example.com")),
            ),
            Reason.DRIVER_MISMATCH,
            False,
            "belongs to driver other.example.com",
            id="the record names another driver than the spec -> DriverMismatch",
        ),
        pytest.param(
            seen(HELD, access_class=replace(KEYS_CLASS, driver_name="other.example.com")),
            Reason.DRIVER_MISMATCH,
            False,
            "a class of driver other.example.com",
            id="the class of a begun access changed its driver -> DriverMismatch",
        ),
        pytest.param(
            seen(ACCESS, claim=CLAIM, bucket=None),
            Reason.WAITING_FOR_BUCKET,
            True,
            "is not ready yet",
            id="the claim has no Bucket yet -> WaitingForBucket",
        ),
        pytest.param(
            seen(ACCESS, bucket=replace(UNRECORDED, ready=False)),
            Reason.WAITING_FOR_BUCKET,
            True,
            "is not ready yet",
            id="the Bucket is not ready and has no record -> WaitingForBucket, reported",
        ),
        pytest.param(
            seen(ACCESS, bucket=replace(MARKED, bucket_id="")),
            Reason.WAITING_FOR_BUCKET,
            True,
            "is not ready yet",
            id="a Bucket without an id -> WaitingForBucket",
        ),
        pytest.param(
            seen(ACCESS, secret=THEIRS),
            Reason.SECRET_NOT_OWNED,
            False,
            "Secret team/reader-keys, which spec.credentialsSecretName names, exists",
            id="someone else's Secret -> SecretNotOwned",
        ),
        pytest.param(
            seen(ACCESS, secret=change(THEIRS, has_finalizer=True), may_release=False),
            Reason.SECRET_NOT_OWNED,
            False,
            "Secret team/reader-keys, which spec.credentialsSecretName names, exists",
            id="another access's Secret, whose owner was looked for -> SecretNotOwned",
        ),
        pytest.param(
            seen(ACCESS, secret=FREE, secret_refused="quota is used up"),
            Reason.SECRET_REFUSED,
            False,
            "quota is used up",
            id="the dry run is refused -> SecretRefused",
        ),
        pytest.param(
            begun(bucket=RECORDED, granted=Granted("acct-7", "the keys lack accessKeyID")),
            Reason.NO_CREDENTIALS,
            False,
            "",
            id="the driver sent no keys -> DriverReturnedNoCredentials",
        ),
        pytest.param(
            begun(granted=Granted("", "account_id is empty")),
            Reason.EMPTY_ACCOUNT_ID,
            False,
            "",
            id="the driver sent no account -> DriverReturnedEmptyAccountID",
        ),
        pytest.param(
            seen(ACCESS, AWAY, secret=FREE),
            Reason.WAITING_FOR_DRIVER,
            True,
            DRIVER,
            id="the driver does not answer -> WaitingForDriver",
        ),
        pytest.param(
            free(HELD, bucket=FULL),
            Reason.RECORD_FULL,
            True,
            f"already has {len(FULL.record.accesses)} accesses" if FULL.record else "",
            id="the record is full -> TooManyBucketAccesses before the Grant",
        ),
        pytest.param(
            free(HELD, bucket=BUSY),
            Reason.WAITING_FOR_TURN,
            True,
            "continues automatically",
            id="the record has no room while others wait for the driver -> WaitingForTurn",
        ),
    ],
)
def test_what_stands_in_the_way_is_named_with_its_field(
    view: AccessView, reason: Reason, waiting: bool, words: str
) -> None:
    step = plan(view)
    assert isinstance(step, Done)
    assert step.report
    assert isinstance(step.outcome, Terminal)
    assert (step.outcome.reason, step.outcome.waiting) == (reason, waiting)
    assert words in step.outcome.message


def test_a_bad_reply_is_reported_with_what_the_driver_answered() -> None:
    existed = Granted("ba-access-uid", "no keys were sent", Code.ALREADY_EXISTS)
    entry = replace(ENTRY, accounts=("ba-access-uid",))
    step = plan(begun(bucket=with_entries(MARKED, access_uid=entry), granted=existed))
    reply = DriverStatus(Call.GRANT_ACCESS, Code.ALREADY_EXISTS, MadeBy.REPLY, "no keys were sent")
    assert step == Done(Terminal(Reason.NO_CREDENTIALS, "", status=reply))


def test_full_record_and_a_known_access_grants_it() -> None:
    record = FULL.record
    assert record is not None
    bucket = with_entries(FULL, access_uid=PENDING_ENTRY, **record.accesses)
    assert plan(begun(bucket=bucket)) == GRANT


REFUSAL = CallFailed(
    Terminal(
        Reason.DRIVER_PERMISSION_DENIED,
        "",
        status=DriverStatus(Call.GRANT_ACCESS, Code.PERMISSION_DENIED, MadeBy.DRIVER),
    ),
    Effect.NONE,
)
UNCERTAIN = change(REFUSAL, effect=Effect.MAYBE)
REFUSED_REVOKE = CallFailed(
    Terminal(
        Reason.DRIVER_PERMISSION_DENIED,
        "",
        status=DriverStatus(Call.REVOKE_ACCESS, Code.PERMISSION_DENIED, MadeBy.DRIVER),
    ),
    Effect.NONE,
)


def timed_out(call: Call = Call.GRANT_ACCESS, after_s: float | None = 2.0) -> CallFailed:
    status = DriverStatus(call, Code.DEADLINE_EXCEEDED, MadeBy.DEADLINE)
    return CallFailed(
        Requeue(Reason.DRIVER_DEADLINE, "", after_s=after_s, status=status), Effect.MAYBE
    )


@pytest.mark.parametrize(
    ("view", "step"),
    [
        pytest.param(
            begun(clean=True, failed=REFUSAL),
            edit(PENDING_ENTRY, None, unmark=True),
            id="first Grant refused without effect -> the entry and the mark are removed",
        ),
        pytest.param(
            begun(clean=True, failed=REFUSAL, others_need_finalizer=True),
            edit(PENDING_ENTRY, None),
            id="refused and another access needs the mark -> only the entry is removed",
        ),
        pytest.param(
            free(HELD, clean=True, failed=REFUSAL),
            LET_GO,
            id="refused and no entry -> the finalizer is removed",
        ),
        pytest.param(
            free(ACCESS, clean=True, failed=REFUSAL),
            Done(REFUSAL.outcome),
            id="refused and nothing is held -> reported",
        ),
        pytest.param(
            begun(clean=False, failed=REFUSAL),
            Done(REFUSAL.outcome),
            id="refused after an earlier Grant of unknown result -> the entry stays",
        ),
        pytest.param(
            begun(clean=True, failed=UNCERTAIN),
            Done(UNCERTAIN.outcome),
            id="failed with an unknown effect -> the entry stays",
        ),
        pytest.param(
            begun(asked(GRANTED), clean=True, bucket=RECORDED, failed=REFUSED_REVOKE),
            Done(REFUSED_REVOKE.outcome),
            id="a Revoke is refused -> the entry stays",
        ),
        pytest.param(
            begun(clean=True, bucket=RECORDED, failed=REFUSAL),
            Done(REFUSAL.outcome),
            id="refused while an account is recorded -> the entry stays",
        ),
    ],
)
def test_failed_call(view: AccessView, step: AccessStep) -> None:
    assert plan(view) == step


def test_grant_of_a_new_access_refused_without_effect_leaves_nothing() -> None:
    view = free(ACCESS, bucket=READY, clean=is_clean(ACCESS, READY))
    assert plan(view) == HOLD
    view = fold(view, AccessIs(HELD))
    assert plan(view) == ENTER
    view = fold(view, BucketIs(BEGUN))
    assert plan(view) == GRANT
    view = fold(view, REFUSAL)
    assert plan(view) == edit(PENDING_ENTRY, None, unmark=True)
    view = fold(view, BucketIs(READY))
    assert plan(view) == LET_GO
    view = fold(view, AccessIs(ACCESS))
    assert plan(view) == Done(REFUSAL.outcome)


ONCE = replace(PENDING_ENTRY, unanswered=1, since=STAMP, last=STAMP)
ONCE_BUCKET = with_entries(MARKED, access_uid=ONCE)


def after(seconds: float) -> Context:
    return with_context(now=NOW + timedelta(seconds=seconds))


def unanswered_wait_of(seconds: float) -> Done:
    wait = Requeue(Reason.DRIVER_DEADLINE, "", after_s=seconds, quiet=True)
    return Done(wait, report=False)


@pytest.mark.parametrize(
    ("view", "step"),
    [
        pytest.param(
            begun(failed=timed_out()),
            edit(PENDING_ENTRY, ONCE),
            id="our deadline ended a Grant -> noted in the entry",
        ),
        pytest.param(
            begun(context=after(300), bucket=ONCE_BUCKET, failed=timed_out()),
            edit(
                ONCE,
                replace(ONCE, unanswered=2, last="2026-05-06T07:13:09Z"),
            ),
            id="a second time -> counted, the first time stays",
        ),
        pytest.param(
            begun(asked(GRANTED), bucket=RECORDED, failed=timed_out(Call.REVOKE_ACCESS)),
            Done(timed_out(Call.REVOKE_ACCESS).outcome),
            id="our deadline ended a Revoke -> not noted, a Revoke makes no account",
        ),
        pytest.param(
            begun(context=after(0), bucket=ONCE_BUCKET),
            unanswered_wait_of(240.0),
            id="just noted -> the next Grant waits for 4 call timeouts",
        ),
        pytest.param(
            begun(context=after(239), bucket=ONCE_BUCKET),
            unanswered_wait_of(1.0),
            id="a second is left, over restarts -> waits a second",
        ),
        pytest.param(
            begun(context=after(240), bucket=ONCE_BUCKET),
            GRANT,
            id="4 call timeouts are over -> Grant",
        ),
        pytest.param(
            begun(context=after(-3600), bucket=ONCE_BUCKET),
            unanswered_wait_of(240.0),
            id="the clock was set back -> waits 4 call timeouts, no longer",
        ),
        pytest.param(
            begun(
                context=after(0),
                bucket=with_entries(MARKED, access_uid=replace(ONCE, last="yesterday")),
            ),
            GRANT,
            id="the time can't be read -> no wait",
        ),
        pytest.param(
            begun(
                context=with_context(now=NOW + timedelta(seconds=39), call_timeout_s=10.0),
                bucket=ONCE_BUCKET,
            ),
            unanswered_wait_of(1.0),
            id="a call timeout of 10 s -> waits 40 s",
        ),
    ],
)
def test_unanswered_grant(view: AccessView, step: AccessStep) -> None:
    assert plan(view) == step


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        pytest.param(
            ONCE,
            f"1 driver call got no answer since {STAMP}, so the backend may hold up to 1 accounts"
            " named ba-access-uid",
            id="once -> 1 account",
        ),
        pytest.param(
            replace(ONCE, unanswered=3),
            f"3 driver calls got no answer since {STAMP}, so the backend may hold up to 3 accounts"
            " named ba-access-uid",
            id="three times -> 3 accounts",
        ),
    ],
)
def test_noted_timeout_is_reported_with_the_accounts_it_may_have_left(
    entry: AccessRecord, words: str
) -> None:
    failed = timed_out()
    step = plan(begun(bucket=with_entries(MARKED, access_uid=entry), failed=failed))
    assert isinstance(step, Done)
    assert isinstance(step.outcome, Requeue)
    assert step.report
    assert (step.outcome.reason, step.outcome.status) == (
        Reason.DRIVER_DEADLINE,
        failed.outcome.status,
    )
    assert step.outcome.after_s == 240.0
    assert step.outcome.message.startswith(words)


def test_driver_failure_after_a_timeout_keeps_its_backoff_and_names_the_accounts() -> None:
    status = DriverStatus(Call.GRANT_ACCESS, Code.UNAVAILABLE, MadeBy.DRIVER)
    failed = CallFailed(
        Requeue(Reason.DRIVER_UNAVAILABLE, "", after_s=2.0, status=status), Effect.MAYBE
    )
    step = plan(begun(context=after(300), bucket=ONCE_BUCKET, failed=failed))
    assert isinstance(step, Done)
    assert isinstance(step.outcome, Requeue)
    assert step.outcome.after_s == 2.0
    assert "may hold up to 1 accounts" in step.outcome.message


@pytest.mark.parametrize(
    ("view", "driver"),
    [
        pytest.param(seen(ACCESS), DRIVER, id="its class names a driver -> that driver"),
        pytest.param(
            seen(
                GRANTED,
                bucket=RECORDED,
                access_class=replace(KEYS_CLASS, driver_name="new.example.com"),
            ),
            DRIVER,
            id="recorded in a Bucket -> the driver of the record, whatever the class says",
        ),
        pytest.param(
            seen(HELD, access_class=replace(KEYS_CLASS, driver_name="new.example.com")),
            DRIVER,
            id="a Grant was begun -> the driver of the Bucket",
        ),
        pytest.param(
            seen(ACCESS, access_class=replace(KEYS_CLASS, driver_name="new.example.com")),
            "new.example.com",
            id="nothing was begun -> the driver of the class",
        ),
        pytest.param(
            seen(HELD, access_class=None),
            DRIVER,
            id="begun, class gone -> the driver of the Bucket",
        ),
        pytest.param(
            seen(
                GRANTED,
                bucket=replace(RECORDED, driver_name="new.example.com"),
                access_class=None,
            ),
            DRIVER,
            id="spec.driverName was changed -> the recorded driver",
        ),
        pytest.param(
            seen(ACCESS, access_class=None), DRIVER, id="no class, nothing begun -> of the Bucket"
        ),
        pytest.param(
            seen(HELD, access_class=None, bucket=None), "", id="no Bucket, no class -> none"
        ),
        pytest.param(seen(None), "", id="no access -> none"),
    ],
)
def test_driver_of_an_access(view: AccessView, driver: str) -> None:
    assert driver_of(view) == driver


@pytest.mark.parametrize(
    ("access", "bucket", "clean"),
    [
        pytest.param(None, None, True, id="no access -> clean"),
        pytest.param(ACCESS, None, True, id="no Bucket -> clean"),
        pytest.param(ACCESS, MARKED, True, id="no entry -> clean, an entry precedes every Grant"),
        pytest.param(HELD, MARKED, True, id="a finalizer without an entry -> clean"),
        pytest.param(HELD, BEGUN, False, id="an entry without an account -> not clean"),
        pytest.param(REFUSED, BEGUN, False, id="an entry and a forged refusal -> not clean"),
        pytest.param(GRANTED, RECORDED, False, id="an entry with an account -> not clean"),
    ],
)
def test_what_is_known_of_earlier_grants(
    access: BucketAccess | None, bucket: Bucket | None, clean: bool
) -> None:
    assert is_clean(access, bucket) is clean


VIEW = begun(granted=OK, revoked=frozenset({"acct-6", "acct-8"}))
OTHER_BUCKET = meta(READY, uid="successor")


@pytest.mark.parametrize(
    ("fact", "expected"),
    [
        pytest.param(
            AccessIs(GRANTED), change(VIEW, access=GRANTED), id="AccessIs -> the access, proven"
        ),
        pytest.param(
            BucketIs(READY),
            change(VIEW, bucket=READY, bucket_proven=True),
            id="BucketIs -> the Bucket, proven",
        ),
        pytest.param(
            BucketIs(None),
            change(VIEW, vanished=True, bucket_proven=True),
            id="BucketIs none -> vanished, kept as it was",
        ),
        pytest.param(
            BucketIs(OTHER_BUCKET),
            change(VIEW, vanished=True, bucket_proven=True),
            id="BucketIs a successor of the same name -> vanished, kept as it was",
        ),
        pytest.param(
            OURS, change(VIEW, secrets={NAME: OURS}), id="SecretIs without a name -> the Secret"
        ),
        pytest.param(
            change(THEIRS, name="other"),
            change(VIEW, secrets={NAME: FREE, "other": change(THEIRS, name="other")}),
            id="SecretIs with a name -> that Secret",
        ),
        pytest.param(
            SecretStored("same"),
            change(VIEW, stored=SecretStored("same"), secrets={NAME: OURS}),
            id="SecretStored -> ours",
        ),
        pytest.param(SecretAllowed(), VIEW, id="SecretAllowed -> allowed"),
        pytest.param(
            SecretAllowed("no"),
            change(VIEW, secret_allowed=False, secret_refused="no"),
            id="SecretAllowed refused -> the reason",
        ),
        pytest.param(
            Granted("acct-8"),
            change(VIEW, granted=Granted("acct-8"), revoked=frozenset({"acct-6"})),
            id="Granted -> in hand, and no longer revoked",
        ),
        pytest.param(
            Revoked("acct-7"),
            change(VIEW, revoked=frozenset({"acct-6", "acct-7", "acct-8"})),
            id="Revoked -> that account",
        ),
        pytest.param(
            NothingToRevoke(),
            change(VIEW, nothing_to_revoke=True),
            id="NothingToRevoke -> every account is gone",
        ),
        pytest.param(
            UsedByOthers("acct-8"),
            change(VIEW, used_by_others=VIEW.used_by_others | {"acct-8"}),
            id="UsedByOthers -> that account is another's too",
        ),
        pytest.param(
            REFUSAL,
            change(VIEW, failed=REFUSAL, judged=HELD),
            id="CallFailed -> failed, for the access as it was",
        ),
    ],
)
def test_a_fact_is_folded_into_the_view(fact: AccessFact, expected: AccessView) -> None:
    assert fold(change(VIEW, unproven=False), fact) == expected


def test_access_is_ends_the_doubt_about_the_copy() -> None:
    assert not fold(change(VIEW, unproven=True), AccessIs(HELD)).unproven
    assert fold(change(VIEW, unproven=True), BucketIs(BEGUN)).unproven


def test_credentials_of_a_revoked_account_are_no_longer_in_hand() -> None:
    view = begun(granted=OK)
    assert view.unstored_grant == OK
    assert fold(view, Revoked("acct-7")).unstored_grant is None
    assert fold(view, Revoked("acct-8")).unstored_grant == OK


def test_a_secret_with_our_finalizer_that_is_not_ours_is_released_before_it_is_refused() -> None:
    """A restore brought it back: with the finalizer its namespace could never be deleted."""
    view = seen(ACCESS, secret=change(THEIRS, has_finalizer=True))
    assert plan(view) == ReleaseSecret(SECRET)
    step = plan(fold(view, change(THEIRS, name=SECRET.name)))
    assert isinstance(step, Done)
    assert isinstance(step.outcome, Terminal)
    assert step.outcome.reason is Reason.SECRET_NOT_OWNED
