"""What is measured, one function for each; every result is plain JSON."""

import asyncio
import bisect
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench.load import Load, Timing, run
from bench.procs import Used, measured, quantiles_ms
from bench.world import OURS, ROLES, Pair, World, world
from cosi_operator.driver.channel import DriverChannel
from cosi_operator.driver.v1alpha1 import Driver
from cosi_operator.outcome import Call
from mockdriver.client import MockDriver
from testbed import NAMESPACE, claim_body
from testbed.objects import path_of, typed

FOREIGN = "foreign.example.com"
SLOW_S = 1.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything; `make bench` has the full sizes, BENCH=quick small ones."""

    bursts: tuple[int, ...] = (100, 1000, 10_000)
    alone: int = 50
    slow: int = 200
    foreign: int = 10_000
    idle_s: float = 20.0
    starts: int = 5
    counted: int = 100
    refused: int = 1000
    window_s: float = 60.0
    crowd: int = 5000
    hanging: int = 60
    filling: int = 70_000
    """Writes before the baseline is measured again: as many as a burst of 10,000 takes."""


QUICK = Sizes((100, 300), 10, 80, 500, 5.0, 2, 50, 100, 5.0, 500, 60, 2000)


def baseline(sizes: Sizes, count: int = 2000) -> dict[str, float]:
    """What this API server takes without any of us: one client, 20 writers of BucketClaims.

    Measured when it is empty, and again (`later`) when `sizes.filling` writes have filled it.
    """
    path = path_of("bucketclaims", NAMESPACE)
    with world(OURS) as found:

        def write(name: str, count: int) -> tuple[float, Used]:
            bodies = [
                typed("bucketclaims", claim_body(f"{name}{i}", class_name="gold"))
                for i in range(count)
            ]
            with measured(found.pids()) as used:
                began = time.perf_counter()
                run(
                    found.bed.plane,
                    lambda load: load.for_each(bodies, lambda body: load.send("POST", path, body)),
                )
                seconds = time.perf_counter() - began
            return seconds, used

        first_s, first = write("first", count)
        write("filling", sizes.filling)
        later_s, later = write("later", count)
        return {
            "writes_per_s": round(count / first_s, 1),
            "apiserver_cpu_ms_per_write": first.per(count, "kube-apiserver"),
            "etcd_cpu_ms_per_write": first.per(count, "etcd"),
            "filling": sizes.filling,
            "later_writes_per_s": round(count / later_s, 1),
            "later_apiserver_cpu_ms_per_write": later.per(count, "kube-apiserver"),
        }


def driver_limit(count: int = 4000, concurrency: int = 40) -> dict[str, float]:
    """What the mock driver takes, to know that it is not what a burst waits for."""

    async def ask(address: str) -> float:
        channel = DriverChannel(address)
        driver, rest = Driver(channel), iter(range(count))

        async def asker() -> None:
            for number in rest:
                await driver.create_bucket(f"limit-{number}", {}, timeout_s=10)

        began = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(concurrency):
                tasks.create_task(asker())
        seconds = time.perf_counter() - began
        channel.close()
        return seconds

    with (
        tempfile.TemporaryDirectory(prefix="cb-") as directory,
        MockDriver.start(Path(directory)) as driver,
    ):
        assert driver.pid is not None
        with measured({"driver": driver.pid}) as used:
            seconds = uvloop.run(ask(driver.address))
        return {
            "calls_per_s": round(count / seconds, 1),
            "cpu_ms_per_call": used.per(count, "driver"),
        }


def cold_starts(pair: Pair, sizes: Sizes) -> dict[str, object]:
    """From exec to Lease held and ready, both at once; the first one warms the page cache."""
    with world(pair) as found:
        seconds = []
        for _ in range(sizes.starts + 1):
            seconds.append(found.start())
            memory = found.memory()
            found.stop()
        return {"seconds": sorted(seconds[1:]), "first_s": seconds[0], "memory_mib": memory}


def burst(pair: Pair, count: int, sizes: Sizes) -> dict[str, object]:
    """One claim alone, then `count` at once, then their deletion; with a restart in between."""
    with world(pair) as found:
        found.start()
        found.until_idle()
        result: dict[str, object] = {"count": count, "idle_memory_mib": found.memory()}
        alone: list[float] = []
        for number in range(sizes.alone):
            timing, _ = ready(found, [f"alone{number}"])
            alone += timing.latencies_s
            if timing.missing:  # the others would take as long to say the same
                break
        result["alone_ms"] = quantiles_ms(alone) if alone else {}
        names = [f"c{number}" for number in range(count)]
        calls = found.bed.driver.calls(Call.CREATE_BUCKET)
        timing, used = ready(found, names)
        result["ready"] = {
            "seconds": round(timing.total_s, 2),
            "per_s": timing.per_s,
            "never_ready": timing.missing,
            "latency_ms": quantiles_ms(timing.latencies_s) if timing.latencies_s else {},
            "create_calls_per_claim": round(
                (found.bed.driver.calls(Call.CREATE_BUCKET) - calls) / count, 3
            ),
            "cpu_ms_per_claim": {name: used.per(count, name) for name in used.cpu_s},
            "cpu_ms_of_all": used.per(count, *used.cpu_s),
            "others_percent": used.others_percent,
        }
        result["settles_s"] = found.until_idle()
        result["memory_mib"] = found.memory()
        result["idle_cpu_percent"] = found.idle_cpu_percent(sizes.idle_s)
        result["restart"] = _restart(found)
        if not timing.missing:
            result["deleted"] = _delete(found, names)
        return result


def ready(found: World, names: list[str]) -> tuple[Timing, Used]:
    """Make claims and wait until each is ready."""

    async def work(load: Load) -> Timing:
        return await load.claims(names, "gold")

    with measured(found.pids()) as used:
        timing = run(found.bed.plane, work)
    return timing, used


def gone(found: World, names: list[str]) -> tuple[Timing, Used]:
    """Delete claims and wait until each is gone."""
    with measured(found.pids()) as used:
        timing = run(found.bed.plane, lambda load: load.deletions(names))
    return timing, used


def _delete(found: World, names: list[str]) -> dict[str, object]:
    """How fast claims go, and whether their buckets are gone by then."""
    calls = found.bed.driver.calls(Call.DELETE_BUCKET)
    timing, used = gone(found, names)
    return {
        "seconds": round(timing.total_s, 2),
        "per_s": timing.per_s,
        "cpu_ms_per_claim": {name: used.per(len(names), name) for name in used.cpu_s},
        "delete_calls_per_claim": round(
            (found.bed.driver.calls(Call.DELETE_BUCKET) - calls) / len(names), 3
        ),
        "others_percent": used.others_percent,
    }


def _restart(found: World) -> dict[str, object]:
    """Everything is settled: nothing may be written, no driver asked, and soon all is quiet."""
    found.stop()
    before, calls = _versions(found), found.bed.driver.counts()
    ready_s = found.start()
    idle_s = round(ready_s + found.until_idle(), 2)
    after = _versions(found)
    return {
        "ready_s": ready_s,
        "idle_s": idle_s,
        "objects_written": sum(after[key] != version for key, version in before.items()),
        "driver_calls": _calls(found.bed.driver.counts()) - _calls(calls),
        "memory_mib": found.memory(),
    }


def _calls(counts: dict[str, dict[str, int]]) -> int:
    return sum(sum(codes.values()) for call, codes in counts.items() if call != Call.GET_INFO)


def _versions(found: World) -> dict[str, str]:
    """The resourceVersion of every object that the pair may write."""
    return {
        item["metadata"]["uid"]: item["metadata"]["resourceVersion"]
        for plural in ("bucketclaims", "buckets")
        for item in found.bed.all_of(plural)
    }


def slow_driver(pair: Pair, sizes: Sizes) -> dict[str, object]:
    """Each call takes the driver 1 s (`SLOW_S`): how many does the sidecar have under way?"""
    with world(pair) as found:
        found.start()
        found.bed.driver.set_rule(Call.CREATE_BUCKET, delay_s=SLOW_S)
        timing, _ = ready(found, [f"slow{number}" for number in range(sizes.slow)])
        arrivals = sorted(entry.time_s for entry in found.bed.driver.journal(Call.CREATE_BUCKET))
        # Each call lasts a second, so those of the last second are under way.
        most = max(
            position + 1 - bisect.bisect(arrivals, arrived - SLOW_S)
            for position, arrived in enumerate(arrivals)
        )
        return {
            "count": sizes.slow,
            "seconds": round(timing.total_s, 2),
            "never_ready": timing.missing,
            "most_calls_at_once": most,
        }


def storm(pair: Pair, sizes: Sizes) -> dict[str, object]:
    """Buckets of another driver, made and then each changed, while our claims come one by one."""
    with world(pair) as found:
        found.start()
        found.until_idle()
        idle = found.memory()
        names = [f"foreign-{number}" for number in range(sizes.foreign)]
        path = path_of("buckets", NAMESPACE)
        spec = {
            "driverName": FOREIGN,
            "bucketClassName": "foreign",
            "deletionPolicy": "Retain",
            "protocols": ["S3"],
        }
        bodies = [
            typed("buckets", {"metadata": {"name": n}, "spec": {**spec, "bucketClaim": {}}})
            for n in names
        ]
        change = {"metadata": {"annotations": {"changed": "yes"}}}
        merge = "application/merge-patch+json"
        run(
            found.bed.plane,
            lambda load: load.for_each(bodies, lambda body: load.send("POST", path, body)),
        )
        found.until_idle()
        memory = found.memory()

        async def change_all(load: Load) -> float:
            began = time.perf_counter()
            await load.for_each(
                names, lambda name: load.send("PATCH", f"{path}/{name}", change, merge)
            )
            return time.perf_counter() - began

        with measured(found.pids()) as used:
            seconds = run(found.bed.plane, change_all)
            behind_s = found.until_idle()
        return {
            "count": sizes.foreign,
            "changes_per_s": round(sizes.foreign / seconds, 1),
            "cpu_ms_per_change": {role: used.per(sizes.foreign, role) for role in ROLES},
            "behind_s": behind_s,
            "idle_memory_mib": idle,
            "memory_mib": memory,
        }
