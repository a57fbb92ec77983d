"""The next step for a BucketAccess, as a table; each id is the rule that its row states."""

from dataclasses import replace as change

import pytest
from msgspec.structs import replace
from tests.support.views import (
    ACCESS,
    AWAY,
    BACKING_OFF,
    CLAIM,
    DRIVER,
    GOING_ACCESS,
    GOING_CLAIM,
    GRANTED,
    INTENT,
    KEYS_CLASS,
    MARKED,
    MEANT,
    READY,
    READY_CLAIM,
    UP,
    judged,
    meta,
    with_context,
)

from cosi_operator.api.view import AuthenticationType, BucketAccess, ClaimRef, Key
from cosi_operator.outcome import (
    Call,
    Code,
    DriverStatus,
    Effect,
    MadeBy,
    Reason,
    Success,
    Terminal,
)
from cosi_operator.plan import names
from cosi_operator.plan.access import AccessView, driver_of, fold, is_clean, plan
from cosi_operator.plan.steps import (
    AccessDeleting,
    AccessIs,
    AccessStep,
    BackendGone,
    BackendIs,
    BucketIs,
    ClaimIs,
    Context,
    DeleteSecret,
    Done,
    DryRunSecret,
    EditBucketFinalizers,
    EditFinalizers,
    Fact,
    Grant,
    Granted,
    MarkPending,
    ReadAccessObject,
    ReadSecret,
    Revoke,
    Revoked,
    SecretAllowed,
    SecretIs,
    StoreSecret,
)

KEY = ACCESS.meta.key
SECRET = Key("team", "reader-keys")
NOTHING = Done(Success(), report=False)
FINE = Done(Success())
FREE = SecretIs(exists=False)
OURS = SecretIs(exists=True, ours=True, account_id="acct-7")
THEIRS = SecretIs(exists=True)
OK = Granted("acct-7")
GRANT = Grant("id-7", "ba-access-uid", AuthenticationType.KEY, {"role": "reader"})
RESOLVE = change(GRANT, resolving=True)
REVOKE = Revoke("id-7", "acct-7", {"role": "reader"})
MEAN_IT = EditFinalizers(KEY, add=(names.ACCESS_FINALIZER,), annotations=INTENT)
MARK = EditBucketFinalizers(MARKED.meta.key, add=(names.BUCKET_ACCESS_FINALIZER,))
UNMARK = EditBucketFinalizers(MARKED.meta.key, remove=(names.BUCKET_ACCESS_FINALIZER,))
LET_GO = EditFinalizers(KEY, remove=(names.ACCESS_FINALIZER,))
GOING = meta(MEANT, deleting=True, generation=2)  # its account was never learned
REFUSED = replace(MEANT, last_call=judged(Call.GRANT_ACCESS))
UNSURE = replace(MEANT, last_call=judged(Call.GRANT_ACCESS, Code.UNKNOWN, effect=Effect.MAYBE))


def seen(access: BucketAccess | None, context: Context = UP, **more: object) -> AccessView:
    given: dict[str, object] = {
        "access_class": KEYS_CLASS,
        "claim": READY_CLAIM,
        "bucket": MARKED,
        **more,
    }
    return AccessView(access=access, context=context, **given)  # type: ignore[arg-type]  # a table's shorthand


def free(access: BucketAccess, context: Context = UP, **more: object) -> AccessView:
    """The Secret's name was looked at, and is free and allowed."""
    return seen(access, context, **{"secret": FREE, "secret_allowed": True, **more})


def asked(access: BucketAccess, token: str = "1") -> BucketAccess:
    return meta(access, annotations={**access.meta.annotations, names.RETRY_ANNOTATION: token})


