"""The buckets and accounts behind the mock driver, in memory and, if asked, in a file.

The file is a log: one JSON line for each change, so that a kill at any moment loses at most the
line being written, and writing stays cheap with many buckets.
"""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

import msgspec
from msgspec import Struct

from cosi_operator.outcome import Code


class Bucket(Struct, frozen=True):
    """`bucket_id` is never equal to `name`, so that a mix-up shows."""

    bucket_id: str
    name: str
    parameters: dict[str, str]


class Account(Struct, frozen=True):
    account_id: str
    bucket_id: str
    name: str
    access_key: str
    secret_key: str


class _Change(Struct, frozen=True, omit_defaults=True):
    bucket: Bucket | None = None
    account: Account | None = None
    no_bucket: str = ""
    no_account: str = ""
    reset: bool = False


# Every secret key begins with it, so that a key is found wherever it leaked to.
CANARY = "canary-"


class RefusedError(Exception):
    """The backend's own verdict, as a status."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


class Backend:
    """Idempotent by name, as the interface asks.

    Args:
        path: the log file, read at the start if it exists; None keeps all in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.buckets: dict[str, Bucket] = {}
        self.accounts: dict[str, Account] = {}
        self._log: TextIO | None = None
        if path is not None:
            if path.exists():
                for line in path.read_bytes().splitlines():
                    self._apply(msgspec.json.decode(line, type=_Change))
            self._log = path.open("a", encoding="utf-8")

    def create_bucket(self, name: str, parameters: Mapping[str, str]) -> Bucket:
        bucket_id = f"id-{name}"
        known = self.buckets.get(bucket_id)
        if known is not None:
            if known.parameters != dict(parameters):
                raise RefusedError(
                    Code.ALREADY_EXISTS, f"bucket {name} exists with other parameters"
                )
            return known
        bucket = Bucket(bucket_id, name, dict(parameters))
        self._commit(_Change(bucket=bucket))
        return bucket

    def delete_bucket(self, bucket_id: str) -> None:
        if bucket_id in self.buckets:
            self._commit(_Change(no_bucket=bucket_id))

    def grant(
        self, bucket_id: str, name: str, *, new_account: bool = False, new_keys: bool = False
    ) -> Account:
        """The account of this name.

        Some drivers make one more account each time (`new_account`), others replace its keys
        (`new_keys`).
        """
        if bucket_id not in self.buckets:
            raise RefusedError(Code.NOT_FOUND, f"no bucket {bucket_id}")
        account_id = f"acct-{name}-{secrets.token_hex(4)}" if new_account else f"acct-{name}"
        known = self.accounts.get(account_id)
        if known is not None and not new_keys:
            return known
        account = Account(
            account_id,
            bucket_id,
            name,
            access_key="AK" + secrets.token_hex(8).upper(),
            secret_key=CANARY + secrets.token_urlsafe(30),
        )
        self._commit(_Change(account=account))
        return account

    def revoke(self, account_id: str) -> None:
        if account_id in self.accounts:
            self._commit(_Change(no_account=account_id))

    def document(self, bucket_id: str | None) -> dict[str, Account]:
        """A copy of the accounts of one bucket, or of all; what an unlocked edit begins with."""
        return {
            account_id: account
            for account_id, account in self.accounts.items()
            if bucket_id in (None, account.bucket_id)
        }

    def write_back(self, bucket_id: str | None, document: Mapping[str, Account]) -> None:
        """Replace the accounts of one bucket, or of all; what was written since is lost."""
        for account_id, account in self.document(bucket_id).items():
            if document.get(account_id) != account:
                self._commit(_Change(no_account=account_id))
        for account_id, account in document.items():
            if account_id not in self.accounts:
                self._commit(_Change(account=account))

    def reset(self) -> None:
        self._commit(_Change(reset=True))

    def _commit(self, change: _Change) -> None:
        if self._log is not None:
            self._log.write(msgspec.json.encode(change).decode() + "\n")
            self._log.flush()
        self._apply(change)

    def _apply(self, change: _Change) -> None:
        if change.reset:
            self.buckets.clear()
            self.accounts.clear()
        if change.bucket is not None:
            self.buckets[change.bucket.bucket_id] = change.bucket
        if change.account is not None:
            self.accounts[change.account.account_id] = change.account
        self.buckets.pop(change.no_bucket, None)
        self.accounts.pop(change.no_account, None)
