"""New keys for an access that has some: on request, or before they expire."""

from dataclasses import replace as change
from datetime import timedelta

import pytest
from msgspec.structs import replace
from tests.support.views import (
    AWAY,
    BACKING_OFF,
    ENTRY,
    GRANTED,
    KEYS_CLASS,
    MARKED,
    NOW,
    READY,
    READY_CLAIM,
    STAMP,
    UP,
    judged,
    meta,
    with_context,
    with_entries,
)

from cosi_operator.api.record import NO_GRANT, AccessRecord
from cosi_operator.api.view import AuthenticationType, BucketAccess, Key
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
from cosi_operator.plan.access import is_rotation_due, plan, renewal_time
from cosi_operator.plan.access_view import ROTATE_TOKEN_LENGTH, AccessView, fold, judged_on
from cosi_operator.plan.facts import (
    AccessFact,
    BucketIs,
    CallFailed,
    Granted,
    Revoked,
    SecretIs,
    SecretStored,
)
from cosi_operator.plan.records import RecordEdit
from cosi_operator.plan.steps import (
    AccessStep,
    Context,
    Done,
    EditBucket,
    EditFinalizers,
    Grant,
    ReadAccessObject,
    ReadBucketObject,
    ReadSecret,
    Revoke,
    StoreSecret,
)

SECRET = Key("team", "reader-keys")
OURS = SecretIs(exists=True, ours=True, has_finalizer=True)
GRANT = Grant("id-7", "ba-access-uid", AuthenticationType.KEY, {"role": "reader"})
REPLACE = StoreSecret(SECRET, replace=True)
REVOKE_OLD = Revoke("id-7", "acct-7", {"role": "reader"})
NEW = Granted("acct-8")
MINTED = replace(ENTRY, accounts=("acct-7", "acct-8"), minted="acct-8")
BOTH = replace(ENTRY, accounts=("acct-7", "acct-8"), rotated="1")
ONLY_NEW = replace(ENTRY, accounts=("acct-8",), rotated="1")
LATER = "2026-05-06T08:08:09Z"  # an hour after NOW


def asking(token: str = "1", access: BucketAccess = GRANTED) -> BucketAccess:
    return meta(access, annotations={**access.meta.annotations, names.ROTATE_ANNOTATION: token})


def edit(seen: AccessRecord, entry: AccessRecord) -> EditBucket:
    return EditBucket(
        MARKED.meta.key,
        record=RecordEdit(bucket_id="id-7", access_uid="access-uid", seen=seen, entry=entry),
    )


def seen(
    access: BucketAccess | None = None,
    context: Context = UP,
    *,
    entry: AccessRecord = ENTRY,
    **more: object,
) -> AccessView:
    """A granted access whose Secret was read."""
    given: dict[str, object] = {
        "access_class": KEYS_CLASS,
        "claim": READY_CLAIM,
        "bucket": with_entries(MARKED, access_uid=entry),
        "secrets": {SECRET.name: OURS},
        "bucket_proven": True,
        **more,
    }
    return AccessView(access=access or asking(), context=context, **given)  # type: ignore[arg-type]  # a table's shorthand


@pytest.mark.parametrize(
    ("access", "entry", "due"),
    [
        pytest.param(GRANTED, ENTRY, False, id="no annotation, no expiry -> not due"),
        pytest.param(asking(""), ENTRY, False, id="empty annotation -> not due"),
        pytest.param(asking("1"), ENTRY, True, id="new annotation -> due"),
        pytest.param(asking("1"), replace(ENTRY, rotated="1"), False, id="followed -> not due"),
        pytest.param(asking("2"), replace(ENTRY, rotated="1"), True, id="another value -> due"),
        pytest.param(
            GRANTED, MINTED, True, id="the Secret may lack the newest keys -> due without a request"
        ),
        pytest.param(
            GRANTED, replace(ENTRY, rotated="1"), False, id="annotation removed -> not due"
        ),
        pytest.param(
            asking("1"), replace(ENTRY, accounts=()), False, id="no account -> a Grant, no rotation"
        ),
        pytest.param(GRANTED, replace(ENTRY, renew_at=LATER), False, id="expires later -> not due"),
        pytest.param(GRANTED, replace(ENTRY, renew_at=STAMP), True, id="to renew now -> due"),
        pytest.param(
            GRANTED,
            replace(ENTRY, renew_at="2026-05-06T07:08:08Z"),
            True,
            id="to renew before now -> due",
        ),
        pytest.param(
            GRANTED, replace(ENTRY, renew_at="soon"), True, id="time can't be read -> due"
        ),
        pytest.param(
            asking("a" * ROTATE_TOKEN_LENGTH + "b"),
            replace(ENTRY, rotated="a" * ROTATE_TOKEN_LENGTH),
            False,
            id="a long value -> only its start counts",
        ),
    ],
)
def test_when_a_rotation_is_due(access: BucketAccess, entry: AccessRecord, due: bool) -> None:
    assert is_rotation_due(access, seen(access, entry=entry)) is due


