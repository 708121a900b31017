"""Inference engines, one file each, behind one interface: `Tower(data, threads=…)`, called on a batch."""

import importlib
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from mobileclip.errors import EngineError

__all__ = ["ENGINES", "Tower", "load_tower"]

ENGINES: Final = {"onnx": "mobileclip.runtimes.onnx", "litert": "mobileclip.runtimes.litert"}
"""Engine name, as in a manifest's `towers`, → the module that knows it."""


class Tower(Protocol):
    """One half of a model, ready to run."""

    def __call__(self, inputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Vectors for a batch.

        Args:
            inputs: pixels float32 (n, 3, size, size), or tokens int32 (n, L).

        Returns:
            float32 (n, d).

        Raises:
            EngineError: the engine failed.
        """

    def with_features(
        self, inputs: npt.NDArray[Any], output: str
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Vectors for a batch, and the feature map that they were pooled from.

        Args:
            inputs: pixels float32 (n, 3, size, size).
            output: the name of the map among the tower's outputs.

        Returns:
            float32 (n, d) and (n, c, h, w).

        Raises:
            EngineError: the engine failed, or the tower gives no such map.
        """


def load_tower(engine: str, data: bytes, *, threads: int | None = None) -> Tower:
    """Make a tower of a model file.

    Args:
        engine: a key of `ENGINES`.
        data: content of the model file, already checked against its hash.
        threads: threads for one batch; None leaves it to the engine.

    Raises:
        EngineError: unknown engine, engine not installed, or a file that it will not load.
    """
    if engine not in ENGINES:
        raise EngineError(f"unknown engine {engine!r}: there is {', '.join(ENGINES)}")
    tower: Tower = importlib.import_module(ENGINES[engine]).Tower(data, threads=threads)
    return tower
