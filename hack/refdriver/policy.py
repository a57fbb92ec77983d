"""Access by the bucket's policy, edited without a lock, as many real drivers do it.

Two edits of one policy at the same time lose one of the two changes, though both calls succeed: the
account of a lost grant has a key that is refused. To show that in any order, edits can be held
between their reading and their writing.
"""

import contextlib
import json
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from refdriver.verdict import error_code

POLL_S = 0.01
HOLD = "hold"
EDITS = "edit-*"

type Statements = list[dict[str, Any]]


class UnlockedPolicy:
    """The policies of buckets, one statement for each user.

    Args:
        s3: the client.
        holding: a folder. While a file named `hold` is in it, edits wait before they write, and
            each of them has a file `edit-...` there. Only the edits for a user whose name contains
            the text of that file are held. None: nothing is held.
    """

    def __init__(self, s3: Any, holding: Path | None) -> None:
        """Keep the client; nothing is sent."""
        self._s3 = s3
        self._holding = holding

    def add(self, bucket: str, user: str, statement: dict[str, Any]) -> None:
        """Add the user's statement; one that is there is replaced."""
        sid = _sid(user)
        self._edit(bucket, user, lambda kept: [*_without(kept, sid), {**statement, "Sid": sid}])

    def remove(self, bucket: str, user: str) -> None:
        """Remove the user's statement; fine if there is none, or no bucket."""
        with _ignoring("NoSuchBucket"):
            self._edit(bucket, user, lambda kept: _without(kept, _sid(user)))

    def _edit(self, bucket: str, user: str, change: Callable[[Statements], Statements]) -> None:
        statements: Statements = []
        with _ignoring("NoSuchBucketPolicy"):
            policy = json.loads(self._s3.get_bucket_policy(Bucket=bucket)["Policy"])
            statements = policy["Statement"]
        self._wait_while_held(user)
        changed = change(statements)
        if changed:
            policy = {"Version": "2012-10-17", "Statement": changed}
            self._s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
        elif statements:
            self._s3.delete_bucket_policy(Bucket=bucket)

    def _wait_while_held(self, user: str) -> None:
        if self._holding is None or not self._is_held(user):
            return
        mark = self._holding / EDITS.replace("*", uuid.uuid4().hex)
        mark.touch()
        while self._is_held(user):
            time.sleep(POLL_S)
        mark.unlink()

    def _is_held(self, user: str) -> bool:
        assert self._holding is not None
        try:
            return (self._holding / HOLD).read_text() in user
        except FileNotFoundError:
            return False


def _sid(user: str) -> str:
    return "".join(letter for letter in user if letter.isalnum())


def _without(statements: Statements, sid: str) -> Statements:
    return [statement for statement in statements if statement.get("Sid") != sid]


@contextlib.contextmanager
def _ignoring(code: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        if error_code(error) != code:
            raise
