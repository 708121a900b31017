"""`losses.png`: all losses of a run in one picture."""

from __future__ import annotations

import math

from distill.logs import is_loss
from distill.report.series import read_series
from mobileclip.files import PathLike

COLUMNS = 4
INK, FAINT, PALE = "#22577a", "#bccbd8", "#5b6773"


def plot_losses(metrics: PathLike, picture: PathLike) -> None:
    """Plot the losses of a metrics file, raw and smoothed, as PNG or SVG, depending on the suffix of `picture`.

    Writes nothing if the file has no steps.

    Raises:
        LogError: the file can't be read.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    losses = [series for name, series in read_series(metrics)[1].items() if is_loss(name)]
    if not losses:
        return
    columns = min(COLUMNS, len(losses))
    # Fill rows evenly: five losses become 3 + 2, not 4 + 1.
    rows = math.ceil(len(losses) / columns)
    columns = math.ceil(len(losses) / rows)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.5 * columns, 2.5 * rows), squeeze=False, sharex=True, layout="constrained"
    )
    for axis, series in zip(axes.flat, losses, strict=False):
        smooth = series.smooth
        axis.plot(series.steps, series.values, color=FAINT, linewidth=0.6)
        axis.plot(series.steps, smooth, color=INK, linewidth=1.7)
        axis.set_title(series.name, fontsize=10, loc="left", fontweight="bold")
        axis.set_title(f"{smooth[-1]:.4g}", fontsize=10, loc="right", color=INK)
        axis.tick_params(labelsize=8, colors=PALE, length=0, labelbottom=True)
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.spines[:].set_visible(False)
        axis.margins(x=0.01)
    for axis in axes.flat[len(losses) :]:
        axis.set_visible(False)
    figure.get_layout_engine().set(h_pad=0.12)
    figure.supxlabel("step", fontsize=9, color=PALE)
    figure.savefig(picture, dpi=150)
    plt.close(figure)