@pytest.mark.parametrize(
    ("view", "step"),
    [
        pytest.param(
            change(seen(), secrets={}), ReadSecret(SECRET), id="due -> the Secret is read"
        ),
        pytest.param(seen(), GRANT, id="our Secret -> Grant"),
        pytest.param(
            seen(bucket=with_entries(READY, access_uid=ENTRY)),
            change(edit(ENTRY, ENTRY), add=(names.BUCKET_ACCESS_FINALIZER,)),
            id="the mark was stripped from the Bucket -> put back before the Grant",
        ),
        pytest.param(
            seen(meta(asking(), finalizers=())),
            EditFinalizers(GRANTED.meta.key, add=(names.ACCESS_FINALIZER,)),
            id="the finalizer was stripped -> put back before the Grant",
        ),
        pytest.param(
            seen(unproven=True),
            ReadAccessObject(GRANTED.meta.key),
            id="the copy may be stale -> the access is read before the Grant",
        ),
        pytest.param(
            seen(context=BACKING_OFF),
            Done(Requeue(Reason.DRIVER_UNREACHABLE, "", after_s=12.5, quiet=True), report=False),
            id="a backoff -> the Grant waits",
        ),
        pytest.param(
            seen(entry=replace(ENTRY, unanswered=1, since=STAMP, last=STAMP)),
            Done(Requeue(Reason.DRIVER_DEADLINE, "", after_s=240.0, quiet=True), report=False),
            id="a Grant may still be at work -> waits for 4 call timeouts",
        ),
        pytest.param(
            seen(granted=NEW), edit(ENTRY, MINTED), id="another account -> recorded beside the old"
        ),
        pytest.param(seen(granted=NEW, entry=MINTED), REPLACE, id="recorded -> the Secret"),
        pytest.param(
            seen(granted=Granted("acct-7")), REPLACE, id="the same account -> the Secret at once"
        ),
        pytest.param(
            seen(granted=NEW, entry=MINTED, stored=SecretStored()),
            edit(MINTED, BOTH),
            id="stored -> the record says so, and the annotation is followed",
        ),
        pytest.param(
            seen(granted=NEW, entry=BOTH, stored=SecretStored()),
            REVOKE_OLD,
            id="followed -> the old account is revoked",
        ),
        pytest.param(
            seen(asking("2"), entry=BOTH),
            REVOKE_OLD,
            id="asked again while an old account is left -> it is revoked before another Grant",
        ),
        pytest.param(
            seen(asking("2"), entry=BOTH, context=BACKING_OFF),
            Done(Requeue(Reason.DRIVER_UNREACHABLE, "", after_s=12.5, quiet=True), report=False),
            id="asked again while the Revoke backs off -> no Grant",
        ),
        pytest.param(
            seen(granted=NEW, entry=BOTH, stored=SecretStored(), bucket_proven=False),
            ReadBucketObject(MARKED.meta.key),
            id="the record may be stale -> read before the Revoke",
        ),
        pytest.param(
            seen(granted=NEW, entry=BOTH, stored=SecretStored(), revoked=frozenset({"acct-7"})),
            edit(BOTH, ONLY_NEW),
            id="revoked -> the old account leaves the record",
        ),
        pytest.param(
            seen(
                granted=change(NEW, renew_at=LATER),
                entry=replace(MINTED, renew_at=STAMP),
                stored=SecretStored(),
            ),
            edit(replace(MINTED, renew_at=STAMP), replace(BOTH, renew_at=LATER)),
            id="the new keys expire too -> their time is recorded",
        ),
        pytest.param(
            seen(granted=Granted("acct-7"), stored=SecretStored("same")),
            edit(ENTRY, replace(ENTRY, rotated="1", keys="same")),
            id="the driver sent the same keys -> the annotation is followed all the same",
        ),
        pytest.param(
            seen(granted=NEW, entry=ONLY_NEW, stored=SecretStored()),
            Done(Success()),
            id="only the new account is left -> granted",
        ),
    ],
)
def test_rotation(view: AccessView, step: AccessStep) -> None:
    assert plan(view) == step


@pytest.mark.parametrize(
    ("entry", "step"),
    [
        pytest.param(ENTRY, GRANT, id="after the Grant -> granted again"),
        pytest.param(
            MINTED, GRANT, id="before the Secret is known -> granted again, nothing is forgotten"
        ),
        pytest.param(BOTH, REVOKE_OLD, id="after the Secret -> only the Revoke is repeated"),
        pytest.param(ONLY_NEW, Done(Success()), id="after the last edit -> finished"),
    ],
)
def test_crash_during_a_rotation(entry: AccessRecord, step: AccessStep) -> None:
    """The next process has no keys in hand, and reads the Secret anew."""
    assert plan(seen(entry=entry)) == step


