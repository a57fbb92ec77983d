"""Ways to break the product's decisions, each of which the search must find.

A mutation replaces a decision function where it is looked up. `moves` is the most that the search
needs from outside.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from tests.explore.machine import Scene
from tests.explore.search import Bound

from cosi_operator.outcome import Success
from cosi_operator.plan import (
    access,
    access_deletion,
    access_entry,
    bucket,
    bucket_deletion,
    names,
    records,
)
from cosi_operator.plan.access_view import rotate_token
from cosi_operator.plan.steps import Done, EditBucket, EditFinalizers, StoreSecret
from cosi_operator.sidecar.access_accounts import AccessAccounts
from cosi_operator.sidecar.records import Holders

FRESH = Scene("fresh", ready=False)
GRANTED = Scene("granted")
SHARED = Scene("one account for a bucket", accounts="one for a bucket", accesses=2)
TAKEN = Scene("taken", prelude=("a1-secret is removed by force and made by someone",))
MINTS = Scene("a driver that mints", accounts="one each time")
STATIC = Scene("static", claim="old", prelude=("other tenant creates claim c1 (old)",))
NO_MOVES, ONE, ONE_AT_REST = Bound(0, 0), Bound(1, 1), Bound(1, 0)


@dataclass(frozen=True)
class Mutation:
    """A broken decision.

    target, name: the module or class and the function that `broken` replaces; it gets the original.
    """

    words: str
    target: Any
    name: str
    broken: Callable[[Any], Callable[..., Any]]
    scene: Scene
    bound: Bound

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(self.target, self.name, self.broken(getattr(self.target, self.name)))


def _always(value: object) -> Callable[[Any], Callable[..., Any]]:
    return lambda _original: lambda *_args, **_names: value


def _grant_at_once(_original: Any) -> Callable[..., Any]:
    return lambda a, b, view: access_entry.grant_step(a, records.bucket_id_of(b), view)


def _forget_revoke(_original: Any) -> Callable[..., Any]:
    def plan(a: Any, _view: Any) -> Any:
        if names.ACCESS_FINALIZER in a.meta.finalizers:
            return EditFinalizers(a.meta.key, remove=(names.ACCESS_FINALIZER,))
        return Done(Success(), report=False)

    return plan


def _store_at_once(_original: Any) -> Callable[..., Any]:
    return lambda _a, _b, view: StoreSecret(view.secret_key, replace=view.secret.ours)


def _only_the_new(original: Any) -> Callable[..., Any]:
    def with_fields(entry: Any, **fields: Any) -> Any:
        if len(fields.get("accounts", ())) > 1 and fields.get("minted") == "":
            fields["accounts"] = fields["accounts"][-1:]
        return original(entry, **fields)

    return with_fields


def _undecided(original: Any) -> Callable[..., Any]:
    def released(b: Any, view: Any) -> Any:
        if names.BUCKET_FINALIZER in b.meta.finalizers and b.ready:
            return EditBucket(b.meta.key, remove=(names.BUCKET_FINALIZER,))
        return original(b, view)

    return released


def _by_annotation(_original: Any) -> Callable[..., Any]:
    return lambda a, _view: bool(rotate_token(a))


def _by_name(_original: Any) -> Callable[..., Any]:
    return lambda b, claim: records.bound_claim(b).name == claim.meta.name


MUTATIONS = (
    Mutation(
        "Grant is called before the record is written",
        access, "_plan_mint", _grant_at_once, FRESH, NO_MOVES,
    ),
    Mutation(
        "an account that another access uses is revoked",
        AccessAccounts, "holders", _always(Holders()), SHARED, ONE_AT_REST,
    ),
    Mutation(
        "Delete is sent while the claim lives",
        bucket_deletion, "_wait_for_claim", _always(None), GRANTED, ONE_AT_REST,
    ),
    Mutation(
        "the finalizer goes before the keys are revoked",
        access, "plan_deletion", _forget_revoke, GRANTED, NO_MOVES,
    ),
    Mutation(
        "the Secret of a deleted access is left",
        access_deletion, "_plan_secrets", _always(None), GRANTED, NO_MOVES,
    ),
    Mutation(
        "Create is called without finalizer and record",
        bucket, "_plan_hold", _always(None), FRESH, NO_MOVES,
    ),
    Mutation(
        "an account is used before it is recorded",
        access, "_plan_store", _store_at_once, FRESH, ONE,
    ),
    Mutation(
        "a rotation forgets the old account",
        access, "with_fields", _only_the_new, MINTS, ONE_AT_REST,
    ),
    Mutation(
        "a Secret that somebody else made is taken",
        access, "secret_problem", _always(None), TAKEN, ONE_AT_REST,
    ),
    Mutation(
        "nobody says that the driver is gone",
        bucket, "_halt", _always(Done(Success(), report=False)), FRESH, NO_MOVES,
    ),
    Mutation(
        "a finalizer is added and removed in turn",
        bucket, "_released", _undecided, GRANTED, ONE_AT_REST,
    ),
    Mutation(
        "the bucket is deleted before its accesses",
        bucket_deletion, "_plan_accesses", _always(None), GRANTED, ONE_AT_REST,
    ),
    Mutation(
        "an annotation asks for a rotation again and again",
        access, "is_rotation_due", _by_annotation, GRANTED, ONE_AT_REST,
    ),
    Mutation(
        "a Bucket belongs to every claim of its claim's name",
        records, "is_bound_to", _by_name, STATIC, ONE,
    ),
)  # fmt: skip
