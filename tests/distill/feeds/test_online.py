"""Teachers that run at every step."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distill.data.augment import Augmentation, apply
from distill.data.tars import PhotoRef
from distill.feeds.targets import OnlineTargets
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import ModelConfig
from tests.distill.feeds.common import STAGE, TEXTS, online_feed, same
from tests.distill.mixed import TinyTeacher


def test_a_teacher_sees_the_student_s_crop_at_its_own_size(
    home: Path, config: ModelConfig, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Image.Image, Augmentation, int]] = []

    def noted(picture: Image.Image, augmentation: Augmentation, px: int) -> Image.Image:
        seen.append((picture, augmentation, px))
        return apply(picture, augmentation, px)

    monkeypatch.setattr("distill.feeds.corpus.apply", noted)
    feed = online_feed(home, config, tokenizer)
    assert feed.steps(0, STAGE) == 58 // 8 and feed.widths == (24, 16)
    unread = 0
    for batch in feed.batches(0, STAGE, 0):
        crops = [(picture, augmentation) for picture, augmentation, px in seen if px == STAGE.px]
        assert len(crops) == len(batch.pixels) and batch.reference == () and len(batch.tokens) == len(batch.pixels) + 4
        unread += batch.unread
        assert [teacher.scale for teacher in batch.teachers] == [30.0, 31.0]
        for t, teacher in enumerate(feed.targets.teachers):
            views = [apply(picture, augmentation, teacher.px) for picture, augmentation in crops]
            expected = torch.nn.functional.normalize(torch.from_numpy(teacher.encode_pictures(views)), dim=1)
            assert torch.allclose(batch.teachers[t].image, expected, atol=1e-6)
        seen.clear()
    assert 1 <= unread <= 2


def test_online_batches_are_reproducible(home: Path, config: ModelConfig, tokenizer: Tokenizer) -> None:
    alone, helped = (online_feed(home, config, tokenizer, workers) for workers in (0, 2))
    assert same(alone.batches(1, STAGE, 0), helped.batches(1, STAGE, 0))
    assert same(list(alone.batches(0, STAGE, 0))[2:], alone.batches(0, STAGE, 2))
    assert same(alone.batches(0, TEXTS, 0), helped.batches(0, TEXTS, 0))
    assert not torch.equal(next(iter(alone.batches(0, STAGE, 0))).pixels, next(iter(alone.batches(1, STAGE, 0))).pixels)


class Classifier(TinyTeacher):
    """Its classes are the signs of its embeddings' first three numbers."""

    def class_embeddings(self) -> np.ndarray:
        return 2 * np.eye(3, 24, dtype=np.float32)

    def log_posterior(self, photos: Sequence[Path | PhotoRef]) -> torch.Tensor:
        return self.classify_pictures([PhotoRef.of(photo).open() for photo in photos])

    def classify_pictures(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        return torch.from_numpy(self.encode_pictures(pictures)[:, :3]).log_softmax(dim=1)


def test_class_probabilities_are_those_of_the_view(home: Path, config: ModelConfig, tokenizer: Tokenizer) -> None:
    """Only if a loss needs them, because the classifier runs once more."""
    feed = online_feed(home, config, tokenizer)
    teachers = (Classifier(0), TinyTeacher(1, dim=16, px=28))
    for classify in (True, False):
        feed.targets = OnlineTargets(teachers, classify)
        for batch in feed.batches(0, STAGE, 0):
            assert batch.classes is not None and torch.equal(batch.classes, torch.eye(3, 24)), "unit rows"
            if not classify:
                assert batch.posterior is None
                continue
            assert batch.posterior is not None
            expected = batch.teachers[0].image[:, :3].log_softmax(dim=1)
            assert torch.allclose(batch.posterior, expected, atol=1e-5)
    feed.targets = OnlineTargets(teachers, True)
    assert all(batch.posterior is None for batch in feed.batches(0, TEXTS, 0))
