"""What the demo prints, and that it can't pass a step without a check."""

import io
from collections.abc import Mapping

import pytest

from demo.screen import CheckError, Screen, has_colour, masked


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("out", "environment", "colour"),
    [
        pytest.param(Terminal(), {}, True, id="a terminal gets colours"),
        pytest.param(io.StringIO(), {}, False, id="a file does not"),
        pytest.param(Terminal(), {"NO_COLOR": "1"}, False, id="NO_COLOR turns them off"),
        pytest.param(Terminal(), {"NO_COLOR": ""}, True, id="an empty NO_COLOR counts as unset"),
    ],
)
def test_when_the_demo_is_coloured(
    out: io.StringIO, environment: Mapping[str, str], colour: bool
) -> None:
    assert has_colour(out, environment) is colour


def test_a_step_shows_its_number_and_what_was_checked() -> None:
    out = io.StringIO()
    screen = Screen(out, colour=False)
    with screen.step("A bucket"):
        screen.command("kubectl get")
        screen.output("NAME\n")
        screen.check(True, "it is there")
    lines = out.getvalue().splitlines()
    assert lines[:5] == ["", "1. A bucket", "   $ kubectl get", "     NAME", "   ✓ it is there"]
    assert (screen.steps, screen.checks) == (1, 1)


def test_plain_output_has_no_escapes_and_coloured_output_has() -> None:
    plain, coloured = io.StringIO(), io.StringIO()
    Screen(plain, colour=False).done("end")
    Screen(coloured, colour=True).done("end")
    assert "\x1b" not in plain.getvalue()
    assert "\x1b" in coloured.getvalue()


def test_a_step_that_checks_nothing_fails() -> None:
    screen = Screen(io.StringIO(), colour=False)
    with pytest.raises(CheckError, match="checked nothing"), screen.step("Nothing"):
        screen.say("text is no check")


def test_a_check_that_does_not_hold_ends_the_step_and_is_not_counted() -> None:
    screen = Screen(io.StringIO(), colour=False)
    with pytest.raises(CheckError, match="expected: no bucket on S3"), screen.step("Clean"):
        screen.check(False, "no bucket on S3")
    assert screen.checks == 0


def test_a_failure_names_the_step() -> None:
    out = io.StringIO()
    screen = Screen(out, colour=False)
    with pytest.raises(CheckError) as raised, screen.step("Keys"):
        screen.check(False, "they work")
    screen.failed(raised.value)
    assert "✗ failed at step 1. Keys" in out.getvalue()
    assert "expected: they work" in out.getvalue()


def test_a_masked_secret_shows_four_characters_at_most() -> None:
    assert masked("AKIA1234567890123456") == "AKIA........"
    assert masked("short") == "........"
