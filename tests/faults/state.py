"""What is there for one test case: objects, Secret, backend, in a form that can be compared."""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from tests.faults.bed import FaultBed, Json

from cosi_operator.api.record import RECORD_ANNOTATION
from cosi_operator.plan import names
from cosi_operator.plan.names import GRANT_ANNOTATION
from mockdriver.backend import Account, Bucket

# What differs between two runs that ended the same.
VOLATILE = (
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "managedFields",
    "generation",
    "lastTransitionTime",
    "time",
    "attempts",
    "driverInstance",
    "effect",  # of a refusal: "maybe" after an earlier call whose end is not known, and rightly
    "started",  # of a record
    "since",  # the times of unanswered calls in a record
    "last",
)
# What the driver appends to the id of one more account.
NEW = re.compile(r"(acct-[^\"]+-)[0-9a-f]{8}(?=\")")
KEYS = ("accessKeyID", "accessSecretKey")
IN_SECRET = "in the Secret"
HOLDS = {names.BUCKET_FINALIZER, names.BUCKET_ACCESS_FINALIZER, names.ACCESS_FINALIZER}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All there is at one moment (the parts are read one after the other)."""

    claims: Mapping[str, Json]
    buckets: Mapping[str, Json]
    accesses: Mapping[str, Json]
    secrets: Mapping[str, Json]
    backend: tuple[Bucket, ...]
    accounts: tuple[Account, ...]

    @classmethod
    def take(cls, bed: FaultBed) -> Self:
        """Ask the API server, not through the proxy, and the driver."""

        def named(plural: str) -> dict[str, Json]:
            return {item["metadata"]["name"]: item for item in bed.all_of(plural)}

        return cls(
            claims=named("bucketclaims"),
            buckets=named("buckets"),
            accesses=named("bucketaccesses"),
            secrets=named("secrets"),
            backend=tuple(bed.driver.buckets()),
            accounts=tuple(bed.driver.accounts()),
        )


class Case:
    """One test case: a claim, its Bucket and maybe an access, all found by the case's name.

    The UIDs are learned while the objects are there, so that their traces on the backend are
    found when the objects are gone.
    """

    def __init__(self, name: str, *, refused: bool = False) -> None:
        """Nothing is learned yet.

        Args:
            refused: the last word is a refusal. Without a fault it leaves no finalizer of ours and
                no recorded driver; after a fault nobody knows what an earlier call has made, so
                both may stay.
        """
        self.name = name
        self.refused = refused
        self.left = 0  # accounts that the driver may hold besides the one of the Secret
        self.unanswered = 0  # Grants to which the sidecar got no answer; the record counts them
        self.uids: dict[str, str] = {}

    def learn(self, plural: str, body: Json | None) -> None:
        """Remember the UID of an object of this case."""
        if body is not None:
            self.uids[plural] = body["metadata"]["uid"]

    @property
    def bucket(self) -> str:
        """The name of the Bucket that the controller makes for the claim."""
        return f"bucket-{self.uids.get('bucketclaims', 'unknown')}"

    @property
    def account(self) -> str:
        """The name under which the driver makes the account."""
        return f"ba-{self.uids.get('bucketaccesses', 'unknown')}"

    def state(self, seen: Snapshot) -> Json:
        """Everything there is, with this run's own names replaced."""
        secret = seen.secrets.get(f"{self.name}-keys")
        bucket = seen.buckets.get(self.bucket) or seen.buckets.get(self.name)
        self.learn("buckets", bucket)
        found: Json = {
            "claim": seen.claims.get(self.name),
            "bucket": self._comparable(bucket),
            "access": seen.accesses.get(self.name),
            "secret": _opened(secret),
            "buckets on the backend": [
                {"id": bucket.bucket_id, "parameters": bucket.parameters}
                for bucket in seen.backend
                if bucket.name == self.bucket or bucket.parameters.get("case") == self.name
            ],
            "accounts on the backend": self._accounts(seen, secret),
        }
        text = json.dumps(_plain(found))
        for account in seen.accounts:  # which of them is meant tells whether a rotation has ended
            if account.name == self.account and _whereabouts(secret, account) == IN_SECRET:
                text = text.replace(account.account_id, f"acct-{self.account}-<{IN_SECRET}>")
        text = NEW.sub(r"\1<other>", text)
        if grant := (secret or {}).get("metadata", {}).get("annotations", {}).get(GRANT_ANNOTATION):
            text = text.replace(grant, "<grant>")  # a random word, the same in the record
        for kind, uid in self.uids.items():
            text = text.replace(uid, f"<UID of {kind}>")
        decoded: Json = json.loads(text.replace(self.name, "<case>"))
        return decoded

    def _accounts(self, seen: Snapshot, secret: Json | None) -> list[Json]:
        """The accounts of the access, without those that may be left."""
        found = [
            {"id": account.account_id, "keys": _whereabouts(secret, account)}
            for account in seen.accounts
            if account.name == self.account
        ]
        others = [account for account in found if account["keys"] != IN_SECRET]
        for account in others[: self.left]:
            found.remove(account)
        return found

    def _comparable(self, bucket: Json | None) -> Json | None:
        """The Bucket with its record decoded, less what a fault has to leave in it."""
        if bucket is None:
            return None
        meta = bucket["metadata"]
        annotations = dict(meta.get("annotations") or {})
        record = json.loads(annotations.pop(RECORD_ANNOTATION, "{}"))
        record.pop("revision", None)  # a repeated edit raises it once more
        for entry in record.get("accesses", {}).values():
            entry["unanswered"] = entry.get("unanswered", 0) - self.unanswered
        finalizers = list(meta.get("finalizers") or ())
        if self.refused:
            record.pop("driver", None)
            finalizers = [finalizer for finalizer in finalizers if finalizer not in HOLDS]
        meta = {**meta, "annotations": annotations, "finalizers": finalizers}
        return {**bucket, "metadata": meta, "record": record}