@pytest.mark.parametrize(
    ("view", "step"),
    [
        pytest.param(seen(None), NOTHING, id="an access that is gone needs nothing"),
        pytest.param(
            seen(ACCESS, access_class=replace(KEYS_CLASS, driver_name="other.example.com")),
            NOTHING,
            id="another driver's access is not touched",
        ),
        pytest.param(
            seen(ACCESS, access_class=None),
            NOTHING,
            id="without a class, and never begun, nobody knows whose it is",
        ),
        pytest.param(
            seen(ACCESS), ReadSecret(SECRET), id="the Secret's name is looked at before all else"
        ),
        pytest.param(
            seen(ACCESS, secret=FREE), DryRunSecret(SECRET), id="then whether it may be stored"
        ),
        pytest.param(free(ACCESS, bucket=READY), MEAN_IT, id="the intent is recorded"),
        pytest.param(
            free(
                meta(MEANT, annotations={**INTENT, names.BUCKET_ID_ANNOTATION: "old"}),
            ),
            MEAN_IT,
            id="an intent for another bucket is recorded anew",
        ),
        pytest.param(free(MEANT, bucket=READY), MARK, id="the Bucket is marked before the Grant"),
        pytest.param(free(MEANT), GRANT, id="then the driver is asked"),
        pytest.param(
            free(MEANT, granted=OK),
            StoreSecret(SECRET, "acct-7", "id-7"),
            id="keys are stored at once",
        ),
        pytest.param(
            seen(MEANT, AWAY, secret=FREE, granted=OK),
            StoreSecret(SECRET, "acct-7", "id-7"),
            id="keys in hand are stored even while the driver is away",
        ),
        pytest.param(
            seen(MEANT, BACKING_OFF, secret=FREE, granted=OK),
            StoreSecret(SECRET, "acct-7", "id-7"),
            id="keys in hand wait for no backoff",
        ),
        pytest.param(
            seen(MEANT, secret=OURS), FINE, id="a Secret that holds our keys: never Grant again"
        ),
        pytest.param(
            seen(MEANT, AWAY, secret=OURS),
            FINE,
            id="after a crash between Secret and status no driver is needed",
        ),
        pytest.param(seen(GRANTED), FINE, id="granted is granted: no request at all"),
        pytest.param(
            seen(asked(GRANTED)),
            ReadSecret(SECRET),
            id="a retry on a granted access looks whether the Secret is there",
        ),
        pytest.param(
            seen(
                asked(replace(GRANTED, last_call=judged(Call.GRANT_ACCESS, retry_token="1"))),
            ),
            FINE,
            id="a retry is followed once",
        ),
        pytest.param(
            seen(replace(GRANTED, account_id="")),
            ReadSecret(SECRET),
            id="granted without an account is not believed",
        ),
        pytest.param(
            free(asked(GRANTED)),
            REVOKE,
            id="the Secret is gone: the old account goes before new keys are made",
        ),
        pytest.param(
            free(asked(GRANTED), revoked=True), GRANT, id="once it is revoked, new keys are made"
        ),
        pytest.param(
            free(
                asked(
                    replace(
                        GRANTED,
                        granted=False,
                        last_call=judged(Call.REVOKE_ACCESS, retry_token="1|keys-uid:0"),
                    )
                ),
            ),
            Done(
                Terminal(
                    Reason.DRIVER_PERMISSION_DENIED,
                    "",
                    status=DriverStatus(Call.REVOKE_ACCESS, Code.PERMISSION_DENIED, MadeBy.DRIVER),
                ),
                report=False,
            ),
            id="a final Revoke on that way stands",
        ),
        pytest.param(
            seen(MEANT, secret=THEIRS, granted=OK),
            REVOKE,
            id="a name that was taken meanwhile: no key stays that no Secret holds",
        ),
        pytest.param(
            seen(MEANT, secret=FREE, secret_refused="quota", granted=OK),
            REVOKE,
            id="a Secret that is refused after the Grant: likewise",
        ),
        pytest.param(
            free(replace(REFUSED, last_call=judged(Call.GRANT_ACCESS, generation=0))),
            MarkPending(Call.GRANT_ACCESS),
            id="a stored denial is taken back before the driver is asked again",
        ),
        pytest.param(
            free(UNSURE, with_context(instance="two"), unproven=True),
            ReadAccessObject(UNSURE.meta.key),
            id="a copy that may be old is read before keys are minted",
        ),
        pytest.param(
            free(UNSURE, with_context(instance="two")),
            GRANT,
            id="a verdict that denied nothing needs no mark before the next call",
        ),
    ],
)
def test_grant(view: AccessView, step: AccessStep) -> None:
    assert plan(view) == step


