"""Each loss against NumPy in float64, its symmetric and degenerate cases, and its gradient."""

import numpy as np
import pytest
import torch
from torch import Tensor

from distill.losses import affinity, feature, info_nce, positives, relational

GENERATOR = np.random.default_rng(7)


def unit(*shape: int) -> np.ndarray:
    rows = GENERATOR.normal(size=shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array)


def test_info_nce_of_distinct_pairs_is_clips_loss() -> None:
    image, text, scale = unit(6, 8), unit(6, 8), 13.0
    logits = scale * image @ text.T
    rows = -np.log(np.diag(softmax(logits)))
    columns = -np.log(np.diag(softmax(logits.T)))
    expected = (rows.mean() + columns.mean()) / 2
    got = info_nce(tensor(image), tensor(text), torch.tensor(scale), torch.arange(6))
    assert float(got) == pytest.approx(expected, rel=1e-10)


def test_info_nce_agrees_with_open_clip() -> None:
    from open_clip.loss import ClipLoss

    image, text = tensor(unit(9, 16)), tensor(unit(9, 16))
    theirs = ClipLoss()(image, text, torch.tensor(20.0, dtype=torch.float64))
    assert float(info_nce(image, text, torch.tensor(20.0), torch.arange(9))) == pytest.approx(float(theirs))


def test_info_nce_with_several_positives_and_further_texts() -> None:
    image, text, scale = unit(4, 8), unit(7, 8), 9.0
    groups, text_groups = np.array([0, 1, 0, 2]), np.array([0, 1, 0, 2, -1, -2, 1])
    logits = scale * image @ text.T
    total = 0.0
    for i in range(4):
        mine = text_groups == groups[i]
        total += -np.log(softmax(logits)[i][mine]).mean() / 4
        mine = groups == text_groups[i]
        total += -np.log(softmax(logits[:, :4].T)[i][mine]).mean() / 4
    got = info_nce(tensor(image), tensor(text), torch.tensor(scale), tensor(groups), tensor(text_groups))
    assert float(got) == pytest.approx(total / 2, rel=1e-6)


def test_info_nce_is_symmetric_and_vanishes_for_perfect_pairs() -> None:
    image, text = tensor(unit(5, 8)), tensor(unit(5, 8))
    groups, scale = torch.arange(5), torch.tensor(10.0)
    assert torch.isclose(info_nce(image, text, scale, groups), info_nce(text, image, scale, groups))
    assert float(info_nce(torch.eye(5), torch.eye(5), torch.tensor(100.0), groups)) < 1e-6


def test_a_photo_without_a_positive_text_adds_nothing() -> None:
    targets = positives(torch.tensor([0, 5]), torch.tensor([0, 0, 1]))
    assert targets.tolist() == [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]


def test_affinity_is_the_mean_kl_divergence() -> None:
    student, teacher = GENERATOR.normal(size=(2, 5, 11)) * 3
    p, q = softmax(teacher), softmax(student)
    expected = (p * np.log(p / q)).sum(axis=1).mean()
    assert float(affinity(tensor(student), tensor(teacher))) == pytest.approx(expected, rel=1e-10)
    assert float(affinity(tensor(teacher), tensor(teacher))) == pytest.approx(0, abs=1e-12)


def test_feature_is_two_minus_twice_the_cosine() -> None:
    student, teacher = unit(6, 8), unit(6, 8)
    expected = (2 - 2 * (student * teacher).sum(axis=1)).mean()
    assert float(feature(tensor(student), tensor(teacher))) == pytest.approx(expected, rel=1e-10)


def test_relational_compares_geometries_of_any_width() -> None:
    student, teacher = unit(6, 8), unit(6, 20)
    logits, target = student @ student.T / 0.1, teacher @ teacher.T / 0.05
    np.fill_diagonal(logits, -np.inf)
    np.fill_diagonal(target, -np.inf)
    p, q = softmax(target), softmax(logits)
    off = ~np.eye(6, dtype=bool)
    expected = (p[off] * np.log(p[off] / q[off])).sum() / 6
    assert float(relational(tensor(student), tensor(teacher), 0.1, 0.05)) == pytest.approx(expected, rel=1e-6)
    turn = np.linalg.qr(GENERATOR.normal(size=(8, 8)))[0]
    turned = float(relational(tensor(student @ turn), tensor(student), 0.1, 0.1))
    assert turned == pytest.approx(0, abs=1e-9)


def test_gradients() -> None:
    image, text = (tensor(unit(4, 6)).requires_grad_() for _ in range(2))
    scale = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    groups, teacher = torch.tensor([0, 1, 1, 2]), tensor(unit(4, 6))
    check = torch.autograd.gradcheck
    assert check(lambda i, t, s: info_nce(i, t, s, groups), (image, text, scale))
    assert check(lambda i, t: affinity(4 * i @ t.T, 3 * teacher @ teacher.T), (image, text))
    assert check(lambda i: feature(i, teacher), (image,))
    assert check(lambda i: relational(i, teacher, 0.2, 0.1), (image,))
