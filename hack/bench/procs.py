"""What a process has used so far, read from /proc (Linux only)."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Seconds of CPU, user and system, since the process started; in steps of 10 ms."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    fields = stat.rpartition(")")[2].split()  # a program's name may hold spaces and brackets
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def memory_mib(pid: int) -> dict[str, float]:
    """Resident memory now and at its highest, and the part that is the process's own."""
    names = {"VmRSS": "rss", "VmHWM": "peak", "RssAnon": "private"}
    found: dict[str, float] = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in names:
            found[names[name]] = round(int(value.split()[0]) / 1024, 1)
    return found


def machine_busy_s() -> float:
    """CPU seconds that all cores were not idle, and what a hypervisor took away, since boot."""
    line = Path("/proc/stat").read_text().splitlines()[0]
    user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(int, line.split()[1:])
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_S


@dataclass(slots=True)
class Used:
    """CPU seconds of each process between two moments, and the share that others took.

    `others_percent` is of the whole machine: it says how far a time can be trusted.
    """

    cpu_s: dict[str, float] = field(default_factory=dict)
    others_percent: float = 0.0

    def per(self, count: int, *names: str) -> float:
        """Milliseconds for one of `count`, of these processes together."""
        return round(sum(self.cpu_s[name] for name in names) * 1000 / count, 2)


@contextmanager
def measured(pids: Mapping[str, int]) -> Iterator[Used]:
    """Fill a `Used` when the block ends."""
    used = Used()
    before = {name: cpu_s(pid) for name, pid in pids.items()}
    busy_s, began = machine_busy_s(), time.monotonic()
    yield used
    used.cpu_s = {name: round(cpu_s(pid) - before[name], 2) for name, pid in pids.items()}
    others_s = max(0.0, machine_busy_s() - busy_s - sum(used.cpu_s.values()))
    all_s = (time.monotonic() - began) * (os.cpu_count() or 1)
    used.others_percent = round(100 * others_s / all_s, 1)


def quantiles_ms(seconds: list[float]) -> dict[str, float]:
    """p50, p95, p99 and the longest, in milliseconds; the nearest rank, nothing interpolated."""
    ordered = sorted(seconds)

    def rank(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000, 1)

    return {"p50": rank(0.5), "p95": rank(0.95), "p99": rank(0.99), "max": rank(1.0)}
