"""Which layers to keep exact: a greedy search by how much each one, quantized alone, changes the vectors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mobileclip.errors import EngineError
from mobileclip.runtimes import Tower

BUDGET: Final = 0.0005
"""Mean of 1 − cosine that quantized weights, and quantized activations if there are any, may cost. At this value about
3 in 100 of the ten photos nearest to a caption change (the shipped `pocket`, 1,000 photos of Flickr8k)."""
DAMAGE_INPUTS: Final = 16
"""Calibration inputs that the damage is measured on; all others only set the ranges of activations."""
GROUPS: Final = 48
"""Up to this many layers are tried one by one; more are tried in this many groups of successive layers."""
WORST: Final = 2.0
"""The damage of a tower that doesn't run, or returns NaN or infinity."""

Damage = Callable[[Collection[str]], float]


def damage(vectors: NDArray[Any], exact: NDArray[Any]) -> float:
    """Mean of 1 − cosine over rows (n, d); `WORST` if a vector has NaN or infinite entries."""
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(exact, axis=1)
    mean = float((1 - (vectors * exact).sum(axis=1) / np.maximum(lengths, 1e-12)).mean())
    return mean if np.isfinite(mean) else WORST


def leave_exact(layers: Sequence[str], cost: Mapping[str, float], measure: Damage, budget: float) -> frozenset[str]:
    """Choose the layers that stay exact, as few as possible.

    Each layer (or group of successive layers) is quantized alone. The layers are ordered by the damage that this does
    per cost of keeping them exact. The first of them stay exact: the fewest with which the damage of all others
    together is within the budget, found by bisection. This takes about `GROUPS` measurements however deep the tower is.

    Args:
        layers: names, from the tower's input to its output.
        cost: what keeping a layer exact costs, in bytes or operations.
        measure: the damage if the given layers are quantized and all others exact.
        budget: the damage that is allowed.

    Returns:
        The layers to keep exact; all of them if even one quantized layer is too much.
    """
    if measure(layers) <= budget:
        return frozenset()
    groups = [list(part) for part in np.array_split(np.array(layers, object), min(GROUPS, len(layers)))]
    alone = [measure(group) / max(sum(cost[name] for name in group), 1e-12) for group in groups]
    order = [groups[i] for i in np.argsort(np.negative(alone), kind="stable")]

    def first(count: int) -> frozenset[str]:
        return frozenset(name for group in order[:count] for name in group)

    too_few, enough = 0, len(order)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        exact = first(middle)
        if measure([name for name in layers if name not in exact]) <= budget:
            enough = middle
        else:
            too_few = middle
    return first(enough)


class Trial:
    """A tower's exact vectors of some inputs, which those of quantized towers are compared with."""

    def __init__(self, data: bytes, calibration: Sequence[NDArray[Any]], load: Callable[[bytes], Tower]) -> None:
        """Run the exact tower.

        Args:
            data: the exact tower's file.
            calibration: inputs, as for `export.formats.Format.quantize`.
            load: makes a tower from a file.
        """
        self.load = load
        step = max(1, len(calibration) // DAMAGE_INPUTS)
        chosen = calibration[::step][:DAMAGE_INPUTS]
        shapes = {given.shape for given in chosen}
        # One batch if all have the same shape.
        self.inputs = [np.concatenate(chosen)] if len(shapes) == 1 else list(chosen)
        self.exact = self._vectors(data)

    def _vectors(self, data: bytes) -> NDArray[np.float32]:
        tower = self.load(data)
        return np.concatenate([tower(given) for given in self.inputs])

    def damage(self, data: bytes) -> float:
        """The damage of a quantized tower; `WORST` if it doesn't run."""
        try:
            return damage(self._vectors(data), self.exact)
        except EngineError:
            return WORST
