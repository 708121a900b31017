"""One vector per label: that of its prompts, moved toward the photos that are known to show it.

A prompt says what a label means, but not how photos of it look to this image tower. Logistic regression that starts
from the prompts' vector, and is held near it, learns the difference (CLAP, Silva-Rodríguez et al. 2024). A label with
few photos stays at its prompts.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mobileclip.files import PathLike
from mobileclip.vectors import Floats, unit_rows

DEVIATION = 0.03
"""How far a label's vector lies from that of its prompts: the standard deviation of each component, as a prior. Of the
values 0.003 to 0.1, this one is the best for photos of data sets that the vector was not fitted on; see
`distill/README.md`."""
LOGIT_SCALE = 30.0
"""Logits per unit of cosine, before fitting."""
SCALE_DEVIATION = 0.5
"""Standard deviation of the logarithm of this scale over labels."""
FOLDS = 5
ENOUGH = 10
"""Positives that a label needs for a vector of its own."""
STEPS = 60
"""Most iterations of L-BFGS."""


@dataclass(frozen=True)
class LabelVectors:
    """Fitted vectors.

    Attributes:
        vectors: (labels, d) unit rows.
        without: fold → vectors that were fitted without its photos.
    """

    vectors: Floats
    without: Mapping[int, Floats]

    def cosines(self, photos: Floats, folds: NDArray[np.integer[Any]]) -> Floats:
        """Return cosines (n, labels) of photos that the vectors were fitted on, each by vectors fitted without it.

        Args:
            photos: (n, d) unit rows.
            folds: (n,), each photo's fold.
        """
        cosines = np.empty((len(photos), len(self.vectors)), np.float32)
        for fold, vectors in self.without.items():
            cosines[folds == fold] = photos[folds == fold] @ vectors.T
        return cosines


def fit_label_vectors(
    photos: Floats,
    truth: NDArray[np.int8],
    prompts: Floats,
    weights: NDArray[np.float64],
    folds: NDArray[np.integer[Any]],
    deviation: float = DEVIATION,
) -> LabelVectors:
    """Fit the vectors of all labels by logistic regression, whose prior is the vector of the prompts.

    Args:
        photos: (n, d) unit rows.
        truth: (n, labels): 1 shown, 0 not shown, −1 unknown.
        prompts: (labels, d), unit vectors of the labels' prompts.
        weights: (n,), how much each photo counts.
        folds: (n,), each photo's fold, see `fold_of`.
        deviation: see `DEVIATION`.
    """
    without = {}
    for fold in np.unique(folds).tolist():
        kept = folds != fold
        without[fold] = _fit(photos[kept], truth[kept], prompts, weights[kept], deviation)
    return LabelVectors(_fit(photos, truth, prompts, weights, deviation), without)


def fold_of(file: PathLike) -> int:
    """Return the fold of a photo, which its name determines, so that its degraded view is in the same one."""
    return zlib.crc32(Path(file).name.encode("utf-8", "surrogatepass")) // 2 % FOLDS


def _fit(
    photos: Floats, truth: NDArray[np.int8], prompts: Floats, weights: NDArray[np.float64], deviation: float
) -> Floats:
    """Return the vectors (labels, d) with the highest posterior probability."""
    known, shown = truth >= 0, truth == 1
    fitted = np.flatnonzero((shown.sum(axis=0) >= ENOUGH) & (truth == 0).any(axis=0))
    vectors: Floats = prompts.astype(np.float32, copy=True)
    if not len(fitted):
        return vectors
    counted = np.where(known[:, fitted], weights[:, None], 0)
    counted *= counted.sum(axis=0) / (counted**2).sum(axis=0)  # sums to the photos that they are worth (Kish 1965)
    x, start = torch.from_numpy(np.ascontiguousarray(photos)).float(), torch.from_numpy(vectors[fitted])
    w, y = torch.from_numpy(counted.astype(np.float32)), torch.from_numpy(shown[:, fitted])
    sign = torch.where(y, -1.0, 1.0)
    moved = torch.zeros_like(start, requires_grad=True)
    scale = torch.zeros(len(fitted), requires_grad=True)
    share = ((w * y).sum(dim=0) / w.sum(dim=0)).clamp(1e-6, 0.5)
    middle = (x @ start.T * w).sum(dim=0) / w.sum(dim=0)
    bias = (torch.logit(share) - LOGIT_SCALE * middle).requires_grad_(True)
    optimizer = torch.optim.LBFGS([moved, scale, bias], max_iter=STEPS, history_size=10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = LOGIT_SCALE * scale.exp() * (x @ (start + moved * deviation).T) + bias
        total = (w * F.softplus(sign * logits)).sum()
        total = total + (moved**2).sum() / 2 + ((scale / SCALE_DEVIATION) ** 2).sum() / 2
        total.backward()
        return total

    optimizer.step(loss)
    vectors[fitted] = unit_rows((start + moved * deviation).detach().numpy())
    return vectors
