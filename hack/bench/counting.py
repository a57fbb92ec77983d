"""What each process asks of the API server and of the driver, counted from the audit log.

Timing is meaningless here: the audit log slows the API server. Counts do not jitter.
"""

import contextlib
import time
from collections import Counter

from bench.load import run
from bench.world import ROLES, World
from controlplane.audit import AuditEntry
from cosi_operator.outcome import Call
from testbed import Testbed

READS = ("get", "list", "watch")
AUDIT_LAG_S = 1.0
"""An audit entry is written after its answer is sent."""


def kind_of(entry: AuditEntry) -> str:
    """A request as "update bucketclaims/status", with its answer if that is an error."""
    target = f"{entry.verb} {entry.resource}"
    if entry.subresource:
        target += f"/{entry.subresource}"
    if "dryRun" in entry.uri:
        target += " (dry run)"
    return target if entry.code < 400 else f"{target} -> {entry.code}"


def requests_of(bed: Testbed, role: str, since: int) -> Counter[str]:
    """What one process asked since a mark, Leases aside; watches that go on are not asked anew."""
    namespace, account = bed.accounts[role]
    user = f"system:serviceaccount:{namespace}:{account}"
    return Counter(
        kind_of(entry)
        for entry in bed.plane.audit.entries(since=since)
        if entry.user == user and entry.resource != "leases" and entry.verb != "watch"
    )


def is_write(kind: str) -> bool:
    """A write that counts: Events are paced apart, and a dry run stores nothing."""
    verb, _, resource = kind.partition(" ")
    return verb not in READS and not resource.startswith("events") and "dry run" not in kind


def summary(bed: Testbed, since: int, count: int) -> dict[str, object]:
    """Requests of both processes for one of `count` objects."""
    time.sleep(AUDIT_LAG_S)
    by_role = {role: requests_of(bed, role, since) for role in ROLES}
    everything = sum(by_role.values(), Counter[str]())
    return {
        "requests": {
            role: {kind: round(n / count, 3) for kind, n in sorted(found.items())}
            for role, found in by_role.items()
        },
        "writes": round(sum(n for kind, n in everything.items() if is_write(kind)) / count, 3),
        "events": round(sum(n for k, n in everything.items() if " events" in k) / count, 3),
        "reads": round(sum(n for k, n in everything.items() if k.split()[0] in READS) / count, 3),
    }


def driver_calls(bed: Testbed, before: dict[str, dict[str, int]], count: int) -> dict[str, float]:
    """Driver calls for one of `count` objects, since the counts `before`."""
    now = bed.driver.counts()
    calls = {
        call.value: sum(now[call].values()) - sum(before.get(call, {}).values())
        for call in Call
        if call is not Call.GET_INFO
    }
    return {call: round(n / count, 3) for call, n in calls.items() if n}


def count_all(world: World, *, count: int, refused: int, window_s: float) -> dict[str, object]:
    """Count a claim's way to ready, an access's, a restart, deletions, and refused claims."""
    bed, found = world.bed, dict[str, object]()
    names = [f"count{i}" for i in range(count)]
    world.start()
    world.until_idle()

    mark, calls = bed.plane.audit.mark(), bed.driver.counts()
    timing = run(bed.plane, lambda load: load.claims(names, "gold"))
    world.until_idle()
    found["claim"] = summary(bed, mark, count) | {
        "driver": driver_calls(bed, calls, count),
        "not_ready": timing.missing,
    }

    mark, calls = bed.plane.audit.mark(), bed.driver.counts()
    bed.make_accesses(names, class_name="gold")
    with contextlib.suppress(TimeoutError):  # another pair may never get there: it still counts
        bed.until_ready("bucketaccesses", names, timeout_s=120)
    world.until_idle()
    found["access"] = summary(bed, mark, count) | {"driver": driver_calls(bed, calls, count)}

    world.stop()
    mark, calls = bed.plane.audit.mark(), bed.driver.counts()
    world.start()
    world.until_idle()
    found["restart"] = summary(bed, mark, 1) | {"driver": driver_calls(bed, calls, 1)}

    mark, calls = bed.plane.audit.mark(), bed.driver.counts()
    bed.delete_all("bucketaccesses", names)
    with contextlib.suppress(TimeoutError):
        bed.until_gone("bucketaccesses", names, timeout_s=120)
    world.until_idle()
    found["access_deletion"] = summary(bed, mark, count) | {
        "driver": driver_calls(bed, calls, count)
    }

    mark, calls = bed.plane.audit.mark(), bed.driver.counts()
    run(bed.plane, lambda load: load.deletions(names))
    world.until_idle()
    found["deletion"] = summary(bed, mark, count) | {"driver": driver_calls(bed, calls, count)}
    found["refused"] = _count_refused(world, refused, window_s)
    return found


def _count_refused(world: World, count: int, window_s: float) -> dict[str, object]:
    """Claims that the driver refuses for good: until quiet, and then for a while more."""
    bed = world.bed
    bed.make_classes("refused", parameters={"case": "refused"})
    bed.driver.set_rule(
        Call.CREATE_BUCKET,
        match={"parameters.case": "refused"},
        code="INVALID_ARGUMENT",
        message="no such tier",
    )
    mark, calls = bed.plane.audit.mark(), bed.driver.counts()
    bed.make_claims([f"refused{i}" for i in range(count)], class_name="refused")
    world.until_idle(deadline_s=30)
    first = summary(bed, mark, count) | {"driver": driver_calls(bed, calls, count)}
    mark, calls = bed.plane.audit.mark(), bed.driver.counts()
    time.sleep(window_s)  # the question itself: which requests never end?
    after = summary(bed, mark, count) | {"driver": driver_calls(bed, calls, count)}
    bed.delete_all("bucketclaims", [f"refused{i}" for i in range(count)])
    return {"first": first, "after": after, "window_s": window_s}
