"""Tables as wide as the terminal, and colours only for those who want them."""

import io
import sys
from collections.abc import Mapping

import pytest

from cosi_operator.cli import terminal
from cosi_operator.cli.text import Layout, columns, paragraph, table

TABLE = "NAME    STATE\nphotos  failed\nlogs    ready\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environ", "expected"),
    [
        pytest.param(Terminal(), {}, True, id="a terminal -> colours"),
        pytest.param(io.StringIO(), {}, False, id="a pipe -> none"),
        pytest.param(Terminal(), {"NO_COLOR": "1"}, False, id="NO_COLOR -> none"),
        pytest.param(Terminal(), {"NO_COLOR": ""}, True, id="an empty NO_COLOR -> colours"),
        pytest.param(Terminal(), {"TERM": "dumb"}, False, id="a dumb terminal -> none"),
    ],
)
def test_who_gets_colours(stream: io.StringIO, environ: Mapping[str, str], expected: bool) -> None:
    assert terminal.has_colours(stream, environ) is expected
    terminal.write(TABLE, stream, environ)
    assert ("\x1b[31mfailed\x1b[0m" in stream.getvalue()) is expected


def test_a_state_is_coloured_in_its_column_only() -> None:
    assert terminal.coloured("BucketClaim shop/a: ready\n") != "BucketClaim shop/a: ready\n"
    for text in ("The call failed because it was not ready.\n", "All 2 objects are ready.\n"):
        assert terminal.coloured(text) == text


def test_without_rich_the_text_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.style", None)
    assert terminal.coloured(TABLE) == TABLE


def test_a_pipe_has_no_width_and_a_terminal_the_one_that_it_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "61")
    assert terminal.width_of(io.StringIO()) is None
    assert terminal.width_of(Terminal()) == 61


@pytest.mark.parametrize("width", [30, 60, 100])
def test_the_last_column_is_cut_where_the_line_would_wrap(width: int) -> None:
    shown = table(("NAME", "MESSAGE"), [("photos", "a message " * 20)], Layout(width))
    assert max(columns(line) for line in shown.splitlines()) <= width
    assert "…" in shown


def test_wide_and_pipes_are_not_cut() -> None:
    rows = [("photos", "a message " * 20)]
    for layout in (Layout(30, is_wide=True), Layout(None), None):
        assert "…" not in table(("NAME", "MESSAGE"), rows, layout)


def test_a_column_that_would_be_too_narrow_keeps_a_few_words() -> None:
    shown = table(("NAME", "MESSAGE"), [("n" * 40, "a long message here")], Layout(30))
    assert "a long message …" in shown


@pytest.mark.parametrize(
    ("width", "header"),
    [
        pytest.param(60, ["NAME", "SINCE", "CALL", "MESSAGE"], id="room for all -> all"),
        pytest.param(36, ["NAME", "SINCE", "MESSAGE"], id="too narrow -> without the first"),
        pytest.param(20, ["NAME"], id="much too narrow -> without all three"),
    ],
)
def test_columns_that_do_not_fit_are_left_out(width: int, header: list[str]) -> None:
    titles, row = ("NAME", "SINCE", "CALL", "MESSAGE"), ("n" * 10, "5s", "c" * 9, "a message " * 20)
    optional = ("CALL", "SINCE", "MESSAGE")
    shown = table(titles, [row], Layout(width), optional=optional).splitlines()
    assert shown[0].split() == header
    assert max(map(columns, shown)) <= width
    for layout in (Layout(width, is_wide=True), Layout(None)):
        assert table(titles, [row], layout, optional=optional).split()[:4] == list(titles)


def test_east_asian_characters_take_two_columns() -> None:
    assert (columns("桶"), columns("e\u0301"), columns("ab")) == (2, 1, 2)
    first, second = table(("A", "B"), [("桶桶", "x")]).splitlines()
    assert (first, second) == ("A     B", "桶桶  x")
    assert columns(table(("A",), [("桶" * 30,)], Layout(21)).splitlines()[1]) <= 21


def test_a_paragraph_is_filled_to_the_terminal() -> None:
    lines = paragraph("word " * 40, "    ", Layout(40)).splitlines()
    assert max(map(len, lines)) <= 40
    assert all(line.startswith("    word") for line in lines)
