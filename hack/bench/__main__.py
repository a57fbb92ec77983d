"""Run the benchmark: `make bench`, or `python -m bench --help`.

Everything runs on this machine, which should do nothing else meanwhile. The full run takes about
ten minutes for each pair.
"""

import argparse
import functools
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import scenarios
from bench.counting import count_all
from bench.fairness import fairness
from bench.plot import line_chart
from bench.scenarios import QUICK, Sizes
from bench.tables import markdown, put_between_marks
from bench.world import OURS, Pair, world
from controlplane import Audit
from testbed.process import ROOT

DOCUMENT = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "docs" / "performance"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        help="cold_start, bursts, slow, storm, fairness or counts; what results.json has of the"
        " others stays",
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, to try it out")
    parser.add_argument("--claims", help="sizes of the bursts, as in 100,1000")
    parser.add_argument(
        "--peer-controller",
        default=os.environ.get("PEER_CONTROLLER", ""),
        help="command of another controller; {kubeconfig} is filled in",
    )
    parser.add_argument(
        "--peer-sidecar",
        default=os.environ.get("PEER_SIDECAR", ""),
        help="command of another sidecar; {kubeconfig} and {driver} are filled in",
    )
    parser.add_argument("--peer-only", action="store_true", help="do not run ours")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--publish", action="store_true", help="put the table into the document")
    return parser.parse_args()


def main() -> int:
    """Measure, write results.json and throughput.svg, print the table."""
    arguments = _arguments()
    sizes = QUICK if arguments.quick else Sizes()
    if arguments.claims:
        sizes = Sizes(bursts=tuple(int(part) for part in arguments.claims.split(",")))
    pairs = [] if arguments.peer_only else [OURS]
    if arguments.peer_controller:
        pairs.append(Pair("peer", arguments.peer_controller, arguments.peer_sidecar))
    machine = _machine()
    results: dict[str, Any] = {
        "commit": _commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine,
        "bursts": sizes.bursts,
        "baseline": scenarios.baseline(sizes),
        "driver_limit": scenarios.driver_limit(),
        "pairs": {},
    }
    for pair in pairs:
        results["pairs"][pair.name] = _measure(pair, sizes, arguments.only)
    machine["load_after"] = round(os.getloadavg()[0], 2)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.only and (arguments.out / "results.json").exists():
        results = _joined(json.loads((arguments.out / "results.json").read_text()), results)
    (arguments.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (arguments.out / "throughput.svg").write_text(_plot(results))
    table = markdown(results)
    if arguments.publish:
        DOCUMENT.write_text(put_between_marks(DOCUMENT.read_text(), table))
    print(table)
    return 0


def _measure(pair: Pair, sizes: Sizes, only: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"bursts": {}}

    def wanted(name: str) -> bool:
        return not only or name in only

    def note(name: str, measure: Callable[[], dict[str, object]]) -> dict[str, object]:
        result = measure()
        print(f"{pair.name} {name}: {json.dumps(result)}", file=sys.stderr, flush=True)
        return result

    if wanted("cold_start"):
        found["cold_start"] = note("cold start", lambda: scenarios.cold_starts(pair, sizes))
    if wanted("bursts"):
        for count in sizes.bursts:
            measure = functools.partial(scenarios.burst, pair, count, sizes)
            found["bursts"][str(count)] = note(f"burst of {count}", measure)
    if wanted("slow"):
        found["slow"] = note("slow driver", lambda: scenarios.slow_driver(pair, sizes))
    if wanted("storm"):
        found["storm"] = note("storm", lambda: scenarios.storm(pair, sizes))
    if wanted("fairness"):
        found["fairness"] = note(
            "fairness", lambda: fairness(pair, crowd=sizes.crowd, hanging=sizes.hanging)
        )
    if wanted("counts"):
        with world(pair, audit=Audit.METADATA) as counted:
            found["counts"] = note(
                "counts",
                lambda: count_all(
                    counted, count=sizes.counted, refused=sizes.refused, window_s=sizes.window_s
                ),
            )
    return found


def _joined(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """An earlier run's results, with what was measured now in place of the same parts."""
    pairs = before["pairs"]
    for name, found in now["pairs"].items():
        bursts = {**pairs.get(name, {}).get("bursts", {}), **found["bursts"]}
        pairs[name] = {**pairs.get(name, {}), **found}
        pairs[name]["bursts"] = dict(sorted(bursts.items(), key=lambda item: int(item[0])))
    commits = dict.fromkeys([*before["commit"].split(", "), now["commit"]])
    sizes = {int(count) for count in (*before["bursts"], *now["bursts"])}
    return {**now, "commit": ", ".join(commits), "bursts": sorted(sizes), "pairs": pairs}


def _machine() -> dict[str, Any]:
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "cpus": os.cpu_count(),
        "cpu_model": models[0] if models else platform.machine(),
        "memory_gib": round(memory_kib / 1024**2),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def _commit() -> str:
    """Short, with a + when tracked files differ from it."""
    changed = _git("status", "--short", "--untracked-files=no")
    return _git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _plot(results: dict[str, Any]) -> str:
    lines = {
        name: [
            (float(count), float(burst["ready"]["seconds"]))
            for count, burst in found["bursts"].items()
        ]
        for name, found in results["pairs"].items()
    }
    most = max((x for line in lines.values() for x, _ in line), default=1000.0)
    lines["goal: 120 claims/s"] = [(0, 0), (most, most / 120)]
    return line_chart(
        "Time until all claims of a burst are ready", "claims created at once", "seconds", lines
    )


if __name__ == "__main__":
    sys.exit(main())
