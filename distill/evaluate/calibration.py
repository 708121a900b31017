"""Per-label thresholds, fitted for one engine and precision, and tags measured on photos held out from both."""

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


def fit_thresholds(cosines: Floats, truth: NDArray[np.int8], seen: NDArray[np.bool_]) -> Fit:
    """Fit each label's threshold on its own.

    A threshold maximises F-beta at the label's own frequency, held within 1 % and 30 %. Photos that the model was
    trained on flatter it: where a label has enough held-out photos those decide; elsewhere the photos seen in
    training do, lowered by how much they flatter the labels that have both. A label with too few of either gets
    the median distance above its background, in spreads of the background.

    Args:
        cosines: (photos, labels).
        truth: (photos, labels): 1 shown, 0 not shown, −1 not known.
        seen: (photos,) whether the model was trained on the photo.
    """
    count = cosines.shape[1]
    mean, spread = np.zeros(count), np.ones(count)
    own, held = np.full(count, np.nan), np.full(count, np.nan)
    positives = np.zeros((2, count), dtype=np.int64)
    for label in range(count):
        column, known = cosines[:, label].astype(np.float64), truth[:, label]
        background = column[known == 0]
        if not len(background):
            background = column
        mean[label], spread[label] = background.mean(), max(float(background.std()), 1e-6)
        for which, members in enumerate((seen, ~seen)):
            shown = column[members & (known == 1)]
            positives[which, label] = len(shown)
            # A set with few negatives of its own borrows the others': frequency is set by weights.
            if len(shown) >= ENOUGH:
                (own, held)[which][label] = best_threshold(shown, background)
    z_own, z_held = (own - mean) / spread, (held - mean) / spread
    both = ~np.isnan(z_own) & ~np.isnan(z_held)
    optimism = float(np.median(z_own[both] - z_held[both])) if both.sum() >= 3 else 0.0
    z = np.where(~np.isnan(z_held), z_held, z_own - optimism)
    used = np.where(~np.isnan(z_held), positives[1], np.where(np.isnan(z_own), 0, positives[0]))
    pooled = float(np.nanmedian(z)) if not np.isnan(z).all() else 3.0
    z = np.where(np.isnan(z), pooled, z)
    return Fit(
        threshold=mean + z * spread,
        slope=_slope((cosines - mean) / spread - z, truth) / spread,
        positives=used,
        optimism=optimism,
    )


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


def tagging(cosines: Floats, truth: NDArray[np.int8], threshold: NDArray[np.float64]) -> dict[str, float | int]:
    """Measure tags on photos that neither training nor thresholds have seen.

    Returns:
        `photos`; `labels`, how many have at least five positives here; over those labels `precision`, `recall`
        (of all decisions together, unknown ones left out), `macro_precision`, `macro_recall` and `map`, the mean
        average precision; and `tags_per_photo` over all labels.
    """
    measured = [i for i in range(cosines.shape[1]) if (truth[:, i] == 1).sum() >= 5 and (truth[:, i] == 0).any()]
    given = cosines >= threshold
    counts, averages = [], []
    for label in measured:
        known = truth[:, label] >= 0
        right = truth[known, label] == 1
        said = given[known, label]
        counts.append(((said & right).sum(), (said & ~right).sum(), (~said & right).sum()))
        averages.append(average_precision(cosines[known, label], right))
    hit, wrong, missed = np.array(counts or [(0, 0, 0)], dtype=float).T
    with np.errstate(invalid="ignore"):
        macro = np.nanmean(hit / (hit + wrong)) if hit.any() else 0.0
    return {
        "photos": len(cosines),
        "labels": len(measured),
        "precision": round(float(hit.sum() / max(1, (hit + wrong).sum())), 4),
        "recall": round(float(hit.sum() / max(1, (hit + missed).sum())), 4),
        "macro_precision": round(float(macro), 4),
        "macro_recall": round(float((hit / np.maximum(1, hit + missed)).mean()), 4),
        "map": round(float(np.mean(averages)) if averages else 0.0, 4),
        "tags_per_photo": round(float(given.sum(axis=1).mean()), 2),
    }


def average_precision(scores: NDArray[np.float32], right: NDArray[np.bool_]) -> float:
    """Return the mean, over the right photos, of the precision at each one's rank."""
    order = right[np.argsort(-scores, kind="stable")]
    precision = np.cumsum(order) / np.arange(1, len(order) + 1)
    return float(precision[order].mean())
