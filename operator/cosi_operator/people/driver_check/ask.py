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
from cosi_operator.clock import Clock
from cosi_operator.driver.errors import DriverError
from cosi_operator.driver.probe import GrantSeen, Probe
from cosi_operator.outcome import Call, Code, DriverStatus, MadeBy
from cosi_operator.people.driver_check.seen import Asked, Options, Seen, Step, without_credentials

ABANDON_S = 0.01  # how soon the one call is given up that is given up on purpose
MOST_LATE = 3  # calls without an answer; after that the driver counts as hung
BUCKETS, ACCOUNTS = 6, 5

NO_BUCKET = "there is no bucket to try it on"
NO_ACCOUNT = "there is no account to try it on"
NOT_OURS = "the driver gave two names one id, so that bucket may not be ours"
COMMON = "the driver gave two names one account, so it may not be ours"
HUNG = f"the driver had left {MOST_LATE} calls without an answer"
DANGEROUS = "may reach what is not ours; ask for it with --include-dangerous"


def announcement(options: Options, prefix: str) -> str:
    """What a run will do to the backend, for people to read beforehand."""
    more = ""
    if options.include_dangerous:
        more = (
            "\nWITH --include-dangerous IT ALSO SENDS EMPTY IDS TO DriverDeleteBucket AND"
            " DriverRevokeBucketAccess.\nA driver with a fault may then remove EVERY bucket it has."
        )
    return (
        f"This asks the driver at {options.address} to create up to {BUCKETS} buckets and"
        f" {ACCOUNTS} accounts.\nAll are named {prefix}-..., none holds data, and all are removed"
        f" again. Nothing else is touched.{more}\n"
    )


async def examine(probe: Probe, clock: Clock, options: Options, prefix: str) -> Seen:
    """Ask everything, remove what was made (also when cancelled), and say what was seen.

    Args:
        prefix: starts the name of all that is made; must be used by nothing else.
    """
    run = _Run(probe, clock, options, prefix)
    try:
        await run.ask_all()
    finally:
        with anyio.CancelScope(shield=True):
            await run.clean_up()
    return run.seen()


