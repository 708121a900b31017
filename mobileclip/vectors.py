"""Arrays of vectors: their type, and scaling to unit length."""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Floats", "unit_rows"]

Floats = npt.NDArray[np.float32]
"""An array of float32."""

_SHORTEST = 1e-6


def unit_rows(rows: npt.NDArray[Any]) -> Floats:
    """Scale vectors to unit length along the last axis.

    Args:
        rows: (…, d), any real dtype.

    Returns:
        (…, d) float32.

    Raises:
        ValueError: a vector is zero, or has NaN or infinite entries.
    """
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    if not np.all(lengths > _SHORTEST) or not np.all(np.isfinite(lengths)):
        raise ValueError("a vector has no direction: it is zero, NaN or infinite")
    units: Floats = (rows / lengths).astype(np.float32, copy=False)
    return units
