"""What all reconcilers share: the loop (plan a step, apply it, fold, until Done), and what they
remember of writes without an answer and of objects that vanished."""

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

# More steps than any plan has; reaching it means that two steps undo each other.
MAX_STEPS = 32


@dataclass(frozen=True, slots=True)
class End[V]:
    """How a run ended. `report` is False when what is stored already says it."""

    view: V
    outcome: Outcome
    report: bool


@dataclass(slots=True)
class UnconfirmedWrites:
    """Keys whose last write got no answer: it may have gone through, so the copy may be stale.

    No driver call is made on such a copy: of a Bucket that is gone by now, it would make a backend
    bucket that nothing records.
    """

    _keys: set[Key] = field(default_factory=set)

    def note(self, key: Key, error: ApiError | ApiSilent) -> None:
        if isinstance(error, ApiSilent | ServerError):
            self._keys.add(key)

    async def clear(self, objects: Objects[Any], key: Key) -> None:
        """Read the object if its last write got no answer.

        Raises:
            ApiError, ApiSilent: it could not be read; the key stays noted.
        """
        if key in self._keys:
            await objects.refresh(key)
            self._keys.discard(key)


class VanishedObjects[T: Bucket | BucketAccess | BucketClaim]:
    """Objects that the API server removed although our finalizer was on them.

    It decides on a DELETE from one read, and a finalizer that is stored after that does not stop
    it (kubernetes/kubernetes#77988): the object is gone without ever having been seen deleting.
    What was made for it still has to be removed. Only in memory: a process that crashes in that
    moment as well forgets it.
    """

    def __init__(self, finalizer: str) -> None:
        self._finalizer = finalizer
        self._by_key: dict[Key, T] = {}

    def observe(self, old: T | None, new: T | None) -> None:
        """Take notice of a change, if it is one of these."""
        if old is None or (new is not None and new.meta.uid == old.meta.uid):
            return
        if self._finalizer in old.meta.finalizers and not old.meta.deleting:
            self._by_key[old.meta.key] = old

    async def find(self, objects: Objects[T], key: Key) -> T | None:
        """The vanished object of this key, as it was last seen.

        The API server is asked, since it may only be missing from a list that was old.

        Raises:
            ApiError, ApiSilent: it could not be asked.
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
        """What was made for it is removed."""
        self._by_key.pop(key, None)


async def run_steps[V, S, F](
    view: V,
    *,
    plan: Callable[[V], S],
    apply: Callable[[V, S], Awaitable[F]],
    fold: Callable[[V, F], V],
) -> End[V]:
    """Run steps until the plan is Done.

    Raises:
        ApiError, ApiSilent: a write did not go through; see `outcome_of`.
    """
    for _ in range(MAX_STEPS):
        step = plan(view)
        if isinstance(step, Done):
            return End(view, step.outcome, step.report)
        view = fold(view, await apply(view, step))
    return End(
        view, Requeue(Reason.STEP_LIMIT, "The plan did not settle.", quiet=True), report=False
    )


def outcome_of(error: ApiError | ApiSilent) -> Outcome:
    """What a failed API request means for the key: nearly always "again, on a fresh copy"."""
    match error:
        case Conflict() | NotFound():
            return Requeue(Reason.CONFLICT, "", after_s=0.0, quiet=True)
        case Forbidden():
            return Requeue(
                Reason.API_REFUSED, f"The API server refused: {error.message}", quiet=True
            )
        case Invalid():
            return Terminal(Reason.API_REFUSED, f"The API server refused: {error.message}")
        case _:
            return Requeue(Reason.API_UNAVAILABLE, str(error), quiet=True)
