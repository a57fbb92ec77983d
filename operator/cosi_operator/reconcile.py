"""The parts that all reconcilers share.

`Steps` is the loop: plan a step, apply it, fold the result, until Done. `UnconfirmedWrites` and
`VanishedObjects` remember keys between runs.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from cosi_operator.api.view import Bucket, BucketAccess, BucketClaim, Key
from cosi_operator.kube.errors import (
    ApiError,
    ApiSilent,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    ServerError,
)
from cosi_operator.kube.objects import Objects
from cosi_operator.kube.store import identify
from cosi_operator.outcome import Outcome, Reason, Requeue, Terminal
from cosi_operator.plan.steps import Done

# No plan has so many steps, so a run that reaches this limit has two steps that undo each other.
MAX_STEPS = 32


@dataclass(frozen=True, slots=True)
class End[V]:
    """The result of a run. `report` is False if the stored status already shows the outcome."""

    view: V
    outcome: Outcome
    report: bool


@dataclass(slots=True)
class UnconfirmedWrites:
    """Keys whose last write got no reply, so the cached copy may be stale.

    Read such an object again before any driver call, because the write may have succeeded. If the
    Bucket no longer exists, a call for the stale copy would create a backend bucket without a
    record.
    """

    _keys: set[Key] = field(default_factory=set)

    def note(self, key: Key, error: ApiError | ApiSilent) -> None:
        if isinstance(error, ApiSilent | ServerError):
            self._keys.add(key)

    async def clear(self, objects: Objects[Any], key: Key) -> None:
        """Read the object if its last write got no reply.

        Raises:
            ApiError, ApiSilent: the read failed; the key stays in the set.
        """
        if key in self._keys:
            await objects.refresh(key)
            self._keys.discard(key)


class VanishedObjects[T: Bucket | BucketAccess | BucketClaim]:
    """Objects that the API server removed although they had our finalizer.

    The API server decides a DELETE from one read, and a finalizer that is stored after that read
    does not stop the deletion (kubernetes/kubernetes#77988). Such an object disappears without a
    deletionTimestamp in any watch event, and the resources that were created for it still have to
    be removed. This set is only in memory, so a process that crashes at that moment loses it.
    """

    def __init__(self, finalizer: str) -> None:
        self._finalizer = finalizer
        self._by_key: dict[Key, T] = {}

    def observe(self, old: T | None, new: T | None) -> None:
        """Remember the old object of a change if it vanished with our finalizer on it."""
        if old is None or (new is not None and new.meta.uid == old.meta.uid):
            return
        if self._finalizer in old.meta.finalizers and not old.meta.deleting:
            self._by_key[old.meta.key] = old

    async def find(self, objects: Objects[T], key: Key) -> T | None:
        """The vanished object of this key, as the cache last had it.

        Reads from the API server first, because a stale list may only lack the object.

        Raises:
            ApiError, ApiSilent: that read failed.
        """
        vanished = self._by_key.get(key)
        if vanished is None:
            return None
        try:
            raw = await objects.client.get(objects.resource, key)
        except NotFound:
            return vanished
        if identify(raw).uid != vanished.meta.uid:
            return vanished
        self.forget(key)
        return None

    def forget(self, key: Key) -> None:
        """Call this when the resources that were created for the object are removed."""
        self._by_key.pop(key, None)


@dataclass(frozen=True, slots=True)
class Steps[V, S, F]:
    """The loop of a reconcile run: plan a step, apply it, fold its fact into the view.

    `S` are the steps that `apply` gets, without Done, which ends the loop.
    """

    plan: Callable[[V], Done | S]
    apply: Callable[[V, S], Awaitable[F]]
    fold: Callable[[V, F], V]

    async def run(self, view: V) -> End[V]:
        """Run steps until the plan is Done, at most MAX_STEPS.

        Raises:
            ApiError, ApiSilent: a request failed; `outcome_of` converts the error to an outcome.
        """
        for _ in range(MAX_STEPS):
            step = self.plan(view)
            if isinstance(step, Done):
                return End(view, step.outcome, step.report)
            view = self.fold(view, await self.apply(view, step))
        message = f"The run did not finish within {MAX_STEPS} steps."
        return End(view, Requeue(Reason.STEP_LIMIT, message, quiet=True), report=False)


def outcome_of(error: ApiError | ApiSilent) -> Outcome:
    """Return the outcome of a run whose API request failed: a retry, except after `Invalid`."""
    match error:
        case Conflict() | NotFound():
            return Requeue(Reason.CONFLICT, "", after_s=0.0, quiet=True)
        case Forbidden():
            return Requeue(
                Reason.API_REFUSED,
                f"The API server refused the request: {error.message}",
                quiet=True,
            )
        case Invalid():
            return Terminal(
                Reason.API_REFUSED, f"The API server refused the request: {error.message}"
            )
        case _:
            return Requeue(Reason.API_UNAVAILABLE, str(error), quiet=True)
