"""Charts of the report, and the picture of all losses."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from distill.logs import METRICS
from distill.report.charts import BOTTOM, HEIGHT, LEFT, POINTS, RIGHT, TOP, WIDTH, SizeMark, line_chart, plot_losses
from distill.report.series import Series
from tests.distill.report.conftest import TERMS, Log


def series(values: list[float] | np.ndarray) -> Series:
    return Series("loss", np.arange(1.0, len(values) + 1), np.asarray(values, float))


def parsed(chart: str) -> ElementTree.Element:
    return ElementTree.fromstring(f"<svg>{chart}</svg>")


def points(chart: str, name: str) -> np.ndarray:
    """Return the points (n, 2) of the line of this class."""
    (path,) = parsed(chart).findall(f".//g[@class='{name}']/path")
    return np.array(re.findall(r"[ML] ([\d.]+) ([\d.]+)", path.get("d", "")), float)


def test_a_chart_puts_steps_to_the_right_and_values_up() -> None:
    line = points(line_chart(series([1.0, 3.0, 2.0])), "smooth")
    assert line[0, 0] == LEFT and line[-1, 0] == WIDTH - RIGHT
    height = dict(line.tolist())
    first, middle, last = (height[x] for x in (LEFT, (LEFT + WIDTH - RIGHT) / 2, WIDTH - RIGHT))
    assert middle < last < first  # SVG counts from the top
    assert last - middle == pytest.approx((first - middle) / 2, abs=0.2)


@pytest.mark.parametrize("values", [[5.0], [5.0, 5.0], [0.0] * 9, [1e-9, 2e-9], [-3e8, 1e12], [1.0, 1e30, 1.0] * 99])
def test_every_chart_stays_in_its_plot_area(values: list[float]) -> None:
    chart = line_chart(series(values), [SizeMark(1, "48 px"), SizeMark(2, "64 px"), SizeMark(1e6, "never")])
    for name in ("raw", "smooth"):
        x, y = points(chart, name).T
        assert np.isfinite(x).all() and x.min() >= LEFT and x.max() <= WIDTH - RIGHT
        assert np.isfinite(y).all() and y.min() >= TOP and y.max() <= HEIGHT - BOTTOM
    assert points(chart, "end")[0].tolist() == points(chart, "smooth")[-1].tolist()
    assert "nan" not in chart and "inf" not in chart and "never" not in chart and "48 px" in chart


def test_a_long_run_keeps_its_extremes_in_few_points() -> None:
    values = np.random.default_rng(1).normal(size=50_000)
    raw = points(line_chart(series(values)), "raw")
    assert len(raw) <= POINTS and (np.diff(raw[:, 0]) >= 0).all()
    # Each bucket keeps its lowest and highest value, so the outline of noise stays as wide as the noise.
    assert np.ptp(raw[:, 1]) > 0.9 * (HEIGHT - TOP - BOTTOM)


def test_an_outlier_does_not_flatten_the_chart() -> None:
    values = 1 + np.random.default_rng(2).random(1000)
    values[500] = 1e6
    chart = parsed(line_chart(Series("x", np.arange(1000.0), values)))
    labels = [float(text.text or "") for text in chart.findall(".//g[@class='yaxis']//text")]
    # The running mean over 20 steps rises to 5e4 and must be visible; the step itself is clipped.
    assert labels and max(labels) <= 6e4


def test_the_page_decides_how_a_chart_looks() -> None:
    """No style, color, id or reference: CSS sets the colors of light and dark pages, and charts don't collide."""
    chart = parsed(line_chart(series([1.0, 3.0, 2.0]), [SizeMark(2, "64 px")]))
    assert {name for element in chart.iter() for name in element.attrib} == {"class", "d", "x", "y"}
    assert {element.tag for element in chart.iter()} == {"svg", "g", "path", "text"}
    parts = {element.get("class") for element in chart.iter()}
    assert {"xaxis", "yaxis", "raw", "smooth", "end", "stage", "mark"} <= parts


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
