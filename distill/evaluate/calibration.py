"""Fit one rule per label, for one engine and precision: its probability, and from which probability on it is given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobileclip.vectors import Floats
from mobileclip.zeroshot import TAG_PROBABILITY

PRECISION = 0.9
"""Share of a label's tags that must be right in a camera roll."""
CONFIDENCE = 1.0
"""Standard deviations below the measured precision at which it must still be reached: one-sided, 84 %."""
ENOUGH = 10
"""Positives that a label needs for its own rule."""
NEAR = 0.1
"""The probability is fitted from this quantile of the positives' cosines upward. Far below, a logistic curve would have
to fit the many photos that nobody asks about."""
SLOPE_DEVIATION = 0.5
"""How much the slopes of labels differ: the standard deviation of their logarithms, as a prior."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """Fitted rules; every array has one entry per label.

    Attributes:
        threshold: the cosine at which the label has probability 0.5.
        slope: of the logistic score, per unit of cosine.
        least: the probability from which the label is given.
        search_only: whether it is never given, because no cosine is right often enough, or it had too few positives.
        prevalence: share of the photos of a camera roll that show it.
        positives: photos that the rule was fitted on; 0 if it is the pooled one.
        optimism: how much higher the cosines of training photos are, in standard deviations of the background.
    """

    threshold: Numbers
    slope: Numbers
    least: Numbers
    search_only: NDArray[np.bool_]
    prevalence: Numbers
    positives: NDArray[np.int64]
    optimism: float

    def scores(self, cosines: Floats) -> Numbers:
        """Map cosines (photos, labels) to the probabilities that a bundle with these rules gives."""
        scores: Numbers = 0.5 + 0.5 * np.tanh(0.5 * self.slope * (cosines - self.threshold))
        return scores


def fit_thresholds(
    cosines: Floats, truth: NDArray[np.int8], seen: NDArray[np.bool_], weights: Numbers | None = None
) -> Fit:
    """Fit each label separately to photos that are weighted as a camera roll would hold them.

    Training photos have higher cosines than held-out photos of the same label, so theirs are lowered first, by the
    median of this gap over all labels. Then a logistic curve is fitted to the label's probability (Platt 1999), and the
    label is given from the lowest cosine at which `PRECISION` of its tags are right, even one standard deviation below
    what was measured (Wilson 1927). A label without such a cosine, or with too few positives, is search only.

    Args:
        cosines: (photos, labels).
        truth: (photos, labels): 1 shown, 0 not shown, −1 unknown.
        seen: (photos,), whether the model was trained on the photo.
        weights: (photos,), how much each photo counts; by default, all the same.
    """
    count, labels = cosines.shape
    weights = np.full(count, 1 / max(count, 1)) if weights is None else weights / weights.sum()
    background = [cosines[truth[:, i] == 0, i].astype(np.float64) for i in range(labels)]
    mean = np.array([column.mean() if len(column) else cosines.mean() for column in background])
    spread = np.array([max(float(column.std()), 1e-6) if len(column) else cosines.std() for column in background])
    z = (cosines - mean) / spread
    optimism = _optimism(z, truth, seen)
    positives = (truth == 1).sum(axis=0)
    middle, slope, least = np.full(labels, np.nan), np.full(labels, np.nan), np.full(labels, np.nan)
    prevalence = np.zeros(labels)
    columns = []
    for label in range(labels):
        known, right = truth[:, label] >= 0, truth[:, label] == 1
        total = weights[known].sum()
        prevalence[label] = weights[right].sum() / total if total else 0.0
        if positives[label] >= ENOUGH and len(background[label]):
            x = z[known, label] - np.where(seen & right, optimism, 0)[known]
            columns.append((label, x, right[known], weights[known]))
    usual = _usual_slope([_logistic(x, right, weight, None)[1] for _, x, right, weight in columns])
    for label, x, right, weight in columns:
        middle[label], slope[label] = _logistic(x, right, weight, usual)
        if (lowest := lowest_precise(x, right, weight)) is not None:
            score = 1 / (1 + np.exp(-slope[label] * (lowest - middle[label])))
            least[label] = max(score, TAG_PROBABILITY)
    fitted = ~np.isnan(middle)
    middle[~fitted] = np.median(middle[fitted]) if fitted.any() else 3.0
    slope[~fitted] = usual
    return Fit(
        threshold=mean + middle * spread,
        slope=slope / spread,
        least=np.where(np.isnan(least), 1.0, least),
        search_only=np.isnan(least),
        prevalence=prevalence,
        positives=np.where(fitted, positives, 0),
        optimism=optimism,
    )


def _optimism(z: Numbers, truth: NDArray[np.int8], seen: NDArray[np.bool_]) -> float:
    """Return the median gap between training and held-out photos of the same label, in background deviations."""
    gaps = []
    for label in range(z.shape[1]):
        shown = truth[:, label] == 1
        before, new = z[shown & seen, label], z[shown & ~seen, label]
        if len(before) >= ENOUGH and len(new) >= 3:
            gaps.append(float(before.mean() - new.mean()))
    return max(0.0, float(np.median(gaps))) if len(gaps) >= 3 else 0.0


def lowest_precise(x: Numbers, right: NDArray[np.bool_], weights: Numbers) -> float | None:
    """Return the lowest value from which on tags are right often enough, or None; see `fit_thresholds`.

    Args:
        x: (n,), values such as cosines.
        right: (n,), whether the photo shows the label.
        weights: (n,), how much each photo counts.
    """
    order = np.argsort(-x, kind="stable")
    x, right, weights = x[order], right[order], weights[order]
    total = np.cumsum(weights)
    precision = np.cumsum(weights * right) / total
    lower = wilson_lower(precision, total**2 / np.cumsum(weights**2))
    # A value that several photos share is one decision.
    ends = np.append(x[1:] != x[:-1], True)
    good = np.flatnonzero(ends & (lower >= PRECISION))
    return float(x[good[-1]]) if len(good) else None


def wilson_lower(share: Numbers, count: Numbers) -> Numbers:
    """Return the lower end of Wilson's interval for shares that were measured on so many photos."""
    z = CONFIDENCE
    center = share + z * z / (2 * count)
    lower: Numbers = (center - z * np.sqrt(share * (1 - share) / count + z * z / (4 * count**2))) / (1 + z * z / count)
    return lower


