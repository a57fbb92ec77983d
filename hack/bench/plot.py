"""A line chart as SVG, drawn by hand: a benchmark needs no plotting library."""

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 40, 56
COLOURS = ("#1b6ac9", "#c9481b", "#2f8f4e", "#7a4fb5")

type Line = Sequence[tuple[float, float]]


def line_chart(
    title: str, x_name: str, y_name: str, lines: Mapping[str, Line], *, goal: float | None = None
) -> str:
    """Points joined by lines, one colour each; `goal` is a dashed level.

    Both axes start at 0, so that a slope is a rate.
    """
    points = [point for line in lines.values() for point in line]
    x_top = _nice(max((x for x, _ in points), default=1.0))
    y_top = _nice(max([y for _, y in points] + ([goal] if goal else []), default=1.0))

    def x_at(value: float) -> float:
        return LEFT + value / x_top * (WIDTH - LEFT - RIGHT)

    def y_at(value: float) -> float:
        return HEIGHT - BOTTOM - value / y_top * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="12" role="img" aria-label="{escape(title)}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(WIDTH / 2, 20, title, size=14),
        _text(WIDTH / 2, HEIGHT - 8, x_name),
        f'<g transform="rotate(-90 14 {HEIGHT / 2})">{_text(14, HEIGHT / 2, y_name)}</g>',
    ]
    for step in range(6):
        x, y = x_top * step / 5, y_top * step / 5
        parts.append(_rule(LEFT, y_at(y), WIDTH - RIGHT, y_at(y), "#dddddd"))
        parts.append(_text(LEFT - 6, y_at(y) + 4, f"{y:g}", anchor="end"))
        parts.append(_text(x_at(x), HEIGHT - BOTTOM + 18, f"{x:g}"))
    if goal is not None:
        parts.append(_rule(LEFT, y_at(goal), WIDTH - RIGHT, y_at(goal), "#888888", dash="6 4"))
        parts.append(_text(WIDTH - RIGHT, y_at(goal) - 5, f"goal: {goal:g}", anchor="end"))
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x_at(x):.1f}" cy="{y_at(y):.1f}" r="3" fill="{colour}"/>'
            for x, y in line
        ]
        parts.append(f'<rect x="{LEFT + 10}" y="{TOP + 6 + 18 * number}" width="12" height="3" ')
        parts[-1] += f'fill="{colour}"/>'
        parts.append(_text(LEFT + 28, TOP + 12 + 18 * number, name, anchor="start"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _nice(highest: float) -> float:
    """The next number of the kind 1, 2, 2.5, 5 times a power of ten."""
    power = 1.0
    while power < highest:
        power *= 10
    return min(step * power for step in (0.1, 0.2, 0.25, 0.5, 1.0) if step * power >= highest)


def _rule(x1: float, y1: float, x2: float, y2: float, colour: str, *, dash: str = "") -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{dashed}/>'
    )


def _text(x: float, y: float, text: str, *, anchor: str = "middle", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'fill="#333333">{escape(text)}</text>'
    )
