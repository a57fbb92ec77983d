"""Builds and connects the parts of the controller."""

from collections.abc import Sequence

from cosi_operator.app.object_count import object_counter
from cosi_operator.app.process import Process, Work, process
from cosi_operator.controller.access import UnreportedAccessReconciler
from cosi_operator.controller.claim import ClaimReconciler
from cosi_operator.controller.sidecar_leases import SidecarLeases
from cosi_operator.controller.watches import ControllerWatches
from cosi_operator.kube.watches import Watching
from cosi_operator.report import Reporter
from cosi_operator.settings import ControllerSettings

LEASE_OWNER = "leader-lock/cosi-controller-manager"
COMPONENT = "cosi-controller"
RUN_TIMEOUT_S = 120.0  # a request takes at most 30 s, and a run sends only a few


async def run_controller(settings: ControllerSettings) -> None:
    """Run until SIGTERM."""
    async with process(settings, COMPONENT, ("bucketclaim", "bucketaccess")) as parts:
        await parts.lead(LEASE_OWNER, lambda: _work(parts))


async def _work(parts: Process) -> None:
    watches = parts.watches()
    await parts.follow(watches, build(parts, watches))


def build(parts: Process, watching: Watching) -> Sequence[Work]:
    """Connect queues, watches and reconcilers."""
    watches = ControllerWatches(watching, parts.queue, parts.clock)
    parts.metrics.watch_objects("BucketClaim", object_counter(watches.claims))
    reporter = Reporter(parts.events, parts.clock, longest_pause_s=parts.settings.backoff.cap_s)
    leases = SidecarLeases(watches.claims.client, parts.settings.namespace)
    claim = ClaimReconciler(watches, reporter, parts.clock, leases)
    access = UnreportedAccessReconciler(watches, reporter, parts.clock, leases)
    return (
        Work("bucketclaim", watches.claims_queue, claim.reconcile, RUN_TIMEOUT_S),
        Work("bucketaccess", watches.accesses_queue, access.reconcile, RUN_TIMEOUT_S),
    )
