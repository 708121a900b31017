"""Line charts as SVG, written by hand so that the page's CSS can set their colors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from distill.report.series import Series, Values

WIDTH, HEIGHT = 420, 190
LEFT, RIGHT, TOP, BOTTOM = 54, 12, 20, 26
POINTS = 300
"""Most points of a line, so that a run of a million steps stays small."""


@dataclass(frozen=True)
class SizeMark:
    """The step where the picture size changes, marked in a chart."""

    step: float
    label: str


@dataclass(frozen=True)
class PlotArea:
    """Maps steps and values to positions in a chart."""

    first: float
    last: float
    low: float
    high: float

    def x(self, steps: Values) -> Values:
        """Return x positions."""
        return LEFT + (steps - self.first) / (self.last - self.first) * (WIDTH - LEFT - RIGHT)

    def y(self, values: Values) -> Values:
        """Return y positions, clipped to the plot area."""
        share = (np.clip(values, self.low, self.high) - self.low) / (self.high - self.low)
        inside: Values = HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
        return inside


def line_chart(series: Series, marks: Sequence[SizeMark] = ()) -> Markup:
    """Draw a series of at least one step, raw and smoothed, as one `<svg>`.

    The y range covers the smoothed line; outliers of the raw line are clipped.
    """
    smooth = series.smooth
    first, last = float(series.steps[0]), float(series.steps[-1])
    area = PlotArea(first, max(last, first + 1), *_limits(series.values, smooth))
    parts = [Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, HEIGHT, series.name)]
    parts += _axes(area)
    for mark in marks:
        if area.first <= mark.step <= area.last:
            x = float(area.x(np.array(mark.step)))
            line = Markup('<line class="stage" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>')
            parts.append(line.format(x, TOP - 4, HEIGHT - BOTTOM))
            parts.append(Markup('<text x="{:.1f}" y="12">{}</text>').format(x + 3, mark.label))
    rows = _extremes(series.values)
    parts.append(_path("raw", area.x(series.steps[rows]), area.y(series.values[rows])))
    rows = _middles(len(smooth))
    parts.append(_path("line", area.x(series.steps[rows]), area.y(smooth[rows])))
    end = float(area.x(series.steps[-1:])[0]), float(area.y(smooth[-1:])[0])
    parts.append(Markup('<circle class="end" cx="{:.1f}" cy="{:.1f}" r="2.6"/></svg>').format(*end))
    return Markup("").join(parts)


def _axes(area: PlotArea) -> list[Markup]:
    """Draw grid lines with their values, and step labels below."""
    parts = []
    for value in _ticks(area.low, area.high, 4):
        y = float(area.y(np.array(value)))
        line = Markup('<line class="grid" x1="{0}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}"/>')
        parts.append(line.format(LEFT, WIDTH - RIGHT, y))
        parts.append(Markup('<text class="y" x="{}" y="{:.1f}">{}</text>').format(LEFT - 6, y + 4, f"{value:.4g}"))
    for step in _ticks(area.first, area.last, 5, integer=True):
        x = float(area.x(np.array(step)))
        parts.append(Markup('<text class="x" x="{:.1f}" y="{}">{}</text>').format(x, HEIGHT - 6, _short(step)))
    return parts


def _limits(values: Values, smooth: Values) -> tuple[float, float]:
    low = min(float(smooth.min()), float(np.quantile(values, 0.01)))
    high = max(float(smooth.max()), float(np.quantile(values, 0.99)))
    margin = 0.04 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin


def _ticks(low: float, high: float, most: int, integer: bool = False) -> list[float]:
    from matplotlib.ticker import MaxNLocator

    found = MaxNLocator(nbins=most, integer=integer, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    # Summed ticks can miss zero by a rounding error.
    return [float(tick) if abs(tick) > 1e-9 * (high - low) else 0.0 for tick in found if low <= tick <= high]


def _short(step: float) -> str:
    """Abbreviate a number of steps: `1.5k`."""
    return f"{step / 1e6:g}M" if step >= 1e6 else f"{step / 1e3:g}k" if step >= 1e4 else f"{step:g}"


def _path(name: str, x: Values, y: Values) -> Markup:
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return Markup('<polyline class="{}" points="{}"/>').format(name, points)


def _buckets(count: int) -> list[NDArray[np.intp]]:
    return np.array_split(np.arange(count), min(POINTS, count))


def _extremes(values: Values) -> list[int]:
    """Return the rows of the lowest and the highest value of each bucket, in order."""
    ends = ({int(part[values[part].argmin()]), int(part[values[part].argmax()])} for part in _buckets(len(values)))
    return [row for pair in ends for row in sorted(pair)]


def _middles(count: int) -> list[int]:
    """Return the middle row of each bucket, and the first and last row of the run."""
    return [0, *(int(part[len(part) // 2]) for part in _buckets(count)), count - 1]
