"""Builds and connects the parts of a sidecar."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
import structlog

from cosi_operator.app.driver_link import DriverLink
from cosi_operator.app.object_count import object_counter
from cosi_operator.app.process import Process, Work, process
from cosi_operator.classify import Policy, PolicyError
from cosi_operator.driver.v1alpha1 import Driver
from cosi_operator.kube.watches import Watching
from cosi_operator.policy_file import resolve_lane_scope, resolve_policy
from cosi_operator.report import Reporter
from cosi_operator.settings import LaneScope, SidecarSettings
from cosi_operator.sidecar.access import AccessReconciler
from cosi_operator.sidecar.bucket import BucketReconciler
from cosi_operator.sidecar.calls import Attempts, DriverState
from cosi_operator.sidecar.lanes import MAX_WAIT_S, Lanes
from cosi_operator.sidecar.secrets import Secrets
from cosi_operator.sidecar.shared import Sidecar
from cosi_operator.sidecar.watches import SidecarWatches

log = structlog.get_logger(__name__)

COMPONENT = "cosi-sidecar"
# A run sends only a few requests (at most 30 s each) and makes at most two driver calls. A run of a
# BucketAccess may also wait for its turn before each call.
REQUESTS_S = 120.0


async def run_sidecar(settings: SidecarSettings) -> None:
    """Run until SIGTERM.

    Raises:
        PolicyError: the retry policy can't be read.
        LeaseLost, DriverRenamedError: the process has to be restarted.
    """
    # Check the policy now, so that an invalid policy fails at the start and not at the first call.
    policy_for_driver(settings, "any")
    async with process(settings, COMPONENT, ("bucket", "bucketaccess")) as parts:
        link = DriverLink(settings, parts)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(link.run)
            if state := await link.first_answer():
                policy = summary_of(policy_for_driver(settings, state.name))
                await parts.lead(
                    f"{state.name}/cosi",
                    lambda: _work(settings, parts, link, state),
                    policy=policy,
                )
            tasks.cancel_scope.cancel()
        link.channel.close()


def summary_of(policy: Policy) -> str:
    """The policy as `cosi drivers` shows it: the profile, and how many overrides there are."""
    count = len(policy.overrides)
    return f"{policy.profile}+{count}" if count else policy.profile


def policy_for_driver(settings: SidecarSettings, driver: str) -> Policy:
    """The retry policy of one driver. Flags override the file, which overrides the default."""
    return resolve_policy(
        driver,
        profile=settings.retry_policy,
        overrides=settings.retry_overrides,
        file_text=_policy_file(settings),
        file_name=settings.retry_policy_file or "",
    )


def lane_scope_for_driver(settings: SidecarSettings, driver: str) -> LaneScope:
    """Which Grant and Revoke calls run one at a time.

    The flag overrides the file, which overrides the default.
    """
    return resolve_lane_scope(
        driver,
        given=settings.serialize_access_calls,
        file_text=_policy_file(settings),
        file_name=settings.retry_policy_file or "",
    )


def _policy_file(settings: SidecarSettings) -> str | None:
    path = Path(settings.retry_policy_file) if settings.retry_policy_file else None
    try:
        return path.read_text(encoding="utf-8") if path else None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise PolicyError(f"--retry-policy-file: {path} can't be read: {why}") from None


@dataclass(frozen=True, slots=True)
class Built:
    """A sidecar that is ready to run. `on_return` is called when its driver is up again."""

    works: Sequence[Work]
    attempts: Attempts
    on_return: Callable[[], None]


async def _work(
    settings: SidecarSettings, parts: Process, link: DriverLink, state: DriverState
) -> None:
    watches = parts.watches()
    built = build(settings, parts, watches, link.driver, state)
    link.on_return = built.on_return
    await parts.follow(watches, built.works)


def build(
    settings: SidecarSettings,
    parts: Process,
    watching: Watching,
    driver: Driver,
    state: DriverState,
) -> Built:
    """Connect the queues, watches and reconcilers of one driver."""
    watches = SidecarWatches(watching, parts.queue, state.name)
    sidecar = _sidecar(settings, parts, driver, state, watches)
    parts.metrics.watch_objects("Bucket", object_counter(watches.buckets, watches.is_our_bucket))
    parts.metrics.watch_objects(
        "BucketAccess", object_counter(watches.accesses, watches.is_our_access)
    )

    def on_return() -> None:
        sidecar.attempts.forget_all()
        watches.wake_unsettled()

    bucket = BucketReconciler(
        replace(sidecar, buckets=watches.own_buckets, claims=watches.own_claims)
    )
    secrets = Secrets(parts.client, extra_keys=settings.secret_extra_keys)
    access = AccessReconciler(
        replace(sidecar, accesses=watches.own_accesses), watches.classes, secrets
    )
    limit_s = REQUESTS_S + 2 * settings.timeouts.call_s
    works = (
        Work("bucket", watches.buckets_queue, bucket.reconcile, limit_s),
        Work(
            "bucketaccess",
            watches.accesses_queue,
            sidecar.lanes.reconciling(access.reconcile),
            limit_s + 2 * MAX_WAIT_S,
        ),
    )
    return Built(works, sidecar.attempts, on_return)


def _sidecar(
    settings: SidecarSettings,
    parts: Process,
    driver: Driver,
    state: DriverState,
    watches: SidecarWatches,
) -> Sidecar:
    policy = policy_for_driver(settings, state.name)
    lane_scope = lane_scope_for_driver(settings, state.name)
    log.info(
        "policy",
        driver=state.name,
        profile=policy.profile,
        overrides=[override.spelled() for override in policy.overrides],
        serialize_access_calls=lane_scope,
    )
    return Sidecar(
        buckets=watches.buckets,
        claims=watches.claims,
        accesses=watches.accesses,
        driver=driver,
        state=state,
        policy=policy,
        attempts=Attempts(settings.backoff, parts.clock, parts.rng),
        lanes=Lanes(
            lane_scope,
            policy=policy,
            driver=state,
            workers=settings.workers,
            clock=parts.clock,
            invite=watches.accesses_queue.add,
        ),
        reporter=Reporter(parts.events, parts.clock, longest_pause_s=settings.backoff.cap_s),
        lookup=watches.lookup,
        unheld=watches.unheld,
        clock=parts.clock,
        call_timeout_s=settings.timeouts.call_s,
        recheck_s=settings.terminal_recheck_s,
        deletion_recheck_s=settings.deletion_recheck_s,
    )
