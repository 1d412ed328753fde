"""Precision against the share kept as SVG: a panel of lines and points for each world, one legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 300, 230
"""Pixels of one panel, axes included."""

LEFT, TOP, RIGHT, BOTTOM = 44, 34, 14, 34
COLOURS = {
    "weighted": "#1d4fa3",
    "dawid_skene": "#12876a",
    "unanimous": "#c5413f",
    "unanimous, all heard": "#d98aa8",
    "majority": "#e08a2e",
    "single": "#6f7680",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What one policy does: a point, or a line through several."""

    policy: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One panel; x is the share kept from 0 to 1, y the precision from ``floor`` to 1."""

    title: str
    marks: Sequence[Mark]
    floor: float = 0.85


def draw_charts(charts: Sequence[Chart], columns: int = 3) -> str:
    """Return one SVG of all charts."""
    rows = -(-len(charts) // columns)
    width, height = columns * WIDTH, rows * HEIGHT + 30
    body = "".join(
        f'<g transform="translate({place % columns * WIDTH},{place // columns * HEIGHT})">{_panel(chart)}</g>'
        for place, chart in enumerate(charts)
    )
    legend = "".join(
        f'<g transform="translate({LEFT + place * 140},{height - 16})"><circle r="5" fill="{colour}"/>'
        f'<text x="9" y="4">{escape(name)}</text></g>'
        for place, (name, colour) in enumerate(COLOURS.items())
    )
    style = "text{font:11px sans-serif;fill:#1a1c20}.t{font-weight:bold}.g{stroke:#e3e1da}.s{fill:#5c616b}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}"><style>{style}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>{body}{legend}</svg>\n'
    )


def _panel(chart: Chart) -> str:
    ticks = "".join(_tick(step / 4, chart.floor) for step in range(5))
    marks = "".join(_mark(mark, chart.floor) for mark in chart.marks)
    return (
        f'<text class="t" x="{LEFT}" y="18">{escape(chart.title)}</text>{ticks}{marks}'
        f'<text class="s" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">share of pairs kept</text>'
        f'<text class="s" x="{LEFT + 4}" y="{TOP - 4}">precision</text>'
    )


def _tick(at: float, floor: float) -> str:
    """Return grid lines and numbers at ``at`` of both axes."""
    x, y = _place(at, floor + at * (1 - floor), floor)
    left, bottom, precision = LEFT, HEIGHT - BOTTOM, floor + at * (1 - floor)
    return (
        f'<line class="g" x1="{left}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<line class="g" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>'
        f'<text class="s" x="{left - 5}" y="{y + 4:.1f}" text-anchor="end">{precision:.3g}</text>'
        f'<text class="s" x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{at:g}</text>'
    )


def _mark(mark: Mark, floor: float) -> str:
    colour = next(COLOURS[name] for name in sorted(COLOURS, reverse=True) if mark.policy.startswith(name))
    placed = [_place(x, y, floor) for x, y in mark.points if y >= floor]
    title = f"<title>{escape(mark.policy)}</title>"
    if len(mark.points) == 1:
        return "".join(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}" stroke="#fff">{title}</circle>'
            for x, y in placed
        )
    thin = {round(x): f"{x:.1f},{y:.1f}" for x, y in placed}  # no more points than pixels
    path = " ".join(thin.values())
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2">{title}</polyline>'


def _place(x: float, y: float, floor: float) -> tuple[float, float]:
    across, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    return LEFT + x * across, TOP + (1 - (y - floor) / (1 - floor)) * down
