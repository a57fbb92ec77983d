"""The results as Markdown, for docs/performance.md: ours beside the goals, and beside a peer."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

type Found = Mapping[str, Any]
type Row = tuple[str, str, Callable[[Found], object]]

MARKS = ("<!-- bench:begin -->", "<!-- bench:end -->")
NOT_MEASURED = "-"


def at(*path: str) -> Callable[[Found], object]:
    """Reads one number out of a result."""

    def read(found: Found) -> object:
        value: Any = found
        for name in path:
            value = value[name]
        return value

    return read


def _memory(*path: str) -> Callable[[Found], object]:
    def read(found: Found) -> object:
        memory: Any = at(*path)(found)
        return f"{memory['controller']['rss']:.0f} + {memory['sidecar']['rss']:.0f}"

    return read


def _pair(*path: str) -> Callable[[Found], object]:
    def read(found: Found) -> object:
        value: Any = at(*path)(found)
        return f"{value['controller']:g} + {value['sidecar']:g}"

    return read


def _ready(count: int) -> list[Row]:
    def under(*path: str) -> tuple[str, ...]:
        return ("bursts", str(count), *path)

    cpu, latency, restart = ("ready", "cpu_ms_per_claim"), ("ready", "latency_ms"), "restart"
    lines: list[Row] = [
        ("claims/s to ready", "120", at(*under("ready", "per_s"))),
        ("never ready", "0", at(*under("ready", "never_ready"))),
        ("create calls a claim", "1", at(*under("ready", "create_calls_per_claim"))),
        ("CPU ms a claim, controller + sidecar", "", _pair(*under(*cpu))),
        ("CPU ms a claim, API server", "", at(*under(*cpu, "kube-apiserver"))),
        ("CPU ms a claim, everything", "", at(*under("ready", "cpu_ms_of_all"))),
        ("% of the machine that others used", "", at(*under("ready", "others_percent"))),
        ("claim to ready under load, p50 ms", "", at(*under(*latency, "p50"))),
        ("claim to ready under load, p95 ms", "", at(*under(*latency, "p95"))),
        ("claim to ready under load, p99 ms", "", at(*under(*latency, "p99"))),
        ("deletions/s", "150", at(*under("deleted", "per_s"))),
        (
            "buckets deleted when the claims are gone, a claim",
            "1",
            at(*under("deleted", "delete_calls_per_claim")),
        ),
        ("% that others used meanwhile", "", at(*under("deleted", "others_percent"))),
        ("RSS MiB after, controller + sidecar", "90 each", _memory(*under("memory_mib"))),
        ("RSS MiB after a restart", "90 each", _memory(*under(restart, "memory_mib"))),
        ("idle CPU, % of a core", "0.3 each", _pair(*under("idle_cpu_percent"))),
        ("restart, seconds until idle", "5", at(*under(restart, "idle_s"))),
        ("restart, objects written", "0", at(*under(restart, "objects_written"))),
        ("restart, driver calls", "0", at(*under(restart, "driver_calls"))),
    ]
    return [(f"{count} claims: {name}", goal, read) for name, goal, read in lines]


def rows(bursts: Sequence[int]) -> list[Row]:
    """Every line of the table: what, the goal, and how to read it."""
    first = str(bursts[0])
    table: list[Row] = [
        ("cold start to ready, both at once, s (median)", "0.6", _median),
        (
            "RSS MiB idle, controller + sidecar",
            "55 each",
            _memory("bursts", first, "idle_memory_mib"),
        ),
        ("one claim alone: p50 ms to ready", "30", at("bursts", first, "alone_ms", "p50")),
        ("one claim alone: p95 ms to ready", "", at("bursts", first, "alone_ms", "p95")),
        ("one claim alone: p99 ms to ready", "", at("bursts", first, "alone_ms", "p99")),
        ("API writes a claim, Events aside", "6", at("counts", "claim", "writes")),
        ("Events a claim", "", at("counts", "claim", "events")),
        ("GETs and lists a claim", "0", at("counts", "claim", "reads")),
        ("API writes an access", "", at("counts", "access", "writes")),
        ("API writes a deleted claim", "", at("counts", "deletion", "writes")),
        ("refused claims: driver calls a claim", "1", _refused("first", "driver")),
        ("refused claims: API writes a claim", "", at("counts", "refused", "first", "writes")),
        ("refused claims: driver calls a minute after that", "0", _refused("after", "driver")),
        (
            "refused claims: API writes a claim in the minute after that",
            "0",
            at("counts", "refused", "after", "writes"),
        ),
        ("slow driver (1 s): most calls at once", "40", at("slow", "most_calls_at_once")),
        ("slow driver (1 s): seconds for all", "", at("slow", "seconds")),
        (
            "watch storm: CPU ms a change, controller + sidecar",
            "",
            _pair("storm", "cpu_ms_per_change"),
        ),
        ("watch storm: RSS MiB, controller + sidecar", "", _memory("storm", "memory_mib")),
        ("watch storm: seconds behind at the end", "", at("storm", "behind_s")),
    ]
    table += [
        (f"a neighbour's claim {beside}: s until {what}", goal, _beside(kind, field))
        for kind, beside, goal in (
            ("alone", "alone", ""),
            ("crowd", "beside a crowd of one tenant", "1"),
            ("hangs", "beside a class whose calls hang", "1"),
        )
        for field, what, goal in (("begun_s", "begun", goal), ("ready_s", "ready", ""))
    ]
    for count in bursts:
        table += _ready(count)
    return table


def _beside(kind: str, field: str) -> Callable[[Found], object]:
    """The neighbour's longest wait; for ours, what it is first come, first served too."""

    def read(found: Found) -> object:
        waits = found["fairness"]
        text = f"{waits[kind][field]:g}"
        if kind == "crowd":
            text += f" with {waits[kind]['waiting']} waiting"
        if kind == "hangs":
            text += f" with {waits['hanging']} hanging"
        if "fifo" in waits:
            text += f" (in one queue: {waits['fifo'][kind][field]:g})"
        return text

    return read


