"""Charts of a run's figures, drawn by matplotlib: SVG for the report, and all losses in one picture."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING

import numpy as np

from distill.logs import is_loss
from distill.report.series import Series, Values, read_series
from mobileclip.files import PathLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 420, 190
LEFT, RIGHT, TOP, BOTTOM = 54, 12, 20, 26
"""Margins around the plot area of a chart."""
POINTS = 600
"""Most points of a line, so that a run of a million steps stays small."""
COLUMNS = 4
INK, FAINT, PALE = "#22577a", "#bccbd8", "#5b6773"
STEPS = (1, 2, 2.5, 5, 10)
"""Multiples at which ticks are placed."""


@dataclass(frozen=True)
class SizeMark:
    """The step where the picture size changes, marked in a chart."""

    step: float
    label: str


def draw(axis: Axes, series: Series) -> None:
    """Draw a series of at least one step, raw and smoothed.

    The y range covers the smoothed line; outliers of the raw line are clipped.
    """
    from matplotlib.ticker import EngFormatter, MaxNLocator, StrMethodFormatter

    low, high = _limits(series)
    first, last = float(series.steps[0]), float(series.steps[-1])
    axis.set(xlim=(first, max(last, first + 1)), ylim=(low, high))
    # The values are clipped here, because SVG would need a clip path with an id.
    lines = (("raw", np.clip(series.values, low, high), FAINT, 0.8), ("smooth", series.smooth, INK, 1.8))
    for name, values, color, width in lines:
        rows = _extremes(values)
        axis.plot(series.steps[rows], values[rows], color=color, linewidth=width, clip_on=False, gid=name)
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=STEPS))
    axis.yaxis.set_major_locator(MaxNLocator(4, steps=STEPS))
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:.4g}"))
    axis.tick_params(length=0, labelsize=8, colors=PALE, labelbottom=True)
    axis.grid(axis="y", color=PALE, alpha=0.25, linewidth=0.6, clip_on=False)
    axis.spines[:].set_visible(False)


def _limits(series: Series) -> tuple[float, float]:
    smooth = series.smooth
    low = min(float(smooth.min()), float(np.quantile(series.values, 0.01)))
    high = max(float(smooth.max()), float(np.quantile(series.values, 0.99)))
    margin = 0.04 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin


def _extremes(values: Values) -> list[int]:
    """Return the first and the last row, and those of the lowest and highest value of each bucket, in order."""
    buckets = np.array_split(np.arange(len(values)), min(POINTS // 2 - 1, len(values)))
    rows = {int(rows[pick(values[rows])]) for rows in buckets for pick in (np.argmin, np.argmax)}
    return sorted(rows | {0, len(values) - 1})


def line_chart(series: Series, marks: Sequence[SizeMark] = ()) -> str:
    """Draw a series as the contents of an `<svg>` with `viewBox="0 0 {WIDTH} {HEIGHT}"`.

    Elements have classes (`raw`, `smooth`, `end`, `stage`, and `xaxis`, `yaxis`, `mark` around texts) and no style, so
    that the page's CSS sets the colors.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none", "path.simplify": False}):  # text as text, not as outlines
        figure = Figure((WIDTH / 72, HEIGHT / 72))
        area = ((WIDTH - LEFT - RIGHT) / WIDTH, (HEIGHT - TOP - BOTTOM) / HEIGHT)
        axis = figure.add_axes((LEFT / WIDTH, BOTTOM / HEIGHT, *area))
        draw(axis, series)
        axis.tick_params(labelsize=12)
        figure.patch.set_visible(False)
        axis.patch.set_visible(False)
        axis.xaxis.set_gid("xaxis")
        axis.yaxis.set_gid("yaxis")
        first, last = axis.get_xlim()
        for mark in marks:
            if first <= mark.step <= last:
                axis.axvline(mark.step, clip_on=False, gid="stage")
                above = axis.get_xaxis_transform()
                axis.annotate(mark.label, (mark.step, 1), (3, 5), above, textcoords="offset points", gid="mark")
        # A line without length, whose round caps make a dot; markers would be references to a definition.
        axis.plot(series.steps[[-1, -1]], series.smooth[[-1, -1]], clip_on=False, gid="end")
        svg = StringIO()
        figure.savefig(svg, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return _without_style(svg.getvalue())


def _without_style(svg: str) -> str:
    """Return the contents of matplotlib's `<svg>` with classes for ids, one decimal, and no definitions or styles."""
    contents = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    unused = r'<defs>.*?</defs>|<!--.*?-->| style="[^"]*"| transform="rotate\(-?0 [^"]*"|\n\s*'
    contents = re.sub(unused, "", contents, flags=re.DOTALL)
    return re.sub(r'(\d\.\d)\d+(?=[ "])', r"\1", contents).replace(' id="', ' class="')


def plot_losses(metrics: PathLike, picture: PathLike) -> None:
    """Draw all losses of a metrics file in one picture, PNG or SVG, depending on the suffix of `picture`.

    Writes nothing if the file has no steps.

    Raises:
        LogError: the file can't be read.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    losses = [series for name, series in read_series(metrics)[1].items() if is_loss(name)]
    if not losses:
        return
    columns = min(COLUMNS, len(losses))
    # Fill rows evenly: five losses become 3 + 2, not 4 + 1.
    rows = math.ceil(len(losses) / columns)
    columns = math.ceil(len(losses) / rows)
    figure = Figure((3.5 * columns, 2.5 * rows), layout=ConstrainedLayoutEngine(h_pad=0.12))
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis, series in zip(axes.flat, losses, strict=False):
        draw(axis, series)
        axis.set_title(series.name, fontsize=10, loc="left", fontweight="bold", parse_math=False)
        axis.set_title(f"{series.smooth[-1]:.4g}", fontsize=10, loc="right", color=INK)
    for axis in axes.flat[len(losses) :]:
        axis.set_visible(False)
    figure.supxlabel("step", fontsize=9, color=PALE)
    figure.savefig(picture, dpi=150)