def test_rotation_after_a_crash_revokes_every_account_but_the_newest() -> None:
    def holds(entry: AccessRecord) -> BucketIs:
        return BucketIs(with_entries(MARKED, access_uid=entry))

    third = replace(MINTED, accounts=("acct-7", "acct-8", "acct-9"), minted="acct-9")
    stored = replace(third, minted="", rotated="1")
    two, one = (replace(stored, accounts=left) for left in (("acct-8", "acct-9"), ("acct-9",)))
    view = seen(entry=MINTED)
    steps: list[tuple[AccessStep, AccessFact]] = [
        (GRANT, Granted("acct-9")),
        (edit(MINTED, third), holds(third)),
        (REPLACE, SecretStored()),
        (edit(third, stored), holds(stored)),
        (REVOKE_OLD, Revoked("acct-7")),
        (edit(stored, two), holds(two)),
        (change(REVOKE_OLD, account_id="acct-8"), Revoked("acct-8")),
        (edit(two, one), holds(one)),
    ]
    for step, fact in steps:
        assert plan(view) == step
        view = fold(view, fact)
    assert plan(view) == Done(Success())


def test_record_without_room_for_a_second_account_refuses_the_rotation_before_the_grant() -> None:
    many = {f"uid-{n}": replace(ENTRY, accounts=("a" * 2000,)) for n in range(120)}
    full = with_entries(MARKED, **many, access_uid=ENTRY)
    step = plan(seen(bucket=full))
    assert isinstance(step, Done)
    assert isinstance(step.outcome, Terminal)
    assert (step.outcome.reason, step.outcome.waiting) == (Reason.RECORD_FULL, True)
    pending = {f"uid-{n}": replace(ENTRY, accounts=()) for n in range(60)}
    later = plan(seen(bucket=with_entries(MARKED, **pending, access_uid=ENTRY)))
    assert isinstance(later, Done)
    assert isinstance(later.outcome, Terminal)
    assert later.outcome.reason is Reason.WAITING_FOR_TURN


@pytest.mark.parametrize(
    ("granted", "reason"),
    [
        pytest.param(
            Granted("acct-7", "no keys were sent", Code.ALREADY_EXISTS),
            Reason.NO_CREDENTIALS,
            id="an account without keys -> DriverReturnedNoCredentials, the Secret stays",
        ),
        pytest.param(
            Granted("", "account_id is empty"),
            Reason.EMPTY_ACCOUNT_ID,
            id="no account -> DriverReturnedEmptyAccountID, the Secret stays",
        ),
    ],
)
def test_bad_reply_to_a_rotation(granted: Granted, reason: Reason) -> None:
    reply = DriverStatus(Call.GRANT_ACCESS, granted.code, MadeBy.REPLY, granted.problem)
    assert plan(seen(granted=granted)) == Done(Terminal(reason, "", status=reply))


def refused(call: Call) -> CallFailed:
    status = DriverStatus(call, Code.PERMISSION_DENIED, MadeBy.DRIVER)
    return CallFailed(Terminal(Reason.DRIVER_PERMISSION_DENIED, "", status=status), Effect.NONE)


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(
            seen(failed=refused(Call.GRANT_ACCESS)), id="Grant refused -> reported, entry stays"
        ),
        pytest.param(
            seen(
                granted=NEW, entry=BOTH, stored=SecretStored(), failed=refused(Call.REVOKE_ACCESS)
            ),
            id="Revoke refused -> reported, both accounts stay recorded",
        ),
    ],
)
def test_refused_call_of_a_rotation(view: AccessView) -> None:
    assert view.failed is not None
    assert plan(view) == Done(view.failed.outcome)


@pytest.mark.parametrize("call", [Call.GRANT_ACCESS, Call.REVOKE_ACCESS])
def test_final_verdict_on_a_rotation_stands_until_the_annotation_changes(call: Call) -> None:
    token = judged_on(asking(), KEYS_CLASS)
    status = DriverStatus(call, Code.PERMISSION_DENIED, MadeBy.DRIVER)
    stood = Done(
        Terminal(Reason.DRIVER_PERMISSION_DENIED, "", status=status),
        report=False,
    )
    verdict = replace(asking(), last_call=judged(call, retry_token=token))
    assert plan(seen(verdict)) == stood
    assert plan(seen(asking("2", verdict))) == GRANT


def test_rotation_waits_for_a_driver_that_is_away() -> None:
    step = plan(seen(context=AWAY))
    assert isinstance(step, Done)
    assert isinstance(step.outcome, Terminal)
    assert step.outcome.reason is Reason.WAITING_FOR_DRIVER


