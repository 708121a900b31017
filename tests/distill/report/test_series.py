"""Series of a run's figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distill.logs import METRICS
from distill.report.series import Series, read_series


def test_the_smooth_line_is_a_running_mean() -> None:
    values = np.random.default_rng(0).normal(size=250)
    smooth = Series("loss", np.arange(250.0), values).smooth
    window = 250 // 50
    assert len(smooth) == 250
    for middle in (0, 1, 100, 248, 249):
        near = values[max(0, middle - window // 2) : middle + window // 2 + 1]
        assert smooth[middle] == pytest.approx(near.mean())
    assert Series("loss", np.arange(2.0), np.array([3.0, 1.0])).smooth.tolist() == [3.0, 1.0]


def test_rare_figures_keep_their_steps_and_nan_is_dropped(tmp_path: Path) -> None:
    (tmp_path / METRICS).write_text(
        '{"step": 1, "loss": 2.0, "gradient_norm": null}\n{"step": 2, "loss": NaN, "validation": 0.5, "name": "x"}\n'
        '{"step": 3, "loss": 1.0}\n'
    )
    lines, found = read_series(tmp_path / METRICS)
    assert len(lines) == 3 and set(found) == {"loss", "validation"}
    assert found["loss"].steps.tolist() == [1, 3] and found["validation"].steps.tolist() == [2]
