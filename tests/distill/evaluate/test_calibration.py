"""Thresholds separate photos that show a label from photos that don't."""

import numpy as np
import pytest

from distill.evaluate.calibration import best_threshold, fit_thresholds
from distill.evaluate.tagging import tagging


def test_a_threshold_between_two_clouds_finds_the_gap() -> None:
    random = np.random.default_rng(6)
    background, shown = random.normal(0.1, 0.02, 2000), random.normal(0.4, 0.02, 100)
    assert 0.2 < best_threshold(shown, background) < 0.4


def test_thresholds_are_per_label_and_pooled_for_rare_labels() -> None:
    random = np.random.default_rng(8)
    truth = np.zeros((600, 3), np.int8)
    truth[:60, 0] = truth[60:120, 1] = 1
    cosines = random.normal(0.1, 0.03, (600, 3)) + np.where(truth == 1, 0.25, 0) + np.array([0.0, 0.3, 0.1])
    seen = np.arange(600) % 2 == 0
    fit = fit_thresholds(cosines.astype(np.float32), truth, seen)
    assert fit.positives.tolist() == [60, 60, 0]
    assert fit.threshold[1] - fit.threshold[0] == pytest.approx(0.3, abs=0.05)
    assert fit.threshold[2] > 0.2 + 2 * 0.03
    assert fit.scores(fit.threshold[None]).tolist() == [[0.5, 0.5, 0.5]]
    result = tagging(cosines.astype(np.float32), truth, fit.scores(cosines), least=5)
    assert (result["labels"], result["labels_with_threshold"]) == (2, 2)
    assert result["precision"] > 0.95 and result["recall"] > 0.9


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
    naive = best_threshold(cosines[400:500, 4], cosines[truth[:, 4] == 0, 4])
    assert fit.threshold[4] < naive - 0.005


def test_the_threshold_is_the_best_of_all_candidates_counted_by_loops() -> None:
    """Rounded cosines, so that photos of both kinds lie on the candidates themselves."""
    random = np.random.default_rng(4)
    for shift in (0.05, 0.1, 0.2):
        background = np.round(random.normal(0.1, 0.05, 400), 2)
        shown = np.round(random.normal(0.1 + shift, 0.05, 60), 2)
        share, found = 60 / 460, []
        candidates = [np.quantile(shown, step / 100) for step in range(99)]
        for candidate in candidates:
            hits = share * sum(value >= candidate for value in shown) / 60
            wrong = (1 - share) * sum(value >= candidate for value in background) / 400
            precision, recall = hits / (hits + wrong), hits / share
            found.append(1.25 * precision * recall / (0.25 * precision + recall))
        best = [c for c, value in zip(candidates, found, strict=True) if value >= max(found) - 1e-3]
        assert best_threshold(shown, background) == pytest.approx(np.median(best))


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
