"""Which rights this process lacks, as the API server's own refusals say.

A missing right is logged at error level once, when it is first refused, and at warning level when
it is granted. In between it is a metric. Quota and admission are refused with 403 too. Those
refusals are no missing rights, because their message does not have the authorizer's form.
"""

import re
from dataclasses import dataclass

import structlog

from cosi_operator.api.view import Resource
from cosi_operator.clock import Clock
from cosi_operator.kube.errors import DENIED, ApiError, Forbidden

log = structlog.get_logger(__name__)

_ACCOUNT = re.compile(r"system:serviceaccount:([^:]+):(.+)")
# Whatever lacks a right asks again within 5 minutes; what no longer asks is gone.
FORGOTTEN_AFTER_S = 900.0
AUTHORIZED_STATUSES = (404, 409, 410, 422)
"""Refusals that come after the authorizer has let a request through."""
CAPACITY = 1024
"""Different rights and namespaces remembered; more are logged again."""


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
        """As in `buckets/status.objectstorage.k8s.io`."""
        return f"{self.resource}{f'.{self.group}' if self.group else ''}"

    @property
    def call(self) -> str:
        """As in `create buckets.objectstorage.k8s.io`."""
        return f"{self.verb} {self.target}"

    @property
    def place(self) -> str:
        return f"namespace {self.namespace}" if self.namespace else "the whole cluster"

    @property
    def role(self) -> str:
        """What has to be repaired."""
        kind = "Role" if self.resource == "leases" else "ClusterRole"
        account = _ACCOUNT.fullmatch(self.user)
        whom = f"ServiceAccount {account[1]}/{account[2]}" if account else f"user {self.user}"
        return f"the {kind} bound to {whom}"

    @property
    def words(self) -> str:
        """One sentence for a condition or an Event."""
        return f'{self.role} lacks the verb "{self.verb}" on {self.target} in {self.place}'


def missing_right(error: BaseException) -> MissingRight | None:
    """The right that a refused request lacked; None for every other failure."""
    if not isinstance(error, Forbidden):
        return None
    found = DENIED.search(error.message)
    if found is None:
        return None
    return MissingRight(
        found["user"], found["verb"], found["resource"], found["group"], found["namespace"] or ""
    )


class Rights:
    """The missing rights of one process, as far as it has asked for them lately."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._missing: dict[tuple[str, str], tuple[MissingRight, float]] = {}

    def answered(self, call: str, namespace: str, error: ApiError | None) -> None:
        """Take notice of an answer to a request; `error` is None if it was not refused."""
        if error is None or error.status in AUTHORIZED_STATUSES:
            self.allowed(call, namespace)
        else:
            self.refused(error)

    def refused(self, error: ApiError) -> None:
        """Take notice of a refusal, if it is about a right."""
        right = missing_right(error)
        if right is None:
            return
        is_news = right.call not in self.missing()
        if len(self._missing) >= CAPACITY:
            self._missing.pop(next(iter(self._missing)))
        self._missing[right.call, right.namespace] = right, self._clock.monotonic()
        if is_news:  # else it is the same right once more, or in one more namespace
            log.error(
                "permission_missing",
                verb=right.verb,
                resource=right.target,
                place=right.place,
                role=right.role,
                remedy="grant it there; deploy/rbac lists all rules that are needed",
            )

    def allowed(self, call: str, namespace: str) -> None:
        """Take notice of a request that was not refused."""
        if not self._missing:  # the usual case
            return
        found = [
            # A right at the cluster scope holds in each namespace.
            self._missing.pop((call, place), None)
            for place in {namespace, ""}
        ]
        if any(found) and call not in self.missing():
            log.warning("permission_granted", call=call)

    def missing(self) -> frozenset[str]:
        """The calls that are refused somewhere, such as `create buckets.objectstorage.k8s.io`."""
        oldest_s = self._clock.monotonic() - FORGOTTEN_AFTER_S
        for place in [place for place, (_, at_s) in self._missing.items() if at_s < oldest_s]:
            del self._missing[place]
        return frozenset(call for call, _ in self._missing)


def call_of(verb: str, resource: Resource, subresource: str) -> str:
    """The name of a request in the words of a role."""
    target = f"{resource.plural}/{subresource}".rstrip("/")
    return f"{verb} {target}{f'.{resource.group}' if resource.group else ''}"
