"""Counts objects by state, for the metrics."""

from collections import Counter
from collections.abc import Callable, Iterable

from cosi_operator.api.view import Bucket, BucketAccess, BucketClaim
from cosi_operator.kube.objects import Objects
from cosi_operator.metrics import ObjectCounts, State

type Counted = Bucket | BucketAccess | BucketClaim


def counted_as(view: Counted) -> tuple[State, str]:
    """The state, and the reason of the Ready condition; "" if the state is sufficient."""
    conditions = {condition.type: condition for condition in view.conditions}
    ready = conditions.get("Ready")
    reason = ready.reason if ready else ""
    if view.meta.deleting:
        return State.DELETING, "" if ready and ready.status == "True" else reason
    if ready is None:
        return State.NEW, ""
    if ready.status == "True":
        return State.READY, ""
    return (State.STALLED if "Stalled" in conditions else State.RECONCILING), reason


def object_counter[T: Counted](
    objects: Objects[T], is_ours: Callable[[T], bool] = lambda _: True
) -> Callable[[], ObjectCounts]:
    """Return a function that counts the objects, for `Metrics.watch_objects`."""

    def views() -> Iterable[T]:
        return (cached.view for _, cached in objects.store.items())

    return lambda: Counter(counted_as(view) for view in views() if is_ours(view))
