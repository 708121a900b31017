"""Which layers to leave exact: a greedy search by the damage that each does to the vectors, measured on its own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mobileclip.errors import EngineError
from mobileclip.runtimes import Tower

BUDGET: Final = 0.0005
"""Mean of 1 − cosine that coarse weights, and activations where they are coarse too, may cost. Of the ten photos
nearest to a caption, about 3 in 100 change then (the shipped `pocket`, 1,000 photos of Flickr8k)."""
TRIED: Final = 16
"""Calibration inputs that the damage is measured on; all others only set the ranges of activations."""
GROUPS: Final = 48
"""Layers are tried on their own up to so many, beyond that in groups of neighbours."""

Damage = Callable[[Collection[str]], float]


def damage(vectors: NDArray[Any], exact: NDArray[Any]) -> float:
    """Mean of 1 − cosine over rows (n, d); 2, the worst there is, where a vector is no number."""
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(exact, axis=1)
    mean = float((1 - (vectors * exact).sum(axis=1) / np.maximum(lengths, 1e-12)).mean())
    return mean if np.isfinite(mean) else 2.0


def leave_exact(layers: Sequence[str], cost: Mapping[str, float], measure: Damage, budget: float) -> frozenset[str]:
    """Choose the layers that stay exact, as few as do.

    Each layer (or group of neighbours) is made coarse alone. In the order of what that damages for what leaving it
    exact costs, the first ones stay exact: the fewest with which the damage of all others together is within the
    budget, found by bisection. So it takes about `GROUPS` measurements, however deep the tower is.

    Args:
        layers: names, from the tower's input to its output.
        cost: what leaving a layer exact costs, in bytes or operations.
        measure: the damage when the layers named are coarse and all others exact.
        budget: the damage that is allowed.

    Returns:
        The layers to leave exact; all of them where even one coarse layer is too much.
    """
    if measure(layers) <= budget:
        return frozenset()
    groups = [list(part) for part in np.array_split(np.array(layers, object), min(GROUPS, len(layers)))]
    alone = [measure(group) / max(sum(cost[name] for name in group), 1e-12) for group in groups]
    order = [groups[i] for i in np.argsort(np.negative(alone), kind="stable")]

    def kept(count: int) -> frozenset[str]:
        return frozenset(name for group in order[:count] for name in group)

    too_few, enough = 0, len(order)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        exact = kept(middle)
        if measure([name for name in layers if name not in exact]) <= budget:
            enough = middle
        else:
            too_few = middle
    return kept(enough)


class Trial:
    """A tower's exact vectors of some inputs, to compare those of coarser ones with.

    Args:
        data: the exact tower.
        calibration: inputs.
        load: makes a tower that runs.
    """

    def __init__(self, data: bytes, calibration: Sequence[NDArray[Any]], load: Callable[[bytes], Tower]) -> None:
        self.load = load
        step = max(1, len(calibration) // TRIED)
        chosen = calibration[::step][:TRIED]
        lengths = {given.shape for given in chosen}
        # One batch where all are of one shape.
        self.inputs = [np.concatenate(chosen)] if len(lengths) == 1 else list(chosen)
        self.exact = self._vectors(data)

    def _vectors(self, data: bytes) -> NDArray[np.float32]:
        tower = self.load(data)
        return np.concatenate([tower(given) for given in self.inputs])

    def damage(self, data: bytes) -> float:
        """Of a tower that computes the same more coarsely; the worst there is where it does not run."""
        try:
            return damage(self._vectors(data), self.exact)
        except EngineError:
            return 2.0