class _Run:
    def __init__(self, probe: Probe, clock: Clock, options: Options, prefix: str) -> None:
        self._probe = probe
        self._clock = clock
        self._options = options
        self._prefix = prefix
        self._asked: dict[Step, Asked] = {}
        self._skipped: dict[Step, str] = {}
        self._cleanup: list[Asked] = []
        self._left: list[str] = []
        self._late = 0
        self._name_of: dict[str, str] = {}  # by bucket id
        self._gone: set[str] = set()  # bucket ids
        self._shared = False
        self._unsure: dict[str, None] = {}  # names whose Create may have made something
        self._accounts: dict[str, str] = {}  # the bucket's id by the account's
        self._named: dict[str, str] = {}  # what an account was granted for, by its id
        self._common: set[str] = set()  # accounts that were given for two names

    def seen(self) -> Seen:
        return without_credentials(
            Seen(
                options=self._options,
                asked=self._asked,
                skipped=self._skipped,
                cleanup=tuple(self._cleanup),
                left=tuple(self._left),
                name_of_first=f"{self._prefix}-1",
            )
        )

    async def ask_all(self) -> None:
        await self._info(Step.INFO)
        if not self._asked[Step.INFO].ok:
            return
        await self._info(Step.INFO_AGAIN)
        await self._ask_creates()
        bucket_id, second = self._id_of("1"), self._id_of("2")
        await self._ask_grants(bucket_id)
        account = self._account_of(Step.GRANT)
        await self._revoke(Step.REVOKE, bucket_id, account)
        await self._revoke(Step.REVOKE_AGAIN, bucket_id, account)
        await self._delete(Step.DELETE, second)
        await self._delete(Step.DELETE_AGAIN, second)
        is_gone = Step.DELETE in self._asked and self._asked[Step.DELETE].ok
        await self._grant(Step.GRANT_GONE, second if is_gone else "", "3")
        await self._revoke(Step.REVOKE_GONE, second if is_gone else "", account)

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
        nameless = await self._ask(Step.NO_NAME, Call.CREATE_BUCKET, self._creating("", options))
        if nameless and nameless.ok:
            self._left.append(f"bucket without a name (id {nameless.reply}), as it may not be ours")

    async def _ask_grants(self, bucket_id: str) -> None:
        await self._grant(Step.GRANT, bucket_id, "1")
        await self._grant(Step.GRANT_AGAIN, bucket_id, "1")
        await self._grant(Step.GRANT_SECOND, bucket_id, "4")
        unknown = AuthenticationType.UNKNOWN
        await self._grant(Step.GRANT_UNKNOWN_TYPE, bucket_id, "2", unknown)

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
            for step in _EMPTY_IDS:
                self._skipped[step] = DANGEROUS

    async def _take_back(self) -> None:
        for account_id, bucket_id in self._accounts.items():
            if account_id in self._common:
                self._left.append(f"account {account_id} ({COMMON})")
            elif not await self._clean(Call.REVOKE_ACCESS, self._revoking(bucket_id, account_id)):
                self._left.append(f"account {account_id} of bucket {bucket_id}")
        for bucket_id, name in self._name_of.items():
            if bucket_id in self._gone:
                continue
            if not await self._clean(Call.DELETE_BUCKET, self._deleting(bucket_id)):
                self._left.append(f"bucket {name} (id {bucket_id})")

    async def _ask_dangerous(self) -> None:
        if Step.INFO_AGAIN not in self._asked:
            return
        id_, account = f"{self._prefix}-gone", f"{self._prefix}-gone"
        sent: dict[Step, tuple[Call, Callable[[], Awaitable[str | GrantSeen]]]] = {
            Step.GRANT_NO_BUCKET_ID: (Call.GRANT_ACCESS, self._granting("", account)),
            Step.GRANT_NO_NAME: (Call.GRANT_ACCESS, self._granting(id_, "")),
            Step.REVOKE_NO_BUCKET_ID: (Call.REVOKE_ACCESS, self._revoking("", account)),
            Step.REVOKE_NO_ACCOUNT_ID: (Call.REVOKE_ACCESS, self._revoking(id_, "")),
            Step.DELETE_NO_ID: (Call.DELETE_BUCKET, self._deleting("")),
        }
        for step, (call, ask) in sent.items():
            asked = await self._ask(step, call, ask)
            if asked and asked.ok and call is Call.GRANT_ACCESS:
                self._left.append(f"account {asked.reply or account}, made by {step}")

    # --- one call each

    async def _info(self, step: Step) -> None:
        timeout_s = self._options.timeout_s
        await self._ask(step, Call.GET_INFO, lambda: self._probe.get_info(timeout_s=timeout_s))

    async def _create(self, step: Step, ending: str, options: Options | None = None) -> None:
        name = f"{self._prefix}-{ending}"
        asked = await self._ask(
            step, Call.CREATE_BUCKET, self._creating(name, options or self._options)
        )
        if asked is None:
            return
        if asked.ok and asked.reply:
            self._shared = self._shared or self._name_of.get(asked.reply, name) != name
            self._name_of.setdefault(asked.reply, name)
            self._unsure.pop(name, None)
        elif not self._id_of(ending) and _may_have_acted(asked):
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
        asked = await self._ask(step, Call.GRANT_ACCESS, self._granting(bucket_id, name, kind))
        if asked is None:
            return
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
        asked = await self._ask(step, Call.REVOKE_ACCESS, self._revoking(bucket_id, account_id))
        if asked and asked.ok:
            self._accounts.pop(account_id, None)

    async def _delete(self, step: Step, bucket_id: str) -> None:
        if not self._may_use(step, bucket_id):
            return
        asked = await self._ask(step, Call.DELETE_BUCKET, self._deleting(bucket_id))
        if asked and asked.ok:
            self._gone.add(bucket_id)

    def _creating(self, name: str, options: Options) -> Callable[[], Awaitable[str]]:
        return lambda: self._probe.create_bucket(
            name, options.parameters, timeout_s=options.timeout_s
        )

    def _granting(
        self, bucket_id: str, name: str, kind: AuthenticationType | None = None
    ) -> Callable[[], Awaitable[GrantSeen]]:
        options = self._options
        wanted = options.authentication if kind is None else kind
        parameters, timeout_s = options.access_parameters, options.timeout_s
        return lambda: self._probe.grant_access(
            bucket_id, name, wanted, parameters, timeout_s=timeout_s
        )

    def _revoking(self, bucket_id: str, account_id: str) -> Callable[[], Awaitable[str]]:
        parameters, timeout_s = self._options.access_parameters, self._options.timeout_s

        async def revoke() -> str:
            await self._probe.revoke_access(bucket_id, account_id, parameters, timeout_s=timeout_s)
            return ""

        return revoke

    def _deleting(self, bucket_id: str) -> Callable[[], Awaitable[str]]:
        parameters, timeout_s = self._options.parameters, self._options.timeout_s

        async def delete() -> str:
            await self._probe.delete_bucket(bucket_id, parameters, timeout_s=timeout_s)
            return ""

        return delete

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
        self, step: Step, call: Call, ask: Callable[[], Awaitable[str | GrantSeen]]
    ) -> Asked | None:
        if self._late >= MOST_LATE:
            self._skipped[step] = HUNG
            return None
        asked = self._asked[step] = await self._timed(call, ask, counted=step is not Step.ABANDONED)
        return asked

    async def _clean(self, call: Call, ask: Callable[[], Awaitable[str | GrantSeen]]) -> bool:
        if self._late >= MOST_LATE:
            return False
        asked = await self._timed(call, ask, counted=True)
        self._cleanup.append(asked)
        return asked.ok or asked.refused is Code.NOT_FOUND

    async def _timed(
        self, call: Call, ask: Callable[[], Awaitable[str | GrantSeen]], *, counted: bool
    ) -> Asked:
        started = self._clock.monotonic()
        try:
            reply = await ask()
        except DriverError as error:
            if error.status.made_by is MadeBy.DEADLINE and counted:
                self._late += 1
            return Asked(call, error.status, self._clock.monotonic() - started)
        elapsed_s = self._clock.monotonic() - started
        fine = DriverStatus(call, Code.OK, MadeBy.DRIVER)
        if isinstance(reply, GrantSeen):
            return Asked(call, fine, elapsed_s, reply.account_id, reply)
        return Asked(call, fine, elapsed_s, reply)


_EMPTY_IDS = (
    Step.GRANT_NO_BUCKET_ID,
    Step.GRANT_NO_NAME,
    Step.REVOKE_NO_BUCKET_ID,
    Step.REVOKE_NO_ACCOUNT_ID,
    Step.DELETE_NO_ID,
)


def _may_have_acted(asked: Asked) -> bool:
    """Whether something may exist whose id we do not know. A refusal counts as "nothing made"."""
    return asked.status.made_by is not MadeBy.DRIVER
