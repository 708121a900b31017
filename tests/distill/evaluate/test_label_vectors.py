from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from distill.evaluate.label_vectors import ENOUGH, LabelVectors, fit_label_vectors, fold_of
from mobileclip.vectors import Floats, unit_rows

DIM = 16


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def drawn(random: np.random.Generator, count: int = 600) -> tuple[Floats, Any, Floats]:
    """Photos, which of two labels each shows, and prompts that point beside the direction in which these differ."""
    photos = unit_rows(random.normal(size=(count, DIM)) + 1)
    directions = unit_rows(random.normal(size=(2, DIM)))
    truth = ((photos - photos.mean(axis=0)) @ directions.T + random.normal(0, 0.1, (count, 2)) > 0.15).astype(np.int8)
    return photos, truth, unit_rows(directions + 0.3 * random.normal(size=(2, DIM)))


def fit(photos: Floats, truth: Any, prompts: Floats, weights: Any = None, deviation: float = 0.03) -> LabelVectors:
    weights = np.ones(len(photos)) if weights is None else weights
    return fit_label_vectors(photos, truth, prompts, weights, np.arange(len(photos)) % 5, deviation)


def separation(photos: Floats, truth: Any, vectors: Floats) -> float:
    """Mean over labels of how often a photo with the label has a higher cosine than one without."""
    cosines = photos @ vectors.T
    return float(np.mean([(c[t == 1][:, None] > c[t == 0]).mean() for c, t in zip(cosines.T, truth.T, strict=True)]))


def test_vectors_rank_new_photos_better_than_prompts(random: np.random.Generator) -> None:
    photos, truth, prompts = drawn(random, 1200)
    vectors = fit(photos[:600], truth[:600], prompts, deviation=0.1).vectors
    assert separation(photos[600:], truth[600:], vectors) > separation(photos[600:], truth[600:], prompts) + 0.02
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_wide_prior_is_logistic_regression(random: np.random.Generator) -> None:
    photos, truth, prompts = drawn(random)
    weights = random.uniform(0.5, 1.5, len(photos))
    # The scale has its own prior, so both agree in direction only if neither prior weighs anything.
    vectors = fit(photos, truth, prompts, weights, deviation=30.0).vectors
    for label in range(2):
        oracle = LogisticRegression(C=1e6, tol=1e-8, max_iter=10_000)
        oracle.fit(photos, truth[:, label], weights)
        assert float(unit_rows(oracle.coef_)[0] @ vectors[label]) > 0.99


def test_a_narrow_prior_leaves_the_prompts(random: np.random.Generator) -> None:
    photos, truth, prompts = drawn(random)
    np.testing.assert_allclose(fit(photos, truth, prompts, deviation=1e-6).vectors, prompts, atol=1e-4)


def test_a_label_with_few_photos_stays_at_its_prompts(random: np.random.Generator) -> None:
    photos, truth, prompts = drawn(random)
    truth[:, 1] = 0
    truth[: ENOUGH - 1, 1] = 1
    vectors = fit(photos, truth, prompts).vectors
    np.testing.assert_array_equal(vectors[1], prompts[1])
    assert float(vectors[0] @ prompts[0]) < 0.9999
    truth[:, 1] = 1  # nothing to tell it from
    np.testing.assert_array_equal(fit(photos, truth, prompts).vectors[1], prompts[1])


def test_unknown_photos_and_those_without_weight_change_nothing(random: np.random.Generator) -> None:
    photos, truth, prompts = drawn(random)
    truth[::3], weights = -1, np.ones(len(photos))
    weights[1::3] = 0
    whole, part = fit(photos, truth, prompts, weights).vectors, fit(photos[2::3], truth[2::3], prompts).vectors
    np.testing.assert_allclose(whole, part, atol=2e-3)


def test_a_photo_has_no_part_in_the_vectors_of_its_own_cosines(random: np.random.Generator) -> None:
    photos, truth, prompts = drawn(random)
    folds = np.arange(len(photos)) % 5
    before = fit(photos, truth, prompts)
    changed = truth.copy()
    changed[folds == 2] = 1 - changed[folds == 2]
    after = fit(photos, changed, prompts)
    rows = folds == 2
    np.testing.assert_array_equal(before.cosines(photos, folds)[rows], after.cosines(photos, folds)[rows])
    assert not np.allclose(before.cosines(photos, folds)[~rows], after.cosines(photos, folds)[~rows], atol=1e-3)
    for fold in range(5):
        inside = photos[folds == fold] @ before.without[fold].T
        np.testing.assert_allclose(before.cosines(photos, folds)[folds == fold], inside, atol=1e-6)


def test_folds_depend_on_the_name_and_are_about_equal() -> None:
    counts = np.bincount([fold_of(f"photos/{number}.jpg") for number in range(1000)], minlength=5)
    assert len(counts) == 5 and counts.min() > 140
    assert fold_of("a/7.jpg") == fold_of("b/7.jpg") and fold_of("a/\udce9.jpg") in range(5)


def test_without_labels_there_are_no_vectors(random: np.random.Generator) -> None:
    none = np.zeros((4, 0), np.int8)
    assert fit(unit_rows(random.normal(size=(4, DIM))), none, np.zeros((0, DIM), np.float32)).vectors.shape == (0, DIM)
