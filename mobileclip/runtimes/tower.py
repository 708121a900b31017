"""The interface of all engines' towers."""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Tower"]


class Tower(Protocol):
    """An image or text tower, ready to run.

    Attributes:
        dtype: of the inputs: float32, int32, or uint8 if the tower normalizes pixels itself.
        shape: of the inputs as the model declares it; an axis of any length is a name or None.
    """

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the inputs."""

    @property
    def shape(self) -> tuple[int | str | None, ...]:
        """Shape of the inputs."""

    def __call__(self, inputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Embed a batch.

        Args:
            inputs: pixels (n, 3, size, size), float32 or uint8 as `dtype` says; or tokens int32 (n, L).

        Returns:
            float32 (n, d).

        Raises:
            EngineError: the engine failed.
        """

    def with_features(
        self, inputs: npt.NDArray[Any], output: str
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Embed a batch, and return the feature maps that the vectors were pooled from.

        Args:
            inputs: pixels (n, 3, size, size), float32 or uint8 as `dtype` says.
            output: the tower's output that is the feature map.

        Returns:
            float32 (n, d) and (n, c, h, w).

        Raises:
            EngineError: the engine failed, or the tower has no such map.
        """
