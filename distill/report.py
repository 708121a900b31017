"""What a run looked like: its losses over its steps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

NOT_LOSSES = {"step", "epoch", "px", "photos_per_second", "lr", "gradient_norm", "logit_scale"}


def plot_losses(metrics: Path, picture: Path) -> None:
    """Draw every loss of a metrics file over the steps, raw and smoothed, as a PNG or SVG by `picture`'s ending."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    lines = [json.loads(line) for line in metrics.read_text("utf-8").splitlines()]
    if not lines:
        return
    steps = np.array([line["step"] for line in lines])
    names = [name for name in lines[0] if name not in NOT_LOSSES]
    figure, axes = plt.subplots(1, len(names), figsize=(3.4 * len(names), 2.8), squeeze=False, layout="constrained")
    for axis, name in zip(axes[0], names, strict=True):
        values = np.array([line[name] for line in lines])
        axis.plot(steps, values, color="#c9d3e0", linewidth=0.7)
        axis.plot(steps, _smooth(values), color="#22577a", linewidth=1.6)
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("step", fontsize=9)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, dpi=150)
    plt.close(figure)


def _smooth(values: np.ndarray) -> np.ndarray:
    """A running mean over a fiftieth of the run, shorter at its ends."""
    window = max(1, len(values) // 50)
    sums = np.convolve(values, np.ones(window), mode="same")
    return sums / np.convolve(np.ones(len(values)), np.ones(window), mode="same")
