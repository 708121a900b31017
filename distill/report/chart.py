"""Line charts as SVG whose colours come from the page's CSS, which is why no plotting library draws them."""

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
"""Points of a line at most: what a screen can show of a run of a million steps."""


@dataclass(frozen=True)
class Stage:
    """From which step on pictures have a size, for the marks in a chart."""

    step: float
    label: str


@dataclass(frozen=True)
class Frame:
    """Where steps and values lie in a chart."""

    first: float
    last: float
    low: float
    high: float

    def x(self, steps: Values) -> Values:
        """Map steps to the right."""
        return LEFT + (steps - self.first) / (self.last - self.first) * (WIDTH - LEFT - RIGHT)

    def y(self, values: Values) -> Values:
        """Map values upwards, those outside to the edge."""
        share = (np.clip(values, self.low, self.high) - self.low) / (self.high - self.low)
        inside: Values = HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
        return inside


def line_chart(series: Series, stages: Sequence[Stage] = ()) -> Markup:
    """Draw a series of at least one step, raw and smoothed, as one `<svg>`.

    The height shows all of the smoothed line; single steps far outside it are cut off.
    """
    smooth = series.smooth
    first, last = float(series.steps[0]), float(series.steps[-1])
    frame = Frame(first, max(last, first + 1), *_limits(series.values, smooth))
    parts = [Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, HEIGHT, series.name)]
    parts += _axes(frame)
    for stage in stages:
        if frame.first <= stage.step <= frame.last:
            x = float(frame.x(np.array(stage.step)))
            line = Markup('<line class="stage" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>')
            parts.append(line.format(x, TOP - 4, HEIGHT - BOTTOM))
            parts.append(Markup('<text x="{:.1f}" y="12">{}</text>').format(x + 3, stage.label))
    rows = _extremes(series.values)
    parts.append(_path("raw", frame.x(series.steps[rows]), frame.y(series.values[rows])))
    rows = _middles(len(smooth))
    parts.append(_path("line", frame.x(series.steps[rows]), frame.y(smooth[rows])))
    end = float(frame.x(series.steps[-1:])[0]), float(frame.y(smooth[-1:])[0])
    parts.append(Markup('<circle class="end" cx="{:.1f}" cy="{:.1f}" r="2.6"/></svg>').format(*end))
    return Markup("").join(parts)


def _axes(frame: Frame) -> list[Markup]:
    """Grid lines with their values, and steps below."""
    parts = []
    for value in _ticks(frame.low, frame.high, 4):
        y = float(frame.y(np.array(value)))
        line = Markup('<line class="grid" x1="{0}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}"/>')
        parts.append(line.format(LEFT, WIDTH - RIGHT, y))
        parts.append(Markup('<text class="y" x="{}" y="{:.1f}">{}</text>').format(LEFT - 6, y + 4, f"{value:.4g}"))
    for step in _ticks(frame.first, frame.last, 5, integer=True):
        x = float(frame.x(np.array(step)))
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
    # Adding steps up leaves a hair beside zero.
    return [float(tick) if abs(tick) > 1e-9 * (high - low) else 0.0 for tick in found if low <= tick <= high]


def _short(step: float) -> str:
    """A number of steps in few letters: `1.5k`."""
    return f"{step / 1e6:g}M" if step >= 1e6 else f"{step / 1e3:g}k" if step >= 1e4 else f"{step:g}"


def _path(name: str, x: Values, y: Values) -> Markup:
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return Markup('<polyline class="{}" points="{}"/>').format(name, points)


def _buckets(count: int) -> list[NDArray[np.intp]]:
    return np.array_split(np.arange(count), min(POINTS, count))


def _extremes(values: Values) -> list[int]:
    """Rows of the lowest and the highest value of each bucket, in the order in which they came."""
    ends = ({int(part[values[part].argmin()]), int(part[values[part].argmax()])} for part in _buckets(len(values)))
    return [row for pair in ends for row in sorted(pair)]


def _middles(count: int) -> list[int]:
    """The middle row of each bucket; the line begins and ends where the run does."""
    return [0, *(int(part[len(part) // 2]) for part in _buckets(count)), count - 1]
