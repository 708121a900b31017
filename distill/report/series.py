"""A run's figures over its steps, raw and smoothed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill.logs import Line, read_metrics
from mobileclip.files import PathLike

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """One figure over the steps that have it; finite values only.

    Attributes:
        name: of the figure.
        steps: (n,), increasing.
        values: (n,).
    """

    name: str
    steps: Values
    values: Values

    @property
    def smooth(self) -> Values:
        """Running mean (n,) over a fiftieth of the run, shorter at both ends."""
        window = np.ones(max(1, len(self.values) // 50))
        sums = np.convolve(self.values, window, mode="full")
        counts = np.convolve(np.ones(len(self.values)), window, mode="full")
        first = (len(window) - 1) // 2
        means: Values = (sums / counts)[first : first + len(self.values)]
        return means


def read_series(metrics: PathLike) -> tuple[list[Line], dict[str, Series]]:
    """Read a metrics file: its lines, and every figure except the step as a series, in order of appearance.

    Raises:
        LogError: the file can't be read.
    """
    lines = read_metrics(Path(metrics))
    names = dict.fromkeys(name for line in lines for name in line if name != "step")
    return lines, {name: series for name in names if len((series := _series(name, lines)).values)}


def _series(name: str, lines: Sequence[Line]) -> Series:
    pairs = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
    table = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    table = table[np.isfinite(table).all(axis=1)]
    return Series(name, table[:, 0], table[:, 1])
