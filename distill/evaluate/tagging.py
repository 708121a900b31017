"""Measure tags: the ranking of photos, the decisions by thresholds, and the calibration of scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.evaluate.metrics import Numbers, bootstrap, share
from mobileclip.vectors import Floats
from mobileclip.zeroshot import TAG_PROBABILITY

BINS = 15
"""Bins of equal width for the calibration error."""
ENOUGH = 5
"""Photos that a label needs to be measured if the truth is guessed from captions; with fewer, its figures are noise."""

Truth = NDArray[np.int8]
Scores = NDArray[np.float64]


def tagging(
    cosines: Floats,
    truth: Truth,
    scores: Scores | None = None,
    least: int = 1,
    given: NDArray[np.bool_] | None = None,
) -> dict[str, Any]:
    """Measure tags on photos that were used neither for training nor for thresholds.

    Args:
        cosines: (photos, labels), which rank the photos.
        truth: (photos, labels): 1 shown, 0 not shown, −1 unknown; unknown entries are ignored.
        scores: (photos, labels), probabilities. NaN for labels without a threshold; None if no label has one.
        least: measure labels that at least this many photos show.
        given: (photos, labels), which tags are given; by default, those with a score of at least 0.5.

    Returns:
        `labels`, the number measured, and `map`, the mean of their average precisions (CLIP_benchmark's
        `mean_average_precision`, but labels that no photo shows are left out instead of counting as 0). With scores,
        also `labels_with_threshold` and, over those labels: `precision` and `recall` of all decisions together;
        `macro_precision` (over labels given at least once) and `macro_recall`; `calibration_error`, the expected
        calibration error over 15 bins (Naeini et al. 2015; Guo et al. 2017); `calibration_error_given`, the same over
        given tags only; and `tags_per_photo`, over all labels, measured or not. `intervals` has the same names, see
        `bootstrap`.
    """
    n = len(cosines)
    measured = ((truth == 1).sum(axis=0) >= least) & (truth == 0).any(axis=0)
    result: dict[str, Any] = {"labels": int(measured.sum())}
    if not measured.any():
        return {**result, "intervals": {}}
    ranking = Ranking(cosines[:, measured], truth[:, measured])
    everything = np.arange(n)
    rates = {"map": lambda drawn: ranking.mean_average_precision(np.bincount(drawn, minlength=n))}
    if scores is not None:
        with_threshold = measured & ~np.isnan(scores).all(axis=0)
        result["labels_with_threshold"] = int(with_threshold.sum())
        given = scores >= TAG_PROBABILITY if given is None else given
        if with_threshold.any():
            rates |= _decisions(scores[:, with_threshold], given[:, with_threshold], truth[:, with_threshold])
            rates["tags_per_photo"] = share(given.sum(axis=1), np.ones(n))
    result |= {name: rate(everything) for name, rate in rates.items()}
    return {**result, "intervals": {name: bootstrap(n, rate) for name, rate in rates.items()}}


class Ranking:
    """Photos sorted by each label's cosine, to compute the average precision of many resamples quickly.

    Photos with equal cosines share a rank, as in scikit-learn's `average_precision_score`. NaN ranks last.

    Args:
        cosines: (photos, labels).
        truth: (photos, labels): 1, 0, or −1 for unknown; at least one photo shows each label.
    """

    def __init__(self, cosines: Floats, truth: Truth) -> None:
        photos, starts, labels = [], [], []
        offset = segments = 0
        for values, known in zip(cosines.T, truth.T, strict=True):
            ranked = np.where(np.isnan(values), -np.inf, values)
            rows = np.flatnonzero(known >= 0)
            rows = rows[np.argsort(-ranked[rows], kind="stable")]
            ends = _ends_of_ties(ranked[rows], known[rows] == 1)
            # Nothing counts after the last photo that shows the label.
            photos.append(rows[: ends[-1]])
            starts.append(offset + np.concatenate([[0], ends[:-1]]))
            labels.append(segments)
            offset, segments = offset + int(ends[-1]), segments + len(ends)
        self._photos = np.concatenate(photos)
        self._starts, self._labels = np.concatenate(starts), np.array(labels)
        self._label_of = np.repeat(np.arange(len(labels)), np.diff([*labels, segments]))
        columns = np.repeat(np.arange(len(labels)), [len(rows) for rows in photos])
        self._right = truth[self._photos, columns] == 1

    def mean_average_precision(self, times: NDArray[np.int64]) -> float:
        """Return the average precision, averaged over labels.

        Args:
            times: (photos,), how often each photo counts. Labels that none of them shows are left out.
        """
        seen = times[self._photos].astype(np.float64)
        right = np.add.reduceat(seen * self._right, self._starts)
        precision = self._running(right) / np.maximum(self._running(np.add.reduceat(seen, self._starts)), 1)
        total = np.add.reduceat(right, self._labels)
        average = np.add.reduceat(right * precision, self._labels) / np.where(total > 0, total, np.nan)
        return float(np.nanmean(average)) if (total > 0).any() else float("nan")

    def _running(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return running sums that restart with each label."""
        sums = np.cumsum(counts)
        before = sums[self._labels] - counts[self._labels]
        running: NDArray[np.float64] = sums - before[self._label_of]
        return running


def _ends_of_ties(values: Floats, right: NDArray[np.bool_]) -> Numbers:
    """Return the ends of runs of equal values, in a sorted row, that contain a correct one."""
    ends = np.flatnonzero(np.append(values[1:] != values[:-1], True)) + 1
    hits = np.add.reduceat(right, np.concatenate([[0], ends[:-1]]), dtype=np.int64)
    return ends[hits > 0]


def _decisions(scores: Scores, given: NDArray[np.bool_], truth: Truth) -> dict[str, Any]:
    """Return the rates of decisions, each as a function of the photos drawn."""
    n, known, right = len(scores), truth >= 0, truth == 1
    given = given & known
    hits = (given & right).astype(np.float64)
    tagged, shown = given.astype(np.float64), right.astype(np.float64)

    def macro(of: NDArray[np.float64]) -> Any:
        def rate(drawn: Numbers) -> float:
            times = np.bincount(drawn, minlength=n).astype(np.float64)
            total = times @ of
            return float(((times @ hits)[total > 0] / total[total > 0]).mean()) if total.any() else 0.0

        return rate

    return {
        "precision": share(hits.sum(axis=1), tagged.sum(axis=1)),
        "recall": share(hits.sum(axis=1), shown.sum(axis=1)),
        "macro_precision": macro(tagged),
        "macro_recall": macro(shown),
        "calibration_error": _calibration_error(scores, right, known),
        "calibration_error_given": _calibration_error(scores, right, given),
    }


def _calibration_error(scores: Scores, right: NDArray[np.bool_], counted: NDArray[np.bool_]) -> Any:
    """Return the expected calibration error of the counted decisions, as a function of the photos drawn."""
    n = len(scores)
    photo, _ = np.nonzero(counted)
    bins = np.minimum((scores[counted] * BINS).astype(np.intp), BINS - 1)
    gap = np.zeros((n, BINS))
    np.add.at(gap, (photo, bins), scores[counted] - right[counted])
    decisions = np.bincount(photo, minlength=n)

    def error(drawn: Numbers) -> float:
        return float(np.abs(gap[drawn].sum(axis=0)).sum() / max(decisions[drawn].sum(), 1))

    return error
