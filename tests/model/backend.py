"""A driver and its storage in memory, at the boundary of `driver.v1alpha1.Driver`.

Its answers can be set per call: a code before or after it acted, silence, an empty id, credentials
that are missing. Every call is counted, and `watch` sees it before it acts.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import quote

from tests.model.pause import Point, pause

from cosi_operator.driver.credentials import AzureCredentials, Credentials, S3Credentials
from cosi_operator.driver.errors import DriverRefused
from cosi_operator.driver.v1alpha1 import CreatedBucket, Driver, GrantedAccess, GrantRequest
from cosi_operator.outcome import Call, Code


@dataclass(frozen=True)
class Answer:
    """How a call is answered. `acts`: whether it has its effect all the same."""

    code: Code = Code.OK
    acts: bool = True
    empty_id: bool = False
    id: str = ""  # instead of the usual id
    no_credentials: bool = False


OK = Answer()


@dataclass(frozen=True)
class Called:
    """One call as the driver saw it; `name` is that of the bucket or the account, or its id."""

    call: Call
    name: str
    bucket_id: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict, compare=False, hash=False)


@dataclass
class Account:
    bucket_id: str
    name: str
    keys: list[str]
    # Whether its id was returned to a sidecar that lived to record it; a driver that mints leaves
    # the other accounts.
    learned: bool = False


@dataclass
class Backend:
    """What is stored, and how calls are answered."""

    buckets: dict[str, str] = field(default_factory=dict)  # id by name
    accounts: dict[str, Account] = field(default_factory=dict)  # by id
    calls: list[Called] = field(default_factory=list)
    answers: dict[Call, Answer] = field(default_factory=dict)
    new_account_each_time: bool = False
    replaces_keys: bool = False  # a Grant ends the earlier keys of the account
    is_upgraded: bool = False  # an earlier version chose accounts in another way
    one_account_for_a_bucket: bool = False  # every Grant returns it, with a new key
    # False: Grant and Revoke read all accounts, and write them back when they are done.
    locks: bool = True
    same_keys: bool = False  # each Grant of one account returns its first key
    expiry: Callable[[], str] | None = None  # of keys of Azure, which are returned instead
    expiry_in_token: bool = False  # the keys are a SAS, as from Microsoft's driver
    watch: Callable[[Called], None] = field(default=lambda called: None)
    made: int = 0
    recorded: set[str] = field(default_factory=set)  # accounts that a record has ever named

    def sidecar_killed(self) -> None:
        """Nobody knows an account whose id was returned and not yet recorded."""
        for account_id, account in self.accounts.items():
            account.learned = account.learned and account_id in self.recorded

    def count(self, call: Call) -> int:
        return sum(1 for called in self.calls if called.call is call)

    def begin(self, called: Called) -> Answer:
        self.calls.append(called)
        self.watch(called)
        return self.answers.get(called.call, OK)

    def read(self) -> dict[str, "Account"]:
        """What a driver that edits one document has read of it."""
        return {name: replace(a, keys=list(a.keys)) for name, a in self.accounts.items()}

    def write_over(self, document: dict[str, "Account"]) -> None:
        """Without a lock, what others wrote since the document was read is lost."""
        if not self.locks:
            self.accounts = document

    def live_keys(self) -> set[str]:
        return {key for account in self.accounts.values() for key in account.keys}


def refuse(call: Call, answer: Answer, number: int) -> None:
    """Raise the answer if it is no OK, with a request id that is another one each time."""
    if answer.code is not Code.OK:
        raise DriverRefused(call, answer.code, f"the backend says no, request id: {number:032x}")


class FakeDriver(Driver):
    """The driver's client; each call stops twice, so that it can be cut before and after."""

    def __init__(self, backend: Backend, process: str) -> None:
        self._backend = backend
        self._process = process

    async def get_info(self, *, timeout_s: float) -> str:
        raise AssertionError("not asked here")

    async def _stop(self, call: Call, *, before: bool) -> None:
        await pause(Point(self._process, call.value, "", before=before, driver=True))

    async def create_bucket(
        self, name: str, parameters: Mapping[str, str], *, timeout_s: float
    ) -> CreatedBucket:
        call = Call.CREATE_BUCKET
        await self._stop(call, before=True)
        answer = self._backend.begin(Called(call, name))
        if answer.acts:
            self._backend.buckets.setdefault(name, answer.id or f"id-of-{name}")
        await self._stop(call, before=False)
        refuse(call, answer, len(self._backend.calls))
        return CreatedBucket("" if answer.empty_id else self._backend.buckets.get(name, ""))

    async def delete_bucket(
        self, bucket_id: str, context: Mapping[str, str], *, timeout_s: float
    ) -> None:
        call = Call.DELETE_BUCKET
        await self._stop(call, before=True)
        answer = self._backend.begin(Called(call, bucket_id, bucket_id))
        if answer.acts:
            for name in [n for n, held in self._backend.buckets.items() if held == bucket_id]:
                del self._backend.buckets[name]
        await self._stop(call, before=False)
        refuse(call, answer, len(self._backend.calls))

    async def grant_access(self, request: GrantRequest, *, timeout_s: float) -> GrantedAccess:
        call = Call.GRANT_ACCESS
        backend = self._backend
        document = backend.read()
        await self._stop(call, before=True)
        answer = backend.begin(Called(call, request.name, request.bucket_id, request.parameters))
        backend.write_over(document)
        backend.made += 1
        key = f"KEY{backend.made}"
        account_id = answer.id or f"acct-of-{request.name}"
        if backend.one_account_for_a_bucket:
            account_id = f"acct-of-{request.bucket_id}"
        if backend.new_account_each_time:
            account_id += f"-{backend.made}"
        if backend.same_keys and account_id in backend.accounts:
            key = backend.accounts[account_id].keys[0]
        elif answer.acts:
            account = backend.accounts.setdefault(
                account_id, Account(request.bucket_id, request.name, [])
            )
            account.bucket_id = request.bucket_id  # an existing account gets access to this bucket
            if backend.replaces_keys:
                account.keys.clear()
            account.keys.append(key)
        await self._stop(call, before=False)
        refuse(call, answer, len(self._backend.calls))
        if answer.empty_id:
            return GrantedAccess("", None, "nothing there")
        if answer.no_credentials:
            return GrantedAccess(account_id, None, "the S3 credentials lack accessKeyID")
        if (made := backend.accounts.get(account_id)) is not None:
            made.learned = True
        if backend.expiry is not None:
            token = AzureCredentials("t0ken-" + key, backend.expiry())
            if backend.expiry_in_token:
                sas = f"https://a.example/?se={quote(backend.expiry())}&sig=t0ken-{key}"
                token = AzureCredentials(sas)
            return GrantedAccess(account_id, Credentials(azure=token))
        s3 = S3Credentials(access_key_id=key, access_secret_key="s3cret-" + key)
        return GrantedAccess(account_id, Credentials(s3=s3))

    async def revoke_access(
        self, bucket_id: str, account_id: str, context: Mapping[str, str], *, timeout_s: float
    ) -> None:
        call = Call.REVOKE_ACCESS
        document = self._backend.read()
        await self._stop(call, before=True)
        answer = self._backend.begin(Called(call, account_id, bucket_id))
        self._backend.write_over(document)
        if answer.acts:
            self._backend.accounts.pop(account_id, None)
        await self._stop(call, before=False)
        refuse(call, answer, len(self._backend.calls))
