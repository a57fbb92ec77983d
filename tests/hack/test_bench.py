"""The benchmark's own arithmetic and drawing: what it shows is what it measured."""

import os
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from bench.burst import burst
from bench.counting import is_write
from bench.plot import line_chart
from bench.procs import Used, cpu_s, measured, memory_mib, quantiles_ms
from bench.tables import MARKS, markdown, put_between_marks
from bench.turns import Turn, comparison

RESULTS: dict[str, Any] = {
    "commit": "abc",
    "date": "2026-01-01",
    "machine": {
        "cpus": 2,
        "cpu_model": "some",
        "memory_gib": 8,
        "kernel": "6",
        "python": "3.13",
        "load_before": 0.1,
        "load_after": 2.0,
    },
    "baseline": {
        "writes_per_s": 1200.0,
        "apiserver_cpu_ms_per_write": 0.8,
        "filling": 70_000,
        "later_writes_per_s": 1000.0,
        "later_apiserver_cpu_ms_per_write": 0.9,
    },
    "driver_limit": {"calls_per_s": 3000.0},
    "bursts": [100],
    "pairs": {
        "ours": {"bursts": {"100": {"ready": {"per_s": 130.5}}}, "slow": {"seconds": 5.2}},
        "peer": {"bursts": {"100": {"ready": {"per_s": 71.0}}}},
    },
}


def test_quantiles_are_values_that_occurred() -> None:
    assert quantiles_ms([n / 1000 for n in range(100)]) == {
        "p50": 50.0,
        "p95": 95.0,
        "p99": 99.0,
        "max": 99.0,
    }


def test_the_cpu_and_memory_of_a_process_are_read_from_the_kernel() -> None:
    pid = os.getpid()
    with measured({"me": pid}) as used:
        begun = cpu_s(pid)
        while cpu_s(pid) < begun + 0.02:
            sum(range(1000))
    assert used.cpu_s["me"] >= 0.02
    assert 0 <= used.others_percent <= 100
    assert memory_mib(pid)["peak"] >= memory_mib(pid)["private"] > 0
    assert Used({"a": 1.0, "b": 3.0}).per(1000, "a", "b") == 4.0


def test_the_table_sets_pairs_side_by_side_and_leaves_out_what_nobody_measured() -> None:
    table = markdown(RESULTS)
    assert "| 100 claims: claims/s to ready | 120 | 130.5 | 71 |" in table
    assert "| slow driver (1 s): seconds for all |  | 5.2 | - |" in table
    assert "watch storm" not in table
    assert "neighbour" not in table


def test_a_neighbours_wait_is_shown_beside_its_load_and_beside_one_queue_for_all() -> None:
    waits = {"alone": {"begun_s": 0.02, "ready_s": 0.03}, "hangs": {"begun_s": 0.04, "ready_s": 1}}
    crowd = {"waiting": 4400, "begun_s": 0.5, "ready_s": 0.9}
    fifo = {"crowd": {"waiting": 4300, "begun_s": 36.2, "ready_s": 37}, "hangs": waits["alone"]}
    ours = {**waits, "crowd": crowd, "hanging": 60, "fifo": {**fifo, "alone": waits["alone"]}}
    pairs = {
        "ours": {**RESULTS["pairs"]["ours"], "fairness": ours},
        "peer": {**RESULTS["pairs"]["peer"], "fairness": {**waits, "crowd": crowd, "hanging": 60}},
    }
    table = markdown({**RESULTS, "pairs": pairs})
    assert (
        "| a neighbour's claim beside a crowd of one tenant: s until begun | 1"
        " | 0.5 with 4400 waiting (in one queue: 36.2) | 0.5 with 4400 waiting |"
    ) in table
    assert (
        "| a neighbour's claim beside a class whose calls hang: s until ready | "
        " | 1 with 60 hanging (in one queue: 0.03) | 1 with 60 hanging |"
    ) in table


def test_a_table_replaces_the_one_between_the_marks_alone() -> None:
    begin, end = MARKS
    text = put_between_marks(f"before\n{begin}\nold\n{end}\nafter\n", "new\n")
    assert text == f"before\n{begin}\nnew\n{end}\nafter\n"
    with pytest.raises(ValueError, match="not found"):
        put_between_marks("no marks", "new")


def test_a_chart_is_xml_with_every_point_inside() -> None:
    chart = line_chart("a < b", "x", "y", {"one": [(0, 0), (10, 5)], "two": [(3, 9)]}, goal=12)
    root = ET.fromstring(chart)
    width, height = (float(part) for part in root.attrib["viewBox"].split()[2:])
    circles = [found.attrib for found in root.iter() if found.tag.endswith("circle")]
    assert len(circles) == 3
    assert all(0 <= float(c["cx"]) <= width and 0 <= float(c["cy"]) <= height for c in circles)


@pytest.mark.parametrize(
    ("kind", "counts"),
    [
        pytest.param("update buckets/status", True, id="a status is a write"),
        pytest.param("update buckets -> 409", True, id="a refused write is one too"),
        pytest.param("create events", False, id="Events are counted apart"),
        pytest.param("create secrets (dry run)", False, id="a dry run stores nothing"),
        pytest.param("get buckets", False, id="a read is no write"),
    ],
)
def test_what_counts_as_a_write(kind: str, counts: bool) -> None:
    assert is_write(kind) is counts


def test_the_simulated_burst_grows_with_what_is_slowest() -> None:
    by_server = burst(2000, writes_per_s=1000)
    assert by_server["claims_per_s"] == pytest.approx(200, rel=0.05)
    by_driver = burst(2000, writes_per_s=1000, driver_s=1.0)
    assert by_driver["claims_per_s"] == pytest.approx(40, rel=0.1)
    assert burst(2000, writes_per_s=1000, driver_s=1.0, drivers=20)["claims_per_s"] > 150


def test_a_comparison_has_means_extremes_and_ratios_of_what_both_measured() -> None:
    turns = {
        "limit": [Turn(120.0, 100.0, 0.5), Turn(80.0, 100.0, 1.5)],
        "this": [Turn(90.0, 110.0, 0.2, 4.0, 60.0)],
        "base": [Turn(60.0, 110.0, 0.1, 5.0, 50.0)],
    }
    assert comparison(turns, of="this").splitlines() == [
        "| | ready/s | deleted/s | CPU ms a claim | idle sidecar, MiB | % that others used |",
        "|---|---|---|---|---|---|",
        "| limit | 100.0 (80.0 to 120.0) | 100.0 (100.0 to 100.0) | - | - | 1.0 (0.5 to 1.5) |",
        "| this | 90.0 (90.0 to 90.0) | 110.0 (110.0 to 110.0) | 4.0 (4.0 to 4.0)"
        " | 60.0 (60.0 to 60.0) | 0.2 (0.2 to 0.2) |",
        "| base | 60.0 (60.0 to 60.0) | 110.0 (110.0 to 110.0) | 5.0 (5.0 to 5.0)"
        " | 50.0 (50.0 to 50.0) | 0.1 (0.1 to 0.1) |",
        "| **this / limit** | 0.90 | 1.10 | - | - |  |",
        "| **this / base** | 1.50 | 1.00 | 0.80 | 1.20 |  |",
    ]
