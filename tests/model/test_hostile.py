"""Tenants, restores, GitOps and administrators in any order: nobody reaches what is not theirs.

The moves of `test_state_machine`, and everything that somebody else than the operator may write.
"""

import base64
import random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule
from tests.model.hostile import DRILL, SPACES, HostileWorld
from tests.model.memory import Json, copy
from tests.model.scenes import apply_older
from tests.model.test_state_machine import (
    ACCESSES,
    CLAIMS,
    IS_LONG,
    PROFILE,
    Cluster,
)
from tests.model.world import (
    NAMESPACE,
    add_access_class,
    add_class,
    add_static_bucket,
    record_of,
)
from tests.support.measuring import search

from cosi_operator.api.core import SECRETS
from cosi_operator.api.record import RECORD_ANNOTATION, decode_record
from cosi_operator.api.resources import BUCKET_ACCESSES, BUCKET_CLAIMS, BUCKETS
from cosi_operator.api.view import Key, Resource
from cosi_operator.plan import names

# Each example is long: two namespaces, restores, and the rest of the other state machine.
HOSTILE_PROFILE = PROFILE if IS_LONG else settings(PROFILE, max_examples=120)
SPACE = st.sampled_from(SPACES)
# An administrator who destroys what the operator knows, and a tenant who destroys what would ask
# for it, leave nobody who could say what to revoke; so each run has one of them.
DESTROYERS = (
    "none",
    "strips finalizers",
    "replaces Buckets",
    "puts back older records",
    "applies older Buckets",
    "removes Buckets",
    "Go sidecar of another driver",
)
ACCOUNTS = ("one each", "one each time", "one for a bucket")
COPY = "copy"  # the name of a copied Bucket
KINDS = {"claim": BUCKET_CLAIMS, "access": BUCKET_ACCESSES}


