"""What every engine gives."""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Tower"]


class Tower(Protocol):
    """One half of a model, ready to run.

    Attributes:
        dtype: of the inputs: float32, int32, or uint8 where the tower does the pixel recipe's arithmetic itself.
        shape: of the inputs as the model declares it: a number, or a name or None where it is free.
    """

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the inputs."""

    @property
    def shape(self) -> tuple[int | str | None, ...]:
        """Shape of the inputs."""

    def __call__(self, inputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Vectors for a batch.

        Args:
            inputs: pixels (n, 3, size, size), float32 or, where `dtype` says so, uint8; or tokens int32 (n, L).

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