def _usual_slope(slopes: list[float]) -> float:
    return float(np.exp(np.median(np.log(slopes)))) if slopes else 2.0


def _logistic(x: Numbers, right: NDArray[np.bool_], weights: Numbers, usual: float | None) -> tuple[float, float]:
    """Fit a logistic curve by maximum likelihood; returns where it crosses 0.5, and its slope.

    Args:
        x: (n,), values such as cosines.
        right: (n,), whether the photo shows the label.
        weights: (n,), how much each photo counts.
        usual: the slope that labels usually have, as a prior; None for none.
    """
    near = x >= np.quantile(x[right], NEAR)
    x, y, weights = x[near], right[near], weights[near]
    weights = weights * weights.sum() / (weights**2).sum()  # they now sum to the number of photos that they are worth
    slopes = np.geomspace(0.3, 12, 30)
    best = (np.inf, 0.0, 1.0)
    for slope in slopes:
        # For a slope, the best place is where as many are right as the curve says: a root of a falling function.
        low, high = x.min() - 20 / slope, x.max() + 20 / slope
        for _ in range(40):
            middle = (low + high) / 2
            if (weights * (_sigmoid(slope * (x - middle)) - y)).sum() > 0:
                low = middle
            else:
                high = middle
        middle = (low + high) / 2
        loss = float((weights * np.logaddexp(0, np.where(y, -1, 1) * slope * (x - middle))).sum())
        if usual is not None:
            loss += (np.log(slope / usual) / SLOPE_DEVIATION) ** 2 / 2
        if loss < best[0]:
            best = (loss, float(middle), float(slope))
    return best[1], best[2]


def _sigmoid(x: Numbers) -> Numbers:
    values: Numbers = 0.5 + 0.5 * np.tanh(0.5 * x)
    return values
