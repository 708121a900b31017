"""Rules of labels: probabilities and where tags begin, on photos whose answer is known by construction."""

import numpy as np
import pytest

from distill.evaluate.calibration import (
    CONFIDENCE,
    ENOUGH,
    PRECISION,
    fit_thresholds,
    lowest_precise,
    wilson_lower,
)
from distill.evaluate.tagging import tagging


def clouds(count: int, share: float, gap: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and truth (count, 1) of a label that a share of the photos shows, `gap` deviations above the others."""
    random = np.random.default_rng(seed)
    truth = (random.random((count, 1)) < share).astype(np.int8)
    return random.normal(0.1, 0.03, (count, 1)) + 0.03 * gap * truth, truth


@pytest.mark.parametrize(("share", "gap"), [(0.3, 2.0), (0.1, 3.0), (0.02, 4.0)])
def test_of_new_photos_nine_in_ten_tags_are_right(share: float, gap: float) -> None:
    cosines, truth = clouds(8000, share, gap, 1)
    fit = fit_thresholds(cosines, truth, np.zeros(8000, bool))
    new, known = clouds(60_000, share, gap, 2)
    given = fit.scores(new) >= fit.least
    assert (known[given] == 1).mean() > PRECISION - 0.02
    assert given[known == 1].mean() > 0.25, "not by giving none"
    assert fit.prevalence[0] == pytest.approx(share, rel=0.25) and not fit.search_only[0]


def test_scores_are_probabilities() -> None:
    cosines, truth = clouds(8000, 0.1, 2.5, 3)
    fit = fit_thresholds(cosines, truth, np.zeros(8000, bool))
    new, known = clouds(200_000, 0.1, 2.5, 4)
    scores = fit.scores(new)
    for low in (0.5, 0.6, 0.7, 0.8, 0.9):
        within = (scores >= low) & (scores < low + 0.1)
        assert known[within].mean() == pytest.approx(low + 0.05, abs=0.08)


def test_weights_stand_for_photos() -> None:
    """A part of the photos with three times the weight is the same as three copies of it."""
    cosines, truth = clouds(3000, 0.2, 2.5, 5)
    heavy = np.arange(3000) < 1000
    thrice = (
        np.concatenate([cosines, cosines[:1000], cosines[:1000]]),
        np.concatenate([truth, truth[:1000], truth[:1000]]),
    )
    weighted = lowest_precise(cosines[:, 0], truth[:, 0] == 1, np.where(heavy, 3.0, 1.0))
    copied = lowest_precise(thrice[0][:, 0], thrice[1][:, 0] == 1, np.ones(5000))
    assert weighted == pytest.approx(copied, abs=0.01)
    seen = np.zeros(3000, bool)
    first = fit_thresholds(cosines, truth, seen)
    scaled = fit_thresholds(cosines, truth, seen, np.full(3000, 7.0))
    assert first.threshold == pytest.approx(scaled.threshold) and first.least == pytest.approx(scaled.least)


def test_hard_negatives_raise_the_bar() -> None:
    cosines, truth = clouds(4000, 0.2, 3.0, 6)
    textures = np.random.default_rng(7).normal(0.16, 0.02, (400, 1))
    every, known = np.concatenate([cosines, textures]), np.concatenate([truth, np.zeros((400, 1), np.int8)])
    easy = lowest_precise(cosines[:, 0], truth[:, 0] == 1, np.ones(4000))
    hard = lowest_precise(every[:, 0], known[:, 0] == 1, np.ones(4400))
    assert easy is not None and hard is not None and hard > easy + 0.005


def test_the_lowest_precise_value_counted_by_loops() -> None:
    random = np.random.default_rng(8)
    x = np.round(random.normal(0, 1, 300), 1)  # photos share values
    right = random.random(300) < 1 / (1 + np.exp(-3 * x))
    weights = random.uniform(0.5, 2, 300)
    good = []
    for value in sorted(set(x)):
        shown = x >= value
        share = weights[shown & right].sum() / weights[shown].sum()
        count = weights[shown].sum() ** 2 / (weights[shown] ** 2).sum()
        if wilson_lower(np.array([share]), np.array([count]))[0] >= PRECISION:
            good.append(value)
    assert lowest_precise(x, right, weights) == min(good)
    assert lowest_precise(x, np.zeros(300, bool), weights) is None


def test_wilson_s_interval_is_that_of_statsmodels_formula() -> None:
    from scipy.stats import binomtest, norm

    level = 2 * norm.cdf(CONFIDENCE) - 1
    for hits, count in [(9, 10), (10, 10), (85, 90), (0, 5)]:
        exact = binomtest(hits, count).proportion_ci(level, "wilson").low
        assert wilson_lower(np.array([hits / count]), np.array([float(count)]))[0] == pytest.approx(exact, abs=1e-9)


def test_rules_are_per_label_and_a_rare_label_is_search_only() -> None:
    random = np.random.default_rng(8)
    truth = np.zeros((600, 3), np.int8)
    truth[:60, 0] = truth[60:120, 1] = 1
    truth[120 : 120 + ENOUGH - 1, 2] = 1
    cosines = random.normal(0.1, 0.03, (600, 3)) + np.where(truth == 1, 0.25, 0) + np.array([0.0, 0.3, 0.1])
    seen = np.arange(600) % 2 == 0
    fit = fit_thresholds(cosines.astype(np.float32), truth, seen)
    assert fit.positives.tolist() == [60, 60, 0] and fit.search_only.tolist() == [False, False, True]
    assert fit.threshold[1] - fit.threshold[0] == pytest.approx(0.3, abs=0.05)
    assert fit.threshold[2] > 0.2 + 2 * 0.03
    assert fit.scores(fit.threshold[None]).tolist() == [[0.5, 0.5, 0.5]]
    result = tagging(cosines.astype(np.float32), truth, fit.scores(cosines), least=10)
    assert (result["labels"], result["labels_with_threshold"]) == (2, 2)
    assert result["precision"] > 0.95 and result["recall"] > 0.9


def test_a_label_that_can_t_be_told_apart_is_search_only() -> None:
    random = np.random.default_rng(2)
    truth = (random.random((2000, 1)) < 0.2).astype(np.int8)
    fit = fit_thresholds(random.normal(0.1, 0.03, (2000, 1)), truth, np.zeros(2000, bool))
    assert fit.search_only.tolist() == [True] and fit.least.tolist() == [1.0]


def test_cosines_of_training_photos_are_lowered_by_their_gap_to_held_out_ones() -> None:
    """The gap comes from labels with held-out photos, and is applied to a label that has none."""
    random = np.random.default_rng(9)
    truth = np.zeros((2000, 5), np.int8)
    for label in range(5):
        truth[100 * label : 100 * label + 100, label] = 1
    seen = np.arange(2000) % 2 == 0
    seen[400:500] = True
    gain = np.where(seen, 0.35, 0.25)[:, None]
    cosines = random.normal(0.1, 0.03, (2000, 5)) + np.where(truth == 1, gain, 0)
    fit = fit_thresholds(cosines.astype(np.float32), truth, seen)
    assert fit.optimism == pytest.approx(0.1 / 0.03, rel=0.15)
    naive = fit_thresholds(cosines.astype(np.float32), truth, np.zeros(2000, bool))
    assert fit.threshold[4] < naive.threshold[4] - 0.005


def test_unknown_entries_change_nothing() -> None:
    random = np.random.default_rng(5)
    truth = (random.random((500, 4)) < 0.2).astype(np.int8)
    truth[random.random(truth.shape) < 0.3] = -1
    cosines = random.normal(0.1, 0.03, truth.shape) + np.where(truth == 1, 0.05, 0)
    seen = np.arange(500) % 2 == 0
    other = np.where(truth < 0, 0.1 + random.normal(0, 0.08, truth.shape), cosines)
    first, second = fit_thresholds(cosines, truth, seen), fit_thresholds(other, truth, seen)
    assert first.threshold.tolist() == second.threshold.tolist() and first.slope.tolist() == second.slope.tolist()


def test_the_gap_of_a_label_with_few_training_photos_does_not_count() -> None:
    random = np.random.default_rng(6)
    truth, seen = np.zeros((1000, 8), np.int8), np.zeros(1000, bool)
    gain = np.zeros((1000, 8))
    for label in range(8):
        few = label >= 3
        rows, trained = slice(100 * label, 100 * label + 40), 5 if few else 20
        truth[rows, label] = 1
        seen[100 * label : 100 * label + trained] = True
        gain[rows, label] = 0.2
        gain[100 * label : 100 * label + trained, label] += 0.5 if few else 0.05
    cosines = random.normal(0.1, 0.01, truth.shape) + gain
    assert fit_thresholds(cosines, truth, seen).optimism == pytest.approx(0.05 / 0.01, rel=0.2)
