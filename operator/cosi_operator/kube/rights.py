"""Tracks the rights that this process lacks, according to the API server's refusals.

A missing right is logged at error level once, when a request is first refused, and at warning level
when it is granted. Between the two, a metric reports it. Quota and admission also refuse with 403.
Those refusals are not counted, because their message does not have the authorizer's form.
"""

import re
from dataclasses import dataclass

import structlog

from cosi_operator.api.view import Resource
from cosi_operator.clock import Clock
from cosi_operator.kube.errors import DENIED, ApiError, Forbidden

log = structlog.get_logger(__name__)

_ACCOUNT = re.compile(r"system:serviceaccount:([^:]+):(.+)")
# Every request that is refused is retried within 5 minutes. A right that was not refused for this
# long is no longer needed.
FORGOTTEN_AFTER_S = 900.0
AUTHORIZED_STATUSES = (404, 409, 410, 422)
"""Statuses that are sent only after the authorizer has allowed the request."""
CAPACITY = 1024
"""Maximum number of pairs of right and namespace to store; others are logged again."""


@dataclass(frozen=True, slots=True)
class MissingRight:
    """A verb on a resource that the authorizer denied; `namespace` is "" at the cluster scope."""

    user: str
    verb: str
    resource: str
    group: str
    namespace: str

    @property
    def target(self) -> str:
        """The resource and group, e.g. `buckets/status.objectstorage.k8s.io`."""
        return f"{self.resource}{f'.{self.group}' if self.group else ''}"

    @property
    def call(self) -> str:
        """The verb and target, e.g. `create buckets.objectstorage.k8s.io`."""
        return f"{self.verb} {self.target}"

    @property
    def place(self) -> str:
        return f"namespace {self.namespace}" if self.namespace else "the whole cluster"

    @property
    def role(self) -> str:
        """The role that has to grant the right, identified by its subject."""
        kind = "Role" if self.resource == "leases" else "ClusterRole"
        account = _ACCOUNT.fullmatch(self.user)
        whom = f"ServiceAccount {account[1]}/{account[2]}" if account else f"user {self.user}"
        return f"the {kind} bound to {whom}"

    @property
    def words(self) -> str:
        """A sentence without a full stop, for a condition or an Event."""
        return f'{self.role} lacks the verb "{self.verb}" on {self.target} in {self.place}'


def missing_right(error: BaseException) -> MissingRight | None:
    """The right that a refused request lacked; None for any other failure."""
    if not isinstance(error, Forbidden):
        return None
    found = DENIED.search(error.message)
    if found is None:
        return None
    return MissingRight(
        found["user"], found["verb"], found["resource"], found["group"], found["namespace"] or ""
    )


class Rights:
    """The rights of one process that were refused within the last FORGOTTEN_AFTER_S."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._missing: dict[tuple[str, str], tuple[MissingRight, float]] = {}

    def answered(self, call: str, namespace: str, error: ApiError | None) -> None:
        """Record the reply to a request; `error` is None if the request succeeded."""
        if error is None or error.status in AUTHORIZED_STATUSES:
            self.allowed(call, namespace)
        else:
            self.refused(error)

    def refused(self, error: ApiError) -> None:
        """Record a refusal if a missing right caused it."""
        right = missing_right(error)
        if right is None:
            return
        is_news = right.call not in self.missing()
        if len(self._missing) >= CAPACITY:
            self._missing.pop(next(iter(self._missing)))
        self._missing[right.call, right.namespace] = right, self._clock.monotonic()
        if is_news:  # otherwise the same right was logged before, perhaps for another namespace
            log.error(
                "permission_missing",
                verb=right.verb,
                resource=right.target,
                place=right.place,
                role=right.role,
                remedy="add the verb to this role; deploy/rbac lists all required rules",
            )

    def allowed(self, call: str, namespace: str) -> None:
        """Record that the authorizer allowed a request."""
        if not self._missing:  # the usual case
            return
        found = [
            # A right at the cluster scope applies in each namespace.
            self._missing.pop((call, place), None)
            for place in {namespace, ""}
        ]
        if any(found) and call not in self.missing():
            log.warning("permission_granted", call=call)

    def missing(self) -> frozenset[str]:
        """The calls refused in any namespace, such as `create buckets.objectstorage.k8s.io`."""
        oldest_s = self._clock.monotonic() - FORGOTTEN_AFTER_S
        for place in [place for place, (_, at_s) in self._missing.items() if at_s < oldest_s]:
            del self._missing[place]
        return frozenset(call for call, _ in self._missing)


def call_of(verb: str, resource: Resource, subresource: str) -> str:
    """The verb, resource and group of a request, in the form of `MissingRight.call`."""
    target = f"{resource.plural}/{subresource}".rstrip("/")
    return f"{verb} {target}{f'.{resource.group}' if resource.group else ''}"
