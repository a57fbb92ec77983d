"""The world of `World`, with tenants, restores and administrators that write all they may write.

What must hold is stated in terms of the truth, which is what the API server and the backend hold,
never in terms of what the operator believes.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from tests.model.backend import Called
from tests.model.memory import Json, copy
from tests.model.processes import DRIVER
from tests.model.world import NAMESPACE, World, info_in, keys_in, owner_of, record_of

from cosi_operator.api.core import SECRETS
from cosi_operator.api.resources import BUCKET_ACCESSES, BUCKET_CLAIMS, BUCKETS
from cosi_operator.api.view import Key, Resource
from cosi_operator.outcome import Call
from cosi_operator.plan import names

DRILL = "drill"  # where a restore drill, or another tenant, puts its copies
SPACES = (NAMESPACE, DRILL)


@dataclass
class HostileWorld(World):
    """The world in which others write.

    `moved`: UIDs of accesses whose claim an administrator bound to a second Bucket.
    `tampered`: UIDs of objects whose owner, or whose administrator, broke them on purpose.
    `unnamed`: Secrets with our finalizer that no access and no record named when the sidecar was
    killed. No sidecar can find them, because drivers' roles may not list Secrets; a person releases
    them (docs/backup-and-restore.md).
    `overwritten`: UIDs of accesses whose entry an administrator overwrote with an older record or
    Bucket, or removed with its Bucket. A Grant can follow whose run had written the entry; the
    sidecar then writes the entry again, or remembers it.
    """

    tampered: set[str] = field(default_factory=set)
    moved: set[str] = field(default_factory=set)
    unnamed: set[Key] = field(default_factory=set)
    overwritten: set[str] = field(default_factory=set)

    def restart(self, name: str) -> None:
        if name == "sidecar":
            self.unnamed |= self._held_secrets() - self._named_secrets()
        super().restart(name)

    def _held_secrets(self) -> set[Key]:
        bodies = [body["metadata"] for body in self.api.list(SECRETS)]
        held = [meta for meta in bodies if names.SECRET_FINALIZER in (meta.get("finalizers") or ())]
        return {Key(meta["namespace"], meta["name"]) for meta in held}

    def _named_secrets(self) -> set[Key]:
        accesses = self.api.list(BUCKET_ACCESSES)
        named = {
            Key(body["metadata"]["namespace"], body["spec"]["credentialsSecretName"])
            for body in accesses
        }
        recorded = [r for r in map(record_of, self.api.list(BUCKETS)) if r]
        return named | {
            Key(entry.namespace, entry.secret)
            for record in recorded
            for entry in record.accesses.values()
        }

    # --- moves

    def put(self, resource: Resource, space: str, name: str, **fields: Any) -> Json | None:
        """Create an object in a namespace, with a status if one is given; None if it exists."""
        key = Key(space if resource.namespaced else "", name)
        if self.api.find(resource, key):
            return None
        metadata = {"name": name, **fields.pop("metadata", {})}
        if resource.namespaced:
            metadata["namespace"] = space
        head = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}
        status = fields.pop("status", None)
        body = self.api.create(resource, {**head, **fields})
        if status is not None:
            body = self.api.update(resource, {**copy(body), "status": status}, subresource="status")
        return body

    def edit(self, resource: Resource, key: Key, change: Any, *, status: bool = False) -> None:
        held = self.api.find(resource, key)
        if held is None:
            return
        body = copy(held)
        change(body)
        self.api.update(resource, body, subresource="status" if status else "")

    def copy_into(
        self,
        resource: Resource,
        source: Key,
        space: str,
        *,
        name: str = "",
        without: Collection[str] = (),
    ) -> None:
        """What a restore makes: everything of the object, under a UID of its own.

        Args:
            name: another name than the source's.
            without: what the copy lacks of its metadata; "status" too.
        """
        held = self.api.find(resource, source)
        if held is None:
            return
        meta = held["metadata"]
        whole = copy(held)
        kept = {
            k: whole["metadata"][k]
            for k in ("finalizers", "annotations", "labels")
            if meta.get(k) and k not in without
        }
        copied = {"spec", "status", "data", "type"}.difference(without)
        fields = {k: v for k, v in whole.items() if k in copied}
        made = self.put(resource, space, name or source.name, metadata=kept, **fields)
        if made is not None and resource is SECRETS:
            made["data"] = copy(held)["data"]

    # --- what must never happen

    def _changed(self, resource: Resource, kind: str, body: Json) -> None:
        super()._changed(resource, kind, body)
        # A restored or forged status is nobody's until it was judged; see `check_settled`.
        odd = ("on a generation that never was", "went back to an older generation")
        self.violations = [v for v in self.violations if not v.endswith(odd[0]) and odd[1] not in v]

    def _driver_called(self, called: Called) -> None:
        wrong = self.violations.append
        if not called.name:
            wrong(f"{called.call} with an empty name or id")
        if called.call is Call.CREATE_BUCKET:
            if not any(b["metadata"]["name"] == called.name for b in self._ours()):
                wrong(f"{called.call} for {called.name}, which is no Bucket of this driver")
            return
        if not called.bucket_id:
            wrong(f"{called.call} with an empty bucket id")
        if called.call is Call.DELETE_BUCKET:
            self._deleting(called)
        elif called.call is Call.GRANT_ACCESS:
            self._granting(called)
        else:
            self._revoking(called)

    def _ours(self) -> list[Json]:
        return [b for b in self.api.list(BUCKETS) if driver_of(b) == DRIVER]

    def _of_id(self, bucket_id: str) -> list[Json]:
        return [b for b in self._ours() if bucket_id in ids_of(b)]

    def _deleting(self, called: Called) -> None:
        buckets = self._of_id(called.bucket_id) or [
            b for b in self._ours() if called.bucket_id == f"id-of-{b['metadata']['name']}"
        ]
        going = [b for b in buckets if b["metadata"].get("deletionTimestamp")]
        if not going:
            self.violations.append(f"{called.call} of {called.bucket_id}, which is not deleted")
        for bucket in buckets:
            if bucket not in going and record_of(bucket) and self._claim_of(bucket):
                whose = bucket["metadata"]["name"]
                self.violations.append(f"{called.call} of {called.bucket_id}, which is {whose}'s")
        for bucket in going:
            claim = self._claim_of(bucket)
            recorded = record.claim.uid if (record := record_of(bucket)) else ""
            if claim and recorded not in ("", claim["metadata"]["uid"]):
                continue  # the spec of a Bucket that is being deleted keeps nothing: see the docs
            forced = (bucket["metadata"].get("annotations") or {}).get(
                names.FORCE_DELETE_ANNOTATION
            ) == bucket["metadata"]["uid"]
            if claim and not claim["metadata"].get("deletionTimestamp") and not forced:
                self.violations.append(f"{called.call} of {called.bucket_id}, in use by a claim")

    def _claim_of(self, bucket: Json) -> Json | None:
        """The recorded claim while that exists, else the claim that the spec names."""
        record = record_of(bucket)
        named = bucket["spec"].get("bucketClaim") or {}
        claims = {c["metadata"]["uid"]: c for c in self.api.list(BUCKET_CLAIMS)}
        recorded = claims.get(record.claim.uid) if record else None
        return recorded or claims.get(named.get("uid", ""))

    def _granting(self, called: Called) -> None:
        uid = called.name.removeprefix("ba-")
        for bucket in self._of_id(called.bucket_id):
            record = record_of(bucket)
            entry = record.accesses.get(uid) if record else None
            if record is None or entry is None:
                continue
            if entry.namespace != record.claim.namespace:
                self.violations.append(f"{called.call}: {entry} on a bucket of {record.claim}")
            self.overwritten.discard(uid)
            if len(entry.accounts) > 1 and not entry.minted:
                self.violations.append(f"{called.call} of {entry}, whose old account is left")
            return
        if uid not in self.overwritten:
            self.violations.append(f"{called.call} for {called.name}, which no record names")

    def _revoking(self, called: Called) -> None:
        account = self.backend.accounts.get(called.name)
        if account is None:
            return  # revoked before
        # If two records are lost at once, two accesses can name one account, and neither gets it.
        # After the access that the account was granted to has ended, nobody uses the account.
        granted_to = account.name.removeprefix("ba-")
        is_used = granted_to in [a["metadata"]["uid"] for a in self.api.list(BUCKET_ACCESSES)]
        is_moved = granted_to in self.moved
        if is_used and account.bucket_id != called.bucket_id and not is_moved:
            self.violations.append(f"{called.call} of {called.name} on another bucket")
        for access in self.api.list(BUCKET_ACCESSES):
            meta = access["metadata"]
            uid = meta["uid"]
            if meta.get("deletionTimestamp") or uid in self.tampered:
                continue
            secret = self.secret_of(access)
            if secret and owner_of(secret) == uid and keys_in(secret) in account.keys:
                self.violations.append(f"{called.call} of {called.name}, whose access is alive")

    def secret_of(self, access: Json) -> Json | None:
        meta = access["metadata"]
        name = access["spec"]["credentialsSecretName"]
        return self.api.find(SECRETS, Key(meta["namespace"], name))

    # --- what must hold when nothing is left to do

    def is_owned(self, secret: Json) -> bool:
        """A deletion revokes the keys first, and removes the Secret in a later run at times."""
        space = secret["metadata"]["namespace"]
        metas = [a["metadata"] for a in self.api.list(BUCKET_ACCESSES)]
        live = [(m["uid"], m["namespace"]) for m in metas if not m.get("deletionTimestamp")]
        return (owner_of(secret), space) in live

    def check_settled(self) -> list[str]:
        return [*super().check_settled(), *self._check_granted()]

    def _check_granted(self) -> list[str]:
        found = []
        for access in self.api.list(BUCKET_ACCESSES):
            meta, status = access["metadata"], access.get("status") or {}
            gone = meta.get("deletionTimestamp") or meta["uid"] in self.tampered
            ready = [c["status"] for c in status.get("conditions") or () if c["type"] == "Ready"]
            if gone or ready != ["True"] or self._is_of_another_driver(access):
                continue
            name = f"{meta['namespace']}/{meta['name']}"
            secret = self.secret_of(access)
            if secret is None or owner_of(secret) != meta["uid"]:
                found.append(f"{name} says Granted, but its Secret is missing or another's")
            elif keys_in(secret) not in self.backend.live_keys():
                found.append(f"{name} says Granted, but its key does not work")
            else:
                found += self._check_bucket(access, secret)
        return found

    def _is_of_another_driver(self, access: Json) -> bool:
        """Its sidecar, which this world lacks, has the word on the access."""
        space, claim = access["metadata"]["namespace"], access["spec"]["bucketClaimName"]
        return any(
            driver_of(bucket) != DRIVER
            and (bucket["spec"].get("bucketClaim") or {}).get("name") == claim
            and bucket["spec"]["bucketClaim"].get("namespace") == space
            for bucket in self.api.list(BUCKETS)
        )

    def _check_bucket(self, access: Json, secret: Json) -> list[str]:
        """The key opens a bucket of this namespace, and the Secret names the Bucket object."""
        key, meta = keys_in(secret), access["metadata"]
        (bucket_id,) = {a.bucket_id for a in self.backend.accounts.values() if key in a.keys}
        owners = {
            record.claim.namespace
            for bucket in self._of_id(bucket_id)
            if (record := record_of(bucket))
        }
        found = []
        if owners and meta["namespace"] not in owners:
            found.append(f"{meta['namespace']}/{meta['name']} has a key to a bucket of {owners}")
        names_of = {b["metadata"]["name"] for b in self._of_id(bucket_id)}
        if names_of and info_in(secret)["spec"]["bucketName"] not in names_of:
            found.append(f"{meta['namespace']}/{meta['name']}: its Secret names another Bucket")
        return found


def driver_of(bucket: Json) -> str:
    record = record_of(bucket)
    return (record.driver if record else "") or str(bucket["spec"]["driverName"])


def ids_of(bucket: Json) -> set[str]:
    record, status = record_of(bucket), bucket.get("status") or {}
    found = {
        record.bucket_id if record else "",
        str(status.get("bucketID") or ""),
        str(bucket["spec"].get("existingBucketID") or ""),
    }
    return found - {""}
