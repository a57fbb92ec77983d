"""Coverage is guarded by both of its figures, and each figure can fail."""

import json
from pathlib import Path

import pytest

import coverage_figures
from coverage_figures import Figures, FiguresError, floor, measured, recorded, updated

DOCUMENT = """# Coverage

| tests | lines, % | branches, % | guarded by |
|---|---|---|---|
| all tests | 97.0 | 90.2 | `make coverage` |
| unit and model tests | 85.0 | 80.0 | `make test` |
"""


def report(lines: int, branches: int) -> dict[str, dict[str, int]]:
    return {
        "totals": {
            "covered_lines": lines,
            "num_statements": 1000,
            "covered_branches": branches,
            "num_branches": 1000,
        }
    }


def test_a_report_becomes_two_percentages() -> None:
    assert measured(report(975, 908)) == Figures(97.5, 90.8)


def test_a_report_without_branches_is_refused() -> None:
    with pytest.raises(FiguresError, match="no branches"):
        measured({"totals": {"covered_lines": 1, "num_statements": 1}})


def test_a_part_that_the_document_does_not_have_is_refused() -> None:
    with pytest.raises(FiguresError, match="no row 'faults'"):
        recorded(DOCUMENT, "faults")


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        pytest.param("unit and model tests", Figures(84.0, 79.0), id="a point below"),
        pytest.param("all tests", Figures(96.0, 90.0), id="never below the least"),
    ],
)
def test_the_floor_follows_the_recorded_figures(part: str, expected: Figures) -> None:
    assert floor(DOCUMENT, part) == expected


def test_updating_replaces_one_row_and_keeps_the_rest() -> None:
    changed = updated(DOCUMENT, "all tests", Figures(98.04, 91.26))
    assert recorded(changed, "all tests") == Figures(98.0, 91.3)
    assert changed.replace("| 98.0 | 91.3 |", "| 97.0 | 90.2 |") == DOCUMENT


@pytest.mark.parametrize(
    ("lines", "branches", "said"),
    [
        pytest.param(970, 902, "", id="as recorded -> passes"),
        pytest.param(960, 900, "", id="at the floor -> passes"),
        pytest.param(959, 950, "lines 95.9% (at least 96.0%)", id="fewer lines -> fails"),
        pytest.param(990, 899, "branches 89.9% (at least 90.0%)", id="fewer branches -> fails"),
    ],
)
def test_the_guard_fails_when_a_figure_falls(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    lines: int,
    branches: int,
    said: str,
) -> None:
    document, file = tmp_path / "coverage.md", tmp_path / "coverage.json"
    document.write_text(DOCUMENT)
    file.write_text(json.dumps(report(lines, branches)))
    monkeypatch.setattr(coverage_figures, "DOCUMENT", document)
    assert coverage_figures.main(["check", "all tests", str(file)]) == (1 if said else 0)
    assert said in capsys.readouterr().err
    assert document.read_text() == DOCUMENT


def test_updating_writes_the_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document, file = tmp_path / "coverage.md", tmp_path / "coverage.json"
    document.write_text(DOCUMENT)
    file.write_text(json.dumps(report(900, 800)))
    monkeypatch.setattr(coverage_figures, "DOCUMENT", document)
    assert coverage_figures.main(["update", "unit and model tests", str(file)]) == 0
    assert recorded(document.read_text(), "unit and model tests") == Figures(90.0, 80.0)