def _median(found: Found) -> object:
    seconds: list[float] = found["cold_start"]["seconds"]
    return seconds[len(seconds) // 2]


def _refused(phase: str, what: str) -> Callable[[Found], object]:
    def read(found: Found) -> object:
        return sum(found["counts"]["refused"][phase][what].values())

    return read


def markdown(results: Mapping[str, Any]) -> str:
    """The table of all pairs, with the machine that it was measured on."""
    pairs: Mapping[str, Found] = results["pairs"]
    machine, base = results["machine"], results["baseline"]
    lines = [
        f"Commit `{results['commit']}`, {results['date']}. {machine['cpus']} CPUs"
        f" ({machine['cpu_model']}), {machine['memory_gib']} GiB, Linux {machine['kernel']},"
        f" Python {machine['python']}. Load average when it began: {machine['load_before']}, when"
        f" it ended: {machine['load_after']} (its own load included).",
        "",
        f"Baseline: this API server takes {base['writes_per_s']:g} writes/s of a BucketClaim from"
        " one client with 20 writers when nothing else runs, at"
        f" {base['apiserver_cpu_ms_per_write']:g} ms of its CPU each, and after"
        f" {base['filling']:g} writes {base['later_writes_per_s']:g} at"
        f" {base['later_apiserver_cpu_ms_per_write']:g} ms; the mock driver answers"
        f" {results['driver_limit']['calls_per_s']:g} calls/s. Of two numbers, the first is"
        " the controller's, the second the sidecar's.",
        "",
        f"| | goal | {' | '.join(pairs)} |",
        f"|---|---|{'---|' * len(pairs)}",
    ]
    for name, goal, read in rows([int(count) for count in results["bursts"]]):
        cells = [_cell(read, found) for found in pairs.values()]
        if any(cell != NOT_MEASURED for cell in cells):
            lines.append(f"| {name} | {goal} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(read: Callable[[Found], object], found: Found) -> str:
    try:
        value = read(found)
    except KeyError:
        return NOT_MEASURED
    return f"{value:g}" if isinstance(value, float) else str(value)


def put_between_marks(text: str, table: str) -> str:
    """The document with the table between its marks replaced.

    Raises:
        ValueError: the marks are missing.
    """
    begin, end = (text.index(mark) for mark in MARKS)
    return f"{text[: begin + len(MARKS[0])]}\n{table}{text[end:]}"
