"""Fit one threshold per label, for one engine and precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobileclip.vectors import Floats

BETA = 0.5
"""Weights precision twice as much as recall, because a wrong tag is worse than a missing one."""
ENOUGH = 10
"""Positives that a label needs for its own threshold."""


@dataclass(frozen=True)
class Fit:
    """Fitted thresholds; every array has one entry per label.

    Attributes:
        threshold: lowest cosine at which the label is given.
        slope: of the logistic score, per unit of cosine.
        positives: photos that the threshold was fitted on; 0 if it is the pooled one.
        optimism: how much higher the cosines of training photos are, in standard deviations of the background.
    """

    threshold: NDArray[np.float64]
    slope: NDArray[np.float64]
    positives: NDArray[np.int64]
    optimism: float

    def scores(self, cosines: Floats) -> NDArray[np.float64]:
        """Map cosines (photos, labels) to the probabilities that a bundle with these thresholds gives."""
        scores: NDArray[np.float64] = 0.5 + 0.5 * np.tanh(0.5 * self.slope * (cosines - self.threshold))
        return scores


def fit_thresholds(cosines: Floats, truth: NDArray[np.int8], seen: NDArray[np.bool_]) -> Fit:
    """Fit each label's threshold separately.

    A threshold maximizes F-beta at the label's own frequency, clipped to 1 % and 30 %. Training photos
    have higher cosines than held-out photos of the same label, so theirs are lowered first, by the median of this
    gap over all labels. A label with too few photos gets the median of the fitted thresholds, in standard deviations
    above its background.

    Args:
        cosines: (photos, labels).
        truth: (photos, labels): 1 shown, 0 not shown, −1 unknown.
        seen: (photos,), whether the model was trained on the photo.
    """
    background = [cosines[truth[:, i] == 0, i].astype(np.float64) for i in range(cosines.shape[1])]
    mean = np.array([column.mean() if len(column) else cosines.mean() for column in background])
    spread = np.array([max(float(column.std()), 1e-6) if len(column) else cosines.std() for column in background])
    z = (cosines - mean) / spread
    optimism = _optimism(z, truth, seen)
    corrected = z - np.where(seen, optimism, 0)[:, None]
    positives = (truth == 1).sum(axis=0)
    fitted_z = np.full(len(mean), np.nan)
    for label, column in enumerate(background):
        if positives[label] >= ENOUGH and len(column):
            shown = corrected[truth[:, label] == 1, label]
            fitted_z[label] = best_threshold(shown, (column - mean[label]) / spread[label])
    fitted = ~np.isnan(fitted_z)
    fitted_z[~fitted] = np.median(fitted_z[fitted]) if fitted.any() else 3.0
    return Fit(
        threshold=mean + fitted_z * spread,
        slope=_slope(corrected - fitted_z, truth) / spread,
        positives=np.where(fitted, positives, 0),
        optimism=optimism,
    )


def _optimism(z: NDArray[np.float64], truth: NDArray[np.int8], seen: NDArray[np.bool_]) -> float:
    """Return the median gap between training and held-out photos of the same label, in background deviations."""
    gaps = []
    for label in range(z.shape[1]):
        shown = truth[:, label] == 1
        before, new = z[shown & seen, label], z[shown & ~seen, label]
        if len(before) >= ENOUGH and len(new) >= 3:
            gaps.append(float(before.mean() - new.mean()))
    return max(0.0, float(np.median(gaps))) if len(gaps) >= 3 else 0.0


def best_threshold(shown: NDArray[np.float64], background: NDArray[np.float64]) -> float:
    """Return the cosine that maximizes F-beta at the frequency of `shown` in the data, clipped to 1 % and 30 %."""
    share = np.clip(len(shown) / (len(shown) + len(background)), 0.01, 0.3)
    candidates = np.quantile(shown, np.linspace(0.0, 0.98, 99))
    order = np.sort(background)
    false_rate = 1 - np.searchsorted(order, candidates, side="left") / len(order)
    true_rate = (shown[None, :] >= candidates[:, None]).mean(axis=1)
    hits, wrong = share * true_rate, (1 - share) * false_rate
    f_beta = (1 + BETA**2) * hits / (hits + wrong + BETA**2 * share)
    # The middle of a plateau is more stable than its edge.
    best = candidates[f_beta >= f_beta.max() - 1e-3]
    return float(np.median(best))


def _slope(margins: NDArray[np.float64], truth: NDArray[np.int8]) -> float:
    """Fit one logistic slope to the margins of all labels, in deviations from the threshold, by maximum likelihood.

    Only margins near the threshold count, and both classes weigh the same.
    """
    near = (truth >= 0) & (np.abs(margins) < 2)
    m, y = margins[near], truth[near] == 1
    if not y.any() or y.all():
        return 2.0
    weight = np.where(y, 0.5 / y.mean(), 0.5 / (1 - y.mean()))
    slopes = np.geomspace(0.5, 8, 40)
    losses = [float((weight * np.logaddexp(0, np.where(y, -s * m, s * m))).mean()) for s in slopes]
    return float(slopes[int(np.argmin(losses))])