def _opened(secret: Json | None) -> Json | None:
    """A Secret of ours with its JSON decoded; keys are hidden, as each grant may make new ones."""
    if secret is None:
        return None
    info = _info(secret)
    for key in KEYS:
        info["spec"]["secretS3"][key] = f"<{key}>" if info["spec"]["secretS3"][key] else ""
    return {**secret, "data": info, "keys": sorted(secret["data"])}


def _info(secret: Json) -> Json:
    info: Json = json.loads(base64.b64decode(secret["data"]["BucketInfo"]))
    return info


def _whereabouts(secret: Json | None, account: Account) -> str:
    """Whether the Secret holds the keys that the backend knows."""
    if secret is None:
        return "no Secret"
    s3 = _info(secret)["spec"]["secretS3"]
    same = (s3["accessKeyID"], s3["accessSecretKey"]) == (account.access_key, account.secret_key)
    return IN_SECRET if same else "others than in the Secret"


def _plain(value: Any) -> Any:
    """Without what differs between runs: times, versions, the trace of an overcome failure."""
    match value:
        case dict():
            kept = {key: _plain(inner) for key, inner in value.items() if key not in VOLATILE}
            if (kept.get("lastCall") or {}).get("outcome") == "Success":
                del kept["lastCall"]
            if "finalizers" in kept:
                kept["finalizers"] = sorted(kept["finalizers"])
            if "deletionTimestamp" in kept:
                kept["deletionTimestamp"] = "set"
            return kept
        case list():
            return [_plain(inner) for inner in value]
        case _:
            return value


def difference(wanted: Any, found: Any, path: str = "") -> list[str]:
    """Where two states differ, one line each."""
    if wanted == found:
        return []
    if isinstance(wanted, dict) and isinstance(found, dict):
        return [
            line
            for key in sorted({*wanted, *found})
            for line in difference(wanted.get(key), found.get(key), f"{path}.{key}")
        ]
    return [f"{path.lstrip('.')}: {_short(wanted)} without the fault, now {_short(found)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 200 else text[:200] + "..."