@pytest.mark.parametrize(
    ("view", "reason", "waiting", "words"),
    [
        pytest.param(
            seen(MEANT, access_class=None),
            Reason.ACCESS_CLASS_NOT_FOUND,
            True,
            "BucketAccessClass keys, which does not exist",
            id="its class is gone",
        ),
        pytest.param(
            seen(ACCESS, access_class=replace(KEYS_CLASS, authentication_type="Password")),
            Reason.INVALID_SPEC,
            False,
            "authenticationType of BucketAccessClass keys is 'Password'",
            id="a way to authenticate that nobody knows",
        ),
        pytest.param(
            seen(ACCESS, access_class=replace(KEYS_CLASS, authentication_type="IAM")),
            Reason.INVALID_SPEC,
            False,
            "spec.serviceAccountName",
            id="IAM without a service account",
        ),
        pytest.param(
            seen(replace(ACCESS, secret_name="")),
            Reason.INVALID_SPEC,
            False,
            "spec.credentialsSecretName is empty",
            id="no name for the Secret",
        ),
        pytest.param(
            seen(replace(ACCESS, secret_name="team/Keys")),
            Reason.INVALID_SPEC,
            False,
            "spec.credentialsSecretName 'team/Keys' can't be the name of a Secret",
            id="a name that no Secret can have",
        ),
        pytest.param(
            seen(ACCESS, claim=None, bucket=None),
            Reason.CLAIM_NOT_FOUND,
            True,
            "BucketClaim team/photos, which does not exist",
            id="no such claim",
        ),
        pytest.param(
            seen(ACCESS, claim=GOING_CLAIM),
            Reason.BEING_DELETED,
            False,
            "team/photos is being deleted",
            id="the claim is being deleted",
        ),
        pytest.param(
            seen(ACCESS, bucket=meta(MARKED, deleting=True)),
            Reason.BEING_DELETED,
            False,
            "is being deleted",
            id="the Bucket is being deleted",
        ),
        pytest.param(
            seen(ACCESS, bucket=replace(MARKED, claim=ClaimRef("team", "photos", "other"))),
            Reason.BUCKET_ALREADY_BOUND,
            False,
            "bound to another BucketClaim",
            id="the Bucket is another claim's",
        ),
        pytest.param(
            seen(ACCESS, bucket=replace(MARKED, driver_name="other.example.com")),
            Reason.DRIVER_MISMATCH,
            False,
            "belongs to driver other.example.com",
            id="a class of one driver, a bucket of another",
        ),
        pytest.param(
            seen(ACCESS, claim=CLAIM, bucket=None),
            Reason.WAITING_FOR_BUCKET,
            True,
            "is not ready yet",
            id="the claim has no Bucket yet",
        ),
        pytest.param(
            seen(ACCESS, bucket=replace(MARKED, bucket_id="")),
            Reason.WAITING_FOR_BUCKET,
            True,
            "is not ready yet",
            id="a Bucket without an id: no driver is asked with an empty one",
        ),
        pytest.param(
            seen(ACCESS, secret=THEIRS),
            Reason.SECRET_NOT_OWNED,
            False,
            "spec.credentialsSecretName: Secret team/reader-keys exists",
            id="the Secret is someone else's",
        ),
        pytest.param(
            seen(ACCESS, secret=FREE, secret_refused="quota is used up"),
            Reason.SECRET_REFUSED,
            False,
            "quota is used up",
            id="the Secret may not be stored",
        ),
        pytest.param(
            seen(MEANT, secret=FREE, granted=Granted("acct-7", "the keys lack accessKeyID")),
            Reason.NO_CREDENTIALS,
            False,
            "",
            id="the driver gave no keys",
        ),
        pytest.param(
            seen(MEANT, secret=FREE, granted=Granted("", "account_id is empty")),
            Reason.EMPTY_ACCOUNT_ID,
            False,
            "",
            id="the driver gave no account",
        ),
        pytest.param(
            seen(ACCESS, AWAY, secret=FREE),
            Reason.WAITING_FOR_DRIVER,
            True,
            DRIVER,
            id="the driver is away",
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


@pytest.mark.parametrize(
    ("view", "step"),
    [
        pytest.param(
            seen(meta(GOING_ACCESS, finalizers=("a/b",))),
            NOTHING,
            id="without our finalizer: not ours",
        ),
        pytest.param(
            seen(GOING_ACCESS), ReadSecret(SECRET), id="the Secret may tell whose the account is"
        ),
        pytest.param(seen(GOING_ACCESS, secret=OURS), REVOKE, id="the keys end first"),
        pytest.param(
            seen(GOING_ACCESS, secret=OURS, access_class=None),
            change(REVOKE, context={}),
            id="a class that is gone does not keep keys alive",
        ),
        pytest.param(
            seen(GOING_ACCESS, secret=OURS, claim=None), REVOKE, id="nor does a claim that is gone"
        ),
        pytest.param(
            seen(GOING_ACCESS, secret=OURS, revoked=True),
            DeleteSecret(SECRET),
            id="then the Secret goes",
        ),
        pytest.param(
            seen(GOING_ACCESS, secret=THEIRS, revoked=True),
            UNMARK,
            id="a Secret of someone else stays",
        ),
        pytest.param(
            seen(GOING_ACCESS, secret=FREE, revoked=True),
            UNMARK,
            id="a Secret that was removed by hand blocks nothing",
        ),
        pytest.param(
            seen(GOING_ACCESS, secret=FREE, revoked=True, shared=True),
            LET_GO,
            id="the mark stays while another access needs it",
        ),
        pytest.param(
            seen(GOING_ACCESS, secret=FREE, revoked=True, bucket=READY),
            LET_GO,
            id="the finalizer goes last",
        ),
        pytest.param(
            seen(GOING_ACCESS, secret=FREE, bucket=None),
            LET_GO,
            id="a Bucket that was removed by force leaves nothing to ask",
        ),
        pytest.param(
            seen(GOING, secret=OURS), REVOKE, id="the account that only the Secret knows is revoked"
        ),
        pytest.param(
            seen(GOING, secret=change(OURS, account_id="")),
            change(REVOKE, account_id="ba-access-uid"),
            id="a Secret of the Go sidecar has no account: never Grant over keys, the name is it",
        ),
        pytest.param(
            seen(GOING, secret=FREE, granted=OK),
            REVOKE,
            id="the account whose keys are still in memory is revoked",
        ),
        pytest.param(
            seen(GOING, secret=FREE), RESOLVE, id="a Grant whose end is unknown is asked again"
        ),
        pytest.param(
            seen(GOING, secret=FREE, unproven=True),
            ReadAccessObject(GOING.meta.key),
            id="but not on a copy that may be old",
        ),
        pytest.param(
            seen(GOING, secret=FREE, bucket=READY),
            LET_GO,
            id="without the mark no Grant was made: nothing to ask",
        ),
        pytest.param(
            seen(meta(REFUSED, deleting=True), secret=FREE),
            UNMARK,
            id="a Grant that changed nothing leaves nothing to revoke",
        ),
        pytest.param(
            seen(replace(ACCESS, meta=GOING.meta, secret_name=""), bucket=None),
            LET_GO,
            id="without a Secret's name there is none to read",
        ),
    ],
)
def test_deletion(view: AccessView, step: AccessStep) -> None:
    assert plan(view) == step


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(seen(GOING_ACCESS, AWAY, secret=OURS), id="revoking"),
        pytest.param(seen(GOING, AWAY, secret=FREE), id="learning the account"),
    ],
)
def test_a_deletion_waits_for_a_driver_that_is_away(view: AccessView) -> None:
    step = plan(view)
    assert isinstance(step, Done)
    assert isinstance(step.outcome, Terminal)
    assert step.outcome.reason is Reason.WAITING_FOR_DRIVER


@pytest.mark.parametrize(
    ("view", "driver"),
    [
        pytest.param(seen(ACCESS), DRIVER, id="its class says it"),
        pytest.param(
            seen(MEANT, access_class=replace(KEYS_CLASS, driver_name="new.example.com")),
            DRIVER,
            id="its recorded intent comes first",
        ),
        pytest.param(
            seen(meta(ACCESS, finalizers=(names.ACCESS_FINALIZER,)), access_class=None),
            DRIVER,
            id="one that was begun by the Go sidecar is its Bucket's driver's",
        ),
        pytest.param(seen(ACCESS, access_class=None), "", id="else nobody's"),
        pytest.param(seen(None), "", id="none"),
    ],
)
def test_whose_an_access_is(view: AccessView, driver: str) -> None:
    assert driver_of(view) == driver


@pytest.mark.parametrize(
    ("access", "clean"),
    [
        pytest.param(ACCESS, True, id="before the finalizer no call can have been made"),
        pytest.param(REFUSED, True, id="a stored refusal proves that nothing was made"),
        pytest.param(MEANT, False, id="a finalizer without a verdict proves nothing"),
        pytest.param(UNSURE, False, id="an unknown end proves nothing"),
    ],
)
def test_what_is_known_of_earlier_grants(access: BucketAccess, clean: bool) -> None:
    assert is_clean(access) is clean


VIEW = seen(MEANT, granted=OK)


@pytest.mark.parametrize(
    ("fact", "expected"),
    [
        pytest.param(AccessIs(GRANTED), change(VIEW, access=GRANTED), id="an access as it now is"),
        pytest.param(BucketIs(READY), change(VIEW, bucket=READY), id="a Bucket as it now is"),
        pytest.param(OURS, change(VIEW, secret=OURS), id="a Secret"),
        pytest.param(SecretAllowed(), change(VIEW, secret_allowed=True), id="it may be stored"),
        pytest.param(
            SecretAllowed("no"), change(VIEW, secret_refused="no"), id="it may not be stored"
        ),
        pytest.param(Granted("b"), change(VIEW, granted=Granted("b")), id="an account"),
        pytest.param(
            Revoked(unverified=True),
            change(VIEW, revoked=True, granted=None, unverified=True),
            id="no account any more",
        ),
    ],
)
def test_a_fact_is_folded_into_the_view(fact: Fact, expected: AccessView) -> None:
    assert fold(VIEW, fact) == expected


@pytest.mark.parametrize(
    "fact",
    [ClaimIs(None), AccessDeleting(KEY), BackendIs("a"), BackendGone()],
    ids=lambda fact: type(fact).__name__,
)
def test_a_fact_of_another_kind_is_a_bug(fact: Fact) -> None:
    with pytest.raises(AssertionError, match="no step of a BucketAccess"):
        fold(VIEW, fact)
