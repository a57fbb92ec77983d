"""The calls of a check, in an order that is safe for a driver with data: create, grant, take back.

What it may touch: an id that the driver gave for one of our names, and for that name alone. A
driver that gives two of our names one id hands out something that may not be ours: from then on
nothing is granted, revoked or deleted. Likewise an account given for two names is not revoked. An
empty id is sent only with `include_dangerous`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import anyio

from cosi_operator.api.view import AuthenticationType
from cosi_operator.cli.driver_check.at_once import Calls, grant_and_revoke
from cosi_operator.cli.driver_check.judge_keys import KEY_IS_GONE
from cosi_operator.cli.driver_check.keys import Keys, KeyTrialError
from cosi_operator.cli.driver_check.options import Options
from cosi_operator.cli.driver_check.reasons import (
    COMMON,
    DANGEROUS,
    EMPTY_IDS,
    HUNG,
    MOST_LATE,
    NO_ACCOUNT,
    NO_BUCKET,
    NOT_OURS,
)
from cosi_operator.cli.driver_check.seen import (
    AT_ONCE,
    CallResult,
    CheckRecord,
    KeyTrial,
    Step,
    without_credentials,
)
from cosi_operator.cli.driver_check.send import Sender
from cosi_operator.clock import Clock
from cosi_operator.driver.errors import DriverError
from cosi_operator.driver.probe import GrantReply, Probe
from cosi_operator.outcome import Call, Code, DriverStatus, MadeBy

ABANDON_S = 0.01  # how soon the one call is given up that is given up on purpose


async def examine(
    probe: Probe, clock: Clock, options: Options, prefix: str, keys: Keys | None = None
) -> CheckRecord:
    """Ask everything, remove what was made (also when cancelled), and say what was seen.

    Args:
        prefix: starts the name of all that is made; must be used by nothing else.
        keys: tries the keys on S3; None leaves them alone.
    """
    run = _Run(probe, clock, options, prefix, keys)
    try:
        await run.ask_all()
    finally:
        with anyio.CancelScope(shield=True):
            await run.clean_up()
    return run.seen()


class _Run:
    def __init__(
        self, probe: Probe, clock: Clock, options: Options, prefix: str, keys: Keys | None
    ) -> None:
        self._probe = probe
        self._clock = clock
        self._options = options
        self._prefix = prefix
        self._send = Sender(probe, options)
        self._keys = keys
        self._trials: tuple[KeyTrial, ...] = ()
        self._no_trials = ""
        self._lone_key: str | None = None
        self._orphan_key: str | None = None
        self._s3_problem = ""
        self._asked: dict[Step, CallResult] = {}
        self._skipped: dict[Step, str] = {}
        self._cleanup: list[CallResult] = []
        self._left: list[str] = []
        self._late = 0
        self._name_of: dict[str, str] = {}  # by bucket id
        self._gone: set[str] = set()  # bucket ids
        self._shared = False
        self._unsure: dict[str, None] = {}  # names whose Create may have made something
        self._accounts: dict[str, str] = {}  # the bucket's id by the account's
        self._named: dict[str, str] = {}  # what an account was granted for, by its id
        self._common: set[str] = set()  # accounts that were given for two names

    def seen(self) -> CheckRecord:
        return without_credentials(
            CheckRecord(
                options=self._options,
                asked=self._asked,
                skipped=self._skipped,
                cleanup=tuple(self._cleanup),
                left=tuple(self._left),
                name_of_first=f"{self._prefix}-1",
                at_once=self._trials,
                at_once_skipped=self._no_trials,
                lone_key=self._lone_key,
                orphan_key=self._orphan_key,
                s3_problem=self._s3_problem,
            )
        )

    async def ask_all(self) -> None:
        await self._info(Step.INFO)
        if not self._asked[Step.INFO].ok:
            return
        self._probe.serve_only(self._asked[Step.INFO].reply, timeout_s=self._options.timeout_s)
        await self._info(Step.INFO_AGAIN)
        await self._ask_creates()
        bucket_id, second = self._id_of("1"), self._id_of("2")
        await self._ask_grants(bucket_id)
        await self._ask_at_once(bucket_id, self._id_of("4"))
        account = self._account_of(Step.GRANT)
        await self._revoke(Step.REVOKE, bucket_id, account)
        await self._revoke(Step.REVOKE_AGAIN, bucket_id, account)
        await self._delete(Step.DELETE, second)
        await self._delete(Step.DELETE_AGAIN, second)
        is_gone = Step.DELETE in self._asked and self._asked[Step.DELETE].ok
        await self._grant(Step.GRANT_GONE, second if is_gone else "", "3")
        await self._ask_orphan(self._id_of("3"))

    async def _ask_creates(self) -> None:
        options = self._options
        other = {**options.parameters, "cosiCheckUnknown": "1"}
        await self._create(Step.CREATE, "1")
        await self._create(Step.CREATE_AGAIN, "1")
        if self._id_of("1"):
            changed = replace(options, parameters=other)
            await self._create(Step.CREATE_OTHER, "1", changed)
        else:
            self._skipped[Step.CREATE_OTHER] = NO_BUCKET
        await self._create(Step.CREATE_SECOND, "2")
        async with anyio.create_task_group() as both:
            both.start_soon(self._create, Step.AT_ONCE_1, "3")
            both.start_soon(self._create, Step.AT_ONCE_2, "3")
        await self._create(Step.ABANDONED, "4", replace(options, timeout_s=ABANDON_S))
        await self._create(Step.REPEATED, "4")
        await self._create(Step.BAD_NAME, "Bad..Name_")

    async def _ask_grants(self, bucket_id: str) -> None:
        await self._grant(Step.GRANT, bucket_id, "1")
        await self._grant(Step.GRANT_AGAIN, bucket_id, "1")
        await self._grant(Step.GRANT_SECOND, bucket_id, "4")
        if (alone := self._asked.get(Step.GRANT_SECOND)) and alone.ok:
            self._lone_key = await self._answer(bucket_id, alone, expect_accepted=True)
        unknown = AuthenticationType.UNKNOWN
        await self._grant(Step.GRANT_UNKNOWN_TYPE, bucket_id, "2", unknown)

    async def _ask_at_once(self, *bucket_ids: str) -> None:
        """Grant and revoke many at the same time, over two buckets if there are."""
        ours = [bucket_id for bucket_id in bucket_ids if bucket_id]
        granted = self._asked.get(Step.GRANT)
        if self._shared or not ours:
            self._no_trials = NOT_OURS if self._shared else NO_BUCKET
        elif self._late >= MOST_LATE:
            self._no_trials = HUNG
        elif granted is None or not granted.ok or self._common:
            self._no_trials = COMMON if self._common else "a single Grant failed"
        else:
            calls = Calls(
                grant=self._granted,
                revoke=self._revoked,
                answer=lambda bucket_id, asked, accepted: self._answer(
                    bucket_id, asked, expect_accepted=accepted
                ),
            )
            places = [
                (ours[number % len(ours)], f"{self._prefix}-o{number}") for number in range(AT_ONCE)
            ]
            self._trials = await grant_and_revoke(calls, places)

    async def _ask_orphan(self, bucket_id: str) -> None:
        """Remove a bucket while an account of it exists, then revoke that account."""
        await self._grant(Step.GRANT_ORPHAN, bucket_id, "5")
        account = self._account_of(Step.GRANT_ORPHAN)
        if account and account not in self._common:
            await self._delete(Step.DELETE_GRANTED, bucket_id)
        deleted = self._asked.get(Step.DELETE_GRANTED)
        if deleted is None or not deleted.ok:
            self._skipped[Step.REVOKE_GONE] = (
                "a bucket that has an account can't be removed" if deleted else NO_ACCOUNT
            )
            return
        await self._revoke(Step.REVOKE_GONE, bucket_id, account)
        asked = self._asked.get(Step.REVOKE_GONE)
        if asked is None or not (asked.ok or asked.refused is Code.NOT_FOUND):
            return
        granted = self._asked[Step.GRANT_ORPHAN]
        self._orphan_key = await self._answer(bucket_id, granted, expect_accepted=False)
        self._accounts.pop(account, None)
        if not asked.ok and self._orphan_key not in KEY_IS_GONE:
            self._left.append(f"account {account}, whose bucket was removed before it was revoked")

    async def clean_up(self) -> None:
        """Take back what is known to be ours, then, if asked for, send the empty ids."""
        if self._shared:
            self._left += [f"bucket {name} ({NOT_OURS})" for name in self._name_of.values()]
        else:
            await self._take_back()
        self._left += [f"bucket {name}, if the driver made it" for name in self._unsure]
        if self._options.include_dangerous:
            await self._ask_dangerous()
        else:
            for step in EMPTY_IDS:
                self._skipped[step] = DANGEROUS

    async def _take_back(self) -> None:
        for account_id, bucket_id in self._accounts.items():
            if account_id in self._common:
                self._left.append(f"account {account_id} ({COMMON})")
            elif not await self._clean(
                Call.REVOKE_ACCESS, self._send.revoking(bucket_id, account_id)
            ):
                self._left.append(f"account {account_id} of bucket {bucket_id}")
        for bucket_id, name in self._name_of.items():
            if bucket_id in self._gone:
                continue
            if not await self._clean(Call.DELETE_BUCKET, self._send.deleting(bucket_id)):
                self._left.append(f"bucket {name} (id {bucket_id})")

    async def _ask_dangerous(self) -> None:
        if Step.INFO_AGAIN not in self._asked:
            return
        id_, account = f"{self._prefix}-gone", f"{self._prefix}-gone"
        sent: dict[Step, tuple[Call, Callable[[], Awaitable[str | GrantReply]]]] = {
            Step.NO_NAME: (Call.CREATE_BUCKET, self._send.creating("", self._options)),
            Step.GRANT_NO_BUCKET_ID: (Call.GRANT_ACCESS, self._send.granting("", account)),
            Step.GRANT_NO_NAME: (Call.GRANT_ACCESS, self._send.granting(id_, "")),
            Step.REVOKE_NO_BUCKET_ID: (Call.REVOKE_ACCESS, self._send.revoking("", account)),
            Step.REVOKE_NO_ACCOUNT_ID: (Call.REVOKE_ACCESS, self._send.revoking(id_, "")),
            Step.DELETE_NO_ID: (Call.DELETE_BUCKET, self._send.deleting("")),
        }
        for step, (call, ask) in sent.items():
            asked = await self._ask(step, call, ask)
            if asked and asked.ok and call is Call.GRANT_ACCESS:
                self._left.append(f"account {asked.reply or account}, made by {step}")
            if asked and asked.ok and call is Call.CREATE_BUCKET:
                self._left.append(f"bucket without a name (id {asked.reply}): it may not be ours")

    # --- one call each

    async def _info(self, step: Step) -> None:
        timeout_s = self._options.timeout_s
        await self._ask(step, Call.GET_INFO, lambda: self._probe.get_info(timeout_s=timeout_s))

    async def _create(self, step: Step, ending: str, options: Options | None = None) -> None:
        name = f"{self._prefix}-{ending}"
        asked = await self._ask(
            step, Call.CREATE_BUCKET, self._send.creating(name, options or self._options)
        )
        if asked is None:
            return
        if asked.ok and asked.reply:
            self._shared = self._shared or self._name_of.get(asked.reply, name) != name
            self._name_of.setdefault(asked.reply, name)
            self._unsure.pop(name, None)
        elif not self._id_of(ending) and (asked.ok or _may_have_acted(asked)):
            self._unsure[name] = None

    async def _grant(
        self,
        step: Step,
        bucket_id: str,
        ending: str,
        kind: AuthenticationType | None = None,
    ) -> None:
        if not self._may_use(step, bucket_id):
            return
        name = f"{self._prefix}-a{ending}"
        asked = await self._ask(step, Call.GRANT_ACCESS, self._send.granting(bucket_id, name, kind))
        if asked is not None:
            self._note_grant(asked, bucket_id, name)

    async def _granted(self, bucket_id: str, name: str) -> CallResult:
        asked = await self._timed(
            Call.GRANT_ACCESS, self._send.granting(bucket_id, name), counted=True
        )
        self._note_grant(asked, bucket_id, name)
        return asked

    async def _revoked(self, bucket_id: str, account_id: str) -> CallResult | None:
        if account_id in self._common:
            return None
        asked = await self._timed(
            Call.REVOKE_ACCESS, self._send.revoking(bucket_id, account_id), counted=True
        )
        if asked.ok:
            self._accounts.pop(account_id, None)
        return asked

    async def _answer(
        self, bucket_id: str, asked: CallResult, *, expect_accepted: bool
    ) -> str | None:
        """What S3 says to the key of a Grant; None if that can't be seen."""
        credentials = asked.grant.credentials if asked.grant else None
        if self._keys is None or credentials is None or credentials.s3 is None:
            return None
        names = tuple(dict.fromkeys((bucket_id, self._name_of[bucket_id])))

        def is_expected(answer: str) -> bool:
            return (answer == "") is expect_accepted

        try:
            return await self._keys.answer(credentials.s3, names, is_expected)
        except KeyTrialError as error:
            self._s3_problem = str(error)
            return None

    def _note_grant(self, asked: CallResult, bucket_id: str, name: str) -> None:
        """Remember what to take back."""
        if asked.ok and asked.reply:
            if self._named.setdefault(asked.reply, name) != name:
                self._common.add(asked.reply)
            self._accounts[asked.reply] = bucket_id
        elif _may_have_acted(asked) or asked.ok:
            self._left.append(f"account {name} of bucket {bucket_id}, if the driver made it")

    async def _revoke(self, step: Step, bucket_id: str, account_id: str) -> None:
        if not self._may_use(step, bucket_id):
            return
        if not account_id or account_id in self._common:
            self._skipped[step] = COMMON if account_id else NO_ACCOUNT
            return
        asked = await self._ask(
            step, Call.REVOKE_ACCESS, self._send.revoking(bucket_id, account_id)
        )
        if asked and asked.ok:
            self._accounts.pop(account_id, None)

    async def _delete(self, step: Step, bucket_id: str) -> None:
        if not self._may_use(step, bucket_id):
            return
        asked = await self._ask(step, Call.DELETE_BUCKET, self._send.deleting(bucket_id))
        if asked and asked.ok:
            self._gone.add(bucket_id)

    # --- bookkeeping

    def _may_use(self, step: Step, bucket_id: str) -> bool:
        if self._shared or not bucket_id:
            self._skipped[step] = NOT_OURS if self._shared else NO_BUCKET
            return False
        return True

    def _id_of(self, ending: str) -> str:
        name = f"{self._prefix}-{ending}"
        return next((id_ for id_, known in self._name_of.items() if known == name), "")

    def _account_of(self, step: Step) -> str:
        asked = self._asked.get(step)
        return asked.reply if asked and asked.ok else ""

    async def _ask(
        self, step: Step, call: Call, ask: Callable[[], Awaitable[str | GrantReply]]
    ) -> CallResult | None:
        if self._late >= MOST_LATE:
            self._skipped[step] = HUNG
            return None
        asked = self._asked[step] = await self._timed(call, ask, counted=step is not Step.ABANDONED)
        return asked

    async def _clean(self, call: Call, ask: Callable[[], Awaitable[str | GrantReply]]) -> bool:
        if self._late >= MOST_LATE:
            return False
        asked = await self._timed(call, ask, counted=True)
        self._cleanup.append(asked)
        return asked.ok or asked.refused is Code.NOT_FOUND

    async def _timed(
        self, call: Call, ask: Callable[[], Awaitable[str | GrantReply]], *, counted: bool
    ) -> CallResult:
        started = self._clock.monotonic()
        try:
            reply = await ask()
        except DriverError as error:
            if error.status.made_by is MadeBy.DEADLINE and counted:
                self._late += 1
            return CallResult(call, error.status, self._clock.monotonic() - started)
        elapsed_s = self._clock.monotonic() - started
        fine = DriverStatus(call, Code.OK, MadeBy.DRIVER)
        if isinstance(reply, GrantReply):
            return CallResult(call, fine, elapsed_s, reply.account_id, reply)
        return CallResult(call, fine, elapsed_s, reply)


def _may_have_acted(asked: CallResult) -> bool:
    """Whether something may exist whose id we do not know. A refusal counts as "nothing made"."""
    return asked.status.made_by is not MadeBy.DRIVER
