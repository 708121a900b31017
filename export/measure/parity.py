"""How close exported towers are to float32 PyTorch, what they cost, and whether that is good enough to ship."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from distill.evaluate.metrics import ranks
from mobileclip.vectors import Floats

NEAREST: Final = 10
OVERLAP: Final = 0.95
"""Share of the ten photos nearest to a text that must stay the same."""
RECALL_LOSS: Final = 0.005
"""Half a point of text → photo recall@10."""


@dataclass(frozen=True)
class Closeness:
    """How far one tower's unit vectors are from the exact ones.

    Attributes:
        max_abs: largest difference of any component.
        cosine_median: of all inputs.
        cosine_p1: the first percentile; 1 % of the inputs are worse.
    """

    max_abs: float
    cosine_median: float
    cosine_p1: float


@dataclass(frozen=True)
class Cost:
    """What one tower costs.

    Attributes:
        bytes: of its file or files.
        load_ms: milliseconds until it is ready.
        memory_mb: how much the process grew at most, in MB, while it loaded the tower and ran one input.
        ms_1_thread: median for one input on one thread; None if the engine doesn't run on this machine.
        ms_all_threads: the same on all threads.
    """

    bytes: int
    load_ms: float
    memory_mb: float
    ms_1_thread: float | None
    ms_all_threads: float | None


@dataclass(frozen=True)
class Figures:
    """Everything measured for one engine and precision.

    Attributes:
        engine: the runtime.
        precision: of both towers.
        image: the image tower's vectors of the photos, compared with float32 PyTorch.
        text: the same for the text tower.
        image_cost: what the image tower costs.
        text_cost: what the text tower costs.
        photos: number of photos that this was measured on.
        texts: number of texts.
        overlap: the share of each text's nearest photos by the exact towers that these towers find, on average.
        recall: text → photo recall@10; None without captions.
        recall_exact: the same for float32 PyTorch, on the same photos.
        map: mean average precision of the labels on held-out photos; None without labels.
        map_exact: the same for float32 PyTorch.
    """

    engine: str
    precision: str
    image: Closeness
    text: Closeness
    image_cost: Cost
    text_cost: Cost
    photos: int
    texts: int
    overlap: float
    recall: float | None = None
    recall_exact: float | None = None
    map: float | None = None
    map_exact: float | None = None

    @property
    def bytes(self) -> int:
        """Of both towers."""
        return self.image_cost.bytes + self.text_cost.bytes

    def misses(self) -> str:
        """What exceeds the budget, in words; empty for a variant that may be shipped."""
        found = []
        if not self.overlap >= OVERLAP:
            found.append(f"{self.overlap:.1%} of the nearest photos stay the same, at least {OVERLAP:.0%} must")
        if self.recall is not None and self.recall_exact is not None:
            lost = self.recall_exact - self.recall
            if not lost <= RECALL_LOSS:
                found.append(f"recall@10 falls by {100 * lost:.2f} points, at most {100 * RECALL_LOSS:.1f} are allowed")
        return "; ".join(found)

    def with_map(self, mean: float, exact: float) -> Figures:
        """The same with the labels' mean average precision."""
        return replace(self, map=mean, map_exact=exact)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, rounded."""
        sides = {
            side: {**_rounded(vars(close)), **_rounded(vars(cost))}
            for side, close, cost in (("image", self.image, self.image_cost), ("text", self.text, self.text_cost))
        }
        others = {key: value for key, value in vars(self).items() if not isinstance(value, Closeness | Cost)}
        return {**_rounded(others), "bytes": self.bytes, "misses_budget": self.misses(), **sides}


def closeness(vectors: Floats, exact: Floats) -> Closeness:
    """Compare unit rows (n, d)."""
    cosines = (vectors * exact).sum(axis=1)
    return Closeness(float(np.abs(vectors - exact).max()), float(np.median(cosines)), float(np.percentile(cosines, 1)))


def overlap(photos: Floats, texts: Floats, exact_photos: Floats, exact_texts: Floats) -> float:
    """Share of each text's ten nearest photos by the exact vectors that are among its ten nearest by the others.

    With fewer than thirty photos, the nearest third instead of ten.

    Args:
        photos: unit rows (n, d).
        texts: unit rows (m, d).
        exact_photos: (n, d).
        exact_texts: (m, d).
    """
    k = max(1, min(NEAREST, len(photos) // 3))
    found, right = (_nearest(t, p, k) for t, p in ((texts, photos), (exact_texts, exact_photos)))
    return float((found[:, :, None] == right[:, None, :]).any(axis=1).mean())


def _nearest(texts: Floats, photos: Floats, k: int) -> NDArray[np.intp]:
    return np.argpartition(-(texts @ photos.T), k - 1, axis=1)[:, :k]


def recall(photos: Floats, texts: Floats, owner: Sequence[int]) -> float | None:
    """Text → photo recall@10; None without captions."""
    if not owner:
        return None
    return float((ranks(texts, photos, np.arange(len(texts)), np.asarray(owner)) <= NEAREST).mean())


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in values.items()}
