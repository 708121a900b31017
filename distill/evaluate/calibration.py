"""Per-label thresholds, fitted for one engine and precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

BETA = 0.5
"""Precision counts twice as much as recall: a wrong tag annoys more than a missing one."""
ENOUGH = 10
"""Positives that a label needs for a threshold of its own."""


@dataclass(frozen=True)
class Fit:
    """Decisions for a list of labels; every array has one entry a label.

    Attributes:
        threshold: cosine from which the label is given.
        slope: of the logistic score, per unit of cosine.
        positives: photos that the threshold rests on; 0 where the pooled rule was used.
        optimism: how much higher cosines of photos seen in training are, in spreads of the background.
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
    """Fit each label's threshold on its own.

    A threshold maximises F-beta at the label's own frequency, held within 1 % and 30 %. Photos that the model was
    trained on flatter it, so their cosines are first lowered by as much as, in the median over labels, they exceed
    those of held-out photos of the same label. A label with too few photos gets the median distance above its
    background, in spreads of the background.

    Args:
        cosines: (photos, labels).
        truth: (photos, labels): 1 shown, 0 not shown, −1 not known.
        seen: (photos,) whether the model was trained on the photo.
    """
    background = [cosines[truth[:, i] == 0, i].astype(np.float64) for i in range(cosines.shape[1])]
    mean = np.array([column.mean() if len(column) else cosines.mean() for column in background])
    spread = np.array([max(float(column.std()), 1e-6) if len(column) else cosines.std() for column in background])
    z = (cosines - mean) / spread
    optimism = _optimism(z, truth, seen)
    z_seen_fairly = z - np.where(seen, optimism, 0)[:, None]
    positives = (truth == 1).sum(axis=0)
    own = np.full(len(mean), np.nan)
    for label, column in enumerate(background):
        if positives[label] >= ENOUGH and len(column):
            shown = z_seen_fairly[truth[:, label] == 1, label]
            own[label] = best_threshold(shown, (column - mean[label]) / spread[label])
    fitted = ~np.isnan(own)
    own[~fitted] = np.median(own[fitted]) if fitted.any() else 3.0
    return Fit(
        threshold=mean + own * spread,
        slope=_slope(z_seen_fairly - own, truth) / spread,
        positives=np.where(fitted, positives, 0),
        optimism=optimism,
    )


def _optimism(z: NDArray[np.float64], truth: NDArray[np.int8], seen: NDArray[np.bool_]) -> float:
    """By how much photos seen in training exceed held-out ones of the same label, in spreads of the background."""
    gaps = []
    for label in range(z.shape[1]):
        shown = truth[:, label] == 1
        before, new = z[shown & seen, label], z[shown & ~seen, label]
        if len(before) >= ENOUGH and len(new) >= 3:
            gaps.append(float(before.mean() - new.mean()))
    return max(0.0, float(np.median(gaps))) if len(gaps) >= 3 else 0.0


def best_threshold(shown: NDArray[np.float64], background: NDArray[np.float64]) -> float:
    """Return the cosine that maximises F-beta when `shown` photos are as frequent as in the data, 1 % to 30 %."""
    share = np.clip(len(shown) / (len(shown) + len(background)), 0.01, 0.3)
    candidates = np.quantile(shown, np.linspace(0.0, 0.98, 99))
    order = np.sort(background)
    false_rate = 1 - np.searchsorted(order, candidates, side="left") / len(order)
    true_rate = (shown[None, :] >= candidates[:, None]).mean(axis=1)
    hits, wrong = share * true_rate, (1 - share) * false_rate
    f_beta = (1 + BETA**2) * hits / (hits + wrong + BETA**2 * share)
    # A plateau's middle is steadier than its edge.
    best = candidates[f_beta >= f_beta.max() - 1e-3]
    return float(np.median(best))


def _slope(margins: NDArray[np.float64], truth: NDArray[np.int8]) -> float:
    """Fit one logistic slope to all labels' margins, in spreads above the threshold, by likelihood.

    Both classes weigh the same near the threshold, where a score should mean something.
    """
    near = (truth >= 0) & (np.abs(margins) < 2)
    m, y = margins[near], truth[near] == 1
    if not y.any() or y.all():
        return 2.0
    weight = np.where(y, 0.5 / y.mean(), 0.5 / (1 - y.mean()))
    slopes = np.geomspace(0.5, 8, 40)
    losses = [float((weight * np.logaddexp(0, np.where(y, -s * m, s * m))).mean()) for s in slopes]
    return float(slopes[int(np.argmin(losses))])
