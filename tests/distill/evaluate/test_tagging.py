"""Decisions, calibration and their intervals match plain counting."""

import numpy as np
import pytest

from distill.evaluate.tagging import BINS, Ranking, tagging


def album(seed: int = 0, photos: int = 300, labels: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cosines, truth with unknowns, and calibrated scores."""
    random = np.random.default_rng(seed)
    scores = random.beta(0.5, 2, (photos, labels))
    truth = (random.random((photos, labels)) < scores).astype(np.int8)
    truth[random.random((photos, labels)) < 0.2] = -1
    return (scores - random.normal(0, 0.1, scores.shape)).astype(np.float32), truth, scores


def counted(truth: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """The same rates, computed with loops."""
    hit = given = shown = 0
    precisions, recalls, errors, given_errors = [], [], {}, {}
    decisions = given_decisions = 0
    for label in range(scores.shape[1]):
        own = [0, 0, 0]
        for score, true in zip(scores[:, label], truth[:, label], strict=True):
            if true < 0:
                continue
            cell = min(int(score * 15), 14)
            errors[cell] = errors.get(cell, 0) + score - true
            decisions += 1
            if score >= 0.5:
                given_errors[cell] = given_errors.get(cell, 0) + score - true
                given_decisions += 1
            own[0] += int(score >= 0.5 and true)
            own[1] += int(score >= 0.5)
            own[2] += int(true)
        hit, given, shown = hit + own[0], given + own[1], shown + own[2]
        precisions.append(own[0] / own[1])
        recalls.append(own[0] / own[2])
    return {
        "precision": hit / given,
        "recall": hit / shown,
        "macro_precision": float(np.mean(precisions)),
        "macro_recall": float(np.mean(recalls)),
        "calibration_error": sum(map(abs, errors.values())) / decisions,
        "calibration_error_given": sum(map(abs, given_errors.values())) / given_decisions,
        "tags_per_photo": float((scores >= 0.5).sum(axis=1).mean()),
    }


def test_every_rate_matches_a_count_by_loops() -> None:
    cosines, truth, scores = album()
    got = tagging(cosines, truth, scores)
    assert BINS == 15
    for name, rate in counted(truth, scores).items():
        assert got[name] == pytest.approx(rate), name


def test_every_interval_contains_its_rate() -> None:
    got = tagging(*album())
    rates = {name for name, value in got.items() if isinstance(value, float)}
    assert len(rates) == 8 and set(got["intervals"]) == rates
    for name in rates - {
        "calibration_error",
        "calibration_error_given",
    }:  # resampling only increases a calibration error
        low, high = got["intervals"][name]
        assert low < got[name] < high and high - low < 0.4, name


def test_mean_average_precision_of_a_resample_matches_its_rows() -> None:
    """The bootstrap passes how often each photo was drawn; repeating the rows gives the same result."""
    cosines, truth, _ = album(photos=60)
    random = np.random.default_rng(1)
    for _ in range(30):
        drawn = random.integers(0, 60, 60)
        counted_rows = Ranking(cosines, truth).mean_average_precision(np.bincount(drawn, minlength=60))
        assert counted_rows == pytest.approx(_mean_average_precision(cosines[drawn], truth[drawn]))


def _mean_average_precision(cosines: np.ndarray, truth: np.ndarray) -> float:
    from sklearn.metrics import average_precision_score

    columns = [i for i in range(truth.shape[1]) if (truth[:, i] == 1).any()]
    known = [truth[:, i] >= 0 for i in columns]
    return float(
        np.mean([average_precision_score(truth[k, i] == 1, cosines[k, i]) for i, k in zip(columns, known, strict=True)])
    )


def test_miscalibrated_scores_are_detected() -> None:
    cosines, truth, scores = album(photos=2000)
    calibrated, overconfident = tagging(cosines, truth, scores), tagging(cosines, truth, scores**0.2)
    assert calibrated["calibration_error"] < 0.02 and calibrated["calibration_error_given"] < 0.05
    assert overconfident["calibration_error"] > 0.3 and overconfident["calibration_error_given"] > 0.2
    assert overconfident["map"] == calibrated["map"]


def test_labels_without_a_threshold_are_only_ranked() -> None:
    cosines, truth, scores = album()
    scores[:, 4:] = np.nan
    got = tagging(cosines, truth, scores)
    assert (got["labels"], got["labels_with_threshold"]) == (6, 4)
    assert got["precision"] == pytest.approx(counted(truth[:, :4], scores[:, :4])["precision"])
    assert got["map"] == tagging(cosines, truth)["map"]
    ranked = tagging(cosines, truth)
    assert set(ranked) == {"labels", "map", "intervals"} and set(ranked["intervals"]) == {"map"}


def test_rare_labels_are_left_out() -> None:
    cosines, truth, scores = album()
    truth[:, 0] = 0
    truth[:3, 0] = 1
    assert tagging(cosines, truth, scores, least=5)["labels"] == 5
    assert tagging(cosines, np.zeros_like(truth), scores) == {"labels": 0, "intervals": {}}


def test_nan_cosines_rank_last() -> None:
    truth = np.array([[1], [0], [0], [0]], np.int8)
    assert tagging(np.array([[np.nan], [0.1], [0.2], [0.3]], np.float32), truth)["map"] == 0.25
    assert tagging(np.full((4, 1), np.nan, np.float32), truth)["map"] == 0.25


def test_scores_at_the_threshold_and_at_the_edges_of_bins_match_a_count_by_loops() -> None:
    """0.5 gives a tag, and each bin starts with its lower edge."""
    cosines, truth, scores = album(seed=3)
    scores = np.round(scores * 30) / 30
    assert (scores == 0.5).sum() > 20
    got = tagging(cosines, truth, scores)
    for name, rate in counted(truth, scores).items():
        assert got[name] == pytest.approx(rate), name
