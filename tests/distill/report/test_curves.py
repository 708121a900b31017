"""Series, charts, and the plot of all losses."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.logs import METRICS
from distill.report.chart import BOTTOM, HEIGHT, LEFT, POINTS, RIGHT, TOP, WIDTH, SizeMark, line_chart
from distill.report.plot import plot_losses
from distill.report.series import Series, read_series
from tests.distill.report.conftest import TERMS, Log


def series(values: list[float] | np.ndarray) -> Series:
    return Series("loss", np.arange(1.0, len(values) + 1), np.asarray(values, float))


def points(chart: str, name: str) -> np.ndarray:
    found = re.search(rf'<polyline class="{name}" points="([^"]*)"', chart)
    assert found
    return np.array([[float(number) for number in pair.split(",")] for pair in found[1].split()])


def test_the_smooth_line_is_the_mean_of_its_neighbours() -> None:
    values = np.random.default_rng(0).normal(size=250)
    smooth = series(values).smooth
    window = 250 // 50
    assert len(smooth) == 250
    for middle in (0, 1, 100, 248, 249):
        near = values[max(0, middle - window // 2) : middle + window // 2 + 1]
        assert smooth[middle] == pytest.approx(near.mean())
    assert series([3.0, 1.0]).smooth.tolist() == [3.0, 1.0]


def test_rare_figures_keep_their_steps_and_nan_is_dropped(tmp_path: Path) -> None:
    (tmp_path / METRICS).write_text(
        '{"step": 1, "loss": 2.0, "gradient_norm": null}\n{"step": 2, "loss": NaN, "validation": 0.5, "name": "x"}\n'
        '{"step": 3, "loss": 1.0}\n'
    )
    lines, found = read_series(tmp_path / METRICS)
    assert len(lines) == 3 and set(found) == {"loss", "validation"}
    assert found["loss"].steps.tolist() == [1, 3] and found["validation"].steps.tolist() == [2]


def test_a_chart_puts_steps_to_the_right_and_values_up() -> None:
    line = points(line_chart(series([1.0, 3.0, 2.0])), "line")
    assert line[0, 0] == LEFT and line[-1, 0] == WIDTH - RIGHT
    height = dict(line.tolist())
    first, middle, last = (height[x] for x in (LEFT, (LEFT + WIDTH - RIGHT) / 2, WIDTH - RIGHT))
    assert middle < last < first  # SVG counts from the top
    assert last - middle == pytest.approx((first - middle) / 2, abs=0.2)


@pytest.mark.parametrize("values", [[5.0], [5.0, 5.0], [0.0] * 9, [1e-9, 2e-9], [-3e8, 1e12], [1.0, 1e30, 1.0] * 99])
def test_every_chart_stays_in_its_plot_area(values: list[float]) -> None:
    chart = line_chart(series(values), [SizeMark(1, "48 px"), SizeMark(2, "64 px"), SizeMark(1e6, "never")])
    for name in ("raw", "line"):
        x, y = points(chart, name).T
        assert np.isfinite(x).all() and x.min() >= LEFT and x.max() <= WIDTH - RIGHT
        assert np.isfinite(y).all() and y.min() >= TOP and y.max() <= HEIGHT - BOTTOM
    assert "nan" not in chart and "inf" not in chart and "never" not in chart and "48 px" in chart


def test_a_long_run_keeps_its_extremes_in_few_points() -> None:
    values = np.random.default_rng(1).normal(size=50_000)
    chart = line_chart(series(values))
    raw = points(chart, "raw")
    assert len(raw) <= 2 * POINTS and (np.diff(raw[:, 0]) >= 0).all()
    # Each bucket keeps its lowest and highest value, so the outline of noise stays as wide as the noise.
    assert np.ptp(raw[:, 1]) > 0.9 * (HEIGHT - TOP - BOTTOM)


def test_an_outlier_does_not_flatten_the_chart() -> None:
    values = 1 + np.random.default_rng(2).random(1000)
    values[500] = 1e6
    chart = line_chart(Series("x", np.arange(1000.0), values))
    labels = [float(text) for text in re.findall(r'class="y"[^>]*>([^<]*)<', chart)]
    # The running mean over 20 steps rises to 5e4 and must be visible; the step itself is clipped.
    assert max(labels) <= 6e4


@pytest.mark.parametrize(("terms", "rows", "columns"), [(1, 1, 1), (4, 1, 4), (5, 2, 3), (9, 3, 3), (11, 3, 4)])
def test_the_plot_fills_its_rows(log: Log, tmp_path: Path, terms: int, rows: int, columns: int) -> None:
    run = log(3)
    lines = [f'{{"step": {step}, ' + ", ".join(f'"t{i}": {step}' for i in range(terms)) + "}\n" for step in (1, 2)]
    (run / METRICS).write_text("".join(lines))
    plot_losses(run / METRICS, tmp_path / "losses.png")
    with Image.open(tmp_path / "losses.png") as picture:
        assert picture.size == (int(3.5 * columns * 150), int(2.5 * rows * 150))


def test_only_losses_are_plotted_and_an_empty_log_draws_nothing(log: Log, tmp_path: Path) -> None:
    run = log(8, lr_trunk=0.1)
    plot_losses(run / METRICS, tmp_path / "losses.svg")
    comments = re.findall(r"<!-- (.*?) -->", (tmp_path / "losses.svg").read_text())
    assert set(TERMS) <= set(comments) and not {"lr", "lr_trunk", "wait", "time", "px"} & set(comments)
    (run / METRICS).write_text("")
    plot_losses(run / METRICS, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
