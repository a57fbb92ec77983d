"""What the driver does on S3 and IAM. Every function is safe to repeat, and safe in threads."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from botocore.exceptions import ClientError

from awsclient import Account
from refdriver.policy import UnlockedPolicy
from refdriver.verdict import RefusedError, error_code

POLICY_NAME = "cosi-bucket-access"

# Objects only. In particular not s3:DeleteBucket: SeaweedFS deletes a bucket with all it holds.
# SeaweedFS refuses a policy with a name it doesn't know, such as s3:ListMultipartUploadParts.
_BUCKET_ACTIONS = ("s3:GetBucketLocation", "s3:ListBucket")
_OBJECT_ACTIONS = ("s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:PutObject")


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made; the secret half is known nowhere else."""

    access_key: str
    secret_key: str

    def __repr__(self) -> str:
        """Leave out the secret, so that no log or traceback can show it."""
        return f"NewKey({self.access_key})"


class Backend:
    """Buckets, users and keys of one account's S3 and IAM.

    Every function may raise what boto3 raises (ClientError, BotoCoreError) besides what is named.
    """

    def __init__(
        self, account: Account, *, unlocked_policy: bool = False, holding: Path | None = None
    ) -> None:
        """Make the clients; nothing is sent.

        Args:
            account: whose S3 and IAM.
            unlocked_policy: give access by the bucket's policy, edited without a lock.
            holding: see `UnlockedPolicy`.
        """
        self._s3 = account.s3()
        self._policy = UnlockedPolicy(self._s3, holding) if unlocked_policy else None
        self._iam = account.iam()
        # Two grants of one name at a time could each miss the other's key.
        self._changing_users = threading.Lock()

    def create_bucket(self, name: str) -> None:
        """Make the bucket; fine if it is there and ours."""
        with _ignoring("BucketAlreadyOwnedByYou"):
            self._s3.create_bucket(Bucket=name)

    def delete_bucket(self, name: str) -> None:
        """Delete the bucket if it holds nothing: no object, no version, no delete marker.

        It looks first, since not every server does; what is stored between the look and the
        deletion is lost on those.

        Raises:
            RefusedError: FAILED_PRECONDITION, it isn't empty.
            ClientError: NoSuchBucket among others.
        """
        found = self._s3.list_object_versions(Bucket=name, MaxKeys=1)
        if found.get("Versions") or found.get("DeleteMarkers"):
            raise RefusedError(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"BucketNotEmpty: bucket {name} still holds data, so it is not deleted",
            )
        self._s3.delete_bucket(Bucket=name)

    def grant(self, bucket: str, user: str) -> NewKey:
        """Make a user who may use the objects of this one bucket, and a key.

        Repeated for the same name, the same user gets a new key and loses the old ones: nobody
        can read a secret key twice.

        Raises:
            ClientError: "404" when there is no such bucket, among others.
        """
        self._s3.head_bucket(Bucket=bucket)
        with self._changing_users:
            with _ignoring("EntityAlreadyExists"):
                self._iam.create_user(UserName=user)
            if self._policy is None:
                self._iam.put_user_policy(
                    UserName=user, PolicyName=POLICY_NAME, PolicyDocument=_policy(bucket)
                )
            self._delete_keys(user)
            key = self._iam.create_access_key(UserName=user)["AccessKey"]
            arn = self._iam.get_user(UserName=user)["User"]["Arn"] if self._policy else ""
        if self._policy is not None:
            self._policy.add(bucket, user, _statement(bucket, arn))
        return NewKey(access_key=key["AccessKeyId"], secret_key=key["SecretAccessKey"])

    def revoke(self, bucket: str, user: str) -> None:
        """Delete the user's keys, so that they stop working, then the policy and the user.

        Raises:
            ClientError: NoSuchEntity when there is no such user, among others.
        """
        with self._changing_users:
            self._iam.get_user(UserName=user)
            self._delete_keys(user)
            with _ignoring("NoSuchEntity"):
                self._iam.delete_user_policy(UserName=user, PolicyName=POLICY_NAME)
            self._iam.delete_user(UserName=user)
        if self._policy is not None:
            self._policy.remove(bucket, user)

    def _delete_keys(self, user: str) -> None:
        for key in self._iam.list_access_keys(UserName=user)["AccessKeyMetadata"]:
            with _ignoring("NoSuchEntity"):
                self._iam.delete_access_key(UserName=user, AccessKeyId=key["AccessKeyId"])


def _policy(bucket: str) -> str:
    arn = f"arn:aws:s3:::{bucket}"
    statements = [
        {"Effect": "Allow", "Action": _BUCKET_ACTIONS, "Resource": arn},
        {"Effect": "Allow", "Action": _OBJECT_ACTIONS, "Resource": f"{arn}/*"},
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def _statement(bucket: str, arn: str) -> dict[str, Any]:
    resource = f"arn:aws:s3:::{bucket}"
    return {
        "Effect": "Allow",
        "Principal": {"AWS": arn},
        "Action": [*_BUCKET_ACTIONS, *_OBJECT_ACTIONS],
        "Resource": [resource, f"{resource}/*"],
    }


@contextmanager
def _ignoring(*codes: str) -> Iterator[None]:
    """Let errors of these codes pass: the state that was asked for is there already."""
    try:
        yield
    except ClientError as error:
        if error_code(error) not in codes:
            raise