def test_rotation_whose_secret_is_gone_is_a_new_grant() -> None:
    view = change(seen(), secrets={SECRET.name: SecretIs(exists=False)}, secret_allowed=True)
    ungranted = replace(ENTRY, grant=NO_GRANT)
    assert plan(view) == edit(ENTRY, ungranted)
    view = fold(view, BucketIs(with_entries(MARKED, access_uid=ungranted)))
    assert plan(view) == REVOKE_OLD
    view = fold(view, Revoked("acct-7"))
    none_left = replace(ungranted, accounts=())
    assert plan(view) == edit(ungranted, none_left)
    view = fold(view, BucketIs(with_entries(MARKED, access_uid=none_left)))
    assert plan(view) == GRANT
    view = fold(view, change(NEW, renew_at=LATER))
    granted = replace(ONLY_NEW, rotated="1", renew_at=LATER)
    assert plan(view) == edit(none_left, granted)
    view = fold(view, BucketIs(with_entries(MARKED, access_uid=granted)))
    assert plan(view) == StoreSecret(SECRET)
    view = fold(view, SecretStored())
    assert plan(view) == Done(Success(recheck_s=3600.0))


def test_keys_that_expire_are_looked_at_when_they_are_to_be_renewed() -> None:
    entry = replace(ENTRY, renew_at=LATER)
    assert plan(seen(GRANTED, entry=entry)) == Done(Success(recheck_s=3600.0))
    just_before = with_context(now=NOW + timedelta(seconds=3599.5))
    assert plan(seen(GRANTED, just_before, entry=entry)) == Done(Success(recheck_s=1.0))
    due = with_context(now=NOW + timedelta(seconds=3600))
    assert plan(seen(GRANTED, due, entry=entry)) == GRANT


def test_first_grant_follows_the_annotation_that_is_there() -> None:
    """An annotation from before the first Grant asks for no second one."""
    pending = replace(ENTRY, accounts=())
    view = seen(entry=pending, granted=Granted("acct-7", renew_at=LATER), secrets={})
    view = change(view, secrets={SECRET.name: SecretIs(exists=False)}, secret_allowed=True)
    assert plan(view) == edit(pending, replace(ENTRY, rotated="1", renew_at=LATER))


def test_spec_names_another_secret_than_the_record_and_the_recorded_one_is_rotated() -> None:
    moved = replace(asking(), secret_name="moved")
    assert plan(seen(moved, granted=NEW, entry=MINTED)) == REPLACE


def test_keys_that_expire_are_renewed_after_four_fifths_of_their_life() -> None:
    assert renewal_time("2026-05-06T07:18:09Z", NOW) == "2026-05-06T07:16:09Z"
    assert renewal_time(STAMP, NOW) == ""  # expired already: a renewal would not end
    assert renewal_time("soon", NOW) == ""
    assert renewal_time(None, NOW) == ""


@pytest.mark.parametrize(
    "renew_at",
    [
        pytest.param("2026-05-06T07:08:08Z", id="in the past -> a minute from now"),
        pytest.param("2026-05-06T07:09:08Z", id="in 59 s -> a minute from now"),
        pytest.param("soon", id="can't be read -> a minute from now"),
    ],
)
def test_keys_that_expire_at_once_do_not_mint_others_without_a_pause(renew_at: str) -> None:
    expiring = Granted("acct-7", renew_at=renew_at)
    entry = replace(ENTRY, renew_at=STAMP)
    renewed = replace(entry, renew_at="2026-05-06T07:09:09Z")
    view = seen(GRANTED, entry=entry, granted=expiring, stored=SecretStored())
    assert plan(view) == edit(entry, renewed)
    view = fold(view, BucketIs(with_entries(MARKED, access_uid=renewed)))
    assert plan(view) == Done(Success(recheck_s=60.0))


def test_secret_of_this_access_without_a_recorded_account_gets_the_new_keys() -> None:
    """The Secret is older than the record, or forged: its keys are none that can be revoked."""
    pending, due = replace(ENTRY, accounts=()), replace(ENTRY, minted="acct-7")
    view = seen(GRANTED, entry=pending)
    assert plan(view) == GRANT
    view = fold(view, Granted("acct-7"))
    assert plan(view) == edit(pending, due)
    crashed = seen(GRANTED, entry=due)
    assert plan(crashed) == GRANT, "the next process replaces the Secret"
    view = fold(view, BucketIs(with_entries(MARKED, access_uid=due)))
    assert plan(view) == REPLACE
    view = fold(view, SecretStored())
    assert plan(view) == edit(due, ENTRY)
    view = fold(view, BucketIs(with_entries(MARKED, access_uid=ENTRY)))
    assert plan(view) == Done(Success())
