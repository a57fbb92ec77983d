"""The tables of `make e2e`, and how they get into docs/e2e.md."""

from pathlib import Path

from tests.e2e.table import BEGIN, END, PAGE, Operation, Tables


def test_the_page_gets_the_tables_between_its_marks_and_nothing_else_changes(
    tmp_path: Path,
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    tables = Tables()
    tables.step("node ready", 12.345)
    tables.operations.append(Operation("killed", 1.0, None, 2, 3, "a note"))
    for _ in range(2):
        tables.update(page)
        text = page.read_text()
        assert text.startswith(f"before\n{BEGIN}\n")
        assert text.endswith(f"{END}\nafter\n")
        assert "| node ready | 12.3 s |" in text
        assert "| killed | 1.0 s | - | 2 | 3 | a note |" in text
        assert "old" not in text


def test_the_page_has_both_marks_once() -> None:
    assert [PAGE.read_text().count(mark) for mark in (BEGIN, END)] == [1, 1]