class Hostile(Cluster):
    """See the module."""

    world: HostileWorld

    @initialize(
        destroyer=st.sampled_from(DESTROYERS),
        accounts=st.sampled_from(ACCOUNTS),
        locks=st.booleans(),
        is_upgraded=st.booleans(),
    )
    def begin(self, destroyer: str, accounts: str, locks: bool, is_upgraded: bool = False) -> None:
        self.destroyer = destroyer
        self.is_upgraded = is_upgraded
        self.backups: dict[str, str] = {}  # records by the UID of their Bucket
        self.saved: dict[str, Json] = {}  # Buckets by UID
        self.world = HostileWorld()
        self._choose_accounts(accounts)
        self.world.backend.locks = locks
        self.world.api.listeners.append(self._note_retained)
        add_class(self.world)
        add_class(self.world, "silver", policy="Retain")
        add_access_class(self.world)
        add_static_bucket(self.world)
        self.create_claim("c1", "gold")
        self.create_access("a1", "c1", own_secret=True)
        self.world.run_until_idle(limit_s=30.0)

    def _choose_accounts(self, accounts: str) -> None:
        self.world.backend.new_account_each_time = accounts == "one each time"
        self.world.backend.one_account_for_a_bucket = accounts == "one for a bucket"

    def final_means_no_calls_until_something_changes(self) -> None:
        """Not here: a tenant may write the status that holds the verdict of its own access."""

    # --- a tenant, with every right in its own namespace

    @rule(space=SPACE, name=st.sampled_from(CLAIMS), leads_to=st.sampled_from(["gold", "old"]))
    def another_claim(self, space: str, name: str, leads_to: str) -> None:
        leads = {"existingBucketName": "old"} if leads_to == "old" else {"bucketClassName": "gold"}
        self.world.put(BUCKET_CLAIMS, space, name, spec={"protocols": ["S3"], **leads})

    @rule(space=SPACE, name=st.sampled_from(ACCESSES), claim=st.sampled_from(CLAIMS))
    def another_access(self, space: str, name: str, claim: str) -> None:
        spec = {
            "bucketAccessClassName": "keys",
            "bucketClaimName": claim,
            "credentialsSecretName": f"{name}-secret",
            "protocol": "S3",
        }
        self.world.put(BUCKET_ACCESSES, space, name, spec=spec)

    @rule(space=SPACE, name=st.sampled_from(ACCESSES), victim=st.integers(0, 3))
    def forges_the_status_of_an_access(self, space: str, name: str, victim: int) -> None:
        accounts = sorted(self.world.backend.accounts)
        if victim >= len(accounts):
            return
        forged = {"accessGranted": True, "accountID": accounts[victim]}
        self._tamper(BUCKET_ACCESSES, space, name, lambda b: b.update(status=forged), status=True)

    @rule(space=SPACE, name=st.sampled_from(CLAIMS), victim=st.integers(0, 2))
    def forges_the_status_of_a_claim(self, space: str, name: str, victim: int) -> None:
        buckets = sorted(b["metadata"]["name"] for b in self.world.api.list(BUCKETS))
        if victim < len(buckets):
            forged = {"bucketReady": True, "bucketName": buckets[victim]}
            key = Key(space, name)
            self.world.edit(BUCKET_CLAIMS, key, lambda b: b.update(status=forged), status=True)

    @rule(space=SPACE, name=st.sampled_from(ACCESSES), victim=st.integers(0, 3))
    def forges_annotations_and_a_secret(self, space: str, name: str, victim: int) -> None:
        """Everything that an earlier version of the sidecar believed."""
        accounts = sorted(self.world.backend.accounts)
        access = self.world.api.find(BUCKET_ACCESSES, Key(space, name))
        if access is None or victim >= len(accounts):
            return
        if access["spec"]["credentialsSecretName"] in self.world.api.refused_secrets:
            return
        self.world.tampered.add(access["metadata"]["uid"])
        account = self.world.backend.accounts[accounts[victim]]
        notes = {
            "cosi.objectstorage.k8s.io/driver": "s3.example.com",
            "cosi.objectstorage.k8s.io/bucket-id": account.bucket_id,
            "cosi.objectstorage.k8s.io/account-id": accounts[victim],
            RECORD_ANNOTATION: '{"accesses":{}}',
        }
        self.world.edit(
            BUCKET_ACCESSES, Key(space, name), lambda b: b["metadata"].update(annotations=notes)
        )
        info = f'{{"metadata":{{"name":"bc-{access["metadata"]["uid"]}"}}}}'
        secret = access["spec"]["credentialsSecretName"]
        data = {"BucketInfo": base64.b64encode(info.encode()).decode()}
        self.world.put(
            SECRETS,
            space,
            secret,
            metadata={"annotations": notes, "labels": {"forged": "yes"}},
            stringData={"BucketInfo": base64.b64decode(data["BucketInfo"]).decode()},
        )

    @rule(
        space=SPACE,
        name=st.sampled_from(ACCESSES),
        field=st.sampled_from(["bucketClaimName", "credentialsSecretName"]),
        value=st.sampled_from(["c1", "c2", "a1-secret", "a2-secret"]),
    )
    def edits_the_spec_of_an_access(self, space: str, name: str, field: str, value: str) -> None:
        # With the record, nobody knows what it was; our CRDs do not allow these edits.
        if self.destroyer not in ("removes Buckets", "replaces Buckets"):
            self._tamper(BUCKET_ACCESSES, space, name, lambda b: b["spec"].update({field: value}))

    @rule(name=st.sampled_from(["a1-secret", "common-secret"]), theirs=st.booleans())
    def a_secret_is_removed_by_force_or_made_by_someone(self, name: str, theirs: bool) -> None:
        if self.destroyer != "removes Buckets":  # without both, nothing shows that a key exists
            super().a_secret_is_removed_by_force_or_made_by_someone(name, theirs)

    @rule(space=SPACE, name=st.sampled_from(ACCESSES), token=st.sampled_from("12"))
    def rotates(self, space: str, name: str, token: str) -> None:
        def annotate(body: Json) -> None:
            body["metadata"].setdefault("annotations", {})[names.ROTATE_ANNOTATION] = token

        self.world.edit(BUCKET_ACCESSES, Key(space, name), annotate)

    @rule(space=SPACE, kind=st.sampled_from(sorted(KINDS)), index=st.integers(0, 2))
    def adds_or_removes_a_foreign_finalizer(self, space: str, kind: str, index: int) -> None:
        name = (ACCESSES if kind == "access" else CLAIMS)[index % 2]

        def toggle(body: Json) -> None:
            held = body["metadata"].get("finalizers") or []
            has = "example.com/mine" in held
            if has:
                body["metadata"]["finalizers"] = [f for f in held if f != "example.com/mine"]
            elif not body["metadata"].get("deletionTimestamp"):
                body["metadata"]["finalizers"] = [*held, "example.com/mine"]

        self.world.edit(KINDS[kind], Key(space, name), toggle)

    @rule(space=SPACE, name=st.sampled_from(ACCESSES))
    def edits_the_bucket_info(self, space: str, name: str) -> None:
        def edit(body: Json) -> None:
            body["data"] = {
                "BucketInfo": base64.b64encode(b'{"metadata":{"name":"\xff"}}').decode()
            }

        if access := self.world.api.find(BUCKET_ACCESSES, Key(space, name)):
            self.world.tampered.add(access["metadata"]["uid"])
        self.world.edit(SECRETS, Key(space, f"{name}-secret"), edit)

    @rule(
        space=SPACE,
        kind=st.sampled_from(sorted(KINDS)),
        name=st.sampled_from([*CLAIMS, *ACCESSES]),
    )
    def strips_the_finalizers(self, space: str, kind: str, name: str) -> None:
        if self.destroyer == "strips finalizers":
            self._tamper(KINDS[kind], space, name, lambda b: b["metadata"].pop("finalizers", None))

    def _tamper(
        self, resource: Resource, space: str, name: str, change: Any, *, status: bool = False
    ) -> None:
        held = self.world.api.find(resource, Key(space, name))
        if held is not None:
            self.world.tampered.add(held["metadata"]["uid"])
            self.world.edit(resource, Key(space, name), change, status=status)

    # --- restores

    @rule(name=st.sampled_from([*CLAIMS, *ACCESSES]), with_secret=st.booleans())
    def is_copied_into_a_drill(self, name: str, with_secret: bool) -> None:
        resource = BUCKET_CLAIMS if name in CLAIMS else BUCKET_ACCESSES
        self.world.copy_into(resource, Key(NAMESPACE, name), DRILL)
        access = self.world.api.find(BUCKET_ACCESSES, Key(DRILL, name))
        # Roles have no list of Secrets: one that no object names, or that comes after the deletion
        # of its access has looked for it, can't be found.
        if not with_secret or access is None or "deletionTimestamp" in access["metadata"]:
            return
        secret = access["spec"]["credentialsSecretName"]
        if secret not in self.world.api.refused_secrets:
            self.world.copy_into(SECRETS, Key(NAMESPACE, secret), DRILL)

    @rule(name=st.sampled_from([*CLAIMS, *ACCESSES]))
    def is_deleted_in_the_drill(self, name: str) -> None:
        resource = BUCKET_CLAIMS if name in CLAIMS else BUCKET_ACCESSES
        if self.world.api.find(resource, Key(DRILL, name)):
            self.world.api.delete(resource, Key(DRILL, name))

    @rule()
    def the_drill_is_thrown_away(self) -> None:
        for resource in (BUCKET_CLAIMS, BUCKET_ACCESSES):
            for body in self.world.api.list(resource):
                if body["metadata"]["namespace"] == DRILL:
                    self.world.api.delete(resource, Key(DRILL, body["metadata"]["name"]))

    # --- administrators and their tools

    @rule(space=SPACE, name=st.sampled_from([*CLAIMS, ""]))
    def gitops_applies_the_static_bucket_again(self, space: str, name: str) -> None:
        claim = {"namespace": space, "name": name} if name else {}
        self.world.edit(BUCKETS, Key("", "old"), lambda b: b["spec"].update(bucketClaim=claim))

    @rule(index=st.integers(0, 2), space=SPACE, name=st.sampled_from(CLAIMS))
    def an_administrator_binds_a_bucket(self, index: int, space: str, name: str) -> None:
        claim = self.world.api.find(BUCKET_CLAIMS, Key(space, name))
        if claim is None:
            return
        ref = {"namespace": space, "name": name, "uid": claim["metadata"]["uid"]}
        self._bucket(index, lambda b: b["spec"].update(bucketClaim=ref))
        # If no Bucket has a record, nobody can know which of two the keys are for.
        self.world.moved |= {
            access["metadata"]["uid"]
            for access in self.world.api.list(BUCKET_ACCESSES)
            if access["spec"]["bucketClaimName"] == name
        }

    @rule(index=st.integers(0, 2), there=st.booleans())
    def an_administrator_edits_the_driver(self, index: int, there: bool) -> None:
        driver = "s3.example.com" if there else "other.example.com"
        self._bucket(index, lambda b: b["spec"].update(driverName=driver))

    @rule(index=st.integers(0, 2))
    def a_bucket_is_replaced_without_its_record(self, index: int) -> None:
        if self.destroyer == "replaces Buckets":
            self._bucket(index, self._lose_record)

    def _lose_record(self, body: Json) -> None:
        record = record_of(body)
        self.world.overwritten |= set(record.accesses if record else ())
        body["metadata"].pop("annotations", None)

    @rule(index=st.integers(0, 2), take=st.booleans())
    def an_older_record_is_put_back(self, index: int, take: bool) -> None:
        """With `take`, a backup is made; without, the last one is written over the present."""
        if self.destroyer != "puts back older records":
            return
        buckets = sorted(b["metadata"]["name"] for b in self.world.api.list(BUCKETS))
        if index >= len(buckets):
            return
        body = self.world.api.get(BUCKETS, Key("", buckets[index]))
        uid, record = body["metadata"]["uid"], record_of(body)
        if take and record:
            self.backups[uid] = body["metadata"]["annotations"][RECORD_ANNOTATION]
        elif not take and uid in self.backups:
            older = decode_record(self.backups[uid])
            kept = set(older.accesses) if older else set()
            self.world.overwritten |= set(record.accesses if record else ()) - kept
            self._bucket(index, lambda b: _annotate(b, self.backups[uid]))

    @rule(index=st.integers(0, 2), take=st.booleans())
    def an_older_bucket_is_applied(self, index: int, take: bool) -> None:
        """As `kubectl apply --force-conflicts` or Velero's update policy writes a saved Bucket.

        With `take`, it is saved; without, the last saved version is written over the present.
        """
        if self.destroyer != "applies older Buckets":
            return
        buckets = sorted(b["metadata"]["name"] for b in self.world.api.list(BUCKETS))
        if index >= len(buckets):
            return
        body = self.world.api.get(BUCKETS, Key("", buckets[index]))
        uid, record = body["metadata"]["uid"], record_of(body)
        if take and record:
            self.saved[uid] = copy(body)
        elif not take and uid in self.saved:
            older = record_of(self.saved[uid])
            kept = set(older.accesses) if older else set()
            self.world.overwritten |= set(record.accesses if record else ()) - kept
            apply_older(self.world, self.saved[uid])

    @rule(accounts=st.sampled_from(ACCOUNTS), rotated=st.booleans())
    def the_driver_is_upgraded(self, accounts: str, rotated: bool) -> None:
        """Its new version chooses accounts in another way; all keys are rotated at once."""
        if not self.is_upgraded:
            return
        self._choose_accounts(accounts)
        self.world.backend.is_upgraded = True
        for access in self.world.api.list(BUCKET_ACCESSES) if rotated else ():
            meta = access["metadata"]
            self.rotates(space=meta["namespace"], name=meta["name"], token=accounts)

    @rule(
        index=st.integers(0, 2),
        without=st.sets(st.sampled_from(["status", "annotations", "finalizers"])),
    )
    def a_bucket_is_copied(self, index: int, without: set[str]) -> None:
        """Under another name, by a backup tool or by hand: its spec still names the claim."""
        buckets = sorted(b["metadata"]["name"] for b in self.world.api.list(BUCKETS))
        if index < len(buckets) and COPY not in buckets:
            key = Key("", buckets[index])
            self.world.copy_into(BUCKETS, key, "", name=COPY, without=without)

    @rule(forced=st.booleans())
    def the_copy_of_a_bucket_is_deleted(self, forced: bool) -> None:
        body = self.world.api.find(BUCKETS, Key("", COPY))
        if body is None:
            return
        if forced:
            notes = {names.FORCE_DELETE_ANNOTATION: body["metadata"]["uid"]}
            self.world.edit(
                BUCKETS,
                Key("", COPY),
                lambda b: b["metadata"].setdefault("annotations", {}).update(notes),
            )
        self.world.api.delete(BUCKETS, Key("", COPY))

    @rule(index=st.integers(0, 2))
    def a_bucket_is_removed_by_force(self, index: int) -> None:
        if self.destroyer != "removes Buckets":
            return
        buckets = sorted(b["metadata"]["name"] for b in self.world.api.list(BUCKETS))
        if index < len(buckets):
            body = self.world.api.get(BUCKETS, Key("", buckets[index]))
            self._lose(body)
            record = record_of(body)
            self.world.overwritten |= set(record.accesses if record else ())
            self._bucket(index, lambda b: b["metadata"].pop("finalizers", None))
            if self.world.api.find(BUCKETS, Key("", buckets[index])):
                self.world.api.delete(BUCKETS, Key("", buckets[index]))

    @rule(index=st.integers(0, 2))
    def a_go_sidecar_of_another_driver_sees_a_deletion(self, index: int) -> None:
        """v0.2.2 deletes the accesses and takes off the finalizers, whoever the driver is."""
        if self.destroyer != "Go sidecar of another driver":
            return
        buckets = sorted(b["metadata"]["name"] for b in self.world.api.list(BUCKETS))
        if index >= len(buckets):
            return
        body = self.world.api.get(BUCKETS, Key("", buckets[index]))
        if not body["metadata"].get("deletionTimestamp"):
            return
        self._lose(body)
        claim = body["spec"].get("bucketClaim") or {}
        for access in self.world.api.list(BUCKET_ACCESSES):
            meta, spec = access["metadata"], access["spec"]
            named = (meta["namespace"], spec["bucketClaimName"])
            if named == (claim.get("namespace"), claim.get("name")):
                self.world.api.delete(BUCKET_ACCESSES, Key(meta["namespace"], meta["name"]))
        ours = (names.BUCKET_FINALIZER, names.BUCKET_ACCESS_FINALIZER)

        def strip(b: Json) -> None:
            held = b["metadata"].get("finalizers") or []
            b["metadata"]["finalizers"] = [f for f in held if f not in ours]

        self._bucket(index, strip)

    def _lose(self, body: Json) -> None:
        """Nobody deletes the backend bucket of an object that was removed by force."""
        self.retained.add(body["metadata"]["name"])
        if record := record_of(body):
            self.world.tampered.update(record.accesses)

    def _bucket(self, index: int, change: Any) -> None:
        buckets = sorted(b["metadata"]["name"] for b in self.world.api.list(BUCKETS))
        if index < len(buckets):
            self.world.edit(BUCKETS, Key("", buckets[index]), change)

    # --- in the end

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        self._finish_runs()
        world.backend.answers.clear()
        world.api.refused_secrets.clear()
        world.driver_comes()
        self.access_class_goes_or_comes(there=True)
        for index in range(len(world.api.list(BUCKETS))):
            self._bucket(index, lambda b: b["spec"].update(driverName="s3.example.com"))
        for resource in (BUCKET_CLAIMS, BUCKET_ACCESSES):
            for body in world.api.list(resource):
                self._heal(resource, body)
        self._rests()
        for resource in (BUCKET_ACCESSES, BUCKET_CLAIMS, BUCKETS):
            for body in world.api.list(resource):
                meta = body["metadata"]
                if world.api.find(resource, Key(meta.get("namespace", ""), meta["name"])):
                    world.api.delete(resource, Key(meta.get("namespace", ""), meta["name"]))
        self._rests()
        self._no_secret_of_ours_is_left()
        self._nothing_is_left()

    def _heal(self, resource: Resource, body: Json) -> None:
        def heal(b: Json) -> None:
            meta = b["metadata"]
            held = meta.get("finalizers") or []
            meta["finalizers"] = [f for f in held if f != "example.com/mine"]
            meta.setdefault("annotations", {})[names.RETRY_ANNOTATION] = "at last"

        meta = body["metadata"]
        self.world.edit(resource, Key(meta["namespace"], meta["name"]), heal)

    def _no_secret_of_ours_is_left(self) -> None:
        """Forged, broken and restored Secrets are their owner's, without a finalizer of ours."""
        for body in self.world.api.list(SECRETS):
            meta = body["metadata"]
            key = Key(meta["namespace"], meta["name"])
            held = names.SECRET_FINALIZER in (meta.get("finalizers") or ())
            assert not held or key in self.world.unnamed, meta
            self.world.api.delete(SECRETS, key)
            if held:
                self.world.edit(SECRETS, key, lambda b: b["metadata"].pop("finalizers"))


def _annotate(body: Json, record: str) -> None:
    body["metadata"].setdefault("annotations", {})[RECORD_ANNOTATION] = record


@pytest.mark.timeout(3600 if IS_LONG else 300)
def test_nobody_reaches_what_is_not_theirs_and_nothing_is_lost() -> None:
    random.seed(0)
    search(Hostile, HOSTILE_PROFILE)
