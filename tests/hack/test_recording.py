"""docs/demo.svg is an animation that can be read, and its last picture shows the refusal whole."""

import re
from html import unescape
from pathlib import Path

import pytest

from recording import (
    COLUMNS,
    LAST_PICTURE_S,
    LIMIT_S,
    LINE_PX,
    MARGIN_PX,
    ROWS,
    draw,
    length_s,
    pictures,
    shown,
    visible,
)

DEMO = Path(__file__).resolve().parents[2] / "docs" / "demo.svg"


def picture(svg: str, at_s: float) -> list[str]:
    """The lines that a browser shows at a moment: by the keyframes, as `step-end` has them."""
    whole_s = float(re.findall(r"animation:cover ([\d.]+)s step-end", svg)[0])
    values = {}
    for name in ("scroll", "cover"):
        keyframes = re.findall(rf"@keyframes {name}{{(.*)}}$", svg, re.MULTILINE)[0]
        moments = re.findall(r"([\d.]+)%{transform:translateY\((-?\d+)px\)}", keyframes)
        values[name] = [int(px) for at, px in moments if float(at) / 100 * whole_s <= at_s][-1]
    top, bottom = -values["scroll"], values["cover"]
    texts = re.findall(r'<text x="\d+" y="(\d+)"[^>]*>(.*?)</text>', svg)
    return [
        unescape(text)
        for y, text in texts
        if top + MARGIN_PX < int(y) < min(bottom, top + MARGIN_PX + LINE_PX * ROWS)
    ]


def recorded(lines: int = 200, width: int = 300) -> str:
    output = [f"     {n} {'word ' * (width // 5)}" for n in range(lines)]
    return "\n".join(
        ["6. Before", "7. A claim", "   $ \x1b[1mkubectl\x1b[0m get", *output, "", "12. After"]
    )


def test_the_lines_are_those_of_the_steps_and_long_ones_are_wrapped_not_cut() -> None:
    lines = shown(recorded(lines=1))
    assert lines[0].text == "7. A claim"
    assert lines[1].style == "font-weight:bold"
    assert " ".join(line.text for line in lines).count("word") == 60
    assert max(len(line.text) for line in lines) <= COLUMNS


@pytest.mark.parametrize("count", [1, 500])
def test_it_ends_within_the_limit_and_rests_on_the_last_picture(count: int) -> None:
    lines = shown(recorded(lines=count))
    assert length_s(lines) <= LIMIT_S + 1e-6
    last, shown_lines = list(pictures(lines))[-1]
    assert shown_lines == len(lines)
    assert length_s(lines) - last >= LAST_PICTURE_S


def test_a_browser_shows_each_picture_at_its_moment() -> None:
    lines = shown(recorded())
    svg = draw(lines)
    for at_s, count in pictures(lines):
        expected = [line.text for line in visible(lines, count) if line.text]
        assert picture(svg, at_s + 0.001) == expected


def test_the_last_picture_of_the_site_shows_the_refused_claim_whole() -> None:
    svg = DEMO.read_text(encoding="utf-8")
    (whole_s,) = re.findall(r"animation:cover ([\d.]+)s", svg)
    assert float(whole_s) <= LIMIT_S
    last = picture(svg, float(whole_s))
    text = " ".join(" ".join(last).split())
    assert "$ kubectl describe bucketclaim refused -n shop Name: refused" in text
    assert "Reason: DriverInvalidArgument Status: True Type: Stalled" in text
    assert text.count("(use a new value each time).") == 3  # both conditions, and the Event
    assert "…" not in text
